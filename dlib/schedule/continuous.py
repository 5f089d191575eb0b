"""The schedules that are formulas: variance preserving, cosine, flow, sub-VP, and two
variance exploding ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlib.schedule.base import NoiseSchedule


def vp(beta_0: float = 0.1, beta_1: float = 20.0) -> NoiseSchedule:
    """Variance preserving, α² + σ² = 1, with β(t) linear from β₀ to β₁ (Song et al. 2021b, eq.
    32).
    """

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
    """Cosine, α = cos(½π(t+s)/(1+s)) / cos(½πs/(1+s)) (Nichol & Dhariwal 2021, eq. 17). α(1)
    is exactly 0.
    """
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
    """Straight paths, α = 1 − t and σ = t (Lipman et al. 2023; Liu et al. 2023), so dx/dt = ε
    − x₀.
    """
    return NoiseSchedule(
        "flow",
        lambda t: (1 - t, t),
        lambda t: (-torch.ones_like(t), torch.ones_like(t)),
        lambda lam: torch.sigmoid(-lam),
    )


def sub_vp(beta_0: float = 0.1, beta_1: float = 20.0) -> NoiseSchedule:
    """Sub-variance preserving: α as in `vp`, σ = 1 − α², never above `vp`'s (Song et al.
    2021b, eq. 29).
    """
    same = vp(beta_0, beta_1)

    def coefficients(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = same.coefficients(t)
        return alpha, sigma**2

    def derivatives(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, _ = same.coefficients(t)
        d_alpha, _ = same.derivatives(t)
        return d_alpha, -2 * alpha * d_alpha

    def time(lam: Tensor) -> Tensor:
        # κ = (1 − α²)/α, so α = 2/(κ + √(κ² + 4)) and VP's own λ follows from α
        kappa = (-lam).exp()
        alpha = 2 / (kappa + (kappa**2 + 4).sqrt())
        return same.time(0.5 * (alpha.log() - kappa.log()))

    return NoiseSchedule("sub_vp", coefficients, derivatives, time)


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> NoiseSchedule:
    """Variance exploding, α = 1, with log σ linear in t: geometric noise levels (Song et al.
    2021b, eq. 30, whose −σ_min² is dropped).
    """
    low, width = math.log(sigma_min), math.log(sigma_max / sigma_min)

    def coefficients(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), (low + width * t).exp()

    def derivatives(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), width * (low + width * t).exp()

    return NoiseSchedule("ve", coefficients, derivatives, lambda lam: (-lam - low) / width)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> NoiseSchedule:
    """Variance exploding, α = 1, with σ^{1/ρ} linear in t (Karras et al. 2022, eq. 5): uniform
    t is Karras's grid.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def coefficients(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), (low + t * (high - low)) ** rho

    def derivatives(t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), rho * (high - low) * (low + t * (high - low)) ** (rho - 1)

    return NoiseSchedule(
        "edm", coefficients, derivatives, lambda lam: ((-lam / rho).exp() - low) / (high - low)
    )
