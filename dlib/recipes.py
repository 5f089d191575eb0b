"""Floor 6: a method as data. The notebooks' `fit` and the full-scale engine run the same list of phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.losses import Batch, Loss

Roles = Mapping[str, Denoiser]


@dataclass(frozen=True)
class Phase:
    """Update the network of `role` with `loss(roles, batch, draw)`, at every `every`-th step."""

    role: str
    loss: Callable[[Roles, Batch, Draw], Loss]
    every: int = 1

    def __post_init__(self):
        require(self.every >= 1, f"Phase: every = {self.every}, wanted at least 1: the phase runs at every {self.every}-th step")
