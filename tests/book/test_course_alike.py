"""What PASS says in the notebook, the grader says: the same answers, in a notebook whose other
cells have changed what they could, and in the sandbox.
"""

import os
import re
import sys

import nbformat
import pytest
from course import ROOT
from course08 import COURSE
from nbclient import NotebookClient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
ELSEWHERE = """import sys, random, numpy as np, helper
import book.truth
from book.questions.problems import schedule_of
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_grad_enabled(False)
for seed in (torch.manual_seed, np.random.seed, random.seed):
    seed(7)
np.save("data.npy", [1.0])
sys.path.insert(0, "lib")
import other_helper
lam = f = formula = helper.formula"""
PAGE = (ROOT / "book" / "pages" / "for" / "student.md").read_text("utf-8")
NOTHING_BESIDE = "and no file beside the notebook: move what it needs into its cell"
ABOVE = "from book.questions.problems import schedule_of\n"  # above the function
VERBS_ALONE = (
    "An answer may import what is installed with the book, and of `book` itself only its verbs, "
    "like check: move what it needs into its cell"
)
ALIKE = {  # an answer's cell ↦ what both say of it
    "display(1)\n": "",
    "import torch.func\nassert torch.func.jacfwd(torch.sin)(torch.ones(2)).shape == (2, 2)\n": "",
    "import tempfile\nwith tempfile.TemporaryFile() as file:\n    file.write(b'x')\n": "",
    "from multiprocessing.pool import ThreadPool\nwith ThreadPool(2) as p:\n    p.map(abs, [1])\n": "",
    "check('Q08.5', abs)\n": "",
    "import os\nassert not os.listdir()\nopen('mine', 'w').write('x')\n": "",
    "w = torch.ones(2, requires_grad=True)\n(2 * w).sum().backward()\nassert (w.grad == 2).all()\n": "",
    "assert torch.ones(2).dtype == torch.float32 and str(torch.ones(2).device) == 'cpu'\n": "",
    "import __main__\nassert not hasattr(__main__, 'formula')\n": "",
    "assert torch.initial_seed() != 7\n": "",
    "import importlib.util\nassert importlib.util.find_spec('no_such_module') is None\n": "",
    "import random, numpy as np\nassert np.random.get_state()[1][0] != 7\nassert random.getstate() != random.Random(7).getstate()\n": "",
    "import helper\n": "No module named 'helper'. An answer may use what is installed with the "
    f"book, {NOTHING_BESIDE}",
    "import other_helper\n": "No module named 'other_helper'",
    "from book import check, claim, figure, show, tally\nclaim(7)\ntally()\n": "",
    "import book.truth\n": "No module named 'book.truth'; 'book' is not a package. "
    + VERBS_ALONE,
    "from book import sheet\n": "cannot import name 'sheet' from 'book' (unknown location). "
    + VERBS_ALONE,
    "import sys\nassert 0, [n for n in sys.modules if n[:5] == 'book.']\n": "AssertionError: []",
    ABOVE: "No module named 'book.questions'; 'book' is not a package. " + VERBS_ALONE,
    "import sys\nassert 0, 'helper' in sys.modules\n": "AssertionError: False",
    "import numpy\nnumpy.load('data.npy')\n": "[Errno 2] No such file or directory: 'data.npy'. An "
    f"answer may use what is installed with the book, {NOTHING_BESIDE}",
    "formula()\n": "nothing else: move what it needs into its cell",
    "import time\n%time time.sleep(0)\n": "the answer's cell has a line that starts with % or !, "
    "which the grader cannot run: move it to another cell",
    "files = !ls\n": "the answer's cell has a line that starts with % or !",
}
_ABROAD = f"/tmp/answer-{os.getpid()}"
DIFFER = {  # an answer's cell ↦ what check says of it, what the grader says
    f"import os\nopen('{_ABROAD}', 'w').close()\nos.remove('{_ABROAD}')\n": (
        "Q08.5 PASS",
        f"'{_ABROAD}'",  # read-only, or not there at all
    ),
    "import asyncio\nasync def three():\n    return 3\nassert asyncio.run(three()) == 3\n": (
        "RuntimeError: asyncio.run() cannot be called from a running event loop",
        "",
    ),
}


def cell(needs: str) -> str:
    """An answer cell that is right if its first lines are."""
    body = COURSE.otherwise["Q08.5"].strip()
    if needs == ABOVE:
        return COURSE.cell("Q08.5", body).replace("\n", "\n" + needs, 1)
    return COURSE.cell("Q08.5", needs + body)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """{needs: what check says in a notebook whose folder has helper files}."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "lib").mkdir()
    for path in (folder / "helper.py", folder / "lib" / "other_helper.py"):
        path.write_text("def formula(*_):\n    pass\n")
    cells = [COURSE.prelude, ELSEWHERE]
    for needs in ALIKE | DIFFER:
        cells += [cell(needs), "check('Q08.5', slope_and_curvature)"]
    cells.append(
        "import book.sheet\nprint(book.truth.question('Q08.5').points, schedule_of.__module__)\n"
        "print(torch.get_default_dtype(), torch.is_grad_enabled(), formula())"
    )
    node = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    NotebookClient(
        node, allow_errors=True, timeout=120, resources={"metadata": {"path": str(folder)}}
    ).execute(env=environment)
    said = [" ".join(_words(c.outputs).split()) for c in node.cells]
    assert "book.questions.problems torch.float64 False None" in said[-1]  # all is as it was
    return dict(zip(ALIKE | DIFFER, said[3::2]))


def _words(outputs: list) -> str:
    return "".join(o.get("text") or "\n".join(o.get("traceback", [])) for o in outputs)


@pytest.mark.parametrize("needs", ALIKE, ids=lambda needs: needs.strip().splitlines()[-1])
def test_the_notebook_and_the_grader_say_the_same(notebook, sandboxed, needs):
    outcome, says = sandboxed(cell(needs)), ALIKE[needs]
    assert (outcome.status, outcome.notes) == ("failed" if says else "ran", ())
    assert says in re.sub(" at line . of the answer", "", outcome.trouble)
    assert (says or "Q08.5 PASS") in notebook[needs]
    if says:  # to the last word
        assert outcome.trouble.split(": ", 1)[1] in notebook[needs]


@pytest.mark.parametrize("needs", DIFFER, ids=("absolute", "asyncio"))
def test_where_they_differ_the_student_s_page_says_so(notebook, sandboxed, needs):
    check, grader = DIFFER[needs]
    outcome = sandboxed(cell(needs))
    assert check in notebook[needs] and (outcome.status == "failed") == bool(grader)
    assert grader in outcome.trouble
    assert "absolute path" in PAGE and "`asyncio.run`" in PAGE
