"""Sources that are datasets of the `datasets` library: saved to disk, parquet files, or on the
hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlib._util import require
from full_scale.sources.captions import FIELDS
from full_scale.sources.folders import Row, Source, stamped
from full_scale.sources.pictures import SUFFIXES, held

if TYPE_CHECKING:
    from datasets import Dataset


def saved(path: Path) -> Dataset:
    """What `Dataset.save_to_disk` left in a folder; of several splits, train."""
    from datasets import load_from_disk

    try:
        found = load_from_disk(str(path))
    except Exception as error:  # arrow's own types for torn files
        raise ValueError(
            f"--source {path} cannot be read as a saved dataset ({_reason(error)}): save it again"
        ) from error
    if not isinstance(found, dict):
        return found
    split = "train" if "train" in found else next(iter(found), None)
    require(
        len(found) == 1 or split == "train",
        f"--source {path} holds the splits {', '.join(found)} and no train: "
        f"pass --source {path / str(split)}",
    )
    return found[split]


def parquet(paths: Sequence[Path]) -> tuple[Dataset, list[tuple[str, str]]]:
    """Parquet files as one dataset, of which `datasets` keeps a memory-mapped copy in its cache;
    and those without an end, as a killed writer leaves them: name and reason.
    """
    from datasets import load_dataset
    from pyarrow.parquet import read_metadata

    whole, broken = [], []
    for path in paths:
        try:
            read_metadata(path)
            whole.append(str(path))
        except (OSError, ValueError) as error:  # arrow's own types are among them
            broken.append((str(path), f"not readable as parquet: {_reason(error)}"))
    require(bool(whole), f"--source {': '.join((broken or [('', 'no file')])[0])}")
    try:
        return load_dataset("parquet", data_files=whole, split="train"), broken
    except Exception as error:  # the builder wraps what went wrong in its own types
        raise ValueError(
            f"--source {paths[0]}{' …' * (len(paths) > 1)}: not readable as parquet: "
            f"{_reason(error)}"
        ) from error


def from_hub(name: str) -> Dataset:
    """The train split of a dataset on the hub, or in the hub's cache."""
    from datasets import load_dataset

    try:
        return load_dataset(name, split="train")
    # a missing network, dataset, split or permission: each has types of its own
    except Exception as error:
        raise ValueError(
            f"--source {name}: no such folder here, and the hub gave no dataset of that name "
            "with a train split: "
            f"{_reason(error)}\n"
            f"On a machine with a network: hf download {name} --repo-type dataset --local-dir "
            f"data/{name.split('/')[-1]}\n"
            "then pass that folder, if it holds parquet files or WebDataset tars"
        ) from error


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


class Columns(NamedTuple):
    """Which columns of a table are what; None is found by type and name, or is not there."""

    image: str | None = None
    caption: str | None = None
    other: str | None = None
    seed: str | None = None


def from_table(
    dataset: Dataset,
    what: str,
    columns: Columns = Columns(),
    broken: Sequence[tuple[str, str]] = (),
) -> Source:
    """A source of the dataset's image and caption columns, found by type and by name unless
    given; keys are row numbers.

    Without an image column it is a source of texts. `other` and `seed` are read where they are
    named. broken: files that could not be read, and why: bad rows at the end.
    """
    for flag, name in (("--other-column", columns.other), ("--seed-column", columns.seed)):
        check_column(flag, name, dataset)
    kept = dataset.remove_columns([name for name in [columns.other] if name])
    image, captions = _image_column(kept, columns.image), _caption_columns(kept, columns.caption)
    require(
        image is not None or not (columns.other or columns.seed),
        "--other-column and --seed-column belong to pictures, and this source has none",
    )
    names = [name for name in (*captions, image, columns.other, columns.seed) if name]
    dataset = dataset.select_columns(names)
    for name in (image, columns.other):
        dataset = undecoded(dataset, name) if name else dataset
    texts = dataset.select_columns(captions)
    probe = [read_entry(texts, n) for n in range(0, len(dataset), 1 + len(dataset) // 64)]
    stamp = stamped([len(dataset), dataset.column_names, *probe, *broken])

    def rows(start: int) -> Iterator[Row]:
        for n in range(start, len(dataset)):
            key, where, entry = f"{n:09d}", f"row {n}", read_entry(dataset, n)
            if isinstance(entry, str):
                yield Row(key, where, fault=("broken source", entry))
                continue
            texts = tuple(entry[name] for name in captions)
            try:
                yield Row(
                    key,
                    where,
                    texts,
                    held(entry[image]) if image else None,
                    other=held(entry[columns.other]) if columns.other else None,
                    seed=entry[columns.seed] if columns.seed else None,
                )
            except ValueError as error:
                yield Row(key, where, texts, fault=("no picture", str(error)))
        yield from at_the_end(broken, start - len(dataset))

    told, count = f"{what} with {len(dataset)} rows", len(dataset) + len(broken)
    return Source(told, stamp, image is not None, count, rows, columns=True)


def undecoded(dataset: Dataset, name: str) -> Dataset:
    """The same, with the pictures of this column as they are stored: a broken one, or one that
    is no picture, costs its own row.
    """
    from datasets import Image

    return (
        dataset.cast_column(name, Image(decode=False))
        if isinstance(dataset.features[name], Image)
        else dataset
    )


def at_the_end(broken: Sequence[tuple[str, str]], start: int) -> Iterator[Row]:
    """The files that could not be read, from number `start` on, as rows."""
    for name, reason in broken[max(0, start) :]:
        yield Row(name, name, fault=("broken source", reason))


def read_entry(dataset: Dataset, n: int) -> dict[str, Any] | str:
    """A row; or in words why its texts cannot be read."""
    try:
        return dataset[n]
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error}"


def _image_column(dataset: Dataset, given: str | None) -> str | None:
    """A column of images, or of their bytes as img2dataset and pandas write them: called jpg,
    png … or image, or with the fields bytes and path.
    """
    from datasets import Image, List

    names = (*(suffix[1:] for suffix in SUFFIXES), "image", "img")
    found, lists = [], []
    for name, feature in dataset.features.items():
        encoded = getattr(feature, "dtype", "") in ("binary", "large_binary") and name in names
        held = isinstance(feature, dict) and {*feature} == {"bytes", "path"}
        if isinstance(feature, Image) or encoded or held:
            found.append(name)
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            lists.append(name)
    check_column("--image-column", given, dataset)
    require(
        bool(found) or not lists or given is not None,
        f"--source: the column {', '.join(lists)} holds lists of pictures, and a row is one "
        "picture: write a table with a row a picture",
    )
    require(
        given is not None or len(found) < 2,
        f"--source has {len(found)} columns of images: "
        f"pass --image-column, one of {', '.join(found)}",
    )
    return given or next(iter(found), None)


def _caption_columns(dataset: Dataset, given: str | None) -> list[str]:
    """Those called as `FIELDS` say, in that order; else the only column of texts."""
    texts = [
        name
        for name, feature in dataset.features.items()
        # strings, or lists of strings
        if getattr(getattr(feature, "feature", feature), "dtype", "")
        in ("string", "large_string")
    ]
    named = [name for name in FIELDS if name in texts]
    found = [given] if given else named or texts
    check_column("--caption-column", given, dataset)
    require(
        len(found) == 1 or bool(named),
        f"--source has no column of captions called {' or '.join(FIELDS)}: pass "
        "--caption-column, "
        f"one of {', '.join(texts or dataset.column_names)}",
    )
    return found


def check_column(flag: str, given: str | None, dataset: Dataset) -> None:
    """Raise ValueError if the table has no column of this name."""
    require(
        given is None or given in dataset.column_names,
        f"{flag} {given}: no such column; there are {', '.join(dataset.column_names)}",
    )
