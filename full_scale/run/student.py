"""The student of a run, read back: to be exported, or to start another run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from dlib._util import require
from dlib.lora import load_adapters, merged, twin
from full_scale.families import Family, open_family
from full_scale.out import manifest
from full_scale.run import checkpoint
from full_scale.run.settings import recipe_from


def is_run(weights: str | None) -> bool:
    """Whether `--weights` names a training run instead of a model."""
    return bool(weights) and bool(checkpoint.complete(Path(weights).expanduser()))


def root(weights: str | None) -> str | None:
    """What a chain of runs, each started from the last, began with; None is a tiny model."""
    while is_run(weights):
        s = checkpoint.described(chosen(Path(weights), None))["settings"]
        weights = None if s["tiny"] else s["weights"]
    return weights


def open_start(
    name: str, weights: str | None, device: torch.device, dtype: torch.dtype = torch.float32
) -> Family:
    """The family `name` with the network that a run starts from: pretrained weights, or the
    student of another run, as progressive distillation's rounds do.

    weights: a folder, a hub id, the folder of a run, or None for the random tiny model. Raises
    ValueError for a run of another family.
    """
    if not is_run(weights):
        if weights:
            manifest.refuse_damaged(Path(weights).expanduser(), "--weights")
        return open_family(name, weights, device, dtype)
    path = chosen(Path(weights), None)
    s = checkpoint.described(path)["settings"]
    require(
        s["family"] == name,
        f"--weights {weights} is a run of the family {s['family']}: pass --family {s['family']}",
    )
    family = open_start(name, None if s["tiny"] else s["weights"], device, dtype)
    call = restored(family, student(path)[1], s)
    if s["lora_rank"]:
        family.denoiser().net.load_state_dict(merged(call).state_dict())
    elif recipe_from(s).told:  # a copy with an input for ω
        (net,) = call.children()
        return family.with_net(net)
    return family


def chosen(folder: Path, step: int | None) -> Path:
    """The checkpoint of `step`, or the newest whole one; damaged ones that are newer are named
    on stderr. ValueError where there is none.
    """
    require(folder.is_dir(), f"{folder}: no such folder; name the --out of a training run")
    there = {int(path.name.split("-")[1]): path for path in checkpoint.complete(folder)}
    require(
        bool(there),
        f"{folder} holds no complete checkpoint. A run writes one every --save-every steps, at "
        "its end and when it is asked to stop",
    )
    if step is not None:
        require(
            step in there,
            f"--step {step}: {folder} holds checkpoints of the steps "
            f"{', '.join(map(str, there))}; a run keeps its last --keep",
        )
        fault = manifest.fault(there[step])
        require(not fault, f"--step {step}: {there[step]} is damaged: {fault}: choose another")
        return there[step]
    path, damaged = checkpoint.newest_whole(folder)
    if path is None:
        raise ValueError(checkpoint.none_whole(folder, damaged))
    for broken, fault in damaged.items():
        print(f"{broken} is damaged: {fault}. {path.name} is read instead", file=sys.stderr)
    return path


def student(path: Path) -> tuple[str, dict[str, Tensor]]:
    """("averaged student" or "student", its trained weights by name), whole, in the memory of
    this process.
    """
    try:
        reader = dcp.FileSystemReader(path)
        kept = reader.read_metadata().state_dict_metadata
        averaged = any(name.startswith("ema average.") for name in kept)
        part = "ema average." if averaged else "student.weights."
        found = {
            name: torch.empty(about.size, dtype=about.properties.dtype)
            for name, about in kept.items()
            if name.startswith(part)
        }
        # that there is one process
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            dcp.load(found, storage_reader=reader, no_dist=True)
    except (OSError, EOFError, CheckpointException) as error:
        raise ValueError(
            f"{path} cannot be read ({str(error).splitlines()[0]}): a file is missing or cut "
            "short; "
            "choose another with --step"
        ) from error
    return "averaged student" if averaged else "student", {
        name.removeprefix(part): value for name, value in found.items()
    }


def restored(family: Family, found: Mapping[str, Tensor], s: Mapping[str, Any]) -> nn.Module:
    """The student as the losses call it, with the weights that were found. ValueError if they
    are another network's.
    """
    call = family.denoiser().net
    if s["lora_rank"]:
        call = twin(call, s["lora_rank"], s["lora_alpha"], s["lora_targets"])
        load_adapters(call, found)
        return call
    call = family.told_omega(call) if recipe_from(s).told else call
    take(call, found)
    return call


@torch.no_grad()
def take(net: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Copy all weights of a network in place. ValueError, before anything is changed, if names
    or shapes differ.
    """
    own = dict(net.named_parameters())
    odd = sorted(set(own) ^ set(found)) or [
        name for name in own if own[name].shape != found[name].shape
    ]
    require(
        not odd,
        f"the run trained another network than the one in its weights folder: {len(odd)} "
        "weights differ in name or shape, first "
        f"{odd[:3]}; name the folder that the run started from with --weights",
    )
    for name, weight in own.items():
        weight.copy_(found[name])
