"""The figure grammar, and the only package that knows matplotlib (imported when a
figure is drawn).

The same object has the same axes and colours in every chapter: noise left and data right, five
fixed colours for modes, truth dashed and black, teacher grey, the sampling floor a shaded
band, error against network calls on log–log axes. Colours are Okabe and Ito's, which
colour-blind readers can tell apart, and every curve has a marker of its own. Each verb returns
a figure.
"""

from dlib.plot.densities import over_density
from dlib.plot.grammar import CYCLE, GREY, INK, MARKERS, MODES, PAPER
from dlib.plot.lines import curves, running_mean
from dlib.plot.marginals import fans, log_density, one_curve
from dlib.plot.noise import annealing, bridge, per_lam
from dlib.plot.parallel import sweeps
from dlib.plot.paths import (
    along_path,
    convergence,
    endpoints,
    pictures,
    score_error,
    trajectories,
)
from dlib.plot.timetable import pipeline
from dlib.plot.students import audit, commutator, ledger, modes, scores

__all__ = [
    "CYCLE",
    "GREY",
    "INK",
    "MARKERS",
    "MODES",
    "PAPER",
    "along_path",
    "annealing",
    "audit",
    "bridge",
    "commutator",
    "convergence",
    "curves",
    "endpoints",
    "fans",
    "ledger",
    "log_density",
    "modes",
    "one_curve",
    "over_density",
    "per_lam",
    "pictures",
    "pipeline",
    "running_mean",
    "score_error",
    "scores",
    "sweeps",
    "trajectories",
]
