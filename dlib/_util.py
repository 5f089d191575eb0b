"""The random draws, and the checks that every public border shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor


class Draw:
    """Random numbers as an argument: a CPU generator whose order of draws is the order of the
    calls.

    Values are drawn on the CPU in float32 and then moved, so one seed means one noise on every
    device and in every dtype. Hand the same `Draw` on and the sequence continues; `copy()`
    replays it from where it stands.

    >>> draw = Draw(0); replay = draw.copy()
    >>> x = draw.normal((4, 2))
    >>> bool((x == replay.normal(torch.zeros(4, 2))).all())
    True
    """

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, like: Tensor | Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal with the shape, dtype and device of a tensor; or of a shape, in
        `dtype` (float32 unless given), on the CPU. The numbers are the same either way.

        >>> Draw(0).normal((256, 2), torch.float64).shape
        torch.Size([256, 2])
        """
        if not isinstance(like, Tensor):
            noise = torch.randn(_sides(like), generator=self.generator)
            return noise.to(dtype or torch.float32)
        require(
            dtype is None,
            f"Draw.normal: a tensor has its own dtype, {like.dtype}: leave dtype out, or pass a "
            f"shape: normal({tuple(like.shape)}, {dtype})",
        )
        noise = torch.randn(like.shape, generator=self.generator, pin_memory=like.is_cuda)
        # from pinned memory: the copy does not stall the GPU
        return noise.to(like, non_blocking=True)

    def uniform(self, n: int) -> Tensor:
        """(n,) uniform on [0, 1), float32, on the CPU."""
        return torch.rand(n, generator=self.generator)

    def integers(self, high: int, n: int) -> Tensor:
        """(n,) integers uniform on 0 … high−1, int64, on the CPU."""
        return torch.randint(high, (n,), generator=self.generator)

    def choice(self, weights: Tensor, n: int) -> Tensor:
        """(n,) indices drawn with the given probabilities, int64, on the CPU."""
        return torch.multinomial(
            weights.double().cpu(), n, replacement=True, generator=self.generator
        )

    def shared(self, high: int) -> int:
        """One integer uniform on 0 … high−1 for all rows: where a batch is cut into
        micro-batches and ranks, every part of it draws the same.
        """
        return int(self.integers(high, 1))

    def copy(self) -> Draw:
        """A second `Draw` that will repeat what this one draws from here on."""
        twin = Draw(0)
        twin.generator.set_state(self.generator.get_state())
        return twin


def _sides(shape: Sequence[int]) -> tuple[int, ...]:
    require(
        isinstance(shape, Sequence) and all(isinstance(side, Integral) for side in shape),
        f"Draw.normal: got {shape!r}, wanted a tensor or a shape, a tuple of whole numbers: "
        "normal((256, 2))",
    )
    return tuple(shape)


def require(ok: bool, message: str) -> None:
    """Raise `ValueError(message)` unless `ok`. Messages say what was given, what was wanted
    and what to type.
    """
    if not ok:
        raise ValueError(message)


def alike(verb: str, a: Tensor, b: Tensor) -> None:
    """ValueError, in the name of `verb`, unless two tensors have one shape: nothing is
    broadcast.
    """
    require(
        a.shape == b.shape,
        f"{verb}: shapes {tuple(a.shape)} and {tuple(b.shape)}, wanted the same twice",
    )


def per_sample(t: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, …) so that it broadcasts against `like` (B, *shape)."""
    return t.reshape(-1, *(1,) * (like.ndim - 1))


def spread(t: Tensor, like: Tensor, per: str) -> Tensor:
    """Times shaped to broadcast against `like`: one a sample, (B,) → (B, 1, …), or one a
    frame, (B, F) → (B, F, 1, …). ValueError, saying what to type, for any other shape.
    """
    require(per in ("sample", "frame"), f"at: per = {per!r}, wanted 'sample' or 'frame'")
    axes = 1 if per == "sample" else 2
    require(
        like.ndim >= 3 or per == "sample",
        f"at: x has shape {tuple(like.shape)}, wanted (B, F, …) with values behind the frames: "
        "for one value a frame, x[:, :, None]",
    )
    if t.ndim == axes and t.shape == like.shape[:axes]:
        return t.reshape(*t.shape, *(1,) * (like.ndim - axes))
    require(
        per == "sample" and t.numel() == 1,
        f"at: times of shape {tuple(t.shape)} for x {tuple(like.shape)}: one a sample is "
        f"{tuple(like.shape[:1])}; one a frame is {tuple(like.shape[:2])} and wants "
        "per='frame', e.g. schedule.at(t, like=x, per='frame')",
    )
    return t.reshape((1,) * like.ndim)


def tensors(cond: Any) -> dict[str, Tensor]:
    """The tensors of a condition by name; a condition is None, a tensor or a mapping of
    tensors with a batch axis.
    """
    if isinstance(cond, Tensor):
        return {"cond": cond}
    if isinstance(cond, Mapping):
        return {
            f"cond[{key!r}]": value for key, value in cond.items() if isinstance(value, Tensor)
        }
    return {}


def sent(values: Tensor, like: Tensor) -> Tensor:
    """Numbers drawn or computed on the CPU, on the device of `like` and in its dtype, at least
    float32; the CPU does not wait.
    """
    values = values.to(torch.promote_types(like.dtype, torch.float32))
    return (
        values.pin_memory().to(like.device, non_blocking=True)
        if like.is_cuda
        else values.to(like.device)
    )
