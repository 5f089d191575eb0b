"""Files that name pictures and their captions: Hugging Face's metadata.jsonl, .csv and
.parquet, and the JSON that kohya's scripts pass on from step to step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dlib._util import require
from full_scale.sources import commas
from full_scale.sources.captions import FIELDS, fields

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
KOHYA = ("meta_lat.json", "meta_clean.json", "meta_cap_dd.json", "meta_cap.json")
"""The stages of one file, newest first: the first that is there is read."""
NAMES = ("file_name", "image_file_name", "filename")
"""The fields that may hold the picture's name, relative to the index; the first that is there
is taken.
"""


class Entry(NamedTuple):
    """An entry of an index, as a `Row` begins: key, where, places of the caption, picture,
    fault.
    """

    key: str
    where: str
    captions: Sequence[Any] = ()
    picture: Path | None = None
    fault: tuple[str, str] | None = None


def found_in(files: Sequence[Path]) -> list[Path]:
    """The indexes among the files of a tree, one a folder. ValueError if a folder has two."""
    folders: dict[Path, list[Path]] = {}
    for file in files:
        if file.name in (*METADATA, *KOHYA):
            folders.setdefault(file.parent, []).append(file)
    found = []
    for parent, several in folders.items():
        metadata = [each for each in several if each.name in METADATA]
        require(
            len(metadata) < 2,
            f"--source: {parent} holds {' and '.join(each.name for each in metadata)}: keep the "
            "one that is right, and move the other away",
        )
        found.append(metadata[0] if metadata else min(several, key=_stage))
    return found


def _stage(file: Path) -> int:
    return KOHYA.index(file.name)


def entries(
    root: Path, index: Path, pictures: Sequence[Path], caption: str | None = None
) -> Iterator[Entry]:
    """The entries of an index. Its key is the picture's path from `root`, with its ending.
    caption: the field that has it, if another one than `FIELDS` say.
    """
    own = index.relative_to(root)
    known = {each.with_suffix(""): each for each in pictures} if index.name in KOHYA else {}
    here = own.parent
    for where, entry in _READERS[index.suffix](index, str(own), caption):
        if isinstance(entry, str):
            yield Entry(where, where, fault=("broken source", entry))
            continue
        name = _name(entry)
        if not isinstance(name, str) or not name:
            wanted = 'not an entry like {"file_name": "x.png", "text": "a caption"}'
            yield Entry(where, where, fault=("broken source", wanted))
            continue
        picture = file_named(index.parent, name, known)
        key = (here / name).as_posix()
        yield Entry(key, where, tuple(fields(entry, caption)), picture)


def _name(entry: Mapping[str, Any]) -> Any:
    return next((entry[field] for field in NAMES if field in entry), None)


def file_named(parent: Path, name: str, known: Mapping[Path, Path] = {}) -> Path | None:
    """The file of this name: as it is written, with Windows' separators turned, or, as in
    kohya's files, a known one without its ending.
    """
    for spelled in (name, name.replace("\\", "/")):
        path = Path(os.path.normpath(parent / spelled))
        if os.path.isfile(path):  # False for a name that no file can have
            return path
        if path in known:
            return known[path]
    return None


def _lines(index: Path, own: str, caption: str | None) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(index.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            entry = entry if isinstance(entry, dict) else {}
        except (ValueError, RecursionError) as error:
            entry = f"no JSON: {error}"
        yield f"{own} line {number}", entry


def _comma_separated(index: Path, own: str, caption: str | None) -> Iterator[tuple[str, Any]]:
    """Bytes that are not UTF-8 stay in their rows, whose captions then cannot be written."""

    def is_entry(entry: commas.Entry) -> bool:
        name = _name(entry)
        return bool(name) and file_named(index.parent, name) is not None

    for line, entry in commas.entries(index.read_bytes(), is_entry)[1]:
        yield f"{own} line {line}", entry


def _parquet(index: Path, own: str, caption: str | None) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        file = ParquetFile(index)
        wanted = (*NAMES, *FIELDS, caption)
        columns = [name for name in file.schema_arrow.names if name in wanted]
        for batch in file.iter_batches(columns=columns):
            for k in range(batch.num_rows):
                try:
                    entry = {name: batch[name][k].as_py() for name in batch.schema.names}
                except UnicodeDecodeError as error:
                    entry = f"not UTF-8: {error}"
                yield f"{own} row {number}", entry
                number += 1
    except (OSError, pa.ArrowException) as error:
        yield own, f"not readable as parquet: {error}".splitlines()[0]


def _kohya(index: Path, own: str, named: str | None) -> Iterator[tuple[str, Any]]:
    """{picture: {"caption": …, "tags": …}}: tags follow the caption, or stand alone, as the
    scripts train on them; a field that was named stands alone.
    """
    try:
        found = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        yield own, f"no JSON: {error}"
        return
    for name, entry in found.items() if isinstance(found, dict) else ():
        entry = entry if isinstance(entry, dict) else {}
        told = entry if named else {"caption": _with_tags(entry)}
        yield f"{own} {name}", {**told, "file_name": name}


def _with_tags(entry: Mapping[str, Any]) -> Any:
    caption, tags = entry.get("caption"), entry.get("tags")
    both = isinstance(caption, str) and isinstance(tags, str) and caption and tags
    return f"{caption}, {tags}" if both else caption or tags


_READERS = {".jsonl": _lines, ".csv": _comma_separated, ".parquet": _parquet, ".json": _kohya}
