"""Every example in a docstring of dlib runs; importing dlib stays light."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import dlib

MODULES = ["dlib", *(info.name for info in pkgutil.walk_packages(dlib.__path__, "dlib."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples_to_run():
    finder = doctest.DocTestFinder()
    with_examples = {
        name
        for name in MODULES
        if any(case.examples for case in finder.find(importlib.import_module(name)))
    }
    assert {
        "dlib._util",
        "dlib.schedule.base",
        "dlib.grids",
        "dlib.mixtures",
        "dlib.denoiser",
        "dlib.solvers.driver",
        "dlib.nets",
    } <= with_examples


def fresh(code):
    """What a new interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_dlib_brings_nothing_that_torch_has_not_brought():
    code = (
        "import torch, sys; before = set(sys.modules); import dlib; new = {name.split('.')[0] "
        "for name in set(sys.modules) - before}; print(*new - set(sys.stdlib_module_names))"
    )
    assert fresh(code) == "dlib"


def test_plot_brings_matplotlib_only_when_it_draws():
    assert fresh("import sys, dlib.plot; print('matplotlib' in sys.modules)") == "False"


def test_public_names_are_there():
    names = [name for name in vars(dlib) if not name.startswith("_")]
    assert {
        "vp",
        "cosine",
        "flow",
        "edm",
        "discrete",
        "grid",
        "Mixture",
        "Denoiser",
        "guided",
        "sample",
        "walk",
        "transition",
        "reference",
        "denoising",
        "Ema",
        "Draw",
        "CLEAN",
        "NULL",
        "SOLVERS",
    } <= set(names)
