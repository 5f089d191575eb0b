"""`make test-notebooks` leaves out a claim's measured value when it compares, and nothing else."""

import os
import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from tinybook import ROOT

LINE = "✓ C08.1  order 2  [between 1.85 and 2.15]"
VALUE = "  ▸ measured 2.0"
CLAIM = 'claim("C08.1", "order 2", {}, between=(1.85, 2.15))'.format
CASES = {  # what is stored, what the cell says now, and whether that is the same
    "the same value": (LINE + VALUE, CLAIM(1.98), True),
    "another value": (LINE + VALUE, CLAIM(2.11), True),
    "another statement": (LINE.replace("order 2", "order 3") + VALUE, CLAIM(1.98), False),
    "another bound": (LINE.replace("2.15", "2.2") + VALUE, CLAIM(1.98), False),
    "no value": (LINE, CLAIM(1.98), False),
    "text without the mark": ("measured 2.0\n", 'print("measured 2.1")', False),
    "the line after": (f"a{VALUE}\nb\n", f'print("a{VALUE}\\nc")', False),
    "the line after alone": (f"a{VALUE}\nb\n", f'print("a{VALUE}1\\nb")', True),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{case: PASSED or FAILED} of the cells of one notebook, with the Makefile's options."""
    cells = [new_code_cell("from book import claim")]
    for stored, source, _ in CASES.values():
        data = {"text/plain": stored}
        output = new_output("display_data", data) if "claim" in source else None
        output = output or new_output("stream", text=stored)
        cells.append(new_code_cell(f"# NBVAL_CHECK_OUTPUT\n{source}", outputs=[output]))
    for count, cell in enumerate(cells, start=1):
        cell.execution_count = count
    notebook = tmp_path_factory.mktemp("sanitised") / "some.ipynb"
    nbformat.write(new_notebook(cells=cells), notebook)
    (options,) = re.findall("pytest (--nbval-lax .*?) -n ", (ROOT / "Makefile").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), "-rA", notebook],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found = re.findall(r"^(PASSED|FAILED) \S*::Cell (\d+)", done.stdout, re.MULTILINE)
    words = {int(number): word for word, number in found}
    assert words.get(0) == "PASSED" and len(words) == len(cells), done.stdout + done.stderr
    return {case: words[number] for number, case in enumerate(CASES, start=1)}


@pytest.mark.parametrize("case", CASES)
def test_a_value_may_differ_and_nothing_else(outcomes, case):
    assert outcomes[case] == ("PASSED" if CASES[case][2] else "FAILED")
