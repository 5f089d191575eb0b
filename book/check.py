"""The verb of an assignment: `check("Q08.2", ddim_step)` prints `Q08.2 PASS`, or raises an error that teaches."""

import linecache
import secrets
import sys
from pathlib import Path

_HOME = str(Path(__file__).parent)


class Wrong(AssertionError):
    """An answer that is not right yet. A notebook shows its message without a traceback: the answer has no faulty line."""

    def _render_traceback_(self):
        return [str(self)]


class Unsolved(NotImplementedError):
    """A question that still has its placeholder; shown like `Wrong`."""

    _render_traceback_ = Wrong._render_traceback_


def check(id, answer):
    """Call `answer` on fresh inputs and judge what it returns: prints `Q08.2 PASS`, or raises `Wrong` with a diagnosis.

    As in the grader, the answer's cell is executed by itself, after the notebook's first code cell: what passes here does
    not lean on other cells. An exception of the answer itself is raised with the answer's own lines.
    """
    from book.questions import ask, question

    q = question(id)
    try:
        verdict = ask(q, _alone(q, answer), secrets.randbits(32))
    except NotImplementedError as error:
        raise Unsolved(str(error) or f"{id} is not answered yet") from None
    except Wrong:
        raise
    except Exception as error:
        raise error.with_traceback(_own_lines(error.__traceback__)) from None
    if verdict.share < 1:
        part = f" (so far {verdict.share * q.points:g} of {q.points} points)" if verdict.share else ""
        raise Wrong(f"{id}: {verdict.feedback}{part}")
    print(f"{id} PASS")


def _alone(q, answer):
    """The function as the answer's cell defines it by itself. Outside a notebook, the function as it is."""
    from book.questions.answers import Unanswered, define, marked

    code = getattr(answer, "__code__", None)
    source = "".join(linecache.getlines(code.co_filename)) if code and answer.__module__ == "__main__" else ""
    if not source or "IPython" not in sys.modules:
        return answer
    if marked(source) != q.id:
        raise Wrong(f"{q.id}: the first line of the answer's cell must be '# ANSWER {q.id}': the grader finds answers by that line")
    if "get_ipython()" in source:
        raise Wrong(f"{q.id}: the answer's cell has a line that starts with % or !, which the grader cannot run: move it to another cell")
    try:
        return define(q.id, q.function, sys.modules[q.draw.__module__].PRELUDE, source, code.co_filename)
    except Unanswered as error:
        raise Wrong(str(error)) from None
    except NameError as error:
        raise Wrong(f"{q.id}: {error}. {_LEANS}") from None


_LEANS = "An answer may use the notebook's first code cell and its own cell, nothing else: move what it needs into its cell"


def _own_lines(trace):
    """The part of a traceback that begins outside this package."""
    while trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_HOME):
        trace = trace.tb_next
    return trace
