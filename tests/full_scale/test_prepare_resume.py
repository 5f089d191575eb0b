"""Preparing data that is interrupted: killed, out of disk, begun with something else, or
started twice.
"""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datafolders as data
import datasets
import pytest
from safetensors import SafetensorError

from full_scale import prepare
from full_scale.data import shards
from full_scale.families import open_family, saving

ROOT = Path(prepare.__file__).parents[1]

pytestmark = pytest.mark.usefixtures("preparing")


def test_kill_9_and_the_same_command_again_give_the_same_bytes(tmp_path, monkeypatch, capsys):
    """As a user types it, killed by the system's own signal once the first shard is there; a
    second run finishes.
    """
    data.beside(tmp_path / "p", {f"{k:02d}": f"picture {k}" for k in range(40)})
    (tmp_path / "p" / "07.png").write_bytes(b"rubbish")
    words = [
        sys.executable,
        "-m",
        "full_scale.prepare",
        "--tiny",
        "--source",
        str(tmp_path / "p"),
        "--size",
        "64",
        "--shard",
        "1",
        "--batch",
        "2",
        "--out",
    ]
    run = subprocess.Popen(
        [*words, tmp_path / "killed"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while run.poll() is None and not (tmp_path / "killed" / "shard-00001").exists():
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.wait()
    left = len(shards.folders(tmp_path / "killed"))
    assert 2 <= left < 40 and not (tmp_path / "killed" / "info.json").exists()
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("shard-0000[01]/*")
    }
    # this run opens its own model, as the first did
    monkeypatch.setattr(prepare, "open_family", open_family)
    monkeypatch.setattr(sys, "argv", [*words[2:], str(tmp_path / "killed")])
    prepare.main()
    said = capsys.readouterr()
    assert (
        "39 rows of latents and texts in 40 shards. BAD ROWS: 1 of 40" in said.out
        and "| 40/40" in said.err
    )
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    config = prepare.Config(
        source=(str(tmp_path / "p"),),
        out=tmp_path / "whole",
        tiny=True,
        size=64,
        shard=1,
        batch=2,
    )
    prepare.run(config)
    assert data.contents(tmp_path / "killed") == data.contents(tmp_path / "whole")


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_resuming_after_any_shard_gives_the_same_bytes(lost, tmp_path):
    """With bad rows, a duplicate whose first is in an earlier shard, and rubbish left by a
    process that died in mid-write.
    """
    path = data.spoiled(tmp_path / "p")
    for name in ("x0.png", "x3.txt", "x4.txt"):
        (path / name).unlink()
    want = data.contents(data.prepared(path, tmp_path / "whole", shard=5))
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    for name in ("info.json", "null.safetensors", "report.json", "report.txt"):
        (tmp_path / "out" / name).unlink()
    for number in range(lost, 3):
        shutil.rmtree(tmp_path / "out" / f"shard-{number:05d}")
    half = tmp_path / "out" / f".half-shard-{lost:05d}"
    half.mkdir()
    (half / "data-00000-of-00001.arrow").write_bytes(b"torn")
    data.prepared(path, tmp_path / "out", shard=5)
    assert data.contents(tmp_path / "out") == want


@pytest.mark.parametrize("make", [data.imagefolder, data.saved, data.parquet, data.tars])
def test_every_source_resumes_from_its_middle(make, tmp_path):
    source = make(tmp_path / "source")
    want = data.contents(data.prepared(source, tmp_path / "out"))
    (tmp_path / "out" / "info.json").unlink()
    shutil.rmtree(tmp_path / "out" / "shard-00001")
    shutil.rmtree(tmp_path / "out" / "shard-00002")
    assert data.contents(data.prepared(source, tmp_path / "out")) == want


@pytest.mark.parametrize("where", ["save_to_disk", "record.json", "info.json", "null"])
def test_a_full_disk_is_said_and_finished_shards_survive(where, whole, tmp_path, monkeypatch):
    real_save, real_json = datasets.Dataset.save_to_disk, shards.write_json

    def full():
        if where == "info.json" or len(shards.folders(tmp_path / "out")) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    def save(self, path, **more):
        real_save(self, path, **more)
        full()

    def refuse(values, path, metadata):
        raise SafetensorError("Error while serializing: I/O error: No space (os error 28)")

    def write(path, value):
        real_json(path, value)
        if path.name == where:
            path.unlink()
            full()
            real_json(path, value)

    with monkeypatch.context() as patch:
        if where == "null":
            patch.setattr(saving, "save_file", refuse)
        if where == "save_to_disk":
            patch.setattr(datasets.Dataset, "save_to_disk", save)
        patch.setattr(shards, "write_json", write)
        with pytest.raises(
            ValueError,
            match=r"no space left on the disk of .*out.* \((\d+\.\d MB wanted, )?\d+ MB free\)\. "
            "Finished shards kept: [13]; make room, then run the same command again",
        ) as said:
            data.prepared(whole[0], tmp_path / "out")
        assert ("wanted" in str(said.value)) == (where != "info.json")
    assert (
        not list((tmp_path / "out").glob(".half-shard*"))
        and not (tmp_path / "out" / "info.json").exists()
    )
    assert (tmp_path / "out" / "shard-00000" / "record.json").is_file()
    data.prepared(whole[0], tmp_path / "out")
    got, want = data.contents(tmp_path / "out"), data.contents(whole[1])
    assert got == want


def test_other_settings_or_another_source_do_not_mix_into_a_folder(whole, tmp_path):
    out = Path(shutil.copytree(whole[1], tmp_path / "out"))
    before = data.contents(out)
    for change, match in (
        ({"batch": 3}, "batch: 2 then, 3 now"),
        ({"size": 128}, "shape: .*size: 64 then, 128 now"),
        ({"store": "float16"}, "numbers: float32 then"),
    ):
        with pytest.raises(
            ValueError,
            match=f"begun with something else .*{match}.*Run it as then, or pass another --out",
        ):
            data.prepared(whole[0], out, **change)
    (tmp_path / "more").mkdir()
    shutil.copytree(whole[0], tmp_path / "more", dirs_exist_ok=True)
    (tmp_path / "more" / "b.txt").rename(tmp_path / "more" / "z.txt")
    with pytest.raises(ValueError, match="source_stamp: "):
        data.prepared("more", out)
    assert data.contents(out) == before


def test_two_at_once_are_refused(whole, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        shards.locked(tmp_path / "out"),
        pytest.raises(ValueError, match="another process is preparing data there"),
    ):
        data.prepared(whole[0], tmp_path / "out")


def test_progress_counts_rows_and_begins_with_finished_shards(whole, tmp_path, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **more):
            self.total, self.n, self.steps = total, 0, []
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, n):
            self.n += n
            self.steps.append(n)

        def set_postfix(self, bad):
            self.bad = bad

    monkeypatch.setattr(prepare, "tqdm", Bar)
    out = Path(shutil.copytree(whole[1], tmp_path / "out"))
    (out / "info.json").unlink()
    shutil.rmtree(out / "shard-00001")
    data.prepared(whole[0], out)
    (bar,) = bars
    assert (bar.total, bar.n, bar.bad) == (5, 5, 0) and bar.steps[0] == 2  # a finished shard


def test_a_run_that_stops_half_way_closes_the_rows_that_it_reads_ahead(
    whole, tmp_path, monkeypatch
):
    """At once, not when they are collected, which may be while a thread starts."""
    ended, kept = [], []

    def watched(work, items, depth):
        try:
            yield from map(work, items)
        finally:
            ended.append(True)

    def begun(*given):
        kept.append(watched(*given))
        return kept[-1]

    def fails(*given):
        next(iter(given[1]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "ahead", begun)
    monkeypatch.setattr(prepare, "one_shard", fails)
    with pytest.raises(ValueError, match="no space left"):
        data.prepared(whole[0], tmp_path / "out")
    assert ended == [True]
