"""Sample a model family with the book's own functions: `dlib.grid`, `dlib.guided` and
`dlib.sample` do the work.

    python -m full_scale.sample --tiny --prompt "a lighthouse at dusk"
    python -m full_scale.sample --weights weights/stable-diffusion-v1-5 \\
        --prompt "a lighthouse at dusk" "a bowl of lemons" \\
        --solver unipc_3 --grid arctan --steps 25 --omega 6.5 --n 4

    torchrun --standalone --nproc_per_node 8 -m full_scale.sample \\
        --weights weights/stable-diffusion-v1-5 --prompt "a lighthouse at dusk" \\
        --parallel parareal --solver ddim --grid sd_trailing --steps 100

The first line needs no weights and takes seconds on a CPU; its pictures are noise. The second
writes 2 × 4 pictures, a contact sheet grid.png (a row a prompt) and settings.json into
runs/sample-001, the next free folder; if it is stopped, the pictures that it finished. The third
makes one picture on eight GPUs, which share its steps.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from dlib import SOLVERS, Denoiser, NoiseLevel, Sampler, counted, guided, sample
from dlib._util import require
from dlib.guidance import contrasted
from dlib.solvers import Solver
from full_scale.families import Family, introduced, open_family
from full_scale import launch
from full_scale.launch import Processes
from full_scale.out import folder as output, manifest
from full_scale.run.settings import recipe_from
from full_scale.run.student import is_run
from full_scale.sampling.latents import latents
from full_scale.sampling.request import DEFAULT, SAMPLES, Config, check, place, settled
from full_scale.sampling.spread import finder
from full_scale.sources.captions import printable


@torch.no_grad()
def run(config: Config) -> Path | None:
    """Sample what `config` asks for, write it, and return the folder; None in a process that
    only helped.
    """
    table = exported(config)
    own = recipe_from(table).sampler if table else DEFAULT
    check(config, own)
    device, dtype = place(config)
    laps = output.Laps()
    if is_run(config.weights):
        raise ValueError(
            f"--weights {config.weights} is a training run: make of it what can be sampled with "
            f"python -m full_scale.export {config.weights}"
        )
    if config.weights:
        manifest.refuse_damaged(Path(config.weights).expanduser(), "--weights")
    if config.lora:
        manifest.refuse_damaged(config.lora.parent, "--lora: the folder")
    family = open_family(config.family, config.weights, device, dtype)
    if config.lora:
        family.add_lora(config.lora)
    negative = opposite(config, device, dtype)
    processes = launch.start(config.device) if config.parallel and launch.launched() else None
    try:
        return _run(config, table, family, negative, device, laps, processes)
    finally:
        if processes:
            launch.stop()


@dataclass(frozen=True)
class Work:
    """What is settled before the first picture."""

    base: Denoiser
    model: Denoiser
    shape: tuple[int, ...]
    shown: Sampler
    levels: Sequence[NoiseLevel]
    solver: Solver
    prompts: list[str]
    cond: dict[str, Tensor]


def opposite(config: Config, device: torch.device, dtype: torch.dtype) -> Family | None:
    """The family with --negative-lora on top of --lora, if there is one."""
    if config.negative_lora is None:
        return None
    manifest.refuse_damaged(config.negative_lora.parent, "--negative-lora: the folder")
    family = open_family(config.family, config.weights, device, dtype)
    if config.lora:
        family.add_lora(config.lora)
    family.add_lora(config.negative_lora, keep=1 - config.merge)
    require(
        not family.told,
        "--negative-lora: this network is told ω and has no negative branch: leave it out",
    )
    return family


def planned(
    config: Config,
    table: dict[str, Any] | None,
    family: Family,
    negative: Family | None,
    device: torch.device,
) -> Work:
    """What `config` asks of a family; table: the settings of the export, if it is one."""
    base = counted(family.denoiser())
    shape = sized(family, config.height, config.width)
    own = recipe_from(table, base.schedule).sampler if table else DEFAULT
    shown = settled(config, own)
    levels, solver = shown.levels(base.schedule), SOLVERS[shown.solver]
    null = family.null(config.negative)
    prompts = [prompt for prompt in config.prompt for _ in range(config.n)]
    cond = family.encode_texts(prompts)
    if family.told:
        cond["omega"] = torch.full((len(prompts),), shown.omega, device=device)
    model = shown.wrap(base)
    if negative:
        other = base.net.counting(negative.denoiser().net)  # counted with the positive's calls
        model = contrasted(model, shown.wrap(replace(base, net=other)), shown.omega, null)
    elif shown.omega and not family.told:
        model = guided(model, shown.omega, null)
    return Work(base, model, shape, shown, levels, solver, prompts, cond)


def _run(
    config: Config,
    table: dict[str, Any] | None,
    family: Family,
    negative: Family | None,
    device: torch.device,
    laps: output.Laps,
    processes: Processes | None,
) -> Path | None:
    leads, size = (processes.leads, processes.size) if processes else (True, 1)
    if leads:
        print(introduced(family, config.weights))
    work = planned(config, table, family, negative, device)
    count, flags, costs = len(work.prompts), [], []
    sides = config.width or family.size, config.height or family.size
    laps.mark("load")
    total = work.shown.steps * math.ceil(count / config.batch)
    word = config.parallel or work.shown.solver
    with (
        tqdm(total=total, unit="step", desc=word, disable=not leads) as bar,
        output.growing(
            config.out or output.next_free(SAMPLES),
            output.room_for(count, *sides),
            columns(config),
            lambda pictures: (
                told(config, family, work, pictures, flags)
                | ({"parallel": costs, "processes": size} if config.parallel else {})
                | {"seconds": laps}
            ),
        )
        if leads
        else nullcontext() as pictures,
    ):
        find = (
            finder(
                config.parallel, config.tol, config.window, config.chunk, processes, bar, costs
            )
            if config.parallel
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
    return pictures.done if pictures else None


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


def told(
    config: Config, family: Family, work: Work, pictures: output.Growing, flags: Sequence[bool]
) -> dict[str, Any]:
    """What settings.json says; of a run that was stopped, `pictures` has those it finished."""
    net = next(family.net.parameters())
    return {
        "config": asdict(config) | asked(work.shown),
        "device": str(net.device),
        "dtype": str(net.dtype),
        "licence": family.licence,
        "safety_checker": family.checked,
        "asked": len(work.prompts),
        "pictures": [
            {"file": name, "prompt": prompt, "seed": config.seed + k, "flagged": flag}
            for k, (name, prompt, flag) in enumerate(zip(pictures.shown, work.prompts, flags))
        ],
        **facts(work.base, work.levels, work.solver),
        "versions": output.versions(),
    }


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


def asked(shown: Sampler) -> dict[str, Any]:
    """What the flags were, or would have been."""
    names = ("solver", "steps", "end", "omega")
    return {"grid": shown.spacing} | {name: getattr(shown, name) for name in names}


def sized(family: Family, height: int | None, width: int | None) -> tuple[int, ...]:
    """The shape of one x0: the network's own size where none is asked for."""
    try:
        return family.shape(*(family.size if side is None else side for side in (height, width)))
    except ValueError as error:
        asked = {"--height": height, "--width": width}
        flags = " ".join(f"{flag} {side}" for flag, side in asked.items() if side is not None)
        raise ValueError(f"{flags}: {error}") from None


def facts(model: Denoiser, levels: Sequence[NoiseLevel], solver: Solver) -> dict[str, Any]:
    """What settings.json says about the method; `network_samples` counts a guided picture
    twice a call.
    """
    return {
        "predicts": model.predicts,
        "times": [level.t for level in levels],
        "solver": {
            fact: getattr(solver, fact) for fact in ("order", "calls", "history", "noisy")
        },
        "network_calls": model.net.calls,
        "network_samples": model.net.samples,
    }


def columns(config: Config) -> int:
    """Of the contact sheet: a row a prompt; a single prompt's pictures make a square."""
    return config.n if len(config.prompt) > 1 else math.ceil(config.n**0.5)


def main() -> None:
    """The command line: one line on stderr, and exit status 1, for what the reader can put
    right.
    """
    config = tyro.cli(Config, prog="python -m full_scale.sample", description=__doc__)
    try:
        if out := run(config):
            print(printable(str(out)))
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(f"full_scale.sample: {error}")
    except KeyboardInterrupt:
        print("full_scale.sample: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
