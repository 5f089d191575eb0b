"""Who handed in what: one student, one notebook, in the layouts that course systems export.

A folder directly below the class's folder is a student, as in nbgrader's `submitted`; so is a
file that lies there. Moodle's and Canvas's names are cut to the student's name and number.
"""

import csv
import re
import unicodedata
from pathlib import Path

from book.chapter import Chapter
from book.errors import BookError
from book.grading import submissions
from book.grading.submissions import Submission

_MOODLE = re.compile(r"(.+_\d+)_assignsubmission_(?:file|onlinetext)_?.*")
_CANVAS = re.compile(r"([^_]+)_(?:LATE_)?(\d{3,})_\d{3,}_(.+)")
_LITTER = {"desktop.ini", "thumbs.db"}  # what systems leave in folders; others' names are hidden
_NBGRADER = "timestamp.txt"  # nbgrader writes it beside every notebook it collects
_COLUMNS = ("student_id", "id")


def find(
    folder: Path,
    assignment: Chapter,
    roster: list[str] | None = None,
    ours: set[Path] = frozenset(),
) -> tuple[list[Submission], list[str]]:
    """One submission a student, by name, and the files that belong to nobody. Those on the
    roster who handed in nothing are there too; `ours` are files of the grader's own.
    """
    files, strays = _by_student(folder, assignment, roster, ours)
    if not files and not roster:
        raise BookError(f"{folder} is empty: name the folder with the students' notebooks")
    found = []
    for student in sorted({*files, *(roster or ())}):
        if student in files:
            submission = _submission(student, files[student], folder, assignment)
            if roster is not None and student not in roster:
                submission.notes.insert(0, "not on the roster")
        else:
            submission = submissions.without(
                student, "missing", "nothing was handed in", assignment
            )
        found.append(submission)
    return found, strays


def _by_student(
    folder: Path, assignment: Chapter, roster: list[str] | None, ours: set[Path]
) -> tuple[dict[str, list[Path]], list[str]]:
    if not folder.is_dir():
        raise BookError(f"{folder} is not a folder: name the folder with the students' notebooks")
    files: dict[str, list[Path]] = {}
    others: dict[Path, str] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts) or path.absolute() in ours:
            continue
        if path.is_symlink() or not path.is_dir():
            student = _listed(_name(parts, assignment.stem), roster)
            if len(parts) == 1 and not _is_notebook(path):
                others[path] = student
            else:
                files.setdefault(student, []).append(path)
    # beside the notebooks, a file that is none: somebody's only one, or nobody's
    strays = []
    for path, student in others.items():
        known = student in files or (path.name.lower() not in _LITTER and roster is None)
        if known or (roster and student in roster):
            files.setdefault(student, []).append(path)
        else:
            strays.append(path.name)
    return files, strays


def _name(parts: tuple[str, ...], stem: str) -> str:
    """The student's name in a path's parts below the class's folder."""
    name = unicodedata.normalize("NFC", parts[0] if len(parts) > 1 else Path(parts[0]).stem)
    if match := _MOODLE.fullmatch(name):
        return match[1]
    match = _CANVAS.fullmatch(name)
    if match and len(parts) == 1 and match[3].startswith(stem):
        return f"{match[1]}_{match[2]}"
    return name


def _listed(student: str, roster: list[str] | None) -> str:
    """The student as the roster has it: by the whole name or by the number at its end."""
    number = student.rpartition("_")[2]
    return number if roster and student not in roster and number in roster else student


def _submission(student: str, paths: list[Path], folder: Path, assignment: Chapter) -> Submission:
    file = lambda path: path.relative_to(folder).as_posix()
    notebooks = [path for path in paths if _is_notebook(path)]
    rest = [file(p) for p in paths if not _is_notebook(p) and p.name != _NBGRADER]
    if not notebooks:
        said = f"no notebook (.ipynb) was handed in, but {_few(rest)}"
        submission = submissions.without(student, "unreadable", said, assignment)
        submission.file = file(paths[0])
        return submission
    read = [submissions.read(path, file(path), student, assignment) for path in notebooks]
    k, why = _choice(notebooks, [bool(s.answers) for s in read], assignment.stem)
    submission = read[k]
    if len(read) > 1:
        left = _few([s.file for s in read if s is not submission])
        submission.notes.insert(
            0, f"{len(read)} notebooks: graded {submission.file}, {why}; not graded: {left}"
        )
    if rest:
        submission.notes.append(f"not a notebook: {_few(rest)}")
    return submission


def _choice(paths: list[Path], answering: list[bool], stem: str) -> tuple[int, str]:
    """Which of several notebooks is graded, and why. Of those with an answer to this assignment
    the one with the released name, else the newest.
    """
    among = [k for k in range(len(paths)) if answering[k]] or list(range(len(paths)))
    if len(among) == 1 < len(paths):
        return among[0], "the only one with answers to this assignment"
    named = [k for k in among if re.fullmatch(rf"(.*_)?{re.escape(stem)}", paths[k].stem)]
    if len(named) == 1:
        return named[0], "the one with the released name"
    among = named or among
    return max(among, key=lambda k: (paths[k].lstat().st_mtime, k)), "the newest by its date"


def _is_notebook(path: Path) -> bool:
    return path.suffix.lower() == ".ipynb"


def _few(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_roster(path: Path) -> list[str]:
    """The ids in a roster: a CSV with a column student_id or id, or one id a line. BookError if
    it is neither.
    """
    try:
        text = unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise BookError(f"{path} cannot be read as a roster: {error}") from None
    lines = [line for line in text.splitlines() if line.strip()]
    head = lines[0] if lines else ""
    delimiter = next((mark for mark in ",;\t" if mark in head), None)
    titles = [
        title.strip().lower()
        for title in next(csv.reader([head], delimiter=delimiter or ","), [])
    ]
    column = next((titles.index(name) for name in _COLUMNS if name in titles), None)
    if column is None and delimiter:
        raise BookError(
            f"{path} has the columns {', '.join(titles)}: wanted one called student_id or id, or "
            "a file with one id a line and nothing else"
        )
    if column is None:
        ids = [line.strip() for line in lines]
    else:
        rows = csv.reader(lines[1:], delimiter=delimiter or ",")
        ids = [row[column].strip() for row in rows if len(row) > column]
    ids = list(dict.fromkeys(id for id in ids if id))
    if not ids:
        raise BookError(f"{path} names nobody: wanted one id a line, or a column student_id")
    return ids
