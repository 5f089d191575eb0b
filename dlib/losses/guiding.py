"""Guidance inside the network: one call that says what two calls say (Meng et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dlib._util import Draw, require
from dlib.denoiser import Denoiser, guided, one_schedule
from dlib.losses import weights
from dlib.losses.consistency_losses import with_omega
from dlib.losses.consistency_steps import check_omega
from dlib.losses.diffusion import Batch, Loss, Times, uniform_omega
from dlib.losses.weights import Weight, exchange


def guided_distillation(
    student: Denoiser,
    teacher: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    omega: tuple[float, float],
    null: Any,
    times: Times,
    embed: Callable = with_omega,
    weight: Weight = weights.v,
) -> Loss:
    """E w(t) ‖x₀_θ(x_t, c, ω) − x₀^ω‖² with the teacher's x₀^ω = (1+ω) x₀(c) − ω x₀(∅), each
    sample with its own ω (Meng et al. 2023, eq. 3).

    omega: the range on which ω is uniform. null: the empty condition, as `guided` takes it.
    times: of `denoising`. embed: (cond, ω) ↦ the condition of the student, which is told ω.
    weight: of `dlib.losses.weights`; the paper has SNR + 1, the loss on v. The error is taken
    on what the student predicts, so no level is too noisy or too clean. The teacher gets no
    gradient. A mean over a sample's values and over the batch. The target is a function of
    what the student sees, so a perfect student has no loss, and it is affine in ω. Draws: ω;
    the times; the noise (unless the batch brings its own).

    >>> from dlib import NULL, exact, vp
    >>> from dlib.losses import uniform_times
    >>> from toy_data import labelled
    >>> model = exact(labelled(), vp())
    >>> batch = Batch(torch.ones(4, 2).double(), torch.tensor([0, 0, 1, 1]))
    >>> conditional = lambda x, t, cond: model.net(x, t, cond["cond"])
    >>> student = Denoiser(conditional, vp(), model.predicts)
    >>> how = dict(omega=(0.0, 0.0), null=NULL, times=uniform_times())
    >>> loss = guided_distillation(student, model, batch, Draw(0), **how)
    >>> bool(loss.value < 1e-20)  # ω = 0 asks for the conditional teacher
    True
    """
    _check(student, teacher, batch, omega)
    x0, n = batch.x0, len(batch.x0)
    scale = uniform_omega(omega, draw, x0)
    t = times(draw, n).to(x0.device, torch.promote_types(x0.dtype, torch.float32))
    level = student.schedule.at(t, like=x0)
    noise = draw.normal(x0) if batch.noise is None else batch.noise
    x = level.alpha * x0 + level.sigma * noise
    with torch.no_grad():
        aim = getattr(guided(teacher, scale, null)(x, level, batch.cond), student.predicts)
    square = (student(x, level, embed(batch.cond, scale)).raw - aim).square()
    face = exchange(weight.face, student.predicts, level, student.schedule) ** 2
    each = (weight.factor(level, student.schedule) * face * square).flatten(1).mean(1)
    return Loss(each.mean(), {"loss": each.detach().mean()})


def _check(
    student: Denoiser, teacher: Denoiser, batch: Batch, omega: tuple[float, float]
) -> None:
    one_schedule("guided_distillation", student, teacher)
    check_omega("guided_distillation", omega)
    require(
        batch.cond is not None,
        "guided_distillation: the batch has no condition, so there is nothing to guide towards: "
        "Batch(x0, cond)",
    )
    shape = None if batch.noise is None else tuple(batch.noise.shape)
    require(
        shape in (None, tuple(batch.x0.shape)),
        f"guided_distillation: noise has shape {shape}, x0 {tuple(batch.x0.shape)}: one ε for "
        "each x0",
    )
