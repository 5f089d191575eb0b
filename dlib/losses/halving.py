"""Distil many deterministic steps into few: all of them at once, or two into one.

`knowledge` asks a student for the end of a walk whose start it sees (Luhman & Luhman 2021).
`progressive` asks it for two steps of its teacher in one; then the student becomes the teacher
(Salimans & Ho 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw, per_sample, require, sent
from dlib.denoiser import Denoiser, one_schedule
from dlib.losses import weights
from dlib.losses.consistency_losses import levels_of, squared
from dlib.losses.diffusion import Batch, Loss
from dlib.losses.weights import Weight
from dlib.schedule import NoiseLevel


def progressive(
    student: Denoiser,
    teacher: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    levels: Sequence[NoiseLevel],
    weight: Weight = weights.truncated_snr,
) -> Loss:
    """E w(t) ‖x₀_θ(x_t) − x̃‖², where one DDIM step with x̃ goes as far as two of the teacher
    (Salimans & Ho 2022, algorithm 2).

    levels: the teacher's 2N + 1 levels of floats, noise first, as `sample` is given; the last
    may be `CLEAN`. Every second one is a level of the student, which is trained there and
    nowhere else: sample it on `levels[::2]` with DDIM. weight: of `dlib.losses.weights`; the
    paper has max(SNR, 1). With `eps` the loss is 0 where α = 0, and nothing is learnt. The
    teacher gets no gradient. A mean over a sample's values and over the batch, which is 0 for
    a student that makes every two steps in one. Draws: the student's step, uniform on 0 … N−1;
    the noise (unless the batch brings its own).

    >>> from dlib import Mixture, exact, levels, vp
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), vp())
    >>> walk = levels(vp(), 8, end="clean")
    >>> batch = Batch(torch.ones(4, 2).double())
    >>> student = halved(model, walk)
    >>> bool(progressive(student, model, batch, Draw(0), levels=walk).value < 1e-20)
    True
    """
    _check(student, teacher, batch, levels)
    x0 = batch.x0
    i = draw.integers(len(levels) // 2, len(x0))
    noise = draw.normal(x0) if batch.noise is None else batch.noise
    times = torch.tensor([level.t for level in levels[:-1]], dtype=torch.float64)
    start, middle = levels_of(student.schedule, times[torch.stack([2 * i, 2 * i + 1])], x0)
    share = torch.tensor(shares(levels), dtype=torch.float64)[i]
    x = start.alpha * x0 + start.sigma * noise
    with torch.no_grad():
        second = per_sample(sent(share, x0), x0)
        aim = two_step_target(teacher, x, start, middle, second, batch.cond)
    error = student(x, start, batch.cond).x0 - aim
    each = (weight(start, student.schedule) * error.square()).flatten(1).mean(1)
    return Loss(each.mean(), {"loss": each.detach().mean()})


def two_step_target(
    teacher: Denoiser,
    x: Tensor,
    a: NoiseLevel,
    b: NoiseLevel,
    share: float | Tensor,
    cond: Any = None,
) -> Tensor:
    """The x̃ with which one DDIM step from a to c lands where two steps of the teacher land, by
    way of b: (B, *shape).

    Salimans & Ho (2022) solve for it, x̃ = (z − ρx)/(α_c − ρα_a) with ρ = σ_c/σ_a and z the
    point that two steps reach. Put the two steps in, and it is a mean of the teacher's guesses
    at x and at b, the second with the weight `share` of `shares`. In this form no
    difference is divided by the length of the step.
    """
    require(
        not isinstance(share, Tensor) or share.ndim in (0, x.ndim),
        f"two_step_target: share has shape {tuple(getattr(share, 'shape', ()))} for x "
        f"{tuple(x.shape)}: wanted a number, or (B, 1, …) with one a sample",
    )
    first = teacher(x, a, cond)
    second = teacher(first.mix(b.alpha, b.sigma), b, cond)
    return torch.lerp(*torch.broadcast_tensors(first.x0, second.x0), share)


def shares(levels: Sequence[NoiseLevel]) -> list[float]:
    """The second guess's weight in x̃, for each two steps a → b → c of 2N + 1 levels of floats:
    (1 − e^{λ_b − λ_c})/(1 − e^{λ_a − λ_c}).

    Two equal steps in λ have more than ½; the step to σ = 0 has 1.

    >>> from dlib import CLEAN, cosine
    >>> shares([*cosine().levels([1.0, 0.5]), CLEAN])
    [1.0]
    """
    _check_walk("shares", levels)
    return [
        math.expm1(b.lam - c.lam) / math.expm1(a.lam - c.lam)
        for a, b, c in zip(levels[:-2:2], levels[1:-1:2], levels[2::2])
    ]


def halved(teacher: Denoiser, levels: Sequence[NoiseLevel]) -> Denoiser:
    """The student that `progressive` cannot improve: its x₀ is x̃ at each of `levels[:-1:2]`.

    Its N DDIM steps on `levels[::2]` are the teacher's 2N, whatever the data. It asks the
    teacher twice a call. ValueError at any other level.
    """
    _check_walk("halved", levels)
    times = torch.tensor([level.t for level in levels[:-1:2]], dtype=torch.float64)
    share = shares(levels)

    def net(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        found = torch.empty_like(x)
        for time in t.unique().tolist():
            # float32 times are that far off
            (places,) = torch.nonzero((times - time).abs() < 1e-6, as_tuple=True)
            require(
                len(places) == 1,
                f"halved: asked at t = {time:g}, wanted one of {times.tolist()}: sample it on "
                "levels[::2]",
            )
            i, rows = int(places), t == time
            told = None if cond is None else cond[rows]
            a, b = levels[2 * i], levels[2 * i + 1]
            found[rows] = two_step_target(teacher, x[rows], a, b, share[i], told)
        return found

    return Denoiser(net, teacher.schedule, "x0")


def knowledge(student: Denoiser, batch: Batch, draw: Draw, *, start: float = 1.0) -> Loss:
    """E ‖x₀_θ(z) − Φ(z)‖² on pairs of a teacher's noise z and the sample Φ(z) that its walk
    ends in (Luhman & Luhman 2021, eq. 8, without its ½).

    batch: noise (B, *shape), standard normal, and x0, the sample that a walk without noise
    makes of it. (If the walk drew noise of its own, the student learns the mean of what may
    follow from z.) start: the time at which the student sees √(α² + σ²)·noise, which is the
    noise itself on variance preserving schedules. A mean over a sample's values and over the
    batch. Draws: none.

    >>> from dlib import Mixture, exact, vp
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), vp())
    >>> pairs = Batch(torch.zeros(3, 2), noise=torch.zeros(3, 2))
    >>> knowledge(model, pairs, Draw(0)).value
    tensor(0.)
    """
    shape = None if batch.noise is None else tuple(batch.noise.shape)
    require(
        shape == tuple(batch.x0.shape),
        f"knowledge: noise has shape {shape}, x0 {tuple(batch.x0.shape)}: it learns from pairs, "
        "Batch(x0, cond, noise=…) with the noise from which each x0 was made",
    )
    level = student.schedule.at(start)
    require(
        level.sigma > 0,
        f"knowledge: no noise at start = {start:g}: start where the teacher's walk does, at 1",
    )
    _determines(student, level, "knowledge")
    z = math.hypot(level.alpha, level.sigma) * batch.noise
    each = squared(student(z, level, batch.cond).x0, batch.x0)
    return Loss(each.mean(), {"loss": each.detach().mean()})


def _determines(model: Denoiser, level: NoiseLevel, verb: str) -> None:
    """ValueError where a network says nothing about x₀: it predicts noise, and α = 0."""
    require(
        level.alpha > 0 or model.predicts not in ("eps", "score"),
        f"{verb}: a network that predicts {model.predicts} says nothing about x₀ at t = "
        f"{level.t:g}, where alpha = 0: start at t_max=0.999, or predict v",
    )


def _check_walk(verb: str, levels: Sequence[NoiseLevel]) -> None:
    require(
        len(levels) >= 3 and len(levels) % 2 == 1,
        f"{verb}: {len(levels)} levels, wanted 2N + 1, those of the teacher's 2N steps: "
        "pass levels(schedule, 2 * steps, end='clean')",
    )
    require(
        all(b.lam > a.lam for a, b in zip(levels, levels[1:])),
        f"{verb}: the levels must go from noise to data: pass levels(schedule, 2 * steps, "
        "end='clean')",
    )


def _check(student: Denoiser, teacher: Denoiser, batch: Batch, levels) -> None:
    _check_walk("progressive", levels)
    one_schedule("progressive", student, teacher)
    for model in (student, teacher):
        _determines(model, levels[0], "progressive")
    shape = None if batch.noise is None else tuple(batch.noise.shape)
    require(
        shape in (None, tuple(batch.x0.shape)),
        f"progressive: noise has shape {shape}, x0 {tuple(batch.x0.shape)}: one ε for each x0",
    )
