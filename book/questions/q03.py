"""How the answers of assignment 03 are called."""

import math
from collections.abc import Callable
from typing import NamedTuple

from dlib import exact

from book.questions.problems import mixture_of, schedule_of
from book.questions.values import arrays, given


class Level(NamedTuple):
    """What an answer knows of a noise level."""

    alpha: float
    sigma: float


def _levels(inputs: dict) -> list[Level]:
    return [Level(*map(float, row)) for row in inputs["levels"]]


def _face(inputs: dict, name: str) -> Callable:
    """(x, level) ↦ a face of the perfect network; the level is found by its α/σ, whatever object
    it is.
    """
    model = exact(mixture_of(inputs), schedule_of(inputs))

    def face(x, level):
        if level.sigma == 0:
            raise ValueError(
                f"{name} was asked at the last level, where σ = 0 and there is no noise to name: "
                "in a step from a to b, x is at level a"
            )
        level = model.schedule.at_lam(math.log(level.alpha / level.sigma))
        return getattr(model(x, level), name)

    return face


def posterior(answer: Callable, inputs: dict, network: None) -> list:
    return arrays(answer(*given(inputs, "x_a", "x_0"), *_levels(inputs)))


def posterior_by_sampling(answer: Callable, inputs: dict, network: None) -> list:
    x_a, x_0, z = given(inputs, "x_a", "x_0", "z")
    return arrays(answer(x_a, x_0, *_levels(inputs), z))


def walk_back(answer: Callable, inputs: dict, network: None) -> list:
    x, noise = given(inputs, "x", "noise")
    return arrays(answer(_face(inputs, "eps"), x, _levels(inputs), noise))


def bound_terms(answer: Callable, inputs: dict, network: None) -> list:
    x0, noise = given(inputs, "x0", "noise")
    return arrays(answer(_face(inputs, "x0"), x0, _levels(inputs), noise))
