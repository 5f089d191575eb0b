"""What a step costs besides the network: driver and solver on a network that does nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import dlib
from bench.report import Report, peer
from bench.timing import Round, interleave

STEPS, GIVEN, NOISE = 50, "LCM, noise given", "its noise alone"
PAIRS = {
    "DDIM": "dlib ddim",
    "DPM-Solver++ 2M": "dlib dpm_solver_pp_2m",
    "DPM-Solver++ 3M (as released)": "dlib dpm_solver_pp_3m_released",
    "UniPC-2": "dlib unipc_2",
    "Euler": "dlib euler",
    "LCM": "dlib lcm",
    GIVEN: "dlib lcm, noise given",
}
NOTE = """Microseconds a step with a network that returns a fixed tensor: latents (1, 4, 64,
64), float32, CPU, one thread, no gradient, rounds of {steps} steps. What remains is the
sampler's own work: checks, coefficients and tensor arithmetic.

`dlib` runs `sample` with every check on, the final one for finiteness included, on Stable
Diffusion's schedule. {peer} runs its documented loop, `scale_model_input`, network, `step(...,
return_dict=False)`; `set_timesteps` and the list of levels are prepared outside the clock. One
round of each competitor in turn, {repeats} turns, the starter rotating. Read the minimum: it
is the work; median and IQR show what else the machine was doing. The ratio is that of the
minima, diffusers ÷ dlib. On a real U-Net a step takes far longer than any figure here; the
overhead counts for small networks, for few-step students and because the GPU waits for it. LCM
draws fresh noise in every step, here and there; the last row is that draw alone, {steps}
times, on the same machine, and no sampler can go below it. *Noise given*: every draw hands out
one tensor made before, here and there, and what remains is the sampler's own. All visit the
same levels but LCM, which keeps to its own, so with a real network DDIM, 2M, 3M, UniPC-2 and
LCM agree; `dlib euler` steps dx/dt itself, diffusers' Euler steps in σ/α, which is DDIM."""


def run(repeats: int = 200) -> Report:
    """µs a step: minimum, median, IQR and ratio of minima."""
    start = dlib.Draw(0).normal((1, 4, 64, 64))
    still = torch.zeros_like(start)
    torch.set_num_threads(1)
    with torch.no_grad():
        times = interleave(
            {**rounds(start, lambda x, t: still), NOISE: _noise(start)},
            repeats,
            unit=1e-6 * STEPS,
            label="step_overhead",
        )
    rows = []
    for method, ours in PAIRS.items():
        theirs = f"diffusers {method}"
        rows += [
            [ours, *times[ours].cells(), 1.0],
            [theirs, *times[theirs].cells(), times[theirs].low / times[ours].low],
        ]
    rows.append([NOISE, *times[NOISE].cells(), times[NOISE].low / times["dlib lcm"].low])
    note = NOTE.format(steps=STEPS, repeats=repeats, peer=peer())
    return Report(
        "Overhead of a step",
        note,
        ["sampler", "min µs", "median µs", "IQR µs", "ratio of minima"],
        rows,
    )


def rounds(start: Tensor, net: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Round]:
    """Every competitor by name, ready for `interleave`, with ε from `net(x, t)`."""
    noise = dlib.Draw(1).normal(start)
    draws = {
        PAIRS[method]: (lambda: Given(noise)) if method == GIVEN else lambda: dlib.Draw(0)
        for method in PAIRS
    }
    ours = {
        name: _dlib(dlib.SOLVERS[name.split()[1].rstrip(",")], start, net, draws[name])
        for name in PAIRS.values()
    }
    theirs = {
        f"diffusers {method}": _diffusers(make, start, net, noise if method == GIVEN else None)
        for method, make in schedulers().items()
    }
    return ours | theirs


class Given(dlib.Draw):
    """Hands out one tensor, made before, at every draw: a noisy sampler without the cost of
    its noise.
    """

    def __init__(self, noise: Tensor):
        super().__init__(0)
        self.noise = noise

    def normal(self, like: Tensor) -> Tensor:
        """The tensor itself, whatever `like` is."""
        return self.noise


def schedulers() -> dict[str, Callable]:
    """diffusers' schedulers on Stable Diffusion 1.5's ladder and dlib's `sd_trailing` levels,
    by the names of `PAIRS`.
    """
    from diffusers import (
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        LCMScheduler,
        UniPCMultistepScheduler,
    )

    sd = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "timestep_spacing": "trailing",
    }
    end = {"final_sigmas_type": "sigma_min"}
    return {
        "DDIM": lambda: DDIMScheduler(**sd, clip_sample=False, set_alpha_to_one=False),
        "DPM-Solver++ 2M": lambda: DPMSolverMultistepScheduler(**sd, **end),
        "DPM-Solver++ 3M (as released)": lambda: DPMSolverMultistepScheduler(
            **sd, **end, solver_order=3
        ),
        "UniPC-2": lambda: UniPCMultistepScheduler(**sd, **end, lower_order_final=False),
        "Euler": lambda: EulerDiscreteScheduler(**sd, **end),
        **dict.fromkeys(
            ("LCM", GIVEN), lambda: LCMScheduler(**{**sd, "timestep_spacing": "leading"})
        ),
    }


def _dlib(
    solver: dlib.solvers.Solver, start: Tensor, net: Callable, draw: Callable[[], dlib.Draw]
) -> Round:
    schedule = dlib.discrete(dlib.scaled_linear())
    model = dlib.Denoiser(
        lambda x, t, cond: net(x, t), schedule, "eps", clock=lambda t: 1000 * t - 1
    )
    spacing = "lcm" if solver is dlib.SOLVERS["lcm"] else "sd_trailing"
    levels = dlib.levels(schedule, STEPS, spacing)
    return lambda: (
        lambda: dlib.sample(model, start, levels, solver, draw=draw() if solver.noisy else None)
    )


def _noise(start: Tensor) -> Round:
    def draws() -> None:
        draw = dlib.Draw(0)
        for _ in range(STEPS):
            draw.normal(start)

    return lambda: draws


def _diffusers(make: Callable, start: Tensor, net: Callable, noise: Tensor | None) -> Round:
    from diffusers.schedulers import scheduling_lcm
    from diffusers.schedulers.scheduling_lcm import randn_tensor

    scheduler = make()

    def prepare() -> Callable[[], Tensor]:
        scheduler.set_timesteps(STEPS)
        return loop if noise is None else given

    def given() -> Tensor:
        scheduling_lcm.randn_tensor = lambda *args, **kwargs: noise
        try:
            return loop()
        finally:
            scheduling_lcm.randn_tensor = randn_tensor

    def loop() -> Tensor:
        x = start * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.step(
                net(scheduler.scale_model_input(x, t), t), t, x, return_dict=False
            )[0]
        return x

    return prepare
