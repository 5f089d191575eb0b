"""What reward fine-tuning aims at, written down: a Gaussian mixture tilted by a reward.

The density that maximises E r − β KL(· ‖ π) is π e^{r/β}/Z (Korbak et al. 2022). For a mixture
π and a reward that is linear or quadratic it is a mixture again, so its density, its samples,
its reward and its distance from π are known, and an optimiser can be measured against them.
This is not the guidance tilt of `Mixture.guidance_tilt_sample`, which has no reward in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlib._util import require
from dlib.mixtures import Mixture


@dataclass(frozen=True)
class Linear:
    """r(x) = a·x + offset, for x (B, d): (B,). slope: a, (d,).

    >>> Linear(torch.tensor([2.0, 0.0]))(torch.ones(3, 2))
    tensor([2., 2., 2.])
    """

    slope: Tensor
    offset: float = 0.0

    def __call__(self, x: Tensor, cond: Any = None) -> Tensor:
        return x @ self.slope.to(x) + self.offset


@dataclass(frozen=True)
class Quadratic:
    """r(x) = −‖x − c‖²/(2 width²), for x (B, d): (B,). centre: c, (d,)."""

    centre: Tensor
    width: float = 1.0

    def __post_init__(self):
        require(self.width > 0, f"Quadratic: width = {self.width:g}, wanted more than 0")

    def __call__(self, x: Tensor, cond: Any = None) -> Tensor:
        return -(x - self.centre.to(x)).square().sum(1) / (2 * self.width**2)


@dataclass(frozen=True)
class Tilt:
    """The optimum of E r − β KL(· ‖ π). mixture: π e^{r/β}/Z; log_z: log Z; reward: E r under
    it; kl: KL(mixture ‖ π) in nats.
    """

    mixture: Mixture
    beta: float
    log_z: float
    reward: float

    @property
    def kl(self) -> float:
        """E r/β − log Z, in nats."""
        return self.reward / self.beta - self.log_z

    @property
    def value(self) -> float:
        """The maximum itself, β log Z."""
        return self.beta * self.log_z


def reward_tilt(mixture: Mixture, reward: Linear | Quadratic, beta: float) -> Tilt:
    """The tilted mixture π e^{r/β}/Z, in closed form.

    A component N(μ, S² I) becomes, for r = a·x, N(μ + S²a/β, S² I), and its weight gains the
    factor e^{a·μ/β + ‖a‖²S²/2β²}. A quadratic reward adds its precision 1/(β width²). beta: in
    the reward's units; negative turns the reward around. Raises ValueError for β = 0, and
    where a turned quadratic reward outweighs a component, so that there is no optimum.

    >>> line = Mixture(torch.ones(1), torch.zeros(1, 1), torch.full((1,), 0.5))
    >>> best = reward_tilt(line, Linear(torch.tensor([2.0])), beta=1.0)
    >>> best.mixture.means.item(), best.reward, best.kl  # μ + S²a/β, …, ½(S a/β)²
    (0.5, 1.0, 0.5)
    """
    require(beta != 0, "reward_tilt: beta = 0 would follow the reward alone: wanted β ≠ 0")
    means, variance = mixture.means, mixture.stds[:, None] ** 2
    if isinstance(reward, Linear):
        _fits(mixture, reward.slope, "slope")
        push = reward.slope.double() / beta
        moved, spread = means + variance * push, mixture.stds
        gain = means @ push + 0.5 * (variance * push**2).sum(1) + reward.offset / beta
    else:
        _fits(mixture, reward.centre, "centre")
        growth = 1 + variance / (beta * reward.width**2)  # of a component's precision
        require(
            bool((growth > 0).all()),
            f"reward_tilt: with beta = {beta:g} the reward grows faster than a component of std "
            f"{mixture.stds.max():g} falls: take |beta| above {float(variance.max()):g} / "
            f"{reward.width**2:g}",
        )
        apart = reward.centre.double() - means
        moved, spread = means + (1 - 1 / growth) * apart, mixture.stds / growth[:, 0].sqrt()
        pull = (growth - 1) / (2 * variance * growth)
        gain = -(pull * apart**2).sum(1) - 0.5 * mixture.dim * growth[:, 0].log()
    joint = mixture.weights.log() + gain
    log_z = torch.logsumexp(joint, 0)
    tilted = Mixture((joint - log_z).exp(), moved, spread, mixture.labels)
    return Tilt(tilted, beta, float(log_z), mean_reward(tilted, reward))


def mean_reward(mixture: Mixture, reward: Linear | Quadratic) -> float:
    """E r(x) over the mixture, exactly."""
    each = reward(mixture.means)
    if isinstance(reward, Quadratic):
        each = each - mixture.dim * mixture.stds**2 / (2 * reward.width**2)
    return float(mixture.weights @ each)


def _fits(mixture: Mixture, vector: Tensor, name: str) -> None:
    require(
        tuple(vector.shape) == (mixture.dim,),
        f"reward_tilt: the reward's {name} has shape {tuple(vector.shape)}, wanted "
        f"({mixture.dim},): this mixture lives in {mixture.dim} dimensions",
    )
