"""Peers: our latents against diffusers' own StableDiffusionPipeline, same U-Net, same start,
guidance_scale = 1 + ω.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionPipeline,
    TCDScheduler,
)

import dlib
from dlib import (
    CLEAN,
    SOLVERS,
    Draw,
    converted,
    discrete,
    flow,
    guided,
    levels,
    sample,
    scaled_linear,
)
from dlib.recipes import pcm
from full_scale.data.draws import Draws
from full_scale.families import sd
from full_scale.out.card import edges
from full_scale.sampling.latents import latents

OMEGA, SEEDS, PROMPTS, TOLERANCE = 6.5, (3, 11), ["a cat", "a bowl of lemons"], 1e-4
SHAPE = (4, 8, 8)


def start() -> torch.Tensor:
    return Draws(Draw(seed) for seed in SEEDS).normal((2, *SHAPE))


def theirs(pipe, scheduler, steps: int, x: torch.Tensor | None = None, **more) -> torch.Tensor:
    """diffusers' loop, from `x` or, given generators, from its own draws."""
    peer = StableDiffusionPipeline(
        **{**pipe.components, "scheduler": scheduler}, requires_safety_checker=False
    )
    peer.set_progress_bar_config(disable=True)
    return peer(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=1 + OMEGA,
        latents=x,
        output_type="latent",
        height=64,
        width=64,
        **more,
    ).images


def model_of(pipe):
    null = sd.StableDiffusion(pipe).null()
    return guided(sd.denoiser(pipe.unet, pipe.scheduler.config), OMEGA, null)


@torch.no_grad()
def ours(pipe, solver: str, steps: int, spacing: str, end: str) -> torch.Tensor:
    model = model_of(pipe)
    return latents(
        model,
        SHAPE,
        levels(model.schedule, steps, spacing, end),
        SOLVERS[solver],
        sd.StableDiffusion(pipe).encode(PROMPTS),
        SEEDS,
        batch=2,
    )


def ddim_scheduler(pipe, spacing: str) -> DDIMScheduler:
    return DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing=spacing)


def multistep(pipe, order: int, final: str, **more) -> DPMSolverMultistepScheduler:
    settings = {"timestep_spacing": "trailing", **more}
    return DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config,
        solver_order=order,
        final_sigmas_type=final,
        lower_order_final=False,
        **settings,
    )


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference in units of the latents' standard deviation: a random ε network does
    not denoise, so 1/α_T ≈ 15 stays.
    """
    assert torch.isfinite(a).all() and torch.isfinite(b).all()
    return ((a - b).abs().max() / b.std()).item()


@pytest.mark.parametrize("spacing, steps", [("trailing", 10), ("trailing", 4), ("leading", 7)])
def test_ddim(pipe, spacing, steps):
    assert (
        gap(
            ours(pipe, "ddim", steps, f"sd_{spacing}", "grid"),
            theirs(pipe, ddim_scheduler(pipe, spacing), steps, start()),
        )
        < TOLERANCE
    )


@torch.no_grad()
def test_as_a_velocity_model_on_straight_paths_euler_draws_ddims_pictures(pipe):
    """Euler's step for flow matching is DDIM (chapter 5): the same κ, the same latents up to
    the scale α of the last level.
    """
    model, cond = model_of(pipe), sd.StableDiffusion(pipe).encode(PROMPTS)
    ladder = levels(model.schedule, 10, "lam", "grid")
    straight = [flow().at_lam(level.lam) for level in ladder]
    by_ddim = sample(model, start(), ladder, SOLVERS["ddim"], cond)
    by_euler = sample(
        converted(model, flow(), "velocity"),
        straight[0].alpha / ladder[0].alpha * start(),
        straight,
        SOLVERS["euler"],
        cond,
    )
    assert gap(ladder[-1].alpha / straight[-1].alpha * by_euler, by_ddim) < TOLERANCE


@pytest.mark.parametrize("final, end", [("sigma_min", "grid"), ("zero", "clean")])
@pytest.mark.parametrize(
    "order, solver", [(2, "dpm_solver_pp_2m"), (3, "dpm_solver_pp_3m_released")]
)
def test_multistep(pipe, order, solver, final, end):
    peer = theirs(pipe, multistep(pipe, order, final), 12, start())
    assert gap(ours(pipe, solver, 12, "sd_trailing", end), peer) < TOLERANCE


def test_correct_3m_differs_from_the_released_one(pipe):
    """The released 3M halves the second difference. It is the released one that diffusers
    equals (above).
    """
    peer = theirs(pipe, multistep(pipe, 3, "sigma_min"), 12, start())
    assert gap(ours(pipe, "dpm_solver_pp_3m", 12, "sd_trailing", "grid"), peer) > 50 * TOLERANCE


def test_noisy_solver_and_seeds_are_those_of_a_list_of_generators(eps_pipe):
    """Same seeds, same pictures: diffusers draws its start and each step's noise in the order
    of `Draws`.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    peer = theirs(
        eps_pipe, ddim_scheduler(eps_pipe, "trailing"), 10, eta=1.0, generator=generators
    )
    assert gap(ours(eps_pipe, "ancestral", 10, "sd_trailing", "grid"), peer) < TOLERANCE


@pytest.mark.parametrize(
    "scheduler, solver", [(EulerDiscreteScheduler, "ddim"), (HeunDiscreteScheduler, "heun")]
)
def test_sigma_space_schedulers_start_a_little_low(pipe, scheduler, solver):
    """diffusers' Euler and Heun are our DDIM and Heun in y = x/α, but start at κ·noise where
    x/α = √(1 + κ²)·noise.

    With our start shrunk by κα = σ = 0.9977 the latents agree; without it they differ.
    """
    model, cond = model_of(pipe), sd.StableDiffusion(pipe).encode(PROMPTS)
    walk = levels(model.schedule, 10, "sd_trailing", "clean")
    peer = theirs(
        pipe,
        scheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing"),
        10,
        start(),
    )
    with torch.no_grad():
        shrunk = sample(model, walk[0].sigma * start(), walk, SOLVERS[solver], cond)
        plain = sample(model, start(), walk, SOLVERS[solver], cond)
    assert gap(shrunk, peer) < TOLERANCE < 5 * TOLERANCE < gap(plain, peer)


@pytest.mark.parametrize(
    "spacing, flag", [("karras", "use_karras_sigmas"), ("lam", "use_lu_lambdas")]
)
def test_lambda_grids_differ_only_by_the_rounding_of_time(pipe, spacing, flag):
    """On its Karras and λ grids diffusers tells the network the nearest integer index; we tell
    it the exact time.

    With our clock rounded the latents agree, so nothing else differs.
    """
    model, cond = model_of(pipe), sd.StableDiffusion(pipe).encode(PROMPTS)
    levels = [*dlib.levels(model.schedule, 9, spacing), CLEAN]
    peer = theirs(pipe, multistep(pipe, 2, "zero", **{flag: True}), 10, start())
    rounding = replace(model, clock=lambda t: float(round(model.clock(t))))
    with torch.no_grad():
        rounded, exact = (
            sample(each, start(), levels, SOLVERS["dpm_solver_pp_2m"], cond)
            for each in (rounding, model)
        )
    assert gap(rounded, peer) < TOLERANCE < gap(exact, peer)


def test_released_ddim_leaves_its_own_grid_when_steps_do_not_divide(eps_pipe):
    """DDIMScheduler steps to t − ⌊1000/n⌋ whatever its grid; with 7 trailing steps it lands
    beside it.

    So there our latents differ, and the cause is shown: its previous index is not its next
    one.
    """
    scheduler = ddim_scheduler(eps_pipe, "trailing")
    scheduler.set_timesteps(7)
    visited = scheduler.timesteps.tolist()
    assert [t - 1000 // 7 for t in visited[:-1]] != visited[1:]
    assert (
        gap(
            ours(eps_pipe, "ddim", 7, "sd_trailing", "grid"),
            theirs(eps_pipe, scheduler, 7, start()),
        )
        > 5 * TOLERANCE
    )
    scheduler.set_timesteps(10)
    visited = scheduler.timesteps.tolist()
    assert [t - 100 for t in visited[:-1]] == visited[1:]


def test_a_stock_scheduler_jumps_from_edge_to_edge(pipe):
    """What the model card of a phased student says: TCDScheduler at η = 0, given the edges, is
    our DDIM on the grid `pcm`; trailing DDIM is not.
    """
    phased = pcm(discrete(scaled_linear()), None, phases=4, steps=50, spacing="sd_trailing")
    given = {"timesteps": edges(phased.sampler.facts), "eta": 0.0}
    assert given["timesteps"] == [999, 739, 499, 239]
    exact, near = (
        theirs(pipe, scheduler, 4, start(), **more)
        for scheduler, more in (
            (TCDScheduler.from_config(pipe.scheduler.config), given),
            (ddim_scheduler(pipe, "trailing"), {}),
        )
    )
    jumped = ours(pipe, "ddim", 4, "pcm", "grid")
    assert gap(jumped, exact) < TOLERANCE < 5 * TOLERANCE < gap(jumped, near)
