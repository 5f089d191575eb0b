"""Sampling steps as Gaussians, for methods that need the probability of what was drawn.

A kernel is (model, x, a, b, cond=…) ↦ `Transition`: the N(mean, std² I) from which x_b is
drawn. `transition` is one, ancestral sampling; `partial(transition, eta=0.0)` is DDIM, which
draws nothing. Here are two more.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser
from dlib.schedule import NoiseLevel
from dlib.solvers.first_order import Transition


class Kernel(Protocol):
    """One stochastic step as a Gaussian; one network call."""

    def __call__(
        self, model: Denoiser, x: Tensor, a: NoiseLevel, b: NoiseLevel, *, cond: Any = None
    ) -> Transition: ...


def flow_transition(
    model: Denoiser, x: Tensor, a: NoiseLevel, b: NoiseLevel, noise: float = 0.7, cond: Any = None
) -> Transition:
    """Flow-GRPO's step (Liu et al. 2025, eq. 9): Euler–Maruyama for an SDE that has the flow's
    marginals, dx = [u + s²/2t (x + (1−t)u)] dt + s dw, s = noise·√(t/(1−t)).

    It is `euler_maruyama` with η = noise/√2, for on straight paths g² = 2t/(1−t). At t = 1,
    where s is infinite, 1 − t is taken at the step's end, as in the authors' code. The first
    steps then draw too much, and the excess dies out slowly. The schedule must be `flow`.
    """
    require(
        model.schedule.name == "flow",
        f"flow_transition: the schedule is {model.schedule.name!r}, wanted flow(): use "
        "preserving_transition (--hyper.preserving), transition, or euler_maruyama's drift",
    )
    require(noise > 0, f"flow_transition: noise = {noise:g}, wanted more than 0")
    dt = b.t - a.t  # negative
    rate = noise**2 / (1 - (a.t if a.t < 1 else b.t))  # s²/t
    u = model(x, a, cond).velocity
    mean = x * (1 + 0.5 * rate * dt) + u * ((1 + 0.5 * rate * (1 - a.t)) * dt)
    return Transition(mean, (rate * a.t * -dt) ** 0.5)


def preserving_transition(
    model: Denoiser, x: Tensor, a: NoiseLevel, b: NoiseLevel, noise: float = 0.8, cond: Any = None
) -> Transition:
    """Coefficients-preserving sampling (Wang & Yu 2025): α_b x₀ + σ_b (cos φ ε + sin φ z),
    φ = noise·π/2.

    Whatever φ is, x_b has exactly the noise of its level; but the guess x₀ varies less than
    the data, and many steps leave cos²(φ/2) of a Gaussian's variance. noise = 0 is DDIM, 1
    forgets ε. It is the DDIM family with another measure of noise: η of `transition` is
    relative to the posterior's noise, φ to the whole.
    """
    require(0 <= noise <= 1, f"preserving_transition: noise = {noise:g} is outside [0, 1]")
    angle = 0.5 * math.pi * noise
    mean = model(x, a, cond).mix(b.alpha, b.sigma * math.cos(angle))
    return Transition(mean, b.sigma * math.sin(angle))
