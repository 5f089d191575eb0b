"""No mutant is lost: every test of the frozen list is still there, under its name or the one
that the list gives, and every mutant is listed.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).parent))
import mutants


def test_every_frozen_mutant_is_collected(request):
    """Of the files that this run has collected as a whole: all of them in `make test`."""
    config = request.config
    if config.option.keyword or config.option.markexpr:
        pytest.skip("a selection of tests: `make test` compares the whole list")
    partly = {word.split("::")[0] for word in config.args if "::" in word}
    ids = {item.nodeid for item in request.session.items}
    files = {id.split("::")[0] for id in ids} - partly
    lines = mutants.listed()
    assert len(lines) > 400
    lost = [
        line
        for line in mutants.gone(ids, lines)
        if (file := line.split(" => ")[-1].split("::")[0]) in files
        or not (mutants.ROOT / file).is_file()
    ]
    assert not lost, f"renamed? write `old id => new id` into {mutants.LIST.name}: {lost[:5]}"


def test_every_mutant_is_listed(request):
    """Of those that this run has collected."""
    new = mutants.unlisted(request.session.items, mutants.listed())
    assert not new, f"type python tests/mutants.py, and commit {mutants.LIST.name}: {new[:5]}"


def test_a_mutant_that_is_not_listed_is_seen(request, monkeypatch):
    monkeypatch.setattr(mutants, "is_mutant", lambda item: True)
    assert mutants.unlisted([request.node], []) == []  # one of the list's own tests
    other = SimpleNamespace(nodeid="b.py::second", path=Path("b.py"))
    assert mutants.unlisted([other], ["a.py::two"]) == ["b.py::second"]
    assert mutants.unlisted([other], ["a.py::two => b.py::second"]) == []


def test_a_lost_mutant_is_seen_and_a_renamed_one_is_not_lost():
    lines = ["a.py::one[x]", "a.py::two => b.py::second"]
    assert mutants.gone(["a.py::one[x]", "b.py::second"], lines) == []
    assert mutants.gone(["a.py::one[y]", "a.py::two"], lines) == lines


def test_what_breaks_the_code_is_a_mutant_by_its_source_or_its_name(request):
    """This test's source calls mutant( and is one; the first one of this file is none."""
    assert mutants.is_mutant(request.node)
    others = [i for i in request.session.items if i.nodeid.endswith("mutant_is_collected")]
    assert not any(map(mutants.is_mutant, others))
