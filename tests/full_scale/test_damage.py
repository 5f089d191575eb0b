"""A disk that changes what it was given: checkpoints and exports are read whole or not at all,
and nothing that is damaged is deleted.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from harms import cut, empty, overwrite
from logged import losses

import full_scale.sample as sampling
from full_scale import export, launch
from full_scale.out import manifest
from full_scale.run import checkpoint
from full_scale.run.student import chosen, open_start
from full_scale.sampling.request import Config
from full_scale.train import open_engine

SHARD = "__0_0.distcp"


@pytest.fixture(scope="module")
def one():
    """This process, alone."""
    yield launch.start("cpu")
    launch.stop()


@pytest.fixture(scope="module")
def kept(one, tmp_path_factory):
    """A folder with the checkpoints of the steps 1, 2 and 3 of four numbers; never changed."""
    out = tmp_path_factory.mktemp("kept")
    checkpoints = checkpoint.Checkpoints(out, 9, one)
    for step in (1, 2, 3):
        checkpoints.save(step, {"w": torch.full((4,), float(step))}, {}, wait=True)
    return out


@pytest.fixture
def out(kept, tmp_path):
    """A copy to damage."""
    return shutil.copytree(kept, tmp_path / "out")


def other(path: Path) -> None:
    """Well-formed JSON that says something else."""
    path.write_text('{"step": 3}' if path.name == "run.json" else '{"files": {}}')


@pytest.mark.parametrize("harm", [cut, empty, Path.unlink, overwrite])
@pytest.mark.parametrize("name", [SHARD, ".metadata", "run.json", manifest.NAME])
def test_the_newest_whole_checkpoint_is_used_and_the_damaged_one_kept(
    name, harm, out, one, capsys
):
    harm(out / "step-00000003" / name)
    assert chosen(out, None).name == "step-00000002"  # as export reads: nothing moves
    said = capsys.readouterr().err
    assert f"step-00000003 is damaged: {name} " in said and "step-00000002 is read" in said
    assert checkpoint.Checkpoints(out, 9, one).newest().name == "step-00000002"
    said = capsys.readouterr().out
    assert f"is damaged: {name} " in said and "kept as step-00000003.damaged" in said
    assert (out / "step-00000003.damaged").is_dir() and not (out / "step-00000003").exists()
    with pytest.raises(ValueError, match="--step 3: .* checkpoints of the steps 1, 2"):
        chosen(out, 3)


@pytest.mark.parametrize("name", ["run.json", manifest.NAME])
def test_well_formed_text_that_says_something_else_is_damage_too(name, out):
    other(out / "step-00000003" / name)
    found = checkpoint.newest_whole(out)
    assert found.path.name == "step-00000002" and name in "".join(found.damaged.values())


def test_what_is_wrong_is_named_with_sizes_and_digests(out):
    folder = out / "step-00000003"
    size = (folder / SHARD).stat().st_size
    overwrite(folder / "run.json")
    cut(folder / SHARD)
    said = manifest.fault(folder)
    assert f"{SHARD} has {size // 2} bytes, wanted {size}" in said
    wanted = json.loads((folder / manifest.NAME).read_text())["files"]["run.json"]["sha256"]
    assert "run.json has the digest " in said and f"wanted {wanted[:8]}…" in said


def test_several_are_put_aside_and_a_name_that_is_taken_stays(out, one):
    (out / "step-00000003.damaged").mkdir()
    for step in (2, 3):
        empty(out / f"step-{step:08d}" / SHARD)
    assert checkpoint.Checkpoints(out, 9, one).newest().name == "step-00000001"
    assert sorted(path.name for path in out.iterdir()) == [
        "step-00000001",
        "step-00000002.damaged",
        "step-00000003.damaged",
        "step-00000003.damaged-2",
    ]


def test_a_run_is_exported_before_it_is_sampled(kept):
    """So that one rule says which checkpoint is read."""
    with pytest.raises(ValueError, match="is a training run: .* python -m full_scale.export"):
        sampling.run(Config(prompt=("a cat",), family="shapes", weights=str(kept)))


def test_none_whole_is_one_line_and_nothing_moves(out, one):
    for step in (1, 2, 3):
        cut(out / f"step-{step:08d}" / "run.json")
    for read in (checkpoint.Checkpoints(out, 9, one).newest, lambda: chosen(out, None)):
        with pytest.raises(ValueError, match="no checkpoint that is whole .*another --out") as e:
            read()
        assert "\n" not in str(e.value) and len(checkpoint.complete(out)) == 3


def test_a_checkpoint_that_is_put_away_while_it_is_read_is_not_called_damaged(out, monkeypatch):
    """A run that goes on keeps its last ones only."""
    fault = manifest.fault

    def late(path):
        if path.name == "step-00000003":
            shutil.rmtree(path)
        return fault(path)

    monkeypatch.setattr(manifest, "fault", late)
    assert checkpoint.newest_whole(out) == (out / "step-00000002", {})


def test_files_and_folders_are_on_the_disk_before_the_name(tmp_path, one, monkeypatch):
    """Every file of the checkpoint, its folder, then the rename, then the folder of the run."""
    done = []
    fsync, replace = os.fsync, os.replace
    named = lambda number: Path(os.readlink(f"/proc/self/fd/{number}")).name
    monkeypatch.setattr(os, "fsync", lambda number: done.append(named(number)) or fsync(number))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append("renamed") or replace(a, b))
    run = tmp_path / "run"
    checkpoint.Checkpoints(run, 1, one).save(1, {"w": torch.ones(2)}, {}, wait=True)
    before, after = done[: done.index("renamed")], done[done.index("renamed") + 1 :]
    files = {path.name for path in (run / "step-00000001").iterdir()}
    assert files - {".metadata"} | {".metadata.tmp", "step-00000001.part"} == set(before)
    assert before[-2:] == [manifest.NAME, "step-00000001.part"] and after == ["run"]


def test_a_run_goes_on_from_the_whole_one_with_the_numbers_it_would_have_had(
    settings, shapes_data, one
):
    """And its export and a run that starts from it are those of the whole one."""
    shapes = ["--family", "shapes", "--data", str(shapes_data), "--save-every", "1"]
    s = settings(*shapes, "--steps", "3", "--keep", "3")
    open_engine(s, one).run(None)
    whole = losses(s.out)
    overwrite(s.out / "step-00000003" / SHARD)
    with pytest.raises(ValueError, match="--step 3: .* is damaged: __0_0.distcp has the digest"):
        export.run(export.Export(s.out, step=3))
    made = export.run(export.Export(s.out))
    assert json.loads((made / "settings.json").read_text())["step"] == 2
    engine = open_engine(s, one)
    assert engine.step == 2
    engine.run(None)
    assert losses(s.out) == whole
    for harm in (overwrite, cut, Path.unlink):
        shutil.rmtree(s.out / "copy", ignore_errors=True)
        folder = shutil.copytree(made, s.out / "copy")
        (weights,) = folder.glob("*.safetensors")
        harm(weights)
        with pytest.raises(ValueError, match=f"--weights .*copy is damaged: {weights.name} "):
            asked = Config(prompt=("a red circle",), family="shapes", weights=str(folder))
            sampling.run(asked)
        with pytest.raises(ValueError, match="is damaged"):
            open_start("shapes", str(folder), torch.device("cpu"))
