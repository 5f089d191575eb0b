"""What an assignment's file says of its questions: the first code cell, the answer cells with
their solutions, and the points, which only the headings state. Read without the press, which a
student may not have installed.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from book.errors import BookError
from book.questions.answers import marked

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
FOLDER = Path(__file__).resolve().parents[1] / "chapters" / "assignments"
_CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)
_FUNCTION = re.compile(r"^def (\w+)\(", re.MULTILINE)
_HEADING = re.compile(r"^(?:# )?## Question (\d+)\.(\d+): .* \((\d+) points?\)$", re.MULTILINE)


@dataclass(frozen=True)
class Sheet:
    """`answers` and `points` are {question: …}, in the order of the file."""

    prelude: str
    answers: dict[str, str]
    points: dict[str, int]

    def function(self, id: str) -> str:
        """The name that an answer to this question must define."""
        return _FUNCTION.search(self.answers[id])[1]


@cache
def sheet(number: str) -> Sheet:
    """The assignment with this number ("08"). BookError if there is none."""
    paths = sorted(FOLDER.glob(f"{number}_*.py"))
    if not paths:
        known = ", ".join(path.name[:2] for path in sorted(FOLDER.glob("*.py")))
        raise BookError(
            f"there is no assignment {number!r}: the assignments are {known}"
            if known
            else f"{FOLDER} has no assignments: install the book with `pip install -e .` in the "
            "folder of its repository, where its chapters are"
        )
    text = paths[0].read_text(encoding="utf-8")
    _, *parts = _CELL.split(text)
    code = [source.strip() for kind, source in zip(parts[::2], parts[1::2]) if not kind.strip()]
    answers = {id: source for source in code if (id := marked(source))}
    return Sheet(code[0], answers, points(text))


def points(text: str) -> dict[str, int]:
    """{question: its points}, as the headings of an assignment say them."""
    return {f"Q{int(a):02}.{k}": int(n) for a, k, n in _HEADING.findall(text)}
