"""On a GPU only: bfloat16, agreement with the CPU, and no waiting of the host inside a step."""

from __future__ import annotations

import pytest
import torch

from dlib import SOLVERS, Draw, guided, levels, walk
from full_scale.families import sd
from full_scale.data.draws import Draws
from full_scale.sampling.latents import latents
from full_scale.families.tiny import tiny_pipeline

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def parts(device: str, dtype: torch.dtype):
    pipe = tiny_pipeline("v_prediction").to(device)
    pipe.unet.to(dtype)
    model, cond = (
        sd.denoiser(pipe.unet, pipe.scheduler.config),
        sd.StableDiffusion(pipe).encode(["a cat", "a bowl"]),
    )
    null = sd.StableDiffusion(pipe).null()
    return guided(model, 2.0, null), cond, levels(model.schedule, 6, "karras", "clean")


@torch.no_grad()
def latents_on(device: str, dtype: torch.dtype, solver: str) -> torch.Tensor:
    model, cond, levels = parts(device, dtype)
    return latents(model, (4, 16, 16), levels, SOLVERS[solver], cond, [1, 2], batch=2).cpu()


@pytest.mark.parametrize("solver", ["ddim", "dpm_solver_pp_2m", "ancestral"])
def test_gpu_agrees_with_cpu(solver):
    """Same seeds, same noise. float32 to 1e-3 (TF32 is off by default); bfloat16 has 8 bits,
    so 5 % of the spread.
    """
    cpu = latents_on("cpu", torch.float32, solver)
    exact, half = (
        latents_on("cuda", torch.float32, solver),
        latents_on("cuda", torch.bfloat16, solver),
    )
    assert exact.dtype == half.dtype == torch.float32
    assert (exact - cpu).std() < 1e-3 * cpu.std() and (half - cpu).std() < 5e-2 * cpu.std()


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpm_solver_pp_2m", "dpm_solver_pp_3m"])
@torch.no_grad()
def test_no_host_synchronisation_inside_a_step(solver):
    model, cond, levels = parts("cuda", torch.bfloat16)
    x = Draws([Draw(0), Draw(1)]).normal((2, 4, 16, 16)).cuda()
    # warm-up: libraries load and choose kernels
    for _ in walk(model, x, levels, SOLVERS[solver], cond):
        pass
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in walk(model, x, levels, SOLVERS[solver], cond):
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
