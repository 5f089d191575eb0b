"""Langevin dynamics: samples from a score alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel


@torch.no_grad()
def langevin(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    step: float,
    n: int,
    draw: Draw,
    each: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """n steps x ← x + η s(x) + √(2η) z of the unadjusted Langevin algorithm, ULA (Roberts &
    Tweedie 1996).

    score: x (B, *shape) ↦ ∇ log p (B, *shape); step: η > 0 in units of x², the coefficient of
    the score (Song & Ermon 2019 write α/2); each: called with (k, x), k = 0 … n. Returns x
    after n steps; no gradient flows through. The bias is O(η): on N(0, V) the variance tends
    to V/(1 − η/2V). Draws: one normal like x a step. Raises FloatingPointError when x stops
    being finite, as it does on N(0, V) in the end if η > 2V.

    >>> x = langevin(lambda x: -x, torch.zeros(20_000, 1), step=0.5, n=30, draw=Draw(0))
    >>> round(x.var().item(), 1)  # 1/(1 − ¼), not 1
    1.3
    """
    require(
        0 < step < float("inf"),
        f"langevin: step = {step:g}, wanted a positive number: try a tenth of the variance of "
        "a mode",
    )
    require(n >= 1, f"langevin: n = {n}, wanted at least 1 step")
    require(
        x.is_floating_point(),
        f"langevin: x has dtype {x.dtype}, wanted a floating dtype: x.float()",
    )
    for k in range(n):
        if each is not None:
            each(k, x)
        s = score(x)
        require(
            s.shape == x.shape,
            f"langevin: the score has shape {tuple(s.shape)} for x {tuple(x.shape)}: a score "
            "has its input's shape",
        )
        x = x + step * s + (2 * step) ** 0.5 * draw.normal(x)
    if not torch.isfinite(x).all():
        raise FloatingPointError(
            f"langevin: x is no longer finite after {n} steps: a step of {step:g} is unstable "
            "where the score is "
            "steep: lower it, or look at the score far from the data"
        )
    if each is not None:
        each(n, x)
    return x


def annealed_langevin(
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    step: float,
    n: int,
    draw: Draw,
    cond: Any = None,
    each: Callable[[NoiseLevel, Tensor], None] | None = None,
) -> Tensor:
    """n Langevin steps at each noise level, noisiest first, with η_i = step·σ_i²/σ_L² (Song &
    Ermon 2019, algorithm 1).

    step: η at the last level, in units of x²; (η_i/σ_i²) is the same at every level, so is the
    share of the noise that a step renews. Where α changes, x is carried over as x/α. each:
    called with (level, x) after each level. What is returned still has the last level's noise:
    `model(x, levels[-1]).x0` removes it. Draws: one normal like x a step.

    >>> from dlib import Mixture, exact, levels, ve
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), ve(0.1, 10))
    >>> down = levels(ve(0.1, 10), 9)
    >>> x = 10 * Draw(0).normal((5, 2))
    >>> annealed_langevin(model, x, down, step=1e-3, n=10, draw=Draw(1)).shape
    torch.Size([5, 2])
    """
    levels = list(levels)
    require(
        len(levels) >= 1
        and all(isinstance(level.t, float) and level.sigma > 0 for level in levels),
        "annealed_langevin: levels must be one or more noise levels of floats with σ > 0: pass "
        "levels(schedule, n)",
    )
    require(
        all(b.lam > a.lam for a, b in zip(levels, levels[1:])),
        "annealed_langevin: levels must go from noise to data: reverse the grid",
    )
    last = levels[-1].sigma
    for before, level in zip([levels[0], *levels], levels):
        x = level.alpha / before.alpha * x
        score = lambda x, level=level: model(x, level, cond).score
        try:
            x = langevin(score, x, step * (level.sigma / last) ** 2, n, draw)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"annealed_langevin: at the level t = {level.t:g}, sigma = {level.sigma:g}: "
                f"{error}"
            ) from error
        if each is not None:
            each(level, x)
    return x
