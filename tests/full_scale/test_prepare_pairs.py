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
    with pytest.raises(ValueError, match="has no columns: leave --seed-column seed out"):
        prepare.run(config(tmp_path / "prompts.txt", tmp_path / "o", seed_column="seed"))


def jpg(colour):
    file = io.BytesIO()
    Pictures.new("RGB", (16, 16), colour).save(file, "jpeg", quality=95)
    return file.getvalue()


def better_and_worse(out):
    """Mean red of the better and of the worse picture of each row, by caption's order."""
    rows = Rows(out, "preferences")
    batch = rows[range(len(rows))]
    return [tuple((x[:, 0].mean((1, 2)) > 0).tolist()) for x in (batch.x0, batch.other)]


def test_a_table_in_pick_a_pic_s_form_needs_no_flag(tmp_path):
    """Two votes, a tie, a missing vote, a missing picture and a broken one."""
    rows = {
        "jpg_0": [jpg("red"), jpg("black"), jpg("red"), jpg("red"), jpg("red"), b"no"]
        + [jpg("red")] * 4,
        "jpg_1": [jpg("black"), jpg("red"), jpg("black"), jpg("black"), None, jpg("black")]
        + [jpg("black")] * 4,
        "label_0": [1.0, 0.0, 0.5, None, 1.0, 1.0] + [1.0] * 4,
        "label_1": [0.0, 1.0, 0.5, None, 0.0, 0.0] + [0.0] * 4,
        "caption": ["a red circle"] * 10,
    }
    Dataset.from_dict(rows).to_parquet(tmp_path / "pick.parquet")
    said = prepare.run(config(tmp_path / "pick.parquet", tmp_path / "out"))
    assert better_and_worse(tmp_path / "out") == [(True,) * 6, (False,) * 6]
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "tie" in report and "no vote" in report and "no worse picture" in report
    assert "does not decode" in report and "4" in said


def test_a_csv_of_votes_is_added_up(tmp_path):
    """Three votes on one pair, two of them shown the other way around; a tie by two votes; a
    tie by name; a file that is not there.
    """
    for ink in ("red", "black"):
        Pictures.new("RGB", (16, 16), ink).save(tmp_path / f"{ink}.png")
    lines = ["image_0,image_1,label_0,prompt", "red.png,black.png,0,a red circle"]
    lines += ["black.png,red.png,0,a red circle", "black.png,red.png,0,a red circle"]
    lines += ["red.png,black.png,1,a blue square", "black.png,red.png,1,a blue square"]
    lines += ["red.png,black.png,tie,a green circle", "red.png,gone.png,1,a red square"]
    lines += [f"red.png,black.png,1.0,a {ink} triangle" for ink in ("red", "blue", "green")]
    (tmp_path / "votes.csv").write_text("\n".join(lines))
    prepare.run(config(tmp_path / "votes.csv", tmp_path / "out"))
    assert better_and_worse(tmp_path / "out") == [(True,) * 4, (False,) * 4]
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "line 5" in report and "line 7" in report and "line 8" in report
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the columns a, b; of votes wanted image_0"):
        prepare.run(config(tmp_path / "odd.csv", tmp_path / "o"))


def test_two_folders_are_matched_by_name(tmp_path):
    more = [
        (f"{side}/{k}", ink, "png")
        for k in "de"
        for side, ink in (("good", "red"), ("bad", "black"))
    ]
    for name, ink, ending in (
        ("good/a", "red", "png"),
        ("bad/a", "black", "jpg"),
        ("good/b", "red", "png"),
        ("bad/c", "black", "png"),
        *more,
    ):
        file = tmp_path / f"{name}.{ending}"
        file.parent.mkdir(exist_ok=True)
        Pictures.new("RGB", (16, 16), ink).save(file)
        file.with_suffix(".txt").write_text("a red circle")
    said = prepare.Config(
        source=(str(tmp_path / "good"),),
        out=tmp_path / "out",
        family="shapes",
        tiny=True,
        worse=tmp_path / "bad",
    )
    prepare.run(said)
    assert better_and_worse(tmp_path / "out") == [(True,) * 3, (False,) * 3]
    report = (tmp_path / "out" / "report.txt").read_text()
    assert "no worse picture" in report and "no better picture" in report
    with pytest.raises(ValueError, match="the better pictures must be one folder too"):
        prepare.run(config(tmp_path / "votes.csv", tmp_path / "o", worse=tmp_path / "bad"))
