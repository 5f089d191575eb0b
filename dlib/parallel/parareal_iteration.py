"""Parareal: coarse steps guess where every block begins, fine steps in all blocks at
once correct the guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.parallel.lockstep import Lockstep, Parallel, Step, begin, finite
from dlib.schedule import NoiseLevel
from dlib.solvers.base import Solver
from dlib.solvers.first_order import ddim


def parareal(
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    fine: Solver = ddim,
    coarse: Solver = ddim,
    blocks: int | None = None,
    tol: float = 1e-3,
    cond: Any = None,
    draw: Draw | None = None,
    each: Callable[[int, float], None] | None = None,
) -> Parallel:
    """Sample by parareal iteration, pipelined (Lions et al. 2001; for diffusion, Selvam et al.
    2024, SRDS, algorithm 1).

    With F the fine steps of a block and G one coarse step over it, iteration p corrects where
    block i + 1 begins to U_{i+1}^p ← F(U_i^{p−1}) + [G(U_i^p) − G(U_i^{p−1})]. After p
    iterations the first p blocks are those of `sample`, bit for bit; it stops when the end
    moves by at most tol·σ (root mean square, largest over the batch), at p = K at the latest.
    Pipelined: every step whose x is known is made in the next network call, of whatever block
    and iteration.

    blocks: K, by default ⌈√N⌉; each has ⌈N/K⌉ steps, the last may have fewer. coarse: a solver
    without noise. fine: may be noisy; its noise is that of `sample`. each: called with
    (iteration, change of the end). residuals: (iterations, K + 1).

    >>> from dlib import Draw, exact, levels, parareal, sample, vp
    >>> from dlib.mixtures import Mixture
    >>> two = Mixture(torch.ones(2) / 2, torch.tensor([[-1.0], [1.0]]), torch.full((2,), 0.3))
    >>> model, walk = exact(two, vp()), levels(vp(), 100)
    >>> x = Draw(0).normal((4, 1), torch.float64)
    >>> found = parareal(model, x, walk)
    >>> off = (found.x - sample(model, x, walk)).abs().max()
    >>> bool(off < 1e-4), found.depth < 100 < found.work
    (True, True)
    """
    residuals = []
    for p, found in enumerate(
        _begun("parareal", model, x, levels, fine, coarse, blocks, tol, cond, draw)
    ):
        if p:
            residuals.append(found.change)
            if each is not None:
                each(p, found.change[-1].item())
    return Parallel(found.starts[-1], p, found.depth, found.work, torch.stack(residuals))


class Iteration(NamedTuple):
    """Where `iterations` stands: the starts U_0 … U_K of the blocks, U_K the end; depth and
    work so far (see `Parallel`).

    change (K + 1,): how far the iteration moved each start, over σ; NaN for the coarse guess.
    edges: the step each block begins with. timetable: for each round of steps so far the fine
    ones among them, as (iteration that began the solve, block); see `plot.pipeline`.
    """

    starts: list[Tensor]
    change: Tensor
    edges: list[int]
    depth: int
    work: int
    timetable: list[list[tuple[int, int]]]


def iterations(
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    fine: Solver = ddim,
    coarse: Solver = ddim,
    blocks: int | None = None,
    tol: float = 1e-3,
    cond: Any = None,
    draw: Draw | None = None,
) -> Iterator[Iteration]:
    """`parareal` as a generator, as `walk` is of `sample`: yield the coarse guess, then the
    blocks' starts after each iteration.
    """
    return _begun("iterations", model, x, levels, fine, coarse, blocks, tol, cond, draw)


def _begun(name, model, x, levels, fine, coarse, blocks, tol, cond, draw) -> Iterator[Iteration]:
    levels, noises = begin(name, model, x, levels, fine, tol, draw)
    require(
        coarse.memoryless and not coarse.noisy,
        f"{name}: {coarse.__name__} cannot be the coarse solver: it must have neither memory "
        "nor noise, e.g. ddim",
    )
    steps = len(levels) - 1
    blocks = math.ceil(steps**0.5) if blocks is None else blocks
    require(
        1 <= blocks <= steps, f"{name}: {blocks} blocks for {steps} steps: wanted 1 … {steps}"
    )
    length = math.ceil(steps / blocks)
    return _Pipeline(
        model, x, levels, noises, fine, coarse, [*range(0, steps, length), steps], cond
    ).run(tol)


class _Pipeline:
    """What is known so far, each by (iteration p, block i): the start U_i^p, its fine and its
    coarse end; and the fine solves under way.

    The first p starts are final after p iterations, so U_i^p is kept under (min(p, i), i).
    """

    def __init__(self, model, x, levels, noises, fine, coarse, edges, cond):
        self.levels, self.noises, self.fine, self.coarse, self.edges = (
            levels,
            noises,
            fine,
            coarse,
            edges,
        )
        self.blocks, self.lockstep = len(edges) - 1, Lockstep(model, cond)
        self.starts: dict[tuple[int, int], Tensor] = {}
        self.fine_ends: dict[tuple[int, int], Tensor] = {}
        self.coarse_ends: dict[tuple[int, int], Tensor] = {}
        # the next fine step and its x
        self.under_way: dict[tuple[int, int], tuple[int, Tensor]] = {}
        self.new: list[tuple[int, int]] = []  # starts whose coarse step is due
        self.timetable: list[list[tuple[int, int]]] = []
        self._learn(0, 0, x)

    def run(self, tol: float) -> Iterator[Iteration]:
        for p in range(self.blocks + 1):
            while (p, self.blocks) not in self.starts:
                self._tick()
            change = torch.stack([self._change(p, i) for i in range(self.blocks + 1)])
            starts = [self.starts[min(p, i), i] for i in range(self.blocks + 1)]
            yield Iteration(
                starts,
                change,
                self.edges,
                self.lockstep.depth,
                self.lockstep.work,
                list(self.timetable),
            )
            if change[-1] <= tol:
                return

    def _learn(self, p: int, i: int, x: Tensor) -> None:
        self.starts[p, i] = x
        if i < self.blocks:
            self.under_way[p, i] = self.edges[i], x
            self.new.append((p, i))

    def _tick(self) -> None:
        """One network call that advances all that can be advanced; then all starts that
        follow.
        """
        fine, coarse, self.new = list(self.under_way), self.new, []
        self.timetable.append(fine)
        made = self._steps(fine, coarse)
        self.coarse_ends.update(zip(coarse, made[len(fine) :]))
        due = set(coarse)
        for (p, i), x in zip(fine, made):
            n = self.under_way[p, i][0] + 1
            self.under_way[p, i] = n, x
            if n == self.edges[i + 1]:
                del self.under_way[p, i]
                self.fine_ends[p, i] = x
                due.add((p + 1, i))
        for p, i in sorted(due, key=lambda at: at[::-1]):
            if (x := self._next(p, i)) is not None:
                self._learn(p, i + 1, x)

    def _steps(self, fine: list[tuple[int, int]], coarse: list[tuple[int, int]]) -> list[Tensor]:
        """The next step of each fine solve, then the coarse steps, all in one network call."""
        levels, ns = self.levels, [self.under_way[key][0] for key in fine]
        tasks = [
            (self.fine, Step(self.under_way[key][1], levels[n], levels[n + 1], self.noises[n]))
            for key, n in zip(fine, ns)
        ]
        tasks += [
            (
                self.coarse,
                Step(self.starts[p, i], levels[self.edges[i]], levels[self.edges[i + 1]], None),
            )
            for p, i in coarse
        ]
        made = self.lockstep.together(tasks)
        finite(
            "parareal",
            made,
            [1 + p for p, _ in fine + coarse],
            ns + [self.edges[i] for _, i in coarse],
            levels,
        )
        return made

    def _next(self, p: int, i: int) -> Tensor | None:
        """U_{i+1}^p, or None while something that it is made of is missing."""
        fine, coarse = self.fine_ends, self.coarse_ends
        if p == 0:
            return coarse.get((0, i))
        if p == i + 1 or (p - 1, i) not in fine:
            return fine.get((p - 1, i))  # U_i^p = U_i^{p−1}: the bracket is zero
        if (p, i) not in coarse:
            return None
        return fine[p - 1, i] + (coarse[p, i] - coarse[p - 1, i])

    def _change(self, p: int, i: int) -> Tensor:
        """How far U_i moved in iteration p, over σ; NaN for p = 0."""
        if p == 0:
            return torch.tensor(math.nan, dtype=torch.float64)
        x, before = self.starts[min(p, i), i], self.starts[min(p - 1, i), i]
        sigma = self.levels[self.edges[i]].sigma or self.levels[-2].sigma
        return (x - before).flatten(1).square().mean(1).sqrt().max().double().cpu() / sigma
