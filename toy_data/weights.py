"""Trained weights beside the code: safetensors files that say what they are and what they
scored.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

FOLDER = Path(__file__).parent


def write(name: str, net: nn.Module, facts: dict) -> Path:
    """Write the weights of `net` and `facts` (JSON values) to `name`.safetensors, all of it or
    nothing.
    """
    path = FOLDER / f"{name}.safetensors"
    state = {key: value.detach().contiguous() for key, value in net.state_dict().items()}
    # one metadata entry only: safetensors shuffles several, and equal trainings should make equal
    # bytes
    content = save(state, {"facts": json.dumps(facts)})
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def facts(name: str, maker: str) -> dict:
    """What the file of `name` states about itself: "architecture", "steps", "seed" and "scores".

    maker: the module that trains it, named in the error when the file is missing or unreadable.
    """
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: make it with `python -m {maker}`, or restore it with `git "
            f"checkout -- toy_data/{path.name}`"
        )
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["facts"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is not a weights file of this book ({error!r}): make it again with "
            f"`python -m {maker}`"
        ) from None


def restore(name: str, net: nn.Module, architecture: dict, maker: str) -> nn.Module:
    """Fill `net` with the weights of `name` and return it frozen, in eval mode. ValueError if
    they are another network's.
    """
    found = facts(name, maker).get("architecture")
    if found != architecture:
        raise ValueError(
            f"{name}.safetensors holds {found}, this version wants {architecture}: make it "
            f"again with `python -m {maker}`"
        )
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        net.load_state_dict({key: file.get_tensor(key) for key in file.keys()})
    return net.eval().requires_grad_(False)
