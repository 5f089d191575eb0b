"""Questions with one right answer: the published solution is the truth, and the known mistakes
are edits of its text.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

from book.questions.answers import define
from book.sheet import sheet
from book.truth import Case, Network, Question, Verdict
from book.truth.judging import exactly, relative
from book.truth.spelling import annotated, spelled


@dataclass(frozen=True, kw_only=True)
class Exact(Question):
    """What the solution returns is right, to the relative `tolerance`.

    `returns` names it: a name for one thing (in one or several arrays, for several calls), or a
    tuple of names, one an array, each with its share of the points. `hint` is what somebody hears
    whose mistake is not known: a text, or a function of (arrays, right ones) that makes it; one
    for each name. `mistakes` is a text: edits of the solution, or bodies of their own, and below
    each a comment, what somebody hears who made it (`spelling.annotated`). `off` says how far
    away an answer is. `truth` maps a case to arrays, where another way to the truth is better
    than the solution's own. `short` are inputs with which mistakes need less time.
    """

    returns: str | tuple[str, ...]
    hint: str | Callable | tuple[str | Callable, ...]
    mistakes: str = ""
    verdict: Callable[["Exact", Case, list, float], Verdict] = exactly
    off: Callable[[list, list], str] = relative
    truth: Callable[[Case], list] | None = None
    short: dict = field(default_factory=dict)
    tolerance: float = 1e-9

    def wrong(self) -> list[tuple[str, str]]:
        """(explanation, answer cell) of every known mistake, in order. ValueError if an edit does
        not fit the solution.
        """
        pairs = []
        for code, why in annotated(self.mistakes) if self.mistakes else []:
            try:
                pairs.append((why, spelled(self.cell, code)))
            except ValueError as error:
                raise ValueError(f"{self.id}, {why!r}: {error}") from None
        return pairs

    def draw(self, seed: int) -> Case:
        """A case with what the solution returns, and what the mistakes return when asked for."""
        case, wrong = super().draw(seed), self.wrong()
        values, calls = self.made(self.cell, case)

        @cache
        def mistakes() -> list:
            return [(why, found) for why, cell in wrong if (found := self.tried(cell, case))]

        values = self.truth(case) if self.truth else values
        return replace(case, values=values, calls=calls, mistakes=mistakes)

    def made(self, cell: str, case: Case) -> tuple[list, float]:
        """What an answer cell returns for a case, and with how many network calls."""
        answer = define(self.id, self.function, sheet(self.number).prelude, cell)
        network = Network(case)
        return self.run(answer, case.inputs, network if case.network else None), network.calls

    def tried(self, cell: str, case: Case) -> list:
        """What a mistake returns: nothing, if it raises an exception."""
        try:
            return self.made(cell, replace(case, inputs=case.inputs | self.short))[0]
        except Exception:
            return []
