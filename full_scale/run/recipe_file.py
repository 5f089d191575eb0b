"""A recipe's TOML file as a record: names and types are checked, with the nearest known name
and what was wanted in the answer.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dlib._util import require

RECIPES = Path(__file__).parents[1] / "recipes"
WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
WORDS |= {Path: "a text", type(None): "nothing"}


def nearest(name: str, known: Iterable[str]) -> str:
    """`: did you mean …?` for a misspelt name, or nothing if none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {found[0]!r}?" if found else ""


def table(path: str) -> dict[str, Any]:
    """What a recipe file says: one of full_scale/recipes by its name, or a path. A name wins
    over a file or folder of that name here, which is ./name.
    """
    known = sorted(each.stem for each in RECIPES.glob("*.toml"))
    file = RECIPES / f"{path}.toml" if path in known else Path(path)
    require(
        file.is_file(),
        f"no recipe file {path}; there are {', '.join(known)} (by name), or give a path"
        f"{nearest(Path(path).stem, known)}",
    )
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not TOML: {error}") from None


def filled(kind: type, values: Mapping[str, Any], what: str) -> Any:
    """An instance of the record with the table's values, lists as tuples. ValueError for a
    name that it does not have, and for a value of another type.
    """
    names = {f.name: f for f in dataclasses.fields(kind)}
    hints, found = get_type_hints(kind), {}
    for name, value in values.items():
        require(
            name in names,
            f"recipe {what} {name!r} does not exist{nearest(name, names)}; there are "
            f"{', '.join(names) or 'none'}",
        )
        inner = names[name].default_factory
        if dataclasses.is_dataclass(inner):
            said = f"[{what.removeprefix('key ')}{name}]" if what != "key" else f"[{name}]"
            require(
                isinstance(value, dict),
                f"recipe {what} {name} = {value!r}: wanted a table, {said}",
            )
            value = filled(inner, value, f"key {'roles.' if what == 'key roles.' else ''}{name}.")
        else:
            hint = hints[name]
            require(
                fits(value, hint),
                f"recipe {what} {name} = {_typed(value)}: wanted {wanted(hint)}",
            )
            value = Path(value) if hint in (Path, Path | None) else value
        found[name] = tuple(value) if isinstance(value, list) else value
    return kind(**found)


def fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value may stand for this type: whole numbers for numbers, lists for
    tuples, texts for paths.

    >>> fits(1, float), fits(True, int), fits([1, 2.5], tuple[float, float]), fits("1", int)
    (True, False, True, False)
    """
    parts = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in parts
    if get_origin(hint) is tuple:
        each = parts[:1] * len(value) if isinstance(value, list) and parts[-1] is ... else parts
        return (
            isinstance(value, list)
            and len(value) == len(each)
            and all(fits(one, part) for one, part in zip(value, each))
        )
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str if hint is Path else hint)


def wanted(hint: Any) -> str:
    """A type in words.

    >>> wanted(tuple[float, float]), wanted(tuple[str, ...]), wanted(Literal["ddp", "fsdp"])
    ('a list of 2: a number, a number', 'a list, each a text', "'ddp' or 'fsdp'")
    """
    parts = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(wanted(part) for part in parts if part is not type(None))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, parts))
    if get_origin(hint) is tuple and parts[-1] is ...:
        return f"a list, each {wanted(parts[0])}"
    if get_origin(hint) is tuple:
        return f"a list of {len(parts)}: {', '.join(map(wanted, parts))}"
    return WORDS.get(hint, str(hint))


def _typed(value: Any) -> str:
    """A value as TOML spells it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
