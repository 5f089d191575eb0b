"""Sums and differences of networks' weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dlib._util import require

Weights = Mapping[str, Tensor]


def merge(base: Weights, positive: Weights, negative: Weights, m: float = 0.0) -> Weights:
    """θ_base + (1 − m)(θ_pos − θ_base) + (θ_neg − θ_base): the negative that Diffusion-NPO
    samples with (Wang et al. 2025).

    negative: what was trained from the base towards the worse. With m = 0 it keeps all that
    the positive has learnt, so that the two branches of the guidance stay alike; with m = 1 it
    is θ_neg itself. All are state dicts with the same names. Raises ValueError for others.
    """
    require(0 <= m <= 1, f"merge: m = {m:g}, wanted a share from 0 to 1")
    for name, other in (("positive", positive), ("negative", negative)):
        odd = sorted(set(base) ^ set(other))
        odd += [key for key in base if key in other and base[key].shape != other[key].shape]
        require(not odd, f"merge: base and {name} differ in {odd[:3]}: save both alike")
    return {
        name: value + (1 - m) * (positive[name] - value) + (negative[name] - value)
        if value.is_floating_point()
        else value
        for name, value in base.items()
    }
