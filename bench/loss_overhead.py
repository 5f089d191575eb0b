"""What a consistency loss costs besides its network calls, on the tiny random U-Net of Stable
Diffusion's classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

import dlib
from bench.report import Report
from bench.timing import Round, Times, interleave
from dlib.recipes import Recipe, lcm, pcm

NOTE = """Milliseconds of processor time (of all threads, so that other programs count less) of
one training step's forward and backward pass: the loss of a recipe, against its bare network
calls and nothing else: the guided teacher on 2 × {batch} latents without gradient, the target
on {batch} without, the student on {batch} with, and the backward pass of a plain mean. What is
left is the loss's own work: draws, noise levels, noising, the solver step, jumps, distance.

The tiny random U-Net of `full_scale.families.tiny` ({millions:.1f} M parameters), latents
({batch}, 4, 16, 16), float32, CPU, one thread; {repeats} turns, one of each
competitor in turn, the starter
rotating. Read the minimum: it is the work; median and IQR show what else the machine was
doing. The ratio is that of the minima, loss ÷ bare calls. The real U-Net is a thousand times
larger and the loss's own work is not."""


def run(batch: int = 8, repeats: int = 40) -> Report:
    """ms a step: minimum, median, IQR and ratio of minima."""
    from full_scale.families.sd import denoiser
    from full_scale.families.tiny import tiny_pipeline

    pipe = tiny_pipeline()
    model = denoiser(pipe.unet, pipe.scheduler.config)
    torch.set_num_threads(1)
    times = measure(model, batch, repeats)
    bare = times["bare calls"].low
    note = NOTE.format(
        batch=batch,
        repeats=repeats,
        millions=sum(w.numel() for w in pipe.unet.parameters()) / 1e6,
    )
    rows = [[name, *value.cells(), value.low / bare] for name, value in times.items()]
    return Report(
        "Overhead of a loss",
        note,
        ["step", "min ms", "median ms", "IQR ms", "ratio of minima"],
        rows,
    )


def measure(model: dlib.Denoiser, batch: int, repeats: int) -> dict[str, Times]:
    """The times of the bare calls, of LCM's loss and of PCM's, in ms."""
    return interleave(
        rounds(model, batch), repeats, unit=1e-3, label="loss_overhead", clock=time.process_time
    )


def rounds(model: dlib.Denoiser, batch: int, width: int = 32) -> dict[str, Round]:
    """Every competitor by name, ready for `interleave`; width: of the text embedding."""
    schedule, draw = model.schedule, dlib.Draw(0)
    x0, text = (draw.normal((batch, 4, 16, 16)), draw.normal((batch, 16, width)))
    null = {"text": torch.zeros(16, width)}
    recipes = {"LCM loss": lcm(schedule, null), "PCM loss, 4 phases": pcm(schedule, null)}
    losses = {
        name: _loss(recipe, model, dlib.Batch(x0, {"text": text}))
        for name, recipe in recipes.items()
    }
    return {"bare calls": _bare(model, x0, text), **losses}


def _loss(recipe: Recipe, model: dlib.Denoiser, batch: dlib.Batch) -> Round:
    roles = {name: model for name in recipe.parts}

    def work() -> None:
        recipe.phases[0].loss(roles, batch, dlib.Draw(0)).value.backward()

    return _prepared(model, work)


def _bare(model: dlib.Denoiser, x0: Tensor, text: Tensor) -> Round:
    now, twice = (
        torch.full((len(x0),), 499.0),
        (
            torch.cat([x0, x0]),
            torch.full((2 * len(x0),), 499.0),
            {"text": torch.cat([text, text])},
        ),
    )

    def work() -> None:
        with torch.no_grad():
            model.net(*twice)
            model.net(x0, now, {"text": text})
        model.net(x0, now, {"text": text}).mean().backward()

    return _prepared(model, work)


def _prepared(model: dlib.Denoiser, work: Callable[[], None]) -> Round:
    """The gradients are dropped before each round, off the clock."""

    def prepare() -> Callable[[], None]:
        for weight in model.net.parameters():
            weight.grad = None
        return work

    return prepare
