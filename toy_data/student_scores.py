"""How good a student is: on GMM5 against exact samples and against the exact flow of the same
noise, on pictures by the Fréchet distance over what real pictures score.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dlib import Denoiser, Draw, exact, grid, guided, levels, metrics, sample, solvers, vp
from dlib.losses import with_omega
from toy_data.digit_scores import SEEDS, digits_frechet
from toy_data.digits import digits_classifier, digits_split
from toy_data.mixtures import gmm5
from toy_data.shape_captions import say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import N, asked, shapes_frechet
from toy_data.shapes import SIDE, pictures
from toy_data.student_settings import Setting
from toy_data.student_training import sampler_of, setting_of, shipped
from toy_data.worlds import world_of

FLOOR = 0.0319  # sliced W₂ of two exact sets of 10 000 on GMM5, mean of 48 pairs
PAIRS, NEAR = 8, 20_000
FLOORS = 16
OMEGA, MOST = 2.0, 4.0  # at which guided students are asked, on points and on pictures


class Yardstick(NamedTuple):
    """Noise (P, n, 2), where the exact flow carries it, exact samples, and the mean sliced W₂
    of these two.
    """

    noise: Tensor
    ends: Tensor
    real: Tensor
    exact: float


def flow_ends(noise: Tensor) -> Tensor:
    """Where GMM5's exact flow carries the noise (n, 2) float64 on `vp()`: 60 steps of UniPC-3,
    then the mean of what is left.
    """
    mixture, schedule = gmm5(), vp()
    model, end = exact(mixture, schedule), schedule.at_lam(6.5)
    steps = schedule.levels(grid(schedule, 60, "arctan", t_min=end.t))
    made = [sample(model, part, steps, solvers.unipc_3) for part in noise.split(20_000)]
    return mixture.posterior_means(torch.cat(made), steps[-1])[0]


@lru_cache
def yardstick(n: int = 10_000) -> Yardstick:
    """The eight fixed pairs of n on which every student is scored."""
    noise = Draw(777).normal((PAIRS * n, 2), torch.float64)
    ends = flow_ends(noise).view(PAIRS, n, 2)
    real = torch.stack([gmm5().sample(n, Draw(8000 + k))[0] for k in range(PAIRS)])
    return Yardstick(noise.view(PAIRS, n, 2), ends, real, _apart(ends, real))


def _apart(x: Tensor, y: Tensor) -> float:
    return sum(metrics.sliced_w2(*pair) for pair in zip(x, y, strict=True)) / len(x)


@torch.no_grad()
def points_scores(student: Denoiser, setting: Setting, n: int = 10_000) -> dict[str, float]:
    """A GMM5 student's ratio, paired, d, none and RMS.

    ratio: mean sliced W₂ over eight fixed pairs to exact samples, over the floor; paired: the
    same over the exact flow's own score on these pairs; d: sliced W₂ of 20 000 samples to the
    exact flow's ends of the same noise, over the floor; none: share in no mode; rms: to these
    ends, left out for IMM, which learns a law and no map.
    """
    given, draw = yardstick(n), Draw(5)
    sampler = sampler_of(setting)
    x = torch.stack([sampler(student, z.float(), draw=draw).double() for z in given.noise])
    near = metrics.sliced_w2(*(a.flatten(0, 1)[:NEAR] for a in (x, given.ends)))
    apart = _apart(x, given.real)
    every = x.flatten(0, 1)
    found = {
        "ratio": apart / FLOOR,
        "paired": apart / given.exact,
        "d": near / FLOOR,
        "none": 1 - gmm5().shares(every).sum().item(),
    }
    law = setting.recipe == "imm"
    return found if law else found | {"rms": metrics.rms(every, given.ends.flatten(0, 1))}


@torch.no_grad()
def guided_scores(student: Denoiser, setting: Setting, n: int = 2000) -> dict[str, float]:
    """A guided student on `labelled`: RMS to the ends of the exact flow that is guided at
    ω = 2, and the same of the guided teacher in as many steps, which costs two calls a step.
    """
    world = world_of("labelled")
    noise, label = Draw(3).normal((n, 2), torch.float64), torch.arange(n) % 2
    pair, sampler = guided(world.teacher, OMEGA, world.null), sampler_of(setting)
    fine = levels(world.teacher.schedule, 200, "time")
    ends = sample(pair, noise, fine, solvers.dpm_solver_pp_2m, label)
    told = with_omega(label, torch.full((n,), OMEGA))
    walk = sampler.levels(world.teacher.schedule)
    return {
        "rms": metrics.rms(sampler(student, noise.float(), told).double(), ends),
        "teacher rms": metrics.rms(sample(pair, noise, walk, cond=label), ends),
    }


@torch.no_grad()
def picture_scores(student: Denoiser, setting: Setting) -> dict[str, float]:
    """Fréchet distance over the mean of sixteen draws of its floor, and the share of pictures
    that are read as what was asked for. A student that is told ω is told 0, and then 4, and so
    is its guided teacher in as many steps.
    """
    sampler, digits = sampler_of(setting), setting.world == "digits"
    world, cond = world_of(setting.world), digits_split()[1][1] if digits else _captions()
    made = lambda z, draw: sampler(student, z, cond, draw=draw)
    if not setting.made(world.teacher.schedule, None).told:
        frechet, right = _pictures(made, digits)
        return {"frechet": frechet, "right": right}
    walk, found = sampler.levels(world.teacher.schedule), {}
    for omega, name in ((0.0, ""), (MOST, f" at {MOST:g}")):
        told = with_omega(cond, torch.full((len(cond),), omega))
        pair = guided(world.teacher, omega, world.null)
        ways = {
            "": lambda z, draw, told=told: sampler(student, z, told, draw=draw),
            "teacher ": lambda z, draw, pair=pair: sample(
                pair, z, walk, solvers.SOLVERS[sampler.solver], cond, draw=draw
            ),
        }
        for who, way in ways.items():
            scores = zip(("frechet", "right"), _pictures(way, digits), strict=True)
            found |= {f"{who}{score}{name}": value for score, value in scores}
    return found


def _pictures(made: Callable[[Tensor, Draw], Tensor], digits: bool) -> tuple[float, float]:
    """(Fréchet distance over its floor, share shown as asked) of what is made of noise."""
    shape = (len(digits_split()[1][1]), 1, 8, 8) if digits else (N, 3, SIDE, SIDE)
    draws = [Draw(seed) for seed in (SEEDS if digits else range(2))]
    sets = [made(draw.normal(shape), draw) for draw in draws]
    far = sum(_frechet(x, digits) for x in sets) / len(sets)
    right = sum(_right(x, digits) for x in sets) / len(sets)
    return far / picture_floor("digits" if digits else "shapes")[0], right


def _captions() -> Tensor:
    return tokens([say(tuple(code)) for code in asked().tolist()])


def _frechet(x: Tensor, digits: bool) -> float:
    return digits_frechet(x, digits_classifier()) if digits else shapes_frechet(x, asked())


def _right(x: Tensor, digits: bool) -> float:
    if digits:
        return digits_classifier().accuracy(x, digits_split()[1][1])
    return shows(read(x), asked()).double().mean().item()


@lru_cache
def picture_floor(world: str) -> tuple[float, float]:
    """(mean, standard error) of the Fréchet distance of real pictures, sixteen draws: on
    digits training pictures with the held-out labels, on shapes new pictures of the captions.
    """
    if world == "digits":
        (x0, labels), (_, wanted) = digits_split()
        counts = torch.bincount(wanted)
        drawn = lambda of, n, seed: of[Draw(seed).uniform(len(of)).argsort()[:n]]
        sets = (
            torch.cat([drawn(x0[labels == c], n, 100 * k + c) for c, n in enumerate(counts)])
            for k in range(FLOORS)
        )
        values = [_frechet(x, digits=True) for x in sets]
    else:
        values = [_frechet(pictures(asked(), Draw(3_000_000 + k)), False) for k in range(FLOORS)]
    found = torch.tensor(values, dtype=torch.float64)
    return found.mean().item(), (found.std() / FLOORS**0.5).item()


def student_scores(student: Denoiser, setting: Setting, n: int = 10_000) -> dict[str, float]:
    """The scores of a setting's student, by its world; n: points in each of GMM5's pairs."""
    if setting.world == "gmm5":
        return points_scores(student, setting, n)
    if setting.world == "labelled":
        return guided_scores(student, setting)
    return picture_scores(student, setting)


def rescored(method: str, n: int = 1000) -> dict[str, float]:
    """The shipped student's scores, measured again on fewer points: about a second.

    The sampling floor grows as n falls, so that "ratio" and "paired" are to be compared at one
    n only; "d", "none" and "rms" mean the same at any.
    """
    return student_scores(shipped(method), setting_of(method), n)
