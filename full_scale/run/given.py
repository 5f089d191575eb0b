"""Roles that are handed in instead of trained: rewards, feature networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlib._util import require
from full_scale.families import Family
from full_scale.families.base import Blueprint
from full_scale.run.settings import Settings, recipe_of

GIVEN: dict[str, Callable[[Settings, Family | Blueprint], Any]] = {}
"""Role ↦ a function that opens what plays it, for these settings and this model. The estimate
asks it with a `Blueprint` for the model: what it returns then gets tensors of the meta device.
"""


def given_roles(s: Settings, family: Family | Blueprint) -> dict[str, Any]:
    """Who plays the recipe's parts "given". ValueError for one that nobody opens."""
    wanted = recipe_of(s, None, None).play("given")
    missing = [role for role in wanted if role not in GIVEN]
    require(
        not missing,
        f"{s.method} needs {missing}, which nobody opens: register a function under that name in "
        f"full_scale.run.given.GIVEN; there are {sorted(GIVEN) or 'none yet'}",
    )
    return {role: GIVEN[role](s, family) for role in wanted}
