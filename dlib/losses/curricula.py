"""Which two times a consistency step joins, and how that changes as training goes on.

Long steps are biased, short ones noisy: so every recipe begins with long ones and shortens
them. The ladders have N(k) points at step k (Song et al. 2023; Song & Dhariwal 2024); easy
consistency tuning moves r towards t, stage by stage (Geng et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.losses.diffusion import check_law
from dlib.schedule import NoiseSchedule

TwoTimes = Callable[[Draw, int], tuple[Tensor, Tensor]]
"""(draws, n) ↦ the times t and r < t of n samples, (n,) float64 each, on the CPU. An r below
the schedule's `t_min` is the clean data, σ = 0.
"""


def ladder_times(times: Tensor, law: Tensor | None = None) -> TwoTimes:
    """Neighbours on a ladder of times: (t_i, t_{i+1}) of a descending grid, i uniform on
    0 … N−1 or drawn by the probabilities `law`.

    times: (N+1,) as `grid` returns. law: (N,), as `ict_law` gives. Draws: the place i.

    >>> t, r = ladder_times(torch.tensor([1.0, 0.5, 0.0]))(Draw(0), 4)
    >>> (t - r).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    require(
        times.ndim == 1 and len(times) > 1 and bool((times.diff() < 0).all()),
        f"ladder_times: times of shape {tuple(times.shape)} must fall from noise to data: pass "
        "grid(schedule, n)",
    )
    require(
        law is None or law.shape == times[1:].shape,
        f"ladder_times: {len(times) - 1} steps, but probabilities of shape "
        f"{None if law is None else tuple(law.shape)}: one for each step",
    )
    require(
        law is None or bool((law >= 0).all() & law.isfinite().all() & (law.sum() > 0)),
        f"ladder_times: law = {None if law is None else _few(law)}, wanted probabilities, or "
        "weights from 0 on that are not all 0: ict_law(schedule, times)",
    )

    def drawn(draw: Draw, n: int) -> tuple[Tensor, Tensor]:
        place = draw.integers(len(times) - 1, n) if law is None else draw.choice(law, n)
        return times[place], times[place + 1]

    return drawn


def ict_law(
    schedule: NoiseSchedule, times: Tensor, mean: float = -1.1, std: float = 2.0
) -> Tensor:
    """The probability of each step of a ladder, (N,) float64, if ln κ is normal and cut to the
    ladder (Song & Dhariwal 2024, eq. 10).
    """
    check_law("ict_law", mean, std)
    require(
        times.ndim == 1 and len(times) > 1 and bool((times.diff() < 0).all()),
        f"ict_law: times of shape {tuple(times.shape)} must fall from noise to data: pass "
        "grid(schedule, n)",
    )
    log_kappa = -schedule.at(times.double()).lam
    below = torch.special.ndtr((log_kappa - mean) / std)
    return -below.diff() / (below[0] - below[-1])


def ect_times(
    schedule: NoiseSchedule,
    *,
    stage: float,
    q: float = 2.0,
    k: float = 8.0,
    b: float = 1.0,
    mean: float = -1.1,
    std: float = 2.0,
) -> TwoTimes:
    """ln κ_t normal, and κ_r = `ect_end(κ_t)`, in κ = σ/α (Geng et al. 2024, section 4).

    t is kept inside the schedule; r is the clean data where κ_r is below the schedule's own
    least noise. stage: a, any real number from 0 on. Draws: one normal a sample.

    >>> from dlib.schedule import edm
    >>> t, r = ect_times(edm(), stage=0)(Draw(0), 3)
    >>> bool((r < t).all())
    True
    """
    check_law("ect_times", mean, std)
    ect_end(torch.ones(1), stage, q, k, b)  # names what is bad before the first step

    def drawn(draw: Draw, n: int) -> tuple[Tensor, Tensor]:
        level = schedule.at_lam(-(mean + std * draw.normal((n,)).double()))
        kappa = ect_end(level.sigma / level.alpha, stage, q, k, b)
        # a κ below the schedule's least one has a time below t_min: the clean data
        return level.t, torch.where(kappa > 0, schedule.time(-kappa.log()), -1.0)

    return drawn


def ect_end(
    kappa: Tensor, stage: float, q: float = 2.0, k: float = 8.0, b: float = 1.0
) -> Tensor:
    """κ_r = max(0, κ_t (1 − q^{−(a+1)} (1 + k/(1 + e^{bκ_t})))) at stage a (Geng et al. 2024,
    as released).

    Each stage divides the step by q; a step that would pass 0 ends at the clean data.

    >>> [round(ect_end(torch.tensor(2.0), stage).item(), 2) for stage in (0, 1, 3, 7)]
    [0.05, 1.02, 1.76, 1.98]
    """
    require(stage >= 0, f"ect_end: stage = {stage:g}, wanted a number from 0 on")
    require(q > 1, f"ect_end: q = {q:g}, wanted more than 1: each stage divides the step by q")
    require(k >= 0 and b >= 0, f"ect_end: k = {k:g} and b = {b:g}, wanted numbers from 0 on")
    share = q ** -(stage + 1) * (1 + k * torch.sigmoid(-b * kappa))
    return (kappa * (1 - share)).clamp(min=0)


def ct_points(step: int, steps: int, s_0: int = 2, s_1: int = 150) -> int:
    """N(k) of consistency training, the points of its ladder at `step` k of `steps` K:
    ⌈√(k/K ((s₁+1)² − s₀²) + s₀²) − 1⌉ + 1 (Song et al. 2023, appendix C), in whole numbers.

    >>> [ct_points(k, 800, s_1=200) for k in (0, 100, 200, 400, 800)]
    [2, 72, 101, 143, 201]
    """
    _check_steps("ct_points", step, steps, s_0, s_1)
    square = -(-(step * ((s_1 + 1) ** 2 - s_0**2) + s_0**2 * steps) // steps)
    return math.isqrt(square - 1) + 1


def ct_decay(points: int, s_0: int = 2, mu_0: float = 0.95) -> float:
    """μ(k) = exp(s₀ ln μ₀ / N(k)), the decay of consistency training's target at N points
    (Song et al. 2023, appendix C). The released code divides by N − 1.

    >>> ct_decay(2)
    0.95
    """
    require(points >= 2, f"ct_decay: {points} points, wanted at least 2: one step")
    require(
        2 <= s_0 <= points,
        f"ct_decay: s_0 = {s_0}, wanted the ladder's first number of points, 2 … {points}",
    )
    require(0 < mu_0 < 1, f"ct_decay: mu_0 = {mu_0:g} is outside (0, 1)")
    return mu_0 ** (s_0 / points)


def ict_points(step: int, steps: int, s_0: int = 10, s_1: int = 1280) -> int:
    """N(k) of improved consistency training: min(s₀ 2^⌊k/K'⌋, s₁) + 1, with K' =
    ⌊K/(log₂⌊s₁/s₀⌋ + 1)⌋ (Song & Dhariwal 2024, eq. 11).

    >>> [ict_points(k, 800) for k in (0, 99, 100, 400, 800)]
    [11, 11, 21, 161, 1281]
    """
    _check_steps("ict_points", step, steps, s_0, s_1)
    every = max(int(steps / (math.log2(s_1 // s_0) + 1)), 1)
    return min(s_0 * 2 ** (step // every), s_1) + 1


def ect_stage(step: int, every: int) -> int:
    """a, the stage of easy consistency tuning at a step: ⌊k/every⌋ (Geng et al. 2024)."""
    require(
        step >= 0 and every >= 1,
        f"ect_stage: step {step}, a stage every {every}: wanted a step ≥ 0 and a length ≥ 1",
    )
    return step // every


def smooth_stage(step: int, every: int) -> float:
    """a = k/every, a real number: the step shrinks by q within `every` steps as with
    `ect_stage`, but a little at each step (after Wang et al. 2024a, who ask for a gradual
    schedule; the formula is ours).

    >>> smooth_stage(50, every=100)
    0.5
    """
    ect_stage(step, every)  # names what is out of range
    return step / every


def _few(values: Tensor) -> str:
    """The first four of many numbers, for a message."""
    shown = ", ".join(f"{value:g}" for value in values[:4].tolist())
    return f"[{shown}{', …' if len(values) > 4 else ''}]"


def _check_steps(verb: str, step: int, steps: int, s_0: int, s_1: int) -> None:
    require(
        0 <= step <= steps and steps >= 1,
        f"{verb}: step {step} of {steps}: wanted a step from 0 to the number of all",
    )
    require(2 <= s_0 <= s_1, f"{verb}: s_0 = {s_0} and s_1 = {s_1}, wanted 2 ≤ s_0 ≤ s_1")
