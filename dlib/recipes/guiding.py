"""Distillation of guidance: two calls of a guided network become one of its student.

Roles: `student`, trained, starts as the teacher and is told ω; `teacher`, constant.
"""

from __future__ import annotations

from typing import Any

from dlib._util import require
from dlib.losses import uniform_times
from dlib.losses.consistency_steps import check_omega
from dlib.losses.guiding import guided_distillation
from dlib.recipes.base import STUDENT, TEACHER, Phase, Recipe, Sampler
from dlib.recipes.finetuning import WEIGHTS
from dlib.schedule import NoiseSchedule


def guided(
    schedule: NoiseSchedule,
    null: Any,
    *,
    omega: tuple[float, float] = (2.0, 14.0),
    weight: str = "v",
    steps: int = 20,
) -> Recipe:
    """The first stage of guided distillation: the student's one call says the teacher's x₀^ω
    for any ω of the range (Meng et al. 2023, section 3.1).

    null: the empty condition, as the teacher was trained with it. omega: the range, the
    paper's for latent text-to-image models; (0, 4) for its pixels. weight: a name of
    `dlib.losses.weights`. steps: with how many DDIM steps the student is shown, at the middle
    of its range. Times are uniform on the schedule. Its condition carries ω under "omega", as
    `with_omega` adds it.
    """
    require(
        weight in WEIGHTS, f"guided: no weight {weight!r}; there are {', '.join(sorted(WEIGHTS))}"
    )
    check_omega("guided", omega)
    times = uniform_times(max(schedule.t_min, 1e-3))
    how = dict(omega=tuple(omega), null=null, times=times, weight=WEIGHTS[weight])

    def loss(roles, batch, draw):
        return guided_distillation(roles["student"], roles["teacher"], batch, draw, **how)

    parts = {"student": STUDENT, "teacher": TEACHER}
    shown = Sampler("ddim", "sd_trailing", steps, "clean", omega=sum(omega) / 2)
    return Recipe((Phase("student", loss),), parts, shown, told=True)
