"""Has this machine what the plan needs: folders to write to, room on disk, GPUs, or a cluster that has them?"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tvg.config import read_yaml
from tvg.overview.check.finding import Finding, not_needed, ok, warning, wrong
from tvg.overview.cost import space, weights
from tvg.overview.cost.memory import MIXED, reference
from tvg.overview.cost.sizes import Parameters, parameters, trained
from tvg.overview.forecast import Forecast
from tvg.overview.layout import several, size
from tvg.overview.selection import STAGES, loads
from tvg.overview.text import listed
from tvg.plan import Plan
from tvg.settings import Closed
from tvg.spec import Floor, StageSpec

NEEDS_GPU = 2e8  # parameters; a larger model takes minutes a step on a CPU
SINFO_SECONDS = 15.0


def folders(plan: Plan, found: Forecast) -> Iterator[Finding]:
    """data_root may be read-only where everything is there."""
    results, data = Path(plan.config.results_root), Path(plan.config.data_root)
    yield _writable("results_root", results)
    told = _writable("data_root", data)
    missing = [item.what for item in (*found.downloads, *found.kept) if item.where == "data"] + found.by_hand
    if told.verdict == "WRONG" and not missing:
        told = ok("data_root", f"{data} is read-only, and everything is there")
    yield told


def _writable(what: str, path: Path) -> Finding:
    here = space.room(path)
    if here.is_dir() and os.access(here, os.W_OK | os.X_OK):
        return ok(what, f"{path} can be written" + ("" if here == path else " (it will be made)"))
    told = "is not a folder" if not here.is_dir() else "may not be written"
    return wrong(what, f"{here} {told}", f"set {what} in config/config.yaml to a folder of yours")


def disk(plan: Plan, found: Forecast) -> Iterator[Finding]:
    """Room for what will be downloaded and kept, and for one training's checkpoints: one line a disk."""
    places = {
        "data": ("data_root", Path(plan.config.data_root)), "results": ("results_root", Path(plan.config.results_root)),
        "cache": ("HF_HOME", weights.cache()),
    }  # fmt: skip
    items = [*found.kept, *([found.checkpoints] if found.checkpoints else [])]
    disks: dict[int, list[str]] = {}
    for where, (_, path) in places.items():
        if any(item.where == where for item in items):
            disks.setdefault(space.room(path).stat().st_dev, []).append(where)
    if not disks:
        yield not_needed("disk", "nothing more will be kept")
    for wheres in disks.values():
        mine, paths = [item for item in items if item.where in wheres], [places[where][1] for where in wheres]
        free = shutil.disk_usage(space.room(paths[0])).free
        needed, unknown = space.total(mine)
        of = listed([str(path) for path in paths])
        rest = f", and {several(len(unknown), 'thing')} of unknown size" if unknown else ""
        told = f"{of}: {size(free)} free, {size(needed)} needed{rest} (`tvg plan` says for what)"
        if free >= needed:
            yield ok("disk", told)
        else:
            dials = listed([places[where][0] for where in wheres], "or")
            yield wrong("disk", told, f"make room, or set {dials} to a larger disk")


# ---------------------------------------------------------------- GPUs


def gpus(plan: Plan, jobs: list[Closed]) -> Iterator[Finding]:
    """How many, of what memory; on a login node, what SLURM has."""
    here = _gpus_here()
    large = [job for job in jobs if _is_large(job)]
    if not large:
        told = f"{several(len(here), 'GPU')} here" if here else "none here"
        yield not_needed("GPU", f"{told}; no model of the plan is large enough to need one")
        return
    if here:
        name, memory = here[0]
        yield ok("GPU", f"{len(here)} x {name}, {size(memory)} each; a stage trains on one")
        yield from _memory(large, memory)
        return
    yield _on_slurm(plan)


def _is_large(job: Closed) -> bool:
    model = loads(job)
    if model is None or isinstance(model, Floor):
        return False
    counts = parameters(model)
    return counts is None or counts.total > NEEDS_GPU


def _gpus_here() -> list[tuple[str, int]]:
    """Name and bytes of every GPU that torch sees."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [torch.cuda.get_device_properties(k) for k in range(count)]
    return [(gpu.name, gpu.total_memory) for gpu in found]


def _memory(jobs: list[Closed], memory: int) -> Iterator[Finding]:
    """What must lie in a GPU's memory before the first activation, for the largest training."""
    stages = [job for job in jobs if isinstance(job, STAGES) and parameters(job.init)]
    if not stages:
        return
    most = max(stages, key=lambda spec: resident(spec, parameters(spec.init)))
    needed = resident(most, parameters(most.init))
    told = f"weights, gradients, AdamW's moments and reference of a {most.kind} stage: {size(needed)}"
    if needed < memory:
        yield ok("GPU memory", f"{told}; activations come on top")
    else:
        yield wrong(
            "GPU memory", f"{told}, and a GPU here has {size(memory)}", "use a larger GPU, or train with `lora:`"
        )


def resident(spec: StageSpec, counts: Parameters) -> int:
    """Bytes of a training on one GPU without activations: see tvg.train.stage."""
    learning = trained(spec, counts)
    base = counts.total * (space.SINGLE if spec.lora is None else space.HALF)
    return base + learning * 3 * space.SINGLE + reference(spec, counts, MIXED)


def _on_slurm(plan: Plan) -> Finding:
    """No GPU here: will jobs of a cluster see one?"""
    if shutil.which("sinfo") is None:
        return wrong(
            "GPU", "none here, and no SLURM (`sinfo`)", "run on a machine with a GPU: --config scale=mini needs none"
        )
    rows, problem = _partitions()
    if problem:
        return wrong(
            "GPU", f"none here, and SLURM does not answer: {problem}", "mend SLURM until `sinfo` lists partitions"
        )
    with_gpus = {name: gres for name, gres in rows if "gpu" in gres}
    if not with_gpus:
        names = listed([name for name, _ in rows])
        return wrong(
            "GPU",
            f"none here, and no partition lists one ({names})",
            "ask who runs the cluster: `sinfo -o '%P %G'` must list a gpu",
        )
    unknown = _asked_partitions(plan) - {name for name, _ in rows}
    told = "; ".join(f"{name}: {gres}" for name, gres in with_gpus.items())
    if unknown:
        return warning(
            "GPU", f"none here; SLURM has them ({told}), but no partition {listed(sorted(unknown), 'or')}",
            f"set slurm_partition in {plan.folder}/profiles/slurm/config.yaml",
        )  # fmt: skip
    return ok("GPU", f"none here; jobs of SLURM will see them ({told})")


def _partitions() -> tuple[list[tuple[str, str]], str | None]:
    """(partition, what it has beside processors) of every line of sinfo; or why there are none."""
    try:
        done = subprocess.run(
            ["sinfo", "-h", "-o", "%R|%G"], capture_output=True, text=True, timeout=SINFO_SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        return [], (error.stderr or f"exit code {error.returncode}").strip().splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], str(error)
    rows = [line.partition("|") for line in done.stdout.splitlines()]
    return [(name.strip(), gres.strip()) for name, _, gres in rows], None


def _asked_partitions(plan: Plan) -> set[str]:
    """The partitions that the SLURM profile submits to."""
    path = plan.folder / "profiles" / "slurm" / "config.yaml"
    if not path.exists():
        return set()
    profile = read_yaml(path)
    blocks = [profile.get("default-resources") or {}, *(profile.get("set-resources") or {}).values()]
    return {block["slurm_partition"] for block in blocks if isinstance(block, dict) and "slurm_partition" in block}
