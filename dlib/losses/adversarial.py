"""Adversarial losses for few-step students; the discriminator is whatever callable
you bring.

A discriminator maps (x (B, *shape), time (B,), cond) to logits (B, k), k opinions a sample:
the signature of a `Denoiser`'s net. In phased consistency models "real" is not data but what
the consistency target says, and both sides are noised again inside their phase before they are
judged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dlib._util import Draw, alike, require
from dlib.denoiser import identity
from dlib.losses.consistency_steps import check_edges, levels_of, phase_of
from dlib.losses.diffusion import Loss
from dlib.schedule import NoiseLevel, NoiseSchedule
from dlib.solvers import travel

Discriminator = Callable[[Tensor, Tensor, Any], Tensor]


def hinge_real(logits: Tensor) -> Tensor:
    """max(0, 1 − D), averaged over a sample's logits: (B,). What D minimises on the real, and
    PCM's generator on the fake.
    """
    return torch.relu(1 - logits).flatten(1).mean(1)


def hinge_fake(logits: Tensor) -> Tensor:
    """max(0, 1 + D), averaged over a sample's logits: (B,). What D minimises on the fake (Lim
    & Ye 2017).
    """
    return torch.relu(1 + logits).flatten(1).mean(1)


def held(discriminator: Discriminator) -> Discriminator:
    """The same discriminator with constant parameters: gradients flow through it to x, none is
    computed for its weights.

    The module itself is untouched: no flag is switched, no `.grad` is filled. Of a
    DistributedDataParallel wrapper the inside is called: nothing is to be summed over
    processes. A `Judge` holds its backbone as well.

    >>> from dlib.nets import MLP
    >>> net, x = MLP(2), torch.ones(3, 2, requires_grad=True)
    >>> held(net)(x, torch.zeros(3), None).sum().backward()
    >>> x.grad is not None, net.leave.weight.grad is None
    (True, True)
    """
    if hasattr(discriminator, "held"):
        return discriminator.held
    if not isinstance(discriminator, nn.Module):
        return discriminator
    discriminator = (
        discriminator.module
        if isinstance(discriminator, nn.parallel.DistributedDataParallel)
        else discriminator
    )

    def judge(x: Tensor, time: Tensor, cond: Any) -> Tensor:
        constants = {name: weight.detach() for name, weight in discriminator.named_parameters()}
        return torch.func.functional_call(discriminator, constants, (x, time, cond))

    return judge


def in_phase(
    schedule: NoiseSchedule,
    index: Tensor,
    draw: Draw,
    like: Tensor,
    *,
    times: Tensor,
    edges: Tensor,
) -> tuple[NoiseLevel, NoiseLevel]:
    """Two levels a sample: the clean edge s_m of its phase, and s uniform in time on (s_m,
    s_{m+1}] (Wang et al. 2024b, section 4).

    index: (B,), the place in `times` where the sample's step starts. Draws: a uniform a
    sample.
    """
    require(
        index.shape == like.shape[:1],
        f"in_phase: index has shape {tuple(index.shape)}, wanted ({len(like)},): the place of "
        "each sample's step, Ends.index",
    )
    check_edges("in_phase", times, edges)
    edge, top = phase_of(times, edges, index)
    return tuple(
        levels_of(
            schedule,
            torch.stack([edge, top - draw.uniform(len(index)).double() * (top - edge)]),
            like,
        )
    )


def phased_generator(
    discriminator: Discriminator,
    schedule: NoiseSchedule,
    fake: Tensor,
    index: Tensor,
    draw: Draw,
    *,
    times: Tensor,
    edges: Tensor,
    cond: Any = None,
    clock: Callable = identity,
) -> Tensor:
    """max(0, 1 − D(x_s)) with x_s the student's point noised from its edge up to s: (B,); D's
    weights get no gradient.

    fake: (B, *shape) at the edges, `Ends.student`; index: `Ends.index`. clock: what turns t
    into D's time. Draws: as `in_phase`, then the noise.
    """
    edge, s = in_phase(schedule, index, draw, fake, times=times, edges=edges)
    return hinge_real(_opinion(held(discriminator), fake, edge, s, draw, cond, clock))


def phased_discriminator(
    discriminator: Discriminator,
    schedule: NoiseSchedule,
    real: Tensor,
    fake: Tensor,
    index: Tensor,
    draw: Draw,
    *,
    times: Tensor,
    edges: Tensor,
    cond: Any = None,
    clock: Callable = identity,
) -> Loss:
    """E max(0, 1 − D(real)) + max(0, 1 + D(fake)), both noised from the edge to the same s,
    each with noise of its own.

    real: the consistency target's points at the edges, fake: the student's; gradients reach
    neither. Otherwise as `phased_generator`. Draws: as `in_phase`, then the noise of the real,
    then that of the fake.
    """
    alike("phased_discriminator: real and fake", real, fake)
    edge, s = in_phase(schedule, index, draw, real, times=times, edges=edges)
    yes, no = (
        _opinion(discriminator, x.detach(), edge, s, draw, cond, clock) for x in (real, fake)
    )
    each = hinge_real(yes) + hinge_fake(no)
    return Loss(
        each.mean(),
        {"loss": each.detach().mean(), "real": yes.detach().mean(), "fake": no.detach().mean()},
    )


def _opinion(discriminator, x, edge, s, draw, cond, clock) -> Tensor:
    logits = discriminator(travel(x, edge, s, draw.normal(x)), clock(s.t).flatten(), cond)
    require(
        logits.ndim > 1 and len(logits) == len(x),
        f"discriminator: it returned {tuple(logits.shape)} for {len(x)} samples, wanted "
        f"({len(x)}, k): k opinions a sample",
    )
    return logits
