"""What an answer finds of this repository in its process, and what is noted of its search."""

import re
import subprocess
import sys

import pytest
from course import ROOT, every_course
from course08 import COURSE

from book.grading import watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
RIGHT = COURSE.solution["Q08.5"]
LIBRARY = ("uses the book's library, dlib",)


@pytest.mark.parametrize(
    "spelled",
    [
        "import dlib\nassert dlib.vp is vp",
        "from dlib.solvers import ddim as step",
        "import importlib\nassert importlib.import_module('dl' + 'ib.solvers.phi')",
        "__builtins__['__import__']('\u217elib')".replace("\u217e", "d"),
        "assert vp.__globals__['__builtins__']['__import__']('dlib').solvers.ddim",
        "exec(bytes([105, 109, 112, 111, 114, 116, 32, 100, 108, 105, 98]))",
        "import sys\nsys.meta_path.clear()\nimport dlib.solvers",
        "class Name(str):\n    partition = startswith = None\n__import__(Name('dlib'))",
        "import os\nif os.fork() == 0:\n    import dlib\n    os._exit(0)\nos.wait()",
        "try:\n    import dlib\nfinally:\n    raise SystemExit",
    ],
)
def test_use_of_the_library_is_noted_however_it_is_spelled(sandboxed, spelled):
    assert sandboxed(f"{RIGHT}\n{spelled}").notes == LIBRARY


@pytest.mark.parametrize(
    "trick",
    [
        "import os\nos.close(4)\nimport dlib",
        "import os\nos.dup2(os.open('/dev/null', os.O_WRONLY), 4)\nimport dlib",
        "import sys\nsys.meta_path.clear()\nimport importlib\nimportlib.import_module('dlib')",
        "import os\nos.fstat = lambda fd: None\nos.set_blocking(4, False)\n"
        "for size in (1 << 12, 1):\n    try:\n        while True:\n            "
        "os.write(4, b' ' * size)\n    except BlockingIOError:\n        pass\nimport dlib",
    ],
)
def test_an_answer_whose_use_cannot_be_noted_gets_no_library(sandboxed, trick):
    outcome = sandboxed(f"{trick}\nassert 0, dlib")
    assert outcome.notes == () and "Error" in outcome.trouble
    assert "AssertionError" not in outcome.trouble


def test_a_search_of_the_memory_is_noted(sandboxed):
    outcome = sandboxed(f"{RIGHT}\nimport gc\nassert gc.get_objects()")
    assert outcome.notes == ("searches its process's memory",)


SEARCH = """
import sys, types
todo, seen, names, frame = [], set(), set(), sys._getframe()
while frame:
    todo += [frame.f_globals, frame.f_locals]
    frame = frame.f_back
while todo:
    thing = todo.pop()
    if id(thing) in seen:
        continue
    seen.add(id(thing))
    home = thing.__name__ if type(thing) is types.ModuleType else getattr(thing, '__module__', '')
    if type(thing) is dict:
        todo += list(thing.values())
    elif type(thing) in (list, tuple, set):
        todo += list(thing)
    elif str(home).split('.')[0] in ('book', 'dlib', '__main__'):
        names.add(home)
        todo += [getattr(thing, '__globals__', None), dict(getattr(thing, '__dict__', {}))]
        todo += [cell.cell_contents for cell in getattr(thing, '__closure__', None) or ()]
assert 0, sorted(names)"""


def test_a_server_that_knows_the_truth_forks_nobody(monkeypatch):
    monkeypatch.setitem(sys.modules, "book.truth", object())
    with pytest.raises(RuntimeError, match="must not import book.truth"):
        watch.hide_the_book()


SECRETS = r"truth|mistakes|judging|sheet|dlib\.(solvers|losses|parallel|recipes)"


def test_no_frame_above_an_answer_leads_to_truth_or_to_a_solver(sandboxed):
    found = sandboxed(SEARCH).trouble
    assert "book.questions.values" in found and "book.grading.zygote" in found
    assert not re.search(SECRETS, found)


def test_no_call_of_an_assignment_leads_to_truth_or_to_a_solver():
    numbers = [course.number for course in every_course()]
    server = (
        "from book.grading import watch\nfrom book.questions import caller\nwatch.import_library()\n"
        f"callers = list(map(caller, {numbers}))\nwatch.hide_the_book()"
    )
    found = subprocess.run(
        [sys.executable, "-c", server + SEARCH], cwd=ROOT, capture_output=True, text=True
    ).stderr
    assert all(f"book.questions.q{number}" in found for number in numbers)
    assert "AssertionError" in found and not re.search(SECRETS, found.splitlines()[-1])
