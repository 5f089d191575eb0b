"""Figures of schedules, samplers and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlib._util import require
from dlib.plot.grammar import GREY, INK, MODES, in_paper_style, numpy
from dlib.plot.grammar import axes as make_axes
from dlib.plot.lines import curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def endpoints(panels: Mapping[str, Tensor], truth: Tensor, labels: Tensor) -> Figure:
    """Where samplers end, one panel each: points (n, 2) coloured by the mode whose truth they
    should have reached.

    A thin line ties each point to its exact end point; no visible line means no visible error.
    """
    columns = 2 if len(panels) > 1 else 1
    figure, axes = make_axes(
        -(-len(panels) // columns),
        columns,
        (5.6, 2.75 * -(-len(panels) // columns)),
        sharex=True,
        sharey=True,
    )
    colours = np.array(MODES)[labels.numpy() % len(MODES)]
    goal = numpy(truth)
    for ax, (name, points) in zip(axes, panels.items()):
        here = numpy(points)
        for (x0, y0), (x1, y1) in zip(goal, here):
            ax.plot([x0, x1], [y0, y1], color=GREY, lw=0.6, zorder=1)
        ax.scatter(*here.T, s=7, c=colours, linewidths=0, zorder=2)
        ax.set(title=name, aspect="equal")
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for place, ax in enumerate(axes[: len(panels)]):
        ax.set_xlabel("$x_1$" if place >= len(panels) - columns else "")
        ax.set_ylabel("$x_2$" if place % columns == 0 else "")
    return figure


@in_paper_style
def trajectories(paths: Tensor, labels: Tensor, title: str = "") -> Figure:
    """Paths (steps + 1, n, 2) from noise (grey dots) to data (coloured by mode)."""
    figure, (ax,) = make_axes(size=(4.6, 4.4))
    line = numpy(paths)
    for i in range(line.shape[1]):
        ax.plot(*line[:, i].T, color=MODES[int(labels[i]) % len(MODES)], lw=0.8, alpha=0.7)
    ax.scatter(*line[0].T, s=8, color=GREY, zorder=3)
    ax.scatter(*line[-1].T, s=10, c=[MODES[int(k) % len(MODES)] for k in labels], zorder=3)
    ax.set(title=title, aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return figure


def along_path(
    lam: Tensor,
    truth: Tensor,
    fits: Mapping[str, Tensor],
    symbol: str,
    step: tuple[float, float] | None = None,
) -> Figure:
    """A quantity along one trajectory against λ (noise left, data right): the truth dashed,
    its approximations coloured.

    step: the interval of λ that one solver step covers, shaded.
    """
    return curves(
        {name: (lam, values) for name, values in fits.items()},
        {"exact": (lam, truth)},
        xlabel="half-log-SNR λ  (noise → data)",
        ylabel=symbol,
        band=step,
        height=3.4,
    )


@in_paper_style
def convergence(
    errors: Mapping[str, Mapping[int, float]],
    xlabel: str = "network calls (NFE)",
    ylabel: str = "RMS end-point error",
    floor: float | None = None,
    slopes: Sequence[int] = (),
) -> Figure:
    """Error against steps or calls, log–log, one curve a solver; a fan of the given slopes to
    compare with; floor shaded.
    """
    require(bool(errors), "plot.convergence: no curves given")
    every = [e for curve in errors.values() for e in curve.values()]
    calls = [n for curve in errors.values() for n in curve]
    figure = curves(
        {name: (list(curve), list(curve.values())) for name, curve in errors.items()},
        xlabel=xlabel,
        ylabel=ylabel,
        log="xy",
        ylim=(min(every) / 3, max(every) * 2),
        floor=floor,
        height=4.4,
    )
    ax = figure.axes[0]
    if slopes:
        _fan(ax, slopes, min(calls) * 1.1, (floor or max(every)) / 4)
    _plain_ticks(ax, sorted(set(calls)))
    first = min(curve[min(curve)] for curve in errors.values())
    # a curve begins in the lower half, where the legend would hide it
    if first**2 < min(every) * max(every):
        ax.get_legend().remove()
        figure.legend(loc="outside upper left", ncols=2)
    else:
        ax.legend(loc="lower left", ncols=2 if len(errors) > 4 else 1)
    return figure


def _fan(ax, orders: Sequence[int], left: float, top: float) -> None:
    """Lines from one point that fall with the given slopes: what orders of convergence look
    like on these axes.
    """
    for order in orders:
        end = top * 2.0**-order
        ax.loglog([left, 2 * left], [top, end], color=INK, lw=1)
        ax.text(
            2.05 * left,
            end,
            f"slope {order}" if order == orders[0] else str(order),
            va="center",
            fontsize=9.5,
        )


def _plain_ticks(ax, values: list[int]) -> None:
    keep = [
        v
        for i, v in enumerate(values)
        if i in (0, len(values) - 1) or not any(v < 1.6 * w for w in values[:i][-1:])
    ]
    ax.set_xticks(keep, [str(v) for v in keep])
    ax.set_xticks([], minor=True)


@in_paper_style
def pictures(rows: Mapping[str, Tensor]) -> Figure:
    """Named rows of small pictures, same seeds in the same columns; what lies beyond −1 and 1
    is cut.

    (n, 1, H, W): −1 is paper, 1 is ink. (n, 3, H, W): red, green and blue, 1 is white; grey
    lines stand between them.
    """
    count, height = len(next(iter(rows.values()))), 5.6 / len(next(iter(rows.values())))
    figure, axes = make_axes(len(rows), 1, (5.6, len(rows) * (height + 0.3)))
    for ax, (name, images) in zip(axes, rows.items()):
        require(
            len(images) == count,
            f"plot.pictures: row {name!r} has {len(images)} pictures, the first row {count}",
        )
        require(
            images.ndim == 4 and images.shape[1] in (1, 3),
            f"plot.pictures: row {name!r} has shape {tuple(images.shape)}, wanted (n, 1 or 3, "
            "H, W)",
        )
        coloured = images.shape[1] == 3
        strip = torch.nn.functional.pad(images, (1, 1, 0, 0), value=0.0 if coloured else -1.0)
        row = numpy(torch.cat(list(strip), 2).permute(1, 2, 0))
        ax.imshow(
            np.clip((row + 1) / 2, 0, 1) if coloured else -row[..., 0],
            cmap="gray",
            vmin=-1,
            vmax=1,
        )
        ax.set_title(name, fontsize=10, pad=3)
        ax.axis("off")
    return figure


@in_paper_style
def score_error(
    panels: Mapping[str, tuple[Tensor, Tensor]],
    axis: Tensor,
    depths: Sequence[float] = (-5, -20, -80),
) -> Figure:
    """Heat maps of ‖s − ∇ log p‖ (log scale, dark is small) with contours of log p, one panel
    a method.

    panels: name ↦ (error, log-density), each (n²,) on `torch.cartesian_prod(axis, axis)`; axis
    (n,). One colour scale, which spans a factor of 1000. depths: the values of log p that get
    a contour.
    """
    from matplotlib.colors import LogNorm

    figure, axes = make_axes(1, len(panels), (2.8 * len(panels), 3.9), sharex=True, sharey=True)
    top = max(error.max().item() for error, _ in panels.values())
    for ax, (name, (error, log_density)) in zip(axes, panels.items()):
        require(
            error.shape == log_density.shape == (len(axis) ** 2,),
            f"plot.score_error: panel {name!r} has errors {tuple(error.shape)} and "
            f"log-densities {tuple(log_density.shape)}, wanted ({len(axis) ** 2},) each: one "
            "value a point of cartesian_prod(axis, axis)",
        )
        across, heat, density = (
            numpy(axis),
            *(numpy(values).reshape(len(axis), -1).T for values in (error, log_density)),
        )
        image = ax.pcolormesh(
            across, across, heat, norm=LogNorm(top / 1000, top), cmap="cividis", rasterized=True
        )
        lines = ax.contour(
            across,
            across,
            density,
            levels=sorted(depths),
            colors="white",
            linewidths=1,
            linestyles="solid",
        )
        ax.clabel(lines, fmt="%g", fontsize=9)
        ax.set(title=name, aspect="equal", xlabel="$x_1$")
        ax.locator_params(nbins=4)
    axes[0].set_ylabel("$x_2$")
    figure.colorbar(
        image,
        ax=list(axes),
        location="bottom",
        shrink=0.9,
        label=r"score error  $\Vert s - \nabla\log p\,\Vert$  (white: $\log p$)",
    )
    return figure
