"""Sample Stable Diffusion with the book's own functions: `dlib.grid`, `dlib.guided` and
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
runs/sample-001, the next free folder. The third makes one picture on eight GPUs, which share
its steps.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import tyro
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dlib import (
    SOLVERS,
    Denoiser,
    Draw,
    NoiseLevel,
    NoiseSchedule,
    counted,
    guided,
    levels,
    sample,
)
from dlib._util import require
from dlib.solvers import Solver, State
from full_scale import output, sd
from full_scale import world as processes
from full_scale.config import Config, check, latent_shape, place
from full_scale.draws import Draws
from full_scale.parallel import finder
from full_scale.tiny import tiny_pipeline
from full_scale.weights import add_lora, load
from full_scale.world import World

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def stops(schedule: NoiseSchedule, steps: int, spacing: str, end: str) -> list[NoiseLevel]:
    """The `steps` + 1 levels from noise to picture: `dlib.levels`."""
    return levels(schedule, steps, spacing, end)


def latents(
    model: Denoiser,
    shape: Sequence[int],
    levels: Sequence[NoiseLevel],
    solver: Solver,
    cond: dict[str, Tensor],
    seeds: Sequence[int],
    batch: int,
    each: Callable[[State], None] | None = None,
    find: Callable[..., Tensor] = sample,
) -> Tensor:
    """Float32 latents (n, *shape) for n conditions and n seeds, `batch` at a time, on the
    conditions' device.

    find: what is called with (model, x, levels, solver, cond, draws, each) for each batch:
    `sample`, or a parallel sampler.
    """
    parts = []
    for i in range(0, len(seeds), batch):
        draws = Draws(Draw(seed) for seed in seeds[i : i + batch])
        part = {name: rows[i : i + batch] for name, rows in cond.items()}
        x = draws.normal((len(draws.draws), *shape)).to(part["text"].device)
        parts.append(find(model, x, levels, solver, part, draws, each))
    return torch.cat(parts)


@torch.no_grad()
def run(config: Config) -> Path | None:
    """Sample what `config` asks for, write it, and return the folder; None in a process that
    only helped.
    """
    check(config)
    device, dtype = place(config)
    laps = output.Laps()
    found = (
        stable_diffusion(config, device, dtype)
        if config.family == "sd"
        else other(config, device)
    )
    world = processes.start(config.device) if config.parallel and processes.launched() else None
    try:
        return _run(config, found, device, dtype, laps, world)
    finally:
        if world:
            processes.stop()


def _run(
    config: Config,
    found: Found,
    device: torch.device,
    dtype: torch.dtype,
    laps: output.Laps,
    world: World | None,
) -> Path | None:
    leads, base = world is None or world.leads, counted(found.base)
    levels, solver = (
        stops(base.schedule, config.steps, config.grid, config.end),
        SOLVERS[config.solver],
    )
    null = {name: rows[0].to(device) for name, rows in found.encode([config.negative]).items()}
    prompts = [prompt for prompt in config.prompt for _ in range(config.n)]
    cond = {name: rows.to(device) for name, rows in found.encode(prompts).items()}
    if found.told:
        cond["omega"] = torch.full((len(prompts),), config.omega, device=device)
    model = guided(base, config.omega, null) if config.omega and not found.told else base
    seeds, costs = range(config.seed, config.seed + len(prompts)), []
    laps.mark("load")
    total = config.steps * math.ceil(len(prompts) / config.batch)
    with tqdm(
        total=total, unit="step", desc=config.parallel or config.solver, disable=not leads
    ) as bar:
        find = finder(config, world, bar, costs) if config.parallel else sample
        x = latents(
            model,
            found.shape,
            levels,
            solver,
            cond,
            seeds,
            config.batch,
            lambda state: bar.update(state.step > 0),
            find,
        )
    laps.mark("sample")
    if not leads:
        return None
    pictures, flags = found.censor([found.decode(latent) for latent in x])
    laps.mark("decode")
    files = {f"{k:03d}.png": picture for k, picture in enumerate(pictures)}
    return output.write(
        config.out or output.next_free(Path("runs/sample")),
        files,
        columns(config),
        {
            "config": asdict(config),
            "device": str(device),
            "dtype": str(dtype),
            "licence": found.licence,
            "safety_checker": found.checked,
            "pictures": [
                {"file": name, "prompt": prompt, "seed": seed, "flagged": flag}
                for name, prompt, seed, flag in zip(files, prompts, seeds, flags)
            ],
            **facts(base, levels, solver),
            **(
                {"parallel": costs, "processes": world.size if world else 1}
                if config.parallel
                else {}
            ),
            "seconds": laps,
            "versions": output.versions(),
        },
    )


@dataclass(frozen=True)
class Found:
    """A model as sampling asks for it. told: it takes ω as an input. checked: its weights have
    a safety checker.
    """

    base: Denoiser
    shape: Sequence[int]
    encode: Callable[[Sequence[str]], dict[str, Tensor]]
    decode: Callable[[Tensor], Image.Image]
    licence: str | None
    told: bool = False
    checked: bool = False
    censor: Callable = lambda pictures: (pictures, [False] * len(pictures))


def stable_diffusion(config: Config, device: torch.device, dtype: torch.dtype) -> Found:
    """Stable Diffusion, or a student of it, with a LoRA where one is named."""
    pipe, licence = opened(config, device, dtype)
    if config.lora:
        add_lora(pipe, config.lora)
    return Found(
        sd.denoiser(pipe.unet, pipe.scheduler.config),
        latent_shape(pipe, config),
        partial(sd.encode, pipe),
        partial(sd.decode, pipe.vae),
        licence,
        pipe.unet.config.time_cond_proj_dim is not None,
        pipe.safety_checker is not None,
        partial(sd.censored, pipe),
    )


def other(config: Config, device: torch.device) -> Found:
    """A model of any family, in its own size."""
    from full_scale.families import open_family

    require(
        not (config.lora or config.height or config.width),
        f"--family {config.family} takes no --lora, --height or --width",
    )
    family = open_family(config.family, config.weights, device)
    print(
        f"{config.weights or f'the teacher of the family {config.family}'} on {device} · "
        f"licence of the weights: {family.licence or 'not stated'}"
    )
    return Found(
        family.denoiser(),
        family.shape(family.size),
        family.encode_texts,
        family.decode,
        family.licence,
    )


def opened(
    config: Config, device: torch.device, dtype: torch.dtype
) -> tuple[StableDiffusionPipeline, str | None]:
    """The pipeline and its weights' licence; says on stdout what was opened. The tiny one is
    saved and loaded likewise.
    """
    hush()
    with tempfile.TemporaryDirectory() as folder:
        if config.tiny:
            tiny_pipeline().save_pretrained(folder)
        pipe, licence = load(folder if config.tiny else config.weights, device, dtype)
    print(
        f"{config.weights or 'random tiny weights'} on {device} in {dtype} · licence of the "
        f"weights: {licence or 'not stated'} · "
        f"safety checker: {'kept' if pipe.safety_checker else 'these weights have none'}"
    )
    return pipe, licence


def hush() -> None:
    """Silence transformers' notices: its bars for single files, and that torchvision, which
    nothing here uses, is absent.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


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
            print(out)
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"full_scale.sample: {error}")


if __name__ == "__main__":
    main()
