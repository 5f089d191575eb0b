"""How the answers of assignment 01 are called."""

from collections.abc import Callable

import numpy as np
import torch
from dlib import CLEAN

from book.questions.problems import mixture_of, trained
from book.questions.values import arrays, given


def mixture_score(answer: Callable, inputs: dict, network: None) -> list:
    """The score, and 1 if it is another or none where autograd cannot work. (torch.func works
    there: only people see it.)
    """
    value = arrays(answer(*given(inputs)))
    try:
        with torch.inference_mode():
            again = arrays(answer(*given(inputs)))
        same = all(np.allclose(*pair, rtol=1e-6, equal_nan=True) for pair in zip(value, again))
    except Exception:  # without autograd's obstacle it ran
        same = False
    return value and [*value, np.array(float(not same))]


def _field(inputs: dict) -> tuple[Callable, torch.Tensor]:
    """A vector field whose Jacobian is full and not symmetric, and its weights: a leaf that the
    loss may be differentiated by.
    """
    inner, outer = given(inputs, "inner", "outer")
    outer.requires_grad_()
    return (lambda x: torch.tanh(x @ inner) @ outer), outer


def implicit_loss(answer: Callable, inputs: dict, network: None) -> list:
    score, weights = _field(inputs)
    return trained(answer(score, *given(inputs, "x")), weights)


def denoising_loss(answer: Callable, inputs: dict, network: None) -> list:
    score, weights = _field(inputs)
    return trained(answer(score, *given(inputs, "x", "z", "sigma")), weights)


def langevin_chain(answer: Callable, inputs: dict, network: None) -> list:
    mixture = mixture_of(inputs)

    def score(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(mixture.log_prob(x, CLEAN).sum(), x)[0]

    return arrays(answer(score, *given(inputs, "x", "step", "noise")))
