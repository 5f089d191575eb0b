"""Weights into safetensors files, and a full disk in the words of the system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise what the system says of a safetensors file in this block, a full disk above all, as
    the OSError that it is: safetensors has a type of its own, with the number in its text.
    """
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"\b(?:os error|code:) (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def save_tensors(
    values: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Tensors from any device and graph as one safetensors file. OSError names it where it
    cannot be written.
    """
    values = {name: value.detach().contiguous().cpu() for name, value in values.items()}
    with writing(path):
        save_file(values, path, dict(metadata) if metadata else None)
