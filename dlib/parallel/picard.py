"""Floor 4: Picard iteration: guess the whole trajectory, then let every step correct it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.parallel.lockstep import Lockstep, Parallel, Step, begin, finite
from dlib.schedule import NoiseLevel
from dlib.solvers.base import Solver
from dlib.solvers.first_order import ddim


def picard(
    model: Denoiser, x: Tensor, levels: Sequence[NoiseLevel], solver: Solver = ddim, window: int | None = None, tol: float = 1e-3,
    cond: Any = None, draw: Draw | None = None, each: Callable[[int, int], None] | None = None,
) -> Parallel:
    """Sample by Picard iteration over a sliding window of steps (Shih et al. 2023, ParaDiGMS, algorithm 1).

    A sweep makes the steps Φ_i of all points of the window in one network call, and sums up their changes:
    X_{j+1} ← Φ_j(X_j) + A_j (X_j^new − X_j), A the ratio of √(α²+σ²), which keeps the iterate's scale on every schedule. The
    window then moves past the points whose change is at most tol·σ (root mean square), one at least: after k sweeps the
    first k points are those of `sample`, bit for bit, noise included, whatever was guessed; tol = 0 gives `sample`'s result.

    window: points refined at once, all by default. each: called with (points done, points in all) after each sweep.
    Raises ValueError for a solver with memory, and FloatingPointError naming sweep and step.

    >>> from dlib import Draw, exact, grid, picard, sample, vp
    >>> from dlib.mixtures import Mixture
    >>> model = exact(Mixture(torch.ones(2) / 2, torch.tensor([[-1.0], [1.0]]), torch.full((2,), 0.3)), vp())
    >>> x, levels = Draw(0).normal(torch.empty(4, 1, dtype=torch.float64)), vp().levels(grid(vp(), 30))
    >>> found = picard(model, x, levels, tol=0)
    >>> bool((found.x == sample(model, x, levels)).all()), found.depth <= 30
    (True, True)
    """
    return _refine("picard", model, x, levels, solver, window, tol, cond, draw, each, order=None, memory=1)


def anderson(
    model: Denoiser, x: Tensor, levels: Sequence[NoiseLevel], solver: Solver = ddim, window: int | None = None, tol: float = 1e-3,
    cond: Any = None, draw: Draw | None = None, each: Callable[[int, int], None] | None = None, order: int = 8, memory: int = 3,
) -> Parallel:
    """`picard` accelerated: each point looks back over `order` steps, and triangular Anderson mixing combines `memory` iterates
    (Tang et al. 2024, ParaTAA, algorithm 1).

    order: 1 is the bare recursion X_{j+1} ← Φ_j(X_j), the window's length Picard's sum. memory: 1 is no acceleration. Mixing
    weights are least squares over the points not cleaner than the one they serve, for each sample, so finished points stay
    finished; the first unfinished point is never mixed. The rest is as for `picard`.
    """
    require(order >= 1 and memory >= 1, f"anderson: order = {order}, memory = {memory}, wanted both at least 1")
    return _refine("anderson", model, x, levels, solver, window, tol, cond, draw, each, order=order, memory=memory)


def _refine(name, model, x, levels, solver, window, tol, cond, draw, each, order, memory) -> Parallel:
    levels, noises = begin(name, model, x, levels, solver, tol, draw)
    steps = len(levels) - 1
    window = steps if window is None else window
    require(window >= 1, f"{name}: window = {window}, wanted at least 1 step, or None for all {steps}")
    points, run, residuals = [x] * (steps + 1), Lockstep(model, cond), []
    scale = torch.tensor([level.sigma or levels[-2].sigma for level in levels], dtype=torch.float64)
    carry, done, past = _carry(levels, order or steps), 0, []
    while done < steps:
        inside = range(done, min(done + window, steps))
        made = run(solver, [Step(points[i], levels[i], levels[i + 1], noises[i]) for i in inside])
        finite(name, made, len(residuals) + 1, inside, levels)
        old, made = torch.stack([points[i + 1] for i in inside]), torch.stack(made)
        lower = carry[done + 1 : inside.stop + 1, done + 1 : inside.stop + 1].to(made)
        new = made + torch.tensordot(lower, made - old, 1)  # the sum comes last: where all before is settled, new is made, exactly
        change = (new - old).flatten(2).square().mean(2).sqrt().amax(1).double().cpu() / scale[done + 1 : inside.stop + 1]
        new, past = _mix(new, old, past, inside, memory)
        for i, point in zip(inside, new):
            points[i + 1] = point
        residuals.append(torch.full((steps + 1,), torch.nan, dtype=torch.float64).index_copy(0, torch.tensor(inside) + 1, change))
        settled = (change <= tol).long().cumprod(0).sum().item()
        done += max(settled, 1)  # its first point was made from a settled one
        for i in range(inside.stop + 1, min(done + window, steps) + 1):
            points[i] = points[inside.stop]
        if each is not None:
            each(done, steps)
    return Parallel(points[-1], len(residuals), run.depth, run.work, torch.stack(residuals))


def _carry(levels: Sequence[NoiseLevel], order: int) -> Tensor:
    """(N+1, N+1): how far the change of point i < j carries over to point j, for j − i < order; zero elsewhere."""
    size = torch.tensor([(level.alpha**2 + level.sigma**2) ** 0.5 for level in levels], dtype=torch.float64)
    n = torch.arange(len(levels))
    near = (n[:, None] > n) & (n[:, None] - n < order)
    return torch.where(near, size[:, None] / size, 0.0)


def _mix(new: Tensor, old: Tensor, past: list, inside: range, memory: int, ridge: float = 1e-3) -> tuple[Tensor, list]:
    """Triangular Anderson mixing: (mixed points, the iterates to remember). Points (W, B, *shape) of the steps `inside`.

    For the differences ΔX, ΔR of iterates and of residuals R = new − old, and each point j and sample: γ minimises
    ‖R − ΔR γ‖² over points ≤ j (ridge relative to ‖ΔR‖²), and the point becomes new − (ΔX + ΔR) γ.
    """
    residual = new - old
    history = [(then, x, r) for then, x, r in past if then.stop > inside.start]
    past = [*history, (inside, old, residual)][-(memory - 1) :] if memory > 1 else []
    if not history:
        return new, past
    first = max(then.start for then, _, _ in history)
    stop = min(inside.stop, *(then.stop for then, _, _ in history))
    low, high = max(inside.start, first), stop
    if high - low < 2:
        return new, past
    here = slice(low - inside.start, high - inside.start)
    dx = torch.stack([old[here] - x[low - then.start : high - then.start] for then, x, _ in history]).flatten(3)
    dr = torch.stack([residual[here] - r[low - then.start : high - then.start] for then, _, r in history]).flatten(3)
    r = residual[here].flatten(2)
    gram = torch.einsum("mwbd,nwbd->wbmn", dr, dr).cumsum(0)
    right = torch.einsum("mwbd,wbd->wbm", dr, r).cumsum(0)
    size = gram.diagonal(dim1=2, dim2=3).amax(2).clamp(min=1e6 * torch.finfo(gram.dtype).tiny)
    eye = torch.eye(len(history), dtype=gram.dtype, device=gram.device)
    gamma = torch.linalg.solve(gram + ridge * size[..., None, None] * eye, right)
    mixed = new.clone()
    correction = torch.einsum("mwbd,wbm->wbd", dx + dr, gamma)
    correction[0] = 0  # the first unfinished point is a step from a finished one: exact
    mixed[here] -= correction.view_as(mixed[here])
    return mixed, past
