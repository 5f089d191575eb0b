"""Consistency distillation of a diffusion model into a student of few steps.

Roles: `student`, trained, starts as the teacher; `teacher`, the diffusion model, constant;
`target`, the student's moving average, or the student itself: the losses give it no gradient.
All are plain denoisers; boundaries and guidance are put on here. To sample, wrap the student
as its recipe says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from dlib._util import require
from dlib.boundaries import boundary, edm_boundary, lcm_scalings
from dlib.grids import grid, pcm_edges
from dlib.losses import consistency, huber, squared, with_omega
from dlib.losses.adversarial import phased_discriminator, phased_generator
from dlib.losses.consistency_losses import ends
from dlib.losses.consistency_steps import check_omega, check_skip
from dlib.losses.diffusion import Loss
from dlib.recipes.base import STUDENT, TARGET, TEACHER, Part, Phase, Recipe, Sampler, step_named
from dlib.schedule import NoiseSchedule

PARTS = {"student": STUDENT, "teacher": TEACHER, "target": TARGET}
Range = tuple[float, float]


def consistency_distillation(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    points: int = 40,
    spacing: str = "karras",
    t_max: float = 1.0,
    solver: str = "heun",
    sigma_data: float = 0.5,
) -> Recipe:
    """CD: one phase, squared error, no guidance (Song et al. 2023, alg. 2).

    The defaults are the paper's, and not the best ones on the book's mixtures: there 18 points
    of `arctan` with `dpm_solver_3` and sigma_data 1 leave about half the error of `karras` and
    `heun`, since the student inherits its teacher's step.

    null is not used. points: grid points from t_max to the clean end, N in the paper. Its
    moving average has decay 0.95. Sample `boundary(student, edm_boundary(schedule, t_end,
    sigma_data))`, t_end being the grid's last time, with the solver `stochastic_iterative` and
    `CLEAN` as last level.

    >>> from dlib.schedule import edm
    >>> consistency_distillation(edm()).trained
    ('student',)
    """
    step = step_named("consistency_distillation", solver)
    times = grid(schedule, points - 1, spacing, t_max=t_max)
    scalings = edm_boundary(schedule, times[-1].item(), sigma_data)

    def loss(roles, batch, draw):
        student, target = (boundary(roles[name], scalings) for name in ("student", "target"))
        return consistency(
            student,
            roles["teacher"],
            target,
            batch,
            draw,
            times=times,
            solver=step,
            distance=squared,
        )

    ends_at = (times[0].item(), times[-1].item())
    wrap = partial(boundary, skip_out=scalings)
    shown = Sampler("stochastic_iterative", spacing, 1, times=ends_at, wrap=wrap)
    return Recipe((Phase("student", loss),), PARTS, shown)


def lcm(
    schedule: NoiseSchedule,
    null: Any,
    *,
    omega: Range = (5.0, 15.0),
    steps: int = 50,
    skip: int = 1,
    spacing: str = "sd_trailing",
    solver: str = "ddim",
    huber_c: float = 1e-3,
) -> Recipe:
    """LCM without an embedding of ω, as the released script trains LoRA adapters: each sample
    has its own ω, and the student learns about the mean over the range. (Luo et al. 2023b
    trained their adapters at one fixed scale, 7.5, says latent-consistency-model issue 40.)

    null: the empty condition, as `guided` takes it; omega: the range of the teacher's ω, (0,
    0) for no guidance; steps and skip: the grid, and how many of its steps the solver takes at
    once: 50 and 1 are the paper's skip of 20 indices. Sample `boundary(student,
    lcm_scalings(schedule, t_end))` with the solver `lcm` on the grid `lcm`, `CLEAN` as last
    level.

    The defaults are the released script's, for a student that starts as the teacher. A network
    that starts from nothing needs the moving average, with a decay of 0.95; on the book's
    mixtures its error is four times larger without (chapter 14). There the perfect teacher's
    fifty `ddim` steps leave a distance that no training removes; with `dpm_solver_3`, three
    calls of the teacher a step, they leave a fortieth of it.
    """
    step = teacher_step("lcm", omega, null, skip, solver)
    return _latent(schedule, grid(schedule, steps, spacing), step, omega, huber_c, embed=None)


def lcm_with_omega(
    schedule: NoiseSchedule,
    null: Any,
    *,
    omega: Range = (5.0, 15.0),
    steps: int = 50,
    skip: int = 1,
    spacing: str = "sd_trailing",
    solver: str = "ddim",
    huber_c: float = 1e-3,
) -> Recipe:
    """LCM whose student is told ω: its condition carries it under "omega", (B,), as
    `with_omega` adds it (Luo et al. 2023a, alg. 1).

    Everything else is `lcm`. Its moving average has decay 0.95 in the released script.
    """
    step = teacher_step("lcm_with_omega", omega, null, skip, solver)
    times = grid(schedule, steps, spacing)
    return _latent(schedule, times, step, omega, huber_c, embed=with_omega)


def _latent(
    schedule, times: Tensor, step: dict, omega: Range, huber_c, embed: Callable | None
) -> Recipe:
    scalings, distance = lcm_scalings(schedule, times[-1].item()), huber(huber_c)
    path = dict(times=times, embed=embed, **step)

    def loss(roles, batch, draw):
        student, target = (boundary(roles[name], scalings) for name in ("student", "target"))
        return consistency(
            student, roles["teacher"], target, batch, draw, distance=distance, **path
        )

    # a student that is told ω is shown at the middle of its range
    told = {} if embed is None else {"omega": sum(omega) / 2}
    wrap = partial(boundary, skip_out=scalings)
    shown = Sampler("lcm", "lcm", 4, wrap=wrap, **told)
    return Recipe((Phase("student", loss),), PARTS, shown, told=embed is not None)


def pcm(
    schedule: NoiseSchedule,
    null: Any,
    *,
    phases: int = 4,
    omega: Range = (4.0, 5.0),
    steps: int = 50,
    skip: int = 1,
    spacing: str = "sd_trailing",
    solver: str = "ddim",
    huber_c: float = 1e-3,
) -> Recipe:
    """PCM: `phases` phases with a clean edge each, compared at the edge, without boundary
    scalings (Wang et al. 2024b, eq. 10).

    null, omega, steps, skip as for `lcm`. Sample the student itself with `ddim` on `[times[0],
    *pcm_edges(times, phases)]`.

    omega, grid, solver and huber_c are the released script's. As for `lcm`, fifty `ddim`
    steps of a perfect teacher leave an error that `dpm_solver_3` hardly has.
    """
    path, distance = (
        _phased("pcm", schedule, null, phases, omega, steps, skip, spacing, solver),
        huber(huber_c),
    )

    def loss(roles, batch, draw):
        return consistency(
            roles["student"],
            roles["teacher"],
            roles["target"],
            batch,
            draw,
            distance=distance,
            **path,
        )

    return Recipe((Phase("student", loss),), PARTS, _jumps(path))


def pcm_adversarial(
    schedule: NoiseSchedule,
    null: Any,
    *,
    phases: int = 2,
    omega: Range = (4.0, 5.0),
    steps: int = 50,
    skip: int = 1,
    spacing: str = "sd_trailing",
    solver: str = "ddim",
    huber_c: float = 1e-3,
    adversarial: float = 0.1,
) -> Recipe:
    """PCM with a discriminator that is trained beside the student (Wang et al. 2024b, section
    4): two phases a step.

    The student's loss gains `adversarial` × its hinge term. Then the role `discriminator`
    learns on the points that the student and its target have just reached, handed on in the
    batch's memo: neither network runs a second time. It is a `Denoiser` whose net returns
    logits (B, k). Draws: those of `consistency`, then of `phased_generator`; in the second
    phase those of `phased_discriminator`.
    """
    require(
        0 <= adversarial < math.inf,
        f"pcm_adversarial: adversarial = {adversarial:g}, wanted a weight from 0 on: below it "
        "the student would help the discriminator",
    )
    path, distance = (
        _phased("pcm_adversarial", schedule, null, phases, omega, steps, skip, spacing, solver),
        huber(huber_c),
    )
    place = dict(times=path["times"], edges=path["edges"])

    def student(roles, batch, draw):
        judge = roles["discriminator"]
        both = ends(roles["student"], roles["teacher"], roles["target"], batch, draw, **path)
        fake = both.student
        near = distance(fake, both.target)
        fooled = phased_generator(
            judge, schedule, fake, both.index, draw, cond=batch.cond, clock=judge.clock, **place
        )
        batch.memo.update(real=both.target, fake=fake.detach(), index=both.index)
        return Loss(
            (near + adversarial * fooled).mean(),
            {"loss": near.detach().mean(), "generator": fooled.detach().mean()},
        )

    def discriminator(roles, batch, draw):
        judge, memo = roles["discriminator"], batch.memo
        return phased_discriminator(
            judge,
            schedule,
            memo["real"],
            memo["fake"],
            memo["index"],
            draw,
            cond=batch.cond,
            clock=judge.clock,
            **place,
        )

    phases = (Phase("student", student), Phase("discriminator", discriminator))
    return Recipe(phases, PARTS | {"discriminator": Part("heads", "teacher")}, _jumps(path))


def _phased(
    method, schedule, null, phases, omega, steps, skip, spacing, solver
) -> dict[str, Any]:
    times = grid(schedule, steps, spacing)
    return dict(
        times=times,
        edges=pcm_edges(times, phases),
        **teacher_step(method, omega, null, skip, solver),
    )


def _jumps(path: dict[str, Any]) -> Sampler:
    """DDIM from the noisiest time through the phases' edges."""
    times = (path["times"][0].item(), *path["edges"].tolist())
    return Sampler("ddim", "pcm", len(times) - 1, "grid", times=times)


def teacher_step(method: str, omega: Range, null: Any, skip: int, solver: str) -> dict[str, Any]:
    """The teacher's step, as `consistency` takes it; ValueError, in the name of `method`, for
    what is none. ω = 0 throughout is no guidance: the empty condition need not be evaluated.
    """
    check_omega(method, omega)
    check_skip(method, skip)
    guidance = dict(omega=tuple(omega), null=null) if any(omega) else {}
    return dict(skip=skip, solver=step_named(method, solver), **guidance)
