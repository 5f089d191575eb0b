"""The whole sampling loop on an SD1.5-size U-Net, on a GPU: eager and as one CUDA graph,
against diffusers' loop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import torch
from torch import Tensor, nn

import dlib
from bench.report import Cell, Report, peer
from bench.step_overhead import PAIRS, schedulers
from bench.timing import Round, interleave
from dlib.solvers.driver import State

EAGER = "diffusers, eager"
COLUMNS = [
    "batch",
    "steps",
    "method",
    "loop",
    "min s",
    "median s",
    "IQR s",
    "speed-up over " + EAGER,
]
NOTE = """Seconds for a whole sampling loop on a U-Net of Stable Diffusion 1.5's size
({millions:.0f} M random parameters, bf16, latents 4×64×64, 77 text tokens, no guidance), from
noise on the GPU to latents on the GPU, the clock read after a synchronisation. Loops take
turns, {repeats} turns after a warm-up.

*dlib, eager* is `dlib.sample`. *dlib, one CUDA graph* captures `dlib.walk` from first step to
last and replays it: possible because noise levels are host floats and a step never asks the
GPU for a value. *diffusers* ({peer}) is its pipelines' loop, `scale_model_input`, U-Net,
`step`, its scheduler's state on the host; *compiled U-Net* wraps its network in
`torch.compile(mode="reduce-overhead")`, which is one graph a call. Compilation and capture are
not timed. The replayed result was compared with the eager one before timing.

Host synchronisation inside dlib's steps, under `torch.cuda.set_sync_debug_mode("error")`:
{synchronisation}."""


@dataclass(frozen=True)
class Job:
    """One loop to time: a diffusers U-Net, a batch, a number of steps, and a method that both
    libraries have.
    """

    unet: nn.Module
    batch: int
    steps: int
    method: str
    x: Tensor = field(init=False)
    text: Tensor = field(init=False)

    def __post_init__(self):
        config, weight = self.unet.config, next(self.unet.parameters())
        shape = (self.batch, config.in_channels, config.sample_size, config.sample_size)
        object.__setattr__(self, "x", dlib.Draw(0).normal(shape).to(weight.device))
        text = dlib.Draw(1).normal((self.batch, 77, config.cross_attention_dim))
        object.__setattr__(self, "text", text.to(weight))

    def walk(self) -> Iterator[State]:
        """dlib's loop, state by state: it launches kernels and reads nothing back."""
        return dlib.walk(*self.parts)

    def sample(self) -> Tensor:
        """dlib's loop, with the check of the result that `dlib.sample` makes."""
        return dlib.sample(*self.parts)

    @cached_property
    def parts(self) -> tuple:
        """What `sample` and `walk` take; made once, outside the clock, like diffusers'
        `set_timesteps`.
        """
        schedule = dlib.discrete(dlib.scaled_linear())
        model = dlib.Denoiser(self._net, schedule, "eps", clock=lambda t: 1000 * t - 1)
        levels = dlib.levels(schedule, self.steps, "sd_trailing")
        return (
            model,
            self.x,
            levels,
            dlib.SOLVERS[PAIRS[self.method].split()[1]],
            {"text": self.text},
        )

    def _net(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return self.unet(
            x.to(self.text.dtype), t, encoder_hidden_states=cond["text"], return_dict=False
        )[0]

    def peer(self, unet: Callable) -> Round:
        """diffusers' pipeline loop with the method's scheduler; `set_timesteps` is not timed."""
        scheduler = schedulers()[self.method]()

        def loop() -> Tensor:
            x = self.x.to(self.text.dtype) * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                noise = unet(
                    scheduler.scale_model_input(x, t),
                    t,
                    encoder_hidden_states=self.text,
                    return_dict=False,
                )[0]
                x = scheduler.step(noise, t, x, return_dict=False)[0]
            return x

        def prepare() -> Callable[[], Tensor]:
            scheduler.set_timesteps(self.steps, device=self.x.device)
            return loop

        return prepare


def run(repeats: int = 5) -> Report | None:
    """Seconds a loop, or None without a GPU: a figure is never made up."""
    if not torch.cuda.is_available():
        print("gpu_loop: skipped, torch sees no GPU on this machine; nothing is written")
        return None
    from diffusers import UNet2DConditionModel

    with torch.device("cuda"):
        unet = (
            UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
            .to(torch.bfloat16)
            .eval()
        )
    compiled = torch.compile(unet, mode="reduce-overhead", dynamic=False)
    rows = []
    with torch.no_grad():
        synchronisation = synchronises(Job(unet, 1, 4, "DPM-Solver++ 2M"))
        for batch, steps, method in product((1, 4), (4, 50), ("DDIM", "DPM-Solver++ 2M")):
            rows += compare(Job(unet, batch, steps, method), compiled, repeats)
    millions = sum(weight.numel() for weight in unet.parameters()) / 1e6
    note = NOTE.format(
        millions=millions, repeats=repeats, peer=peer(), synchronisation=synchronisation
    )
    return Report("Sampling loop on a GPU", note, COLUMNS, rows)


def compare(job: Job, compiled: Callable, repeats: int) -> list[list[Cell]]:
    """The rows of one job; a loop that cannot run here keeps its row and says why."""
    loops = {
        EAGER: lambda: job.peer(job.unet),
        "diffusers, compiled U-Net": lambda: job.peer(compiled),
        "dlib, eager": lambda: lambda: job.sample,  # its first, untimed round makes `parts`
        "dlib, one CUDA graph": lambda: graphed(job),
    }
    ready, failed = {}, {}
    for name, make in loops.items():
        try:
            prepare = make()
            prepare()()
            ready[name] = prepare
        except RuntimeError as error:
            failed[name] = f"failed: {str(error).splitlines()[0][:80]}"
    label = f"gpu_loop: batch {job.batch}, {job.steps} steps, {job.method}"
    times = interleave(ready, repeats, unit=1.0, label=label, clock=synchronised)
    first = [job.batch, job.steps, job.method]
    rows = [
        [*first, name, *value.cells(), times[EAGER].low / value.low]
        for name, value in times.items()
    ]
    return rows + [[*first, name, why, "—", "—", "—"] for name, why in failed.items()]


def graphed(job: Job) -> Round:
    """dlib's whole loop as one CUDA graph, its result compared with the eager one before it is
    timed.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose kernels and workspaces before the capture
        for _ in range(2):
            expected = last(job.walk())
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x = last(job.walk())
    graph.replay()
    if not (x - expected).square().mean().sqrt() <= 0.02 * expected.square().mean().sqrt():
        raise RuntimeError("the replayed graph and the eager loop disagree")

    def work() -> Tensor:
        graph.replay()
        return x

    return lambda: work


def last(states: Iterator[State]) -> Tensor:
    """x of the last state of a walk."""
    return deque(states, maxlen=1)[0].x


def synchronised() -> float:
    """The time when everything launched so far is done."""
    torch.cuda.synchronize()
    return time.perf_counter()


def synchronises(job: Job) -> str:
    """Whether a warmed-up walk waits for the GPU anywhere: "none", or what torch says about
    the first place.
    """
    last(job.walk())
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        last(job.walk())
    except RuntimeError as error:
        return f"found ({str(error).splitlines()[0]})"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"
