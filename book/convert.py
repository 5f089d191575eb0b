"""From an author's cells to the cells of a notebook: references resolved, ids and metadata the
same every time.
"""

import re
from dataclasses import replace

from book.chapter import FOLD, Cell, Chapter
from book.errors import Complaints
from book.library import Book
from book.references import References, for_notebook, for_site, resolve
from book.sheet import points

_LANGUAGE = {
    "name": "python",
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "pygments_lexer": "ipython3",
}
_BEYOND = re.compile(r"^(?:from|import) (?:diffusers|full_scale)\b", re.MULTILINE)
_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def notebook_cells(book: Book, chapter: Chapter) -> list[Cell]:
    """The chapter's cells as its notebook must have them. BookError names every unknown label,
    citation or chapter.
    """
    cells = _resolved(book, chapter, for_notebook(*book.referable))
    return [replace(cells[0], source=_with_strip(chapter, cells[0].source)), *cells[1:]]


def site_cells(book: Book, chapter: Chapter) -> list[Cell]:
    """The chapter's cells with references as links between the site's pages."""
    return _resolved(book, chapter, for_site(*book.referable, "chapters"))


def _resolved(book: Book, chapter: Chapter, refs: References) -> list[Cell]:
    complaints = Complaints()
    cells = [_resolve_cell(chapter, cell, refs, complaints) for cell in chapter.cells]
    complaints.check()
    return cells


def _resolve_cell(chapter: Chapter, cell: Cell, refs: References, complaints: Complaints) -> Cell:
    if cell.kind != "markdown":
        return cell
    return replace(
        cell, source=resolve(cell.source, chapter.where(cell), chapter.stem, refs, complaints)
    )


def _with_strip(chapter: Chapter, source: str) -> str:
    """The first cell with two lines under its heading: what an assignment asks, how long it
    takes, how much memory, what it needs; how to run it, also for somebody who has the notebook
    and nothing else.
    """
    heading, _, rest = source.partition("\n")
    strip = (
        f"*{asked(chapter)}{chapter.minutes} minutes · {chapter.memory} of memory · needs "
        f"{', '.join(chapter.needs)}*"
    )
    return f"{heading}\n\n{strip}\n\n*{_how_to_run(chapter)}*\n{rest}".rstrip()


def asked(chapter: Chapter) -> str:
    """How many questions an assignment asks, and what they count: "5 questions · 20 points · ".
    Nothing for a chapter.
    """
    worth = points("\n".join(cell.source for cell in chapter.cells)).values()
    return f"{len(worth)} questions · {sum(worth)} points · " if worth else ""


def _how_to_run(chapter: Chapter) -> str:
    here = (
        "`make setup` and then `.venv/bin/python -m jupyterlab`, in a checkout of the book's "
        "repository, open this assignment"
        if chapter.path.parent.name == "assignments"
        else "`make lab`, in a checkout of the book's repository, opens a copy of this chapter"
    )
    what = "'.[full]'" if any(_BEYOND.search(cell.source) for cell in chapter.cells) else "."
    return (
        f"To run it: {here}. A notebook that came alone stops at its first code cell with `No "
        f"module named 'book'`: get the repository and run `pip install -e {what}` in its "
        "folder, with the Python of this notebook's kernel."
    )


def to_notebook(book: Book, chapter: Chapter):
    """The chapter as an unexecuted notebook node: the same bytes for the same source."""
    from nbformat import v4

    cells = [_node(v4, cell) for cell in notebook_cells(book, chapter)]
    header = {"title": chapter.title, "summary": chapter.summary, "minutes": chapter.minutes}
    header |= {"memory": chapter.memory, "needs": list(chapter.needs)}
    metadata = {"book": header, "kernelspec": dict(_KERNEL), "language_info": dict(_LANGUAGE)}
    return v4.new_notebook(cells=cells, metadata=metadata)


def _node(v4, cell: Cell):
    make = v4.new_markdown_cell if cell.kind == "markdown" else v4.new_code_cell
    folded = {"tags": [FOLD], "jupyter": {"source_hidden": True}}
    return make(cell.source, id=cell.id, metadata=folded if FOLD in cell.tags else {})
