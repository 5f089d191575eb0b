"""Human preference from pairs, and the negative of any preference method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dlib._util import require
from dlib.losses import Batch, uniform_times
from dlib.losses.preference import diffusion_dpo, negated, swapped
from dlib.recipes.finetuning import WEIGHTS
from dlib.recipes.base import STUDENT, TEACHER, Phase, Recipe, Roles, Value, many_steps
from dlib.schedule import NoiseSchedule


def dpo(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    beta: float = 5000.0,
    weight: str = "own",
    negative: bool = False,
) -> Recipe:
    """Diffusion-DPO (Wallace et al. 2024) on pairs of pictures. Roles: student, reference.

    beta: in the authors' convention, with the ½ and a mean over a sample's values; 2000 to
    5000 for Stable Diffusion's latents. Small values destroy the model while the loss looks
    better: watch `student/better`. weight: on which face the errors of a pair are compared, a
    name of `dlib.losses.weights`; "own" is ε, as the paper has it, and the velocity for a
    student that predicts it. On straight paths the velocity's error is the ε-error over
    (1 − t)², so β carries over to neither. negative: swap each pair, for the negative branch
    of Diffusion-NPO (Wang et al. 2025). null is not used: captions are dropped by whoever
    makes the batches.
    """
    require(
        weight == "own" or weight in WEIGHTS,
        f"dpo: no weight {weight!r}; there are own, {', '.join(sorted(WEIGHTS))}",
    )
    times = uniform_times(max(schedule.t_min, 0.02))

    def loss(roles, batch, draw):
        student, reference = roles["student"], roles["reference"]
        own = "velocity" if student.predicts == "velocity" else "eps"
        face = WEIGHTS[own if weight == "own" else weight]
        return diffusion_dpo(student, reference, batch, draw, beta=beta, weight=face, times=times)

    parts = {"student": STUDENT, "reference": TEACHER}
    made = Recipe((Phase("student", loss),), parts, many_steps(schedule), reads="preferences")
    return opposed(made) if negative else made


def opposed(recipe: Recipe) -> Recipe:
    """The same method after the worse instead of the better: Diffusion-NPO's one line, for all
    methods at once (Wang et al. 2025).

    Pairs are swapped, and the role "reward" is negated. Nothing else changes.
    """

    def turned(roles: Roles, batch: Batch) -> tuple[Roles, Batch]:
        if "reward" in roles:
            roles = Opposed(roles)
        return roles, batch if batch.other is None else swapped(batch)

    def against(value: Value) -> Value:
        return lambda roles, batch, draw: value(*turned(roles, batch), draw)

    phases = tuple(
        Phase(phase.roles, against(phase.loss), phase.every) for phase in recipe.phases
    )
    before = None if recipe.before is None else against(recipe.before)
    return replace(recipe, phases=phases, before=before)


class Opposed(Mapping):
    """The same roles with the reward negated."""

    def __init__(self, roles: Roles):
        self.roles = roles

    def __getitem__(self, role: str) -> Any:
        found = self.roles[role]
        return negated(found) if role == "reward" else found

    def __iter__(self) -> Iterator[str]:
        return iter(self.roles)

    def __len__(self) -> int:
        return len(self.roles)
