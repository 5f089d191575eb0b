"""Low-rank adapters (LoRA), and twins: networks that share one base and differ in
their adapters.

A method that trains a student and a fake score next to a frozen teacher needs three networks
of nearly the same weights. Twins hold these weights once. Each is a module tree of its own, so
that there is nothing to switch on or off. With one network and switched adapters there is:
peft's `set_adapter` between `forward` and `backward` stops the gradient of the adapter that
made the forward pass (it is exactly zero), and under gradient checkpointing the backward pass
repeats the forward pass with whatever adapter is active by then. Neither raises an error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from dlib._util import require

# what torch.compile and checkpoint wrappers put into names
WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")


class LowRank:
    """What an adapted layer adds to its class: W x becomes W x + (α/r) B A x (Hu et al. 2022,
    eq. 3).

    `lora_A` (r, in) and `lora_B` (out, r), for a convolution with kernel axes; α/r is
    `lora_scale`. They are float32 at least, as optimisers want, and compute in the dtype of
    the layer's input.
    """

    def adapt(self, rank: int, alpha: float) -> None:
        """Give the layer its adapters: A uniform as in `nn.Linear`, from torch's generator,
        and B = 0.
        """
        weight, self.lora_scale = self.weight, alpha / rank
        ones = (1,) * (weight.ndim - 2)
        new = {"device": weight.device, "dtype": torch.promote_types(weight.dtype, torch.float32)}
        self.lora_A = nn.Parameter(torch.empty(rank, *weight.shape[1:], **new))
        self.lora_B = nn.Parameter(torch.zeros(weight.shape[0], rank, *ones, **new))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def folded(self) -> Tensor:
        """W + (α/r) B A, in the dtype of W."""
        update = (self.lora_B.flatten(1) @ self.lora_A.flatten(1)).view_as(self.weight)
        return (self.weight + self.lora_scale * update).to(self.weight.dtype)


class LowRankLinear(LowRank, nn.Linear):
    """An `nn.Linear` with adapters; its own names (`weight`, `bias`) stay."""

    def forward(self, x: Tensor) -> Tensor:
        """W x + b + (α/r) B A x."""
        y = super().forward(x)
        return y + self.lora_scale * linear(
            linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype)
        )


class LowRankConv2d(LowRank, nn.Conv2d):
    """An `nn.Conv2d` with adapters: A has the layer's kernel, stride and padding, B is 1×1."""

    def forward(self, x: Tensor) -> Tensor:
        """W ∗ x + b + (α/r) B ∗ (A ∗ x)."""
        y, down = super().forward(x), self._conv_forward(x, self.lora_A.to(x.dtype), None)
        return y + self.lora_scale * nn.functional.conv2d(down, self.lora_B.to(x.dtype))


ADAPTED = {nn.Linear: LowRankLinear, nn.Conv2d: LowRankConv2d}


def twin(
    net: nn.Module, rank: int, alpha: float | None = None, targets: Sequence[str] | None = None
) -> nn.Module:
    """A copy of `net` that shares its weights and trains low-rank adapters of its own (Hu et
    al. 2022).

    At first its output is bitwise that of `net`, since B = 0. In the copy all weights are
    frozen; `net` itself, its `requires_grad` flags included, is left as it is. Buffers are
    copied: statistics that a twin updates are its own. Move `net` to its device and dtype
    first: moving one network later ends the sharing. alpha: the adapters are scaled by
    alpha/rank; by default alpha = rank. targets: ends of module names, ("to_q", "to_v"), each
    of which must match; by default every `nn.Linear` and every ungrouped `nn.Conv2d`.
    Subclasses of these are left alone, since their owners may use the weights without calling
    the layer, as `nn.MultiheadAttention` does.

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 2))
    >>> student, fake = twin(net, rank=4), twin(net, rank=1, targets=("2",))
    >>> sorted(adapters(fake)), student[0].weight.data_ptr() == net[0].weight.data_ptr()
    (['2.lora_A', '2.lora_B'], True)
    """
    require(rank >= 1, f"twin: rank = {rank}, wanted at least 1")
    require(
        not _layers(net),
        "twin: this network is a twin already: make a twin of its base, or of merged(net)",
    )
    names = _matching(net, targets)
    shared = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in net.parameters()
    }
    new = copy.deepcopy(net, shared)
    for name in names:
        layer = new.get_submodule(name)
        layer.__class__ = ADAPTED[type(layer)]
        layer.adapt(rank, rank if alpha is None else alpha)
    return new


def _matching(net: nn.Module, targets: Sequence[str] | None) -> list[str]:
    """The names of the layers to adapt."""
    known = [
        name
        for name, layer in net.named_modules()
        if type(layer) in ADAPTED and getattr(layer, "groups", 1) == 1
    ]
    require(
        not isinstance(targets, str),
        f"twin: targets = {targets!r} is one string, wanted several names: ({targets!r},)",
    )
    found = {
        target: [name for name in known if f".{name}".endswith(f".{target}")]
        for target in targets or known
    }
    missing = [target for target in found if not found[target]]
    require(
        bool(found) and not missing,
        f"twin: no linear layer or convolution is called {missing or 'anything'}; this network "
        "has "
        f"{len(known)} that can be adapted, among them "
        f"{known[:: max(1, len(known) // 6)][:6]}: pass ends of such names as targets",
    )
    return [name for name in known if any(name in names for names in found.values())]


def _layers(net: nn.Module) -> dict[str, LowRank]:
    """The adapted layers by name, as they are called in the network that was not wrapped."""
    net = net.module if isinstance(net, nn.parallel.DistributedDataParallel) else net
    clean = lambda name: ".".join(part for part in name.split(".") if part not in WRAPPERS)
    return {
        clean(name): layer for name, layer in net.named_modules() if isinstance(layer, LowRank)
    }


def adapters(net: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters of a twin by name, `<module>.lora_A` and `<module>.lora_B`: all that it
    trains.

    The names do not change when the twin is wrapped by DistributedDataParallel, torch.compile
    or activation checkpointing, so that they can be saved from one and read into another.
    Empty for a network without adapters.
    """
    return dict(_named(net))


def _named(net: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, layer in _layers(net).items():
        for part in ("lora_A", "lora_B"):
            yield f"{name}.{part}".lstrip("."), getattr(layer, part)


@torch.no_grad()
def load_adapters(net: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Copy saved adapters into a twin of the same targets and rank. `saved`: what `adapters`
    returns, as tensors.

    Raises ValueError, before anything is changed, if a name is missing or unknown or a shape
    differs.
    """
    own = adapters(net)
    odd = sorted(set(own) ^ set(saved))
    require(
        not odd,
        f"load_adapters: {odd[:4]} ({len(odd)} in all) are not in both: make the twin with the "
        "targets it was saved with",
    )
    for name, weight in own.items():
        require(
            weight.shape == saved[name].shape,
            f"load_adapters: {name} has shape {tuple(weight.shape)}, the saved one "
            f"{tuple(saved[name].shape)}: make the twin with the rank it was saved with",
        )
    for name, weight in own.items():
        weight.copy_(saved[name])


@torch.no_grad()
def merged(net: nn.Module) -> nn.Module:
    """A plain network with the adapters folded in, W + (α/r) B A: memory and frozen weights of
    its own, the base's names.

    >>> plain = merged(twin(nn.Linear(3, 2), rank=2))
    >>> type(plain).__name__, sorted(plain.state_dict())
    ('Linear', ['bias', 'weight'])
    """
    net = copy.deepcopy(net)
    for layer in _layers(net).values():
        layer.weight.copy_(layer.folded())
        del layer.lora_A, layer.lora_B, layer.lora_scale
        layer.__class__ = next(
            plain for plain, adapted in ADAPTED.items() if adapted is type(layer)
        )
    return net
