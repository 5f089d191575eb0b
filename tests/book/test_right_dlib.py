"""An unrelated package called dlib, first on the path, is named; ours is let through; none at
all is fine.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _import(folder, statement):
    env = dict(os.environ, PYTHONPATH=f"{folder}{os.pathsep}{ROOT}")
    return subprocess.run(
        [sys.executable, "-c", statement], capture_output=True, text=True, env=env, cwd=folder
    )


@pytest.mark.parametrize("statement", ["from book import claim", "import full_scale"])
def test_the_wrong_dlib_is_named(tmp_path, statement):
    (tmp_path / "dlib").mkdir()
    (tmp_path / "dlib" / "__init__.py").write_text("from _dlib_pybind11 import *\n")
    done = _import(tmp_path, statement)
    assert (
        done.returncode
        and "unrelated computer-vision package" in done.stderr
        and "pip uninstall dlib" in done.stderr
    )


def test_ours_passes_and_is_not_imported(tmp_path):
    done = _import(
        tmp_path,
        "import sys, book; assert 'dlib' not in sys.modules and 'torch' not in sys.modules",
    )
    assert done.returncode == 0, done.stderr
