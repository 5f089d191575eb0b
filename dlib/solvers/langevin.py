"""Floor 3: Langevin dynamics: samples from a score alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlib._util import Draw, require


@torch.no_grad()
def langevin(
    score: Callable[[Tensor], Tensor], x: Tensor, step: float, n: int, draw: Draw,
    each: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """n steps x ← x + η s(x) + √(2η) z of the unadjusted Langevin algorithm, ULA (Roberts & Tweedie 1996).

    score: x (B, *shape) ↦ ∇ log p (B, *shape); step: η > 0 in units of x², the coefficient of the score (Song & Ermon 2019
    write α/2); each: called with (k, x), k = 0 … n. Returns x after n steps; no gradient flows through. The bias is O(η): on
    N(0, V) the variance tends to V/(1 − η/2V). Draws: one normal like x a step. Raises FloatingPointError when x stops
    being finite, as it does on N(0, V) in the end if η > 2V.

    >>> x = langevin(lambda x: -x, torch.zeros(20_000, 1), step=0.5, n=30, draw=Draw(0))
    >>> round(x.var().item(), 1)  # 1/(1 − ¼), not 1
    1.3
    """
    require(0 < step < float("inf"), f"langevin: step = {step:g}, wanted a positive number: try a tenth of the variance of a mode")
    require(n >= 1, f"langevin: n = {n}, wanted at least 1 step")
    require(x.is_floating_point(), f"langevin: x has dtype {x.dtype}, wanted a floating dtype: x.float()")
    for k in range(n):
        if each is not None:
            each(k, x)
        s = score(x)
        require(s.shape == x.shape, f"langevin: the score has shape {tuple(s.shape)} for x {tuple(x.shape)}: a score has its input's shape")
        x = x + step * s + (2 * step) ** 0.5 * draw.normal(x)
    if not torch.isfinite(x).all():
        raise FloatingPointError(f"langevin: x is no longer finite after {n} steps: a step of {step:g} is unstable where the score is "
                                 "steep: lower it, or look at the score far from the data")
    if each is not None:
        each(n, x)
    return x
