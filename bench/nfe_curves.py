"""What the search for network calls compares: a problem with an exact solution, a sampler, and
its error by number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

import dlib
from bench.report import Cell
from dlib.metrics import order
from toy_data.mixtures import gmm5


class Sampler(NamedTuple):
    """What is compared: `run(steps)` returns (network calls, error, typical error); `floor` is
    the error its arithmetic allows.
    """

    library: str
    solver: str
    setting: str
    run: Callable[[int], tuple[int, float, float]]
    floor: float


@dataclass
class Problem:
    """GMM5 on VP: the same starts for everyone, and the exact solution at any level."""

    starts: int = 256
    mixture: dlib.Mixture = field(default_factory=gmm5)
    schedule: dlib.NoiseSchedule = field(default_factory=dlib.vp)
    known: dict[float, Tensor] = field(default_factory=dict)

    @cached_property
    def model(self) -> dlib.Denoiser:
        return dlib.exact(self.mixture, self.schedule)

    @cached_property
    def start(self) -> Tensor:
        return dlib.Draw(0).normal((self.starts, 2), torch.float64)

    def truth(self, level: dlib.NoiseLevel) -> Tensor:
        """Where the trajectories are at `level`, by `dlib.reference` at rtol 1e-12."""
        key = round(level.lam, 9)
        if key not in self.known:
            self.known[key] = self._solve(level)
        return self.known[key]

    def _solve(self, level: dlib.NoiseLevel) -> Tensor:
        # from σ = 1e-4 the posterior mean of x₀ is the end point up to O(σ²)
        if level.sigma == 0:
            near = self.schedule.at_lam(9.0)
            return self.mixture.posterior_means(self.truth(near), near)[0]
        top = self.schedule.at(1.0)
        return (
            self.start
            if level.lam <= top.lam
            else dlib.reference(self.model, self.start, top, level)
        )


class Curve:
    """A sampler's error by number of steps; each number is run once."""

    def __init__(self, sampler: Sampler, every: int, last: int):
        self.sampler, self.every, self.last, self.points, self.typical = (
            sampler,
            every,
            last,
            {},
            {},
        )

    def __call__(self, steps: int) -> tuple[int, float]:
        if steps not in self.points:
            calls, error, self.typical[steps] = self.sampler.run(steps)
            self.points[steps] = calls, error if math.isfinite(error) else math.inf
        return self.points[steps]

    def misses(self, tolerance: float) -> int:
        """The most steps, of those tried one by one, whose error is above `tolerance`; 2 for
        none.
        """
        return next((n for n in range(self.every, 2, -1) if self(n)[1] > tolerance), 2)

    def reaches(self, tolerance: float) -> int:
        """Calls of the fewest steps from which on the error stays within `tolerance`; −1 for
        never.
        """
        low = self.misses(tolerance)
        if low < self.every:
            return self(low + 1)[0]
        high = self.last
        if self(high)[1] > tolerance:
            return -1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self(middle)[1] <= tolerance else (middle, high)
        return self(high)[0]

    def at_calls(self, calls: int) -> float:
        """The error of the most steps that `calls` calls pay for."""
        return max(
            (point for point in map(self, range(3, calls + 1)) if point[0] <= calls),
            default=(0, math.inf),
        )[1]

    def slope(self) -> str:
        """The order of convergence of the typical error as text, or — where it cannot be
        measured.
        """
        errors = {
            n: self.typical[n] for n in (self.last // 4, self.last // 2, self.last) if self(n)
        }
        measured = {n: e for n, e in errors.items() if self.sampler.floor < e < 1}
        return f"{order(measured):.2f}" if len(measured) > 1 else "—"

    def row(self) -> list[Cell]:
        calls = [self.reaches(1e-2), self.reaches(1e-3)]
        error = self.at_calls(20)
        return [
            *self.sampler[:3],
            *(n if n > 0 else f"not by {self.last} steps" for n in calls),
            f"{error:.1e}" if math.isfinite(error) else "NaN",
            self.slope(),
        ]
