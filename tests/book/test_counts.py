"""How many chapters there are is said in three places, in words; and the files of the repository
that pages name are there.
"""

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


def named_files(text: str) -> set[str]:
    """Files of the repository between backticks or in a link; of NN_name.py there are many."""
    rooms = "tests|dlib|book|full_scale|bench|toy_data|chapters"
    found = re.findall(rf"[`(](?:\.\./)*((?:{rooms})/[\w/.-]+\.(?:py|md|toml|sh|cfg))[`):]", text)
    return {name for name in found if "NN" not in name}


PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", *(ROOT / "book" / "pages").rglob("*.md")]


def test_the_files_that_pages_name_are_there_with_what_they_are_said_to_hold():
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    named = {(page, file) for page, text in texts.items() for file in named_files(text)}
    assert len(named) > 30 and not [one for one in named if not (ROOT / one[1]).is_file()]
    of = r"`([A-Z_]+)` (?:in|of) `(tests/[\w/]+\.py)`"
    lists = {pair for text in texts.values() for pair in re.findall(of, text)}
    assert len(lists) > 2 and not [
        pair for pair in lists if pair[0] not in (ROOT / pair[1]).read_text(encoding="utf-8")
    ]
