"""How the answers of assignment 28 are called."""

from collections.abc import Callable

import torch

from book.questions.problems import trained
from book.questions.values import each, given

SCRIPTS = ((True, False), (False, False), (True, True), (False, True))
"""(half, summed) of four scripts."""


def diffusion_dpo_loss(answer: Callable, inputs: dict, network: None) -> list:
    """The losses, and their gradient in the weights of the student."""
    inner, student, reference = given(inputs, "inner", "student", "reference")
    student.requires_grad_()

    def net(weights):
        def predict(x, alpha, sigma):
            seen = torch.cat([x, torch.full((len(x), 1), alpha / sigma, dtype=x.dtype)], 1)
            return torch.tanh(seen @ inner) @ weights

        return predict

    rest = given(inputs, "winner", "loser", "eps", "alpha", "sigma", "B")
    return trained(answer(net(student), net(reference), *rest), student)


def authors_beta(answer: Callable, inputs: dict, network: None) -> list:
    """One number a script."""
    b, values = given(inputs, "b", "values")
    return each(answer(b, half, summed, values) for half, summed in SCRIPTS)
