"""Judged pictures: pairs of captioned shapes, of which one is wrong, and of digits, for a
judge who likes bold strokes; the rewards that their judges go by, and a proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlib import Batch, Draw
from dlib.losses.preference import preferred
from toy_data.digits import digits_split
from toy_data.shape_captions import COLOURS, SHAPES, captions, draw_codes, parse, say, tokens
from toy_data.shape_reader import as_read, read
from toy_data.shapes import INKS, PAPER, _draw, pictures

JUDGE = 8.0
"""How much a picture of shapes with everything right is worth, in units of the judge's
temperature: one wrong fact of four is seen in 88 of 100 choices.
"""


def digit_pairs(size: int, seed: int) -> Callable[[int], Batch]:
    """step ↦ Batch of pairs of real training digits (size, 1, 8, 8), the two of a pair with
    one label, cond = labels (size,), judged by `ink_reward`.

    Each batch is a function of (seed, step) alone. Draws: the first pictures, their partners,
    the judge's.
    """
    (x0, labels), _ = digits_split()
    mine = [(labels == k).nonzero()[:, 0] for k in range(10)]

    def at(step: int) -> Batch:
        draw = _draw(seed, step, 3)
        row, place = draw.integers(len(x0), size), draw.uniform(size)
        cond = labels[row]
        partner = torch.stack(
            [mine[k][int(u * len(mine[k]))] for k, u in zip(cond.tolist(), place.tolist())]
        )
        pair = x0[row], x0[partner]
        return judged(*pair, [ink_reward(x) for x in pair], draw, cond)

    return at


def ink_reward(x: Tensor, cond: Tensor | None = None) -> Tensor:
    """10 times the mean grey value of digits, (B,): a taste for bold strokes. It is linear, so
    whoever follows it far enough paints everything black.
    """
    return 10 * x.flatten(1).mean(1)


def shape_pairs(size: int, seed: int) -> Callable[[int], Batch]:
    """step ↦ Batch of pairs of pictures (size, 3, 16, 16) for captions, cond = tokens (size,
    10), judged as `caption_reward` does.

    One of the two shows its caption. Of the other one fact is wrong: a size that is stated, a
    colour or a shape. Each batch is a function of (seed, step) alone. Draws: the captions'
    codes, the slips, the scenes of the right pictures and of the others, the judge's.
    """

    def at(step: int) -> Batch:
        draw = _draw(seed, step, 3)
        codes = draw_codes(size, draw)
        slipped = _slipped(codes, draw)
        right, wrong = pictures(codes, draw), pictures(slipped, draw)
        worth = [_worth(as_read(shown)[0], codes) for shown in (codes, slipped)]
        return judged(right, wrong, worth, draw, told(codes))

    return at


def caption_reward(x: Tensor, cond: Tensor) -> Tensor:
    """The hidden reward of pictures of shapes, (B,): `JUDGE` times the share of the facts of
    its caption that a picture shows. It has no gradient.

    A caption's facts are how many things there are and where, and the colour, the shape and,
    if stated, the size of each. cond: tokens (B, 10); the empty caption is an error.
    """
    return _worth(read(x).code, codes_of(cond))


def colour_reward(x: Tensor, cond: Tensor) -> Tensor:
    """A proxy with a gradient, (B,): `JUDGE` times how near the pixels are to the ink that is
    asked for, 0 for bare paper and 1 where all is ink; the mean over a caption's things.

    Among real pictures, the right colour has more of it. So has a large thing where a small
    one is asked for, or a picture without any paper left.
    """
    codes = codes_of(cond)
    two = (codes[:, 0] > 0).to(x)
    first, second = (_nearness(x, INKS[codes[:, k]].to(x)) for k in (2, 5))
    return JUDGE * (first + two * second) / (1 + two)


def judged(
    first: Tensor, second: Tensor, worth: Sequence[Tensor], draw: Draw, cond: Tensor | None = None
) -> Batch:
    """The pairs as a Bradley–Terry judge orders them, who gives the two these rewards (B,)."""
    chosen = preferred(*worth, draw).view(-1, *(1,) * (first.ndim - 1))
    better, worse = torch.where(chosen, first, second), torch.where(chosen, second, first)
    return Batch(better, cond, other=worse)


def _worth(shown: Tensor, codes: Tensor) -> Tensor:
    asked, stated = as_read(codes)
    return JUDGE * ((shown == asked) & stated).sum(1) / stated.sum(1)


def _slipped(codes: Tensor, draw: Draw) -> Tensor:
    """The codes with one wrong fact each. Draws: which thing, which fact, another one where no
    size is stated, by how much.
    """
    n, rows = len(codes), torch.arange(len(codes))
    thing = 3 * ((draw.uniform(n) < 0.5) & (codes[:, 0] > 0))
    fact, spare, shift = draw.integers(3, n), draw.integers(2, n), draw.uniform(n)
    fact = torch.where((fact == 0) & (codes[rows, 1 + thing] == 0), 1 + spare, fact)
    of = torch.tensor([2, len(COLOURS), len(SHAPES)])[fact]
    old, by = codes[rows, 1 + thing + fact], 1 + (shift * (of - 1)).long()
    wrong = codes.clone()
    wrong[rows, 1 + thing + fact] = torch.where(fact == 0, 3 - old, (old + by) % of)
    return wrong


def _nearness(x: Tensor, ink: Tensor) -> Tensor:
    paper = PAPER.to(x)
    apart = (x - ink[:, :, None, None]).square().sum(1).add(1e-6).sqrt().flatten(1).mean(1)
    return 1 - apart / (ink - paper).square().sum(1).sqrt()


def told(codes: Tensor) -> Tensor:
    """The tokens (B, 10) of captions' codes."""
    return tokens([say(tuple(code)) for code in codes.tolist()])


def codes_of(cond: Tensor) -> Tensor:
    """The codes (B, 7) of captions' tokens."""
    return torch.tensor([parse(caption) for caption in captions(cond)])
