"""One trainer for a recipe: in a notebook, and with the engine's hooks on many GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlib._util import Draw, require
from dlib.denoiser import parameters
from dlib.losses import Batch, Loss
from dlib.recipes import Part, Phase, Recipe
from dlib.training.casting import Cast, Roles

Micro = Sequence[tuple[Batch, Draw]]
"""A step's micro-batches, each with its draws."""
History = dict[str, list[float]]


class Trained:
    """A role's optimiser, and the weights that it moves."""

    def __init__(self, optim: torch.optim.Optimizer):
        self.optim = optim
        self.leaves = [weight for group in optim.param_groups for weight in group["params"]]

    def synchronise(self, on: bool) -> None:
        """Whether the next backward pass sums gradients over processes. Here there is one."""


class Trainer:
    """A recipe's steps on a cast. Whoever trains on many processes overrides the hooks.

    A step: `before` for every micro-batch, without gradient; `pool` once; then every phase
    that is due, `epochs` times over: the gradients of all micro-batches, part by part, then
    one step of the optimiser of each of its roles, and the averages of what has moved. A
    checkpoint belongs between steps: memos are never saved.
    """

    def __init__(self, recipe: Recipe, cast: Cast, trained: Mapping[str, Trained]):
        self.recipe, self.cast, self.trained = recipe, cast, dict(trained)
        missing = [role for role in recipe.trained if role not in self.trained]
        require(
            not missing,
            f"perform: no optimiser for {missing}; the recipe trains {list(recipe.trained)}, "
            f"and there are {sorted(self.trained)}",
        )
        odd = sorted(set(self.trained) - set(recipe.trained))
        require(
            not odd,
            f"perform: an optimiser for {odd}, and the recipe trains {list(recipe.trained)}: "
            "leave it out, or add a phase that trains its role",
        )
        for role, net in self.trained.items():
            own = {id(weight) for weight in _parameters_of(cast.roles.get(role))}
            require(
                not own or any(id(leaf) in own for leaf in net.leaves),
                f"perform: the optimiser for {role!r} has none of its weights, so it would never "
                f"move: make it of weights_of(cast.roles[{role!r}])",
            )

    def computing(self) -> AbstractContextManager:
        """In which losses are computed: the engine's autocast."""
        return nullcontext()

    def gathered(self, rows: Tensor) -> tuple[Tensor, slice]:
        """(everybody's rows, which of them are this process's)."""
        return rows, slice(0, len(rows))

    def check(self, value: Tensor, phase: Phase, step: int) -> None:
        """Raise FloatingPointError for a loss that is not finite: no weight has changed."""
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"perform: the loss of {phase.name!r} is {value.item()} at step {step}: lower "
                "the learning rate, or look at the batch"
            )

    def backward(self, value: Tensor, phase: Phase) -> None:
        """Add to the gradients of the phase's own weights, and to no others: its loss may have
        gone through networks that another phase trains.
        """
        value.backward(
            inputs=[leaf for role in phase.roles for leaf in self.trained[role].leaves]
        )

    def update(self, role: str, step: int, micro: Micro) -> dict[str, Tensor]:
        """One step of a role's optimiser; what is to be logged of it."""
        self.trained[role].optim.step()
        return {}

    def advance(self, micro: Micro, step: int) -> dict[str, Tensor]:
        """One step on these micro-batches; the metrics by `role/name`."""
        for batch, _ in micro:
            self._fits(batch)
        micro = [(replace(batch, step=step), draw) for batch, draw in micro]  # one memo still
        self._roll(micro)
        metrics: dict[str, list[Tensor]] = {}
        for _ in range(self.recipe.epochs):
            for phase in self.recipe.phases:
                if step % phase.every == 0:
                    for name, value in self._run(phase, micro, step).items():
                        metrics.setdefault(name, []).append(value)
                    self.cast.follow(set(phase.roles))
        if step == 0:
            self._unread()
        return {name: torch.stack(values).mean() for name, values in metrics.items()}

    def _fits(self, batch: Batch) -> None:
        """Raise ValueError unless a batch holds what the recipe reads: noise for pairs, none
        for texts, whose recipes begin their samples from noise of their own draws, and worse
        pictures only for preferences. Any other batch may bring noise: a loss takes it or
        refuses it.
        """
        reads = self.recipe.reads
        require(
            reads != "pairs" or batch.noise is not None,
            "perform: this recipe reads pairs, and the batch has no noise: Batch(x0, noise=…)",
        )
        require(
            reads != "texts" or batch.noise is None,
            "perform: this recipe reads texts and draws its noise itself, and this batch brings "
            "its own: leave it out, or use a recipe that reads pairs",
        )
        require(
            (reads == "preferences") == (batch.other is not None),
            f"perform: this recipe reads {reads}, and the batch "
            f"{'has no' if batch.other is None else 'has an'} `other`, the worse picture of a "
            "preference: both or neither",
        )

    def _roll(self, micro: Micro) -> None:
        """Fill the memos of a recipe that rolls out first."""
        recipe, roles = self.recipe, self.cast.roles
        if recipe.before is None:
            return
        with torch.no_grad(), self.computing():
            memos = [recipe.before(roles, batch, draw) for batch, draw in micro]
            memos = memos if recipe.pool is None else recipe.pool(memos, self.gathered)
        for (batch, _), memo in zip(micro, memos, strict=True):
            batch.memo.update(memo)

    def _run(self, phase: Phase, micro: Micro, step: int) -> dict[str, Tensor]:
        """One phase: gradients of its roles' weights alone, whatever its loss has touched."""
        own = [self.trained[role] for role in phase.roles]
        for net in own:
            net.optim.zero_grad(set_to_none=True)
        found: dict[str, list[Tensor]] = {}
        for k, (batch, draw) in enumerate(micro):
            for value, parts in self._parts(phase, batch, draw, k == len(micro) - 1):
                self.check(value, phase, step)
                self.backward(value / len(micro), phase)
                for name, metric in parts.items():
                    found.setdefault(f"{phase.name}/{name}", []).append(metric)
        if step == 0:
            self._unmoved(phase)
        for role in phase.roles:
            for name, metric in self.update(role, step, micro).items():
                found[f"{role}/{name}"] = [metric]
        return {name: torch.stack(values).mean() for name, values in found.items()}

    def _parts(self, phase: Phase, batch: Batch, draw: Draw, last: bool) -> Iterator[Loss]:
        """A phase's loss on a micro-batch, or its parts one after another. Gradients are
        summed over processes in the last backward pass of all.
        """
        self._synchronise(phase, last)
        with self.computing():
            made = phase.loss(self.cast.roles, batch, draw)
        if isinstance(made, Loss):
            yield made
            return
        for k, part in enumerate(made):
            self._synchronise(phase, last and k == len(made) - 1)
            with self.computing():
                one = part()
            yield one

    def _synchronise(self, phase: Phase, on: bool) -> None:
        for role in phase.roles:
            self.trained[role].synchronise(on)

    def _unmoved(self, phase: Phase) -> None:
        """A role whose weights the phase's loss did not reach would stay as it is."""
        for role in phase.roles:
            reached = any(leaf.grad is not None for leaf in self.trained[role].leaves)
            require(
                reached,
                f"perform: the loss of {phase.name!r} does not reach the weights of {role!r}, "
                f"which would never move: let that loss call roles[{role!r}] with gradient, or "
                "leave the role out of the phase",
            )

    def _unread(self) -> None:
        """All phases run at step 0: a role that none of them asked for is a mistake."""
        others = self.recipe.play("teacher", "mean", "given")
        unread = sorted(set(others) - self.cast.roles.read)
        require(
            not unread,
            f"perform: no loss of the recipe has asked for {unread}: take it out of the parts, "
            "or use it",
        )


def weights_of(role: Any) -> list[nn.Parameter]:
    """What a role trains: the weights of a denoiser's or a judge's network that want a
    gradient; of a twin its adapters.
    """
    return [weight for weight in _parameters_of(role) if weight.requires_grad]


def _parameters_of(role: Any) -> list[nn.Parameter]:
    return parameters(getattr(role, "net", role))


def perform(
    recipe: Recipe,
    cast: Cast,
    optims: Mapping[str, torch.optim.Optimizer],
    data: Callable[[int], Batch],
    steps: int,
    draw: Draw | Callable[[int], Draw],
    each: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> History:
    """Run `steps` training steps of a recipe; every phase's metrics, named `role/metric`.

    optims: one for each trained role. data: step ↦ Batch. draw: one stream for the whole run,
    or step ↦ draws, which makes a step repeatable by itself. each: called with (step, metrics)
    after every step, e.g. for a progress bar or a learning rate. Raises FloatingPointError,
    naming step and phase, if a loss is not finite, before that phase changes any weight.
    """
    require(steps >= 1, f"perform: steps = {steps}, wanted at least 1")
    trained = {role: Trained(optim) for role, optim in optims.items()}
    trainer, kept = Trainer(recipe, cast, trained), {}
    for step in range(steps):
        random = draw if isinstance(draw, Draw) else draw(step)
        metrics = trainer.advance([(data(step), random)], step)
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
) -> History:
    """`perform` for one network and one loss, as the toys need it: Adam, its rate falling from
    `lr` to zero along a cosine; returns the history.

    loss: (batch, draw) ↦ Loss, which knows the network; data: step ↦ Batch; seed: of the
    loss's own draws. What a chapter needs beyond that, averages, several networks, `perform`
    has.
    """
    optim = torch.optim.Adam(net.parameters(), lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    recipe = Recipe((Phase("net", lambda roles, *given: loss(*given)),), {"net": Part("copy")})
    cast = Cast(Roles(net=net))
    return perform(
        recipe, cast, {"net": optim}, data, steps, Draw(seed), lambda step, found: rate.step()
    )
