"""Trajectory consistency distillation: a student that may stop at any level on its way.

Roles as in `dlib.recipes.distilled_consistency`: student, teacher, target.
"""

from __future__ import annotations

from typing import Any

from dlib.grids import grid
from dlib.losses import trajectory_consistency
from dlib.recipes.base import Phase, Recipe, Sampler
from dlib.recipes.distilled_consistency import PARTS, Range, teacher_step
from dlib.schedule import NoiseSchedule


def tcd(
    schedule: NoiseSchedule,
    null: Any,
    *,
    omega: Range = (5.0, 15.0),
    steps: int = 50,
    skip: int = 1,
    spacing: str = "sd_trailing",
    solver: str = "ddim",
) -> Recipe:
    """TCD without an embedding of s or ω, squared error, no boundary scalings (Zheng et al.
    2024).

    null, omega, steps, skip as for `lcm`, whose defaults they are: the authors released no
    training code. A student that is not told s pays for it in one call: on the book's mixtures
    its error is five times LCM's (`python -m bench students`). Sample the student itself with
    the solver `tcd` on the grid `lcm`, which ends at the grid's last level; `tcd(0.0)` adds no
    noise.

    >>> from dlib.schedule import vp
    >>> tcd(vp(), -1).sampler.solver
    'tcd'
    """
    path = teacher_step("tcd", omega, null, skip, solver)
    path["times"] = grid(schedule, steps, spacing)

    def loss(roles, batch, draw):
        student, teacher, target = (roles[name] for name in PARTS)
        return trajectory_consistency(student, teacher, target, batch, draw, **path)

    shown = Sampler("tcd", "lcm", 4, "grid")
    return Recipe((Phase("student", loss),), PARTS, shown)
