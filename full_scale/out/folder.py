"""What sampling and exporting leave behind: a folder that is either complete or absent."""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
    """Raise ValueError, with a name to use instead, unless `out` is free and can be made."""
    there = out
    try:
        require(
            is_free(out),
            f"{flag} {out} exists and is not empty; nothing was overwritten. Pass {flag} "
            f"{next_free(out)}",
        )
        require(
            not os.path.ismount(out),
            f"{flag} {out} is where a disk is mounted: name a folder in it, {out / 'new'}",
        )
        there = next(path for path in out.absolute().parents if path.exists())
        with tempfile.TemporaryDirectory(prefix=".try-", dir=there):
            pass
    except OSError as error:
        raise ValueError(
            f"{flag} {out}: nothing can be written to {there} ({error.strerror}): pass {flag} "
            "with another folder"
        ) from error


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


class Growing:
    """A folder that pictures are put into as they are finished: each is there whole or not at
    all, in room that was set aside for it.
    """

    def __init__(self, half: Path, room: int):
        self.half, self.room, self.done = half, half / ".room", half
        self.shown: dict[str, Image.Image] = {}
        self.facts: Callable[[], Mapping[str, Any]] = dict
        with self.room.open("wb") as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, room)

    def add(self, name: str, picture: Image.Image) -> None:
        """Save a picture under this name."""
        part = self.half / f".{name}.part"
        try:
            with io.BytesIO() as file:
                picture.save(file, "PNG")
                os.truncate(self.room, max(0, self.room.stat().st_size - file.tell()))
                part.write_bytes(file.getvalue())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        os.replace(part, self.half / name)
        self.shown[name] = picture

    def close(self, columns: int) -> None:
        """Write grid.png, and `facts()` as settings.json, in what is left of the room."""
        self.room.unlink(missing_ok=True)
        text = json.dumps(self.facts(), indent=2, ensure_ascii=False, default=str) + "\n"
        path = self.half / "settings.json"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        contact_sheet(list(self.shown.values()), columns).save(self.half / "grid.png")


def room_for(count: int, width: int, height: int) -> int:
    """Bytes that so many pictures, their contact sheet and settings.json take at most.

    >>> room_for(4, 512, 512) < 7_000_000
    True
    """
    return 2 * count * (height * (3 * width + 1) + 4096) + 65536


@contextmanager
def growing(out: Path, room: int, columns: int) -> Iterator[Growing]:
    """A `Growing` beside `out`, which becomes `out` when the block ends; `room` bytes are set
    aside first.

    If the block fails before the first picture, nothing is left; if later, what is finished
    becomes `out` with its `facts`, and stderr says so. A full disk is a
    ValueError with the space that is needed and free. `done` of the result is the folder:
    another one, if `out` was taken meanwhile.
    """
    new = [path for path in [out.parent, *out.parent.parents] if not path.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    found = None
    try:
        with space(out, room, "the pictures"):
            _ask_for(room, half)
            found = Growing(half, room)
            yield found
            found.close(columns)
    except BaseException:
        if found is None or not found.shown:
            shutil.rmtree(half, ignore_errors=True)
            with suppress(OSError):  # not empty any more
                for path in new:
                    path.rmdir()
            raise
        with suppress(OSError):
            found.close(columns)
        said = f"{len(found.shown)} finished pictures are in {renamed(half, out)}"
        print(said, file=sys.stderr)
        raise
    found.done = renamed(half, out)


@contextmanager
def space(out: Path, room: int, what: str, flag: str = "--out") -> Iterator[None]:
    """Turn 'no space left' into a ValueError that says how much is wanted, and for what."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(next(p for p in out.absolute().parents if p.exists())).free
        raise ValueError(
            f"{flag} {out}: {error.strerror}: {room / 1e6:.1f} MB are wanted for {what}, and "
            f"{free / 1e6:.1f} MB are free there: make room, or pass {flag} with a folder on "
            "another disk"
        ) from error


def _ask_for(room: int, folder: Path) -> None:
    """Raise the error of a full disk if so many bytes are not free where a folder is."""
    if shutil.disk_usage(folder).free < room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def whole(out: Path, fill: Callable[[Path], None], room: int = 0) -> Path:
    """Call `fill` with a new folder beside `out`, then rename it to `out` at once; if `fill`
    fails, or `room` bytes are not free, nothing is left.

    Returns the folder: another one, if `out` was taken while it was being filled.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _ask_for(room, half)
        fill(half)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    return renamed(half, out)


def renamed(half: Path, out: Path) -> Path:
    """Give a finished folder its name, or the next free one, and others leave to read it."""
    readable(half)
    out = out if is_free(out) else next_free(out)
    os.replace(half, out)
    return out


def readable(path: Path) -> None:
    """Give a file, or a folder and all in it, the permissions of newly made ones, as the umask
    says: safetensors and `tempfile` make them private.
    """
    mask = os.umask(0o077)
    os.umask(mask)
    for each in [path, *path.rglob("*")]:
        each.chmod((0o777 if each.is_dir() else 0o666) & ~mask)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("diffusion-distilled", "torch", "diffusers", "transformers")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


class Laps(dict):
    """Seconds by name: `mark` adds the time since the mark before to a name."""

    def __init__(self):
        self.last = time.perf_counter()

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self[name] = round(self.get(name, 0) + now - self.last, 3)
        self.last = now
