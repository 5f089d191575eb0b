"""How the answers of assignment 02 are called."""

from collections.abc import Callable

import torch
from dlib import exact, ve

from book.questions.problems import mixture_of, trained
from book.questions.values import arrays, given


def _rows(x, sigma) -> torch.Tensor:
    """σ as (1, 1) or (B, 1): the answer may give a number, (B,) or (B, 1)."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype)
    if sigma.numel() not in (1, len(x)) or sigma.ndim > 2:
        raise ValueError(
            f"score: sigma has shape {tuple(sigma.shape)}, wanted one number, or one for each of "
            f"the {len(x)} rows of x"
        )
    return sigma.reshape(-1, 1)


def level_loss(answer: Callable, inputs: dict, network: None) -> list:
    """With a score that depends on σ, whose weights the loss is differentiated by."""
    inner, outer = given(inputs, "inner", "outer")
    outer.requires_grad_()

    def score(x, sigma):
        return torch.tanh(x @ inner + _rows(x, sigma)) @ outer / _rows(x, sigma)

    return trained(answer(score, *given(inputs, "x", "z", "sigma")), outer)


def annealed(answer: Callable, inputs: dict, network: None) -> list:
    schedule = ve(inputs["sigmas"].min(), inputs["sigmas"].max())
    model = exact(mixture_of(inputs), schedule)

    def score(x, sigma):
        return model(x, schedule.at_lam(-_rows(x, sigma).log().expand(len(x), 1))).score

    return arrays(answer(score, *given(inputs, "x", "sigmas", "epsilon", "noise")))
