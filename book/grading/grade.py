"""`python -m book grade SUBMISSIONS --assignment NN --out grades.csv`."""

import os
import queue
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from book.chapter import Chapter
from book.errors import BookError
from book.grading import report, sandbox, submissions
from book.grading.report import Grade
from book.grading.submissions import Submission
from book.grading.worker import Refused, Worker, cores
from book.library import Book
from book.release import answer_cells
from book.sheet import sheet
from book.truth import Case, Question, Verdict, questions


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
    seed: int | None = None,
    unsafe: bool = False,
    jobs: int | None = None,
) -> list[Grade]:
    """Grade every file below `folder` and write the tables. BookError if the machine has no
    sandbox and `unsafe` is not said.
    """
    started, assignment = time.perf_counter(), book.assignment(number)
    paths = submissions.find(folder)
    if not out.absolute().parent.is_dir():
        raise BookError(f"{out} cannot be written: there is no folder {out.parent}")
    if not unsafe:
        _hidden(folder.resolve())
    handed_in = [submissions.read(path, folder, assignment) for path in paths]
    exam = draw(assignment.stem[:2], secrets.randbits(40) if seed is None else seed)
    with ExitStack() as stack:
        first = _worker(exam, assignment, unsafe, stack)
        others = range(1, min(jobs or cores(), len(handed_in)))
        workers = [first, *(stack.enter_context(Worker(first.number, first.way)) for _ in others)]
        say(f"{len(handed_in)} submissions, {_WAYS[first.way]}, seed {exam.seed}")
        grades = _grade_all(handed_in, exam, workers)
    written = report.write(out, grades, exam.asked, exam.seed, assignment.stem[:2])
    say(
        f"{len(grades)} graded in {time.perf_counter() - started:.0f} s: "
        f"{', '.join(map(str, written))}"
    )
    return grades


_WAYS = {
    "root": "each answer in a sandbox, as a user of its own",
    "user": "each answer in a sandbox, in a user namespace",
    "none": "NO SANDBOX (--unsafe): answers can read this machine's files and use its network",
}


def _hidden(folder: Path) -> None:
    """BookError if answers could read the folder of submissions, because it lies in one that
    the sandbox shows.
    """
    for path in sandbox.visible():
        if folder.is_relative_to(Path(path).resolve()):
            raise BookError(
                f"{folder} lies in {path}, which every answer can read: move the submissions "
                "elsewhere"
            )


def _worker(exam: Exam, assignment: Chapter, unsafe: bool, stack: ExitStack) -> Worker:
    """The first worker, after it has given the published solution full points: a grader that
    cannot do that must not grade.
    """
    reasons = []
    for way in _ways(unsafe):
        worker = stack.enter_context(Worker(assignment.stem[:2], way))
        try:
            worker.ask(exam.asked[0], exam.cases[exam.asked[0].id], exam.prelude, "")
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


def answer(worker: Worker, exam: Exam, q: Question, source: str) -> Verdict:
    """Run one answer and judge what came back."""
    for patience in (1, 5, None):
        try:
            outcome = worker.ask(q, exam.cases[q.id], exam.prelude, source)
            break
        # the machine's fault, not the student's: out of memory or of namespaces
        except (Refused, OSError) as error:
            if patience is None:
                return Verdict(
                    0.0,
                    f"NOT GRADED: the sandbox could not be started ({error}). Grade this file "
                    "again",
                )
            time.sleep(patience)
    if outcome.arrays is None:
        return Verdict(0.0, outcome.trouble)
    try:
        with np.errstate(all="ignore"):
            return q.judge(exam.cases[q.id], outcome.arrays, outcome.calls)
    # a judge met arrays it did not foresee: no points, and the instructor sees why
    except Exception as error:
        return Verdict(0.0, f"could not be judged ({type(error).__name__}: {error})")


def _grade_all(handed_in: list[Submission], exam: Exam, workers: list[Worker]) -> list[Grade]:
    from tqdm import tqdm

    free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)
    done: dict[str, Grade] = {}
    pool = ThreadPoolExecutor(len(workers))
    try:
        tasks = [pool.submit(_one, submission, exam, free) for submission in handed_in]
        for task in tqdm(as_completed(tasks), total=len(tasks), unit="student", disable=None):
            result = task.result()
            done[result.submission.file] = result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return [done[submission.file] for submission in handed_in]


def _one(submission: Submission, exam: Exam, free: queue.SimpleQueue) -> Grade:
    worker, result = free.get(), Grade(submission)
    try:
        for q in exam.asked:
            if q.id in submission.answers:
                result.verdicts[q.id] = answer(worker, exam, q, submission.answers[q.id])
            else:
                result.verdicts[q.id] = Verdict(0.0, submission.faults[q.id])
    finally:
        free.put(worker)
    return result
