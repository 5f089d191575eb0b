"""Stable consistency tuning: consistency training whose target is the mean of many clean
samples; and that target on the ladder of consistency training.

Roles: `student`, trained, starts as the diffusion model; `target`, the student's moving
average, or the student itself. There is no teacher: what the steps are made with are the clean
samples of the whole step, of all micro-batches and processes, that share a row's condition. So
a step does not depend on how it is cut, and nothing but weights has to be saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.boundaries import boundary, lcm_scalings
from dlib.denoiser import Denoiser
from dlib.grids import grid, pcm_edges
from dlib.losses import Batch, Loss, consistency_training, inverse_step, ladder_times, norm_huber
from dlib.losses.bootstrapping import Estimate
from dlib.losses.curricula import ct_points, ect_times, smooth_stage
from dlib.losses.variance_reduction import among, marks, weighed
from dlib.recipes.base import Phase, Recipe, Roles, Sampler, at_least_one
from dlib.recipes.bootstrapping import PARTS, climbing
from dlib.schedule import NoiseLevel, NoiseSchedule


def sct(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    every: int = 25_000,
    stages: float = 8.0,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
    mean: float = -1.1,
    std: float = 2.0,
    huber_c: float = 0.0,
    phases: int = 1,
    eta: float = 1.0,
) -> Recipe:
    """SCT: `ect` towards the self-normalised mean of the step's clean samples, with a schedule
    that moves at every step (Wang et al. 2024a).

    A row's references are the rows of the whole step that have its condition, itself among
    them; those whose caption was dropped, `null`, have all. Where every caption occurs once, a
    captioned row is trained by plain consistency training: the metric `references`, the mean
    effective number, is then 1. every, stages: the stage is step / every, a real number
    (`smooth_stage`), up to stages − 1. q, k, b, mean, std, huber_c: as for `ect`.

    phases: more than one trains a jump to the clean edge of each, DDIM's from the student's
    x₀; the edges are those of `pcm` on 50 steps. Sample one phase with the solver `lcm`;
    several deterministically with `ddim` through the edges. eta: where the sampler jumps
    instead of an edge, to η times its κ, past the turn that a network cannot follow at the
    edge itself; 1 is the edge.

    The defaults are those of `ect`. With the bench's mean −0.4 and std 1.6 short runs on
    digits leave 7 % less Fréchet distance; on GMM5 and captioned shapes seeds differ by more.
    Even so ECT's long steps cost more in the bench's half minute than the better target
    brings. On GMM5 the distance d to the flow's ends, over that of two exact sets, is 9.1 ±
    1.9 (`ect` 7.5, `ct` 3.4). The Fréchet distance over that of real pictures is 3.45 on
    digits (`ect` 3.86, `ct` 2.93) and 2.3 on captioned shapes (`ect` 2.4, `ct` 2.7). The same
    target on the ladder of `ct` has a d of 1.55: on GMM5 begin with `ct_reduced`.

    >>> from dlib.schedule import edm
    >>> sct(edm()).trained, sct(edm()).sampler.solver
    (('student',), 'lcm')
    """
    at_least_one("sct", every=every)
    require(1 <= stages < math.inf, f"sct: stages = {stages:g}, wanted at least 1")
    require(
        0 < eta <= 1, f"sct: eta = {eta:g}, wanted a share of an edge's κ, above 0, at most 1"
    )
    distance = norm_huber(huber_c)
    of_stage = partial(ect_times, schedule, q=q, k=k, b=b, mean=mean, std=std)
    of_stage(stage=0)  # names what is bad before the first step
    inner = pcm_edges(grid(schedule, 50, "sd_trailing"), phases)[:-1].tolist()
    edges = (*inner, -1.0) if inner else None

    def loss(roles, batch, draw):
        stage = min(smooth_stage(batch.step, every), stages - 1)
        how = dict(weight=inverse_step, distance=distance, edges=edges)
        both = roles["student"], roles["target"]
        return _towards_mean(*both, batch, draw, times=of_stage(stage=stage), **how)

    shown = Sampler("lcm", "lcm", 2, wrap=partial(boundary, skip_out=lcm_scalings(schedule)))
    if inner:
        times = (1.0, *(skipped(schedule, edge, eta) for edge in inner), schedule.t_min)
        shown = Sampler("ddim", "pcm", phases, "grid", times=times)
    phase = Phase("student", loss)
    return Recipe((phase,), PARTS, shown, before=partial(_marked, null), pool=_pooled)


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
    """SCT's target on CT's ladder: `ct` towards the self-normalised mean of the clean samples
    beside a row (Song et al. 2023 for the ladder, Wang et al. 2024a for the target).

    A row's references are those rows of its `group` that have its condition, itself among
    them; one whose caption was dropped, `null`, has the whole group. Row k of the step, over
    all micro-batches and processes, is in group ⌊k/group⌋. More references cost no network
    call. points, growth, spacing, sigma_data: as for `ct`. The metric `references` is the mean
    effective number. Sample as `ct`.

    Of the bench's students of GMM5 without a teacher it is the nearest to the flow's ends: d
    (as for `sct`) is 1.55 ± .08 with 10 to 61 points and an average of decay 0.95, and 9 % of
    its points lie in no mode. In equal time `ct` has 3.4, and 19 %. On pictures it is not
    measured.

    >>> from dlib.schedule import edm
    >>> ct_reduced(edm()).trained
    ('student',)
    """
    at_least_one("ct_reduced", group=group)

    def neighbours(student, target, batch, draw, ladder):
        return _towards_mean(student, target, batch, draw, times=ladder_times(ladder))

    how = dict(points=points, growth=growth, spacing=spacing, sigma_data=sigma_data)
    pooled = dict(before=partial(_marked, null), pool=partial(_pooled, group=group))
    return climbing("ct_reduced", schedule, neighbours, ct_points, **how, **pooled)


def _towards_mean(
    student: Denoiser, target: Denoiser, batch: Batch, draw: Draw, **how: Any
) -> Loss:
    """`consistency_training` towards the mean of the batch's references, how: its arguments;
    with the metric `references`, the mean effective number of them.
    """
    sizes: list[Tensor] = []
    found = consistency_training(student, target, batch, draw, estimate=_noting(sizes), **how)
    return found._replace(metrics=found.metrics | {"references": sizes[0]})


def _noting(sizes: list[Tensor]) -> Estimate:
    """The estimate `reduced`, which also appends the mean effective number of references."""

    def estimate(x: Tensor, level: NoiseLevel, batch: Batch) -> Tensor:
        found = weighed(x, level, batch)
        sizes.append(found.size.mean())
        return found.x0

    return estimate


def skipped(schedule: NoiseSchedule, edge: float, eta: float) -> float:
    """The time at which κ is η times that of an edge; on a ladder, its nearest index.

    >>> from dlib.schedule import edm
    >>> level = edm().at(skipped(edm(), 0.5, 0.9))
    >>> round(level.sigma / edm().at(0.5).sigma, 6)
    0.9
    """
    require(0 < eta <= 1, f"skipped: eta = {eta:g}, wanted a share of κ, above 0, at most 1")
    level = schedule.at(edge)
    t = schedule.at_lam(level.lam - math.log(eta)).t
    return round(t * schedule.ladder) / schedule.ladder if schedule.ladder else float(t)


def _marked(null: Any, roles: Roles, batch: Batch, draw: Draw) -> dict[str, Tensor]:
    """What everybody must know of a micro-batch: its clean samples, its conditions' marks."""
    x0, cond = batch.x0, batch.cond
    found = x0.new_zeros(len(x0), dtype=torch.int64) if cond is None else marks(cond, null)
    return {"references": x0, "mark": found}


def _pooled(
    memos: list[dict[str, Tensor]], gather: Callable, group: int | None = None
) -> list[dict[str, Tensor]]:
    """The references of all micro-batches and processes, and which of them a row shares: of
    its group of so many rows of the step only, if a group is given.
    """
    everyone, _ = gather(torch.cat([memo["references"] for memo in memos]))
    marked = [memo["mark"] for memo in memos]
    others, mine = gather(torch.cat(marked))
    shared = among(torch.cat(marked), others)
    if group is not None:
        of = torch.arange(len(others), device=others.device) // group
        shared = shared & (of[mine, None] == of)
    parts = shared.split([len(mark) for mark in marked])
    return [{"references": everyone, "shared": part} for part in parts]
