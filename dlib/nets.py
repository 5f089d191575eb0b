"""The small networks of the toys: an MLP for points and digits, a transformer for
captioned pictures; and what tells them their guidance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    layer_norm,
    pixel_shuffle,
    pixel_unshuffle,
    scaled_dot_product_attention,
    silu,
)

from dlib._util import require


class MLP(nn.Module):
    """A residual MLP (x, t, label) ↦ a tensor like x, for points and for small pictures
    (flattened inside).

    dim: values a sample. classes: number of labels; the label −1 (∅) has an embedding of its
    own. t: (B,) in [0, 1]. Each block is h ← h + W₂ silu(W₁ norm(h) + e) with e the embedding
    of t and label; the last layer starts at zero.

    >>> net = MLP(dim=2, width=32, depth=2, classes=5)
    >>> net(torch.zeros(4, 2), torch.rand(4), torch.tensor([0, 1, 4, -1])).shape
    torch.Size([4, 2])
    """

    def __init__(
        self, dim: int, width: int = 128, depth: int = 3, classes: int = 0, frequencies: int = 16
    ):
        super().__init__()
        self.classes = classes
        self.register_buffer(
            "omega", 2 * math.pi * torch.logspace(-1, 2, frequencies, base=4.0), persistent=False
        )
        self.embed_time = nn.Sequential(
            nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.embed_label = nn.Embedding(classes + 1, width) if classes else None
        self.enter = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)])
            for _ in range(depth)
        )
        self.leave = nn.Linear(width, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        require(
            label is None or self.classes > 0,
            "MLP: got labels, but was built with classes=0: pass classes=… to MLP",
        )
        angle = t[:, None] * self.omega
        embedding = self.embed_time(torch.cat([angle.sin(), angle.cos()], 1))
        if label is not None:
            self._check(label)
            # −1 is the last row: ∅
            embedding = embedding + self.embed_label(label % (self.classes + 1))
        h = self.enter(x.flatten(1))
        for norm, inner, outer in self.blocks:
            h = h + outer(silu(inner(norm(h)) + embedding))
        return self.leave(silu(h)).view_as(x)

    def _check(self, label: Tensor) -> None:
        if label.device.type == "cpu":  # looking at values would stall an accelerator
            require(
                bool(((label >= -1) & (label < self.classes)).all()),
                f"MLP: labels run from {int(label.min())} to "
                f"{int(label.max())}, wanted 0 … {self.classes - 1}, or −1 for none: pass "
                f"classes={int(label.max()) + 1} to MLP",
            )


class Attention(nn.Module):
    """Multi-head attention of x (B, N, width) to seen (B, M, width). Its layers have the
    field's names, by which LoRA finds them.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (
            h.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for h in (self.to_q(x), self.to_k(seen), self.to_v(seen))
        )
        return self.to_out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block whose two layer norms are scaled, shifted and gated by an embedding;
    at first it is the identity (Peebles & Xie 2023, adaLN-Zero)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention, self.modulate = Attention(width, heads), nn.Linear(width, 6 * width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor | None = None) -> Tensor:
        """x (B, N, width) and embedding (B, width) ↦ like x; text (B, L, width): tokens that x
        sees beside itself.
        """
        scale, shift, gate, scale_2, shift_2, gate_2 = self.modulate(embedding)[:, None].chunk(
            6, -1
        )
        h = torch.addcmul(shift, layer_norm(x, x.shape[-1:]), 1 + scale)
        x = torch.addcmul(
            x, gate, self.attention(h, h if text is None else torch.cat([h, text], 1))
        )
        h = torch.addcmul(shift_2, layer_norm(x, x.shape[-1:]), 1 + scale_2)
        return torch.addcmul(x, gate_2, self.mlp(h))


class DiT(nn.Module):
    """A small diffusion transformer (x, time, tokens) ↦ a tensor like x: square patches are
    its words (Peebles & Xie 2023).

    x (B, channels, side, side); time (B,) on a scale of 1000, as Stable Diffusion's indices;
    tokens (B, length) int64 in 0 … words−1. A block reads the caption; the others see its
    words beside the patches (as in Saharia et al. 2022), and its mean beside the time.
    Padding, 0, is a word like others, so the empty caption is a row of it. x enters the output
    itself, each channel times what the embedding says: then the patches need not carry the
    noise. The last layers start at zero.

    >>> net = DiT(side=8, channels=3, words=5, length=4, width=32, depth=1)
    >>> words = torch.tensor([[1, 4, 2, 0], [0, 0, 0, 0]])
    >>> net(torch.zeros(2, 3, 8, 8), torch.tensor([999.0, 0.0]), words).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        side: int,
        channels: int,
        words: int,
        length: int,
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        patch: int = 4,
    ):
        super().__init__()
        require(side % patch == 0, f"DiT: side {side} is not made of patches of {patch}")
        self.patch, self.length, self.across = patch, length, side // patch
        # radians per index, as Vaswani et al. 2017
        self.register_buffer("omega", torch.logspace(0, -4, 32), persistent=False)
        self.embed_time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.embed_word = nn.Embedding(words, width)
        self.word_place = nn.Parameter(0.2 * torch.randn(length, width))
        self.patch_place = nn.Parameter(0.2 * torch.randn(self.across**2, width))
        self.reader = Block(width, heads)
        self.enter = nn.Linear(channels * patch**2, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.leave = nn.Linear(width, channels * patch**2)
        self.keep = nn.Linear(width, channels)
        for last in (self.leave, self.keep):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor | None = None) -> Tensor:
        given = None if tokens is None else tuple(tokens.shape)
        require(
            given is not None and given[1:] == (self.length,),
            f"DiT: tokens of shape {given}, wanted (B, {self.length}); "
            "the empty caption is a row of zeros",
        )
        angle = time[:, None] * self.omega
        embedding = self.embed_time(torch.cat([angle.sin(), angle.cos()], 1))
        text = self.reader(self.embed_word(tokens) + self.word_place, silu(embedding))
        embedding = silu(embedding + text.mean(1))
        h = (
            self.enter(pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2))
            + self.patch_place
        )
        for block in self.blocks:
            h = block(h, embedding, text)
        h = self.leave(layer_norm(h, h.shape[-1:])).transpose(1, 2)
        drawn = pixel_shuffle(h.unflatten(2, (self.across, self.across)), self.patch)
        return torch.addcmul(drawn, self.keep(embedding)[..., None, None], x)


def omega_features(omega: Tensor, dim: int) -> Tensor:
    """ω (B,) as sines and cosines (B, dim) of 1000 ω, at the frequencies 10000^{−k/(dim/2−1)}:
    what diffusers' pipelines feed.
    """
    require(
        dim >= 4 and dim % 2 == 0,
        f"omega_features: dim = {dim}, wanted an even number of features, at least 4",
    )
    require(
        omega.ndim == 1,
        f"omega_features: ω has shape {tuple(omega.shape)}, wanted (B,): one a sample",
    )
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=omega.device) * (-math.log(10000.0) / (half - 1)))
    angle = 1000.0 * omega[:, None].float() * rates
    return torch.cat([angle.sin(), angle.cos()], 1)


class Told(nn.Module):
    """A copy of an `MLP` or a `DiT` that is also told its guidance ω (Meng et al. 2023; Luo et
    al. 2023a).

    Called with cond {"cond": what the network itself takes, "omega": (B,)}, as `with_omega`
    makes it. ω's features enter where the time's do, through a linear layer that starts at
    zero: at first ω changes nothing. dim: how many features.

    >>> net = Told(MLP(dim=2, width=32, depth=1, classes=2))
    >>> told = {"cond": torch.tensor([0, 1]), "omega": torch.tensor([0.0, 2.0])}
    >>> net(torch.zeros(2, 2), torch.rand(2), told).shape
    torch.Size([2, 2])
    """

    def __init__(self, net: MLP | DiT, dim: int = 64):
        super().__init__()
        self.net, self.dim = copy.deepcopy(net), dim
        self.read = nn.Linear(dim, net.embed_time[0].in_features, bias=False)
        nn.init.zeros_(self.read.weight)

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        told = self.read(omega_features(cond["omega"], self.dim).to(x.dtype))
        hook = self.net.embed_time.register_forward_pre_hook(
            lambda module, given: (given[0] + told,)
        )
        try:
            return self.net(x, t, cond["cond"])
        finally:
            hook.remove()
