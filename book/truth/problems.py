"""Fresh problems for solvers: a random mixture whose exact network is known, and the order of a
walk.

The mixtures are broad on purpose, so that errors are asymptotic with few steps.
"""

from collections.abc import Callable

import numpy as np
import torch
from dlib import Denoiser, exact
from dlib.solvers import reference

from book.questions.problems import mixture_of, schedule_of
from book.truth import Case

BATCH = 32
LAM = (-2.5, 2.0)
STEPS = np.array([20, 40, 80, 160])


def beta(rng: np.random.Generator) -> np.ndarray:
    """The two numbers of a variance-preserving schedule."""
    return np.array([rng.uniform(0.05, 0.2), rng.uniform(15, 25)])


def mixture(
    rng: np.random.Generator, d: int, modes: int = 3, stds: tuple[float, float] = (0.5, 0.8)
) -> dict[str, np.ndarray]:
    """The numbers of a mixture of broad modes with unequal weights."""
    return {
        "weights": rng.dirichlet(np.full(modes, 4.0)),
        "means": rng.normal(size=(modes, d)),
        "stds": rng.uniform(*stds, modes),
    }


def level(rng: np.random.Generator) -> dict[str, float]:
    """A variance preserving level in the middle of the schedule."""
    angle = rng.uniform(0.4, 1.1)
    return {"alpha": float(np.cos(angle)), "sigma": float(np.sin(angle))}


def problem(rng: np.random.Generator) -> tuple[dict, Denoiser]:
    """(inputs with the schedule's numbers and starts x, the exact denoiser)."""
    inputs = {"beta": beta(rng), "x": rng.normal(size=(BATCH, 2))}
    return inputs, exact(mixture_of(mixture(rng, 2)), schedule_of(inputs))


def network_of(model: Denoiser) -> Callable:
    """(x, t) ↦ ε on arrays: the form in which a network crosses a pipe."""

    def eps(x: np.ndarray, t: float) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(x))
        return model(x, model.schedule.at(float(t))).eps.numpy()

    return eps


def even(n: int) -> np.ndarray:
    return np.linspace(*LAM, n + 1)


def uneven(n: int) -> np.ndarray:
    """Steps of alternating length 1 : 2, on which a multistep formula for equal steps loses its
    order.
    """
    lengths = np.tile([1.0, 2.0], n // 2)
    return LAM[0] + (LAM[1] - LAM[0]) * np.concatenate([[0.0], lengths.cumsum() / lengths.sum()])


def walks(grid: Callable[[int], np.ndarray]) -> Callable[[np.random.Generator], Case]:
    """Inputs for a walk from LAM[0] to LAM[1] with each number of STEPS; `end` is the truth."""

    def inputs(rng: np.random.Generator) -> Case:
        drawn, model = problem(rng)
        ends = [model.schedule.at_lam(lam) for lam in LAM]
        end = reference(model, torch.tensor(drawn["x"]), *ends, rtol=1e-10).numpy()
        drawn |= {"steps": STEPS, "lams": np.concatenate([grid(n) for n in STEPS])}
        return Case(drawn, network_of(model), {"end": end})

    return inputs


def typical(x: np.ndarray) -> float:
    """Geometric mean over the batch of the norms (`dlib.metrics.typical`)."""
    return float(np.exp(np.log(np.maximum(np.linalg.norm(x, axis=1), 1e-300)).mean()))


def order(errors: np.ndarray) -> int:
    """The order of convergence of walks whose errors after STEPS are given, (4, B, d): the first
    power of 1/n in them that makes a tenth of the last error.

    The parts are those of the polynomial of degree 4 in 1/n through the errors. A slope of their
    logarithms would not do: a rule's leading part may nearly cancel on the way. With the midpoint
    in κ slopes were 1.7 to 3.2 over 200 seeds, but the parts of 1/n below 0.008 and of 1/n²
    above 0.3 of the error. With rules of first order the former was above 0.9, with one of third
    order both were below 0.04.
    """
    powers = STEPS[:, None] ** -np.arange(1.0, len(STEPS) + 1)
    parts = np.tensordot(np.linalg.inv(powers), errors, 1) * powers[-1][:, None, None]
    large = [typical(part) > 0.1 * typical(errors[-1]) for part in parts]
    return 1 + large.index(True) if any(large) else len(STEPS)
