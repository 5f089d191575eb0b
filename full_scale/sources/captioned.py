"""Pictures with their captions, to be looked at: what `full_scale.sample` wrote, or a folder
as `prepare` reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dlib._util import require
from full_scale.sources.captions import NoCaption, read_caption
from full_scale.sources.folders import Row, folder
from full_scale.sources.pictures import decoded


class Captioned(NamedTuple):
    """A picture in RGB, and its caption if it has one."""

    picture: Image.Image
    caption: str | None


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
    settings = path / "settings.json"
    rows = (
        _sampled(path, settings)
        if settings.is_file()
        else [(row.where, row.picture, _text(row)) for row in folder(path).rows(0)]
    )
    shown, bad = [], []
    for where, picture, caption in rows:
        try:
            require(picture is not None, "there is a caption but no picture")
            shown.append(Captioned(decoded(picture), caption))
        except ValueError as error:
            bad.append(f"{path / where}: {error}")
    require(
        len(shown) > 0,
        f"{flag} {path}: no picture in it could be read"
        + (f"; the first: {bad[0]}" if bad else ": it holds none"),
    )
    return shown, bad


def _sampled(path: Path, settings: Path) -> list[tuple[str, Path, str]]:
    try:
        return [
            (entry["file"], path / entry["file"], entry["prompt"])
            for entry in json.loads(settings.read_text(encoding="utf-8"))["pictures"]
        ]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{settings} is not what full_scale.sample writes: delete it if this is a folder "
            "of other pictures"
        ) from None


def _text(row: Row) -> str | None:
    try:
        return read_caption(row.captions).text
    except NoCaption:
        return None
