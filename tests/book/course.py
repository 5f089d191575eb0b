"""What the tests know of an assignment's class: notebooks filled with right, otherwise spelled
and wrong answers.
"""

import importlib
import json
import re
import textwrap
from functools import cache
from pathlib import Path

from book.library import Book
from book.release import student_notebook
from book.sheet import sheet
from book.truth import Case, Verdict, ask, question, questions
from book.truth.spelling import annotated, edited

ROOT = Path(__file__).resolve().parents[2]
BOOK = Book(ROOT)


class Course:
    """One assignment. answers: {id: text}, code with a comment below each (`annotated`). First
    comes a right answer unlike the solution, "# right"; then other right ones, and wrong ones
    with what they must be told, as bodies or as edits of the first.
    """

    def __init__(self, number: str, answers: dict[str, str]):
        self.number, self.solution = number, sheet(number).answers
        self.otherwise, self.right_too, self.wrong = {}, [], []
        for id, text in answers.items():
            (self.otherwise[id], said), *others = annotated(text)
            assert said == "right", id
            for code, says in others:
                body = edited(self.otherwise[id], code) if "→" in code else code
                (self.right_too if says == "right" else self.wrong).append((id, body, says))

    @property
    def assignment(self):
        return BOOK.assignment(self.number)

    @property
    def questions(self):
        """Imports torch."""
        return questions(self.number)

    @property
    def prelude(self) -> str:
        return sheet(self.number).prelude

    def head(self, id: str) -> str:
        return re.search(r"^def .*:$", self.solution[id], re.MULTILINE)[0]

    def cell(self, id: str, body: str) -> str:
        """An answer cell with this body."""
        return f"# ANSWER {id}\n{self.head(id)}\n{textwrap.indent(body.strip(), '    ')}\n"

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

    def defined(self, id: str, source: str):
        """The function that an answer cell defines."""
        from book.questions.answers import define

        return define(id, question(id).function, self.prelude, source)

    def judged(self, id: str, source: str, seed: int = 3) -> Verdict:
        return ask(question(id), self.defined(id, source), drawn(id, seed))


@cache
def drawn(id: str, seed: int) -> Case:
    """A case, drawn once: its known mistakes are not run again."""
    return question(id).draw(seed)


def every_course() -> list[Course]:
    """All assignments that the book has: one without a class here is an error."""
    numbers = [path.name[:2] for path in sorted((ROOT / "chapters" / "assignments").glob("*.py"))]
    return [importlib.import_module(f"course{number}").COURSE for number in numbers]
