"""What `python -m full_scale.sample` can be asked, and what it answers to a bad request before
any work is lost.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from dlib import SOLVERS, Sampler
from dlib._util import require
from dlib.grids import SPACINGS
from full_scale.families import named
from full_scale.out.folder import check_free, next_free
from full_scale.sampling.spread import check_parallel_in_time
from full_scale.sources.captions import check_utf8

SAMPLES = Path("runs/sample")
"""Where pictures go unless --out says otherwise, with a number behind."""


@dataclass(frozen=True)
class Config:
    """Sample pictures from prompts with a solver of the book."""

    prompt: tuple[str, ...]
    """One or more prompts, each in quotes."""
    weights: str | None = None
    """A folder of the family's weights, or their hub id."""
    tiny: bool = False
    """A tiny model instead of weights: offline, in seconds. Most are random, so that their
    pictures are noise; that of shapes is the book's teacher.
    """
    family: str = "sd"
    """The kind of model: a name of full_scale.families.FAMILIES."""
    lora: Path | None = None
    """A LoRA file to put on the weights: what `full_scale.export` wrote, or another one that
    diffusers reads.
    """
    negative_lora: Path | None = None
    """A LoRA file for the negative branch of guidance alone, on top of --lora: what training
    with hyper.negative gave (Diffusion-NPO). It takes a second network's memory.
    """
    merge: float = 0.0
    """The share of --lora that the negative branch leaves out, m of dlib.weight_merging: with 0
    it has all of --lora and --negative-lora on top, with 1 --negative-lora alone.
    """
    negative: str = ""
    """The null prompt ∅, which guidance moves away from."""
    solver: str | None = None
    """A name of dlib.SOLVERS. What an export was made for unless given, else unipc_3: on the
    arctan grid it needs the fewest calls where the truth is known and guidance is strong;
    without guidance unipc_2 is as good.
    """
    steps: int | None = None
    """Steps from noise to picture; network calls are steps times the solver's calls. The
    export's own unless given, else 25.
    """
    grid: str | None = None
    """Where the steps stop: a name of dlib.grids.SPACINGS. The export's own, else arctan."""
    end: Literal["clean", "grid"] | None = None
    """clean: the last step denoises to σ = 0. grid: it stops at the grid's end, index 0, as
    SD's own configurations do. The export's own, else clean.
    """
    omega: float | None = None
    """Guidance ω; 0 is none. diffusers' guidance_scale is 1 + ω. A distilled network that
    takes ω as an input is told it. The export's own, else 6.5.
    """
    parallel_in_time: str | None = None
    """picard, anderson or parareal: refine all steps at once instead of one after another;
    with torchrun, on several processes.
    """
    tol: float = 1e-3
    """With --parallel-in-time: a step is settled when it changes by at most tol·σ; 0 gives the
    sequential pictures.
    """
    window: int | None = None
    """With --parallel-in-time picard or anderson: steps refined at once; all unless given."""
    chunk: int | None = None
    """With --parallel-in-time: steps a network call and process; all unless given. Fewer need
    less memory; 1 rounds as one by one does.
    """
    seed: int = 0
    """Picture k (counted over all prompts) has seed + k."""
    n: int = 1
    """Pictures a prompt."""
    batch: int = 4
    """Pictures a network call; 1 is one by one. It changes memory and speed, not the pictures."""
    height: int | None = None
    """Pixels; the network's own size unless given."""
    width: int | None = None
    """Pixels; the network's own size unless given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The network's and text encoders' dtype; auto is bfloat16 on a GPU, else float32. Latents
    and VAE are float32.
    """
    device: str = "auto"
    """auto is cuda where there is one, else cpu."""
    out: Path | None = None
    """A new folder; the next free runs/sample-NNN unless given."""


DEFAULT = Sampler("unipc_3", "arctan", 25, omega=6.5)
"""How a model that is no export of ours is sampled, unless flags say otherwise."""


def settled(config: Config, own: Sampler = DEFAULT) -> Sampler:
    """How to sample: as the flags say, and as `own`, an export's sampler, where they do not.

    Explicit times, as a phased student has, are kept while neither --steps nor --grid is given.
    """
    flags = {"solver": config.solver, "spacing": config.grid, "steps": config.steps}
    flags |= {"end": config.end, "omega": config.omega}
    times = own.times if config.grid is None and config.steps is None else None
    given = {name: value for name, value in flags.items() if value is not None}
    return replace(own, times=times, **given)


def check(config: Config, own: Sampler = DEFAULT) -> None:
    """Raise ValueError for what can be wrong before any weights are read."""
    require(len(config.prompt) > 0, '--prompt is empty: type --prompt "a lighthouse at dusk"')
    check_model(config.family, config.weights, config.tiny)
    for flag, name, known in (
        ("solver", config.solver, SOLVERS),
        ("grid", config.grid, SPACINGS),
    ):
        near = difflib.get_close_matches(name or "", known, n=1, cutoff=0.0)[0]
        require(
            name is None or name in known,
            f"--{flag} {name}: no such {flag}; did you mean {near}? There are {', '.join(known)}",
        )
    for flag in ("steps", "n", "batch", "height", "width"):
        count = getattr(config, flag)
        require(count is None or count >= 1, f"--{flag} {count}: wanted at least 1")
    require(0 <= config.merge <= 1, f"--merge {config.merge:g}: wanted a share, 0 … 1")
    require(
        config.omega is None or 0 <= config.omega < float("inf"),
        f"--omega {config.omega or 0:g}: wanted a finite ω ≥ 0; 0 is no guidance, and diffusers' "
        "guidance_scale g is omega = g − 1",
    )
    check_utf8("--prompt", config.prompt)
    check_utf8("--negative", [config.negative])
    last = config.seed + config.n * len(config.prompt) - 1
    require(
        0 <= config.seed and last < 2**64,
        f"--seed {config.seed}: a seed has 64 bits, from which each picture counts on: wanted "
        f"0 … {2**64 - 1 - (last - config.seed)}",
    )
    require(
        config.negative_lora is None or settled(config, own).omega > 0,
        "--negative-lora: without guidance there is no negative branch: give --omega above 0",
    )
    require(
        config.merge == 0 or (config.lora is not None and config.negative_lora is not None),
        f"--merge {config.merge:g}: it says how much of --lora the branch of --negative-lora "
        "leaves out: give both files",
    )
    if config.parallel_in_time:
        solver = settled(config, own).solver
        check_parallel_in_time(
            config.parallel_in_time, solver, config.chunk, config.tol, config.window
        )
    require(
        config.parallel_in_time is not None or int(os.environ.get("WORLD_SIZE", 1)) == 1,
        "several processes, but every one would make the same pictures: "
        "add --parallel-in-time picard or parareal, which share the steps, or start one process",
    )
    check_free(config.out or next_free(SAMPLES))


def check_model(family: str, weights: str | None, tiny: bool) -> None:
    """Raise ValueError unless there is such a family, and exactly one of --weights and --tiny
    is given.
    """
    wanted = named(family).weights_are
    require(
        bool(weights) != tiny,
        f"{'both --weights and --tiny' if tiny else 'neither --weights nor --tiny'} given: "
        f"pass exactly one of them: --weights {wanted} or --tiny",
    )


def smaller(config: Config) -> str:
    """What to type when memory runs out."""
    ways = [f"a --batch below {config.batch}"] * (config.batch > 1)
    ways += ["a smaller --chunk"] * bool(config.parallel_in_time)
    return f"pass {', '.join(ways + ['smaller --height and --width, or --dtype bfloat16'])}"


def place(config: Config) -> tuple[torch.device, torch.dtype]:
    """The device and the network's dtype that `auto` stands for."""
    name = (
        ("cuda" if torch.cuda.is_available() else "cpu")
        if config.device == "auto"
        else config.device
    )
    try:
        device = torch.device(name)
        device = (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            if device.type == "cuda" and device.index is None
            else device
        )
    except RuntimeError as error:
        raise ValueError(
            f"--device {name}: {str(error).splitlines()[0]}; type auto, cpu or cuda"
        ) from None
    require(
        device.type != "cuda" or torch.cuda.is_available(),
        f"--device {name}: torch {torch.__version__} sees no CUDA GPU: "
        "look at nvidia-smi, install a CUDA build of torch, or use --device cpu",
    )
    auto = "bfloat16" if device.type == "cuda" else "float32"
    return device, getattr(torch, auto if config.dtype == "auto" else config.dtype)
