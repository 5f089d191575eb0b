"""Random numbers for a batch of pictures in which each picture keeps its own seed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dlib import Draw


class Draws:
    """One `Draw` a picture. Row i of every value comes from the i-th, so a picture does not depend on its batch mates.

    The order for each picture is: its initial latent, then one normal a step if the solver is noisy. It is also the
    order of diffusers' pipelines when they get a list of CPU generators, one a picture.

    >>> both, second = Draws([Draw(0), Draw(1)]), Draws([Draw(1)])
    >>> bool((both.normal(torch.zeros(2, 3))[1] == second.normal(torch.zeros(1, 3))[0]).all())
    True
    """

    def __init__(self, draws: Iterable[Draw]):
        self.draws = list(draws)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal with the shape, dtype and device of `like`, whose first axis runs over the pictures."""
        return torch.stack([draw.normal(row) for draw, row in zip(self.draws, like, strict=True)])

    def copy(self) -> Draws:
        """A second `Draws` that will repeat what this one draws from here on."""
        return Draws(draw.copy() for draw in self.draws)
