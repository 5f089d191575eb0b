"""The reader finds what the renderer drew, and the scores see what is wrong with a picture."""

import pytest
import torch
from truth import mutant

from dlib import Draw
from toy_data import shape_reader
from toy_data.shape_captions import draw_codes, parse, say
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked, scores, shapes_floor, shapes_frechet
from toy_data.shapes import INKS, PAPER, arrange, pictures, render


def codes(*text):
    return torch.tensor([parse(caption) for caption in text])


def accuracy(x, wanted):
    return shows(read(x), wanted).float().mean().item()


@pytest.fixture(scope="module")
def real():
    """Codes, scenes and pictures; pairs held out among them."""
    wanted = torch.cat([draw_codes(400, Draw(0)), draw_codes(100, Draw(1), held_out=True)])
    scene = arrange(wanted, Draw(2))
    return wanted, scene, render(scene)


def test_every_real_picture_is_read_as_drawn(real):
    wanted, scene, x = real
    reading = read(x)
    assert shows(reading, wanted).all()
    # the very scene, up to float32 sums of 768 squares
    assert reading.off.max() < 2e-3 and reading.ink.max() < 1e-5
    one = wanted[:, 0] == 0
    drawn = torch.stack([1 + scene.large[one, 0], scene.colour[one, 0], scene.shape[one, 0]], 1)
    assert torch.equal(reading.code[one, 1:4], drawn)
    assert {int(k) for k in reading.code[:, 0].unique()} == {0, 1, 3}


def test_reading_survives_noise_and_measures_it(real):
    wanted, _, x = real
    reading = read(x + 0.2 * Draw(3).normal(x))
    assert shows(reading, wanted).float().mean() > 0.98
    assert reading.off.mean().item() == pytest.approx(0.2, rel=0.02)


def test_a_thing_off_the_places_that_training_shows_is_read_too():
    wanted = codes("a large red circle", "a small blue square left of a large green triangle")
    centre = torch.tensor([[[3.5, 12.5], [8, 8]], [[2.5, 9.5], [12.5, 5.5]]])
    reading = read(render(arrange(wanted, Draw(0))._replace(centre=centre)))
    assert shows(reading, wanted).all() and reading.off.max() < 2e-3
    between = read(render(arrange(wanted, Draw(0))._replace(centre=centre + 0.5)))
    assert between.off.min() > 0.1


@pytest.mark.parametrize(
    "asked_for, drawn, same",
    [
        ("a red circle", "a large red circle", True),
        ("a red circle", "a small red circle", True),
        ("a small red circle", "a large red circle", False),
        ("a red circle", "a red square", False),
        ("a red circle", "a blue circle", False),
        ("a red circle", "a red circle above a red circle", False),
        ("a red circle above a blue square", "a blue square below a red circle", True),
        ("a red circle above a blue square", "a red circle below a blue square", False),
        ("a red circle left of a blue square", "a blue square right of a red circle", True),
        ("a red circle left of a blue square", "a red circle above a blue square", False),
        ("a red circle above a blue square", "a blue circle above a red square", False),
        (
            "a small red circle above a blue square",
            "a small blue square below a large red circle",
            False,
        ),
        (
            "a small red circle above a blue square",
            "a large blue square below a small red circle",
            True,
        ),
        (
            "a blue square right of a small red circle",
            "a small red circle left of a large blue square",
            True,
        ),
    ],
)
def test_shows_knows_what_a_caption_asks(asked_for, drawn, same):
    reading = read(pictures(codes(*[drawn] * 5), Draw(0)))
    assert shows(reading, codes(*[asked_for] * 5)).tolist() == [same] * 5


def test_wrong_pictures_are_seen(real):
    wanted, _, x = real
    two = wanted[:, 0] > 0
    assert accuracy(x.roll(1, 1), wanted) == 0  # other colours
    assert accuracy(x.roll(1, 0), wanted) < 0.05
    across = wanted[:, 0] >= 3
    differ = (wanted[:, 2:4] != wanted[:, 5:7]).any(1)
    assert accuracy(x[across & differ].flip(3), wanted[across & differ]) == 0  # left is right
    lone = x.clone()
    # the lower thing is gone, or the right one
    lone[(wanted[:, 0] > 0) & (wanted[:, 0] < 3), :, 8:] = 1
    lone[across, :, :, 8:] = 1
    assert accuracy(lone[two], wanted[two]) == 0
    assert (
        accuracy(torch.ones_like(x), wanted) < 0.05 and accuracy(Draw(0).normal(x), wanted) < 0.05
    )


def test_ink_is_the_distance_of_the_colour():
    x = pictures(codes(*["a large red square"] * 20), Draw(0))
    covered = ((x - INKS[0, :, None, None]).abs().sum(1, keepdim=True) < 1e-4).float()
    tinted = x + 0.3 * covered * torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    assert read(tinted).ink.mean().item() == pytest.approx(0.3 / 3**0.5, rel=1e-3)
    assert read(x).ink.max() < 1e-5


def test_frechet_sees_the_wrong_share_of_things_blur_and_noise():
    wanted = asked()
    floor, spread = shapes_floor(wanted)
    x = pictures(wanted, Draw(7))
    assert abs(shapes_frechet(x, wanted) - floor) < 6 * spread and spread < floor / 3
    small = wanted.clone()
    small[:, 1] = 1
    small[:, 4] = torch.where(wanted[:, 0] > 0, 1, 0)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    for worse in (
        pictures(small, Draw(7)),
        blurred,
        x + 0.1 * Draw(0).normal(x),
        x[:1].expand_as(x),
    ):
        assert shapes_frechet(worse, wanted) > 2 * floor
    assert scores(x, wanted)["accuracy"] == 1


def test_scores_are_taken_at_one_n_only():
    with pytest.raises(ValueError, match="10 pictures for 10 codes, wanted 512"):
        shapes_frechet(torch.zeros(10, 3, 16, 16), asked(10))
    with pytest.raises(ValueError, match=r"pictures of shape \(2, 1, 16, 16\)"):
        read(torch.zeros(2, 1, 16, 16))


@pytest.mark.parametrize(
    "function, old, new",
    [
        ("_best", "2 * along", "along"),
        ("_best", "INKS - PAPER", "INKS"),
        ("_best", "gain.flatten(1).max(1)", "gain.flatten(1).min(1)"),
        ("_read", "gains.argmax(1) == i", "gains.argmin(1) == i"),
        ("_read", "3 * k : 4", "0 * k : 4"),
        ("as_read", "wanted[turned, 0] -= 1", "pass"),
        ("as_read", "[0, 4, 5, 6, 1, 2, 3]", "[0, 1, 2, 3, 4, 5, 6]"),
        ("_region", "low + radius", "low + 1 + radius"),
    ],
)
def test_a_slip_in_the_reader_is_seen(function, old, new, real, monkeypatch):
    wanted, _, x = real
    original = getattr(shape_reader, function)
    broken = mutant(getattr(original, "__wrapped__", original), old, new)
    monkeypatch.setattr(shape_reader, function, broken)
    try:
        reading = shape_reader.read(x)
        assert not (shape_reader.shows(reading, wanted).all() and reading.off.max() < 2e-3)
    except (RuntimeError, IndexError):
        pass  # seen as well


def test_the_paper_is_white_and_captions_are_said():
    assert (
        PAPER.tolist() == [1, 1, 1]
        and say(tuple(read(pictures(codes("a small red circle"), Draw(0))).code[0].tolist()))
        == "a small red circle"
    )
