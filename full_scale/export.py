"""Make of a run what other programs load: a pipeline in diffusers' format, or LoRA files for
diffusers and for ComfyUI.

    python -m full_scale.export runs/lcm
    python -m full_scale.export runs/lcm --step 2000 --to exports/lcm-2000

It takes the averaged student where the run keeps an average, else the student, from the last
complete checkpoint. One process on a CPU reads what any number of processes wrote, also while
the run goes on.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed.checkpoint as dcp
import tyro
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from dlib._util import require
from dlib.lora import load_adapters, merged, twin
from dlib.recipes import TOLD_OMEGA
from full_scale.out import card
from full_scale.run import checkpoint
from full_scale.out import lora_files
from full_scale.out import folder as output

if TYPE_CHECKING:
    from full_scale.families.base import Family


@dataclass(frozen=True)
class Export:
    """Export the student of a training run."""

    run: tyro.conf.Positional[Path]
    """The run's folder: what was --out in training."""
    step: int | None = None
    """The checkpoint of this step; the last complete one unless given."""
    to: Path | None = None
    """A new folder; RUN/export unless given."""
    weights: str | None = None
    """The weights that the run started from, if they have moved since."""


def run(config: Export) -> Path:
    """Write the export and return its folder. Raises ValueError for what the reader can put
    right.
    """
    path = chosen(config.run, config.step)
    facts = checkpoint.described(path)
    s, to = facts["settings"], config.to or config.run / "export"
    output.check_free(to, "--to")
    part, found = student(path)
    # diffusers takes seconds to import; errors above need not wait for it
    from full_scale.families import open_family

    family = open_family(
        s["family"], None if s["tiny"] else config.weights or s["weights"], torch.device("cpu")
    )
    about = {
        "what": part,
        "step": facts["step"],
        "settings": s,
        "licence": family.licence,
        "versions": output.versions(),
    }
    return output.whole(to, lambda folder: write(folder, family, found, about))


def chosen(folder: Path, step: int | None) -> Path:
    """The checkpoint of `step`, or the last complete one."""
    require(folder.is_dir(), f"{folder}: no such folder; name the --out of a training run")
    there = {checkpoint.described(path)["step"]: path for path in checkpoint.complete(folder)}
    require(
        bool(there),
        f"{folder} holds no complete checkpoint. A run writes one every --save-every steps, at "
        "its end and when it is asked to stop",
    )
    require(
        step is None or step in there,
        f"--step {step}: {folder} holds checkpoints of the steps {', '.join(map(str, there))}; "
        "a run keeps its last --keep",
    )
    return there[max(there) if step is None else step]


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


def write(
    folder: Path, family: Family, found: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    """The weights in the format that suits them, a model card, and settings.json."""
    # the pipeline of diffusers' families
    s, pipe = about["settings"], getattr(family, "pipe", None)
    call, lora = restored(family, found, s), bool(s["lora_rank"]) and pipe is not None
    if lora:
        lora_files.save(found, s["lora_rank"], s["lora_alpha"], folder)
    else:
        if pipe is not None:
            pipe.scheduler = card.scheduler(s["method"], pipe.scheduler)
        # the family's network, out of its call
        (net,) = (merged(call) if s["lora_rank"] else call).children()
        family.save(net, folder)
    (folder / "README.md").write_text(card.text(about, lora))
    (folder / "settings.json").write_text(json.dumps(about, indent=1) + "\n")


def restored(family: Family, found: Mapping[str, Tensor], s: Mapping[str, Any]) -> nn.Module:
    """The student as the losses call it, with the weights that were found. ValueError if they
    are another network's.
    """
    call = family.denoiser().net
    if s["lora_rank"]:
        call = twin(call, s["lora_rank"], s["lora_alpha"], s["lora_targets"])
        load_adapters(call, found)
        return call
    call = family.told_omega(call) if s["method"] in TOLD_OMEGA else call
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


def main(arguments: list[str] | None = None) -> None:
    """The command line: one line on stderr, and exit status 1, for what the reader can put
    right.
    """
    config = tyro.cli(
        Export, args=arguments, prog="python -m full_scale.export", description=__doc__
    )
    try:
        print(run(config))
    except (ValueError, OSError) as error:
        sys.exit(f"full_scale.export: {error}")


if __name__ == "__main__":
    main()
