"""Trajectory consistency distillation: neighbours on a teacher's path must be sent to the same
point of *any* cleaner level, not of the clean end alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw
from dlib.denoiser import Denoiser, one_schedule
from dlib.losses.consistency_losses import Distance, apart, squared
from dlib.losses.consistency_steps import Ends, check_step, compared, levels_of
from dlib.losses.diffusion import Batch, Loss
from dlib.solvers import Solver, ddim


def trajectory_ends(
    student: Denoiser,
    teacher: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    times: Tensor,
    skip: int = 1,
    omega: tuple[float, float] | None = None,
    null: Any = None,
    embed: Callable | None = None,
    solver: Solver = ddim,
) -> Ends:
    """Both ends of a step whose edge is a random level s; the arguments are those of
    `trajectory_consistency`, which see.
    """
    check_step("trajectory_consistency", batch, times, None, skip, omega, embed, solver)
    x0, last = batch.x0, len(times) - 1
    index = draw.integers(last, len(x0))
    end = (index + skip).clamp(max=last)
    place = end + (draw.uniform(len(x0)) * (last + 1 - end)).long()
    rows = torch.stack([times[index], times[end], times[place]])
    stations = tuple(levels_of(student.schedule, rows, x0))
    guide = dict(omega=omega, null=null, embed=embed, solver=solver)
    return compared(student, teacher, target, batch, draw, index, stations, **guide)


def trajectory_consistency(
    student: Denoiser,
    teacher: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    times: Tensor,
    skip: int = 1,
    omega: tuple[float, float] | None = None,
    null: Any = None,
    embed: Callable | None = None,
    solver: Solver = ddim,
    distance: Distance = squared,
) -> Loss:
    """E d(F_θ(x_{t_i}, t_i → s), sg F_θ⁻(x̂_{t_j}, t_j → s)) with s uniform on the times of the
    grid from t_j down to the last (Zheng et al. 2024).

    F is DDIM's jump α_s x₀ + σ_s ε, the paper's first-order parameterisation; from s itself it
    is the identity, so no boundary is needed. The network is not told s. One ε at (x, t) must
    then serve every s, which no network can: on N(0, c²) the loss has a floor, and its
    minimiser's samples are too narrow in one call and too wide in eight
    (`tests/dlib/test_trajectory_consistency.py`).

    Arguments as for `consistency`. Draws: the start's place i, uniform on 0 … N−1; a uniform,
    for the place of s; ω, if there is one; the noise (unless the batch brings its own).

    >>> from dlib import Mixture, exact, grid, vp
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), vp())
    >>> batch, one = Batch(torch.ones(4, 2)), grid(vp(), 1, "time")  # s can only be its end:
    >>> loss = trajectory_consistency(model, model, model, batch, Draw(0), times=one)
    >>> bool(loss.value < 1e-12)  # the student is asked for the teacher's own step
    True
    """
    for model in (teacher, target):
        one_schedule("trajectory_consistency", student, model)
    both = trajectory_ends(
        student,
        teacher,
        target,
        batch,
        draw,
        times=times,
        skip=skip,
        omega=omega,
        null=null,
        embed=embed,
        solver=solver,
    )
    each = apart("trajectory_consistency", distance, both.student, both.target)
    return Loss(each.mean(), {"loss": each.detach().mean()})
