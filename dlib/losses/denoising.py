"""Floor 5: the one loss that score matching, DDPM, v-prediction and flow matching share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser, parts
from dlib.losses.weights import Weight, exchange


@dataclass(frozen=True)
class Batch:
    """x0 (B, *shape); cond: None, a tensor or a mapping of tensors, batch first; noise: fixed ε for given pairs, else drawn."""

    x0: Tensor
    cond: Any = None
    noise: Tensor | None = None


class Loss(NamedTuple):
    """value: the scalar to differentiate, a mean over samples. metrics: detached tensors to log, by name."""

    value: Tensor
    metrics: dict[str, Tensor]


Times = Callable[[Draw, int], Tensor]


def uniform_times(t_min: float = 1e-3, t_max: float = 1.0) -> Times:
    """t uniform on [t_min, t_max), one a sample."""
    require(0 <= t_min < t_max <= 1, f"uniform_times: [{t_min:g}, {t_max:g}] is not an interval inside [0, 1]")
    return lambda draw, n: t_min + (t_max - t_min) * draw.uniform(n)


def denoising(model: Denoiser, batch: Batch, draw: Draw, weight: Weight, times: Times) -> Loss:
    """E w(t) ‖face − face_θ(α x₀ + σ ε, t)‖², summed over the sample's values, averaged over the batch.

    With the weights of `dlib.losses.weights` this is DDPM's simple loss, denoising score matching, v-prediction or flow
    matching (Vincent 2011; Ho et al. 2020, eq. 14; Lipman et al. 2023), for a network that predicts any face. The error
    is taken on the network's own output and exchanged for the weight's face, so a weight on the face that the network
    predicts divides by nothing. Draws: the times, then the noise (unless the batch brings its own).
    """
    x0 = batch.x0
    require(batch.noise is None or batch.noise.shape == x0.shape,
            f"denoising: noise has shape {tuple(batch.noise.shape) if batch.noise is not None else None}, x0 {tuple(x0.shape)}: one ε for each x0")
    t = times(draw, len(x0)).to(x0.device, torch.promote_types(x0.dtype, torch.float32))
    level = model.schedule.at(t, like=x0)
    noise = draw.normal(x0) if batch.noise is None else batch.noise
    prediction = model(level.alpha * x0 + level.sigma * noise, level, batch.cond)
    a, b = parts(model.predicts, level, model.schedule)
    square = (prediction.raw - (a * x0 + b * noise)).square()
    scale = weight.factor(level, model.schedule) * exchange(weight.face, model.predicts, level, model.schedule) ** 2
    each = (scale * square).flatten(1).sum(1)
    return Loss(each.mean(), {"loss": each.detach().mean(), "raw_mse": square.detach().mean()})
