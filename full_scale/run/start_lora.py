"""A student that begins with the adapters of a LoRA file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dlib._util import require
from dlib.lora import adapters
from full_scale.families import Family
from full_scale.out import manifest

FLAG = "--start-lora"


def read(family: Family, file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, (α/r) B) by the name of the network's layer, as `sample --lora` would add them, in
    whichever names the file has. The family is left as it was. Raises ValueError, with names,
    for a tensor without a place and for adapters of a text encoder, which no run trains.
    """
    manifest.refuse_damaged(file.parent, f"{FLAG}: the folder")
    family.add_lora(file, flag=FLAG)
    others = [
        name
        for name, part in family.pipe.components.items()
        if isinstance(part, nn.Module) and part is not family.net and _layers(part)
    ]
    found = {
        name: (_values(layer.lora_A[key]), layer.scaling[key] * _values(layer.lora_B[key]))
        for name, layer in _layers(family.net).items()
        for key in layer.lora_A
    }
    family.pipe.unload_lora_weights()
    require(
        not others,
        f"{FLAG} {file} also adapts {', '.join(others)}, which no run trains: pass a LoRA of "
        "the denoising network alone",
    )
    return found


def _layers(net: nn.Module) -> dict[str, nn.Module]:
    """The layers that peft has adapted."""
    return {
        name: layer for name, layer in net.named_modules() if len(getattr(layer, "lora_A", ()))
    }


def _values(factor: nn.Module) -> Tensor:
    return factor.weight.detach().float().cpu()


@torch.no_grad()
def begin(
    net: nn.Module, found: Mapping[str, tuple[Tensor, Tensor]], prefix: str, file: Path
) -> None:
    """Give a twin these adapters, so that its product (α/r) B A is the file's, whatever its own
    α. Layers that the file leaves alone begin without effect, as ever.

    prefix: the family's `lora_prefix`. Raises ValueError, with what to type, unless all of the
    file finds its place.
    """
    own, layers = adapters(net), dict(net.named_modules())
    rank = len(next(iter(own.values())))
    ranks = sorted({len(a) for a, _ in found.values()})
    require(
        ranks == [rank],
        f"{FLAG} {file} has the rank {', '.join(map(str, ranks))} and --lora-rank is {rank}: "
        + (f"pass --lora-rank {ranks[0]}" if len(ranks) == 1 else "its ranks must be one"),
    )
    odd = [name for name in found if f"{prefix}.{name}.lora_A" not in own]
    ends = " ".join(sorted({_end(name) for name in found}))
    require(
        not odd,
        f"{FLAG} {file} adapts {len(odd)} layers that this student does not, first {odd[:1]}: "
        f"pass --lora-targets {ends}",
    )
    for name, (a, b) in found.items():
        layer = layers[f"{prefix}.{name}"]
        layer.lora_A.copy_(a)
        layer.lora_B.copy_(b / layer.lora_scale)


def _end(name: str) -> str:
    """
    >>> _end("mid_block.attn1.to_q"), _end("mid_block.attn1.to_out.0")
    ('to_q', 'to_out.0')
    """
    *_, before, last = ["", *name.split(".")]
    return f"{before}.{last}" if last.isdigit() else last
