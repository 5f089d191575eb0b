"""`python -m book run`: a chapter's source, executed, becomes its committed notebook; or
nothing changes.
"""

import os
import re
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from book.chapter import Chapter
from book.convert import to_notebook
from book.errors import BookError, Complaints
from book.library import Book
from book.pictures import shrink

SECONDS_A_CELL = 300
_THREADS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MPLBACKEND": "agg",
}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def run(book: Book, chapter: Chapter, say: Callable[[str], None]) -> None:
    """Execute one chapter and write its notebook atomically. BookError names the failing cell."""
    started = time.perf_counter()
    node = to_notebook(book, chapter)
    metadata = deepcopy(node.metadata)
    _execute(book, chapter, node, say)
    _refuse_errors(chapter, node)
    node.metadata = metadata  # execution adds the interpreter's version
    for cell in node.cells:
        _tidy(cell)
    shrink(chapter, node)
    _write(chapter.notebook, node)
    seconds = time.perf_counter() - started
    say(
        f"{chapter.stem}: {len(node.cells)} cells in {seconds:.1f} s, "
        f"{chapter.notebook.stat().st_size / 1000:.0f} kB"
    )


def _execute(book: Book, chapter: Chapter, node, say: Callable[[str], None]) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    progress = _Progress(chapter, len(node.cells), say)
    client = NotebookClient(
        node,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # a line printed in two pieces is one output
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(chapter.path.parent)}},
        on_cell_start=progress.start,
        on_cell_executed=progress.done,
    )
    python_path = os.pathsep.join(filter(None, [str(book.root), os.environ.get("PYTHONPATH")]))
    try:
        client.execute(env={**os.environ, **_THREADS, "PYTHONPATH": python_path})
    except CellExecutionError as error:
        raise BookError(
            f"{progress.where}: {error.ename}: {_ANSI.sub('', error.evalue)}"
        ) from None
    except CellTimeoutError:
        raise BookError(
            f"{progress.where}: took longer than {SECONDS_A_CELL} s: shorten it"
        ) from None
    except DeadKernelError:
        raise BookError(
            f"{progress.where}: the kernel died, most likely for want of memory"
        ) from None


def _refuse_errors(chapter: Chapter, node) -> None:
    """BookError if a cell shows an error that did not end it, as a check does."""
    complaints = Complaints()
    for cell, done in zip(chapter.cells, node.cells, strict=True):
        for output in done.get("outputs", ()):
            if output.output_type == "error":
                said = _ANSI.sub("", output.evalue)
                complaints.add(chapter.where(cell), f"{output.ename}: {said}")
    complaints.check()


class _Progress:
    """Says which cell is running and how long it took; remembers it for the error message."""

    def __init__(self, chapter: Chapter, total: int, say: Callable[[str], None]):
        self.chapter, self.total, self.say = chapter, total, say
        self.where = f"{chapter.place}, before its first cell"

    def start(self, cell, cell_index) -> None:
        self.where = self.chapter.where(self.chapter.cells[cell_index])
        self.started = time.perf_counter()

    def done(self, cell, cell_index, execute_reply) -> None:
        seconds = time.perf_counter() - self.started
        first_line = self.chapter.cells[cell_index].first_line
        self.say(
            f"{self.chapter.stem}  cell {cell_index + 1:2d} of {self.total}  {seconds:6.1f} s  "
            f"{first_line}"
        )


def _tidy(cell) -> None:
    """Drop what differs from machine to machine: warnings on stderr and execution metadata."""
    cell.metadata.pop("execution", None)
    if cell.cell_type == "code":
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def _write(path: Path, node) -> None:
    import nbformat

    nbformat.validate(node)
    temporary = path.with_suffix(".ipynb.part")
    try:
        temporary.write_text(nbformat.writes(node) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
