"""A chapter stays light: up to 16 visible cells, short ones, none wider than the page, and 1 500
to 2 500 words without tables and answers. One in the newer form has few formulas in its sentences.
"""

import re
from statistics import median

import pytest
from tinybook import ROOT

from book.chapter import FOLD
from book.library import Book

CHAPTERS = Book(ROOT).chapters
COLUMNS = 98  # what the site shows without scrolling
OLDER = {*range(1, 11), 20}  # no new chapter comes here


def lines(cell):
    """Lines of code: not blank, not only a comment."""
    return sum(
        bool(line.strip()) and not line.strip().startswith("#")
        for line in cell.source.splitlines()
    )


def words(text):
    """Words of prose as the author wrote it: tables, answers, displayed formulas and shell
    commands do not count, a formula in a sentence is one word.
    """
    prose = re.sub(r"</?\w[^>]*>", "", re.sub(r"\$[^$]*\$", " M ", _prose(text)))
    return len(re.findall(r"[A-Za-z]\S*", prose))


def formulas(text):
    """Formulas inside of the sentences whose words are counted."""
    return len(re.findall(r"\$[^$]*\$", _prose(text)))


def _prose(text):
    """Without tables, answers, displayed formulas and shell commands."""
    answers = r"<details>\s*<summary>\s*Answers?\b.*?</details>"
    prose = re.sub(rf"{answers}|\$\$.*?\$\$|```.*?```", "", text, flags=re.DOTALL)
    return re.sub(r"^\|.*$", "", prose, flags=re.MULTILINE)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_a_chapter_is_light(chapter):
    code = [cell for cell in chapter.cells if cell.kind == "code"]
    text = "\n\n".join(cell.source for cell in chapter.cells if cell.kind == "markdown")
    seen = [lines(cell) for cell in code if FOLD not in cell.tags]
    assert len(seen) <= 16, "cells: what is a side remark, a test, an exercise?"
    assert median(seen) <= 16 and max(seen) <= 30, "lines a cell: one idea each"
    assert 1500 <= words(text) <= 2500, "words"
    if chapter.number not in OLDER:  # the least today: 18.9
        assert words(text) >= 18 * formulas(text), "formulas: say it in words"
    wide = [line for cell in code for line in cell.source.splitlines() if len(line) > COLUMNS]
    assert not wide, "columns: the page would cut this line"
    assert chapter.notebook.stat().st_size <= 300_000, (
        "bytes: fewer points or smaller pictures in the figures"
    )


TEXT = (
    "Two modes, $x+y$ apart:\n\n$$a = b$$\n\n```bash\npython -m book\n```\n\nand so on.\n\n"
    "| a table | is not read $n$ |\n|---|---|\n| word | by word |\n\n"
    "<details><summary>Answer to 1</summary>\n\nIt is $7$.\n\n</details>\n\n"
    "<details><summary>The algebra</summary>\n\nAnswers count.\n\n</details>"
)


def test_words_and_formulas_are_counted_as_a_reader_counts_them():
    assert words(TEXT) == 7 + 4 and formulas(TEXT) == 1
