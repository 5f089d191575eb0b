"""How the answers of assignment 13 are called."""

from collections.abc import Callable

import numpy as np
import torch

from book.questions.problems import levels_of, model_of, trained
from book.questions.values import arrays, each, given

PLACES, SKIP = (0, 3, 10), 5  # of the last place a skip leaves the grid of 12 steps
# (start, number of phases); 6 is itself an edge of 4
PHASES = ((0, 1), (0, 4), (5, 4), (6, 4), (2, 5), (7, 5), (11, 12))


def consistency_loss(answer: Callable, inputs: dict, network: None) -> list:
    """The losses, and their gradient in the weights of the student."""
    x, inner, weights = given(inputs, "x", "inner", "outer")
    weights.requires_grad_()

    def f(x, level):
        seen = torch.cat([x, torch.full((len(x), 1), level.t, dtype=x.dtype)], 1)
        return torch.tanh(seen @ inner) @ weights

    def step(x, a, b):
        eps = a.sigma * x / (0.36 * a.alpha**2 + a.sigma**2)  # the teacher of N(0, 0.6²)
        return b.alpha / a.alpha * (x - a.sigma * eps) + b.sigma * eps

    return trained(answer(f, step, x, *levels_of(inputs)[inputs["place"] :][:2]), weights)


def skipped_step(answer: Callable, inputs: dict, network: None) -> list:
    """The answer for every place; nan where it leaves the list of levels."""
    found = []
    for place in PLACES:
        x, cond, null, omega = given(inputs, "x", "eps_cond", "eps_null", "omega")
        try:
            found.append(answer(x, cond, null, levels_of(inputs), place, SKIP, omega))
        except IndexError:
            found.append(np.full(x.shape, np.nan))
    return each(found)


def phase_jump(answer: Callable, inputs: dict, network: None) -> list:
    levels = levels_of(inputs)
    return each(answer(*given(inputs, "x", "eps"), levels, *where) for where in PHASES)


def consistency_sample(answer: Callable, inputs: dict, network: Callable) -> list:
    x, noise = given(inputs, "x", "noise")
    return arrays(answer(model_of(inputs, network), x, levels_of(inputs), noise))
