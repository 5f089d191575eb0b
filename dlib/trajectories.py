"""Whole sampling paths for reward fine-tuning: with the log-probability of each step, or with
a gradient through the last of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dlib._util import Draw, alike, require
from dlib.denoiser import Denoiser, Net
from dlib.schedule import NoiseLevel
from dlib.solvers import Solver, Transition, ddim, transition, walk
from dlib.solvers.transitions import Kernel


class Trajectory(NamedTuple):
    """states: (B, N + 1, *shape), noise first. log_probs: (B, N), of each step under the
    network that took it, in nats; 0 where nothing was drawn.
    """

    states: Tensor
    log_probs: Tensor

    @property
    def x0(self) -> Tensor:
        """Where the path ends."""
        return self.states[:, -1]


def log_prob(step: Transition, y: Tensor) -> Tensor:
    """log N(y; mean, std² I) in nats, summed over a sample's values: (B,).

    Of a step that draws nothing, std = 0, it is 0: such a step has no choice, and a policy
    gradient has nothing to learn from it. The published codes take the *mean* over values
    instead (DDPO's does); then every ratio of probabilities is its D-th root.

    >>> log_prob(Transition(torch.zeros(1, 2), 1.0), torch.zeros(1, 2))  # −log 2π
    tensor([-1.8379])
    """
    alike("log_prob: mean and y", step.mean, y)
    if not isinstance(step.std, Tensor) and step.std == 0:
        return (step.mean - y).flatten(1).sum(1) * 0.0
    std = torch.as_tensor(step.std, dtype=y.dtype, device=y.device)
    each = -0.5 * ((y - step.mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
    return each.flatten(1).sum(1)


def roll(
    model: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    kernel: Kernel | Sequence[Kernel] = transition,
    cond: Any = None,
    *,
    draw: Draw,
) -> Trajectory:
    """Sample from the noise z, and keep the path and the log-probability of every step.

    z: (B, *shape) at levels[0]; levels: N + 1 of floats, noise first. kernel: one for all
    steps, or one a step (MixGRPO's window: stochastic in some, DDIM in the others). A step to
    `CLEAN` draws nothing. Draws: one normal like z for each step with std > 0.
    """
    x, states, found = z, [z], []
    for step, a, b in zip(kernels(kernel, len(levels) - 1), levels, levels[1:]):
        at = step(model, x, a, b, cond=cond)
        x = at.mean if _still(at) else at.mean + at.std * draw.normal(x)
        states, found = [*states, x], [*found, log_prob(at, x)]
    return Trajectory(torch.stack(states, 1), torch.stack(found, 1))


def kernels(kernel: Kernel | Sequence[Kernel], steps: int) -> list[Kernel]:
    """One kernel a step. ValueError if their number is another."""
    several = list(kernel) if isinstance(kernel, Sequence) else [kernel] * steps
    require(
        len(several) == steps and steps > 0,
        f"roll: {len(several)} kernels for {steps} steps: pass one, or one a step",
    )
    return several


def windowed(kernel: Kernel, still: Kernel, window: range, steps: int) -> list[Kernel]:
    """`kernel` in the steps of `window`, `still` in all others (MixGRPO, Li et al. 2025).

    >>> from functools import partial
    >>> len(windowed(transition, partial(transition, eta=0.0), range(2, 5), steps=10))
    10
    """
    return [kernel if k in window else still for k in range(steps)]


def _still(step: Transition) -> bool:
    return not isinstance(step.std, Tensor) and step.std == 0


def last_steps(
    model: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    last: int,
    solver: Solver = ddim,
    cond: Any = None,
    draw: Draw | None = None,
    *,
    leave: int = 0,
    light: bool = True,
) -> Tensor:
    """The walk from z with a gradient through its last `last` steps alone (DRaFT-K, Clark et
    al. 2024): x at the end, (B, *shape).

    The steps before them are walked without gradient, and x is a constant where they stop.
    leave: how many steps to stop short of the end; x is then where the next one starts. light:
    keep each network call's input alone and make the call again when the gradient comes back
    (Chen et al. 2016): a third more work, and the memory of one call. Draws: those of `walk`.
    """
    steps = len(levels) - 1
    require(
        0 <= last <= steps - leave and 0 <= leave <= steps,
        f"last_steps: a gradient through {last} of {steps - leave} steps: wanted 0 … "
        f"{steps - leave}",
    )
    states = walk(model.rewired(_light) if light else model, z, levels, solver, cond, draw)
    with torch.no_grad():
        for _ in range(steps - leave - last + 1):
            x = next(states).x
    for _ in range(last):
        x = next(states).x
    return x


def _light(inner: Net) -> Net:
    def net(x: Tensor, time: Tensor, cond: Any) -> Tensor:
        return checkpoint(inner, x, time, cond, use_reentrant=False)

    net.inner = inner
    return net
