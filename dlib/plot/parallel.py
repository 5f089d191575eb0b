"""Figures of samplers that are parallel in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from dlib._util import require
from dlib.plot.grammar import INK, in_paper_style, numpy
from dlib.plot.grammar import axes as make_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def sweeps(panels: Mapping[str, Tensor]) -> Figure:
    """Heat maps of the error of every point of the trajectory (across, noise left) after every
    sweep (down).

    panels: name ↦ (sweeps + 1, points) errors, the guess first. One logarithmic colour scale,
    dark is small; an error of exactly zero is white, and so are sweeps that a panel did not
    need. Dashed: point k after k sweeps; exactness promises that it is white, and all left of
    it.
    """
    from matplotlib.colors import LogNorm

    for name, error in panels.items():
        require(
            error.ndim == 2,
            f"plot.sweeps: panel {name!r} has shape {tuple(error.shape)}, wanted (sweeps + 1, "
            "points)",
        )
    wrong = np.concatenate([numpy(error[error > 0]) for error in panels.values()])
    require(wrong.size > 0, "plot.sweeps: every error is exactly zero: there is nothing to draw")
    rows = max(len(error) for error in panels.values())
    figure, axes = make_axes(1, len(panels), (5.6, 3.9), sharey=True)
    for ax, (name, error) in zip(axes, panels.items()):
        image = ax.imshow(
            np.ma.masked_equal(numpy(error), 0),
            norm=LogNorm(wrong.min(), wrong.max()),
            cmap="cividis",
            aspect="auto",
            interpolation="nearest",
        )
        most = min(rows, error.shape[1]) - 1
        ax.plot([0, most], [0, most], "--", color=INK, lw=1.2)
        ax.set(
            title=name,
            xlabel="point $j$  (noise → data)",
            xlim=(-0.5, error.shape[1] - 0.5),
            ylim=(rows - 0.5, -0.5),
        )
        ax.locator_params(nbins=5, integer=True)
    axes[0].set_ylabel("after sweep $k$")
    figure.colorbar(
        image,
        ax=list(axes),
        location="bottom",
        shrink=0.9,
        label="error of the point  (white: exactly 0)",
    )
    return figure
