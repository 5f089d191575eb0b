"""How the answers of assignment 10 are called."""

from collections.abc import Callable

import torch

from book.questions.values import array, given, pair

BLOCKS, INNER, READY, ODD = 7, 5, 3, -3.0


def maps(inputs: dict, odd: float = 1.0) -> tuple[Callable, Callable]:
    """(F, G): a block's INNER small steps, and one long one. The last block shrinks, so that
    inner starts move more than the end.

    odd: a factor of G. Near F, G + (F − G) is F to the last bit by luck; far from it, only a
    bracket of equal numbers is.
    """
    (weights,) = given(inputs, "weights")
    shrink = lambda i: 0.25 if i == BLOCKS - 1 else 1.0

    def G(i, x):
        return odd * shrink(i) * (x + 0.5 * torch.tanh(x @ weights[i]))

    def F(i, x):
        for _ in range(INNER):
            x = x + 0.5 / INNER * torch.tanh(x @ weights[i])
        return shrink(i) * x

    return F, G


def chain(inputs: dict) -> torch.Tensor:
    """The exact starts, as this process computes them: bits differ between machines."""
    (F, _), points = maps(inputs), given(inputs, "x")
    for i in range(BLOCKS):
        points.append(F(i, points[-1]))
    return torch.stack(points)


def iterate(answer: Callable, inputs: dict, network: None) -> list:
    """The chain, and one iteration from starts of which the first READY + 1 are the chain's."""
    exact, (starts,) = chain(inputs), given(inputs, "guess")
    starts[: READY + 1] = exact[: READY + 1]
    found = answer(*maps(inputs, ODD), starts)
    return [] if found is None else [exact.numpy(), array(found)]


def parareal(answer: Callable, inputs: dict, network: None) -> list:
    """The chain's end, then U_K and p for every tolerance. With tolerance 0, a coarse step that
    is far from the fine solve: K iterations suffice whatever G is.
    """
    found = []
    for tol in inputs["tols"].tolist():
        returned = answer(*maps(inputs, 1.0 if tol else ODD), *given(inputs, "x"), BLOCKS, tol)
        found.append(pair(returned, "U_K, p"))
    ends = [value for both in found for value in both]
    return [chain(inputs)[-1].numpy(), *ends] if all(found) else []
