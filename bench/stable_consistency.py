"""How good consistency training's students are on GMM5, by how many clean samples their
targets are made of.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.report import Report
from dlib import Batch, Denoiser, Draw, Part, Phase, Recipe, boundary, edm_boundary, exact, grid
from dlib import metrics, vp
from dlib.losses import consistency_training, ladder_times, own, taught
from dlib.losses.bootstrapping import Estimate
from dlib.losses.variance_reduction import among, variance_reduced_target
from dlib.nets import MLP
from toy_data import distil, gmm5
from toy_data.student_prints import said
from toy_data.student_scores import FLOOR, flow_ends

NOTE = """One-call students of consistency training on GMM5 (VP schedule, MLP of width 96 and
depth 2 that predicts v, a ladder of {points} points on the grid `arctan`, squared distance,
target average .95, Adam from 4e-3 along a cosine), each after {steps} updates of {batch}
points; {seeds} seeds. They differ in the clean sample that a step is made with: the batch's own
(consistency training), the self-normalised mean of some references, or the exact posterior mean
(what infinitely many references would give). *distance* is the sliced Wasserstein distance of
80 000 samples to the exact flow's end points of the same noise, in units of what two exact sets
of 10 000 leave (.0319); *none* is the share of samples in no mode (exact: .011). Means over
seeds, with two standard errors."""
POINTS, BATCH = 60, 256
SCHEDULE, MIXTURE = vp(), gmm5()
TIMES = grid(SCHEDULE, POINTS - 1, "arctan")
SCALINGS = edm_boundary(SCHEDULE, TIMES[-1].item(), 1.0)


def run(steps: int = 1500, seeds: int = 3) -> Report:
    """Distance to the exact ends and share in no mode, for each kind of target."""
    noise = Draw(777).normal((80_000, 2), torch.float64)
    ends, rows = flow_ends(noise), []
    for name, estimate in arms().items():
        found = [scored(student(estimate, steps, seed), noise, ends) for seed in range(seeds)]
        values = torch.tensor(found, dtype=torch.float64)
        mean, error = values.mean(0), 2 * values.std(0) / seeds**0.5
        cells = [v for pair in zip(mean.tolist(), error.tolist()) for v in pair]
        rows.append([name, *cells])
        print(*rows[-1], flush=True)
    note = NOTE.format(points=POINTS, steps=steps, batch=BATCH, seeds=seeds)
    columns = ["target", "distance", "±", "none", "± none"]
    return Report("Targets of consistency training", note, columns, rows, fingerprints())


def arms() -> dict[str, Estimate]:
    """Each kind of target by name."""
    return {
        "one sample": own,
        "32 references": groups_of(32),
        "256 references": groups_of(BATCH),
        "the exact mean": taught(exact(MIXTURE, SCHEDULE)),
    }


def groups_of(n: int) -> Estimate:
    """The batch cut into groups of n rows, which are each other's references."""
    shared = among(1 + torch.arange(BATCH) // n)
    return lambda x, level, batch: variance_reduced_target(x, level, batch.x0, shared).x0


def student(estimate: Estimate, steps: int, seed: int) -> Denoiser:
    """A trained student, in its boundary."""
    recipe, model, data = learning(estimate, seed)
    return boundary(distil(recipe, model, model, data, steps, seed=seed), SCALINGS)


def learning(estimate: Estimate, seed: int) -> tuple[Recipe, Denoiser, Callable[[int], Batch]]:
    """(recipe, student before its first update, step ↦ batch)."""
    drawn = ladder_times(TIMES)

    def loss(roles, batch, draw):
        f, target = (boundary(roles[name], SCALINGS) for name in ("student", "target"))
        return consistency_training(f, target, batch, draw, times=drawn, estimate=estimate)

    def data(step):
        return Batch(MIXTURE.sample(BATCH, Draw(1_000_000 * seed + step))[0].float())

    recipe = Recipe((Phase("student", loss),), {"student": Part("copy"), "target": Part("mean")})
    torch.manual_seed(seed)
    return recipe, Denoiser(MLP(2, 96, 2), SCHEDULE, "v"), data


def fingerprints() -> list[dict]:
    """What the losses of today say, kept with the result: a test knows when they have changed."""
    return [
        {"target": name, "fingerprint": said(recipe, model, model, data, 0)}
        for name, (recipe, model, data) in ((n, learning(e, 0)) for n, e in arms().items())
    ]


@torch.no_grad()
def scored(f: Denoiser, noise: Tensor, ends: Tensor) -> tuple[float, float]:
    """(distance, share in no mode) of one call."""
    top = SCHEDULE.at(1.0)
    x = torch.cat([f(part.float(), top).x0.double() for part in noise.split(20_000)])
    return metrics.sliced_w2(x, ends) / FLOOR, 1 - MIXTURE.shares(x).sum().item()
