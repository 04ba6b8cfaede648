"""Who may import whom: a room of the house imports only from rooms to its left."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import REPO

LAYERS = [
    {"errors", "segment", "progress", "facts"},
    {"sample", "hub"},
    {"parse", "settings", "rows"},
    {"spec"},
    {"store", "prompts", "inversion", "validation"},
    {"rewards"},
    {"evaluate"},
    {"config"},
    {"arms"},
    {"resolve", "datasets", "report.layout"},
    {"plan", "video"},
    {"model"},
    {"train", "evaluate.predict"},
    {"select"},
    {"report", "track"},
    {"overview", "schema"},
    {"cli"},
]
LIGHT = ["errors", "segment", "sample", "parse", "prompts", "settings", "spec", "store", "validation", "config",
         "arms", "resolve", "plan", "inversion", "rewards", "evaluate.metrics", "datasets", "cli", "schema",
         "overview.forecast", "overview.status", "overview.explain", "overview.check"]  # fmt: skip


def level(module: str) -> int:
    """The layer of `tvg.x.y`: its own entry, else its package's."""
    parts = module.split(".")[1:]
    for length in range(len(parts), 0, -1):
        for index, layer in enumerate(LAYERS):
            if ".".join(parts[:length]) in layer:
                return index
    raise AssertionError(f"{module} stands in no layer: add it to LAYERS")


def imports(path, module: str) -> set[str]:
    """Every tvg module that a file names in an import, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    here = {p for p in found if p.startswith("tvg.")}
    files = {p for p in here if (REPO / "src" / p.replace(".", "/")).with_suffix(".py").exists()}
    packages = {p for p in here if (REPO / "src" / p.replace(".", "/") / "__init__.py").exists()}
    return (files | packages) - {module}


def modules():
    for path in sorted((REPO / "src" / "tvg").rglob("*.py")):
        name = ".".join(path.relative_to(REPO / "src").with_suffix("").parts).removesuffix(".__init__")
        if name != "tvg":
            yield pytest.param(path, name, id=name)


@pytest.mark.parametrize(("path", "module"), list(modules()))
def test_imports_only_from_the_left(path, module):
    package = module.split(".")[1]
    for imported in imports(path, module):
        same_room = imported.split(".")[1] == package
        assert same_room or level(imported) < level(module), f"{module} imports {imported}, which is not to its left"


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_heavy_library(module):
    """The Snakefile and `tvg --help` start fast on a login node."""
    code = (
        f"import sys, tvg.{module}; "
        "print(sorted({'torch', 'transformers', 'spacy', 'mlflow', 'trl', 'pandas'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO / "src")
    assert out.stdout.strip() == "[]"


def test_no_absolute_path_in_the_tree():
    """Nothing in the tree is bound to one machine."""
    tracked = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=REPO)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    roots = tuple(f"/{name}/" for name in ("home", "root", "work", "Users"))
    for name in filter(None, tracked.stdout.split("\0")):
        path = REPO / name
        if path.suffix in {".py", ".smk", ".yaml", ".yml", ".md", ".toml", ".sh", ""} and path.is_file():
            text = path.read_text(errors="ignore")
            bad = [line for line in text.splitlines() for root in roots if f'"{root}' in line or f" {root}" in line]
            assert not bad, f"{name}: {bad[:3]}"
