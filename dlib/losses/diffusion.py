"""The one loss that score matching, DDPM, v-prediction and flow matching share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlib._util import Draw, require, sent, tensors
from dlib.denoiser import Denoiser, with_null
from dlib.prediction import parts
from dlib.losses.weights import Weight, exchange
from dlib.schedule import NoiseSchedule


@dataclass(frozen=True)
class Batch:
    """x0 (B, *shape); cond: None, a tensor or a mapping of tensors, batch first; noise: fixed
    ε for given pairs, else drawn; other: of a preference, the worse picture (x0 is the
    better).

    step: which step of training this is, from 0, for losses with a curriculum; the trainer
    sets it. memo: what one phase of a step hands to the next, by name: the student's samples,
    on which the fake score then trains.
    """

    x0: Tensor
    cond: Any = None
    noise: Tensor | None = None
    other: Tensor | None = None
    step: int = 0
    memo: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)


class Loss(NamedTuple):
    """value: the scalar to differentiate, a mean over samples. metrics: detached tensors to
    log, by name.
    """

    value: Tensor
    metrics: dict[str, Tensor]


Times = Callable[[Draw, int], Tensor]
"""(draws, n) ↦ the times of n samples, (n,), or (n, F) for `frame_times`; on the CPU."""


def uniform_times(t_min: float = 1e-3, t_max: float = 1.0) -> Times:
    """t uniform on [t_min, t_max), one a sample."""
    require(
        0 <= t_min < t_max <= 1,
        f"uniform_times: [{t_min:g}, {t_max:g}] is not an interval inside [0, 1]",
    )
    return lambda draw, n: t_min + (t_max - t_min) * draw.uniform(n)


def uniform_omega(omega: tuple[float, float], draw: Draw, like: Tensor) -> Tensor:
    """ω uniform on the range (low, high), one a sample of `like`: (B,), on its device."""
    low, high = omega
    return sent(low + (high - low) * draw.uniform(len(like)), like)


def frame_times(times: Times, frames: int) -> Times:
    """A time for each frame by itself, (n, F): for `denoising(…, per="frame")` (diffusion
    forcing, Chen et al. 2024). Draws: those of `times`, frame after frame.

    >>> frame_times(uniform_times(), 16)(Draw(0), 4).shape
    torch.Size([4, 16])
    """
    require(frames >= 1, f"frame_times: {frames} frames, wanted at least 1")
    return lambda draw, n: torch.stack([times(draw, n) for _ in range(frames)], 1)


def lognormal_times(schedule: NoiseSchedule, mean: float = -1.2, std: float = 1.2) -> Times:
    """Times at which log(σ/α) is normal (Karras et al. 2022, table 1), one a sample; outside
    the schedule, its nearer end.
    """
    check_law("lognormal_times", mean, std)
    return lambda draw, n: schedule.at_lam(-(mean + std * draw.normal((n,)))).t


def check_law(verb: str, mean: float, std: float) -> None:
    """Raise ValueError, in the name of `verb`, for what is no normal law of ln κ."""
    require(math.isfinite(mean), f"{verb}: mean = {mean:g}, wanted the mean of ln κ, a number")
    require(
        0 < std < math.inf,
        f"{verb}: std = {std:g}, wanted the standard deviation of ln κ, above 0",
    )


def drop(cond: Any, null: Any, p: float, draw: Draw) -> Any:
    """The condition with each sample's replaced by the empty one with probability p (Ho &
    Salimans 2022, algorithm 1).

    null: shaped like one sample's condition, as for `guided`. Draws: one uniform a sample, if
    there is a condition.

    >>> drop(torch.arange(6), torch.tensor(-1), 0.5, Draw(0)).tolist()
    [-1, 1, -1, -1, -1, 5]
    """
    require(0 <= p <= 1, f"drop: p = {p:g} is not a probability")
    if cond is None:
        return None
    both, some = with_null(cond, null), next(iter(tensors(cond).values()))
    rows = torch.arange(len(some)) + len(some) * (draw.uniform(len(some)) < p)
    rows = rows.to(some.device)
    return (
        {name: value[rows] for name, value in both.items()}
        if isinstance(both, Mapping)
        else both[rows]
    )


def denoising(
    model: Denoiser, batch: Batch, draw: Draw, weight: Weight, times: Times, per: str = "sample"
) -> Loss:
    """E w(t) ‖face − face_θ(α x₀ + σ ε, t)‖², summed over the sample's values, averaged over
    the batch.

    With the weights of `dlib.losses.weights` this is DDPM's simple loss, denoising score
    matching, v-prediction or flow matching (Vincent 2011; Ho et al. 2020, eq. 14; Lipman et
    al. 2023), for a network that predicts any face. The error is taken on the network's own
    output and exchanged for the weight's face, so a weight on the face that the network
    predicts divides by nothing. per: `frame` for x0 (B, F, *shape) whose frames have times of
    their own, drawn by `frame_times`. Draws: the times, then the noise (unless the batch
    brings its own).
    """
    x0 = batch.x0
    require(
        batch.noise is None or batch.noise.shape == x0.shape,
        "denoising: noise has shape "
        f"{tuple(batch.noise.shape) if batch.noise is not None else None}, x0 "
        f"{tuple(x0.shape)}: one ε for each x0",
    )
    t = times(draw, len(x0)).to(x0.device, torch.promote_types(x0.dtype, torch.float32))
    level = model.schedule.at(t, like=x0, per=per)
    noise = draw.normal(x0) if batch.noise is None else batch.noise
    prediction = model(level.alpha * x0 + level.sigma * noise, level, batch.cond)
    a, b = parts(model.predicts, level, model.schedule)
    square = (prediction.raw - (a * x0 + b * noise)).square()
    scale = (
        weight.factor(level, model.schedule)
        * exchange(weight.face, model.predicts, level, model.schedule) ** 2
    )
    each = (scale * square).flatten(1).sum(1)
    return Loss(each.mean(), {"loss": each.detach().mean(), "raw_mse": square.detach().mean()})
