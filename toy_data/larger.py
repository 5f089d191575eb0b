"""The optional larger rung: MNIST, Fashion-MNIST or CIFAR-10 from a folder of your own.

Nothing is downloaded. The files are read by torchvision, whose datasets expect them where
their authors' archives unpack; an error says which file goes where.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlib import NULL, Batch, Draw
from dlib._util import require

IDX = tuple(
    f"{part}-{kind}-ubyte"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
FILES = {
    "mnist": ("MNIST", "MNIST/raw", IDX),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw", IDX),
    "cifar10": (
        "CIFAR10",
        "cifar-10-batches-py",
        (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"),
    ),
}
"""Name ↦ torchvision's class, the folder below the root, and the files in it."""


def larger(name: str, root: str | Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(train, held out), each x0 (N, C, 32, 32) float32 in [−1, 1] and labels (N,) int64: the
    archives' own split.

    name: "mnist", "fashion_mnist" (C = 1, a border of two pixels of paper around 28 × 28) or
    "cifar10" (C = 3). root: the folder that holds torchvision's layout. Raises ValueError for
    an unknown name, and FileNotFoundError that says which files are wanted where.
    """
    require(name in FILES, f"larger: no data {name!r}; there are {', '.join(FILES)}")
    return _read(name, Path(root).expanduser())


@lru_cache
def _read(name: str, root: Path):
    kind, folder, files = FILES[name]
    missing = [file for file in files if not (root / folder / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{name} is not complete in {root}: {root / folder} lacks {', '.join(missing)}. "
            f"Unpack the data set's archive there (uncompressed files, {len(files)} in all)"
        )
    import torchvision.datasets  # a second or two: only who asks for it pays

    made = getattr(torchvision.datasets, kind)
    return tuple(_tensors(made(root, train=train, download=False)) for train in (True, False))


def _tensors(data) -> tuple[Tensor, Tensor]:
    values, labels = torch.as_tensor(np.array(data.data)), torch.as_tensor(data.targets)
    x0 = values.permute(0, 3, 1, 2) if values.ndim == 4 else values[:, None]
    border = (32 - x0.shape[-1]) // 2
    x0 = torch.nn.functional.pad(x0, 4 * (border,)).float() / 127.5 - 1
    return x0, labels.long()


def larger_batches(
    name: str, root: str | Path, batch: int, seed: int, drop: float = 0.15
) -> Callable[[int], Batch]:
    """step ↦ Batch of training pictures, as `digit_batches` makes them: cond = labels, a share
    `drop` of them `NULL`; a function of (seed, step) alone. Draws: rows, then drops.
    """
    (x0, labels), _ = larger(name, root)

    def at(step: int) -> Batch:
        draw = Draw(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))
        row, dropped = draw.integers(len(x0), batch), draw.uniform(batch) < drop
        return Batch(x0[row], torch.where(dropped, NULL, labels[row]))

    return at
