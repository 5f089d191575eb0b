"""Memory that is not there, in one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LACKS = ("out of memory", "DefaultCPUAllocator", "STATUS_ALLOC_FAILED")
"""What torch's errors say that have no type of their own: of CUDA outside of torch's allocator,
of a CPU, of cuBLAS and cuDNN.
"""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the host, has no memory left.

    >>> lacks_memory(torch.OutOfMemoryError("CUDA out of memory.")), lacks_memory(ValueError("x"))
    (True, False)
    """
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in LACKS)
    )


@contextmanager
def within_memory(advice: str) -> Iterator[None]:
    """Raise ValueError, in one line with what to type, where memory runs out in this block."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        said = (str(error).splitlines() or [""])[0].split(" GPU ")[0].rstrip(". ")
        what = f"out of memory ({said})" if said else "out of memory"
        raise ValueError(f"{what}: {advice}") from error
