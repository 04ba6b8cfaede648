"""YAML read safely, and checked against closed classes: an error names file, key, value got and nearest word."""

import difflib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tvg.errors import TvgError
from tvg.settings import Closed


def parse_yaml(text: str, where: object) -> Any:
    """A YAML 1.2 value, safely: no tags, no duplicate keys."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise _unreadable(where, error) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; see `parse_yaml`."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise TvgError(
            path,
            "not a mapping",
            got=type(content).__name__,
            expected="key: value lines",
            hint="see the other files beside it",
        )
    return content


def _unreadable(where: object, error: Exception) -> TvgError:
    return TvgError(where, "cannot read this YAML", got=error, expected="a YAML file", hint="mend the line named above")


def check(kind: type[Closed], content: dict[str, Any], where: object) -> Any:
    """`content` as a `kind`, or the most telling thing that is wrong with it, with the nearest known key."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        found = _most_telling(error.errors())
        place, beside = _walk(kind, found["loc"])
        what, got, expected, hint = _in_words(found, place, beside)
        raise TvgError(f"{where}: {'.'.join(place)}", what, got=got, expected=expected, hint=hint) from error


def _in_words(found: Any, place: list[str], beside: list[str]) -> tuple[str, Any, str, str]:
    """What, got, expected, hint of one of pydantic's errors; a wrong `kind` and a missing key move `place` there."""
    got, known = found["input"], found.get("ctx", {})
    see = "see config/README.md for what each key takes"
    match found["type"]:
        case "extra_forbidden":
            return "unknown key", got, ", ".join(beside) or "nothing here", did_you_mean(place[-1], beside)
        case "missing":
            return "key missing", f"only {', '.join(map(str, got))}" if isinstance(got, dict) else got, place[-1], see
        case "union_tag_invalid":
            place.append("kind")
            tags = known["expected_tags"].replace("'", "").split(", ")
            return "no such kind", known["tag"], ", ".join(tags), did_you_mean(known["tag"], tags)
        case "union_tag_not_found":
            return "key missing", f"only {', '.join(map(str, got))}" if isinstance(got, dict) else got, "kind", see
        case "literal_error":
            words = [word.strip() for word in known["expected"].replace(" or ", ", ").replace("'", "").split(",")]
            return "not one of the values that may stand here", got, ", ".join(words), did_you_mean(str(got), words)
        case "string_pattern_mismatch":
            dot = " and ." if "." in known["pattern"].split("[")[-1] else ""
            return "not a name", got, f"letters a-z, digits, _{dot} (it goes into paths)", "choose another name"
        case "model_type" | "dict_type":
            return "not a mapping", got, "key: value pairs", see
        case "tuple_type" | "list_type":
            return "not a list", got, "a list, such as [a, b]", see
        case _:
            message = found["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            return "cannot take this value", got, message[0].lower() + message[1:], see


def did_you_mean(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"


def _most_telling(errors: list[Any]) -> Any:
    """Of one value's forms the one that fits best; in it a misspelt key rather than the key that it leaves missing."""
    errors = [{**error, "loc": tuple(part for part in error["loc"] if part != "[key]")} for error in errors]
    first = errors[0]
    fork = next((depth for depth, part in enumerate(first["loc"]) if _names_a_form(part)), None)
    if fork is None:
        near = [error for error in errors if error["loc"][:-1] == first["loc"][:-1]]
    else:
        forms: dict[Any, list[Any]] = {}
        for error in errors:
            if error["loc"][:fork] == first["loc"][:fork]:
                forms.setdefault(error["loc"][fork], []).append(error)
        if all(error["loc"][fork + 1 :] == () for form in forms.values() for error in form):
            expected = " or ".join(map(_form_in_words, forms))
            return {**first, "loc": first["loc"][:fork], "msg": expected, "type": "no_form"}
        near = min(forms.values(), key=lambda form: (all(len(e["loc"]) == fork + 1 for e in form), len(form)))
    return next((error for error in near if error["type"] == "extra_forbidden"), near[0])


def _names_a_form(part: Any) -> bool:
    """pydantic puts the form that it tried into the place: a class, `literal[...]`, `tuple[...]`."""
    return isinstance(part, str) and ("[" in part or part[:1].isupper())


def _form_in_words(form: str) -> str:
    """`HubModel` -> `{hub, revision}`, `literal['all']` -> `all`, `tuple[...]` -> `a list`."""
    if form.startswith("literal["):
        return form.removeprefix("literal[").removesuffix("]").replace("'", "")
    kinds = {kind.__name__: kind for kind in Closed.__subclasses__()}
    if form in kinds:
        needed = [name for name, field in kinds[form].model_fields.items() if field.is_required()]
        return "{" + ", ".join(needed) + "}"
    return "a list" if form.startswith("tuple[") else form


def _walk(kind: type[Closed], loc: tuple[Any, ...]) -> tuple[list[str], list[str]]:
    """The place as a person writes it, and the keys that may stand where its last part stands."""
    node, place, beside = kind, [], _keys(kind)
    for part in map(str, loc):
        following, is_key = _step(node, part)
        if is_key:
            place.append(part)
            beside = _keys(node)
        node = following
    return place or ["(whole file)"], beside


def _keys(node: Any) -> list[str]:
    if get_origin(node) in (Union, UnionType):  # `Lora | None`
        forms = [form for form in get_args(node) if form is not type(None)]
        node = forms[0] if len(forms) == 1 else None
    return sorted(node.model_fields) if isinstance(node, type) and issubclass(node, Closed) else []


def _step(node: Any, part: str) -> tuple[Any, bool]:
    """The type behind one part of a place (None where it cannot be told), and whether the part is a key or index."""
    while get_origin(node) is Annotated:
        node = get_args(node)[0]
    if isinstance(node, type) and issubclass(node, Closed):
        field = node.model_fields.get(part)
        return (field.annotation if field else None), True
    options = [option for option in get_args(node) if option is not type(None)]
    forms = [option for option in options if isinstance(option, type) and issubclass(option, Closed)]
    for form in forms:
        kind_field = form.model_fields.get("kind")
        if part == form.__name__ or (kind_field is not None and kind_field.default == part):
            return form, False
    if get_origin(node) is dict:
        return options[1], True
    if get_origin(node) is tuple:
        return options[0], True
    if len(forms) == 1:
        return _step(forms[0], part)
    return (options[0] if options else None), not _names_a_form(part)
