"""config/schema.json and config/README.md say what the classes say, and every shipped YAML points at its part."""

import json

import jsonschema
import pytest

from tests.conftest import REPO
from tvg import schema
from tvg.config import read_yaml

CONFIG = REPO / "config"
FOLDERS = {
    "experiments": "experiment",
    "scales": "scale",
    "prompts": "prompt",
    "tables": "table",
    "datasets": "dataset",
}
SHIPPED = [(path, FOLDERS[path.parent.name], 1) for name in FOLDERS for path in sorted((CONFIG / name).glob("*.yaml"))]
SHIPPED += [(CONFIG / "config.yaml", "config", 0)]


def test_generated_files_are_in_step():
    hint = "run `python -m tvg.schema`"
    assert json.loads((CONFIG / "schema.json").read_text()) == schema.schema(), hint
    assert (CONFIG / "README.md").read_text() == schema.readme(), hint


def validator(kind):
    return jsonschema.Draft202012Validator({**schema.schema(), "anyOf": [{"$ref": f"#/$defs/{kind}"}]})


@pytest.mark.parametrize(("path", "kind", "depth"), SHIPPED, ids=[path.stem for path, *_ in SHIPPED])
def test_every_shipped_yaml_points_at_its_schema_and_fits_it(path, kind, depth):
    first = path.read_text().splitlines()[0]
    assert first == schema.first_line(kind, depth)
    file, pointer = first.split("$schema=")[1].split("#")
    found = json.loads((path.parent / file).read_text())
    for part in pointer.strip("/").split("/"):
        found = found[part]
    validator(kind).validate(read_yaml(path))


def test_the_schema_refuses_what_the_classes_refuse():
    experiment = read_yaml(CONFIG / "experiments" / "time_r1.yaml")
    experiment["stages"]["grpo"]["num_generation"] = 6
    with pytest.raises(jsonschema.ValidationError):
        validator("experiment").validate(experiment)


def test_every_key_of_the_reference_is_explained():
    for line in schema.readme().splitlines():
        if line.startswith("| `"):
            *_, meaning, _ = line.split(" | ") if line.count(" | ") > 3 else (*line.rstrip("|").split(" | "), "")
            assert meaning.strip(" |"), line
