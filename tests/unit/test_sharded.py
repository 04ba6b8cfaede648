"""What learning takes on several GPUs, on the CPU: moments in shares, gradients once, a reference in half precision."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from tests.training import QUICK, graded, grpo_spec, make_store, untrained, weights_of
from tests.unit.test_processes import ENVIRONMENT, store_of
from tests.unit.tiny_model import asked, tiny
from tvg.model.adapt import apply
from tvg.model.plain import PlainPolicy
from tvg.model.shared import SharedPolicy
from tvg.settings import Optimiser
from tvg.train import grpo, launch, processes
from tvg.train.parallel import KEPT, owners
from tvg.train.record import Metrics
from tvg.train.signals import Interrupted

SPEC = grpo_spec(prompts_per_step=4, learning_rate=1e-4, loss_type="bnpo", steps=3)
STOPPED = 2  # the step after which some are asked to stop
RESUMED = ("two to two", "two to one", "one to two")  # processes before and after
SHARDED = QUICK.model_copy(update={"shard_optimizer": True, "rollouts_per_pass": 4, "precision": "float32"})


def train(root: Path, name: str, device: str = "cpu") -> Path:
    grpo.score = graded
    return grpo.train(SPEC, store_of(root, name), SHARDED, device)


def stopped(root: Path, name: str, device: str = "cpu") -> None:
    """Train, and have every process stop in the step after STOPPED."""
    loss = grpo.VideoGrpo._compute_loss

    def interrupted(self, model, inputs):
        if self.state.global_step == STOPPED:
            raise Interrupted(signal.SIGTERM)
        return loss(self, model, inputs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(grpo.VideoGrpo, "_compute_loss", interrupted)
        train(root, name, device)


def watched(root: Path, name: str) -> None:
    """Train, and write down where each pass finds the gradients, and what the optimizer keeps in the end."""
    trainers, places, loss = [], [], grpo.VideoGrpo._compute_loss

    def looked_at(self, model, inputs):
        gradients = [weight.grad for weight in self._learning().values()]
        buckets = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in gradients}
        places.append([[one.data_ptr() for one in gradients], sum(buckets.values()), len(buckets)])
        trainers[:] = [self]
        return loss(self, model, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.VideoGrpo, "_compute_loss", looked_at)
        train(root, name)
    (trainer,) = trainers
    kept = [state for state in trainer.optimizer.optimizer.state.values() if state]
    told = {
        "places": places,
        "learning": sum(weight.numel() for weight in trainer._learning().values()),
        "kept": [sum(state[part].numel() for state in kept) for part in KEPT],
        "kind": type(trainer.optimizer.optimizer).__name__,
    }
    (root / f"told-{processes.rank()}.json").write_text(json.dumps(told))


def all_of(root: Path) -> None:
    """What two processes do; `one to two` has been begun by one."""
    with processes.joined("cpu"):
        watched(root, "two")
        for name in ("two to two", "two to one"):
            stopped(root, name)
        for name in ("two to two", "one to two"):
            train(root, name)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Trainings in one process and in two, stopped, and gone on with in as many or in others."""
    root = tmp_path_factory.mktemp("sharded")
    for name in ("one", "two", *RESUMED):
        make_store(root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "score", graded)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        train(root, "one")
        stopped(root, "one to two")
        shutil.copytree(checkpoint(root, "one to two"), root / "by one")
        code = "import sys; from tests.unit.test_sharded import *; all_of(Path(sys.argv[1]))"
        assert launch.launch([sys.executable, "-c", code, str(root)], 2) == 0
        shutil.copytree(checkpoint(root, "two to one"), root / "by two")
        train(root, "two to one")
    return root


def folder(root: Path, name: str) -> Path:
    return store_of(root, name).stage(SPEC)


def checkpoint(root: Path, name: str) -> Path:
    return folder(root, name) / "checkpoints" / f"checkpoint-{STOPPED}"


@pytest.mark.parametrize("name", ["two", *RESUMED])
def test_sharded_or_not_and_resumed_by_any_number_it_is_the_same_training(root, name):
    rows = [Metrics(folder(root, each)).rows() for each in ("one", name)]
    assert [row["step"] for row in rows[1]] == [1, 2, 3]
    for mine, theirs in zip(*rows, strict=True):
        for key in mine:
            if not (key == "time" or key.endswith(("seconds", "per_second"))):
                assert theirs[key] == pytest.approx(mine[key], rel=2e-5, abs=2e-7), key
    before, one, other = untrained(SPEC), weights_of(folder(root, "one")), weights_of(folder(root, name))
    moved = sum((one[key] - before[key]).square().sum() for key in before).sqrt()
    apart = sum((one[key] - other[key]).square().sum() for key in before).sqrt()
    assert moved > 0 and apart <= 1e-3 * moved


def test_a_checkpoint_does_not_tell_how_many_processes_wrote_it(root):
    one, two = (torch.load(root / name / "optimizer.pt", weights_only=True) for name in ("by one", "by two"))
    assert one["param_groups"] == two["param_groups"] and one["state"].keys() == two["state"].keys()
    for name, mine in one["state"].items():
        theirs = two["state"][name]
        assert mine.keys() == theirs.keys() == set(KEPT) and mine["step"] == theirs["step"] == STOPPED
        assert all(mine[part].dtype == theirs[part].dtype for part in KEPT)
        for part in KEPT[1:]:
            assert torch.allclose(mine[part], theirs[part], rtol=1e-3, atol=1e-3 * mine[part].abs().max().item())


def test_each_process_keeps_the_moments_of_its_share(root):
    told = [json.loads((root / f"told-{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["kind"] for one in told] == ["ShardedAdamW"] * 2
    for part in (1, 2):
        kept = [one["kept"][part] for one in told]
        assert sum(kept) == told[0]["learning"] and max(kept) < 0.6 * told[0]["learning"]


def test_gradients_lie_in_the_buckets_from_the_first_pass_to_the_last(root):
    for rank in (0, 1):
        told = json.loads((root / f"told-{rank}.json").read_text())
        assert len(told["places"]) == 2 * SPEC.steps, "two passes a step"
        first, size, buckets = told["places"][0]
        assert all(place == [first, size, buckets] for place in told["places"])
        assert size == 4 * told["learning"] and buckets < len(first)


def test_the_largest_weights_are_dealt_first():
    assert owners([1, 7, 4, 1, 1], 2) == [1, 0, 1, 1, 1] and owners([3, 2], 1) == [0, 0] and owners([1], 3) == [0]


# ------------------------------------------------------------ the reference


@pytest.mark.parametrize("kind", [PlainPolicy, SharedPolicy])
@pytest.mark.parametrize("tied", [True, False])
def test_under_autocast_a_reference_in_half_precision_scores_as_the_model_does(kind, tied):
    policy = tiny()
    model = apply(policy.model, Optimiser())
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.03 * torch.randn_like(weight))  # no value of bfloat16
    policy, reference = kind(model, policy.tokenizer), grpo.frozen_copy(model, torch.bfloat16)
    context = asked(policy, "When does a person jump?")
    ids = torch.randint(10, 50, (3, 7))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        one, other = (policy.score([context] * 3, ids, torch.ones_like(ids), model=each) for each in (model, reference))
    assert torch.equal(one.logps, other.logps)

    learning = dict(model.named_parameters())
    for name, weight in reference.named_parameters():
        assert not weight.requires_grad and (weight is learning[name]) != learning[name].requires_grad, name
        whole = any(part in name for part in ("norm", "ln_q", "embed_tokens")) or not learning[name].requires_grad
        assert weight.dtype == (torch.float32 if whole else torch.bfloat16), name
