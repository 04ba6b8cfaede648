"""TaRO's probe: which frames are shuffled, what the drop of the log-probability is, what a training makes of it."""

from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training import DATA, FPS, QUICK, SECONDS, frozen, graded, grpo_spec, make_store, untrained, weights_of
from tvg.model.load import load
from tvg.model.question import context, visible
from tvg.model.shared import SharedPolicy
from tvg.prompts import render
from tvg.sample import Sample
from tvg.segment import Segment
from tvg.settings import RewardSettings
from tvg.train import grpo, probes
from tvg.train.record import Metrics
from tvg.train.signals import Stop
from tvg.train.stage import Job
from tvg.video.cache import FrameCache

TEMPORAL = {"format": RewardSettings(weight=1.0), "temporal": RewardSettings(weight=0.3, within=1.0)}
times = st.floats(-5, 40)


# ------------------------------------------------------------ which frames


@given(
    st.integers(1, 80),
    st.sampled_from([0.2, 1.0, 2.0, 25.0]),
    st.lists(st.builds(Segment, times, times), min_size=1, max_size=3),
    st.floats(0.1, 5),
    st.integers(0, 2**63 - 1),
)
def test_only_frames_near_a_boundary_move_and_none_is_lost(count, fps, segments, within, seed):
    order = probes.shuffled(count, fps, segments, within, seed)
    assert sorted(order) == list(range(count))
    near = {k for k in range(count) if any(abs(k / fps - time) <= within + 1e-6 for s in segments for time in s)}
    assert {k for k, frame in enumerate(order) if k != frame} <= near
    assert order == probes.shuffled(count, fps, segments, within, seed)


def test_exactly_the_frames_within_reach_move():
    """At 2 FPS, 1 s around 3 s and around 9 s: frames 4 to 8 and 16 to 20, each among themselves."""
    seen = {k: set() for k in range(30)}
    for seed in range(300):
        for k, frame in enumerate(probes.shuffled(30, 2.0, [Segment(3.0, 9.0)], 1.0, seed)):
            seen[k].add(frame)
    start, end = set(range(4, 9)), set(range(16, 21))
    assert all(seen[k] == (start if k in start else end if k in end else {k}) for k in range(30))


def test_frames_near_both_boundaries_move_twice():
    """Frames 4 to 8 change places, then 6 to 10: one from 4 may end at 10, one from 10 cannot come to 4."""
    orders = [probes.shuffled(20, 2.0, [Segment(3.0, 4.0)], 1.0, seed) for seed in range(500)]
    assert {order[10] for order in orders} == set(range(4, 11)) and {order[4] for order in orders} == set(range(4, 9))


def test_a_single_frame_within_reach_stays():
    assert probes.shuffled(20, 0.25, [Segment(8.0, 40.0)], 3.0, 1) == list(range(20))


# ------------------------------------------------------------ the probe, on a tiny model


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job of three ground samples and one inversion sample; two passes over the data."""
    store, spec = make_store(tmp_path_factory.mktemp("probe")), grpo_spec(rewards=TEMPORAL)
    truth = (Segment(2.1, 5.4),)
    samples = [
        Sample("whole", "toy-0.mp4", float(SECONDS), "a person runs.", truth),
        Sample("clip", "toy-1.mp4", 4.0, "a person runs.", (Segment(2.0, 9.9),), clip=Segment(3.0, 7.0)),
        Sample("verb", "toy-2.mp4", float(SECONDS), "a person runs.", truth, None, "recognise_action", ("run",)),
    ]
    frames = FrameCache(store.frames(DATA.frames))
    policy = load(spec.init, store, device="cpu", dtype=torch.float32)
    policy.model.eval()
    turns = [list(range(2 * len(samples)))]
    return Job(spec, QUICK, store.root, "cpu", policy, samples * 2, [], None, frames, len(samples), turns, None, Stop())


def of(job, **settings) -> probes.ShuffledFrames:
    rewards = {"temporal": RewardSettings(weight=1.0, **settings)}
    return probes.ShuffledFrames(replace(job, spec=job.spec.model_copy(update={"rewards": rewards})))


def true_context(job, position):
    sample = job.order[position]
    return context(job.policy, job.spec.prompt, sample, job.frames[sample.video])


def measured(job, probe, positions, completions, at_once=8):
    made = {position: true_context(job, position) for position in positions}
    with torch.no_grad():
        return probe(positions, [made[position] for position in positions], completions, 1.0, at_once)


def test_pictures_move_and_times_and_words_stay(job):
    probe, true = of(job, within=1.0), true_context(job, 0)
    moved = probe.perturbed(0)
    assert torch.equal(moved.input_ids, true.input_ids) and moved.grid == true.grid
    assert moved.seconds_per_grid == true.seconds_per_grid and not torch.equal(moved.pixels, true.pixels)
    assert torch.equal(moved.pixels, probe.perturbed(0).pixels), "the same shuffle whenever it is made"
    assert not torch.equal(moved.pixels, probe.perturbed(3).pixels), "its own in each epoch"
    pairs = true.pixels.view(true.grid[0], -1), moved.pixels.view(true.grid[0], -1)
    changed = [k for k in range(true.grid[0]) if not torch.equal(pairs[0][k], pairs[1][k])]
    assert set(changed) <= {1, 2, 3, 4, 5, 6} and changed  # pairs of frames 3 to 6 and 9 to 12


def test_what_is_made_ahead_on_threads_is_what_is_made_when_asked_for(job):
    ahead, asked = of(replace(job, device="cuda")), of(job)
    for position in range(6):
        made, expected = ahead.perturbed(position), asked.perturbed(position)
        assert (made is None) == (expected is None) == (position in (2, 5))
        assert made is None or torch.equal(made.pixels, expected.pixels)


def test_boundaries_count_from_the_start_of_the_clip_and_end_with_it(job, monkeypatch):
    asked = []
    monkeypatch.setattr(probes, "shuffled", lambda *args: asked.append(args) or list(range(args[0]))[::-1])
    moved, sample = of(job)._perturb(1), job.order[1]
    seen = visible(sample, job.frames[sample.video])
    assert asked == [(len(seen), float(FPS), [Segment(2.0, 4.0)], 3.0, job.seed_at(1, "shuffle"))]
    backwards = replace(seen, pixels=np.ascontiguousarray(seen.pixels[::-1]))
    expected = job.policy.encode_group(render(job.spec.prompt, sample), backwards)
    assert len(seen) == 8 and torch.equal(moved.pixels, expected.pixels)


def test_the_drop_is_the_mean_over_all_response_tokens(job):
    completions = [[40, 50, 60, 70], [45, 55], [65], [75, 76, 77]]
    positions, probe = [0, 0, 2, 1], of(job, within=1.0)
    drops = measured(job, probe, positions, completions)
    assert drops[2] is None, "an inversion task has no boundary to shuffle"
    for row in (0, 1, 3):
        ids = torch.tensor([completions[row]])
        contexts = true_context(job, positions[row]), probe.perturbed(positions[row])
        with torch.no_grad():
            true, other = (job.policy.score([c], ids, torch.ones_like(ids)).logps for c in contexts)
        assert drops[row] == pytest.approx((true - other).mean().item(), abs=1e-5) and abs(drops[row]) > 1e-6
    assert measured(job, probe, positions, completions, at_once=1) == pytest.approx(drops, abs=1e-5)


def test_the_drop_of_an_unperturbed_video_is_zero(job, monkeypatch):
    probe, completions = of(job), [[40, 50, 60], [45, 55]]
    monkeypatch.setattr(probe, "perturbed", lambda position: true_context(job, position))
    assert measured(job, probe, [0, 0], completions) == [0.0, 0.0]
    monkeypatch.setattr(probes, "shuffled", lambda count, *_: list(range(count)))
    monkeypatch.setattr(SharedPolicy, "score", lambda *_, **__: pytest.fail("there is nothing to compare"))
    assert measured(job, of(job), [0, 0], completions) == [0.0, 0.0]


def test_the_reasoning_alone(job):
    tokenizer, probe = job.policy.tokenizer, of(job, tokens="think")
    think = tokenizer("<think>a person runs", add_special_tokens=False)["input_ids"]
    rest = tokenizer("</think> <answer>1 to 2</answer>", add_special_tokens=False)["input_ids"]
    assert probe._counted(think + rest + [tokenizer.eos_token_id]) == think
    assert probe._counted(think) == think, "reasoning without an end is all there is"
    drops = measured(job, probe, [0, 0, 0], [think + rest, think, rest])
    assert drops[0] == pytest.approx(drops[1], abs=1e-6) and drops[2] is None
    assert abs(measured(job, of(job), [0], [think + rest])[0] - drops[0]) > 1e-6


# ------------------------------------------------------------ in a training


def completions(folder) -> pandas.DataFrame:
    return pandas.read_parquet(folder / "completions" / "step-000001.parquet")


def test_a_training_pays_for_the_drop_and_writes_it_down(tmp_path, monkeypatch):
    seen, scored, score = [], [], SharedPolicy.score

    def watched(self, contexts, *args, **kwargs):
        scored.append((torch.is_grad_enabled(), self.model.training, contexts))
        return score(self, contexts, *args, **kwargs)

    def noted(rewards, rollout, *rest):
        seen.append(rollout)
        return graded(rewards, rollout, *rest) | ({} if rollout.logprob_drop is not None else {"temporal": None})

    monkeypatch.setattr(SharedPolicy, "score", watched)
    monkeypatch.setattr(grpo, "score", noted)
    tasks = {"ground": 0.5, "describe": 0.5}
    spec = grpo_spec(steps=1, prompts_per_step=6, beta=0.0, rewards=TEMPORAL, tasks=tasks)
    folder = grpo.train(spec, make_store(tmp_path), QUICK, "cpu")
    table = completions(folder)
    asked = table["task"] == "ground"
    assert asked.any() and not asked.all()
    assert (table["logprob_drop"].notna() == asked).all() and (table["rewards/temporal"].notna() == asked).all()
    assert table["logprob_drop"][asked].nunique() > 1
    assert [rollout.logprob_drop for rollout in seen] == table["logprob_drop"].replace({np.nan: None}).tolist()
    means = table.groupby("id", sort=False)["logprob_drop"].transform("mean")
    assert [r.group_drop for r in seen if r.group_drop is not None] == pytest.approx(means[asked].tolist())
    row = Metrics(folder).rows()[0]
    assert row["train/probe_seconds"] > 0
    assert row["train/logprob_drop"] == pytest.approx(table["logprob_drop"].mean())
    probed = [contexts for gradient, training, contexts in scored[2:] if not gradient and not training]
    groups = table["id"][asked].nunique()
    assert sum(map(len, probed)) == 2 * spec.num_generations * groups
    assert len({id(c) for contexts in probed for c in contexts}) == 2 * groups, "a group shares one perturbed video"
    before, after = untrained(spec), weights_of(folder)
    assert all(torch.equal(after[name], before[name]) == frozen(name) for name in after)


def test_no_probe_without_the_reward(tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "score", graded)
    monkeypatch.setattr(grpo, "ShuffledFrames", lambda _: pytest.fail("nobody asks for it"))
    folder = grpo.train(grpo_spec(steps=1), make_store(tmp_path), QUICK, "cpu")
    assert "logprob_drop" not in completions(folder) and "train/probe_seconds" not in Metrics(folder).rows()[0]
