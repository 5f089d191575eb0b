"""Rewards without weights."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from full_scale.sources.pictures import picture
from toy_data import judged_pictures, shape_captions, shape_reader


def compressibility(weights: str, device: torch.device):
    """Minus the kilobytes of the picture as a JPEG of quality 95 (Black et al. 2024, section
    5.1). It has no gradient.
    """

    def score(pictures: Tensor, captions: Sequence[str]) -> Tensor:
        if pictures.is_meta:
            return pictures.new_empty(len(pictures))
        return -torch.tensor([_kilobytes(each) for each in pictures], device=pictures.device)

    return score


def incompressibility(weights: str, device: torch.device):
    """The kilobytes themselves."""
    less = compressibility(weights, device)
    return lambda pictures, captions: -less(pictures, captions)


def _kilobytes(one: Tensor) -> float:
    file = io.BytesIO()
    picture(one.detach()).save(file, "jpeg", quality=95)
    return len(file.getvalue()) / 1000


def shapes(weights: str, device: torch.device):
    """1 where a 16 × 16 picture shows what its caption of the captioned shapes asks for, else
    0: the true judge of that world. It has no gradient.
    """

    def score(pictures: Tensor, captions: Sequence[str]) -> Tensor:
        if pictures.is_meta:
            return pictures.new_empty(len(pictures))
        codes = _codes("shapes", captions)
        seen = shape_reader.read(pictures.detach().float().cpu())
        return shape_reader.shows(seen, codes).float().to(pictures.device)

    return score


def captions(weights: str, device: torch.device):
    """Eight times the share of its caption's facts that a 16 × 16 picture shows: the hidden
    reward of the book's judged pictures, `toy_data.judged_pictures.caption_reward`. It has no
    gradient.
    """

    def score(pictures: Tensor, captions: Sequence[str]) -> Tensor:
        if pictures.is_meta:
            return pictures.new_empty(len(pictures))
        words = judged_pictures.told(_codes("captions", captions))
        x = pictures.detach().float().cpu()
        return judged_pictures.caption_reward(x, words).to(pictures.device)

    return score


def colours(weights: str, device: torch.device):
    """Eight times how near the pixels are to the inks that the caption asks for: the proxy of
    the hidden reward `captions`, `toy_data.judged_pictures.colour_reward`. It has a gradient.
    """

    def score(pictures: Tensor, captions: Sequence[str]) -> Tensor:
        if pictures.is_meta:
            return pictures.flatten(1).mean(1)  # the estimate has no captions
        words = judged_pictures.told(_codes("colours", captions))
        return judged_pictures.colour_reward(pictures.float(), words)

    return score


def _codes(name: str, captions: Sequence[str]) -> Tensor:
    """The codes (B, 7) of captions of the captioned shapes; ValueError for others."""
    try:
        return torch.tensor([shape_captions.parse(text) for text in captions])
    except ValueError as error:
        raise ValueError(
            f"--reward {name} reads captions of the captioned shapes alone: {error}"
        ) from None


def redness(weights: str, device: torch.device):
    """How much more red a picture has than green and blue. It has a gradient, and is hacked at
    once: to see whether a run follows its reward at all.
    """

    def score(pictures: Tensor, captions: Sequence[str]) -> Tensor:
        mean = pictures.float().mean((2, 3))
        return mean[:, 0] - mean[:, 1:].mean(1)

    return score
