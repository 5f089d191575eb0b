"""The loop that composes a solver's steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser, parameters
from dlib.schedule import NoiseLevel, NoiseSchedule
from dlib.solvers.base import Solver
from dlib.solvers.first_order import ddim


class State(NamedTuple):
    """Where `walk` stands: x at `level` after `step` of `steps` steps."""

    step: int
    steps: int
    level: NoiseLevel
    x: Tensor


def walk(
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    solver: Solver = ddim,
    cond: Any = None,
    draw: Draw | None = None,
) -> Iterator[State]:
    """Yield the start and then the state after each step. Draws, for a noisy solver: one
    normal like x a step.

    A last level with σ = 0 (`CLEAN`) is reached by denoising, whatever the solver: only order
    1 is defined there.
    """
    levels = list(levels)
    check(model, x, levels, solver, draw)
    return _walk(model, x, levels, solver, cond, draw)


def _walk(
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    solver: Solver,
    cond: Any,
    draw: Draw | None,
) -> Iterator[State]:
    memory, steps = None, len(levels) - 1
    yield State(0, steps, levels[0], x)
    for step, a, b in zip(range(1, steps + 1), levels, levels[1:]):
        if b.sigma == 0:
            x = model(x, a, cond).mix(b.alpha, 0.0)
        else:
            noise = draw.normal(x) if solver.noisy else None
            try:
                x, memory = solver(model, x, a, b, memory, noise, cond)
            except (ZeroDivisionError, ValueError) as error:
                if a.alpha > 0:
                    raise
                raise ValueError(
                    f"{_name(solver)}: step {step} of {steps} starts at t = {a.t:g} with alpha "
                    f"= {a.alpha:g}, sigma = {a.sigma:g}, "
                    f"where its formula is singular ({error}): start at t_max=0.999, or use "
                    "ddim or dpm_solver_pp_2m with a v or velocity network"
                ) from error
        yield State(step, steps, b, x)


def sample(
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    solver: Solver = ddim,
    cond: Any = None,
    draw: Draw | None = None,
    each: Callable[[State], None] | None = None,
) -> Tensor:
    """Carry x from levels[0] (noise) to levels[-1] (data) and return it.

    x: (B, *shape) at levels[0]; levels: `levels(schedule, n)`; cond: batch first;
    draw: needed by noisy solvers; each: called with every `State`, e.g. for a progress bar.
    Gradients flow through. Raises ValueError for bad input and FloatingPointError, naming the
    step, when x stops being finite.

    >>> from dlib import exact, levels, sample, vp, Draw, Mixture
    >>> schedule, one = vp(), Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1))
    >>> x = Draw(0).normal((3, 2), torch.float64)
    >>> sample(exact(one, schedule), x, levels(schedule, 10)).shape
    torch.Size([3, 2])
    """
    replay = draw.copy() if draw is not None else None
    start = x
    for state in walk(model, x, levels, solver, cond, draw):
        if each is not None:
            each(state)
    if not _finite(state.x):
        _name_the_step(walk(model, start, levels, solver, cond, replay), levels[0])
    return state.x


def _name_the_step(states: Iterator[State], start: NoiseLevel) -> None:
    for state in states:
        if not _finite(state.x):
            where = (
                f"after step {state.step} of {state.steps}"
                if state.step
                else "before the first step"
            )
            if start.alpha == 0:
                where += (
                    f", having started at t = {start.t:g} where alpha = 0 and λ = −∞: "
                    "start at t_max=0.999, or"
                )
            raise FloatingPointError(
                f"sample: x is no longer finite {where} (t = {state.level.t:g}, lam = "
                f"{state.level.lam:.3g}): "
                "look at the network's output there; in half precision try float32, at high "
                "guidance try more steps"
            )
    raise FloatingPointError(
        "sample: the result is not finite, but a replay was: the network is not deterministic"
    )


def _finite(x: Tensor) -> bool:
    """Whether all of x is finite: a finite sum has finite terms; a sum that is not may only
    have overflowed. The meta device has no numbers.
    """
    return x.is_meta or bool(torch.isfinite(x.sum()) or torch.isfinite(x).all())


def _name(solver: Any) -> str:
    return getattr(solver, "__name__", repr(solver))


def check(
    model: Denoiser, x: Tensor, levels: list[NoiseLevel], solver: Solver, draw: Draw | None
) -> None:
    """Raise ValueError, saying what to type, if these cannot make a run."""
    _check_levels(levels, model.schedule)
    _check_solver(solver, len(levels) - 1, draw)
    require(
        x.is_floating_point(),
        f"sample: x has dtype {x.dtype}, wanted a floating dtype: x.float()",
    )
    for weight in parameters(model.net)[:1]:
        require(
            weight.device == x.device,
            f"sample: x is on {x.device}, the network on {weight.device}: "
            f"x.to({str(weight.device)!r})",
        )
        require(
            (weight.dtype == torch.float64) == (x.dtype == torch.float64),
            f"sample: x is {x.dtype}, the network's weights are {weight.dtype}: "
            f"x.to({weight.dtype}) or net.to({x.dtype})",
        )


def _check_levels(levels: list[NoiseLevel], schedule: NoiseSchedule) -> None:
    """Two or more levels of floats, from noise to data, on the model's schedule."""
    require(
        all(isinstance(level, NoiseLevel) for level in levels),
        f"sample: levels holds {type(levels[0] if levels else None).__name__}s: "
        "pass levels(schedule, n), or schedule.levels(times) for times of your own",
    )
    require(
        len(levels) >= 2,
        f"sample: {len(levels)} noise level(s) make no step: pass levels(schedule, n) with n ≥ 1",
    )
    require(
        all(isinstance(level.lam, float) for level in levels),
        "sample: levels must hold floats, one level for the whole batch: pass "
        "levels(schedule, n)",
    )
    for i, (a, b) in enumerate(zip(levels, levels[1:])):
        if not b.lam > a.lam:  # also NaN; a message for each level would take time
            raise ValueError(
                f"sample: levels must go from noise to data, but level {i + 1} (t = {b.t:g}) is "
                f"not cleaner than level {i} (t = {a.t:g}): reverse the grid, e.g. grid.flip(0)"
            )
    first = levels[0]
    home = schedule.at(first.t).lam if first.t >= schedule.t_min else first.lam
    require(
        home == first.lam or abs(home - first.lam) < 1e-5,
        f"sample: levels[0] has λ = {first.lam:g}, but the model's schedule ({schedule.name}) "
        f"has λ = {home:g} at that t: make the levels with levels(model.schedule, n)",
    )


def _check_solver(solver: Solver, steps: int, draw: Draw | None) -> None:
    """A solver, with the noise and the number of steps that it needs."""
    require(
        hasattr(solver, "memoryless"),
        f"sample: {_name(solver)} is not a solver: pass a function like dlib.solvers.ddim, one "
        "of dlib.SOLVERS by name, e.g. SOLVERS['ddim'], or decorate your step with "
        "@solver(order=…)",
    )
    require(
        not solver.noisy or draw is not None,
        f"sample: {_name(solver)} adds noise: pass draw=Draw(seed)",
    )
    require(
        solver.history < steps,
        f"sample: {_name(solver)} reaches order {solver.order} by looking back over "
        f"{solver.history} step(s), but there are only {steps} in all: use n ≥ "
        f"{solver.history + 1} steps, or ddim",
    )
