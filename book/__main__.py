"""`python -m book run|build|serve|ledger|release|grade`. Only running and grading need torch
and the library installed.
"""

import argparse
import sys
from pathlib import Path

from book.errors import BookError
from book.ledger import ledger_text, read_ledger
from book.library import Book
from book.site import build, serve
from book.stale import read_notebook

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, or 1 after printing what is wrong with the book."""
    options = _parser().parse_args(arguments)
    try:
        options.act(Book(ROOT), options)
    except BookError as error:
        print(f"book: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m book",
        description="The press: chapters become notebooks, notebooks become a site.",
    )
    verbs = parser.add_subparsers(
        required=True, metavar="run | build | serve | ledger | release | grade"
    )
    verb = verbs.add_parser(
        "run", help="execute chapters: chapters/NN_name.py becomes NN_name.ipynb"
    )
    verb.add_argument(
        "chapters",
        nargs="+",
        metavar="NN",
        help="chapter numbers like 08, assignments like assignments/08, or all",
    )
    verb.set_defaults(act=_run)
    verb = verbs.add_parser("build", help="build the site from the executed notebooks")
    verb.add_argument(
        "--out",
        type=Path,
        default=ROOT / "site",
        metavar="DIR",
        help="where to write it (default: site)",
    )
    verb.set_defaults(act=lambda book, options: _build(book, options.out))
    verb = verbs.add_parser("serve", help="build the site and serve it on this machine")
    verb.add_argument(
        "--port", type=int, default=8000, help="the port to try first (default: 8000)"
    )
    verb.set_defaults(act=_serve)
    verb = verbs.add_parser("ledger", help="print every claim, its bound and its measured value")
    verb.set_defaults(act=_ledger)
    verb = verbs.add_parser(
        "release", help="write an assignment's notebook for students: the answers are taken out"
    )
    verb.add_argument("assignment", metavar="NN", help="the assignment's number, like 08")
    verb.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the folder to write it into"
    )
    verb.set_defaults(act=_release)
    _add_grade(verbs)
    return parser


def _add_grade(verbs) -> None:
    verb = verbs.add_parser(
        "grade", help="grade a folder of students' notebooks, each answer in a sandbox"
    )
    verb.add_argument(
        "submissions",
        type=Path,
        metavar="SUBMISSIONS",
        help="the folder with the notebooks, a file or a folder for each student",
    )
    verb.add_argument(
        "--assignment", required=True, metavar="NN", help="the assignment's number, like 08"
    )
    verb.add_argument(
        "--out",
        type=Path,
        default=Path("grades.csv"),
        metavar="CSV",
        help="the table to write (default: grades.csv)",
    )
    verb.add_argument(
        "--roster",
        type=Path,
        metavar="FILE",
        help="who should have handed in: one id a line, or a CSV with a column student_id or id",
    )
    verb.add_argument(
        "--seed",
        type=int,
        help="repeat an earlier run: the seed is in its table (default: a new one)",
    )
    verb.add_argument(
        "--jobs", type=int, metavar="N", help="answers to run at a time (default: one a core)"
    )
    verb.add_argument(
        "--unsafe",
        action="store_true",
        help="run answers without a sandbox, with your own rights",
    )
    verb.set_defaults(act=_grade)


def _say(text: str) -> None:
    print(text, flush=True)


def _run(book: Book, options) -> None:
    from book.run import run

    for chapter in book.chosen(options.chapters):
        run(book, chapter, _say)


def _build(book: Book, out: Path) -> None:
    build(book, out.resolve())
    _say(f"the site is in {out}")


def _serve(book: Book, options) -> None:
    out = book.root / "site"
    _build(book, out)
    serve(out, options.port, _say)


def _ledger(book: Book, options) -> None:
    notebooks = {chapter.stem: read_notebook(book, chapter) for chapter in book.chapters}
    _say(ledger_text(read_ledger(book, notebooks)))


def _release(book: Book, options) -> None:
    from book.release import release
    from book.sheet import sheet

    path = release(book, options.assignment, options.to)
    points = sheet(path.name[:2]).points
    _say(f"for students: {path} ({len(points)} questions, {sum(points.values())} points)")


def _grade(book: Book, options) -> None:
    try:
        from book.grading.grade import grade
    except ModuleNotFoundError as error:
        raise BookError(
            f"grading needs {error.name}: install everything with `make setup`"
        ) from None

    grade(
        book,
        options.submissions,
        options.assignment,
        options.out,
        _say,
        roster=options.roster,
        seed=options.seed,
        unsafe=options.unsafe,
        jobs=options.jobs,
    )


if __name__ == "__main__":
    sys.exit(main())
