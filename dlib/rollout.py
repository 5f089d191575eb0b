"""Rollouts: what a few-step student makes of noise, with gradients; and the student
that makes no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel
from dlib.solvers import Solver, ddim, sample


def generate(
    model: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    cond: Any = None,
    draw: Draw | None = None,
) -> Tensor:
    """The samples x₀ of a student with one network call a level; gradients flow through all of
    them.

    At each level the student says x₀; the next level is reached with fresh noise, x ← α x₀ + σ
    z' (Song et al. 2023, algorithm 1). z: (B, *shape), the student's input at levels[0].
    levels: noise first, of floats, without `CLEAN`: one level makes a one-step student. Draws:
    one normal like z for each level after the first. For a network that predicts ε, x₀ = (z −
    σε)/α is taken in float32 at least: Stable Diffusion has α = 0.068 at t = 1, where an error
    of the network counts fifteen times; with α = 0 it has no answer, and the error says so.

    >>> import torch
    >>> from dlib import Mixture, exact, vp
    >>> point = Mixture(torch.ones(1), torch.full((1, 2), 3.0), torch.tensor([1e-6]))
    >>> generate(exact(point, vp()), torch.zeros(1, 2), vp().levels([1.0, 0.5]), draw=Draw(0))
    tensor([[3., 3.]])
    """
    require(
        len(levels) > 0
        and all(
            isinstance(level, NoiseLevel) and isinstance(level.t, float) and level.sigma > 0
            for level in levels
        ),
        "generate: levels must be one or more noise levels of floats with σ > 0: use "
        "schedule.levels([1.0]) for one step",
    )
    require(
        len(levels) == 1 or draw is not None,
        f"generate: {len(levels)} levels need fresh noise between them: pass draw=Draw(seed)",
    )
    x0 = model(z, levels[0], cond).x0
    for level in levels[1:]:
        x0 = model(level.alpha * x0 + level.sigma * draw.normal(x0), level, cond).x0
    return x0


def composed(model: Denoiser, levels: Sequence[NoiseLevel], solver: Solver = ddim) -> Denoiser:
    """The solver's walk down to the last of `levels`, as one call: x₀ = Ψ∘…∘Ψ(x)/α there, at
    every level of the list.

    The student that consistency distillation cannot improve (Song et al. 2023, theorem 1): its
    loss is 0 for single steps of that solver on that grid. Between two levels the first step
    is shorter. With many levels it is the consistency function itself. cond: None or a tensor.
    The solver adds no noise.

    >>> import torch
    >>> from dlib import Mixture, exact, levels, sample, vp
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), vp())
    >>> walk = levels(vp(), 9)
    >>> x = torch.ones(3, 2, dtype=torch.float64)
    >>> walked = sample(model, x, walk) / walk[-1].alpha
    >>> bool((composed(model, walk)(x, walk[0]).x0 == walked).all())
    True
    """
    schedule, end = model.schedule, levels[-1]

    def net(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        require(t.ndim == 1, "composed: a walk has one time a sample, not one a frame")
        found = x / end.alpha
        for time in t.unique().tolist():
            rows = t == time
            # float32 times are that far off
            rest = [schedule.at(time), *(level for level in levels if level.t < time - 1e-6)]
            if len(rest) > 1:
                found[rows] = (
                    sample(model, x[rows], rest, solver, None if cond is None else cond[rows])
                    / end.alpha
                )
        return found

    return Denoiser(net, schedule, "x0")
