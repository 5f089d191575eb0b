"""Consistency training: a student learns from its own answer one step nearer to the
data.

The lecture calls this bootstrapping: h(x_t) ← R + h⁻(x_r), where f = x_t/α_t − h is the
student and the reward R = (κ_t − κ_r) ε̄ is one DDIM step. All that a method decides is whose
x₀ the step is made with (and so ε̄): the batch's own, in consistency training (Song et al.
2023; Song & Dhariwal 2024; Geng et al. 2024), a teacher's, in consistency distillation, or the
mean of many references, in stable consistency tuning (Wang et al. 2024a).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlib._util import Draw, alike, per_sample, require, sent
from dlib.denoiser import Denoiser, one_schedule
from dlib.losses.consistency_losses import Distance, apart, squared
from dlib.losses.consistency_steps import jump
from dlib.losses.curricula import TwoTimes
from dlib.losses.diffusion import Batch, Loss
from dlib.prediction import Prediction
from dlib.schedule import CLEAN, NoiseLevel, NoiseSchedule

Estimate = Callable[[Tensor, NoiseLevel, Batch], Tensor]
"""(x_t (B, *shape), level, batch) ↦ what x₀ is taken to be, (B, *shape)."""
StepWeight = Callable[[NoiseLevel, NoiseLevel], Tensor]
"""(level t, level r) ↦ the weight of each sample's step, shaped like level.t."""


def own(x: Tensor, level: NoiseLevel, batch: Batch) -> Tensor:
    """The batch's own x₀: one sample of the posterior p(x₀ | x_t), with which the step keeps
    its noise. It makes `consistency_training` what its name says.
    """
    return batch.x0


def taught(teacher: Denoiser) -> Estimate:
    """A diffusion model's x₀, the posterior's mean, without gradient: consistency distillation
    with one DDIM step.
    """

    def estimate(x: Tensor, level: NoiseLevel, batch: Batch) -> Tensor:
        return teacher(x, level, batch.cond).x0

    return estimate


def uniform(start: NoiseLevel, end: NoiseLevel | None = None) -> Tensor:
    """1 for every step (Song et al. 2023), or at every level."""
    return torch.ones_like(start.t)


def inverse_step(start: NoiseLevel, end: NoiseLevel) -> Tensor:
    """1/(κ_t − κ_r), κ = σ/α: short steps weigh more (Song & Dhariwal 2024, table 1; Geng et
    al. 2024).
    """
    return 1 / (start.sigma / start.alpha - end.sigma / end.alpha)


def norm_huber(c: float) -> Distance:
    """√(‖a − b‖² + c²) − c with the norm of a whole sample: (B,). c = 0 is the norm itself.

    Song & Dhariwal (2024, eq. 7) take c = 0.00054 √d for d values a sample. Where c is small
    beside ‖a − b‖ the minimiser is the geometric median of the targets and not their mean.

    >>> norm_huber(0.0)(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    tensor([5.])
    """
    require(c >= 0, f"norm_huber: c = {c:g}, wanted a width of at least 0")

    def distance(a: Tensor, b: Tensor) -> Tensor:
        alike("norm_huber", a, b)
        gap = (a - b).flatten(1)
        # as one norm of (gap, c), whose gradient is 0 and not NaN where both are 0
        return torch.linalg.vector_norm(torch.nn.functional.pad(gap, (0, 1), value=c), dim=1) - c

    return distance


def consistency_training(
    student: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    times: TwoTimes,
    estimate: Estimate = own,
    weight: StepWeight = uniform,
    distance: Distance = squared,
    edges: Sequence[float] | Tensor | None = None,
) -> Loss:
    """E w(t, r) d(f_θ(x_t), sg f_θ⁻(x_r)) with x_t = α_t x₀ + σ_t ε and x_r = α_r x̄₀ + σ_r ε̄,
    where α_t x̄₀ + σ_t ε̄ = x_t (Song et al. 2023, alg. 3, for x̄₀ = x₀).

    student, target: consistency functions, f being their x₀. target is the student itself or
    its moving average and gets no gradient. A boundary (`dlib.boundary`) is needed where no r
    is clean; where r is the clean data the target is x̄₀, whatever the network says. times:
    draws t and r: `ladder_times` or `ect_times`. estimate: whose x₀ the step is made with,
    `own`, `taught(teacher)`, or any (x_t, level, batch) ↦ x̄₀; no gradient flows through it.
    weight: (level t, level r) ↦ w, `uniform` or `inverse_step`. distance: (B, *shape) twice
    ↦ (B,). edges: the clean ends of phases, descending; both sides jump to the largest edge
    below t, and r goes no further; an edge below `t_min` is the clean data. None is one phase
    that ends there.

    Metrics: the loss, and `distance`, the same without weights. Draws: those of `times`, then
    the noise (unless the batch brings its own). ValueError for an r that is not below t, a t
    below the last edge, an estimate or noise of another shape than x₀, and a weight that is
    not one number a step.

    >>> from dlib import Mixture, edm, exact, grid
    >>> from dlib.losses import ladder_times
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), edm())
    >>> drawn = ladder_times(grid(edm(), 18, "karras"))
    >>> batch = Batch(torch.ones(4, 2))
    >>> consistency_training(model, model, batch, Draw(0), times=drawn).value.shape
    torch.Size([])
    """
    t, r = (time.double() for time in times(draw, len(batch.x0)))
    edge = None if edges is None else edge_below(t, edges)
    r = r if edge is None else torch.maximum(r, edge)
    both = both_ends(student, target, batch, draw, t, r, edge, estimate)
    each = apart("consistency_training", distance, both.student, both.target)
    what = "consistency_training: the weight"
    weighted = one_each(what, weight, both.start, both.end) * each
    return Loss(
        weighted.mean(), {"loss": weighted.detach().mean(), "distance": each.detach().mean()}
    )


def one_each(what: str, weight: Callable[..., Tensor], *levels: NoiseLevel) -> Tensor:
    """weight(*levels), (B,); ValueError, in the name of `what`, for anything but one number a
    sample.
    """
    each, n = weight(*levels), len(levels[0].t)
    shape = tuple(getattr(each, "shape", ()))
    require(
        shape[:1] == (n,) and each.numel() == n,
        f"{what} has shape {shape} for {n} samples, wanted {tuple(levels[0].t.shape)}, like "
        "level.t: one number a sample, such as dlib.losses.bootstrapping.uniform",
    )
    return each.flatten()


class Both(NamedTuple):
    """Where the student sends x_t, with its gradient, and the target x_r, without: (B, *shape)
    each; and the levels t and r.
    """

    student: Tensor
    target: Tensor
    start: NoiseLevel
    end: NoiseLevel


def both_ends(
    student: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    t: Tensor,
    r: Tensor,
    edge: Tensor | None,
    estimate: Estimate,
    cond: Any = None,
) -> Both:
    """x_t and x_r, and where student and target send them: to the levels of the times `edge`,
    or to the clean data. Draws: the noise (unless the batch brings its own).
    """
    x0, schedule = batch.x0, student.schedule
    cond = batch.cond if cond is None else cond
    _check(student, target, batch, t, r)
    start, end = levels_at(schedule, t, x0), levels_at(schedule, r, x0)
    noise = draw.normal(x0) if batch.noise is None else batch.noise
    x = start.alpha * x0 + start.sigma * noise
    goal = CLEAN if edge is None else levels_at(schedule, edge, x0)
    with torch.no_grad():
        there = estimated(x, start, batch, estimate, schedule).mix(end.alpha, end.sigma)
        # a network is not asked at σ = 0: such rows are asked at t, and their answer is not used
        noisy = end.sigma > 0
        asked = NoiseLevel(*(torch.where(noisy, *both) for both in zip(end, start, strict=True)))
        said = jump(target(there, asked, cond), goal)
        aim = torch.where(noisy, said, there.to(said.dtype))
    return Both(jump(student(x, start, cond), goal), aim, start, end)


def estimated(
    x: Tensor, level: NoiseLevel, batch: Batch, estimate: Estimate, schedule: NoiseSchedule
) -> Prediction:
    """The estimate's x̄₀ as a prediction at x_t, so that ε̄ = (x_t − α_t x̄₀)/σ_t and every
    other face follow: `.mix(α_r, σ_r)` is the DDIM step t → r, `.velocity` the path's slope.
    """
    x0 = estimate(x, level, batch)
    require(
        x0.shape == x.shape,
        f"consistency_training: the estimate has shape {tuple(x0.shape)}, x0 {tuple(x.shape)}: "
        "estimate(x_t, level, batch) returns one x̄₀ for each sample",
    )
    return Prediction(x, level, x0, Denoiser(_nobody, schedule, "x0"))


def levels_at(schedule: NoiseSchedule, t: Tensor, like: Tensor) -> NoiseLevel:
    """The levels (B, 1, …) at the times t (B,), which are on the CPU; a time below the
    schedule's clean end is the clean level, α = 1 and σ = 0.
    """
    level, below = schedule.at(t.clamp(min=schedule.t_min)), t < schedule.t_min
    fields = [
        torch.where(below, torch.full_like(t, clean), field)
        for field, clean in zip(level, CLEAN, strict=True)
    ]
    return NoiseLevel(*(per_sample(field, like) for field in sent(torch.stack(fields), like)))


def edge_below(t: Tensor, edges: Sequence[float] | Tensor) -> Tensor:
    """The largest edge below each time t (B,): the clean end of its phase."""
    edges = torch.as_tensor(edges, dtype=torch.float64, device="cpu")
    require(
        edges.ndim == 1 and len(edges) > 0 and bool((edges.diff() < 0).all()),
        f"consistency_training: edges {edges.tolist()} must be one axis of descending times",
    )
    require(
        bool((t > edges[-1]).all()),
        f"consistency_training: a step starts at t = {t.min():g}, not above the last edge, "
        f"{edges[-1]:g}: let the edges end below every t; an edge below the schedule's t_min, "
        "such as -1, is the clean data",
    )
    return edges[(edges >= t[:, None]).sum(1)]


def above_clean(verb: str, schedule: NoiseSchedule, t: Tensor) -> None:
    """ValueError, in the name of `verb`, for a time t (B,) at which σ is 0."""
    require(
        bool((schedule.at(t).sigma > 0).all()),
        f"{verb}: a sample starts at the clean end of {schedule.name}, where there is no noise "
        "to take away: draw times above it, e.g. ladder_times(grid(schedule, n)) or "
        "uniform_times(1e-3)",
    )


def _check(student: Denoiser, target: Denoiser, batch: Batch, t: Tensor, r: Tensor) -> None:
    one_schedule("consistency_training", student, target)
    shape = None if batch.noise is None else batch.noise.shape
    require(
        shape in (None, batch.x0.shape),
        f"consistency_training: noise has shape {shape}, x0 {tuple(batch.x0.shape)}: one ε for "
        "each x0",
    )
    require(
        t.shape == r.shape == batch.x0.shape[:1],
        f"consistency_training: times drew t {tuple(t.shape)} and r {tuple(r.shape)} for "
        f"{len(batch.x0)} samples: times(draw, n) returns n of each",
    )
    require(
        bool((r < t).all()),
        "consistency_training: a pair has r ≥ t: r is the cleaner time, below t; -1 is the clean "
        "data",
    )
    above_clean("consistency_training", student.schedule, t)


def _nobody(x: Tensor, time: Tensor, cond: object) -> Tensor:
    raise NotImplementedError("a given x₀ has no network")
