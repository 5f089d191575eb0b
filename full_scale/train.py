"""Train a method of the book on a model family: on one CPU, one GPU, one node or many, by the
same command.

    python -m full_scale.train lcm --tiny --data DATA --out runs/try --steps 20
    torchrun --standalone --nproc_per_node 8 -m full_scale.train lcm_lora \\
        --weights weights/stable-diffusion-v1-5 --data DATA --out runs/lcm
    sbatch full_scale/launch/slurm.sh lcm_lora --weights … --data … --out …

The first argument names a recipe in full_scale/recipes, or a TOML file of yours; flags
override it. A run that was killed, by whatever, is continued by the same command. --dry-run
prints the settings, the parameters and the memory and time it will take on as many GPUs as
processes were started; full_scale.estimate has --processes for other numbers.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from dlib import SOLVERS, guided
from dlib._util import require
from dlib.losses import with_omega
from full_scale.families import Family, introduced
from full_scale import launch
from full_scale.run.engine import Engine, placed
from full_scale.run.given import check_given, given_roles
from full_scale.run.guard import check_target
from full_scale.out.folder import contact_sheet
from full_scale.data.rows import Rows
from full_scale.sampling.latents import latents
from full_scale.run.student import open_start
from full_scale.run import lock
from full_scale.run.checks import check, check_rows
from full_scale.run.numbers import check_numbers
from full_scale.run.room import with_room
from full_scale.run.settings import Settings, as_table, read, recipe_of
from full_scale.launch import Processes


def main(arguments: list[str] | None = None) -> None:
    """The command line: one line on stderr, from one process, and exit status 1, for what the
    reader can put right.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    dry = "--dry-run" in arguments
    try:
        size = launch.place()[1]
        settings = launch.asked(lambda: read([a for a in arguments if a != "--dry-run"]))
        if dry:
            return rehearse(settings)
        check(settings, size)
        check_given(settings)
    except (ValueError, OSError) as error:
        sys.exit(1 if launch.quiet() else f"full_scale.train: {error}")
    try:
        train(settings)
    except OSError as error:
        sys.exit(f"full_scale.train: {with_room(error, settings.out)}")
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"full_scale.train: {error}")
    except KeyboardInterrupt:
        if launch.place()[0] == 0:
            print("full_scale.train: stopped; nothing that was saved is lost", file=sys.stderr)
        sys.exit(130)


def rehearse(settings: Settings) -> None:
    """Print the estimate for the processes that torchrun or srun started, once; no process group
    is needed for it.
    """
    from full_scale.cost.quote import report

    check_numbers(settings)
    rank, size = launch.place()
    if rank == 0:
        print(report(settings, size))


def train(settings: Settings) -> Engine:
    """Run `settings` to the end, or until a signal."""
    with (
        launch.joined(settings.device) as processes,
        launch.within_memory(smaller(settings)),
        ExitStack() as held,
    ):
        check(settings, processes.size)
        check_given(settings)
        if processes.leads:
            held.enter_context(lock.alone(settings.out))
        engine = open_engine(settings, processes)
        if processes.leads:
            facts = {
                "settings": as_table(settings),
                "processes": processes.size,
                "device": str(processes.device),
                "dtype": str(engine.dtype),
            }
            (settings.out / "settings.json").write_text(json.dumps(facts, indent=1) + "\n")
        if engine.run(pictures) and processes.leads:
            (settings.out / "done").write_text(f"{engine.step} steps\n")
            print(
                f"{settings.method}: {engine.step} steps in {settings.out}; export them with "
                f"python -m full_scale.export {settings.out}"
            )
        return engine


def smaller(settings: Settings) -> str:
    """What to type when memory runs out."""
    ways = [f"a --micro below {settings.micro}"] * (settings.micro > 1)
    ways += ["--recompute"] * (not settings.recompute)
    less = f"add {' or '.join(ways)}, which change no result; " if ways else ""
    return (
        f"{less}python -m full_scale.estimate with these words and --card GB says what fits a "
        "card. The same command with what you add goes on from the last checkpoint"
    )


def open_engine(settings: Settings, processes: Processes) -> Engine:
    """The run of these settings, resumed if its folder holds checkpoints."""
    dtype = (
        torch.bfloat16
        if settings.dtype == "bfloat16"
        or (settings.dtype == "auto" and processes.device.type == "cuda")
        else torch.float32
    )
    weights = None if settings.tiny else settings.weights
    family = open_start(settings.family, weights, processes.device)
    recipe = recipe_of(settings, None, None)
    require(
        recipe.told_teacher or not family.told,
        "these weights are a distilled student that takes ω as an input, not a diffusion model: "
        "train from the weights that it was distilled from, or halve its steps with "
        "progressive_with_omega",
    )
    require(
        family.told or settings.tiny or not recipe.told_teacher,
        f"{settings.method} halves the steps of a student that takes ω as an input, which "
        f"--weights {weights} do not: name the --out of a run of guided, or of the round before",
    )
    if processes.leads:
        print(introduced(family, weights))
    if settings.show_every:
        prompts_of(settings, family)
    rows = Rows(settings.data, recipe.reads)
    check_rows(settings, rows, processes.size)
    rows.check(family, settings.batch // recipe.group)
    if rows.pictures:
        some = placed(rows[range(min(settings.micro, 8))], processes.device)
        if family.told:
            omega = torch.full((len(some.x0),), recipe.sampler.omega, device=processes.device)
            some = replace(some, cond=with_omega(some.cond, omega))
        check_target(family.denoiser(), some)
    return Engine(settings, processes, family, rows, dtype, given_roles(settings, family))


def prompts_of(s: Settings, family: Family) -> tuple[int, dict[str, Tensor]]:
    """How many prompts the grids show, and their condition. ValueError for one that the family
    cannot read.
    """
    prompts = s.prompts or family.prompts
    try:
        return len(prompts), family.encode_texts(prompts)
    except ValueError as error:
        raise ValueError(f"--prompts: {error}") from None


@launch.within_memory("the grid of pictures: pass fewer --prompts, or --show-every 0 for none")
@torch.no_grad()
def pictures(engine: Engine) -> Image.Image:
    """A sheet of the settings' prompts, sampled from the student as it would be exported."""
    s, family, recipe, model = engine.s, engine.family, engine.recipe, engine.cast.output
    sampler, device = recipe.sampler, engine.processes.device
    model, guides = sampler.wrap(model), sampler.omega and not recipe.told
    model = guided(model, sampler.omega, engine.null) if guides else model
    count, cond = prompts_of(s, family)
    cond = {name: rows.to(device) for name, rows in cond.items()}
    if recipe.told:
        cond["omega"] = torch.full((count,), sampler.omega, device=device)
    x = latents(
        model,
        engine.rows.info["shape"],
        sampler.levels(model.schedule),
        SOLVERS[sampler.solver],
        cond,
        range(count),
        count,
    )
    return contact_sheet([family.decode(latent) for latent in x], count)


if __name__ == "__main__":
    main()
