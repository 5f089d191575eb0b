"""Fresh problems for solvers: a random mixture whose exact network is known, and a walk
through noise levels.

The mixtures are broad on purpose: slopes between 40 and 160 steps are then asymptotic for
every seed (over 30 seeds they were 0.99–1.00, 2.01–2.02 and 1.94–2.04 for orders 1, 2 and 2M),
so a right answer is never called wrong by chance.
"""

from collections.abc import Callable

import numpy as np
import torch
from dlib import Denoiser, Mixture, exact, vp

LAM = (-2.5, 2.0)
STEPS = (40, 80, 160)
BATCH = 32


def schedule_of(inputs: dict):
    """The drawn schedule: the judge and the answer's process both build it from its two
    numbers.
    """
    return vp(*map(float, inputs["beta"]))


def draw_problem(seed: int) -> tuple[np.random.Generator, dict, Denoiser]:
    """(generator, inputs with the schedule's numbers and starts x, the exact denoiser)."""
    rng = np.random.default_rng(seed)
    weights, means, stds = (
        rng.dirichlet(np.full(3, 4.0)),
        rng.normal(size=(3, 2)),
        rng.uniform(0.5, 0.8, 3),
    )
    inputs = {
        "beta": np.array([rng.uniform(0.05, 0.2), rng.uniform(15, 25)]),
        "x": rng.normal(size=(BATCH, 2)),
    }
    mixture = Mixture(*map(torch.from_numpy, (weights, means, stds)))
    return rng, inputs, exact(mixture, schedule_of(inputs))


def network_of(model: Denoiser) -> Callable:
    """(x, t) ↦ ε on arrays: the form in which a network crosses a pipe."""

    def eps(x: np.ndarray, t: float) -> np.ndarray:
        return model(
            torch.from_numpy(np.ascontiguousarray(x)), model.schedule.at(float(t))
        ).eps.numpy()

    return eps


def model_of(inputs: dict, network: Callable) -> Denoiser:
    """The denoiser that an answer is handed: a network that predicts ε, wherever it really
    runs.
    """

    def net(x, t, cond):
        if x.ndim != 2 or x.shape[1] != 2 or len(x) == 0:
            raise ValueError(
                f"model: x has shape {tuple(x.shape)}, wanted ({BATCH}, 2): hand in the batch "
                "of points"
            )
        return torch.from_numpy(network(x.detach().double().numpy(), float(t[0]))).to(x.dtype)

    return Denoiser(net, schedule_of(inputs), "eps")


def walk(step: Callable, model: Denoiser, x, lams: np.ndarray):
    """x after a walk through the levels with these λ; `step(model, x, a, b, memory)` returns
    (x, memory). None if a step returns it.
    """
    levels, memory = [model.schedule.at_lam(float(lam)) for lam in lams], None
    for a, b in zip(levels, levels[1:]):
        returned = step(model, x, a, b, memory)
        if returned is None or returned[0] is None:
            return None
        x, memory = returned
    return x


def even(n: int) -> np.ndarray:
    return np.linspace(*LAM, n + 1)


def uneven(n: int) -> np.ndarray:
    """Steps of alternating length 1 : 2, on which a multistep formula for equal steps loses
    its order.
    """
    lengths = np.tile([1.0, 2.0], n // 2)
    return LAM[0] + (LAM[1] - LAM[0]) * np.concatenate([[0.0], lengths.cumsum() / lengths.sum()])


def typical(x: np.ndarray, truth: np.ndarray) -> float:
    """Geometric mean over the batch of the distance to the truth (`dlib.metrics.typical`)."""
    return float(np.exp(np.log(np.maximum(np.linalg.norm(x - truth, axis=1), 1e-300)).mean()))


def tensors(inputs: dict, *names: str) -> list:
    """These inputs of a case, as the tensors that an answer is given."""
    return [torch.tensor(inputs[name]) for name in names]


def arrays(*values) -> list[np.ndarray]:
    """What an answer returned, as float64 arrays; none at all if something is None, which
    judges know as a lacking `return`.
    """
    return [] if any(value is None for value in values) else [array(value) for value in values]


def array(value) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    return np.array(value, dtype=np.float64)
