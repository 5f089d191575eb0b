"""Read pictures of captioned shapes: the renderer is known, so the nearest scene can be found,
and no classifier is needed.

A picture is explained by one thing anywhere or by two things in two halves. The halves do not
overlap, so the best pair is the best of each half, and the search over all scenes is a few
matrix products. Real pictures are at distance 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dlib._util import require
from toy_data.shape_captions import RELATIONS, SHAPES
from toy_data.shapes import INKS, PAPER, RADII, SIDE, cover

LAYOUTS = {
    0: ("all",),
    RELATIONS.index("above"): ("upper", "lower"),
    RELATIONS.index("left of"): ("left", "right"),
}


class Reading(NamedTuple):
    """What n pictures show: the nearest scene of one thing anywhere, or of two in two halves,
    in whole pixels.

    code (n, 7): as in `shape_captions`, all sizes stated, the upper or left thing first. off
    (n,): RMS distance of a value to that scene. ink (n,): RMS distance between the inks named
    and the mean colours where whole pixels are covered.
    """

    code: Tensor
    off: Tensor
    ink: Tensor


def read(x: Tensor) -> Reading:
    """The nearest scene to each picture (n, 3, 16, 16).

    >>> from dlib import Draw
    >>> from toy_data.shape_captions import parse, say
    >>> from toy_data.shapes import pictures
    >>> code = torch.tensor([parse("a large red circle below a small blue square")])
    >>> x = pictures(code, Draw(0))
    >>> say(tuple(read(x).code[0].tolist()))
    'a small blue square above a large red circle'
    """
    require(
        x.shape[1:] == (3, SIDE, SIDE) and len(x) > 0,
        f"read: pictures of shape {tuple(x.shape)}, wanted (n, 3, {SIDE}, {SIDE}), n ≥ 1",
    )
    parts = [_read(part) for part in x.detach().float().split(128)]
    return Reading(*(torch.cat(values) for values in zip(*parts)))


def shows(reading: Reading, codes: Tensor) -> Tensor:
    """(n,) bool: whether each picture shows what the code of its caption says; a size that is
    not stated may be any.
    """
    wanted, stated = as_read(codes)
    return ((reading.code == wanted) | ~stated).all(1)


def as_read(codes: Tensor) -> tuple[Tensor, Tensor]:
    """(codes, stated), both (n, 7): captions' codes as `read` would put them, the upper or left
    thing first; and what they state, bool: no size of 0, and nothing of a second thing where
    there is one.
    """
    wanted = codes.clone()
    turned = (codes[:, 0] == RELATIONS.index("below")) | (
        codes[:, 0] == RELATIONS.index("right of")
    )
    wanted[turned] = codes[turned][:, [0, 4, 5, 6, 1, 2, 3]]
    wanted[turned, 0] -= 1
    stated = torch.ones_like(codes, dtype=torch.bool)
    stated[:, [1, 4]] = wanted[:, [1, 4]] > 0
    stated[:, 4:] &= wanted[:, :1] > 0
    return wanted, stated


class _Templates(NamedTuple):
    """One thing at all places of a region: mask (T, 256), shape (T,), size (T,): 1 small, 2
    large.
    """

    mask: Tensor
    shape: Tensor
    size: Tensor


@lru_cache
def _region(name: str) -> _Templates:
    """The templates of a region: all, or upper, lower, left, right: in that half and astride
    the other middle line, so that no picture has two readings."""
    half, masks, shapes, sizes = SIDE // 2, [], [], []
    for large, radius in enumerate(RADII.tolist()):
        whole, near, far, astride = (
            (0, SIDE),
            (0, half),
            (half, SIDE),
            (half + 1 - 2 * radius, half - 1 + 2 * radius),
        )
        across, down = {
            "all": (whole, whole),
            "upper": (astride, near),
            "lower": (astride, far),
            "left": (near, astride),
            "right": (far, astride),
        }[name]
        centre = torch.cartesian_prod(
            *(torch.arange(low + radius, high - radius + 1) for low, high in (across, down))
        )
        for shape in range(len(SHAPES)):
            masks.append(
                cover(
                    torch.full((len(centre),), shape), torch.full((len(centre),), radius), centre
                ).flatten(1)
            )
            shapes += [shape] * len(centre)
            sizes += [1 + large] * len(centre)
    return _Templates(torch.cat(masks), torch.tensor(shapes), torch.tensor(sizes))


class _Found(NamedTuple):
    gain: Tensor  # (n,) how much a thing lowers the squared distance to bare paper
    colour: Tensor
    template: Tensor


def _best(x: Tensor, region: str) -> _Found:
    """The thing in a region that explains the pictures best: argmax over inks c and masks m of
    ‖x − p‖² − ‖x − p − m(c − p)‖².
    """
    masks, ink = _region(region).mask, INKS - PAPER
    along = torch.einsum("nchw,kc->nkhw", x - PAPER[:, None, None], ink).flatten(2)
    gain = 2 * along @ masks.T - ink.square().sum(1)[:, None] * masks.square().sum(1)
    best, place = gain.flatten(1).max(1)
    return _Found(best, place // len(masks), place % len(masks))


def _read(x: Tensor) -> Reading:
    found = {name: _best(x, name) for layout in LAYOUTS.values() for name in layout}
    gains = torch.stack(
        [sum(found[name].gain for name in layout) for layout in LAYOUTS.values()], 1
    )
    square = (x - PAPER[:, None, None]).square().flatten(1).sum(1) - gains.amax(1)
    code, ink = torch.zeros(len(x), 7, dtype=torch.int64), torch.zeros(len(x))
    for i, (relation, layout) in enumerate(LAYOUTS.items()):
        rows = gains.argmax(1) == i
        code[rows, 0] = relation
        for k, name in enumerate(layout):
            table, (_, colour, place) = _region(name), (field[rows] for field in found[name])
            code[rows, 1 + 3 * k : 4 + 3 * k] = torch.stack(
                [table.size[place], colour, table.shape[place]], 1
            )
            ink[rows] += _ink_error(x[rows], table.mask[place], colour) / len(layout)
    return Reading(code, (square.clamp(min=0) / (3 * SIDE**2)).sqrt(), ink.sqrt())


def _ink_error(x: Tensor, mask: Tensor, colour: Tensor) -> Tensor:
    """Mean square over R, G and B."""
    inside = (mask == 1).float()
    mean = torch.einsum("ncp,np->nc", x.flatten(2), inside) / inside.sum(1, keepdim=True)
    return (mean - INKS[colour]).square().mean(1)
