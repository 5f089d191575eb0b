"""The students that are measured: each trained as its setting says, and those that are shipped,
as they were trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dlib import Batch, Denoiser, Draw, Sampler, levels, sample
from dlib._util import require
from dlib.nets import Told
from dlib.recipes import finetune
from dlib.solvers import dpm_solver_pp_2m
from toy_data import weights
from toy_data.student_settings import SETTINGS, Setting
from toy_data.students import distil
from toy_data.train_digits import seeded
from toy_data.worlds import World, world_of

MAKER = "bench students --ship"
TEACHER_STEPS = 20


def trained(setting: Setting, seed: int) -> Denoiser:
    """The student of a setting, its weights fixed. seed: of its fresh weights, its data and
    its losses' draws.
    """
    world = world_of(setting.world)
    student, teacher = world.start(seed), world.teacher
    data = world.batches(setting.batch, seed)
    if setting.before:
        first = finetune(student.schedule, weight="v")
        student = distil(first, student, student, data, setting.before, seed=seed)
    for turn, updates in enumerate(setting.updates):
        recipe = setting.made(student.schedule, world.null, turn)
        if recipe.told:
            student = seeded(lambda: replace(student, net=Told(student.net)), seed)
        rows = paired(world, setting, seed) if recipe.reads == "pairs" else data
        student = distil(recipe, student, teacher, rows, updates, setting.lr, setting.decay, seed)
        teacher = student
    return student


def paired(world: World, setting: Setting, seed: int) -> Callable[[int], Batch]:
    """step ↦ a batch of noise and where the teacher carries it: 60 steps of DPM-Solver++(2M)
    on points and `TEACHER_STEPS` on pictures, along λ.
    """
    teacher, rows = world.teacher, world.batches(setting.pairs, seed)(0)
    noise = Draw(10**9 + seed).normal(rows.x0)
    steps = 60 if noise.ndim == 2 else TEACHER_STEPS
    walk = levels(teacher.schedule, steps, end="clean")
    parts = zip(noise.split(2048), _split(rows.cond, 2048, len(noise)), strict=True)
    with torch.no_grad():
        ends = torch.cat([sample(teacher, x, walk, dpm_solver_pp_2m, cond) for x, cond in parts])

    def at(step: int) -> Batch:
        row = Draw(2 * 10**9 + 1_000_000 * seed + step).integers(len(noise), setting.batch)
        return Batch(ends[row], None if rows.cond is None else rows.cond[row], noise=noise[row])

    return at


def _split(cond: Tensor | None, n: int, rows: int) -> list:
    return [None] * -(-rows // n) if cond is None else list(cond.split(n))


def sampler_of(setting: Setting) -> Sampler:
    """How the setting's student is sampled: as its recipe says, in `calls` calls; told no
    guidance.
    """
    world = world_of(setting.world)
    shown = setting.made(world.teacher.schedule, world.null).sampler
    if shown.times is None:
        shown = replace(shown, steps=setting.calls)
    return replace(shown, omega=0.0)


def shipped_name(setting: Setting) -> str:
    """The file's name in toy_data, without its ending: after the recipe, since sCT and SCT
    differ in case alone.
    """
    return f"student_{setting.recipe}"


def shipped(method: str) -> Denoiser:
    """The shipped student of a method, frozen and bare: `sampler_of(setting_of(method))` puts
    its boundary on and samples it, `shipped_facts` says what it scored.

    method: as in the table of students, "CD" or "LCM"; of seed 0, on GMM5, or on `labelled`
    for "guided", whose condition carries ω under "omega". ValueError for a method without one.

    >>> student, sampler = shipped("CD"), sampler_of(setting_of("CD"))
    >>> sampler(student, Draw(0).normal((3, 2)), draw=Draw(1)).shape
    torch.Size([3, 2])
    """
    setting = setting_of(method)
    world = world_of(setting.world)
    student, recipe = world.start(0), setting.made(world.teacher.schedule, world.null)
    student = replace(student, net=Told(student.net)) if recipe.told else student
    weights.restore(shipped_name(setting), student.net, architecture(setting), MAKER)
    return student


def shipped_facts(method: str) -> dict:
    """What the file states: "architecture", "identity" of its setting, "seed" and "scores"."""
    return weights.facts(shipped_name(setting_of(method)), MAKER)


def setting_of(method: str) -> Setting:
    """The setting of a method on points. ValueError for a method without a student there."""
    require(
        method in SHIPPED, f"shipped: no student of {method!r}; there are {', '.join(SHIPPED)}"
    )
    return SHIPPED[method]


SHIPPED = {
    setting.method: setting
    for setting in SETTINGS.values()
    if setting.world in ("gmm5", "labelled") and setting.method != "knowledge, a tenth"
}
"""The methods that have a shipped student, on points all but one, with their settings."""


def architecture(setting: Setting) -> dict:
    """What a shipped file says its network is."""
    net = {"net": "dlib.nets.MLP", "dim": 2, "width": 96, "depth": 2, "predicts": "v"}
    told = {"net": "dlib.nets.Told", "classes": 2, "schedule": "cosine()"}
    return net | (told if setting.world == "labelled" else {"schedule": "vp()"})


def ship(setting: Setting, student: Denoiser, scores: dict) -> None:
    """Write a student of seed 0 beside this file, with what it scored."""
    facts = dict(architecture=architecture(setting), identity=setting.identity, seed=0)
    weights.write(shipped_name(setting), student.net, facts | {"scores": scores})
