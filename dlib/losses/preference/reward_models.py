"""Rewards, and what a judge's choices tell about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dlib._util import Draw, alike, require
from dlib.losses.diffusion import Loss

Reward = Callable[[Tensor, Any], Tensor]
"""(x₀ (B, *shape), cond) ↦ rewards (B,). Differentiable in x₀ where a method needs that."""


def bradley_terry(better: Tensor, worse: Tensor, share: float | Tensor = 1.0) -> Loss:
    """−E [s log P + (1 − s) log(1 − P)], P = sigmoid(r(better) − r(worse)): the fit of a
    reward to choices (Bradley & Terry 1952).

    better, worse: rewards of the two, (B,). share: s, how much of the vote went to the first;
    1 for a plain choice, ½ for a tie (as PickScore does, Kirstain et al. 2023). The reward is
    found up to a constant for each prompt, which no choice between two answers can tell.

    >>> bradley_terry(torch.zeros(3), torch.zeros(3)).value  # log 2
    tensor(0.6931)
    """
    require(
        better.ndim == 1 and better.shape == worse.shape,
        f"bradley_terry: rewards have shapes {tuple(better.shape)} and {tuple(worse.shape)}, "
        "wanted (B,) twice: one reward a picture",
    )
    share = torch.as_tensor(share).to(better)
    require(
        share.shape in ((), better.shape),
        f"bradley_terry: share has shape {tuple(share.shape)}, wanted a number or "
        f"({len(better)},): one a pair",
    )
    require(
        bool(((share >= 0) & (share <= 1)).all()),
        "bradley_terry: share must lie in [0, 1]: 1 for the first, 0.5 for a tie",
    )
    margin = better - worse
    value = -(share * logsigmoid(margin) + (1 - share) * logsigmoid(-margin)).mean()
    right = ((margin > 0).double() + 0.5 * (margin == 0)).mean()
    return Loss(value, {"loss": value.detach(), "accuracy": right.detach()})


def preferred(first: Tensor, second: Tensor, draw: Draw) -> Tensor:
    """Whether a Bradley–Terry judge prefers the first, (B,) bool: with probability
    sigmoid(r₁ − r₂). Draws: one uniform a pair.
    """
    alike("preferred: rewards", first, second)
    return draw.uniform(len(first)).to(first.device) < torch.sigmoid(first - second)
