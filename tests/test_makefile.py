"""`make test` runs everything whatever fails on the way, under the profile that was asked for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")
# stands for the environment's Python: writes down what it is asked, and fails at what it is told
PYTHON = """#!/bin/sh
echo "$2 $3: ${ATEN_CPU_CAPABILITY:-} ${MKL_CBWR:-}" >> "$ASKED"
case "$*" in *"$FAILS"*) exit 3;; esac
"""


def make(folder, *arguments, fails="nothing"):
    """(exit status, [what Python was asked: settings], stderr) of a make with its own Python."""
    python, asked = folder / "bin" / "python", folder / "asked"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)
    for installed in (".all", ".nbgrader-0.9.6", ".torchao-0.18.0"):
        (folder / installed).touch()
    mine = ("PROFILE", "MKL_CBWR", "ATEN_CPU_CAPABILITY", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in mine}
    done = subprocess.run(
        ["make", f"VENV={folder}", *arguments],
        cwd=ROOT,
        env={**environment, "ASKED": str(asked), "FAILS": fails},
        capture_output=True,
        text=True,
    )
    return done.returncode, asked.read_text().splitlines() if asked.exists() else [], done.stderr


@pytest.mark.parametrize("fails", ["nothing", "ruff format", "pytest tests", "--nbval"])
def test_everything_runs_and_the_status_tells(tmp_path, fails):
    status, asked, _ = make(tmp_path, "test", fails=fails)
    steps = ["ruff format", "ruff check", "pytest tests", "pytest --nbval-lax"]
    if fails == "ruff format":
        steps.remove("ruff check")
    assert [line.split(":")[0] for line in asked] == steps
    assert bool(status) is (fails != "nothing")


@pytest.mark.parametrize(
    ("profile", "settings"),
    [
        ("native", ":  "),
        ("mkl", ":  COMPATIBLE"),
        ("plain", ": default COMPATIBLE"),
        ("avx2", ": avx2 "),
    ],
)
def test_a_profile_reaches_every_test(tmp_path, profile, settings):
    _, asked, _ = make(tmp_path, "test", f"PROFILE={profile}")
    assert len(asked) == 4 and {line[line.index(":") :] for line in asked} == {settings}


def test_an_unknown_profile_is_answered_with_the_list(tmp_path):
    status, asked, said = make(tmp_path, "test", "PROFILE=fast")
    assert status and not asked
    assert 'no profile "fast"' in said and "native mkl plain avx2" in said


def test_ci_takes_another_profile_than_the_notebooks_were_made_with():
    script = (ROOT / ".ci" / "run").read_text()
    assert "export PROFILE=plain\n" in script and script.endswith("make test\n")
