"""Consistency models in continuous time: distilled from a diffusion model, or trained.

Roles: `student`, trained, starts as the teacher; `teacher`, constant, where one distils;
`target`, the student itself without gradient. The target is asked in forward mode, in full
precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dlib._util import require
from dlib.boundaries import boundary, lcm_scalings
from dlib.denoiser import guided
from dlib.losses import by_norm, by_rms, continuous_consistency, lognormal_times, own, taught
from dlib.losses.bootstrapping import Estimate
from dlib.losses.continuous_time import Normalise, check_sigma, warmup
from dlib.recipes.base import STUDENT, TARGET, TEACHER, Part, Phase, Recipe, Roles, Sampler
from dlib.recipes.base import at_least_one
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
    Diffusion's latents have about 1. Sample with the solver `lcm`, `CLEAN` as last level.

    All levels weigh alike. The paper's weights, 1/(σ_d tan τ) and one that a small network
    learns beside the student, are left out; `continuous_consistency` takes the first,
    `weight=inverse_kappa`.

    mean, std and sigma_data are the paper's, for data of standard deviation 0.5. On GMM5,
    where it is 1.06, mean −0.4 and sigma_data 1 are better: the distance to the flow's ends is
    then 6.3 times the floor (`python -m bench students`). In runs of one seed it was 9.6 or
    more with mean −1, and 16 with sigma_data 0.5.

    >>> from dlib.schedule import edm
    >>> scm(edm(), None).play("teacher")
    ('teacher',)
    """
    require(math.isfinite(omega), f"scm: omega = {omega:g}, wanted a number; 0 is no guidance")
    require(
        normalise in NORMALISE,
        f"scm: no normalise {normalise!r}; there are {', '.join(sorted(NORMALISE))}",
    )

    def estimate(roles):
        return taught(guided(roles["teacher"], omega, null) if omega else roles["teacher"])

    parts = {"student": STUDENT, "teacher": TEACHER, "target": TARGET}
    law = dict(mean=mean, std=std, sigma_data=sigma_data)
    return _along("scm", schedule, parts, estimate, NORMALISE[normalise](c), rise, **law)


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
    """sCT: `scm` with the slope of the batch's own sample in place of a teacher's (Lu & Song
    2025). null is not used; the other arguments as there, g by its root mean square.

    The slope of one sample scatters: in the bench's half minute on GMM5 the distance to the
    flow's ends is 9 ± 2 times the floor (sCD 6.3, `ct` 3.4), on digits the Fréchet distance
    4.3 times that of real pictures (sCD 3.9, `ct` 2.9). The paper's runs are far longer.

    >>> from dlib.schedule import edm
    >>> scm_training(edm()).play("teacher")
    ()
    """
    parts = {"student": STUDENT, "target": TARGET}
    law = dict(mean=mean, std=std, sigma_data=sigma_data)
    return _along("scm_training", schedule, parts, lambda roles: own, by_rms(c), rise, **law)


def _along(
    method: str,
    schedule: NoiseSchedule,
    parts: Mapping[str, Part],
    estimate: Callable[[Roles], Estimate],
    normalise: Normalise,
    rise: int,
    *,
    mean: float,
    std: float,
    sigma_data: float,
) -> Recipe:
    """The recipe of `continuous_consistency` along the path of an estimate, by the roles."""
    at_least_one(method, rise=rise)
    check_sigma(method, sigma_data)
    times = lognormal_times(schedule, mean, std)

    def loss(roles, batch, draw):
        return continuous_consistency(
            roles["student"],
            roles["target"],
            batch,
            draw,
            times=times,
            estimate=estimate(roles),
            rho=warmup(batch.step, rise),
            normalise=normalise,
            sigma_data=sigma_data,
        )

    scalings = lcm_scalings(schedule)  # 1 and 0 at all levels that are sampled: as diffusers does
    shown = Sampler("lcm", "lcm", 2, wrap=partial(boundary, skip_out=scalings))
    return Recipe((Phase("student", loss),), parts, shown, slopes=("target",))
