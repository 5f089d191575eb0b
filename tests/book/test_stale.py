"""A notebook that is not what its source would give today is refused, with the cell and the
remedy.
"""

import json

import pytest
from tinybook import EULER, STEM, edit

from book.errors import BookError
from book.library import Book
from book.stale import read_notebook

SOURCE, NOTEBOOK = f"chapters/{STEM}.py", f"chapters/{STEM}.ipynb"


def complaint(book: Book) -> str:
    book = Book(book.root)
    with pytest.raises(BookError) as error:
        read_notebook(book, book.chapters[0])
    assert "make run CHAPTER=08" in str(error.value)
    return str(error.value)


def change(book: Book, number: int, change) -> Book:
    """Spoil cell `number` (from 1) of the notebook."""
    path = book.root / NOTEBOOK
    node = json.loads(path.read_text())
    change(node["cells"][number - 1])
    path.write_text(json.dumps(node))
    return book


def test_a_fresh_notebook_is_accepted(pressed):
    assert len(read_notebook(pressed, pressed.chapters[0]).cells) == 7


def test_edited_cell(pressed):
    edit(pressed.root / SOURCE, "for n in (64, 128)", "for n in (32, 64)")
    assert (
        f"{SOURCE}, cell ch08-003 (import matplotlib.pyplot as plt): the source has changed"
        in complaint(pressed)
    )


def test_edited_text(pressed):
    edit(pressed.root / SOURCE, "halves its error", "doubles its error")
    assert "cell ch08-001" in complaint(pressed)


def test_changed_tag(pressed):
    edit(pressed.root / SOURCE, '# %% tags=["fold"]\nimport math', "# %%\nimport math")
    assert "cell ch08-002" in complaint(pressed)


def test_added_cell(pressed):
    with (pressed.root / SOURCE).open("a") as file:
        file.write("\n# %%\n1 + 1\n")
    assert "the source has 8 cells, the notebook 7" in complaint(pressed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x + h * f(x)", "return x - h * f(x)"),
        ("@solver(order=1)", "@solver(order=2)"),
        ("def euler", "def eular"),
    ],
)
def test_edited_function(pressed, old, new):
    edit(pressed.root / EULER, old, new)
    assert (
        f"cell ch08-004 (show(euler)): shows euler of {EULER}, which has changed since"
        in complaint(pressed)
    )


def test_a_function_elsewhere_in_the_file_may_change(pressed):
    edit(pressed.root / EULER, "A callable object with an order.", "A callable with an order.")
    read_notebook(pressed, pressed.chapters[0])


def test_unexecuted_cell(pressed):
    change(pressed, 3, lambda cell: cell.update(execution_count=None, outputs=[]))
    assert "cell ch08-003" in (text := complaint(pressed)) and "has not been executed" in text


def test_error_output(pressed):
    error = {"output_type": "error", "ename": "NameError", "evalue": "no x", "traceback": []}
    change(pressed, 7, lambda cell: cell["outputs"].append(error))
    assert (
        "cell ch08-007 (slope = math.log2(errors[64] / errors[128])): ended in NameError: no x"
        in complaint(pressed)
    )


def test_picture_without_words(pressed):
    change(pressed, 6, lambda cell: cell["outputs"][0].update(metadata={}))
    assert "cell ch08-006" in (text := complaint(pressed)) and "without alt text" in text


def test_claim_of_another_chapter(pressed):
    change(pressed, 7, lambda cell: cell["outputs"][0]["metadata"]["book"].update(id="C09.1"))
    assert "cell ch08-007" in (text := complaint(pressed)) and "its id starts with C08" in text


def test_missing_notebook(tiny):
    assert f"{NOTEBOOK} does not exist yet" in complaint(tiny)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"cells": 3}',
        '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5, "x": 1}',
    ],
)
def test_malformed_notebook(pressed, text):
    (pressed.root / NOTEBOOK).write_text(text)
    assert f"{NOTEBOOK} is not a notebook" in complaint(pressed)
