"""A random tiny Stable Diffusion, made offline in a second: the same classes, interfaces and
noise schedule, no meaning.

Every test and every `--tiny` run uses it. Its pictures are noise; its arithmetic is that of
the real pipeline.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTokenizer, T5TokenizerFast

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
"""The scheduler settings of Stable Diffusion 1.x and 2.x."""


def tiny_pipeline(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """An SD1.5-like (`epsilon`) or SD2.1-like (`v_prediction`) pipeline with 0.9 M random but
    fixed weights, on the CPU.

    128 px pictures, 16×16×4 latents, 16 tokens of width 32. The caller's random state is left
    as it was.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = _networks()
    return StableDiffusionPipeline(
        **networks,
        tokenizer=tokenizer(),
        scheduler=DDIMScheduler(**SCHEDULER, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _networks() -> dict[str, torch.nn.Module]:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    decoder = vae()
    text = CLIPTextModel(text_config(32))
    return {"unet": unet.eval(), "vae": decoder.eval(), "text_encoder": text.eval()}


def vae(**more: float) -> AutoencoderKL:
    """A VAE of 8 pixels a latent, as those of Stable Diffusion; `more` goes into its
    configuration.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=8,
        latent_channels=4,
        sample_size=128,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **more,
    )


def t5_tokenizer(length: int = 16) -> T5TokenizerFast:
    """T5's, on ASCII letters one by one."""
    from transformers import T5TokenizerFast

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words += [(chr(code), -3.0) for code in range(33, 127)]
    return T5TokenizerFast(vocab=words, extra_ids=0, model_max_length=length)


def text_config(width: int, **more: Any) -> CLIPTextConfig:
    """Of a text encoder with two layers that reads what `tokenizer` writes."""
    from transformers import CLIPTextConfig

    words = vocabulary()
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=words["<|startoftext|>"],
        eos_token_id=words["<|endoftext|>"],
        **more,
    )


def vocabulary() -> dict[str, int]:
    """CLIP's 256 byte symbols, each also with an end-of-word mark, one merged word, and the
    two special tokens.
    """
    # bytes that stand for themselves
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [256 + i for i in range(256 - len(shown))]  # the others are moved to unused letters
    symbols = [chr(code) for code in shown + hidden]
    words = (
        symbols
        + [symbol + "</w>" for symbol in symbols]
        + ["ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    )
    return {word: index for index, word in enumerate(words)}


def tokenizer(**more: str) -> CLIPTokenizer:
    """CLIP's, of 16 tokens; `more` are special tokens other than its own."""
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary()))
        Path(folder, "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=16, **more)
