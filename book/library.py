"""The book on disk: where its parts lie, which chapters exist, and which are planned."""

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from book.bibliography import Entry, read_bibliography
from book.chapter import Chapter, read_chapter
from book.errors import BookError, Complaints
from book.references import Equation, number_equations


@dataclass(frozen=True)
class Planned:
    """A line of the outline: a chapter's file stem and its one-line promise."""

    stem: str
    promise: str


@dataclass(frozen=True)
class Book:
    """The book whose repository is at `root`. Nothing here imports the library or runs a
    chapter.
    """

    root: Path

    @cached_property
    def outline(self) -> list[tuple[str, list[Planned]]]:
        """The parts of the plan, each with its chapters in reading order."""
        data = tomllib.loads((self.root / "book" / "outline.toml").read_text(encoding="utf-8"))
        return [
            (part["title"], [Planned(*item) for item in part["chapters"].items()])
            for part in data["part"]
        ]

    @cached_property
    def chapters(self) -> list[Chapter]:
        """The chapters that exist, in order. Each must be in the outline."""
        chapters = [read_chapter(path) for path in sorted((self.root / "chapters").glob("*.py"))]
        known = {planned.stem for _, part in self.outline for planned in part}
        for chapter in chapters:
            if chapter.stem not in known:
                raise BookError(
                    f"chapters/{chapter.path.name} is not in book/outline.toml: add it to its "
                    "part, or rename it"
                )
        return chapters

    @cached_property
    def assignments(self) -> list[Chapter]:
        """The assignments that exist, in order: chapters/assignments/NN_name.py, written like
        chapters.
        """
        return [
            read_chapter(path)
            for path in sorted((self.root / "chapters" / "assignments").glob("*.py"))
        ]

    def assignment(self, number: str) -> Chapter:
        """An assignment by its number ("08")."""
        for assignment in self.assignments:
            if number in (assignment.stem[:2], assignment.stem):
                return assignment
        known = ", ".join(assignment.stem[:2] for assignment in self.assignments) or "none yet"
        raise BookError(f"there is no assignment {number!r}: the assignments are {known}")

    def chosen(self, names: list[str]) -> list[Chapter]:
        """Chapters by number ("08" or "8") or stem, assignments as "assignments/08"; "all" for
        all. Unknown names are answered with the known.
        """
        if names == ["all"]:
            return self.chapters + self.assignments
        by_name = {
            key: chapter
            for chapter in self.chapters
            for key in (chapter.stem[:2], chapter.stem[:2].lstrip("0"), chapter.stem)
        }
        for name in names:
            if name not in by_name and not name.startswith("assignments/"):
                known = ", ".join(chapter.stem[:2] for chapter in self.chapters) or "none yet"
                raise BookError(
                    f"there is no chapter {name!r}: the chapters are {known}; or say all"
                )
        return [
            by_name[name]
            if name in by_name
            else self.assignment(name.removeprefix("assignments/"))
            for name in names
        ]

    @cached_property
    def entries(self) -> dict[str, Entry]:
        return read_bibliography(self.root / "book" / "refs.bib")

    @cached_property
    def equations(self) -> dict[str, Equation]:
        """Every labelled equation of every chapter. BookError if a label is used twice."""
        complaints = Complaints()
        equations = number_equations(self.chapters, complaints)
        complaints.check()
        return equations

    @property
    def referable(self) -> tuple[dict[str, Equation], dict[str, Entry], frozenset[str]]:
        """What text can refer to: equations, works and chapters."""
        return self.equations, self.entries, frozenset(chapter.stem for chapter in self.chapters)
