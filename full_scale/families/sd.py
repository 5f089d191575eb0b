"""Stable Diffusion as the book's nouns: its U-Net is a `Denoiser`, its prompts are conditions,
its latents are x.

For pipelines of the classes of SD 1.x (predicts ε) and SD 2.1 (predicts v). Everything that
samples or trains is `dlib`'s.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from dlib import Denoiser, NoiseSchedule, discrete
from dlib._util import require
from full_scale.families.tiny import tiny_pipeline
from full_scale.families.weights import hush, opened
from full_scale.sources.pictures import fitted, pixels

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

PREDICTS = {"epsilon": "eps", "v_prediction": "v"}


class UNetCall(nn.Module):
    """diffusers' U-Net as a net (x, time, cond) ↦ raw: the module that is wrapped, compiled
    and exported.

    x (B, 4, h, w) in any dtype, time (B,), cond {"text": (B, L, D)}, and "omega" (B,) for a
    network that is told ω. The U-Net runs in its weights' dtype; time stays float32 (bfloat16
    cannot hold 999), and the output returns in x's dtype, so guidance is computed in x's
    precision.
    """

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, time: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        dtype = self.unet.conv_in.weight.dtype
        told = (
            embedded(cond["omega"], self.unet.config.time_cond_proj_dim).to(dtype)
            if "omega" in cond
            else None
        )
        return self.unet(
            x.to(dtype), time, encoder_hidden_states=cond["text"].to(dtype), timestep_cond=told
        ).sample.to(x.dtype)


def embedded(omega: Tensor, dim: int) -> Tensor:
    """ω (B,) as sines and cosines (B, dim) of 1000 ω, at the frequencies 10000^{−k/(dim/2−1)}:
    what diffusers' pipelines feed.
    """
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=omega.device) * (-math.log(10000.0) / (half - 1)))
    angle = 1000.0 * omega[:, None].float() * rates
    return torch.cat([angle.sin(), angle.cos()], 1)


def told_omega(call: UNetCall, dim: int = 256) -> UNetCall:
    """A copy whose U-Net takes ω: `time_cond_proj_dim` in diffusers' words. Its new weights
    are 0, so at first ω changes nothing.
    """
    new = copy.deepcopy(call)
    unet = new.unet
    unet.time_embedding.cond_proj = nn.Linear(dim, unet.conv_in.out_channels, bias=False).to(
        unet.conv_in.weight
    )
    nn.init.zeros_(unet.time_embedding.cond_proj.weight)
    unet.register_to_config(time_cond_proj_dim=dim)
    return new


def denoiser(unet: nn.Module, scheduler_config: Mapping[str, Any]) -> Denoiser:
    """The U-Net with the schedule it was trained on, what it predicts, and its clock t ↦ N·t −
    1 (N = 1000).

    scheduler_config: `pipeline.scheduler.config`. Index n of the trained ladder sits at t = (n
    + 1)/N; times between indices reach the U-Net as fractions, which its sinusoidal embedding
    takes.
    """
    kind, steps = scheduler_config["prediction_type"], scheduler_config["num_train_timesteps"]
    require(
        kind in PREDICTS,
        f"denoiser: prediction_type {kind!r} in the scheduler's config; this adapter knows "
        f"{' and '.join(PREDICTS)} (SD 1.x and 2.x): use weights of one of these families",
    )
    return Denoiser(
        UNetCall(unet),
        trained_schedule(scheduler_config),
        PREDICTS[kind],
        clock=lambda t: steps * t - 1,
    )


def trained_schedule(scheduler_config: Mapping[str, Any]) -> NoiseSchedule:
    """The ladder ᾱ_n that diffusers builds from this configuration, as a `discrete` schedule."""
    from diffusers import DDPMScheduler

    require(
        not scheduler_config.get("rescale_betas_zero_snr"),
        "denoiser: these weights were trained with zero terminal SNR "
        "(rescale_betas_zero_snr is true), where λ = −∞ at t = 1 and a discrete schedule has "
        "no level: use other weights",
    )
    wanted = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    return discrete(
        DDPMScheduler(
            **{key: scheduler_config[key] for key in wanted if key in scheduler_config}
        ).alphas_cumprod
    )


@torch.no_grad()
def encode(pipe: StableDiffusionPipeline, texts: Sequence[str]) -> dict[str, Tensor]:
    """The condition {"text": (B, L, D)} for a list of prompts: the text encoder's last hidden
    states, padded to L.
    """
    length = pipe.tokenizer.model_max_length
    for text in texts:
        count = len(pipe.tokenizer(text).input_ids)
        if count > length:
            warnings.warn(
                f"prompt of {count} tokens: the text encoder reads {length}, the rest is cut "
                f"off: {text!r}",
                stacklevel=2,
            )
    tokens = pipe.tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return {"text": pipe.text_encoder(tokens.input_ids.to(pipe.text_encoder.device))[0]}


@torch.no_grad()
def decode(vae: nn.Module, latent: Tensor) -> Image.Image:
    """One latent (4, h, w) as a picture, in the VAE's dtype: x ↦ decoder(x / scaling_factor),
    then [−1, 1] to 8 bits.
    """
    pixels = vae.decode((latent[None] / vae.config.scaling_factor).to(vae.dtype)).sample[0]
    pixels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def censored(
    pipe: StableDiffusionPipeline, pictures: Sequence[Image.Image]
) -> tuple[list[Image.Image], list[bool]]:
    """The pictures, those black that the weights' own safety checker flags, and which they
    are. No checker, no flag.
    """
    if pipe.safety_checker is None:
        return list(pictures), [False] * len(pictures)
    checker = pipe.safety_checker
    pixels = pipe.feature_extractor(list(pictures), return_tensors="pt").pixel_values.to(
        checker.device, checker.dtype
    )
    _, flags = checker(clip_input=pixels, images=torch.zeros(len(pictures)))
    return [
        Image.new("RGB", picture.size) if flag else picture
        for picture, flag in zip(pictures, flags)
    ], flags


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
        return cls(*opened(weights, device, dtype))

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
            return encode(self.pipe, texts)

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
        return decode(self.pipe.vae, latent)

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
        return denoiser(self.net if net is None else net, self.pipe.scheduler.config)

    def stages(self, call: nn.Module) -> list[nn.Module]:
        """The parts of a `UNetCall` whose outputs a discriminator reads."""
        return [*call.unet.down_blocks, call.unet.mid_block, *call.unet.up_blocks]

    def told_omega(self, call: nn.Module) -> nn.Module:
        """A copy of a `UNetCall` that is also told ω, by its condition's "omega"; at first it
        does not listen.
        """
        return told_omega(call)

    def save(self, net: nn.Module, folder: Path) -> None:
        """A folder in diffusers' format: this pipeline with `net` for its U-Net."""
        type(self.pipe)(
            **{**self.pipe.components, "unet": net}, requires_safety_checker=False
        ).save_pretrained(folder)
