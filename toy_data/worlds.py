"""The toy worlds as one noun: what a method learns from, what its students are asked for, and how
good is what they draw, by the same verbs in each world.

`Points`, `DigitPictures` and `ShapePictures` are here. The preference worlds of
`toy_data.preferences` extend them: their batches are pairs that somebody has judged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dlib import NULL, Batch, Denoiser, Draw, Mixture, NoiseLevel, NoiseSchedule, cosine, exact
from dlib import levels, metrics, sample, vp
from dlib._util import require
from dlib.nets import MLP
from dlib.solvers import dpm_solver_pp_2m
from toy_data.digit_scores import digits_frechet
from toy_data.digits import digit_batches, digits_classifier, digits_split, digits_teacher
from toy_data.judged_pictures import codes_of, told
from toy_data.mixtures import gmm5, labelled
from toy_data.shape_captions import NULL_TOKENS, draw_codes
from toy_data.shape_scores import draw_shapes
from toy_data.shape_scores import scores as shape_scores
from toy_data.shapes import SIDE, pictures, shape_batches, shapes_teacher
from toy_data.train_digits import seeded

Scores = dict[str, float]
SETS = 8


class World(ABC):
    """What every toy world has.

    null: the empty condition; None where nothing is asked for.
    """

    teacher: Denoiser
    null: Any

    def start(self, seed: int) -> Denoiser:
        """The denoiser that a student starts as: the teacher, unless a world says otherwise."""
        return self.teacher

    @abstractmethod
    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch of samples and what they show, each a function of (seed, step) alone."""

    @abstractmethod
    def ask(self, n: int, seed: int) -> Batch:
        """What n samples are asked for: conditions; x0 is NaN, and has their shape."""

    @abstractmethod
    def draw(self, model: Denoiser, asked: Batch, seed: int) -> Tensor:
        """A sample for each row."""

    @abstractmethod
    def real(self, asked: Batch, seed: int) -> Tensor:
        """A real sample for each row."""

    @abstractmethod
    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """Score ↦ its value for the samples x, one for each row that was asked for."""

    def floor(self, asked: Batch) -> dict[str, tuple[float, float]]:
        """Score ↦ (mean, standard deviation) over eight sets of real samples."""
        found = [self.scores(self.real(asked, 3_000_000 + k), asked) for k in range(SETS)]
        each = {name: torch.tensor([one[name] for one in found]).double() for name in found[0]}
        return {name: (float(v.mean()), float(v.std())) for name, v in each.items()}

    def variety(self, model: Denoiser, seed: int, conditions: int = 16, each: int = 32) -> float:
        """How much what a model draws for one condition differs, relative to real samples: 1 for
        a fair sampler, 0 for one sample a condition. The variance over `each` samples, summed
        over their values and over the conditions.
        """
        once = self.ask(conditions, seed)
        x0, cond = (
            None if part is None else part.repeat_interleave(each, 0)
            for part in (once.x0, once.cond)
        )
        asked = Batch(x0, cond)
        within = lambda x: x.unflatten(0, (conditions, each)).var(1).sum().item()
        return within(self.draw(model, asked, seed)) / within(self.real(asked, seed))


@dataclass(frozen=True)
class Points(World):
    """Points of a mixture, with its exact denoiser; asked for by label, or not asked.

    Fresh students are MLPs 96 × 2 that predict v.

    >>> world = Points(gmm5())
    >>> asked = world.ask(2000, seed=1)
    >>> found = world.scores(world.draw(world.teacher, asked, seed=2), asked)
    >>> mean, std = world.floor(asked)["sliced_w2"]
    >>> abs(found["sliced_w2"] - mean) < 4 * std
    True
    """

    mixture: Mixture
    schedule: NoiseSchedule = field(default_factory=vp)
    by_label: bool = False

    @property
    def teacher(self) -> Denoiser:
        """The exact denoiser of the mixture."""
        return exact(self.mixture, self.schedule)

    @property
    def null(self) -> Tensor | None:
        return NULL if self.by_label else None

    def start(self, seed: int) -> Denoiser:
        """A new network, its weights drawn with this seed."""
        classes = len(self.mixture.labels.unique()) if self.by_label else 0
        return seeded(lambda: Denoiser(MLP(2, 96, 2, classes=classes), self.schedule, "v"), seed)

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch of float32 points, with their labels if they are asked for by label."""

        def at(step: int) -> Batch:
            x0, label = self.mixture.sample(size, Draw(1_000_000 * seed + step))
            return Batch(x0.float(), label if self.by_label else None)

        return at

    def ask(self, n: int, seed: int) -> Batch:
        """Labels as the mixture draws them, or nothing, so only how many."""
        label = self.mixture.sample(n, Draw(seed))[1] if self.by_label else None
        return Batch(torch.full((n, self.mixture.dim), torch.nan), label)

    def draw(self, model: Denoiser, asked: Batch, seed: int) -> Tensor:
        """A point for each row: DPM-Solver++(2M), 20 steps."""
        z = Draw(seed).normal(asked.x0)
        with torch.no_grad():
            return sample(model, z, walk(model.schedule, 20), dpm_solver_pp_2m, asked.cond)

    def real(self, asked: Batch, seed: int) -> Tensor:
        """Exact points, each of its row's label."""
        draw, n = Draw(seed), len(asked.x0)
        if asked.cond is None:
            return self.mixture.sample(n, draw)[0]
        x = torch.empty(n, self.mixture.dim, dtype=torch.float64)
        for label in asked.cond.unique():
            rows, ours = asked.cond == label, self.mixture.labels == label
            part = self.mixture.weights[ours] / self.mixture.weights[ours].sum()
            alone = Mixture(part, self.mixture.means[ours], self.mixture.stds[ours])
            x[rows] = alone.sample(int(rows.sum()), draw)[0]
        return x

    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """sliced_w2: to exact points of the same labels; none: the share in no mode."""
        return {
            "sliced_w2": metrics.sliced_w2(x, self.real(asked, 2_000_000)),
            "none": 1 - self.mixture.shares(x).sum().item(),
        }


@dataclass(frozen=True)
class DigitPictures(World):
    """Scikit-learn's digits, with the shipped teacher; the held-out digits' labels are asked."""

    teacher: Denoiser = field(default_factory=digits_teacher)

    null = NULL

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch of training pictures (size, 1, 8, 8) with their labels (size,)."""
        return digit_batches(size, seed=seed, drop=0.0)

    def ask(self, n: int, seed: int) -> Batch:
        """n of the 296 held-out labels, cond (n,), in an order of their own for each seed."""
        labels = digits_split()[1][1]
        require(n <= len(labels), f"ask: {n} digits, wanted at most {len(labels)}")
        order = Draw(seed).uniform(len(labels)).argsort()[:n]
        return Batch(torch.full((n, 1, 8, 8), torch.nan), labels[order])

    def draw(self, model: Denoiser, asked: Batch, seed: int) -> Tensor:
        """A digit for each label: DPM-Solver++(2M), 20 steps, without guidance."""
        z, stops = Draw(seed).normal(asked.x0), levels(model.schedule, 20, end="clean")
        with torch.no_grad():
            return sample(model, z, stops, dpm_solver_pp_2m, asked.cond)

    def real(self, asked: Batch, seed: int) -> Tensor:
        """Training digits of the same labels, drawn with replacement."""
        (x0, labels), _ = digits_split()
        rows = [(labels == k).nonzero()[:, 0] for k in range(10)]
        pairs = zip(asked.cond.tolist(), Draw(seed).uniform(len(asked.cond)).tolist())
        return torch.stack([x0[rows[of][int(u * len(rows[of]))]] for of, u in pairs])

    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """frechet: of all 296 labels, to the held-out digits; accuracy: the share that the
        classifier reads as asked.
        """
        judge = digits_classifier()
        return {"frechet": digits_frechet(x, judge), "accuracy": judge.accuracy(x, asked.cond)}


@dataclass(frozen=True)
class ShapePictures(World):
    """Captioned shapes, with the shipped teacher."""

    teacher: Denoiser = field(default_factory=shapes_teacher)

    null = NULL_TOKENS

    def batches(self, size: int, seed: int) -> Callable[[int], Batch]:
        """step ↦ Batch of pictures (size, 3, 16, 16) with their captions' tokens (size, 10)."""
        return shape_batches(size, seed=seed, drop=0.0)

    def ask(self, n: int, seed: int) -> Batch:
        """n captions, cond = tokens (n, 10)."""
        return Batch(torch.full((n, 3, SIDE, SIDE), torch.nan), told(draw_codes(n, Draw(seed))))

    def draw(self, model: Denoiser, asked: Batch, seed: int) -> Tensor:
        """A picture for each caption: DDIM, 10 steps, without guidance."""
        return draw_shapes(model, codes_of(asked.cond), 0.0, 10, seed)

    def real(self, asked: Batch, seed: int) -> Tensor:
        """Pictures of the same captions."""
        return pictures(codes_of(asked.cond), Draw(seed))

    def scores(self, x: Tensor, asked: Batch) -> Scores:
        """accuracy, frechet, off and ink of `toy_data.shape_scores`, for 512 captions."""
        return shape_scores(x, codes_of(asked.cond))


def walk(schedule: NoiseSchedule, steps: int, end: str = "clean") -> list[NoiseLevel]:
    """Uniform in λ; from t = 0.999, since on some schedules t = 1 has no finite λ."""
    return list(levels(schedule, steps, end=end, t_max=0.999))


@lru_cache
def world_of(name: str) -> World:
    """The world in which the book's students are measured: "gmm5" and "labelled" are points
    with a perfect teacher, students of "digits" and "shapes" start as the shipped one.
    """
    made = {
        "gmm5": lambda: Points(gmm5()),
        "labelled": lambda: Points(labelled(), cosine(), by_label=True),
        "digits": DigitPictures,
        "shapes": ShapePictures,
    }
    require(name in made, f"world_of: no world {name!r}; there are {', '.join(made)}")
    return made[name]()
