"""Graded questions: one definition serves the check in the notebook and the grader.

A question is three steps, so that they can live in different processes: `draw(seed)` makes
fresh inputs and their truth, `run(answer, inputs, network)` calls the student's function and
returns arrays, `judge(case, arrays, calls)` compares. Only `run` ever meets the student's
code. The network is a callable that the judge's side owns: calls are counted there.
"""

import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from book.errors import BookError

_ID = re.compile(r"Q(\d\d)\.\d+")


class Verdict(NamedTuple):
    """What the judge says: the share of the points (1 is right), and feedback for the student."""

    share: float
    feedback: str


@dataclass(frozen=True)
class Case:
    """One draw of a question. `inputs` (float64 arrays by name) go to the answer; `network`
    and `truth` stay with the judge.
    """

    inputs: dict[str, Any]
    truth: dict[str, Any] = field(default_factory=dict)
    network: Callable | None = None


@dataclass(frozen=True)
class Question:
    """`function` is the name the answer must define; `seconds` is what one answer may take in
    the grader.
    """

    id: str
    function: str
    points: int
    draw: Callable[[int], Case]
    run: Callable[[Callable, dict, Callable | None], list]
    judge: Callable[[Case, list, float], Verdict]
    seconds: int = 20


class Network:
    """A case's network, counting calls: rows evaluated over the rows of a batch."""

    def __init__(self, case: Case):
        self.case, self.rows = case, 0

    def __call__(self, x, t: float):
        self.rows += len(x)
        return self.case.network(x, t)

    @property
    def calls(self) -> float:
        return self.rows / len(self.case.inputs["x"]) if self.case.network else 0.0


def questions(number: str) -> list[Question]:
    """The questions of an assignment ("08"), in order. Imports torch."""
    name = f"book.questions.q{number}"
    if importlib.util.find_spec(name) is None:
        raise BookError(
            f"there is no assignment {number!r}: its questions would be in "
            f"book/questions/q{number}.py"
        )
    return importlib.import_module(name).QUESTIONS


def question(id: str) -> Question:
    """The question with this id, like "Q08.2"."""
    match = _ID.fullmatch(id)
    if not match:
        raise BookError(
            f"check: id {id!r}: a question is named by Q, two digits, a dot and a number, like "
            "'Q08.2'"
        )
    found = {q.id: q for q in questions(match[1])}
    if id not in found:
        raise BookError(f"check: there is no {id}: the questions are {', '.join(found)}")
    return found[id]


def ask(q: Question, answer: Callable, seed: int) -> Verdict:
    """Draw, run and judge in this process: what `check` does. The grader does the same with
    `run` in a sandbox.
    """
    case = q.draw(seed)
    network = Network(case)
    return q.judge(
        case, q.run(answer, case.inputs, network if case.network else None), network.calls
    )
