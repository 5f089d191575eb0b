"""What one process of a run needs: the engine's own cast and the recipe's own losses, on the
meta device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from dlib import Batch, Recipe
from full_scale.cost.blueprint import blueprint, cast_of
from full_scale.cost.counting import Cost, backward, cost
from full_scale.data.draws import Draws, step_draws
from full_scale.families.base import Blueprint
from full_scale.run.cast import Company, blocks
from full_scale.run.settings import Settings

PARTS = ("weights", "gradients", "optimiser", "averages", "activations", "copies")


@dataclass(frozen=True)
class Needs:
    """trained: parameters by role; frozen, averages: parameters. memory: "ddp" or "fsdp" →
    part → bytes of one process.

    step: bytes that the optimiser's step takes for a moment, under ddp. phases: (role, every,
    cost of one micro-batch).
    """

    trained: dict[str, int]
    frozen: int
    averages: int
    memory: dict[str, dict[str, float]]
    step: int
    phases: list[tuple[str, int, Cost]]

    def peak(self, parallel: str, processes: int) -> float:
        """The most bytes of one process: beside what it owns, either a micro-batch or the
        optimiser's step.
        """
        parts = self.memory[parallel]
        batch, share = (
            parts["activations"] + parts["copies"],
            processes if parallel == "fsdp" else 1,
        )
        return sum(parts.values()) - batch + max(batch, self.step / share)

    def flops(self, s: Settings) -> float:
        """Of one step, over all processes."""
        return sum(cost.flops / every for _, every, cost in self.phases) * s.batch / s.micro


def needs(s: Settings, processes: int = 1) -> Needs:
    """What these settings need, counted on the meta device."""
    dtype = precision(s)
    plan = blueprint(s)
    recipe, cast = cast_of(plan, s, dtype)
    trained = {
        role: sum(w.numel() for w in net.weights.values()) for role, net in cast.trained.items()
    }
    mean, still = (
        sum(w.numel() for one in cast.averages.values() for w in one.weights.values()),
        frozen_weights(cast),
    )
    total = sum(trained.values())
    owned = {
        "weights": 4 * total + sum(w.nbytes for w in still),
        "gradients": 4 * total,
        "optimiser": 8 * total,
        "averages": 4 * mean,
    }
    phases = measure(plan, recipe, cast, s, dtype)
    most = max((cost for *_, cost in phases), key=lambda cost: cost.peak)
    work, gathered = (
        {"activations": most.peak - most.copies},
        3 * largest_block(cast) * dtype.itemsize,
    )
    memory = {
        "ddp": owned | work | {"copies": most.copies},
        "fsdp": {name: size / processes for name, size in owned.items()}
        | work
        | {"copies": gathered},
    }
    return Needs(
        trained, sum(w.numel() for w in still), mean, memory, 4 * max(trained.values()), phases
    )


def precision(s: Settings) -> torch.dtype:
    """What the settings compute in, on a GPU unless they say cpu."""
    return (
        torch.float32
        if s.dtype == "float32" or (s.dtype == "auto" and s.device == "cpu")
        else torch.bfloat16
    )


def measure(
    plan: Blueprint, recipe: Recipe, cast: Company, s: Settings, dtype: torch.dtype
) -> list[tuple[str, int, Cost]]:
    """What is rolled out first, then each phase's loss, forward and backward, on one
    micro-batch."""
    batch, draw, found = plan.batch(s.micro), step_draws(s.seed, 0, range(s.micro)), []
    before = [
        batch.x0,
        *plan.empty.values(),
        *(p for net in nets(cast) for p in [*net.parameters(), *net.buffers()]),
    ]
    if recipe.before is not None:
        roll = partial(rolled, recipe, cast, batch, draw, s.batch // s.micro)
        found.append(("before", 1, cost(roll, before, dtype)))
    for phase in recipe.phases:
        weights = [leaf for role in phase.roles for leaf in cast.trained[role].leaves]
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        there = [*before, *batch.memo.values(), *(weight.grad for weight in weights)]
        found.append(
            (
                phase.name,
                phase.every,
                cost(lambda: backward(phase.loss(cast.roles, batch, draw).value), there, dtype),
            )
        )
    return found


@torch.no_grad()
def rolled(recipe: Recipe, cast: Company, batch: Batch, draw: Draws, micros: int) -> None:
    """Fill the memo of a micro-batch, as one of `micros` of a step."""
    memos = [recipe.before(cast.roles, batch, draw)]
    if recipe.pool is not None:
        everybody = lambda rows: (torch.cat([rows] * micros), slice(0, len(rows)))
        memos = recipe.pool(memos, everybody)
    batch.memo.update(memos[0])


def nets(cast: Company) -> list[nn.Module]:
    """Every network of a cast."""
    return (
        [net.inner for net in cast.trained.values()]
        + [mean.net for mean in cast.averages.values()]
        + [
            role.net
            for role in cast.roles.values()
            if isinstance(getattr(role, "net", None), nn.Module)
        ]
    )


def frozen_weights(cast: Company) -> list[Tensor]:
    """What is neither trained nor an average, each tensor once however many networks share it."""
    own = {
        id(w)
        for part in (*cast.trained.values(), *cast.averages.values())
        for w in part.weights.values()
    }
    return list(
        {
            w.untyped_storage(): w
            for net in nets(cast)
            for w in net.parameters()
            if id(w) not in own
        }.values()
    )


def largest_block(cast: Company) -> int:
    """Parameters of the largest block that FSDP2 gathers at once: one is in use, the next on
    its way, and one's gradient.
    """
    return max(
        sum(p.numel() for p in block.parameters())
        for net in nets(cast)
        for block in blocks(net) or [net]
    )
