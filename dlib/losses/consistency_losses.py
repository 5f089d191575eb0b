"""Consistency distillation: two neighbours on a teacher's path must be sent to the
same point.

One loss for the family. Draw a start t_i on a grid of times and noise the data to it; the
teacher walks one solver step to the end t_j; student and target jump, the one from the start,
the other from the end, to the clean edge of their phase, and are compared there. One phase
that ends at the clean data is consistency distillation (Song et al. 2023) and latent
consistency (Luo et al. 2023a); M phases are phased consistency models (Wang et al. 2024b).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw, alike, require
from dlib.denoiser import Denoiser, one_schedule
from dlib.losses import weights
from dlib.losses.consistency_steps import (
    Ends,
    Stations,
    check_step,
    compared,
    levels_of,
    phase_of,
)
from dlib.losses.diffusion import Batch, Loss
from dlib.losses.weights import Weight
from dlib.schedule import CLEAN
from dlib.solvers import Solver, ddim

Distance = Callable[[Tensor, Tensor], Tensor]


def squared(a: Tensor, b: Tensor) -> Tensor:
    """(a − b)², averaged over a sample's values: (B,)."""
    alike("squared", a, b)
    return (a - b).square().flatten(1).mean(1)


def huber(c: float = 1e-3) -> Distance:
    """√((a−b)² + c²) − c of each value, averaged over a sample's values: (B,); about |a − b|
    (Luo et al. 2023a, as released).

    >>> huber(4.0)(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 2))
    tensor([0.5000])
    """
    require(c > 0, f"huber: c = {c:g}, wanted a width above 0")

    def distance(a: Tensor, b: Tensor) -> Tensor:
        alike("huber", a, b)
        return ((a - b).square() + c * c).sqrt().sub(c).flatten(1).mean(1)

    return distance


def apart(verb: str, distance: Distance, a: Tensor, b: Tensor) -> Tensor:
    """distance(a, b), (B,); ValueError, in the name of `verb`, for anything but one number a
    sample.
    """
    each = distance(a, b)
    require(
        each.shape == a.shape[:1],
        f"{verb}: the distance has shape {tuple(each.shape)} for {len(a)} samples, wanted "
        f"({len(a)},): one number a sample, such as dlib.losses.squared",
    )
    return each


def with_omega(cond: Any, omega: Tensor) -> dict[str, Any]:
    """The condition of a student that is told its guidance: `cond` with ω (B,) under the name
    "omega".

    >>> with_omega({"text": torch.zeros(2, 3)}, torch.ones(2)).keys()
    dict_keys(['text', 'omega'])
    """
    return {
        **(cond if isinstance(cond, Mapping) else {} if cond is None else {"cond": cond}),
        "omega": omega,
    }


def ends(
    student: Denoiser,
    teacher: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    times: Tensor,
    edges: Tensor | None = None,
    skip: int = 1,
    omega: tuple[float, float] | None = None,
    null: Any = None,
    embed: Callable | None = None,
    solver: Solver = ddim,
) -> Ends:
    """Both ends of a consistency step; the arguments are those of `consistency`, which see."""
    check_step("consistency", batch, times, edges, skip, omega, embed, solver)
    for model in (teacher, target):
        one_schedule("consistency", student, model)
    x0 = batch.x0
    index = draw.integers(len(times) - 1, len(x0))
    stations = _stations(student.schedule, times, edges, index, skip, x0)
    guide = dict(omega=omega, null=null, embed=embed, solver=solver)
    return compared(student, teacher, target, batch, draw, index, stations, **guide)


def consistency(
    student: Denoiser,
    teacher: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    times: Tensor,
    edges: Tensor | None = None,
    skip: int = 1,
    omega: tuple[float, float] | None = None,
    null: Any = None,
    embed: Callable | None = None,
    solver: Solver = ddim,
    distance: Distance = huber(),
) -> Loss:
    """E d(f_θ(x_{t_i}), sg f_θ⁻(x̂_{t_j})), averaged over the batch (Song et al. 2023, eq. 7;
    Luo et al. 2023a; Wang et al. 2024b).

    student, target: consistency functions; for one phase in their `boundary`, without which a
    constant has no loss. target: the student itself or its moving average. teacher: the
    diffusion model whose path is followed; neither it nor the target gets a gradient. times:
    (N+1,) descending float64, as `grid` returns. edges: the phases' clean ends, descending and
    ending with times[-1], as `pcm_edges` returns; both sides jump to the largest edge below
    the start, and `skip` steps of the grid go no further. None is one phase whose end is the
    clean data, f = x₀.

    omega: the teacher is guided, each sample with its own ω uniform in this range, against the
    condition `null`. embed: (cond, ω) ↦ the condition of student and target, e.g.
    `with_omega`. solver: memoryless and without noise. distance: (B, *shape) twice ↦ (B,).
    Draws: the start's place i, uniform on 0 … N−1; ω, if there is one; the noise (unless the
    batch brings its own).

    >>> from dlib import Mixture, edm, exact, grid
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), edm())
    >>> times = grid(edm(), 18, "karras")
    >>> batch, every = Batch(torch.ones(4, 2)), times[1:]  # as many phases as steps:
    >>> loss = consistency(model, model, model, batch, Draw(0), times=times, edges=every)
    >>> bool(loss.value < 1e-9)  # the student is asked for the teacher's own step
    True
    """
    both = ends(
        student,
        teacher,
        target,
        batch,
        draw,
        times=times,
        edges=edges,
        skip=skip,
        omega=omega,
        null=null,
        embed=embed,
        solver=solver,
    )
    each = apart("consistency", distance, both.student, both.target)
    return Loss(each.mean(), {"loss": each.detach().mean()})


def multistep_consistency(
    student: Denoiser,
    teacher: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    times: Tensor,
    edges: Tensor | None = None,
    skip: int = 1,
    omega: tuple[float, float] | None = None,
    null: Any = None,
    embed: Callable | None = None,
    solver: Solver = ddim,
    weight: Weight = weights.v,
) -> Loss:
    """E w(t) ‖x₀_θ(x_t) − x̃‖² with x̃ = (z − ρ x_t)/(α_s − ρ α_t), ρ = σ_s/σ_t (Heek et al.
    2024, alg. 1).

    As `consistency`, but the target's point z at the edge s is carried back to x₀ by inverting
    the DDIM step t → s, so the loss is a denoising loss with a better target: the squared loss
    at the edge, reweighted by w/(α_s − ρα_t)². One phase is a consistency model; as many
    phases as steps is a diffusion model that learns the teacher's x₀. weight: of
    `dlib.losses.weights`. A mean over a sample's values and over the batch. Arguments and
    draws as for `consistency`.
    """
    both = ends(
        student,
        teacher,
        target,
        batch,
        draw,
        times=times,
        edges=edges,
        skip=skip,
        omega=omega,
        null=null,
        embed=embed,
        solver=solver,
    )
    prediction, edge = both.prediction, both.edge
    rho = edge.sigma / prediction.level.sigma
    aim = (both.target - rho * prediction.x) / (edge.alpha - rho * prediction.level.alpha)
    square = weight(prediction.level, student.schedule) * (prediction.x0 - aim).square()
    each = square.flatten(1).mean(1)
    return Loss(each.mean(), {"loss": each.detach().mean()})


def _stations(schedule, times, edges, index, skip, like) -> Stations:
    """Start, end and edge of each sample's step."""
    end = times[(index + skip).clamp(max=len(times) - 1)]
    if edges is None:
        return (*levels_of(schedule, torch.stack([times[index], end]), like), CLEAN)
    edge, _ = phase_of(times, edges, index)
    return tuple(
        levels_of(schedule, torch.stack([times[index], torch.maximum(end, edge), edge]), like)
    )
