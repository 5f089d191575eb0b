"""The grammar of the captioned shapes: what can be said comes back, what cannot is refused,
what is held out never shows.
"""

import itertools

import pytest
import torch

from dlib import Draw
from toy_data.shape_captions import (
    COLOURS,
    HELD_OUT,
    LENGTH,
    NULL_TOKENS,
    RELATIONS,
    SHAPES,
    SIZES,
    VOCABULARY,
    captions,
    draw_codes,
    is_held_out,
    parse,
    say,
    tokens,
)

THINGS = list(itertools.product(range(len(SIZES)), range(len(COLOURS)), range(len(SHAPES))))
ALL = [(0, *thing, 0, 0, 0) for thing in THINGS] + [
    (relation, *first, *second)
    for relation in range(1, len(RELATIONS))
    for first in THINGS
    for second in THINGS
]


def test_every_caption_is_said_parsed_and_spelled_in_tokens():
    text = [say(code) for code in ALL]
    assert len(set(text)) == len(ALL) == 36 + 5184
    assert [parse(caption) for caption in text] == ALL
    rows = tokens(text)
    assert rows.shape == (5220, LENGTH) and rows.dtype == torch.int64
    assert captions(rows) == text and len(rows.unique(dim=0)) == 5220
    # every word is used, and padding
    assert rows.unique().tolist() == list(range(len(VOCABULARY)))
    assert int((rows != 0).sum(1).max()) == LENGTH  # and every place


def test_padding_stands_at_the_end_and_the_empty_caption_is_padding_alone():
    row = tokens(["a red circle"])[0]
    assert (row[:3] > 0).all() and (row[3:] == 0).all()
    assert torch.equal(tokens([""])[0], NULL_TOKENS) and captions(NULL_TOKENS[None]) == [""]
    assert tokens([]).shape == (0, LENGTH)


def test_what_the_words_mean():
    assert say((1, 1, 0, 0, 2, 2, 1)) == "a small red circle above a large blue square"
    assert parse("a yellow triangle right of a green triangle") == (4, 0, 3, 2, 0, 1, 2)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "red circle",
        "a circle red",
        "a red",
        "a huge red circle",
        "a red circle above",
        "a red circle on a blue square",
        "a red circle above a blue square above a red square",
        "a  red circle",
        "A red circle",
        "a red circle left a blue square",
    ],
)
def test_what_is_no_caption_is_refused_with_the_grammar(caption):
    with pytest.raises(ValueError, match="is not a caption of shapes.*small red circle above"):
        parse(caption)


def test_tokens_refuse_unknown_words_and_long_rows():
    with pytest.raises(ValueError, match=r"unknown word\(s\) \['huge'\]"):
        tokens(["a huge circle"])
    with pytest.raises(ValueError, match="11 words, wanted at most 10"):
        tokens([" ".join(["red"] * 11)])
    with pytest.raises(ValueError, match=r"tokens\(\['a red circle'\]\)"):
        tokens("a red circle")


def test_each_kind_of_thing_is_in_one_pair_held_out():
    kinds = [kind for pair in HELD_OUT for kind in pair]
    assert sorted(kinds) == sorted(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


def test_held_out_is_a_pair_in_either_order_with_any_sizes_and_relation():
    held = [code for code in ALL if is_held_out(code)]
    assert len(held) == 6 * 2 * 9 * 4
    assert is_held_out(parse("a small blue square left of a red circle")) and is_held_out(
        parse("a red circle below a large blue square")
    )
    assert not is_held_out(parse("a red square left of a blue circle")) and not is_held_out(
        parse("a red circle")
    )


def test_training_draws_every_caption_but_those_held_out():
    codes = [tuple(row) for row in draw_codes(100_000, Draw(0)).tolist()]
    assert not any(map(is_held_out, codes)) and set(codes) <= set(ALL)
    # 4752 pairs share 50 000 draws, 10.5 each: a given one is missed with probability 3e-5, five
    # or more with 1e-6
    assert len(set(ALL) - set(codes)) - 432 < 5
    one = sum(code[0] == 0 for code in codes)
    assert abs(one - 50_000) < 5 * 158  # 5 standard deviations


def test_what_is_drawn_held_out_is_held_out():
    assert all(
        is_held_out(tuple(row)) for row in draw_codes(1000, Draw(0), held_out=True).tolist()
    )
