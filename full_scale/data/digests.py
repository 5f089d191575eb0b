"""Whether prepared data still are what was written.

Each shard has a manifest with the sizes and digests of its files, and the folder one of these
manifests and of what lies beside them. So that no start has to read all rows, their files are
then compared by size alone; each row has a sum of its own, which is compared whenever the row
is read. `prepare` compares digests.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from full_scale.out import manifest

if TYPE_CHECKING:
    import pyarrow as pa

AGAIN = "Run the same full_scale.prepare command again, which makes it anew, or copy it again"
"""What to do about damage."""
BESIDE = ("info.json", "null.safetensors")
"""The files beside the shards that are read with them."""
ROWS = ".arrow"
"""How the files with the rows end."""
SUM = "sum"
"""The column with a row's sum."""


def sums(table: pa.Table) -> list[int]:
    """The CRC-32 of each row: its values, column after column by name, texts in UTF-8."""
    found = [0] * table.num_rows
    for name in sorted({*table.column_names} - {SUM}):
        values = table[name].combine_chunks()
        if str(values.type) == "string":
            rows = [text.encode() for text in values.to_pylist()]
        else:
            flat = values.flatten() if hasattr(values, "flatten") else values
            rows = flat.to_numpy(zero_copy_only=False).reshape(len(found), -1)
        found = [zlib.crc32(row, before) for row, before in zip(rows, found)]
    return found


def close(out: Path, shards: Sequence[Path]) -> None:
    """Write the manifest of `out`, which says that the data are complete."""
    names = [*BESIDE, *(f"{path.name}/{manifest.NAME}" for path in shards)]
    manifest.seal(out, manifest.entries(out, names))


def damage(out: Path, shards: Sequence[Path]) -> str:
    """What is wrong with complete data, in words, without reading their rows; or nothing."""
    for path in shards:
        if fault := manifest.fault(path, long=ROWS):
            return f"{path.name}: {fault}"
    return ""


def stamp(out: Path, shards: Sequence[Path]) -> str:
    """A short name for the contents of all rows and of the empty condition."""
    found = hashlib.sha256(manifest.files(out)["null.safetensors"]["sha256"].encode())
    for path in shards:
        for name, entry in manifest.files(path).items():
            if name.endswith(ROWS):
                found.update(entry["sha256"].encode())
    return found.hexdigest()[:16]
