"""The language of the captioned shapes: a grammar of 36 + 5184 captions, its tokens, and what
training never shows.

    caption = thing | thing relation thing          thing = "a" [size] colour shape
    "a red circle"    "a large blue square left of a small yellow triangle"   "": the null caption

A caption's *code* is seven whole numbers: the relation, then size, colour and shape of the
first and of the second thing. A size of 0 is not stated; a relation of 0 means one thing, and
the last three numbers are then 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from dlib import Draw
from dlib._util import require

SIZES = ("", "small", "large")
COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("", "above", "below", "left of", "right of")
VOCABULARY = (
    "",
    "a",
    "small",
    "large",
    *COLOURS,
    *SHAPES,
    "above",
    "below",
    "left",
    "right",
    "of",
)
LENGTH = 10
NULL_TOKENS = torch.zeros(LENGTH, dtype=torch.int64)
"""The empty caption: padding only. It is what `guided` takes as `null`."""

HELD_OUT = (
    ("red circle", "blue square"),
    ("green square", "yellow triangle"),
    ("blue triangle", "red square"),
    ("yellow circle", "green triangle"),
    ("blue circle", "green circle"),
    ("yellow square", "red triangle"),
)
"""Pairs that training never shows together, in either order, whatever the relation and the
sizes. Each kind of thing is in one.
"""

_KINDS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
_HELD = {frozenset(map(_KINDS.index, pair)) for pair in HELD_OUT}
_ALL = [(i, j) for i in range(len(_KINDS)) for j in range(len(_KINDS))]
_PAIRS = {
    held: torch.tensor([pair for pair in _ALL if (frozenset(pair) in _HELD) == held])
    for held in (False, True)
}

Code = tuple[int, int, int, int, int, int, int]


@lru_cache(maxsize=8192)
def say(code: Code) -> str:
    """The caption of a code.

    >>> say((3, 2, 2, 1, 1, 3, 2))
    'a large blue square left of a small yellow triangle'
    """
    relation, *things = code
    first, second = (
        " ".join(filter(None, ("a", SIZES[size], COLOURS[colour], SHAPES[shape])))
        for size, colour, shape in (things[:3], things[3:])
    )
    return f"{first} {RELATIONS[relation]} {second}" if relation else first


@lru_cache(maxsize=8192)
def parse(caption: str) -> Code:
    """The code of a caption. ValueError, with the grammar, for what is not one of the 5220.

    >>> parse("a red circle")
    (0, 0, 0, 0, 0, 0, 0)
    """
    for relation, words in enumerate(RELATIONS[1:], 1):
        first, found, second = caption.partition(f" {words} ")
        if found:
            return (relation, *_thing(first, caption), *_thing(second, caption))
    return (0, *_thing(caption, caption), 0, 0, 0)


def _thing(text: str, caption: str) -> tuple[int, int, int]:
    match text.split(" "):
        case ["a", colour, shape] if colour in COLOURS and shape in SHAPES:
            return 0, COLOURS.index(colour), SHAPES.index(shape)
        case ["a", ("small" | "large") as size, colour, shape] if (
            colour in COLOURS and shape in SHAPES
        ):
            return SIZES.index(size), COLOURS.index(colour), SHAPES.index(shape)
    raise ValueError(
        f"{caption!r} is not a caption of shapes: wanted THING or THING RELATION THING, where "
        "THING is `a [small|large] "
        f"COLOUR SHAPE`, COLOUR one of {', '.join(COLOURS)}, SHAPE one of {', '.join(SHAPES)}, "
        "RELATION one of "
        f"{', '.join(RELATIONS[1:])}: e.g. 'a small red circle above a blue square'"
    )


def tokens(captions: Sequence[str]) -> Tensor:
    """(N, 10) int64: each word's place in `VOCABULARY`, then padding, 0. ValueError for a word
    or a length unknown.

    >>> tokens(["a red circle", ""]).tolist()
    [[1, 4, 8, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    """
    require(
        not isinstance(captions, str),
        f"tokens: got one string, wanted a list of captions: tokens([{captions!r}])",
    )
    return torch.tensor([_row(caption) for caption in captions], dtype=torch.int64).reshape(
        -1, LENGTH
    )


@lru_cache(maxsize=8192)
def _row(caption: str) -> tuple[int, ...]:
    words = caption.split()
    unknown = [word for word in words if word not in VOCABULARY]
    wrong = f"the unknown word(s) {unknown}" if unknown else f"{len(words)} words"
    require(
        not unknown and len(words) <= LENGTH,
        f"tokens: {caption!r} has {wrong}, "
        f"wanted at most {LENGTH} of: {' '.join(VOCABULARY[1:])}",
    )
    return (*map(VOCABULARY.index, words), *[0] * (LENGTH - len(words)))


def captions(rows: Tensor) -> list[str]:
    """The captions of tokens (N, 10): the inverse of `tokens`."""
    return [" ".join(VOCABULARY[word] for word in row if word) for row in rows.tolist()]


def draw_codes(n: int, draw: Draw, held_out: bool = False) -> Tensor:
    """Codes (n, 7) of captions: half of one thing, half of two, or, held out, all of two. A
    size is stated in two of three.

    Draws: one thing or two, the pair of kinds, the relation, the six sizes of a row pair by
    pair.
    """
    pairs = _PAIRS[held_out]
    two = (draw.uniform(n) < (1.0 if held_out else 0.5)).long()
    kinds = pairs[draw.integers(len(pairs), n)]
    relation = (1 + draw.integers(len(RELATIONS) - 1, n)) * two
    sizes = draw.integers(len(SIZES), 2 * n).reshape(n, 2)
    things = torch.stack([sizes, kinds // len(SHAPES), kinds % len(SHAPES)], 2)
    things[:, 1] *= two[:, None]
    return torch.cat([relation[:, None], things.flatten(1)], 1)


def is_held_out(code: Code) -> bool:
    """Whether training never shows this pair of things."""
    relation, _, colour, shape, _, other_colour, other_shape = code
    return (
        bool(relation)
        and frozenset((len(SHAPES) * colour + shape, len(SHAPES) * other_colour + other_shape))
        in _HELD
    )
