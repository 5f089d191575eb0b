"""Averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlib._util import require


@torch.no_grad()
def average(mean: Sequence[Tensor], live: Sequence[Tensor], decay: float, count: int) -> None:
    """Move `mean` towards `live` in place, by one step of an exponential moving average that
    was made `count` times before.

    The decay is min(decay, (1 + count)/(10 + count)), so that the first weights are forgotten
    quickly.
    """
    torch._foreach_lerp_(mean, live, 1 - min(decay, (1 + count) / (10 + count)))


class Ema:
    """Exponential moving average of a network's weights, in `ema.net`, by `average`; buffers
    are copied.

    What moves are the weights that want a gradient, at the start; frozen ones are shared with
    the live network. So the average of a twin holds its adapters alone.
    """

    def __init__(self, net: nn.Module, decay: float = 0.999):
        require(0 <= decay < 1, f"Ema: decay = {decay:g} is outside [0, 1)")
        still = {id(p): p for p in net.parameters() if not p.requires_grad}
        self.net, self.decay, self.count = copy.deepcopy(net, still), decay, 0
        self.net.requires_grad_(False)
        self.follow(net)

    def follow(self, net: nn.Module) -> None:
        """The live network, once more after both were wrapped or cut into shards."""
        own = dict(self.net.named_parameters())
        self.live = {name: p for name, p in net.named_parameters() if p.requires_grad}
        require(len(self.live) > 0, "Ema: no weight of this network wants a gradient")
        self.weights = {name: own[name] for name in self.live}
        # listing a large network takes as long as the update
        whole = not any(hasattr(p, "to_local") for p in self.live.values())
        self._pairs = self._listed() if whole else None
        self._buffers = list(zip(self.net.buffers(), net.buffers()))

    def _listed(self) -> tuple[list[Tensor], list[Tensor]]:
        return [local(p) for p in self.weights.values()], [local(p) for p in self.live.values()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the live weights; call it after each optimiser step."""
        average(*(self._pairs or self._listed()), self.decay, self.count)
        for mean, live in self._buffers:
            mean.copy_(live)
        self.count += 1


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that may be cut into shards."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
