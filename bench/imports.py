"""What a fresh interpreter waits for an import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from bench.report import Report, peer
from bench.timing import Times, progress

CASES = {
    "import dlib": ("import torch", "import dlib"),
    "import diffusers": ("import torch", "import diffusers"),
    "from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler": (
        "import torch",
        "from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, "
        "EulerDiscreteScheduler",
    ),
}
_CHILD = """
from time import perf_counter
start = perf_counter()
{first}
middle = perf_counter()
{second}
print(middle - start, perf_counter() - middle)
"""
NOTE = """Seconds inside a fresh interpreter, files in the page cache, {repeats} interpreters a
statement, one of each in turn. `import torch` is timed in each of them; the other rows are
what their statement adds *after* it. {peer} loads its parts when they are first named: its
first row is the package's front door, its second the same and three schedulers, which is what
a program that samples waits for."""


def run(repeats: int = 9) -> Report:
    """Seconds: minimum, median and IQR."""
    times = measure(repeats)
    note = NOTE.format(repeats=repeats, peer=peer())
    rows = [[name, *value.cells()] for name, value in times.items()]
    return Report("Cold import", note, ["statement", "min s", "median s", "IQR s"], rows)


def measure(repeats: int) -> dict[str, Times]:
    """Every statement's seconds beyond `import torch`, and those of `import torch` itself."""
    seconds: dict[str, list[float]] = {"import torch": [], **{name: [] for name in CASES}}
    for _ in progress(range(repeats), "imports"):
        for name, (first, second) in CASES.items():
            before, after = _interpreter(first, second)
            seconds["import torch"].append(before)
            seconds[name].append(after)
    return {name: Times(np.array(values)) for name, values in seconds.items()}


def _interpreter(first: str, second: str) -> tuple[float, float]:
    child = [sys.executable, "-W", "ignore", "-c", _CHILD.format(first=first, second=second)]
    done = subprocess.run(child, capture_output=True, text=True, check=True)
    before, after = done.stdout.split()[-2:]
    return float(before), float(after)
