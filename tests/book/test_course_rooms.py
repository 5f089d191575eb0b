"""What the process of an answer imports holds no truth: no solution, no mistake, no judge."""

import subprocess
import sys

import pytest
from course import ROOT, every_course

from tests.import_graph import graph, imported, sources

KNOWING = ("book.truth", "book.sheet", "book.release", "book.library", "book.chapter")
CHILD = [name for name in sources() if f"{name}.".startswith("book.questions.")]


def ours(module: str) -> bool:
    return module.partition(".")[0] not in ("dlib", "book") or f"{module}.".startswith(
        ("dlib.", "book.questions.")
    )


@pytest.mark.parametrize("name", CHILD)
def test_the_calls_import_themselves_and_the_library(name):
    assert all(map(ours, imported(sources()[name], sources())))


def test_nothing_that_a_call_needs_leads_to_the_truth():
    """Without the package `book`, whose own lines every one of its modules runs."""
    edges, seen, todo = graph(sources()), set(), list(CHILD)
    while todo:
        name = todo.pop()
        if name not in seen and name != "book":
            seen.add(name)
            todo += edges[name]
    assert "book.questions.q08" in seen and not [n for n in seen if n.startswith(KNOWING)]


def test_a_call_that_asked_for_the_truth_would_be_seen():
    text = "def f():\n    from book.truth import question\n"
    assert not all(map(ours, imported(text, sources())))


def test_the_process_that_answers_are_forked_from_knows_no_truth():
    numbers = [course.number for course in every_course()]
    code = (
        "import sys\nfrom book.grading import zygote\n"
        f"for number in {numbers}:\n    zygote.caller(number)\n"
        f"known = [m for m in sys.modules if m.startswith({KNOWING})]\n"
        "print(known, 'book.questions.q20' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] True"


def test_no_explanation_or_solution_is_in_the_text_of_the_calls():
    texts = "".join(sources()[name] for name in CHILD)
    for course in every_course():
        for q in course.questions:
            lines = {line.strip() for line in q.cell.split("### BEGIN SOLUTION")[1].splitlines()}
            copied = [line for line in lines if len(line) > 40 and line in texts]
            assert not copied, (q.id, copied)
            assert not [why for why, _ in getattr(q, "wrong", list)() if why in texts]
