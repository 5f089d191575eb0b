"""Prepared data on disk: folders that `datasets` can load, each written whole under another
name and then renamed.

DATA/plan.json             what every shard depends on; a second run must agree
DATA/shard-00000/          rows as a saved dataset; record.json: what was read, kept, bad; and
                           manifest.json, the sizes and digests of these files
DATA/null.safetensors      the empty condition
DATA/info.json             all that a reader needs to know
DATA/manifest.json         written last: its presence says that the data are complete

Whether they still are what was written is asked in `digests`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlib._util import require
from full_scale.data.digests import AGAIN, SUM, sums
from full_scale.out import manifest

if TYPE_CHECKING:
    from datasets import Dataset

Columns = Mapping[str, list[str] | np.ndarray]
FULL = (errno.ENOSPC, errno.EDQUOT)


def shard(out: Path, number: int) -> Path:
    """Where shard `number` is."""
    return out / f"shard-{number:05d}"


def write(out: Path, number: int, columns: Columns, record: Mapping[str, Any]) -> None:
    """Shard `number` of `out`, complete or absent. Arrays (n, …) are stored flat, so that a
    gather is one copy, and each row gets its sum.

    Raises ValueError if the disk is full; the shards before it are untouched.
    """
    from datasets import disable_progress_bars

    disable_progress_bars()
    path = shard(out, number)
    half = out / f".half-{path.name}"
    with disk(out, path.name, _bytes(columns)):
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        try:
            if record["kept"]:  # `datasets` cannot read back a dataset without rows
                _dataset(columns).save_to_disk(half, num_shards=1)
            write_json(half / "record.json", record)
            names = sorted(each.name for each in half.iterdir())
            for name in names:
                manifest.flush(half / name)
            manifest.seal(half, manifest.entries(half, names))
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
        shutil.rmtree(path, ignore_errors=True)
        os.replace(half, path)
        manifest.flush(out)


def _bytes(columns: Columns) -> int:
    """How many the values of a shard take."""
    return sum(
        values.nbytes if isinstance(values, np.ndarray) else sum(map(len, values))
        for values in columns.values()
    )


def _dataset(columns: Columns) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo, Features, List, Value

    fields, arrays = {}, {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            if values.ndim == 1:
                fields[name], arrays[name] = Value(values.dtype.name), pa.array(values)
                continue
            width = values[0].size
            fields[name] = List(Value(values.dtype.name), length=width)
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
        else:
            fields[name], arrays[name] = Value("string"), pa.array(values, pa.string())
    fields[SUM], arrays[SUM] = Value("int64"), pa.array(sums(pa.table(arrays)), pa.int64())
    features = Features(fields)
    return Dataset(
        pa.table(arrays, schema=features.arrow_schema), info=DatasetInfo(features=features)
    )


def folders(out: Path) -> list[Path]:
    """The finished shards: number 0, 1, … up to the first that is missing."""
    found = []
    while (path := shard(out, len(found))).is_dir():
        found.append(path)
    return found


def record(path: Path) -> dict[str, Any]:
    """What was read, kept and bad in a shard."""
    return read_json(path / "record.json", "read", "kept", "bad")


def records(out: Path) -> list[dict[str, Any]]:
    """The record of every finished shard, in order."""
    return [record(path) for path in folders(out)]


def expected(out: Path) -> int | None:
    """How many shards complete data have; None where data are not complete, or what lies beside
    the shards is damaged.
    """
    return None if manifest.fault(out) else read_json(out / "info.json", "shards")["shards"]


def keys(path: Path) -> list[str]:
    """The keys of a shard's rows."""
    return loaded(path)["key"][:] if record(path)["kept"] else []


def loaded(path: Path) -> Dataset:
    """The rows of a shard that has some, memory-mapped. ValueError names one that is damaged."""
    from datasets import load_from_disk

    try:
        found = load_from_disk(str(path))
        have, kept = len(found), record(path)["kept"]
        require(have == kept, f"{have} rows, wanted {kept}")
        return found
    except Exception as error:  # arrow's own types for torn files
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}). {AGAIN}"
        ) from error


def read_json(path: Path, *fields: str) -> dict[str, Any]:
    """A JSON object of prepared data with these fields. ValueError names a file that does not
    hold one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        require(isinstance(found, dict), "it holds no object")
        gone = [name for name in fields if name not in found]
        require(not gone, f"it lacks {', '.join(gone)}")
        return found
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}). {AGAIN}") from None


def write_json(path: Path, value: Any) -> None:
    r"""JSON under another name first, then renamed. What UTF-8 cannot hold, as the bytes of a
    file's name, becomes JSON's own \udcXX, which reads back as it was.
    """
    half = path.with_name(f".half-{path.name}")
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    half.write_text(text, encoding="utf-8", errors="backslashreplace")
    manifest.flush(half)
    os.replace(half, path)


@contextmanager
def disk(out: Path, what: str, room: int = 0) -> Iterator[None]:
    """Turn 'no space left' into a ValueError that says what is safe and what to do; `room` is
    what was wanted, where it is known.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = "an unknown number of"
        with suppress(OSError):
            free = f"{shutil.disk_usage(out).free / 1e6:.0f}"
        wanted = f"{room / 1e6:.1f} MB wanted, " if room else ""
        raise ValueError(
            f"no space left on the disk of {out} while writing {what} ({wanted}{free} MB free). "
            "Finished shards kept: "
            f"{len(folders(out))}; make room, then run the same command again: it goes on from "
            "there"
        ) from error


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Only one process at a time writes into `out`; the system takes the lock off a process
    that dies.
    """
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            require(
                error.errno not in (errno.EWOULDBLOCK, errno.EACCES),
                f"--out {out}: another process is preparing data there; "
                "wait for it, or pass another --out",
            )
        yield  # a file system without locks goes without


def begun(out: Path) -> bool:
    """Whether an earlier run has begun to prepare data in `out`."""
    return (out / ".lock").is_file()


def mark(plan: Mapping[str, Any]) -> str:
    """A short name for a plan, which the record of each of its shards holds."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def same_plan(out: Path, plan: Mapping[str, Any]) -> None:
    """Write plan.json, or check that `out` was begun with the same one; raises ValueError
    naming what differs. Where it is missing or damaged, the shards say whether they are of
    this plan.
    """
    path, then = out / "plan.json", None
    if path.is_file():
        with suppress(ValueError):
            then = read_json(path)
    if then is None:
        strange = [each.name for each in folders(out) if _of_another(each, plan)]
        require(
            not strange,
            f"--out {out} was begun with something else: {', '.join(strange[:3])} have other "
            "settings or another source, and plan.json, which named them, is missing or damaged. "
            f"Pass another --out, or delete {out}",
        )
        write_json(path, plan)
        return
    other = [
        f"{name}: {then.get(name)} then, {plan.get(name)} now"
        for name in {**then, **plan}
        if then.get(name) != plan.get(name)
    ]
    require(
        not other,
        f"--out {out} was begun with something else ({'; '.join(other)}). Run it as then, or "
        f"pass another --out, or delete {out}",
    )


def _of_another(path: Path, plan: Mapping[str, Any]) -> bool:
    """Whether a shard's record says that it was made from another plan; one that cannot be read
    will be made anew.
    """
    try:
        return record(path).get("plan") not in (None, mark(plan))
    except ValueError:
        return False
