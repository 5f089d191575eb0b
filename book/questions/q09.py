"""How the answers of assignment 09 are called."""

from collections.abc import Callable

import numpy as np
import torch

from book.questions.problems import levels_of, model_of
from book.questions.values import given, pair, said


def prefix_is_exact(answer: Callable, inputs: dict, network: Callable) -> list:
    """What a sampler makes of its points and their steps is the judge's. The network is its door:
    the rows are the points and what the steps made of them, the number says which sampler, how
    many sweeps were asked for and how many were made. The last row says whether to go on.
    """
    weights, most = torch.tensor(inputs["weights"]), len(inputs["guess"])

    def step(j, x):
        return x + 0.5 * torch.tanh(x @ weights[j])

    def sampler(k: int) -> Callable:
        def sample(step, guess, sweeps):
            points, made, done, more = guess, guess[1:], 0, True
            while more:
                rows = torch.cat([points, made]).flatten(0, 1).double().numpy()
                back = network(rows, (k * most + int(sweeps)) * 2 * most + done)
                points = torch.from_numpy(back[:-1]).reshape(guess.shape).to(guess.dtype)
                made = torch.stack([step(j, x) for j, x in enumerate(points[:-1])])
                done, more = done + 1, back[-1, 0] > 0
            return points

        return sample

    return said(answer(sampler(k), step, *given(inputs, "guess")) for k in range(inputs["count"]))


def move(answer: Callable, inputs: dict, network: None) -> list:
    """By how much the window moves in every case."""
    moves = [answer(torch.tensor(c), float(t)) for c, t in zip(inputs["change"], inputs["tol"])]
    return [] if any(n is None for n in moves) else [np.array([float(n) for n in moves])]


def turned(step: Callable) -> Callable:
    """The steps −Φ. A DDIM step is short, so that X + (Φ(X) − X) is often Φ(X) to the last bit by
    luck; here it is not.
    """
    return lambda first, points: -step(first, points)


def picard(answer: Callable, inputs: dict, network: Callable) -> list:
    """The chain of the turned steps, as this process computes it: another one, such as a sandbox
    that hides the CPU's kind, may round otherwise. Then X_N and the sweeps of each run.
    """
    model, levels = model_of(inputs, network), levels_of(inputs)

    def step(first, points):
        """Each step is made on one point's batch, as the chain makes it."""
        made = [
            model(x.contiguous(), a).mix(b.alpha, b.sigma)
            for x, a, b in zip(points, levels[first:], levels[first + 1 :])
        ]
        return torch.stack(made)

    def multiplied(first, points):
        return points * (1 + given(inputs, "l")[0][first : first + len(points), None, None])

    (x,) = given(inputs, "x")
    for j in range(len(levels) - 1):
        x = turned(step)(j, x[None])[0]
    chain, sigma, found = x.numpy().copy(), [level.sigma for level in levels], []
    for window, tol, linear in inputs["runs"].tolist():
        steps = multiplied if linear else step if tol else turned(step)
        returned = answer(steps, *given(inputs, "x"), sigma, int(window), tol)
        found.append(pair(returned, "X_N, sweeps"))
    return [chain, *(value for both in found for value in both)] if all(found) else []
