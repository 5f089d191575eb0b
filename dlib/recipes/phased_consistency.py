"""Phased consistency without guidance in the teacher's step: the student keeps both branches,
and is guided when it is sampled.

Roles as in `dlib.recipes.distilled_consistency`: student, teacher, target.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dlib.losses.consistency_steps import check_omega
from dlib.recipes.base import Recipe
from dlib.recipes.distilled_consistency import pcm
from dlib.schedule import NoiseSchedule


def pcm_normalcfg(
    schedule: NoiseSchedule,
    null: Any,
    *,
    phases: int = 4,
    omega: float = 6.5,
    steps: int = 50,
    skip: int = 1,
    spacing: str = "sd_trailing",
    solver: str = "ddim",
    huber_c: float = 1e-3,
) -> Recipe:
    """PCM whose teacher's step is not guided (Wang et al. 2024b, as released: `normalcfg`, the
    flag `--not_apply_cfg_solver`).

    The data must drop its conditions, a tenth of them in the released scripts: the student
    learns the empty condition's paths as well, so that it takes any ω and negative prompts at
    sampling, for two evaluations a call. omega: with which it is shown; null and the others as
    for `pcm`.

    >>> from dlib.schedule import vp
    >>> pcm_normalcfg(vp(), -1).sampler.omega
    6.5
    """
    check_omega("pcm_normalcfg", (omega, omega))
    recipe = pcm(
        schedule,
        null,
        phases=phases,
        omega=(0.0, 0.0),
        steps=steps,
        skip=skip,
        spacing=spacing,
        solver=solver,
        huber_c=huber_c,
    )
    return replace(recipe, sampler=replace(recipe.sampler, omega=omega))
