"""Figures of what a flow or a reverse SDE does to densities: fans of paths, one path
on many clocks, likelihood maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlib._util import require
from dlib.mixtures import Mixture
from dlib.plot.grammar import CYCLE, GREY, INK, MODES, in_paper_style, numpy
from dlib.plot.grammar import axes as make_axes
from dlib.schedule import NoiseLevel

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def fans(
    panels: Mapping[str, Tensor],
    levels: Sequence[NoiseLevel],
    starts: Tensor,
    mixture: Mixture,
    reach: float = 3.0,
) -> Figure:
    """Paths of one-dimensional samples over the exact densities of their levels (grey), noise
    left, data right; one panel a sampler.

    panels: name ↦ (steps + 1, n), x at each of `levels`; starts (n,): which common start a
    path has, its colour; reach: the density and the axes cover −reach … reach, which a wrong
    sampler's paths may leave.
    """
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    figure, axes = make_axes(rows, columns, (5.6, 2.4 * rows), sharex=True, sharey=True)
    t, x = (
        np.array([level.t for level in levels]),
        torch.linspace(-reach, reach, 200, dtype=torch.float64),
    )
    density = np.stack([numpy(mixture.log_prob(x[:, None], level).exp()) for level in levels], 1)
    for ax, (name, paths) in zip(axes, panels.items()):
        require(
            len(paths) == len(levels),
            f"plot.fans: panel {name!r} has {len(paths)} states, wanted {len(levels)}: one a "
            "level",
        )
        ax.contourf(
            t,
            numpy(x),
            density / density.max(0),
            levels=[0.03, 0.2, 0.5, 0.8, 1],
            cmap="Greys",
            vmin=-0.2,
            vmax=2,
        )
        for line, start in zip(numpy(paths).T, starts.tolist()):
            ax.plot(t, line, color=MODES[start % len(MODES)], lw=0.8, alpha=0.8)
        ax.set(title=name, xlim=(t.max(), t.min()), ylim=(-reach, reach))
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for place, ax in enumerate(axes[: len(panels)]):
        ax.set_xlabel("$t$  (noise → data)" if place >= len(panels) - columns else "")
        ax.set_ylabel("$x_t$" if place % columns == 0 else "")
    return figure


@in_paper_style
def one_curve(paths: Mapping[str, tuple[Tensor, Tensor, Tensor, Tensor]]) -> Figure:
    """One trajectory on several schedules: on the left as each sees it, x over t; on the right
    all of them as y = x/α over κ = σ/α.

    paths: name ↦ (t, x, κ, y), each (n,). Noise left, data right. The curves on the right are
    drawn thick to thin: all are visible where they agree.
    """
    figure, (left, right) = make_axes(1, 2, (5.6, 3.3))
    for i, (colour, (name, (t, x, kappa, y))) in enumerate(zip(CYCLE, paths.items())):
        left.plot(numpy(t), numpy(x), color=colour, label=name)
        right.semilogx(numpy(kappa), numpy(y), color=colour, lw=2.2 * (len(paths) - i) - 0.4)
    left.set(title="each on its clock", xlabel="$t$", ylabel="$x_t$", xlim=(1, 0))
    right.set(
        title="$y = x/\\alpha$ over $\\kappa = \\sigma/\\alpha$", xlabel="$\\kappa$", ylabel="$y$"
    )
    right.invert_xaxis()
    left.legend()
    return figure


@in_paper_style
def log_density(
    found: Tensor, truth: Tensor, axis: Tensor, depths: Sequence[float] = (-2, -5, -9)
) -> Figure:
    """A heat map of log p as it was computed, with dashed contours of the exact one.

    found, truth: (n²,) on `torch.cartesian_prod(axis, axis)`, in nats; depths: the values of
    log p that get a contour. What lies more than twice as deep as the deepest contour has the
    darkest colour.
    """
    n = len(axis)
    require(
        found.shape == truth.shape == (n**2,),
        f"plot.log_density: found has shape {tuple(found.shape)}, truth {tuple(truth.shape)}, "
        f"wanted ({n**2},) each: one value a point of cartesian_prod(axis, axis)",
    )
    figure, (ax,) = make_axes(size=(4.6, 4.2))
    across, heat, exact = (
        numpy(axis),
        *(numpy(values).reshape(n, n).T for values in (found, truth)),
    )
    colours = np.linspace(2 * min(depths), max(heat.max(), max(depths) + 1), 25)
    image = ax.contourf(across, across, heat, levels=colours, cmap="cividis", extend="min")
    lines = ax.contour(
        across,
        across,
        exact,
        levels=sorted(depths),
        colors=["white", "white", INK][: len(depths)],
        linewidths=1.2,
        linestyles="dashed",
    )
    ax.clabel(lines, fmt="%g", fontsize=9)
    ax.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    bar = figure.colorbar(
        image, ax=ax, shrink=0.85, label=r"$\log p(x)$ in nats  (dashed: exact)"
    )
    bar.set_ticks([k for k in range(2 * int(min(depths)), int(colours[-1]) + 1) if k % 3 == 0])
    bar.outline.set_edgecolor(GREY)
    return figure
