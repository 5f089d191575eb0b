"""What a change touches, in five minutes: `make quick`.

    python tests/quick.py               what differs from main, committed or not
    python tests/quick.py --since v1    what differs from another commit
    python tests/quick.py --list        only say what would run

Always: ruff, the floors of imports, the frozen list of mutants, and whether the notebooks are
those of their sources. Then, nearest first: changed tests, tests that read a changed file of the
root or page, tests named after a changed module, doctests, fences, tests that import what a
changed module defines, notebooks of changed chapters, notebooks that use what a changed module
of dlib, toy_data or book defines. An assignment's truth, calls, class or solution call for the
tests of the course and its notebook. A module that no test names or imports calls for the tests
of the modules that import it, or of those that import these. Notebooks are chosen in the same
way, for dlib, toy_data and book.
When the time is over, what is left is skipped, and named. Only `make test` runs everything.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from import_graph import PACKAGES, dotted, importers, modules, statements

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = ["tests/test_layering.py", "tests/test_mutants.py"]
ROOMS = ("dlib", "full_scale", "book", "toy_data", "bench")
_IMPORTS = ["tests/test_circles.py", "tests/full_scale/test_rooms.py"]
FENCES = {room: _IMPORTS[:1] for room in (*ROOMS, "chapters")}
FENCES |= {"dlib": _IMPORTS, "full_scale": _IMPORTS}
"""Of a room: what reads the imports of all its files, in seconds."""
READERS = {  # file, or the folder that it is in: the tests that read it, quick ones first
    "Makefile": ["test_makefile", "test_quick", "book/test_chapter", "book/test_sanitiser"],
    ".ci": ["test_makefile"],
    "pyproject.toml": ["test_packaging", "book/test_chapter"],
    "constraints.txt": ["test_packaging"],
    "environment.yml": ["test_packaging"],
    "CONTRIBUTING.md": ["book/test_counts", "test_circles", "full_scale/test_rooms"],
    "README.md": ["book/test_counts", "full_scale/test_pages"],
    "mkdocs.yml": ["book/test_site"],
    "book/hook.py": ["book/test_site"],  # mkdocs imports these two
    "book/docstrings.py": ["book/test_site"],
    "book/check.py": ["book/test_course_alike"],  # in a notebook's process
    "book/fresh.py": ["book/test_course_alike"],
    "book/pages": ["book/test_counts", "book/test_site", "full_scale/test_pages"],
}
_PLACES = ("book/truth/q", "book/questions/q", "tests/book/course", "chapters/assignments/")
ASSIGNMENT = re.compile(f"(?:{'|'.join(_PLACES)})(\\d\\d)[._].*")
"""A file of an assignment, and its number."""
QUESTIONS = "tests/book/test_course_questions.py"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
NOTEBOOKS = re.search("pytest (--nbval.*) -n 2", MAKEFILE)[1].split()
"""How `make test` has notebooks compared: lines without what was measured."""
PATH = f"{ROOT}:{ROOT / 'tests'}"
SECONDS = 300
STOP = "QUICK_STOPS_AT"
"""The moment, in seconds since 1970, after which tests are skipped."""


def changed(since: str | None, root: Path = ROOT) -> list[str]:
    """Files that differ from `since` (by default from where main was left), and new ones."""

    def git(*words: str) -> list[str]:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"make quick: git {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.splitlines()

    known = git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes")
    trunk = next((name for name in ("main", "origin/main") if name in known), "HEAD")
    (base,) = git("merge-base", "HEAD", since or trunk)
    there = git("diff", "--name-only", "--relative", base)
    return sorted({*there, *git("ls-files", "--others", "--exclude-standard")})


def choose(files: Iterable[str], root: Path = ROOT) -> list[str]:
    """Tests for pytest, nearest first, that changed files of the repository call for."""
    files = sorted(files)
    tests = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((root / "tests").rglob("test_*.py"))
    }
    own, named, examples, fences, about, notebooks, using = [], [], [], [], [], [], []
    for file in files:
        path, room = Path(file), file.split("/")[0]
        own += readers(path)
        fences += FENCES.get(room, ()) if path.suffix == ".py" else ()
        if number := assignment(path):
            named.append(QUESTIONS)
            about += of_course(number, tests)
            notebooks += sheets(number, root)
        if file in tests:
            own.append(file)
        elif room == "tests" and path.suffix == ".py":  # a helper: who imports it, or all here
            users = [t for t, text in tests.items() if word(path.stem).search(text)]
            here = [t for t in tests if Path(t).parent == path.parent]
            about += here if path.stem == "conftest" else users
        elif room == "chapters":
            # the press's fences
            own += ["tests/book/test_density.py", "tests/book/test_references.py"]
            notebooks.append(path.with_suffix(".ipynb").as_posix())
        elif room in ROOMS and path.suffix == ".py":
            if room == "dlib":
                examples.append(f"tests/test_doctests.py::test_examples[{dotted(path)}]")
            mine, others = nearest(path, root, tests)
            named += mine
            about += sorted(others, key=lambda test: (f"tests/{room}/" not in test, test))
            using += nearest_books(path, root) if room in ("dlib", "toy_data", "book") else []
        elif room in ROOMS:  # a recipe, a script, a style sheet
            about += [t for t, text in tests.items() if path.stem in text and room in t]
    wanted = dict.fromkeys(
        [*ALWAYS, *own, *named, *examples, *fences, *about, *notebooks, *using]
    )
    return [test for test in wanted if (root / test.split("::")[0]).is_file()]


def readers(path: Path) -> list[str]:
    """The tests that READERS names for a file or for a folder around it."""
    named = [READERS.get(str(place), ()) for place in (path, *path.parents)]
    return [f"tests/{reader}.py" for some in named for reader in some]


def assignment(path: Path) -> str:
    """The number of the assignment that a file belongs to, or ""."""
    found = ASSIGNMENT.fullmatch(path.as_posix())
    return found[1] if found else ""


def of_course(number: str, tests: dict[str, str]) -> list[str]:
    """The tests that take the class of an assignment, or of all of them."""
    classes = {f"course{number}", "every_course"}
    return [t for t, text in tests.items() if classes & {*sum(statements(text), ())}]


def sheets(number: str, root: Path) -> list[str]:
    """The notebook of an assignment."""
    found = (root / "chapters" / "assignments").glob(f"{number}_*.ipynb")
    return [path.relative_to(root).as_posix() for path in found]


def outward(path: Path, root: Path) -> Iterator[list[Path]]:
    """A module alone, then the modules that import it, then those that import these, and so on.
    Who imports a whole package, as `from dlib import …` does, is not asked.
    """
    near, seen, known = {dotted(path)}, set(PACKAGES), modules(root)
    yield [path]
    while near:
        seen |= near
        near = {user for each in near for user in importers(root).get(each, ())} - seen
        yield [known[name] for name in sorted(near)]


def nearest(path: Path, root: Path, tests: dict[str, str]) -> tuple[list[str], list[str]]:
    """What `of_module` says of a module; if nothing, of the next ones outward. What runs always
    is left out.
    """
    tests = {test: text for test, text in tests.items() if test not in ALWAYS}
    for near in outward(path, root):
        found = [of_module(each, root, tests) for each in near]
        mine, others = ([test for pair in found for test in pair[k]] for k in (0, 1))
        if mine or others:
            return mine, others
    return [], []


def nearest_books(path: Path, root: Path) -> list[str]:
    """What `books_with` says of a module; if nothing, of the next ones outward."""
    found = ([b for each in near for b in books_with(each, root)] for near in outward(path, root))
    return next(filter(None, found), [])


def of_module(path: Path, root: Path, tests: dict[str, str]) -> tuple[list[str], list[str]]:
    """(tests named after a module, that READERS names for it, or of its assignment's questions;
    tests that import it or a public name that it defines).
    """
    stem = (path.parent.name if path.stem == "__init__" else path.stem).lstrip("_")
    mine = [t for t in tests if f"/{path.parts[0]}/" in t and stem in Path(t).stem]
    mine += [*readers(path), *([QUESTIONS] if assignment(path) else [])]
    module, names = dotted(path), defined(path, root)

    def uses(text: str) -> bool:
        return any(
            module in (source, f"{source}.{name}")
            or (name in names and module.startswith(f"{source}."))  # by way of a package
            for source, name in statements(text)
        )

    return mine, [t for t, text in tests.items() if t not in mine and uses(text)]


@cache
def defined(path: Path, root: Path) -> set[str]:
    """The functions and classes of a module; none if it is gone."""
    if not (root / path).is_file():
        return set()
    body = ast.parse((root / path).read_text(encoding="utf-8")).body
    return {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def books_with(path: Path, root: Path) -> list[str]:
    """The notebooks of chapters that import what a module defines, or name it behind its package
    as in `solvers.ddim`; who uses most of it comes first.
    """
    module, names, found = dotted(path), defined(path, root), {}
    for source in sorted((root / "chapters").glob("*.py")):
        text = source.read_text(encoding="utf-8")
        came = {name for place, name in statements(text) if f"{module}.".startswith(f"{place}.")}
        behind = {name for place, name in pairs(text) if place in module.split(".")}
        if used := names & (came | behind):
            found[source.with_suffix(".ipynb").relative_to(root).as_posix()] = len(used)
    return sorted(found, key=lambda notebook: -found[notebook])


@cache
def pairs(text: str) -> set[tuple[str, str]]:
    """Every name of a text with the one behind its dot."""
    return set(re.findall(r"\b(\w+)\.(?=(\w+))", text))


def word(name: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(name)}\b")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """This file is also pytest's plugin: no test begins once the time is over."""
    if time.time() > float(os.environ.get(STOP, "inf")):
        pytest.skip("the time is over")


def pytest_terminal_summary(terminalreporter) -> None:
    late = [
        r for r in terminalreporter.stats.get("skipped", ()) if "time is over" in str(r.longrepr)
    ]
    for file, count in sorted(Counter(r.nodeid.split("::")[0] for r in late).items()):
        terminalreporter.write_line(f"LEFT OUT, the time was over: {count} of {file}")


def stale() -> list[str]:
    """What is wrong with notebooks that are not what their sources would give."""
    from book.errors import BookError
    from book.library import Book
    from book.stale import read_notebook

    book, found = Book(ROOT), []
    for chapter in [*book.chapters, *book.assignments]:
        try:
            read_notebook(book, chapter)
        except BookError as error:
            found.append(str(error))
    return found


def main() -> int:
    began = time.time()
    parser = argparse.ArgumentParser(description="Run what a change touches, in five minutes.")
    parser.add_argument("--since", help="a commit; by default where main was left")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    asked = parser.parse_args()
    files = changed(asked.since)
    tests = choose(files)
    print(f"{len(files)} changed files, {len(tests)} files of tests for them:", *tests)
    if asked.list:
        return 0
    python, env = sys.executable, {**os.environ, STOP: str(began + SECONDS), "PYTHONPATH": PATH}
    jobs = [
        [python, "-m", "ruff", "format", "--check", "."],
        [python, "-m", "ruff", "check", "."],
    ]
    units = [test for test in tests if not test.endswith(".ipynb")]
    books = [test for test in tests if test.endswith(".ipynb")]
    common = [
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        "--durations=10",
        "-p",
        "quick",
    ]
    jobs.append([python, "-m", "pytest", *common, *units])
    if books:
        jobs.append([python, "-m", "pytest", *NOTEBOOKS, *common, *books])
    # all of them run, whatever the first says
    failed = [
        " ".join(job[1:4]) for job in jobs if subprocess.run(job, cwd=ROOT, env=env).returncode
    ]
    out_of_date = stale()
    print(*out_of_date, sep="\n")
    failed += ["stale notebooks"] if out_of_date else []
    print(
        f"{time.time() - began:.0f} s;", f"FAILED: {', '.join(failed)}" if failed else "all well"
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    raise SystemExit(main())
