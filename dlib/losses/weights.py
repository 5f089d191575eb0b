"""Weights of the denoising loss: which face the error is measured on, and what
multiplies it.

Losses on ε, x₀, v, velocity or score are one loss under different weights, whichever face the
network predicts, because for a given x all errors are proportional (Salimans & Ho 2022,
section 4; Kingma et al. 2021). Calling a weight gives its value in one currency: what
multiplies ‖x₀ − x₀_θ‖².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlib.prediction import parts
from dlib.schedule import NoiseLevel, NoiseSchedule


def one(level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
    """1 at every level."""
    return torch.ones_like(level.t)


def exchange(face: str, other: str, level: NoiseLevel, schedule: NoiseSchedule) -> float | Tensor:
    """(error of `face`) / (error of `other`) at the same x: exactly 1 for the same face.

    With x = αx₀ + σε fixed, errors of x₀ and ε are σu and −αu, so that of c·x₀ + d·ε is (cσ −
    dα)u.
    """
    if face == other:
        return 1.0
    (c, d), (a, b) = parts(face, level, schedule), parts(other, level, schedule)
    return (c * level.sigma - d * level.alpha) / (a * level.sigma - b * level.alpha)


@dataclass(frozen=True)
class Weight:
    """factor(level, schedule) · ‖face − face_θ‖². The default factor is 1."""

    face: str
    factor: Callable[[NoiseLevel, NoiseSchedule], Tensor] = one

    def __call__(self, level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
        """The same weight as a multiple of ‖x₀ − x₀_θ‖², like level.t."""
        return self.on("x0", level, schedule)

    def on(self, face: str, level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
        """The same weight as a multiple of the squared error of `face`."""
        return self.factor(level, schedule) * exchange(self.face, face, level, schedule) ** 2


eps = Weight("eps")
"""‖ε − ε_θ‖², SNR in x₀'s currency: DDPM's simple loss (Ho et al. 2020, eq. 14), σ² times
denoising score matching.
"""

x0 = Weight("x0")
"""‖x₀ − x₀_θ‖²."""

v = Weight("v")
"""‖v − v_θ‖²; SNR + 1 in x₀'s currency where the schedule is variance preserving."""

velocity = Weight("velocity")
"""‖dx/dt − u_θ‖²: flow matching (Lipman et al. 2023); α²λ̇² in x₀'s currency."""


def _snr(level: NoiseLevel) -> Tensor:
    return (level.alpha / level.sigma) ** 2


truncated_snr = Weight("x0", lambda level, schedule: _snr(level).clamp(min=1))
"""max(SNR, 1) in x₀'s currency (Salimans & Ho 2022, section 4)."""


def min_snr(gamma: float = 5.0) -> Weight:
    """min(SNR, γ) in x₀'s currency, min(1, γ/SNR) on ε (Hang et al. 2023, eq. 7)."""
    return Weight("eps", lambda level, schedule: (gamma / _snr(level)).clamp(max=1))


def edm(sigma_data: float = 0.5) -> Weight:
    """(κ² + σ_d²)/(κσ_d)² in x₀'s currency, κ = σ/α (Karras et al. 2022, table 1).

    For data of standard deviation σ_d a value's loss is then 1 at every level for the best
    linear denoiser, κ²σ_d²/(κ² + σ_d²).
    """
    return Weight("x0", lambda level, schedule: _snr(level) + sigma_data**-2)


def _falling_snr(level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
    d_alpha, d_sigma = schedule.rates(level.t)
    return level.alpha / level.sigma**2 * (level.alpha * d_sigma / level.sigma - d_alpha)


elbo = Weight("x0", _falling_snr)
"""−½ dSNR/dt in x₀'s currency: with t uniform, the diffusion part of the variational bound, in
nats (Kingma et al. 2021, eq. 17).
"""
