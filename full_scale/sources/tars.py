"""A source that is tar files in WebDataset's format: members of one sample share their name up
to the first dot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from full_scale.sources.captions import ENDINGS, File, beside
from full_scale.sources.folders import Row, Source, stamped
from full_scale.sources.pictures import SUFFIXES


def tars(paths: Sequence[Path], left: str = "", caption: str | None = None) -> Source:
    """Samples with a picture and a caption (x.txt, x.caption, or x.json with one of its
    fields), tar after tar. left: in words, what was left out. caption: the field of x.json that
    has it, if another one.

    The key is the tar's name and WebDataset's key, which may begin anew in each tar. A tar that
    breaks off gives the samples before the break, and a row that says so.
    """
    paths = [path.resolve() for path in paths]
    above = os.path.commonpath([path.parent for path in paths])
    names = [path.relative_to(above).as_posix() for path in paths]
    parts = [part for name, path in zip(names, paths) for part in (name, _size(path))]
    samples = partial(_samples, caption=caption)
    return Source(
        f"{len(paths)} tar files{left}",
        stamped([*parts, caption] if caption else parts),
        True,
        None,
        lambda start: islice(chain.from_iterable(map(samples, paths, names)), start, None),
    )


def _size(path: Path) -> int:
    return path.stat().st_size


def _samples(path: Path, name: str, caption: str | None) -> Iterator[Row]:
    from webdataset import WebDataset

    faults: dict[str, None] = {}  # in order, each once

    def note(error: Exception) -> bool:
        faults.setdefault(
            str(error.args[0] if error.args else error).split(" @ ")[0].split(" dict_keys")[0]
        )
        return True

    for sample in WebDataset([str(path)], shardshuffle=False, handler=note, empty_check=False):
        key = sample["__key__"]
        picture, fault = _picture(sample)
        ends = [end for end in ENDINGS if end[1:] in sample]
        captions = beside({end: File(f"{key}{end}", sample[end[1:]]) for end in ends}, caption)
        yield Row(
            f"{name.removesuffix('.tar')}/{key}", f"{name}: {key}", captions, picture, fault
        )
    for number, fault in enumerate(faults):
        yield Row(f"{name}#{number}", name, fault=("broken source", f"broken tar: {fault}"))


def _picture(sample: Mapping[str, Any]) -> tuple[bytes | None, tuple[str, str] | None]:
    """The sample's picture, or what is wrong: the one member whose whole ending, from the
    name's first dot on, is a picture's. 0.mask.png is not the picture of sample 0.
    """
    ends = [name for name in sample if f".{name.split('.')[-1]}" in SUFFIXES]
    plain = [name for name in ends if "." not in name]
    if len(plain) > 1:
        return None, ("several pictures", f"{', '.join(plain)}: keep one of them in the sample")
    if ends and not plain:
        told = f"{', '.join(ends)} alone: the picture of x is x.png, not x.{ends[0]}"
        return None, ("no picture", told)
    return (sample[plain[0]] if plain else None), None
