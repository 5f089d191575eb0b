"""The captioned shapes as a model family: pixels are the latents, words the condition, and a
model trains in minutes on a CPU.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from dlib import Denoiser
from dlib._util import require
from dlib.nets import DiT, Told
from full_scale.families.base import OWN, Family
from full_scale.families.saving import save_tensors
from full_scale.sources.broken import broken
from full_scale.sources.pictures import fitted, pixels
from toy_data import shapes
from toy_data.shape_captions import LENGTH, tokens

FILE = "shapes_model.safetensors"
ENLARGED = 8
"""How many pixels a side one of a picture becomes, to be looked at."""


class TokensCall(nn.Module):
    """The toy network as a net of conditions by name: cond {"text": (B, L) int64}, and "omega"
    (B,) for one that is told ω. It computes in its weights' dtype; time stays float32, and the
    output returns in x's dtype.
    """

    def __init__(self, net: DiT | Told):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, time: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        dtype = next(self.net.parameters()).dtype
        given = cond["text"]
        if isinstance(self.net, Told):
            given = {"cond": given, "omega": cond["omega"]}
        if dtype == torch.float32 or x.is_meta:  # meta tensors, of the estimate, cannot autocast
            return self.net(x, time, given)
        with torch.autocast(x.device.type, dtype):
            return self.net(x, time, given).to(x.dtype)


@dataclass(frozen=True)
class Shapes(Family):
    """16×16 pictures of captioned shapes: x0 is the picture itself, the condition its
    caption's words.
    """

    model: Denoiser
    licence: str | None = "MIT"

    name: ClassVar[str] = "shapes"
    x0_is: ClassVar[str] = "the pictures themselves, in [-1, 1]"
    tiny_is: ClassVar[str] = "the book's teacher of the family shapes"
    weights_are: ClassVar[str] = "FOLDER (what full_scale.export wrote for this family)"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out")
    prompts: ClassVar[tuple[str, ...]] = (
        "a red circle",
        "a small green triangle",
        "a large blue square above a yellow circle",
        "a red triangle left of a green square",
    )

    @classmethod
    def open(cls, weights: str, device: torch.device, dtype: torch.dtype) -> Shapes:
        """From a folder that `save` wrote; the network stays in float32."""
        path = Path(weights).expanduser() / FILE
        require(
            path.is_file(),
            f"--weights {weights}: no {FILE} there; name a folder that full_scale.export "
            "wrote for this family, or use --tiny "
            "for the teacher that comes with the book",
        )
        what = broken(path.parent)
        require(not what, f"--weights: {what}: copy or export it again")
        found, model = load_file(path), shapes.new_teacher()
        if "read.weight" in found:  # ω's layer, which a `Told` has beside its network
            model = replace(model, net=Told(model.net))
        model.net.load_state_dict(found)
        model.net.to(device)
        return cls(model)

    @classmethod
    def tiny(cls, device: torch.device, dtype: torch.dtype) -> Shapes:
        """The teacher that the book ships, in float32."""
        model = shapes.shapes_teacher()
        model.net.to(device)
        return cls(model)

    @classmethod
    def side(cls, weights: str | None) -> int:
        return ENLARGED * shapes.SIDE

    @property
    def net(self) -> nn.Module:
        return self.model.net

    @property
    def size(self) -> int:
        return shapes.SIDE

    @property
    def told(self) -> bool:
        return isinstance(self.net, Told)

    @property
    def identity(self) -> dict[str, Any]:
        return {"family": "shapes", "side": shapes.SIDE, "words": LENGTH}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

    def shape(self, height: int, width: int | None = None) -> tuple[int, ...]:
        """(3, 16, 16): the network has one size."""
        width = height if width is None else width
        require(
            height == width == shapes.SIDE,
            f"pictures of {height} × {width} pixels (height × width): this family's have "
            f"{shapes.SIDE} pixels a side",
        )
        return 3, shapes.SIDE, shapes.SIDE

    def encode_pictures(self, pictures: Sequence[Image.Image], size: int) -> Tensor:
        """(N, 3, 16, 16) in [−1, 1]."""
        return pixels([fitted(picture, size) for picture in pictures]).to(self.device)

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (N, L) int64}. Raises ValueError for a word outside the grammar; the empty
        text is the null caption.
        """
        return {"text": tokens(texts).to(self.device)}

    def truncated(self, text: str) -> bool:
        """Never: a caption of the grammar fits."""
        return False

    def pixels(self, x0: Tensor) -> Tensor:
        """x0 itself."""
        return x0

    def decode(self, x0: Tensor) -> Image.Image:
        """A picture, eightfold enlarged: pixels are meant to be seen."""
        small = super().decode(x0)
        return small.resize((self.side(None),) * 2, Image.Resampling.NEAREST)

    def denoiser(self, net: nn.Module | None = None) -> Denoiser:
        model = self.model
        return Denoiser(
            TokensCall(model.net if net is None else net),
            model.schedule,
            model.predicts,
            model.clock,
        )

    @staticmethod
    def stages(call: nn.Module) -> list[nn.Module]:
        """The transformer's blocks."""
        return list(call.net.blocks)

    @classmethod
    def told_omega(cls, call: nn.Module) -> nn.Module:
        """With `dlib.nets.Told` around the network."""
        if isinstance(call.net, Told):
            return copy.deepcopy(call)
        return TokensCall(Told(call.net).to(next(call.parameters())))

    def with_net(self, net: nn.Module) -> Shapes:
        return replace(self, model=replace(self.model, net=net))

    def save(
        self, net: nn.Module, folder: Path, scheduler: tuple[str, Mapping[str, Any]] = OWN
    ) -> None:
        """The weights as one safetensors file, and what they are. A scheduler has no place
        there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{FILE}.part"
        save_tensors(net.state_dict(), part)
        os.replace(part, folder / FILE)
        (folder / "shapes_model.json").write_text(json.dumps(shapes.TEACHER, indent=1) + "\n")
