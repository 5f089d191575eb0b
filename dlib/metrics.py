"""How far off a sampler is. Every metric of samples comes with its noise floor: what
perfect samples score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlib._util import Draw, require

if TYPE_CHECKING:
    from dlib.denoiser import Denoiser
    from dlib.schedule import NoiseLevel
    from dlib.solvers import Solver


def rms(x: Tensor, y: Tensor) -> float:
    """Root mean square over the batch of the distance ‖x_i − y_i‖ (not divided by the
    dimension).
    """
    require(x.shape == y.shape, f"rms: shapes {tuple(x.shape)} and {tuple(y.shape)} differ")
    return (x - y).double().flatten(1).square().sum(1).mean().sqrt().item()


def typical(x: Tensor, y: Tensor) -> float:
    """Geometric mean over the batch of the distance ‖x_i − y_i‖: the error of a typical
    sample.

    On a mixture a few starts lie on the border between two modes, where the flow stretches
    without bound. They rule `rms`, whose empirical order then depends on the seed; the order
    of `typical` does not.
    """
    require(x.shape == y.shape, f"typical: shapes {tuple(x.shape)} and {tuple(y.shape)} differ")
    return (x - y).double().flatten(1).norm(dim=1).log().mean().exp().item()


def order(errors: Mapping[int, float]) -> float:
    """Empirical order of convergence from {steps: error}: minus the least-squares slope of log
    error on log steps.

    >>> round(order({10: 1e-2, 20: 2.5e-3, 40: 6.25e-4}), 6)
    2.0
    """
    require(
        len(errors) >= 2 and all(e > 0 for e in errors.values()),
        f"order: wanted two or more positive errors, got {dict(errors)}",
    )
    n = torch.tensor(list(errors), dtype=torch.float64).log()
    e = torch.tensor(list(errors.values()), dtype=torch.float64).log()
    return -(((n - n.mean()) * (e - e.mean())).sum() / (n - n.mean()).square().sum()).item()


def variance(
    model: Denoiser, levels: Sequence[NoiseLevel], solver: Solver, start: float
) -> float:
    """Variance at levels[-1] of what a solver makes of N(0, start) at levels[0]; nothing is
    sampled.

    For a denoiser linear in x, such as that of data N(0, c²). Then x is a sum of independent
    normals, the start and one a step. Each is carried as a row of its own; their squares sum
    to the variance.
    """
    rows = torch.eye(len(levels), dtype=torch.float64).unsqueeze(2)
    x, memory = start**0.5 * rows[0], None
    for a, b, noise in zip(levels, levels[1:], rows[1:]):
        x, memory = solver(model, x, a, b, memory, noise)
    return x.square().sum().item()


def kolmogorov(u: Tensor) -> float:
    """√n times the largest gap between the distribution of u (n,) and the uniform one on [0,
    1], the Kolmogorov–Smirnov statistic.

    For a perfect sampler and u = `mixture.cdf(x, level)` it exceeds c by chance with
    probability at most 2e^{−2c²} (Massart 1990).
    """
    require(u.ndim == 1 and len(u) > 0, f"kolmogorov: u has shape {tuple(u.shape)}, wanted (n,)")
    u, n = u.double().sort().values, len(u)
    below = torch.arange(n, dtype=u.dtype, device=u.device) / n
    return n**0.5 * torch.maximum(u - below, below + 1 / n - u).max().item()


def sliced_w2(x: Tensor, y: Tensor, directions: int = 256) -> float:
    """Sliced 2-Wasserstein distance, √E_u ∫(F_x⁻¹ − F_y⁻¹)², over fixed random directions
    (Rabin et al. 2012).

    Equal batch sizes. For N(m₁, s₁²I), N(m₂, s₂²I) in d dimensions its square is ‖m₁−m₂‖²/d +
    (s₁−s₂)². If the points are paired, it is at most rms(x, y)/√d up to the finite number of
    directions.
    """
    require(
        x.shape == y.shape,
        f"sliced_w2: shapes {tuple(x.shape)} and {tuple(y.shape)} differ: take equally many "
        "points",
    )
    x, y = x.double().flatten(1), y.double().flatten(1)
    u = torch.nn.functional.normalize(
        Draw(0).normal((x.shape[1], directions), x.dtype), dim=0
    ).to(x)
    projected = ((u.T @ points.T).sort(1).values for points in (x, y))
    return torch.sub(*projected).square().mean().sqrt().item()


def frechet(x: Tensor, y: Tensor) -> float:
    """Fréchet distance of Gaussian fits, ‖μ_x−μ_y‖² + tr(Σ_x+Σ_y−2(Σ_xΣ_y)^{1/2}) (Heusel et
    al. 2017).

    x (n, d), y (m, d): features. Biased upwards by about d(d+5)/(2n) at n = m: compare at
    equal n only, with its floor.
    """
    require(
        x.shape[1:] == y.shape[1:],
        f"frechet: features of shapes {tuple(x.shape)} and {tuple(y.shape)} differ in dimension",
    )
    (mean_x, cov_x), (mean_y, cov_y) = _moments(x), _moments(y)
    values, vectors = torch.linalg.eigh(cov_x)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    return ((mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * cross).item()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    require(
        x.ndim == 2 and len(x) > 1,
        f"frechet: features of shape {tuple(x.shape)}, wanted (n, d) with n > 1",
    )
    return x.double().mean(0), torch.cov(x.double().T).reshape(x.shape[1], x.shape[1])


def noise_floor(
    metric: Callable[[Tensor, Tensor], float], real: Callable[[], Tensor], repeats: int = 8
) -> tuple[float, float]:
    """(mean, standard deviation) of `metric` between two independent real draws: the best any
    sampler can score.
    """
    values = torch.tensor([metric(real(), real()) for _ in range(repeats)], dtype=torch.float64)
    return values.mean().item(), values.std().item()
