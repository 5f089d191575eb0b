"""Random numbers for a batch of pictures in which each picture keeps its own seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from dlib import Draw
from dlib._util import require


class Draws(Draw):
    """One `Draw` a picture. Row i of every value comes from the i-th, so a picture does not
    depend on its batch mates.

    The order for each picture is: its initial latent, then one normal a step if the solver is
    noisy. It is also the order of diffusers' pipelines when they get a list of CPU generators,
    one a picture.

    >>> both, second = Draws([Draw(0), Draw(1)]), Draws([Draw(1)])
    >>> bool((both.normal(torch.zeros(2, 3))[1] == second.normal(torch.zeros(1, 3))[0]).all())
    True
    """

    def __init__(self, draws: Iterable[Draw], together: Draw | None = None):
        self.draws, self.together = list(draws), together

    def normal(self, like: Tensor | Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal like a tensor or of a shape, as `Draw.normal`; the first axis runs over
        the pictures.
        """
        if isinstance(like, Tensor):
            rows = [draw.normal(row, dtype) for draw, row in zip(self._rows(len(like)), like)]
        else:
            rows = [draw.normal(like[1:], dtype) for draw in self._rows(like[0])]
        return torch.stack(rows)

    def uniform(self, n: int) -> Tensor:
        """(n,) uniform on [0, 1), float32, on the CPU; n must be the number of rows."""
        return torch.cat([draw.uniform(1) for draw in self._rows(n)])

    def integers(self, high: int, n: int) -> Tensor:
        """(n,) integers uniform on 0 … high−1, int64, on the CPU."""
        return torch.cat([draw.integers(high, 1) for draw in self._rows(n)])

    def choice(self, weights: Tensor, n: int) -> Tensor:
        """(n,) indices drawn with the given probabilities, int64, on the CPU."""
        return torch.cat([draw.choice(weights, 1) for draw in self._rows(n)])

    def _rows(self, n: int) -> list[Draw]:
        require(
            n == len(self.draws), f"Draws: {n} values asked of {len(self.draws)} rows: one a row"
        )
        return self.draws

    def shared(self, high: int) -> int:
        """One integer for the whole global batch: micro-batches and processes draw the same."""
        require(self.together is not None, "Draws: rows of their own have nothing to share")
        return self.together.shared(high)

    def copy(self) -> Draws:
        """A second `Draws` that will repeat what this one draws from here on."""
        together = None if self.together is None else self.together.copy()
        return Draws((draw.copy() for draw in self.draws), together)


def step_draws(seed: int, step: int, rows: Iterable[int]) -> Draws:
    """The draws of a training step for these rows of its *global* batch.

    Row r's numbers depend on (seed, step, r) alone, not on how the batch is cut into ranks and
    micro-batches: 1 × 8, 4 × 2 and two ranks of 4 see the same noise, and a resumed step sees
    what the lost one saw.

    >>> whole, half = step_draws(0, 7, range(4)), step_draws(0, 7, range(2, 4))
    >>> bool((whole.uniform(4)[2:] == half.uniform(2)).all())
    True
    """
    rows = (_seeded(np.random.SeedSequence((seed, step, row))) for row in rows)
    return Draws(rows, _seeded(np.random.SeedSequence((seed, step), spawn_key=(1,))))


def row_draws(seed: int, rows: Iterable[int]) -> Draws:
    """Draws for these rows of the data that depend on (seed, row) alone: the same noise for a
    row whenever it is looked at, and none that a training step sees.

    >>> both, second = row_draws(0, [3, 8]), row_draws(0, [8])
    >>> bool((both.uniform(2)[1:] == second.uniform(1)).all())
    True
    """
    draws = [_seeded(np.random.SeedSequence((seed, row), spawn_key=(0, 1))) for row in rows]
    return Draws(draws, _seeded(np.random.SeedSequence(seed, spawn_key=(0, 1))))


def _seeded(key: np.random.SeedSequence) -> Draw:
    return Draw(int(key.generate_state(1, np.uint64)[0] >> 1))
