"""Training: who plays, and one loop. Under the notebooks and under `full_scale.run`."""

from dlib.training.averages import Ema, average
from dlib.training.casting import Cast, Judge, Roles, cast, unwrapped
from dlib.training.performing import History, Trained, Trainer, perform, train, weights_of

__all__ = [
    "Cast",
    "Ema",
    "History",
    "Judge",
    "Roles",
    "Trained",
    "Trainer",
    "average",
    "cast",
    "perform",
    "train",
    "unwrapped",
    "weights_of",
]
