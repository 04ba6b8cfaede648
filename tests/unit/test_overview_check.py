"""`tvg check`: each thing that is wrong is found, and comes with what mends it."""

import json
import os
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.test_overview_forecast import base, chain, grpo, make  # noqa: F401 - fixtures
from tests.unit.test_overview_sizes import REVISION
from tvg import cli
from tvg.overview import check
from tvg.overview.check import installed, machine, outside
from tvg.overview.cost import reach
from tvg.overview.forecast import forecast
from tvg.settings import Lora
from tvg.spec import DatasetIdentity, HubModel, PathModel


@pytest.fixture
def server():
    """server(path -> status) -> address of a web server on this machine; other paths are 404."""
    running = []

    def start(answers):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(answers.get(self.path, 404))
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        running.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}"

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


@pytest.fixture
def sinfo(tmp_path, monkeypatch):
    """sinfo(output, code) puts a program of that name on the path; None takes it away."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make_program(output, code=0):
        path = folder / "sinfo"
        path.write_text(f"#!/bin/sh\n{'echo' if code == 0 else '>&2 echo'} '{output}'\nexit {code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return make_program


def verdicts(findings):
    return {one.what: one.verdict for one in findings}


# ---------------------------------------------------------------- what is installed


def test_every_library_is_as_pinned_or_named():
    found = list(installed.libraries())
    assert found[0].what == "libraries" and found[0].detail.endswith("as pinned")
    assert installed.python().verdict == "ok"


@pytest.mark.parametrize(
    ("name", "version", "verdict"),
    [("transformers", "5.18.0", "warning"), ("transformers", "5.16.9", "WRONG"), ("trl", "1.17.0", "WRONG"),
     ("torch", "2.13.0+cu130", "ok"), ("torch", "2.10.0", "WRONG"), ("spacy", None, "WRONG"),
     ("numpy", "2.5.0", "warning"),
     ("eva-decord", "0.6.1", "WRONG")],
)  # fmt: skip
def test_other_versions(monkeypatch, name, version, verdict):
    real = installed._version
    monkeypatch.setattr(installed, "_version", lambda asked: version if asked == name else real(asked))
    found = [one for one in installed.libraries() if one.what == name]
    assert [one.verdict for one in found] == ([] if verdict == "ok" else [verdict])
    assert all(one.mend.startswith("pip ") for one in found)


def test_the_verb_back_end_that_the_plan_uses(make, monkeypatch):  # noqa: F811
    monkeypatch.setattr(installed, "_version", lambda name: "3.7.1" if name == "en_core_web_sm" else "1")
    (found,) = installed.verbs([grpo(make("3b"))])
    assert found.verdict == "WRONG" and "3.7.1, not 3.8.0" in found.detail and "pip install https://" in found.mend
    monkeypatch.setattr(installed, "_version", lambda name: "3.8.0")
    assert [one.verdict for one in installed.verbs([grpo(make("3b"))])] == ["ok"]
    assert verdicts(installed.verbs([base(make())])) == {
        "spaCy's en_core_web_sm": "not needed", "HanTa and lemminflect": "ok"}  # fmt: skip


# ---------------------------------------------------------------- this machine


def test_folders(make):  # noqa: F811
    Path("a_file").write_text("")
    plan = make(results_root="a_file/results", data_root="a_file/data")
    found = {one.what: one for one in machine.folders(plan, forecast(plan))}
    assert {one.verdict for one in found.values()} == {"WRONG"}
    assert found["data_root"].mend == "set data_root in config/config.yaml to a folder of yours"


def test_data_may_be_read_only_where_all_is_there(make, monkeypatch):  # noqa: F811
    plan = make()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert verdicts(machine.folders(plan, forecast(plan)))["data_root"] == "WRONG"
    for spec in plan.specs.values():
        if isinstance(spec, DatasetIdentity):
            plan.store.fetched(spec).parent.mkdir(parents=True, exist_ok=True)
            plan.store.fetched(spec).write_text('{"videos": 224}')
    assert verdicts(machine.folders(plan, forecast(plan)))["data_root"] == "ok"


def test_room_on_disk(make, monkeypatch):  # noqa: F811
    plan = make("3b")
    usage = type("Usage", (), {"free": 10**15})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    assert {one.verdict for one in machine.disk(plan, forecast(plan))} == {"ok"}
    usage.free = 10**9
    found = list(machine.disk(plan, forecast(plan)))
    assert {one.verdict for one in found} == {"WRONG"} and all("1.0 GB free" in one.detail for one in found)


def test_small_models_need_no_gpu(make):  # noqa: F811
    plan = make()
    assert [one.verdict for one in machine.gpus(plan, list(plan.specs.values())[:0])] == ["not needed"]
    assert [one.verdict for one in machine.gpus(plan, [base(plan), grpo(plan)])] == ["not needed"]


def test_a_gpu_must_hold_what_a_training_keeps(make, monkeypatch):  # noqa: F811
    plan = make("3b")
    spec = grpo(plan)
    monkeypatch.setattr(machine, "_gpus_here", lambda: [("H200", 141 * 10**9)])
    assert verdicts(machine.gpus(plan, [spec])) == {"GPU": "ok", "GPU memory": "ok"}
    monkeypatch.setattr(machine, "_gpus_here", lambda: [("small", 24 * 10**9)])
    assert verdicts(machine.gpus(plan, [spec])) == {"GPU": "ok", "GPU memory": "WRONG"}
    adapters = spec.model_copy(update={"lora": Lora()})
    assert verdicts(machine.gpus(plan, [adapters])) == {"GPU": "ok", "GPU memory": "ok"}


def test_a_filter_loads_a_model_and_a_collect_stage_none(chain, monkeypatch):  # noqa: F811
    plan, stages = chain("3b")
    monkeypatch.setattr(machine, "_gpus_here", lambda: [("H200", 141 * 10**9)])
    assert verdicts(machine.gpus(plan, [stages["hard"]])) == {"GPU": "ok"}
    assert verdicts(machine.gpus(plan, [stages["traces"]])) == {"GPU": "not needed"}
    mere = stages["hard"].model_copy(update={"above": None, "at_most": None, "count": 5})
    assert verdicts(machine.gpus(plan, [mere])) == {"GPU": "not needed"}
    assert [one.what for one in outside.models([stages["hard"], stages["traces"]])] == ["released weights"]
    fresh = stages["hard"].model_copy(update={"model": stages["explore"].init})
    assert [one.what for one in outside.models([fresh])] == ["weights Qwen/Qwen2.5-VL-3B-Instruct"]


def test_a_login_node_has_no_gpu(make, monkeypatch, sinfo):  # noqa: F811
    plan = make("3b")
    monkeypatch.setattr(machine, "_gpus_here", lambda: [])

    def asked():
        (found,) = machine.gpus(plan, [grpo(plan)])
        return found.verdict, found.detail

    assert asked() == ("WRONG", "none here, and no SLURM (`sinfo`)")
    sinfo("gpu|gpu:h200:8\ncpu|(null)")
    assert asked() == ("ok", "none here; jobs of SLURM will see them (gpu: gpu:h200:8)")
    sinfo("long|gpu:4\ncpu|(null)")
    assert asked()[0] == "warning" and "no partition gpu" in asked()[1]
    sinfo("cpu|(null)")
    assert asked()[0] == "WRONG" and "no partition lists one (cpu)" in asked()[1]
    sinfo("slurm_load_partitions: Unable to contact", code=1)
    assert asked()[0] == "WRONG" and "Unable to contact" in asked()[1]


# ---------------------------------------------------------------- the world


def test_tracking(make, server):  # noqa: F811
    assert outside.tracking(make()).verdict == "ok"
    up = server({"/health": 200})
    assert outside.tracking(make(tracking_uri=up)).verdict == "ok"
    assert outside.tracking(make(tracking_uri=up + "/other")).verdict == "WRONG"
    forbidden = outside.tracking(make(tracking_uri=server({"/health": 403})))
    assert forbidden.verdict == "WRONG" and "--allowed-hosts" in forbidden.detail
    assert outside.tracking(make(tracking_uri="http://127.0.0.1:9")).verdict == "WRONG"
    assert outside.tracking(make(tracking_uri="sqlite:///here/x.db")).verdict == "ok"
    assert outside.tracking(make(tracking_uri="databricks")).verdict == "warning"


def test_weights_on_the_hub(server, tmp_path, monkeypatch, make):  # noqa: F811
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    spec = grpo(make("3b"), "time_r1")
    model = HubModel(hub="Qwen/Qwen2.5-VL-3B-Instruct", revision=REVISION)
    job = spec.model_copy(update={"init": model})

    def asked(status):
        address = server({f"/api/models/{model.hub}/revision/{REVISION}": status})
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        (found,) = outside.models([job])
        return found

    assert asked(200).verdict == "ok" and "7.5 GB, downloaded by the first job" in asked(200).detail
    for status, said in ((404, "no such repository"), (401, "a token"), (500, "HTTP 500")):
        assert asked(status).verdict == "WRONG" and said in asked(status).detail
    assert asked(404).mend.startswith(f"hf download {model.hub} --revision {REVISION}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert asked(200).verdict == "WRONG" and "HF_HUB_OFFLINE" in asked(200).detail


def test_weights_in_a_folder(tmp_path, make):  # noqa: F811
    job = grpo(make("3b")).model_copy(update={"init": PathModel(path=str(tmp_path / "weights"))})
    (found,) = outside.models([job])
    assert found.verdict == "WRONG" and "config.json or *.safetensors" in found.detail
    (tmp_path / "weights").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "weights" / name).write_text("{}")
    assert [one.verdict for one in outside.models([job])] == ["ok"]
    assert [one.verdict for one in outside.models([base(make())])] == ["not needed"]


def test_annotations_and_videos(make, server):  # noqa: F811
    plan = make("3b")
    address = server({"/a.txt": 200, "/videos.zip": 200})
    settings = {"splits": {"train": {"rows": 3}}, "files": {"a.txt": {"url": f"{address}/a.txt"}}}
    job = grpo(plan)
    identity = job.data.samples.dataset.model_copy(
        update={"settings": settings | {"videos": {"url": f"{address}/videos.zip"}}}
    )

    def asked(identity):
        return {one.what: one for one in outside._published(plan.store, identity)}

    assert {one.verdict for one in asked(identity).values()} == {"ok"}
    gone = identity.model_copy(update={"settings": settings | {"videos": {"url": f"{address}/gone.zip"}}})
    found = asked(gone)["videos charades_sta"]
    assert found.verdict == "WRONG" and "HTTP 404" in found.detail and f"{address}/gone.zip" in found.mend
    folder = plan.store.dataset(gone)
    folder.mkdir(parents=True)
    (folder / "gone.zip").write_bytes(b"zip")
    assert asked(gone)["videos charades_sta"].verdict == "ok", "it is here already"


def test_videos_that_the_user_brings(make, server):  # noqa: F811
    plan = make("3b")
    identity = grpo(plan, "time_r1").data.samples.dataset
    found = outside._brought(identity, plan.store.videos(identity))
    assert found.verdict == "WRONG" and "Boshenxx/TimeR1-Dataset" in found.mend
    plan.store.videos(identity).mkdir(parents=True)
    (plan.store.videos(identity) / "a.mp4").write_bytes(b"")
    assert outside._brought(identity, plan.store.videos(identity)).verdict == "ok"


def test_a_file_of_the_user_s_that_is_absent(make):  # noqa: F811
    Path("config/datasets/own.yaml").write_text("kind: jsonl\nversion: 1\nvideos: clips\nsplits: {test: own.jsonl}\n")
    path = Path("config/experiments/zero_shot.yaml")
    path.write_text(path.read_text().replace("benchmarks: [charades_test]", "benchmarks: [own.test]"))
    plan = make(experiments=["zero_shot"])
    assert forecast(plan).absent == ["own: own.jsonl"]
    found = {one.what: one for one in check.check(plan)}["data own.test"]
    assert found.verdict == "WRONG" and "absent: own.jsonl" in found.detail
    Path("own.jsonl").write_text("{}\n{}\n")
    Path("clips").mkdir()
    (Path("clips") / "a.mp4").write_bytes(b"")
    plan = make(experiments=["zero_shot"])
    assert not forecast(plan).absent
    own = [one for one in forecast(plan).evaluations if one.benchmark == "own.test"]
    assert {one.questions.value for one in own} == {2, 8}
    assert {one.what: one for one in check.check(plan)}["data own.test"].verdict == "ok"


def test_an_address_that_does_not_answer(server):
    assert reach.problem(server({"/": 200}) + "/") is None
    assert reach.problem(server({"/": 503}) + "/").startswith("HTTP 503")
    assert "cannot be reached" in reach.problem("http://127.0.0.1:9/")
    assert reach.problem("not an address") == "not a web address"


# ---------------------------------------------------------------- all of it


def test_the_mini_scale_runs_here_without_a_network(make, capsys):  # noqa: F811
    make()
    Path("config/config.yaml").write_text("experiments: [time_r1]\n")
    code = cli.main(["check"])
    text = capsys.readouterr().out
    assert code == 0 and "Nothing is wrong." in text and max(map(len, text.splitlines())) <= 100


def test_a_number_without_a_source_is_wrong(make, capsys):  # noqa: F811
    path = Path("config/experiments/time_r1.yaml")
    lines = [line.split("#")[0].rstrip() if "epsilon:" in line else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    Path("config/config.yaml").write_text("experiments: [time_r1]\n")
    assert cli.main(["check", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["wrong"] == 1
    (found,) = [one for one in content["findings"] if one["verdict"] == "WRONG"]
    assert found["what"] == "sources time_r1" and "stages.grpo.epsilon" in found["detail"] and found["mend"]
