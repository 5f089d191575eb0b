"""Score distillation as recipes: one-step students, from prompts or labels alone.

The batch's x0 gives no more than the shape of a sample: no picture is looked at. The student
makes its samples once a step and puts them into `batch.memo["sample"]`, where the fake score's
phases find them. In full scale the fake is a LoRA twin of the teacher, so G is exactly zero
until the fake has taken its first step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser, guided
from dlib.losses import (
    Batch,
    Loss,
    drop,
    fake_score,
    lognormal_times,
    score_distillation,
    uniform_times,
    vsd,
    weights,
)
from dlib.losses.diffusion import Times
from dlib.recipes.base import STUDENT, TEACHER, Part, Phase, Recipe, Roles, Sampler
from dlib.rollout import generate
from dlib.schedule import NoiseLevel, NoiseSchedule

DAMPED = weights.Weight("eps", lambda level, schedule: level.alpha**2)
"""α²‖ε − ε_φ‖², the weight of SwiftBrush's released code (its paper has ‖ε − ε_φ‖²)."""

Value = Callable[[Roles, Batch, Draw], Loss]
Sample = Callable[[Roles, Batch, Draw], Tensor]


def swiftbrush(
    schedule: NoiseSchedule,
    null: Any,
    *,
    omega: float = 3.5,
    omega_fake: float = 3.5,
    t_min: float = 0.02,
    t_max: float = 0.98,
    dropout: float = 0.1,
    fake_steps: int = 1,
    start: float = 1.0,
) -> Recipe:
    """SwiftBrush (Nguyen & Tran 2024): VSD with w = σ² for a one-step student. Roles: student,
    teacher, fake.

    The student answers noise at t = `start` with x₀ and is updated first; then the fake takes
    `fake_steps` steps on the same samples, at any t, conditions being replaced by `null` with
    probability `dropout`. Both scores are guided: the released code's scale is 4.5 = 1 + ω.
    Wang et al. (2023) guide the teacher alone: omega_fake = 0. Draws a step: the noise,
    `vsd`'s; then for each step of the fake: `drop`'s, `denoising`'s.
    """
    times = _inner(schedule, t_min, t_max)

    def student(roles: Roles, batch: Batch, draw: Draw) -> Loss:
        real, fake = (
            _guided(roles["teacher"], omega, null),
            _guided(roles["fake"], omega_fake, null),
        )
        return vsd(real, fake, batch, draw, score_distillation.variance, times)

    def fake(roles: Roles, batch: Batch, draw: Draw) -> Loss:
        known = Batch(batch.x0, drop(batch.cond, null, dropout, draw))
        return fake_score(
            roles["fake"], known, draw, DAMPED, uniform_times(max(schedule.t_min, 1e-3))
        )

    sample, shown = _unit_noise(schedule.at(start)), _one_call(schedule, start)
    return _alternate(sample, student, fake, fake_steps, shown)


def diff_instruct(
    schedule: NoiseSchedule,
    null: Any,
    *,
    omega: float = 0.0,
    mean: float = -1.2,
    std: float = 1.2,
    sigma_data: float = 0.5,
    sigma_start: float = 1.0,
    fake_steps: int = 1,
) -> Recipe:
    """Diff-Instruct (Luo et al. 2023c) in EDM's terms, κ = σ/α. Roles: student, teacher, fake.

    G = x₀_fake − x₀_real at log κ ~ N(mean, std²), the fake with EDM's weight at the same
    levels. The student answers noise of κ = `sigma_start` (the released CIFAR-10 run has 1).
    Only the teacher is guided, if at all. Draws a step: the noise, `vsd`'s; then for each step
    of the fake: `denoising`'s.
    """
    times = lognormal_times(schedule, mean, std)

    def student(roles: Roles, batch: Batch, draw: Draw) -> Loss:
        return vsd(
            _guided(roles["teacher"], omega, null),
            roles["fake"],
            batch,
            draw,
            score_distillation.on_x0,
            times,
        )

    def fake(roles: Roles, batch: Batch, draw: Draw) -> Loss:
        return fake_score(roles["fake"], batch, draw, weights.edm(sigma_data), times)

    level = schedule.at_lam(-math.log(sigma_start))
    sample, shown = _one_step(level, level.sigma), _one_call(schedule, level.t)
    return _alternate(sample, student, fake, fake_steps, shown)


def sds(
    schedule: NoiseSchedule,
    null: Any,
    *,
    omega: float = 100.0,
    t_min: float = 0.02,
    t_max: float = 0.98,
    start: float = 1.0,
) -> Recipe:
    """Score distillation sampling, DreamFusion's ω = 100 and w = σ² (Poole et al. 2023).
    Roles: student, teacher.

    The student collapses; the strong guidance is what makes the point that it collapses to a
    good one. Draws a step: the noise, then those of `dlib.losses.sds`.
    """
    times = _inner(schedule, t_min, t_max)

    def student(roles: Roles, batch: Batch, draw: Draw) -> Loss:
        return score_distillation.sds(
            _guided(roles["teacher"], omega, null),
            batch,
            draw,
            score_distillation.variance,
            times,
        )

    phase = Phase("student", _on_samples(_unit_noise(schedule.at(start)), student))
    parts = {"student": STUDENT, "teacher": TEACHER}
    return Recipe((phase,), parts, _one_call(schedule, start), reads="texts")


def _inner(schedule: NoiseSchedule, t_min: float, t_max: float) -> Times:
    return uniform_times(max(schedule.t_min, t_min), t_max)


def _guided(model: Denoiser, omega: float, null: Any) -> Denoiser:
    """ω = 0 is the network itself: one evaluation a sample, and conditions may be absent."""
    return guided(model, omega, null) if omega else model


def _one_call(schedule: NoiseSchedule, start: float) -> Sampler:
    """The student's x₀ for noise at t = start."""
    return Sampler("ddim", "sd_trailing", 1, times=(start, schedule.t_min))


def _alternate(
    sample: Sample, student: Value, fake: Value, fake_steps: int, shown: Sampler
) -> Recipe:
    """The student's phase, then `fake_steps` of the fake's, all on the same samples."""
    require(
        fake_steps >= 1,
        f"fake_steps = {fake_steps}, wanted at least 1: without them the fake stays the "
        "teacher, and G zero",
    )
    phases = (
        Phase("student", _on_samples(sample, student)),
        *(Phase("fake", _on_memo(sample, fake)),) * fake_steps,
    )
    parts = {"student": STUDENT, "teacher": TEACHER, "fake": Part("copy")}
    return Recipe(phases, parts, shown, reads="texts")


def _on_samples(sample: Sample, loss: Value) -> Value:
    """`loss` on new samples of the student, which are left in the memo."""

    def value(roles: Roles, batch: Batch, draw: Draw) -> Loss:
        x = sample(roles, batch, draw)
        batch.memo["sample"] = x.detach()
        return _per_value(loss(roles, Batch(x, batch.cond), draw), x)

    return value


def _on_memo(sample: Sample, loss: Value) -> Value:
    """`loss` on the samples in the memo; on new ones in a step without a student's phase
    (`every`, or a warm-up).
    """

    def value(roles: Roles, batch: Batch, draw: Draw) -> Loss:
        if "sample" not in batch.memo:
            with torch.no_grad():
                batch.memo["sample"] = sample(roles, batch, draw)
        x = batch.memo["sample"]
        return _per_value(loss(roles, Batch(x, batch.cond), draw), x)

    return value


def _per_value(found: Loss, x: Tensor) -> Loss:
    """A mean over a sample's values instead of their sum, as in the released codes: clipping a
    gradient's norm depends on it.
    """
    return found._replace(value=found.value / x[0].numel())


def _one_step(level: NoiseLevel, size: float) -> Sample:
    """The student's x₀ for noise of standard deviation `size` at `level`; float32 at least."""

    def sample(roles: Roles, batch: Batch, draw: Draw) -> Tensor:
        like = batch.x0.to(torch.promote_types(batch.x0.dtype, torch.float32))
        return generate(roles["student"], size * draw.normal(like), [level], batch.cond)

    return sample


def _unit_noise(level: NoiseLevel) -> Sample:
    """Noise as large as x_t is for data of unit variance: √(α² + σ²), which is 1 on variance
    preserving schedules.
    """
    return _one_step(level, math.hypot(level.alpha, level.sigma))
