"""What a step of training computes: the recipe's own losses, forward and backward, on the meta
device.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dlib import Batch, Draw, Loss, Phase, Recipe
from full_scale.cost.counting import Cost, backward, cost
from full_scale.data.draws import Draws, step_draws
from full_scale.families.base import Blueprint
from full_scale.run.cast import Company
from full_scale.run.settings import Settings

TURNS = 16
"""Of a number that all rows share, at most so many values are tried."""


class Work(NamedTuple):
    """Something that is done `times` a step, on average, and its cost for one micro-batch."""

    name: str
    times: Fraction
    cost: Cost


class Shared(Draw):
    """The number that all rows of a step share: not random, but each of its values in turn."""

    def __init__(self):
        super().__init__(0)
        self.turn, self.turns = 0, 1

    def shared(self, high: int) -> int:
        self.turns = math.lcm(self.turns, high)
        return self.turn % high

    def copy(self) -> Shared:
        return self


def measure(
    plan: Blueprint, recipe: Recipe, cast: Company, s: Settings, dtype: torch.dtype
) -> tuple[list[Work], int]:
    """What steps do with one micro-batch, and the bytes of what is rolled out for it.

    Steps differ in the phases that are due, as `every` says, and in the number that their rows
    share. Work that costs the same is one entry; over the shared number FLOP are the mean,
    bytes the most.
    """
    period = math.lcm(*(phase.every for phase in recipe.phases))
    kinds = Counter(
        tuple(phase for phase in recipe.phases if step % phase.every == 0)
        for step in range(period)
    )
    times, memo = Counter(), 0
    for due, steps in kinds.items():
        every, memo = in_turn(partial(one_step, plan, recipe, cast, s, dtype, due))
        for same in zip(*every, strict=True):
            name, often, _ = same[0]
            times[name, mean([work.cost for work in same])] += often * Fraction(steps, period)
    return [Work(name, often, spent) for (name, spent), often in times.items()], memo


def in_turn(step: Callable[[Shared], tuple[list[Work], int]]) -> tuple[list[list[Work]], int]:
    """What `step` costs at at most TURNS values of the number that its rows share; at one, if
    the first, the last and the one in the middle cost the same. And the bytes of its rollout.
    """
    shared = Shared()

    @cache
    def at(turn: int) -> tuple[list[Work], int]:
        shared.turn = turn
        return step(shared)

    first, memo = at(0)
    turns = range(0, shared.turns, -(-shared.turns // TURNS))
    if all(at(turn)[0] == first for turn in (turns[len(turns) // 2], turns[-1])):
        return [first], memo
    return [at(turn)[0] for turn in turns], memo


def mean(costs: list[Cost]) -> Cost:
    """The mean FLOP, and the bytes of the one that takes most."""
    flops = Fraction(sum(one.flops for one in costs), len(costs))
    return max(costs, key=lambda one: one.peak)._replace(flops=flops)


def one_step(
    plan: Blueprint,
    recipe: Recipe,
    cast: Company,
    s: Settings,
    dtype: torch.dtype,
    due: tuple[Phase, ...],
    shared: Shared,
) -> tuple[list[Work], int]:
    """A step in which these phases are due, on one micro-batch; the bytes of its rollout."""
    batch, draw = plan.batch(s.micro, recipe.reads), step_draws(s.seed, 0, range(s.micro))
    draw.together = shared
    before = [
        *(value for value in (batch.x0, batch.noise, batch.other) if value is not None),
        *plan.empty.values(),
        *(p for net in nets(cast) for p in [*net.parameters(), *net.buffers()]),
    ]
    found = []
    if recipe.before is not None:
        roll = lambda: rolled(recipe, cast, batch, draw, s.batch // s.micro)
        spent = cost(roll, before, dtype, nets(cast))
        found.append(Work("before", Fraction(1), spent))
    memo = sum(value.nbytes for value in held(batch))
    for phase in due:
        leaves = [leaf for role in phase.roles for leaf in cast.trained[role].leaves]
        for leaf in leaves:
            leaf.grad = torch.empty_like(leaf)
        there = [*before, *held(batch), *(leaf.grad for leaf in leaves)]
        backs = lambda: backed(phase, cast, batch, draw, leaves)
        found.extend(
            Work(phase.name, Fraction(recipe.epochs * often), spent)
            for often, spent in parts_of(backs, there, dtype, nets(cast))
        )
    return found, memo


@torch.no_grad()
def rolled(recipe: Recipe, cast: Company, batch: Batch, draw: Draws, micros: int) -> None:
    """Fill the memo of a micro-batch, as one of `micros` of a step."""
    memos = [recipe.before(cast.roles, batch, draw)]
    if recipe.pool is not None:
        everybody = lambda rows: (torch.cat([rows] * micros), slice(0, len(rows)))
        memos = recipe.pool(memos, everybody)
    batch.memo.update(memos[0])


def parts_of(
    backs: Callable[[], Iterator[tuple[int, Callable]]],
    there: list[Tensor],
    dtype: torch.dtype,
    called: list[nn.Module],
) -> Iterator[tuple[int, Cost]]:
    """How often each part of a loss is walked, forward and backward, and its cost. The loss
    itself, which makes them, belongs to the first.
    """
    made = backs()
    while True:
        often: list[int] = []

        def one() -> None:
            for count, part in made:
                often.append(count)
                return part()

        spent = cost(one, there, dtype, called)
        if not often:
            return
        yield often[0], spent


def backed(
    phase: Phase, cast: Company, batch: Batch, draw: Draws, leaves: list[Tensor]
) -> Iterator[tuple[int, Callable[[], None]]]:
    """A phase's loss and its backward pass; of a loss in parts, one after another. Parts that
    are one function with other numbers cost the same, and the first stands for all. Functions
    come in the order of their names, since a draw may say which of them is the first part.
    """
    made = phase.loss(cast.roles, batch, draw)
    if isinstance(made, Loss):
        yield 1, lambda: backward(made.value, leaves)
        return
    alike: dict[Any, list[Callable]] = {}
    for part in made:
        alike.setdefault(getattr(part, "func", part), []).append(part)
    for _, same in sorted(alike.items(), key=lambda one: getattr(one[0], "__qualname__", "")):
        yield len(same), lambda: backward(same[0]().value, leaves)


def held(batch: Batch) -> list[Tensor]:
    """The tensors of a batch's memo."""
    return [value for value in tree_leaves(batch.memo) if isinstance(value, Tensor)]


def nets(cast: Company) -> list[nn.Module]:
    """Every network of a cast."""
    return (
        [net.inner for net in cast.trained.values()]
        + [mean.net for mean in cast.averages.values()]
        + [
            role.net
            for role in cast.roles.values()
            if isinstance(getattr(role, "net", None), nn.Module)
        ]
    )
