"""A model laid out as the released one, served by the hub on this machine, downloaded and loaded as released."""

import http.client
import json
import os
import subprocess
import sys
import threading
import unicodedata
from itertools import pairwise

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from tests.conftest import REPO
from tvg.config import Scale, read
from tvg.errors import TvgError
from tvg.hub import Handler, Hub
from tvg.model import load, replica
from tvg.model.tokenizer import TEMPLATE, WORDS
from tvg.overview.cost import weights
from tvg.spec import HubModel

TINY = {
    **replica.SHAPE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    "vision_config": {
        **replica.SHAPE["vision_config"],
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    },
}
REVISION, ABSENT = replica.revision(TINY), "0" * 40
RELEASED = {  # what the released repository holds, but for its README, its licence and .gitattributes
    "chat_template.json", "config.json", "generation_config.json", "merges.txt", "model.safetensors.index.json",
    "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
}  # fmt: skip
IDS = {
    "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<|object_ref_start|>": 151646,
    "<|quad_end|>": 151651, "<|vision_start|>": 151652, "<|vision_end|>": 151653, "<|vision_pad|>": 151654,
    "<|image_pad|>": 151655, "<|video_pad|>": 151656, "<tool_call>": 151657, "<|file_sep|>": 151664,
}  # fmt: skip
VISIT = f"""
import json, logging, torch
from pathlib import Path
from tvg.errors import TvgError
from tvg.model.load import load
from tvg.spec import HubModel
from tvg.store import Store

def loaded(hub, revision):
    return load(HubModel(hub=hub, revision=revision), Store(Path("none")), device="cpu", dtype=torch.bfloat16)

policy = loaded("{replica.NAME}", "{REVISION}")
ids = policy.tokenizer("the person sits down", return_tensors="pt")["input_ids"]
with torch.no_grad():
    logits = policy.model(input_ids=ids).logits.float()
said = []
for hub, revision in (("{replica.NAME}", "{ABSENT}"), ("{replica.NAME}-2", "{REVISION}")):
    try:
        loaded(hub, revision)
    except TvgError as error:
        said.append([error.where, str(error.got), error.hint])
import huggingface_hub, transformers
processor = transformers.AutoProcessor.from_pretrained("{replica.NAME}", revision="{REVISION}")
whole = huggingface_hub.snapshot_download("{replica.NAME}", revision="{REVISION}")
total = {{name: weight.double().sum().item() for name, weight in policy.model.named_parameters()}}
print(json.dumps([
    total, logits.isfinite().all().item(), logits.std().item(), processor.chat_template, policy.tokenizer.chat_template,
    sorted(path.name for path in Path(whole).iterdir()), said,
]))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    replica.write(root, TINY, shard=8 << 20)
    return root


@pytest.fixture(scope="module")
def folder(root):
    return root / replica.NAME / REVISION


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def serve(root, handler=Handler):
    server = Hub(root, handler=handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def server(root):
    server = serve(root)
    yield server
    server.shutdown()


class Dropping(Handler):
    """Ends the connection near the end of the first large file; remembers where each part of a file began."""

    parts: list[tuple[str, int]] = []

    def stream(self, file, start, end):
        large = file.stat().st_size > 8 << 20 and file.suffix == ".safetensors"
        first = large and not any(name == file.name for name, _ in self.parts)
        self.parts.append((file.name, start))
        super().stream(file, start, end - 1000 if first else end)
        self.close_connection = first or self.close_connection


@pytest.fixture(scope="module")
def visited(root, tmp_path_factory):
    """What a process says that has only HF_ENDPOINT and an empty HF_HOME: the library reads both on import."""
    server = serve(root, Dropping)
    home = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_OFFLINE": "0"}
    python = [sys.executable, "-c", VISIT]
    out = subprocess.run(python, env={**os.environ, **home}, capture_output=True, text=True, cwd=REPO)
    server.shutdown()
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


# ---------------------------------------------------------------- the folder


def test_the_files_are_those_of_the_released_repository(folder):
    shards = {f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)}
    assert {path.name for path in folder.iterdir()} == RELEASED | shards
    assert [path.name for path in folder.parent.iterdir()] == [REVISION], "no half-written folder stays"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    held = {}
    for name in sorted(shards):
        with safe_open(folder / name, "pt") as file:
            held |= {key: name for key in file.keys()}  # noqa: SIM118 - no dict
            assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert index["weight_map"] == held


def test_names_of_parameters_are_those_that_the_library_saves(folder, tmp_path):
    model, _ = load.read(folder, torch.bfloat16)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as saved:
        ours = json.loads((folder / "model.safetensors.index.json").read_text())
        assert set(saved.keys()) == set(ours["weight_map"])
    assert ours["metadata"]["total_size"] == 2 * sum(weight.numel() for weight in model.parameters())
    for name, weight in model.named_parameters():
        kind = "bias" if name.endswith("bias") else "norm" if weight.ndim == 1 else "matrix"
        low, high = {"bias": (0, 0), "norm": (1, 1), "matrix": (-0.2, 0.2)}[kind]
        assert low <= weight.min() <= weight.max() <= high
        assert kind != "matrix" or 0.015 < weight.float().std() < 0.025


def test_the_same_recipe_gives_the_same_files(root, folder, tmp_path):
    again = replica.write(tmp_path, TINY, shard=8 << 20)
    assert again.name == folder.name
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())
    (again / "config.json").unlink()
    assert replica.write(tmp_path, TINY) == again and not (again / "config.json").exists(), "what is there is kept"
    assert len({replica.revision(), REVISION, replica.revision(TINY, seed=1)}) == 3
    with pytest.raises(TvgError, match="cannot write"):
        replica.write(folder / "config.json", TINY)


def test_the_rehearsal_s_model_is_the_3b_s_shape(tmp_path):
    assert sum(size.numel() for _, size in replica.parameters(replica.SHAPE)) == 3_754_622_976
    (tmp_path / "config.json").write_text(json.dumps(replica.SHAPE))
    config = AutoConfig.from_pretrained(tmp_path)
    text, vision = config.text_config, config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_key_value_heads, text.vocab_size) == (
        2048,
        36,
        2,
        151936,
    )
    assert text.rope_parameters["mrope_section"] == [16, 24, 24] and text.rope_parameters["rope_theta"] == 1e6
    assert (vision.depth, vision.out_hidden_size, vision.tokens_per_second, vision.window_size) == (32, 2048, 2, 112)
    assert config.video_token_id == IDS["<|video_pad|>"] and config.tie_word_embeddings
    base = read(Scale, REPO / "config" / "scales", "rehearsal").base
    assert base == HubModel(hub=replica.NAME, revision=replica.revision()), "the recipe has changed: pin it anew"
    assert weights.mend(base) == "make rehearsal"


# ---------------------------------------------------------------- its vocabulary


def test_special_tokens_have_the_released_ids(folder, tokenizer):
    assert {name: tokenizer.convert_tokens_to_ids(name) for name in IDS} == IDS
    assert len(tokenizer) == 151665 and tokenizer.vocab_size == 151643
    assert len(json.loads((folder / "vocab.json").read_text())) == 151643
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (151645, 151643)
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    text = "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>a<|im_end|><tool_call>"
    ids = tokenizer(text)["input_ids"]
    assert [one for one in ids if one >= 151643] == [151644, 151652, 151656, 151653, 151645, 151657]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\na<tool_call>"


def test_any_text_encodes_without_loss(tokenizer):
    planes = "".join(chr(k) for k in (*range(1, 0xD800, 7), *range(0xE000, 0x11000, 7), *range(0x1F300, 0x1F700)))
    planes = unicodedata.normalize("NFC", planes)
    for text in (planes, "Zürich 東京 🙂\tx\r\n\n  y ", "it's 'LL don't", "<think> a </think>", "aaaa" * 99, "", " "):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    decomposed = unicodedata.normalize("NFD", "Zürich")
    assert tokenizer.decode(tokenizer(decomposed)["input_ids"]) == "Zürich", "as released: composed first"


def test_words_are_one_token_and_digits_one_each(tokenizer):
    assert tokenizer.tokenize("12.54") == ["1", "2", ".", "5", "4"]
    assert tokenizer.tokenize("20 to 31") == ["2", "0", "Ġto", "Ġ", "3", "1"]
    for word in WORDS.split():
        assert len(tokenizer.tokenize(word)) == len(tokenizer.tokenize(" " + word)) == 1


# ---------------------------------------------------------------- the hub


def test_a_model_is_loaded_from_the_hub_as_from_its_folder(visited, folder):
    total, finite, spread, of_processor, of_tokenizer, names, _ = visited
    here, _ = load.read(folder, torch.bfloat16)
    assert total == {name: weight.double().sum().item() for name, weight in here.named_parameters()}
    assert finite and spread > 0.01
    assert of_processor == of_tokenizer == TEMPLATE
    assert names == sorted(path.name for path in folder.iterdir())


def test_a_broken_download_goes_on_where_it_stopped(visited, folder):
    large = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    first, second = [start for name, start in Dropping.parts if name == large.name]
    assert first == 0 < 10 << 20 <= second, "the client keeps whole chunks of 10 MiB"
    assert all(one != two for one, two in pairwise(sorted(Dropping.parts))), "nothing is downloaded twice"


def test_what_the_hub_does_not_have_is_an_error_with_a_hint(visited):
    (revision, of_revision, hint), (name, _, _) = visited[-1]
    assert (revision, name) == (replica.NAME, replica.NAME + "-2")
    assert ABSENT in of_revision and "make rehearsal" in hint


def asked(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    return response, response.read()


def test_the_newest_revision_is_main(server):
    for path in (f"/api/models/{replica.NAME}", f"/api/models/{replica.NAME}/revision/main"):
        assert json.loads(asked(server, path)[1])["sha"] == REVISION
    response, _ = asked(server, f"/{replica.NAME}/resolve/main/config.json", "HEAD")
    assert (response.status, response.headers["X-Repo-Commit"]) == (200, REVISION)


def test_parts_of_a_file(server, folder):
    path, content = f"/{replica.NAME}/resolve/{REVISION}/config.json", (folder / "config.json").read_bytes()
    head, body = asked(server, path, "HEAD")
    assert (head.status, body, int(head.headers["Content-Length"])) == (200, b"", len(content))
    assert head.headers["X-Repo-Commit"] == REVISION and head.headers["Accept-Ranges"] == "bytes"
    for given, part in (("bytes=5-", content[5:]), ("bytes=5-9", content[5:10]), ("bytes=5-99999", content[5:])):
        response, body = asked(server, path, Range=given)
        assert (response.status, body) == (206, part)
        assert response.headers["Content-Range"] == f"bytes 5-{4 + len(part)}/{len(content)}"
    response, body = asked(server, path, Range=f"bytes={len(content)}-")
    assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{len(content)}")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (f"/{replica.NAME}/resolve/{REVISION}/adapter_config.json", "EntryNotFound"),
        (f"/{replica.NAME}/resolve/{REVISION}/../../../../../secret", "EntryNotFound"),
        (f"/{replica.NAME}/resolve/{REVISION}/%2e%2e/%2e%2e/%2e%2e/secret", "EntryNotFound"),
        (f"/{replica.NAME}/resolve/{ABSENT}/config.json", "RevisionNotFound"),
        (f"/{replica.NAME}/resolve/../config.json", "RevisionNotFound"),
        ("/../../resolve/x/config.json", "EntryNotFound"),
        (f"/api/models/{replica.NAME}/tree/{REVISION}/additional_chat_templates", "EntryNotFound"),
        (f"/api/models/{replica.NAME}/revision/other", "RevisionNotFound"),
        ("/api/models/tvg/absent", "RepoNotFound"),
        ("/api/whoami-v2", None),
    ],
)
def test_what_is_not_there(server, root, path, kind):
    (root / "secret").write_text("x")
    response, body = asked(server, path)
    assert (response.status, response.headers["X-Error-Code"]) == (404, kind) and json.loads(body)["error"]


def test_a_command_runs_with_the_hub_and_its_exit_status_is_kept(root):
    code = "import os, sys, urllib.request as u; u.urlopen(os.environ['HF_ENDPOINT'] + sys.argv[1]); sys.exit(7)"
    verb = [sys.executable, "-m", "tvg.cli", "hub", str(root), "--for"]
    ask = [sys.executable, "-c", code, f"/api/models/{replica.NAME}"]
    assert subprocess.run([*verb, *ask], cwd=REPO).returncode == 7
    absent = subprocess.run([*verb, "no-such-command"], cwd=REPO, capture_output=True, text=True)
    assert absent.returncode == 1 and "no such command" in absent.stderr and "Traceback" not in absent.stderr


def test_a_hub_without_folder_or_port_says_so(root, server, tmp_path):
    with pytest.raises(TvgError, match="no such folder"):
        Hub(tmp_path / "absent")
    with pytest.raises(TvgError, match="cannot listen"):
        Hub(root, server.server_port)
