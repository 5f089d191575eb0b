"""Losses for human preference: from pairs, from rewards with and without a gradient, and from
the negative of either. Pure functions, as all losses are.
"""

from dlib.losses.preference.adjoints import adjoint_matching, lean_adjoints
from dlib.losses.preference.clipping import d3po, extremes
from dlib.losses.preference.forward_process import nft
from dlib.losses.preference.comparisons import Gaps, diffusion_dpo, gaps, kto, swapped
from dlib.losses.preference.policy_gradients import (
    centred,
    clipped_ratio,
    gaussian_kl,
    leave_one_out,
    score_function,
    standardised,
)
from dlib.losses.preference.reward_gradients import anchor, draft, draft_lv, negated, refl
from dlib.losses.preference.reward_models import bradley_terry, preferred

__all__ = [
    "Gaps",
    "adjoint_matching",
    "anchor",
    "bradley_terry",
    "centred",
    "clipped_ratio",
    "d3po",
    "diffusion_dpo",
    "draft",
    "draft_lv",
    "extremes",
    "gaps",
    "gaussian_kl",
    "kto",
    "lean_adjoints",
    "leave_one_out",
    "negated",
    "nft",
    "preferred",
    "refl",
    "score_function",
    "standardised",
    "swapped",
]
