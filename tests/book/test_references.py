"""Labels, references, citations and links: resolved where they belong, refused by name where
they do not.
"""

import re

import pytest
from tinybook import ROOT, STEM, edit

from book.convert import notebook_cells, site_cells
from book.errors import BookError
from book.library import Book
from book.references import pieces

SOURCE = f"chapters/{STEM}.py"


def complaint(book: Book) -> str:
    with pytest.raises(BookError) as error:
        notebook_cells(Book(book.root), book.chapters[0])
    return str(error.value)


def spoil(book: Book, old: str, new: str) -> Book:
    edit(book.root / SOURCE, old, new)
    return Book(book.root)


def test_pieces_join_to_the_text():
    text = "a `$b$` and $c_d$ for $5 or $6\n\n$$\ne\n$$\n\n~~~\n$f$\n~~~\n``g`h``"
    assert "".join(piece for _, piece in pieces(text)) == text
    found = [(kind, piece) for kind, piece in pieces(text) if kind != "text"]
    assert found == [
        ("code", "`$b$`"),
        ("inline", "$c_d$"),
        ("display", "$$\ne\n$$"),
        ("fence", "~~~\n$f$\n~~~"),
        ("code", "``g`h``"),
    ]


def test_the_notebook_has_numbers_anchors_and_links(tiny):
    text = notebook_cells(tiny, tiny.chapters[0])[0].source
    assert r"\tag{8.1}" in text and r"\tag{8.2}" in text and r"\label" not in text
    assert (
        '<a id="eq-euler"></a>' in text
        and "[(8.1)](#eq-euler) follows from [(8.2)](#eq-exact)" in text
    )
    assert (
        "([Lu et al., 2022a](https://arxiv.org/abs/2206.00927), eq. 3; [Song et al., "
        "2021a](https://arxiv.org/abs/2010.02502))" in text
    )
    assert r"`\eqref{eq:code}` and `[@code]`" in text
    assert (
        "*2 minutes · 1 GB of memory · needs PyTorch, a little calculus*" in text.splitlines()[2]
    )


def test_the_site_links_to_its_own_pages(tiny):
    cells = site_cells(tiny, tiny.chapters[0])
    assert '<div class="equation" id="eq-euler" markdown="1">' in cells[0].source
    assert "[Lu et al., 2022a](../bibliography.md#lu2022dpm), eq. 3" in cells[0].source
    assert (
        "(../notation.md), the [module](../api/dlib.solvers.tiny.md) and [this "
        "chapter](08_dpm_solver.md)" in cells[4].source
    )


def test_equations_are_known_across_chapters(tiny):
    other = tiny.root / "chapters" / "09_picard.py"
    text = (tiny.root / SOURCE).read_text().split("# %% [markdown]")[
        0
    ] + "# %% [markdown]\n# # 9\n# From \\eqref{eq:euler}.\n"
    other.write_text(text, encoding="utf-8")
    book = Book(tiny.root)
    assert (
        "[(8.1)](08_dpm_solver.ipynb#eq-euler)"
        in notebook_cells(book, book.chapters[1])[0].source
    )
    assert "[(8.1)](08_dpm_solver.md#eq-euler)" in site_cells(book, book.chapters[1])[0].source


def test_unknown_label(tiny):
    text = complaint(spoil(tiny, r"\eqref{eq:exact}, with", r"\eqref{eq:nowhere}, with"))
    assert (
        text
        == f"{SOURCE}, cell ch08-001 (# 8 · Tiny solvers): \\eqref{{eq:nowhere}}: no equation "
        "of the book has this label"
    )


def test_double_label(tiny):
    text = complaint(spoil(tiny, r"\label{eq:exact}", r"\label{eq:euler}"))
    assert (
        "ch08-001" in text
        and r"\label{eq:euler} is already used in chapter 08_dpm_solver" in text
    )


def test_unknown_citation(tiny):
    assert (
        "ch08-001" in (text := complaint(spoil(tiny, "@lu2022dpm", "@lu1922dpm")))
        and "[@lu1922dpm]: no such entry" in text
    )


def test_reference_in_maths(tiny):
    assert "belongs in the text" in complaint(spoil(tiny, "du = 1", r"du = \eqref{eq:euler} 1"))
    assert "inside inline maths" in complaint(
        spoil(tiny, r"$\epsilon_\theta$ in", r"$\eqref{eq:euler}$ in")
    )


def test_label_outside_maths(tiny):
    assert "outside a display equation" in complaint(
        spoil(tiny, "and the exact solution", r"and \label{eq:lost} the exact solution")
    )


def test_link_to_a_missing_chapter(tiny):
    text = complaint(spoil(tiny, "(08_dpm_solver.ipynb)", "(07_exact_solution.ipynb)"))
    assert "ch08-005" in text and "07_exact_solution.ipynb" in text


def test_every_complaint_is_made_at_once(tiny):
    edit(tiny.root / SOURCE, "@lu2022dpm", "@lu1922dpm")
    assert (
        len(
            complaint(
                spoil(tiny, r"\eqref{eq:exact}, with", r"\eqref{eq:nowhere}, with")
            ).splitlines()
        )
        == 2
    )


@pytest.mark.parametrize("room", ["dlib", "full_scale", "toy_data", "bench"])
def test_a_docstring_gives_the_letter_that_the_bibliography_prints(room):
    """Two works of the same authors and year: "Song et al. 2021" would be either of them."""
    labels = [entry.label.replace(",", "") for entry in Book(ROOT).entries.values()]
    twice = {re.escape(label[:-1]) for label in labels if label[-1] in "abc"}
    assert re.escape("Song et al. 2021") in twice
    files = [*(ROOT / room).rglob("*.py"), *(ROOT / room).rglob("*.toml")]
    for file in files:
        text = " ".join(file.read_text(encoding="utf-8").split())
        text = re.sub(r"\((\d{4}\w?)\)", r"\1", text)  # also as in "Xu et al. (2023b) say"
        cited = re.findall(rf"(?:{'|'.join(twice)})\w?", text)
        assert set(cited) <= set(labels), file.name
