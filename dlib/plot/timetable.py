"""The timetable of a pipelined sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlib._util import require
from dlib.plot.grammar import CYCLE, in_paper_style
from dlib.plot.grammar import axes as make_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@in_paper_style
def pipeline(calls: Sequence[Sequence[tuple[int, int]]]) -> Figure:
    """Which blocks make a fine step in which network call: a bar for each solve, its number
    the iteration that it serves.

    Solves of one block may overlap, so bars of odd and even iterations are half a row apart.
    calls: for each network call the (iteration, block) pairs that step in it. A call without
    any is the coarse guess's own.
    """
    solves: dict[tuple[int, int], list[int]] = {}
    for call, pairs in enumerate(calls):
        for pair in pairs:
            solves.setdefault(tuple(pair), []).append(call)
    require(bool(solves), "plot.pipeline: no call makes a fine step: there is nothing to draw")
    figure, (ax,) = make_axes(size=(5.6, 3.4))
    for (p, i), when in solves.items():
        row = i + (0.21 if p % 2 else -0.21)
        ax.barh(row, len(when), left=when[0], height=0.4, color=CYCLE[p % len(CYCLE)], lw=0)
        ax.text(
            when[0] + len(when) / 2,
            row,
            str(p + 1),
            ha="center",
            va="center",
            fontsize=9,
            color="white",
        )
    ax.set(
        xlim=(0, len(calls)),
        xlabel="network call  (number: the iteration served)",
        ylabel="block  (noise on top)",
    )
    ax.invert_yaxis()
    ax.locator_params(integer=True)
    return figure
