"""Graded questions: one definition serves the check in the notebook and the grader.

A question is three steps, so that they can live in different processes: `draw(seed)` makes fresh
inputs and their truth, `run(answer, inputs, network)` calls the student's function and returns
arrays, `judge(case, arrays, calls)` compares. Only `run` ever meets the student's code, and all
that it needs is in `book.questions`; the rest is here, where no answer's process looks. The
network is a callable that the judge's side owns: calls are counted there.
"""

import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from book.errors import BookError
from book.questions import caller
from book.questions.answers import without_the_book
from book.sheet import sheet

_ID = re.compile(r"Q(\d\d)\.\d+")


class Verdict(NamedTuple):
    """What the judge says: the share of the points (1 is right), and feedback for the student."""

    share: float
    feedback: str


@dataclass(frozen=True)
class Case:
    """One draw of a question. `inputs` (numbers and arrays by name, in the order of the answer's
    arguments) go to the answer. All else stays with the judge: the network, `facts`, and what the
    solution returned (`values`) with so many network `calls`. `mistakes()` is what the known
    mistakes return: (explanation, arrays) of each.
    """

    inputs: dict[str, Any]
    network: Callable | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    values: list = field(default_factory=list)
    calls: float = 0.0
    mistakes: Callable[[], list[tuple[str, list]]] = list


@dataclass(frozen=True)
class Question:
    """A question of an assignment, whose cells state its text, function, points and solution.

    `inputs` maps a generator to a Case that lacks what the solution returns, or to its inputs
    alone; `verdict` maps (question, case, arrays, calls) to a Verdict; `seconds` is what one
    answer may take in the grader.
    """

    id: str
    inputs: Callable[[Any], Case | dict]
    verdict: Callable[["Question", Case, list, float], Verdict]
    seconds: int = 20

    @property
    def number(self) -> str:
        """Its assignment's."""
        return self.id[1:3]

    @property
    def cell(self) -> str:
        """The answer cell with the published solution."""
        return sheet(self.number).answers[self.id]

    @property
    def function(self) -> str:
        """The name that an answer must define."""
        return sheet(self.number).function(self.id)

    @property
    def points(self) -> int:
        return sheet(self.number).points[self.id]

    def draw(self, seed: int) -> Case:
        import numpy as np

        case = self.inputs(np.random.default_rng(seed))
        return case if isinstance(case, Case) else Case(case)

    def run(self, answer: Callable, inputs: dict, network: Callable | None) -> list:
        return caller(self.number)(self.function)(answer, inputs, network)

    def judge(self, case: Case, outputs: list, calls: float) -> Verdict:
        return self.verdict(self, case, outputs, calls)


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
    name = f"book.truth.q{number}"
    if importlib.util.find_spec(name) is None:
        raise BookError(
            f"there is no assignment {number!r}: its questions would be in "
            f"book/truth/q{number}.py"
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


def ask(q: Question, answer: Callable, case: Case) -> Verdict:
    """Run and judge in this process: what `check` does. The grader does the same with `run` in a
    sandbox. Not from several threads: modules are hidden from the answer, and so from all.
    """
    network, call = Network(case), caller(q.number)(q.function)
    with without_the_book():
        arrays = call(answer, case.inputs, network if case.network else None)
    return q.judge(case, arrays, network.calls)
