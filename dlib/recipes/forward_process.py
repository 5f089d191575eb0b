"""Fine-tuning with a reward on noised samples, without a likelihood: DiffusionNFT.

Roles: `student`, trained; `old`, its moving average, which makes the samples; `reward`, given;
`reference`, the teacher, where a divergence from it is in the loss.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from dlib.grids import levels as levels_between
from dlib.losses import Batch, Loss, weights
from dlib.losses.preference import anchor
from dlib.losses.preference import nft as nft_loss
from dlib.recipes.base import TARGET, Phase, Recipe, many_steps, solver_named
from dlib.recipes.preferences import opposed
from dlib.recipes.rewards import advantages, inner_times, rewarded, roles_of
from dlib.schedule import NoiseSchedule
from dlib.solvers import sample


def nft(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    steps: int = 10,
    solver: str = "dpm_solver_pp_2m",
    beta: float = 1.0,
    group: int = 24,
    epochs: int = 1,
    kl: float = 1e-4,
    spacing: str = "time",
    negative: bool = False,
) -> Recipe:
    """DiffusionNFT (Zheng et al. 2025a): samples of an average of the student, made by any
    solver and without guidance; then a contrast of two denoising losses.

    Roles: student, old (its moving average; the released decay rises to 0.5), reward, and a
    reference if kl > 0. beta: 1 or 0.1; smaller takes longer steps. A sample's share is ½ +
    clamp(advantage, ±5)/10.
    """
    walk, times = levels_between(schedule, steps, spacing, end="clean"), inner_times(schedule)
    taken, parts = solver_named("nft", solver), {**roles_of(kl), "old": TARGET}
    if not kl:  # a call of it for each sample is a tenth of an update: nobody asks for it
        del parts["reference"]

    def make(roles, batch, draw):
        z = draw.normal(batch.x0)
        x0 = sample(roles["old"], z, walk, taken, batch.cond, draw)
        return {"sample": x0, "reward": roles["reward"](x0, batch.cond)}

    def loss(roles, batch, draw):
        mine = Batch(batch.memo["sample"], batch.cond)
        share = 0.5 + batch.memo["advantage"].clamp(-5, 5) / 10
        found = nft_loss(
            roles["student"], roles["old"], mine, share, draw, beta=beta, times=times
        )
        metrics = {**found.metrics, **rewarded(batch)}
        if not kl:
            return Loss(found.value, metrics)
        held = anchor(
            roles["student"],
            roles["reference"],
            mine.x0,
            batch.cond,
            draw=draw,
            weight=weights.velocity,
            times=times,
        )
        return Loss(found.value + kl * held.value, {**metrics, **held.metrics})

    made = Recipe(
        (Phase("student", loss),),
        parts,
        many_steps(schedule),
        reads="texts",
        before=make,
        pool=partial(advantages, group=group),
        epochs=epochs,
        group=group,
    )
    return opposed(made) if negative else made
