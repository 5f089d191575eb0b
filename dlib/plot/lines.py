"""Curves, the verb that most figures are made of, and what makes a training history a
curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlib._util import require
from dlib.plot.grammar import CYCLE, FLOOR, INK, MARKERS, axes, in_paper_style, numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = Tensor | Sequence[float]
Line = tuple[Values, Values]
EVERY = 24  # up to so many points of a line each have a marker


@in_paper_style
def curves(
    lines: Mapping[str, Line],
    truth: Mapping[str, Line | float] | None = None,
    *,
    points: Mapping[str, Line] | None = None,
    xlabel: str,
    ylabel: str,
    log: str = "",
    xlim: tuple[float | None, float | None] | None = None,
    ylim: tuple[float | None, float | None] | None = None,
    band: tuple[float, float] | None = None,
    floor: float | None = None,
    height: float = 3.6,
) -> Figure:
    """Named curves on one pair of axes, each with a colour and a marker of its own; the truth
    dashed.

    lines: name ↦ (x, y), each n numbers, a tensor or a sequence. If y has one number less than
    x, they are stairs, one step between neighbouring x. truth: name ↦ (x, y), or a number for
    a truth that is the same for every x. points: name ↦ (x, y), markers alone, for what was
    measured beside a curve that was derived. log: the logarithmic axes, "", "x", "y" or "xy".
    xlim, ylim: the ends of an axis, None where the data decide; xlim = (high, low) turns the
    axis round. band: an interval of x, shaded. floor: y below it is shaded as the sampling
    floor. height: in inches, of a figure 5.6 wide.

    Raises ValueError for lengths that do not match, more than eight curves, and what a
    logarithmic axis cannot show.

    >>> figure = curves({"error": ([1, 2, 4], [0.4, 0.1, 0.02])}, xlabel="steps",
    ...                 ylabel="RMS error", log="xy")
    >>> figure.axes[0].get_xscale()
    'log'
    """
    require(log in ("", "x", "y", "xy"), f"plot.curves: log = {log!r}, wanted '', 'x', 'y', 'xy'")
    most = max(len(lines), len(points or {}))
    require(most > 0, "plot.curves: no curves given")
    require(
        most <= len(CYCLE), f"plot.curves: {most} curves, and {len(CYCLE)} colours: draw fewer"
    )
    figure, (ax,) = axes(size=(5.6, height))
    ax.set(xscale="log" if "x" in log else "linear", yscale="log" if "y" in log else "linear")
    if band is not None:
        ax.axvspan(*band, color=FLOOR, alpha=0.5, lw=0)
    style = {"ls": "--", "color": INK, "lw": 1.2, "zorder": 5}
    for name, line in (truth or {}).items():
        if isinstance(line, tuple):
            ax.plot(*_checked(name, line, log), label=name, **style)
        else:
            ax.axhline(float(line), label=name, **style)
    for i, (name, line) in enumerate(lines.items()):
        x, y = _checked(name, line, log)
        look = {"color": CYCLE[i], "marker": MARKERS[i], "ms": 4.5}
        if len(y) < len(x):
            ax.stairs(y, x, color=CYCLE[i], lw=1.8, baseline=None, label=name)
            ax.plot((x[1:] + x[:-1])[::3] / 2, y[::3], ls="", **look)
        else:  # curves that agree have their markers side by side
            step = len(x) // 8 if len(x) > EVERY else 1
            ax.plot(x, y, markevery=(i * step // len(lines), step), label=name, **look)
    for i, (name, line) in enumerate((points or {}).items()):
        ax.plot(*_checked(name, line, log), MARKERS[i], color=CYCLE[i], ms=5, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if xlim is not None:
        ax.set_xlim(xlim)
    if ylim is not None:
        ax.set_ylim(ylim)
    if floor is not None:
        _shade(ax, floor)
    ax.legend()
    return figure


def running_mean(values: Values, over: int = 20) -> tuple[Tensor, Tensor]:
    """(steps, means), a line for `curves`: what a loss curve shows once its noise is averaged
    away.

    values: one number a training step, such as `perform(…)["student/loss"]`, n of them. The
    mean at step k, counted from 1, is that of the last `over` steps, so the line begins at k =
    over and has n − over + 1 points. Raises ValueError for fewer than `over` values.

    >>> steps, means = running_mean([4.0, 2.0, 1.0, 1.0], over=2)
    >>> steps.tolist(), means.tolist()
    ([2, 3, 4], [3.0, 1.5, 1.0])
    """
    values = torch.as_tensor(values, dtype=torch.float64)
    require(
        1 <= over <= len(values),
        f"plot.running_mean: a mean over {over} steps of {len(values)}: wanted from 1 to all",
    )
    return torch.arange(over, len(values) + 1), values.unfold(0, over, 1).mean(1)


def _shade(ax, floor: float) -> None:
    """The sampling floor, between what the axis already shows."""
    ends = ax.get_ylim()
    ax.axhspan(ends[0], floor, color=FLOOR, alpha=0.6, lw=0)
    ax.set_ylim(ends)
    label = {"ha": "right", "va": "bottom", "fontsize": 9.5, "color": INK}
    ax.text(0.99, 0.01, "sampling floor", transform=ax.transAxes, **label)


def _checked(name: str, line: Line, log: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a line as matplotlib takes them."""
    x, y = (numpy(v) if isinstance(v, Tensor) else np.asarray(v, float) for v in line)
    require(
        x.ndim == y.ndim == 1 and len(x) - len(y) in (0, 1) and len(y) > 0,
        f"plot.curves: {name!r} has x of shape {x.shape} and y of shape {y.shape}: wanted (n,) "
        "both, or n − 1 values of y for stairs",
    )
    for axis, values in (("x", x), ("y", y)):
        require(
            axis not in log or not (values <= 0).any(),
            f"plot.curves: {name!r} has {axis} = {values.min():g}, which a logarithmic axis "
            "cannot show",
        )
    return x, y
