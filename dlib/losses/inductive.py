"""Inductive moment matching: the student's points at s must have the same *law* whether they
come from t or from r (Zhou et al. 2025).

Consistency training asks it of each point; this loss asks it of groups of points. So it
identifies laws and not maps: whatever rearranges the points of each level alike, is as good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw, per_sample, require, sent
from dlib.denoiser import Denoiser
from dlib.losses.bootstrapping import StepWeight, both_ends, levels_at, one_each, own, uniform
from dlib.losses.diffusion import Batch, Loss
from dlib.schedule import NoiseLevel, NoiseSchedule

Kernel = Callable[[Tensor, int], Tensor]
"""(distances ‖a − b‖ of any shape, number of values a sample) ↦ k, of that shape."""
Triples = Callable[[Draw, int], tuple[Tensor, Tensor, Tensor]]
"""(draws, n) ↦ the times t > r ≥ s of n groups, (n,) float64 each, on the CPU."""


def laplace(width: float = 1.0) -> Kernel:
    """k = exp(−‖a − b‖/(width · D)) for D values a sample (Zhou et al. 2025).

    The default width is a plain 1, which nobody recommends: the book's students have it on
    points, and 4 on pictures (`toy_data.student_settings`).

    >>> laplace(0.5)(torch.tensor([0.0, 2.0]), 4)
    tensor([1.0000, 0.3679])
    """
    require(width > 0, f"laplace: width = {width:g}, wanted more than 0")
    return lambda distance, values: (-distance / (width * values)).exp()


def minus_squared(distance: Tensor, values: int) -> Tensor:
    """k = −‖a − b‖²: it sees means alone. With groups of one it is consistency training."""
    return -distance.square()


def mmd2(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """MMD² of each group: the mean of k(a, a') + k(b, b') − 2 k(a, b) over all M² pairs, (G,),
    for points (G, M, D). A point is paired with itself too, so the value is biased upwards.

    >>> a, b = torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
    >>> mmd2(a, b, minus_squared)  # 2‖a − b‖²
    tensor([6.])
    """
    require(
        a.ndim == b.ndim == 3 and a.shape[::2] == b.shape[::2],
        f"mmd2: points have shapes {tuple(a.shape)} and {tuple(b.shape)}, wanted (G, M, D) "
        "twice: G groups of M samples of D values",
    )
    k = lambda x, y: kernel(_distances(x, y), x.shape[-1]).flatten(1).mean(1)
    return k(a, a) + k(b, b) - 2 * k(a, b)


def jump_scale(start: NoiseLevel, end: NoiseLevel) -> Tensor:
    """|σ_t α_s − α_t σ_s|: how far the jump t → s moves if a network that predicts v says 1
    more, c_out in the paper. It shrinks with the jump, as the distances of its ends do.

    >>> from dlib import CLEAN, vp
    >>> level = vp().at_lam(0.0)  # α = σ = √½
    >>> round(float(jump_scale(level, CLEAN)), 4)
    0.7071
    """
    return abs(start.sigma * end.alpha - start.alpha * end.sigma)


def imm_triples(
    schedule: NoiseSchedule, *, halvings: int = 12, t_max: float = 0.994, t_min: float = 1e-3
) -> Triples:
    """t uniform on [t_min, t_max), s uniform below it, and r where κ = σ/α is lower than at t
    by a 2^halvings-th part of its range, but not below s.

    As the paper describes it (Zhou et al. 2025); its training code is not public. Draws: t,
    then s.
    """
    require(
        0 <= halvings <= 45,
        f"imm_triples: halvings = {halvings:g}, wanted 0 to 45: after more, r can be t",
    )
    require(
        t_min < t_max,
        f"imm_triples: t_min = {t_min:g} is not below t_max = {t_max:g}: t = 1 is noise",
    )
    require(
        schedule.at(t_max).alpha > 0 < schedule.at(t_min).sigma,
        f"imm_triples: κ is 0 or infinite at t_min = {t_min:g} or t_max = {t_max:g} on "
        f"{schedule.name}: take 1e-3 and 0.994",
    )
    low, high = (level.sigma / level.alpha for level in schedule.levels([t_min, t_max]))

    def triples(draw: Draw, n: int) -> tuple[Tensor, Tensor, Tensor]:
        t = t_min + (t_max - t_min) * draw.uniform(n).double().clamp(min=1e-6)
        s = t_min + (t - t_min) * draw.uniform(n).double()
        level = schedule.at(t)
        kappa = level.sigma / level.alpha - (high - low) / 2**halvings
        below = schedule.time(-kappa.clamp(min=low).log()).clamp(min=t_min)
        return t, torch.maximum(below, s), s

    return triples


def moment_matching(
    student: Denoiser,
    target: Denoiser,
    batch: Batch,
    draw: Draw,
    *,
    triples: Triples,
    group: int = 4,
    kernel: Kernel = laplace(),
    weight: StepWeight = uniform,
    scale: StepWeight = uniform,
    embed: Callable[[Any, Tensor], Any] | None = None,
) -> Loss:
    """E w(t, r) MMD²(f_{t→s}(x_t), sg f⁻_{r→s}(x_r)) over groups of M samples that share t, r
    and s (Zhou et al. 2025, eq. 11).

    f_{t→s} is the student's jump α_s x₀ + σ_s ε, and x_r is x_t's DDIM step with the batch's
    own x₀. student, target: denoisers; target is the student itself and gets no gradient.
    triples: draws t, r and s of each group, `imm_triples`; a time below the schedule's `t_min`
    is the clean data. group: M; the rows of a group stand together. weight: (level t, level r)
    ↦ w. scale: (level t, level s) ↦ the unit in which the kernel measures distances;
    `jump_scale` in the paper, without which short jumps are too close together for a kernel
    that suits long ones. embed: (cond, s (B,)) ↦ the condition of a network that is told where
    it jumps to. Draws: those of `triples`, then the noise (unless the batch brings its own).

    The default group is the paper's 4, the kernel's width a plain 1. The book's students have
    groups of 8 on GMM5 and a width of 4 on pictures (`python -m bench students`). On digits
    that is the best method without a teacher: a Fréchet distance of 2.5 ± 0.2 times the floor,
    CT's is 2.9 ± 0.2. On shapes its 3.3 is better than iCT's 3.6 ± 0.3, and behind CT's 2.7
    and ECT's 2.4. On GMM5 its distance to the flow's ends is 4.5 ± 0.5 times the floor,
    between CT's 3.4 and ECT's 7.5.

    >>> from dlib import Mixture, exact, vp
    >>> model = exact(Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1)), vp())
    >>> batch, triples = Batch(torch.ones(8, 2)), imm_triples(vp())
    >>> moment_matching(model, model, batch, Draw(0), triples=triples).value.shape
    torch.Size([])
    """
    n = len(batch.x0)
    require(
        group % 1 == 0, f"moment_matching: group = {group:g}, wanted a whole number of samples"
    )
    require(
        group >= 1 and n % group == 0,
        f"moment_matching: {n} samples do not make groups of {group}: choose a batch that "
        "`group` divides",
    )
    t, r, s = (time.double().repeat_interleave(group) for time in triples(draw, n // group))
    require(
        len(t) == n and bool((s <= r).all()),
        f"moment_matching: triples drew times of shape {tuple(t.shape)} for {n} samples, "
        "or an s above its r: t > r ≥ s, one of each for a group",
    )
    cond = None if embed is None else embed(batch.cond, sent(s, batch.x0))
    both = both_ends(student, target, batch, draw, t, r, s, own, cond)
    goal = levels_at(student.schedule, s, batch.x0)
    unit = one_each("moment_matching: the scale", scale, both.start, goal)
    weighed = one_each("moment_matching: the weight", weight, both.start, both.end)
    ends = (
        (x / per_sample(unit, x)).reshape(n // group, group, -1)
        for x in (both.student, both.target)
    )
    each = weighed.view(-1, group)[:, 0] * mmd2(*ends, kernel)
    return Loss(each.mean(), {"loss": each.detach().mean()})


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖ of all pairs in each group, (G, M, M); where it is 0 its gradient is 0."""
    return torch.linalg.vector_norm(a[:, :, None] - b[:, None], dim=-1)
