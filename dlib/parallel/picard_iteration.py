"""Picard iteration: guess the whole trajectory, then let every step correct it at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.parallel.lockstep import Lockstep, Parallel, Step, begin, finite
from dlib.schedule import NoiseLevel
from dlib.solvers.base import Solver
from dlib.solvers.first_order import ddim


def picard(
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    solver: Solver = ddim,
    window: int | None = None,
    tol: float = 1e-3,
    cond: Any = None,
    draw: Draw | None = None,
    each: Callable[[int, int], None] | None = None,
) -> Parallel:
    """Sample by Picard iteration over a sliding window of steps (Shih et al. 2023, ParaDiGMS,
    algorithm 1).

    A sweep makes the steps Φ_i of all points of the window in one network call, and sums up
    their changes: X_{j+1} ← Φ_j(X_j) + A_j (X_j^new − X_j), A the ratio of √(α²+σ²), which
    keeps the iterate's scale on every schedule. The window then moves past the points whose
    change is at most tol·σ (root mean square), one at least: after k sweeps the first k points
    are those of `sample`, bit for bit, noise included, whatever was guessed; tol = 0 gives
    `sample`'s result.

    window: points refined at once, all by default. each: called with (points done, points in
    all) after each sweep. Raises ValueError for a solver with memory, and FloatingPointError
    naming sweep and step.

    >>> from dlib import Draw, exact, levels, picard, sample, vp
    >>> from dlib.mixtures import Mixture
    >>> two = Mixture(torch.ones(2) / 2, torch.tensor([[-1.0], [1.0]]), torch.full((2,), 0.3))
    >>> model, walk = exact(two, vp()), levels(vp(), 30)
    >>> x = Draw(0).normal((4, 1), torch.float64)
    >>> found = picard(model, x, walk, tol=0)
    >>> bool((found.x == sample(model, x, walk)).all()), found.depth <= 30
    (True, True)
    """
    return _last(
        _begun("picard", model, x, levels, solver, window, tol, cond, draw, None, None, 1), each
    )


def anderson(
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    solver: Solver = ddim,
    window: int | None = None,
    tol: float = 1e-3,
    cond: Any = None,
    draw: Draw | None = None,
    each: Callable[[int, int], None] | None = None,
    order: int = 8,
    memory: int = 3,
) -> Parallel:
    """`picard` accelerated: each point looks back over `order` steps, and triangular Anderson
    mixing combines `memory` iterates (Tang et al. 2024, ParaTAA, algorithm 1).

    order: 1 is the bare recursion X_{j+1} ← Φ_j(X_j), the window's length Picard's sum.
    memory: 1 is no acceleration. Mixing weights are least squares over the points not cleaner
    than the one they serve, for each sample, so finished points stay finished; the first
    unfinished point is never mixed. The rest is as for `picard`.
    """
    require(
        order >= 1 and memory >= 1,
        f"anderson: order = {order}, memory = {memory}, wanted both at least 1",
    )
    return _last(
        _begun(
            "anderson", model, x, levels, solver, window, tol, cond, draw, None, order, memory
        ),
        each,
    )


class Sweep(NamedTuple):
    """Where `sweeps` stands: the points X_0 … X_N, how many of the N steps are `done`, and
    depth and work so far (see `Parallel`).

    change (N + 1,): how far the sweep moved each point, over σ; NaN where it made none.
    """

    points: list[Tensor]
    done: int
    steps: int
    change: Tensor
    depth: int
    work: int


def sweeps(
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    solver: Solver = ddim,
    window: int | None = None,
    tol: float = 1e-3,
    cond: Any = None,
    draw: Draw | None = None,
    guess: Sequence[Tensor] | None = None,
) -> Iterator[Sweep]:
    """`picard` as a generator, as `walk` is of `sample`: yield the guess, then all points
    after each sweep.

    guess: points X_0 … X_N to begin with, such as those of a similar sample; X_0 must be x. By
    default all are x, scaled like √(α²+σ²).
    """
    return _begun("sweeps", model, x, levels, solver, window, tol, cond, draw, guess, None, 1)


def _begun(
    name, model, x, levels, solver, window, tol, cond, draw, guess, order, memory
) -> Iterator[Sweep]:
    levels, noises = begin(name, model, x, levels, solver, tol, draw)
    steps = len(levels) - 1
    window = steps if window is None else window
    require(
        window >= 1, f"{name}: window = {window}, wanted at least 1 step, or None for all {steps}"
    )
    if guess is not None:
        require(
            len(guess) == steps + 1
            and all(point.shape == x.shape for point in guess)
            and bool((guess[0] == x).all()),
            f"{name}: the guess has {len(guess)} points, wanted {steps + 1} of shape "
            f"{tuple(x.shape)}, the first of them x",
        )
    points = _constant(x, levels) if guess is None else list(guess)
    return _sweeps(
        name,
        Lockstep(model, cond),
        points,
        levels,
        solver,
        noises,
        window,
        tol,
        order or steps,
        memory,
        guess is None,
    )


def _sweeps(name, run, points, levels, solver, noises, window, tol, order, memory, fill):
    carry, steps, done, count, past = _carry(levels, order), len(levels) - 1, 0, 0, []
    yield Sweep(points, 0, steps, torch.full((steps + 1,), torch.nan).double(), 0, 0)
    while done < steps:
        count, inside = count + 1, range(done, min(done + window, steps))
        made = run(solver, [Step(points[i], levels[i], levels[i + 1], noises[i]) for i in inside])
        finite(name, made, [count] * len(made), inside, levels)
        made, old = torch.stack(made), torch.stack([points[i + 1] for i in inside])
        new = _summed(made, old, carry[inside][:, inside])
        change = _change(new, old, levels, inside)
        new, past = _mix(new, old, past, inside.start, memory)
        points = [*points[: done + 1], *new, *points[inside.stop + 1 :]]
        settled = (change[done + 1 :] <= tol).long().cumprod(0).sum()
        done += max(1, int(settled))  # the first was made from a settled point
        if fill:
            points[inside.stop :] = _constant(points[inside.stop], levels[inside.stop :])
        yield Sweep(points, done, steps, change, run.depth, run.work)


def _summed(made: Tensor, old: Tensor, carry: Tensor) -> Tensor:
    """X_{j+1} ← Φ_j(X_j) + Σ_{i<j} A_ji (Φ_i(X_i) − X_{i+1}), with made = Φ(X), old = X: (W,
    B, *shape).

    The sum comes last: where all before is settled its terms are 0, and the point is the step,
    exactly.
    """
    return made + torch.tensordot(carry.to(made), made - old, 1)


def _size(level: NoiseLevel) -> float:
    """√(α²+σ²): how large x is where the data have variance 1. In x over this, all schedules
    with the same λ are one.
    """
    return (level.alpha**2 + level.sigma**2) ** 0.5


def _constant(x: Tensor, levels: Sequence[NoiseLevel]) -> list[Tensor]:
    """x at the first level, and at each other the same but for the scale: a guess."""
    return [x, *(x * (_size(level) / _size(levels[0])) for level in levels[1:])]


def _carry(levels: Sequence[NoiseLevel], order: int) -> Tensor:
    """A (N, N): how far a change of X_{i+1} carries over to X_{j+1}, for 0 < j − i < order;
    zero elsewhere.
    """
    size = torch.tensor([_size(level) for level in levels[1:]], dtype=torch.float64)
    n = torch.arange(len(size))
    near = (n[:, None] > n) & (n[:, None] - n < order)
    return torch.where(near, size[:, None] / size, 0.0)


def _change(new: Tensor, old: Tensor, levels: Sequence[NoiseLevel], inside: range) -> Tensor:
    """(N + 1,) root mean square of the change over σ, largest over the batch; NaN outside of
    the window.
    """
    sigma = torch.tensor(
        [levels[i + 1].sigma or levels[-2].sigma for i in inside], dtype=torch.float64
    )
    moved = (new - old).flatten(2).square().mean(2).sqrt().amax(1).double().cpu()
    change = torch.full((len(levels),), torch.nan, dtype=torch.float64)
    change[inside.start + 1 : inside.stop + 1] = moved / sigma
    return change


def _mix(
    new: Tensor, old: Tensor, past: list, start: int, memory: int, ridge: float = 1e-3
) -> tuple[Tensor, list]:
    """Triangular Anderson mixing: (mixed points, iterates to remember). Points (W, B, *shape)
    from step `start`.

    For differences ΔX, ΔR of iterates and of residuals R = new − old, each point j and sample:
    γ minimises ‖R − ΔR γ‖² over points ≤ j (ridge relative to ‖ΔR‖²), and the point becomes
    new − (ΔX + ΔR) γ.
    """
    residual = new - old
    past = [
        (start, x[start - then :], r[start - then :])
        for then, x, r in past
        if len(x) > start - then
    ]
    kept = [*past, (start, old, residual)][-(memory - 1) :] if memory > 1 else []
    if not past:
        return new, kept
    n = min(len(x) for _, x, _ in past)  # the points that all iterates have
    dx = torch.stack([old[:n] - x[:n] for _, x, _ in past]).flatten(3)
    dr = torch.stack([residual[:n] - r[:n] for _, _, r in past]).flatten(3)
    gram = torch.einsum("mwbd,nwbd->wbmn", dr, dr).cumsum(0)
    right = torch.einsum("mwbd,wbd->wbm", dr, residual[:n].flatten(2)).cumsum(0)
    size = gram.diagonal(dim1=2, dim2=3).amax(2).clamp(min=1e6 * torch.finfo(gram.dtype).tiny)
    eye = torch.eye(len(past), dtype=gram.dtype, device=gram.device)
    gamma = torch.linalg.solve(gram + ridge * size[..., None, None] * eye, right)
    correction = torch.einsum("mwbd,wbm->wbd", dx + dr, gamma).view_as(new[:n])
    correction[0] = 0  # the first unfinished point is a step from a finished one: exact
    return torch.cat([new[:n] - correction, new[n:]]), kept


def _last(found: Iterator[Sweep], each: Callable[[int, int], None] | None) -> Parallel:
    """Sweep until all is settled."""
    changes, _ = [], next(found)
    for sweep in found:
        changes.append(sweep.change)
        if each is not None:
            each(sweep.done, sweep.steps)
    return Parallel(sweep.points[-1], len(changes), sweep.depth, sweep.work, torch.stack(changes))
