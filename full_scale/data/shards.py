"""Prepared data on disk: folders that `datasets` can load, each written whole under another
name and then renamed.

DATA/plan.json             what every shard depends on; a second run must agree
DATA/shard-00000/          rows as a saved dataset, and record.json: what was read, kept, bad
DATA/null.safetensors      the empty condition
DATA/info.json             written last: its presence says that the data are complete
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlib._util import require

if TYPE_CHECKING:
    from datasets import Dataset

Columns = Mapping[str, list[str] | np.ndarray]
FULL = (errno.ENOSPC, errno.EDQUOT)


def write(out: Path, number: int, columns: Columns, record: Mapping[str, Any]) -> None:
    """Shard `number` of `out`, complete or absent. Arrays (n, …) are stored flat, so that a
    gather is one copy.

    Raises ValueError if the disk is full; the shards before it are untouched.
    """
    from datasets import disable_progress_bars

    disable_progress_bars()
    name = f"shard-{number:05d}"
    half = out / f".half-{name}"
    with disk(out, name):
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        try:
            if record["kept"]:  # `datasets` cannot read back a dataset without rows
                _dataset(columns).save_to_disk(half, num_shards=1)
            write_json(half / "record.json", record)
            for path in half.iterdir():
                flush(path)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
        shutil.rmtree(out / name, ignore_errors=True)
        os.replace(half, out / name)


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
    features = Features(fields)
    return Dataset(
        pa.table(arrays, schema=features.arrow_schema), info=DatasetInfo(features=features)
    )


def folders(out: Path) -> list[Path]:
    """The finished shards: number 0, 1, … up to the first that is missing."""
    found = []
    while (path := out / f"shard-{len(found):05d}" / "record.json").is_file():
        found.append(path.parent)
    return found


def records(out: Path) -> list[dict[str, Any]]:
    """The record of every finished shard, in order."""
    return [
        json.loads((path / "record.json").read_text(encoding="utf-8")) for path in folders(out)
    ]


def open_shards(out: Path) -> Dataset:
    """The rows of all finished shards as one memory-mapped dataset; raises ValueError naming a
    shard that is damaged.
    """
    from datasets import concatenate_datasets

    return concatenate_datasets(
        [_loaded(path) for path in folders(out) if (path / "state.json").is_file()]
    )


def _loaded(path: Path) -> Dataset:
    from datasets import load_from_disk

    try:
        return load_from_disk(str(path))
    except Exception as error:  # arrow's own types for torn files
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}): copy it again, or "
            f"delete it and {path.parent / 'info.json'} "
            "and run the same full_scale.prepare command again"
        ) from error


def write_json(path: Path, value: Any) -> None:
    r"""JSON under another name first, then renamed. What UTF-8 cannot hold, as the bytes of a
    file's name, becomes JSON's own \udcXX, which reads back as it was.
    """
    half = path.with_name(f".half-{path.name}")
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    half.write_text(text, encoding="utf-8", errors="backslashreplace")
    flush(half)
    os.replace(half, path)


def flush(path: Path) -> None:
    """Wait until a file's bytes are on the disk: a rename must not overtake them when the node
    dies.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def disk(out: Path, what: str) -> Iterator[None]:
    """Turn 'no space left' into a ValueError that says what is safe and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = "an unknown number of"
        with suppress(OSError):
            free = f"{shutil.disk_usage(out).free / 1e6:.0f}"
        raise ValueError(
            f"no space left on the disk of {out} while writing {what} ({free} MB free). "
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


def same_plan(out: Path, plan: Mapping[str, Any]) -> None:
    """Write plan.json, or check that `out` was begun with the same one; raises ValueError
    naming what differs.
    """
    path = out / "plan.json"
    if not path.is_file():
        write_json(path, plan)
        return
    then = json.loads(path.read_text(encoding="utf-8"))
    other = [
        f"{name}: {then.get(name)} then, {plan.get(name)} now"
        for name in {**then, **plan}
        if then.get(name) != plan.get(name)
    ]
    require(
        not other,
        f"--out {out} was begun with something else ({'; '.join(other)}). Run it as then, or "
        "pass another --out, "
        f"or delete {out}",
    )
