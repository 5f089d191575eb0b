"""Adams–Bashforth-like solvers: one call a step, derivatives from the data
predictions of former steps.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel
from dlib.solvers.base import solver
from dlib.solvers.exponential import expand_x0, expm1


@solver(order=2, history=1)
def dpm_solver_pp_2m(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """DPM-Solver++(2M): x₀ extrapolated to the middle of the step (Lu et al. 2022b, alg. 2).

    memory: (λ, x₀) of the step before; the first step is DDIM.
    """
    x0, h = model(x, a, cond).x0, b.lam - a.lam
    middle = x0
    if memory:
        (lam_1, x0_1), *_ = memory
        r = 0.5 * h / (a.lam - lam_1)
        middle = (1 + r) * x0 - r * x0_1
    return b.sigma / a.sigma * x - b.alpha * expm1(-h) * middle, ((a.lam, x0),)


@solver(order=3, history=2)
def dpm_solver_pp_3m(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """DPM-Solver++(3M) at its true third order: slope and curvature of x₀(λ) by Newton's
    divided differences.

    The released code halves the curvature (`dpm_solver_pp_3m_released`). memory: (λ, x₀) of
    two steps; starts as 2M.
    """
    return _third_order(model, x, a, b, memory, cond, curvature=1.0)


@solver(order=2, history=2)
def dpm_solver_pp_3m_released(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any = None,
    noise: Tensor | None = None,
    cond: Any = None,
) -> tuple[Tensor, Any]:
    """DPM-Solver++(3M) as its authors' repository, diffusers and k-diffusion ship it: second
    order, for comparison.

    The second divided difference is half the second derivative; the released formula forgets
    the factor 2.
    """
    return _third_order(model, x, a, b, memory, cond, curvature=0.5)


def _third_order(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    memory: Any,
    cond: Any,
    curvature: float,
) -> tuple[Tensor, Any]:
    """x₀(λ) as a parabola through three values; `curvature` scales its second derivative."""
    if not memory or len(memory) < 2:
        x_b, latest = dpm_solver_pp_2m(model, x, a, b, memory, cond=cond)
        return x_b, latest + tuple(memory or ())
    x0, ((lam_1, x0_1), (lam_2, x0_2)) = model(x, a, cond).x0, memory
    d1, d1_before = (x0 - x0_1) / (a.lam - lam_1), (x0_1 - x0_2) / (lam_1 - lam_2)
    d2 = (d1 - d1_before) / (a.lam - lam_2)
    slope = d1 + (a.lam - lam_1) * d2
    return expand_x0(x, a, b, x0, slope, curvature * 2 * d2), ((a.lam, x0), (lam_1, x0_1))
