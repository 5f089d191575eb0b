"""One model in another's clothes: a denoiser that predicts another face, on another
schedule.

Two levels of two schedules are the same noise if their κ = σ/α is. Then y = x/α = x₀ + κε is
the same too, so the points x differ by a factor, and x₀ and ε do not differ at all. What a
network knows, it knows on every schedule (Song et al. 2021b; Karras et al. 2022): an ε-model
on a variance-preserving schedule *is* a velocity model on straight paths.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser
from dlib.prediction import Prediction, parts
from dlib.schedule import NoiseLevel, NoiseSchedule


def converted(model: Denoiser, schedule: NoiseSchedule, predicts: str) -> Denoiser:
    """The same model on `schedule`, as one that predicts `predicts`: its x₀ and ε at equal κ =
    σ/α.

    At (x, level) it asks `model` at the level of its own schedule with the same λ, and there
    at x·√(D'/D), D = α² + σ²: with equal κ that is x·α'/α, and x·σ'/σ where α = 0. The answer
    is c·x₀ + d·ε with the new face's (c, d). Time is t ∈ [0, 1] on the new schedule. Raises
    ValueError, for tensors on the CPU, at noise levels that the model's schedule does not
    reach, and where the face cannot be had: from ε no x₀ at α = 0, from x₀ no ε at σ = 0.

    >>> from dlib.schedule import flow, vp
    >>> model = Denoiser(lambda x, t, cond: torch.sin(x), vp(), "eps")
    >>> a, b = vp().at(0.5), flow().at_lam(vp().at(0.5).lam)
    >>> x = torch.ones(3, 2, dtype=torch.float64)
    >>> u = converted(model, flow(), "velocity")(b.alpha / a.alpha * x, b).velocity
    >>> bool(torch.allclose(u, model(x, a).eps - model(x, a).x0))
    True
    """
    home = model.schedule

    def net(x: Tensor, time: Tensor, cond: Any) -> Tensor:
        # the denoiser that asks has seen to it that two axes mean frames
        level = schedule.at(time, like=x, per="frame" if time.ndim == 2 else "sample")
        if x.device.type == "cpu":  # looking at values would stall an accelerator
            _check(model, schedule, predicts, level)
        twin = level if schedule is home else home.at_lam(level.lam)
        said = model((_size(twin) / _size(level) * x).to(x.dtype), twin, cond)
        return _face(said, predicts, level, schedule)

    net.inner = model.net
    return Denoiser(net, schedule, predicts)


def _size(level: NoiseLevel) -> Tensor:
    return (level.alpha**2 + level.sigma**2) ** 0.5


def _face(said: Prediction, face: str, level: NoiseLevel, schedule: NoiseSchedule) -> Tensor:
    """`face` at `level` of `schedule` from x₀ and ε of a prediction at equal κ: from one of
    them where the other does not enter.
    """
    if face == "x0":
        return said.x0
    if face in ("eps", "score"):
        return said.eps if face == "eps" else -said.eps / level.sigma
    return said.mix(*parts(face, level, schedule))


def _check(model: Denoiser, schedule: NoiseSchedule, predicts: str, level: NoiseLevel) -> None:
    home = model.schedule
    noisy, clean = home.at(1.0).lam, home.at(home.t_min).lam
    for lam in (level.lam.min().item(), level.lam.max().item()):
        require(
            noisy - 1e-4 <= lam <= clean + 1e-4,
            f"converted: {schedule.name} has λ = {lam:.4g} at t = "
            f"{schedule.at_lam(lam).t:.4g}, but the model "
            f"was made for {home.name}, with λ from {noisy:.4g} to {clean:.4g}: keep t between "
            f"{schedule.at_lam(clean).t:.4g} and {schedule.at_lam(noisy).t:.4g}",
        )
        end = schedule.at_lam(lam)
        require(
            math.isfinite(lam) or _determined(model, schedule, predicts, end),
            f"converted: at t = {end.t:g}, where alpha = {end.alpha:g} and "
            f"sigma = {end.sigma:g}, the {predicts} on {schedule.name} cannot be had from a "
            f"network that predicts {model.predicts} on {home.name}: "
            "start at t_max=0.999, end at t_min=1e-3, or use a network that predicts v",
        )


def _determined(
    model: Denoiser, schedule: NoiseSchedule, predicts: str, level: NoiseLevel
) -> bool:
    one = torch.ones(1, 1, dtype=torch.float64)
    try:
        said = Prediction(one, model.schedule.at_lam(level.lam), one, model)
        return bool(_face(said, predicts, level, schedule).isfinite().all())
    except (ZeroDivisionError, ValueError):
        return False
