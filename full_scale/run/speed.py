"""How fast a run is, and what makes it so."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence

import torch
from torch import nn

from full_scale.run.settings import Role

SPEED = "speed/"
"""What the names of measured times and memory begin with: no two runs have the same."""


class Clock:
    """Seconds of steps, from the last time it was read to this one."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0

    def __enter__(self) -> Clock:
        self.begun = time.perf_counter()
        return self

    def __exit__(self, *what: object) -> None:
        self.seconds += time.perf_counter() - self.begun
        self.steps += 1

    def read(self, rows: int, peak: float) -> dict[str, float]:
        """Seconds a step and rows a second, at `rows` of them a step, with the peak of memory;
        the clock begins anew.
        """
        seconds = self.seconds / max(self.steps, 1)
        self.seconds, self.steps = 0.0, 0
        values = {"s_per_step": seconds, "rows_per_s": rows / seconds if seconds else 0.0}
        return {f"{SPEED}{name}": v for name, v in (values | {"peak_GB": peak}).items()}


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held so far, in 10⁹ bytes: of a GPU what tensors
    took, else the resident set.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


FUSED = ("cuda",)
"""Kinds of devices on which a step of AdamW is one kernel for many tensors."""


def optimiser(leaves: Sequence[nn.Parameter], own: Role) -> torch.optim.Optimizer:
    """AdamW of a role; its learning rate is set at every step."""
    fused = True if leaves[0].device.type in FUSED else None  # None is torch's own choice
    more = {"betas": own.betas, "weight_decay": own.weight_decay}
    return torch.optim.AdamW(leaves, lr=0.0, fused=fused, **more)


def can_skip(optim: torch.optim.Optimizer) -> bool:
    """Whether a step does nothing where `optim.found_inf`, a number on the device, is 1."""
    return bool(optim.param_groups[0].get("fused"))


def with_own_kernels(optim: torch.optim.Optimizer) -> None:
    """A checkpoint of another device has said which kernels to use: take this one's again."""
    for group in optim.param_groups:
        group |= {name: optim.defaults[name] for name in ("fused", "foreach") if name in group}
