"""How probable a point is under a denoiser: exactly, along the probability-flow ODE,
or bounded, by DDPM's chain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel


def log_likelihood(
    model: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    cond: Any = None,
    probes: Tensor | None = None,
    rtol: float = 1e-8,
) -> tuple[Tensor, Tensor]:
    """(change of log density from b to a, x carried to b): log p_a(x) = change + log p_b(x_b)
    along the PF-ODE, in nats.

    With y = x/α, d log p(y)/dλ = κ α tr ∂ε/∂x (Chen et al. 2018; Song et al. 2021b, eq. 39),
    solved together with y by DOP853. x: (B, *shape) in float64 at the cleaner level a; b: the
    noisier one, where the density is known, e.g. `normal_log_prob`. probes: None for the exact
    trace, d backward passes a call, or (K, B, *shape) Hutchinson probes v with E vvᵀ = I, held
    fixed along the path: the trace is the mean of vᵀ(∂ε/∂x)v, unbiased, one backward pass
    each. cond: as for the denoiser.
    """
    from scipy.integrate import solve_ivp

    _check_path(x, a, b, probes)

    def slope(lam: float, state: np.ndarray) -> np.ndarray:
        level = model.schedule.at_lam(float(lam))
        kappa = level.sigma / level.alpha
        at = (
            level.alpha * torch.from_numpy(state[: x.numel()]).reshape(x.shape)
        ).requires_grad_()
        with torch.enable_grad():
            eps = model(at, level, cond).eps
        trace = _trace(eps, at, probes)
        return torch.cat([-kappa * eps.detach().flatten(), kappa * level.alpha * trace]).numpy()

    start = torch.cat(
        [(x.detach() / a.alpha).flatten(), torch.zeros(len(x), dtype=x.dtype)]
    ).numpy()
    solution = solve_ivp(
        slope, (a.lam, b.lam), start, method="DOP853", rtol=rtol, atol=rtol * 1e-1
    )
    require(solution.success, f"log_likelihood: {solution.message}")
    end = torch.from_numpy(solution.y[:, -1].copy())
    # from the density of y to that of x, at both ends
    volume = x[0].numel() * math.log(b.alpha / a.alpha)
    return volume - end[x.numel() :], b.alpha * end[: x.numel()].reshape(x.shape)


def _check_path(x: Tensor, a: NoiseLevel, b: NoiseLevel, probes: Tensor | None) -> None:
    require(x.dtype == torch.float64, f"log_likelihood: x is {x.dtype}; wanted x.double()")
    require(
        a.lam > b.lam and min(a.alpha, a.sigma, b.alpha, b.sigma) > 0,
        f"log_likelihood: λ runs from {a.lam:g} to {b.lam:g}: a must be the cleaner level, and "
        "both must be finite: e.g. schedule.at(1e-3), schedule.at(1.0)",
    )
    require(
        probes is None or probes.shape[1:] == x.shape,
        "log_likelihood: probes have shape "
        f"{tuple(probes.shape) if probes is not None else None}, wanted (K, "
        f"{', '.join(map(str, x.shape))})",
    )


def _trace(y: Tensor, x: Tensor, probes: Tensor | None) -> Tensor:
    """tr ∂y/∂x for each sample: exactly, or as the mean over probes."""
    if probes is None:
        eye = torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, 1, *x.shape[1:])
        return sum(
            (torch.autograd.grad(y, x, e.expand_as(x), retain_graph=True)[0] * e)
            .flatten(1)
            .sum(1)
            for e in eye
        )
    return sum(
        (torch.autograd.grad(y, x, v, retain_graph=True)[0] * v).flatten(1).sum(1) for v in probes
    ) / len(probes)


def normal_log_prob(x: Tensor, level: NoiseLevel) -> Tensor:
    """log N(x; 0, (α² + σ²) I) in nats, (B,): the usual stand-in for the density at the
    noisiest level.
    """
    variance, d = level.alpha**2 + level.sigma**2, x[0].numel()
    return -0.5 * (x.flatten(1).square().sum(1) / variance + d * math.log(2 * math.pi * variance))


class Bound(NamedTuple):
    """The terms of −ELBO in nats, each a mean over the batch: prior, one per step (N,),
    reconstruction; their sum bounds −log p.
    """

    prior: Tensor
    steps: Tensor
    reconstruction: Tensor

    @property
    def total(self) -> Tensor:
        return self.prior + self.steps.sum() + self.reconstruction


def step_kl(
    square: Tensor | float, a: NoiseLevel, b: NoiseLevel, d: int = 1, ratio: float = 1.0
) -> Tensor | float:
    """KL(q(x_b|x_a, x₀) ‖ N(μ_θ, r ṽ I)) in nats; μ_θ is the posterior's mean at the network's
    x₀, ṽ the posterior's variance.

    ½(SNR_b − SNR_a)·square/r + ½d(1/r − 1 + log r), square = ‖x₀ − x₀_θ(x_a)‖² or its mean
    over a batch (Ho et al. 2020, eq. 8; at r = 1 Kingma et al. 2021, eq. 13). ratio: r; DDPM's
    other variance, β_n, is r = (σ_a/σ_b)². a, b: floats, a noisier.

    >>> from dlib.schedule import vp
    >>> a, b = vp().at(0.6), vp().at(0.5)
    >>> step_kl(0.0, a, b), step_kl(0.3, a, b) > 0
    (0.0, True)
    """
    gain = (b.alpha / b.sigma) ** 2 - (a.alpha / a.sigma) ** 2
    return 0.5 * gain * square / ratio + 0.5 * d * (1 / ratio - 1 + math.log(ratio))


def decoder_nats(x0: Tensor, level: NoiseLevel, values: Tensor, draw: Draw) -> Tensor:
    """L_0 for data that take a few known values, such as grey levels: −log p(x₀|x_b) in nats,
    (B,), at one draw of x_b.

    Each coordinate of x₀ is guessed from its own noisy one, p ∝ N(x_b/α_b; value, κ_b²)
    (Kingma et al. 2021). x0: (B, *shape), every entry one of values (K,). With this L_0 the
    bound is one on a probability, not on a density. Draws: one normal like x0.
    """
    kappa = level.sigma / level.alpha
    noisy = x0 + kappa * draw.normal(x0)
    gap, k = (x0[..., None] - values.to(x0)).abs().min(-1)
    require(
        bool(gap.max() < 1e-6),
        f"decoder_nats: x0 has entries up to {gap.max():.2g} from the nearest of the "
        f"{len(values)} values: pass the values of the data",
    )
    guess = torch.log_softmax(-0.5 * ((noisy[..., None] - values.to(x0)) / kappa) ** 2, -1)
    return -guess.gather(-1, k[..., None]).flatten(1).sum(1)


@torch.no_grad()
def bound(
    model: Denoiser, x0: Tensor, levels: Sequence[NoiseLevel], draw: Draw, cond: Any = None
) -> Bound:
    """DDPM's variational bound −log p(x₀) ≤ L_T + Σ L_n + L_0, each term by one draw of x_t a
    sample (Ho et al. 2020, eq. 5).

    A step from a to b costs `step_kl` with the posterior's variance. L_0 is −log N(x₀;
    x_b/α_b, κ_b² I), the decoder at the cleanest level, for continuous data (`decoder_nats` is
    for a few known values). Prior: KL(q(x_T|x₀) ‖ N(0, (α² + σ²) I)). levels: noise first, σ >
    0, floats. Draws: one normal a level.
    """
    levels = list(levels)
    require(
        len(levels) >= 2
        and all(isinstance(level.t, float) and level.sigma > 0 for level in levels),
        "bound: levels must be two or more noise levels of floats with σ > 0: pass "
        "levels(schedule, n)",
    )
    first, last, d = levels[0], levels[-1], x0[0].numel()
    size = x0.flatten(1).square().sum(1).mean()
    variance = first.alpha**2 + first.sigma**2
    prior = 0.5 * (
        first.alpha**2 * size / variance
        + d * (first.sigma**2 / variance - 1 - math.log(first.sigma**2 / variance))
    )
    steps = []
    for a, b in zip(levels, levels[1:]):
        x = a.alpha * x0 + a.sigma * draw.normal(x0)
        steps.append(
            step_kl((x0 - model(x, a, cond).x0).flatten(1).square().sum(1).mean(), a, b, d)
        )
    noise = draw.normal(x0).flatten(1).square().sum(1).mean()  # x₀ − x_b/α_b = −κ_b ε
    reconstruction = 0.5 * (noise + d * math.log(2 * math.pi * (last.sigma / last.alpha) ** 2))
    return Bound(prior, torch.stack(steps), reconstruction)
