"""Runge–Kutta-like solvers: several calls inside a step, no memory between steps."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel
from dlib.solvers.base import Solver, solver
from dlib.solvers.exponential import expand_eps, expand_x0
from dlib.solvers.first_order import ddim


@solver(order=2, calls=2)
def heun(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """Heun's rule for dy/dκ = ε with y = x/α, κ = σ/α (Karras et al. 2022, alg. 1)."""
    first, r = model(x, a, cond), b.alpha / a.alpha
    second = model(first.mix(b.alpha, b.sigma), b, cond)
    return r * x + 0.5 * (b.sigma - r * a.sigma) * (first.eps + second.eps), memory


def heun_churn(
    s_churn: float, steps: int, s_min: float = 0.0, s_max: float = math.inf, s_noise: float = 1.0
) -> Solver:
    """EDM's stochastic sampler: before each Heun step, raise κ by γ = min(s_churn/steps, √2 −
    1) with fresh noise (Karras et al. 2022, alg. 2).

    Noise is added only at s_min ≤ κ ≤ s_max and has standard deviation s_noise·√(κ̂² − κ²) in
    x/α. Levels of floats; the raised level must be on the schedule, so let s_max be below its
    noisiest κ, as the paper's 50 of 80 is.
    """
    require(
        s_churn >= 0 and steps >= 1,
        f"heun_churn: s_churn = {s_churn:g}, steps = {steps}, wanted ≥ 0 and ≥ 1",
    )
    gamma = min(s_churn / steps, 2**0.5 - 1)

    @solver(order=1, calls=2, noisy=True)
    def step(
        model: Denoiser,
        x: Tensor,
        a: NoiseLevel,
        b: NoiseLevel,
        memory: Any = None,
        noise: Tensor | None = None,
        cond: Any = None,
    ) -> tuple[Tensor, Any]:
        kappa = a.sigma / a.alpha
        if gamma and s_min <= kappa <= s_max:
            lam = a.lam - math.log1p(gamma)
            require(
                lam >= model.schedule.at(1.0).lam,
                f"heun_churn: κ = {kappa:.4g} raised by the factor {1 + gamma:.3g} leaves the "
                "schedule "
                f"{model.schedule.name}: pass an s_max below its noisiest κ",
            )
            raised = model.schedule.at_lam(lam)
            x = (
                raised.alpha / a.alpha * x
                + s_noise * (raised.sigma**2 - (raised.alpha * kappa) ** 2) ** 0.5 * noise
            )
            a = raised
        return heun(model, x, a, b, memory, None, cond)

    step.__name__ = f"heun_churn({s_churn:g}, {steps})"
    return step


@solver(order=2, calls=2)
def dpm_solver_2(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """DPM-Solver-2: ε taken at the midpoint in λ (Lu et al. 2022a, alg. 1, r₁ = ½)."""
    mid = model.schedule.at_lam(0.5 * (a.lam + b.lam))
    u, _ = ddim(model, x, a, mid, cond=cond)
    return expand_eps(x, a, b, model(u, mid, cond).eps), memory


@solver(order=2, calls=2)
def dpm_solver_pp_2s(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """DPM-Solver++(2S): the midpoint rule in the data form (Lu et al. 2022b, alg. 1)."""
    mid = model.schedule.at_lam(0.5 * (a.lam + b.lam))
    u, _ = ddim(model, x, a, mid, cond=cond)
    return expand_x0(x, a, b, model(u, mid, cond).x0), memory


@solver(order=3, calls=3)
def dpm_solver_3(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """DPM-Solver-3: ε's slope from nodes at ⅓ and ⅔ in λ (Lu et al. 2022a, alg. 2; r₂ = ⅔)."""
    h = b.lam - a.lam
    third, two_thirds = (model.schedule.at_lam(a.lam + r * h) for r in (1 / 3, 2 / 3))
    first = model(x, a, cond)
    eps = first.eps
    eps_1 = model(first.mix(third.alpha, third.sigma), third, cond).eps
    u = expand_eps(x, a, two_thirds, eps, (eps_1 - eps) / (h / 3))
    eps_2 = model(u, two_thirds, cond).eps
    return expand_eps(x, a, b, eps, (eps_2 - eps) / (2 * h / 3)), memory
