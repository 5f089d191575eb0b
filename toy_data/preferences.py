"""The toy preference worlds: a judge that chooses between two samples, the hidden reward that
it goes by, and a proxy that can be hacked.

All of them are a `PreferenceWorld`, with the same verbs. On the plane the exact optimum is
known (`dlib.reward_tilts`). On captioned shapes the hidden reward counts what the caption asks
for and the picture shows. The judge of the digits likes bold strokes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from dlib import NULL, Batch, Denoiser, Draw, Mixture, NoiseLevel, NoiseSchedule, exact, levels
from dlib import log_likelihood, normal_log_prob, sample, vp
from dlib._util import require
from dlib.losses.preference.reward_models import Reward
from dlib.reward_tilts import Linear, Quadratic
from dlib.solvers import dpm_solver_pp_2m
from toy_data.digits import digits_classifier, digits_split, digits_teacher
from toy_data.judged_pictures import caption_reward, codes_of, colour_reward, digit_pairs
from toy_data.judged_pictures import ink_reward, judged, shape_pairs, told
from toy_data.shape_captions import NULL_TOKENS, draw_codes
from toy_data.shape_scores import draw_shapes
from toy_data.shapes import SIDE, _draw, pictures, shapes_teacher

Scores = dict[str, float]


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
    walk = _walk(model.schedule, 40, "grid")
    z = Draw(seed).normal((n, mixture.dim), torch.float64).repeat(students, 1)
    with torch.no_grad():
        x = sample(model, z, walk, dpm_solver_pp_2m)
    change, z = log_likelihood(model, x, walk[-1], walk[0], rtol=1e-5)
    each = change + normal_log_prob(z, walk[0]) - mixture.log_prob(x, walk[-1])
    return [(float(part.mean()), float(part.std() / n**0.5)) for part in each.split(n)]


class PreferenceWorld(Protocol):
    """What every toy preference world has: `Plane`, `Shapes` and `Digits`.

    null: the empty condition. hidden: the reward that the judge goes by.
    """

    teacher: Denoiser
    null: Any
    hidden: Reward

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch of pairs: x0 is what the judge preferred, `other` what it did not."""

    def ask(self, n: int, seed: int) -> Batch:
        """What n samples are asked for: conditions; x0 is NaN, and has their shape."""

    def draw(self, model: Denoiser, asked: Batch, seed: int) -> Tensor:
        """A sample for each row."""

    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """Score ↦ its mean over the samples; "reward" is the hidden one's."""

    def floor(self, asked: Batch) -> dict[str, tuple[float, float]]:
        """Score ↦ (mean, standard deviation) over five sets of real samples."""


@dataclass(frozen=True)
class Plane:
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
    schedule: NoiseSchedule = field(default_factory=vp)

    null = None

    @property
    def teacher(self) -> Denoiser:
        """The exact denoiser of the mixture."""
        return exact(self.mixture, self.schedule)

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch: `preference_pairs`."""
        return preference_pairs(self.mixture, self.hidden, size, seed)

    def ask(self, n: int, seed: int) -> Batch:
        """What n samples are asked for: nothing here, so only how many; x0 is NaN."""
        return Batch(torch.full((n, self.mixture.dim), torch.nan))

    def draw(self, model: Denoiser, asked: Batch, seed: int) -> Tensor:
        """A sample for each row: DPM-Solver++(2M), 20 steps."""
        z = Draw(seed).normal(asked.x0)
        with torch.no_grad():
            return sample(model, z, _walk(model.schedule, 20, "clean"), dpm_solver_pp_2m)

    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """The mean of the hidden reward and of the proxy."""
        return _scores(x, asked, self.hidden, self.proxy)

    def floor(self, asked: Batch) -> dict[str, tuple[float, float]]:
        """(mean, standard deviation) of the scores over five sets of exact samples."""
        n = len(asked.x0)
        return _floor(self, lambda k: self.mixture.sample(n, Draw(3_000_000 + k))[0], asked)


@dataclass(frozen=True)
class Shapes:
    """The world of captioned shapes, with the shipped teacher."""

    teacher: Denoiser = field(default_factory=shapes_teacher)
    hidden: Reward = caption_reward
    proxy: Reward = colour_reward

    null = NULL_TOKENS

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch: `shape_pairs`."""
        return shape_pairs(size, seed)

    def ask(self, n: int, seed: int) -> Batch:
        """n captions, cond = tokens (n, 10); x0 is NaN."""
        return Batch(torch.full((n, 3, SIDE, SIDE), torch.nan), told(draw_codes(n, Draw(seed))))

    def draw(self, model: Denoiser, asked: Batch, seed: int) -> Tensor:
        """A picture for each caption: DDIM, 10 steps, without guidance."""
        return draw_shapes(model, codes_of(asked.cond), 0.0, 10, seed)

    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """The mean of the hidden reward and of the proxy."""
        return _scores(x, asked, self.hidden, self.proxy)

    def floor(self, asked: Batch) -> dict[str, tuple[float, float]]:
        """(mean, standard deviation) of the scores over five sets of real pictures of the same
        captions.
        """
        codes = codes_of(asked.cond)
        return _floor(self, lambda k: pictures(codes, Draw(3_000_000 + k)), asked)


@dataclass(frozen=True)
class Digits:
    """The world of digits, with the shipped teacher and the held-out digits' labels."""

    teacher: Denoiser = field(default_factory=digits_teacher)
    hidden: Reward = ink_reward

    null = NULL

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch: `digit_pairs`."""
        return digit_pairs(size, seed)

    def ask(self, n: int, seed: int) -> Batch:
        """n of the 296 held-out labels, cond (n,), in an order of their own for each seed; x0
        is NaN.
        """
        labels = digits_split()[1][1]
        require(n <= len(labels), f"ask: {n} digits, wanted at most {len(labels)}")
        order = Draw(seed).uniform(len(labels)).argsort()[:n]
        return Batch(torch.full((n, 1, 8, 8), torch.nan), labels[order])

    def draw(self, model: Denoiser, asked: Batch, seed: int) -> Tensor:
        """A digit for each label: DPM-Solver++(2M), 20 steps, without guidance."""
        z = Draw(seed).normal(asked.x0)
        with torch.no_grad():
            return sample(
                model, z, levels(model.schedule, 20, end="clean"), dpm_solver_pp_2m, asked.cond
            )

    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """The mean of the hidden reward, and the share that the classifier reads as asked."""
        found = {"reward": float(self.hidden(x, asked.cond).double().mean())}
        return found | {"read": digits_classifier().accuracy(x, asked.cond)}

    def floor(self, asked: Batch) -> dict[str, tuple[float, float]]:
        """(mean, standard deviation) of the scores over five sets of real training digits of the
        same labels.
        """
        (x0, labels), _ = digits_split()
        rows = [(labels == k).nonzero()[:, 0] for k in range(10)]

        def real(k: int) -> Tensor:
            place = Draw(3_000_000 + k).uniform(len(asked.cond)).tolist()
            pairs = zip(asked.cond.tolist(), place)
            return torch.stack([x0[rows[of][int(u * len(rows[of]))]] for of, u in pairs])

        return _floor(self, real, asked)


def _walk(schedule: NoiseSchedule, steps: int, end: str) -> list[NoiseLevel]:
    """Uniform in λ; from t = 0.999, since on some schedules t = 1 has no finite λ."""
    return list(levels(schedule, steps, end=end, t_max=0.999))


def _scores(x: Tensor, asked: Batch, hidden: Reward, proxy: Reward) -> Scores:
    each = {"reward": hidden, "proxy": proxy}
    return {name: float(one(x, asked.cond).double().mean()) for name, one in each.items()}


def _floor(world: PreferenceWorld, real: Callable[[int], Tensor], asked: Batch):
    found = [world.scores(real(k), asked) for k in range(5)]
    each = {name: torch.tensor([one[name] for one in found]).double() for name in found[0]}
    return {name: (float(v.mean()), float(v.std())) for name, v in each.items()}
