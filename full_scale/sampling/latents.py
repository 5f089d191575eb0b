"""From conditions to latents, a batch of pictures at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlib import Denoiser, Draw, NoiseLevel, sample
from dlib.solvers import Solver, State
from full_scale.data.draws import Draws


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
