"""What `--source` can name, and which reader takes it."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlib._util import require
from full_scale.sources import tables, votes
from full_scale.sources.folders import Source, of_train, prompts
from full_scale.sources.pictures import SUFFIXES
from full_scale.sources.sampled import pictures_in
from full_scale.sources.tars import tars

if TYPE_CHECKING:
    from datasets import Dataset

HOW = """A source is one of
    a folder of pictures with captions: x.txt, x.caption or x.json beside x.png, or a
      metadata.jsonl, .csv or .parquet with file_name and text
    a folder that full_scale.sample wrote: its prompts are the captions, its seeds the noise of
      pairs
    WebDataset tars: a folder, files, or a pattern such as 'data/{00..12}.tar' or 'data/*.tar'
    parquet files: a folder, files or a pattern
    a folder written by datasets' save_to_disk, or a dataset's id on the hub
    votes between pictures: parquet files or a dataset with jpg_0, jpg_1, label_0 and caption, as
      Pick-a-Pic, a .csv with image_0, image_1, label_0 and caption, or a folder and --worse
    a text file with a prompt a line: texts only, for training without pictures"""


def open_source(
    names: Sequence[str], columns: tables.Columns = tables.Columns(), worse: Path | None = None
) -> Source:
    """The source that `names` stand for; several names only of tars or of parquet files.

    columns: those of a dataset, where types and names do not tell; the caption's is a field of
    JSON and of indexes too. worse: a folder with the worse picture of each in a source that is
    a folder. Raises ValueError with what a source can be.
    """
    given = f"--source {' '.join(names)}"
    require(len(names) > 0, f"--source is missing. {HOW}")
    if worse is not None:
        require(
            len(names) == 1 and Path(names[0]).expanduser().is_dir(),
            f"{given} with --worse {worse}: the better pictures must be one folder too",
        )
        better = Path(names[0]).expanduser()
        source = votes.two_folders(better, worse.expanduser(), columns.caption)
    else:
        source = _named(names, given, columns)
    flags = {"--image-column": columns.image, "--other-column": columns.other}
    flags["--seed-column"] = columns.seed
    named = [f"{flag} {word}" for flag, word in flags.items() if word]
    require(
        not named or source.columns,
        f"{given}: {source.what} has no columns: leave {' and '.join(named)} out, since only "
        "parquet files and datasets have them",
    )
    require(source.count != 0, f"{given}: {source.what}, so nothing to prepare. {HOW}")
    return source


def _named(names: Sequence[str], given: str, columns: tables.Columns) -> Source:
    meant = [_files(name) for name in names]
    paths = [path for found, _ in meant for path in found]
    left = next((words for _, words in meant if words), "")
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
        return tars(paths, left, columns.caption)
    if kinds == {".parquet"}:
        told = f"{len(paths)} parquet files{left}"
        table, broken = tables.parquet(paths)
        return _table(table, told, columns, broken)
    require(
        len(names) == len(paths) == 1,
        f"{given}: several at once can only be .tar or .parquet files. {HOW}",
    )
    return _single(names[0], paths[0], columns)


def _files(name: str) -> tuple[list[Path], str]:
    """The files that a word means: itself, or those that match a pattern, or the tars or
    parquet files of a folder without pictures; of several splits train, and in words what that
    left out.
    """
    from braceexpand import braceexpand

    path = Path(name).expanduser()
    if path.is_dir():
        inside = sorted(path.rglob("*"))
        kinds = {each.suffix.lower() for each in inside}
        kind = next((suffix for suffix in (".tar", ".parquet") if suffix in kinds), "")
        if kind and not kinds & set(SUFFIXES):
            return of_train(path, [each for each in inside if each.suffix == kind])
        require(
            kind != ".tar",
            f"--source {name} holds both tars and pictures: name the tars, as in '{name}/*.tar', "
            "or move them away",
        )
        return [path], ""
    if path.exists() or not re.search(r"[*?\[{]", name):
        return [path], ""
    return [
        Path(found)
        for word in braceexpand(str(path))
        for found in (sorted(glob.glob(word)) or [word])
    ], ""


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None


def _single(name: str, path: Path, columns: tables.Columns) -> Source:
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _table(tables.saved(path), "saved dataset", columns)
    if path.is_dir():
        return pictures_in(path, columns.caption)
    if path.suffix == ".csv" and path.is_file():
        return votes.votes_file(path, columns.caption)
    if path.is_file():
        require(
            path.suffix == ".txt", f"--source {name} is a {path.suffix or 'nameless'} file. {HOW}"
        )
        require(
            columns.caption is None,
            f"--caption-column {columns.caption}: --source {name} is a text with a prompt a "
            "line, which has no fields: leave it out",
        )
        return prompts(path)
    return _table(tables.from_hub(name), f"hub dataset {name}", columns)


def _table(
    dataset: Dataset, what: str, columns: tables.Columns, broken: Sequence[tuple[str, str]] = ()
) -> Source:
    """Of votes, if it has their columns and no others were named for pictures and seeds."""
    if votes.is_votes(dataset) and not any(columns._replace(caption=None)):
        return votes.votes_table(dataset, what, columns.caption, broken)
    return tables.from_table(dataset, what, columns, broken)
