"""The last cell of an assignment: what it counts, in a solution and in a student's kernel."""

from types import SimpleNamespace

import pytest
from course import BOOK, every_course
from course08 import COURSE

from book import closing, tally
from book.errors import BookError
from book.run import _refuse_errors
from book.sheet import sheet
from book.stale import read_notebook

FUNCTIONS = {id: sheet("08").function(id) for id in COURSE.solution}


@pytest.mark.parametrize("course", every_course(), ids=lambda course: course.number)
def test_the_solution_ends_by_counting_all_of_them(course):
    count, points = len(course.questions), sum(sheet(course.number).points.values())
    last = read_notebook(BOOK, course.assignment).cells[-1]
    assert [output.text for output in last.outputs] == [
        f"{count} of {count} questions pass ({points} of {points} points)\n"
    ]
    first = read_notebook(BOOK, course.assignment).cells[0].source
    assert f"\n*{count} questions · {points} points · " in first


@pytest.fixture
def kernel(monkeypatch):
    """A kernel in which nothing has been checked: its names, of the answers' functions."""
    monkeypatch.setattr(closing, "_latest", {})
    shell = SimpleNamespace(user_ns={name: object() for name in FUNCTIONS.values()})
    monkeypatch.setattr(closing, "notebook", lambda: shell)
    return shell.user_ns


def test_a_tally_counts_latest_checks_of_what_the_kernel_has_now(kernel, capsys):
    def told():
        tally("08")
        return capsys.readouterr().out.splitlines()

    checked = lambda id, share: closing.remember(id, kernel[FUNCTIONS[id]], share)
    everything = f"not checked since the kernel started: {', '.join(FUNCTIONS)}"
    assert told() == ["0 of 5 questions pass (0 of 20 points)", everything]
    for id in FUNCTIONS:
        checked(id, 1.0)
    assert told() == ["5 of 5 questions pass (20 of 20 points)"]
    checked("Q08.1", 0.5)
    checked("Q08.3", 0.0)
    kernel[FUNCTIONS["Q08.4"]] = object()
    assert told() == [
        "2 of 5 questions pass (7.5 of 20 points)",
        "not yet: Q08.1, Q08.3",
        "its cell was run again after its check: Q08.4",
    ]
    checked("Q08.1", 1.0)
    assert told()[0] == "3 of 5 questions pass (9 of 20 points)"
    with pytest.raises(BookError, match="no assignment '31'"):
        tally("31")


def test_an_error_that_a_check_shows_keeps_a_notebook_from_being_committed():
    cells = [SimpleNamespace(outputs=[]) for _ in COURSE.assignment.cells]
    _refuse_errors(COURSE.assignment, SimpleNamespace(cells=list(map(vars, cells))))
    shown = SimpleNamespace(output_type="error", ename="Wrong", evalue="\x1b[1mQ08.1: no")
    cells[4].outputs.append(shown)
    with pytest.raises(BookError, match=r'as08-005 \(check\("Q08.1", phis\)\): Wrong: Q08.1: no'):
        _refuse_errors(COURSE.assignment, SimpleNamespace(cells=list(map(vars, cells))))
