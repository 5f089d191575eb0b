"""Whether a folder still is what was written: the sizes and digests of its files, in a manifest
that is written last.

A rename says that a folder was written to its end. It does not say that the disk has kept it:
for that every file is read again and compared.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

NAME = "manifest.json"


class Entry(TypedDict):
    """What a file was when it was written."""

    bytes: int
    sha256: str


def entries(folder: Path, names: Iterable[str]) -> dict[str, Entry]:
    """Size and digest of these files of a folder. Raises OSError for one that cannot be read."""
    return {name: _entry(folder / name) for name in names}


def seal(folder: Path, files: Mapping[str, Entry]) -> None:
    """Write the manifest of `files` into their folder; it and the folder are on the disk when
    this returns. The files must be there already: see `flush`.
    """
    path = folder / NAME
    text = {"files": dict(files), "sha256": _own(dict(files))}
    path.write_text(json.dumps(text, indent=1) + "\n")
    flush(path)
    flush(folder)


def files(folder: Path) -> dict[str, Entry]:
    """What the manifest of a sealed folder says. ValueError, in words, if it does not read as it
    was written.
    """
    try:
        said = json.loads((folder / NAME).read_bytes())
        found = {name: Entry(one) for name, one in said["files"].items()}
        sound = all(one.keys() == Entry.__annotations__.keys() for one in found.values())
        sound = sound and said["sha256"] == _own(said["files"])
    except FileNotFoundError:
        raise ValueError(f"{NAME} is missing") from None
    except OSError as error:
        raise ValueError(f"{NAME} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise ValueError(f"{NAME} is cut short or overwritten")
    return found


def fault(folder: Path, long: str = "") -> str:
    """What is wrong with a sealed folder, in words: the files that are missing, or have another
    size or digest than when they were written. Empty if it is whole.

    long: an ending; of files with it the size alone is compared, and they are not read.
    """
    if not folder.is_dir():
        return "it is no folder"
    try:
        wanted = files(folder)
    except ValueError as error:
        return str(error)
    brief = {name for name in wanted if long and name.endswith(long)}
    with ThreadPoolExecutor() as threads:  # hashing and reading let each other go on
        differ = lambda name: _differs(folder / name, wanted[name], name in brief)
        found = threads.map(differ, wanted)
        faults = [f"{name} {what}" for name, what in zip(wanted, found) if what]
    more = f", and {len(faults) - 3} more files" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more


def seal_weights(folder: Path) -> None:
    """Seal the safetensors files of an export, below its folder too; its text files may be
    edited.
    """
    weights = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))
    for name in weights:
        flush(folder / name)
    seal(folder, entries(folder, weights))


def refuse_damaged(folder: Path, flag: str) -> None:
    """Raise ValueError, naming `flag`, if the weights of an export are not what was exported.
    A folder of other origin has no manifest, and passes.
    """
    if (folder / NAME).is_file() and (what := fault(folder)):
        raise ValueError(
            f"{flag} {folder} is damaged: {what}. Export it again with python -m "
            "full_scale.export RUN, or copy it again"
        )


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk: a rename must not
    overtake them when the machine dies.
    """
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _own(files: Mapping[str, Entry]) -> str:
    """The digest that tells damage of the manifest itself from damage of what it names."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        return {
            "bytes": os.fstat(file.fileno()).st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _differs(path: Path, wanted: Entry, unread: bool) -> str:
    size, sha256 = wanted["bytes"], wanted["sha256"]
    try:
        if (there := path.stat().st_size) != size:
            return f"has {there} bytes, wanted {size}"
        found = sha256 if unread else _entry(path)["sha256"]
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if found == sha256 else f"has the digest {found[:8]}…, wanted {sha256[:8]}…"
