"""The last verb of an assignment: `tally("08")` says how many of its questions pass."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from book.errors import BookError

_latest: dict[str, tuple[Callable, float]] = {}  # question: what was checked, share of its points


def tally(number: str) -> None:
    """Print how many questions of assignment `number` ("08") pass and what their points are, as
    the latest check of each has found in this kernel; then name the others.

    A question counts only while its answer is the function that was checked: who runs the
    answer's cell again must check it again. BookError if there is no such assignment.
    """
    from book.sheet import sheet

    asked, shell = sheet(number), notebook()
    now = lambda id: shell.user_ns.get(asked.function(id))
    of = lambda test: [id for id in asked.answers if test(id)]
    unchecked = of(lambda id: id not in _latest)
    stale = of(lambda id: shell and id in _latest and _latest[id][0] is not now(id))
    fresh = of(lambda id: id not in unchecked + stale)
    wrong = [id for id in fresh if _latest[id][1] < 1]
    points = sum(round(_latest[id][1] * asked.points[id], 2) for id in fresh)
    print(
        f"{len(fresh) - len(wrong)} of {len(asked.answers)} questions pass "
        f"({points:g} of {sum(asked.points.values())} points)"
    )
    for said, some in (
        ("not yet", wrong),
        ("not checked since the kernel started", unchecked),
        ("its cell was run again after its check", stale),
    ):
        if some:
            print(f"{said}: {', '.join(some)}")


def remember(id: str, answer: Callable, share: float) -> None:
    """Keep what a check has found, for `tally`."""
    _latest[id] = (answer, share)


def shown(check: Callable[[str, Callable], None]) -> Callable[[str, Callable], None]:
    """In a notebook, show an error of `check` in the cell's output as if it had been raised, but
    let "Run All" go on: the other questions have their checks, too. nbval, and `book run`, see
    an error all the same.
    """

    @wraps(check)
    def checked(id: str, answer: Callable) -> None:
        try:
            check(id, answer)
        except BookError:
            raise
        except Exception as error:
            shell = notebook()
            if shell is None:
                raise
            shell.showtraceback((type(error), error, error.__traceback__))

    return checked


def notebook() -> Any:
    """IPython's shell, or None outside of notebooks."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
