"""What a solver is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel


class Solver(Protocol):
    """A pure function from the noisier level `a` to the cleaner level `b`; all that a step
    remembers is `memory`.

    `memory` is None at the first step, then what the step before returned: by habit ((λ, x₀),
    …), newest first; a solver without memory returns what it was given. `noise` is standard
    normal like x for a solver that is `noisy`, else None: solvers never draw. All take the
    same arguments, used or not. The decorator `solver` states the facts: global `order` of
    convergence, network `calls` a step, how many former steps of `history` it uses
    (`memoryless` if none), `noisy`. A corrector corrects x at the start of the next step, from
    its memory; what `State.x` shows is the predictor's.
    """

    order: int
    calls: int
    history: int
    memoryless: bool
    noisy: bool

    def __call__(
        self,
        model: Denoiser,
        x: Tensor,
        a: NoiseLevel,
        b: NoiseLevel,
        memory: Any = None,
        noise: Tensor | None = None,
        cond: Any = None,
    ) -> tuple[Tensor, Any]: ...


def solver(order: int, calls: int = 1, history: int = 0, noisy: bool = False) -> Callable:
    """Record a step's order, network calls, steps of history and need for noise as attributes;
    see `Solver`.
    """

    def record(step: Callable) -> Solver:
        step.order, step.calls, step.history, step.noisy = order, calls, history, noisy
        step.memoryless = history == 0
        return step

    return record
