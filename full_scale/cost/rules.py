"""What an operation makes on the meta device, remembered: torch finds shapes by rules in Python,
which are slow, and a network asks the same of them layer after layer, step after step.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

META = torch.device("meta")


class Made(NamedTuple):
    """The outputs, each as (shape, stride, dtype) or None, in a `kind` of tuple, or alone; and
    the FLOP.
    """

    outputs: list[tuple | None]
    kind: type | None
    flops: int


_known: dict[Hashable, Made | None] = {}
"""None: must be asked each time, since its output lies in the storage of what it was given, or
is no whole storage.
"""


def made(func: Any, args: tuple, kwargs: dict) -> tuple[Any, int]:
    """(func(*args, **kwargs), its FLOP by PyTorch's formulas)."""
    key = _key(func, args, kwargs)
    known = None if key is None else _known.get(key)
    if known is not None:
        return _anew(known), known.flops
    found, flops = func(*args, **kwargs), 0
    if func._overloadpacket in flop_registry:
        flops = flop_registry[func._overloadpacket](*args, **kwargs, out_val=found)
    if key is not None and key not in _known:
        _known[key] = _described(found, flops, tree_leaves((args, kwargs)))
    return found, flops


def _key(func: Any, args: tuple, kwargs: dict) -> Hashable | None:
    """All that the outputs' shapes depend on; None where a tensor has values, or an argument no
    hash.
    """
    try:
        key = func, _told(args), tuple((name, _told(value)) for name, value in kwargs.items())
        hash(key)
    except (TypeError, ValueError):
        return None
    return key


def _told(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        if value.device.type != "meta" or value._is_zerotensor():
            raise ValueError("it has values")
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_told, value))
    return type(value), value  # 1 and 1.0 are not the same


def _described(found: Any, flops: int, given: list) -> Made | None:
    """None for an output that must not be made anew."""
    kind = type(found) if isinstance(found, list | tuple) else None
    outputs = list(found) if kind else [found]
    storages = {x.untyped_storage()._cdata for x in given if isinstance(x, Tensor)}
    if not all(one is None or _whole(one, storages) for one in outputs):
        return None
    said = [None if x is None else (tuple(x.shape), x.stride(), x.dtype) for x in outputs]
    return Made(said, kind, flops)


def _whole(value: Any, storages: set[int]) -> bool:
    """Whether it is a tensor that has a new storage for itself."""
    if not isinstance(value, Tensor) or value.device.type != "meta" or value._is_zerotensor():
        return False
    own, anew = value.untyped_storage(), _empty((tuple(value.shape), value.stride(), value.dtype))
    fits = own.nbytes() == anew.untyped_storage().nbytes() and value.storage_offset() == 0
    return fits and own._cdata not in storages


def _empty(said: tuple) -> Tensor:
    shape, stride, dtype = said
    return torch.empty_strided(shape, stride, dtype=dtype, device=META)


def _anew(known: Made) -> Any:
    outputs = [None if said is None else _empty(said) for said in known.outputs]
    return outputs[0] if known.kind is None else known.kind(outputs)
