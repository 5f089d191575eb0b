"""Room on the disk, in words."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from full_scale.run.cast import Company

FULL = (errno.ENOSPC, errno.EDQUOT)


def free(out: Path) -> int | None:
    """Free bytes where `out` lies, or will lie, if the system tells."""
    with suppress(OSError):
        return shutil.disk_usage(next(p for p in (out, *out.parents) if p.exists())).free
    return None


def needed(state: Mapping[str, Any]) -> int:
    """Bytes of all tensors of a checkpoint's state, of sharded ones the whole."""
    total = 0
    for value in state.values():
        if isinstance(value, Mapping):
            total += needed(value)
        elif isinstance(value, torch.Tensor):
            total += value.numel() * _width(value)
    return int(total)


def _width(value: torch.Tensor) -> float:
    """Bytes of one of its numbers; torchao's moments look like 32 bits, and are 8 and a scale."""
    own = value.to_local() if hasattr(value, "to_local") else value
    return 1 + 4 / own.block_size if hasattr(own, "codes") else value.element_size()


def wanting(out: Path, company: Company, keep: int, there: int) -> str:
    """A line if the checkpoints of this cast, `keep` and the one that is being written, do not
    fit where `out` lies, `there` of them being there already.
    """
    weights = [p for net in company.trained.values() for p in net.weights.values()]
    means = [p for mean in company.averages.values() for p in mean.weights.values()]
    one = needed({str(k): p for k, p in enumerate([*weights * 3, *means])})  # AdamW has two more
    missing, found = keep + 1 - there, free(out)
    if found is None or found >= missing * one:
        return ""
    return (
        f"a checkpoint needs {size(one)}; --keep {keep} and the one that is being written will "
        f"need {size(missing * one)} more in {out}, and {size(found)} are free"
    )


def size(count: int | None) -> str:
    """
    >>> size(3_400_000_000), size(25_000), size(None)
    ('3.40 GB', '0.03 MB', 'an unknown number of bytes')
    """
    if count is None:
        return "an unknown number of bytes"
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def with_room(error: OSError, out: Path) -> str:
    """An error in words; if the disk is full, with what is free and how to go on."""
    if error.errno not in FULL:
        return str(error)
    return (
        f"no space left for {error.filename or out} ({size(free(out))} free): make room, and "
        "start the same command again to go on from the last checkpoint"
    )
