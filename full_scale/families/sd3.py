"""Stable Diffusion 3: a transformer in which texts and picture are one sequence (MMDiT), trained
by flow matching on straight paths, with three text encoders (Esser et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dlib import Denoiser, NoiseSchedule, flow
from dlib._util import require
from full_scale.families import tiny
from full_scale.families.base import META, Stock, deaf
from full_scale.families.latent import LatentPipeline
from full_scale.families.weights import Weights

if TYPE_CHECKING:
    from diffusers import StableDiffusion3Pipeline

MEDIUM = "stabilityai/stable-diffusion-3.5-medium"
LONGEST = 256
"""Tokens that T5 reads, as diffusers' pipeline asks it by default."""


class TransformerCall(nn.Module):
    """diffusers' SD3 transformer as a net (x, time, cond) ↦ raw, cond {"text": (B, L, D),
    "pooled": (B, P)}. It runs in its weights' dtype; time stays float32.
    """

    def __init__(self, transformer: nn.Module):
        super().__init__()
        self.transformer = transformer

    def forward(self, x: Tensor, time: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        dtype = self.transformer.proj_out.weight.dtype
        return self.transformer(
            hidden_states=x.to(dtype),
            timestep=time,
            encoder_hidden_states=cond["text"].to(dtype),
            pooled_projections=cond["pooled"].to(dtype),
        ).sample.to(x.dtype)


@dataclass(frozen=True)
class StableDiffusion3(LatentPipeline):
    """SD3 and 3.5: the network predicts dx/dt = ε − x0 at time 1000 t. The condition is both
    CLIP encoders' last hidden states but one, side by side and padded with zeros to T5's width,
    then T5's; and both pooled embeddings. Weights without T5 have zeros in its place.
    """

    pipe: StableDiffusion3Pipeline

    name: ClassVar[str] = "sd3"
    pipeline: ClassVar[str] = "StableDiffusion3Pipeline"
    network: ClassVar[str] = "SD3Transformer2DModel"
    weights_are: ClassVar[str] = f"FOLDER_OR_HUB_ID (e.g. {MEDIUM})"
    stock: ClassVar[Mapping[str, Stock]] = {}  # no trained indices
    lora_prefix: ClassVar[str] = "transformer"
    kind: ClassVar[Weights] = Weights(
        pipeline,
        (
            *("transformer", "vae", "text_encoder", "text_encoder_2"),
            *("tokenizer", "tokenizer_2", "scheduler"),
        ),
        "Stable Diffusion 3 and 3.5",
        MEDIUM,
        f"{MEDIUM} is 16 GB and asks for an account",
        "transformer",
        ("text_encoder_3", "tokenizer_3"),
    )

    @classmethod
    def tiny_pipeline(cls) -> StableDiffusion3Pipeline:
        """128 px pictures, 16×16×4 latents, 16 + 16 tokens of width 64, a pooled embedding of
        64.
        """
        from diffusers import (
            FlowMatchEulerDiscreteScheduler,
            SD3Transformer2DModel,
            StableDiffusion3Pipeline,
        )
        from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = SD3Transformer2DModel(
                sample_size=16,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=64,
                caption_projection_dim=32,
                pooled_projection_dim=64,
                pos_embed_max_size=24,
                qk_norm="rms_norm",
            )
            for part in net.modules():  # a new MMDiT answers with its biases alone
                if isinstance(part, nn.Linear):
                    nn.init.normal_(part.weight, std=0.1)
            t5 = T5Config(
                vocab_size=98,
                d_model=64,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
            )
            parts = {
                "transformer": net,
                "vae": tiny.vae(scaling_factor=1.5305, shift_factor=0.0609),
                "text_encoder": CLIPTextModelWithProjection(
                    tiny.text_config(24, projection_dim=24)
                ),
                "text_encoder_2": CLIPTextModelWithProjection(
                    tiny.text_config(32, hidden_act="gelu", projection_dim=40)
                ),
                "text_encoder_3": T5EncoderModel(t5),
            }
        return StableDiffusion3Pipeline(
            **{name: part.eval() for name, part in parts.items()},
            tokenizer=tiny.tokenizer(),
            tokenizer_2=tiny.tokenizer(pad_token="!"),
            tokenizer_3=tiny.t5_tokenizer(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )

    @classmethod
    def schedule(cls) -> NoiseSchedule:
        return flow()

    @classmethod
    def call(cls, net: nn.Module) -> TransformerCall:
        return TransformerCall(net)

    @staticmethod
    def meaning(call: nn.Module, scheduler_config: Mapping[str, Any]) -> Denoiser:
        """Straight paths, and times counted to 1000. The scheduler's shift concerns the grid
        that a sampler walks on (`sd3` of `dlib.grid` is 3), not the network.
        """
        kind = scheduler_config.get("_class_name", "one without a name")
        require(
            "shift" in scheduler_config,
            f"denoiser: the scheduler is {kind} and states no shift, so it is not one of flow "
            "matching, by which Stable Diffusion 3 was trained: use weights as published",
        )
        steps = scheduler_config["num_train_timesteps"]
        return Denoiser(call, StableDiffusion3.schedule(), "velocity", clock=lambda t: steps * t)

    @classmethod
    def empty(
        cls, config: Mapping[str, Any], read: Callable[[str], Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        length = read("text_encoder/config.json")["max_position_embeddings"] + LONGEST
        return {
            "text": torch.empty(length, config["joint_attention_dim"], device=META),
            "pooled": torch.empty(config["pooled_projection_dim"], device=META),
        }

    @staticmethod
    def stages(call: nn.Module) -> list[nn.Module]:
        """What each joint block adds to the picture's tokens at last; a block itself returns the
        texts first.
        """
        return [block.ff for block in call.transformer.transformer_blocks]

    @classmethod
    def told_omega(cls, call: nn.Module) -> nn.Module:
        raise deaf(cls.name)

    @property
    def longest(self) -> int:
        """Tokens of T5's part of the condition."""
        tokenizer = self.pipe.tokenizer_3
        return LONGEST if tokenizer is None else min(LONGEST, tokenizer.model_max_length)

    def tokenizers(self) -> Iterator[Any]:
        """The two of CLIP: a longer text is still read by T5, if there is one."""
        yield from (self.pipe.tokenizer, self.pipe.tokenizer_2)

    @property
    def identity(self) -> dict[str, Any]:
        pipe, config = self.pipe, self.net.config
        encoders = (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3)
        return {
            **super().identity,
            "shift_factor": pipe.vae.config.shift_factor,
            "text_encoder": [type(encoder).__name__ for encoder in encoders],
            "text": [pipe.tokenizer.model_max_length + self.longest, config.joint_attention_dim],
            "pooled": config.pooled_projection_dim,
        }

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (N, L, D), "pooled": (N, P)}."""
        pipe, hidden, pooled = self.pipe, [], []
        for tokenizer, encoder in (
            (pipe.tokenizer, pipe.text_encoder),
            (pipe.tokenizer_2, pipe.text_encoder_2),
        ):
            tokens = _tokens(tokenizer, texts, pipe.tokenizer_max_length)
            said = encoder(tokens.to(encoder.device), output_hidden_states=True)
            hidden.append(said.hidden_states[-2])
            pooled.append(said.text_embeds)
        short, width = torch.cat(hidden, -1), self.net.config.joint_attention_dim
        long = short.new_zeros(len(short), self.longest, width)
        if pipe.text_encoder_3 is not None:
            tokens = _tokens(pipe.tokenizer_3, texts, self.longest)
            long = pipe.text_encoder_3(tokens.to(short.device))[0].to(short)
        text = torch.cat([pad(short, (0, width - short.shape[-1])), long], 1)
        return {"text": text, "pooled": torch.cat(pooled, -1)}


def _tokens(tokenizer: Any, texts: Sequence[str], length: int) -> Tensor:
    return tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
