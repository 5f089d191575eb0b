"""What `bench.loss_overhead` times: the losses of recipes, and their bare network calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

import dlib
from bench.timing import Round
from dlib.denoiser import with_both
from dlib.forward_mode import tangent
from dlib.losses import variance_reduced_target, with_omega
from dlib.nets import Told
from dlib.recipes import Recipe, ect, guided, imm, knowledge, lcm, pcm, progressive, scm, sct, tcd
from toy_data import shape_batches, shapes_teacher
from toy_data.shape_captions import NULL_TOKENS

SCT, WEIGHTS = "SCT loss", "SCT's weights alone"


class Calls(NamedTuple):
    """What a loss asks besides the student's call: guided, plain, derivatives in forward mode."""

    guided: int = 0
    plain: int = 0
    slopes: int = 0

    @property
    def name(self) -> str:
        """As a row says it."""
        more = [f"{n} {kind}" for kind, n in self._asdict().items() if n]
        return "bare calls: " + " + ".join([*more, "student"])


class Scene(NamedTuple):
    """Networks, a batch of data, and what is timed there: name ↦ (recipe, what its loss calls).
    The teacher plays every role but the student's.
    """

    student: dlib.Denoiser
    teacher: dlib.Denoiser
    x0: torch.Tensor
    cond: Any
    losses: dict[str, tuple[Recipe, Calls]]


class Pair(NamedTuple):
    """A loss, or a part of one, and what it is timed against, by name."""

    own: Round
    against: str
    other: Round


def of_latents(model: dlib.Denoiser, batch: int, width: int = 32) -> Scene:
    """A U-Net of Stable Diffusion's classes is student and teacher; width: of its text."""
    schedule, draw, null = model.schedule, dlib.Draw(0), {"text": torch.zeros(16, width)}
    x0, text = draw.normal((batch, 4, 16, 16)), draw.normal((batch, 16, width))
    losses = {
        "LCM loss": (lcm(schedule, null), Calls(guided=1, plain=1)),
        "PCM loss, 4 phases": (pcm(schedule, null), Calls(guided=1, plain=1)),
        "TCD loss": (tcd(schedule, null), Calls(guided=1, plain=1)),
        "knowledge": (knowledge(schedule), Calls()),
        "progressive": (progressive(schedule), Calls(plain=2)),
        "ECT loss": (ect(schedule), Calls(plain=1)),
        SCT: (sct(schedule), Calls(plain=1)),
        "IMM loss, groups of 4": (imm(schedule), Calls(plain=1)),
        "sCM loss": (scm(schedule, null), Calls(plain=1, slopes=1)),
    }
    return Scene(model, model, x0, {"text": text}, losses)


def of_shapes(batch: int) -> Scene:
    """The transformer of the captioned shapes; its student is told ω."""
    teacher, data = shapes_teacher(), shape_batches(batch, seed=0, drop=0.0)(0)
    student = replace(teacher, net=Told(teacher.net).requires_grad_())
    loss = (guided(teacher.schedule, NULL_TOKENS), Calls(guided=1))
    return Scene(student, teacher, data.x0, data.cond, {"guided distillation, shapes": loss})


def pairs(scene: Scene) -> dict[str, Pair]:
    """Every loss by name, against its bare calls; and SCT's weights, against all of SCT."""
    found = {}
    for name, (recipe, calls) in scene.losses.items():
        batch = _batch(recipe, scene)
        own = _prepared(scene, _loss(recipe, scene, batch))
        found[name] = Pair(own, calls.name, _prepared(scene, _bare(scene, calls, recipe.told)))
        if name == SCT:
            found[WEIGHTS] = Pair(_prepared(scene, _weights(scene, batch)), f"the {SCT}", own)
    return found


def _batch(recipe: Recipe, scene: Scene) -> dlib.Batch:
    """A batch as the recipe reads it; what its rollout leaves in the memo was made before."""
    noise = dlib.Draw(1).normal(scene.x0) if recipe.reads == "pairs" else None
    batch = dlib.Batch(scene.x0, scene.cond, noise=noise)
    if recipe.before is not None:
        memo = recipe.before({}, batch, dlib.Draw(0))
        batch.memo.update(recipe.pool([memo], lambda rows: (rows, slice(0, len(rows))))[0])
    return batch


def _loss(recipe: Recipe, scene: Scene, batch: dlib.Batch) -> Callable[[], None]:
    roles = dict.fromkeys(recipe.parts, scene.teacher) | {"student": scene.student}
    return lambda: recipe.phases[0].loss(roles, batch, dlib.Draw(0)).value.backward()


def _bare(scene: Scene, calls: Calls, told: bool) -> Callable[[], None]:
    x0, cond, n = scene.x0, scene.cond, len(scene.x0)
    now, level = torch.full((n,), 499.0), _middle(scene)
    twice = (with_both(x0), with_both(now), with_both(cond))
    said = with_omega(cond, torch.ones(n)) if told else cond
    dt, read = torch.ones_like(level.t), lambda said: said.raw

    def work() -> None:
        with torch.no_grad():
            for _ in range(calls.guided):
                scene.teacher.net(*twice)
            for _ in range(calls.plain):
                scene.teacher.net(x0, now, cond)
            for _ in range(calls.slopes):
                tangent(scene.teacher, x0, level, x0, dt, cond, read=read)
        scene.student.net(x0, now, said).mean().backward()

    return work


def _weights(scene: Scene, batch: dlib.Batch) -> Callable[[], None]:
    level, known = _middle(scene), (batch.memo["references"], batch.memo["shared"])
    x = level.alpha * scene.x0 + level.sigma * dlib.Draw(1).normal(scene.x0)
    return lambda: variance_reduced_target(x, level, *known)


def _middle(scene: Scene) -> dlib.NoiseLevel:
    half = torch.full((len(scene.x0),), 0.5, dtype=torch.float64)
    return scene.student.schedule.at(half, like=scene.x0)


def _prepared(scene: Scene, work: Callable[[], object]) -> Round:
    """The gradients are dropped before each round, off the clock."""

    def prepare() -> Callable[[], object]:
        for weight in scene.student.net.parameters():
            weight.grad = None
        return work

    return prepare
