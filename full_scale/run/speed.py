"""How fast a run is, and what makes it so."""

from __future__ import annotations

import resource
import sys
import time

import torch

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
