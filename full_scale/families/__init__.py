"""The kinds of model: one file a family, registered here. It knows nothing of data folders, runs
or commands. Touches `sources`, for pictures and whole files.
"""

from __future__ import annotations

import torch

from dlib._util import require
from full_scale.families.base import Family
from full_scale.families.sd import StableDiffusion
from full_scale.families.sd3 import StableDiffusion3
from full_scale.families.sdxl import StableDiffusionXL
from full_scale.families.shapes import Shapes
from full_scale.families.weights import OtherPipeline

FAMILIES: dict[str, type[Family]] = {
    family.name: family
    for family in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Shapes)
}
"""Every family by name: what `--family` takes."""


def named(name: str) -> type[Family]:
    """The family of this name."""
    require(name in FAMILIES, f"--family {name}: no such family; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def open_family(
    name: str, weights: str | None, device: torch.device, dtype: torch.dtype = torch.float32
) -> Family:
    """The family `name` with its pretrained weights; `weights` None opens its tiny one,
    offline.
    """
    family = named(name)
    if weights is None:
        return family.tiny(device, dtype)
    try:
        return family.open(weights, device, dtype)
    except OtherPipeline as error:
        fits = [f"--family {each}" for each in FAMILIES if FAMILIES[each].pipeline == error.found]
        raise ValueError("; type ".join([str(error), *fits])) from None


def introduced(family: Family, weights: str | None) -> str:
    """A line that says what was opened, and under which licence."""
    weight = next(family.net.parameters())
    return (
        f"{weights or family.tiny_is} on {weight.device} in {weight.dtype} · licence of the "
        f"weights: {family.licence or 'not stated'} · "
        f"safety checker: {'kept' if family.checked else 'these weights have none'}"
    )
