"""Small students: train them as the chapters do, and audit what a loss hands on to them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dlib import Batch, Cast, Denoiser, Draw, NoiseLevel, Recipe, Roles, cast, perform
from dlib.training import History, weights_of


def learn(
    recipe: Recipe,
    roles: Mapping[str, Any],
    data: Callable[[int], Batch],
    steps: int,
    rates: Mapping[str, float],
    seed: int = 0,
) -> History:
    """`perform` a recipe with Adam for every role that it trains; returns its history.

    rates: the learning rate of each trained role at the start; all fall to zero along a
    cosine. Adam has no momentum, β = (0, 0.999), as in the released score distillation codes:
    the students chase each other, and an old gradient points where the other network was. What
    a role trains is what wants a gradient, so of a twin its adapters alone.
    """
    optims = {
        role: torch.optim.Adam(weights_of(roles[role]), rates[role], (0.0, 0.999))
        for role in recipe.trained
    }
    falling = [
        torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps) for optim in optims.values()
    ]
    each = lambda step, found: [rate.step() for rate in falling]
    return perform(recipe, Cast(Roles(roles)), optims, data, steps, Draw(seed), each)


def handed(loss: Callable, x: Tensor, level: NoiseLevel) -> Tensor:
    """What a loss on samples hands on to each sample of a student on a line, at one level,
    without any randomness: (K,).

    x: (K,) samples, equally likely, so that sample k gets E_ε[G_k]/K; times ∂x_k/∂θ, summed
    over k, that is the loss's gradient by θ. loss: (batch, draw, times=…) ↦ `Loss`, like
    partial(vsd, real, fake, weight=kl). The mean over ε is the trapezoid rule with step 0.1 on
    [−8, 8].

    >>> from functools import partial
    >>> from dlib import exact, sds, vp
    >>> from dlib.losses.score_distillation import kl
    >>> from toy_data import gaussian
    >>> loss = partial(sds, exact(gaussian(0.0, 1.0), vp()), weight=kl)
    >>> handed(loss, torch.tensor([1.0]), vp().at_lam(0.0))  # α²x
    tensor([0.5000], dtype=torch.float64)
    """
    nodes = torch.arange(-8, 8.05, 0.1, dtype=torch.float64)
    rows = x.detach().double().repeat_interleave(len(nodes))[:, None].requires_grad_()
    draw = SimpleNamespace(normal=lambda like: nodes.repeat(len(x))[:, None])
    value = loss(
        Batch(rows), draw, times=lambda draw, n: torch.full((n,), level.t, dtype=torch.float64)
    ).value
    (each,) = torch.autograd.grad(value, rows)
    return len(nodes) * each.view(len(x), -1) @ torch.softmax(-nodes.square() / 2, 0)


def distil(
    recipe: Recipe,
    start: Denoiser,
    teacher: Denoiser,
    data: Callable[[int], Batch],
    steps: int,
    lr: float = 4e-3,
    decay: float = 0.95,
    seed: int = 0,
) -> Denoiser:
    """The student of a recipe that trains no other role: a copy of `start` after `steps` of
    Adam, its weights fixed; the rate falls from `lr` along a cosine.

    decay: of θ⁻, the moving average of the student that consistency recipes have for a
    target; with 0 it is the student itself. seed: of the losses' draws. `start` and `teacher`
    stay as they are, and may be one denoiser.
    """
    student = replace(start, net=copy.deepcopy(start.net).requires_grad_())
    decays = {role: decay for role in recipe.play("mean")}
    actors = cast(recipe, teacher, starts={"student": student}, decays=decays)
    optim = torch.optim.Adam(student.net.parameters(), lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    each = lambda step, found: rate.step()
    perform(recipe, actors, {"student": optim}, data, steps, Draw(seed), each)
    student.net.requires_grad_(False)
    return student
