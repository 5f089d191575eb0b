"""Which numbers a run's settings can be: where each begins and ends, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dlib._util import require
from full_scale.run.settings import Settings


class Wanted(NamedTuple):
    """What is asked of a finite number, and in words."""

    holds: Callable[[float], bool]
    words: str


FINITE = Wanted(lambda x: True, "a finite number")
ONE = Wanted(lambda x: x >= 1, "at least 1")
ZERO = Wanted(lambda x: x >= 0, "at least 0")
ABOVE = Wanted(lambda x: x > 0, "above 0")
SHARE = Wanted(lambda x: 0 <= x < 1, "at least 0 and below 1")
TIME = Wanted(lambda x: 0 <= x <= 1, "a time from 0 to 1")
SEED = Wanted(lambda x: 0 <= x < 2**64, f"0 … {2**64 - 1}")

ROLE = {
    "lr": ZERO,
    "betas": SHARE,
    "weight_decay": ZERO,
    "clip": ZERO,
    "rank": ZERO,
    "alpha": ABOVE,
    "decay": SHARE,
}
"""Of a role's table, and where the student has them under the same name, its own."""
RUN = ROLE | {
    **dict.fromkeys(("steps", "batch", "micro", "save_every", "keep", "log_every"), ONE),
    **dict.fromkeys(("lora_rank", "warmup", "held_out", "show_every", "skip_rows"), ZERO),
    **dict.fromkeys(("ema", "drop"), SHARE),
    **{"validate_every": ONE, "lora_alpha": ABOVE, "seed": SEED},
}
"""Of a run."""
HYPER = {
    **dict.fromkeys(("every", "fake_steps", "growth", "rise", "phases", "skip"), ONE),
    **dict.fromkeys(("steps", "stages", "points", "group", "epochs", "last", "move"), ONE),
    **dict.fromkeys(("omega", "omega_fake", "huber_c", "kl", "adversarial", "b", "k"), ZERO),
    **dict.fromkeys(("c", "deepest", "window"), ZERO),
    **dict.fromkeys(("beta", "clip", "noise", "std", "sigma_data", "sigma_start"), ABOVE),
    **dict.fromkeys(("start", "t_min", "t_max"), TIME),
    **{"dropout": SHARE, "q": Wanted(lambda x: x > 1, "above 1")},
}
"""Of the methods' hyper-parameters, which have one meaning under one name; any other number,
and those of a method that is new, is finite.
"""
RISING = ("omega", "points")
"""Pairs of which the first is the smaller one."""


def check_numbers(s: Settings) -> None:
    """Raise ValueError, with the flag, its value and what is wanted, for a number that a run
    cannot have.
    """
    for flag, name, value, wanted in _numbers(s):
        parts = value if isinstance(value, tuple) else (value,)
        shown = f"--{flag.replace('_', '-')} {' '.join(map(_short, parts))}"
        finite = all(isinstance(x, int) or math.isfinite(x) for x in parts)
        require(finite and all(wanted.holds(x) for x in parts), f"{shown}: wanted {wanted.words}")
        require(
            name not in RISING or list(parts) == sorted(parts),
            f"{shown}: wanted the smaller one first",
        )


def _numbers(s: Settings) -> Iterator[tuple[str, str, Any, Wanted]]:
    """(flag, name, value, what is wanted) of every number that is set."""
    tables = {"": (vars(s), RUN), "hyper.": (vars(s.hyper), HYPER)}
    tables |= {f"roles.{role}.": (vars(own), ROLE) for role, own in vars(s.roles).items()}
    for prefix, (table, wanted) in tables.items():
        for name, value in table.items():
            first = value[0] if isinstance(value, tuple) and value else value
            if isinstance(first, (int, float)) and not isinstance(first, bool):
                yield f"{prefix}{name}", name, value, wanted.get(name, FINITE)


def _short(x: float) -> str:
    return str(x) if isinstance(x, int) else f"{x:g}"
