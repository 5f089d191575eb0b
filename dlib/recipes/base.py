"""What a recipe is: phases as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.losses import Batch, Loss

Roles = Mapping[str, Denoiser]


@dataclass(frozen=True)
class Phase:
    """Update the network of `role` with `loss(roles, batch, draw)`, every `every`-th step."""

    role: str
    loss: Callable[[Roles, Batch, Draw], Loss]
    every: int = 1

    def __post_init__(self):
        require(
            self.every >= 1,
            f"Phase: every = {self.every}, wanted at least 1: the phase runs at every "
            f"{self.every}-th step",
        )


@dataclass(frozen=True)
class Recipe:
    """A method: its phases in order, and the roles whose denoisers their losses look up.

    The phases' own roles are trained, each by an optimiser of its own. Of the others,
    `teacher` is the frozen start of the student, and `target` is the student's moving average,
    or the student itself without gradient.
    """

    phases: tuple[Phase, ...]
    roles: tuple[str, ...]

    @property
    def trained(self) -> tuple[str, ...]:
        """The roles that are trained, each once, in the order of the phases."""
        return tuple(dict.fromkeys(phase.role for phase in self.phases))

    def __post_init__(self):
        missing = [role for role in self.trained if role not in self.roles]
        require(
            not missing,
            f"Recipe: phases train {missing}, which roles {list(self.roles)} do not name",
        )
