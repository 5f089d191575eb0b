"""Figures of what happens as the noise level changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from dlib._util import require
from dlib.plot.grammar import in_paper_style
from dlib.plot.lines import curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def bridge(axis: Tensor, log_densities: Mapping[str, Tensor], depth: float = 20.0) -> Figure:
    """log p_σ along a line through the modes, one curve a noise level, each from its own peak
    at 0 down to −depth nats.

    The depth of the valley is what a local sampler must climb to change modes. axis: (n,);
    log_densities: name ↦ (n,).
    """
    for name, values in log_densities.items():
        require(
            values.shape == axis.shape,
            f"plot.bridge: curve {name!r} has shape {tuple(values.shape)}, the axis "
            f"{tuple(axis.shape)}",
        )
    figure = curves(
        {name: (axis, values - values.max()) for name, values in log_densities.items()},
        xlabel="$x_1$",
        ylabel=r"$\log p_\sigma(x)$ below its peak, nats",
        ylim=(-depth, 0.05 * depth),
    )
    figure.axes[0].legend(loc="lower center", ncols=2)  # below the valley
    return figure


def annealing(
    truth: tuple[Sequence[float], Sequence[float]],
    runs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    ylabel: str,
) -> Figure:
    """A number followed down a ladder of noise levels (log scale, noise left); the truth
    dashed. All curves are pairs (sigmas, values).
    """
    every = [sigma for sigmas, _ in (truth, *runs.values()) for sigma in sigmas]
    return curves(
        runs,
        {"exact": truth},
        xlabel=r"noise level $\sigma$  (noise → data)",
        ylabel=ylabel,
        log="x",
        xlim=(1.2 * max(every), min(every) / 1.2),
    )


def per_lam(
    lines: Mapping[str, tuple[Tensor, Tensor]],
    ylabel: str,
    truth: tuple[Tensor, Tensor] | None = None,
    log: bool = False,
) -> Figure:
    """A quantity per unit of λ (noise left, data right), so that areas are totals; the truth
    dashed.

    lines: name ↦ (lam (n,), values): n values are a line, n − 1 are stairs, one a step
    between neighbouring λ. log: a logarithmic axis instead of one from 0.
    """
    return curves(
        lines,
        None if truth is None else {"exact": truth},
        xlabel="half-log-SNR λ  (noise → data)",
        ylabel=ylabel,
        log="y" if log else "",
        ylim=None if log else (0, None),
    )
