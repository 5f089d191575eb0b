"""What `sample` wrote is a source: pictures with captions, and pairs of noise and picture for
knowledge distillation.
"""

import json

import pytest
import torch
from PIL import Image

from dlib import CLEAN, sample
from full_scale import prepare
from full_scale import sample as sampling
from full_scale.data.rows import Rows
from full_scale.train import main as train
from toy_data import shapes_teacher

ASKED = ("a large red circle", "a small green square")


def walked(out, family="shapes", **more):
    how = dict(grid="sd_trailing", solver="ddim", steps=4, omega=0.0, n=2, seed=5, device="cpu")
    how |= dict(prompt=ASKED, family=family, tiny=True, out=out)
    return sampling.run(sampling.Config(**how | more))


def prepared(source, out, family="shapes", **more):
    return prepare.run(
        prepare.Config(source=(str(source),), out=out, family=family, tiny=True, **more)
    )


def test_walks_of_the_teacher_become_pairs_for_a_student(tmp_path, capsys):
    """From a row's noise the teacher's walk ends at the row's picture, up to the 8 bits and the
    scaling of a file; from the next row's noise it ends elsewhere.
    """
    settings = json.loads((walked(tmp_path / "walks") / "settings.json").read_text())
    said = prepared(tmp_path / "walks", tmp_path / "data")
    assert (
        "4 pictures of full_scale.sample, with the seeds of their noise"
        in capsys.readouterr().out
    )
    rows = Rows(tmp_path / "data", "pairs")
    assert "4 rows" in said and rows.captions([0, 3]) == list(ASKED)
    batch, teacher = rows[[0, 1, 2, 3]], shapes_teacher()
    levels = [teacher.schedule.at(t) if t > 0 else CLEAN for t in settings["times"]]
    end = lambda noise: sample(teacher, noise, levels, cond=batch.cond["text"]).clamp(-1, 1)
    off = lambda noise: (end(noise) - batch.x0).abs().flatten(1).mean(1)
    own, others = off(batch.noise), off(batch.noise.roll(1, 0))
    assert own.max() < 0.02 and (others / own).min() > 3
    words = "--method knowledge --family shapes --tiny --steps 1 --batch 4 --micro 4 --device cpu"
    train([*words.split(), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")])


@pytest.mark.parametrize(
    "sampled, prepared_as",
    [
        (dict(solver="lcm", grid="lcm"), {}),  # its steps drew noise of their own
        (dict(family="sd"), {}),  # another network's
        (dict(family="sd", width=48), dict(family="sd")),  # another shape
        (dict(family="sd"), dict(family="sd", size=48)),
    ],
)
def test_seeds_that_are_not_all_of_the_noise_make_no_pairs(
    sampled, prepared_as, tmp_path, capsys
):
    prepared(walked(tmp_path / "walks", **sampled), tmp_path / "data", **prepared_as)
    assert "source: 4 pictures of full_scale.sample\n" in capsys.readouterr().out
    assert Rows(tmp_path / "data", "pictures").holds == {"texts", "pictures"}
    with pytest.raises(ValueError, match="prepare what full_scale.sample wrote, for this family"):
        Rows(tmp_path / "data", "pairs").check(None, 4)


def test_the_networks_own_size_may_be_typed(tmp_path):
    prepared(walked(tmp_path / "walks", width=16, height=16), tmp_path / "data", size=16)
    assert "pairs" in Rows(tmp_path / "data", "pairs").holds


def test_two_folders_of_sample_are_votes(tmp_path):
    """Pictures of the same number, and not the contact sheet."""
    better, worse = walked(tmp_path / "a"), walked(tmp_path / "b", seed=50)
    assert "4 rows" in prepared(better, tmp_path / "data", worse=worse)
    assert "no better picture" not in (tmp_path / "data" / "report.txt").read_text()
    rows = Rows(tmp_path / "data", "preferences")
    assert rows.holds == {"texts", "pictures", "preferences"}
    for folder, found in ((better, rows[[1]].x0), (worse, rows[[1]].other)):
        prepared(folder, tmp_path / f"data of {folder.name}")
        alone = Rows(tmp_path / f"data of {folder.name}", "pictures")
        assert torch.equal(alone[[1]].x0, found)


def test_hidden_pictures_and_fields_are_named(tmp_path):
    folder = walked(tmp_path / "walks")
    with pytest.raises(
        ValueError, match="--caption-column text: full_scale.sample wrote .*leave"
    ):
        prepared(folder, tmp_path / "named", caption_column="text")
    settings = json.loads((folder / "settings.json").read_text())
    settings["pictures"][1]["flagged"] = True
    (folder / "settings.json").write_text(json.dumps(settings))
    assert "3 rows" in prepared(folder, tmp_path / "data")
    assert "the safety checker hid the picture" in (tmp_path / "data" / "report.txt").read_text()
    assert Rows(tmp_path / "data", "pairs").table["seed"].to_pylist() == [5, 7, 8]


@pytest.mark.parametrize("theirs", ['{"pictures": 3}', '{"pictures": [{"file": "a.png"}]}', "["])
def test_another_programs_settings_leave_a_folder_of_pictures(theirs, tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (16, 16), "red").save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "a.txt").write_text("a red circle")
    (tmp_path / "pictures" / "settings.json").write_text(theirs)
    assert "1 row" in prepared(tmp_path / "pictures", tmp_path / "data")
    batch = Rows(tmp_path / "data", "pictures")[[0]]
    assert torch.equal(batch.x0[0, :, 0, 0], torch.tensor([1.0, -1.0, -1.0]))
