"""How the answers of assignment 16 are called."""

from collections.abc import Callable

import numpy as np
import torch

from book.questions.problems import levels_of, trained
from book.questions.values import arrays, each, given, pair

STAGES = (0, 1, 3)


def ladder_points(answer: Callable, inputs: dict, network: None) -> list:
    """The number of points for every k."""
    numbers = given(inputs, "total", "s_0", "s_1")
    found = each(answer(int(k), *numbers) for k in inputs["ks"])
    return [np.stack(found)] if found else []


def ect_step(answer: Callable, inputs: dict, network: None) -> list:
    """Ends and weights, for every stage."""
    found = []
    for stage in STAGES:
        kappa, q, b = given(inputs, "kappa", "q", "b")
        found.append(pair(answer(kappa, stage, q, b), "(κ_r, the weight)"))
    return [np.stack(things) for things in zip(*found)]


def bootstrap_loss(answer: Callable, inputs: dict, network: None) -> list:
    """The losses, and their gradient in the weights of the network."""
    x, x0_bar, inner, weights = given(inputs, "x", "x0_bar", "inner", "outer")
    weights.requires_grad_()

    def h(x, level):
        seen = torch.cat([x, torch.full((len(x), 1), level.t, dtype=x.dtype)], 1)
        return torch.tanh(seen @ inner) @ weights

    return trained(answer(h, x, x0_bar, *levels_of(inputs)), weights)


def scm_tangent(answer: Callable, inputs: dict, network: None) -> list:
    inner, outer, *others = given(inputs)
    F = lambda x, tau: torch.tanh(torch.cat([x, tau], 1) @ inner) @ outer
    return arrays(answer(F, *others))
