"""Consistency training: a student that learns from data, without a teacher's steps.

Roles: `student`, trained, starts as a diffusion model; `target`, the student itself without
gradient, or its moving average. Which two times a step joins changes as training goes on: the
losses read it off the batch's step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from dlib._util import Draw, require
from dlib.boundaries import boundary, edm_boundary, lcm_scalings
from dlib.denoiser import Denoiser
from dlib.grids import grid
from dlib.losses import (
    Batch,
    Loss,
    consistency_training,
    ect_times,
    inverse_step,
    ladder_times,
    norm_huber,
    squared,
)
from dlib.losses.curricula import ct_points, ect_stage, ict_law, ict_points
from dlib.recipes.base import STUDENT, TARGET, Phase, Recipe, Sampler, at_least_one
from dlib.schedule import NoiseSchedule

PARTS = {"student": STUDENT, "target": TARGET}
OnLadder = Callable[[Denoiser, Denoiser, Batch, Draw, Tensor], Loss]
"""(student, target, batch, draws, ladder) ↦ the loss, both in their boundary; ladder: the N
times of today's points, from noise to data.
"""


def ct(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    points: tuple[int, int] = (2, 150),
    growth: int = 800_000,
    spacing: str = "karras",
    t_max: float = 1.0,
    sigma_data: float = 0.5,
) -> Recipe:
    """CT: neighbours on a ladder that grows from s₀ to s₁ + 1 points, squared error (Song et
    al. 2023, alg. 3).

    null is not used. points: (s₀, s₁) of `ct_points`; growth: K, the steps after which the
    ladder has all its points. The paper lets the decay of the target grow with the ladder
    (`ct_decay`); here it is fixed, and 0, the student itself, unless the run says otherwise
    (Song & Dhariwal 2024 find that best). `python -m bench students` trains CT with a decay of
    0.95, and iCT, as its authors do, without an average. Sample as
    `consistency_distillation`.

    >>> from dlib.schedule import edm
    >>> ct(edm()).trained
    ('student',)
    """

    def neighbours(student, target, batch, draw, ladder):
        how = dict(times=ladder_times(ladder), distance=squared)
        return consistency_training(student, target, batch, draw, **how)

    how = dict(points=points, growth=growth, spacing=spacing, sigma_data=sigma_data)
    return climbing("ct", schedule, neighbours, ct_points, t_max=t_max, **how)


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
    a rounded norm (Song & Dhariwal 2024).

    null is not used. points: (s₀, s₁) of `ict_points`; growth: K. mean, std: of ln κ, as
    `ict_law` takes them; huber_c: c of `norm_huber`. The defaults are the paper's, for long
    runs and no average. In the bench's short ones it is behind `ct`, which has an average. On
    GMM5 its distance to the flow's ends, over that of two exact sets, is 5 ± 1 (`ct` 3.4); the
    Fréchet distance over that of real pictures is 3.6 on digits (`ct` 2.9), and 3.6 on
    captioned shapes (`ct` 2.7). Sample as `ct`.

    >>> from dlib.schedule import edm
    >>> ict(edm()).play("mean")
    ('target',)
    """
    distance = norm_huber(huber_c)

    def neighbours(student, target, batch, draw, ladder):
        drawn = ladder_times(ladder, ict_law(schedule, ladder, mean, std))
        how = dict(times=drawn, weight=inverse_step, distance=distance)
        return consistency_training(student, target, batch, draw, **how)

    how = dict(points=points, growth=growth, spacing=spacing, sigma_data=sigma_data)
    return climbing("ict", schedule, neighbours, ict_points, **how)


def climbing(
    method: str,
    schedule: NoiseSchedule,
    neighbours: OnLadder,
    counted: Callable[..., int],
    *,
    points: tuple[int, int],
    growth: int,
    spacing: str,
    sigma_data: float,
    t_max: float = 1.0,
    **more: Any,
) -> Recipe:
    """The recipe of a student, in EDM's boundary, that climbs a ladder of counted(step,
    growth, *points) points, with the loss `neighbours` on it. more: of `Recipe`. ValueError,
    in the name of `method`, for a ladder that cannot grow.
    """
    _check_ladder(method, points, growth)
    ends_at = grid(schedule, 1, spacing, t_max=t_max)
    scalings = edm_boundary(schedule, ends_at[-1].item(), sigma_data)

    def loss(roles, batch, draw):
        count = counted(min(batch.step, growth), growth, *points)
        ladder = grid(schedule, count - 1, spacing, t_max=t_max)
        both = (boundary(roles[name], scalings) for name in ("student", "target"))
        return neighbours(*both, batch, draw, ladder)

    wrap = partial(boundary, skip_out=scalings)
    shown = Sampler("stochastic_iterative", spacing, 1, times=tuple(ends_at.tolist()), wrap=wrap)
    return Recipe((Phase("student", loss),), PARTS, shown, **more)


def _check_ladder(method: str, points: tuple[int, int], growth: int) -> None:
    """Raise ValueError, in the method's name, for a ladder that cannot grow from s₀ to s₁."""
    at_least_one(method, growth=growth)
    require(
        2 <= points[0] <= points[1],
        f"{method}: points = {points}, wanted (s₀, s₁) with 2 ≤ s₀ ≤ s₁: how many the ladder "
        "has at first, and in the end",
    )


def ect(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    every: int = 25_000,
    stages: int = 8,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
    mean: float = -1.1,
    std: float = 2.0,
    huber_c: float = 0.0,
) -> Recipe:
    """ECT: tune a diffusion model, r moving towards t stage by stage, with the norm over the
    step's length (Geng et al. 2024).

    null is not used: captions are dropped by the run, and guidance is applied when sampling,
    if at all. every: steps a stage; stages: how many there are, the last one stays. q, k, b,
    mean, std: of `ect_times`. huber_c: c of `norm_huber`. No boundary: at the first stages
    many steps end at the clean data. Sample with the solver `lcm`, `CLEAN` as last level.

    The defaults are the paper's for CIFAR-10. The bench takes mean −0.4 and std 1.6 on all of
    its worlds: in short runs on digits and captioned shapes that leaves 5 to 8 % less Fréchet
    distance than the paper's law, and on GMM5 no difference beyond that of seeds. Even so
    `ct`, which climbs a ladder and has an average, is ahead there in equal time. On GMM5 its
    distance to the flow's ends, over that of two exact sets, is 3.4 (`ect` 7.5); on digits its
    Fréchet distance over that of real pictures is 2.9 (`ect` 3.9). On captioned shapes `ect`
    leads: 2.4 (`ct` 2.7). See `ct_reduced`.

    >>> from dlib.schedule import edm
    >>> ect(edm()).play("mean")
    ('target',)
    """
    at_least_one("ect", every=every, stages=stages)
    distance = norm_huber(huber_c)
    of_stage = partial(ect_times, schedule, q=q, k=k, b=b, mean=mean, std=std)
    of_stage(stage=0)  # names what is bad before the first step

    def loss(roles, batch, draw):
        drawn = of_stage(stage=min(ect_stage(batch.step, every), stages - 1))
        return consistency_training(
            roles["student"],
            roles["target"],
            batch,
            draw,
            times=drawn,
            weight=inverse_step,
            distance=distance,
        )

    scalings = lcm_scalings(schedule)  # 1 and 0 at all levels that are sampled: as diffusers does
    shown = Sampler("lcm", "lcm", 2, wrap=partial(boundary, skip_out=scalings))
    return Recipe((Phase("student", loss),), PARTS, shown)
