"""A source that is tar files in WebDataset's format: members of one sample share their name up
to the first dot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from full_scale.sources.folders import CAPTIONS, Row, Source, stamped
from full_scale.sources.pictures import SUFFIXES


def tars(paths: Sequence[Path]) -> Source:
    """Samples with a picture and a caption (x.txt, x.caption, or x.json with one of CAPTIONS),
    tar after tar.

    The key is WebDataset's. A tar that breaks off gives the samples before the break, and a
    row that says so.
    """
    paths = [path.resolve() for path in paths]
    stamp = stamped(part for path in paths for part in (path.name, path.stat().st_size))
    return Source(
        f"{len(paths)} tar files",
        stamp,
        True,
        None,
        lambda start: islice(chain.from_iterable(map(_samples, paths)), start, None),
    )


def _samples(path: Path) -> Iterator[Row]:
    from webdataset import WebDataset

    faults: dict[str, None] = {}  # in order, each once

    def note(error: Exception) -> bool:
        faults.setdefault(
            str(error.args[0] if error.args else error).split(" @ ")[0].split(" dict_keys")[0]
        )
        return True

    for sample in WebDataset([str(path)], shardshuffle=False, handler=note, empty_check=False):
        yield Row(
            sample["__key__"],
            f"{path.name}: {sample['__key__']}",
            _caption(sample),
            _picture(sample),
        )
    for number, fault in enumerate(faults):
        yield Row(f"{path.name}#{number}", path.name, None, fault=f"broken tar: {fault}")


def _picture(sample: Mapping[str, Any]) -> bytes | None:
    return next(
        (data for name, data in sample.items() if f".{name.split('.')[-1]}" in SUFFIXES), None
    )


def _caption(sample: Mapping[str, Any]) -> bytes | str | None:
    for name in ("txt", "caption"):
        if name in sample:
            return sample[name]
    try:
        fields = json.loads(sample.get("json", b"{}"))
    except ValueError:
        return None
    return (
        next((fields[name] for name in CAPTIONS if name in fields), None)
        if isinstance(fields, dict)
        else None
    )
