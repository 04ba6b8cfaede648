"""Is what is installed what the code is written for: Python, the pinned libraries, the verb back-end's data?"""

import importlib.metadata
import platform
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import tvg
from tvg.errors import TvgError
from tvg.inversion import lexicon
from tvg.inversion.verbs import SPACY_MODEL, SPACY_MODEL_VERSION, WHEEL
from tvg.overview.check.finding import Finding, not_needed, ok, warning, wrong
from tvg.overview.text import listed
from tvg.settings import Closed
from tvg.spec import SamplesSpec, nested

# Outside these something is known to break; inside, another version than the pinned one is a warning.
KNOWN = {
    "torch": (">=2.11", "the code is written for torch 2.11 to 2.13"),
    "transformers": (">=5.17", "the code is written for transformers 5.17 to 5.23: older ones have other modules"),
    "trl": ("==1.16.*", "hooks of its trainers are overridden by name, and others have other hooks"),
    "mlflow": ("!=3.18.0", "it cannot be installed whole: it wants an mlflow-skinny that does not exist"),
}
RIVALS = {"eva-decord": "it writes into the same folder as decord, and either may be what is imported"}


def python() -> Finding:
    wanted, here = SpecifierSet(_project()["requires-python"]), platform.python_version()
    if here in wanted:
        return ok("Python", here)
    return wrong("Python", f"{here}, not {wanted}", "make setup PYTHON=python3.12")


def libraries() -> Iterator[Finding]:
    """One line for all that are as pinned, one for each other."""
    pins = [Requirement(line) for line in _project()["dependencies"]]
    found = {pin: _version(pin.name) for pin in pins}
    same = [pin for pin, here in found.items() if here is not None and here.split("+")[0] in pin.specifier]
    yield ok("libraries", f"{len(same)} of {len(pins)} as pinned")
    for pin, here in found.items():
        if pin in same:
            continue
        known, why = KNOWN.get(pin.name, ("", ""))
        if here is None:
            yield wrong(pin.name, f"not installed, {pin.specifier} is pinned", f'pip install "{pin}"')
        elif here.split("+")[0] not in SpecifierSet(known):
            yield wrong(pin.name, f"{here}, {pin.specifier} is pinned: {why}", f'pip install "{pin}"')
        else:
            yield warning(pin.name, f"{here}, {pin.specifier} is pinned: not tried together", f'pip install "{pin}"')
    for name, why in RIVALS.items():
        if _version(name):
            yield wrong(name, why, f"pip uninstall {name} && pip install --force-reinstall --no-deps decord")


def verbs(jobs: Iterable[Closed]) -> Iterator[Finding]:
    """The data of the verb back-ends that the jobs name."""
    used = {spec.verbs for job in jobs for spec in nested(job) if isinstance(spec, SamplesSpec) and spec.verbs}
    what = f"spaCy's {SPACY_MODEL}"
    if "spacy_sm" not in used:
        yield not_needed(what, f"the verbs come from {listed(sorted(used))}" if used else "nothing asks for verbs")
    elif _version(SPACY_MODEL) == SPACY_MODEL_VERSION:
        yield ok(what, SPACY_MODEL_VERSION)
    else:
        here = _version(SPACY_MODEL)
        detail = f"{here}, not {SPACY_MODEL_VERSION}" if here else f"not installed, {SPACY_MODEL_VERSION} is needed"
        yield wrong(what, detail, f"pip install {WHEEL}")
    if "standin" in used:
        yield _standin()


def _standin() -> Finding:
    what = listed(list(lexicon.PACKAGES))
    try:
        lexicon.check_installed()
    except TvgError as error:
        return wrong(what, f"{error.what}: {error.got}, not {error.expected}", error.hint)
    return ok(what, listed(list(lexicon.PACKAGES.values())))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _project() -> dict:
    """pyproject's `requires-python` and `dependencies`: of the checkout, else as they were when this was installed."""
    path = Path(tvg.__file__).parents[2] / "pyproject.toml"
    if path.exists():
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == "tvg":
            return project
    required = [line for line in importlib.metadata.requires("tvg") or [] if "extra ==" not in line]
    return {"requires-python": importlib.metadata.metadata("tvg")["Requires-Python"], "dependencies": required}
