"""The benchmarks page, from the JSON files that `make bench` writes into bench/results."""

import json
from pathlib import Path

from book.errors import BookError

LONG, BEST = 40, 8  # a longer table shows the first rows of each kind and folds the whole
_KEYS = ("title", "note", "machine", "date", "columns", "rows")


def benchmarks_page(folder: Path) -> str:
    """One section and table a result file. BookError names a file that is not a result."""
    lines = [
        "# Benchmarks",
        "",
        "Measured by `make bench`, never asserted in tests: timings depend on the machine that "
        "is named.",
        "",
    ]
    paths = sorted(folder.glob("*.json"))
    if not paths:
        return "\n".join(
            [
                *lines,
                "Nothing has been measured yet: `make bench` writes the results that appear "
                "here.",
            ]
        )
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
    rows, where = result["rows"], f"*{result['machine']}, {result['date']}.*"
    best = [
        row
        for kind in dict.fromkeys(row[0] for row in rows)
        for row in [row for row in rows if row[0] == kind][:BEST]
    ]
    if len(rows) <= LONG or len(best) == len(rows):
        return [
            f"## {result['title']}",
            "",
            result["note"],
            "",
            *_picture(path, result),
            *_table(result["columns"], rows),
            "",
            where,
            "",
        ]
    fold = [
        '<details markdown="1">',
        f"<summary>All {len(rows)} rows, losing ones too</summary>",
        "",
        *_table(result["columns"], rows),
        "",
        "</details>",
    ]
    return [
        f"## {result['title']}",
        "",
        result["note"],
        "",
        *_picture(path, result),
        f"The first {BEST} rows of each {result['columns'][0]}:",
        "",
        *_table(result["columns"], best),
        "",
        *fold,
        "",
        where,
        "",
    ]


def benchmark_pictures(folder: Path) -> dict[str, Path]:
    """{address: file} of the pictures beside the results that name one."""
    return {path.name: path for path in sorted(folder.glob("*.png"))}


def _picture(path: Path, result: dict) -> list[str]:
    """The picture of a result that says what it shows. BookError if the file is not there."""
    if "picture" not in result:
        return []
    picture = path.with_suffix(".png")
    if not picture.exists():
        raise BookError(f"bench/results/{path.name} speaks of {picture.name}: make bench")
    return [f"![{' '.join(result['picture'].split())}]({picture.name})", ""]


def _table(columns: list, rows: list) -> list[str]:
    return [_row(columns), "|" + "---|" * len(columns), *map(_row, rows)]


def _row(cells: list) -> str:
    return (
        "| "
        + " | ".join(
            f"{cell:.4g}" if isinstance(cell, float) else str(cell).replace("|", "\\|")
            for cell in cells
        )
        + " |"
    )
