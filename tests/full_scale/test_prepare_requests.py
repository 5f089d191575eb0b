"""What `full_scale.prepare` answers to what cannot be done: one message that says what to
type.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import datafolders as data
import datasets
import pytest

from full_scale import prepare
from full_scale.sources import tables
from full_scale.families import open_family

pytestmark = pytest.mark.usefixtures("preparing")


def typed(monkeypatch, capsys, *words) -> str:
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, words)])
    with pytest.raises(SystemExit) as answer:
        prepare.main()
    # a text as code: Python prints it and exits with status 1
    return f"{answer.value.code}\n{capsys.readouterr().err}"


@pytest.mark.parametrize(
    "words, match",
    [
        (["--source", "p"], "neither --weights nor --tiny given: pass exactly one"),
        (["--source", "p", "--tiny", "--weights", "w"], "both --weights and --tiny given"),
        (["--source", "nowhere.d", "--tiny"], "nowhere.d does not exist. A source is one of"),
        (["--source", "p", "p", "--tiny"], "several at once can only be .tar or .parquet files"),
        (["--source", "t/gone.tar", "--tiny"], "t/gone.tar"),
        (["--source", "t/{0..1}.tar", "--tiny"], "t/0.tar, t/1.tar do not exist"),
        (["--source", "empty", "--tiny"], "folder with 0 pictures, so nothing to prepare"),
        (["--source", "p/a.png", "--tiny"], "p/a.png is a .png file. A source is one of"),
        (["--source", "bad.parquet", "--tiny"], "bad.parquet: not readable as parquet"),
        (
            ["--source", "p", "--tiny", "--size", "63"],
            "wanted positive multiples of 8; this network's own size is 128",
        ),
        (["--source", "p", "--tiny", "--size", "0"], "--size 0"),
        (["--source", "p", "--tiny", "--batch", "0"], "--batch 0: wanted at least 1"),
        (["--source", "p", "--tiny", "--shard", "0"], "--shard 0"),
        (
            ["--source", "p", "--tiny", "--family", "sd4"],
            "--family sd4: no such family; there are sd, ",
        ),
        (["--source", "p", "--tiny", "--device", "gpu"], "--device gpu"),
        (
            ["--source", "p", "--tiny", "--out", "p"],
            "--out p exists and holds something else; nothing was overwritten. Pass --out p-001",
        ),
        (["--source", "p", "--tiny", "--out", "bad.parquet/x"], "bad.parquet"),
        (
            ["--source", "p", "--weights", "missing/x/y"],
            "missing/x/y: no such folder here, and not a hub id",
        ),
        (["--sauce", "p"], "--sauce"),
    ],
)
def test_bad_requests_get_one_message(words, match, whole, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "open_family", open_family)
    shutil.copytree(whole[0], "p")
    Path("empty").mkdir()
    Path("bad.parquet").write_text("no")
    said = typed(monkeypatch, capsys, *words, *([] if "--out" in words else ["--out", "out"]))
    assert match in said and "Traceback" not in said and not Path("out").exists()


def test_a_hub_that_does_not_answer_says_how_to_download(monkeypatch, tmp_path):
    def absent(name, split):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", absent)
    with pytest.raises(
        ValueError,
        match="no such folder here, and the hub gave no dataset.*offline\nOn a machine with a "
        "network: hf download someone/pictures --repo-type dataset",
    ):
        data.prepared("someone/pictures", tmp_path / "out")


def test_columns_are_asked_for_when_types_do_not_tell(tmp_path):
    table = data.table().add_column("mask", [None] * 5).cast_column("mask", datasets.Image())
    with pytest.raises(
        ValueError, match="2 columns of images: pass --image-column, one of image, mask"
    ):
        tables.from_table(table, "")
    assert tables.from_table(table, "", tables.Columns("image")).pictures
    for given in (("x", None), (None, "x")):
        with pytest.raises(
            ValueError, match="-column x: no such column; there are image, text, score"
        ):
            tables.from_table(data.table(), "", tables.Columns(*given))
    with pytest.raises(
        ValueError, match="holds the splits a, b and no train: pass --source .*d/a"
    ):
        datasets.DatasetDict(a=table, b=table).save_to_disk(tmp_path / "d")
        tables.saved(tmp_path / "d")
