"""A chapter stays light: few cells, short ones, few words. The aims are 14 cells, a median of
8 lines, 1 900 words; the fences stand a little outside.
"""

import re
from statistics import median

import nbformat
import pytest
from tinybook import ROOT

CHAPTERS = sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb"))


def lines(cell):
    """Lines of code: not blank, not only a comment."""
    return sum(
        bool(line.strip()) and not line.strip().startswith("#")
        for line in cell.source.splitlines()
    )


def words(text):
    """Words of prose: displayed formulas and shell commands do not count, a formula in a
    sentence is one word.
    """
    prose = re.sub(r"\$\$.*?\$\$|```.*?```", "", text, flags=re.S)
    return len(re.findall(r"[A-Za-z]\S*", re.sub(r"\$[^$]*\$", " M ", prose)))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_light(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [lines(cell) for cell in cells if cell.cell_type == "code"]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert len(code) <= 16, "cells: what is a side remark, a test, an exercise?"
    assert median(code) <= 15 and max(code) <= 30, "lines a cell: one idea each"
    assert 1400 <= words(text) <= 2500, "words"
    assert path.stat().st_size <= 300_000, (
        "bytes: fewer points or smaller pictures in the figures"
    )


def test_words_are_counted_as_a_reader_counts_them():
    assert (
        words(
            "Two modes, $x+y$ apart:\n\n$$a = b$$\n\n```bash\npython -m book\n```\n\nand so on."
        )
        == 7
    )
