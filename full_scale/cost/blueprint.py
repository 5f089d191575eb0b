"""The networks of a run without their weights: on the meta device, as the family says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlib import Recipe
from full_scale.cost.counting import META
from full_scale.families import named
from full_scale.families.base import Blueprint
from full_scale.data import shards
from full_scale.families.latent import LatentPipeline
from full_scale.families.weights import read_config
from full_scale.launch import Processes
from full_scale.run.cast import Company, build
from full_scale.run.given import given_roles
from full_scale.run.settings import Settings, recipe_of
from full_scale.run.student import root


def blueprint(s: Settings) -> Blueprint:
    """Of the settings' family and weights, or of what the run that they name began with, and
    with the shape of the data where these exist.
    """
    plan = named(s.family).blueprint(root(None if s.tiny else s.weights))
    info = s.data / "info.json" if s.data else Path()
    return (
        replace(plan, sides=tuple(shards.read_json(info, "shape")["shape"]))
        if info.is_file()
        else plan
    )


def cast_of(plan: Blueprint, s: Settings, dtype: torch.dtype) -> tuple[Recipe, Company]:
    """The recipe and everyone in it, as the engine builds them, on the meta device."""
    recipe = recipe_of(s, plan.base.schedule, plan.empty)
    with torch.random.fork_rng(devices=[]):
        given = given_roles(s, plan)
        plain = replace(s, parallel="ddp", start_lora=None)
        return recipe, build(plan, recipe, plain, Processes(0, 1, META, None), dtype, given)


@cache
def beside(family: str, weights: str | None) -> int:
    """Parameters of the networks that stand beside the one that denoises, and stay with it for
    the run's pictures: VAE, text encoders, safety checker. Those of a tiny model are not counted.

    weights: a folder or a hub id whose configuration files are read. A network that states no
    class is not counted either.
    """
    kind = named(family)
    if weights is None or not issubclass(kind, LatentPipeline):
        return 0
    with META:
        made = [_made(config) for config in _configs(kind, weights)]
    return sum(p.numel() for net in made for p in net.parameters())


def _configs(kind: type[LatentPipeline], weights: str) -> Iterator[dict[str, Any]]:
    """The configurations of a pipeline's other networks."""
    folder = Path(weights).expanduser()
    if folder.is_dir():
        parts = [path.parent.name for path in folder.glob("*/config.json")]
    else:
        index = read_config(kind.kind, weights, "model_index.json")
        parts = [name for name, of in index.items() if isinstance(of, list) and of[0]]
    for part in sorted({*parts} - {kind.kind.core}):
        with suppress(ValueError):  # tokenizers and schedulers have none
            config = read_config(kind.kind, weights, f"{part}/config.json")
            if "_class_name" in config or config.get("architectures"):
                yield config


def _made(config: dict[str, Any]) -> nn.Module:
    """The network of a configuration, of diffusers or of transformers."""
    import diffusers
    import transformers
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    if "_class_name" in config:
        return getattr(diffusers, config["_class_name"]).from_config(config)
    name = config["architectures"][0]
    own = {"StableDiffusionSafetyChecker": StableDiffusionSafetyChecker}
    made = own.get(name) or getattr(transformers, name)
    return made(made.config_class.from_dict(config))
