"""Floor 5: losses, pure functions of denoisers, a batch and draws."""

from dlib.losses.denoising import Batch, Loss, denoising, uniform_times
from dlib.losses import weights

__all__ = ["Batch", "Loss", "denoising", "uniform_times", "weights"]
