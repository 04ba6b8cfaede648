# The whole workflow: videos -> frames -> tasks -> trained stages -> evaluations -> tables -> MLflow.
# What is run is said in config/; how each step works, in src/tvg; each chapter below is one step, in run order.

import signal

from snakemake.utils import min_version

from tvg.plan import Plan

min_version("9.0")

# SLURM's warning signal reaches every process of a job step: the trainer saves on it, Snakemake must not die of it.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)


configfile: "config/config.yaml"


plan = Plan.load(config)
ROOT = plan.store.root
DATA = plan.store.data
SHARDS = plan.scale.shards

if plan.notice and workflow.is_main_process:
    logger.info(plan.notice)


wildcard_constraints:
    dataset=r"[a-z0-9_]+\.videos-[0-9a-f]{12}",
    annotations=r"[a-z0-9_]+\.[a-z0-9_]+-[0-9a-f]{12}",
    samples=r"[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+-[0-9a-f]{12}",
    frames=r"[a-z0-9_]+\.frames-[0-9a-f]{12}",
    shard=r"\d\d+",
    stage=r"(sft|grpo|awbc)-[0-9a-f]{12}",
    chosen=r"(filter|collect)-[0-9a-f]{12}",
    evaluation=r"[a-z0-9_]+-[0-9a-f]{12}",
    table=r"[a-z0-9_]+",
    pages=r"demo|all",


onstart:
    plan.freeze()


# Here, and not in an included file: Snakemake forgets the default target of those.
rule all:
    """Every table, figure and plot of the configured experiments, the report, and MLflow."""
    default_target: True
    input:
        f"{ROOT}/track/all.json",


include: "rules/targets.smk"
include: "rules/download.smk"
include: "rules/frames.smk"
include: "rules/tasks.smk"
include: "rules/train.smk"
include: "rules/select.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/track.smk"
