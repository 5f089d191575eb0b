"""How the answers of assignment 05 are called."""

from collections.abc import Callable

import numpy as np
import torch
from dlib import exact, flow

from book.questions.problems import mixture_of, schedule_of, trained
from book.questions.q04 import Level
from book.questions.values import arrays, given, pair, said

FACES = ("eps", "x0", "v", "velocity", "score")
_CHUNK = 4000


def _levels(inputs: dict) -> list[Level]:
    return [Level(*map(float, row)) for row in inputs["levels"]]


def both(answer: Callable, inputs: dict, network: None) -> list:
    """For each face x₀ and ε at all levels, (2, levels, B, d)."""
    found = []
    for face, values in zip(FACES, inputs["said"]):
        for level, w, x in zip(_levels(inputs), *map(torch.tensor, (values, inputs["x"]))):
            found.append(pair(answer(face, w, x, level), "(x0, eps)"))
    if not all(found):
        return []
    n = len(inputs["levels"])
    return [np.stack([np.stack(two) for two in found[k : k + n]], 1) for k in range(0, 5 * n, n)]


def velocity_of(answer: Callable, inputs: dict, network: None) -> list:
    model = exact(mixture_of(inputs), schedule_of(inputs))
    at_lam = lambda lam: model.schedule.at_lam(float(lam))
    eps_model = lambda x, level: model(x, level).eps
    return arrays(answer(eps_model, at_lam, *given(inputs, "x", "t")))


def converts(answer: Callable, inputs: dict, network: Callable) -> list:
    """The converters are the judge's. The network is their door: its rows are the level's numbers
    and the entries (w, x), its number says which converter and which faces.
    """

    def converter(k: int) -> Callable:
        def convert(have, want, w, x, level):
            w, x = torch.broadcast_tensors(*map(torch.as_tensor, (w, x)))
            code = (k * len(FACES) + FACES.index(have)) * len(FACES) + FACES.index(want)
            code = 2 * code + (x.dtype == torch.float32)
            numbers = [level.alpha, level.sigma, level.d_alpha, level.d_sigma]
            head = torch.tensor(numbers, dtype=torch.float64).reshape(2, 2)
            rows = torch.stack([w.flatten(), x.flatten()], 1).double()
            parts = [
                network(torch.cat([head, p]).numpy(), code)[2:, 0] for p in rows.split(_CHUNK)
            ]
            return torch.from_numpy(np.concatenate(parts)).reshape(x.shape).to(x.dtype)

        return convert

    levels = _levels(inputs)
    return said(answer(converter(k), levels) for k in range(inputs["count"]))


def cfm_loss(answer: Callable, inputs: dict, network: None) -> list:
    x0, eps, t, w = given(inputs, "x0", "eps", "t", "w")
    w.requires_grad_()
    net = lambda x, t: torch.tanh(torch.cat([x, t[:, None]], 1) @ w)
    return trained(answer(net, x0, eps, t), w)


def follow(answer: Callable, inputs: dict, network: None) -> list:
    """With a network of the other convention: time s is 1 at data, and it predicts x₀ − ε."""
    model = exact(mixture_of(inputs), flow())
    theirs = lambda x, s: -model(x, flow().at(min(max(1 - float(s), 0.0), 1.0))).velocity
    return arrays(answer(theirs, *given(inputs, "x"), inputs["times"].tolist()))
