"""What `full_scale.sample` wrote: pictures with their prompts and, if the way from noise to
picture drew nothing, the seed of each one's noise.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from dlib._util import require
from full_scale.sources.folders import Noise, Row, Source, folder, listed, stamped

SETTINGS = "settings.json"


class Sampled(NamedTuple):
    """entries: of each picture its file, prompt, seed and flagged: whether the safety checker
    hid it. noise: what the seeds are noise of, if they are all that the pictures were made from.
    """

    entries: list[dict[str, Any]]
    noise: Noise | None


def settings(path: Path) -> Sampled:
    """What settings.json in this folder says; ValueError for another program's file."""
    try:
        table = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
        entries = [{"seed": None, "flagged": False} | entry for entry in table["pictures"]]
        if not all({"file", "prompt"} <= entry.keys() for entry in entries):
            raise KeyError
        asked, noisy = table.get("config", {}), table.get("solver", {}).get("noisy", True)
        noise = Noise(*(asked.get(name) for name in Noise._fields))
        return Sampled(entries, None if noisy else noise)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path / SETTINGS} is not what full_scale.sample writes: delete it if this is a "
            "folder of other pictures"
        ) from None


def is_sampled(path: Path) -> bool:
    """Whether full_scale.sample wrote this folder."""
    try:
        return (path / SETTINGS).is_file() and bool(settings(path))
    except ValueError:
        return False


def pictures_in(path: Path, caption: str | None = None) -> Source:
    """A folder of pictures with captions: `sampled`, or any other, as `folder` reads it."""
    if not is_sampled(path):
        return folder(path, caption)
    require(
        caption is None,
        f"--caption-column {caption}: full_scale.sample wrote {path}, and its captions are the "
        "prompts: leave it out",
    )
    return sampled(path)


def sampled(path: Path) -> Source:
    """A folder of full_scale.sample: prompts are the captions. With a solver that draws nothing
    its rows are pairs of noise and picture as well, for knowledge distillation.
    """
    entries, noise = settings(path)
    hidden = ("hidden", "the safety checker hid the picture")
    rows = [
        Row(
            Path(entry["file"]).stem,
            entry["file"],
            (entry["prompt"],),
            path / entry["file"],
            hidden if entry["flagged"] else None,
            seed=entry["seed"],
        )
        for entry in entries
    ]
    made = listed(f"{len(rows)} pictures of full_scale.sample", rows)
    stamp = stamped([made.stamp, noise, *(row.seed for row in rows)])
    return replace(made, stamp=stamp, noise=noise)
