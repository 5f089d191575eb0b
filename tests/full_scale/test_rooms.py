"""The rooms of full_scale: each imports from floors below its own, and touches exactly the
rooms that its first lines name.
"""

from __future__ import annotations

import ast
import re

import pytest

from tests.import_graph import (
    COMMANDS,
    ORDER,
    chapters,
    floors,
    house,
    imported,
    room,
    sources,
    stacked,
    touched,
)


def stated(docstring: str) -> set[str]:
    """The rooms that a docstring's sentence "Touches …." names."""
    (sentence,) = re.findall(r"Touches\s([^.]+)\.", docstring)
    return set(re.findall(r"`(\w+)`", sentence))


def wrong(known: dict[str, str]) -> list[str]:
    """What contradicts the floors."""
    level = floors()
    return [
        f"{own} (floor {level[own]}) imports {other} (floor {level[other]})"
        for own, others in touched(known).items()
        for other in others
        if level[other] >= level[own]
    ]


def test_every_room_has_a_floor_and_imports_from_below():
    assert set(floors()) == {room(name) for name in sources()} - {None}
    assert {
        f"full_scale.{name}" for name in floors() if floors()[name] == max(floors().values())
    } == (COMMANDS)
    assert wrong(sources()) == []


def test_a_room_above_is_seen():
    text = "from full_scale.run.settings import Settings\n"
    assert wrong(sources() | {"full_scale.data.rows": text}) == [
        "data (floor 4) imports run (floor 5)"
    ]


@pytest.mark.parametrize("name", [f for f in floors() if f"full_scale.{f}" not in COMMANDS])
def test_a_room_touches_what_its_first_lines_say(name):
    docstring = ast.get_docstring(ast.parse(sources()[f"full_scale.{name}"]))
    assert stated(docstring) == touched(sources())[name]


def test_the_toys_know_nothing_of_it():
    """Nor do dlib and the press: full_scale is above them, and bench above it."""
    below = [name for name in sources() if name.split(".")[0] in ("dlib", "toy_data", "book")]
    known = sources()
    assert not [
        (name, each)
        for name in below
        for each in imported(known[name], known)
        if "full_scale" in each
    ]


def test_the_house_is_drawn_with_every_room_and_arrow():
    """`python -m tests.import_graph`, as CONTRIBUTING says: a row for each package and for each
    room of both tables, its arrows down alone.
    """
    row, (first, *others) = re.compile(r"^(\d)  (\w+) *→ (.*)$", re.M), house().split("\n\n")
    packages = [(name, below) for _, name, below in row.findall(first)]
    assert [name for name, _ in packages] == sorted(ORDER, key=ORDER.get, reverse=True)
    assert {name: set(below.split(", ")) - {"nothing"} for name, below in packages} == stacked(
        sources() | chapters()
    )
    rows = row.findall("\n\n".join(others))
    level = floors() | floors("dlib")
    assert {name: int(floor) for floor, name, _ in rows}.items() <= level.items()
    assert set(level) - {name for _, name, _ in rows} == {"tokens"}  # kept free
    found = {name: set(below.split(", ")) for _, name, below in rows}
    arrows = touched(sources()) | touched(sources(), "dlib")
    assert found == {name: below or {"nothing"} for name, below in arrows.items()}
    assert {"families", "data", "launch"} < found["run"] and found["_util"] == {"nothing"}
    assert {"denoiser", "schedule"} < found["solvers"]
    assert all(level[b] < level[a] for a, below in found.items() for b in below - {"nothing"})
