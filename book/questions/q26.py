"""How the answers of assignment 26 are called."""

from collections.abc import Callable

import torch

from book.questions.problems import levels_of, trained
from book.questions.values import given, pair


def _played(inputs: dict) -> tuple:
    """A small network, ε of a point and its level; its weights; a reward with a gradient."""
    inner, weights, pull = given(inputs, "inner", "outer", "pull")
    weights.requires_grad_()

    def points(name: str, x):
        if x.ndim != 2:
            raise ValueError(
                f"{name}: x has shape {tuple(x.shape)}, but {name} takes points (B, 2): flatten "
                "first, with x.reshape(-1, 2)"
            )
        return x

    def net(x, level):
        x = points("net", x)
        seen = torch.cat([x, torch.full((len(x), 1), level.t, dtype=x.dtype)], 1)
        return torch.tanh(seen @ inner) @ weights

    def reward(x):
        x = points("reward", x)
        return torch.sin(x[:, 0] * pull[0]) + pull[1] * x[:, 0] * x[:, 1]

    return net, weights, reward


def tilted(answer: Callable, inputs: dict, network: None) -> list:
    names = ("weights", "means", "stds", "a", "beta")
    return pair(answer(*given(inputs, *names)), "the weights and the means")


def truncated_reward(answer: Callable, inputs: dict, network: None) -> list:
    net, weights, reward = _played(inputs)
    (x,) = given(inputs, "x")
    return trained(answer(net, x, levels_of(inputs), reward, inputs["last"]), weights)


def refl_loss(answer: Callable, inputs: dict, network: None) -> list:
    net, weights, reward = _played(inputs)
    x, enough = given(inputs, "x", "enough")
    found = answer(net, x, levels_of(inputs), reward, inputs["stop"], enough)
    return trained(found, weights)


def lv_reward(answer: Callable, inputs: dict, network: None) -> list:
    net, weights, reward = _played(inputs)
    x0, noise = given(inputs, "x", "noise")
    return trained(answer(net, x0, levels_of(inputs)[-2], noise, reward), weights)
