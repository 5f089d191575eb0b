"""Make of a run what other programs load: a pipeline in diffusers' format, or LoRA files for
diffusers and for ComfyUI.

    python -m full_scale.export runs/lcm
    python -m full_scale.export runs/lcm --step 2000 --to exports/lcm-2000
    python -m full_scale.export runs/lcm --hub owner/name

It takes the averaged student where the run keeps an average, else the student, from the
newest checkpoint that is whole; a damaged one is named. One process on a CPU reads what any
number of processes wrote, also while the run goes on.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import tyro
from torch import Tensor

from dlib._util import require
from dlib.lora import merged
from full_scale.out import card, manifest
from full_scale.run import checkpoint
from full_scale.run.settings import recipe_from
from full_scale.run.student import chosen, open_start, restored, student
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
    """The checkpoint of this step; the newest whole one unless given."""
    to: Path | None = None
    """A new folder; RUN/export unless given."""
    weights: str | None = None
    """The weights that the run started from, if they have moved since."""
    hub: str = ""
    """Upload the finished export into this repository of the Hugging Face hub, owner/name, too.
    A new one is private, one that exists stays as it is; log in with `hf auth login` first.
    """


def run(config: Export) -> Path:
    """Write the export and return its folder. Raises ValueError for what the reader can put
    right.
    """
    path = chosen(config.run, config.step)
    facts = checkpoint.described(path)
    s, to = facts["settings"], config.to or config.run / "export"
    output.check_free(to, "--to")
    require(
        not config.hub or re.fullmatch(r"[\w.-]+/[\w.-]+", config.hub) is not None,
        f"--hub {config.hub}: wanted a repository of the hub, owner/name",
    )
    part, found = student(path)
    weights = None if s["tiny"] else config.weights or s["weights"]
    family = open_start(s["family"], weights, torch.device("cpu"))
    s = s | {"sampler": recipe_from(s, family.denoiser().schedule).sampler.facts}
    about = {
        "what": part,
        "step": facts["step"],
        "settings": s,
        "licence": family.licence,
        "versions": output.versions(),
    }
    room = sum(value.nbytes for value in found.values())
    with output.space(to, room, "the trained weights alone", "--to"):
        made = output.whole(to, lambda folder: write(folder, family, found, about), room)
    if config.hub:
        push(made, config.hub, f"{part} of {s['method']} after {facts['step']} steps")
    return made


def push(folder: Path, repository: str, message: str) -> None:
    """Upload an export. ValueError, in one line, if the hub does not take it; all stays here."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except Exception as error:  # whatever the hub or the network answers
        why = str(error).strip().splitlines() or ["no message"]
        raise ValueError(
            f"the export is finished in {folder}, but the hub did not take it "
            f"({type(error).__name__}: {why[0]}): after `hf auth login`, and with a repository "
            f"that is yours, type hf upload {repository} {folder} ."
        ) from error


def write(
    folder: Path, family: Family, found: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    """The weights in the format that suits them, a model card, and settings.json."""
    s, prefix = about["settings"], family.lora_prefix
    call, lora = restored(family, found, s), bool(s["lora_rank"]) and prefix is not None
    if lora:
        rank, alpha = s["lora_rank"], s["lora_alpha"]
        lora_files.save(found, rank, alpha, prefix, folder, family.kohya_name)
    else:
        # the family's network, out of its call
        (net,) = (merged(call) if s["lora_rank"] else call).children()
        family.save(net, folder, card.scheduler(s))
    manifest.seal_weights(folder)
    (folder / "README.md").write_text(card.text(about, lora))
    (folder / "settings.json").write_text(json.dumps(about, indent=1) + "\n")


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
