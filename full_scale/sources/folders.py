"""What every source of data looks like, and the two simplest: a folder of pictures with
captions, a file of prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from full_scale.sources.pictures import SUFFIXES

CAPTIONS = ("text", "caption", "prompt")
"""What the column or field with the caption is usually called; the first that is there is
taken.
"""


class Row(NamedTuple):
    """One row as its source has it, nothing decoded: caption and picture may be files, or
    bytes still to be read.

    where: how a person finds it. fault: what the source already knows to be wrong, for the
    report. other: of a preference, the worse picture. seed: of the noise that the picture was
    made from.
    """

    key: str
    where: str
    caption: str | bytes | Path | None
    picture: bytes | Path | None = None
    fault: str = ""
    other: bytes | Path | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Source:
    """Rows in a fixed order, as often as asked, from any position on.

    what: in words. stamp: changes when the rows do. count: None where only reading to the end
    would tell.
    """

    what: str
    stamp: str
    pictures: bool
    count: int | None
    rows: Callable[[int], Iterator[Row]]
    columns: bool = False
    """Whether it is a table, whose columns can be named."""


def stamped(parts: Iterable[Any]) -> str:
    """A short name for these parts in this order.

    >>> stamped("ab") == stamped("ab"), stamped(["a", "b"]) == stamped(["ab"])
    (True, False)
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def listed(what: str, rows: Sequence[Row], pictures: bool = True) -> Source:
    """A source of rows that are all known before anything is read."""
    stamp = stamped(part for row in rows for part in row[:5])
    return Source(what, stamp, pictures, len(rows), lambda start: iter(rows[start:]))


def prompts(path: Path) -> Source:
    """A prompt a line; keys are line numbers."""
    lines = path.read_bytes().splitlines()
    return listed(
        f"{len(lines)} prompts",
        [Row(f"{n:09d}", f"line {n}", line) for n, line in enumerate(lines, 1)],
        pictures=False,
    )


def folder(path: Path) -> Source:
    """Pictures at any depth, each with x.txt beside x.png, or all with a line in
    metadata.jsonl (Hugging Face's imagefolder).
    """
    pictures = sorted(
        each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file()
    )
    index = path / "metadata.jsonl"
    rows = list(_indexed(path, index, pictures) if index.is_file() else _beside(path, pictures))
    return listed(f"folder with {len(pictures)} pictures", rows)


def _beside(path: Path, pictures: Sequence[Path]) -> Iterator[Row]:
    """x.png with x.txt; then the captions that no picture goes with. The key is the name
    without its ending.
    """
    captions = {each.with_suffix(""): each for each in sorted(path.rglob("*.txt"))}
    taken = {each.with_suffix("") for each in pictures}
    for picture in pictures:
        stem = picture.with_suffix("")
        yield Row(
            stem.relative_to(path).as_posix(),
            str(picture.relative_to(path)),
            captions.get(stem),
            picture,
        )
    for stem, caption in captions.items():
        if stem not in taken:
            yield Row(stem.relative_to(path).as_posix(), str(caption.relative_to(path)), caption)


def _indexed(path: Path, index: Path, pictures: Sequence[Path]) -> Iterator[Row]:
    """The lines of metadata.jsonl; then the pictures that it does not name. The key is the
    file's name with its ending.
    """
    seen = set()
    for number, line in enumerate(index.read_bytes().splitlines(), 1):
        where = f"{index.name} line {number}"
        try:
            entry = json.loads(line)
            name = entry["file_name"]
            seen.add(path / name)
        except (ValueError, KeyError, TypeError):
            yield Row(
                where,
                where,
                None,
                fault='not a line of JSON like {"file_name": "x.png", "text": "a caption"}',
            )
            continue
        caption = next((entry[field] for field in CAPTIONS if field in entry), None)
        yield Row(str(name), where, caption, path / name if (path / name).is_file() else None)
    for picture in pictures:
        if picture not in seen:
            yield Row(picture.relative_to(path).as_posix(), f"not in {index.name}", None, picture)
