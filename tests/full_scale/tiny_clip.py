"""A random tiny CLIP as a folder of weights, with the tiny pipeline's tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from full_scale.families import tiny


def write(folder: Path) -> Path:
    """16 pixels a side, vectors of 8."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = tiny.tokenizer()
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    text = {
        **small,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16,
        "eos_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = {**small, "image_size": 16, "patch_size": 8}
        CLIPModel(
            CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        ).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
