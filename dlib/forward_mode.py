"""A network's answer together with its derivative along a direction, in one forward pass.

Forward-mode automatic differentiation carries a number's derivative beside the number: one
direction, whatever the number of values, and no graph is kept. PyTorch makes three products of
each, for it multiplies the weights' derivative too, which is zero; so it costs three passes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from dlib._util import require
from dlib.denoiser import Denoiser
from dlib.prediction import Prediction
from dlib.schedule import NoiseLevel


def tangent(
    model: Denoiser,
    x: Tensor,
    level: NoiseLevel,
    dx: Tensor,
    dt: Tensor,
    cond: Any = None,
    *,
    read: Callable[[Prediction], Tensor],
) -> tuple[Tensor, Tensor]:
    """(value, derivative) of read(model(x, level, cond)) as (x, t) moves by (dx, dt): each
    (B, *shape), without gradient.

    The derivative is the total one, ∂_x · dx + ∂_t · dt, through the network and through every
    number that `read` takes from `prediction.level`, whose α, σ and λ move with t. level: of
    tensors, one a sample, of `model.schedule`. dx: (B, *shape); dt: (B, 1, …), in units of t.
    read: Prediction ↦ (B, *shape), such as `lambda said: said.x0`.

    Attention runs in the kernel that is written out, since fused kernels have no forward-mode
    derivative, and autocast is off: half precision would leave little of a derivative but
    rounding. So x and the network's weights should be float32 at least. Dropout must be off.
    ValueError if x is of another dtype, for a level of floats, a dx that is not shaped like x
    or a dt that is not one value a sample, and if the answer does not depend on x.

    >>> from dlib.schedule import flow
    >>> model = Denoiser(lambda x, t, cond: t[:, None] * x**2, flow(), "x0")
    >>> x, t = torch.tensor([[3.0]]), torch.tensor([0.5])
    >>> level = flow().at(t, like=x)
    >>> tangent(model, x, level, torch.ones(1, 1), torch.ones(1, 1), read=lambda said: said.x0)
    (tensor([[4.5000]]), tensor([[12.]]))
    """
    _check(x, level, dx, dt)
    d_alpha, d_sigma = model.schedule.rates(level.t)
    slopes = (
        torch.ones_like(level.t),
        d_alpha,
        d_sigma,
        d_alpha / level.alpha - d_sigma / level.sigma,
    )
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        _full_precision(x.device.type),
        forward_ad.dual_level(),
    ):
        moving = NoiseLevel(*(_dual(field, s * dt) for field, s in zip(level, slopes)))
        said = model(_dual(x, dx), moving, cond)
        value, derivative = forward_ad.unpack_dual(read(said))
    require(
        derivative is not None,
        "tangent: the answer does not depend on x in forward mode: a detach() or a function "
        "without a forward derivative stands between them",
    )
    return value, derivative


def _check(x: Tensor, level: NoiseLevel, dx: Tensor, dt: Tensor) -> None:
    require(
        x.dtype in (torch.float32, torch.float64),
        f"tangent: x has dtype {x.dtype}, in which a derivative is mostly rounding: x.float()",
    )
    require(
        all(isinstance(field, Tensor) for field in level),
        f"tangent: a level of {type(level.t).__name__}, wanted tensors, one level a sample: "
        f"schedule.at(torch.full(({len(x)},), t), like=x)",
    )
    require(
        dx.shape == x.shape,
        f"tangent: dx has shape {tuple(dx.shape)}, x {tuple(x.shape)}: one direction a sample",
    )
    # as expand_as allows it: no axis more than a level's fields have, and none longer
    shape, wanted = getattr(dt, "shape", None), tuple(level.t.shape)
    require(
        shape is not None
        and len(shape) <= len(wanted)
        and all(a in (1, b) for a, b in zip(shape[::-1], wanted[::-1])),
        f"tangent: dt is {type(dt).__name__ if shape is None else tuple(shape)}, wanted one "
        f"value a sample, shaped like level.t {wanted}: dt.reshape(level.t.shape)",
    )


def _full_precision(device: str) -> AbstractContextManager:
    """Autocast off, on devices that have it."""
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else nullcontext()


def _dual(value: Tensor, slope: Tensor) -> Tensor:
    return forward_ad.make_dual(value.detach(), slope.to(value).expand_as(value).contiguous())
