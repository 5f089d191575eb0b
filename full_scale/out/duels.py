"""Two folders of pictures for the same prompts and seeds: which of each pair scores higher, and
how sure the share of wins is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlib._util import require
from full_scale.sources.captioned import Captioned

LOWER = ("off",)
"""Scores of which less is better."""
TIE = 1e-4
"""Relative difference up to which a pair is a tie: float32 rounds a network's score differently
in another batch, to about 1e-6.
"""


def paired(
    ours: Sequence[Captioned], theirs: Sequence[Captioned]
) -> tuple[list[tuple[int, int]], list[str]]:
    """The places of pictures with the same caption and mark, and in words what has no partner.

    The mark is a sampled picture's seed, else the name of its file; the k-th picture of one
    caption and mark goes with the k-th. ValueError if there is no pair.
    """
    a, b = ({key: n for n, key in enumerate(_keys(shown))} for shown in (ours, theirs))
    pairs = [(n, b[key]) for key, n in a.items() if key in b]
    require(
        bool(pairs),
        f"--against: none of its {len(theirs)} pictures has the prompt and the seed of one of "
        f"the {len(ours)} of --pictures: sample both with the same --prompt, --n and --seed",
    )
    lone = [f"--pictures: {key[0]!r}, {key[1]}" for key in a if key not in b]
    lone += [f"--against: {key[0]!r}, {key[1]}" for key in b if key not in a]
    return pairs, lone


def _keys(shown: Sequence[Captioned]) -> list[tuple[str | None, str, int]]:
    seen: Counter = Counter()
    keys = []
    for item in shown:
        keys.append((item.caption, item.mark, seen[item.caption, item.mark]))
        seen[item.caption, item.mark] += 1
    return keys


def duel(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    pairs: Sequence[tuple[int, int]],
    captions: Sequence[str | None],
) -> dict[str, Any]:
    """For every score that both have of each picture, the share of pairs that ours win, as
    `win_rate` says. ours, theirs: {judge: {"each": {score: a value a picture}}}; captions: of
    the pairs. ValueError if they have none in common.
    """
    found = {}
    for judge, said in ours.items():
        each = said.get("each", {}) if isinstance(said, Mapping) else {}
        for name, values in each.items():
            if name not in (theirs.get(judge) or {}).get("each", {}):
                continue
            a, b = (torch.tensor(v).double() for v in (values, theirs[judge]["each"][name]))
            a, b = (v[[pair[k] for pair in pairs]] for k, v in enumerate((a, b)))
            sign = -1 if name in LOWER else 1
            found[f"{judge} {name}"] = win_rate(sign * a, sign * b, captions)
    require(
        bool(found),
        "--against compares pictures one by one, and no score of a single picture can be had: "
        "add --clip FOLDER or --reward NAME (captioned shapes have one of their own)",
    )
    return found


def win_rate(a: Tensor, b: Tensor, captions: Sequence[str | None]) -> dict[str, Any]:
    """The share of pairs (n,) in which a is larger, a tie counting half, its standard error,
    and the share of ties.

    Pictures of one prompt resemble each other, so the error is that of a mean over clusters,
    the G prompts: s² = G/(G−1) Σ_g (Σ_{i∈g} (w_i − w̄))² / n². For one prompt alone each pair
    is a cluster, and the error says nothing of other prompts; for one pair it is None.

    >>> win_rate(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0]), ["x", "y"])
    {'win_rate': 0.75, 'standard_error': 0.25, 'ties': 0.5}
    """
    tie = (a - b).abs() <= TIE * torch.maximum(a.abs(), b.abs())
    won = torch.where(tie, 0.5, (a > b).double())
    names = {caption: n for n, caption in enumerate(dict.fromkeys(captions))}
    several = len(names) > 1
    group = torch.tensor([names[c] if several else n for n, c in enumerate(captions)])
    count = len(names) if several else len(won)
    sums = torch.zeros(count, dtype=torch.float64).index_add(0, group, won - won.mean())
    error = None
    if count > 1:
        error = (count / (count - 1) * sums.square().sum()).sqrt().item() / len(won)
    return {
        "win_rate": won.mean().item(),
        "standard_error": error,
        "ties": tie.double().mean().item(),
    }
