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
from dlib.losses.guiding import guided_distillation
from dlib.losses.halving import knowledge, progressive
from dlib.losses.score_distillation import fake_score, sds, vsd
from dlib.losses import adversarial, score_distillation, score_matching, weights

__all__ = [
    "Batch",
    "Loss",
    "adversarial",
    "consistency",
    "denoising",
    "denoising_score_matching",
    "drop",
    "energy_score",
    "explicit",
    "fake_score",
    "frame_times",
    "guided_distillation",
    "huber",
    "implicit",
    "knowledge",
    "lognormal_times",
    "multistep_consistency",
    "optimal_coupling",
    "progressive",
    "score_distillation",
    "score_matching",
    "sds",
    "sliced",
    "sliced_vr",
    "squared",
    "uniform_times",
    "vsd",
    "weights",
    "with_omega",
]
