"""Stable Diffusion XL: a larger U-Net, two text encoders, a pooled embedding, and the picture's
size as a condition (Podell et al. 2023, section 2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dlib._util import require
from full_scale.families import tiny
from full_scale.families.base import META
from full_scale.families.latent import LatentPipeline
from full_scale.families.unet import UNetCall
from full_scale.families.weights import Weights
from full_scale.sources.pictures import framed

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

BASE = "stabilityai/stable-diffusion-xl-base-1.0"
PIXELS = 8
"""A side of the latent counts for this many pixels."""


class SizedCall(UNetCall):
    """The U-Net with cond {"text": (B, L, D), "pooled": (B, P)}, which is also told six numbers
    of the picture's size, cond["time_ids"] (B, 6).

    They are (height, width) of the picture before it was scaled, the (top, left) corner of the
    cut in the scaled picture, and (height, width) of the result (Podell et al. 2023, section
    2.2). Where they are not given, as in sampling, nothing is cut and the sizes are x's own,
    which is what diffusers' pipeline says by default.
    """

    def added(self, x: Tensor, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ids = cond["time_ids"] if "time_ids" in cond else whole(x)
        pooled = cond["pooled"].to(self.unet.conv_in.weight.dtype)
        return {"text_embeds": pooled, "time_ids": ids.float()}  # bfloat16 cannot hold 1023


def whole(x: Tensor) -> Tensor:
    """(B, 6): the sizes that latents x have if nothing was cut."""
    height, width = (PIXELS * side for side in x.shape[-2:])
    ids = [
        x.new_full((len(x), 1), number, dtype=torch.float32)  # made on the device: no wait
        for number in (height, width, 0, 0, height, width)
    ]
    return torch.cat(ids, 1)


ALONE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    **{f"time_embedding.linear_{k}": f"time_embed.{2 * k - 2}" for k in (1, 2)},
    **{f"add_embedding.linear_{k}": f"label_emb.0.{2 * k - 2}" for k in (1, 2)},
}
"""Layers outside of the blocks, in diffusers' names and in those of SDXL's release."""
INSIDE = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
"""Those of a residual block."""
PLACE = re.compile(
    r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|(?:down|up)samplers)\.(\d+)\.(.+)"
)


def released_name(layer: str, depth: int) -> str:
    """What SDXL's own release, and with it kohya's scripts, call a layer of diffusers' U-Net
    (sd-scripts, library/sdxl_model_util.py, `make_unet_conversion_map`).

    There the blocks of a side are counted through: an input block for the first convolution,
    then one for each of `depth` residual blocks of a stage, and one for its downsampler; of the
    output blocks depth + 1 a stage, the last with the upsampler. ValueError for other layers.

    >>> released_name("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", 2)
    'input_blocks.4.1.transformer_blocks.0.attn1.to_q'
    >>> released_name("up_blocks.1.upsamplers.0.conv", 2)
    'output_blocks.5.2.conv'
    """
    if layer in ALONE:
        return ALONE[layer]
    place = PLACE.fullmatch(layer)
    require(place is not None, f"SDXL's release has no layer {layer!r}: adapt others")
    side, stage, kind, k, rest = place.groups()
    first, k = (depth + 1) * int(stage or 0), int(k)
    if kind == "resnets":
        rest = INSIDE.get(rest, rest)
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * k}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{first + depth + 1}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{first + depth}.2.{rest}"
    block = f"input_blocks.{first + k + 1}" if side == "down" else f"output_blocks.{first + k}"
    return f"{block}.{int(kind == 'attentions')}.{rest}"


@dataclass(frozen=True)
class StableDiffusionXL(LatentPipeline):
    """SDXL: the condition is both text encoders' last hidden states but one, side by side, and
    the second's pooled embedding. The empty text is zeros where the weights say so, as SDXL's
    do.
    """

    pipe: StableDiffusionXLPipeline

    name: ClassVar[str] = "sdxl"
    pipeline: ClassVar[str] = "StableDiffusionXLPipeline"
    weights_are: ClassVar[str] = f"FOLDER_OR_HUB_ID (e.g. {BASE})"
    kind: ClassVar[Weights] = Weights(
        pipeline,
        (
            *("unet", "vae", "text_encoder", "text_encoder_2"),
            *("tokenizer", "tokenizer_2", "scheduler"),
        ),
        "Stable Diffusion XL",
        BASE,
        f"{BASE} is 14 GB",
    )

    @classmethod
    def tiny_pipeline(cls) -> StableDiffusionXLPipeline:
        """128 px pictures, 16×16×4 latents, 16 tokens of width 32 + 48, a pooled embedding of
        40.
        """
        from diffusers import (
            EulerDiscreteScheduler,
            StableDiffusionXLPipeline,
            UNet2DConditionModel,
        )
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = UNet2DConditionModel(
                sample_size=16,
                block_out_channels=(32, 64),
                layers_per_block=1,
                norm_num_groups=8,
                attention_head_dim=(2, 4),
                cross_attention_dim=80,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 40,
            )
            parts = {
                "unet": net,
                "vae": tiny.vae(scaling_factor=0.13025),
                "text_encoder": CLIPTextModel(tiny.text_config(32)),
                "text_encoder_2": CLIPTextModelWithProjection(
                    tiny.text_config(48, hidden_act="gelu", projection_dim=40)
                ),
            }
        return StableDiffusionXLPipeline(
            **{name: part.eval() for name, part in parts.items()},
            tokenizer=tiny.tokenizer(),
            tokenizer_2=tiny.tokenizer(pad_token="!"),
            scheduler=EulerDiscreteScheduler.from_config(tiny.SCHEDULER),
            add_watermarker=False,
        )

    @classmethod
    def call(cls, net: nn.Module) -> SizedCall:
        return SizedCall(net)

    @classmethod
    def empty(
        cls, config: Mapping[str, Any], read: Callable[[str], Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        length = read("text_encoder/config.json")["max_position_embeddings"]
        pooled = read("text_encoder_2/config.json")["projection_dim"]
        return {
            "text": torch.empty(length, config["cross_attention_dim"], device=META),
            "pooled": torch.empty(pooled, device=META),
        }

    def kohya_name(self, layer: str) -> str:
        return released_name(layer, self.net.config.layers_per_block)

    @property
    def identity(self) -> dict[str, Any]:
        pipe = self.pipe
        encoders = pipe.text_encoder, pipe.text_encoder_2
        return {
            **super().identity,
            "text_encoder": [type(encoder).__name__ for encoder in encoders],
            "text": [
                pipe.tokenizer.model_max_length,
                sum(encoder.config.hidden_size for encoder in encoders),
            ],
            "pooled": pipe.text_encoder_2.config.projection_dim,
            "time_ids": "a row's own",
        }

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (N, L, D), "pooled": (N, P)}."""
        pipe, hidden = self.pipe, []
        for tokenizer, encoder in (
            (pipe.tokenizer, pipe.text_encoder),
            (pipe.tokenizer_2, pipe.text_encoder_2),
        ):
            tokens = tokenizer(
                list(texts),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            said = encoder(tokens.input_ids.to(encoder.device), output_hidden_states=True)
            hidden.append(said.hidden_states[-2])
        return {"text": torch.cat(hidden, -1), "pooled": said.text_embeds}

    def encode_sizes(self, sides: Sequence[tuple[int, int]], size: int) -> dict[str, Tensor]:
        """{"time_ids": (N, 6)} of whole numbers, which half precision could not keep. A dropped
        caption has those of its picture, as in diffusers' scripts.
        """
        ids = [(*each, *framed(*each, size)[1], size, size) for each in sides]
        return {"time_ids": torch.tensor(ids, device=self.pipe.device)}

    def null(self, text: str = "") -> dict[str, Tensor]:
        found = super().null(text)
        if text or not self.pipe.config.force_zeros_for_empty_prompt:
            return found
        return {name: torch.zeros_like(value) for name, value in found.items()}
