"""`python -m book grade SUBMISSIONS --assignment NN --out grades.csv`."""

import os
import queue
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from book.chapter import Chapter
from book.errors import BookError
from book.grading import partial, report, sandbox, students
from book.grading.endings import Ended, Endings
from book.grading.partial import Partial
from book.grading.report import Grade
from book.grading.submissions import Mark, Submission
from book.grading.worker import Outcome, Refused, Worker, cores
from book.library import Book
from book.release import answer_cells
from book.sheet import sheet
from book.truth import Case, Question, questions


@dataclass(frozen=True)
class Exam:
    """An assignment with one draw of its inputs: every student gets the same."""

    asked: list[Question]
    cases: dict[str, Case]
    prelude: str
    seed: int


def draw(number: str, seed: int) -> Exam:
    asked = questions(number)
    cases = {
        q.id: q.draw(int(np.random.SeedSequence([seed, k]).generate_state(1)[0]))
        for k, q in enumerate(asked)
    }
    return Exam(asked, cases, sheet(number).prelude, seed)


def grade(
    book: Book,
    folder: Path,
    number: str,
    out: Path,
    say: Callable[[str], None],
    *,
    roster: Path | None = None,
    seed: int | None = None,
    unsafe: bool = False,
    jobs: int | None = None,
) -> list[Grade]:
    """Grade what every student handed in below `folder` and write the tables; a grading of
    the same class that was interrupted goes on. BookError if the machine has no sandbox and
    `unsafe` is not said.
    """
    started, assignment = time.perf_counter(), book.assignment(number)
    listed = None if roster is None else students.read_roster(roster)
    ours = {path.absolute() for path in (out, report.beside(out), partial.beside(out))}
    handed_in, strays = students.find(folder, assignment, listed, ours)
    if not out.absolute().parent.is_dir():
        raise BookError(f"{out} cannot be written: there is no folder {out.parent}")
    if not unsafe:
        _hidden(folder.resolve(), "the submissions")
        _hidden(out.absolute().parent.resolve(), "the table")
    so_far = Partial(partial.beside(out), partial.identity(assignment), seed)
    exam = draw(assignment.stem[:2], so_far.seed)
    with ExitStack() as stack:
        endings = stack.enter_context(Endings())
        first = _worker(exam, assignment, unsafe, stack)
        others = range(1, min(jobs or cores(), len(handed_in)))
        workers = [first, *(stack.enter_context(Worker(first.number, first.way)) for _ in others)]
        lacks = f" ({first.lacks})" if first.lacks else ""
        say(f"{len(handed_in)} students, {_WAYS[first.way]}{lacks}, seed {exam.seed}")
        say(_going_on(so_far, handed_in)) if so_far.kept else None
        stack.enter_context(so_far)
        grades = _grade_all(handed_in, exam, workers, so_far, endings)
        written = report.write(out, grades, exam.asked, exam.seed, assignment.stem[:2])
        if not any(grade.status == "machine" for grade in grades):
            so_far.remove()
    say(
        f"{len(grades)} students in {time.perf_counter() - started:.0f} s: "
        f"{', '.join(map(str, written))}"
    )
    for line in _summary(grades, strays):
        say(line)
    return grades


def _going_on(so_far: Partial, handed_in: list[Submission]) -> str:
    changed = [s.student for s in handed_in if so_far.changed(s.student, s.answers)]
    again = f"; changed since and graded again: {', '.join(changed)}" if changed else ""
    return f"going on where an earlier run stopped: {len(so_far.kept)} were graded{again}"


def _summary(grades: list[Grade], strays: list[str]) -> Iterator[str]:
    """What the instructor should know without opening the table."""
    by_status = Counter(grade.status for grade in grades)
    yield ", ".join(f"{count} {status}" for status, count in by_status.most_common())
    for status, advice in (
        ("missing", ""),
        ("unreadable", ""),
        ("machine", ": this machine failed, not the student. Type the same command again"),
    ):
        names = [grade.submission.student for grade in grades if grade.status == status]
        if names:
            yield f"{status}: {', '.join(names)}{advice}"
    if strays:
        yield f"belongs to nobody, left out: {', '.join(strays)}"


_WAYS = {
    "root": "each answer in a sandbox, as a user of its own",
    "user": "each answer in a sandbox, in a user namespace",
    "none": "NO SANDBOX (--unsafe): answers can read this machine's files and use its network",
}


def _hidden(folder: Path, what: str) -> None:
    """BookError if answers could read a folder, because it lies in one that the sandbox shows."""
    for path in sandbox.visible():
        if folder.is_relative_to(Path(path).resolve()):
            raise BookError(
                f"{folder} lies in {path}, which every answer can read: put {what} elsewhere"
            )


def _worker(exam: Exam, assignment: Chapter, unsafe: bool, stack: ExitStack) -> Worker:
    """The first worker, after it has given the published solution full points: a grader that
    cannot do that must not grade.
    """
    reasons = []
    for way in _ways(unsafe):
        worker = stack.enter_context(Worker(assignment.stem[:2], way))
        try:
            tried = worker.ask(exam.asked[0], exam.cases[exam.asked[0].id], exam.prelude, "")
            if tried.status == "machine":
                raise Refused(tried.trouble)
            for id, cell in answer_cells(assignment).items():
                q = next(q for q in exam.asked if q.id == id)
                verdict = answer(worker, exam, q, cell.source)
                if verdict.share < 1:
                    raise BookError(
                        f"the published solution of {id} fails here: {verdict.feedback}"
                    )
            return worker
        except Refused as error:
            reasons.append(str(error))
    why = "; ".join(reasons) or "it is not Linux"
    raise BookError(
        f"this machine offers no sandbox ({why}). Grade on Linux 5.12 or newer, as root or "
        "with user namespaces allowed; "
        "--unsafe runs every answer with your own rights, only limited in time: for files you "
        "would run yourself"
    )


def _ways(unsafe: bool) -> list[str]:
    if unsafe:
        return ["none"]
    if sys.platform != "linux":
        return []
    return ["root", "user"] if os.geteuid() == 0 else ["user"]


def answer(worker: Worker, exam: Exam, q: Question, source: str) -> Mark:
    """Run one answer and judge what came back."""
    for patience in (1, 5, None):
        try:
            outcome = worker.ask(q, exam.cases[q.id], exam.prelude, source)
        # the machine's fault, not the student's: out of memory or of namespaces
        except (Refused, OSError) as error:
            outcome = Outcome(None, 0, f"the sandbox could not be started ({error})", "machine")
        if outcome.status != "machine":
            break
        if patience is None:
            return Mark("machine", 0.0, f"not graded: {outcome.trouble}. Grade this again")
        time.sleep(patience)
    note = " and ".join(outcome.notes)
    if outcome.arrays is None:
        return Mark("failed", 0.0, outcome.trouble, note)
    try:
        with np.errstate(all="ignore"):
            verdict = q.judge(exam.cases[q.id], outcome.arrays, outcome.calls)
    # a judge met arrays it did not foresee: no points, and the instructor sees why
    except Exception as error:
        why = f"could not be judged ({type(error).__name__}: {error})"
        return Mark("failed", 0.0, why, note)
    status = "right" if verdict.share == 1 else "partly" if verdict.share else "wrong"
    return Mark(status, *verdict, note)


def _grade_all(
    handed_in: list[Submission],
    exam: Exam,
    workers: list[Worker],
    so_far: Partial,
    endings: Endings,
) -> list[Grade]:
    from tqdm import tqdm

    free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)
    done: dict[str, Grade] = {}
    arrivals = endings.arrivals = queue.SimpleQueue()
    pool = ThreadPoolExecutor(len(workers))
    try:
        for submission in handed_in:
            task = pool.submit(_one, submission, exam, free, so_far)
            task.add_done_callback(arrivals.put)
        for _ in tqdm(handed_in, unit="student", disable=None):
            arrived = arrivals.get()
            if isinstance(arrived, Ended):
                raise arrived
            result = arrived.result()
            so_far.add(result)
            done[result.submission.student] = result
    except Ended:
        left = f"{len(done)} of {len(handed_in)} are kept in {so_far.path}"
        print(f"\ninterrupted: {left}; the same command goes on", file=sys.stderr)
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return [done[submission.student] for submission in handed_in]


def _one(submission: Submission, exam: Exam, free: queue.SimpleQueue, so_far: Partial) -> Grade:
    worker, result = free.get(), Grade(submission)
    try:
        for q in exam.asked:
            source = submission.answers.get(q.id)
            if source is None:
                result.verdicts[q.id] = submission.faults[q.id]
            else:
                known = so_far.mark(submission.student, q.id, source)
                result.verdicts[q.id] = known or answer(worker, exam, q, source)
            if note := result.verdicts[q.id].note:
                submission.notes.append(f"{q.id}: {note}")
    finally:
        free.put(worker)
    return result
