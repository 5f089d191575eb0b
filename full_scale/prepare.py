"""Turn pictures and captions into what a training run reads: latents and text embeddings,
memory-mapped.

    python -m full_scale.prepare --tiny --source pictures/ --out data/tiny
    python -m full_scale.prepare --weights weights/stable-diffusion-v1-5 \\
        --source 'laion/{00000..00127}.tar' --out data/laion

The first needs no weights and takes seconds. Rows that cannot be used are left out, counted,
and named one by one in DATA/report.txt. A run that was stopped, however, goes on when the same
command is given again, and ends with the same bytes; what a bad disk has changed since is made
anew. Read the result with `full_scale.data.rows.Rows`.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack, closing
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from dlib._util import require
from full_scale import launch
from full_scale.out import folder as output
from full_scale.out import manifest
from full_scale.data import digests, report, shards
from full_scale.sampling.request import check_model, place
from full_scale.data.encoding import ahead, examine, one_shard
from full_scale.families import Family, introduced, open_family
from full_scale.families.saving import save_tensors
from full_scale.sources.folders import Source
from full_scale.sources.choose import open_source
from full_scale.sources.tables import Columns


@dataclass(frozen=True)
class Config:
    """Prepare pictures and captions, or prompts alone, for training."""

    source: tuple[str, ...]
    """A folder of pictures with captions, WebDataset tars, parquet files, a saved or hub
    dataset, votes between pictures, or a .txt with a prompt a line.
    """
    out: Path
    """The folder to write; one that an earlier run of the same command left unfinished is
    finished.
    """
    weights: str | None = None
    """A folder of the family's weights, or their hub id: their encoders are used."""
    tiny: bool = False
    """A tiny model instead of weights: offline, in seconds."""
    family: str = "sd"
    """The kind of model: a name of full_scale.families.FAMILIES."""
    size: int | None = None
    """Pixels a side, to which pictures are scaled and cut; the network's own size unless
    given.
    """
    batch: int = 8
    """Pictures an encoder call."""
    shard: int = 1024
    """Rows of the source a shard: what a killed run loses at most."""
    store: Literal["auto", "float16", "float32"] = "auto"
    """How numbers are kept; auto is float32 with --tiny, else float16 (11 significant bits;
    training in bfloat16 has 8).
    """
    image_column: str | None = None
    """The column of images, of parquet files or a dataset, where types do not tell."""
    caption_column: str | None = None
    """The column or field of captions, of a table, an index or JSON, where it is not called
    text, caption, prompt or txt. No other one is read then, and no text file.
    """
    other_column: str | None = None
    """Of preferences: the column of the worse pictures; the image column has the better ones."""
    worse: Path | None = None
    """Of preferences: a folder with the worse picture of each in --source, under its name."""
    seed_column: str | None = None
    """Of pairs: the column of the seeds whose noise the pictures were made from."""
    device: str = "auto"
    """auto is cuda where there is one, else cpu."""

    @property
    def dtype(self) -> str:
        """Of the encoders: each picture passes them once, so precision is worth more than
        speed.
        """
        return "float32"

    @property
    def numbers(self) -> str:
        """The dtype in which floats are stored."""
        return self.store if self.store != "auto" else "float32" if self.tiny else "float16"


def check(config: Config) -> None:
    """Raise ValueError for what can be wrong before anything is read."""
    check_model(config.family, config.weights, config.tiny)
    for flag, count in (("batch", config.batch), ("shard", config.shard)):
        require(count >= 1, f"--{flag} {count}: wanted at least 1")
    require(
        output.is_free(config.out) or shards.begun(config.out),
        f"--out {config.out} exists and holds something else; "
        f"nothing was overwritten. Pass --out {output.next_free(config.out)}",
    )


def make_shards(family: Family, source: Source, config: Config, plan: dict[str, Any]) -> bool:
    """Write the shards that are missing or damaged, with a progress bar over the source's rows;
    whether there were any. Shard n has the source's rows from n · --shard on.
    """
    more = bool(config.other_column) or source.others, plan["seed"] is not None
    look = lambda row: examine(row, plan["size"], source.pictures, *more)
    end, seen, bad, made, rows = shards.expected(config.out), set(), 0, False, None
    # closed here, since a generator that is collected while a thread starts can hang
    with tqdm(total=source.count, unit="row", desc="prepare") as bar, ExitStack() as begun:
        for number in itertools.takewhile(lambda n: n != end, itertools.count()):
            path = shards.shard(config.out, number)
            if fault := manifest.fault(path):
                if path.is_dir():
                    bar.write(f"{path} is made anew: {fault}")
                rows = rows or begun.enter_context(
                    closing(ahead(look, source.rows(number * config.shard), 4 * config.batch))
                )
                columns, record = one_shard(
                    family,
                    itertools.islice(rows, config.shard),
                    seen,
                    config.batch,
                    plan["size"],
                    config.numbers,
                    bar.update,
                )
                if not record["read"]:
                    break
                shards.write(config.out, number, columns, record | {"plan": shards.mark(plan)})
                made = True
            else:
                record, rows = shards.record(path), None
                seen.update(shards.keys(path))
                bar.update(record["read"])
            bad += len(record["bad"])
            bar.set_postfix(bad=bad)
    return made


def finish(family: Family, config: Config, plan: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write the empty condition, then info.json, all that a reader needs to know, and then the
    manifest.
    """
    null = family.null()
    size = plan["size"]
    own = family.encode_sizes([(size, size)], size) if plan["pictures"] else {}
    cond = null | {name: rows[0] for name, rows in own.items()}
    half = config.out / ".half-null.safetensors"
    room = sum(value.nbytes for value in null.values())
    with shards.disk(config.out, "the empty condition", room):
        save_tensors(null, half)
    output.readable(half)
    manifest.flush(half)
    half.replace(config.out / "null.safetensors")
    shards.write_json(
        config.out / "info.json",
        {
            **plan,
            "given": list(config.source),
            "cond": {name: list(value.shape) for name, value in cond.items()},
            "latents": family.x0_is if plan["pictures"] else None,
            "counts": {name: summary[name] for name in ("read", "kept", "bad", *report.KEPT)},
            "shards": summary["shards"],
            "licence": family.licence,
            "versions": output.versions()
            | {name: version(name) for name in ("datasets", "pillow")},
        },
    )
    digests.close(config.out, shards.folders(config.out))


def sized(family: Family, asked: int | None) -> tuple[int, tuple[int, ...]]:
    """(pixels a side, shape of one x0): the network's own size unless one was asked for."""
    if asked is None:
        return family.size, family.shape(family.size)
    try:
        return asked, family.shape(asked)
    except ValueError as error:
        raise ValueError(f"--size {asked}: {error}") from None


def paired(source: Source, config: Config, family: Family, size: int) -> bool:
    """Whether the rows' seeds are known to be the noise of such latents as are made here."""
    if source.noise is None:
        return False
    name, *sides = source.noise
    return name == config.family and all((side or family.size) == size for side in sides)


def run(config: Config) -> str:
    """Prepare what `config` asks for, and return the closing line."""
    check(config)
    device, dtype = place(config)
    columns = Columns(
        config.image_column, config.caption_column, config.other_column, config.seed_column
    )
    source = open_source(config.source, columns, config.worse)
    family = open_family(config.family, config.weights, device, dtype)
    print(introduced(family, config.weights))
    size, shape = sized(family, config.size)
    seeds = config.seed_column or ("sampled" if paired(source, config, family, size) else None)
    print(f"source: {source.what}" + (", with the seeds of their noise" if seeds else ""))
    plan = {
        "source": source.what,
        "source_stamp": source.stamp,
        "family": family.identity,
        "weights": config.weights,
        "pictures": source.pictures,
        "shape": list(shape),
        "size": size,
        "batch": config.batch,
        "shard": config.shard,
        "numbers": config.numbers,
        "other": config.other_column or ("votes" if source.others else None),
        "seed": seeds,
    }
    config.out.mkdir(parents=True, exist_ok=True)
    with shards.locked(config.out), shards.disk(config.out, "the plan or the report"):
        shards.same_plan(config.out, plan)
        again = shards.expected(config.out) is None
        again = make_shards(family, source, config, plan) or again
        summary = report.write(config.out, shards.records(config.out))
        report.enough(config.out, summary)
        if again:
            finish(family, config, plan, summary)
    return report.closing(config.out, summary, source.pictures)


def main() -> None:
    """The command line: one message on stderr, and exit status 1, for what the reader can put
    right.
    """
    config = tyro.cli(Config, prog="python -m full_scale.prepare", description=__doc__)
    try:
        with launch.within_memory("pass a smaller --batch; finished shards are kept"):
            print(run(config))
    except (ValueError, OSError) as error:
        sys.exit(f"full_scale.prepare: {error}")
    except KeyboardInterrupt:
        print(
            f"full_scale.prepare: stopped; finished shards are in {config.out}. The same "
            "command goes on from there",
            file=sys.stderr,
        )
        sys.exit(130)


if __name__ == "__main__":
    main()
