"""Where a sampler stops on its way from noise to data."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral

import torch
from torch import Tensor

from dlib._util import require
from dlib.schedule import CLEAN, NoiseLevel, NoiseSchedule


def levels(
    schedule: NoiseSchedule,
    n: int,
    spacing: str = "lam",
    end: str = "grid",
    t_max: float = 1.0,
    t_min: float | None = None,
) -> list[NoiseLevel]:
    """The n + 1 noise levels of a walk of n steps, noise first: what `sample` is given.

    They are those of `grid`, which says what spacing, t_max and t_min are. Times of your own
    become levels by `schedule.levels(times)`.

    end: `grid`, the walk ends at the grid's last level, where some noise may be left; `clean`,
    that level is replaced by `CLEAN`, σ = 0, which is reached by denoising. Both cost n steps.
    Where the grid's last step is long in λ, as in Stable Diffusion's time grids with few
    steps, `clean` takes it at first order, and a multistep solver does not overshoot there.
    diffusers calls the two `final_sigmas_type` `sigma_min` and `zero`.

    >>> from dlib.schedule import vp
    >>> [round(level.t, 3) for level in levels(vp(), 2, "time", t_min=0.5)]
    [1.0, 0.75, 0.5]
    >>> levels(vp(), 2, end="clean")[-1] is CLEAN
    True
    """
    require(
        end in ("grid", "clean"),
        f"levels: end = {end!r}, wanted 'grid' (the grid's last level) or 'clean' (σ = 0)",
    )
    stops = schedule.levels(grid(schedule, n, spacing, t_max, t_min))
    return [*stops[:-1], CLEAN] if end == "clean" else stops


def grid(
    schedule: NoiseSchedule,
    n: int,
    spacing: str = "lam",
    t_max: float = 1.0,
    t_min: float | None = None,
) -> Tensor:
    """n + 1 times from `t_max` down to `t_min`, float64, on the CPU: n steps.

    spacing: `lam` uniform in half-log-SNR · `time` uniform in t · `karras` uniform in κ^{1/7}
    (Karras et al. 2022, eq. 5) · `arctan` uniform in arctan √(κ/½), which is finest where
    modes are decided · `sd3` Stable Diffusion 3's shifted times, for `flow` · `sd_trailing`,
    `sd_leading` the index grids of Stable Diffusion's schedulers, `lcm` that of latent
    consistency models, `pcm` the edges of n phases. These four count a `discrete` schedule's
    trained indices and end at index 0; a schedule that is a formula is read as the 1000
    indices that the methods' papers count in, index n at t = (n+1)/1000, as Stable Diffusion
    3's flow is; they take no t_max and t_min. t_min defaults to the schedule's clean end, or
    1e-3 where σ would be 0 there. `levels` turns the times into noise levels.

    >>> from dlib.schedule import vp
    >>> grid(vp(), 2, "time", t_min=0.5).tolist()
    [1.0, 0.75, 0.5]
    """
    require(
        spacing in SPACINGS,
        f"grid: unknown spacing {spacing!r}; choose one of {', '.join(SPACINGS)}",
    )
    require(
        isinstance(n, Integral) and n >= 1, f"grid: n = {n!r} steps, wanted a whole number ≥ 1"
    )
    schedule.at(t_max)  # names a time outside [0, 1]
    if spacing in INDEXED:
        require(
            t_max == 1.0 and t_min is None,
            f"grid: {spacing} has fixed ends; leave t_max and t_min out, or use 'time'",
        )
    if t_min is None:
        t_min = (
            schedule.t_min if schedule.at(schedule.t_min).sigma > 0 else max(schedule.t_min, 1e-3)
        )
    require(
        t_max > t_min,
        f"grid: t_max = {t_max:g} is not above t_min = {t_min:g}; sampling goes from noise (1) "
        "to data (0)",
    )
    times = SPACINGS[spacing](schedule, n, t_max, t_min)
    # these come back through λ: pin the ends that were asked for
    if spacing in ("lam", "karras", "arctan"):
        times[0], times[-1] = t_max, t_min
    return times


def _uniform(start: float, stop: float, n: int) -> Tensor:
    return torch.linspace(start, stop, n + 1, dtype=torch.float64)


def _time(schedule: NoiseSchedule, n: int, t_max: float, t_min: float) -> Tensor:
    return _uniform(t_max, t_min, n)


def _ends(schedule: NoiseSchedule, t_max: float, t_min: float) -> tuple[float, float]:
    noisy, clean = schedule.at(t_max), schedule.at(t_min)
    require(
        noisy.alpha > 0,
        f"grid: λ = −∞ at t_max = {t_max:g} on {schedule.name} (α = 0): use spacing='time' or "
        "t_max=0.999",
    )
    require(
        clean.sigma > 0,
        f"grid: λ = ∞ at t_min = {t_min:g} on {schedule.name} (σ = 0): use t_min=1e-3, and "
        "levels(…, end='clean') for a last step to σ = 0",
    )
    return noisy.lam, clean.lam


def _lam(schedule: NoiseSchedule, n: int, t_max: float, t_min: float) -> Tensor:
    return schedule.time(_uniform(*_ends(schedule, t_max, t_min), n))


def _karras(
    schedule: NoiseSchedule, n: int, t_max: float, t_min: float, rho: float = 7.0
) -> Tensor:
    high, low = (
        torch.tensor(-lam / rho, dtype=torch.float64).exp().item()
        for lam in _ends(schedule, t_max, t_min)
    )
    return schedule.time(-rho * _uniform(high, low, n).log())  # κ = e^{−λ}


def _arctan(
    schedule: NoiseSchedule, n: int, t_max: float, t_min: float, middle: float = 0.5
) -> Tensor:
    """As κ = middle·tan²θ: steps are finest around κ = middle, the spread of data in EDM's
    units, where modes are decided.
    """
    high, low = (
        math.atan((math.exp(-lam) / middle) ** 0.5) for lam in _ends(schedule, t_max, t_min)
    )
    return schedule.time(-(middle * _uniform(high, low, n).tan() ** 2).log())


def _indices(schedule: NoiseSchedule, n: int, index: Callable[[Tensor, int], Tensor]) -> Tensor:
    total = schedule.ladder or INDICES
    places = torch.cat(
        [index(torch.arange(n, dtype=torch.float64), total), torch.zeros(1, dtype=torch.float64)]
    )
    require(
        places[0] < total and bool((places.diff() < 0).all()),
        f"grid: {n} steps do not fit on a ladder of {total} indices without visiting one "
        f"twice: use n ≤ {total // 2}, or spacing='lam'",
    )
    return (places + 1) / total


def _sd_trailing(schedule: NoiseSchedule, n: int, t_max: float, t_min: float) -> Tensor:
    """Index round(N − iN/n) − 1: visits the noisiest level (4 steps: 999, 749, 499, 249, then
    0).
    """
    return _indices(schedule, n, lambda i, total: (total - i * total / n).round() - 1)


def _sd_leading(schedule: NoiseSchedule, n: int, t_max: float, t_min: float) -> Tensor:
    """Index (n−1−i)·⌊N/n⌋ + 1: never visits the noisiest level (4 steps: 751, 501, 251, 1,
    then 0).
    """
    return _indices(schedule, n, lambda i, total: (n - 1 - i) * (total // n) + 1)


def _lcm(schedule: NoiseSchedule, n: int, t_max: float, t_min: float) -> Tensor:
    """n of the 50 trained indices 19, 39 … 999, evenly from the noisiest (4 steps: 999, 759,
    499, 259, then 0; Luo et al. 2023a).
    """
    require(
        n <= 50,
        f"grid: {n} steps, but latent consistency models are trained on 50 indices: use n ≤ 50",
    )
    total = schedule.ladder or INDICES
    require(
        total >= 50,
        f"grid: lcm wants a ladder of at least 50 indices, not {total}: use sd_trailing",
    )
    return _indices(schedule, n, lambda i, total: total // 50 * (50 - (50 * i / n).floor()) - 1)


def _pcm(schedule: NoiseSchedule, n: int, t_max: float, t_min: float) -> Tensor:
    """The noisiest index and the clean edges of n phases of the 50 trained ones (4: 999, 739,
    499, 239, 0; Wang et al. 2024b).
    """
    times = grid(schedule, 50, "sd_trailing")
    return torch.cat([times[:1], pcm_edges(times, n)])


def _sd3(schedule: NoiseSchedule, n: int, t_max: float, t_min: float) -> Tensor:
    """t = 3s/(1 + 2s), s uniform from 1 to 0.003 in n − 1 steps, then 1e-3: Stable Diffusion
    3's shifted times (Esser et al. 2024, eq. 23), as diffusers' scheduler counts them.
    """
    shifted = lambda s: 3 * s / (1 + 2 * s)
    low = shifted(torch.tensor(1e-3, dtype=torch.float64))
    s = torch.linspace(1, float(low), n, dtype=torch.float64)
    return torch.cat([shifted(s), torch.tensor([1e-3], dtype=torch.float64)])


SPACINGS = {
    "lam": _lam,
    "time": _time,
    "karras": _karras,
    "arctan": _arctan,
    "sd_trailing": _sd_trailing,
    "sd_leading": _sd_leading,
    "lcm": _lcm,
    "pcm": _pcm,
    "sd3": _sd3,
}
INDEXED = ("sd_trailing", "sd_leading", "lcm", "pcm", "sd3")
"""The spacings that count indices, and have ends of their own."""
INDICES = 1000
"""How many indices a schedule has that is a formula and not a trained ladder."""


def pcm_edges(times: Tensor, phases: int) -> Tensor:
    """The clean edges s_{M−1} > … > s_0 of `phases` phases, (M,), a subset of `times`, whose
    last is the last of `times`.

    times: (N+1,) descending, as `grid` returns; edge m is ⌊mN/M⌋ steps above the clean end
    (Wang et al. 2024b, phased consistency models, as released). Sample with `ddim` on
    `[times[0], *pcm_edges(times, phases)]`.

    >>> from dlib.schedule import discrete, scaled_linear
    >>> times = grid(discrete(scaled_linear()), 50, "sd_trailing")
    >>> (pcm_edges(times, 4) * 1000 - 1).round().tolist()
    [739.0, 499.0, 239.0, 0.0]
    """
    steps = len(times) - 1
    require(
        isinstance(phases, Integral) and 1 <= phases <= steps,
        f"pcm_edges: {phases} phases of a grid with {steps} steps: wanted a whole number, "
        f"1 … {steps}",
    )
    return times[[steps - m * steps // phases for m in reversed(range(phases))]]
