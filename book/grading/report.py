"""Grades as tables: one for a spreadsheet with every question's points and feedback, one with
nbgrader's columns.
"""

import csv
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

from book.grading.submissions import Submission
from book.truth import Question, Verdict

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NBGRADER = (
    "assignment duedate timestamp student_id last_name first_name email raw_score "
    "late_submission_penalty score max_score"
).split()
_WIDEST = 1000


@dataclass
class Grade:
    """One submission with its verdicts by question."""

    submission: Submission
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def points(self, q: Question) -> float:
        return round(self.verdicts[q.id].share * q.points, 2)

    def total(self, questions: list[Question]) -> float:
        return sum(self.points(q) for q in questions)


def write(
    path: Path, grades: list[Grade], questions: list[Question], seed: int, number: str
) -> list[Path]:
    """Write `path` and, beside it, the table with nbgrader's columns; each whole or not at
    all.
    """
    beside = path.with_name(f"{path.stem}_nbgrader{path.suffix or '.csv'}")
    _write(path, _table(grades, questions, seed))
    _write(beside, _nbgrader(grades, questions, number))
    return [path, beside]


def _table(grades: list[Grade], questions: list[Question], seed: int) -> list[list]:
    head = [
        "file",
        *(name for q in questions for name in (f"{q.id} (of {q.points})", f"{q.id} feedback")),
    ]
    rows = [[*head, f"total (of {sum(q.points for q in questions)})", "seed", "notes"]]
    for grade in grades:
        pairs = [
            cell
            for q in questions
            for cell in (_number(grade.points(q)), grade.verdicts[q.id].feedback)
        ]
        rows.append(
            [
                grade.submission.file,
                *pairs,
                _number(grade.total(questions)),
                str(seed),
                " · ".join(grade.submission.notes),
            ]
        )
    return rows


def _nbgrader(grades: list[Grade], questions: list[Question], number: str) -> list[list]:
    most = _number(sum(q.points for q in questions))
    rows = [_NBGRADER]
    for grade in grades:
        score = _number(grade.total(questions))
        rows.append(
            [
                f"assignment {number}",
                "",
                "",
                grade.submission.student,
                "",
                "",
                "",
                score,
                "0",
                score,
                most,
            ]
        )
    return rows


def _number(value: float) -> str:
    return f"{value:g}"


def _write(path: Path, rows: list[list]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [[cell(value) for value in row] for row in rows]
    )
    temporary = path.with_name(path.name + ".part")
    # with the mark by which spreadsheets know UTF-8
    temporary.write_text(text.getvalue(), encoding="utf-8-sig", errors="replace")
    os.replace(temporary, path)


def cell(value: str) -> str:
    """Text for one cell: on one line, not endless, and never a formula: spreadsheets would run
    what a student wrote.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    text = text if len(text) <= _WIDEST else text[:_WIDEST] + " …"
    return "'" + text if text.startswith(_FORMULA) else text
