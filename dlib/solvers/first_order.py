"""One call, first order: Euler and Euler–Maruyama, DDIM and its stochastic family."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel
from dlib.solvers.base import Solver, solver
from dlib.solvers.exponential import expm1


@solver(order=1)
def euler(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """Euler's rule for dx/dt on this schedule, x + (t_b − t_a)·velocity: the baseline, which
    takes the linear part and the schedule's clock κ(t) as they are at the start of the step.
    """
    return x + (b.t - a.t) * model(x, a, cond).velocity, memory


def euler_maruyama(eta: float) -> Solver:
    """Euler–Maruyama for dx = [f x − ½(1+η²) g² s] dt + η g dw, run from noise to data (Song
    et al. 2021b, eq. 6 and 13).

    Every η ≥ 0 has the marginals of the forward SDE: 0 is `euler` on the PF-ODE, 1 the reverse
    SDE. The order is the weak one, that of distributions. Steps must be short against 1/g²;
    `sde_dpm_solver_pp(1, η²)` solves the linear part exactly.
    """
    require(
        0 <= eta < math.inf,
        f"euler_maruyama: eta = {eta:g}, wanted 0 or more (0 is the PF-ODE, 1 the reverse SDE)",
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
        f, g2, dt = model.schedule.drift(a.t), model.schedule.diffusion(a.t), b.t - a.t  # dt < 0
        drift = f * x - 0.5 * (1 + eta**2) * g2 * model(x, a, cond).score
        return x + dt * drift + eta * (-dt * g2) ** 0.5 * noise, memory

    step.__name__ = f"euler_maruyama({eta:g})"
    return step


reverse_sde = euler_maruyama(1.0)
reverse_sde.__name__ = "euler_maruyama"


@solver(order=1)
def ddim(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """DDIM, α_b x₀ + σ_b ε: change the level, keep the rest (Song et al. 2021a, eq. 12,
    η = 0).

    Exact when ε, or x₀, is constant along the path. Also DPM-Solver-1, and Euler in (x/α,
    σ/α).
    """
    return model(x, a, cond).mix(b.alpha, b.sigma), memory


class Transition(NamedTuple):
    """The Gaussian N(mean, std² I) of one stochastic step; mean (B, *shape), std a float or a
    tensor (B, 1, …).
    """

    mean: Tensor
    std: float | Tensor


def transition(
    model: Denoiser, x: Tensor, a: NoiseLevel, b: NoiseLevel, eta: float = 1.0, cond: Any = None
) -> Transition:
    """p(x_b | x_a) of the DDIM family: mean α_b x₀ + √(σ_b² − v) ε, variance v = η² σ_b² (1 −
    e^{−2h}).

    η = 1 is DDPM's posterior q(x_b | x_a, x₀), η = 0 is DDIM (Song et al. 2021a, eq. 12 and
    16).
    """
    h = b.lam - a.lam
    fresh = -(eta**2) * expm1(-2 * h)  # share of σ_b² that is new noise …
    # … and 1 − fresh, without cancellation
    kept = (1 - eta) * (1 + eta) + eta**2 * math.e ** (-2 * h)
    return Transition(model(x, a, cond).mix(b.alpha, b.sigma * kept**0.5), b.sigma * fresh**0.5)


def ddim_eta(eta: float) -> Solver:
    """The DDIM step with noise η: a solver for each η in [0, 1]."""
    require(
        0 <= eta <= 1,
        f"ddim_eta: eta = {eta:g} is outside [0, 1] (0 is DDIM, 1 is ancestral sampling)",
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
        mean, std = transition(model, x, a, b, eta, cond)
        return mean + std * noise, memory

    step.__name__ = f"ddim_eta({eta:g})"
    return step


ancestral = ddim_eta(1.0)
ancestral.__name__ = "ancestral"
