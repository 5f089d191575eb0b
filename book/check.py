"""The verb of an assignment: `check("Q08.2", ddim_step)` prints `Q08.2 PASS`, or raises an
error that teaches.
"""

import inspect
import linecache
import re
import secrets
import sys
import textwrap
import traceback

from book.closing import notebook, remember, shown

_COLUMNS = 100
_checking: list[str] = []  # the question that is being checked


class Wrong(AssertionError):
    """An answer that is not right yet. A notebook shows its message without a traceback: the
    answer has no faulty line.
    """

    def _render_traceback_(self):
        return _wrapped(str(self))


class Unsolved(NotImplementedError):
    """A question that still has its placeholder; shown like `Wrong`."""

    _render_traceback_ = Wrong._render_traceback_


@shown
def check(id, answer):
    """Call `answer` on fresh inputs and judge what it returns: prints `Q08.2 PASS`, or raises
    `Wrong` with a diagnosis (which a notebook shows, and goes on).

    As in the grader, the answer's cell is executed by itself, after the notebook's first code
    cell, with the defaults of a fresh process: what passes here does not lean on other cells,
    nor on files beside the notebook. Of an exception of the answer itself, a notebook shows the
    answer's own lines and the message.
    """
    from book.fresh import fresh
    from book.truth import ask, question

    if _checking:  # the answer's cell calls it, too
        return
    q = question(id)
    remember(id, answer, 0.0)
    _checking.append(id)
    try:
        with fresh():
            verdict = ask(q, _alone(q, answer), q.draw(secrets.randbits(32)))
    except Wrong:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and (
            not str(error) or str(error).startswith(id)
        ):
            raise Unsolved(
                f"{id}: not answered yet. In the cell above, put your code in the place of the "
                "line "
                "'raise NotImplementedError(…)', run that cell, then this one."
            ) from None
        lines = _told(id, error, _file(answer))
        error._render_traceback_ = lambda: lines
        raise
    finally:
        _checking.clear()
    remember(id, answer, verdict.share)
    if verdict.share < 1:
        part = (
            f" (so far {verdict.share * q.points:.3g} of {q.points} points)"
            if verdict.share
            else ""
        )
        raise Wrong(f"{id}: {verdict.feedback}{part}")
    print(f"{id} PASS")


def _alone(q, answer):
    """The function as the answer's cell defines it by itself. Outside a notebook, the function
    as it is.
    """
    from book.questions.answers import (
        MAGIC,
        Unanswered,
        cell_of,
        first_cell,
        marked,
        without_the_book,
    )
    from book.sheet import sheet

    shell = notebook()
    if shell is None:
        return answer
    source = "".join(linecache.getlines(_file(answer)))
    cell = _typed(shell, q.id, source)
    if marked(source) != q.id or marked(cell) != q.id:
        raise Wrong(
            f"{q.id}: the first line of the answer's cell must be '# ANSWER {q.id}', with "
            "nothing above it, no %%time either: "
            "the grader finds answers by that line. Then run that cell again"
        )
    if "get_ipython()" in source or source.strip() != cell.strip():
        raise Wrong(f"{q.id}: {MAGIC}")
    prelude = sheet(q.number).prelude
    try:
        with without_the_book():
            module = sys.modules["__main__"] = first_cell(prelude)
            return cell_of(module, q.id, q.function, source, _file(answer))
    except Unanswered as error:
        raise Wrong(str(error)) from None


def _typed(shell, id: str, otherwise: str) -> str:
    """The answer's cell as it was typed when it was last run: what Python sees of a cell lacks
    its magics. nbval keeps no history.
    """
    mark = re.compile(rf"^#[ \t]*ANSWER[ \t]+{re.escape(id)}[ \t]*$", re.MULTILINE)
    return next(
        (cell for cell in reversed(shell.history_manager.input_hist_raw) if mark.search(cell)),
        otherwise,
    )


def _file(answer) -> str:
    """The file, or the cell, that a function was written in; that of the innermost one if it
    is decorated.
    """
    code = getattr(inspect.unwrap(answer), "__code__", None)
    return code.co_filename if code else ""


def _told(id: str, error: Exception, file: str) -> list[str]:
    """An exception in a few lines: the answer's last own lines, without those of this package
    and of torch, and the message.
    """
    from book.questions.answers import leaning

    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file
    ][-3:]
    head = (
        f"{id}: the answer raised an error"
        if frames
        else f"{id}: what the answer returned cannot be used"
    )
    lines = [head, *(f"line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames)]
    return _wrapped("\n".join([*lines, f"{type(error).__name__}: {error}{leaning(error)}"]))


def _wrapped(text: str) -> list[str]:
    """Lines broken between words: a notebook breaks long ones anywhere."""
    wrap = textwrap.TextWrapper(_COLUMNS, break_long_words=False, break_on_hyphens=False).wrap
    return [part for line in text.splitlines() for part in wrap(line)]
