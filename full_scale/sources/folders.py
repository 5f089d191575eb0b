"""What every source of data looks like, and the two simplest: a folder of pictures with
captions, a file of prompts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dlib._util import require
from full_scale.sources.captions import ENDINGS, File, beside
from full_scale.sources.indexes import entries, found_in
from full_scale.sources.pictures import SUFFIXES

OTHER_SPLITS = ("test", "validation", "valid", "val", "dev")


class Row(NamedTuple):
    """One row as its source has it, nothing decoded: the picture may be a file, or bytes still
    to be read.

    where: how a person finds it. captions: the places where its caption may be, as
    `read_caption` takes them. fault: reason and detail of what the source already knows to be
    wrong, for the report. other: of a preference, the worse picture. seed: of the noise that
    the picture was made from.
    """

    key: str
    where: str
    captions: Sequence[Any] = ()
    picture: bytes | Path | None = None
    fault: tuple[str, str] | None = None
    other: bytes | Path | None = None
    seed: int | None = None


class Noise(NamedTuple):
    """Of which family's network, and of pictures of which size; None is the network's own."""

    family: str | None
    height: int | None
    width: int | None


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
    others: bool = False
    """Whether each row has a worse picture beside it."""
    noise: Noise | None = None
    """What the rows' seeds are noise of, where the source knows it."""


def stamped(parts: Iterable[Any]) -> str:
    """A short name for these parts in this order.

    >>> stamped("ab") == stamped("ab"), stamped(["a", "b"]) == stamped(["ab"])
    (True, False)
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\0".encode(errors="surrogatepass"))
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
        [Row(f"{n:09d}", f"line {n}", (line,)) for n, line in enumerate(lines, 1)],
        pictures=False,
    )


def of_train(root: Path, files: Sequence[Path]) -> tuple[list[Path], str]:
    """The files of the split train, where a folder holds train and others, and in words which
    were left out; else all.

    A split is a folder at the top, or the beginning of a file's name, as in
    train-00000-of-00002.parquet.

    >>> root = Path("d")
    >>> of_train(root, [root / "train" / "a.png", root / "test" / "b.png"])
    ([PosixPath('d/train/a.png')], ', split train (left out: test)')
    """
    names = "|".join(("train", *OTHER_SPLITS))
    kinds = []
    for file in files:
        first, *below = file.relative_to(root).parts
        inside = re.fullmatch(names, first) if below else None
        part = inside or re.match(rf"({names})-\d.*\.(tar|parquet)$", file.name)
        kinds.append(re.match(names, part[0])[0] if part else None)
    left = sorted({kind for kind in kinds if kind} - {"train"})
    if "train" not in kinds or not left:
        return list(files), ""
    kept = [file for file, kind in zip(files, kinds) if kind not in left]
    return kept, f", split train (left out: {', '.join(left)})"


def folder(path: Path, caption: str | None = None) -> Source:
    """Pictures at any depth, each with its caption in a file beside it or in an index of its
    folder or one above: metadata.jsonl, .csv or .parquet as in Hugging Face's imagefolder, or
    kohya's meta_*.json.

    caption: the field that has it, in indexes and in JSON. ValueError if there is none.
    """
    files, left = of_train(path, sorted(path.rglob("*")))
    pictures = [each for each in files if each.suffix.lower() in SUFFIXES and each.is_file()]
    indexes = found_in(files)
    rows, named = [], set()
    for index in indexes:
        for entry in entries(path, index, pictures, caption):
            named.add(entry.picture)
            rows.append(Row(*entry))
    rows += _beside(
        path, [each for each in pictures if each not in named], files, indexes, caption
    )
    require(
        caption is None or any(row.captions for row in rows),
        f"--caption-column {caption}: no entry of an index in {path} has that field, and no "
        "picture has a JSON file beside it",
    )
    return listed(f"folder with {len(pictures)} pictures{left}", rows)


def _beside(
    path: Path,
    pictures: Sequence[Path],
    files: Sequence[Path],
    indexes: Sequence[Path],
    caption: str | None,
) -> Iterator[Row]:
    """x.png with x.txt, x.caption or x.json; then the captions that no picture goes with. The
    key is the name without its ending; under an index, with it.
    """
    captions: dict[Path, dict[str, File]] = {}
    for each in files:
        if each.suffix in ENDINGS:
            captions.setdefault(each.with_suffix(""), {})[each.suffix] = File(each.name, each)
    for picture in pictures:
        stem, own = picture.with_suffix(""), picture.relative_to(path)
        found = captions.get(stem, {})
        index = _above(picture, indexes)
        where = f"{own}, not in {index.relative_to(path)}" if index else str(own)
        yield Row(
            (own if index else own.with_suffix("")).as_posix(),
            where,
            beside(found, caption),
            picture,
        )
    taken = {each.with_suffix("") for each in files if each.suffix.lower() in SUFFIXES}
    for stem, found in captions.items() if caption is None else ():
        texts = [found[end] for end in (".txt", ".caption") if end in found]
        if texts and stem not in taken and not _above(stem, indexes):
            own = stem.with_name(texts[0].name).relative_to(path)
            yield Row(own.with_suffix("").as_posix(), str(own), (texts[0],))


def _above(file: Path, indexes: Sequence[Path]) -> Path | None:
    """The index in the file's folder or one above."""
    return next((index for index in indexes if index.parent in file.parents), None)
