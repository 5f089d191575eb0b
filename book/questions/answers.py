"""From the text of an answer cell to the function it defines: the same in a notebook's check
and in the grader.
"""

import builtins
import re

_NOTEBOOK = ("get_ipython", "display")  # a notebook adds them to Python; the grader has none
MARK = re.compile(r"#[ \t]*ANSWER[ \t]+(Q\d\d\.\d+)[ \t]*")


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


def define(id: str, function: str, prelude: str, source: str, filename: str = "<answer>"):
    """Execute the first code cell of the assignment, then this answer cell, in a namespace of
    their own; return the function.
    """
    builtin = {name: value for name, value in vars(builtins).items() if name not in _NOTEBOOK}
    namespace = {"__name__": "__main__", "__builtins__": builtin}
    exec(compile(prelude, "<first cell>", "exec"), namespace)
    exec(compile(source, filename, "exec"), namespace)
    if not callable(namespace.get(function)):
        raise Unanswered(
            f"{id}: its cell defines no function {function}(…): keep the name, others call it"
        )
    return namespace[function]


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
    """What to add to the message of an unknown name: it may well be known to the notebook."""
    if not isinstance(error, NameError) or isinstance(error, UnboundLocalError):
        return ""
    return (
        ". An answer may use the notebook's first code cell and its own cell, nothing else: "
        "move what it needs into its cell"
    )
