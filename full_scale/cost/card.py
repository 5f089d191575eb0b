"""The smallest change of a run's settings with which it fits on one card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from full_scale.cost.needs import fits, needs
from full_scale.run.checks import check
from full_scale.run.settings import Settings

RANK = 64
"""Of the adapters that take the place of all weights."""


def fitting(s: Settings, processes: int, room: float) -> tuple[str, Settings]:
    """(the flags to add, the settings with them) for cards of `room` GB.

    First what changes no result is tried: gradient checkpointing, then ever smaller
    micro-batches. If not even the smallest fits, the optimiser's moments take 8 bits; then
    adapters on one base take the place of all weights. Raises ValueError if nothing fits, with
    the least that the method needs.
    """
    check(replace(s, data=s.data or Path("DATA")), processes)
    least = float("inf")
    for flags, kind in _kinds(s):
        *larger, smallest = _smaller(kind, processes)
        need = needs(smallest[1], processes)
        least = min(least, need.peak(s.parallel, processes))
        if fits(need, s, processes, room):
            found = (one for one in larger if fits(needs(one[1], processes), s, processes, room))
            more, settings = next(found, smallest)
            return " ".join([*flags, *more]), settings
    raise ValueError(
        f"--card {room:g}: {s.method} does not fit: it needs at least {least / 1e9:.3g} GB, and "
        f"of {room * 2**30 / 1e9:.3g} GB a tenth is left alone: take a larger card, several with "
        "--parallel fsdp, or a recipe that trains adapters"
    )


def _kinds(s: Settings) -> Iterator[tuple[list[str], Settings]]:
    """The settings, with moments of 8 bits, and with adapters where the method can have them."""
    yield [], s
    if s.optimizer == "adamw":
        yield ["--optimizer", "adamw8bit"], replace(s, optimizer="adamw8bit")
    if s.lora_rank:
        return
    adapted = replace(s, lora_rank=RANK)
    try:
        check(replace(adapted, data=s.data or Path("DATA")))
    except ValueError:
        return
    yield ["--lora-rank", str(RANK)], adapted


def _smaller(s: Settings, processes: int) -> Iterator[tuple[list[str], Settings]]:
    """These settings, and with ever less memory for the same steps."""
    yield [], s
    again = [] if s.recompute else ["--recompute"]
    if again:
        yield again, replace(s, recompute=True)
    micro = s.micro
    while micro > 1:
        micro //= 2
        while s.batch % (processes * micro):
            micro -= 1
        yield [*again, "--micro", str(micro)], replace(s, recompute=True, micro=micro)
