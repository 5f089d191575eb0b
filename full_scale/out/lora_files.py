"""A student's adapters as the files that other programs read: diffusers' names, and those of
kohya's scripts, ComfyUI and others.

Both hold W + (α/r) B A. diffusers' file holds the factor α/r inside B, because a reader that
finds no α takes α = r; the other file states α for each layer, because all its readers look
there. Values are float32, as they were trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dlib._util import require
from full_scale.families.saving import save_tensors

DIFFUSERS, KOHYA = "pytorch_lora_weights.safetensors", "comfyui_lora.safetensors"
"""File names: the first is the one that diffusers looks for in a folder."""

Factors = Mapping[str, tuple[Tensor, Tensor]]


def factors(adapters: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) by the name of the network's layer, from `<prefix>.<layer>.lora_A` and `….lora_B`
    as `dlib.lora.adapters` names them. prefix: a family's `lora_prefix`.

    >>> a, b = torch.zeros(2, 4, 3, 3), torch.zeros(8, 2, 1, 1)
    >>> factors({"unet.conv_in.lora_A": a, "unet.conv_in.lora_B": b}, "unet").keys()
    dict_keys(['conv_in'])
    """
    names = [name.removesuffix(".lora_A") for name in adapters if name.endswith(".lora_A")]
    odd = [name for name in names if not name.startswith(f"{prefix}.")]
    require(
        not odd,
        f"LoRA files name layers of {prefix!r}; this network has a layer {odd[:1]}: export all "
        "weights instead",
    )
    return {
        name.removeprefix(f"{prefix}."): (adapters[f"{name}.lora_A"], adapters[f"{name}.lora_B"])
        for name in names
    }


def diffusers_keys(layers: Factors, scale: float, prefix: str) -> dict[str, Tensor]:
    """`<prefix>.<layer>.lora_A.weight` (r, in) and `….lora_B.weight` (out, r), the latter
    times `scale` = α/r.

    >>> layers = {"mid_block.proj": (torch.ones(1, 2), torch.ones(2, 1))}
    >>> sorted(diffusers_keys(layers, 0.5, "unet"))
    ['unet.mid_block.proj.lora_A.weight', 'unet.mid_block.proj.lora_B.weight']
    """
    return {
        f"{prefix}.{name}.lora_{side}.weight": value
        for name, (a, b) in layers.items()
        for side, value in (("A", a), ("B", b * scale))
    }


def kohya_keys(
    layers: Factors, alpha: float, prefix: str, called: Callable[[str], str] = str
) -> dict[str, Tensor]:
    """`lora_<prefix>_<layer>.lora_down.weight`, `.lora_up.weight` and `.alpha`; the layer's
    dots become underscores. called: a family's `kohya_name`.

    >>> layers = {"mid_block.to_out.0": (torch.ones(1, 2), torch.ones(2, 1))}
    >>> sorted(kohya_keys(layers, 1.0, "unet"))[0]
    'lora_unet_mid_block_to_out_0.alpha'
    """
    found = {}
    for name, (a, b) in layers.items():
        key = f"lora_{prefix}_{called(name).replace('.', '_')}"
        found |= {
            f"{key}.lora_down.weight": a,
            f"{key}.lora_up.weight": b,
            f"{key}.alpha": torch.tensor(float(alpha)),
        }
    return found


def save(
    adapters: Mapping[str, Tensor],
    rank: int,
    alpha: float,
    prefix: str,
    folder: Path,
    called: Callable[[str], str] = str,
) -> None:
    """Both files, into `folder`. prefix, called: a family's `lora_prefix` and `kohya_name`."""
    layers = factors(adapters, prefix)
    _save(diffusers_keys(layers, alpha / rank, prefix), folder / DIFFUSERS, {})
    facts = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
    }
    _save(kohya_keys(layers, alpha, prefix, called), folder / KOHYA, facts)


def _save(values: Mapping[str, Tensor], path: Path, facts: dict[str, str]) -> None:
    values = {name: value.float() for name, value in values.items()}
    save_tensors(values, path, {"format": "pt", **facts})
