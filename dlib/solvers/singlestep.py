"""Floor 3: Runge–Kutta-like solvers: several calls inside a step, no memory between steps."""

from __future__ import annotations

from dlib.solvers.base import solver
from dlib.solvers.first_order import ddim
from dlib.solvers.phi import expand_eps, expand_x0


@solver(order=2, calls=2)
def heun(model, x, a, b, memory=None, noise=None, cond=None):
    """Heun's rule for dy/dκ = ε with y = x/α, κ = σ/α (Karras et al. 2022, alg. 1)."""
    first, r = model(x, a, cond), b.alpha / a.alpha
    second = model(first.mix(b.alpha, b.sigma), b, cond)
    return r * x + 0.5 * (b.sigma - r * a.sigma) * (first.eps + second.eps), memory


@solver(order=2, calls=2)
def dpm_solver_2(model, x, a, b, memory=None, noise=None, cond=None):
    """DPM-Solver-2: ε taken at the midpoint in λ (Lu et al. 2022a, alg. 1, r₁ = ½)."""
    mid = model.schedule.at_lam(0.5 * (a.lam + b.lam))
    u, _ = ddim(model, x, a, mid, cond=cond)
    return expand_eps(x, a, b, model(u, mid, cond).eps), memory


@solver(order=2, calls=2)
def dpm_solver_pp_2s(model, x, a, b, memory=None, noise=None, cond=None):
    """DPM-Solver++(2S): the midpoint rule in the data form (Lu et al. 2022b, alg. 1)."""
    mid = model.schedule.at_lam(0.5 * (a.lam + b.lam))
    u, _ = ddim(model, x, a, mid, cond=cond)
    return expand_x0(x, a, b, model(u, mid, cond).x0), memory


@solver(order=3, calls=3)
def dpm_solver_3(model, x, a, b, memory=None, noise=None, cond=None):
    """DPM-Solver-3: slope of ε from nodes at ⅓ and ⅔ in λ (Lu et al. 2022a, alg. 2; r₂ = ⅔)."""
    h = b.lam - a.lam
    third, two_thirds = (model.schedule.at_lam(a.lam + r * h) for r in (1 / 3, 2 / 3))
    first = model(x, a, cond)
    eps = first.eps
    eps_1 = model(first.mix(third.alpha, third.sigma), third, cond).eps
    u = expand_eps(x, a, two_thirds, eps, (eps_1 - eps) / (h / 3))
    eps_2 = model(u, two_thirds, cond).eps
    return expand_eps(x, a, b, eps, (eps_2 - eps) / (2 * h / 3)), memory
