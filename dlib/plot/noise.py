"""Figures of what happens as the noise level changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from dlib._util import require
from dlib.plot.grammar import CYCLE, INK, MARKERS, in_paper_style, numpy
from dlib.plot.grammar import axes as make_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def bridge(axis: Tensor, log_densities: Mapping[str, Tensor], depth: float = 20.0) -> Figure:
    """log p_σ along a line through the modes, one curve a noise level, each from its own peak
    at 0 down to −depth nats.

    The depth of the valley is what a local sampler must climb to change modes. axis: (n,);
    log_densities: name ↦ (n,).
    """
    figure, (ax,) = make_axes(size=(5.6, 3.6))
    for i, (colour, marker, (name, values)) in enumerate(
        zip(CYCLE, MARKERS, log_densities.items())
    ):
        require(
            values.shape == axis.shape,
            f"plot.bridge: curve {name!r} has shape {tuple(values.shape)}, the axis "
            f"{tuple(axis.shape)}",
        )
        every = (2 + i, max(1, len(axis) // 10))
        ax.plot(
            numpy(axis),
            numpy(values - values.max()),
            color=colour,
            marker=marker,
            markevery=every,
            ms=4.5,
            label=name,
        )
    ax.set(
        xlabel="$x_1$",
        ylabel=r"$\log p_\sigma(x)$ below its peak, nats",
        ylim=(-depth, 0.05 * depth),
    )
    ax.legend(loc="lower center", ncols=2)  # below the valley
    return figure


@in_paper_style
def annealing(
    truth: tuple[Sequence[float], Sequence[float]],
    runs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    ylabel: str,
) -> Figure:
    """A number followed down a ladder of noise levels (log scale, noise left); the truth
    dashed. All curves are pairs (sigmas, values).
    """
    figure, (ax,) = make_axes(size=(5.6, 3.6))
    ax.semilogx(*truth, "--", color=INK, lw=1.2, label="exact", zorder=5)
    for colour, marker, (name, (sigmas, values)) in zip(CYCLE, MARKERS, runs.items()):
        require(
            len(sigmas) == len(values),
            f"plot.annealing: run {name!r} has {len(sigmas)} levels and {len(values)} values",
        )
        ax.semilogx(sigmas, values, color=colour, marker=marker, ms=4.5, label=name)
    ax.invert_xaxis()
    ax.set(xlabel=r"noise level $\sigma$  (noise → data)", ylabel=ylabel)
    ax.legend()
    return figure


@in_paper_style
def per_lam(
    curves: Mapping[str, tuple[Tensor, Tensor]],
    ylabel: str,
    truth: tuple[Tensor, Tensor] | None = None,
    log: bool = False,
) -> Figure:
    """A quantity per unit of λ (noise left, data right), so that areas are totals; the truth
    dashed.

    curves: name ↦ (lam (n,), values): n values are a line, n − 1 are stairs, one a step
    between neighbouring λ. log: a logarithmic axis instead of one from 0.
    """
    figure, (ax,) = make_axes(size=(5.6, 3.6))
    if truth is not None:
        ax.plot(*map(numpy, truth), "--", color=INK, lw=1.2, label="exact", zorder=5)
    for colour, marker, (name, (lam, values)) in zip(CYCLE, MARKERS, curves.items()):
        require(
            len(lam) - len(values) in (0, 1),
            f"plot.per_lam: curve {name!r} has {len(values)} values on {len(lam)} points: "
            "wanted as many, or one less for stairs",
        )
        if len(values) == len(lam):
            ax.plot(
                numpy(lam),
                numpy(values),
                color=colour,
                marker=marker,
                markevery=max(1, len(lam) // 8),
                ms=4.5,
                label=name,
            )
        else:
            ax.stairs(numpy(values), numpy(lam), color=colour, lw=1.8, baseline=None, label=name)
            ax.plot(
                numpy(lam[1:] + lam[:-1])[::3] / 2,
                numpy(values)[::3],
                marker,
                color=colour,
                ms=4.5,
            )
    if log:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    ax.set(xlabel="half-log-SNR λ  (noise → data)", ylabel=ylabel)
    ax.legend()
    return figure
