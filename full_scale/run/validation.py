"""The student's loss on rows that are never trained on, with the same noise every time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dlib import Batch, Draw, Loss, Recipe
from dlib.training import Trainer
from full_scale import launch
from full_scale.launch import Processes
from full_scale.run.settings import Settings

Make = Callable[[Sequence[int]], tuple[Batch, Draw]]
"""Rows ↦ a batch of them, with draws that depend on the seed and the rows alone."""


def held_out(s: Settings, count: int) -> list[int]:
    """The last `--held-out` of `count` rows, but for those that are skipped."""
    return sorted(set(range(count - s.held_out, count)) - set(s.skip_rows))


def meaningless(recipe: Recipe) -> str:
    """Why a recipe has no loss on held-out rows; empty if it has one."""
    if recipe.before is not None or recipe.reads == "texts":
        return (
            "its student learns from samples of its own, and no row says what they should be: "
            "leave --held-out out, and look at the pictures and the reward"
        )
    return ""


@torch.no_grad()
def validate(
    trainer: Trainer, rows: Sequence[int], make: Make, micro: int, step: int, processes: Processes
) -> dict[str, float]:
    """`validation/student/loss`: the mean over these rows of the loss of each phase that moves
    the student, as it is after `step`. Nothing is moved: no weight, average or stream of draws.

    Every process takes each `processes.size`-th row, and as many batches as the others, since
    sharded networks are called by all or none; a batch too many counts nothing.
    """
    mine, sums = rows[processes.rank :: processes.size], {}
    most = -(-len(rows) // processes.size)  # rows of the first process
    for begin in range(0, most, micro):
        some = mine[begin : begin + micro]
        batch, draw = make(some or rows[:1])
        for phase in trainer.recipe.phases:
            if "student" in phase.roles:
                fresh = replace(batch, step=step, memo={})
                with trainer.computing():
                    found = value_of(phase.loss(trainer.cast.roles, fresh, draw.copy()))
                name = f"validation/{phase.name}/loss"
                sums[name] = sums.get(name, 0.0) + len(some) * float(found)
    every = launch.gathered_objects(sums, processes)
    return {name: sum(one[name] for one in every) / len(rows) for name in sums}


def value_of(made: Loss | Sequence[Callable[[], Loss]]) -> Tensor:
    """What is logged as the loss, or the sum of its parts."""
    if isinstance(made, Loss):
        return made.metrics.get("loss", made.value)
    return torch.stack([part().value for part in made]).sum()
