"""Pictures with their captions, to be looked at: what `full_scale.sample` wrote, or a folder
as `prepare` reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dlib._util import require
from full_scale.sources.captions import NoCaption, printable, read_caption
from full_scale.sources.folders import Row, folder
from full_scale.sources.pictures import SUFFIXES, decoded
from full_scale.sources.sampled import SETTINGS, settings


class Captioned(NamedTuple):
    """A picture in RGB, its caption if it has one, and what tells it from others of the same
    caption: its seed if it was sampled, else its name.
    """

    picture: Image.Image
    caption: str | None
    mark: str = ""


def read_captioned(path: Path, flag: str) -> tuple[list[Captioned], list[str]]:
    """The pictures of a folder in a fixed order, and the rows that could not be read, each in
    words.

    Raises ValueError if there is no folder or no picture in it.
    """
    require(
        path.is_dir(),
        f"{flag} {path}: no such folder; name one that full_scale.sample wrote, or one with "
        "pictures",
    )
    rows = (
        _sampled(path)
        if (path / SETTINGS).is_file()
        else [(row.where, row.picture, _text(row), _mark(row)) for row in folder(path).rows(0)]
    )
    shown, bad = [], []
    for where, picture, caption, mark in rows:
        try:
            require(picture is not None, "there is a caption but no picture")
            shown.append(Captioned(decoded(picture), caption, mark))
        except ValueError as error:
            bad.append(printable(f"{path / where}: {error}"))
    require(
        len(shown) > 0,
        f"{flag} {path}: no picture in it could be read"
        + (f"; the first: {bad[0]}" if bad else ": it holds none"),
    )
    return shown, bad


def _sampled(path: Path) -> list[tuple[str, Path, str, str]]:
    return [
        (entry["file"], path / entry["file"], entry["prompt"], f"seed {entry['seed']}")
        for entry in settings(path).entries
    ]


def _mark(row: Row) -> str:
    """The name without a picture's ending, which a key has only under an index."""
    stem, _, end = row.key.rpartition(".")
    return printable(stem if f".{end.lower()}" in SUFFIXES else row.key)


def _text(row: Row) -> str | None:
    try:
        return read_caption(row.captions).text
    except NoCaption:
        return None
