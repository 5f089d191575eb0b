"""Distillation of a teacher's walk: the whole walk into one call, or two steps into one, again
and again.

Roles: `student`, trained, starts as the teacher; `teacher`, constant, which knowledge
distillation has no use for: its walks were taken before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from dlib._util import require
from dlib.denoiser import guided
from dlib.grids import grid
from dlib.grids import levels as levels_between
from dlib.losses import with_omega
from dlib.losses.consistency_steps import check_omega
from dlib.losses.diffusion import uniform_omega
from dlib.losses.halving import knowledge as knowledge_loss
from dlib.losses.halving import progressive as progressive_loss
from dlib.recipes.base import STUDENT, TEACHER, Phase, Recipe, Sampler
from dlib.recipes.finetuning import WEIGHTS
from dlib.schedule import NoiseLevel, NoiseSchedule


def knowledge(schedule: NoiseSchedule, null: Any = None, *, start: float = 1.0) -> Recipe:
    """Naive distillation: one call from noise at `start` to the end of the teacher's walk
    (Luhman & Luhman 2021).

    It reads pairs of noise and sample, which a deterministic walk has made. null is not used:
    guidance, if any, is in the pairs.
    """
    schedule.at(start)  # names a time that there is not

    def loss(roles, batch, draw):
        return knowledge_loss(roles["student"], batch, draw, start=start)

    shown = Sampler("ddim", "sd_trailing", 1, times=(start, schedule.t_min))
    return Recipe((Phase("student", loss),), {"student": STUDENT}, shown, reads="pairs")


def progressive(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    steps: int = 4,
    spacing: str = "sd_trailing",
    omega: float = 0.0,
    weight: str = "truncated_snr",
) -> Recipe:
    """One round of progressive distillation: a student of `steps` DDIM steps from a teacher of
    twice as many (Salimans & Ho 2022, algorithm 2).

    The next round has this round's student for its teacher, and half its steps. spacing: a
    grid of `dlib.grid` of which every second level is the grid of half the steps; the last
    step goes to σ = 0. omega: the teacher's guidance against the condition `null`: a number
    in the first round, and 0 in all later ones, whose teachers have it inside. weight: a name
    of `dlib.losses.weights`. The paper takes 50 000 updates a round, the rate falling
    linearly from 5e-5 to 0, and no average.
    """
    walk = _walk("progressive", schedule, steps, spacing, weight)

    def loss(roles, batch, draw):
        teacher = guided(roles["teacher"], omega, null) if omega else roles["teacher"]
        return progressive_loss(
            roles["student"], teacher, batch, draw, levels=walk, weight=WEIGHTS[weight]
        )

    parts = {"student": STUDENT, "teacher": TEACHER}
    return Recipe((Phase("student", loss),), parts, Sampler("ddim", spacing, steps, "clean"))


def progressive_with_omega(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    steps: int = 4,
    spacing: str = "sd_trailing",
    omega: tuple[float, float] = (2.0, 14.0),
    weight: str = "truncated_snr",
) -> Recipe:
    """One round of the second stage of guided distillation: `progressive` from a teacher that
    is told ω, to a student that is told the same (Meng et al. 2023, section 3.2).

    The first round's teacher is the student of `guided`, each later one's that of the round
    before. omega: the range on which ω is uniform, that of `guided` or a part of it; both
    conditions carry it, as `with_omega` adds it, and nothing is guided again: null is not
    used. Draws: ω; then those of the loss `progressive`. Everything else is `progressive`.
    """
    check_omega("progressive_with_omega", omega)
    walk = _walk("progressive_with_omega", schedule, steps, spacing, weight)

    def loss(roles, batch, draw):
        told = with_omega(batch.cond, uniform_omega(omega, draw, batch.x0))
        return progressive_loss(
            roles["student"],
            roles["teacher"],
            replace(batch, cond=told),
            draw,
            levels=walk,
            weight=WEIGHTS[weight],
        )

    parts = {"student": STUDENT, "teacher": TEACHER}
    shown = Sampler("ddim", spacing, steps, "clean", omega=sum(omega) / 2)
    return Recipe((Phase("student", loss),), parts, shown, told=True, told_teacher=True)


def _walk(
    method: str, schedule: NoiseSchedule, steps: int, spacing: str, weight: str
) -> list[NoiseLevel]:
    """The teacher's levels. ValueError for a weight that there is not, and for a spacing whose
    grid of `steps` is not every second level of that of twice as many.
    """
    require(
        weight in WEIGHTS,
        f"{method}: no weight {weight!r}; there are {', '.join(sorted(WEIGHTS))}",
    )
    walk = levels_between(schedule, 2 * steps, spacing, end="clean")
    coarse, fine = grid(schedule, steps, spacing), grid(schedule, 2 * steps, spacing)
    require(
        torch.allclose(coarse, fine[::2], rtol=0, atol=1e-9),
        f"{method}: on {spacing!r} {steps} steps are not every second of {2 * steps}: use "
        "'sd_trailing', 'time', 'lam', 'karras' or 'arctan'",
    )
    return walk
