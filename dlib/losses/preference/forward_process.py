"""DiffusionNFT: reinforcement without a single likelihood, on noised samples."""

from __future__ import annotations

import torch
from torch import Tensor

from dlib._util import Draw, alike, per_sample, require
from dlib.denoiser import Denoiser
from dlib.losses import weights
from dlib.losses.diffusion import Batch, Loss, Times, uniform_times
from dlib.losses.weights import Weight
from dlib.prediction import parts


def nft(
    student: Denoiser,
    old: Denoiser,
    batch: Batch,
    share: Tensor,
    draw: Draw,
    *,
    beta: float = 1.0,
    weight: Weight = weights.velocity,
    times: Times = uniform_times(),
) -> Loss:
    """E w(t) [r ‖u⁺ − u‖² + (1 − r) ‖u⁻ − u‖²], u⁺ = u_old + β(u_θ − u_old), u⁻ = u_old −
    β(u_θ − u_old) (Zheng et al. 2025a, eq. 7 and 8).

    batch: samples x0 of the old model, made by whatever sampler, and their conditions. share:
    r ∈ [0, 1], (B,), how good each is. What is learnt is u_old + (2/β) Cov(r, u | x_t): a step
    of length 2/β towards the tilt π e^{λr}, and for a Gaussian and a linear reward it is a
    tilt itself. With r the same for all nothing is learnt. The released code divides each
    error by its own mean size, which moves the minimum; here nothing is divided. Summed over a
    sample's values, a mean over the batch. Draws: the times; the noise (unless the batch
    brings its own).
    """
    x0 = batch.x0
    require(beta > 0, f"nft: beta = {beta:g}, wanted more than 0")
    require(
        share.shape == x0.shape[:1]
        and (share.is_meta or bool(((share >= 0) & (share <= 1)).all())),
        f"nft: share has shape {tuple(share.shape)} and must be ({len(x0)},), each in [0, 1]: "
        "0.5 + clamp(advantage, −5, 5)/10, for example",
    )
    t = times(draw, len(x0)).to(x0.device, torch.promote_types(x0.dtype, torch.float32))
    level = student.schedule.at(t, like=x0)
    noise = draw.normal(x0) if batch.noise is None else batch.noise
    alike("nft: noise and x0", noise, x0)
    x = level.alpha * x0 + level.sigma * noise
    new = student(x, level, batch.cond).raw
    with torch.no_grad():
        told = old(x, level, batch.cond).face(student.predicts)
    a, b = parts(student.predicts, level, student.schedule)
    gap, move = told - (a * x0 + b * noise), beta * (new - told)
    r = per_sample(share.to(x0), x0)
    square = r * (gap + move).square() + (1 - r) * (gap - move).square()
    scale = weight.on(student.predicts, level, student.schedule)
    each = (scale * square).flatten(1).sum(1)
    far = (new - told).detach().square().mean()
    return Loss(each.mean(), {"loss": each.detach().mean(), "moved": far})
