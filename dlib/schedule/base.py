"""What a noise schedule is.

The forward marginal is x_t = α_t x₀ + σ_t ε with t = 0 data and t = 1 noise; λ = log(α/σ) is
half the log-SNR and falls as t grows. A schedule is three functions, t ↦ (α, σ), their time
derivatives, and the inverse λ ↦ t; the rest is derived from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dlib._util import require, spread


class NoiseLevel(NamedTuple):
    """One point of a schedule. The fields are Python floats (sampling) or tensors (training):
    (B, 1, …), or (B, F, 1, …) with a time for each frame of a video.

    Formulas are plain arithmetic on these fields, so the same step serves a sampler and a
    loss.
    """

    t: float | Tensor
    alpha: float | Tensor
    sigma: float | Tensor
    lam: float | Tensor


CLEAN = NoiseLevel(t=0.0, alpha=1.0, sigma=0.0, lam=math.inf)
"""The noiseless level. Append it to `levels` for an explicit last denoising:
`[*schedule.levels(g), CLEAN]`.
"""


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = α_t x₀ + σ_t ε for t ∈ [t_min, 1].

    coefficients: t ↦ (α, σ); derivatives: t ↦ (dα/dt, dσ/dt); time: λ ↦ t; each on tensors of
    any shape. ladder: how many trained indices a `discrete` schedule has, index n at t =
    (n+1)/ladder; None for a formula. Build one with `vp`, `sub_vp`, `ve`, `cosine`, `flow`,
    `edm` or `discrete`, or hand in functions of your own.

    >>> from dlib.schedule import vp
    >>> schedule = vp()
    >>> level = schedule.at(0.5)
    >>> round(level.alpha**2 + level.sigma**2, 12)
    1.0
    """

    name: str
    coefficients: Callable[[Tensor], tuple[Tensor, Tensor]]
    derivatives: Callable[[Tensor], tuple[Tensor, Tensor]]
    time: Callable[[Tensor], Tensor]
    t_min: float = 0.0
    ladder: int | None = None

    def at(
        self, t: float | Tensor, like: Tensor | None = None, per: str = "sample"
    ) -> NoiseLevel:
        """The level at time `t`: floats for a float, tensors for a tensor.

        like: x (B, *shape), against which the tensors are to broadcast. t is then one time a
        sample, (B,), and the level's fields are (B, 1, …). For a video x (B, F, *shape) with
        one time a frame, t (B, F), say per="frame": the fields are (B, F, 1, …). ValueError
        for other shapes: no axis of t is guessed.

        >>> from dlib.schedule import flow
        >>> video, t = torch.zeros(2, 5, 3, 8, 8), torch.rand(2, 5)
        >>> flow().at(t, like=video, per="frame").sigma.shape
        torch.Size([2, 5, 1, 1, 1])
        """
        self._check_time(t)
        require(
            per == "sample" or (isinstance(t, Tensor) and like is not None),
            f"at: per = {per!r} is about a tensor of times for x: at(t, like=x, per='frame')",
        )
        if not isinstance(t, Tensor):
            return _floats(self._level(torch.tensor(float(t), dtype=torch.float64)))
        return self._level(t if like is None else spread(t, like, per))

    def at_lam(self, lam: float | Tensor) -> NoiseLevel:
        """The level whose half-log-SNR is `lam` (float or tensor)."""
        if isinstance(lam, Tensor):
            return self._level(self.time(lam))
        return _floats(self._level(self.time(torch.tensor(float(lam), dtype=torch.float64))))

    def levels(self, grid: Tensor | Iterable[float]) -> list[NoiseLevel]:
        """The levels that `sample` walks through: one for each time of `grid`, noise first."""
        times = torch.as_tensor(grid, dtype=torch.float64, device="cpu")
        require(
            times.ndim == 1,
            f"levels: the grid has shape {tuple(times.shape)}, wanted one axis of times",
        )
        self._check_time(times)
        rows = torch.stack(list(self._level(times)), 1).tolist()
        return [NoiseLevel(*row) for row in rows]

    def rates(self, t: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
        """(dα/dt, dσ/dt) at time `t`: floats for a float, tensors for a tensor."""
        return self.derivatives(t) if isinstance(t, Tensor) else _float_rates(self, float(t))

    def drift(self, t: float | Tensor) -> float | Tensor:
        """f/x of the forward SDE dx = f dt + g dw: α̇/α, in 1/time (Song et al. 2021b, table
        1). Infinite where α = 0.
        """
        return self.rates(t)[0] / self._positive_alpha(t)

    def diffusion(self, t: float | Tensor) -> float | Tensor:
        """g² of the forward SDE: d(σ²)/dt − 2(α̇/α)σ² = −2σ²λ̇ (Kingma et al. 2021). Infinite
        where α = 0.
        """
        (d_alpha, d_sigma), sigma = self.rates(t), self.at(t).sigma
        return 2 * sigma * (d_sigma - d_alpha / self._positive_alpha(t) * sigma)

    def _positive_alpha(self, t: float | Tensor) -> float | Tensor:
        alpha = self.at(t).alpha
        require(
            isinstance(alpha, Tensor) or alpha > 0,
            f"{self.name}: the forward SDE is singular at t = {t}, where alpha = 0: take t < 1",
        )
        return alpha

    def _level(self, t: Tensor) -> NoiseLevel:
        # rounding may have carried a float32 time a little past an end
        t = t.clamp(self.t_min, 1)
        alpha, sigma = self.coefficients(t)
        return NoiseLevel(t, alpha, sigma, alpha.log() - sigma.log())

    def _check_time(self, t: float | Tensor) -> None:
        if isinstance(t, Tensor) and t.device.type != "cpu":
            # reading a value back from an accelerator would stall it; times are drawn on the CPU
            # anyway
            return
        low, high = (float(t.min()), float(t.max())) if isinstance(t, Tensor) else (t, t)
        require(
            self.t_min - 1e-6 <= low and high <= 1 + 1e-6,  # also false for NaN
            f"{self.name}: time {low if not low >= self.t_min else high:g} is outside "
            f"[{self.t_min:g}, 1] "
            "(t = 0 is data, t = 1 is noise): rescale the times, e.g. t = (index + 1) / 1000 "
            "for Stable Diffusion",
        )


def _floats(level: NoiseLevel) -> NoiseLevel:
    return NoiseLevel(*(field.item() for field in level))


@lru_cache(maxsize=4096)
def _float_rates(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    d_alpha, d_sigma = schedule.derivatives(torch.tensor(t, dtype=torch.float64))
    return d_alpha.item(), d_sigma.item()
