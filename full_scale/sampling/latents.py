"""From conditions to latents: the levels of a request, and a batch of pictures at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlib import CLEAN, Denoiser, Draw, NoiseLevel, NoiseSchedule, grid, sample
from dlib.solvers import Solver, State
from full_scale.data.draws import Draws


def stops(schedule: NoiseSchedule, steps: int, spacing: str, end: str) -> list[NoiseLevel]:
    """The `steps` + 1 levels from noise to picture. end `clean` replaces the grid's last level
    by σ = 0.

    Both ends cost the same. `clean` leaves no noise in the picture, and where the grid's last
    step is long in λ (SD's time grids with few steps) it takes it at first order, where
    multistep extrapolation would overshoot. diffusers' DPM-Solver calls the two
    `final_sigmas_type` `zero` and `sigma_min`.
    """
    levels = schedule.levels(grid(schedule, steps, spacing))
    return [*levels[:-1], CLEAN] if end == "clean" else levels


def latents(
    model: Denoiser,
    shape: Sequence[int],
    levels: Sequence[NoiseLevel],
    solver: Solver,
    cond: dict[str, Tensor],
    seeds: Sequence[int],
    batch: int,
    each: Callable[[State], None] | None = None,
    find: Callable[..., Tensor] = sample,
) -> Tensor:
    """Float32 latents (n, *shape) for n conditions and n seeds, `batch` at a time, on the
    conditions' device.

    find: what is called with (model, x, levels, solver, cond, draws, each) for each batch:
    `sample`, or a parallel sampler.
    """
    parts = []
    for i in range(0, len(seeds), batch):
        draws = Draws(Draw(seed) for seed in seeds[i : i + batch])
        part = {name: rows[i : i + batch] for name, rows in cond.items()}
        device = next(iter(part.values())).device
        x = draws.normal(torch.empty(len(draws.draws), *shape, device=device))
        parts.append(find(model, x, levels, solver, part, draws, each))
    return torch.cat(parts)
