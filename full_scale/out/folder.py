"""What sampling and exporting leave behind: a folder that is either complete or absent."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from dlib._util import require


def next_free(stem: Path) -> Path:
    """`stem-001`, or the first number after it that is not taken."""
    number = 1
    while (path := stem.with_name(f"{stem.name}-{number:03d}")).exists():
        number += 1
    return path


def is_free(out: Path) -> bool:
    """Whether writing to `out` touches nothing that exists."""
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def check_free(out: Path, flag: str = "--out") -> None:
    """Raise ValueError, with a name to use instead, unless `out` is free."""
    require(
        is_free(out),
        f"{flag} {out} exists and is not empty; nothing was overwritten. Pass {flag} "
        f"{next_free(out)}",
    )


def contact_sheet(pictures: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """The pictures, all of one size, in reading order, `columns` a row, on white."""
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image
    from torchvision.utils import make_grid

    width, height = pictures[0].size
    white = Image.new("RGB", (width, height), "white")
    rows = -(-len(pictures) // columns)
    cells = [*pictures, *[white] * (rows * columns - len(pictures))]
    sheet = make_grid([pil_to_tensor(cell) for cell in cells], columns, gap, pad_value=255)
    border = gap if len(cells) > 1 else 0  # make_grid frames several pictures
    return to_pil_image(
        sheet[:, border : sheet.shape[1] - border, border : sheet.shape[2] - border]
    )


def write(
    out: Path, pictures: Mapping[str, Image.Image], columns: int, settings: Mapping[str, Any]
) -> Path:
    """Pictures by file name, grid.png and settings.json as the folder `out`; returns the
    folder, as `whole` does.
    """

    def fill(half: Path) -> None:
        for name, picture in {
            **pictures,
            "grid.png": contact_sheet(list(pictures.values()), columns),
        }.items():
            picture.save(half / name)
        (half / "settings.json").write_text(
            json.dumps(settings, indent=2, ensure_ascii=False, default=str) + "\n"
        )

    return whole(out, fill)


def whole(out: Path, fill: Callable[[Path], None]) -> Path:
    """Call `fill` with a new folder beside `out`, then rename it to `out` at once; if `fill`
    fails, nothing is left.

    Returns the folder: another one, if `out` was taken while it was being filled.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        fill(half)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    half.chmod(0o755)  # mkdtemp makes it private
    out = out if is_free(out) else next_free(out)
    os.replace(half, out)
    return out


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("diffusion-distilled", "torch", "diffusers", "transformers")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


class Laps(dict):
    """Seconds by name: `mark` names the time since the mark before."""

    def __init__(self):
        self.last = time.perf_counter()

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self[name], self.last = round(now - self.last, 3), now
