"""How the answers of assignment 15 are called."""

from collections.abc import Callable

import numpy as np
import torch

from book.questions.problems import levels_of, model_of
from book.questions.values import array, arrays, each, given, pair


def phase_edges(answer: Callable, inputs: dict, network: None) -> list:
    """The answer for every ladder, number of steps and number of phases."""
    return each(answer(*map(int, row)) for row in inputs["ladders"])


def phased_sample(answer: Callable, inputs: dict, network: Callable) -> list:
    x, phases = given(inputs, "x", "phases")
    return arrays(answer(model_of(inputs, network), x, levels_of(inputs), phases))


def hinge_losses(answer: Callable, inputs: dict, network: None) -> list:
    """The two losses; the gradient of the first in D's weights and in the points, and of the
    second in the points.
    """
    inner, outer, real, fake, weight = given(inputs)
    points = [real.requires_grad_(), fake.requires_grad_()]
    outer.requires_grad_()
    losses = answer(lambda x: torch.tanh(x @ inner) @ outer, real, fake, weight)
    values = pair(losses, "the discriminator's loss and the student's")
    if not values:
        return []
    slopes = [*_slopes(losses[0], [outer, *points]), *_slopes(losses[1], points)]
    return values + [slopes[0], np.stack(slopes[1:3]), np.stack(slopes[3:])]


def _slopes(loss, leaves: list) -> list:
    """The gradient of a loss in each leaf, 0 where autograd sees none."""
    found = [torch.zeros_like(leaf) for leaf in leaves]
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        found = torch.autograd.grad(
            loss.sum(), leaves, retain_graph=True, materialize_grads=True, allow_unused=True
        )
    return [array(slope) for slope in found]
