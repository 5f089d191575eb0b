"""A student that really learns, through the whole path: pictures on disk → prepare → train →
export → open → sample → score.
"""

import pytest
import torch

from dlib import SOLVERS, Draw, frozen, levels, sample
from full_scale import export, prepare
from full_scale.families import open_family
from full_scale.run.settings import read
from full_scale.train import train
from toy_data.shape_captions import say
from toy_data.shape_scores import asked, draw_shapes, scores
from toy_data.shapes import shapes_teacher, write_folder

OMEGA = 4.0


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The exported student of 120 steps, opened as any family's weights."""
    root = tmp_path_factory.mktemp("learns")
    write_folder(root / "pictures", 1000, seed=0)
    prepare.run(
        prepare.Config(
            source=(str(root / "pictures"),),
            out=root / "data",
            family="shapes",
            tiny=True,
            batch=64,
        )
    )
    train(
        read(
            [
                "lcm_shapes",
                "--data",
                str(root / "data"),
                "--out",
                str(root / "run"),
                "--steps",
                "120",
                "--show-every",
                "120",
                "--device",
                "cpu",
            ]
        )
    )
    assert (root / "run" / "pictures" / "samples-00000120.png").is_file()
    return open_family(
        "shapes", str(export.run(export.Export(root / "run"))), torch.device("cpu")
    )


@torch.no_grad()
def test_four_steps_of_the_student_beat_four_of_its_guided_teacher(student):
    codes, model = asked(), frozen(student.denoiser())
    cond = student.encode_texts([say(tuple(code)) for code in codes.tolist()])
    walk = levels(model.schedule, 4, "lcm", end="clean")
    x = sample(
        model, Draw(0).normal((len(codes), 3, 16, 16)), walk, SOLVERS["lcm"], cond, Draw(1)
    )
    ours, theirs = scores(x, codes), scores(draw_shapes(shapes_teacher(), codes, OMEGA, 4), codes)
    # four guided calls of DDIM are eight evaluations; the student has guidance built in and needs
    # four
    # the margin: a third less; a student that did not learn is many times worse
    assert ours["frechet"] < 0.67 * theirs["frechet"]
    assert ours["off"] < theirs["off"] and ours["ink"] < theirs["ink"]
    assert ours["accuracy"] > 0.35  # as the caption says: guessing would give a few per cent
