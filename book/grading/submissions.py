"""Reads one notebook that a student handed in. Nothing in it is executed or believed here."""

import json
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from book.chapter import Chapter
from book.grading.reaching import reaching
from book.questions.answers import marked
from book.release import answer_cells, blank, check_cells, first_code

LARGEST = 20_000_000  # bytes of a notebook
_LONGEST = 100_000  # characters of an answer
STATUSES = ("right", "partly", "wrong", "failed", "blank", "missing", "unreadable", "machine")


class Mark(NamedTuple):
    """What one question got. `status`, one of STATUSES, is the grader's alone; `feedback` may
    quote an answer; `note` is what the answer was seen to do beside its formula.
    """

    status: str
    share: float
    feedback: str
    note: str = ""


@dataclass
class Submission:
    """What one student handed in: the answer cells by question, marks for the questions that
    need no run, and what a person may want to look at. `file` is "" if there was none.
    """

    student: str
    file: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Mark] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(path: Path, file: str, student: str, assignment: Chapter) -> Submission:
    """The submission in the notebook `path`, which tables call `file`; whatever is wrong with it
    becomes a fault of each question, never an exception.
    """
    submission = Submission(student, file)
    wanted = answer_cells(assignment)
    try:
        cells = _code_cells(path)
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        fault = Mark("unreadable", 0.0, f"not a notebook that can be read: {reason}")
        submission.faults = dict.fromkeys(wanted, fault)
        return submission
    for id in wanted:
        _take(
            submission,
            id,
            [source for source in cells if marked(source) == id],
            wanted[id].source,
        )
    _look_around(submission, cells, assignment)
    return submission


def without(student: str, status: str, feedback: str, assignment: Chapter) -> Submission:
    """The submission of a student of whom there is no notebook to read."""
    faults = dict.fromkeys(answer_cells(assignment), Mark(status, 0.0, feedback))
    return Submission(student, faults=faults)


def _code_cells(path: Path) -> list[str]:
    """The sources of a notebook's code cells. ValueError or OSError says what the file is
    instead.
    """
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("it is a link or a device, not a file")
    if facts.st_size > LARGEST:
        raise ValueError(
            f"it has {facts.st_size / 1e6:.0f} MB, more than {LARGEST / 1e6:.0f}: clear its "
            "outputs"
        )
    node = json.loads(path.read_text(encoding="utf-8-sig"))
    cells = node.get("cells") if isinstance(node, dict) else None
    if not isinstance(cells, list):
        raise ValueError("it has no list of cells (is it of notebook format 4?)")
    return [
        _source(cell)
        for cell in cells
        if isinstance(cell, dict) and cell.get("cell_type") == "code"
    ]


def _source(cell: dict) -> str:
    """A cell's text, its lines ended as on this system: Windows ends them otherwise."""
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    return re.sub("\r\n?", "\n", source) if isinstance(source, str) else ""


def _take(submission: Submission, id: str, found: list[str], reference: str) -> None:
    """Put the answer among those to run, or say what is wrong with it."""
    fault = _fault(id, found, reference)
    if fault:
        submission.faults[id] = fault
        return
    submission.answers[id] = found[0]
    names = reaching(found[0])
    if found[0].split() == reference.split():
        submission.notes.append(f"{id}: letter for letter the published solution")
    elif names:
        submission.notes.append(f"{id}: reaches beyond its formula ({', '.join(names[:5])})")


def _fault(id: str, found: list[str], reference: str) -> Mark | None:
    """The mark of a question whose answer need not be run, None if it must."""
    if not found:
        said = f"missing: no cell starts with the line '# ANSWER {id}'"
        return Mark("missing", 0.0, said)
    if len(found) > 1:
        said = (
            f"doubled: {len(found)} cells start with '# ANSWER {id}', and only their author "
            "knows which one counts"
        )
        return Mark("unreadable", 0.0, said)
    if len(found[0]) > _LONGEST:
        said = f"too long: {len(found[0])} characters, at most {_LONGEST} are taken"
        return Mark("unreadable", 0.0, said)
    if _code(found[0]) in ([], _code(blank(reference, id))):
        return Mark("blank", 0.0, f"{id}: not answered yet")
    return None


def _code(source: str) -> list[list[str]]:
    """The words of each line, without empty lines and comments."""
    lines = (line.split() for line in source.splitlines())
    return [words for words in lines if words and not words[0].startswith("#")]


def _look_around(submission: Submission, cells: list[str], assignment: Chapter) -> None:
    """The grader has its own first cell and checks: that somebody changed one is worth a note."""
    have = {_plain(cell) for cell in cells}
    if _plain(first_code(assignment).source) not in have:
        submission.notes.append("the first cell was changed (the grader runs its own)")
    changed = [
        id for id, cell in check_cells(assignment).items() if _plain(cell.source) not in have
    ]
    if changed:
        submission.notes.append(f"check cell changed or missing (ignored): {', '.join(changed)}")


def _plain(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.strip().split("\n"))
