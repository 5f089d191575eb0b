"""The step that every consistency loss compares: a start, the teacher's end, an edge to
jump to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlib._util import Draw, per_sample, require, sent
from dlib.denoiser import Denoiser, guided
from dlib.losses.diffusion import Batch, uniform_omega
from dlib.prediction import Prediction
from dlib.schedule import CLEAN, NoiseLevel, NoiseSchedule
from dlib.solvers import Solver

Stations = tuple[NoiseLevel, NoiseLevel, NoiseLevel]
"""Start, end and edge of each sample's step."""


class Ends(NamedTuple):
    """What a consistency loss compares.

    prediction: the student's, at the start of the step, with its gradient. target: where the
    target sends the end of the step, (B, *shape) at the level `edge`, without gradient. edge:
    the phase's clean edge, `CLEAN` for a phase that ends at the data. index: (B,) int64 on the
    CPU, the place of the start in the grid.
    """

    prediction: Prediction
    target: Tensor
    edge: NoiseLevel
    index: Tensor

    @property
    def student(self) -> Tensor:
        """Where the student sends the start of the step: (B, *shape) at `edge`, with its
        gradient.
        """
        return jump(self.prediction, self.edge)


def jump(prediction: Prediction, edge: NoiseLevel) -> Tensor:
    """α_s x₀ + σ_s ε, the point of level s that a prediction means; its x₀ for `CLEAN`. From s
    itself it is exactly x.
    """
    return prediction.x0 if edge is CLEAN else prediction.mix(edge.alpha, edge.sigma)


def compared(
    student: Denoiser,
    teacher: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    index: Tensor,
    stations: Stations,
    *,
    omega: tuple[float, float] | None,
    null: Any,
    embed: Callable | None,
    solver: Solver,
) -> Ends:
    """Both ends of one step: the data is noised to its start, the teacher walks to its end,
    and student and target jump from there to its edge.

    stations: start, end and edge, a level a sample. index: (B,), the place of the start in the
    grid, handed on. The others are those of `consistency`. Draws: ω, if there is one; the
    noise, unless the batch brings its own.
    """
    start, end, edge = stations
    x0 = batch.x0
    scale = None if omega is None else uniform_omega(omega, draw, x0)
    noise = draw.normal(x0) if batch.noise is None else batch.noise
    x, cond = start.alpha * x0 + start.sigma * noise, batch.cond
    told = cond if embed is None else embed(cond, scale)
    with torch.no_grad():
        guide = teacher if scale is None else guided(teacher, scale, null)
        there, _ = solver(guide, x, start, end, None, None, cond)
        goal = jump(target(there, end, told), edge)
    return Ends(student(x, start, told), goal, edge, index)


def levels_of(schedule: NoiseSchedule, t: Tensor, like: Tensor) -> list[NoiseLevel]:
    """One level of tensors (B, 1, …) for each row of t (k, B), which is on the CPU; computed
    there in float64 and sent at once.
    """
    fields = sent(torch.stack(list(schedule.at(t.double()))), like)
    return [NoiseLevel(*(per_sample(field, like) for field in row)) for row in fields.unbind(1)]


def phase_of(times: Tensor, edges: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """(clean edge, noisy end) of the phase in which the time of each place starts: (B,) and
    (B,).
    """
    phase = (edges >= times[index, None]).sum(1)
    return edges[phase], torch.cat([times[:1], edges])[phase]


def check_edges(loss: str, times: Tensor, edges: Tensor) -> None:
    """Raise ValueError, in the name of `loss`, for times that are not the clean edges of
    phases of a grid.
    """
    require(
        bool((edges.diff() < 0).all() and edges[-1] == times[-1] and edges[0] < times[0]),
        f"{loss}: edges must be descending times below the first, the last of them the "
        "grid's last: pass pcm_edges(times, phases)",
    )


def check_skip(verb: str, skip: int) -> None:
    """Raise ValueError, in the name of `verb`, for a number of steps that is none."""
    require(
        isinstance(skip, Integral) and skip >= 1,
        f"{verb}: skip = {skip} steps of the grid, wanted at least 1, a whole number",
    )


def check_omega(verb: str, omega: tuple[float, float]) -> None:
    """Raise ValueError, in the name of `verb`, for anything but a range of ω."""
    require(
        isinstance(omega, Sequence) and len(omega) == 2 and omega[0] <= omega[1] < math.inf,
        f"{verb}: omega = {omega}, wanted a range (low, high); ω = 0 is no guidance, and "
        "diffusers' guidance_scale is 1 + ω",
    )


def check_step(
    loss: str,
    batch: Batch,
    times: Tensor,
    edges: Tensor | None,
    skip: int,
    omega: tuple[float, float] | None,
    embed: Callable | None,
    solver: Solver,
) -> None:
    """Raise ValueError, in the name of `loss`, for a grid, edges or settings of no step."""
    require(
        times.ndim == 1 and len(times) > 1 and bool((times.diff() < 0).all()),
        f"{loss}: times of shape {tuple(times.shape)} must fall from noise to data: pass "
        "grid(schedule, n)",
    )
    if edges is not None:
        check_edges(loss, times, edges)
    check_skip(loss, skip)
    require(
        solver.memoryless and not solver.noisy,
        f"{loss}: {getattr(solver, '__name__', solver)} has a memory or adds noise: use "
        "ddim or heun",
    )
    if omega is not None:
        check_omega(loss, omega)
    require(
        embed is None or omega is not None,
        f"{loss}: embed tells the student ω, but there is none: pass omega=(low, high)",
    )
    shape = None if batch.noise is None else batch.noise.shape
    require(
        shape in (None, batch.x0.shape),
        f"{loss}: noise has shape {shape}, x0 {tuple(batch.x0.shape)}: one ε for each x0",
    )
