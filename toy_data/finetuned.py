"""What the chapters on human preference share: a student that starts as the exact model, and how
near it ends to the best that its distance allows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlib import Denoiser, Draw, Mixture, NoiseLevel, sample
from dlib.nets import MLP
from dlib.reward_tilts import Linear, Quadratic, mean_reward, reward_tilt
from toy_data.preferences import kl_estimate


class Adapted(nn.Module):
    """A given network plus `scale` times a small one that says 0 at first, as an adapter does."""

    def __init__(self, exact: Any, width: int, depth: int):
        super().__init__()
        torch.manual_seed(0)
        self.exact, self.adapter, self.scale = exact, MLP(2, width, depth), 1.0

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self.exact(x, t, cond) + self.scale * self.adapter(x, t)


def adapted(model: Denoiser, width: int = 32, depth: int = 1) -> Denoiser:
    """The model on the plane with an adapter of this size: `student.net.adapter` is trained.

    >>> from dlib import exact, vp
    >>> from toy_data import gmm5
    >>> teacher, x = exact(gmm5(), vp()), torch.ones(3, 2)
    >>> level = vp().at(0.5)
    >>> bool((adapted(teacher)(x, level).raw == teacher(x, level).raw).all())
    True
    """
    return replace(model, net=Adapted(model.net, width, depth))


class Frontier:
    """The exact tilts of a mixture by a reward, one for each β: no density has a higher mean
    reward at the same divergence. kl, reward, beta: (n,), along the frontier.
    """

    def __init__(self, mixture: Mixture, reward: Linear | Quadratic, betas: Sequence[float]):
        self.mixture, self.judge = mixture, reward
        self.tilts = [reward_tilt(mixture, reward, beta) for beta in betas]
        self.kl, self.reward, self.beta = (
            torch.tensor([getattr(tilt, name) for tilt in self.tilts])
            for name in ("kl", "reward", "beta")
        )
        self.start = mean_reward(mixture, reward)

    def at(self, kl: float) -> int:
        """The place of the tilt with this divergence: the last one beyond the end."""
        return int(torch.searchsorted(self.kl, kl).clamp(max=len(self.tilts) - 1))

    def measured(
        self, model: Denoiser, walk: Sequence[NoiseLevel], n: int
    ) -> tuple[float, float, Tensor, Tensor]:
        """A student's KL by `kl_estimate` of n samples, its standard error; the mean reward of
        500 samples of its ODE on the levels `walk`, its standard error. Computed in float64.
        """
        double = replace(model, net=copy.deepcopy(model.net).double())
        x = sample(double, Draw(0).normal((500, 2), torch.float64), walk)
        values = self.judge(x).detach()
        return *kl_estimate(double, self.mixture, n=n), values.mean(), values.std() / 500**0.5

    def place(self, kl: float, kl_off: float, reward: Tensor, off: Tensor) -> tuple:
        """Of what `measured` returns: the share of the rise that this KL allows, and how far
        above the frontier it lies, in standard errors.
        """
        i = self.at(kl)
        top, slope = self.reward[i], self.beta[i]  # dE r/dKL = β along the tilts
        error = (off**2 + (slope * kl_off) ** 2) ** 0.5
        return (reward - self.start) / (top - self.start), (reward - top) / error
