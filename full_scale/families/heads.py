"""A discriminator made of the frozen teacher's features: what PCM's adversarial phase trains
are its small heads alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu


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


class Judge(nn.Module):
    """(x, time, cond) ↦ logits (B, k): heads on every stage of a frozen diffusion network
    (Wang et al. 2024, section 4).

    The released heads have 3×3 convolutions; these look at each place by itself, whose
    features have seen its neighbours. So they fit a transformer's tokens too.
    """

    def __init__(
        self,
        core: nn.Module,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        opinions: int = 4,
    ):
        super().__init__()
        # a plain list: the stages are the core's modules
        self.core, self.stages = core, list(stages)
        self.heads = nn.ModuleList(Head(c, opinions) for c in channels)

    def forward(self, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        features: list[Tensor] = []
        hooks = [
            stage.register_forward_hook(lambda module, given, out: features.append(out))
            for stage in self.stages
        ]
        try:
            self.core(x, time, cond)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat(
            [
                head(places(f).float()).flatten(1)
                for head, f in zip(self.heads, features, strict=True)
            ],
            1,
        )


def places(out: Any) -> Tensor:
    """A stage's output as features (B, C, N): of a map (B, C, h, w), or of tokens (B, N, C);
    extra outputs are left out.
    """
    out = out[0] if isinstance(out, tuple) else out
    return out.flatten(2) if out.ndim == 4 else out.transpose(1, 2)


def judge(
    core: nn.Module, stages: Sequence[nn.Module], x: Tensor, time: Tensor, cond: Any
) -> Judge:
    """A new `Judge`; x, time, cond: an example, from which the stages' channels are read."""
    found: list[int] = []
    hooks = [
        stage.register_forward_hook(lambda module, given, out: found.append(places(out).shape[1]))
        for stage in stages
    ]
    with torch.no_grad():
        core(x, time, cond)
    for hook in hooks:
        hook.remove()
    return Judge(core, stages, found)
