"""What an update of averaged weights costs, for as many tensors as Stable Diffusion 1.5's
U-Net has.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import dlib
from bench.report import Report, peer
from bench.timing import Times, interleave

NOTE = """Milliseconds an update of the exponential moving average of {tensors} tensors with
{millions:.1f} M parameters in all: Stable Diffusion 1.5's U-Net with every width divided by
ten, float32, CPU, one thread. So many small tensors show the cost of touching each; the
arithmetic itself is memory-bound and the same for everyone.

Competitors: `dlib.Ema` and {peer}'s `EMAModel` as it comes and with `foreach=True`. Rounds of
{updates} updates, one of each competitor in turn, {repeats} turns. The ratio is that of the
minima, against dlib."""


def run(repeats: int = 60, updates: int = 5) -> Report:
    """ms an update: minimum, median, IQR and ratio of minima."""
    net = small_unet()
    times = measure(net, repeats, updates)
    best = times["dlib.Ema"].low
    weights = list(net.parameters())
    note = NOTE.format(
        tensors=len(weights),
        millions=sum(w.numel() for w in weights) / 1e6,
        peer=peer(),
        updates=updates,
        repeats=repeats,
    )
    rows = [[name, *value.cells(), value.low / best] for name, value in times.items()]
    return Report(
        "Exponential moving average",
        note,
        ["average", "min ms", "median ms", "IQR ms", "ratio of minima"],
        rows,
    )


def measure(net: nn.Module, repeats: int, updates: int) -> dict[str, Times]:
    """The three competitors' times in ms an update."""
    from diffusers.training_utils import EMAModel

    weights = list(net.parameters())
    ours = dlib.Ema(net, decay=0.999)
    theirs, foreach = EMAModel(weights, decay=0.999), EMAModel(weights, decay=0.999, foreach=True)
    update = {
        "dlib.Ema": ours.update,
        "diffusers EMAModel": lambda: theirs.step(weights),
        "diffusers EMAModel(foreach=True)": lambda: foreach.step(weights),
    }
    torch.set_num_threads(1)
    return interleave(
        {name: _round(one, updates) for name, one in update.items()},
        repeats,
        unit=1e-3 * updates,
        label="ema",
    )


def _round(update: Callable[[], None], updates: int) -> Callable:
    def work() -> None:
        for _ in range(updates):
            update()

    return lambda: work


def small_unet() -> nn.Module:
    """SD1.5's U-Net with every width divided by ten: the same 686 tensors, 1 % of the
    parameters.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(block_out_channels=(32, 64, 128, 128), cross_attention_dim=77)
