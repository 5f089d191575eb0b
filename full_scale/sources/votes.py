"""Preferences between two pictures of one caption: a table in Pick-a-Pic's form, a CSV of votes,
or two folders.

A row is the better picture with the worse beside it. Ties, votes that are missing and pictures
that are missing are rows with a fault, which the report counts and names.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlib._util import require
from full_scale.sources.captions import FIELDS, fields
from full_scale.sources.folders import Row, Source, folder, listed, stamped
from full_scale.sources.pictures import SUFFIXES

if TYPE_CHECKING:
    from datasets import Dataset

PICTURES = ("jpg_0", "jpg_1")
LABEL = "label_0"
"""Of a table: two columns of pictures, and how much of the vote went to the first: 1, 0, or ½
for a tie (Kirstain et al. 2023).
"""
FILES = ("image_0", "image_1")
"""Of a CSV: the pictures' paths, from its folder."""


def is_votes(dataset: Dataset) -> bool:
    """Whether a table has the columns of Pick-a-Pic."""
    return {*PICTURES, LABEL} <= set(dataset.column_names)


def votes_table(dataset: Dataset, what: str) -> Source:
    """A source of a table in Pick-a-Pic's form; keys are row numbers."""
    captions = [name for name in FIELDS if name in dataset.column_names]
    require(
        bool(captions),
        f"--source has votes and no column of captions called {' or '.join(FIELDS)}",
    )
    dataset = dataset.select_columns([*captions, *PICTURES, LABEL])
    labels = dataset.select_columns([*captions, LABEL])
    probe = [str(labels[n]) for n in range(0, len(labels), 1 + len(labels) // 64)]

    def rows(start: int) -> Iterator[Row]:
        for n in range(start, len(dataset)):
            entry = dataset[n]
            two = [_bytes(entry[name]) for name in PICTURES]
            yield judged(f"{n:09d}", f"row {n}", fields(entry), two, entry[LABEL])

    told = f"{what} with {len(dataset)} votes"
    stamp = stamped([len(dataset), dataset.column_names, *probe])
    return Source(told, stamp, True, len(dataset), rows, others=True)


def votes_file(path: Path) -> Source:
    """A CSV with the columns image_0, image_1, label_0 and a caption, a vote a line. Several
    votes on one pair are added up, whichever way around it was shown; equal sums are a tie.
    """
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    table = csv.DictReader(io.StringIO(text, newline=""))
    names = table.fieldnames or []
    require(
        {*FILES, LABEL} <= set(names) and any(name in names for name in FIELDS),
        f"--source {path} has the columns {', '.join(names) or 'none'}; of votes wanted "
        f"{', '.join((*FILES, LABEL))} and one of {', '.join(FIELDS)}",
    )
    pairs: dict[tuple, list[tuple[int, Mapping[str, str]]]] = {}
    for line, entry in enumerate(table, 2):
        places = fields(entry)
        pairs.setdefault((*sorted(entry[n] or "" for n in FILES), str(places)), []).append(
            (line, entry)
        )
    rows = []
    for found in pairs.values():
        line, first = found[0]
        shares = [_share(entry[LABEL]) for _, entry in found]
        same = [entry[FILES[0]] == first[FILES[0]] for _, entry in found]
        counted = [s if kept else 1 - s for s, kept in zip(shares, same) if s is not None]
        label = sum(counted) / len(counted) if counted else None
        two = [_file(path.parent, first[name]) for name in FILES]
        rows.append(judged(f"line {line}", f"line {line}", fields(first), two, label))
    made = listed(f"{len(rows)} pairs with {sum(map(len, pairs.values()))} votes", rows)
    return replace(made, others=True)


def two_folders(better: Path, worse: Path) -> Source:
    """The pictures and captions of `better`, each with the picture of the same name in `worse`,
    whatever its ending.
    """
    require(
        worse.is_dir(), f"--worse {worse}: no such folder: wanted one with the worse pictures"
    )
    base = folder(better)
    others = {
        each.relative_to(worse).with_suffix("").as_posix(): each
        for each in sorted(worse.rglob("*"))
        if each.suffix.lower() in SUFFIXES
    }
    rows, met = [], set()
    for row in base.rows(0):
        name = Path(row.key).with_suffix("").as_posix() if _ending(row.key) else row.key
        met.add(name)
        rows.append(row._replace(other=others.get(name)))
    rows += [
        Row(name, str(each), fault=("no better picture", ""))
        for name, each in others.items()
        if name not in met
    ]
    made = listed(f"{base.what}, the worse in {worse}", rows)
    return replace(made, others=True)


def judged(
    key: str, where: str, captions: Sequence[Any], two: Sequence[bytes | Path | None], label: Any
) -> Row:
    """A row from two pictures and the first one's share of the vote."""
    share = _share(label)
    if share is None:
        return Row(key, where, captions, fault=("no vote", f"{LABEL} is {label!r}"))
    if share == 0.5:
        return Row(key, where, captions, fault=("tie", ""))
    better, worse = two if share > 0.5 else reversed(list(two))
    return Row(key, where, tuple(captions), better, other=worse)


def _share(label: Any) -> float | None:
    """In [0, 1], or None for what is no share of a vote."""
    if isinstance(label, str) and label.strip().lower() == "tie":
        return 0.5
    try:
        share = float(label)
    except (TypeError, ValueError):
        return None
    return share if 0 <= share <= 1 else None


def _bytes(entry: Any) -> bytes | Path | None:
    """Of a column of bytes, or of encoded pictures."""
    if isinstance(entry, Mapping):
        return entry.get("bytes") or (Path(entry["path"]) if entry.get("path") else None)
    return entry


def _file(root: Path, name: str | None) -> Path | None:
    found = root / (name or "")
    return found if name and found.is_file() else None


def _ending(key: str) -> bool:
    return Path(key).suffix.lower() in SUFFIXES
