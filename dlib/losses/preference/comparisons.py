"""Learn from what was preferred: Diffusion-DPO and, from single verdicts, Diffusion-KTO."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dlib._util import Draw, alike, require
from dlib.denoiser import Denoiser, with_both
from dlib.losses import weights
from dlib.losses.diffusion import Batch, Loss, Times, uniform_times
from dlib.losses.weights import Weight
from dlib.prediction import parts
from dlib.schedule import NoiseLevel


class Gaps(NamedTuple):
    """How much larger the student's error is than the reference's, (B,), on the better and on
    the worse of each pair: below 0 where the student has improved.
    """

    better: Tensor
    worse: Tensor


def swapped(batch: Batch) -> Batch:
    """Preferences with the worse in the place of the better: Diffusion-NPO's one line."""
    require(batch.other is not None, "swapped: the batch has no `other`, the worse of each pair")
    return replace(batch, x0=batch.other, other=batch.x0)


def gaps(
    student: Denoiser,
    reference: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    weight: Weight = weights.eps,
    times: Times = uniform_times(0.02),
) -> Gaps:
    """m_θ − m_ref of both pictures, m the weighted squared error, a mean over a sample's
    values.

    Both pictures of a pair are noised with the same ε to the same t, and asked in one call,
    the better ones first. The reference gets no gradient. Draws: the times; the noise (unless
    the batch brings its own).
    """
    require(
        batch.other is not None and batch.other.shape == batch.x0.shape,
        "gaps: wanted preferences, Batch(x0, cond, other=…) with two pictures of one shape; "
        f"other is {None if batch.other is None else tuple(batch.other.shape)}, x0 "
        f"{tuple(batch.x0.shape)}",
    )
    x0, n = torch.cat([batch.x0, batch.other]), len(batch.x0)
    t = times(draw, n).to(x0.device, torch.promote_types(x0.dtype, torch.float32))
    level = student.schedule.at(torch.cat([t, t]), like=x0)
    noise = draw.normal(batch.x0) if batch.noise is None else batch.noise
    alike("gaps: noise and x0", noise, batch.x0)
    cond = with_both(batch.cond)
    found = _gap(student, reference, x0, torch.cat([noise, noise]), level, cond, weight)
    return Gaps(*found.split(n))


def _gap(
    student: Denoiser,
    reference: Denoiser,
    x0: Tensor,
    noise: Tensor,
    level: NoiseLevel,
    cond: Any,
    weight: Weight,
) -> Tensor:
    x, face = level.alpha * x0 + level.sigma * noise, student.predicts
    a, b = parts(face, level, student.schedule)
    truth, scale = a * x0 + b * noise, weight.on(face, level, student.schedule)

    def error(model: Denoiser) -> Tensor:
        return (scale * (model(x, level, cond).face(face) - truth).square()).flatten(1).mean(1)

    with torch.no_grad():
        held = error(reference)
    return error(student) - held


def diffusion_dpo(
    student: Denoiser,
    reference: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    beta: float = 5000.0,
    weight: Weight = weights.eps,
    times: Times = uniform_times(0.02),
) -> Loss:
    """−E log sigmoid(−½β [(m_θ − m_ref)(better) − (m_θ − m_ref)(worse)]) (Wallace et al. 2024,
    eq. 14, with T and the number of values inside β, as in the authors' code).

    m is a mean over values, so β does not carry over between data of different sizes. Their
    5000 is for 4 × 64 × 64 latents; on a plane 50 to 200 is useful. (The script of diffusers
    has no ½: its 2500 is 5000 here.) At student = reference the loss is log 2, and its
    gradient ¼β ∇(m(better) − m(worse)). Watch `better`: if it keeps rising, the student gets
    worse on what people like, while the loss may still fall. Slightly above 0 is no fault:
    even the exact tilt is, since it lies further out than the winners. Draws: those of `gaps`.

    >>> from dlib import exact, vp, Mixture
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), vp())
    >>> batch = Batch(torch.ones(4, 2), other=torch.zeros(4, 2))
    >>> diffusion_dpo(model, model, batch, Draw(0)).value  # log 2
    tensor(0.6931)
    """
    require(beta > 0, f"diffusion_dpo: beta = {beta:g}, wanted more than 0")
    better, worse = gaps(student, reference, batch, draw, weight=weight, times=times)
    inside = -0.5 * beta * (better - worse)
    value = -logsigmoid(inside).mean()
    with torch.no_grad():
        right = ((inside > 0).double() + 0.5 * (inside == 0)).mean()
        metrics = {"loss": value.detach(), "accuracy": right}
        metrics |= {"better": better.mean(), "worse": worse.mean()}
    return Loss(value, metrics)


def kto(
    student: Denoiser,
    reference: Denoiser,
    batch: Batch,
    liked: Tensor,
    draw: Draw,
    *,
    beta: float = 1000.0,
    weight: Weight = weights.eps,
    times: Times = uniform_times(0.02),
) -> Loss:
    """E [1 − sigmoid(±β (g − g₀))], + for what is liked and − for what is not, g = m_ref − m_θ
    (Diffusion-KTO, Li et al. 2024, eq. 10).

    batch: single pictures; liked: (B,) bool. g₀ is the batch's mean of g, at least 0, a
    constant. At student = reference the loss is ½. Draws: the times; the noise (unless the
    batch brings its own).
    """
    require(beta > 0, f"kto: beta = {beta:g}, wanted more than 0")
    require(
        liked.shape == batch.x0.shape[:1] and liked.dtype == torch.bool,
        f"kto: liked is {liked.dtype} of shape {tuple(liked.shape)}, wanted ({len(batch.x0)},) "
        "of bool: one verdict a picture",
    )
    x0 = batch.x0
    t = times(draw, len(x0)).to(x0.device, torch.promote_types(x0.dtype, torch.float32))
    level = student.schedule.at(t, like=x0)
    noise = draw.normal(x0) if batch.noise is None else batch.noise
    gain = -_gap(student, reference, x0, noise, level, batch.cond, weight)
    start = gain.detach().mean().clamp(min=0)
    sign = liked.to(gain) * 2 - 1
    value = (1 - torch.sigmoid(sign * beta * (gain - start))).mean()
    return Loss(value, {"loss": value.detach(), "gain": gain.detach().mean()})
