"""How many network calls a solver needs for a given error, where the exact solution is known:
GMM5 of `toy_data`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import dlib
from bench.nfe_curves import Curve, Problem, Sampler
from bench.nfe_peers import contenders
from bench.report import Cell, Report, peer
from bench.timing import progress
from dlib.grids import INDEXED, SPACINGS
from dlib.metrics import rms, typical
from full_scale.sampling.request import Config

T_MIN = 1e-2
COLUMNS = [
    "library",
    "solver",
    "setting",
    "NFE to 1e-2",
    "NFE to 1e-3",
    "error at 20 NFE",
    "order",
]
NOTE = """Network calls (NFE) until the RMS distance to the exact end point stays below 1e-2
and 1e-3, on GMM5: the book's five-mode mixture, VP with β from 0.1 to 20, {starts} starts, the
exact ε in float64. Every number of steps from 3 to {every} is tried, and the figure is the
first from which on the error stays below; beyond {every} it is found by bisection, up to
{last} steps. The order is the slope of the typical error (geometric mean over starts: the RMS
is ruled by the few that begin between two modes) over 160, 320 and 640 steps; — means that no
two of them lie above the arithmetic's floor, or that the method is unstable there.

**dlib** walks from t = 1 to t = 0.01. **{peer}** runs on ladders of 1000 levels computed from
the same VP schedule, down to t = 0.001 (its own habit) or to t = 0.01 (dlib's interval), and
either takes a last step to σ = 0 or stops at the ladder's last level: up to four endings.
Where its steps start and end differs from setting to setting, so each error is the distance to
the exact solution between the very levels that the scheduler visited, started on the same
{starts} trajectories: discretisation error and nothing else. A last step to σ = 0 is first
order and leaves an error that more steps may not remove. `leading` starts below the ladder's
top, the further below the more steps it takes: its figures for many steps flatter it, and its
order is not shown (DDIM's default is `leading`). DDIM moves by the fixed stride ⌊1000/N⌋,
which `linspace` does not follow, nor `trailing` where N does not divide 1000: that error is
its own.

Rows named *default* are the class as it comes, but for the order and the algorithm that its
name says (and `clip_sample=False` for DDIM, which would clip this data; the ε form of
DPM-Solver has no default ending and stops at the ladder's end). The other rows search over
order, algorithm and spacing, each shown with the ending that needs the fewest calls to 1e-2
and, where that is another, the one with the smallest error at 160 steps; all spacings are
listed, the losing ones too. (`use_beta_sigmas` was tried, came nowhere near, and is left out;
`lu lambdas` and `exponential` are the same levels, so one stands for both.) The network is
given the exact σ of each step. A real pipeline passes on a time, which some spacings round to
a whole number; a row *time as passed on* drives a family's best setting that way. Some
schedulers compute in float32, far below the errors that count here. NaN counts as never."""


def run(problem: Problem | None = None, every: int = 40, last: int = 640) -> Report:
    """One row a sampler; within a library the fewest calls to 1e-2 first."""
    problem = problem or Problem()
    curves = [Curve(sampler, every, last) for sampler in ours(problem)]
    rows = [curve.row() for curve in progress(curves, "nfe dlib")]
    rows += [curve.row() for curve in contenders(problem, every, last)]
    note = NOTE.format(starts=problem.starts, every=every, last=last, peer=peer())
    return Report(
        "Network calls to a given error on GMM5", note, COLUMNS, sorted(rows, key=_place)
    )


def ours(problem: Problem) -> Iterable[Sampler]:
    """Every deterministic solver of dlib on every grid that a continuous schedule has."""
    end = problem.schedule.at(T_MIN)
    for name, solver in dlib.SOLVERS.items():
        if solver.noisy or name == "dpm_solver_1":  # which is ddim
            continue
        for spacing in (spacing for spacing in SPACINGS if spacing not in INDEXED):
            default = (
                " (full_scale.sample's default)"
                if (name, spacing) == (Config.solver, Config.grid)
                else ""
            )
            yield Sampler(
                "dlib",
                name,
                f"grid {spacing}{default}",
                _run(problem, solver, spacing, end),
                floor=1e-10,
            )


def _run(
    problem: Problem, solver: dlib.solvers.Solver, spacing: str, end: dlib.NoiseLevel
) -> Callable[[int], tuple[int, float, float]]:
    def run(steps: int) -> tuple[int, float, float]:
        if steps <= solver.history:
            return steps, math.inf, math.inf
        model = dlib.counted(problem.model)
        levels = dlib.levels(problem.schedule, steps, spacing, t_min=T_MIN)
        x = dlib.sample(model, problem.start, levels, solver)
        return model.net.calls, rms(x, problem.truth(end)), typical(x, problem.truth(end))

    return run


def _place(row: list[Cell]) -> tuple:
    """dlib first; then by calls to 1e-2, never last; then by the error at 20 calls."""
    error = math.inf if row[5] == "NaN" else float(row[5])
    return (
        row[0] != "dlib",
        isinstance(row[3], str),
        row[3] if isinstance(row[3], int) else 0,
        error,
    )
