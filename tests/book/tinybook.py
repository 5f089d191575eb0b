"""The tiny book of these tests: where it is, how it is laid out and how it is spoilt."""

import shutil
from pathlib import Path

from book.library import Book

ROOT = Path(__file__).resolve().parents[2]
STEM = "08_dpm_solver"
EULER = "dlib/solvers/tiny.py"


def lay_out(root: Path) -> Book:
    """The tiny book at `root`: its own chapters and library, the real book's pages, floors,
    settings and theme.
    """
    shutil.copytree(Path(__file__).parent / "tiny", root, dirs_exist_ok=True)
    for name in ("mkdocs.yml", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, root)
    (root / "book").symlink_to(ROOT / "book")
    return Book(root)


def edit(path: Path, old: str, new: str) -> None:
    """Replace text in a file; the test is wrong if the text is not there."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new), encoding="utf-8")
