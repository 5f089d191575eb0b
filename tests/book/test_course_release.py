"""An assignment on its way to students: fresh, complete, without answers; and what its check says in a notebook."""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from course import ASSIGNMENT, BOOK, FUNCTION, OTHERWISE, ROOT, SOLUTION, cell, notebook, right
from nbclient import NotebookClient

from book import check
from book.chapter import read_chapter
from book.check import Unsolved, Wrong
from book.errors import BookError
from book.questions import question
from book.questions.q08 import PRELUDE, QUESTIONS
from book.release import _complete, blank, release, student_notebook
from book.run import _THREADS
from book.stale import read_notebook

RELEASED = nbformat.reads(student_notebook(BOOK, ASSIGNMENT), 4)


def test_the_committed_solution_is_fresh_and_its_first_cell_is_the_prelude():
    node = read_notebook(BOOK, ASSIGNMENT)
    assert next(c for c in node.cells if c.cell_type == "code").source == PRELUDE
    assert [q.id for q in QUESTIONS] == list(SOLUTION) and sum(q.points for q in QUESTIONS) == 20 and len(QUESTIONS) <= 5


def test_the_text_of_the_assignment_states_the_points():
    text = "\n".join(c.source for c in ASSIGNMENT.cells if c.kind == "markdown")
    assert all(f"## Question 8.{q.id[-1]}" in text and f"({q.points} points)" in text.split(f"## Question 8.{q.id[-1]}")[1] for q in QUESTIONS)


def test_a_release_has_no_answer_and_keeps_what_nbval_compares():
    for entry in RELEASED.cells:
        assert "SOLUTION" not in entry.source
        if entry.source.startswith("# ANSWER"):
            id = entry.source.split()[2]
            assert entry.source.rstrip().splitlines()[-1].startswith(f'    raise NotImplementedError("{id}: ')
            assert FUNCTION[id] in entry.source
        if "check(" in entry.source:
            id = entry.source.split('"')[1]
            assert entry.execution_count and [dict(o) for o in entry.outputs] == [{"name": "stdout", "output_type": "stream", "text": f"{id} PASS\n"}]
    assert [c.id for c in RELEASED.cells] == [f"as08-{k:03d}" for k in range(1, len(RELEASED.cells) + 1)]


def test_a_release_is_the_same_twice_and_never_overwrites_work(tmp_path):
    path = release(BOOK, "08", tmp_path / "new")
    assert path.read_text() == student_notebook(BOOK, ASSIGNMENT)
    path.write_text("my work")
    with pytest.raises(BookError, match="may hold somebody's work"):
        release(BOOK, "08", tmp_path / "new")
    assert path.read_text() == "my work"


@pytest.mark.parametrize(("old", "new", "says"), [
    ("    ### END SOLUTION", "", "wanted one '### BEGIN SOLUTION'"),
    ("# NBVAL_CHECK_OUTPUT\ncheck(\"Q08.1\"", "check(\"Q08.1\"", 'check("Q08.1", …)'),
    ("# ANSWER Q08.2", "# ANSWER Q08.1", "Q08.1 is answered twice"),
    ("# ANSWER Q08.2", "# answer", "no cell starts with '# ANSWER Q08.2'"),
])
def test_an_incomplete_assignment_is_not_released(tmp_path, old, new, says):
    folder = tmp_path / "assignments"
    folder.mkdir()
    text = ASSIGNMENT.path.read_text()
    assert old in text
    (folder / ASSIGNMENT.path.name).write_text(text.replace(old, new, 1))
    with pytest.raises(BookError) as error:
        _complete(read_chapter(folder / ASSIGNMENT.path.name))
    assert says in str(error.value) and "chapters/assignments/08_dpm_solver.py" in str(error.value)


def test_blank_keeps_what_is_outside_the_marks():
    source = "# ANSWER Q08.9\ndef f(x):\n    a = 1\n    ### BEGIN SOLUTION\n    secret\n    ### END SOLUTION\n    return a"
    lines = blank(source, "Q08.9").splitlines()
    assert lines[:3] == source.splitlines()[:3] and lines[3].startswith("    raise Not") and lines[4:] == ["    return a"]


def test_an_unknown_assignment_or_question_is_answered_with_the_known():
    with pytest.raises(BookError, match="no assignment '31': the assignments are 08"):
        BOOK.chosen(["assignments/31"])
    with pytest.raises(BookError, match="no Q08.7: the questions are Q08.1, "):
        question("Q08.7")
    with pytest.raises(BookError, match="like 'Q08.2'"):
        question("8.2")


def test_check_prints_pass_and_raises_a_diagnosis(capsys):
    check("Q08.5", lambda lam, f: tuple(define_right("Q08.5")(lam, f)))
    assert capsys.readouterr().out == "Q08.5 PASS\n"
    with pytest.raises(Wrong, match="Q08.5: slope: not that of the parabola"):
        check("Q08.5", lambda lam, f: (f[0], f[0]))
    with pytest.raises(ZeroDivisionError):
        check("Q08.5", lambda lam, f: 1 / 0)
    assert Wrong("short")._render_traceback_() == ["short"] and Unsolved("short")._render_traceback_() == ["short"]
    assert not capsys.readouterr().out


def define_right(id):
    from book.questions.answers import define

    return define(id, question(id).function, PRELUDE, cell(id, OTHERWISE[id]))


@pytest.fixture(scope="module")
def executed():
    """A student's notebook after all its cells were run: one right, one blank, one leaning on another cell, one wrong, one unmarked."""
    node = notebook({
        "Q08.1": right()["Q08.1"],
        "Q08.3": cell("Q08.3", "return helper(model, x, a, b)"),
        "Q08.4": cell("Q08.4", "x0 = model(x, a).x0\nreturn b.alpha * x0 + b.sigma * model(x, a).eps, None"),
        "Q08.5": right()["Q08.5"].replace("# ANSWER Q08.5\n", ""),
    })
    node["cells"][1]["source"] += "\ndef helper(model, x, a, b):\n    return x"
    node = nbformat.from_dict(node)
    NotebookClient(node, allow_errors=True, kernel_name="python3", timeout=120).execute(env={**os.environ, **_THREADS, "PYTHONPATH": str(ROOT)})
    return {c.source.split('"')[1]: c.outputs for c in node.cells if "check(" in c.source}


@pytest.mark.parametrize(("id", "says"), [
    ("Q08.2", "Q08.2: not answered yet. Put your code in the place of this line"),
    ("Q08.3", "name 'helper' is not defined"),
    ("Q08.4", "this is DDIM: is the memory returned"),
    ("Q08.5", "the first line of the answer's cell must be '# ANSWER Q08.5'"),
])
def test_what_a_student_sees(executed, id, says):
    assert executed["Q08.1"][0].text == "Q08.1 PASS\n"
    (output,) = executed[id]
    shown = "\n".join(output.traceback)
    assert says in shown and (id == "Q08.3" or len(shown) < 300)


@pytest.mark.parametrize(("answers", "failed"), [(right(), 0), ({}, 5)], ids=["right", "blank"])
def test_the_student_s_own_test(tmp_path, answers, failed):
    (tmp_path / "mine.ipynb").write_text(json.dumps(notebook(answers)))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-cell-timeout", "120", "mine.ipynb"]
    environment = {**os.environ, **_THREADS, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert result.returncode == (1 if failed else 0)
    assert f"{failed} failed" in result.stdout if failed else "failed" not in result.stdout


def test_book_stays_light():
    code = "import sys, book, book.__main__, book.release, book.questions; print([m for m in ('torch', 'dlib', 'numpy', 'jupytext') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.strip() == "[]"
