"""What a computation costs, counted without doing it: on PyTorch's meta device tensors have
shapes and types but no values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary, weakref

from full_scale.cost.rules import META, made

LOW = {
    F.linear,
    F.conv1d,
    F.conv2d,
    F.conv3d,
    torch.matmul,
    torch.bmm,
    torch.baddbmm,
    torch.addmm,
    torch.einsum,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.bmm,
    Tensor.baddbmm,
}
HIGH = {
    F.group_norm,
    F.layer_norm,
    F.softmax,
    torch.softmax,
    Tensor.softmax,
    F.mse_loss,
    torch.norm,
}
CAST = LOW | HIGH


class LikeAGpu(TorchFunctionMode):
    """What a GPU does and the meta device does not: attention in one kernel that keeps no
    matrix, and autocast. Where the caller wants attention written out, as forward mode does,
    it is, and autocast is off.

    dtype: of autocast; float32 is none. `LOW` and `HIGH` are those entries of CUDA's lists
    that networks of this kind use; copies of trained weights are kept, as autocast keeps them.
    """

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.copies = dtype, {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not torch.backends.cuda.flash_sdp_enabled():
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self.attention(*args, **kwargs)
        if self.dtype != torch.float32 and func in CAST:
            args, kwargs = tree_map(self.low if func in LOW else self.high, (args, kwargs))
        return func(*args, **kwargs)

    def attention(
        self, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **more
    ):
        if self.dtype != torch.float32:
            q, k, v = map(self.low, (q, k, v))
        if attn_mask is not None or q.ndim != 4:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask, dropout_p, is_causal, scale=scale, **more
            )
        return torch.ops.aten._scaled_dot_product_flash_attention(
            q, k, v, dropout_p, is_causal, scale=scale
        )[0]

    def low(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not isinstance(value, nn.Parameter) or (
            value.requires_grad and not torch.is_grad_enabled()
        ):  # a copy without a graph is of no use to a later pass that has one
            return value.to(self.dtype)
        if id(value) not in self.copies:
            self.copies[id(value)] = value.to(self.dtype)
        return self.copies[id(value)]

    def high(self, value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.dtype == self.dtype else value


class Counter(TorchDispatchMode):
    """Counts the FLOP of every operation, and the bytes of meta tensors that are alive: `now`,
    and at most, `peak`.

    before: tensors that are there already; they are not counted. The formulas are those of
    PyTorch's FlopCounterMode, which itself would keep memory alive where gradient
    checkpointing repeats a forward pass.
    """

    def __init__(self, before: Iterable[Tensor] = ()):
        super().__init__()
        self.flops = self.now = self.peak = 0
        self.seen = WeakIdKeyDictionary({value.untyped_storage(): None for value in before})

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found, flops = made(func, args, kwargs or {})
        self.flops += flops
        for value in tree_leaves(found):
            if isinstance(value, Tensor) and value.device.type == "meta":
                self._meet(value.untyped_storage())
        return found

    def _meet(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.seen:
            self.seen[storage] = None
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._lose, storage.nbytes())

    def _lose(self, size: int) -> None:
        self.now -= size


def backward(value: Tensor, leaves: Iterable[Tensor] = ()) -> None:
    """`value.backward(inputs=leaves)`, which itself would switch `LikeAGpu` off for the forward
    passes that gradient checkpointing repeats. leaves: none means all.
    """
    torch.autograd.graph._engine_run_backward(
        (value,),
        (torch.ones_like(value),),
        False,
        False,
        tuple(leaves),
        allow_unreachable=True,
        accumulate_grad=True,
    )


class Cost(NamedTuple):
    """flops: a multiplication with addition is 2. peak: the most bytes alive at once beside
    what was there before, of which `copies` are autocast's copies of trained weights."""

    flops: int
    peak: int
    copies: int


@contextmanager
def repeating(counter: Counter, nets: Iterable[nn.Module]) -> Iterator[None]:
    """Within it, a network that is called again without gradient, on tensors of the same
    shapes, is not walked through again: its FLOP and its bytes are known.
    """
    nets, known = list(dict.fromkeys(nets)), {}

    def once(net: nn.Module, plain: Callable) -> Callable:
        def forward(*given: Any) -> Any:
            if torch.is_grad_enabled():
                return plain(*given)
            key = (id(net), *((x.shape, x.dtype) for x in tree_leaves(given)))
            if key not in known:
                flops, now, peak = counter.flops, counter.now, counter.peak
                counter.peak = now
                out = plain(*given)
                known[key] = counter.flops - flops, counter.peak - now, out.shape, out.dtype
                counter.peak = max(peak, counter.peak)
                return out
            flops, high, shape, dtype = known[key]
            counter.flops, counter.peak = (
                counter.flops + flops,
                max(counter.peak, counter.now + high),
            )
            return torch.empty(shape, dtype=dtype, device=META)

        return forward

    for net in nets:
        net.forward = once(net, net.forward)
    try:
        yield
    finally:
        for net in nets:
            del net.forward


def cost(
    run: Callable[[], Any],
    before: Iterable[Tensor],
    dtype: torch.dtype,
    nets: Iterable[nn.Module] = (),
) -> Cost:
    """The cost of `run()` on the meta device, under autocast to `dtype`. before: weights and
    gradients, which are not counted. nets: as for `repeating`.

    >>> x = torch.empty(2, 3, device="meta")
    >>> cost(lambda: x @ torch.empty(3, 4, device="meta"), [x], torch.float32)
    Cost(flops=48, peak=80, copies=0)
    """
    with Counter(before) as counter, LikeAGpu(dtype) as gpu, repeating(counter, nets):
        run()
    return Cost(counter.flops, counter.peak, sum(copy.nbytes for copy in gpu.copies.values()))
