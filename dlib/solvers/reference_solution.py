"""The truth that solvers are measured against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel


def reference(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    cond: Any = None,
    rtol: float = 1e-12,
) -> Tensor:
    """The PF-ODE solved from level a to level b to about 1e-10, by DOP853 on dy/dλ = −e^{−λ}
    ε(αy, λ) with y = x/α.

    Meant for exact denoisers: a few thousand calls. x: (B, *shape) in float64; both levels
    with α > 0 and σ > 0. Works in either direction, so it also encodes data into noise. Works
    on the CPU.
    """
    from scipy.integrate import solve_ivp

    require(
        x.dtype == torch.float64, f"reference: x is {x.dtype}; an error of 1e-10 needs x.double()"
    )
    require(
        min(a.alpha, a.sigma, b.alpha, b.sigma) > 0,
        f"reference: λ runs from {a.lam:g} to {b.lam:g}; both must be finite: use t_max=0.999 "
        "or t_min=1e-3",
    )

    @torch.no_grad()
    def slope(lam: float, y: np.ndarray) -> np.ndarray:
        level = model.schedule.at_lam(float(lam))
        eps = model(level.alpha * torch.from_numpy(y).reshape(x.shape), level, cond).eps
        return (-level.sigma / level.alpha * eps).flatten().numpy()

    start = (x.detach() / a.alpha).flatten().numpy()
    solution = solve_ivp(
        slope, (a.lam, b.lam), start, method="DOP853", rtol=rtol, atol=rtol * 1e-1
    )
    require(solution.success, f"reference: {solution.message}")
    return b.alpha * torch.from_numpy(solution.y[:, -1].copy()).reshape(x.shape)
