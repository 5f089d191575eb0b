"""Floor 5: losses, pure functions of denoisers or scores, a batch and draws."""

from dlib.losses.denoising import Batch, Loss, denoising, uniform_times
from dlib.losses.score_matching import denoising_score_matching, energy_score, explicit, implicit, sliced, sliced_vr
from dlib.losses import score_matching, weights

__all__ = ["Batch", "Loss", "denoising", "denoising_score_matching", "energy_score", "explicit", "implicit", "score_matching", "sliced",
           "sliced_vr", "uniform_times", "weights"]
