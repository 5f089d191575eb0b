"""What the losses of Part III cost besides their network calls, on the tiny random U-Net of
Stable Diffusion's classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import dlib
from bench.report import Report
from bench.timing import Round, Times, interleave
from dlib.forward_mode import tangent
from dlib.recipes import Recipe, ect, knowledge, lcm, pcm, progressive, scm, sct, tcd

NOTE = """Milliseconds of processor time (of all threads, so that other programs count less) of
one training step's forward and backward pass: the loss of a recipe, against its own network
calls and nothing else: the teacher's and the target's without gradient (guided, on 2 × {batch}
latents), the student's on {batch} with, and the backward pass of a plain mean. A derivative in
forward mode counts as what it costs alone. What is left is the loss's own work: draws, noise
levels, noising, the solver step, jumps, weights of references, distance.

The tiny random U-Net of `full_scale.families.tiny` ({millions:.1f} M parameters), latents
({batch}, 4, 16, 16), float32, CPU, one thread. A loss and its bare calls run right after each
other, {repeats} times, the other first every second time. The ratio is the median of theirs over
these pairs, with its standard error: a clock that wavers within a minute is nearly the same for
two neighbours. The real U-Net is a thousand times larger and the loss's own work is not. Guided
distillation is left out: this U-Net has no input for ω."""


class Calls(NamedTuple):
    """What a loss asks besides the student, whose call has a gradient: guided evaluations,
    plain ones, and derivatives in forward mode.
    """

    guided: int = 0
    plain: int = 0
    slopes: int = 0

    @property
    def name(self) -> str:
        """As a row says it."""
        more = [f"{n} {kind}" for kind, n in self._asdict().items() if n]
        return "bare calls: " + " + ".join([*more, "student"])


def run(batch: int = 8, repeats: int = 60) -> Report:
    """ms a step of each loss and of its bare calls, and their ratio with its standard error."""
    from full_scale.families.sd import denoiser
    from full_scale.families.tiny import tiny_pipeline

    pipe = tiny_pipeline()
    model = denoiser(pipe.unet, pipe.scheduler.config)
    torch.set_num_threads(1)
    note = NOTE.format(
        batch=batch,
        repeats=repeats,
        millions=sum(w.numel() for w in pipe.unet.parameters()) / 1e6,
    )
    rows = [
        [name, calls, loss.low, bare.low, *ratio(loss, bare)]
        for name, calls, loss, bare in measure(model, rounds(model, batch), repeats)
    ]
    columns = ["loss", "asks", "its min ms", "their min ms", "ratio", "± s.e."]
    return Report("Overhead of a loss", note, columns, rows)


def measure(
    model: dlib.Denoiser, work: dict[str, Round], repeats: int
) -> Iterator[tuple[str, str, Times, Times]]:
    """Each loss, its bare calls, and the times of both in ms, in pairs; work: of `rounds`."""
    for name, (_, calls) in losses(model.schedule, None).items():
        pair = {calls.name: work[calls.name], name: work[name]}
        times = interleave(pair, repeats, unit=1e-3, label=name, clock=time.process_time)
        yield name, calls.name, times[name], times[calls.name]


def ratio(loss: Times, bare: Times) -> tuple[float, float]:
    """The median of loss ÷ bare over the pairs, and its standard error: √(π/2) of a mean's."""
    each = loss.values / bare.values
    return float(np.median(each)), math.sqrt(math.pi / 2) * float(each.std()) / math.sqrt(
        len(each)
    )


def losses(schedule: dlib.NoiseSchedule, null: object) -> dict[str, tuple[Recipe, Calls]]:
    """Every loss by name: its recipe, and which calls it makes besides the student's."""
    guided = Calls(guided=1, plain=1)
    return {
        "LCM loss": (lcm(schedule, null), guided),
        "PCM loss, 4 phases": (pcm(schedule, null), guided),
        "TCD loss": (tcd(schedule, null), guided),
        "knowledge": (knowledge(schedule), Calls()),
        "progressive": (progressive(schedule), Calls(plain=2)),
        "ECT loss": (ect(schedule), Calls(plain=1)),
        "SCT loss": (sct(schedule), Calls(plain=1)),
        "sCM loss": (scm(schedule, null), Calls(plain=1, slopes=1)),
    }


def rounds(model: dlib.Denoiser, batch: int, width: int = 32) -> dict[str, Round]:
    """Every competitor by name, ready for `interleave`; width: of the text embedding."""
    schedule, draw = model.schedule, dlib.Draw(0)
    x0, text = (draw.normal((batch, 4, 16, 16)), draw.normal((batch, 16, width)))
    known = losses(schedule, {"text": torch.zeros(16, width)})
    bare = {calls.name: _bare(model, x0, text, calls) for _, calls in known.values()}
    data = lambda recipe: _batch(recipe, x0, text)
    return bare | {name: _loss(r, model, data(r)) for name, (r, _) in known.items()}


def _batch(recipe: Recipe, x0: Tensor, text: Tensor) -> dlib.Batch:
    """A batch as the recipe reads it; what its rollout leaves in the memo was made before."""
    noise = dlib.Draw(1).normal(x0) if recipe.reads == "pairs" else None
    batch = dlib.Batch(x0, {"text": text}, noise=noise)
    if recipe.before is not None:
        memos = [recipe.before({}, batch, dlib.Draw(0))]
        alone = lambda rows: (rows, slice(0, len(rows)))
        batch.memo.update(recipe.pool(memos, alone)[0])
    return batch


def _loss(recipe: Recipe, model: dlib.Denoiser, batch: dlib.Batch) -> Round:
    roles = {name: model for name in recipe.parts}

    def work() -> None:
        recipe.phases[0].loss(roles, batch, dlib.Draw(0)).value.backward()

    return _prepared(model, work)


def _bare(model: dlib.Denoiser, x0: Tensor, text: Tensor, calls: Calls) -> Round:
    n, cond = len(x0), {"text": text}
    now = torch.full((n,), 499.0)
    twice = (torch.cat([x0, x0]), torch.full((2 * n,), 499.0), {"text": torch.cat([text, text])})
    level = model.schedule.at(torch.full((n,), 0.5, dtype=torch.float64), like=x0)
    dt = torch.ones(n, 1, 1, 1)

    def work() -> None:
        with torch.no_grad():
            for _ in range(calls.guided):
                model.net(*twice)
            for _ in range(calls.plain):
                model.net(x0, now, cond)
            for _ in range(calls.slopes):
                tangent(model, x0, level, x0, dt, cond, read=lambda said: said.raw)
        model.net(x0, now, cond).mean().backward()

    return _prepared(model, work)


def _prepared(model: dlib.Denoiser, work: Callable[[], None]) -> Round:
    """The gradients are dropped before each round, off the clock."""

    def prepare() -> Callable[[], None]:
        for weight in model.net.parameters():
            weight.grad = None
        return work

    return prepare
