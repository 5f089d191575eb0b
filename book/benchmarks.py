"""The benchmarks page, from the JSON files that `make bench` writes into bench/results."""

import json
from pathlib import Path

from book.errors import BookError

_KEYS = ("title", "note", "machine", "date", "columns", "rows")


def benchmarks_page(folder: Path) -> str:
    """One section and table a result file. BookError names a file that is not a result."""
    lines = ["# Benchmarks", "", "Measured by `make bench`, never asserted in tests: timings depend on the machine that is named.", ""]
    paths = sorted(folder.glob("*.json"))
    if not paths:
        return "\n".join([*lines, "Nothing has been measured yet: `make bench` writes the results that appear here."])
    for path in paths:
        lines += _section(path)
    return "\n".join(lines)


def _section(path: Path) -> list[str]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BookError(f"bench/results/{path.name} is not JSON ({error}): make bench") from None
    missing = [key for key in _KEYS if key not in result]
    if missing:
        raise BookError(f"bench/results/{path.name} lacks {', '.join(missing)}: make bench")
    rows = [_row(row) for row in result["rows"]]
    rule = "|" + "---|" * len(result["columns"])
    where = f"*{result['machine']}, {result['date']}.*"
    return [f"## {result['title']}", "", result["note"], "", _row(result["columns"]), rule, *rows, "", where, ""]


def _row(cells: list) -> str:
    return "| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell).replace("|", "\\|") for cell in cells) + " |"
