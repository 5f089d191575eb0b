"""Small data to prepare: real PNG files, and the same rows as every other kind of source."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from full_scale import prepare

CAPTIONS = {
    "a": "a cat",
    "b": "a red circle",
    "c": "two lines",
    "d": "a blue square",
    "e": "a cat again",
}


def picture(seed: int, width: int = 80, height: int = 64) -> Image.Image:
    """A smooth coloured picture of its own."""
    low = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def beside(path: Path, captions: dict[str, str] = CAPTIONS) -> Path:
    """x.png and x.txt."""
    path.mkdir(parents=True)
    for seed, (key, caption) in enumerate(captions.items()):
        (path / f"{key}.png").write_bytes(png(picture(seed)))
        (path / f"{key}.txt").write_text(f"{caption}\n")
    return path


def imagefolder(path: Path) -> Path:
    """metadata.jsonl, the pictures in a folder below."""
    beside(path / "train")
    for each in (path / "train").glob("*.txt"):
        each.unlink()
    (path / "metadata.jsonl").write_text(
        "".join(
            json.dumps({"file_name": f"train/{key}.png", "text": text}) + "\n"
            for key, text in CAPTIONS.items()
        )
    )
    return path


def table(column: str = "text"):
    import datasets

    images = [{"bytes": png(picture(seed)), "path": None} for seed in range(len(CAPTIONS))]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            column: datasets.Value("string"),
            "score": datasets.Value("float32"),
        }
    )
    return datasets.Dataset.from_dict(
        {"image": images, column: list(CAPTIONS.values()), "score": [0.0] * len(CAPTIONS)},
        features=features,
    )


def saved(path: Path) -> Path:
    table().save_to_disk(path)
    return path


def parquet(path: Path) -> Path:
    """Two files in a folder, as on the hub."""
    path.mkdir()
    for part, rows in enumerate((range(3), range(3, 5))):
        table("caption").select(rows).to_parquet(path / f"train-{part:05d}.parquet")
    return path


def tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def tars(path: Path) -> str:
    """Two tars by a brace pattern, captions in all three forms."""
    path.mkdir()
    forms = [
        lambda key, text: (f"{key}.txt", text.encode()),
        lambda key, text: (f"{key}.json", json.dumps({"caption": text, "width": 80}).encode()),
        lambda key, text: (f"{key}.caption", text.encode()),
    ]
    members = [
        [(f"{key}.png", png(picture(seed))), forms[seed % 3](key, text)]
        for seed, (key, text) in enumerate(CAPTIONS.items())
    ]
    tar(path / "00.tar", sum(members[:3], []))
    tar(path / "01.tar", sum(members[3:], []))
    return str(path / "{00..01}.tar")


def spoiled(path: Path) -> Path:
    """Seven good rows, two of them the same key, and one of every kind of bad row; long
    captions and small pictures too.
    """
    beside(
        path,
        {**CAPTIONS, "dup": "one", "long": "cat " * 40, **{f"x{k}": "bad" for k in range(6)}},
    )
    (path / "dup.jpg").write_bytes((path / "dup.png").read_bytes())
    (path / "x0.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    (path / "x1.png").write_bytes(png(picture(1))[:-900])
    (path / "x2.txt").unlink()
    (path / "x3.txt").write_text(" \n")
    (path / "x4.txt").write_bytes(b"\xff\xfe\xff")
    (path / "x5.png").unlink()
    picture(3, 40, 30).save(path / "c.png")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a prepared folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def prepared(source: str | Path | tuple[str, ...], out: Path, **change) -> Path:
    """Prepare in this process, with the tiny model at 64 px, and return the folder."""
    words = source if isinstance(source, tuple) else (str(source),)
    prepare.run(
        prepare.Config(
            **{
                "source": words,
                "out": out,
                "tiny": True,
                "size": 64,
                "shard": 2,
                "batch": 2,
                **change,
            }
        )
    )
    return out
