"""Floor 7: the figure grammar, and the only file that knows matplotlib (imported when a figure is drawn).

The same object has the same axes and colours in every chapter: noise left and data right, five fixed colours for modes,
truth dashed and black, teacher grey, the sampling floor a shaded band, error against network calls on log–log axes. Colours are Okabe and
Ito's, which colour-blind readers can tell apart, and every curve has a marker of its own. Each verb returns a figure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dlib._util import require

INK, GREY, FLOOR = "#1b1b1b", "#8a8a8a", "#d9d3c3"
MODES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8a8a8a", "#1b1b1b")
MARKERS = "osD^vPX*"
PAPER = {
    "font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlesize": 11, "axes.titlelocation": "left",
    "legend.frameon": False, "legend.fontsize": 9.5, "lines.linewidth": 1.8, "figure.facecolor": "white", "mathtext.fontset": "cm",
    "svg.hashsalt": "dlib",
}


def _axes(rows: int = 1, columns: int = 1, size: tuple[float, float] = (5.6, 3.9), **kwargs):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="compressed")
    return figure, np.atleast_1d(figure.subplots(rows, columns, **kwargs)).ravel()


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _in_paper_style(draw: Callable) -> Callable:
    """Draw a verb's figure under the book's settings."""

    @functools.wraps(draw)
    def verb(*args, **kwargs):
        import matplotlib

        with matplotlib.rc_context(PAPER):
            return draw(*args, **kwargs)

    return verb


@_in_paper_style
def endpoints(panels: Mapping[str, Tensor], truth: Tensor, labels: Tensor):
    """Where samplers end, one panel each: points (n, 2) coloured by the mode whose truth they should have reached.

    A thin line ties each point to its exact end point; no visible line means no visible error.
    """
    columns = 2 if len(panels) > 1 else 1
    figure, axes = _axes(-(-len(panels) // columns), columns, (5.6, 2.75 * -(-len(panels) // columns)), sharex=True, sharey=True)
    colours = np.array(MODES)[labels.numpy() % len(MODES)]
    goal = _numpy(truth)
    for ax, (name, points) in zip(axes, panels.items()):
        here = _numpy(points)
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


@_in_paper_style
def trajectories(paths: Tensor, labels: Tensor, title: str = ""):
    """Paths (steps + 1, n, 2) from noise (grey dots) to data (coloured by mode)."""
    figure, (ax,) = _axes(size=(4.6, 4.4))
    line = _numpy(paths)
    for i in range(line.shape[1]):
        ax.plot(*line[:, i].T, color=MODES[int(labels[i]) % len(MODES)], lw=0.8, alpha=0.7)
    ax.scatter(*line[0].T, s=8, color=GREY, zorder=3)
    ax.scatter(*line[-1].T, s=10, c=[MODES[int(k) % len(MODES)] for k in labels], zorder=3)
    ax.set(title=title, aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return figure


@_in_paper_style
def along_path(lam: Tensor, truth: Tensor, fits: Mapping[str, Tensor], symbol: str, step: tuple[float, float] | None = None):
    """A quantity along one trajectory against λ (noise left, data right): the truth dashed, its approximations coloured.

    step: the interval of λ that one solver step covers, shaded.
    """
    figure, (ax,) = _axes(size=(5.6, 3.4))
    ax.plot(_numpy(lam), _numpy(truth), "--", color=INK, label="exact", zorder=5)
    for colour, (name, values) in zip(CYCLE, fits.items()):
        ax.plot(_numpy(lam), _numpy(values), color=colour, label=name)
    if step is not None:
        ax.axvspan(*step, color=FLOOR, alpha=0.5, lw=0)
    ax.set(xlabel="half-log-SNR λ  (noise → data)", ylabel=symbol)
    ax.legend()
    return figure


@_in_paper_style
def convergence(
    errors: Mapping[str, Mapping[int, float]], xlabel: str = "network calls (NFE)", ylabel: str = "RMS end-point error",
    floor: float | None = None, slopes: Sequence[int] = (),
):
    """Error against steps or calls, log–log, one curve a solver; a fan of the given slopes to compare with; floor shaded."""
    require(bool(errors), "plot.convergence: no curves given")
    figure, (ax,) = _axes(size=(5.6, 4.4))
    for colour, marker, (name, curve) in zip(CYCLE, MARKERS, errors.items()):
        ax.loglog(list(curve), list(curve.values()), color=colour, marker=marker, ms=4.5, label=name)
    every = [e for curve in errors.values() for e in curve.values()]
    calls = [n for curve in errors.values() for n in curve]
    if floor is not None:
        ax.axhspan(min(every) / 3, floor, color=FLOOR, alpha=0.6, lw=0)
        ax.text(max(calls), min(every) / 2.7, "sampling floor", ha="right", va="bottom", fontsize=9.5, color=INK)
    ax.set_ylim(min(every) / 3, max(every) * 2)
    if slopes:
        _fan(ax, slopes, min(calls) * 1.1, (floor or max(every)) / 4)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _plain_ticks(ax, sorted(set(calls)))
    ax.legend(loc="lower left", ncols=2 if len(errors) > 4 else 1)
    return figure


def _fan(ax, orders: Sequence[int], left: float, top: float) -> None:
    """Lines from one point that fall with the given slopes: what orders of convergence look like on these axes."""
    for order in orders:
        end = top * 2.0**-order
        ax.loglog([left, 2 * left], [top, end], color=INK, lw=1)
        ax.text(2.05 * left, end, f"slope {order}" if order == orders[0] else str(order), va="center", fontsize=9.5)


def _plain_ticks(ax, values: list[int]) -> None:
    keep = [v for i, v in enumerate(values) if i in (0, len(values) - 1) or not any(v < 1.6 * w for w in values[:i][-1:])]
    ax.set_xticks(keep, [str(v) for v in keep])
    ax.set_xticks([], minor=True)


@_in_paper_style
def pictures(rows: Mapping[str, Tensor]):
    """Named rows of small pictures (n, 1, H, W): −1 is paper, 1 is ink, beyond is cut; same seeds in the same columns."""
    count, height = len(next(iter(rows.values()))), 5.6 / len(next(iter(rows.values())))
    figure, axes = _axes(len(rows), 1, (5.6, len(rows) * (height + 0.3)))
    for ax, (name, images) in zip(axes, rows.items()):
        require(len(images) == count, f"plot.pictures: row {name!r} has {len(images)} pictures, the first row {count}")
        strip = torch.nn.functional.pad(images[:, 0], (1, 1, 0, 0), value=-1.0)
        ax.imshow(-_numpy(torch.cat(list(strip), 1)), cmap="gray", vmin=-1, vmax=1)
        ax.set_title(name, fontsize=10, pad=3)
        ax.axis("off")
    return figure


@_in_paper_style
def score_error(panels: Mapping[str, tuple[Tensor, Tensor]], axis: Tensor, depths: Sequence[float] = (-5, -20, -80)):
    """Heat maps of ‖s − ∇ log p‖ (log scale, dark is small) with contours of log p, one panel a method.

    panels: name ↦ (error, log-density), each (n²,) on `torch.cartesian_prod(axis, axis)`; axis (n,). One colour scale, which
    spans a factor of 1000. depths: the values of log p that get a contour.
    """
    from matplotlib.colors import LogNorm

    figure, axes = _axes(1, len(panels), (2.8 * len(panels), 3.9), sharex=True, sharey=True)
    top = max(error.max().item() for error, _ in panels.values())
    for ax, (name, (error, log_density)) in zip(axes, panels.items()):
        require(error.shape == log_density.shape == (len(axis) ** 2,), f"plot.score_error: panel {name!r} has errors {tuple(error.shape)} and "
                f"log-densities {tuple(log_density.shape)}, wanted ({len(axis) ** 2},) each: one value a point of cartesian_prod(axis, axis)")
        across, heat, density = _numpy(axis), *(_numpy(values).reshape(len(axis), -1).T for values in (error, log_density))
        image = ax.pcolormesh(across, across, heat, norm=LogNorm(top / 1000, top), cmap="cividis", rasterized=True)
        lines = ax.contour(across, across, density, levels=sorted(depths), colors="white", linewidths=1, linestyles="solid")
        ax.clabel(lines, fmt="%g", fontsize=9)
        ax.set(title=name, aspect="equal", xlabel="$x_1$")
        ax.locator_params(nbins=4)
    axes[0].set_ylabel("$x_2$")
    figure.colorbar(image, ax=list(axes), location="bottom", shrink=0.9, label=r"score error  $\Vert s - \nabla\log p\,\Vert$  (white: $\log p$)")
    return figure
