"""Preferences between two pictures of one caption: a table in Pick-a-Pic's form, a CSV of votes,
or two folders.

A row is the better picture with the worse beside it. Ties, votes that are missing and pictures
that are missing are rows with a fault, which the report counts and names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlib._util import require
from full_scale.sources import commas
from full_scale.sources.captions import FIELDS, fields
from full_scale.sources.folders import Row, Source, listed, stamped
from full_scale.sources.indexes import file_named
from full_scale.sources.pictures import SUFFIXES, held
from full_scale.sources.sampled import is_sampled, pictures_in, sampled
from full_scale.sources.tables import at_the_end, check_column, read_entry, undecoded

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


def votes_table(
    dataset: Dataset,
    what: str,
    caption: str | None = None,
    broken: Sequence[tuple[str, str]] = (),
) -> Source:
    """A source of a table in Pick-a-Pic's form; keys are row numbers. caption, broken: as
    `from_table` has them.
    """
    check_column("--caption-column", caption, dataset)
    captions = [caption] if caption else [n for n in FIELDS if n in dataset.column_names]
    require(
        bool(captions),
        f"--source has votes and no column of captions called {' or '.join(FIELDS)}",
    )
    dataset = dataset.select_columns([*captions, *PICTURES, LABEL])
    for name in PICTURES:
        dataset = undecoded(dataset, name)
    labels = dataset.select_columns([*captions, LABEL])
    probe = [str(read_entry(labels, n)) for n in range(0, len(labels), 1 + len(labels) // 64)]

    def rows(start: int) -> Iterator[Row]:
        for n in range(start, len(dataset)):
            key, where, entry = f"{n:09d}", f"row {n}", read_entry(dataset, n)
            if isinstance(entry, str):
                yield Row(key, where, fault=("broken source", entry))
                continue
            try:
                two = [held(entry[name]) for name in PICTURES]
                yield judged(key, where, fields(entry, caption), two, entry[LABEL])
            except ValueError as error:
                yield Row(key, where, fields(entry, caption), fault=("no picture", str(error)))
        yield from at_the_end(broken, start - len(dataset))

    told, count = f"{what} with {len(dataset)} votes", len(dataset) + len(broken)
    stamp = stamped([len(dataset), dataset.column_names, *probe, *broken])
    return Source(told, stamp, True, count, rows, others=True)


def votes_file(path: Path, caption: str | None = None) -> Source:
    """A CSV with the columns image_0, image_1, label_0 and a caption, a vote a line. Several
    votes on one pair are added up, whichever way around it was shown; equal sums are a tie.
    caption: the column that has it, if another one.
    """
    known = [caption] if caption else FIELDS
    root = path.parent
    found = lambda entry: [entry[n] and file_named(root, entry[n]) for n in FILES]
    names, votes = commas.entries(path.read_bytes(), lambda entry: all(found(entry)))
    require(
        {*FILES, LABEL} <= set(names) and any(name in names for name in known),
        f"--source {path} has the columns {', '.join(names) or 'none'}; of votes wanted "
        f"{', '.join((*FILES, LABEL))} and {'one of ' * (caption is None)}{', '.join(known)}",
    )
    pairs: dict[tuple, list[tuple[int, commas.Entry]]] = {}
    rows: dict[int, Row] = {}
    for line, entry in votes:
        where = f"line {line}"
        if isinstance(entry, str):
            rows[line] = Row(where, where, fault=("broken source", entry))
            continue
        shown = *sorted(entry[n] or "" for n in FILES), str(fields(entry, caption))
        pairs.setdefault(shown, []).append((line, entry))
    for seen in pairs.values():
        line, first = seen[0]
        shares = [_share(entry[LABEL]) for _, entry in seen]
        same = [entry[FILES[0]] == first[FILES[0]] for _, entry in seen]
        counted = [s if kept else 1 - s for s, kept in zip(shares, same) if s is not None]
        label = sum(counted) / len(counted) if counted else None
        where = f"line {line}"
        rows[line] = judged(where, where, fields(first, caption), found(first), label)
    told = f"{len(pairs)} pairs with {sum(map(len, pairs.values()))} votes"
    return replace(listed(told, [rows[line] for line in sorted(rows)]), others=True)


def two_folders(better: Path, worse: Path, caption: str | None = None) -> Source:
    """The pictures and captions of `better`, as `pictures_in` reads them, each with the picture
    of the same name in `worse`, whatever its ending.
    """
    require(
        worse.is_dir(), f"--worse {worse}: no such folder: wanted one with the worse pictures"
    )
    base = pictures_in(better, caption)
    theirs = [row.picture for row in sampled(worse).rows(0)] if is_sampled(worse) else None
    others = {
        each.relative_to(worse).with_suffix("").as_posix(): each
        for each in (sorted(worse.rglob("*")) if theirs is None else theirs)
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


def _ending(key: str) -> bool:
    return Path(key).suffix.lower() in SUFFIXES
