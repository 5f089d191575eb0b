"""The networks of a run without their weights: on the meta device, from configuration files of
a few kilobytes.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlib import Batch, Denoiser, Recipe
from dlib._util import require
from full_scale.families import sd
from full_scale.cost.counting import META
from full_scale.families import Family, open_family
from full_scale.families.sd import StableDiffusion
from full_scale.run.cast import Company, build
from full_scale.run.settings import Settings, recipe_of
from full_scale.families.weights import how_to_download
from full_scale.launch.processes import World


@dataclass(frozen=True)
class Blueprint:
    """A family without weights: those members of `Family` that building and running the
    networks of a run asks for.

    of: a family of the same kind, for what depends on the kind alone.
    """

    base: Denoiser
    sides: tuple[int, ...]
    empty: dict[str, Tensor]
    of: Family
    size: int = 0

    def denoiser(self) -> Denoiser:
        return self.base

    def shape(self, size: int) -> tuple[int, ...]:
        return self.sides

    def null(self) -> dict[str, Tensor]:
        return self.empty

    def stages(self, call: nn.Module) -> list[nn.Module]:
        return self.of.stages(call)

    def told_omega(self, call: nn.Module) -> nn.Module:
        return self.of.told_omega(call)

    def batch(self, rows: int) -> Batch:
        """A batch of the family's shapes."""
        cond = {name: value.expand(rows, *value.shape) for name, value in self.empty.items()}
        return Batch(torch.empty(rows, *self.sides, device=META), cond)


def blueprint(s: Settings) -> Blueprint:
    """Of the settings' family and weights. Of Stable Diffusion's only three configuration
    files are read, or fetched from the hub.
    """
    plan = _stable_diffusion(s.weights) if s.family == "sd" and s.weights else _opened(s)
    info = s.data / "info.json" if s.data else Path()
    return (
        replace(plan, sides=tuple(json.loads(info.read_text())["shape"]))
        if info.is_file()
        else plan
    )


def _stable_diffusion(weights: str) -> Blueprint:
    from diffusers import UNet2DConditionModel

    unet, text, scheduler = (
        _config(weights, f"{part}.json")
        for part in ("unet/config", "text_encoder/config", "scheduler/scheduler_config")
    )
    with META:
        net = UNet2DConditionModel.from_config(unet).eval()
    empty = {
        "text": torch.empty(
            text["max_position_embeddings"], unet["cross_attention_dim"], device=META
        )
    }
    sides = unet["in_channels"], unet["sample_size"], unet["sample_size"]
    return Blueprint(sd.denoiser(net, scheduler), sides, empty, StableDiffusion(pipe=None))


def _config(weights: str, name: str) -> dict[str, Any]:
    """A configuration file of a weights folder, or of a hub repository without its weights."""
    file = Path(weights).expanduser() / name
    if not Path(weights).expanduser().is_dir():
        from huggingface_hub import hf_hub_download

        try:
            file = Path(hf_hub_download(weights, name))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"--weights {weights}: no such folder, and the hub did not give {name} "
                f"({type(error).__name__}). An estimate reads "
                f"three configuration files; to get everything:\n{how_to_download(weights)}"
            ) from error
    require(
        file.is_file(),
        f"--weights {weights} has no {name}: wanted a folder in diffusers' format, or at least "
        "its configuration files",
    )
    return json.loads(file.read_text())


def _opened(s: Settings) -> Blueprint:
    """Of a family that is small enough to be opened and copied."""
    family = open_family(s.family, None if s.tiny else s.weights, torch.device("cpu"))
    base = family.denoiser()
    empty = {name: torch.empty_like(value, device=META) for name, value in family.null().items()}
    return Blueprint(
        replace(base, net=copy.deepcopy(base.net).to(META)),
        family.shape(family.size),
        empty,
        family,
    )


def cast_of(plan: Blueprint, s: Settings, dtype: torch.dtype) -> tuple[Recipe, Company]:
    """The recipe and everyone in it, as the engine builds them, on the meta device."""
    recipe = recipe_of(s, plan.base.schedule, plan.empty)
    with torch.random.fork_rng(devices=[]):
        return recipe, build(
            plan, recipe, replace(s, parallel="ddp"), World(0, 1, META, None), dtype
        )
