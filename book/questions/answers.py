"""From the text of an answer cell to the function it defines: the same in a notebook's check
and in the grader.
"""

import builtins
import linecache
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

MARK = re.compile(r"#[ \t]*ANSWER[ \t]+(Q\d\d\.\d+)[ \t]*")
MAGIC = (
    "the answer's cell has a line that starts with % or !, which the grader cannot run: move it "
    "to another cell"
)
_MAGIC = re.compile(r"\s*([%!?]|[\w., ]+=\s*[%!])")
_LEANING = (
    ". An answer may use the notebook's first code cell and its own cell, nothing else: "
    "move what it needs into its cell"
)
_OF_THE_BOOK = (
    ". An answer may import what is installed with the book, and of `book` itself only its "
    "verbs, like check: move what it needs into its cell"
)
_BESIDE = (
    ". An answer may use what is installed with the book, and no file beside the notebook: "
    "move what it needs into its cell"
)


class Unanswered(Exception):
    """The cell does not define the function that its question asks for. `str(error)` says why,
    to the student.
    """


def marked(source: str) -> str | None:
    """The question that a cell answers: the id on its first line, `# ANSWER Q08.2`; None for
    any other cell.
    """
    lines = source.lstrip().splitlines()
    match = MARK.fullmatch(lines[0].rstrip()) if lines else None
    return match[1] if match else None


def forget_the_book() -> dict[str, ModuleType]:
    """Leave of `book` in `sys.modules` a module with its verbs, which do nothing there; returns
    the modules that were there.
    """
    known = {n: m for n, m in sys.modules.items() if n == "book" or n.startswith("book.")}
    for name in known:
        del sys.modules[name]
    verbs = known["book"].__all__
    book = sys.modules["book"] = ModuleType("book")
    vars(book).update(dict.fromkeys(verbs, lambda *_, **__: None), __all__=verbs)
    return known


@contextmanager
def without_the_book() -> Iterator[None]:
    """Within it an answer can import of `book` what it can in the grader."""
    known = forget_the_book()
    try:
        yield
    finally:
        sys.modules.update(known)


def define(
    id: str, function: str, prelude: str, source: str, filename: str = "<answer>"
) -> Callable:
    """Execute the first code cell of the assignment, then this answer cell, in a module of
    their own; return the function.
    """
    return cell_of(first_cell(prelude), id, function, source, filename)


def first_cell(prelude: str) -> ModuleType:
    """A new module in which the first code cell of the assignment was executed. What a notebook
    adds to Python is not in it, but for `display`, which does nothing elsewhere.
    """
    builtin = {"display": lambda *_, **__: None} | vars(builtins)
    builtin.pop("get_ipython", None)
    module = ModuleType("__main__")
    vars(module)["__builtins__"] = builtin
    exec(compile(prelude, "<first cell>", "exec"), vars(module))
    return module


def cell_of(
    module: ModuleType, id: str, function: str, source: str, filename: str = "<answer>"
) -> Callable:
    """Execute an answer cell in this module; return the function that it defines."""
    # what compiles a function looks for its text there
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    try:
        code = compile(source, filename, "exec")
    except SyntaxError as error:
        if any(map(_MAGIC.match, source.split("\n")[(error.lineno or 1) - 1 :][:1])):
            raise Unanswered(f"{id}: {MAGIC}") from None
        raise
    exec(code, vars(module))
    if not callable(vars(module).get(function)):
        raise Unanswered(
            f"{id}: its cell defines no function {function}(…): keep the name, others call it"
        )
    return vars(module)[function]


def explain(error: BaseException) -> str:
    """An exception that an answer raised, in one or two lines: its type, message and line of
    the answer.
    """
    if isinstance(error, (Unanswered, NotImplementedError)) and str(error):
        return str(error)
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<answer>":
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f" at line {line} of the answer" if line else ""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}{where}: {message}{leaning(error)}"


def leaning(error: BaseException) -> str:
    """What to add to the message of an unknown name, module or file: it may well be known to
    the notebook.
    """
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "book":
        return _OF_THE_BOOK
    if isinstance(error, (ModuleNotFoundError, FileNotFoundError)):
        return _BESIDE
    unknown = isinstance(error, NameError) and not isinstance(error, UnboundLocalError)
    return _LEANING if unknown else ""
