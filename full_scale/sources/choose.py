"""What `--source` can name, and which reader takes it."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from dlib._util import require
from full_scale.sources import tables
from full_scale.sources.folders import Source, folder, prompts
from full_scale.sources.pictures import SUFFIXES
from full_scale.sources.tars import tars

HOW = """A source is one of
    a folder of pictures with captions: x.txt beside x.png, or a metadata.jsonl with
      file_name and text
    WebDataset tars: a folder, files, or a pattern such as 'data/{00..12}.tar' or 'data/*.tar'
    parquet files: a folder, files or a pattern
    a folder written by datasets' save_to_disk, or a dataset's id on the hub
    a text file with a prompt a line: texts only, for training without pictures"""


def open_source(names: Sequence[str], columns: tables.Columns = tables.Columns()) -> Source:
    """The source that `names` stand for; several names only of tars or of parquet files.

    columns: those of a dataset, where types and names do not tell. Raises ValueError with
    what a source can be.
    """
    given = f"--source {' '.join(names)}"
    require(len(names) > 0, f"--source is missing. {HOW}")
    paths = [path for name in names for path in _files(name)]
    gone = [
        str(path)
        for path in paths
        if not path.exists() and not (len(names) == 1 and _is_hub_id(names[0]))
    ]
    require(
        not gone,
        f"{given}: {', '.join(gone[:3])} {'do' if len(gone) > 1 else 'does'} not exist. {HOW}",
    )
    kinds = {path.suffix for path in paths}
    if kinds == {".tar"}:
        source = tars(paths)
    elif kinds == {".parquet"}:
        source = tables.from_table(tables.parquet(paths), f"{len(paths)} parquet files", columns)
    else:
        require(
            len(names) == len(paths) == 1,
            f"{given}: several at once can only be .tar or .parquet files. {HOW}",
        )
        source = _single(names[0], paths[0], columns)
    named = [word for word in (columns.other, columns.seed) if word]
    require(
        not named or source.columns,
        f"{given}: {source.what} has no columns, and --other-column or --seed-column name "
        f"{' and '.join(named)}: they are for parquet files and datasets",
    )
    require(source.count != 0, f"{given}: {source.what}, so nothing to prepare. {HOW}")
    return source


def _files(name: str) -> list[Path]:
    """The files that a word means: itself, or those that match a pattern, or the tars or
    parquet files of a folder without pictures.
    """
    from braceexpand import braceexpand

    path = Path(name).expanduser()
    if path.is_dir():
        inside = sorted(path.rglob("*"))
        kinds = {each.suffix.lower() for each in inside}
        kind = next((suffix for suffix in (".tar", ".parquet") if suffix in kinds), "")
        return (
            [each for each in inside if each.suffix == kind]
            if kind and not kinds & set(SUFFIXES)
            else [path]
        )
    if path.exists() or not re.search(r"[*?\[{]", name):
        return [path]
    return [
        Path(found)
        for word in braceexpand(str(path))
        for found in (sorted(glob.glob(word)) or [word])
    ]


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None


def _single(name: str, path: Path, columns: tables.Columns) -> Source:
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return tables.from_table(tables.saved(path), "saved dataset", columns)
    if path.is_dir():
        return folder(path)
    if path.is_file():
        require(
            path.suffix == ".txt", f"--source {name} is a {path.suffix or 'nameless'} file. {HOW}"
        )
        return prompts(path)
    return tables.from_table(tables.from_hub(name), f"hub dataset {name}", columns)
