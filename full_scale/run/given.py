"""Roles that are handed in instead of trained: rewards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dlib._util import require
from full_scale import rewards
from full_scale.data.captions import NAME, unpacked
from full_scale.families import Family
from full_scale.families.base import META, Blueprint
from full_scale.run.settings import Settings, recipe_of


def reward(s: Settings, family: Family | Blueprint) -> Callable[[Tensor, Any], Tensor]:
    """The score `--reward` of the pictures that a family makes of x0, (x0, cond) ↦ (B,). A
    gradient goes through the score and the family's decoder.
    """
    drawn = isinstance(family, Blueprint)
    device = META if drawn else next(family.net.parameters()).device
    score = rewards.opened(s.reward, s.reward_weights, device)

    def of(x0: Tensor, cond: Any) -> Tensor:
        captions = [""] * len(x0) if drawn else unpacked(cond[NAME])
        return score(family.pixels(x0), captions)

    return of


GIVEN: dict[str, Callable[[Settings, Family | Blueprint], Any]] = {"reward": reward}
"""Role ↦ a function that opens what plays it, for these settings and this model. The estimate
asks it with a `Blueprint` for the model: what it returns then gets tensors of the meta device.
"""


def check_given(s: Settings) -> None:
    """Raise ValueError for what can be wrong with the parts "given" before weights are read."""
    if "reward" in _wanted(s):
        rewards.check(s.reward, s.reward_weights)


def given_roles(s: Settings, family: Family | Blueprint) -> dict[str, Any]:
    """Who plays the recipe's parts "given". ValueError for one that nobody opens, and for a
    reward that no part asks for.
    """
    return {role: GIVEN[role](s, family) for role in _wanted(s)}


def _wanted(s: Settings) -> list[str]:
    wanted = recipe_of(s, None, None).play("given")
    missing = [role for role in wanted if role not in GIVEN]
    require(
        not missing,
        f"{s.method} needs {missing}, which nobody opens: register a function under that name in "
        f"full_scale.run.given.GIVEN; there are {sorted(GIVEN)}",
    )
    for flag, value in (("--reward", s.reward), ("--reward-weights", s.reward_weights)):
        require(
            not value or "reward" in wanted,
            f"{flag} {value}: {s.method} follows no reward: leave it out",
        )
    return wanted
