"""Captions as tensors, for a reward that reads words: they travel with a batch's condition, and
networks do not look at them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BYTES = 512
"""Kept of a caption: more than any text encoder reads."""
NAME = "caption"
"""Under which a condition holds them."""


def packed(texts: Sequence[str]) -> Tensor:
    """(B, 512) uint8: each text in UTF-8, cut at a letter, filled with zeros.

    >>> unpacked(packed(["a cat", ""]))
    ['a cat', '']
    """
    rows = torch.zeros(len(texts), BYTES, dtype=torch.uint8)
    for row, text in zip(rows, texts):
        said = text.encode("utf-8", "replace")[:BYTES].decode("utf-8", "ignore").encode()
        row[: len(said)] = torch.tensor(list(said), dtype=torch.uint8)
    return rows


def unpacked(rows: Tensor) -> list[str]:
    """The texts again."""
    return [bytes(row).rstrip(b"\0").decode() for row in rows.cpu().tolist()]
