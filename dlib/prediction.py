"""What one network call says, seen as five faces.

A network predicts one of ε, x₀, v = αε − σx₀, the velocity dx/dt = α̇x₀ + σ̇ε or the score −ε/σ.
Given x and the level, each is c·x₀ + d·ε with two known numbers, hence an affine function
p·x + q·raw of every other. This module is that table.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from dlib.denoiser import Denoiser
    from dlib.schedule import NoiseLevel, NoiseSchedule

FACES = ("eps", "x0", "v", "velocity", "score")


def parts(face: str, level: NoiseLevel, schedule: NoiseSchedule) -> tuple:
    """(a, b) such that `face = a·x₀ + b·ε`: what a network that predicts `face` is trained to
    output.
    """
    if face in ("x0", "eps"):
        return (1.0, 0.0) if face == "x0" else (0.0, 1.0)
    if face == "v":
        return -level.sigma, level.alpha
    if face == "velocity":
        return schedule.rates(level.t)
    return 0.0, -1 / level.sigma  # the score


class Prediction:
    """What one network call says at (x, level), seen as `.eps`, `.x0`, `.v`, `.velocity` or
    `.score`; each (B, *shape).
    """

    __slots__ = ("x", "level", "raw", "model")

    def __init__(self, x: Tensor, level: NoiseLevel, raw: Tensor, model: Denoiser):
        self.x, self.level, self.raw, self.model = x, level, raw, model

    def mix(self, c: float | Tensor, d: float | Tensor) -> Tensor:
        """c·x₀ + d·ε as one fused p·x + q·raw. The faces, and every first-order step, are such
        mixtures.

        raw = a·x₀ + b·ε and x = α·x₀ + σ·ε are two equations for x₀ and ε; their determinant
        is αb − σa.
        """
        alpha, sigma = self.level.alpha, self.level.sigma
        a, b = self._parts(self.model.predicts, "x₀ and ε")
        det = alpha * b - sigma * a
        rest = c * b - d * a
        if not isinstance(det, Tensor) and det == 0:
            if rest or not (a or b):
                raise self._undetermined("x₀ and ε")
            # x tells nothing new, but what is wanted is a multiple of raw
            return self.raw * (c / a if a else d / b)
        return _add(rest / det, self.x, (d * alpha - c * sigma) / det, self.raw)

    def face(self, name: str) -> Tensor:
        """The face of that name, of `FACES`."""
        if name == self.model.predicts:
            return self.raw
        return self.mix(*self._parts(name, f"the {name}"))

    def _parts(self, face: str, wanted: str) -> tuple:
        try:
            a, b = parts(face, self.level, self.model.schedule)
            if isinstance(a + b, Tensor) or math.isfinite(a + b):
                return a, b
        except ZeroDivisionError:
            pass
        raise self._undetermined(wanted)

    def _undetermined(self, wanted: str) -> ValueError:
        return ValueError(
            f"a network that predicts {self.model.predicts} does not determine {wanted} at t = "
            f"{self.level.t:g}, where alpha = {self.level.alpha:g} "
            f"and sigma = {self.level.sigma:g}: start at t_max=0.999, end at t_min=1e-3, or "
            "predict v or velocity"
        )

    eps = property(lambda self: self.face("eps"), doc="the noise ε")
    x0 = property(lambda self: self.face("x0"), doc="the clean data x₀")
    v = property(lambda self: self.face("v"), doc="v = αε − σx₀ (Salimans & Ho 2022)")
    velocity = property(
        lambda self: self.face("velocity"), doc="dx/dt of the PF-ODE on this schedule"
    )
    score = property(lambda self: self.face("score"), doc="∇ log p_t(x) = −ε/σ")


def _add(p: float | Tensor, x: Tensor, q: float | Tensor, raw: Tensor) -> Tensor:
    """p·x + q·raw in the dtype of x; host floats go into fused kernels."""
    if isinstance(p, Tensor) or isinstance(q, Tensor):
        return (p * x + q * raw).to(x.dtype)
    return (raw * q).add_(x, alpha=p) if p else raw * q
