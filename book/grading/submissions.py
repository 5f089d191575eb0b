"""Reads what students handed in: one notebook, one submission. Nothing in it is executed or
believed here.
"""

import json
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from book.chapter import Chapter
from book.errors import BookError
from book.questions.answers import marked
from book.release import answer_cells, check_cells

LARGEST = 20_000_000  # bytes of a notebook
_LONGEST = 100_000  # characters of an answer
_LIBRARY = re.compile(r"\bdlib\b")


@dataclass
class Submission:
    """One file: the answer cells by question, what is wrong with the others, and what a person
    may want to look at.
    """

    file: str
    answers: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def student(self) -> str:
        """The folder's name in a folder for each student, else the file's name without its
        ending.
        """
        path = Path(self.file)
        return path.parts[0] if len(path.parts) > 1 else path.stem


def find(folder: Path) -> list[Path]:
    """Every file below `folder` that is not hidden, in order."""
    if not folder.is_dir():
        raise BookError(f"{folder} is not a folder: name the folder with the students' notebooks")
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    paths = [path for path in paths if path.is_symlink() or not path.is_dir()]
    if not paths:
        raise BookError(f"{folder} is empty: name the folder with the students' notebooks")
    return paths


def read(path: Path, folder: Path, assignment: Chapter) -> Submission:
    """The submission in a file; whatever is wrong with it becomes a fault of each question,
    never an exception.
    """
    submission = Submission(path.relative_to(folder).as_posix())
    wanted = answer_cells(assignment)
    try:
        cells = _code_cells(path)
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        submission.faults = dict.fromkeys(wanted, f"not a notebook that can be read: {reason}")
        return submission
    for id in wanted:
        _take(
            submission,
            id,
            [source for source in cells if marked(source) == id],
            wanted[id].source,
        )
    _look_at_checks(submission, cells, assignment)
    return submission


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
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    return source if isinstance(source, str) else ""


def _take(submission: Submission, id: str, found: list[str], reference: str) -> None:
    if not found:
        submission.faults[id] = f"missing: no cell starts with the line '# ANSWER {id}'"
    elif len(found) > 1:
        submission.faults[id] = (
            f"doubled: {len(found)} cells start with '# ANSWER {id}', and only their author "
            "knows which one counts"
        )
    elif len(found[0]) > _LONGEST:
        submission.faults[id] = (
            f"too long: {len(found[0])} characters, at most {_LONGEST} are taken"
        )
    else:
        submission.answers[id] = found[0]
        if found[0].split() == reference.split():
            submission.notes.append(f"{id}: letter for letter the published solution")
        elif _LIBRARY.search(found[0]):
            submission.notes.append(f"{id}: mentions the book's library, dlib")


def _look_at_checks(submission: Submission, cells: list[str], assignment: Chapter) -> None:
    """Check cells are never run by the grader; that somebody changed one is worth a note."""
    have = {cell.strip() for cell in cells}
    changed = [
        id for id, cell in check_cells(assignment).items() if cell.source.strip() not in have
    ]
    if changed:
        submission.notes.append(f"check cell changed or missing (ignored): {', '.join(changed)}")
