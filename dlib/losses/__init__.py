"""Losses, pure functions of denoisers or scores, a batch and draws."""

from dlib.losses.diffusion import (
    Batch,
    Loss,
    denoising,
    drop,
    frame_times,
    lognormal_times,
    uniform_times,
)
from dlib.losses.coupling import optimal_coupling
from dlib.losses.score_matching import (
    denoising_score_matching,
    energy_score,
    explicit,
    implicit,
    sliced,
    sliced_vr,
)
from dlib.losses.consistency_losses import (
    consistency,
    huber,
    multistep_consistency,
    squared,
    with_omega,
)
from dlib.losses.curricula import ect_pairs, ladder_pairs
from dlib.losses.bootstrapping import consistency_training, inverse_step, norm_huber, own, taught
from dlib.losses.score_distillation import fake_score, sds, vsd
from dlib.losses.variance_reduction import variance_reduced_target
from dlib.losses import (
    adversarial,
    bootstrapping,
    curricula,
    score_distillation,
    score_matching,
    variance_reduction,
    weights,
)

__all__ = [
    "Batch",
    "Loss",
    "adversarial",
    "bootstrapping",
    "consistency",
    "consistency_training",
    "curricula",
    "denoising",
    "denoising_score_matching",
    "drop",
    "ect_pairs",
    "energy_score",
    "explicit",
    "fake_score",
    "frame_times",
    "huber",
    "implicit",
    "inverse_step",
    "ladder_pairs",
    "lognormal_times",
    "multistep_consistency",
    "norm_huber",
    "optimal_coupling",
    "own",
    "score_distillation",
    "score_matching",
    "sds",
    "sliced",
    "sliced_vr",
    "squared",
    "taught",
    "uniform_times",
    "variance_reduced_target",
    "variance_reduction",
    "vsd",
    "weights",
    "with_omega",
]
