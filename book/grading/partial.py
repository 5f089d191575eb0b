"""The file beside the table in which a grading keeps what it has, so that it can go on where it
was interrupted.

Its first line says which run it is: assignment, questions and seed, for a class gets one draw.
Then comes a line a student, appended when the student is graded, with each answer's hash and
mark. Only whole lines count: what a kill has cut off is graded again.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from book.chapter import Chapter
from book.errors import BookError
from book.grading.report import Grade
from book.grading.submissions import Mark

_BOOK = Path(__file__).resolve().parents[1]


def beside(out: Path) -> Path:
    """The partial file of the table `out`."""
    return out.with_name(out.name + ".partial")


def identity(assignment: Chapter) -> dict[str, str]:
    """The run that a partial file must belong to: the assignment and a hash of its questions."""
    code = [cell.source for cell in assignment.cells if cell.kind == "code"]
    paths = [*sorted(_BOOK.glob("questions/*.py")), *sorted(_BOOK.glob("truth/*.py"))]
    texts = [*code, *(path.read_text() for path in paths)]
    return {"assignment": assignment.stem, "questions": _hash("\0".join(texts))}


class Partial:
    """The marks so far. `seed` is that of the interrupted run, or a new one, or the one that is
    asked for. As a context manager it can be added to.
    """

    def __init__(self, path: Path, run: dict[str, str], seed: int | None = None):
        self.path = path
        head, lines, self.length = _read(path)
        self.kept = {line["student"]: line["marks"] for line in lines}
        if head is None:
            head = {**run, "seed": secrets.randbits(40) if seed is None else seed}
        self.seed = _same(path, head, run, seed)
        self.head = head

    def __enter__(self):
        self.file = self.path.open("a", encoding="utf-8")
        os.truncate(self.path, self.length)
        if not self.length:
            self._append(self.head)
        return self

    def __exit__(self, *_):
        self.file.close()

    def mark(self, student: str, id: str, source: str) -> Mark | None:
        """What this answer got before; None if it is new, was changed, or met a failure of the
        machine.
        """
        answer, *mark = self.kept.get(student, {}).get(id, (None, "machine", 0.0, ""))
        return Mark(*mark) if answer == _hash(source) and mark[0] != "machine" else None

    def changed(self, student: str, answers: Mapping[str, str]) -> bool:
        """Whether an answer of this student was graded before in another wording."""
        kept = self.kept.get(student, {})
        return any(id in kept and kept[id][0] != _hash(text) for id, text in answers.items())

    def add(self, grade: Grade) -> None:
        """Append one student's marks, down to the disk."""
        submission = grade.submission
        told = {
            id: [_hash(source), *grade.verdicts[id]] for id, source in submission.answers.items()
        }
        if self.kept.get(submission.student) != told:
            self._append({"student": submission.student, "marks": told})

    def _append(self, fact: dict) -> None:
        self.file.write(json.dumps(fact) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def remove(self) -> None:
        """The tables are written: the file has done its work."""
        self.file.close()
        self.path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict | None, list[dict], int]:
    """(first line, the others, their length in bytes) as far as lines are whole."""
    head, lines, length = None, [], 0
    try:
        raw = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None, [], 0
    for line in raw:
        try:
            fact = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            fact = None
        if not isinstance(fact, dict):
            break
        head, lines = (fact, lines) if head is None else (head, [*lines, fact])
        length += len(line)
    return head, lines, length


def _same(path: Path, head: dict, run: dict[str, str], seed: int | None) -> int:
    """The seed of the interrupted run. BookError if this is another run."""
    different = [
        f"its {name} is {head.get(name)}, this run's {value}"
        if name == "assignment"
        else "its questions have changed since"
        for name, value in run.items()
        if head.get(name) != value
    ]
    if seed is not None and seed != head.get("seed"):
        different.append(f"its seed is {head.get('seed')}, this run's {seed}")
    if different or not isinstance(head.get("seed"), int):
        raise BookError(
            f"{path} is what an interrupted grading left, and it was another one: "
            f"{'; '.join(different) or 'it has no seed'}. Remove it to begin anew, or write "
            "this table elsewhere, with --out"
        )
    return head["seed"]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
