"""Many runs of a solver at once: whenever all of them wait for the network, their
questions become one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser, Net
from dlib.schedule import NoiseLevel
from dlib.solvers.base import Solver
from dlib.solvers.driver import check


class Parallel(NamedTuple):
    """What sampling in parallel found, and what it cost.

    x (B, *shape) at the last level. sweeps: rounds of refinement. depth: network calls made
    one after another, each on a batch: the latency, where a batch is as fast as a sample.
    work: evaluations of the batch x, what `sample` calls NFE. residuals (sweeps, points): the
    change of each point in each sweep, largest over the batch; NaN where none was made.
    """

    x: Tensor
    sweeps: int
    depth: int
    work: int
    residuals: Tensor


class Step(NamedTuple):
    """One solver step from x at level `a` to level `b`."""

    x: Tensor
    a: NoiseLevel
    b: NoiseLevel
    noise: Tensor | None


class Lockstep:
    """Makes steps side by side and counts them. Solvers are pure, so a step may be begun anew
    for each answer of the network.

    Each step is computed with float levels on x's own batch, exactly as `sample` does; the
    network alone sees one large batch. So a step made here equals the step made alone, bit for
    bit, if the network's rows do not depend on their neighbours.
    """

    def __init__(self, model: Denoiser, cond: Any = None):
        self.model, self.cond, self.depth, self.work = model, cond, 0, 0

    def __call__(self, solver: Solver, steps: Sequence[Step]) -> list[Tensor]:
        """x at level `b` of each step."""
        return self.together([(solver, step) for step in steps])

    def together(self, tasks: Sequence[tuple[Solver, Step]]) -> list[Tensor]:
        """The same for steps of several solvers."""
        results, answers, waiting = [None] * len(tasks), [[] for _ in tasks], range(len(tasks))
        while waiting:
            questions = {}
            for i in waiting:
                try:
                    results[i] = self._step(*tasks[i], answers[i])
                except _Question as question:
                    questions[i] = question.args
            if questions:
                self.depth, self.work = self.depth + 1, self.work + len(questions)
                for i, raw in self._ask(questions):
                    answers[i].append(raw)
            waiting = list(questions)
        return results

    def _step(self, solver: Solver, step: Step, answers: list[Tensor]) -> Tensor:
        left = iter(answers)

        def wire(net: Net) -> Net:
            def answered(x: Tensor, time: Tensor, cond: Any) -> Tensor:
                for raw in left:
                    return raw
                raise _Question(net, x, time, cond)

            return answered

        model = self.model.rewired(wire)
        if step.b.sigma == 0:
            return model(step.x, step.a, self.cond).mix(step.b.alpha, 0.0)
        return solver(model, step.x, step.a, step.b, None, step.noise, self.cond)[0]

    def _ask(self, questions: dict[int, tuple]) -> Iterator[tuple[int, Tensor]]:
        """The answer to each question, from one call of each network that is asked."""
        for asked in {net: None for net, *_ in questions.values()}:
            same = {i: rest for i, (net, *rest) in questions.items() if net is asked}
            xs, times, conds = zip(*same.values())
            raw = asked(torch.cat(xs), torch.cat(times), _stack(conds))
            yield from zip(same, raw.split([len(x) for x in xs]))


class _Question(Exception):
    """(net, x, time, cond): what a step would ask which network."""


def _stack(conds: Sequence[Any]) -> Any:
    if isinstance(conds[0], Mapping):
        return {key: _stack([cond[key] for cond in conds]) for key in conds[0]}
    return torch.cat(conds) if isinstance(conds[0], Tensor) else conds[0]


def begin(
    name: str,
    model: Denoiser,
    x: Tensor,
    levels: Sequence[NoiseLevel],
    solver: Solver,
    tol: float,
    draw: Draw | None,
) -> tuple:
    """Check the arguments that all parallel samplers share; return (levels, the noise of each
    step, drawn as `sample` draws it).
    """
    levels = list(levels)
    check(model, x, levels, solver, draw)
    require(
        solver.memoryless,
        f"{name}: {solver.__name__} remembers former steps, but steps made at the same time "
        "have none: "
        "use a solver without memory, such as ddim, heun, dpm_solver_2, dpm_solver_3 or "
        "ancestral",
    )
    require(
        tol >= 0,
        f"{name}: tol = {tol:g}, wanted 0 (the sequential result exactly) or more, e.g. 1e-3",
    )
    noises = [draw.normal(x) if solver.noisy and b.sigma > 0 else None for b in levels[1:]]
    return levels, noises


def finite(
    name: str,
    values: Sequence[Tensor],
    sweeps: Sequence[int],
    steps: Sequence[int],
    levels: Sequence[NoiseLevel],
) -> None:
    """Raise FloatingPointError, naming sweep and step, if one of `values`, what `steps` of
    `sweeps` gave, is not finite.
    """
    ok = torch.stack([value.isfinite().all() for value in values]).tolist()
    if not all(ok):
        step, sweep = min(
            (step, sweep) for step, sweep, fine in zip(steps, sweeps, ok) if not fine
        )
        raise FloatingPointError(
            f"{name}: x is no longer finite in sweep {sweep}, after step {step + 1} of "
            f"{len(levels) - 1} (from t = {levels[step].t:g}): "
            "look at the network's output there; the first sweeps visit points that no sampler "
            "does: "
            "try a smaller window, or more blocks for parareal"
        )
