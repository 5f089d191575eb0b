"""The style that all figures share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GREY, FLOOR = "#1b1b1b", "#8a8a8a", "#d9d3c3"
MODES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8a8a8a", "#1b1b1b")
MARKERS = "osD^vPX*"
PAPER = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "mathtext.fontset": "cm",
    "svg.hashsalt": "dlib",
}


def axes(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (5.6, 3.9), **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """A figure, its axes in one row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="compressed")
    return figure, np.atleast_1d(figure.subplots(rows, columns, **kwargs)).ravel()


def numpy(x: Tensor) -> np.ndarray:
    """x as matplotlib takes it."""
    return x.detach().cpu().double().numpy()


def in_paper_style(draw: Callable) -> Callable:
    """Draw a verb's figure under the book's settings."""

    @functools.wraps(draw)
    def verb(*args, **kwargs):
        import matplotlib

        with matplotlib.rc_context(PAPER):
            return draw(*args, **kwargs)

    return verb
