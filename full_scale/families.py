"""Model families: what preparing data, training, sampling and exporting ask of one, and Stable
Diffusion's answers.

A family is opened with `open_family`; a second one is a class with the members of `Family` and
a line in `FAMILIES`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from dlib import Denoiser
from dlib._util import require
from full_scale import sd
from full_scale.pictures import fitted, pixels
from full_scale.shapes import Shapes
from full_scale.sample import hush, opened
from full_scale.tiny import tiny_pipeline

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


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


@dataclass(frozen=True)
class StableDiffusion:
    """SD 1.x and 2.1: x0 is the VAE's latent times its scaling factor, the condition the text
    encoder's last hidden states.
    """

    pipe: StableDiffusionPipeline
    licence: str | None = None

    @classmethod
    def open(
        cls, weights: str | None, device: torch.device, dtype: torch.dtype
    ) -> StableDiffusion:
        """From a folder or a hub id; None is the random tiny pipeline. Raises ValueError as
        `weights.load` does.
        """
        if weights is None:
            hush()
            return cls(tiny_pipeline().to(device))
        return cls(*opened(SimpleNamespace(weights=weights, tiny=False), device, dtype))

    @property
    def net(self) -> nn.Module:
        return self.pipe.unet

    @property
    def size(self) -> int:
        return self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor

    @property
    def identity(self) -> dict[str, Any]:
        vae, text = self.pipe.vae.config, self.pipe.text_encoder
        return {
            "family": "sd",
            "pipeline": type(self.pipe).__name__,
            "latent_channels": vae.latent_channels,
            "pixels_per_latent": self.pipe.vae_scale_factor,
            "scaling_factor": vae.scaling_factor,
            "text_encoder": type(text).__name__,
            "text": [self.pipe.tokenizer.model_max_length, text.config.hidden_size],
        }

    def shape(self, size: int) -> tuple[int, ...]:
        """(4, h, w) of the latent of a picture of size × size pixels."""
        factor = self.pipe.vae_scale_factor
        require(
            size >= factor and size % factor == 0,
            f"--size {size}: wanted a multiple of {factor}; this network's own size is "
            f"{self.size}",
        )
        return self.pipe.vae.config.latent_channels, size // factor, size // factor

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Image.Image], size: int) -> Tensor:
        """Float32 latents (N, 4, h, w): the *mean* of the VAE's posterior times its scaling
        factor.

        The mean, not a sample: a picture has one latent, whichever run made it. Pictures of
        another size are scaled and cut as `fitted` says. The VAE must be float32, as
        `weights.load` leaves it.
        """
        vae = self.pipe.vae
        x = pixels([fitted(picture, size) for picture in pictures]).to(vae.device)
        return vae.encode(x).latent_dist.mode() * vae.config.scaling_factor

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (N, L, D)}. Longer texts are cut without a word: `truncated` tells which."""
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return sd.encode(self.pipe, texts)

    def null(self, text: str = "") -> dict[str, Tensor]:
        """The condition ∅ that guidance and dropout use, without a batch axis: {"text": (L,
        D)}.
        """
        return {name: rows[0] for name, rows in self.encode_texts([text]).items()}

    def truncated(self, text: str) -> bool:
        """Whether the text has more tokens than the text encoder reads."""
        return len(self.pipe.tokenizer(text).input_ids) > self.pipe.tokenizer.model_max_length

    def decode(self, latent: Tensor) -> Image.Image:
        """One latent (4, h, w) as a picture."""
        return sd.decode(self.pipe.vae, latent)

    def denoiser(self, net: nn.Module | None = None) -> Denoiser:
        """The pretrained U-Net, or a `net` of its kind, as a `Denoiser`. Raises ValueError if
        it is no teacher, or its prediction type unknown.
        """
        require(
            self.net.config.time_cond_proj_dim is None,
            "these weights are a distilled student that takes ω as an input, not a diffusion "
            "model: "
            "train from the weights that it was distilled from",
        )
        return sd.denoiser(self.net if net is None else net, self.pipe.scheduler.config)

    def stages(self, call: nn.Module) -> list[nn.Module]:
        """The parts of a `UNetCall` whose outputs a discriminator reads."""
        return [*call.unet.down_blocks, call.unet.mid_block, *call.unet.up_blocks]

    def told_omega(self, call: nn.Module) -> nn.Module:
        """A copy of a `UNetCall` that is also told ω, by its condition's "omega"; at first it
        does not listen.
        """
        return sd.told_omega(call)

    def save(self, net: nn.Module, folder: Path) -> None:
        """A folder in diffusers' format: this pipeline with `net` for its U-Net."""
        type(self.pipe)(
            **{**self.pipe.components, "unet": net}, requires_safety_checker=False
        ).save_pretrained(folder)


FAMILIES = {"sd": StableDiffusion, "shapes": Shapes}


def open_family(
    name: str, weights: str | None, device: torch.device, dtype: torch.dtype = torch.float32
) -> Family:
    """The family `name` with its pretrained weights; `weights` None opens a random tiny one,
    offline.
    """
    require(name in FAMILIES, f"--family {name}: no such family; there are {', '.join(FAMILIES)}")
    return FAMILIES[name].open(weights, device, dtype)
