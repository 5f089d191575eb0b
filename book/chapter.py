"""A chapter's source: `chapters/NN_name.py`, read into cells whose ids depend only on their
order.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from book.errors import BookError

_HEADER = {"title": str, "summary": str, "minutes": int, "memory": str, "needs": list}
FOLD = "fold"  # the only tag: the code of this cell is folded, on the site and in JupyterLab
_NAME = re.compile(r"(\d\d)_[a-z0-9_]+")


@dataclass(frozen=True)
class Cell:
    """One cell as the author wrote it. `kind` is "markdown" or "code"."""

    id: str
    kind: str
    source: str
    tags: tuple[str, ...] = ()

    @property
    def first_line(self) -> str:
        """The first line that says something, cut to 60 characters: how messages name a cell
        to a person.
        """
        lines = [line for line in self.source.splitlines() if line.strip() and line != CHECKED]
        return lines[0][:60] if lines else "(empty)"


CHECKED = "# NBVAL_CHECK_OUTPUT"


@dataclass(frozen=True)
class Chapter:
    """One chapter: what its header says and its cells."""

    path: Path
    title: str
    summary: str
    minutes: int
    memory: str
    needs: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def number(self) -> int:
        return int(self.stem[:2])

    @property
    def notebook(self) -> Path:
        return self.path.with_suffix(".ipynb")

    def where(self, cell: Cell) -> str:
        return f"{self.place}, cell {cell.id} ({cell.first_line})"

    @property
    def place(self) -> str:
        """The file as messages name it: from the repository's root."""
        return place(self.path)


def place(path: Path) -> str:
    return (
        f"chapters/assignments/{path.name}"
        if path.parent.name == "assignments"
        else f"chapters/{path.name}"
    )


def read_chapter(path: Path) -> Chapter:
    """Parse a Jupytext percent file. BookError if its name or header is not a chapter's."""
    import jupytext
    import nbformat
    import yaml

    match = _NAME.fullmatch(path.stem)
    if not match:
        raise BookError(
            f"{place(path)}: a chapter's file is named like 08_dpm_solver.py (two digits, then "
            "lower case)"
        )
    try:
        node = jupytext.read(path, fmt="py:percent")
    except (nbformat.ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BookError(
            f"{place(path)}: not a Jupytext percent file: {str(error).splitlines()[0]}"
        ) from None
    header = _header(path, node.metadata)
    prefix = ("as" if path.parent.name == "assignments" else "ch") + match[1]
    cells = tuple(_cell(prefix, i, cell) for i, cell in enumerate(node.cells, start=1))
    if not (cells and cells[0].kind == "markdown" and cells[0].source.startswith("# ")):
        raise BookError(
            f"{place(path)}: the first cell must be Markdown and start with the chapter's "
            "heading, '# …'"
        )
    for cell in cells:
        if cell.tags not in ((), (FOLD,)) or (cell.tags and cell.kind != "code"):
            raise BookError(
                f"{place(path)}, cell {cell.id} ({cell.first_line}): has the tags "
                f"{list(cell.tags)}; the press knows one, {FOLD!r}, for code cells"
            )
    return Chapter(path=path, cells=cells, **header)


def _cell(prefix: str, index: int, cell) -> Cell:
    return Cell(
        f"{prefix}-{index:03d}", cell.cell_type, cell.source, tuple(cell.metadata.get("tags", ()))
    )


def _header(path: Path, metadata) -> dict:
    if metadata.get("kernelspec", {}).get("name") != "python3":
        raise BookError(
            f"{place(path)}: the header needs a kernelspec named python3 (see "
            "book/pages/for/engineer.md)"
        )
    header = dict(metadata.get("book") or {})
    wrong = [
        key
        for key, kind in _HEADER.items()
        if not isinstance(header.get(key), kind) or not header[key]
    ]
    unknown = sorted(set(header) - set(_HEADER))
    if wrong or unknown:
        wanted = ", ".join(f"{key} ({kind.__name__})" for key, kind in _HEADER.items())
        raise BookError(
            f"{place(path)}: header `book:` wants {wanted}; missing or wrong: {wrong}; "
            f"unknown: {unknown}"
        )
    header["needs"] = tuple(map(str, header["needs"]))
    return header
