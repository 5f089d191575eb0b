"""Samplers of consistency models: jump to the clean end, add noise again, jump again.

All three are noisy. A network that was distilled into a consistency model is wrapped in its
`boundary` first. Phased consistency models need no solver of their own: they are sampled by
`ddim` along the edges of their phases.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel, NoiseSchedule
from dlib.solvers.base import Solver, solver
from dlib.solvers.exponential import expm1


def travel(x: Tensor, a: NoiseLevel, b: NoiseLevel, noise: Tensor) -> Tensor:
    """From the cleaner level a up to the noisier b: (α_b/α_a) x + √(σ_b² − (α_b/α_a)² σ_a²) z.

    The forward process q(x_b | x_a): it carries the marginal at a into the marginal at b. The
    standard deviation is σ_b √(1 − e^{−2(λ_a − λ_b)}), which has no cancellation and is
    exactly 0 for a = b. noise: standard normal like x.

    >>> import torch
    >>> from dlib.schedule import CLEAN, vp
    >>> b = vp().at(0.5)
    >>> bool((travel(torch.ones(2), CLEAN, b, torch.ones(2)) == b.alpha + b.sigma).all())
    True
    """
    fresh = -expm1(2 * (b.lam - a.lam))
    # a and b may be one level, rounded twice
    fresh = fresh.clamp(min=0) if isinstance(fresh, Tensor) else max(fresh, 0.0)
    return (b.alpha / a.alpha) * x + (b.sigma * fresh**0.5) * noise


@solver(order=1, noisy=True)
def lcm(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """Latent consistency sampling, α_b x₀ + σ_b z: the clean prediction with all noise new
    (Luo et al. 2023a, alg. 3).

    The last step must not add noise: `levels(schedule, 4, "lcm", end="clean")`.
    """
    return model(x, a, cond).mix(b.alpha, 0.0) + b.sigma * noise, memory


@solver(order=1, noisy=True)
def stochastic_iterative(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """Multistep consistency sampling: f(x) lies at κ_min, and b is α_b (f + √(κ_b² − κ_min²)
    z) (Song et al. 2023, alg. 1).

    κ_min is that of the schedule's clean end. End at `CLEAN`, where the step is f alone:
    `levels(schedule, n, end="clean")`.
    """
    end = model.schedule.at(model.schedule.t_min)
    f = model(x, a, cond).mix(end.alpha, 0.0)
    return travel(f, end, b, noise), memory


def tcd(gamma: float = 0.3) -> Solver:
    """Strategic stochastic sampling: DDIM to a level s below b, then noise up to b (Zheng et
    al. 2024, alg. 4).

    s lies at (1−γ) of b's time above the clean end; on a trained ladder at the index ⌊(1−γ)n⌋.
    γ = 0 is DDIM, γ = 1 jumps to the clean end each time. On a ladder end at the grid's last
    level, index 0, which adds no noise; on a schedule that is a formula end at `CLEAN`.

    >>> tcd(0.5).noisy, tcd(0.5).__name__
    (True, 'tcd(0.5)')
    """
    require(
        0 <= gamma <= 1,
        f"tcd: gamma = {gamma:g} is outside [0, 1] (0 is DDIM, 1 renews all noise)",
    )

    @solver(order=1, noisy=True)
    def step(
        model: Denoiser,
        x: Tensor,
        a: NoiseLevel,
        b: NoiseLevel,
        memory: Any = None,
        noise: Tensor | None = None,
        cond: Any = None,
    ) -> tuple[Tensor, Any]:
        s = _below(model.schedule, b.t, gamma) if gamma else b
        return travel(model(x, a, cond).mix(s.alpha, s.sigma), s, b, noise), memory

    step.__name__ = f"tcd({gamma:g})"
    return step


def _below(schedule: NoiseSchedule, t: float | Tensor, gamma: float) -> NoiseLevel:
    """The level a share γ of the way from t to the clean end; on a ladder the index at or
    below it.
    """
    t = t - gamma * (t - schedule.t_min)
    if schedule.ladder:
        place = t * schedule.ladder - 1 + 1e-3  # float32 times are up to this far off an index
        t = ((place.floor() if isinstance(place, Tensor) else place // 1) + 1) / schedule.ladder
    return schedule.at(t)


tcd_default = tcd()
"""`tcd` with the released γ = 0.3: what `SOLVERS` holds under that name."""
tcd_default.__name__ = "tcd"
