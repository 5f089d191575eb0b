"""Grades as tables, a row a student: one for a spreadsheet with every question's points, status
and feedback, one with nbgrader's columns.
"""

import csv
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

from book.grading.submissions import Mark, Submission
from book.truth import Question

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NBGRADER = (
    "assignment duedate timestamp student_id last_name first_name email raw_score "
    "late_submission_penalty score max_score"
).split()
_WIDEST = 1000


@dataclass
class Grade:
    """One student's submission with its marks by question."""

    submission: Submission
    verdicts: dict[str, Mark] = field(default_factory=dict)

    def points(self, q: Question) -> float:
        return round(self.verdicts[q.id].share * q.points, 2)

    def total(self, questions: list[Question]) -> float:
        return sum(self.points(q) for q in questions)

    @property
    def status(self) -> str:
        """The row's: machine if a question has to be graded again; missing, unreadable or blank
        if all of them are; else graded.
        """
        statuses = {mark.status for mark in self.verdicts.values()}
        if "machine" in statuses:
            return "machine"
        nothing = statuses & {"missing", "unreadable", "blank"}
        return nothing.pop() if len(statuses) == len(nothing) == 1 else "graded"


def write(
    path: Path, grades: list[Grade], questions: list[Question], seed: int, number: str
) -> list[Path]:
    """Write `path` and, beside it, the table with nbgrader's columns; each whole or not at
    all.
    """
    # spreadsheets know UTF-8 by the mark at its start; programs take it for a part of a name
    _write(path, _table(grades, questions, seed), "utf-8-sig")
    _write(beside(path), _nbgrader(grades, questions, number), "utf-8")
    return [path, beside(path)]


def beside(path: Path) -> Path:
    """The name of the table with nbgrader's columns."""
    return path.with_name(f"{path.stem}_nbgrader{path.suffix or '.csv'}")


def _table(grades: list[Grade], questions: list[Question], seed: int) -> list[list]:
    three = [(f"{q.id} (of {q.points})", f"{q.id} status", f"{q.id} feedback") for q in questions]
    most = sum(q.points for q in questions)
    head = ["student", "status", *(name for names in three for name in names)]
    rows = [[*head, f"total (of {most})", "seed", "notes", "file"]]
    for grade in grades:
        marks = [(_points(grade, q), *_said(grade.verdicts[q.id])) for q in questions]
        rows.append(
            [
                grade.submission.student,
                grade.status,
                *(value for mark in marks for value in mark),
                _total(grade, questions),
                str(seed),
                " · ".join(grade.submission.notes),
                grade.submission.file,
            ]
        )
    return rows


def _said(mark: Mark) -> tuple[str, str]:
    return mark.status, mark.feedback


def _points(grade: Grade, q: Question) -> str:
    """Points, or nothing where nobody knows them yet."""
    return "" if grade.verdicts[q.id].status == "machine" else _number(grade.points(q))


def _total(grade: Grade, questions: list[Question]) -> str:
    return "" if grade.status == "machine" else _number(grade.total(questions))


def _nbgrader(grades: list[Grade], questions: list[Question], number: str) -> list[list]:
    rows, most = [_NBGRADER], _number(sum(q.points for q in questions))
    for grade in grades:
        student, score = grade.submission.student, _total(grade, questions)
        rows.append(
            [f"assignment {number}", "", "", student, "", "", "", score, "0", score, most]
        )
    return rows


def _number(value: float) -> str:
    return f"{value:g}"


def _write(path: Path, rows: list[list], encoding: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [[cell(value) for value in row] for row in rows]
    )
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text.getvalue(), encoding=encoding, errors="replace")
    os.replace(temporary, path)


def cell(value: str) -> str:
    """Text for one cell: on one line, not endless, and never a formula: spreadsheets would run
    what a student wrote.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    text = text if len(text) <= _WIDEST else text[:_WIDEST] + " …"
    return "'" + text if text.startswith(_FORMULA) else text
