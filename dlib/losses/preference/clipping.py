"""Preferences between steps of the sampler: D3PO and SPO."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dlib._util import alike, require
from dlib.losses.diffusion import Loss


def d3po(
    better: Tensor,
    worse: Tensor,
    better_reference: Tensor,
    worse_reference: Tensor,
    *,
    beta: float = 0.1,
    clip: float = 0.1,
) -> Loss:
    """−E log sigmoid(β log clip(ρ_better) − β log clip(ρ_worse)), ρ = p_θ/p_ref of one step,
    clipped to 1 ± clip (Yang et al. 2024, eq. 14).

    All are log-probabilities (B,) of the steps that were taken; the references' are constants.
    In D3PO the two steps come from two paths, of which one was preferred; in SPO (Liang et al.
    2024) they leave the same state, β is 10, and `extremes` chooses them. The released codes
    have means over values for log-probabilities. Outside of the clip the gradient is 0, on
    either side.
    """
    require(0 < clip < 1, f"d3po: clip = {clip:g}, wanted a number between 0 and 1")
    require(beta > 0, f"d3po: beta = {beta:g}, wanted more than 0")
    for other in (worse, better_reference, worse_reference):
        alike("d3po: log-probabilities", better, other)

    def gain(now: Tensor, held: Tensor) -> Tensor:
        # the logarithm is clipped, not ρ: far outside, e^… overflows and its gradient is NaN
        return (now - held.detach()).clamp(math.log(1 - clip), math.log(1 + clip))

    inside = beta * (gain(better, better_reference) - gain(worse, worse_reference))
    value = -logsigmoid(inside).mean()
    return Loss(value, {"loss": value.detach()})


def extremes(scores: Tensor, gap: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """(best, worst, kept) of each row of scores (B, k): two indices (B,), and whether their
    shares under softmax over the row differ by more than `gap`, (B,) bool (SPO, Liang et al.
    2024).

    >>> extremes(torch.tensor([[0.0, 3.0, 1.0], [1.0, 1.0, 1.0]]))
    (tensor([1, 0]), tensor([0, 0]), tensor([ True, False]))
    """
    require(
        scores.ndim == 2 and scores.shape[1] >= 2,
        f"extremes: scores have shape {tuple(scores.shape)}, wanted (B, k) with k ≥ 2 candidates",
    )
    require(0 <= gap < 1, f"extremes: gap = {gap:g}, wanted a difference of shares, in [0, 1)")
    share = torch.softmax(scores, 1)
    return share.argmax(1), share.argmin(1), (share.amax(1) - share.amin(1)) > gap
