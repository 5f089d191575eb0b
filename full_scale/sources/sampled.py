"""What `full_scale.sample` wrote: pictures with their prompts and, if the way from noise to
picture drew nothing, the seed of each one's noise.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from full_scale.sources.folders import Row, Source, listed, stamped

SETTINGS = "settings.json"


class Sampled(NamedTuple):
    """entries: of each picture its file, prompt, seed and flagged: whether the safety checker
    hid it. unpaired: in words why the seeds are not all that the pictures were made from.
    """

    entries: list[dict[str, Any]]
    unpaired: str


def settings(folder: Path) -> Sampled:
    """What settings.json says of its pictures; ValueError for another program's file."""
    path = folder / SETTINGS
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        entries = [{"seed": None, "flagged": False} | entry for entry in table["pictures"]]
        if not all({"file", "prompt"} <= entry.keys() for entry in entries):
            raise KeyError
        own = table.get("config", {})
        if table.get("solver", {}).get("noisy", True):
            return Sampled(entries, "its steps drew noise of their own")
        sized = own.get("width") or own.get("height")
        return Sampled(
            entries, "--width or --height gave its noise another shape" if sized else ""
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} is not what full_scale.sample writes: delete it if this is a folder "
            "of other pictures"
        ) from None


def is_sampled(folder: Path) -> bool:
    """Whether full_scale.sample wrote this folder."""
    try:
        return (folder / SETTINGS).is_file() and bool(settings(folder))
    except ValueError:
        return False


def sampled(folder: Path) -> Source:
    """A folder of full_scale.sample: prompts are the captions. With a solver that draws nothing,
    and at the network's own size, its rows are pairs of noise and picture as well, for knowledge
    distillation.
    """
    entries, unpaired = settings(folder)
    hidden = ("hidden", "the safety checker hid the picture")
    rows = [
        Row(
            Path(entry["file"]).stem,
            entry["file"],
            (entry["prompt"],),
            folder / entry["file"],
            hidden if entry["flagged"] else None,
            seed=None if unpaired else entry["seed"],
        )
        for entry in entries
    ]
    told = f"{len(rows)} pictures of full_scale.sample"
    if unpaired:
        return listed(f"{told}, without their seeds, since {unpaired}", rows)
    made = listed(f"{told} with their seeds", rows)
    stamp = stamped([made.stamp, *(row.seed for row in rows)])
    return replace(made, stamp=stamp, seeds=True)
