"""An assignment on its way to students: fresh, complete, without answers; and what its check
says in a notebook.
"""

import json
import os
import subprocess
import sys

import nbformat
import pytest
import course01
from course import BOOK, ROOT, every_course
from course08 import COURSE
from nbclient import NotebookClient

from book import check
from book.chapter import read_chapter
from book.check import Unsolved, Wrong
from book.errors import BookError
from book.release import _complete, blank, release, student_notebook
from book.run import _THREADS
from book.truth import question, questions

RELEASED = nbformat.reads(student_notebook(BOOK, COURSE.assignment), 4)
RIGHT = COURSE.defined("Q08.5", COURSE.right()["Q08.5"])


def test_a_release_has_no_answer_and_keeps_what_nbval_compares():
    for entry in RELEASED.cells:
        assert "SOLUTION" not in entry.source
        if entry.source.startswith("# ANSWER"):
            id = entry.source.split()[2]
            assert (
                entry.source.rstrip()
                .splitlines()[-1]
                .startswith(f'    raise NotImplementedError("{id}: ')
            )
            assert COURSE.head(id) in entry.source
        if "check(" in entry.source:
            id = entry.source.split('"')[1]
            assert entry.execution_count == 0 and [dict(o) for o in entry.outputs] == [
                {"name": "stdout", "output_type": "stream", "text": f"{id} PASS\n"}
            ]
        elif entry.cell_type == "code":
            assert entry.execution_count is None and not entry.outputs
    assert [c.id for c in RELEASED.cells] == [
        f"as08-{k:03d}" for k in range(1, len(RELEASED.cells) + 1)
    ]


@pytest.mark.parametrize("course", every_course(), ids=lambda course: course.number)
def test_the_code_of_a_release_fits_on_a_small_screen(course):
    code = [
        c.source
        for c in nbformat.reads(student_notebook(BOOK, course.assignment), 4).cells
        if c.cell_type == "code"
    ]
    assert not [line for source in code for line in source.splitlines() if len(line) > 100]


def test_a_release_is_the_same_twice_and_never_overwrites_work(tmp_path):
    path = release(BOOK, "08", tmp_path / "new")
    assert path.read_text() == student_notebook(BOOK, COURSE.assignment)
    path.write_text("my work")
    with pytest.raises(BookError, match="may hold somebody's work"):
        release(BOOK, "08", tmp_path / "new")
    assert path.read_text() == "my work"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    ### END SOLUTION", "", "wanted one '### BEGIN SOLUTION'"),
        ('# NBVAL_CHECK_OUTPUT\ncheck("Q08.1"', 'check("Q08.1"', 'check("Q08.1", …)'),
        ("# ANSWER Q08.2", "# ANSWER Q08.1", "Q08.1 is answered twice"),
        ("# ANSWER Q08.2", "# answer", "no cell starts with '# ANSWER Q08.2'"),
        ('tally("08")', 'tally("07")', 'wanted a last cell that ends with tally("08")'),
    ],
)
def test_an_incomplete_assignment_is_not_released(tmp_path, old, new, says):
    folder = tmp_path / "assignments"
    folder.mkdir()
    text = COURSE.assignment.path.read_text()
    assert old in text
    (folder / COURSE.assignment.path.name).write_text(text.replace(old, new, 1))
    with pytest.raises(BookError) as error:
        _complete(read_chapter(folder / COURSE.assignment.path.name))
    assert says in str(error.value) and "chapters/assignments/08_dpm_solver.py" in str(
        error.value
    )


def test_blank_keeps_what_is_outside_the_marks():
    source = (
        "# ANSWER Q08.9\ndef f(x):\n    a = 1\n    ### BEGIN SOLUTION\n    secret\n    "
        "### END SOLUTION\n    return a"
    )
    lines = blank(source, "Q08.9").splitlines()
    assert (
        lines[:3] == source.splitlines()[:3]
        and lines[3].startswith("    raise Not")
        and lines[4:] == ["    return a"]
    )


def test_an_unknown_assignment_or_question_is_answered_with_the_known():
    with pytest.raises(BookError, match="no assignment '31': the assignments are 01, .*08"):
        BOOK.chosen(["assignments/31"])
    with pytest.raises(BookError, match="no Q08.7: the questions are Q08.1, "):
        question("Q08.7")
    with pytest.raises(BookError, match="like 'Q08.2'"):
        question("8.2")


def test_check_prints_pass_and_raises_a_diagnosis(capsys):
    check("Q08.5", RIGHT)
    assert capsys.readouterr().out == "Q08.5 PASS\n"
    with pytest.raises(Wrong, match="Q08.5: slope is off by .*: not that of the parabola"):
        check("Q08.5", lambda lam, f: (f[0], f[0]))
    with pytest.raises(ZeroDivisionError):
        check("Q08.5", lambda lam, f: 1 / 0)
    with pytest.raises(BookError, match="no Q08.7"):
        check("Q08.7", None)
    assert Wrong("short")._render_traceback_() == ["short"] and Unsolved(
        "short"
    )._render_traceback_() == ["short"]
    assert not capsys.readouterr().out


@pytest.fixture(scope="module")
def executed():
    """A student's notebook after all its cells were run: one right, one blank, one leaning on
    another cell, one wrong, one unmarked.
    """
    node = COURSE.notebook(
        {
            "Q08.1": COURSE.right()["Q08.1"],
            "Q08.3": COURSE.cell("Q08.3", "return helper(model, x, a, b)"),
            "Q08.4": COURSE.cell(
                "Q08.4",
                "x0 = model(x, a).x0\nreturn b.alpha * x0 + b.sigma * model(x, a).eps, None",
            ),
            "Q08.5": COURSE.right()["Q08.5"].replace("# ANSWER Q08.5\n", ""),
        }
    )
    node["cells"][1]["source"] += "\ndef helper(model, x, a, b):\n    return x"
    return outputs(node)


def outputs(node: dict) -> dict:
    """{question: what its check cell shows, number: what the last cell shows} after "Run All",
    which would stop at a cell that raises an error.
    """
    node = nbformat.from_dict(node)
    NotebookClient(
        node,
        kernel_name="python3",
        timeout=120,
        coalesce_streams=True,  # a busy machine delivers what is printed in pieces
    ).execute(env={**os.environ, **_THREADS, "PYTHONPATH": str(ROOT)})
    verbs = ("check(", "tally(")
    return {
        c.source.split('"')[1]: c.outputs for c in node.cells if any(v in c.source for v in verbs)
    }


@pytest.mark.parametrize(
    ("id", "says"),
    [
        (
            "Q08.2",
            "Q08.2: not answered yet. In the cell above, put your code in the place of the line",
        ),
        ("Q08.3", "name 'helper' is not defined"),
        ("Q08.4", "this is DDIM: is the memory returned"),
        ("Q08.5", "the first line of the answer's cell must be '# ANSWER Q08.5'"),
    ],
)
def test_what_a_student_sees(executed, id, says):
    assert executed["Q08.1"][0].text == "Q08.1 PASS\n"
    (output,) = executed[id]
    assert says in words(output) and len(words(output)) < 330


def test_the_last_cell_counts_what_passes(executed, troubled):
    for shown, number in ((executed, "08"), (troubled, "01")):
        worth = [q.points for q in questions(number)]
        assert shown[number][0].text == (
            f"1 of {len(worth)} questions pass ({worth[0]} of {sum(worth)} points)\n"
            f"not yet: {', '.join(f'Q{number}.{k}' for k in range(2, 6))}\n"
        )


def words(output) -> str:
    """An error as a notebook shows it, in one line. Each of its lines fits into the box of an
    error.
    """
    assert max(map(len, "\n".join(output.traceback).splitlines())) <= 100
    return " ".join("\n".join(output.traceback).split())


@pytest.fixture(scope="module")
def troubled():
    """Assignment 1 with answers that raise errors, and with magics: around a cell, and a
    decorator that does no harm.
    """
    course = course01.COURSE
    right = course.right()
    return outputs(
        course.notebook(
            {
                "Q01.1": right["Q01.1"].replace(
                    "def mixture_score", "@torch.no_grad()\ndef mixture_score"
                ),
                "Q01.2": course.cell(
                    "Q01.2", "return x + sigma**2 * mixture_score(x, weights, means, stds)"
                ),
                "Q01.3": course.cell(
                    "Q01.3", "s = score(x)\n(g,) = torch.autograd.grad(s.sum(), x)\nreturn g"
                ),
                "Q01.4": "%%time\n" + right["Q01.4"],
                "Q01.5": "%%capture\n" + right["Q01.5"],
            }
        )
    )


@pytest.mark.parametrize(
    ("id", "says"),
    [
        (
            "Q01.2",
            "line 3, in denoise: return x + sigma**2 * mixture_score(x, weights, means, stds) "
            "NameError: name 'mixture_score' is not defined. "
            "An answer may use the notebook's first code cell and its own cell",
        ),
        (
            "Q01.3",
            "Q01.3: the answer raised an error line 4, in implicit_loss: (g,) = "
            "torch.autograd.grad(s.sum(), x) RuntimeError: One of the",
        ),
        (
            "Q01.4",
            "the first line of the answer's cell must be '# ANSWER Q01.4', with nothing above "
            "it, no %%time",
        ),
        (
            "Q01.5",
            "the first line of the answer's cell must be '# ANSWER Q01.5', with nothing above "
            "it, no %%time",
        ),
    ],
)
def test_errors_and_magics_are_told_in_a_few_lines(troubled, id, says):
    assert troubled["Q01.1"][0].text == "Q01.1 PASS\n"
    (output,) = troubled[id]
    assert says in words(output) and "check.py" not in words(output) and len(words(output)) < 400


@pytest.mark.parametrize(
    ("answers", "failed"), [(COURSE.right(), 0), ({}, 5)], ids=["right", "blank"]
)
def test_the_student_s_own_test(tmp_path, answers, failed):
    (tmp_path / "mine.ipynb").write_text(json.dumps(COURSE.notebook(answers)))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--nbval-lax",
        "--nbval-cell-timeout",
        "120",
        "mine.ipynb",
    ]
    environment = {**os.environ, **_THREADS, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert result.returncode == (1 if failed else 0)
    assert f"{failed} failed" in result.stdout if failed else "failed" not in result.stdout


def test_book_stays_light():
    code = (
        "import sys, book, book.__main__, book.release, book.questions; print([m for m in "
        "('torch', 'dlib', 'numpy', 'jupytext') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )
