"""Ordinary diffusion training."""

from __future__ import annotations

from typing import Any

from dlib._util import require
from dlib.losses import denoising, uniform_times, weights
from dlib.losses.weights import Weight
from dlib.recipes.base import STUDENT, Phase, Recipe, many_steps
from dlib.schedule import NoiseSchedule

WEIGHTS = {name: value for name, value in vars(weights).items() if isinstance(value, Weight)} | {
    "min_snr": weights.min_snr()
}


def finetune(schedule: NoiseSchedule, null: Any = None, *, weight: str = "eps") -> Recipe:
    """Train the student with the denoising loss (Ho et al. 2020, eq. 14), times uniform on the
    schedule.

    weight: a name of `dlib.losses.weights`. null is not used: captions are dropped by whoever
    makes the batches.
    """
    require(
        weight in WEIGHTS,
        f"finetune: no weight {weight!r}; there are {', '.join(sorted(WEIGHTS))}",
    )
    times = uniform_times(max(schedule.t_min, 1e-3))

    def loss(roles, batch, draw):
        found = denoising(roles["student"], batch, draw, WEIGHTS[weight], times)
        # a mean over values, for which clipping norms are published
        return found._replace(value=found.value / batch.x0[0].numel())

    return Recipe((Phase("student", loss),), {"student": STUDENT}, many_steps(schedule))
