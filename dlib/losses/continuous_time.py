"""Consistency models whose step is infinitely short: the derivative of the student along
the path takes the place of the difference of two answers.

TrigFlow turns the path into an angle: x_τ = cos τ x₀ + sin τ σ_d ε with tan τ = κ/σ_d (Lu &
Song 2025). Nothing of it need be in the network: x_τ is a multiple of x_t, and F, with σ_d F =
cos τ σ_d ε − sin τ x₀, one more mixture of what any network says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser, one_schedule
from dlib.forward_mode import tangent
from dlib.losses.bootstrapping import (
    Estimate,
    above_clean,
    estimated,
    levels_at,
    one_each,
    own,
    uniform,
)
from dlib.losses.diffusion import Batch, Loss, Times
from dlib.prediction import Prediction
from dlib.schedule import NoiseLevel, NoiseSchedule

Normalise = Callable[[Tensor], Tensor]
LevelWeight = Callable[[NoiseLevel], Tensor]
"""level ↦ the weight of each sample, shaped like level.t."""


class Angle(NamedTuple):
    """cos τ, sin τ and the size of x_t in units of x_τ, all shaped like the level's fields."""

    cos: Tensor
    sin: Tensor
    scale: Tensor


def angle(level: NoiseLevel, sigma_data: float) -> Angle:
    """TrigFlow's angle at a level: tan τ = σ/(α σ_d) and x_t = scale · x_τ."""
    check_sigma("angle", sigma_data)
    scale = (level.alpha**2 + (level.sigma / sigma_data) ** 2) ** 0.5
    return Angle(level.alpha / scale, level.sigma / sigma_data / scale, scale)


def trig_velocity(prediction: Prediction, sigma_data: float) -> Tensor:
    """cos τ σ_d ε − sin τ x₀ of a prediction, (B, *shape), from a network of any face, on any
    schedule: σ_d F, what a TrigFlow network says. Of the true mean it is dx_τ/dτ.

    EDM's own F (Karras et al. 2022, table 1) is −F.
    """
    at = angle(prediction.level, sigma_data)
    return prediction.mix(-at.sin, at.cos * sigma_data)


def by_norm(c: float = 0.1) -> Normalise:
    """g/(‖g‖ + c) with the norm of a sample: its size is 1 in any dimension (Lu & Song 2025).

    >>> by_norm(1.0)(torch.tensor([[3.0, 4.0]]))
    tensor([[0.5000, 0.6667]])
    """
    require(c > 0, f"by_norm: c = {c:g}, wanted more than 0: a g of zeros would be no number")
    return lambda g: g / (_norm(g) + c)


def by_rms(c: float = 0.1) -> Normalise:
    """g/(‖g‖/√D + c) for D values a sample: each value's size is 1. In units of `by_norm` its
    c is √D as large, so a c that suits one dimension suits all.

    >>> by_rms(1.0)(torch.ones(1, 100)).mean()
    tensor(0.5000)
    """
    require(c > 0, f"by_rms: c = {c:g}, wanted more than 0: a g of zeros would be no number")
    return lambda g: g / (_norm(g) / g[0].numel() ** 0.5 + c)


def as_is(g: Tensor) -> Tensor:
    """g itself: the gradient of the loss is that of a consistency loss with a short step."""
    return g


def inverse_kappa(level: NoiseLevel) -> Tensor:
    """1/κ = 1/(σ_d tan τ), whatever σ_d: the clean end weighs more (Lu & Song 2025, alg. 1).

    >>> from dlib.schedule import edm
    >>> round(float(inverse_kappa(edm().at_lam(torch.tensor(0.0)))), 4)
    1.0
    """
    return level.alpha / level.sigma


def warmup(step: int, steps: int = 10_000) -> float:
    """ρ = min(1, step/steps), sCM's tangent warm-up. While ρ < 1 the exact solution is not a
    fixed point.
    """
    require(step >= 0 and steps >= 1, f"warmup: step {step} of {steps}, wanted 0 or more of 1")
    return min(1.0, step / steps)


def continuous_consistency(
    student: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    times: Times,
    estimate: Estimate = own,
    rho: float = 1.0,
    normalise: Normalise = by_norm(),
    weight: LevelWeight = uniform,
    sigma_data: float = 0.5,
) -> Loss:
    """E w(τ) ‖F_θ − F⁻ − g‖², a mean over a sample's values, with g = cos τ df⁻/dτ, normalised
    (Lu & Song 2025, alg. 1).

    g = −cos²τ (σ_d F⁻ − dx/dτ) − ρ cos τ sin τ (x + σ_d dF⁻/dτ) in TrigFlow's x = x_τ; at ρ =
    1 it is zero for the consistency function of the path that dx/dτ points along. student,
    target: denoisers whose x₀ is the consistency function; no boundary is needed, f(x, 0) = x
    holds by itself. target is the student itself (or its average) and gets no gradient.
    times: draws t, e.g. `lognormal_times(schedule, -1.0, 1.4)`. estimate: whose x₀ gives
    dx/dτ: `own` is consistency training, `taught(teacher)` distillation. rho: `warmup(step)`.
    normalise: g ↦ g, `by_norm()`, `by_rms()` or `as_is`. weight: level ↦ w, one number a
    sample; `inverse_kappa` is the paper's 1/(σ_d tan τ). Its second weight, which a
    small network learns beside the student, is left out. sigma_data: the data's standard
    deviation σ_d.

    One call of the student with gradient, one of the target with its derivative (`tangent`),
    and those of the estimate. Metrics: the loss, which says nothing of progress where g is
    normalised; `tangent`, the root mean square of g before that, which does. Draws: the times,
    then the noise (unless the batch brings its own). ValueError for a time without noise.

    >>> from dlib import Mixture, exact, vp
    >>> from dlib.losses import taught, uniform_times
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), vp())
    >>> batch, times = Batch(torch.ones(4, 2)), uniform_times(0.1, 0.9)
    >>> loss = continuous_consistency(model, model, batch, Draw(0), times=times)
    >>> loss.value.shape
    torch.Size([])
    """
    x0, schedule = batch.x0, student.schedule
    t = times(draw, len(x0)).double()
    _check(student, target, batch, t, rho, sigma_data)
    level = levels_at(schedule, t, x0)
    noise = draw.normal(x0) if batch.noise is None else batch.noise
    x = level.alpha * x0 + level.sigma * noise
    with torch.no_grad():
        said = estimated(x, level, batch, estimate, schedule)
        at = angle(level, sigma_data)
        # in steps of cos τ sin τ dτ, which stay small at both ends (Lu & Song 2025, section 4.1)
        per_angle = at.cos * at.sin * dt_by_angle(schedule, level, sigma_data)
        velocity, change = tangent(
            target,
            said.x,
            level,
            said.velocity * per_angle,
            per_angle,
            batch.cond,
            read=lambda there: trig_velocity(there, sigma_data),
        )
        g = -(at.cos**2) * (velocity - trig_velocity(said, sigma_data))
        g = g - rho * (at.cos * at.sin * said.x / at.scale + change)
        aim = velocity / sigma_data + normalise(g)
    prediction = student(x, level, batch.cond)  # last, so that no graph waits for the derivative
    each = (trig_velocity(prediction, sigma_data) / sigma_data - aim).square().flatten(1).mean(1)
    each = one_each("continuous_consistency: the weight", weight, level) * each
    return Loss(each.mean(), {"loss": each.detach().mean(), "tangent": g.square().mean().sqrt()})


def dt_by_angle(schedule: NoiseSchedule, level: NoiseLevel, sigma_data: float) -> Tensor:
    """dt/dτ = (α²σ_d² + σ²)/(σ_d (α σ̇ − σ α̇)), finite at α = 0 as well."""
    check_sigma("dt_by_angle", sigma_data)
    d_alpha, d_sigma = schedule.rates(level.t)
    turning = sigma_data * (level.alpha * d_sigma - level.sigma * d_alpha)
    return ((level.alpha * sigma_data) ** 2 + level.sigma**2) / turning


def _norm(g: Tensor) -> Tensor:
    return torch.linalg.vector_norm(g.flatten(1), dim=1).reshape(-1, *(1,) * (g.ndim - 1))


def check_sigma(verb: str, sigma_data: float) -> None:
    """Raise ValueError, in the name of `verb`, for what is no standard deviation."""
    require(
        0 < sigma_data < math.inf,
        f"{verb}: sigma_data = {sigma_data:g}, wanted the data's standard deviation, above 0",
    )


def _check(
    student: Denoiser, target: Denoiser, batch: Batch, t: Tensor, rho: float, sigma_data: float
) -> None:
    one_schedule("continuous_consistency", student, target)
    shape = None if batch.noise is None else batch.noise.shape
    require(
        shape in (None, batch.x0.shape),
        f"continuous_consistency: noise has shape {shape}, x0 {tuple(batch.x0.shape)}: one ε "
        "for each x0",
    )
    require(
        t.shape == batch.x0.shape[:1],
        f"continuous_consistency: times drew {tuple(t.shape)} for {len(batch.x0)} samples: "
        "times(draw, n) returns n",
    )
    above_clean("continuous_consistency", student.schedule, t)
    require(0 <= rho <= 1, f"continuous_consistency: rho = {rho:g} is outside [0, 1]")
    check_sigma("continuous_consistency", sigma_data)
