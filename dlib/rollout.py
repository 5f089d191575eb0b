"""Floor 4: rollouts: what a few-step student makes of noise, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel


def generate(model: Denoiser, z: Tensor, levels: Sequence[NoiseLevel], cond: Any = None, draw: Draw | None = None) -> Tensor:
    """The samples x₀ of a student with one network call a level; gradients flow through all of them.

    At each level the student says x₀; the next level is reached with fresh noise, x ← α x₀ + σ z' (Song et al. 2023,
    algorithm 1). z: (B, *shape), the student's input at levels[0]. levels: noise first, of floats, without `CLEAN`: one
    level makes a one-step student. Draws: one normal like z for each level after the first. For a network that predicts
    ε, x₀ = (z − σε)/α is taken in float32 at least: Stable Diffusion has α = 0.068 at t = 1, where an error of the
    network counts fifteen times; with α = 0 it has no answer, and the error says so.

    >>> import torch
    >>> from dlib import Mixture, exact, vp
    >>> one = exact(Mixture(torch.ones(1), torch.full((1, 2), 3.0), torch.tensor([1e-6])), vp())
    >>> generate(one, torch.zeros(1, 2), vp().levels([1.0, 0.5]), draw=Draw(0))
    tensor([[3., 3.]])
    """
    require(len(levels) > 0 and all(isinstance(level, NoiseLevel) and isinstance(level.t, float) and level.sigma > 0 for level in levels),
            "generate: levels must be one or more noise levels of floats with σ > 0: use schedule.levels([1.0]) for one step")
    require(len(levels) == 1 or draw is not None, f"generate: {len(levels)} levels need fresh noise between them: pass draw=Draw(seed)")
    x0 = model(z, levels[0], cond).x0
    for level in levels[1:]:
        x0 = model(level.alpha * x0 + level.sigma * draw.normal(x0), level, cond).x0
    return x0
