"""Whose gradient is not finite: a step's rows taken one by one, on all processes at a time, and
what is kept of those that do it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from dlib import Batch, Draw, Phase
from dlib._util import tensors
from dlib.training import Trainer
from dlib.training.performing import Micro
from full_scale import launch
from full_scale.data.draws import Draws
from full_scale.families.saving import save_tensors
from full_scale.launch import Processes
from full_scale.out.folder import readable
from full_scale.run.settings import Settings

Places = Sequence[Sequence[tuple[int, int]]]
"""A process's micro-batches: (place in the global batch, row of the data) of each sample."""


class Culprit(NamedTuple):
    """A sample whose own gradient is not finite, and the file that keeps its micro-batch."""

    rank: int
    micro: int
    place: int
    row: int
    file: str


def alone(batch: Batch, draw: Draws, k: int) -> tuple[Batch, Draws]:
    """The k-th sample of a micro-batch, with what it would draw there."""
    size = len(batch.x0)
    own = lambda value: value[k : k + 1] if value.ndim and len(value) == size else value
    parts = {f.name: tree_map_only(Tensor, own, getattr(batch, f.name)) for f in fields(batch)}
    together = None if draw.together is None else draw.together.copy()
    return Batch(**parts), Draws([draw.draws[k].copy()], together)


def guilty(trainer: Trainer, phase: Phase, micro: Micro) -> list[tuple[int, int]]:
    """(micro-batch, sample) of those whose loss, or its gradient, is not finite when they are
    taken alone. Gradients are summed over no other process; under FSDP2, where that cannot be,
    the loss alone is judged. The gradients that there were are lost.
    """
    found = []
    own = [trainer.trained[role] for role in phase.roles]
    sharded = any(hasattr(leaf, "full_tensor") for net in own for leaf in net.leaves)
    for m, (batch, draw) in enumerate(micro):
        for k in range(len(batch.x0)):
            for net in own:
                net.optim.zero_grad(set_to_none=True)
            values = []
            for value, _ in trainer._parts(phase, *alone(batch, draw, k), last=False):
                trainer.backward(value, phase)
                values.append(value.detach())
            leaves = [] if sharded else [leaf for net in own for leaf in net.leaves]
            values += [leaf.grad for leaf in leaves if leaf.grad is not None]
            if not all(torch.isfinite(value).all() for value in values):
                found.append((m, k))
    return found


class Scene(NamedTuple):
    """Where it happened: a role of a phase at a step, and what its losses began from."""

    role: str
    phase: Phase
    step: int
    micro: Sequence[tuple[Batch, Draw]]
    places: Places


Captions = Callable[[Sequence[int]], list[str]]


def refuse(
    trainer: Trainer, scene: Scene, s: Settings, captions: Captions, processes: Processes
) -> None:
    """Keep the micro-batches that gave a gradient that is not finite, by the processes that
    have them, and raise FloatingPointError in all with the rows, the suspects, and how to go
    on. No weight of the role was changed.
    """
    mine = guilty(trainer, scene.phase, scene.micro)
    files = {m: _keep(scene, m, mine, s, captions, processes) for m in dict(mine)}
    culprits = [Culprit(processes.rank, m, *scene.places[m][k], files[m]) for m, k in mine]
    culprits = [one for each in launch.gathered_objects(culprits, processes) for one in each]
    total = sum(map(len, scene.places)) * processes.size
    raise FloatingPointError(_said(scene, culprits, total, s.skip_rows, captions))


def _said(
    scene: Scene,
    culprits: Sequence[Culprit],
    total: int,
    skipped: Sequence[int],
    captions: Captions,
) -> str:
    """The line."""
    begin = (
        f"the gradient of {scene.role!r} is not finite at step {scene.step}, and none of its "
        "weights was changed"
    )
    cures = (
        "a lower --lr and --change lr, a smaller --clip and --change clip, or --dtype float32 "
        "and --change dtype"
    )
    again = "Start the same command again to go on from the last checkpoint"
    if not culprits:
        return (
            f"{begin}. Of its {total} samples none does it alone. Suspects: sums that overflow, "
            f"the learning rate. {again}, with {cures}"
        )
    rows = sorted({one.row for one in culprits})
    where = sorted({(one.rank, one.file) for one in culprits})
    kept = ", ".join(f"{file} (process {rank})" for rank, file in where[:4])
    kept = f"What was computed is in {kept}, and .json beside it"
    if len(culprits) == total > 1:
        return (
            f"{begin}. Each of its {total} samples does it. {kept}. Suspects: the weights, which "
            "an earlier step may have spoilt, and the learning rate, before the data. "
            f"{again}, with {cures}"
        )
    first = captions(rows[:1])[0]
    skip = " ".join(map(str, sorted({*rows, *skipped})))
    what = f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:20]))}"
    return (
        f"{begin}. It comes from {what} of the data, first {first[:60]!r}. {kept}. Suspects: "
        f"these data, the learning rate, bfloat16. {again}, without what did it, --skip-rows "
        f"{skip}, or with {cures}"
    )


def _keep(
    scene: Scene,
    m: int,
    found: list[tuple[int, int]],
    s: Settings,
    captions: Captions,
    processes: Processes,
) -> str:
    """Write a micro-batch and what is known of its rows and draws; the name of the file."""
    batch, places = scene.micro[m][0], scene.places[m]
    stem = f"nonfinite-step-{scene.step:08d}-{scene.role}-rank-{processes.rank}-micro-{m}"
    memo = {f"memo[{key!r}]": v for key, v in batch.memo.items() if isinstance(v, Tensor)}
    values = {"x0": batch.x0, "noise": batch.noise, "other": batch.other}
    values |= {**tensors(batch.cond), **memo}
    path = s.out / f"{stem}.safetensors"
    save_tensors({name: v for name, v in values.items() if v is not None}, path)
    readable(path)
    about = {
        "step": scene.step,
        "role": scene.role,
        "rank": processes.rank,
        "micro_batch": m,
        "samples": [
            {
                "row": row,
                "caption": text,
                "draws": [s.seed, scene.step, place],
                "finite": (m, k) not in found,
                "data_finite": _finite(replace(batch, memo={}), k),
            }
            for k, ((place, row), text) in enumerate(
                zip(places, captions([row for _, row in places]))
            )
        ],
    }
    path.with_suffix(".json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return str(path)


def _finite(batch: Batch, k: int) -> bool:
    """Whether all numbers that were read for a sample are finite."""
    values = {"x0": batch.x0, "noise": batch.noise, "other": batch.other, **tensors(batch.cond)}
    return all(
        math.isfinite(float(v[k].detach().double().abs().sum()))
        for v in values.values()
        if v is not None
    )
