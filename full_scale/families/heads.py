"""A discriminator made of a diffusion network's features: it trains small heads alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from dlib import Denoiser, Judge
from dlib.training import unwrapped
from full_scale.families.base import Family


class Head(nn.Module):
    """Two residual layers on the features (B, C, N) of one stage, then `opinions` logits a
    place.
    """

    def __init__(self, channels: int, opinions: int):
        super().__init__()
        groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0)
        self.layers = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(groups, channels) for _ in range(2))
        self.out = nn.Conv1d(channels, opinions, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms):
            x = x + leaky_relu(norm(layer(x)), 0.2)
        return self.out(x)


class Heads(nn.Module):
    """Features of every stage ↦ logits (B, k) (Wang et al. 2024b, section 4).

    The released heads have 3×3 convolutions; these look at each place by itself, whose
    features have seen its neighbours. So they fit a transformer's tokens too.
    """

    def __init__(self, channels: Sequence[int], opinions: int = 4):
        super().__init__()
        self.heads = nn.ModuleList(Head(c, opinions) for c in channels)

    def forward(self, features: Sequence[Any]) -> Tensor:
        each = [
            head(places(f).float()).flatten(1)
            for head, f in zip(self.heads, features, strict=True)
        ]
        return torch.cat(each, 1)


def places(out: Any) -> Tensor:
    """A stage's output as features (B, C, N): of a map (B, C, h, w), or of tokens (B, N, C);
    extra outputs are left out.
    """
    out = out[0] if isinstance(out, tuple) else out
    return out.flatten(2) if out.ndim == 4 else out.transpose(1, 2)


def judge(on: Denoiser, family: Family, device: torch.device) -> Judge:
    """New heads on the stages of a role's network; an empty picture tells them the channels."""
    null = {name: value[None].to(device) for name, value in family.null().items()}
    x = torch.zeros(1, *family.shape(family.size), device=device)
    net = unwrapped(on.net)
    blind = Judge(replace(on, net=net), family.stages(net), nn.Identity())
    with torch.no_grad():
        found = blind.features(x, torch.zeros(1, device=device), null)
    return Judge(on, blind.stages, Heads([places(f).shape[1] for f in found]).to(device))
