"""How good a digits sampler is: numbers against pictures that no training has seen, each with
the score of real ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlib import NULL, Batch, Denoiser, Draw, denoising, guided, levels, metrics, sample
from dlib.losses import uniform_times
from dlib.losses.weights import v
from dlib.solvers import dpm_solver_pp_2m
from toy_data.digits import Classifier, Pictures, digits_split

STEPS = 20
OMEGAS, SEEDS = (0.0, 1.0, 3.0), range(4)


def draw_digits(teacher: Denoiser, labels: Tensor, omega: float, seed: int) -> Tensor:
    """One picture for each label: DPM-Solver++(2M), 20 steps uniform in λ, guidance ω. (N, 1,
    8, 8).
    """
    x = Draw(seed).normal((len(labels), 1, 8, 8))
    walk = levels(teacher.schedule, STEPS)
    with torch.no_grad():
        return sample(guided(teacher, omega, NULL), x, walk, dpm_solver_pp_2m, cond=labels)


def digits_frechet(x: Tensor, classifier: Classifier) -> float:
    """Fréchet distance of x (296, 1, 8, 8), drawn for the held-out labels, to the held-out
    pictures, on the features.

    At this one n only: the distance is biased by about 1/n. Compare it with `digits_floor`.
    """
    _, (real, _) = digits_split()
    if len(x) != len(real):
        raise ValueError(
            f"digits_frechet: got {len(x)} pictures, wanted {len(real)}: draw one for each "
            "held-out label"
        )
    return metrics.frechet(classifier.features(x), classifier.features(real))


def digits_floor(classifier: Classifier) -> tuple[float, float]:
    """(mean, standard deviation) of `digits_frechet` over five disjoint sets of real training
    pictures, labels as held out: within about .002 of the mean of many. The bench takes sixteen.
    """
    (x0, labels), (_, wanted) = digits_split()
    counts = torch.bincount(wanted)
    sets = [
        torch.cat([x0[labels == c][k::5][:n] for c, n in enumerate(counts)]) for k in range(5)
    ]
    values = torch.tensor(
        [digits_frechet(real, classifier) for real in sets], dtype=torch.float64
    )
    return values.mean().item(), values.std().item()


def nearest(x: Tensor) -> float:
    """Median distance from a picture of x to its nearest training picture. Far below that of
    held-out pictures: copies.
    """
    (train, _), _ = digits_split()
    # a copy is at 0
    apart = torch.cdist(
        x.flatten(1), train.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    )
    return apart.amin(1).median().item()


@torch.no_grad()
def denoising_loss(teacher: Denoiser, pictures: Pictures, noises: int) -> float:
    """The training loss (weight v, t uniform), with `noises` fixed draws of time and noise for
    each picture.
    """
    x0, labels = (part.repeat_interleave(noises, 0) for part in pictures)
    return denoising(teacher, Batch(x0, labels), Draw(0), v, uniform_times()).value.item()


def teacher_scores(teacher: Denoiser, classifier: Classifier) -> dict:
    """Everything the shipped teacher states about itself, from fixed seeds: a few seconds on
    one core.
    """
    train, (real, labels) = digits_split()
    floor, spread = digits_floor(classifier)
    return {
        "sampler": f"dpm_solver_pp_2m, {STEPS} steps, grid lam, means over {len(SEEDS)} seeds",
        "n": len(real),
        "held_out_loss": denoising_loss(teacher, (real, labels), noises=20),
        "train_loss": denoising_loss(teacher, train, noises=4),
        "real": {
            "frechet": floor,
            "frechet_std": spread,
            "accuracy": classifier.accuracy(real, labels),
            "nearest": nearest(real),
        },
        **{
            f"omega {omega:g}": sampler_scores(
                lambda seed: draw_digits(teacher, labels, omega, seed), classifier
            )
            for omega in OMEGAS
        },
    }


def sampler_scores(draw: Callable[[int], Tensor], classifier: Classifier) -> dict[str, float]:
    """The scores of a sampler, seed ↦ one picture for each held-out label: `digits_frechet`,
    accuracy, `nearest`; four seeds.

    Read the accuracy last: a picture of the mean digit is read better than a real one.
    """
    sets, (_, (_, labels)) = [draw(seed) for seed in SEEDS], digits_split()
    frechet = torch.tensor([digits_frechet(x, classifier) for x in sets], dtype=torch.float64)
    every = torch.cat(sets)
    return {
        "frechet": frechet.mean().item(),
        "frechet_std": frechet.std().item(),
        "accuracy": classifier.accuracy(every, labels.repeat(len(sets))),
        "nearest": nearest(every),
    }


def digits_variety(x: Tensor) -> float:
    """How much the pictures of one digit differ, relative to real ones: 1 for a fair sampler,
    0 for one picture a digit.

    The variance of x (296, 1, 8, 8), drawn for the held-out labels, within a label: summed
    over pixels, mean over ten labels.
    """
    _, (real, labels) = digits_split()
    within = lambda x: sum(x[labels == c].var(0).sum() for c in range(10)).item()
    return within(x) / within(real)
