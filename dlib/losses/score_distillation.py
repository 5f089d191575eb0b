"""Score distillation: train a generator on the difference of two scores.

The student's samples x₀ are noised to x_t = α x₀ + σ ε, which has a law p_t. A frozen teacher
("real") knows the score of the noised data q_t; a second network ("fake") learns that of p_t
while the student changes. The vector

    G = w(t) (ε_real(x_t) − ε_fake(x_t))   (from the data to the student: descent subtracts it)

is handed to x₀ as its gradient, and reaches the student's weights through x₀ alone. With w =
α/σ and a perfect fake it is the gradient of KL(p_t ‖ q_t) (Wang et al. 2023, theorem 2; Luo et
al. 2023c, theorem 3.1). Guide the scores by handing in `guided` denoisers. Every function
takes a batch whose x0 are the student's samples; none of them draws those.

The losses' values say nothing: ½‖G‖² is small when the student is right and also when the fake
has learnt nothing. Look at the metrics instead: `gradient` ‖G‖ a sample; `gap`, the root mean
square of ε_real − ε_fake; `spread`, the standard deviation of x₀ over the batch, which tends
to 0 when the student collapses (and is 0 for a batch of one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.losses.diffusion import Batch, Loss, Times, denoising
from dlib.losses.weights import Weight
from dlib.schedule import NoiseLevel

OnEps = Callable[[NoiseLevel], Tensor]
"""What multiplies ε_real − ε_fake at a level: `kl`, `variance`, `on_x0`."""


def kl(level: NoiseLevel) -> Tensor:
    """w = α/σ: G is the gradient of KL(p_t ‖ q_t) by x₀, or with `sds` that of the
    cross-entropy.
    """
    return level.alpha / level.sigma


def variance(level: NoiseLevel) -> Tensor:
    """w = σ²: DreamFusion, ProlificDreamer and SwiftBrush (Poole et al. 2023; Wang et al.
    2023).
    """
    return level.sigma**2


def on_x0(level: NoiseLevel) -> Tensor:
    """w = σ/α, so that G = x₀_fake − x₀_real: Diff-Instruct's code (Luo et al. 2023c). Wants t
    away from α = 0.
    """
    return level.sigma / level.alpha


def vsd(
    real: Denoiser, fake: Denoiser, batch: Batch, draw: Draw, weight: OnEps, times: Times
) -> Loss:
    """Variational score distillation, G = w (ε_real(x_t) − ε_fake(x_t)) (Wang et al. 2023, eq.
    9), also Diff-Instruct.

    batch.x0: the student's samples, with their graph. Neither network gets a gradient. The
    derivative of p_t's own score by the student's weights does not appear because its mean is
    zero. Draws: the times, then the noise.
    """
    level, noise, x_t = _noised(real, batch, draw, times)
    with torch.no_grad():
        gap = real(x_t, level, batch.cond).eps - fake(x_t, level, batch.cond).eps
    return _loss(batch.x0, weight(level), gap)


def sds(real: Denoiser, batch: Batch, draw: Draw, weight: OnEps, times: Times) -> Loss:
    """Score distillation sampling, G = w (ε_real(x_t) − ε) (Poole et al. 2023, eq. 3): no fake
    score.

    Since E[ε | x₀] = 0, subtracting ε changes the variance of G and not its mean: with w = α/σ
    that is the gradient of the cross-entropy −E log q_t. The entropy of p_t is missing, so
    every student shrinks to a point. Draws: as `vsd`.
    """
    level, noise, x_t = _noised(real, batch, draw, times)
    with torch.no_grad():
        gap = real(x_t, level, batch.cond).eps - noise
    return _loss(batch.x0, weight(level), gap)


def fake_score(fake: Denoiser, batch: Batch, draw: Draw, weight: Weight, times: Times) -> Loss:
    """The fake score's own training: `denoising` on the student's samples as data, whose
    gradient stops there.
    """
    return denoising(fake, replace(batch, x0=batch.x0.detach()), draw, weight, times)


def injected(x: Tensor, gradient: Tensor) -> Tensor:
    """½‖x − sg(x − G)‖² of each sample, summed over its values: (B,). Its gradient by x is G,
    its value ½‖G‖².

    Written as ⟨x − sg(x), G⟩ + ½‖G‖², which has the same value and gradient without the
    rounding of x − (x − G): the gradient is G to the last bit. The mean over samples makes G/B
    of it, whatever the number of values a sample has (papers that average over values too have
    a gradient that is smaller by that number).

    >>> x = torch.tensor([[1e8, 2.0]], requires_grad=True)
    >>> injected(x, torch.tensor([[0.5, -1.0]])).sum().backward()
    >>> x.grad
    tensor([[ 0.5000, -1.0000]])
    """
    gradient = gradient.detach()
    return ((x - x.detach()) * gradient + 0.5 * gradient.square()).flatten(1).sum(1)


def _noised(
    real: Denoiser, batch: Batch, draw: Draw, times: Times
) -> tuple[NoiseLevel, Tensor, Tensor]:
    """(level, ε, x_t) of the detached samples."""
    x0 = batch.x0.detach()
    require(
        batch.noise is None,
        "score distillation: the batch brings its own noise, but ε must be drawn anew each "
        "step: Batch(x0, cond)",
    )
    t = times(draw, len(x0)).to(x0.device, torch.promote_types(x0.dtype, torch.float32))
    level, noise = real.schedule.at(t, like=x0), draw.normal(x0)
    return level, noise, level.alpha * x0 + level.sigma * noise


def _loss(x: Tensor, weight: Tensor, gap: Tensor) -> Loss:
    gradient, rows = weight * gap, x.detach().flatten(1)
    value = injected(x, gradient).mean()
    return Loss(
        value,
        {
            "loss": value.detach(),
            "gradient": gradient.flatten(1).norm(dim=1).mean(),
            "gap": gap.square().mean().sqrt(),
            "spread": rows.std(0, unbiased=False).mean(),
        },
    )
