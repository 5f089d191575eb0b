"""What a resumed run is compared with: the settings that its numbers hang on, and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from dlib._util import require
from full_scale.data.rows import Rows
from full_scale.run.settings import Settings, Tuned, as_table

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
"""Settings that a resumed run must not change: with another one it is another run."""
BOUND_ROLE = ("rank", "alpha", "targets", "decay")
"""The same of a role."""
TUNED = get_args(Tuned)
"""Settings of how steps are taken, of the student and of roles: a resumed run changes them on
purpose alone, where --change names them. All others change its speed, its logs or its length;
a learning rate that falls by cosine or linearly follows its length.
"""


def of(s: Settings, rows: Rows) -> dict[str, Any]:
    """The facts of a run, in JSON types: what its checkpoints say of it."""
    about = {"rows": [len(rows), rows.info["family"]], "stamp": rows.stamp}
    return as_table(s) | about


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What a resumed run may not change, or not without --change, and has: its flag ↦ then and
    now.
    """
    flat = lambda facts: {
        **{name: facts.get(name) for name in (*BOUND, *TUNED, "rows")},
        **{
            f"roles.{role}.{name}": own.get(name)
            for role, own in facts.get("roles", {}).items()
            for name in (*BOUND_ROLE, *TUNED)
        },
    }
    old, new = flat(then), flat(now)
    return {
        name: f"{old.get(name)!r} → {new[name]!r}" for name in new if old.get(name) != new[name]
    }


def compare(found: Mapping[str, Any], now: Mapping[str, Any], s: Settings) -> str:
    """Raise ValueError unless a run with the facts `now` may go on from a checkpoint that says
    `found` of itself: its step, and under "settings" the facts of its run. What it changes on
    purpose, in words.
    """
    require(
        found["settings"]["method"] == now["method"],
        f"--out {s.out} holds a run of {found['settings']['method']}, not of "
        f"{now['method']}: name the recipe that it was started with, or use a new --out",
    )
    then = {f.name: f.default for f in fields(Settings)} | found["settings"]  # of older runs
    other = differing(then, now)
    meant = {name: what for name, what in other.items() if name.split(".")[-1] in s.change}
    changed = {name: what for name, what in other.items() if name not in meant}
    if missed := sorted(set(then["skip_rows"]) - set(now["skip_rows"])):
        changed["skip_rows"] = f"without {missed}"
    tuned = sorted({last for name in changed if (last := name.split(".")[-1]) in TUNED})
    if changed:
        raise ValueError(
            f"--out {s.out} holds a run with other settings: {_listed(changed)}. "
            "Type them again as they were, or use a new --out"
            + (f". To change it on purpose: --change {' '.join(tuned)}" if tuned else "")
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
    return f"from step {found['step']} on: {_listed(meant)}" if meant else ""


def _listed(changed: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {what}" for name, what in changed.items())
