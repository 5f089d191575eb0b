"""Figures of distilled students: modes, masses, gradients, jumps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlib._util import require
from dlib.mixtures import Mixture
from dlib.plot.grammar import CYCLE, FLOOR, GREY, INK, MODES, in_paper_style, numpy
from dlib.plot.grammar import axes as make_axes
from dlib.plot.lines import curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def modes(panels: Mapping[str, Tensor], mixture: Mixture, within: float = 3.0) -> Figure:
    """Samples (n, 2) of several generators, one panel each: coloured by the mode they lie in,
    grey where they lie in none.

    Circles mark the modes at `within` standard deviations; a sample lies in a mode if it is
    inside its circle.
    """
    figure, axes = make_axes(
        1, len(panels), (5.6, 0.6 + 5.2 / len(panels)), sharex=True, sharey=True
    )
    for ax, (name, points) in zip(axes, panels.items()):
        k = mixture.modes_of(points, within).numpy()
        ax.scatter(
            *numpy(points).T,
            s=5,
            c=np.array((*MODES, GREY))[np.where(k < 0, len(MODES), k % len(MODES))],
            linewidths=0,
            rasterized=True,
        )
        for (x, y), std in zip(numpy(mixture.means), numpy(mixture.stds)):
            angle = np.linspace(0, 2 * np.pi, 60)
            ax.plot(
                x + within * std * np.cos(angle),
                y + within * std * np.sin(angle),
                color=GREY,
                lw=0.8,
            )
        ax.set(title=name, aspect="equal", xlabel="$x_1$")
    axes[0].set_ylabel("$x_2$")
    return figure


@in_paper_style
def ledger(masses: Mapping[str, Tensor], truth: Tensor) -> Figure:
    """The mode ledger: which share of its samples a generator puts into each mode (K,), beside
    the true weights (dashed).

    The last group, "none", is what lies in no mode.
    """
    figure, (ax,) = make_axes(size=(5.6, 3.2))
    place, width = np.arange(len(truth) + 1), 0.8 / len(masses)
    for i, (colour, (name, mass)) in enumerate(zip((GREY, *CYCLE), masses.items())):
        share = np.append(numpy(mass), 1 - float(mass.sum()))
        ax.bar(
            place + (i - (len(masses) - 1) / 2) * width,
            share,
            width,
            color=colour,
            hatch=("", "///", "...", "xx")[i % 4],
            edgecolor="white",
            label=name,
        )
    ax.hlines(
        numpy(truth),
        place[:-1] - 0.45,
        place[:-1] + 0.45,
        color=INK,
        linestyles="dashed",
        label="true weight",
    )
    ax.set(xlabel="mode", ylabel="share of the samples")
    ax.set_xticks(place, [*map(str, place[:-1] + 1), "none"])
    ax.legend()
    return figure


def audit(
    x: Tensor, exact: Mapping[str, Tensor], found: Mapping[str, Tensor], xlabel: str, ylabel: str
) -> Figure:
    """A gradient audit: exact derivatives as dashed curves over x, what a loss hands on as
    markers.
    """
    figure = curves(
        {},
        {name: (x, values) for name, values in exact.items()},
        points={name: (x, values) for name, values in found.items()},
        xlabel=xlabel,
        ylabel=ylabel,
    )
    figure.axes[0].axhline(0, color=GREY, lw=0.8)
    return figure


@in_paper_style
def commutator(panels: Mapping[str, Tensor], lam: Tensor) -> Figure:
    """Heat maps of the flow-map commutator (log scale, dark is small): jump from λ_i, or
    follow the flow to λ_j and jump from there.

    panels: name ↦ (n, n) distances of the two ends, of which those above the diagonal, i < j,
    are shown: rows are the start i, columns the level j, noise at the top left. lam: (n,), the
    levels, rising. One colour scale, which spans a factor of 100.
    """
    from matplotlib.colors import LogNorm

    n = len(lam)
    for name, matrix in panels.items():
        require(
            matrix.shape == (n, n),
            f"plot.commutator: panel {name!r} has shape {tuple(matrix.shape)}, wanted ({n}, "
            f"{n}): one row and one column a level",
        )
    above = torch.ones(n, n, dtype=torch.bool).triu(1)
    top = max(matrix[above].max().item() for matrix in panels.values())
    figure, axes = make_axes(1, len(panels), (2.8 * len(panels), 3.9), sharey=True)
    for ax, (name, matrix) in zip(axes, panels.items()):
        shown = np.where(above.numpy(), numpy(matrix), np.nan)
        image = ax.imshow(shown, norm=LogNorm(top / 100, top), cmap="cividis")
        places = [0, n // 2, n - 1]
        ax.set(title=name, xlabel="follow the flow to $\\lambda_j$")
        ax.set_xticks(places, [f"{lam[i]:.1f}" for i in places])
        ax.set_yticks(places, [f"{lam[i]:.1f}" for i in places])
    axes[0].set_ylabel("start at $\\lambda_i$")
    figure.colorbar(
        image, ax=list(axes), location="bottom", shrink=0.9, label="distance of the two ends"
    )
    return figure


@in_paper_style
def scores(
    panels: Mapping[str, Mapping[str, tuple[float, float]]],
    bars: Mapping[str, float] | None = None,
) -> Figure:
    """Methods in rows, a score a panel: a point each, with its error to both sides.

    panels: score ↦ {method ↦ (value, error)}; the rows are the first panel's, and a method
    that another panel lacks has no point there. bars: score ↦ what was asked for, dashed. The
    axes are logarithmic. ValueError for a score that is not positive.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rows = list(next(iter(panels.values())))
    width, height = 2.0 + 1.8 * len(panels), 0.9 + 0.24 * len(rows)
    figure, axes = make_axes(1, len(panels), (width, height), sharey=True)
    for ax, (score, found) in zip(axes, panels.items()):
        for name, (value, error) in found.items():
            require(
                value > 0,
                f"plot.scores: {score} of {name!r} is {value:g}, wanted a positive number: the "
                "axes are logarithmic",
            )
            low = min(error, 0.99 * value)  # an error as large as the value would leave the axis
            ax.errorbar(
                value, rows.index(name), xerr=[[low], [error]], fmt="o", ms=4.5, color=CYCLE[0]
            )
        if bars and score in bars:
            ax.axvline(bars[score], color=INK, ls="--", lw=1)
        ax.set(xscale="log", xlabel=score, ylim=(len(rows) - 0.5, -0.5))
        low, high = ax.get_xlim()
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 1e3 * low else (1.0,)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(axis="y", color=FLOOR, lw=0.6)
    axes[0].set_yticks(range(len(rows)), rows)
    return figure
