"""Train small students, as the chapters do: the recipe's phases under Adam, all rates falling to zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from dlib import Batch, Draw, Recipe, fit
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
