"""Figures of samples over the density that they should, or should not, have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from dlib._util import require
from dlib.plot.grammar import GREY, INK, MODES, in_paper_style, numpy
from dlib.plot.grammar import axes as make_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def over_density(
    panels: Mapping[str, tuple[Tensor, Tensor]],
    log_density: Tensor,
    axes: tuple[Tensor, Tensor],
    depths: Sequence[float] = (-1, -3, -6),
) -> Figure:
    """Samples over dashed contours of a density, one panel a sampler: the same contours in
    each, the truth of all of them.

    panels: name ↦ (points (n, 2), modes (n,)): a point is coloured by its mode, grey where
    that is −1. log_density: (k·l,) on `torch.cartesian_prod(*axes)` with axes (k,) and (l,);
    it need not be normalised. depths: what a contour's log-density has below the highest
    one's.
    """
    shape = tuple(map(len, axes))
    require(
        log_density.shape == (shape[0] * shape[1],),
        f"plot.over_density: the log-density has shape {tuple(log_density.shape)}, wanted "
        f"({shape[0] * shape[1]},): one value a point of cartesian_prod of axes of {shape[0]} "
        f"and {shape[1]}",
    )
    across, down, height = (
        numpy(axes[0]),
        numpy(axes[1]),
        numpy(log_density - log_density.max()).reshape(shape).T,
    )
    tall = np.ptp(down) / np.ptp(across)
    figure, places = make_axes(
        1, len(panels), (5.6, 0.7 + tall * 5.2 / len(panels)), sharex=True, sharey=True
    )
    for ax, (name, (points, modes)) in zip(places, panels.items()):
        k = modes.numpy()
        ax.scatter(
            *numpy(points).T,
            s=4,
            c=np.array((*MODES, GREY))[np.where(k < 0, len(MODES), k % len(MODES))],
            linewidths=0,
            rasterized=True,
        )
        ax.contour(
            across,
            down,
            height,
            levels=sorted(depths),
            colors=INK,
            linewidths=1,
            linestyles="dashed",
        )
        ax.set(
            title=name,
            aspect="equal",
            xlabel="$x_1$",
            xlim=(across[0], across[-1]),
            ylim=(down[0], down[-1]),
        )
    places[0].set_ylabel("$x_2$")
    return figure
