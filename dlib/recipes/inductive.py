"""Inductive moment matching as a recipe."""

from __future__ import annotations

from functools import partial
from typing import Any

from dlib.boundaries import boundary, lcm_scalings
from dlib.losses import imm_triples, laplace, moment_matching
from dlib.losses.inductive import jump_scale
from dlib.recipes.base import Phase, Recipe, Sampler, at_least_one
from dlib.recipes.bootstrapping import PARTS
from dlib.schedule import NoiseSchedule


def imm(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    halvings: int = 12,
    group: int = 4,
    width: float = 1.0,
) -> Recipe:
    """IMM whose jumps all end at the clean data, s = 0, so that no network need be told s
    (Zhou et al. 2025). null is not used. For notebooks: the engine draws row by row. Only
    s = 0 and the uniform weight are offered; `moment_matching` takes any.

    halvings: of `imm_triples`; group: samples that are compared as a set; width: of the
    Laplace kernel, in units of `jump_scale`. halvings and group are the paper's, for very long
    runs; short ones on points do better with 6 halvings, steps 64 times as long. The width is
    a plain 1, which nobody recommends: the book's students have it on points, and 4 on
    pictures (`toy_data.student_settings`).

    >>> from dlib.schedule import vp
    >>> imm(vp()).play("mean")
    ('target',)
    """
    at_least_one("imm", group=group)
    drawn, kernel = imm_triples(schedule, halvings=halvings), laplace(width)

    def triples(draw, n):
        t, r, s = drawn(draw, n)
        return t, r, s.new_full(s.shape, -1.0)  # a time below the schedule's: clean

    def loss(roles, batch, draw):
        both = roles["student"], roles["target"]
        how = dict(triples=triples, group=group, kernel=kernel, scale=jump_scale)
        return moment_matching(*both, batch, draw, **how)

    shown = Sampler("lcm", "lcm", 2, wrap=partial(boundary, skip_out=lcm_scalings(schedule)))
    return Recipe((Phase("student", loss),), PARTS, shown)
