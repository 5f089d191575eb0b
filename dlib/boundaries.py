"""The boundary of a consistency model: at the clean end it returns its input,
whatever the network says.

A consistency function f maps every point of a trajectory to its clean end, so on the end
itself f(x) = x. Without that condition f = const would satisfy every consistency loss. It is
built in by f = c_skip·x + c_out·x₀_θ with c_skip = 1 and c_out = 0 at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser, bare
from dlib.prediction import Prediction
from dlib.schedule import NoiseLevel, NoiseSchedule

SkipOut = Callable[[NoiseLevel], tuple]


@dataclass(frozen=True, kw_only=True)
class Bounded(Denoiser):
    """A denoiser whose x₀ is f = c_skip·x + c_out·x₀_θ; made by `boundary`.

    `net` is still the network itself, which predicts `output`; so `guided`, `frozen` and
    `counted` act on the network, and because f is affine in its output, guiding f and guiding
    the network are the same.
    """

    output: str
    skip_out: SkipOut

    def __call__(self, x: Tensor, level: NoiseLevel, cond: Any = None) -> Prediction:
        inner = Denoiser(self.net, self.schedule, self.output, self.clock)(x, level, cond)
        skip, out = self.skip_out(level)
        return Prediction(
            inner.x, level, (skip * inner.x + out * inner.x0).to(inner.x.dtype), self
        )


def boundary(model: Denoiser, skip_out: SkipOut) -> Denoiser:
    """The denoiser f = c_skip·x + c_out·x₀_θ (Song et al. 2023, eq. 5), which predicts x₀.

    skip_out: level ↦ (c_skip, c_out), floats or tensors (B, 1, …) like the level:
    `edm_boundary(schedule)` or `lcm_scalings(schedule)`. The other faces follow from x₀ = f,
    at the same x.

    >>> import torch
    >>> from dlib.schedule import edm
    >>> model = Denoiser(lambda x, t, cond: torch.sin(x), edm(), "x0")
    >>> f = boundary(model, edm_boundary(edm()))
    >>> x = torch.ones(3, 2)
    >>> bool((f(x, edm().at(0.0)).x0 == x).all()), bool((f(x, edm().at(1.0)).x0 == x).all())
    (True, False)
    """
    bare(model, "boundary")
    return Bounded(
        model.net, model.schedule, "x0", model.clock, output=model.predicts, skip_out=skip_out
    )


def edm_boundary(
    schedule: NoiseSchedule, t_end: float | None = None, sigma_data: float = 0.5
) -> SkipOut:
    """Consistency distillation's scalings: f = x/α at `t_end` (the schedule's clean end unless
    given), where κ = κ_min.

    In κ = σ/α and y = x/α the paper has f = s(κ−κ_min)·y + σ_d(κ−κ_min)/√(κ²+σ_d²)·F with s(κ)
    = σ_d²/(κ²+σ_d²) (Song et al. 2023, appendix C), where EDM's denoiser is x₀ = s(κ)·y +
    σ_dκ/√(κ²+σ_d²)·F (Karras et al. 2022, table 1). With F eliminated, c_out = (κ−κ_min)/κ and
    c_skip = (s(κ−κ_min) − c_out·s(κ))/α: the same f for a network of any face. sigma_data: the
    standard deviation σ_d of the data.

    >>> from dlib.schedule import edm
    >>> edm_boundary(edm())(edm().at(0.0))
    (1.0, 0.0)
    """
    require(
        sigma_data > 0,
        f"edm_boundary: sigma_data = {sigma_data:g}, wanted the data's standard deviation, "
        "above 0",
    )
    end = schedule.at(schedule.t_min if t_end is None else t_end)
    kappa_min, variance = end.sigma / end.alpha, sigma_data**2

    def skip_out(level: NoiseLevel) -> tuple:
        kappa = level.sigma / level.alpha
        beyond = kappa - kappa_min
        out = beyond / kappa
        return (
            variance / (beyond**2 + variance) - out * variance / (kappa**2 + variance)
        ) / level.alpha, out

    return skip_out


def lcm_scalings(
    schedule: NoiseSchedule, t_end: float | None = None, sigma_data: float = 0.5
) -> SkipOut:
    """Latent consistency models' scalings: f = x at `t_end` (the schedule's clean end unless
    given).

    c_skip = σ_d²/(τ²+σ_d²) and c_out = τ/√(τ²+σ_d²) with τ = 10 × the index above the end,
    1000 indices to t = 1 on every schedule (Luo et al. 2023a, as released: without the factor
    σ_d of consistency distillation). At the first trained index, 19, c_skip is 7e-6: a switch,
    which is on at the end alone.

    >>> from dlib.schedule import discrete, scaled_linear
    >>> ladder = discrete(scaled_linear())
    >>> [round(c, 6) for c in lcm_scalings(ladder)(ladder.at(20 / 1000))]
    [7e-06, 0.999997]
    """
    end, variance = schedule.t_min if t_end is None else t_end, sigma_data**2

    def skip_out(level: NoiseLevel) -> tuple:
        tau = 10_000 * (level.t - end)
        square = tau**2 + variance
        return variance / square, tau / square**0.5

    return skip_out
