"""Is a committed notebook what its source would give today? Checked without running anything."""

from pathlib import Path

from book.chapter import Cell, Chapter, place
from book.convert import notebook_cells
from book.errors import BookError, Complaints
from book.library import Book
from book.source import fingerprint, source_of


def read_notebook(book: Book, chapter: Chapter):
    """The chapter's executed notebook. BookError if it is missing, malformed, out of date,
    unexecuted or failed.
    """
    node = _read(chapter)
    complaints = Complaints()
    wanted = notebook_cells(book, chapter)
    _compare(chapter, wanted, node.cells, complaints)
    if not complaints:
        for cell, done in zip(wanted, node.cells, strict=True):
            _check_executed(chapter, cell, done, complaints)
            for output in done.get("outputs", ()):
                _check_output(book.root, chapter, cell, output, complaints)
    if complaints:
        complaints.append(f"→ run it again: {_remedy(chapter)}")
    complaints.check()
    return node


def _remedy(chapter: Chapter) -> str:
    folder = "assignments/" if chapter.path.parent.name == "assignments" else ""
    return f"make run CHAPTER={folder}{chapter.stem[:2]}"


def _read(chapter: Chapter):
    import nbformat

    if not chapter.notebook.exists():
        raise BookError(f"{place(chapter.notebook)} does not exist yet: {_remedy(chapter)}")
    try:
        node = nbformat.reads(chapter.notebook.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(node)
    except (nbformat.ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise BookError(
            f"{place(chapter.notebook)} is not a notebook ({reason}): {_remedy(chapter)}"
        ) from None
    return node


def _compare(chapter: Chapter, wanted: list[Cell], have: list, complaints: Complaints) -> None:
    for cell, done in zip(wanted, have):
        same = (done.get("id"), done.cell_type, done.source, tuple(done.metadata.get("tags", ())))
        if same != (cell.id, cell.kind, cell.source, cell.tags):
            complaints.add(
                chapter.where(cell), "the source has changed since the notebook was executed"
            )
    if len(wanted) != len(have):
        complaints.add(
            chapter.place, f"the source has {len(wanted)} cells, the notebook {len(have)}"
        )


def _check_executed(chapter: Chapter, cell: Cell, done, complaints: Complaints) -> None:
    if cell.kind == "code" and cell.source.strip() and done.execution_count is None:
        complaints.add(chapter.where(cell), "has not been executed")


def _check_output(
    root: Path, chapter: Chapter, cell: Cell, output, complaints: Complaints
) -> None:
    where, facts = chapter.where(cell), output.get("metadata", {}).get("book", {})
    kinds = output.get("data", {})
    if output.output_type == "error":
        complaints.add(where, f"ended in {output.ename}: {output.evalue}")
    elif facts.get("kind") == "source" and _changed(root, facts):
        complaints.add(
            where, f"shows {facts['name']} of {facts['file']}, which has changed since"
        )
    elif facts.get("kind") == "claim" and not facts["id"].startswith(f"C{chapter.stem[:2]}."):
        complaints.add(
            where,
            f"claim {facts['id']} is in chapter {chapter.stem[:2]}: its id starts with "
            f"C{chapter.stem[:2]}",
        )
    elif any(kind.startswith("image/") for kind in kinds) and facts.get("kind") != "figure":
        complaints.add(
            where, "shows a picture without alt text: hand the figure to figure(fig, alt)"
        )


def _changed(root: Path, facts: dict) -> bool:
    try:
        return fingerprint(source_of(root / facts["file"], facts["name"])) != facts["sha256"]
    except (OSError, KeyError, SyntaxError):
        return True
