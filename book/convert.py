"""From an author's cells to the cells of a notebook: references resolved, ids and metadata the
same every time.
"""

from dataclasses import replace

from book.chapter import Cell, Chapter
from book.errors import Complaints
from book.library import Book
from book.references import References, for_notebook, for_site, resolve

_LANGUAGE = {
    "name": "python",
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "pygments_lexer": "ipython3",
}
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
    """The first cell with a line under its heading: how long, how much memory, what it needs."""
    heading, _, rest = source.partition("\n")
    strip = (
        f"*{chapter.minutes} minutes · {chapter.memory} of memory · needs "
        f"{', '.join(chapter.needs)}*"
    )
    return f"{heading}\n\n{strip}\n{rest}".rstrip()


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
    return make(cell.source, id=cell.id, metadata={"tags": list(cell.tags)} if cell.tags else {})
