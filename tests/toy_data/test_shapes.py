"""Captioned shapes: pictures are what their captions say, by measurements of their own and not
by the reader's templates.
"""

import doctest
import importlib
import json

import pytest
import torch
from PIL import Image

from dlib import Draw
from toy_data.shape_captions import COLOURS, NULL_TOKENS, captions, draw_codes, is_held_out, parse
from toy_data.shapes import (
    INKS,
    PAPER,
    RADII,
    arrange,
    caption_batches,
    captioned,
    cover,
    pictures,
    shape_batches,
    to_uint8,
    write_folder,
)


def codes(*text):
    return torch.tensor([parse(caption) for caption in text])


def ink(x):
    """(n, 16, 16): how far a pixel is from paper."""
    return (x - PAPER[:, None, None]).abs().sum(1)


def middle(mask):
    """Centre of gravity (n, 2): right and down."""
    at = torch.arange(16) + 0.5
    total = mask.sum((1, 2))
    return torch.stack([(mask.sum(1) * at).sum(1), (mask.sum(2) * at).sum(1)], 1) / total[:, None]


def test_pictures_are_colours_on_white_paper():
    x, text = captioned(200, seed=0)
    assert x.shape == (200, 3, 16, 16) and x.dtype == torch.float32 and len(text) == 200
    assert x.min() >= -1 and x.max() == 1
    assert ((x == 1).all(1).flatten(1).float().mean(1) > 0.3).all()
    pixels = x.permute(0, 2, 3, 1).reshape(-1, 3)
    flat = torch.cat([INKS, PAPER[None]])
    # every pixel is paper, one ink, or between the two: no mixture of two inks
    share = torch.einsum("pc,kc->pk", pixels - PAPER, INKS - PAPER) / (INKS - PAPER).square().sum(
        1
    )
    best = (pixels[:, None] - PAPER - share[..., None] * (INKS - PAPER)).abs().sum(2).amin(1)
    assert best.max() < 1e-5
    assert (torch.cdist(pixels, flat).amin(1) < 1e-6).float().mean() > 0.8


@pytest.mark.parametrize("shape, area", [("circle", 3.14159), ("square", 4.0), ("triangle", 2.0)])
@pytest.mark.parametrize("size, radius", [("small", 2.5), ("large", 3.5)])
def test_a_shape_has_its_area_and_its_colour(shape, area, size, radius):
    for colour, rgb in zip(COLOURS, INKS):
        x = pictures(codes(*[f"a {size} {colour} {shape}"] * 50), Draw(1))
        covered = ink(x).sum((1, 2)) / (rgb - PAPER).abs().sum()
        # anti-aliased by distance, not by area
        assert torch.allclose(covered, torch.tensor(area * radius**2), rtol=0.08)
        assert covered.std() < 1e-4  # whole pixels: one stamp
        darkest = x.flatten(2).gather(
            2, ink(x).flatten(1).argmax(1)[:, None, None].expand(-1, 3, 1)
        )[..., 0]
        assert torch.allclose(darkest, rgb.expand(50, 3), atol=1e-5)


def test_a_circle_is_round_a_square_is_not_and_a_triangle_points_up():
    circle, square, triangle = cover(
        torch.arange(3), torch.full((3,), 3.0), torch.tensor([[8.0, 8.0]] * 3)
    )
    for mask in (circle, square, triangle):
        assert torch.allclose(mask, mask.flip(1))
    for mask in (circle, square):
        assert torch.allclose(mask, mask.T) and torch.allclose(mask, mask.flip(0))
    assert square.unique().tolist() == [0, 1] and square.sum() == 36
    assert square[5, 5] == 1 > circle[5, 5]
    rows = triangle.sum(1)[5:11]
    assert (rows.diff() > 0).all() and rows[-1] > 5 and 0 < rows[0] < 1.2


def test_every_place_is_used_evenly():
    one = arrange(codes(*["a small red circle"] * 1600), Draw(6)).centre[:, 0]
    two = arrange(codes(*["a small red circle above a red square"] * 1600), Draw(6)).centre[
        ..., 0
    ]
    for centre in (one, two):
        places, counts = centre.unique(dim=0, return_counts=True)
        assert places.unique().tolist() == [6.5, 7.5, 8.5, 9.5] and len(places) == 16
        assert (counts - 100).abs().max() < 50  # 5 standard deviations


@pytest.mark.parametrize(
    "words, axis, sign",
    [("above", 1, -1), ("below", 1, 1), ("left of", 0, -1), ("right of", 0, 1)],
)
def test_relations_put_the_first_thing_where_they_say(words, axis, sign):
    x = pictures(codes(*[f"a red circle {words} a blue square"] * 100), Draw(2))
    red, blue = ((x - rgb[:, None, None]).abs().sum(1) < 0.1 for rgb in (INKS[0], INKS[2]))
    apart = middle(red.float()) - middle(blue.float())
    assert (sign * apart[:, axis] > 8.9).all()
    assert apart[:, 1 - axis].round().unique().tolist() == list(range(-3, 4))


def test_two_things_never_touch_and_stay_on_the_paper():
    scene = arrange(draw_codes(20_000, Draw(3)), Draw(4))
    masks = cover(scene.shape, RADII[scene.large], scene.centre) * scene.shown[..., None, None]
    assert (masks.sum(1) <= 1).all()
    reach = RADII[scene.large][..., None] + (scene.centre - 8).abs()
    assert reach[scene.shown == 1].max() == 8
    # boxes of whole pixels
    assert ((scene.centre - RADII[scene.large][..., None]) % 1 == 0).all()
    two = masks[(scene.shown == 1).all(1)]
    # the share of each thing there
    upper, left = (half.sum((2, 3)) / two.sum((2, 3)) for half in (two[:, :, :8], two[..., :8]))
    apart = [
        (share.sort(1).values - torch.tensor([0.0, 1.0])).abs().amax(1) < 1e-4
        for share in (upper, left)
    ]
    # each has a half for itself, which is what the reader relies on
    assert (apart[0] | apart[1]).all()


def test_a_size_that_is_not_stated_is_either():
    large = arrange(codes(*["a red circle"] * 1000), Draw(5)).large[:, 0]
    assert abs(int(large.sum()) - 500) < 80  # 5 standard deviations
    stated = arrange(codes("a small red circle", "a large red circle"), Draw(5)).large[:, 0]
    assert stated.tolist() == [0, 1]


def test_pictures_of_a_caption_differ_and_a_seed_repeats_them():
    wanted = codes(*["a red circle"] * 500)
    one, two = (pictures(wanted, Draw(seed)) for seed in (0, 1))
    assert torch.equal(one, pictures(wanted, Draw(0))) and not torch.equal(one, two)
    # 16 places, two sizes; each is missed with probability 1e-7
    assert len({row.numpy().tobytes() for row in one}) == 32


def test_a_captioned_picture_depends_on_seed_and_place_alone():
    x, text = captioned(5, seed=3)
    more, longer = captioned(9, seed=3)
    assert torch.equal(x, more[:5]) and text == longer[:5]
    assert not torch.equal(x, captioned(5, seed=4)[0]) and not torch.equal(x[0], x[1])
    held = captioned(9, seed=3, held_out=True)[1]
    assert all(is_held_out(parse(caption)) for caption in held) and not any(
        is_held_out(parse(caption)) for caption in longer
    )


def test_batches_depend_on_seed_and_step_alone():
    data = shape_batches(16, seed=3)
    later = data(1000)
    data(1001)
    torch.manual_seed(5)
    again = shape_batches(16, seed=3)(1000)
    assert torch.equal(later.x0, again.x0) and torch.equal(later.cond, again.cond)
    assert not torch.equal(later.x0, data(1001).x0) and not torch.equal(
        later.x0, shape_batches(16, seed=4)(1000).x0
    )


def test_batches_show_what_their_captions_say_and_nothing_held_out():
    batch = shape_batches(256, seed=0, drop=0.0)(0)
    text = captions(batch.cond)
    assert not any(is_held_out(parse(caption)) for caption in text)
    for x, caption in zip(batch.x0, text):
        _, _, colour, _, _, other, _ = code = parse(caption)
        wanted = {colour, other} if code[0] else {colour}
        assert {
            k for k in range(4) if ((x - INKS[k, :, None, None]).abs().sum(0) < 1e-4).any()
        } == wanted


def test_batches_of_captions_bring_no_picture_and_nothing_held_out():
    batch, again, later = (
        caption_batches(256, seed=0)(0),
        caption_batches(256, seed=0)(0),
        caption_batches(256, seed=0)(1),
    )
    assert batch.x0.shape == (256, 3, 16, 16) and batch.x0.isnan().all()
    assert torch.equal(batch.cond, again.cond) and not torch.equal(batch.cond, later.cond)
    text = captions(batch.cond)
    assert (
        all(text)
        and not any(is_held_out(parse(caption)) for caption in text)
        and len(set(text)) > 100
    )


@pytest.mark.parametrize("drop", [0.0, 0.1, 1.0])
def test_the_stated_share_of_captions_is_dropped(drop):
    data, n = shape_batches(500, seed=0, drop=drop), 20
    dropped = sum(int((data(step).cond == NULL_TOKENS).all(1).sum()) for step in range(n))
    # 4 standard deviations: 6e-5 false alarms
    assert abs(dropped - n * 500 * drop) <= 4 * (n * 500 * drop * (1 - drop)) ** 0.5
    # dropping changes no picture
    assert torch.equal(data(0).x0, shape_batches(500, seed=0, drop=0.5)(0).x0)


def test_a_batch_shares_no_picture_with_the_numbered_ones():
    """SeedSequence pads its key with zeros: (seed, step) and (seed, i, 0) would be one stream."""
    x, _ = captioned(3, seed=0)
    assert not any(torch.equal(x[i], shape_batches(1, seed=0)(i).x0[0]) for i in range(3))


def test_a_folder_holds_pictures_texts_and_a_table(tmp_path):
    folder = write_folder(tmp_path / "new" / "folder", 12, seed=5)
    x, text = captioned(12, seed=5)
    names = [f"{i:06d}" for i in range(12)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{n}.png" for n in names] + [f"{n}.txt" for n in names] + ["metadata.jsonl"]
    )
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert rows == [
        {"file_name": f"{name}.png", "text": caption} for name, caption in zip(names, text)
    ]
    assert [(folder / f"{name}.txt").read_text().strip() for name in names] == text
    for name, picture in zip(names, x):
        with Image.open(folder / f"{name}.png") as image:
            assert image.mode == "RGB" and image.size == (16, 16)
            pixels = (
                torch.tensor(list(image.getdata()), dtype=torch.float32)
                .reshape(16, 16, 3)
                .permute(2, 0, 1)
                / 127.5
                - 1
            )
        # rounding to bytes, and nothing else
        assert (pixels - picture).abs().max() <= 0.5 / 127.5 + 1e-6


def test_a_folder_is_an_imagefolder(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = write_folder(tmp_path / "shapes", 3, seed=5)
    rows = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows["text"] == captioned(3, seed=5)[1] and rows.num_rows == 3


def test_bytes_of_inks_and_paper_are_exact():
    back = torch.tensor(to_uint8(torch.cat([INKS, PAPER[None]])[:, :, None, None])[:, 0, 0])
    assert back.tolist() == [
        [216, 38, 50],
        [26, 150, 65],
        [43, 80, 214],
        [247, 190, 22],
        [255, 255, 255],
    ]


@pytest.mark.parametrize("name", ["shapes", "shape_captions", "shape_reader", "shape_scores"])
def test_examples(name):
    result = doctest.testmod(importlib.import_module(f"toy_data.{name}"))
    assert result.attempted > 0 and result.failed == 0
