"""Floor 1: noise schedules. Every chapter's `alpha`, `sigma`, `lam` come from here.

The forward marginal is x_t = α_t x₀ + σ_t ε with t = 0 data and t = 1 noise; λ = log(α/σ) is half the log-SNR and falls
as t grows. A schedule is three functions, t ↦ (α, σ), their time derivatives, and the inverse λ ↦ t; the rest is derived from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dlib._util import per_sample, require


class NoiseLevel(NamedTuple):
    """One point of a schedule. The fields are Python floats (sampling) or tensors (B, 1, …) (training).

    Formulas are plain arithmetic on these fields, so the same step serves a sampler and a loss.
    """

    t: float | Tensor
    alpha: float | Tensor
    sigma: float | Tensor
    lam: float | Tensor


CLEAN = NoiseLevel(t=0.0, alpha=1.0, sigma=0.0, lam=math.inf)
"""The noiseless level. Append it to `levels` for an explicit last denoising: `[*schedule.levels(g), CLEAN]`."""


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = α_t x₀ + σ_t ε for t ∈ [t_min, 1].

    coefficients: t ↦ (α, σ); derivatives: t ↦ (dα/dt, dσ/dt); time: λ ↦ t; each on tensors of any shape. Build one
    with `vp`, `cosine`, `flow`, `edm` or `discrete`, or hand in functions of your own.

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

    def at(self, t: float | Tensor, like: Tensor | None = None) -> NoiseLevel:
        """The level at time `t`: floats for a float; for a tensor (B,), tensors shaped to broadcast against `like`."""
        self._check_time(t)
        if not isinstance(t, Tensor):
            return _floats(self._level(torch.tensor(float(t), dtype=torch.float64)))
        return self._level(t if like is None else per_sample(t, like))

    def at_lam(self, lam: float | Tensor) -> NoiseLevel:
        """The level whose half-log-SNR is `lam` (float or tensor)."""
        if isinstance(lam, Tensor):
            return self._level(self.time(lam))
        return _floats(self._level(self.time(torch.tensor(float(lam), dtype=torch.float64))))

    def levels(self, grid: Tensor | Iterable[float]) -> list[NoiseLevel]:
        """The levels that `sample` walks through: one for each time of `grid`, noise first."""
        times = torch.as_tensor(grid, dtype=torch.float64, device="cpu")
        require(times.ndim == 1, f"levels: the grid has shape {tuple(times.shape)}, wanted one axis of times")
        self._check_time(times)
        rows = torch.stack(list(self._level(times)), 1).tolist()
        return [NoiseLevel(*row) for row in rows]

    def rates(self, t: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
        """(dα/dt, dσ/dt) at time `t`: floats for a float, tensors for a tensor."""
        return self.derivatives(t) if isinstance(t, Tensor) else _float_rates(self, float(t))

    def drift(self, t: float | Tensor) -> float | Tensor:
        """f/x of the forward SDE dx = f dt + g dw: α̇/α, in 1/time (Song et al. 2021, table 1). Infinite where α = 0."""
        return self.rates(t)[0] / self._positive_alpha(t)

    def diffusion(self, t: float | Tensor) -> float | Tensor:
        """g² of the forward SDE: d(σ²)/dt − 2(α̇/α)σ² = −2σ²λ̇ (Kingma et al. 2021). Infinite where α = 0."""
        (d_alpha, d_sigma), sigma = self.rates(t), self.at(t).sigma
        return 2 * sigma * (d_sigma - d_alpha / self._positive_alpha(t) * sigma)

    def _positive_alpha(self, t: float | Tensor) -> float | Tensor:
        alpha = self.at(t).alpha
        require(isinstance(alpha, Tensor) or alpha > 0, f"{self.name}: the forward SDE is singular at t = {t}, where alpha = 0: take t < 1")
        return alpha

    def _level(self, t: Tensor) -> NoiseLevel:
        t = t.clamp(self.t_min, 1)  # rounding may have carried a float32 time a little past an end
        alpha, sigma = self.coefficients(t)
        return NoiseLevel(t, alpha, sigma, alpha.log() - sigma.log())

    def _check_time(self, t: float | Tensor) -> None:
        if isinstance(t, Tensor) and t.device.type != "cpu":
            return  # reading a value back from an accelerator would stall it; times are drawn on the CPU anyway
        low, high = (float(t.min()), float(t.max())) if isinstance(t, Tensor) else (t, t)
        require(
            self.t_min - 1e-6 <= low and high <= 1 + 1e-6,  # also false for NaN
            f"{self.name}: time {low if not low >= self.t_min else high:g} is outside [{self.t_min:g}, 1] "
            "(t = 0 is data, t = 1 is noise): rescale the times, e.g. t = (index + 1) / 1000 for Stable Diffusion",
        )


def _floats(level: NoiseLevel) -> NoiseLevel:
    return NoiseLevel(*(field.item() for field in level))


@lru_cache(maxsize=4096)
def _float_rates(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    d_alpha, d_sigma = schedule.derivatives(torch.tensor(t, dtype=torch.float64))
    return d_alpha.item(), d_sigma.item()


def vp(beta_0: float = 0.1, beta_1: float = 20.0) -> NoiseSchedule:
    """Variance preserving, α² + σ² = 1, with β(t) linear from β₀ to β₁ (Song et al. 2021, eq. 32)."""

    def coefficients(t: Tensor) -> tuple[Tensor, Tensor]:
        integral = beta_0 * t + 0.5 * (beta_1 - beta_0) * t**2  # B(t) = ∫β
        return (-0.5 * integral).exp(), (-torch.expm1(-integral)).sqrt()

    def derivatives(t: Tensor) -> tuple[Tensor, Tensor]:
        (alpha, sigma), beta = coefficients(t), beta_0 + (beta_1 - beta_0) * t
        return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / sigma

    def time(lam: Tensor) -> Tensor:
        integral = torch.nn.functional.softplus(-2 * lam)
        return 2 * integral / (beta_0 + (beta_0**2 + 2 * (beta_1 - beta_0) * integral).sqrt())

    return NoiseSchedule("vp", coefficients, derivatives, time)


def cosine(s: float = 0.008) -> NoiseSchedule:
    """Cosine, α = cos(½π(t+s)/(1+s)) / cos(½πs/(1+s)) (Nichol & Dhariwal 2021, eq. 17). α(1) is exactly 0."""
    quarter = 0.5 * math.pi / (1 + s)
    top = math.cos(quarter * s)

    def coefficients(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = torch.sin(quarter * (1 - t)) / top  # the same cosine, but an exact 0 at t = 1
        # 1 − α² = sin(q t) sin(q (t + 2s)) / cos²(q s), free of the cancellation at t → 0
        return alpha, (torch.sin(quarter * t) * torch.sin(quarter * (t + 2 * s))).sqrt() / top

    def derivatives(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = coefficients(t)
        d_alpha = -quarter * torch.cos(quarter * (1 - t)) / top
        return d_alpha, -alpha * d_alpha / sigma  # from α² + σ² = 1

    def time(lam: Tensor) -> Tensor:
        return 1 - torch.asin(top * torch.sigmoid(2 * lam).sqrt()) / quarter

    return NoiseSchedule("cosine", coefficients, derivatives, time)


def flow() -> NoiseSchedule:
    """Straight paths, α = 1 − t and σ = t (Lipman et al. 2023; Liu et al. 2023), so dx/dt = ε − x₀."""
    return NoiseSchedule(
        "flow", lambda t: (1 - t, t), lambda t: (-torch.ones_like(t), torch.ones_like(t)), lambda lam: torch.sigmoid(-lam)
    )


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> NoiseSchedule:
    """Variance exploding, α = 1, with σ^{1/ρ} linear in t (Karras et al. 2022, eq. 5): uniform t is Karras's grid."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def coefficients(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), (low + t * (high - low)) ** rho

    def derivatives(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), rho * (high - low) * (low + t * (high - low)) ** (rho - 1)

    return NoiseSchedule("edm", coefficients, derivatives, lambda lam: ((-lam / rho).exp() - low) / (high - low))


def discrete(alphas_cumprod: Tensor) -> NoiseSchedule:
    """A trained ladder ᾱ_0 … ᾱ_{N−1}: index n sits at t = (n+1)/N and λ is linear in t between indices.

    The clean end is index 0 (`set_alpha_to_one=False`, as in Stable Diffusion's configurations): t lies in [1/N, 1].
    alphas_cumprod: (N,), strictly decreasing inside (0, 1).
    """
    table = torch.as_tensor(alphas_cumprod).detach().double().cpu()
    ok = table.ndim == 1 and len(table) > 1 and bool((table.diff() < 0).all() and table[-1] > 0 and table[0] < 1)
    require(ok, "discrete: alphas_cumprod must be one axis, strictly decreasing, inside (0, 1); "
                "pass scheduler.alphas_cumprod (not betas). A zero last entry (zero terminal SNR) has no finite λ")
    n, lam_table = len(table), 0.5 * (table / (1 - table)).log()

    @lru_cache(maxsize=8)
    def on(device: torch.device, dtype: torch.dtype) -> Tensor:
        return lam_table.to(device, dtype)

    def line(t: Tensor) -> tuple[Tensor, Tensor]:
        """λ at t and its slope in t."""
        lam, place = on(t.device, t.dtype), t * n - 1
        i = place.detach().floor().long().clamp(0, n - 2)
        step = lam[i + 1] - lam[i]
        return lam[i] + (place - i) * step, step * n

    def coefficients(t: Tensor) -> tuple[Tensor, Tensor]:
        value, _ = line(t)
        return torch.sigmoid(2 * value).sqrt(), torch.sigmoid(-2 * value).sqrt()

    def derivatives(t: Tensor) -> tuple[Tensor, Tensor]:
        (alpha, sigma), (_, slope) = coefficients(t), line(t)
        return alpha * sigma**2 * slope, -sigma * alpha**2 * slope

    def time(value: Tensor) -> Tensor:
        lam = on(value.device, value.dtype)
        i = (torch.searchsorted(-lam, -value.detach().contiguous()) - 1).clamp(0, n - 2)
        return (i + (value - lam[i]) / (lam[i + 1] - lam[i]) + 1) / n

    return NoiseSchedule("discrete", coefficients, derivatives, time, t_min=1 / n)


def scaled_linear(beta_0: float = 0.00085, beta_1: float = 0.012, n: int = 1000) -> Tensor:
    """ᾱ of Stable Diffusion 1.x, 2.x and XL: β_n = linspace(√β₀, √β₁)² in float32 (Rombach et al. 2022).

    >>> schedule = discrete(scaled_linear())
    >>> round(schedule.at(1.0).lam, 3), round(schedule.at(1 / 1000).lam, 3)
    (-2.682, 3.535)
    """
    betas = torch.linspace(beta_0**0.5, beta_1**0.5, n, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, 0)
