"""How many chapters there are is said in three places, in words."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ONES = "one two three four five six seven eight nine".split()
TENS = {20: "twenty", 30: "thirty"}


def in_words(n: int) -> str:
    """21 … 39."""
    ten = n // 10 * 10
    return TENS[ten] + (f"-{ONES[n % 10 - 1]}" if n % 10 else "")


def test_readme_and_contents_count_the_chapters():
    outline = tomllib.loads((ROOT / "book" / "outline.toml").read_text())
    keys = re.findall(r"^(\d\d_\w+) =", (ROOT / "book" / "outline.toml").read_text(), re.M)
    assert outline and len(set(keys)) == len(keys)
    there = len(list((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb")))
    planned, finished = in_words(len(keys)), in_words(there)
    assert (
        f"{finished.capitalize()} of the {planned} chapters" in (ROOT / "README.md").read_text()
    )
    contents = (ROOT / "book" / "pages" / "contents.md").read_text()
    assert contents.split("\n")[2].startswith(f"{planned.capitalize()} chapters in eight parts")
