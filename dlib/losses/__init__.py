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
from dlib.losses.trajectory_consistency_losses import trajectory_consistency
from dlib.losses.curricula import ect_times, ladder_times
from dlib.losses.bootstrapping import consistency_training, inverse_step, norm_huber, own, taught
from dlib.losses.continuous_time import by_norm, by_rms, continuous_consistency
from dlib.losses.inductive import imm_triples, laplace, mmd2, moment_matching
from dlib.losses.score_distillation import fake_score, sds, vsd
from dlib.losses.variance_reduction import variance_reduced_target
from dlib.losses import (
    adversarial,
    bootstrapping,
    continuous_time,
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
    "by_norm",
    "by_rms",
    "consistency",
    "consistency_training",
    "continuous_consistency",
    "continuous_time",
    "curricula",
    "denoising",
    "denoising_score_matching",
    "drop",
    "ect_times",
    "energy_score",
    "explicit",
    "fake_score",
    "frame_times",
    "guided_distillation",
    "huber",
    "imm_triples",
    "implicit",
    "inverse_step",
    "knowledge",
    "ladder_times",
    "laplace",
    "lognormal_times",
    "mmd2",
    "moment_matching",
    "multistep_consistency",
    "norm_huber",
    "optimal_coupling",
    "own",
    "progressive",
    "score_distillation",
    "score_matching",
    "sds",
    "sliced",
    "sliced_vr",
    "squared",
    "taught",
    "trajectory_consistency",
    "uniform_times",
    "variance_reduced_target",
    "variance_reduction",
    "vsd",
    "weights",
    "with_omega",
]
