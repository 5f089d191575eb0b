"""What a setting's losses say at the middle of their rounds: a hash of settings does not see that
the arithmetic of a loss has changed, these numbers do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from dlib import Batch, Denoiser, Draw, Judge, Recipe, cast
from dlib.nets import Told
from dlib.training import Trained, Trainer, weights_of
from toy_data.student_settings import Setting
from toy_data.student_training import paired
from toy_data.worlds import world_of
from toy_data.train_digits import seeded

ROWS = 64
CLOSE = 1e-3
"""Relative: processors round otherwise by a thousandth of that, and four digits are kept."""


def fingerprint(setting: Setting) -> list[float]:
    """What the losses of a setting's rounds say, `said`, for the student that it starts with,
    halfway through the round, so that ramps and ladders count; four digits.

    Of the training nothing is in it: how the student moves and is scored, a test knows that
    trains one anew.
    """
    world, found = world_of(setting.world), []
    setting = replace(setting, batch=min(setting.batch, ROWS), pairs=min(setting.pairs, ROWS))
    for turn, updates in enumerate(setting.updates):
        start = world.start(0)
        recipe = setting.made(start.schedule, world.null, turn)
        if recipe.told:
            start = seeded(lambda start=start: replace(start, net=Told(start.net)), 0)
        pairs = recipe.reads == "pairs"
        rows = paired(world, setting, 0) if pairs else world.batches(setting.batch, 0)
        found += said(recipe, start, world.teacher, rows, updates // 2)
    return found


def said(
    recipe: Recipe,
    start: Denoiser,
    teacher: Denoiser,
    rows: Callable[[int], Batch],
    step: int,
    heads: Callable[[Denoiser], Judge] | None = None,
    given: Mapping[str, Any] | None = None,
) -> list[float]:
    """A recipe's loss and the norm of its gradient at a step, for a student that stays as it
    starts: on the second batch, so that a bank of samples counts. Four digits. heads, given:
    as `cast` takes them; they stay as they are made.
    """
    student = replace(start, net=copy.deepcopy(start.net).requires_grad_())
    actors = cast(recipe, teacher, starts={"student": student}, heads=heads, given=given)
    still = lambda role: torch.optim.SGD(weights_of(actors.roles[role]), lr=0.0)
    trainer = Trainer(recipe, actors, {role: Trained(still(role)) for role in recipe.trained})
    for k in range(2):
        metrics = trainer.advance([(rows(k), Draw(k))], step)
    slopes = [weight.grad.double().square().sum() for weight in student.net.parameters()]
    values = (metrics["student/loss"].item(), sum(slopes).sqrt().item())
    return [float(f"{value:.4g}") for value in values]


def alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two fingerprints are of the same arithmetic.

    >>> alike([0.5, 2.0], [0.5001, 2.0]), alike([0.5, 2.0], [0.51, 2.0])
    (True, False)
    """
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(abs(a - b) <= CLOSE * abs(b) for a, b in pairs)
