"""What preparing data, training, sampling and exporting ask of a kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from dlib import Denoiser


class Family(Protocol):
    """A kind of model: what x0 and the condition are, and the network to train. Tensors live
    on its device.
    """

    licence: str | None
    net: nn.Module
    """The pretrained network: what is trained, wrapped and exported."""
    size: int
    """Pixels a side of the network's own pictures."""
    identity: dict[str, Any]
    """What prepared data must agree with, in JSON types: two families with equal identities
    can read each other's data.
    """

    def shape(self, size: int) -> tuple[int, ...]: ...
    def encode_pictures(self, pictures: Sequence[Image.Image], size: int) -> Tensor: ...
    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]: ...
    def null(self, text: str = "") -> dict[str, Tensor]: ...
    def truncated(self, text: str) -> bool: ...
    def decode(self, latent: Tensor) -> Image.Image: ...
    def denoiser(self, net: nn.Module | None = None) -> Denoiser: ...
    def stages(self, call: nn.Module) -> list[nn.Module]: ...
    def told_omega(self, call: nn.Module) -> nn.Module: ...
    def save(self, net: nn.Module, folder: Path) -> None: ...
