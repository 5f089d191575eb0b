"""Floor 5: weights of the denoising loss, all in one currency: w(t) multiplies ‖x₀ − x₀_θ‖².

Losses on ε, v, velocity or score are the x₀ loss under another weight, whichever face the network predicts
(Salimans & Ho 2022, section 4; Kingma et al. 2021). Each weight is a function (level, schedule) ↦ tensor like level.t.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dlib.schedule import NoiseLevel, NoiseSchedule

Weight = Callable[[NoiseLevel, NoiseSchedule], Tensor]


def snr(level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
    """α²/σ²: the loss on ε, ‖ε − ε_θ‖² (Ho et al. 2020, eq. 14), and σ² times the denoising score matching loss."""
    return (level.alpha / level.sigma) ** 2


eps = snr


def x0(level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
    """1: the loss on x₀ itself."""
    return level.alpha * 0 + 1


def v(level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
    """(α² + σ²)²/σ², the loss on v; SNR + 1 where the schedule is variance preserving."""
    return (level.alpha**2 + level.sigma**2) ** 2 / level.sigma**2


def velocity(level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
    """(α̇ − σ̇α/σ)² = α²λ̇²: the loss on dx/dt, which is flow matching (Lipman et al. 2023)."""
    d_alpha, d_sigma = schedule.rates(level.t)
    return (d_alpha - d_sigma * level.alpha / level.sigma) ** 2


def truncated_snr(level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
    """max(SNR, 1) (Salimans & Ho 2022, section 4)."""
    return snr(level, schedule).clamp(min=1)


def min_snr(gamma: float = 5.0) -> Weight:
    """min(SNR, γ) (Hang et al. 2023, eq. 7)."""
    return lambda level, schedule: snr(level, schedule).clamp(max=gamma)


def elbo(level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
    """−½ dSNR/dt = −SNR·λ̇: with t uniform, the diffusion part of the variational bound, in nats (Kingma et al. 2021, eq. 17)."""
    d_alpha, d_sigma = schedule.rates(level.t)
    return -snr(level, schedule) * (d_alpha / level.alpha - d_sigma / level.sigma)
