"""`python -m book release NN --to DIR`: the executed solution without its answers becomes the
student's notebook.
"""

import re
from copy import deepcopy
from pathlib import Path

from book.chapter import CHECKED, Cell, Chapter
from book.errors import BookError, Complaints
from book.library import Book
from book.questions.answers import marked
from book.sheet import BEGIN, END
from book.stale import read_notebook

_CHECK = re.compile(r'^check\("(Q\d\d\.\d+)"', re.MULTILINE)


def release(book: Book, number: str, to: Path) -> Path:
    """Write the student's notebook into the folder `to`; an existing notebook there is never
    touched.
    """
    assignment = book.assignment(number)
    node = student_notebook(book, assignment)
    to.mkdir(parents=True, exist_ok=True)
    path = to / assignment.notebook.name
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(node)
    except FileExistsError:
        raise BookError(
            f"{path} exists and may hold somebody's work: remove it, or release into another "
            "folder"
        ) from None
    return path


def student_notebook(book: Book, assignment: Chapter) -> str:
    """The student's notebook as text. It looks unsolved, but check cells keep their outputs,
    which nbval compares; those of all other cells go.

    nbval wants a count beside an output: Jupyter shows the count 0 as `[ ]`, like none.
    """
    import nbformat

    _complete(assignment)
    node = deepcopy(read_notebook(book, assignment))
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs = cell.outputs if cell.source.startswith(CHECKED) else []
            cell.execution_count = 0 if cell.outputs else None
            cell.source = (
                blank(cell.source, marked(cell.source)) if marked(cell.source) else cell.source
            )
    return nbformat.writes(node) + "\n"


def blank(source: str, id: str) -> str:
    """An answer cell with its solution replaced by a line that says what to do."""
    lines, inside = [], False
    for line in source.splitlines():
        text = line.strip()
        if text == BEGIN:
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f'{indent}raise NotImplementedError("{id}: not answered yet")')
        if not inside:
            lines.append(line)
        inside = inside and text != END
    return "\n".join(lines)


def check_cells(assignment: Chapter) -> dict[str, Cell]:
    """{question: its check cell} of an assignment's source."""
    return {
        match[1]: cell
        for cell in assignment.cells
        if cell.kind == "code" and (match := _CHECK.search(cell.source))
    }


def first_code(assignment: Chapter) -> Cell:
    """The first code cell, which an answer may use."""
    return next(cell for cell in assignment.cells if cell.kind == "code")


def answer_cells(assignment: Chapter) -> dict[str, Cell]:
    """{question: its answer cell} of an assignment's source. BookError if a question has two."""
    found: dict[str, Cell] = {}
    for cell in assignment.cells:
        id = marked(cell.source) if cell.kind == "code" else None
        if id in found:
            raise BookError(f"{assignment.where(cell)}: {id} is answered twice")
        if id:
            found[id] = cell
    return found


def _complete(assignment: Chapter) -> None:
    """BookError unless each answer cell has one solution and is checked by a cell whose output
    nbval compares, and the last cell counts the questions that pass.
    """
    complaints, answers, checks = Complaints(), answer_cells(assignment), check_cells(assignment)
    for id, cell in answers.items():
        marks = [
            line.strip() for line in cell.source.splitlines() if line.strip() in (BEGIN, END)
        ]
        if marks != [BEGIN, END]:
            complaints.add(
                assignment.where(cell),
                f"wanted one '{BEGIN}' and then one '{END}', found {marks}",
            )
        if id not in checks or not checks[id].source.startswith(CHECKED):
            complaints.add(
                assignment.where(cell),
                f'wanted a cell with "{CHECKED}" and check("{id}", …) as its lines',
            )
    for id in sorted(set(checks) - set(answers)):
        complaints.add(assignment.where(checks[id]), f"no cell starts with '# ANSWER {id}'")
    closing, last = f'tally("{assignment.stem[:2]}")', assignment.cells[-1]
    if last.kind != "code" or last.source.splitlines()[-1:] != [closing]:
        complaints.add(assignment.where(last), f"wanted a last cell that ends with {closing}")
    complaints.check()
