"""What the tests know of an assignment's class: notebooks filled with right, otherwise spelled
and wrong answers.
"""

import importlib
import json
from pathlib import Path

from book.library import Book
from book.release import answer_cells, student_notebook

ROOT = Path(__file__).resolve().parents[2]
BOOK = Book(ROOT)


class Course:
    """One assignment. heads: {id: "phis(h)"}; otherwise: {id: body of a right answer unlike
    the solution}; wrong: [(id, body, says)].
    """

    def __init__(self, number: str, heads: dict, otherwise: dict, wrong: list):
        self.number, self.heads, self.otherwise, self.wrong = number, heads, otherwise, wrong
        self.assignment = BOOK.assignment(number)
        self.solution = {id: cell.source for id, cell in answer_cells(self.assignment).items()}

    @property
    def module(self):
        """The questions' module; imports torch."""
        return importlib.import_module(f"book.questions.q{self.number}")

    def cell(self, id: str, body: str) -> str:
        """An answer cell with this body."""
        return f"# ANSWER {id}\ndef {self.heads[id]}:\n" + "".join(
            f"    {line}\n" for line in body.strip().splitlines()
        )

    def notebook(self, answers: dict[str, str]) -> dict:
        """The released notebook with these cells in the place of its answer cells."""
        node = json.loads(student_notebook(BOOK, self.assignment))
        for entry in node["cells"]:
            source = entry["source"] = "".join(entry["source"])  # on disk, a list of lines
            id = source.split()[2] if source.startswith("# ANSWER") else None
            if id in answers:
                entry["source"] = answers[id]
        return node

    def only(self, *ids: str, answers: dict[str, str]) -> dict:
        """The same, without the answer cells of all other questions: quicker to grade."""
        node = self.notebook({id: answers[id] for id in ids})
        node["cells"] = [
            c
            for c in node["cells"]
            if not c["source"].startswith("# ANSWER") or c["source"].split()[2] in ids
        ]
        return node

    def right(self) -> dict[str, str]:
        return {id: self.cell(id, body) for id, body in self.otherwise.items()}


def every_course() -> list[Course]:
    """All assignments that the book has: one without a class here is an error."""
    numbers = [path.name[:2] for path in sorted((ROOT / "chapters" / "assignments").glob("*.py"))]
    return [importlib.import_module(f"course{number}").COURSE for number in numbers]
