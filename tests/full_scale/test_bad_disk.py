"""A disk that changes prepared data: no row is lost or read as another, the file is named, and
the command that prepared them puts it right.
"""

from __future__ import annotations

import os
import shutil
from copy import copy as copied
from pathlib import Path

import datafolders as data
import numpy as np
import pytest
from harms import cut, empty, flip, overwrite
from logged import losses

from full_scale.data import digests, shards
from full_scale.data.rows import Rows, indices
from full_scale.out import manifest
from full_scale.train import open_engine

ARROW = "data-00000-of-00001.arrow"
SHARD = [f"shard-00001/{name}" for name in ("record.json", "state.json", "dataset_info.json")]
SMALL = ["info.json", "null.safetensors", "shard-00001/manifest.json", *SHARD]
"""What is read at every start."""
DO = "Run the same full_scale.prepare command again, which makes it anew, or copy it again"

pytestmark = pytest.mark.usefixtures("preparing")


@pytest.fixture
def copy(whole, tmp_path):
    """Five rows in three shards, to damage."""
    return Path(shutil.copytree(whole[1], tmp_path / "copy"))


def refusal(folder: Path) -> str:
    """Why these data are not opened: one line."""
    with pytest.raises(ValueError) as said:
        Rows(folder)
    assert "\n" not in str(said.value) and str(folder) in str(said.value)
    return str(said.value)


@pytest.mark.parametrize("name", [*SMALL, f"shard-00001/{ARROW}"])
def test_a_file_that_is_cut_empty_missing_or_overwritten_is_named(name, copy):
    path = copy / name
    whole = path.read_bytes()
    for harm in (cut, empty, Path.unlink, overwrite):
        if harm is overwrite and name.endswith(ARROW):
            continue  # seen when its rows are read
        harm(path)
        said = refusal(copy)
        if (name, harm) == ("info.json", Path.unlink):
            assert said.endswith("not finished: run the same full_scale.prepare command again")
        else:
            own = "shard-00001: " if name.startswith("shard") and "manifest" not in name else ""
            assert f"damaged: {own}{path.name if own else name} " in said and DO in said
        path.write_bytes(whole)
    assert len(Rows(copy)) == 5


def test_the_same_command_makes_anew_what_is_damaged_and_nothing_else(whole, copy, capsys):
    """Everything at once, one harm each; what is whole is not written again."""
    want = data.contents(copy)
    kept = {path: path.stat().st_mtime_ns for path in copy.glob("shard-0000[02]/*")}
    harms = (cut, empty, Path.unlink, overwrite)
    names = [*SMALL, "plan.json", "report.json", "report.txt", f"shard-00001/{ARROW}"]
    for n, name in enumerate([*names[:2], *names[6:9], names[-1], manifest.NAME]):
        harms[n % 4](copy / name)
    data.prepared(whole[0], copy)
    assert data.contents(copy) == want and Rows(copy).captions([2, 3]) == [
        "two lines",
        "a blue square",
    ]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    said = capsys.readouterr().out
    assert f"shard-00001 is made anew: {ARROW} " in said and said.count("is made anew") == 1
    for names in ([SHARD[0]], SHARD[1:], [f"shard-0000{n}/{ARROW}" for n in (0, 2)]):
        for name in names:
            overwrite(copy / name)
        data.prepared(whole[0], copy)
        assert data.contents(copy) == want
    before = (copy / "info.json").stat().st_mtime_ns
    data.prepared(whole[0], copy)
    assert (copy / "info.json").stat().st_mtime_ns == before


def test_whose_plan_is_lost_is_still_known_by_its_shards(whole, copy):
    for harm in (cut, empty, Path.unlink):
        harm(copy / "plan.json")
        before = data.contents(copy)
        with pytest.raises(
            ValueError, match="begun with something else: shard-00000, .*plan.json"
        ):
            data.prepared(whole[0], copy, batch=3)
        assert data.contents(copy) == before
        data.prepared(whole[0], copy)
        assert (copy / "plan.json").read_bytes() == (whole[1] / "plan.json").read_bytes()


@pytest.mark.parametrize("column", ["latent", "text", "caption"])
def test_a_changed_row_is_named_when_it_is_read(column, copy):
    """Its file has the size that it had, and all other rows are read as before."""
    rows = Rows(copy)
    value = rows.table[[3]][column][0].as_py()
    one = value.encode() if isinstance(value, str) else np.array(value, "float32").tobytes()
    want = rows[[0, 1, 2, 4]]
    del rows
    flip(copy / "shard-00001" / ARROW, one)
    rows = Rows(copy)
    assert (rows[[0, 1, 2, 4]].x0 == want.x0).all()
    for read in (lambda: rows[[4, 3]], lambda: rows.captions([3])):
        with pytest.raises(ValueError, match="shard-00001: row 3 is not what was written. Run"):
            read()


def test_texts_that_point_anywhere_are_not_followed(copy):
    """Arrow would read there."""
    path, ends = copy / "shard-00001" / ARROW, np.array([0, 9, 22], "int32")
    far = ends + np.array([0, 2**24, 0], "int32")
    path.write_bytes(path.read_bytes().replace(ends.tobytes(), far.tobytes()))
    with pytest.raises(ValueError, match="shard-00001: .*offset"):
        Rows(copy).captions([3])


def test_data_of_earlier_versions_are_refused_and_made_anew(whole, copy):
    """They have neither manifests nor sums."""
    want = data.contents(copy)
    for path in copy.rglob(manifest.NAME):
        path.unlink()
    assert "by an earlier version, which wrote no digests: run the same" in refusal(copy)
    data.prepared(whole[0], copy)
    assert data.contents(copy) == want


def test_any_row_changes_the_stamp(copy):
    """Whichever it is, and whatever of it; and so does the empty condition."""
    stamp = Rows(copy).stamp
    for row in range(5):
        table = Rows(copy).parts[row // 2].with_format("numpy")[:]
        columns = {name: list(v) if v.dtype.kind in "OU" else v for name, v in table.items()}
        record = shards.records(copy)[row // 2]
        column = ("latent", "caption", "text")[row % 3]
        was = copied(columns[column][row % 2])
        columns[column][row % 2] = was + "s" if column == "caption" else was + 1
        shards.write(copy, row // 2, columns, record)
        digests.close(copy, shards.folders(copy))
        assert Rows(copy).stamp != stamp
        columns[column][row % 2] = was
        shards.write(copy, row // 2, columns, record)
        digests.close(copy, shards.folders(copy))
        assert Rows(copy).stamp == stamp
    overwrite(copy / "null.safetensors")
    digests.close(copy, shards.folders(copy))
    assert Rows(copy).stamp != stamp


def test_rows_that_are_rewritten_in_place_are_others(whole, tmp_path):
    """The source has the same files, of which all but a few have another content."""
    source = Path(shutil.copytree(whole[0], tmp_path / "pictures"))
    for key in "c":
        (source / f"{key}.txt").write_text("a tree")
        (source / f"{key}.png").write_bytes(data.png(data.picture(9)))
    made = Rows(data.prepared(source, tmp_path / "again"))
    assert len(made) == len(Rows(whole[1])) and made.stamp != Rows(whole[1]).stamp


def test_everything_is_on_the_disk_before_its_name(whole, tmp_path, monkeypatch):
    """A shard's files, its manifest and its folder, and what lies beside the shards."""
    done, fsync, replace = [], os.fsync, os.replace
    named = lambda number: Path(os.readlink(f"/proc/self/fd/{number}")).name
    monkeypatch.setattr(os, "fsync", lambda number: done.append(named(number)) or fsync(number))
    moved = lambda a, b: done.append(f"> {Path(b).name}") or replace(a, b)
    monkeypatch.setattr(os, "replace", moved)
    monkeypatch.setattr(Path, "replace", moved)
    data.prepared(whole[0], tmp_path / "out", shard=5)
    shard = done[: done.index("> shard-00000")]
    assert {path.name for path in (tmp_path / "out" / "shard-00000").iterdir()} <= {*shard}
    assert shard[-2:] == [manifest.NAME, ".half-shard-00000"]
    assert done[len(shard) + 1] == "out" and done[-2:] == [manifest.NAME, "out"]
    for name in ("null.safetensors", "info.json", "report.json", "report.txt", "plan.json"):
        assert done[done.index(f"> {name}") - 1] == f".half-{name}"


def test_a_run_stops_at_a_changed_row_and_goes_on_when_it_is_mended(
    small, shapes_data, tmp_path, processes
):
    """With the numbers that it would have had: nothing was learnt from the row."""
    copy = Path(shutil.copytree(shapes_data, tmp_path / "copy"))
    flags = ["--steps", "3", "--save-every", "1", "--data", str(copy)]
    s = small(*flags)
    open_engine(s, processes).run(None)
    want, s = losses(s.out), small(*flags, out="other")
    bad = indices(s.seed, 2, 8, 40)[0]
    file = copy / "shard-00000" / ARROW
    value, whole = Rows(copy).table[[bad]]["latent"][0].as_py(), file.read_bytes()
    flip(file, np.array(value, "float32").tobytes())
    engine = open_engine(s, processes)
    with pytest.raises(ValueError, match=f"shard-00000: row {bad} is not what was written"):
        engine.run(None)
    engine.checkpoints.finish()
    file.write_bytes(whole)
    engine = open_engine(s, processes)
    assert engine.step == 2
    engine.run(None)
    assert losses(s.out) == want
