"""Solvers that integrate a polynomial through former data predictions exactly: UniPC,
and SDE-DPM-Solver++ 2M and 3M.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel
from dlib.solvers.base import Solver, solver
from dlib.solvers.exponential import expm1, phi


def through(x: Tensor, a: NoiseLevel, b: NoiseLevel, nodes: tuple, eta: float = 0.0) -> Tensor:
    """From a to b with x₀(λ) as the polynomial through `nodes`, ((λ_j, x₀_j), …), which may
    lie before, at or after a.

    With c = 1 + η: (σ_b/σ_a) e^{−ηh} x + α_b ∫₀ʰ c e^{−c(h−u)} x₀(λ_a + u) du (Lu et al.
    2022b, section 4; η = 0 is the PF-ODE, η = 1 the reverse SDE's mean). The integral is Σ_j
    w_j x₀_j, whose weights give every power uᵏ its moment, Σ_j w_j u_jᵏ = k! hᵏ ch
    ϕ_{k+1}(−ch). Two nodes use half the step for the first moment over the zeroth, as 2M and
    UniPC's B₂(h) do; the difference is O(h³).
    """
    h, c = b.lam - a.lam, 1 + eta
    # at λ = −∞ a weight of 0, or all
    nodes = [
        node for node in nodes if isinstance(node[0], Tensor) or node[0] > -math.inf
    ] or nodes[:1]
    moments = [-expm1(-c * h)]
    if len(nodes) == 2:
        moments.append(0.5 * h * moments[0])
    else:
        moments += [
            math.factorial(k) * h**k * c * h * phi(k + 1, -c * h) for k in range(1, len(nodes))
        ]
    weights = _weights([lam - a.lam for lam, _ in nodes], moments)
    x = x if x.dtype == nodes[0][1].dtype else x.to(nodes[0][1].dtype)
    # a tensor of our own: what follows adds in place
    total = b.sigma / a.sigma * (math.e ** (-eta * h) if eta else 1) * x
    for w, (_, x0) in zip(weights, nodes):
        w = b.alpha * w
        total = total + w * x0 if isinstance(w, Tensor) else total.add_(x0, alpha=w)
    return total


def _weights(u: list, moments: list) -> list:
    """w with Σ_j w_j u_jᵏ = moments[k]: the dual Vandermonde system (Björck & Pereyra 1970),
    in floats or tensors alike.
    """
    w, n = list(moments), len(u)
    for k in range(n - 1):
        for j in range(n - 1, k, -1):
            w[j] = w[j] - u[k] * w[j - 1]
    for k in range(n - 2, -1, -1):
        for j in range(k + 1, n):
            w[j] = w[j] / (u[j] - u[j - k - 1])
        for j in range(k, n - 1):
            w[j] = w[j] - w[j + 1]
    return w


def unipc(p: int) -> Solver:
    """UniPC of p nodes, B₂(h), data prediction: order p + 1 at one call a step (Zhao et al.
    2023, algorithms 3 and 5 to 8).

    Predictor: x₀ as the polynomial through the last p values (p = 2 is 2M). Corrector: once
    the network has spoken at the predicted x, the same step again with that value as one node
    more; no further call. memory: (x, level) the last step started from, then ((λ, x₀), …),
    newest first. The first steps have fewer nodes. What ends the sampling is a prediction.
    """
    require(p in (1, 2, 3), f"unipc: p = {p} nodes, wanted 1, 2 or 3")

    @solver(order=p + 1, history=p)
    def step(
        model: Denoiser,
        x: Tensor,
        a: NoiseLevel,
        b: NoiseLevel,
        memory: Any = None,
        noise: Tensor | None = None,
        cond: Any = None,
    ) -> tuple[Tensor, Any]:
        latest, nodes = (a.lam, model(x, a, cond).x0), ()
        if memory:
            x_s, s, nodes = memory
            x = through(x_s, s, a, (latest, *nodes))
        nodes = (latest, *nodes)[:p]
        return through(x, a, b, nodes), (x, a, nodes)

    step.__name__ = f"unipc_{p}"
    return step


def sde_dpm_solver_pp(p: int, eta: float = 1.0) -> Solver:
    """SDE-DPM-Solver++(pM): the exact step of the reverse SDE for the polynomial through the
    last p values of x₀ (Lu et al. 2022b, eq. 18).

    η scales the noise: 0 is the PF-ODE and DPM-Solver++(pM), 1 the reverse SDE, where p = 1 is
    `ancestral`. For constant x₀ every η gives each level's exact law at any step. The order
    stated is that of the variance on Gaussian data: 1 for p = 1, 2 for more. memory: ((λ, x₀),
    …), newest first.
    """
    require(p in (1, 2, 3), f"sde_dpm_solver_pp: p = {p} nodes, wanted 1, 2 or 3")
    require(
        0 <= eta <= 1,
        f"sde_dpm_solver_pp: eta = {eta:g} is outside [0, 1] (0 is the PF-ODE, 1 the reverse "
        "SDE)",
    )

    @solver(order=min(p, 2), history=p - 1, noisy=True)
    def step(
        model: Denoiser,
        x: Tensor,
        a: NoiseLevel,
        b: NoiseLevel,
        memory: Any = None,
        noise: Tensor | None = None,
        cond: Any = None,
    ) -> tuple[Tensor, Any]:
        nodes = ((a.lam, model(x, a, cond).x0), *(memory or ()))[:p]
        std = b.sigma * (-expm1(-2 * eta * (b.lam - a.lam))) ** 0.5
        return through(x, a, b, nodes, eta) + std * noise, nodes if p > 1 else memory

    step.__name__ = f"sde_dpm_solver_pp_{p}m" if eta == 1 else f"sde_dpm_solver_pp({p}, {eta:g})"
    return step


unipc_1, unipc_2, unipc_3 = (unipc(p) for p in (1, 2, 3))
sde_dpm_solver_pp_2m, sde_dpm_solver_pp_3m = (sde_dpm_solver_pp(p) for p in (2, 3))
