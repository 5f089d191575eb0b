"""Stable consistency tuning: consistency training whose target is the mean of many clean
samples.

Roles: `student`, trained, starts as the diffusion model; `target`, the student's moving
average, or the student itself. There is no teacher: what the steps are made with are the clean
samples of the whole step, of all micro-batches and processes, that share a row's condition. So
a step does not depend on how it is cut, and nothing but weights has to be saved.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.boundaries import boundary, lcm_scalings
from dlib.grids import grid, pcm_edges
from dlib.losses import Batch, consistency_training, inverse_step, norm_huber
from dlib.losses.curricula import ect_pairs
from dlib.losses.variance_reduction import among, marks, reduced
from dlib.recipes.base import STUDENT, TARGET, Phase, Recipe, Roles, Sampler
from dlib.schedule import NoiseSchedule

PARTS = {"student": STUDENT, "target": TARGET}


def sct(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    stage: float = 3.0,
    q: float = 2.0,
    log_mean: float = -1.1,
    log_std: float = 2.0,
    huber_c: float = 0.0,
    phases: int = 1,
    steps: int = 50,
    spacing: str = "sd_trailing",
    eta: float = 1.0,
) -> Recipe:
    """SCT: easy consistency tuning towards the self-normalised mean of the step's clean samples
    (Wang et al. 2024b).

    A row's references are the rows of the whole step that have its condition, itself among
    them; those whose caption was dropped, `null`, have all. Where every caption occurs once,
    a captioned row is trained by plain consistency training. stage: any real number; raise it
    from run to run, as gently as you like (`smooth_stage`). log_mean, log_std: of ln κ_t.
    huber_c: of the distance, a sample's norm if 0. phases: more than one trains a jump to the
    clean edge of each, the edges being `pcm_edges` of `steps` grid steps.

    Sample one phase with the solver `lcm`; several deterministically with `ddim`, through the
    edges. eta: the jump to an edge goes on to η times its κ, where the next phase is past the
    turn that its network cannot follow; 1 stops at the edge.

    >>> from dlib.schedule import edm
    >>> sct(edm()).trained, sct(edm()).sampler.solver
    (('student',), 'lcm')
    """
    require(
        0 < eta <= 1, f"sct: eta = {eta:g}, wanted a share of an edge's κ, above 0, at most 1"
    )
    require(phases >= 1, f"sct: phases = {phases}, wanted at least 1")
    pairs = ect_pairs(schedule, stage=stage, q=q, mean=log_mean, std=log_std)
    inner = pcm_edges(grid(schedule, steps, spacing), phases)[:-1].tolist()
    wrap = partial(boundary, skip_out=lcm_scalings(schedule)) if phases == 1 else _bare

    def loss(roles, batch, draw):
        return consistency_training(
            wrap(roles["student"]),
            wrap(roles["target"]),
            batch,
            draw,
            pairs=pairs,
            estimate=reduced,
            weight=inverse_step,
            distance=norm_huber(huber_c),
            edges=(*inner, -1.0) if phases > 1 else None,
        )

    shown = Sampler("lcm", "lcm", 4, wrap=wrap)
    if phases > 1:
        times = (1.0, *(skipped(schedule, edge, eta) for edge in inner), schedule.t_min)
        shown = Sampler("ddim", "pcm", phases, "grid", times=times)
    phase = Phase("student", loss)
    return Recipe((phase,), PARTS, shown, before=partial(_marked, null), pool=_pooled)


def skipped(schedule: NoiseSchedule, edge: float, eta: float) -> float:
    """The time at which κ is η times that of an edge; on a ladder, its nearest index.

    >>> from dlib.schedule import edm
    >>> level = edm().at(skipped(edm(), 0.5, 0.9))
    >>> round(level.sigma / edm().at(0.5).sigma, 6)
    0.9
    """
    level = schedule.at(edge)
    t = schedule.at_lam(level.lam - torch.tensor(eta, dtype=torch.float64).log().item()).t
    return round(t * schedule.ladder) / schedule.ladder if schedule.ladder else float(t)


def _bare(model):
    return model


def _marked(null: Any, roles: Roles, batch: Batch, draw: Draw) -> dict[str, Tensor]:
    """What everybody must know of a micro-batch: its clean samples, its conditions' marks."""
    x0, cond = batch.x0, batch.cond
    found = x0.new_zeros(len(x0), dtype=torch.int64) if cond is None else marks(cond, null)
    return {"references": x0, "mark": found}


def _pooled(memos: list[dict[str, Tensor]], gather: Callable) -> list[dict[str, Tensor]]:
    """The references of all micro-batches and processes, and which of them a row shares."""
    everyone, _ = gather(torch.cat([memo["references"] for memo in memos]))
    others, _ = gather(torch.cat([memo["mark"] for memo in memos]))
    return [{"references": everyone, "shared": among(memo["mark"], others)} for memo in memos]
