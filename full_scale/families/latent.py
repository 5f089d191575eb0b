"""What families share that denoise a VAE's latents, in a pipeline of diffusers: all but their
texts. Unless they say otherwise the network is a U-Net.
"""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from dlib import Denoiser
from dlib._util import require
from full_scale.families import unet
from full_scale.families.base import META, OWN, Blueprint, Family, Stock
from full_scale.families.saving import writing
from full_scale.families.weights import Weights, add_lora, hush, load, read_config
from full_scale.sources.pictures import fitted, pixels

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin


@dataclass(frozen=True)
class LatentPipeline(Family):
    """A pipeline of diffusers with a network, a VAE and text encoders: x0 is the VAE's latent,
    moved and scaled as its configuration says.
    """

    pipe: DiffusionPipeline
    licence: str | None = None

    kind: ClassVar[Weights]
    """What its weights are called and made of."""
    network: ClassVar[str] = "UNet2DConditionModel"
    """The class of diffusers that denoises."""
    x0_is: ClassVar[str] = "mean of the VAE's posterior times its scaling factor"
    tiny_is: ClassVar[str] = "random tiny weights"
    stock: ClassVar[Mapping[str, Stock]] = unet.STOCK
    lora_prefix: ClassVar[str] = "unet"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self):
        for name, part in self.pipe.components.items():
            if isinstance(part, nn.Module) and name != self.kind.core:
                part.requires_grad_(False)  # a gradient passes through a VAE, and stays in none

    @classmethod
    @abstractmethod
    def tiny_pipeline(cls) -> DiffusionPipeline:
        """With random but fixed weights, on the CPU."""

    @classmethod
    @abstractmethod
    def call(cls, net: nn.Module) -> nn.Module:
        """A network of this kind as a net (x, time, cond) ↦ raw."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The condition for each text; longer ones are cut without a word."""

    @classmethod
    @abstractmethod
    def empty(
        cls, config: Mapping[str, Any], read: Callable[[str], Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        """∅ on the meta device. read: a configuration file's name ↦ what is in it."""

    @classmethod
    def open(cls, weights: str, device: torch.device, dtype: torch.dtype) -> LatentPipeline:
        """From a folder or a hub id. Raises ValueError as `load` does."""
        hush()
        return cls(*load(cls.kind, weights, device, dtype))

    @classmethod
    def tiny(cls, device: torch.device, dtype: torch.dtype) -> LatentPipeline:
        """Random weights, in the dtypes that `open` gives."""
        hush()
        pipe = cls.tiny_pipeline()
        for name, part in pipe.components.items():
            if isinstance(part, nn.Module) and name != "vae" and part.dtype != dtype:
                part.to(dtype)
        return cls(pipe.to(device))

    @classmethod
    def blueprint(cls, weights: str | None) -> Blueprint:
        """From configuration files of a few kilobytes, or of the tiny one."""
        if weights is None:
            return super().blueprint(None)
        import diffusers

        read = partial(read_config, cls.kind, weights)
        config, scheduler = (
            read(f"{cls.kind.core}/config.json"),
            read("scheduler/scheduler_config.json"),
        )
        with META:
            net = getattr(diffusers, cls.network).from_config(config).eval()
        sides = config["in_channels"], config["sample_size"], config["sample_size"]
        base = cls.meaning(cls.call(net), scheduler)

        @cache
        def vae() -> nn.Module:  # asked for by rewards alone
            with META:
                made = diffusers.AutoencoderKL.from_config(read("vae/config.json"))
            return made.eval().requires_grad_(False)

        pictures = lambda x0: decoded(vae(), x0)
        return Blueprint(cls, base, sides, cls.empty(config, read), pictures)

    @classmethod
    def side(cls, weights: str | None) -> int:
        """From a folder's configuration; of a hub id, and of a folder that cannot be opened, as
        large as any.
        """
        with suppress(ValueError, KeyError, TypeError):
            if weights and Path(weights).expanduser().is_dir():
                blocks = read_config(cls.kind, weights, "vae/config.json")["block_out_channels"]
                core = read_config(cls.kind, weights, f"{cls.kind.core}/config.json")
                return core["sample_size"] * 2 ** (len(blocks) - 1)
        return super().side(weights)

    @property
    def net(self) -> nn.Module:
        return getattr(self.pipe, self.kind.core)

    @property
    def size(self) -> int:
        return self.net.config.sample_size * self.pipe.vae_scale_factor

    @property
    def told(self) -> bool:
        return self.net.config.get("time_cond_proj_dim") is not None

    @property
    def identity(self) -> dict[str, Any]:
        vae = self.pipe.vae.config
        return {
            "family": self.name,
            "pipeline": type(self.pipe).__name__,
            "latent_channels": vae.latent_channels,
            "pixels_per_latent": self.pipe.vae_scale_factor,
            "scaling_factor": vae.scaling_factor,
        }

    def shape(self, height: int, width: int | None = None) -> tuple[int, ...]:
        """(4, h, w) of the latent."""
        width, factor = height if width is None else width, self.pipe.vae_scale_factor
        require(
            all(side >= factor and side % factor == 0 for side in (height, width)),
            f"pictures of {height} × {width} pixels (height × width): wanted positive multiples "
            f"of {factor}; this network's own size is {self.size}",
        )
        return self.pipe.vae.config.latent_channels, height // factor, width // factor

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Image.Image], size: int) -> Tensor:
        """Float32 latents (N, 4, h, w): the *mean* of the VAE's posterior, moved and scaled.

        The mean, not a sample: a picture has one latent, whichever run made it. The VAE must
        be float32, as `load` leaves it.
        """
        vae = self.pipe.vae
        x = pixels([fitted(picture, size) for picture in pictures]).to(vae.device)
        shift, scale = affine(vae)
        return (vae.encode(x).latent_dist.mode() - shift) * scale

    def pixels(self, x0: Tensor) -> Tensor:
        """The VAE's decoder, in the VAE's dtype, on x0 moved and scaled back."""
        return decoded(self.pipe.vae, x0)

    def outlined(self) -> Callable[[Tensor], Tensor]:
        return partial(decoded, copy.deepcopy(self.pipe.vae).to(META))

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        for text in texts:
            count, most = self._counts(text)
            if count > most:
                warnings.warn(
                    f"prompt of {count} tokens: the text encoder reads {most}, the rest is cut "
                    f"off: {text!r}",
                    stacklevel=2,
                )
        return self.encode(texts)

    def truncated(self, text: str) -> bool:
        count, most = self._counts(text)
        return count > most

    def _counts(self, text: str) -> tuple[int, int]:
        """How many tokens a text has, and how many are read, where the difference is largest."""
        found = [(len(each(text).input_ids), each.model_max_length) for each in self.tokenizers()]
        return max(found, key=lambda counts: counts[0] - counts[1])

    def tokenizers(self) -> Iterator[Any]:
        """The pipeline's."""
        return (part for name, part in self.pipe.components.items() if "tokenizer" in name)

    def denoiser(self, net: nn.Module | None = None) -> Denoiser:
        """The pretrained network, or a `net` of its kind. Raises ValueError for a formulation
        that is not known.
        """
        call = self.call(self.net if net is None else net)
        return self.meaning(call, self.pipe.scheduler.config)

    @staticmethod
    def meaning(call: nn.Module, scheduler_config: Mapping[str, Any]) -> Denoiser:
        """What the network predicts, on which schedule; of a U-Net on a ladder of ᾱ."""
        return unet.denoiser(call, scheduler_config)

    @staticmethod
    def stages(call: nn.Module) -> list[nn.Module]:
        """The blocks of a `UNetCall`."""
        return [*call.unet.down_blocks, call.unet.mid_block, *call.unet.up_blocks]

    @classmethod
    def told_omega(cls, call: nn.Module) -> nn.Module:
        return unet.told_omega(call)

    def with_net(self, net: nn.Module) -> LatentPipeline:
        pipe = copy.copy(self.pipe)
        pipe.register_modules(**{self.kind.core: net})
        return replace(self, pipe=pipe)

    def add_lora(self, file: Path, keep: float = 1.0, flag: str = "--lora") -> None:
        if (
            self.pipe.get_active_adapters()
        ):  # one is there already: it becomes part of the weights
            self.pipe.fuse_lora(lora_scale=keep)
            self.pipe.unload_lora_weights()
        add_lora(self.pipe, file, flag)

    def scheduler(self, name: str, more: Mapping[str, Any]) -> SchedulerMixin:
        """diffusers' scheduler of this class, with these settings, on the noise levels of the
        weights' own; "" is their own.
        """
        import diffusers

        own = self.pipe.scheduler
        return getattr(diffusers, name).from_config(own.config, **more) if name else own

    def save(
        self, net: nn.Module, folder: Path, scheduler: tuple[str, Mapping[str, Any]] = OWN
    ) -> None:
        """A folder in diffusers' format: this pipeline with `net` for its U-Net."""
        pipe = self.with_net(net).pipe
        pipe.register_modules(scheduler=self.scheduler(*scheduler))
        with writing(folder):
            pipe.save_pretrained(folder)


def decoded(vae: nn.Module, x0: Tensor) -> Tensor:
    """The pictures of x0."""
    shift, scale = affine(vae)
    return vae.decode((x0 / scale + shift).to(vae.dtype)).sample


def affine(vae: nn.Module) -> tuple[Tensor | float, Tensor | float]:
    """(shift, scale) with x0 = (z − shift) · scale: numbers, or one a channel (C, 1, 1) where
    the VAE's configuration has means and standard deviations.
    """
    own = vae.config
    if own.get("latents_mean") is None:
        return own.get("shift_factor") or 0.0, own.scaling_factor
    mean, std = (
        torch.tensor(own[name], device=vae.device).view(-1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    return mean, own.scaling_factor / std
