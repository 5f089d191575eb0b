"""What one process of a run needs: the engine's own cast on the meta device, and its work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from full_scale import rewards
from full_scale.cost.counting import META
from full_scale.cost.blueprint import beside, blueprint, cast_of
from full_scale.cost.work import Work, measure, nets
from full_scale.run.cast import Company, blocks
from full_scale.run.settings import Settings
from full_scale.run.student import root
from full_scale.run.speed import moments_bytes

PARTS = (
    "weights",
    "gradients",
    "optimiser",
    "averages",
    "other networks",
    "activations",
    "copies",
)
PROCESS = 4e9
"""Bytes of the host's memory that Python, CUDA and NCCL are assumed to take a process."""
NODE = 8
"""Processes of a node, at most."""


@dataclass(frozen=True)
class Needs:
    """trained: parameters by role; frozen, averages: parameters. memory: "ddp", "fsdp" or
    "hybrid" → part → bytes of one process.

    step: bytes that the optimiser's step takes for a moment, under ddp; on a GPU it is one
    kernel that takes none. phases: what a step
    does with each micro-batch. loaded: bytes of the weights as a process reads them. checkpoint:
    bytes of one. row: bytes of a row of the data.
    """

    trained: dict[str, int]
    frozen: int
    averages: int
    memory: dict[str, dict[str, float]]
    step: int
    phases: list[Work]
    loaded: int
    checkpoint: int
    row: int

    def host(self, s: Settings, processes: int, node: int) -> dict[str, float]:
        """The parts of the memory of a host with `node` of the processes, in bytes, and what
        they are "at most" together: its processes, with either the weights that each reads
        before it has them on its GPU, or the copy of a checkpoint and the rows of two steps.
        """
        share = node / processes if s.parallel == "fsdp" else 1.0
        parts = {
            "processes, assumed": PROCESS * node,
            "weights being read": float(self.loaded * node),
            "copy of a checkpoint": self.checkpoint * share,
            "rows of two steps": float(2 * self.row * s.batch * node // processes),
        }
        every, read, copy, rows = parts.values()
        return parts | {"at most": every + max(read, copy + rows)}

    def peak(self, parallel: str, processes: int) -> float:
        """The most bytes of one process: beside what it owns, either a micro-batch or the
        optimiser's step.
        """
        parts = self.memory[parallel]
        batch, share = parts["activations"] + parts["copies"], shards(parallel, processes)
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
    others = 4 * (
        beside(s.family, root(None if s.tiny else s.weights))
        + rewards.parameters(s.reward, s.reward_weights)
    )
    owned = {
        "weights": 4 * total + sum(w.nbytes for w in still),
        "gradients": 4 * total,
        "optimiser": sum(moments_bytes(n.leaves, s.optimizer) for n in cast.trained.values()),
        "averages": 4 * mean,
    }
    if recipe.play("given"):  # a decoder is there before the first step
        plan.pixels(torch.empty(1, *plan.sides, device=META))
    phases, memo = measure(plan, recipe, cast, s, dtype)
    most = max((work.cost for work in phases), key=lambda cost: cost.peak)
    rolled = memo * (s.batch // (s.micro * processes))  # all micro-batches', before the phases
    work, gathered = (
        {"other networks": others, "activations": most.peak - most.copies + rolled},
        3 * largest_block(cast) * dtype.itemsize,
    )
    batch = plan.batch(1, recipe.reads)
    parts = (batch.x0, batch.noise, batch.other, *batch.cond.values())
    memory = {"ddp": owned | work | {"copies": most.copies}}
    for way in ("fsdp", "hybrid"):
        part = {name: size / shards(way, processes) for name, size in owned.items()}
        memory[way] = part | work | {"copies": gathered}
    return Needs(
        trained,
        sum(w.numel() for w in still),
        mean,
        memory,
        4 * max(trained.values()) if s.device == "cpu" else 0,
        phases,
        loaded=4 * sum(p.numel() for p in plan.base.net.parameters()) + others,
        checkpoint=4 * total + owned["optimiser"] + owned["averages"],
        row=sum(value.nbytes for value in parts if value is not None),
    )


def shards(parallel: str, processes: int) -> int:
    """Into how many parts a network is cut."""
    return {"ddp": 1, "fsdp": processes, "hybrid": min(NODE, processes)}[parallel]


def fits(need: Needs, s: Settings, processes: int, room: float) -> bool:
    """Whether a process fits on a card of `room` GB, a tenth of which is left alone."""
    return need.peak(s.parallel, processes) < 0.9 * 2**30 * room


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
