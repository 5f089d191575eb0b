"""What the chapters on human preference share: a student that starts as the exact model, and how
near it ends to the best that its distance allows.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dlib import Denoiser, Draw, Mixture, NoiseLevel, sample
from dlib.nets import MLP
from dlib.reward_tilts import Linear, Quadratic, mean_reward, reward_tilt
from dlib.solvers import dpm_solver_pp_2m
from toy_data.preferences import kl_estimates

Name = TypeVar("Name")


class Adapted(nn.Module):
    """A given network plus `scale` times a small one that says 0 at first, as an adapter does."""

    def __init__(self, exact: Any, width: int, depth: int, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.exact, self.adapter, self.scale = exact, MLP(2, width, depth), 1.0

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self.exact(x, t, cond) + self.scale * self.adapter(x, t)


def adapted(model: Denoiser, width: int = 32, depth: int = 1, seed: int = 0) -> Denoiser:
    """The model on the plane with an adapter of this size: `student.net.adapter` is trained.
    seed: of its first weights.

    >>> from dlib import exact, vp
    >>> from toy_data import gmm5
    >>> teacher, x = exact(gmm5(), vp()), torch.ones(3, 2)
    >>> level = vp().at(0.5)
    >>> bool((adapted(teacher)(x, level).raw == teacher(x, level).raw).all())
    True
    """
    return replace(model, net=Adapted(model.net, width, depth, seed))


class Beside(nn.Module):
    """Several adapted students of one model in one call, each on its share of the rows: the
    model they have in common is asked once for all.
    """

    def __init__(self, students: Sequence[Adapted]):
        super().__init__()
        self.exact = students[0].exact
        self.adapters = nn.ModuleList(one.adapter for one in students)
        self.scales = [one.scale for one in students]

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        n = len(self.adapters)
        shares = zip(self.adapters, self.scales, x.chunk(n), t.chunk(n))
        said = [scale * adapter(x, t) for adapter, scale, x, t in shares]
        return self.exact(x, t, cond) + torch.cat(said)


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

    def highest(self, kl: float) -> float:
        """The highest mean reward with this divergence, between two tilts on the line through
        them: that of the last one beyond the end.
        """
        return float(np.interp(kl, self.kl, self.reward))

    def measured(
        self, model: Denoiser, walk: Sequence[NoiseLevel], n: int
    ) -> tuple[float, float, Tensor, Tensor]:
        """A student's KL by `kl_estimate` of n samples, its standard error; the mean reward of
        500 samples of its ODE on the levels `walk`, its standard error. Computed in float64.
        Both by DPM-Solver++(2M): DDIM's error, at 40 steps, would flatter rewards by as much as
        students lack.
        """
        return self._measured(model, walk, n, students=1)[0]

    def measured_together(
        self, models: Mapping[Name, Denoiser], walk: Sequence[NoiseLevel], n: int, seed: int = 0
    ) -> dict[Name, tuple[float, float, Tensor, Tensor]]:
        """What `measured` says of each of several `adapted` students of one model, by name, in
        half of the time. seed: of the noise that all samples start from.
        """
        first, *_ = models.values()
        model = replace(first, net=Beside([model.net for model in models.values()]))
        return dict(zip(models, self._measured(model, walk, n, len(models), seed)))

    def _measured(
        self, model: Denoiser, walk: Sequence[NoiseLevel], n: int, students: int, seed: int = 0
    ) -> list[tuple[float, float, Tensor, Tensor]]:
        double = replace(model, net=copy.deepcopy(model.net).double())
        z = Draw(seed).normal((500, 2), torch.float64).repeat(students, 1)
        x = sample(double, z, walk, dpm_solver_pp_2m)
        rewards = self.judge(x).detach().split(500)
        far = kl_estimates(double, self.mixture, n, seed, students)
        return [(*kl, r.mean(), r.std() / 500**0.5) for kl, r in zip(far, rewards)]

    def place(self, kl: float, kl_off: float, reward: Tensor, off: Tensor) -> tuple:
        """Of what `measured` returns: the share of the rise that this KL allows, and how far
        above the frontier it lies, in standard errors.
        """
        i = self.at(kl)
        top, slope = self.reward[i], self.beta[i]  # dE r/dKL = β along the tilts
        error = (off**2 + (slope * kl_off) ** 2) ** 0.5
        return (reward - self.start) / (top - self.start), (reward - top) / error
