"""What a benchmark hands back, and how it is kept: one JSON of a fixed shape, which the site
renders as a table.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
Cell = str | int | float


@dataclass(frozen=True)
class Report:
    """title; note (Markdown: what was done, how to read it); columns; rows, each with one cell
    a column; cells: what the rows are made of, where a benchmark goes on from there; picture:
    what NAME.png beside the result shows, if there is one.
    """

    title: str
    note: str
    columns: list[str]
    rows: list[list[Cell]]
    cells: list[dict] | None = None
    picture: str | None = None

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.title}: a row has {len(row)} cells for {len(self.columns)} "
                    f"columns: {row}"
                )

    def table(self) -> str:
        """The rows as aligned text for the terminal."""
        lines = [self.columns, *([_text(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
            for line in lines
        )


def _text(cell: Cell) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def write(report: Report, name: str, folder: Path) -> Path:
    """Keep `report` as folder/NAME.json, whole or not at all: the old file stays until the new
    one is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {**asdict(report), "machine": machine(), "date": datetime.date.today().isoformat()}
    optional = {key: content.pop(key) for key in ("cells", "picture")}
    content |= {key: value for key, value in optional.items() if value is not None}
    content["rows"] = [
        [float(_text(cell)) if isinstance(cell, float) else cell for cell in row]
        for row in report.rows
    ]
    path, part = folder / f"{name}.json", folder / f"{name}.json.part"
    try:
        part.write_text(
            json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
            encoding="utf-8",
        )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def machine() -> str:
    """The processor (and GPU), Python and torch: what a timing depends on, and nothing that
    names a place.
    """
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{_processor()}, {os.cpu_count()} cores{gpu}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def peer() -> str:
    """The peer as the notes name it."""
    return f"diffusers {version('diffusers')}"
