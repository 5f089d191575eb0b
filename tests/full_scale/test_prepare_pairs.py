"""Rows of more than one picture: seeds and worse pictures go from a table to a batch, and what is
broken is counted and named.
"""

import io

import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pictures

from dlib import Draw
from full_scale import prepare
from full_scale.data.rows import Rows

INKS = ["red", "green", "blue", "white"]


def png(colour):
    file = io.BytesIO()
    Pictures.new("RGB", (16, 16), colour).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


@pytest.fixture
def table(tmp_path):
    """Six rows; the fourth has no worse picture, the fifth a broken one, the sixth no seed."""
    worse = [png("black"), png("white"), png("gray"), None, {"bytes": b"no", "path": None}]
    rows = {
        "image": [*map(png, INKS), png("red"), png("red")],
        "worse": [*worse, png("black")],
        "text": ["a red circle"] * 6,
        "seed": [7, 8, 9, 10, 11, None],
    }
    kinds = {"image": Image(), "worse": Image(), "text": Value("string"), "seed": Value("int64")}
    Dataset.from_dict(rows, Features(kinds)).to_parquet(tmp_path / "votes.parquet")
    return tmp_path / "votes.parquet"


def config(table, out, **more):
    return prepare.Config(source=(str(table),), out=out, family="shapes", tiny=True, **more)


def test_the_worse_picture_and_the_noise_reach_the_batch(table, tmp_path):
    said = prepare.run(config(table, tmp_path / "out", other_column="worse", seed_column="seed"))
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "no worse picture" in report and "worse picture does not decode" in report
    assert "no seed" in report and "3" in said
    won, pairs = (Rows(tmp_path / "out", reads) for reads in ("preferences", "pairs"))
    assert won.holds == {"texts", "pictures", "pairs", "preferences"} and len(won) == 3
    batch = won[[2, 0]]
    assert batch.noise is None and batch.x0[0, 2].mean() == 1.0  # blue
    assert batch.other[1].max() == -1.0  # black
    batch = pairs[[2, 0]]
    assert batch.other is None
    want = torch.stack([Draw(seed).normal(batch.x0[0]) for seed in (9, 7)])
    assert torch.equal(batch.noise, want)


def test_columns_that_are_not_there_are_named(table, tmp_path):
    for more, says in (
        (
            {"other_column": "wrose"},
            "--other-column wrose: no such column; there are image, worse",
        ),
        ({"seed_column": "sead"}, "--seed-column sead: no such column"),
    ):
        with pytest.raises(ValueError, match=says):
            prepare.run(config(table, tmp_path / "out", **more))
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    with pytest.raises(ValueError, match="has no columns, and .* name seed"):
        prepare.run(config(tmp_path / "prompts.txt", tmp_path / "o", seed_column="seed"))
