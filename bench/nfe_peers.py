"""diffusers' deterministic schedulers on GMM5: the exact mixture as their network, the exact
solution as their judge.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import dlib
from bench.nfe_curves import Curve, Problem, Sampler
from bench.timing import progress
from dlib.metrics import rms, typical

LADDER = 1000
FAMILIES: list[tuple[str, str, dict[str, Any]]] = [
    ("DDIM", "DDIMScheduler", {"clip_sample": False}),
    ("Euler", "EulerDiscreteScheduler", {}),
    ("Heun", "HeunDiscreteScheduler", {}),
    ("LMS, order 4", "LMSDiscreteScheduler", {}),
    ("DEIS, order 2", "DEISMultistepScheduler", {}),
    ("DEIS, order 3", "DEISMultistepScheduler", {"solver_order": 3}),
    ("DPM-Solver 2M (ε)", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}),
    (
        "DPM-Solver 3M (ε)",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", "solver_order": 3},
    ),
    ("DPM-Solver++ 2M", "DPMSolverMultistepScheduler", {}),
    ("DPM-Solver++ 2M heun", "DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    ("DPM-Solver++ 3M", "DPMSolverMultistepScheduler", {"solver_order": 3}),
    ("DPM-Solver++ 2S", "DPMSolverSinglestepScheduler", {}),
    ("DPM-Solver++ 3S", "DPMSolverSinglestepScheduler", {"solver_order": 3}),
    ("UniPC-2 bh1", "UniPCMultistepScheduler", {"solver_type": "bh1"}),
    ("UniPC-2 bh2", "UniPCMultistepScheduler", {}),
    ("UniPC-3 bh1", "UniPCMultistepScheduler", {"solver_type": "bh1", "solver_order": 3}),
    ("UniPC-3 bh2", "UniPCMultistepScheduler", {"solver_order": 3}),
]
SPACINGS: dict[str, dict[str, Any]] = {
    **{name: {"timestep_spacing": name} for name in ("linspace", "leading", "trailing")},
    "karras": {"use_karras_sigmas": True},
    "lu lambdas": {"use_lu_lambdas": True},
    "exponential": {"use_exponential_sigmas": True},
}
ROUNDING = ("karras", "lu lambdas", "exponential")


@dataclass(frozen=True, eq=False)
class Setting:
    """One way to construct a scheduler class: its options, the ladder's clean end, and the
    last step's target.
    """

    family: str
    cls: str
    options: dict[str, Any]
    spacing: str
    t_end: float
    zero: bool

    def scheduler(self):
        import diffusers

        return getattr(diffusers, self.cls)(trained_betas=betas(self.t_end), **self.options)

    def ending(self) -> str:
        return f"{self.spacing}, ladder to t = {self.t_end:g}, " + (
            "last step to σ = 0" if self.zero else "stops there"
        )


def contenders(problem: Problem, every: int, last: int) -> Iterator[Curve]:
    """Curves to report: each family's default, its best endings for each spacing, and its best
    with the time it passes on.
    """
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    for family, cls, options in progress(FAMILIES, "nfe diffusers"):
        epsilon = (
            {"final_sigmas_type": "sigma_min"}
            if options.get("algorithm_type") == "dpmsolver"
            else {}
        )
        default = Setting(family, cls, options | epsilon, "default", 1 / LADDER, zero=not epsilon)
        yield Curve(_sampler(problem, default, "default"), every, last)
        tried = {}
        for spacing in SPACINGS:
            curves = {
                one: Curve(_sampler(problem, one, one.ending()), every, last)
                for one in settings(family, cls, options, spacing)
            }
            winners = (
                [min(curves, key=lambda one: merit(curves[one])) for merit in MERITS]
                if curves
                else []
            )
            yield from (curves[one] for one in dict.fromkeys(winners))
            tried |= curves
        best = min(tried, key=lambda one: _soon(tried[one]))
        if best.spacing in ROUNDING:
            yield Curve(
                _sampler(problem, best, f"{best.ending()}, time as passed on", rounded=True),
                every,
                last,
            )


def _soon(curve: Curve) -> tuple:
    """Best for 1e-2: the fewest steps that still miss it, then the smallest error at the most
    steps tried one by one.
    """
    return curve.misses(1e-2), curve(curve.every)[1]


def _late(curve: Curve) -> float:
    """Best for small errors: the error at a quarter of the most steps of all."""
    return curve(curve.last // 4)[1]


MERITS = (_soon, _late)


def settings(family: str, cls: str, options: dict[str, Any], spacing: str) -> list[Setting]:
    """The up to four endings of one spacing, as far as the class has the options."""
    import diffusers

    known = inspect.signature(getattr(diffusers, cls).__init__).parameters
    # the same levels
    if (
        not set(SPACINGS[spacing]) <= set(known)
        or spacing == "exponential"
        and "use_lu_lambdas" in known
    ):
        return []
    found = []
    for zero in (True, False):
        if "final_sigmas_type" in known:
            end = {"final_sigmas_type": "zero" if zero else "sigma_min"}
        elif "set_alpha_to_one" in known:
            end = {"set_alpha_to_one": zero}
        # one fixed ending: DEIS stops at the ladder's end, the others at 0
        elif zero == (cls != "DEISMultistepScheduler"):
            end = {}
        else:
            continue
        # the ε form cannot end at σ = 0
        if not (zero and options.get("algorithm_type") == "dpmsolver"):
            found += [
                Setting(family, cls, options | SPACINGS[spacing] | end, spacing, t_end, zero)
                for t_end in (1 / LADDER, 1e-2)
            ]
    return found


@lru_cache
def betas(t_end: float):
    """β of a ladder of LADDER levels, uniform in t from 1 down to `t_end`, on dlib's VP
    schedule.
    """
    bar = torch.tensor(
        [
            dlib.vp().at(t).alpha ** 2
            for t in torch.linspace(t_end, 1, LADDER, dtype=torch.float64).tolist()
        ],
        dtype=torch.float64,
    )
    return (1 - bar / torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])).numpy()


def _sampler(problem: Problem, setting: Setting, words: str, rounded: bool = False) -> Sampler:
    # its start depends on the number of steps
    moves = setting.scheduler().config.get("timestep_spacing") == "leading"
    floor = math.inf if moves else 1e-5  # float32
    return Sampler(
        "diffusers",
        setting.family,
        words,
        lambda steps: drive(problem, setting.scheduler(), steps, rounded),
        floor,
    )


def drive(
    problem: Problem, scheduler, steps: int, rounded: bool = False
) -> tuple[int, float, float]:
    """(network calls, error) of the scheduler's documented loop with the exact ε; `rounded`:
    at the time it passes on.
    """
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        # a spacing that repeats an integer time would start at its second
        scheduler.set_begin_index(0)
    ladder = dlib.discrete(scheduler.alphas_cumprod)
    levels = visited(scheduler)
    scaled = float(scheduler.init_noise_sigma) > 1  # the state is x/α
    x = problem.truth(levels[0]) / (levels[0].alpha if scaled else 1.0)
    for t, level in zip(scheduler.timesteps, levels):
        seen = ladder.at((float(t) + 1) / LADDER) if rounded else level
        x = scheduler.step(
            _eps(problem, scheduler.scale_model_input(x, t), seen), t, x, return_dict=False
        )[0]
    x = x * (levels[-1].alpha if scaled else 1.0)
    truth = problem.truth(levels[-1])
    return len(scheduler.timesteps), rms(x.double(), truth), typical(x.double(), truth)


def _eps(problem: Problem, x: Tensor, level: dlib.NoiseLevel) -> Tensor:
    return problem.mixture.posterior_means(x.double(), level)[1]


def visited(scheduler) -> list[dlib.NoiseLevel]:
    """The level of each call and, last, the level where the scheduler ends."""
    if not hasattr(scheduler, "final_alpha_cumprod"):
        return [_at(kappa) for kappa in scheduler.sigmas.tolist()]
    # DDIM keeps no σ
    bars = [
        *scheduler.alphas_cumprod[scheduler.timesteps].tolist(),
        float(scheduler.final_alpha_cumprod),
    ]
    return [_at(math.sqrt((1 - bar) / bar)) for bar in bars]


def _at(kappa: float) -> dlib.NoiseLevel:
    return dlib.vp().at_lam(-math.log(kappa)) if kappa > 0 else dlib.CLEAN
