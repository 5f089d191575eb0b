"""What the losses of Part III cost besides their network calls, on the tiny random U-Net of
Stable Diffusion's classes, and on a transformer that is told ω.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from bench.loss_rounds import Pair, of_latents, of_shapes, pairs
from bench.report import Report
from bench.timing import Times, interleave

NOTE = """Milliseconds of processor time (of all threads, so that other programs count less) of
one training step's forward and backward pass: the loss of a recipe, against its own network
calls and nothing else: the teacher's and the target's without gradient (guided, on 2 × {batch}
latents), the student's on {batch} with, and the backward pass of a plain mean. A derivative in
forward mode counts as what it costs alone. What is left is the loss's own work: draws, noise
levels, noising, the solver step, jumps, weights of references, distance. SCT's weights are
timed a second time, alone (`variance_reduced_target` with the batch as references), against
the whole of SCT's loss: their ratio is a share of it.

The tiny random U-Net of `full_scale.families.tiny` ({millions:.1f} M parameters), latents
({batch}, 4, 16, 16), float32, CPU, one thread. A loss and its bare calls run right after each
other, {repeats} times, the other first every second time. The ratio is the median of theirs over
these pairs, with its standard error: a clock that wavers within a minute is nearly the same for
two neighbours. The real U-Net is a thousand times larger and the loss's own work is not. This
U-Net has no input for ω, so guided distillation is timed on the transformer of the captioned
shapes (`toy_data.shapes_teacher`) in batches of {pictures}, whose student is told it
(`dlib.nets.Told`)."""


def run(batch: int = 8, repeats: int = 60, pictures: int = 128) -> Report:
    """ms a step of each loss and of what it is timed against, and their ratio with its standard
    error. batch: of latents; pictures: a batch of those.
    """
    from full_scale.families.sd import denoiser
    from full_scale.families.tiny import tiny_pipeline

    pipe = tiny_pipeline()
    model = denoiser(pipe.unet, pipe.scheduler.config)
    torch.set_num_threads(1)
    millions = sum(w.numel() for w in pipe.unet.parameters()) / 1e6
    note = NOTE.format(batch=batch, repeats=repeats, pictures=pictures, millions=millions)
    work = pairs(of_latents(model, batch)) | pairs(of_shapes(pictures))
    rows = [
        [name, against, own.low, other.low, *ratio(own, other)]
        for name, against, own, other in measure(work, repeats)
    ]
    columns = ["loss", "against", "its min ms", "their min ms", "ratio", "± s.e."]
    return Report("Overhead of a loss", note, columns, rows)


def measure(work: Mapping[str, Pair], repeats: int) -> Iterator[tuple[str, str, Times, Times]]:
    """Each loss, what it is timed against, and the times of both in ms; work: of `pairs`."""
    for name, pair in work.items():
        both = {pair.against: pair.other, name: pair.own}
        times = interleave(both, repeats, unit=1e-3, label=name, clock=time.process_time)
        yield name, pair.against, times[name], times[pair.against]


def ratio(own: Times, other: Times) -> tuple[float, float]:
    """The median of own ÷ other over the pairs, and its standard error: √(π/2) of a mean's."""
    each = own.values / other.values
    return float(np.median(each)), math.sqrt(math.pi / 2) * float(each.std()) / math.sqrt(
        len(each)
    )
