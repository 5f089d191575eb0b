"""Prepared data as batches: random access by index, and an order in which a step's rows depend
on (seed, step) alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from dlib._util import require
from dlib import Draw
from dlib.losses import Batch
from full_scale.data.draws import Draws
from full_scale.data import digests, shards
from full_scale.out import manifest

if TYPE_CHECKING:
    from full_scale.families.base import Family

SAME = 0.1
"""Largest relative distance between an embedding of the data and the model's: half precision
gives up to about 0.01, other weights about 1.
"""


class Rows:
    """The rows of a folder that `full_scale.prepare` wrote, memory-mapped: `rows[[3, 1]]` is a
    `Batch` of two.

    info: what the folder's info.json says. null: the empty condition, without a batch axis.
    Raises ValueError if the folder is missing, unfinished or damaged.
    """

    def __init__(self, folder: Path | str, reads: str = "texts"):
        from datasets import concatenate_datasets

        self.folder, self.reads = Path(folder), reads
        require(
            self.folder.is_dir(), f"data {folder}: no such folder. To make it: {_how(folder)}"
        )
        self.info = _complete(self.folder)
        paths = [shards.shard(self.folder, number) for number in range(self.info["shards"])]
        fault = digests.damage(self.folder, paths)
        require(not fault, f"data {folder} are damaged: {fault}. {digests.AGAIN}")
        self.paths = [path for path in paths if shards.record(path)["kept"]]
        self.parts = [shards.loaded(path) for path in self.paths]
        self.ends = np.cumsum([len(part) for part in self.parts])
        self.table = concatenate_datasets(self.parts).with_format("arrow")
        self.null: dict[str, Tensor] = load_file(self.folder / "null.safetensors")
        self.sound: set[int] = set()  # shards whose texts are where arrow says

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def stamp(self) -> str:
        """Changes when any row does, or the empty condition: from the digests of the shards."""
        return digests.stamp(self.folder, self.paths)

    @property
    def pictures(self) -> bool:
        """Whether there are latents, or texts alone."""
        return "latent" in self.table.column_names

    @property
    def holds(self) -> set[str]:
        """What a recipe may read here: "texts", "pictures", "pairs", "preferences"."""
        columns = {"latent": "pictures", "seed": "pairs", "other": "preferences"}
        return {"texts"} | {
            kind for name, kind in columns.items() if name in self.table.column_names
        }

    @property
    def kept(self) -> dict[str, None]:
        """What ∅ has in place of a picture's own conditions, which it leaves as they are."""
        return dict.fromkeys(sorted(self.info["cond"].keys() - self.null.keys()))

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        """x0 (B, *shape), the condition and, where they are read, the pairs' noise or the worse
        pictures of preferences; float32 (tokens int64) on the CPU.

        Of texts alone x0 is NaN: it has the shape that a method without pictures needs, and a
        loss that reads it is stopped by the first check for finite numbers.
        """
        table, shape = self._gathered(indices), self.info["shape"]
        x0 = (
            _tensor(table, "latent", shape)
            if self.pictures
            else torch.full((len(indices), *shape), torch.nan)
        )
        cond = {name: _tensor(table, name, shape) for name, shape in self.info["cond"].items()}
        noise = other = None
        if self.reads == "pairs":  # a seed *is* the noise
            draws = Draws(Draw(seed) for seed in table["seed"].to_pylist())
            noise = draws.normal(x0)
        if self.reads == "preferences":
            other = _tensor(table, "other", shape)
        return Batch(x0, cond, noise, other)

    def captions(self, indices: Sequence[int]) -> list[str]:
        """The texts of these rows."""
        return self._gathered(indices)["caption"].to_pylist()

    def _gathered(self, indices: Sequence[int]) -> Any:
        require(
            len(indices) > 0 and 0 <= min(indices) and max(indices) < len(self),
            f"Rows: indices {list(indices)[:8]}, wanted 0 … {len(self) - 1}, at least one",
        )
        shard_of = np.searchsorted(self.ends, list(indices), side="right").tolist()
        for number in {*shard_of} - self.sound:
            try:  # before arrow follows where they point
                self.parts[number].data.validate(full=True)
            except ValueError as error:
                self._refuse(number, str(error))
            self.sound.add(number)
        found = self.table[list(indices)]
        wanted = found[digests.SUM].to_pylist()
        for row, number, now, then in zip(indices, shard_of, digests.sums(found), wanted):
            if now != then:
                self._refuse(number, f"row {row} is not what was written")
        return found

    def _refuse(self, number: int, fault: str) -> None:
        path = self.paths[number]
        raise ValueError(f"data {self.folder} are damaged: {path.name}: {fault}. {digests.AGAIN}")

    def check(self, family: Family, batch: int) -> None:
        """Raise ValueError unless these data suit a model, a global batch, and what is read."""
        made = {
            "pictures": "a source with pictures",
            "pairs": "what full_scale.sample wrote, for this family and size and by a solver "
            "without noise, or a table with "
            "--seed-column, the seeds of the noise",
            "preferences": "votes between pictures, or a table with --other-column",
        }
        require(
            self.reads in self.holds,
            f"data {self.folder} hold {' and '.join(sorted(self.holds))} alone, and this method "
            f"trains on {self.reads}: prepare {made.get(self.reads)}",
        )
        theirs, ours = self.info["family"], family.identity
        require(
            theirs["family"] == ours["family"],
            f"data {self.folder} were prepared for the family {theirs['family']}, and the "
            "model is of the "
            f"family {ours['family']}: pass --family {theirs['family']}, or prepare them anew "
            f"with --family {ours['family']} and another --out",
        )
        other = [
            f"{name}: {theirs.get(name)} in the data, {ours.get(name)} in the model"
            for name in {**theirs, **ours}
            if theirs.get(name) != ours.get(name)
        ]
        require(
            not other,
            f"data {self.folder} were prepared with another model family ({'; '.join(other)}). "
            f"{self._again()}",
        )
        for what, ours, theirs in self._samples(family):
            far = max(_distance(value.cpu(), theirs[name]) for name, value in ours.items())
            require(
                far < SAME,
                f"data {self.folder} were prepared with another text encoder of the same shape: "
                f"its embedding of {what} is at a relative distance of {far:.2g}; rounding stays "
                f"below {SAME}. {self._again()}",
            )
        require(
            len(self) >= batch,
            f"data {self.folder} have {len(self)} rows, fewer than one global batch of {batch}: "
            f"pass --batch {len(self)} or less, or prepare more rows",
        )

    def _samples(self, family: Family) -> Iterator[tuple[str, Mapping, Mapping]]:
        """What was embedded, as the family embeds it now, and as these data hold it: the empty
        text, which for some families is zeros whatever the encoder, and the first caption.
        """
        yield "the empty text", family.null(), self.null
        if len(self):
            (caption,) = self.captions([0])
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                ours = family.null(caption)
            yield (
                f"the caption {caption[:60]!r}",
                ours,
                {name: rows[0] for name, rows in self[[0]].cond.items()},
            )

    def _again(self) -> str:
        return f"Prepare them anew with the weights that you train: {_how(f'{self.folder}-2')}"


def _complete(folder: Path) -> dict[str, Any]:
    """What info.json says of complete data. ValueError says what is there instead."""
    there = (folder / "info.json").is_file()
    sealed = (folder / manifest.NAME).is_file()
    require(
        sealed or not there or any(folder.glob(f"shard-*/{manifest.NAME}")),
        f"data {folder} were prepared by an earlier version, which wrote no digests: run the "
        "same full_scale.prepare command again, or another with another --out",
    )
    require(
        (there and sealed) or not (sealed or shards.begun(folder)),
        f"data {folder}: not finished: run the same full_scale.prepare command again",
    )
    require(there, f"data {folder}: not prepared data. To make some: {_how(folder)}")
    fault = manifest.fault(folder)
    require(not fault, f"data {folder} are damaged: {fault}. {digests.AGAIN}")
    return shards.read_json(folder / "info.json")


def _how(folder: Path | str) -> str:
    return f"python -m full_scale.prepare --source PICTURES --weights WEIGHTS --out {folder}"


def _tensor(table: Any, name: str, shape: Sequence[int]) -> Tensor:
    values = (
        table[name]
        .combine_chunks()
        .flatten()
        .to_numpy(zero_copy_only=False)
        .reshape(table.num_rows, *shape)
    )
    return torch.from_numpy(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


def _distance(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12))


@lru_cache(maxsize=3)
def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The permutation of 0 … n−1 in which an epoch visits the rows, a pure function of (seed,
    epoch, n).

    Ranks of Philox's raw 64-bit words, which numpy keeps the same for ever; its `permutation`
    may change.

    >>> sorted(order(0, 1, 4)) == [0, 1, 2, 3], (order(0, 1, 100) == order(0, 2, 100)).all()
    (True, np.False_)
    """
    words = np.random.Philox(np.random.SeedSequence((seed, epoch), spawn_key=(n,))).random_raw(n)
    return np.argsort(words, kind="stable")


def without(rows: Iterable[int], skipped: Collection[int], n: int) -> list[int]:
    """The rows of a batch, where each that is skipped gives its place to the next of the n rows
    that is not: all other places are read as they were.

    >>> without([3, 0, 2], {0, 1}, 4), without([3], {3}, 4)
    ([3, 2, 2], [0])
    """
    kept = []
    for row in rows:
        while row in skipped:
            row = (row + 1) % n
        kept.append(row)
    return kept


def indices(seed: int, step: int, batch: int, n: int) -> list[int]:
    """The rows of the global batch of step `step` (from 0): places step·batch … of all epochs'
    orders laid end to end.

    So each row comes once an epoch, none is dropped at its end (a batch may span two epochs),
    and the cursor of a run is its step. Raises ValueError if the batch is larger than the
    data.

    >>> [len(set(indices(0, 0, 4, 6) + indices(0, 1, 4, 6)[:2])), len(indices(0, 1, 4, 6))]
    [6, 4]
    """
    require(1 <= batch <= n, f"indices: a global batch of {batch} from {n} rows, wanted 1 … {n}")
    places = range(step * batch, (step + 1) * batch)
    return [int(order(seed, place // n, n)[place % n]) for place in places]
