"""Adjoint matching: the optimal control of the sampler, as a regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlib._util import alike, require
from dlib.denoiser import Denoiser
from dlib.losses.diffusion import Loss
from dlib.schedule import NoiseLevel
from dlib.solvers import transition
from dlib.solvers.transitions import Kernel


def lean_adjoints(
    reference: Denoiser,
    states: Tensor,
    gradient: Tensor,
    levels: Sequence[NoiseLevel],
    kernel: Kernel = transition,
    cond: Any = None,
) -> Tensor:
    """How a reward at the end would rise with the state after each step, if the reference took
    all later steps without noise: (B, N, *shape) (Domingo-Enrich et al. 2025, eq. 38 and 39).

    a_N = ∇r(x₀)/β and a_k = (∂μ_ref/∂x)ᵀ a_{k+1}, along the student's path. states: (B, N + 1,
    *shape), of `roll`; gradient: ∇r(x₀)/β, (B, *shape). "Lean", since the term of the control
    itself is left out, which is zero on average at the optimum. Entry k of axis 1 belongs to
    the state that step k reaches.
    """
    require(
        states.shape[1] == len(levels),
        f"lean_adjoints: {states.shape[1]} states for {len(levels)} levels: one a level",
    )
    alike("lean_adjoints: gradient and the path's end", gradient, states[:, -1])
    found, a = [gradient], gradient
    for k in range(len(levels) - 2, 0, -1):
        x = states[:, k].detach().requires_grad_()
        with torch.enable_grad():
            mean = kernel(reference, x, levels[k], levels[k + 1], cond=cond).mean
        (a,) = torch.autograd.grad(mean, x, a)
        found.append(a)
    return torch.stack(found[::-1], 1)


def adjoint_matching(
    student: Denoiser,
    reference: Denoiser,
    states: Tensor,
    adjoints: Tensor,
    levels: Sequence[NoiseLevel],
    step: int,
    kernel: Kernel = transition,
    cond: Any = None,
) -> Loss:
    """½ E ‖(μ_θ − μ_ref)/s − s a‖² at one step k of the path: the control that the adjoint a
    asks for (Domingo-Enrich et al. 2025, eq. 37).

    A step that draws nothing has nothing to match, and is an error. It leads to the tilt
    π e^{r/β} if the sampler is *memoryless*: its end does not depend on the noise it started
    from, as with ancestral steps from (nearly) pure noise. Summed over a sample's values, a
    mean over the batch. Draws: none.
    """
    steps = len(levels) - 1
    require(
        0 <= step < steps and states.shape[1] == steps + 1 and adjoints.shape[1] == steps,
        f"adjoint_matching: step {step} of {states.shape[1]} states, {adjoints.shape[1]} "
        f"adjoints and {len(levels)} levels: wanted a step from 0 to {steps - 1}, a state a "
        "level, and an adjoint a step, of lean_adjoints",
    )
    x, a, b = states[:, step].detach(), levels[step], levels[step + 1]
    now = kernel(student, x, a, b, cond=cond)
    require(
        isinstance(now.std, Tensor) or now.std > 0,
        f"adjoint_matching: step {step} draws nothing: match the steps with noise alone",
    )
    with torch.no_grad():
        base = kernel(reference, x, a, b, cond=cond)
    gap = (now.mean - base.mean) / now.std - now.std * adjoints[:, step].detach()
    each = 0.5 * gap.square().flatten(1).sum(1)
    return Loss(each.mean(), {"loss": each.detach().mean()})
