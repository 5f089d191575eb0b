"""Score matching: four ways to fit s(x) ≈ ∇ log p(x) without the normaliser of p.

A score function maps x (B, *shape) to a tensor of the same shape: a network,
`energy_score(f)`, or `lambda x: model(x, level).score` for a `Denoiser`. All losses carry the
½ of the papers, so that they differ from `explicit` by a constant: E_p for `implicit` and the
sliced ones, E over the smoothed density for the denoising one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.losses.diffusion import Batch, Loss, denoising
from dlib.losses.weights import Weight
from dlib.schedule import NoiseSchedule

Score = Callable[[Tensor], Tensor]
Directions = Callable[[Draw, Tensor], Tensor]


def explicit(score: Score, batch: Batch, truth: Score) -> Loss:
    """½ E_p ‖s(x) − ∇ log p(x)‖² (Hyvärinen 2005, section 2): for toys, where `truth` is
    known.

    >>> normal = lambda x: -x
    >>> explicit(lambda x: 0 * x, Batch(torch.ones(3, 2)), normal).value
    tensor(1.)
    """
    s = _evaluate(score, batch.x0)
    with torch.no_grad():
        goal = truth(batch.x0)
    require(
        goal.shape == s.shape,
        f"explicit: truth has shape {tuple(goal.shape)}, the score {tuple(s.shape)}",
    )
    return _loss(0.5 * (s - goal).square().flatten(1).sum(1))


def implicit(score: Score, batch: Batch) -> Loss:
    """E_p [½ ‖s‖² + tr ∇s] (Hyvärinen 2005, theorem 1): `explicit` minus ½ E_p ‖∇ log p‖²,
    without knowing p.

    Needs p·s → 0 at infinity. The trace is exact and costs one backward pass for each of the d
    values of a sample.

    >>> implicit(lambda x: -x, Batch(torch.ones(3, 2))).value  # ½·2 − 2
    tensor(-1., grad_fn=<MeanBackward0>)
    """
    x, s = _with_slope(score, batch)
    columns = s.flatten(1)
    trace = sum(_pullback(columns[:, i], x).flatten(1)[:, i] for i in range(columns.shape[1]))
    return _loss(0.5 * columns.square().sum(1) + trace, trace=trace)


def rademacher(draw: Draw, like: Tensor) -> Tensor:
    """Directions of independent signs ±1: the least variance, Var vᵀSv = 2 Σ_{i≠j} S_ij².
    Draws: one normal like x.
    """
    return torch.where(draw.normal(like) < 0, -1.0, 1.0).to(like)


def gaussian(draw: Draw, like: Tensor) -> Tensor:
    """Standard normal directions: Var vᵀSv = 2 Σ_ij S_ij². Draws: one normal like x."""
    return draw.normal(like)


def sliced(score: Score, batch: Batch, draw: Draw, directions: Directions = rademacher) -> Loss:
    """SSM, E_p E_v [vᵀ∇s v + ½ (vᵀs)²] (Song et al. 2019, UAI): `implicit` in expectation, one
    backward pass.

    directions: v with E vvᵀ = I, one a sample. Draws: what `directions` draws.

    >>> sliced(lambda x: -x, Batch(torch.ones(3, 1)), Draw(0)).value  # one dimension: v² = 1
    tensor(-0.5000, grad_fn=<MeanBackward0>)
    """
    x, s = _with_slope(score, batch)
    v = directions(draw, x)
    trace = _quadratic(s, x, v)
    return _loss(trace + 0.5 * (v * s).flatten(1).sum(1).square(), trace=trace)


def sliced_vr(
    score: Score, batch: Batch, draw: Draw, directions: Directions = rademacher
) -> Loss:
    """SSM-VR, E_p E_v [vᵀ∇s v + ½ ‖s‖²] (Song et al. 2019, UAI): the part that is known
    without v, is not sampled.

    Draws: what `directions` draws.

    >>> sliced_vr(lambda x: -x, Batch(torch.ones(3, 2)), Draw(0)).value  # exact here
    tensor(-1., grad_fn=<MeanBackward0>)
    """
    x, s = _with_slope(score, batch)
    trace = _quadratic(s, x, directions(draw, x))
    return _loss(trace + 0.5 * s.square().flatten(1).sum(1), trace=trace)


def denoising_score_matching(score: Score, batch: Batch, draw: Draw, sigma: float) -> Loss:
    """DSM, ½ E ‖s(x₀ + σz) + z/σ‖² at one σ (Vincent 2011): the book's `denoising` loss on the
    score.

    Its minimiser is the score of the *smoothed* density, (E[x₀|x] − x)/σ². For small σ the
    target z/σ is wild: the variance grows like σ⁻². Draws: the noise (unless the batch brings
    its own).

    >>> perfect = lambda x: -x / (1 + 0.5**2)  # data N(0, 1) smoothed by σ = 0.5
    >>> x0 = Draw(0).normal((100_000, 1))
    >>> loss = denoising_score_matching(perfect, Batch(x0), Draw(1), sigma=0.5)
    >>> round(loss.value.item(), 1)  # ½(1/σ² − 1/(1 + σ²))
    1.6
    """
    require(
        sigma > 0,
        f"denoising_score_matching: sigma = {sigma:g}, wanted a positive noise level: without "
        "noise, use implicit or sliced",
    )
    model = Denoiser(lambda x, t, cond: score(x), _one_level(sigma), "score")
    return denoising(model, batch, draw, _HALF_SCORE, lambda draw, n: torch.zeros(n))


def energy_score(energy: Callable[[Tensor], Tensor]) -> Score:
    """The score of the energy-based model p = e^{−f}/Z: s = −∇f, whatever Z is; a gradient
    field by construction.

    energy: x (B, *shape) ↦ f (B,), each from its own row. Losses of this score differentiate
    twice, so f must be twice differentiable: silu or softplus, not relu. Also runs under
    `torch.no_grad()`.

    >>> score = energy_score(lambda x: 0.5 * x.square().sum(1) + 7)
    >>> score(torch.tensor([[1.0, -2.0]])).tolist()
    [[-1.0, 2.0]]
    """

    def score(x: Tensor) -> Tensor:
        train = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            f = energy(x)
            require(
                f.shape == x.shape[:1],
                f"energy_score: the energy has shape {tuple(f.shape)} for x {tuple(x.shape)}, "
                "wanted "
                f"({len(x)},), one number a sample: sum over the other axes",
            )
            return -_pullback(f, x, train)

    return score


_HALF_SCORE = Weight("score", lambda level, schedule: torch.full_like(level.t, 0.5))


def _one_level(sigma: float) -> NoiseSchedule:
    """α = 1 and σ at every time."""
    return NoiseSchedule(
        f"sigma = {sigma:g}",
        lambda t: (torch.ones_like(t), torch.full_like(t, sigma)),
        lambda t: (torch.zeros_like(t), torch.zeros_like(t)),
        torch.zeros_like,
    )


def _evaluate(score: Score, x: Tensor) -> Tensor:
    require(
        x.is_floating_point(),
        f"score matching: x0 has dtype {x.dtype}, wanted a floating dtype: x0.float()",
    )
    s = score(x)
    require(
        s.shape == x.shape,
        f"score matching: the score has shape {tuple(s.shape)} for x {tuple(x.shape)}: a score "
        "has its input's "
        "shape; for a function with one value a sample, use energy_score",
    )
    return s


def _with_slope(score: Score, batch: Batch) -> tuple[Tensor, Tensor]:
    """x₀ as a tensor that may be differentiated by, and s there."""
    x = batch.x0.detach().clone()
    if x.is_floating_point():
        x.requires_grad_()
    return x, _evaluate(score, x)


def _quadratic(s: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """vᵀ∇s v of each sample: (B,)."""
    return (_pullback((s * v).flatten(1).sum(1), x) * v).flatten(1).sum(1)


def _pullback(f: Tensor, x: Tensor, train: bool = True) -> Tensor:
    """∇_x f of each sample, f (B,); itself differentiable if `train`."""
    require(
        f.requires_grad,
        "score matching: the output does not depend on x for autograd: remove torch.no_grad(), "
        ".detach() or frozen(…) around it",
    )
    return torch.autograd.grad(f.sum(), x, create_graph=train, materialize_grads=True)[0]


def _loss(each: Tensor, **parts: Tensor) -> Loss:
    return Loss(
        each.mean(),
        {name: value.detach().mean() for name, value in {"loss": each, **parts}.items()},
    )
