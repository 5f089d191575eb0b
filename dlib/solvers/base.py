"""Floor 3: what a solver is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel


class Solver(Protocol):
    """A pure function from the noisier level `a` to the cleaner level `b`; all that a step remembers is `memory`.

    `memory` is None at the first step. `noise` is standard normal like x for a solver that is `noisy`, else None:
    solvers never draw. Use the decorator `solver` to state the four facts.
    """

    order: int
    calls: int
    memoryless: bool
    noisy: bool

    def __call__(
        self, model: Denoiser, x: Tensor, a: NoiseLevel, b: NoiseLevel,
        memory: Any = None, noise: Tensor | None = None, cond: Any = None,
    ) -> tuple[Tensor, Any]: ...


def solver(order: int, calls: int = 1, memoryless: bool = True, noisy: bool = False) -> Callable:
    """Record a step's global order of convergence, network calls, memory and need for noise as attributes."""

    def record(step: Callable) -> Solver:
        step.order, step.calls, step.memoryless, step.noisy = order, calls, memoryless, noisy
        return step

    return record
