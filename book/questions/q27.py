"""How the answers of assignment 27 are called."""

from collections.abc import Callable

import torch

from book.questions.problems import trained
from book.questions.values import given, pair, said


def _field(inputs: dict, name: str) -> tuple:
    """A small network of a point and a time, and its last weights."""
    inner, weights = given(inputs, f"inner_{name}", f"outer_{name}")

    def net(x, t):
        seen = torch.cat([x, torch.full((len(x), 1), float(t), dtype=x.dtype)], 1)
        return torch.tanh(seen @ inner) @ weights

    return net, weights.requires_grad_()


def advantages(answer: Callable, inputs: dict, network: None) -> list:
    return pair(answer(*given(inputs, "rewards")), "both advantages")


def ratio_loss(answer: Callable, inputs: dict, network: None) -> list:
    net, weights = _field(inputs, "new")
    old, std, y, advantage, chi = given(inputs, "old", "std", "y", "advantage", "chi")
    mean = old + 0.2 * net(y.flip(0), 0.5)
    return trained(answer(mean, old, std, y, advantage, chi), weights)


def flow_step(answer: Callable, inputs: dict, network: None) -> list:
    found = answer(*given(inputs, "x", "u", "t", "r", "a_F"))
    return pair(found, "the mean and the standard deviation")


def nft_loss(answer: Callable, inputs: dict, network: None) -> list:
    new, weights = _field(inputs, "new")
    old, _ = _field(inputs, "old")
    rest = given(inputs, "x0", "noise", "t", "share", "zeta")
    return trained(answer(new, old, *rest), weights)


def is_unbiased(answer: Callable, inputs: dict, network: None) -> list:
    """An estimator is a table: what it returns for each group of two actions."""
    p, r, tables = given(inputs, "p", "r", "tables")
    estimators = [lambda actions, table=table: table[tuple(actions)].clone() for table in tables]
    return said(answer(estimate, p.clone(), r.clone()) for estimate in estimators)
