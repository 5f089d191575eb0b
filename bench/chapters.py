"""How long a reader waits for a chapter: every committed notebook, executed in memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.report import Report
from bench.timing import progress

ROOT = Path(__file__).parent.parent
NOTE = """Wall seconds to execute each committed notebook from top to bottom in a fresh kernel:
one thread, the kernel's start and its imports included, nothing written back. One execution
each, so other work on the machine shows up here in full."""


def run(folder: Path = ROOT / "chapters") -> Report | None:
    """Seconds a chapter, or None where no notebook is committed yet."""
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        print(
            "chapters: skipped, there is no executed notebook in chapters/ yet (python -m book "
            "run NN writes one)"
        )
        return None
    rows = []
    for path in progress(notebooks, "chapters"):
        cells, seconds = execute(path)
        rows.append([path.stem, cells, seconds])
    return Report("Chapters", NOTE, ["chapter", "code cells", "seconds"], rows)


def execute(path: Path) -> tuple[int, float]:
    """(code cells, wall seconds) of one notebook; the file is only read. A failing cell raises
    nbclient's error.
    """
    import nbformat
    from nbclient import NotebookClient

    node = nbformat.read(path, as_version=4)
    client = NotebookClient(
        node,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    start = time.perf_counter()
    client.execute(env={**os.environ, "PYTHONPATH": python_path, "MPLBACKEND": "agg"})
    return sum(cell.cell_type == "code" for cell in node.cells), time.perf_counter() - start
