"""`tvg <verb>`: each verb is one call into the package. Rules use the same lines that a person may paste."""

import argparse
import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvg.errors import TvgError
from tvg.parse import PARSERS
from tvg.store import Store

log = logging.getLogger("tvg")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def main(argv: list[str] | None = None) -> int:
    """Run one verb; a TvgError is printed without a traceback."""
    arguments = _parser().parse_args(argv)
    _log_to(arguments.log, arguments.spec.stem if "spec" in arguments else arguments.run.__name__)
    try:
        return arguments.run(arguments) or 0
    except TvgError as error:
        log.error("%s", error)
        return 1
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        log.error("%s", _no_room(error))
        return 1


# ---------------------------------------------------------------- jobs of the workflow: one spec file each


def download(a: argparse.Namespace) -> None:
    from tvg import datasets
    from tvg.sample import write_lines
    from tvg.spec import DatasetIdentity
    from tvg.store import read_spec

    identity, store = read_spec(DatasetIdentity, a.spec), _store(a)
    folder = store.dataset(identity)
    datasets.fetch(identity, folder, a.jobs)
    files = sorted(p.name for p in store.videos(identity).iterdir())
    write_lines(store.fetched(identity), [json.dumps({"dataset": identity.name, "videos": len(files)})])
    log.info("%s: %d videos in %s", identity.name, len(files), folder)


def annotations(a: argparse.Namespace) -> None:
    from tvg import datasets
    from tvg.sample import write_lines, write_samples
    from tvg.spec import SamplesSpec
    from tvg.store import read_spec

    spec, store = read_spec(SamplesSpec, a.spec), _store(a)
    loaded = datasets.load(spec.dataset, spec.split, store.dataset(spec.dataset))
    path = store.samples(spec)
    for what in ("rejected", "clipped"):
        rows = getattr(loaded, what)
        write_lines(path.with_suffix(f".{what}.jsonl"), (json.dumps(row, ensure_ascii=False) for row in rows))
    write_samples(path, loaded.samples)
    counts = len(loaded.samples), len(loaded.clipped), len(loaded.rejected)
    log.info("%s/%s: %d samples (%d clipped to the video), %d rejected", spec.dataset.name, spec.split, *counts)


def tasks(a: argparse.Namespace) -> None:
    from tvg.inversion import annotate
    from tvg.inversion.verbs import extractor
    from tvg.sample import read_samples, write_samples
    from tvg.spec import SamplesSpec
    from tvg.store import read_spec

    spec, store = read_spec(SamplesSpec, a.spec), _store(a)
    without = spec.model_copy(update={"verbs": None, "verbs_version": None})
    annotated = list(annotate(read_samples(store.samples(without)), extractor(spec.verbs)))
    path = store.samples(spec)
    verbless = [sample for sample in annotated if not sample.verbs]
    write_samples(path.with_suffix(".verbless.jsonl"), verbless)
    write_samples(path, annotated)
    log.info("%d queries, %d without a verb: never drawn for an inversion task", len(annotated), len(verbless))


def cache(a: argparse.Namespace) -> None:
    from tvg.spec import FramesSpec
    from tvg.store import read_spec
    from tvg.video.cache import write_shard

    spec, store = read_spec(FramesSpec, a.spec), _store(a)
    folder = store.videos(spec.dataset)
    index = store.shards(spec, a.of)[int(a.shard)]
    write_shard(index, (path.name for path in folder.iterdir()), spec.frames, jobs=a.jobs, video_dir=folder)


def train(a: argparse.Namespace) -> None:
    from tvg.store import read_stage

    spec, store = read_stage(a.spec), _store(a)
    log.info("this stage serves %s", store.served(a.spec.stem))
    _threads(a.threads)
    from tvg.train import grpo, sft

    {"sft": sft, "grpo": grpo}[spec.kind].train(spec, store, _runtime(store))


def evaluate(a: argparse.Namespace) -> None:
    from tvg.spec import EvaluationSpec
    from tvg.store import read_spec

    spec, store = read_spec(EvaluationSpec, a.spec), _store(a)
    log.info("this evaluation serves %s", store.served(a.spec.stem))
    _threads(a.threads)
    from tvg.evaluate.metrics import evaluate
    from tvg.evaluate.predict import predict

    predict(spec, store, _runtime(store))
    evaluate(spec, store)


def table(a: argparse.Namespace) -> None:
    from tvg.report import tables

    for path in tables.write(a.table, a.results):
        log.info("wrote %s", path)


def report(a: argparse.Namespace) -> None:
    from tvg.report import page

    log.info("wrote %s", page.write(a.results, a.name, a.tables))


def track(a: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tvg import track
    from tvg.sample import write_lines

    if a.follow:
        track.follow(a.results, a.uri, parent=a.parent)
        return
    summary = track.sweep(a.results, a.uri)
    if a.summary:
        write_lines(a.summary, [json.dumps(asdict(summary))])


# ---------------------------------------------------------------- commands for people


def frames(a: argparse.Namespace) -> None:
    from tvg.video.decode import describe

    _say(json.dumps(describe(a.video, a.fps)))


def verbs(a: argparse.Namespace) -> int:
    from tvg.inversion.verbs import extractor

    backend = a.backend or _plan().scale.verbs
    extract = extractor(backend)
    return _each_line(lambda row: {"verbs": [verb.lemma for verb in extract(row["text"])], "backend": backend})


def parse(a: argparse.Namespace) -> int:
    return _each_line(lambda row: {"segment": PARSERS[a.format](row["text"])})


def ground(a: argparse.Namespace) -> None:
    import torch

    from tvg.config import read
    from tvg.evaluate.predict import ground
    from tvg.model.load import dtype_for, load, named
    from tvg.spec import Prompt

    plan = _plan()
    prompt = read(Prompt, plan.folder / "prompts", a.prompt)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = load(named(a.model), plan.store, device=device, dtype=dtype_for(plan.scale.runtime.precision, device))
    answer = ground(policy, prompt, a.video, a.query, plan.scale.frames, a.max_new_tokens)
    if a.json:
        _say(json.dumps(answer))
    elif answer["segment"] is None:
        _say(f"no segment in the answer: {answer['completion']!r}")
    else:
        _say("{:.2f} s to {:.2f} s".format(*answer["segment"]))


def show(a: argparse.Namespace) -> None:
    from tvg.report import build, tables

    for name in a.tables:
        _say(tables.as_text(build.build(name, a.results)) + "\n")
    made = [a.results / "tables" / f"{name}.{kind}" for name in a.tables for kind in ("md", "csv")]
    made += [*sorted(a.results.glob("plots/demo/*.png")), a.results / "report" / "demo.html"]
    _say("\n".join(["Written:", *(f"  {path}" for path in made if path.exists())]))
    _say("Every run, with its curves:  make ui")


def ui(a: argparse.Namespace) -> None:
    from tvg import track

    uri, experiment = track.store_uri(a.results), track.sweep(a.results).experiment
    if experiment is None:
        raise TvgError(
            uri, "nothing has been logged yet", got=f"no runs under {a.results}", expected="at least one",
            hint="run `make demo`",
        )  # fmt: skip
    _say(f"Open {track.url(f'http://127.0.0.1:{a.port}', experiment)}\n(Ctrl-C ends the server.)")
    sys.stdout.flush()
    where = ["--backend-store-uri", uri, "--default-artifact-root", str(a.results.resolve().parent / "mlartifacts")]
    os.execvp("mlflow", ["mlflow", "server", *where, "--host", "127.0.0.1", "--port", str(a.port), "--workers", "1"])


# ---------------------------------------------------------------- plumbing


def _no_room(error: OSError) -> TvgError:
    return TvgError(
        error.filename or "disk", "no room left", got=error.strerror, expected="room for results and videos",
        hint="make room and run the same command again: finished steps and the newest checkpoint are kept",
    )  # fmt: skip


def _store(a: argparse.Namespace) -> Store:
    """The store that the spec file lies in: results/{scale}/specs/x.json."""
    return Store(Path(a.spec).parent.parent, getattr(a, "data", None) or "data")


def _plan() -> Any:
    from tvg.config import read_yaml
    from tvg.plan import Plan

    return Plan.load(read_yaml(Path("config/config.yaml")))


def _runtime(store: Store) -> Any:
    """How jobs run at the store's scale; says nothing of what they compute."""
    from tvg.config import Scale, read

    return read(Scale, Path("config/scales"), store.root.name).runtime


def _threads(count: int | None) -> None:
    """Before torch is imported: one job's threads must not take another job's cores."""
    if count:
        os.environ["OMP_NUM_THREADS"] = str(count)
        import torch

        torch.set_num_threads(count)


def _each_line(answer: Callable[[dict], dict]) -> int:
    """JSONL on stdin to JSONL on stdout: order kept, unknown keys passed on, a broken line named, the rest done."""
    broken = 0
    for number, line in enumerate(sys.stdin, 1):
        try:
            row = json.loads(line)
            row |= answer(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            broken += 1
            row = {"line": number, "error": f"{type(error).__name__}: {error}"}
            log.error("line %d: %s", number, row["error"])
        _say(json.dumps(row, ensure_ascii=False))
    return 1 if broken else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _log_to(path: str | None, job: str) -> None:
    """To the terminal and, appended, to the job's log; `job` tells the lines of jobs apart that run side by side."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="a"))
    logging.basicConfig(
        level=logging.WARNING, handlers=handlers, format=f"%(asctime)s {job}: %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("tvg").setLevel(logging.INFO)
    sys.excepthook = lambda *raised: log.critical("unexpected error", exc_info=raised)  # into the job's log too


Verb = Callable[[Callable, str, str], argparse.ArgumentParser]


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="tvg", description="Reinforcement learning for temporal video grounding.")
    verbs_ = top.add_subparsers(required=True, metavar="VERB")

    def verb(run: Callable, text: str, example: str) -> argparse.ArgumentParser:
        example = f"example: tvg {run.__name__} {example}".replace("%", "%%")
        parser = verbs_.add_parser(run.__name__, help=text, description=text, epilog=example)
        parser.set_defaults(run=run)
        parser.add_argument("--log", help="also append what is logged to this file")
        return parser

    _add_jobs(verb)
    _add_reports(verb)
    _add_commands(verb)
    return top


def _add_jobs(verb: Verb) -> None:
    """One spec file in, its place in the store out."""
    for run, text, example in (
        (download, "draw or download a data set's videos", "mini.videos-0123456789ab.json"),
        (annotations, "read a split's annotations into samples", "mini.train-0123456789ab.json"),
        (cache, "decode one shard of a data set's videos", "mini.frames-0123456789ab.json --shard 03 --of 64"),
        (tasks, "extract the verbs of a split's queries", "mini.train.standin-0123456789ab.json"),
        (train, "train one stage", "grpo-0123456789ab.json"),
        (evaluate, "predict and score one evaluation", "charades_test-0123456789ab.json"),
    ):
        parser = verb(run, text, f"results/mini/specs/{example}")
        parser.add_argument("spec", type=Path, help="a spec file, results/{scale}/specs/{id}.json")
        if run in (download, annotations, cache):
            parser.add_argument("--data", type=Path, help="the root of all videos (default: data)")
            parser.add_argument("--jobs", type=int, default=1, help="processes")
        if run is cache:
            parser.add_argument("--shard", required=True, help="which one, from 0")
            parser.add_argument("--of", type=int, required=True, help="how many shards there are")
        if run in (train, evaluate):
            parser.add_argument("--threads", type=int, help="of one job (default: torch's own choice)")


def _add_reports(verb: Verb) -> None:
    """A scale's results folder in; tables, pages, MLflow out."""
    for run, text, example in (
        (table, "write one table", "invert4tvg_2 --results results/mini"),
        (report, "write the report page and its plots", "demo --results results/mini --tables demo"),
        (track, "write everything that has run into MLflow", "--results results/mini"),
        (show, "print tables, and where their files lie", "demo --results results/mini"),
        (ui, "serve MLflow's pages of what has run", "--results results/mini"),
    ):
        parser = verb(run, text, example)
        parser.add_argument("--results", type=Path, required=True, help="the results of one scale")
        if run is table:
            parser.add_argument("table", help="a file of config/tables")
        if run is report:
            parser.add_argument("name", help="of the page")
            parser.add_argument("--tables", nargs="+", required=True)
        if run is show:
            parser.add_argument("tables", nargs="+")
        if run is track:
            parser.add_argument("--uri", help="an MLflow server (default: the results root's mlflow.db)")
            parser.add_argument("--follow", action="store_true", help="go on until stopped")
            parser.add_argument("--parent", type=int, help="with --follow: stop when this process is gone")
            parser.add_argument("--summary", type=Path, help="write what was done here, as JSON")
        if run is ui:
            parser.add_argument("--port", type=int, default=5000)


def _add_commands(verb: Verb) -> None:
    """For people, on one video or on lines of JSON."""
    parser = verb(frames, "say which frames of a video are looked at, and when", "video.mp4 --fps 2 --json")
    parser.add_argument("video", type=Path)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--json", action="store_true", help="one JSON object (the only form there is)")
    parser = verb(
        ground,
        "answer on any video",
        'video.mp4 "a person sits down" --model results/mini/stages/grpo-0123456789ab/model',
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("query")
    parser.add_argument("--model", required=True, help="a model folder, or owner/name@revision on the hub")
    parser.add_argument("--prompt", default="time_r1", help="a file of config/prompts")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    parser = verb(verbs, "the verbs of each line of JSONL", """<<< '{"text": "she sits down"}'""")
    parser.add_argument("--backend", choices=("spacy_sm", "standin"), help="default: the configured scale's")
    parser = verb(
        parse,
        "the segment in each line of JSONL",
        """--format strict_answer <<< '{"text": "<answer>1 to 2</answer>"}'""",
    )
    parser.add_argument("--format", required=True, choices=sorted(PARSERS), help="a rule of tvg.parse")


if __name__ == "__main__":
    sys.exit(main())
