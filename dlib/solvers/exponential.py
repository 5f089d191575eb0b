"""The exact integrals behind every exponential integrator, and the two Taylor
expansions made of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlib.schedule import NoiseLevel


def phi(k: int, h: float | Tensor) -> float | Tensor:
    """ϕ_k(h) = Σ_n hⁿ/(n+k)!, so ϕ₁ = (eʰ−1)/h and ϕ_{k+1} = (ϕ_k − 1/k!)/h (Hochbruck &
    Ostermann 2010, eq. 2.10).

    The recursion cancels for small h, where the series is used instead: full float64 precision
    for k ≤ 3.

    >>> abs(phi(2, 1.0) - (math.e - 2)) < 1e-15, phi(3, 0.0) == 1 / 6
    (True, True)
    """
    if not 1 <= k <= 46:
        raise ValueError(f"phi: k = {k}, wanted 1 ≤ k ≤ 46")
    if isinstance(h, Tensor):
        small = h.abs() < 1
        return torch.where(
            small,
            _series(k, torch.where(small, h, 0.0)),
            _recursion(k, torch.where(small, 1.0, h)),
        )
    return _series(k, h) if abs(h) < 1 else _recursion(k, h)


_RECIPROCALS = [1 / math.factorial(n) for n in range(64)]


def _series(k: int, h: float | Tensor) -> float | Tensor:
    total = 0.0
    # Horner: hⁿ/(n+k)!, remainder below 1/18!
    for coefficient in _RECIPROCALS[k + 17 : k - 1 : -1]:
        total = total * h + coefficient
    return total


def _recursion(k: int, h: float | Tensor) -> float | Tensor:
    value = expm1(h) / h
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / h
    return value


def expm1(h: float | Tensor) -> float | Tensor:
    """eʰ − 1 for a float or a tensor."""
    return torch.expm1(h) if isinstance(h, Tensor) else math.expm1(h)


def expand_eps(x: Tensor, a: NoiseLevel, b: NoiseLevel, *eps: Tensor) -> Tensor:
    """From a to b with ε(λ) as its Taylor polynomial at a (Lu et al. 2022a, section 3.2).

    (α_b/α_a) x − σ_b Σ_k h^{k+1} ϕ_{k+1}(h) ε^{(k)}; eps: ε, then its derivatives in λ, at a.
    """
    h = b.lam - a.lam
    total = b.sigma * h * phi(1, h) * eps[0]
    for k, derivative in enumerate(eps[1:], start=1):
        total = total + b.sigma * h ** (k + 1) * phi(k + 1, h) * derivative
    return b.alpha / a.alpha * x - total


def expand_x0(x: Tensor, a: NoiseLevel, b: NoiseLevel, *x0: Tensor) -> Tensor:
    """From a to b with x₀(λ) as its Taylor polynomial at a (Lu et al. 2022b, section 4).

    (σ_b/σ_a) x + α_b Σ_k h^{k+1} ϕ_{k+1}(−h) x₀^{(k)}; x0: x₀, then its derivatives in λ, at
    a.
    """
    h = b.lam - a.lam
    # h ϕ₁(−h) = 1 − e^{−h}, finite also from α = 0, where h = ∞
    total = -b.alpha * expm1(-h) * x0[0]
    for k, derivative in enumerate(x0[1:], start=1):
        total = total + b.alpha * h ** (k + 1) * phi(k + 1, -h) * derivative
    return b.sigma / a.sigma * x + total
