"""Recipes that the students' bench has and `dlib.recipes` has not: variants that are measured and
not recommended.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from dlib import Recipe, boundary, edm_boundary, grid, lcm_scalings
from dlib.losses import by_rms, consistency_training, continuous_consistency, inverse_step
from dlib.losses import ladder_times, lognormal_times, norm_huber, own, variance_reduced_target
from dlib.losses.continuous_time import warmup
from dlib.losses.curricula import ct_points, ict_law, ict_points
from dlib.losses.variance_reduction import among
from dlib.recipes import Phase, Sampler
from dlib.recipes.base import at_least_one
from dlib.recipes.bootstrapping import PARTS, check_ladder
from dlib.schedule import NoiseSchedule


def ict(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    points: tuple[int, int] = (10, 1280),
    growth: int = 400_000,
    spacing: str = "karras",
    sigma_data: float = 0.5,
    mean: float = -1.1,
    std: float = 2.0,
    huber_c: float = 0.03,
) -> Recipe:
    """iCT: `ct` with a ladder that doubles, places drawn by a normal law, the weight 1/Δκ and
    a rounded norm (Song & Dhariwal 2024). The defaults are the paper's; null is not used.
    """
    check_ladder("ict", points, growth)
    ends_at, distance = grid(schedule, 1, spacing), norm_huber(huber_c)
    scalings = edm_boundary(schedule, ends_at[-1].item(), sigma_data)

    def loss(roles, batch, draw):
        count = ict_points(min(batch.step, growth), growth, *points)
        times = grid(schedule, count - 1, spacing)
        drawn = ladder_times(times, ict_law(schedule, times, mean, std))
        student, target = (boundary(roles[name], scalings) for name in ("student", "target"))
        how = dict(times=drawn, weight=inverse_step, distance=distance)
        return consistency_training(student, target, batch, draw, **how)

    wrap = partial(boundary, skip_out=scalings)
    shown = Sampler("stochastic_iterative", spacing, 1, times=tuple(ends_at.tolist()), wrap=wrap)
    return Recipe((Phase("student", loss),), PARTS, shown)


def ct_reduced(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    points: tuple[int, int] = (2, 150),
    growth: int = 800_000,
    spacing: str = "karras",
    sigma_data: float = 0.5,
    group: int = 32,
) -> Recipe:
    """CT's ladder and distance with SCT's target: each row's step is made with the
    self-normalised mean of the `group` rows beside it, itself among them. Arguments as for
    `dlib.recipes.ct`, null is not used.
    """
    check_ladder("ct_reduced", points, growth)
    ends_at = grid(schedule, 1, spacing)
    scalings = edm_boundary(schedule, ends_at[-1].item(), sigma_data)

    def mean(x, level, batch):
        shared = among(1 + torch.arange(len(x)) // group)
        return variance_reduced_target(x, level, batch.x0, shared).x0

    def loss(roles, batch, draw):
        count = ct_points(min(batch.step, growth), growth, *points)
        drawn = ladder_times(grid(schedule, count - 1, spacing))
        student, target = (boundary(roles[name], scalings) for name in ("student", "target"))
        return consistency_training(student, target, batch, draw, times=drawn, estimate=mean)

    wrap = partial(boundary, skip_out=scalings)
    shown = Sampler("stochastic_iterative", spacing, 1, times=tuple(ends_at.tolist()), wrap=wrap)
    return Recipe((Phase("student", loss),), PARTS, shown)


def scm_training(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    rise: int = 10_000,
    c: float = 0.1,
    mean: float = -1.0,
    std: float = 1.4,
    sigma_data: float = 0.5,
) -> Recipe:
    """sCT: `dlib.recipes.scm` with the slope of the batch's own sample in place of a teacher's
    (Lu & Song 2025). Arguments as there.
    """
    at_least_one("scm_training", rise=rise)
    times = lognormal_times(schedule, mean, std)
    how = dict(times=times, estimate=own, normalise=by_rms(c), sigma_data=sigma_data)

    def loss(roles, batch, draw):
        rho = warmup(batch.step, rise)
        both = roles["student"], roles["target"]
        return continuous_consistency(*both, batch, draw, rho=rho, **how)

    shown = Sampler("lcm", "lcm", 2, wrap=partial(boundary, skip_out=lcm_scalings(schedule)))
    return Recipe((Phase("student", loss),), PARTS, shown, slopes=("target",))
