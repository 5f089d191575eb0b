"""Training in a notebook: a loop, and the averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dlib._util import Draw, require
from dlib.losses import Batch, Loss
from dlib.recipes import Phase, Roles


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
    """

    def __init__(self, net: nn.Module, decay: float = 0.999):
        require(0 <= decay < 1, f"Ema: decay = {decay:g} is outside [0, 1)")
        self.net, self.decay, self.count = copy.deepcopy(net).requires_grad_(False), decay, 0
        # listing a large network takes as long as the update
        self._weights = list(self.net.parameters()), list(net.parameters())
        self._buffers = list(zip(self.net.buffers(), net.buffers()))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the live weights; call it after each optimiser step."""
        average(*self._weights, self.decay, self.count)
        for mean, live in self._buffers:
            mean.copy_(live)
        self.count += 1


History = dict[str, list[float]]


def fit(
    phases: Sequence[Phase],
    roles: Roles,
    optims: Mapping[str, torch.optim.Optimizer],
    data: Callable[[int], Batch],
    steps: int,
    draw: Draw | Callable[[int], Draw],
    ema: Ema | None = None,
    each: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> History:
    """Run `steps` training steps and return every phase's metrics, named `role/metric`.

    data: step ↦ Batch. optims: one optimiser for each role that is trained. draw: one stream
    for the whole run, or step ↦ draws, which makes a step repeatable by itself. ema: updated
    after each step. each: called with (step, metrics), e.g. for a progress bar. Raises
    FloatingPointError, naming step and phase, if a loss is not finite, before that phase
    changes any weight.
    """
    require(steps >= 1, f"fit: steps = {steps}, wanted at least 1")
    for phase in phases:
        require(
            phase.role in roles and phase.role in optims,
            f"fit: phase {phase.role!r} needs a role and an optimiser of that "
            f"name; roles: {sorted(roles)}, optims: {sorted(optims)}",
        )
    kept: dict[str, list[Tensor]] = {}
    for step in range(steps):
        batch, metrics = data(step), {}
        random = draw if isinstance(draw, Draw) else draw(step)
        for phase in phases:
            if step % phase.every:
                continue
            value, found = phase.loss(roles, batch, random)
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"fit: the loss of {phase.role!r} is {value.item()} at step {step}: lower "
                    "the learning rate, or look at the batch"
                )
            optims[phase.role].zero_grad(set_to_none=True)
            value.backward()
            optims[phase.role].step()
            metrics |= {f"{phase.role}/{name}": metric for name, metric in found.items()}
        if ema is not None:
            ema.update()
        for name, metric in metrics.items():
            kept.setdefault(name, []).append(metric)
        if each is not None:
            each(step, metrics)
    return {name: torch.stack(values).tolist() for name, values in kept.items()}


def train(
    net: nn.Module,
    loss: Callable[[Batch, Draw], Loss],
    data: Callable[[int], Batch],
    steps: int,
    lr: float = 2e-3,
    seed: int = 0,
) -> None:
    """`fit` for one network and one loss, as the toys need it: Adam, its rate falling from
    `lr` to zero along a cosine.

    loss: (batch, draw) ↦ Loss, which knows the network; data: step ↦ Batch; seed: of the
    loss's own draws. What a chapter needs beyond that, a history, an average, two networks,
    `fit` has.
    """
    optim = torch.optim.Adam(net.parameters(), lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    phase = Phase("net", lambda roles, batch, draw: loss(batch, draw))
    fit(
        [phase],
        {"net": net},
        {"net": optim},
        data,
        steps,
        Draw(seed),
        each=lambda step, metrics: rate.step(),
    )
