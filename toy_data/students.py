"""Train small students, as the chapters do: the recipe's phases under Adam, all rates falling to zero."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from dlib import Batch, Denoiser, Draw, Ema, Recipe, fit
from dlib.denoiser import parameters
from dlib.fit import History
from dlib.recipes import Roles


def learn(recipe: Recipe, roles: Roles, data: Callable[[int], Batch], steps: int, rates: Mapping[str, float], seed: int = 0) -> History:
    """`fit` a recipe with Adam for every role that it trains; returns `fit`'s history.

    rates: the learning rate of each trained role at the start; all fall to zero along a cosine. Adam has no momentum, β =
    (0, 0.999), as in the released score distillation codes: the students chase each other, and an old gradient points where
    the other network was. What a role trains is what wants a gradient, so of a twin its adapters alone.
    """
    own = {role: [weight for weight in parameters(roles[role].net) if weight.requires_grad] for role in recipe.trained}
    optims = {role: torch.optim.Adam(weights, rates[role], (0.0, 0.999)) for role, weights in own.items()}
    falling = [torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps) for optim in optims.values()]
    return fit(recipe.phases, roles, optims, data, steps, Draw(seed), each=lambda step, found: [rate.step() for rate in falling])


def distil(
    recipe: Recipe, start: Denoiser, teacher: Denoiser, data: Callable[[int], Batch], steps: int, lr: float = 4e-3, decay: float = 0.95, seed: int = 0
) -> Denoiser:
    """The student of a consistency recipe: a copy of `start` after `steps` of Adam, its weights fixed; the rate falls from `lr` along a cosine.

    The target θ⁻ is the student's moving average of this `decay`; with 0 it is the student itself. seed: of the losses' draws.
    `start` and `teacher` stay as they are, and may be one denoiser.
    """
    student = copy.deepcopy(start)
    ema, optim = Ema(student.net.requires_grad_(), decay), torch.optim.Adam(student.net.parameters(), lr)
    roles = {"student": student, "teacher": teacher, "target": replace(student, net=ema.net)}
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    fit(recipe.phases, roles, {"student": optim}, data, steps, Draw(seed), ema, each=lambda step, found: rate.step())
    student.net.requires_grad_(False)
    return student
