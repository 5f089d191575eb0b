"""What a resumed run is compared with: the settings that its numbers hang on, and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from dlib._util import require
from full_scale.data.rows import Rows
from full_scale.run.settings import Settings, as_table

BOUND = (
    "method",
    "hyper",
    "batch",
    "seed",
    "family",
    "weights",
    "tiny",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "start_lora",
    "optimizer",
    "ema",
    "drop",
    "held_out",
    "reward",
    "reward_weights",
)
"""Settings that a resumed run must not change: the others change its speed, its logs or its
length. Of a role: `BOUND_ROLE`.
"""
BOUND_ROLE = ("rank", "alpha", "targets", "decay")


def of(s: Settings, rows: Rows) -> dict[str, Any]:
    """The facts of a run, in JSON types: what its checkpoints say of it."""
    table = as_table(s)
    table["bound_roles"] = {
        role: {name: own[name] for name in BOUND_ROLE if name in own}
        for role, own in table["roles"].items()
    }
    return table | {"rows": [len(rows), rows.info["family"]], "stamp": rows.stamp}


def compare(found: Mapping[str, Any], now: Mapping[str, Any], s: Settings) -> None:
    """Raise ValueError unless a run with the facts `now` may go on from a checkpoint that says
    `found` of itself: its step, and under "settings" the facts of its run.
    """
    require(
        found["settings"]["method"] == now["method"],
        f"--out {s.out} holds a run of {found['settings']['method']}, not of "
        f"{now['method']}: name the recipe that it was started with, or use a new --out",
    )
    then = {f.name: f.default for f in fields(Settings)} | found["settings"]  # of older runs
    changed = [
        f"{name}: {then.get(name)!r} → {now[name]!r}"
        for name in (*BOUND, "bound_roles", "rows")
        if then.get(name) != now[name]
    ]
    if missed := sorted(set(then["skip_rows"]) - set(now["skip_rows"])):
        changed.append(f"skip_rows: without {missed}")
    if changed:
        raise ValueError(
            f"--out {s.out} holds a run with other settings: {'; '.join(changed)}. "
            "Type them again as they were, or use a new --out"
        )
    require(
        then["stamp"] == now["stamp"],
        f"--data {s.data} holds other rows than those that --out {s.out} was "
        f"started on ({then['data']}), though as many: pass those, or use a new --out",
    )
    require(
        found["step"] <= s.steps,
        f"--steps {s.steps}: --out {s.out} has done {found['step']} already: pass "
        "more to go on, export what there is, or use a new --out",
    )
