"""Guidance that is more than one number: limited to some noise levels, rescaled,
thresholded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser, Net, bare, both_sides, one_network, with_null
from dlib.prediction import Prediction
from dlib.schedule import NoiseLevel


@dataclass(frozen=True, kw_only=True)
class Between(Denoiser):
    """A denoiser that is `inside` for noise levels low ≤ κ ≤ high and `outside` elsewhere;
    made by `between`.
    """

    inside: Denoiser
    outside: Denoiser
    low: float
    high: float

    def __call__(self, x: Tensor, level: NoiseLevel, cond: Any = None) -> Prediction:
        require(
            isinstance(level.t, float),
            "between: this denoiser chooses by the noise level of the whole batch: use levels "
            "of floats, as sample does",
        )
        inside = self.low * level.alpha <= level.sigma <= self.high * level.alpha
        return (self.inside if inside else self.outside)(x, level, cond)

    def rewired(self, wire: Callable[[Net], Net]) -> Denoiser:
        """The same with `wire` around both networks."""
        return replace(
            self,
            net=wire(self.net),
            inside=self.inside.rewired(wire),
            outside=self.outside.rewired(wire),
        )


def between(inside: Denoiser, outside: Denoiser, low: float, high: float) -> Denoiser:
    """`inside` at noise levels with low ≤ κ = σ/α ≤ high, `outside` elsewhere (Kynkäänniemi et
    al. 2024, eq. 4).

    Interval guidance is `between(guided(model, omega, null), model, low, high)`: outside the
    interval it costs no second evaluation. Levels must be floats.
    """
    require(
        0 <= low < high,
        f"between: [{low:g}, {high:g}] is not an interval of noise levels κ = σ/α ≥ 0",
    )
    require(
        inside.schedule is outside.schedule
        or inside.schedule.at(0.5) == outside.schedule.at(0.5),
        f"between: the denoisers are on different schedules, {inside.schedule.name} and "
        f"{outside.schedule.name}",
    )
    return Between(
        inside.net,
        inside.schedule,
        inside.predicts,
        inside.clock,
        inside=inside,
        outside=outside,
        low=low,
        high=high,
    )


def contrasted(positive: Denoiser, negative: Denoiser, omega: float, null: Any) -> Denoiser:
    """Guidance between two networks, (1+ω) ε_pos(x, c) − ω ε_neg(x, ∅) (Wang et al. 2025,
    Diffusion-NPO; with a weaker network of the same task, Karras et al. 2024, autoguidance).

    Twice the same network is `guided`. null: the empty condition for the negative, or None
    where it is told the same condition. Both must predict the same face on one schedule. Two
    calls, of B samples each; the faces agree as in `guided`.
    """
    for model in (positive, negative):
        one_network(model, "contrasted")
    require(
        positive.predicts == negative.predicts
        and positive.schedule.at(0.5) == negative.schedule.at(0.5)
        and positive.clock(0.37) == negative.clock(0.37),
        f"contrasted: one predicts {positive.predicts} on {positive.schedule.name}, the other "
        f"{negative.predicts} on {negative.schedule.name}, or their clocks differ: both must be "
        "alike",
    )

    def net(x: Tensor, time: Tensor, cond: Any) -> Tensor:
        told = cond if null is None else alone(cond, null)
        ours, theirs = positive.net(x, time, cond), negative.net(x, time, told)
        wide = torch.promote_types(ours.dtype, torch.float32)
        return torch.lerp(theirs.to(wide), ours.to(wide), 1.0 + omega)

    net.inner = positive.net
    return replace(positive, net=net)


def alone(cond: Any, null: Any) -> Any:
    """The empty condition for as many samples as `cond` has."""
    require(
        cond is not None,
        "contrasted: no condition given: pass cond=… to sample, or null=None to contrasted",
    )
    both = with_null(cond, null)
    half = lambda value: value[len(value) // 2 :]
    return {k: half(v) for k, v in both.items()} if isinstance(both, dict) else half(both)


def rescaled(model: Denoiser, omega: float, null: Any, phi: float = 0.7) -> Denoiser:
    """Guidance whose spread is brought back to the conditional prediction's (Lin et al. 2024,
    section 3.4, eq. 15 and 16).

    With std over all of a sample's values: raw ← φ·raw_ω·std(raw_c)/std(raw_ω) + (1 −
    φ)·raw_ω. It acts on the face that the network predicts, and its effect depends on which
    that is; the paper's networks predict v. φ = 0 is `guided`.
    """
    require(0 <= phi <= 1, f"rescaled: phi = {phi:g} is outside [0, 1] (0 is plain guidance)")
    one_network(model, "rescaled")

    def net(x: Tensor, time: Tensor, cond: Any) -> Tensor:
        conditional, empty = both_sides(model, x, time, cond, null)
        raw = torch.lerp(empty, conditional, 1.0 + omega)
        ratio = _spread(conditional) / _spread(raw)
        return raw * (1 - phi + phi * ratio)

    net.inner = model.net
    return replace(model, net=net)


def _spread(x: Tensor) -> Tensor:
    return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Thresholded(Denoiser):
    """A denoiser whose x₀ is kept in range; made by `thresholded`."""

    output: str
    quantile: float

    def __call__(self, x: Tensor, level: NoiseLevel, cond: Any = None) -> Prediction:
        inner = Denoiser(self.net, self.schedule, self.output, self.clock)(x, level, cond)
        size = (
            inner.x0.flatten(1)
            .abs()
            .quantile(self.quantile, dim=1)
            .clamp(min=1)
            .view(-1, *(1,) * (x.ndim - 1))
        )
        return Prediction(inner.x, level, inner.x0.clamp(-size, size) / size, self)


def thresholded(model: Denoiser, quantile: float = 0.995) -> Denoiser:
    """Dynamic thresholding: x₀ clipped to ±s and divided by s, s the quantile of |x₀| or 1 if
    that is larger (Saharia et al. 2022, section 2.3).

    For data in [−1, 1], pixels: latents have no such range. quantile = 1 scales without
    clipping. The other faces, ε among them, follow from the new x₀ at the same x; ones that
    kept the network's ε would leave the level.
    """
    require(0 < quantile <= 1, f"thresholded: quantile = {quantile:g} is outside (0, 1]")
    bare(model, "thresholded")
    return Thresholded(
        model.net, model.schedule, "x0", model.clock, output=model.predicts, quantile=quantile
    )
