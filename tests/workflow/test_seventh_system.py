"""A seventh system is files under config/ alone: VideoChat-R1 is planned, trained, evaluated and set into its table."""

import json

import pytest

from tests.workflow.small import small, snakemake
from tvg.overview.sources import unsourced

pytestmark = pytest.mark.workflow

PROMPT = """\
# VideoChat-R1's temporal grounding asks what TimeZero asks (systems.md 2.4), here in wording of our own.
texts:
  ground: |
    When in the video does this happen: "{query}"? First reason inside <think> </think>, naming the times that matter.
    Then give the start and the end in seconds, two decimals each, joined by the word "to", inside <answer> </answer>,
    for example <answer>12.54 to 17.83</answer>.
answer: {format: fmt_ta, reward: ans_last, legacy: whole_last}
"""

EXPERIMENT = """\
# VideoChat-R1 (arXiv:2504.06958): GRPO on temporal grounding, and the weights that its authors have released.
paper: arXiv:2504.06958
prompt: videochat_r1
rewards:
  format: {weight: 1.0}                        # released code, systems.md 2.4
  tiou: {weight: 1.0}                          # released code, systems.md 2.4
stages:
  grpo:
    kind: grpo
    data: charades_train
    epochs: 1                                  # released code, systems.md 2.4
    prompts_per_step: 8                        # released code, systems.md 2.4: 8 GPUs, each with one prompt
    num_generations: 8                         # released code, systems.md 2.4
    temperature: 1.0                           # released code, systems.md 2.4
    max_completion_tokens: 1024                # released code, systems.md 2.4
    learning_rate: 1.0e-6                      # TRL's default, systems.md 8 row 2
    beta: 0.04                                 # TRL's default, systems.md 8 row 2
  sft: {kind: sft, data: charades_train, epochs: 1, learning_rate: 2.0e-5}   # released code, systems.md 2.4
evaluate: grpo
benchmarks: [charades_test]
arms:
  sft: {evaluate: sft}
  released: {base: {hub: OpenGVLab/VideoChat-R1_7B, revision: main}, evaluate: base, scales: [7b]}   # released weights
"""
MINE = "experiments=[videochat_r1-main,videochat_r1-released]"
TABLE = "tables/arms_videochat_r1_charades_test.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A workplace with two files more, and two steps a training."""
    folder = small(tmp_path_factory.mktemp("seventh"))
    for kind, text in (("prompts", PROMPT), ("experiments", EXPERIMENT)):
        path = folder / "config" / kind / "videochat_r1.yaml"
        assert not path.exists()
        path.write_text(text)
        assert unsourced(path) == [], "every number says where it is from"
    scale = folder / "config" / "scales" / "mini.yaml"
    scale.write_text(scale.read_text().replace("steps: 3", "steps: 2"))
    return folder


def jobs(folder, *dials):
    """rule -> how many jobs a dry run of every table plans."""
    stats = snakemake(folder, "-n", "tables", "--config", *dials).stdout.split("Job stats:")[1]
    rows = [line.split() for line in stats.splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def test_at_7b_it_is_trained_and_the_released_weights_are_evaluated(folder):
    planned = jobs(folder, "scale=7b", MINE)
    assert (planned["train"], planned["evaluate"]) == (1, 2)


def test_at_mini_it_is_trained_evaluated_and_in_its_table(folder):
    planned = jobs(folder, MINE)
    assert (planned["train"], planned["evaluate"]) == (2, 1), (
        "the base model and its training; the released are too large"
    )
    snakemake(folder, "tables", "--config", MINE)
    root = folder / "results" / "mini"
    [trained] = root.glob("stages/grpo-*")
    steps = [json.loads(line) for line in (trained / "metrics.jsonl").open()]
    assert sum("train/loss" in row for row in steps) == 2 and (trained / "model.done").exists()
    rollouts = json.loads((trained / "spec.json").read_text())
    assert rollouts["rewards"].keys() == {"format", "tiou"}
    assert "two decimals each" in rollouts["prompt"]["texts"]["ground"]
    [scored] = root.glob("evaluations/charades_test-*/metrics.json")
    assert json.loads(scored.read_text())
    rows = (root / TABLE).read_text().splitlines()
    assert any(row.startswith("| main |") and "not run" not in row for row in rows), rows
