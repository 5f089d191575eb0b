"""The floors of the library, read from the one table that states them: the one in
CONTRIBUTING.md.
"""

import re
from pathlib import Path

from book.errors import BookError

_TABLE = re.compile(r"^\| floor \| modules \|\n\|---\|---\|\n(?:\| \d+ \| .+ \|\n)+", re.M)


def table(root: Path) -> str:
    """The table as it stands in `root`/CONTRIBUTING.md, in Markdown, highest floor first."""
    path = root / "CONTRIBUTING.md"
    found = _TABLE.search(path.read_text(encoding="utf-8"))
    if not found:
        raise BookError(
            f"{path} has no table of floors: wanted the line | floor | modules | and below it "
            "rows such as | 2 | `denoiser`, `grids` |"
        )
    return found[0]


def floors(root: Path) -> dict[str, int]:
    """Each module or package of dlib with its floor, lowest first: the order of reading."""
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", table(root), re.M)
    return {
        name: int(floor)
        for floor, names in reversed(rows)
        for name in re.findall(r"`(\w+)/?`", names)
    }
