"""Captioned shapes: drawn 16×16 colour pictures of one or two things, each with a caption: a
text-to-image task that trains in minutes.

A picture is (3, 16, 16) in [−1, 1], white paper with flat colours and anti-aliased edges. What
its caption leaves open is drawn: where the things stand, in whole pixels, and the sizes that
are not stated. Each thing fills a box of side 5 (small) or 7 (large); two things stand in two
halves of the picture. `shape_reader` reads pictures back exactly, because this is all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlib import Batch, Denoiser, Draw, discrete, nets, scaled_linear
from toy_data import weights
from toy_data.shape_captions import (
    COLOURS,
    LENGTH,
    NULL_TOKENS,
    VOCABULARY,
    draw_codes,
    say,
    tokens,
)

MAKER = "toy_data.train_shapes"
SIDE = 16
RADII = torch.tensor([2.5, 3.5])  # half the side of the box that a small, a large thing fills
PAPER = torch.ones(3)
INKS = torch.tensor([[216, 38, 50], [26, 150, 65], [43, 80, 214], [247, 190, 22]]) / 127.5 - 1
assert len(INKS) == len(COLOURS)


class Scene(NamedTuple):
    """n pictures as numbers. shown (n, 2): 0 or 1; colour, shape, large (n, 2) int64; centre
    (n, 2, 2): pixels right and down.
    """

    shown: Tensor
    colour: Tensor
    shape: Tensor
    large: Tensor
    centre: Tensor


def arrange(codes: Tensor, draw: Draw) -> Scene:
    """Scenes of the captions with these codes (n, 7). Draws: a coin for each size, then two
    numbers for the place of each thing.

    One thing stands at ±½ or ±1½ pixels from the middle, each way. Of two, the first is above
    (below, left, right), 4½ pixels off the middle, and either at ±½ or ±1½ the other way. So a
    caption that states its sizes has 16 pictures.
    """
    n, relation, things = len(codes), codes[:, 0], codes[:, 1:].reshape(-1, 2, 3)
    coin, place = (
        draw.uniform(2 * n).reshape(n, 2) < 0.5,
        (4 * draw.uniform(4 * n).reshape(n, 2, 2)).floor() - 1.5,
    )
    large = torch.where(things[..., 0] == 0, coin.long(), things[..., 0] - 1)
    # the first is above, or left
    sign = torch.where(relation % 2 == 1, -1.0, 1.0)[:, None] * torch.tensor([1.0, -1.0])
    apart = torch.stack([place[..., 0], 4.5 * sign], 2)
    # one above the other, or beside it
    apart = torch.where((relation <= 2)[:, None, None], apart, apart.flip(2))
    two = (relation > 0)[:, None]
    centre = SIDE / 2 + torch.where(two[..., None], apart, place)
    return Scene(
        torch.cat([torch.ones_like(two), two], 1).long(),
        things[..., 1],
        things[..., 2],
        large,
        centre,
    )


def cover(shape: Tensor, radius: Tensor, centre: Tensor) -> Tensor:
    """How much of each pixel a shape covers, by its signed distance: (…, 16, 16) in [0, 1].
    shape, radius (…), centre (…, 2).
    """
    middle = torch.arange(SIDE) + 0.5
    x, y = middle - centre[..., 0, None, None], (middle - centre[..., 1, None])[..., None]
    r = radius[..., None, None]
    circle = (x.square() + y.square()).sqrt() - r
    square = torch.maximum(x.abs().expand_as(circle), y.abs().expand_as(circle)) - r
    # as high as wide, on its foot
    triangle = torch.maximum((y.abs() - r).expand_as(circle), (2 * x.abs() - y - r) / 5**0.5)
    kind = shape[..., None, None]
    return (0.5 - torch.where(kind == 0, circle, torch.where(kind == 1, square, triangle))).clamp(
        0, 1
    )


def render(scene: Scene) -> Tensor:
    """The pictures (n, 3, 16, 16) of scenes."""
    masks = cover(scene.shape, RADII[scene.large], scene.centre) * scene.shown[..., None, None]
    ink = INKS[scene.colour] - PAPER
    return PAPER[:, None, None] + torch.einsum("nthw,ntc->nchw", masks, ink)


def pictures(codes: Tensor, draw: Draw) -> Tensor:
    """One picture for each code: a fair draw given its caption. (n, 3, 16, 16). Draws: as
    `arrange`.
    """
    return render(arrange(codes, draw))


def captioned(n: int, seed: int, held_out: bool = False) -> tuple[Tensor, list[str]]:
    """Pictures (n, 3, 16, 16) and captions 0 … n−1 of a seed; the i-th is a function of (seed,
    i) alone.

    held_out: pairs that `shape_batches` never shows, instead of what it shows.

    >>> x0, text = captioned(3, seed=0)
    >>> x0.shape, text[0]
    (torch.Size([3, 3, 16, 16]), 'a large yellow triangle below a large blue triangle')
    """
    rows = [_captioned(seed, i, held_out) for i in range(n)]
    return torch.cat([torch.empty(0, 3, SIDE, SIDE), *(x for x, _ in rows)]), [
        text for _, text in rows
    ]


def _captioned(seed: int, i: int, held_out: bool = False) -> tuple[Tensor, str]:
    draw = _draw(seed, i, 1 + held_out)
    codes = draw_codes(1, draw, held_out)
    return pictures(codes, draw), say(tuple(codes[0].tolist()))


def shape_batches(batch: int, seed: int, drop: float = 0.1) -> Callable[[int], Batch]:
    """step ↦ Batch of training pictures, cond = tokens (B, 10), a share `drop` of them
    `NULL_TOKENS` for guidance.

    Each batch is a function of (seed, step) alone. Draws: the codes, the pictures, then the
    drops.

    >>> data = shape_batches(4, seed=0)
    >>> bool((data(7).x0 == data(7).x0).all()), data(7).cond.shape
    (True, torch.Size([4, 10]))
    """

    def at(step: int) -> Batch:
        draw = _draw(seed, step)
        codes = draw_codes(batch, draw)
        x0, text = pictures(codes, draw), tokens([say(tuple(code)) for code in codes.tolist()])
        return Batch(x0, torch.where((draw.uniform(batch) < drop)[:, None], NULL_TOKENS, text))

    return at


def caption_batches(batch: int, seed: int) -> Callable[[int], Batch]:
    """step ↦ Batch of captions alone, cond = tokens (B, 10), for methods that look at no
    picture: x0 (B, 3, 16, 16) is NaN.

    Each batch is a function of (seed, step) alone.

    >>> batch = caption_batches(2, seed=0)(7)
    >>> bool(batch.x0.isnan().all()), batch.cond.shape
    (True, torch.Size([2, 10]))
    """
    unseen = torch.full((batch, 3, SIDE, SIDE), torch.nan)
    return lambda step: Batch(
        unseen,
        tokens([say(tuple(code)) for code in draw_codes(batch, _draw(seed, step)).tolist()]),
    )


# SeedSequence fills up with zeros: keys of two lengths must not differ by a 0 alone
def _draw(*key: int) -> Draw:
    return Draw(int(np.random.SeedSequence(key).generate_state(1)[0]))


def to_uint8(x: Tensor) -> np.ndarray:
    """Pictures (n, 3, H, W) as bytes (n, H, W, 3), cut at [−1, 1]: what a PNG holds."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def write_folder(path: str | os.PathLike, n: int, seed: int) -> Path:
    """Write pictures 0 … n−1 of `seed` as 000000.png …, each with its caption in 000000.txt,
    and all in metadata.jsonl.

    So the folder is both an image + text folder and, with the column `text`, an `imagefolder`
    of the package datasets.
    """
    from PIL import Image

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as table:
        for i in range(n):
            x0, caption = _captioned(seed, i)
            Image.fromarray(to_uint8(x0)[0]).save(folder / f"{i:06d}.png")
            (folder / f"{i:06d}.txt").write_text(caption + "\n", encoding="utf-8")
            table.write(json.dumps({"file_name": f"{i:06d}.png", "text": caption}) + "\n")
    return folder


TEACHER = {
    "net": "dlib.nets.DiT",
    "side": SIDE,
    "channels": 3,
    "words": len(VOCABULARY),
    "length": LENGTH,
    "width": 96,
    "depth": 2,
    "heads": 3,
    "patch": 4,
    "predicts": "v",
    "schedule": "discrete(scaled_linear())",
    "clock": "1000 t - 1",
}


def new_teacher() -> Denoiser:
    """The teacher before training: a transformer that predicts v on Stable Diffusion's
    schedule and clock; cond = tokens (B, 10).
    """
    sizes = ("side", "channels", "words", "length", "width", "depth", "heads", "patch")
    return Denoiser(
        nets.DiT(**{key: TEACHER[key] for key in sizes}),
        discrete(scaled_linear()),
        TEACHER["predicts"],
        clock=index,
    )


def index(t):
    """Stable Diffusion's clock: t ∈ [1/1000, 1] ↦ 0 … 999."""
    return 1000 * t - 1


def shapes_teacher() -> Denoiser:
    """The shipped teacher, frozen: a Denoiser of captioned shapes; cond = tokens (B, 10), null
    = `NULL_TOKENS`.

    >>> teacher = shapes_teacher()
    >>> x = Draw(0).normal((2, 3, 16, 16))
    >>> teacher(x, teacher.schedule.at(0.9), tokens(["a red circle", ""])).x0.shape
    torch.Size([2, 3, 16, 16])
    """
    teacher = new_teacher()
    weights.restore("shapes_teacher", teacher.net, TEACHER, MAKER)
    return teacher


def shapes_facts() -> dict:
    """What the shipped teacher states: "architecture", "steps", "seed" and the "scores" that
    it reached.
    """
    return weights.facts("shapes_teacher", MAKER)
