"""The captioned shapes as a model family: pixels are the latents, words the condition, and a
model trains in minutes on a CPU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dlib import Denoiser
from dlib._util import require
from full_scale.sources.pictures import fitted, pixels
from toy_data import shapes
from toy_data.shape_captions import LENGTH, NULL_TOKENS, tokens

FILE = "shapes_model.safetensors"


class TokensCall(nn.Module):
    """The toy network as a net of conditions by name: cond {"text": (B, L) int64}."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, time: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        return self.net(x, time, cond["text"])


@dataclass(frozen=True)
class Shapes:
    """16×16 pictures of captioned shapes: x0 is the picture itself, the condition its
    caption's words.
    """

    model: Denoiser
    licence: str | None = "MIT"

    @classmethod
    def open(cls, weights: str | None, device: torch.device, dtype: torch.dtype) -> Shapes:
        """From a folder that `save` wrote; None is the teacher that the book ships."""
        if weights is None:
            model = shapes.shapes_teacher()
        else:
            path = Path(weights).expanduser() / FILE
            require(
                path.is_file(),
                f"--weights {weights}: no {FILE} there; name a folder that full_scale.export "
                "wrote for this family, or use --tiny "
                "for the teacher that comes with the book",
            )
            model = shapes.new_teacher()
            model.net.load_state_dict(load_file(path))
        model.net.to(device)
        return cls(model)

    @property
    def net(self) -> nn.Module:
        return self.model.net

    @property
    def size(self) -> int:
        return shapes.SIDE

    @property
    def identity(self) -> dict[str, Any]:
        return {"family": "shapes", "side": shapes.SIDE, "words": LENGTH}

    def shape(self, size: int) -> tuple[int, ...]:
        """(3, 16, 16): the network has one size."""
        require(
            size == shapes.SIDE,
            f"--size {size}: this family's pictures have {shapes.SIDE} pixels a side",
        )
        return 3, shapes.SIDE, shapes.SIDE

    def encode_pictures(self, pictures: Sequence[Image.Image], size: int) -> Tensor:
        """(N, 3, 16, 16) in [−1, 1]."""
        return pixels([fitted(picture, size) for picture in pictures])

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (N, L) int64}. Raises ValueError for a word outside the grammar; the empty
        text is the null caption.
        """
        return {"text": tokens(texts)}

    def null(self, text: str = "") -> dict[str, Tensor]:
        return {"text": NULL_TOKENS if not text else tokens([text])[0]}

    def truncated(self, text: str) -> bool:
        """Never: a caption of the grammar fits."""
        return False

    def decode(self, latent: Tensor) -> Image.Image:
        """A picture (3, 16, 16), eightfold enlarged: pixels are meant to be seen."""
        small = Image.fromarray(shapes.to_uint8(latent[None].float().cpu())[0])
        return small.resize((8 * shapes.SIDE, 8 * shapes.SIDE), Image.Resampling.NEAREST)

    def denoiser(self, net: nn.Module | None = None) -> Denoiser:
        model = self.model
        return Denoiser(
            TokensCall(model.net if net is None else net),
            model.schedule,
            model.predicts,
            model.clock,
        )

    def stages(self, call: nn.Module) -> list[nn.Module]:
        """The transformer's blocks."""
        return list(call.net.blocks)

    def told_omega(self, call: nn.Module) -> nn.Module:
        raise ValueError(
            "family shapes: its network has no input for ω: use --method lcm, or --family sd"
        )

    def save(self, net: nn.Module, folder: Path) -> None:
        """The weights as one safetensors file, and what they are."""
        part = folder / f".{FILE}.part"
        save_file(
            {name: value.detach().contiguous().cpu() for name, value in net.state_dict().items()},
            part,
        )
        os.replace(part, folder / FILE)
        (folder / "shapes_model.json").write_text(json.dumps(shapes.TEACHER, indent=1) + "\n")
