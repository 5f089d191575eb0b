"""From rows to columns: reading ahead in threads, telling good rows from bad ones, and a
family's encoders on batches.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from full_scale.families.base import Family
from full_scale.sources.captions import NoCaption, printable, read_caption
from full_scale.sources.folders import Row
from full_scale.sources.pictures import decoded, fitted
from full_scale.data.shards import Columns

A, B = TypeVar("A"), TypeVar("B")
Bad = tuple[str, str, str, str]
"""(key, where, reason, detail), as the report names it."""


class Found(NamedTuple):
    """A row that was read. sides: (height, width) of the picture before it was scaled; small: it
    had to be enlarged; several: its caption is the first of several; fault: (reason, detail) of
    a bad one.
    """

    row: Row
    caption: str = ""
    picture: Image.Image | None = None
    small: bool = False
    fault: tuple[str, str] | None = None
    other: Image.Image | None = None
    several: bool = False
    sides: tuple[int, int] = (0, 0)


def examine(
    row: Row, size: int, pictures: bool, other: bool = False, seed: bool = False
) -> Found:
    """Read a row's caption and picture, or say what is wrong with it; runs in threads."""
    kept = row.seed if seed else None
    row = row._replace(key=printable(row.key), where=printable(row.where), seed=kept)
    if row.fault:
        return Found(row, fault=row.fault)
    try:
        caption, several = read_caption(row.captions)
    except NoCaption as error:
        return Found(row, fault=(error.reason, error.detail))
    except RecursionError:
        return Found(row, fault=("no caption", "lists in lists without end"))
    if not pictures:
        return Found(row, caption, several=several)
    if row.picture is None:
        return Found(row, fault=("no picture", ""))
    try:
        picture = decoded(row.picture)
    except ValueError as error:
        return Found(row, fault=("picture does not decode", str(error)))
    if seed and not (isinstance(row.seed, int) and -(2**63) <= row.seed < 2**63):
        return Found(row, fault=("no seed", repr(row.seed)[:80]))
    try:
        found = Found(
            row,
            caption,
            fitted(picture, size),
            min(picture.size) < size,
            several=several,
            sides=(picture.height, picture.width),
        )
    except ValueError as error:
        return Found(row, fault=("picture cannot be scaled", str(error)))
    if not other:
        return found
    if row.other is None:
        return Found(row, fault=("no worse picture", ""))
    try:
        worse = fitted(decoded(row.other), size)
    except ValueError as error:
        return Found(row, fault=("worse picture does not decode", str(error)))
    if worse.tobytes() == found.picture.tobytes():
        told = "the better and the worse are equal in all pixels that are kept"
        return Found(row, fault=("picture against itself", told))
    return found._replace(other=worse)


def ahead(work: Callable[[A], B], items: Iterable[A], depth: int) -> Iterator[B]:
    """work(item) for every item, in order, computed by threads up to `depth` items ahead of
    the reader.

    >>> list(ahead(abs, [-1, -2, 3], 2))
    [1, 2, 3]
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def screened(rows: Iterable[Found], seen: set[str], bad: list[Bad]) -> Iterator[Found]:
    """The good rows; the others go to `bad`. A key is a duplicate if a row that was not bad
    had it; `seen` is kept up.
    """
    for found in rows:
        fault = found.fault or (
            ("duplicate key", "an earlier row has it") if found.row.key in seen else None
        )
        if fault:
            bad.append((found.row.key, found.row.where, *fault))
        else:
            seen.add(found.row.key)
            yield found


def encoded(family: Family, found: list[Found], size: int, dtype: str) -> dict[str, np.ndarray]:
    """One batch's arrays: the conditions by name and, where there are pictures, the latents;
    floats as `dtype`.
    """
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # the report names the captions that are cut
        arrays = dict(family.encode_texts([each.caption for each in found]))
    if found[0].picture is not None:
        arrays["latent"] = family.encode_pictures([each.picture for each in found], size)
        arrays |= family.encode_sizes([each.sides for each in found], size)
    if found[0].other is not None:
        arrays["other"] = family.encode_pictures([each.other for each in found], size)
    if found[0].row.seed is not None:
        arrays["seed"] = torch.tensor([each.row.seed for each in found])

    def stored(values: Tensor) -> np.ndarray:
        return (
            values.to(getattr(torch, dtype) if values.is_floating_point() else values.dtype)
            .cpu()
            .numpy()
        )

    return {name: stored(values) for name, values in arrays.items()}


def refused(family: Family, found: Iterable[Found]) -> list[Bad]:
    """The rows whose captions the family cannot encode: words outside its grammar, say."""
    bad = []
    for one in found:
        try:
            family.encode_texts([one.caption])
        except ValueError as error:
            why = "caption that this family cannot encode", str(error)
            bad.append((one.row.key, one.row.where, *why))
    return bad


def one_shard(
    family: Family,
    rows: Iterable[Found],
    seen: set[str],
    batch: int,
    size: int,
    dtype: str,
    each: Callable[[int], Any],
) -> tuple[Columns, dict[str, Any]]:
    """The columns of one shard, and its record: how many rows were read and kept, and which
    are bad, cut, enlarged or one of several captions.

    each: called with the number of rows as they are done. A row whose numbers are not finite
    in `dtype` is bad, and one whose caption the family cannot encode.
    """
    bad: list[Bad] = []
    kept, parts, good = [], [], screened(rows, seen, bad)
    while found := list(islice(good, batch)):
        try:
            arrays = encoded(family, found, size, dtype)
        except ValueError:
            odd = refused(family, found)
            if not odd:
                raise
            bad += odd
            seen.difference_update(out := {key for key, *_ in odd})
            good = chain([one for one in found if one.row.key not in out], good)
            continue
        finite = [
            all(np.isfinite(values[i]).all() for values in arrays.values())
            for i in range(len(found))
        ]
        parts.append({name: values[finite] for name, values in arrays.items()})
        kept += [one._replace(picture=None, other=None) for one, ok in zip(found, finite) if ok]
        lost = [one.row for one, ok in zip(found, finite) if not ok]
        bad += [(row.key, row.where, "not finite", f"after encoding, in {dtype}") for row in lost]
        seen.difference_update(row.key for row in lost)
        each(sum(finite))
    each(len(bad))
    columns = {
        name: np.concatenate([part[name] for part in parts])
        for name in (parts[0] if parts else ())
    }
    return {
        "key": [one.row.key for one in kept],
        "caption": [one.caption for one in kept],
        **columns,
    }, {
        "read": len(kept) + len(bad),
        "kept": len(kept),
        "bad": bad,
        "enlarged": [one.row.key for one in kept if one.small],
        "several": [one.row.key for one in kept if one.several],
        "truncated": [one.row.key for one in kept if family.truncated(one.caption)],
    }
