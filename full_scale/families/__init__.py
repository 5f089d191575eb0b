"""The kinds of model: one file a family, registered here. A family touches its own weights and
pictures; it knows nothing of data folders, runs or commands.
"""

from __future__ import annotations

import torch

from dlib._util import require
from full_scale.families.base import Family
from full_scale.families.sd import StableDiffusion
from full_scale.families.shapes import Shapes

FAMILIES = {"sd": StableDiffusion, "shapes": Shapes}
"""Every family by name: what `--family` takes."""


def open_family(
    name: str, weights: str | None, device: torch.device, dtype: torch.dtype = torch.float32
) -> Family:
    """The family `name` with its pretrained weights; `weights` None opens a random tiny one,
    offline.
    """
    require(name in FAMILIES, f"--family {name}: no such family; there are {', '.join(FAMILIES)}")
    return FAMILIES[name].open(weights, device, dtype)
