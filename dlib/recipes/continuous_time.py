"""Continuous-time consistency distillation of a diffusion model.

Roles: `student`, trained, starts as the teacher; `teacher`, constant; `target`, the student
itself without gradient. The target is asked in forward mode, in full precision.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from dlib._util import require
from dlib.boundaries import boundary, lcm_scalings
from dlib.denoiser import guided
from dlib.losses import by_norm, by_rms, continuous_consistency, lognormal_times, taught
from dlib.losses.continuous_time import check_sigma, warmup
from dlib.recipes.base import STUDENT, TARGET, TEACHER, Phase, Recipe, Sampler, at_least_one
from dlib.schedule import NoiseSchedule

NORMALISE = {"rms": by_rms, "norm": by_norm}


def scm(
    schedule: NoiseSchedule,
    null: Any,
    *,
    omega: float = 0.0,
    rise: int = 10_000,
    normalise: str = "rms",
    c: float = 0.1,
    mean: float = -1.0,
    std: float = 1.4,
    sigma_data: float = 0.5,
) -> Recipe:
    """sCD: the tangent of the student along the teacher's path, normalised (Lu & Song 2025).

    null: the empty condition, as `guided` takes it; omega: the teacher's ω, 0 for no guidance.
    rise: steps over which ρ goes from 0 to 1. normalise: "norm" is the paper's, "rms" divides
    by the root mean square of a sample's values, which means the same in every dimension; c:
    what is added. mean, std: of log κ. sigma_data: the data's standard deviation; Stable
    Diffusion's latents have about 1. Without the paper's learnt weight. Sample with the solver
    `lcm`, `CLEAN` as last level.

    mean, std and sigma_data are the paper's, for data of standard deviation 0.5. On GMM5,
    where it is 1.06, mean −0.4 and sigma_data 1 are better: the distance to the flow's ends is
    then 6.3 times the floor, with mean −1 9.6 or more, and with sigma_data 0.5 16 (as `python
    -m bench students` measures it).

    >>> from dlib.schedule import edm
    >>> scm(edm(), None).play("teacher")
    ('teacher',)
    """
    require(
        normalise in NORMALISE,
        f"scm: no normalise {normalise!r}; there are {', '.join(sorted(NORMALISE))}",
    )
    at_least_one("scm", rise=rise)
    check_sigma("scm", sigma_data)
    times, size = lognormal_times(schedule, mean, std), NORMALISE[normalise](c)

    def loss(roles, batch, draw):
        teacher = guided(roles["teacher"], omega, null) if omega else roles["teacher"]
        return continuous_consistency(
            roles["student"],
            roles["target"],
            batch,
            draw,
            times=times,
            estimate=taught(teacher),
            rho=warmup(batch.step, rise),
            normalise=size,
            sigma_data=sigma_data,
        )

    scalings = lcm_scalings(schedule)  # 1 and 0 at all levels that are sampled: as diffusers does
    shown = Sampler("lcm", "lcm", 2, wrap=partial(boundary, skip_out=scalings))
    parts = {"student": STUDENT, "teacher": TEACHER, "target": TARGET}
    return Recipe((Phase("student", loss),), parts, shown, slopes=("target",))
