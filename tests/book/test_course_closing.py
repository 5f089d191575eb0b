"""The last cell of an assignment: what it counts, in a solution and in a student's kernel."""

from types import SimpleNamespace

import pytest
from course import BOOK, every_course
from course08 import COURSE

from book import closing, tally
from book.errors import BookError
from book.truth import questions
from book.run import _refuse_errors
from book.stale import read_notebook


@pytest.mark.parametrize("course", every_course(), ids=lambda course: course.number)
def test_the_solution_ends_by_counting_all_of_them(course):
    count, most = len(course.questions), sum(q.points for q in course.questions)
    last = read_notebook(BOOK, course.assignment).cells[-1]
    assert [output.text for output in last.outputs] == [
        f"{count} of {count} questions pass ({most} of {most} points)\n"
    ]


@pytest.fixture
def kernel(monkeypatch):
    """A kernel in which nothing has been checked: its names, of the answers' functions."""
    monkeypatch.setattr(closing, "_latest", {})
    shell = SimpleNamespace(user_ns={q.function: object() for q in questions("08")})
    monkeypatch.setattr(closing, "notebook", lambda: shell)
    return shell.user_ns


def test_a_tally_counts_latest_checks_of_what_the_kernel_has_now(kernel, capsys):
    def told():
        tally("08")
        return capsys.readouterr().out.splitlines()

    ids = {q.id: q for q in questions("08")}
    checked = lambda id, share: closing.remember(id, kernel[ids[id].function], share)
    worth = {id: q.points for id, q in ids.items()}
    n, most = len(ids), sum(worth.values())
    everything = f"not checked since the kernel started: {', '.join(ids)}"
    assert told() == [f"0 of {n} questions pass (0 of {most} points)", everything]
    for id in ids:
        checked(id, 1.0)
    assert told() == [f"{n} of {n} questions pass ({most} of {most} points)"]
    checked("Q08.1", 0.5)
    checked("Q08.3", 0.0)
    kernel[ids["Q08.4"].function] = object()
    points = worth["Q08.2"] + worth["Q08.5"]
    assert told() == [
        f"2 of {n} questions pass ({points + worth['Q08.1'] / 2:g} of {most} points)",
        "not yet: Q08.1, Q08.3",
        "its cell was run again after its check: Q08.4",
    ]
    checked("Q08.1", 1.0)
    points += worth["Q08.1"]
    assert told()[0] == f"3 of {n} questions pass ({points} of {most} points)"
    with pytest.raises(BookError, match="no assignment '31'"):
        tally("31")


def test_an_error_that_a_check_shows_keeps_a_notebook_from_being_committed():
    cells = [SimpleNamespace(outputs=[]) for _ in COURSE.assignment.cells]
    _refuse_errors(COURSE.assignment, SimpleNamespace(cells=list(map(vars, cells))))
    shown = SimpleNamespace(output_type="error", ename="Wrong", evalue="\x1b[1mQ08.1: no")
    cells[4].outputs.append(shown)
    with pytest.raises(BookError, match=r'as08-005 \(check\("Q08.1", phis\)\): Wrong: Q08.1: no'):
        _refuse_errors(COURSE.assignment, SimpleNamespace(cells=list(map(vars, cells))))
