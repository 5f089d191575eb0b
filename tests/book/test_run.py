"""Running a chapter: repeatable to the byte, whole or not at all, and its errors name the
cell.
"""

import base64
import io

import nbformat
import numpy as np
import pytest
from PIL import Image
from tinybook import STEM, edit

from book import pictures
from book.errors import BookError
from book.library import Book
from book.run import run

SOURCE, NOTEBOOK = f"chapters/{STEM}.py", f"chapters/{STEM}.ipynb"


def test_a_second_run_gives_the_same_bytes_and_tells_its_progress(pressed):
    before, lines = (pressed.root / NOTEBOOK).read_bytes(), []
    run(pressed, pressed.chapters[0], lines.append)
    assert (pressed.root / NOTEBOOK).read_bytes() == before
    assert any("cell  3 of 7" in line and "import matplotlib.pyplot" in line for line in lines)


def test_the_notebook_has_no_noise(pressed):
    text = (pressed.root / NOTEBOOK).read_text()
    assert (
        "quadrangular" not in text.replace('print(\\"quadrangular\\"', "")
        and "iopub" not in text
        and "version" not in text
    )
    node = nbformat.reads(text, 4)
    assert node.cells[6].outputs[0].data == {
        "text/plain": "✓ C08.1  Euler converges at order $1$ on $\\dot x = -x$  [between 0.9 "
        "and 1.1]  ▸ measured 1.0"
    }
    assert node.cells[2].outputs[0].data == {"text/plain": "[64, 128]"}


def test_a_line_printed_in_two_pieces_is_one_output(pressed):
    pieces = 'import time\n\nprint("one ", end="", flush=True)\ntime.sleep(0.5)\nprint("line")\n'
    edit(pressed.root / SOURCE, 'print("quadrangular"', f'{pieces}print("quadrangular"')
    book = Book(pressed.root)
    run(book, book.chapters[0], lambda line: None)
    cells = nbformat.read(pressed.root / NOTEBOOK, 4).cells
    texts = [out.text for cell in cells for out in cell.get("outputs", []) if "text" in out]
    assert texts.count("one line\n") == 1


def test_pictures_have_a_palette(pressed):
    png = nbformat.read(pressed.root / NOTEBOOK, 4).cells[5].outputs[0].data["image/png"]
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    assert image.mode == "P" and len(image.getcolors()) <= 64 and len(png) < 40_000


def test_a_failed_run_keeps_the_notebook_and_names_the_cell(pressed):
    before = (pressed.root / NOTEBOOK).read_bytes()
    edit(pressed.root / SOURCE, "between=(0.9, 1.1)", "between=(1.9, 2.1)")
    book = Book(pressed.root)
    with pytest.raises(BookError) as error:
        run(book, book.chapters[0], lambda line: None)
    where = (
        f"{SOURCE}, cell ch08-007 (slope = math.log2(errors[64] / errors[128])): "
        "AssertionError: C08.1 does not hold"
    )
    assert (
        str(error.value).startswith(where)
        and len(str(error.value)) < 400
        and "\x1b" not in str(error.value)
    )
    assert (pressed.root / NOTEBOOK).read_bytes() == before
    assert sorted(path.name for path in (pressed.root / "chapters").iterdir()) == [
        f"{STEM}.ipynb",
        f"{STEM}.py",
    ]


def test_few_colours_are_those_of_the_picture():
    """A small red square among near-whites, of which there are more than colours to give."""
    noise = np.random.default_rng(0).integers(230, 256, (120, 600, 3), dtype=np.uint8)
    noise[40:60, 40:60] = (214, 40, 57)
    noise[40:60, 100:120] = (0, 0, 0)
    full = io.BytesIO()
    Image.fromarray(noise).save(full, format="PNG")
    png = pictures.quantised(base64.b64encode(full.getvalue()).decode())
    small = Image.open(io.BytesIO(base64.b64decode(png)))
    found = np.asarray(small.convert("RGB")).astype(int)
    assert len(small.getcolors()) <= pictures.COLOURS
    assert abs(found - noise).max() <= 16


def test_heavy_pictures_are_refused(pressed, monkeypatch):
    monkeypatch.setattr(pictures, "BUDGET", 1000)
    node = nbformat.read(pressed.root / NOTEBOOK, 4)
    with pytest.raises(
        BookError, match="its pictures take .* kB of 1 kB; the heaviest are ch08-006"
    ):
        pictures.shrink(pressed.chapters[0], node)
