"""What parallel sampling saves and what it costs: rounds of network calls, evaluations,
seconds, and how far the result is from the sequential one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

import dlib
from bench.report import Report
from bench.timing import progress
from dlib.metrics import rms
from toy_data.mixtures import gmm5

STEPS = (25, 50, 100, 400, 1000)
NOTE = """*Depth* is the number of network calls made one after another, each on a batch of
points in time: the latency where a batch is as fast as a sample. *Work* is the number of
evaluations; the sequential sampler has depth = work = steps. *Error* is the RMS distance to
the sequential result with the same noise, against samples of spread about 1. *Seconds* are
those of this CPU on one thread: a batch costs as much as its samples one by one here, so on
the picture network parallel sampling loses wherever its work is larger, and that is shown. A
GPU that a batch of one leaves idle is the case it is made for.

GMM5: 64 samples, exact denoiser, float64, `lam` grid. Captioned shapes: one guided picture (ω
= 2), the shipped DiT, float32, `sd_trailing` grid. Picard refines all points at once, or a
window of 20; Anderson looks back over 8 steps with 3 iterates; parareal has ⌈√N⌉ blocks. tol =
1e-3 each, relative to σ at the point. Ancestral sampling draws its noise first; parareal's
coarse steps know nothing of that noise, and it shows."""
FINDERS: dict[str, Callable] = {
    "sequential": None,
    "picard": dlib.picard,
    "picard, window 20": lambda *a, **k: dlib.picard(*a, window=20, **k),
    "anderson": dlib.anderson,
    "parareal": dlib.parareal,
}


def run(steps: tuple[int, ...] = STEPS, pictures: tuple[int, ...] = (25, 50)) -> Report:
    """Depth, work, error and seconds for each problem, solver, number of steps and sampler."""
    torch.set_num_threads(1)
    cases = [(*_mixture(), name, n) for name in ("ddim", "ancestral") for n in steps]
    cases += [(*_shapes(), "ddim", n) for n in pictures]
    rows = []
    for what, model, x, cond, spacing, name, n in progress(cases, "parallel"):
        t_min = 1e-2 if spacing == "lam" else None
        levels = dlib.levels(model.schedule, n, spacing, t_min=t_min)
        rows += _rows(what, model, x, cond, levels, name, n)
    return Report(
        "Sampling in parallel over time",
        NOTE,
        ["problem", "solver", "steps", "sampler", "depth", "work", "error", "seconds"],
        rows,
    )


@torch.no_grad()
def _rows(
    what: str, model: dlib.Denoiser, x: Tensor, cond, levels: list, name: str, n: int
) -> list[list]:
    truth, rows, solver = None, [], dlib.SOLVERS[name]
    for sampler, find in FINDERS.items():
        start = time.perf_counter()
        if find is None:
            truth, depth, work = dlib.sample(model, x, levels, solver, cond, dlib.Draw(1)), n, n
            error = 0.0
        else:
            found = find(model, x, levels, solver, tol=1e-3, cond=cond, draw=dlib.Draw(1))
            depth, work, error = found.depth, found.work, rms(found.x, truth)
        rows.append([what, name, n, sampler, depth, work, error, time.perf_counter() - start])
    return rows


def _mixture() -> tuple:
    return (
        "GMM5",
        dlib.exact(gmm5(), dlib.vp()),
        dlib.Draw(0).normal((64, 2), torch.float64),
        None,
        "lam",
    )


def _shapes() -> tuple:
    from toy_data.shape_captions import NULL_TOKENS, tokens
    from toy_data.shapes import SIDE, shapes_teacher

    cond = tokens(["a large blue square left of a small yellow triangle"])
    return (
        "captioned shapes",
        dlib.guided(shapes_teacher(), 2.0, NULL_TOKENS),
        dlib.Draw(0).normal((1, 3, SIDE, SIDE)),
        cond,
        "sd_trailing",
    )
