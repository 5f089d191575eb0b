"""Whether PCM's adversarial term helps small students of captioned shapes: phases and weights,
three seeds each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import torch

from bench.report import Report
from bench.students_report import mean_error
from dlib import Batch, Denoiser, Draw, Judge, Recipe, cast, perform, recipes
from dlib.training import weights_of
from full_scale.families.heads import judge
from full_scale.families.shapes import Shapes
from toy_data import shape_batches
from toy_data.shape_captions import say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import N, asked, shapes_frechet
from toy_data.shapes import SIDE
from toy_data.student_prints import said
from toy_data.student_scores import picture_floor

NOTE = """PCM with and without its adversarial term on captioned shapes: students that start as
the shipped teacher, {updates} updates of {batch} pictures, no guidance, rate 3e-4 along a cosine,
target average .95. The discriminator's heads sit on the frozen teacher; they are new, and their
rate is twice the student's. *ratio* is the Fréchet distance of as many calls as there are phases,
over the mean of sixteen draws of its floor (1 is real pictures), a mean of two noises; *shown* is
the share of captions that the pictures show. Means over {seeds} seeds, with two standard
errors. So short a run has new heads from first to last; what a long one gains is not in it."""
BATCH, LR, HEADS_LR, DECAY = 32, 3e-4, 6e-4, 0.95
PHASES, WEIGHTS = (2, 4), (0.0, 0.01, 0.1)
CPU = torch.device("cpu")


def run(updates: int = 250, seeds: int = 3, weights: tuple[float, ...] = WEIGHTS) -> Report:
    """Ratio and share shown for each number of phases and each weight of the term."""
    rows = []
    for phases in PHASES:
        for weight in weights:
            trained = [student(phases, weight, updates, seed) for seed in range(seeds)]
            found = zip(*(scored(one, phases) for one in trained), strict=True)
            cells = [value for scores in found for value in mean_error(scores)]
            rows.append([phases, weight, *cells])
            print(json.dumps(rows[-1]), flush=True)
    note = NOTE.format(updates=updates, batch=BATCH, seeds=seeds)
    columns = ["phases", "weight", "ratio", "±", "shown", "± shown"]
    return Report("PCM's adversarial term on captioned shapes", note, columns, rows, prints())


def world() -> tuple[Denoiser, Callable[[Denoiser], Judge]]:
    """(teacher, role ↦ new heads on it)."""
    family = Shapes.tiny(CPU, torch.float32)
    return family.denoiser(), lambda on: judge(on, family, CPU)


def made(teacher: Denoiser, phases: int, weight: float) -> Recipe:
    """PCM without guidance; with the term, if it has a weight."""
    how = dict(phases=phases, omega=(0.0, 0.0))
    if not weight:
        return recipes.pcm(teacher.schedule, None, **how)
    return recipes.pcm_adversarial(teacher.schedule, None, adversarial=weight, **how)


def batches(seed: int) -> Callable[[int], Batch]:
    """step ↦ pictures with their captions, as the family names them."""
    drawn = shape_batches(BATCH, seed=seed, drop=0)

    def at(step: int) -> Batch:
        batch = drawn(step)
        return replace(batch, cond={"text": batch.cond})

    return at


def student(phases: int, weight: float, updates: int, seed: int) -> Denoiser:
    """A trained student, its weights fixed. seed: of its heads, data and draws."""
    teacher, heads = world()
    recipe = made(teacher, phases, weight)
    torch.manual_seed(seed)
    actors = cast(recipe, teacher, heads=heads, decays={"target": DECAY})
    rates = {"student": LR, "discriminator": HEADS_LR}
    optims = {
        role: torch.optim.Adam(weights_of(actors.roles[role]), rates[role])
        for role in recipe.trained
    }
    falling = [torch.optim.lr_scheduler.CosineAnnealingLR(o, updates) for o in optims.values()]
    each = lambda step, found: [rate.step() for rate in falling]
    draws = lambda step: Draw(1_000_000 * (seed + 1) + step)
    perform(recipe, actors, optims, batches(seed), updates, draws, each)
    return replace(teacher, net=actors.roles["student"].net.requires_grad_(False).eval())


@torch.no_grad()
def scored(trained: Denoiser, phases: int) -> tuple[float, float]:
    """(ratio, share shown) of one student, in as many calls as phases."""
    sampler = made(trained, phases, 0.0).sampler
    codes = asked()
    text = {"text": tokens([say(tuple(code)) for code in codes.tolist()])}
    sets = [sampler(trained, Draw(k).normal((N, 3, SIDE, SIDE)), text) for k in range(2)]
    far = sum(shapes_frechet(x, codes) for x in sets) / 2
    right = sum(shows(read(x), codes).double().mean().item() for x in sets) / 2
    return far / picture_floor("shapes")[0], right


def prints() -> list[dict]:
    """What the losses of today say, kept with the result: a test knows when they have changed."""
    found = []
    for phases in PHASES:
        for weight in (0.0, 0.1):
            teacher, heads = world()
            torch.manual_seed(0)
            numbers = said(made(teacher, phases, weight), teacher, teacher, batches(0), 0, heads)
            rates = {"lr": LR, "heads' lr": HEADS_LR, "decay": DECAY}
            found.append({"phases": phases, "weight": weight} | rates | {"fingerprint": numbers})
    return found
