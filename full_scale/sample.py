"""Sample a model family with the book's own functions: `dlib.grid`, `dlib.guided` and
`dlib.sample` do the work.

    python -m full_scale.sample --tiny --prompt "a lighthouse at dusk"
    python -m full_scale.sample --weights weights/stable-diffusion-v1-5 \\
        --prompt "a lighthouse at dusk" "a bowl of lemons" \\
        --solver unipc_3 --grid arctan --steps 25 --omega 6.5 --n 4

    torchrun --standalone --nproc_per_node 8 -m full_scale.sample \\
        --weights weights/stable-diffusion-v1-5 --prompt "a lighthouse at dusk" \\
        --parallel-in-time parareal --solver ddim --grid sd_trailing --steps 100

The first line needs no weights and takes seconds on a CPU; its pictures are noise. The second
writes 2 × 4 pictures, a contact sheet grid.png (a row a prompt) and settings.json into
runs/sample-001, the next free folder; if it is stopped, the pictures that it finished. The third
makes one picture on eight GPUs, which share its steps.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from dlib import sample
from dlib._util import require
from full_scale.families import Family, introduced, named, open_family
from full_scale import launch
from full_scale.launch import Processes
from full_scale.out import folder as output, manifest
from full_scale.run.settings import recipe_from
from full_scale.run.student import is_run
from full_scale.sampling.latents import latents
from full_scale.sampling.request import DEFAULT, SAMPLES, Config, check, place, smaller
from full_scale.sampling.spread import finder
from full_scale.sampling.work import Work, planned, told
from full_scale.sources.captions import printable


def checked(config: Config) -> tuple[dict[str, Any] | None, torch.device, torch.dtype]:
    """What can be wrong before any process has joined another is refused with ValueError. The
    settings of the run behind an export, if there is one, and where and in what to compute.
    """
    table = exported(config)
    check(config, recipe_from(table).sampler if table else DEFAULT)
    if is_run(config.weights):
        raise ValueError(
            f"--weights {config.weights} is a training run: make of it what can be sampled with "
            f"python -m full_scale.export {config.weights}"
        )
    return table, *place(config)


@torch.no_grad()
def run(config: Config) -> Path | None:
    """Sample what `config` asks for, write it, and return the folder; None in a process that
    only helped.
    """
    table, device, dtype = checked(config)
    shares = config.parallel_in_time and launch.launched()
    with (
        launch.joined(config.device) if shares else nullcontext() as processes,
        launch.within_memory(smaller(config)),
    ):
        side = named(config.family).side(config.weights)
        room = output.room_for(
            config.n * len(config.prompt), config.width or side, config.height or side
        )
        laps, out = output.Laps(), config.out or output.next_free(SAMPLES)
        writes = output.growing(out, room, columns(config)) if leads(config) else nullcontext()
        with writes as pictures:
            if config.weights:
                manifest.refuse_damaged(Path(config.weights).expanduser(), "--weights")
            if config.lora:
                manifest.refuse_damaged(config.lora.parent, "--lora: the folder")
            family = open_family(config.family, config.weights, device, dtype)
            if config.lora:
                family.add_lora(config.lora)
            negative = opposite(config, device, dtype)
            _run(config, table, family, negative, device, laps, processes, pictures)
    return pictures.done if pictures else None


def leads(config: Config) -> bool:
    """Whether this process writes the pictures, and speaks for all."""
    return not config.parallel_in_time or launch.place()[0] == 0


def opposite(config: Config, device: torch.device, dtype: torch.dtype) -> Family | None:
    """The family with --negative-lora on top of --lora, if there is one."""
    if config.negative_lora is None:
        return None
    manifest.refuse_damaged(config.negative_lora.parent, "--negative-lora: the folder")
    family = open_family(config.family, config.weights, device, dtype)
    if config.lora:
        family.add_lora(config.lora)
    family.add_lora(config.negative_lora, 1 - config.merge, "--negative-lora")
    require(
        not family.told,
        "--negative-lora: this network is told ω and has no negative branch: leave it out",
    )
    return family


def _run(
    config: Config,
    table: dict[str, Any] | None,
    family: Family,
    negative: Family | None,
    device: torch.device,
    laps: output.Laps,
    processes: Processes | None,
    pictures: output.Growing | None,
) -> None:
    size = processes.size if processes else 1
    if pictures:
        print(introduced(family, config.weights))
    own = recipe_from(table, family.denoiser().schedule).sampler if table else DEFAULT
    work = planned(config, own, family, negative, device)
    count, flags, costs = len(work.prompts), [], []
    laps.mark("load")
    if pictures:
        pictures.facts = lambda: (
            told(config, family, work, list(pictures.shown), flags)
            | ({"parallel_in_time": costs, "processes": size} if config.parallel_in_time else {})
            | {"seconds": laps}
        )
    total = work.shown.steps * math.ceil(count / config.batch)
    word = config.parallel_in_time or work.shown.solver
    with tqdm(total=total, unit="step", desc=word, disable=pictures is None) as bar:
        find = (
            finder(
                config.parallel_in_time,
                config.tol,
                config.window,
                config.chunk,
                processes,
                bar,
                costs,
            )
            if config.parallel_in_time
            else sample
        )
        for i in range(0, count, config.batch):
            x = drawn(config, work, slice(i, i + config.batch), bar, find)
            laps.mark("sample")
            if pictures:
                made, flagged = family.censor([family.decode(latent) for latent in x])
                flags += flagged
                for k, picture in enumerate(made, i):
                    pictures.add(f"{k:03d}.png", picture)
                laps.mark("decode")


def drawn(
    config: Config, work: Work, part: slice, bar: tqdm, find: Callable[..., Tensor]
) -> Tensor:
    """The latents of some of the prompts: one batch."""
    seeds = range(config.seed, config.seed + len(work.prompts))[part]
    cond = {name: rows[part] for name, rows in work.cond.items()}
    return latents(
        work.model,
        work.shape,
        work.levels,
        work.solver,
        cond,
        seeds,
        config.batch,
        lambda state: bar.update(state.step > 0),
        find,
    )


def exported(config: Config) -> dict[str, Any] | None:
    """The settings of the run that was exported to --lora's folder or to --weights; None for
    weights of other origin.
    """
    place = config.lora.parent if config.lora else Path(config.weights or "")
    about = place / "settings.json"
    if not (config.lora or config.weights) or not about.is_file():
        return None
    try:
        return json.loads(about.read_text()).get("settings")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{about} is no JSON of an export ({error}): export again") from None


def columns(config: Config) -> int:
    """Of the contact sheet: a row a prompt; a single prompt's pictures make a square."""
    return config.n if len(config.prompt) > 1 else math.ceil(config.n**0.5)


def main() -> None:
    """The command line: one line on stderr, and exit status 1, for what the reader can put
    right.
    """
    config = launch.asked(
        lambda: tyro.cli(Config, prog="python -m full_scale.sample", description=__doc__)
    )
    try:
        checked(config)
    except (ValueError, OSError) as error:
        sys.exit(1 if launch.quiet() else f"full_scale.sample: {error}")
    try:
        if out := run(config):
            print(printable(str(out)))
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(f"full_scale.sample: {error}")
    except KeyboardInterrupt:
        if leads(config):
            print("full_scale.sample: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
