"""The schedule that is a table: what a network was trained on, such as Stable
Diffusion's thousand levels.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from dlib._util import require
from dlib.schedule.base import NoiseSchedule


def discrete(alphas_cumprod: Tensor) -> NoiseSchedule:
    """A trained ladder ᾱ_0 … ᾱ_{N−1}: index n sits at t = (n+1)/N and λ is linear in t between
    indices.

    The clean end is index 0 (`set_alpha_to_one=False`, as in Stable Diffusion's
    configurations): t lies in [1/N, 1]. alphas_cumprod: (N,), strictly decreasing inside (0,
    1).
    """
    table = torch.as_tensor(alphas_cumprod).detach().double().cpu()
    ok = (
        table.ndim == 1
        and len(table) > 1
        and bool((table.diff() < 0).all() and table[-1] > 0 and table[0] < 1)
    )
    require(
        ok,
        "discrete: alphas_cumprod must be one axis, strictly decreasing, inside (0, 1); "
        "pass scheduler.alphas_cumprod (not betas). A zero last entry (zero terminal SNR) has "
        "no finite λ",
    )
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

    return NoiseSchedule("discrete", coefficients, derivatives, time, t_min=1 / n, ladder=n)


def scaled_linear(beta_0: float = 0.00085, beta_1: float = 0.012, n: int = 1000) -> Tensor:
    """ᾱ of Stable Diffusion 1.x, 2.x and XL: β_n = linspace(√β₀, √β₁)² in float32 (Rombach et
    al. 2022).

    >>> schedule = discrete(scaled_linear())
    >>> round(schedule.at(1.0).lam, 3), round(schedule.at(1 / 1000).lam, 3)
    (-2.682, 3.535)
    """
    betas = torch.linspace(beta_0**0.5, beta_1**0.5, n, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, 0)
