"""The frozen list of mutants: tests that break the code by a slip and must see it.

    python tests/mutants.py          add today's mutants to tests/mutants.txt

A line is a test's id. Nothing leaves the list: a test that got another name keeps its line as
`old id => new id`, written by hand. `test_mutants.py` asks that every id is still collected,
and that every mutant is listed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "mutants.txt"
CALLS = re.compile(r"\bmutant\(|\bMUTANTS\b|\bSLIPS\b")
"""In a test's source."""
NAMES = re.compile(
    r"caught|slip|misses_the_range|wrong_answers_are|hostile_answers|wrong_sign|one_wrong"
    r"|cannot_do|trap_that|see_a_worse|wrong_pictures|sees_the_wrong|score_as_wrong|smuggled"
    r"|hears_its_own|kept_from_it|drawn_anew|sign_is_all|wrong_level|as_it_stands"
)
"""In a test's name: those that break the code by other means."""


def is_mutant(item: pytest.Item) -> bool:
    """Whether a collected test breaks the code, by its name or by its source."""
    function = getattr(item, "function", None)
    if function is None:
        return False
    return _breaks(function)


@cache
def _breaks(function: Callable) -> bool:
    return bool(NAMES.search(function.__name__) or CALLS.search(inspect.getsource(function)))


def unlisted(items: Iterable[pytest.Item], lines: Iterable[str]) -> list[str]:
    """The ids of mutants that the lines lack; the tests of the list itself are none."""
    known = {line.split(" => ")[-1] for line in lines}
    return [
        item.nodeid
        for item in items
        if item.nodeid not in known and item.path.name != "test_mutants.py" and is_mutant(item)
    ]


def gone(ids: Iterable[str], lines: Iterable[str]) -> list[str]:
    """The lines whose test, under its newest name, is not among `ids`."""
    known = set(ids)
    return [line for line in lines if line.split(" => ")[-1] not in known]


def listed() -> list[str]:
    """The lines of the list."""
    return LIST.read_text(encoding="utf-8").splitlines()


class Collected:
    """A plugin of pytest that keeps what was collected."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def main() -> int:
    """Collect all tests, add the mutants among them; 1 when a listed one is gone."""
    found = Collected()
    pytest.main(["--collect-only", "-qq", "--no-summary", str(ROOT / "tests")], plugins=[found])
    lines = listed() if LIST.exists() else []
    new = unlisted(found.items, lines)
    LIST.write_text("\n".join([*lines, *new]) + "\n", encoding="utf-8")
    print(f"{len(lines) + len(new)} mutants, {len(new)} of them new")
    lost = gone((item.nodeid for item in found.items), lines)
    for line in lost:
        print(f"GONE: {line} (renamed? write `old id => new id`)")
    return int(bool(lost))


if __name__ == "__main__":
    raise SystemExit(main())
