"""What one process of a run needs: the engine's own cast on the meta device, and its work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from full_scale.cost.blueprint import blueprint, cast_of
from full_scale.cost.work import Work, measure, nets
from full_scale.run.cast import Company, blocks
from full_scale.run.settings import Settings
from full_scale.run.speed import moments_bytes

PARTS = ("weights", "gradients", "optimiser", "averages", "activations", "copies")


@dataclass(frozen=True)
class Needs:
    """trained: parameters by role; frozen, averages: parameters. memory: "ddp" or "fsdp" →
    part → bytes of one process.

    step: bytes that the optimiser's step takes for a moment, under ddp. phases: what a step
    does with each micro-batch.
    """

    trained: dict[str, int]
    frozen: int
    averages: int
    memory: dict[str, dict[str, float]]
    step: int
    phases: list[Work]

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
        one = sum(work.times * work.cost.flops for work in self.phases)
        return float(one * s.batch / s.micro)


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
        "optimiser": sum(moments_bytes(n.leaves, s.optimizer) for n in cast.trained.values()),
        "averages": 4 * mean,
    }
    phases, memo = measure(plan, recipe, cast, s, dtype)
    most = max((work.cost for work in phases), key=lambda cost: cost.peak)
    rolled = memo * (s.batch // (s.micro * processes))  # all micro-batches', before the phases
    work, gathered = (
        {"activations": most.peak - most.copies + rolled},
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
