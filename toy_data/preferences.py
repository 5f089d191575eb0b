"""The toy preference worlds: a judge that chooses between two samples, the hidden reward that
it goes by, and a proxy that can be hacked.

Each of them is a world of `toy_data.worlds` whose batches are judged pairs. On the plane the
exact optimum is known (`dlib.reward_tilts`). On captioned shapes the hidden reward counts what
the caption asks for and the picture shows. The judge of the digits likes bold strokes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dlib import Batch, Denoiser, Draw, Mixture, log_likelihood, normal_log_prob, sample
from dlib.losses.preference.reward_models import Reward
from dlib.reward_tilts import Linear, Quadratic
from dlib.solvers import dpm_solver_pp_2m
from toy_data.digits import digits_classifier
from toy_data.judged_pictures import caption_reward, colour_reward, digit_pairs, ink_reward
from toy_data.judged_pictures import judged, shape_pairs
from toy_data.shapes import _draw
from toy_data.worlds import DigitPictures, Points, Scores, ShapePictures, World, walk


def two_sides() -> Mixture:
    """Two equal modes at (±1, 0), standard deviation 0.3; a label for each."""
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    return Mixture(torch.full((2,), 0.5), means, torch.full((2,), 0.3))


def hidden_reward() -> Quadratic:
    """What the judge on the plane likes: −½‖x − (1.5, 0)‖². Right is better, too far is not."""
    return Quadratic(torch.tensor([1.5, 0.0], dtype=torch.float64))


def proxy_reward() -> Linear:
    """1.5 x₁: the slope of `hidden_reward` at the middle of the data. Whoever follows it far
    enough leaves what the judge likes.
    """
    return Linear(torch.tensor([1.5, 0.0], dtype=torch.float64))


def preference_pairs(
    mixture: Mixture, reward: Reward, size: int, seed: int
) -> Callable[[int], Batch]:
    """step ↦ Batch of pairs from the mixture: x0 (size, d) is what a Bradley–Terry judge
    preferred, `other` what it did not; float32, cond None.

    Each batch is a function of (seed, step) alone. Draws: both points of all pairs; the
    judge's.

    >>> data = preference_pairs(two_sides(), hidden_reward(), 512, seed=0)
    >>> batch, judge = data(7), hidden_reward()
    >>> bool((judge(batch.x0) > judge(batch.other)).double().mean() > 0.7)
    True
    """

    def at(step: int) -> Batch:
        draw = _draw(seed, step, 3)
        x = mixture.sample(2 * size, draw)[0].float()
        first, second = x.split(size)
        return judged(first, second, [reward(part, None) for part in (first, second)], draw)

    return at


def kl_estimate(
    model: Denoiser, mixture: Mixture, n: int = 500, seed: int = 0
) -> tuple[float, float]:
    """KL(model's samples ‖ mixture) in nats: its estimate and the estimate's standard error.

    The mean of log p_θ(x) − log π(x) over n samples x of the model's probability-flow ODE,
    both at the schedule's cleanest level. log p_θ is `log_likelihood`, exact for the ODE; its
    start is taken for a standard normal. The network should compute in float64
    (`net.double()`).
    """
    return kl_estimates(model, mixture, n, seed, students=1)[0]


def kl_estimates(
    model: Denoiser, mixture: Mixture, n: int, seed: int, students: int
) -> list[tuple[float, float]]:
    """`kl_estimate` of several students that `model` asks in one call, each on its share of the
    rows. All of them start from the same n normals.
    """
    stops = walk(model.schedule, 40, "grid")
    z = Draw(seed).normal((n, mixture.dim), torch.float64).repeat(students, 1)
    with torch.no_grad():
        x = sample(model, z, stops, dpm_solver_pp_2m)
    change, z = log_likelihood(model, x, stops[-1], stops[0], rtol=1e-5)
    each = change + normal_log_prob(z, stops[0]) - mixture.log_prob(x, stops[-1])
    return [(float(part.mean()), float(part.std() / n**0.5)) for part in each.split(n)]


class PreferenceWorld(World):
    """What every toy preference world adds: `Plane`, `Shapes` and `Digits`. Its batches are
    pairs: x0 is what the judge preferred, `other` what it did not.

    hidden: the reward that the judge goes by; proxy: one that can be hacked, if there is one.
    """

    hidden: Reward
    proxy: Reward | None = None

    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """The mean of the hidden reward, "reward", and of the proxy."""
        each = {"reward": self.hidden} | ({} if self.proxy is None else {"proxy": self.proxy})
        return {name: float(one(x, asked.cond).double().mean()) for name, one in each.items()}


@dataclass(frozen=True)
class Plane(PreferenceWorld, Points):
    """The world on the plane: points of a mixture, judged by `hidden`. Change `hidden`,
    `proxy`, the mixture or the schedule by naming them.

    >>> world = Plane()
    >>> asked = world.ask(500, seed=1)
    >>> found = world.scores(world.draw(world.teacher, asked, seed=2), asked)
    >>> mean, std = world.floor(asked)["reward"]
    >>> abs(found["reward"] - mean) < 4 * std
    True
    """

    mixture: Mixture = field(default_factory=two_sides)
    hidden: Linear | Quadratic = field(default_factory=hidden_reward)
    proxy: Linear | Quadratic = field(default_factory=proxy_reward)

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch: `preference_pairs`."""
        return preference_pairs(self.mixture, self.hidden, size, seed)


@dataclass(frozen=True)
class Shapes(PreferenceWorld, ShapePictures):
    """The world of captioned shapes, with the shipped teacher."""

    hidden: Reward = caption_reward
    proxy: Reward = colour_reward

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch: `shape_pairs`."""
        return shape_pairs(size, seed)


@dataclass(frozen=True)
class Digits(PreferenceWorld, DigitPictures):
    """The world of digits, with the shipped teacher and the held-out digits' labels."""

    hidden: Reward = ink_reward

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch: `digit_pairs`."""
        return digit_pairs(size, seed)

    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """The mean of the hidden reward, and the share that the classifier reads as asked."""
        return super().scores(x, asked) | {"read": digits_classifier().accuracy(x, asked.cond)}
