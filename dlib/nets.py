"""Floor 1: the small network of the toys."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from dlib._util import require


class MLP(nn.Module):
    """A residual MLP (x, t, label) ↦ a tensor like x, for points and for small pictures (flattened inside).

    dim: values a sample. classes: number of labels; the label −1 (∅) has an embedding of its own. t: (B,) in [0, 1].
    Each block is h ← h + W₂ silu(W₁ norm(h) + e) with e the embedding of t and label; the last layer starts at zero.

    >>> net = MLP(dim=2, width=32, depth=2, classes=5)
    >>> net(torch.zeros(4, 2), torch.rand(4), torch.tensor([0, 1, 4, -1])).shape
    torch.Size([4, 2])
    """

    def __init__(self, dim: int, width: int = 128, depth: int = 3, classes: int = 0, frequencies: int = 16):
        super().__init__()
        self.classes = classes
        self.register_buffer("omega", 2 * math.pi * torch.logspace(-1, 2, frequencies, base=4.0), persistent=False)
        self.embed_time = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.embed_label = nn.Embedding(classes + 1, width) if classes else None
        self.enter = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)]) for _ in range(depth)
        )
        self.leave = nn.Linear(width, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        require(label is None or self.classes > 0, "MLP: got labels, but was built with classes=0: pass classes=… to MLP")
        angle = t[:, None] * self.omega
        embedding = self.embed_time(torch.cat([angle.sin(), angle.cos()], 1))
        if label is not None:
            self._check(label)
            embedding = embedding + self.embed_label(label % (self.classes + 1))  # −1 is the last row: ∅
        h = self.enter(x.flatten(1))
        for norm, inner, outer in self.blocks:
            h = h + outer(silu(inner(norm(h)) + embedding))
        return self.leave(silu(h)).view_as(x)

    def _check(self, label: Tensor) -> None:
        if label.device.type == "cpu":  # looking at values would stall an accelerator
            require(bool(((label >= -1) & (label < self.classes)).all()), f"MLP: labels run from {int(label.min())} to "
                    f"{int(label.max())}, wanted 0 … {self.classes - 1}, or −1 for none: pass classes={int(label.max()) + 1} to MLP")
