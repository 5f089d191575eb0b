"""The figures of the page *Explore*, computed by `dlib`; the page only draws them.

    python -m book.explore        # writes book/pages/assets/explore-*.js and explore-*.png

Positions are stored as 16-bit integers and errors as bytes, so that a figure's file stays below 300 kB; the errors that
are shown as numbers are computed before rounding. A test recomputes the files and compares.
"""

import base64
import json
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch

import dlib
from dlib import NULL, Draw, exact, grid, guided, metrics, plot, reference, sample, walk
from dlib.parallel import iterations, sweeps
from dlib.solvers import ancestral, ddim, dpm_solver_pp_2m, euler, unipc_3
from toy_data import gmm5

ASSETS = Path(__file__).parent / "pages" / "assets"
REACH = 4.0  # 16-bit integers cover [−REACH, REACH]
SCHEDULES = {"variance preserving": dlib.vp(), "straight paths (flow)": dlib.flow(), "variance exploding (EDM)": dlib.edm()}
SOLVERS = {"Euler in t": euler, "DDIM": ddim, "DPM-Solver++(2M)": dpm_solver_pp_2m, "UniPC-3": unipc_3}
STEPS = (4, 6, 9, 14, 22)
GUIDANCE = {"none": None, "ω = 0, the label alone": 0.0, "ω = 1": 1.0, "ω = 3": 3.0}
POINTS = 15


def paths() -> dict:
    """PF-ODE trajectories of GMM5 for every choice of schedule, solver, steps and guidance, in x/√(α²+σ²), and their errors."""
    mixture, runs = gmm5(), []
    z = Draw(4).normal(torch.empty(POINTS, 2, dtype=torch.float64))
    label = torch.arange(POINTS) % len(mixture.means)
    for (s, schedule), (g, omega) in product(enumerate(SCHEDULES.values()), enumerate(GUIDANCE.values())):
        model = exact(mixture, schedule) if omega is None else guided(exact(mixture, schedule), omega, torch.tensor(NULL))
        cond = None if omega is None else label
        ends = {"t_max": 0.999 if schedule.name == "flow" else 1.0, "t_min": schedule.at_lam(4.5).t}
        top, bottom = schedule.at(ends["t_max"]), schedule.at(ends["t_min"])
        start = z * _size(top)
        truth = reference(model, start, top, bottom, cond, rtol=1e-10)
        for (k, solver), n in product(enumerate(SOLVERS.values()), STEPS):
            levels = schedule.levels(grid(schedule, n, "arctan", **ends))
            states = torch.stack([state.x / _size(state.level) for state in walk(model, start, levels, solver, cond)])
            error = metrics.rms(states[-1] * _size(bottom), truth)
            runs.append({"at": [s, k, STEPS.index(n), g], "error": float(f"{error:.3g}"), "path": _pack(states)})
    choices = {"schedule": list(SCHEDULES), "solver": list(SOLVERS), "network calls": list(STEPS), "guidance": list(GUIDANCE)}
    return {"points": POINTS, "reach": REACH, "choices": choices, "means": mixture.means.tolist(), "stds": mixture.stds.tolist(),
            "modes": label.tolist(), "runs": runs}


def _size(level: dlib.NoiseLevel) -> float:
    return (level.alpha**2 + level.sigma**2) ** 0.5


def relaxation() -> dict:
    """Picard and parareal on GMM5: after each round, how far every point is from the sequential path, and where three samples are."""
    model = exact(gmm5(), dlib.vp())
    levels = model.schedule.levels(grid(model.schedule, 40, t_min=1e-2))
    x, runs = Draw(6).normal(torch.empty(16, 2, dtype=torch.float64)), []
    for name, solver, points in _rounds(model, x, levels):
        truth = torch.stack([state.x for state in walk(model, x, levels[:: 40 // (len(points[0]) - 1)] if solver is None else levels, solver or ddim, draw=Draw(7))])
        if solver is None:  # parareal shows where its blocks begin; its truth is every fifth point of the fine path
            truth = torch.stack([state.x for state in walk(model, x, levels, ddim)])[:: 40 // (len(points[0]) - 1)]
        gap = (torch.stack(points) - truth).square().mean((2, 3)).sqrt().clamp(min=1e-16).log10()
        runs.append({"name": name, "rounds": len(points) - 1, "stops": len(truth) - 1, "errors": _bytes((gap + 16) * 15),
                     "path": _pack(torch.stack(points)[:, :, :3]), "truth": _pack(truth[:, :3])})
    return {"reach": REACH, "runs": runs}
