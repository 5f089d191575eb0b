"""How the answers of assignment 11 are called."""

import math
from collections.abc import Callable

import torch
from dlib import CLEAN, NoiseLevel

from book.questions.problems import levels_of, model_of, trained
from book.questions.values import each, given

NOISE = NoiseLevel(t=1.0, alpha=0.0, sigma=1.0, lam=-math.inf)
ROUNDS = (1, 2, 3)


def walks(inputs: dict) -> list:
    """Three levels each: in the middle, from pure noise on, and down to the clean end."""
    a, b, c = levels_of(inputs)
    return [(a, b, c), (NOISE, a, b), (b, c, CLEAN)]


def two_step_guess(answer: Callable, inputs: dict, network: None) -> list:
    z, mix, heard = given(inputs, "z", "mix", "heard")
    guess = lambda x, level: torch.tanh(x @ mix + level.t * heard)
    return each(answer(guess, z.clone(), *walk) for walk in walks(inputs))


def two_step_velocity(answer: Callable, inputs: dict, network: None) -> list:
    return each(answer(*given(inputs, "z", "z_c"), a, c) for a, _, c in walks(inputs))


def round_times(answer: Callable, inputs: dict, network: None) -> list:
    return each(answer(*given(inputs, "t"), k) for k in ROUNDS)


def knowledge_loss(answer: Callable, inputs: dict, network: Callable) -> list:
    """The losses, and their gradient in the weights of the student."""
    z, inner, weights = given(inputs, "x", "inner", "outer")
    weights.requires_grad_()

    def student(x, level):
        seen = torch.cat([x, torch.full((len(x), 1), level.t, dtype=x.dtype)], 1)
        return torch.tanh(seen @ inner) @ weights

    levels = [*levels_of(inputs), CLEAN]
    return trained(answer(student, model_of(inputs, network), z, levels), weights)
