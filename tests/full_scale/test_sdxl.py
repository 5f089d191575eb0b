"""SDXL, a family of one file: its latents and pictures against diffusers' own
StableDiffusionXLPipeline, and its weights. How it trains: `test_sdxl_trains.py`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
)
from PIL import Image

import full_scale.sample as command
from dlib import SOLVERS, Draw, guided, levels, sample
from full_scale.data.draws import Draws
from full_scale.families import StableDiffusionXL, open_family
from full_scale.sampling.latents import latents
from full_scale.sampling.request import Config

CPU, SEEDS, PROMPTS, TOLERANCE = torch.device("cpu"), (3, 11), ["a cat", "a bowl of lemons"], 1e-4
SHAPE, STEPS = (4, 8, 12), 10
OWN = {"timestep_spacing": "trailing"}


@pytest.fixture(scope="module")
def xl() -> StableDiffusionXL:
    return open_family("sdxl", None, CPU)


@pytest.fixture(scope="module")
def folder(xl, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "xl"
    xl.pipe.save_pretrained(path)
    (path / "README.md").write_text("---\nlicense: openrail++\n---\n")
    return path


def start() -> torch.Tensor:
    return Draws(Draw(seed) for seed in SEEDS).normal((2, *SHAPE))


def stock(xl, kind, **settings) -> StableDiffusionXLPipeline:
    """diffusers' pipeline of the same networks, with this scheduler."""
    peer = StableDiffusionXLPipeline(
        **{
            **xl.pipe.components,
            "scheduler": kind.from_config(xl.pipe.scheduler.config, **settings),
        },
        add_watermarker=False,
    )
    peer.set_progress_bar_config(disable=True)
    return peer


def theirs(xl, kind, omega: float, settings=OWN, **more) -> torch.Tensor:
    """Latents of diffusers' loop, 64 × 96 pixels."""
    return stock(xl, kind, **settings)(
        PROMPTS,
        num_inference_steps=STEPS,
        guidance_scale=1 + omega,
        latents=start(),
        output_type="latent",
        height=64,
        width=96,
        **more,
    ).images


@torch.no_grad()
def ours(xl, solver: str, end: str, omega: float, negative: str = "", shrink=False):
    """Latents of the book's loop; `shrink` starts as low as diffusers' Euler does."""
    model, cond = xl.denoiser(), xl.encode_texts(PROMPTS)
    model = guided(model, omega, xl.null(negative)) if omega else model
    walk = levels(model.schedule, STEPS, "sd_trailing", end)
    if shrink:
        return sample(model, walk[0].sigma * start(), walk, SOLVERS[solver], cond)
    return latents(model, SHAPE, walk, SOLVERS[solver], cond, SEEDS, batch=2)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference in units of the latents' standard deviation."""
    assert torch.isfinite(a).all() and torch.isfinite(b).all()
    return ((a - b).abs().max() / b.std()).item()


DDIM = {**OWN, "set_alpha_to_one": False, "clip_sample": False}


@pytest.mark.parametrize("omega", [6.5, 0.0])
@pytest.mark.parametrize(
    "kind, settings, solver, end, shrink",
    [
        (DDIMScheduler, DDIM, "ddim", "grid", False),
        (
            DPMSolverMultistepScheduler,
            {**OWN, "final_sigmas_type": "sigma_min", "lower_order_final": False},
            "dpm_solver_pp_2m",
            "grid",
            False,
        ),
        # SDXL's own: Euler in x/α, whose start lacks a factor σ = 0.9977 (test_sd_equality.py)
        (EulerDiscreteScheduler, OWN, "ddim", "clean", True),
    ],
    ids=["ddim", "2m", "euler"],
)
def test_latents_are_the_stock_pipelines(xl, kind, settings, solver, end, shrink, omega):
    """Two prompts, not square, guided away from SDXL's empty condition or not guided at all."""
    peer = theirs(xl, kind, omega, settings)
    assert gap(ours(xl, solver, end, omega, shrink=shrink), peer) < TOLERANCE


def test_each_condition_is_needed_for_that(xl):
    """The peer with another size, another corner, or ∅ as an encoded text instead of zeros is
    another one; a negative prompt takes the place of ∅ in both.
    """
    plain = ours(xl, "ddim", "grid", 6.5)
    for other in (
        {"original_size": (96, 64), "target_size": (96, 64)},
        {"original_size": (128, 96)},
        {"crops_coords_top_left": (32, 0)},
        {"negative_prompt": ["", ""]},
    ):
        assert gap(theirs(xl, DDIMScheduler, 6.5, DDIM, **other), plain) > 5 * TOLERANCE, other
    away = theirs(xl, DDIMScheduler, 6.5, DDIM, negative_prompt=["a dog"] * 2)
    assert gap(ours(xl, "ddim", "grid", 6.5, "a dog"), away) < TOLERANCE < gap(plain, away)


def test_conditions_are_the_pipelines_own(xl):
    want, _, pooled, _ = xl.pipe.encode_prompt(PROMPTS, device="cpu")
    found = xl.encode_texts(PROMPTS)
    assert torch.equal(found["text"], want) and torch.equal(found["pooled"], pooled)
    assert not any(value.any() for value in xl.null().values())
    xl.pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert all(value.any() for value in xl.null().values())
    xl.pipe.register_to_config(force_zeros_for_empty_prompt=True)
    with pytest.warns(UserWarning, match="prompt of 22 tokens: the text encoder reads 16"):
        xl.encode_texts(["cat " * 20])


def test_the_command_draws_the_stock_pipelines_picture(xl, tmp_path):
    """From the prompt to the PNG, with SDXL's VAE scaling."""
    out = command.run(
        Config(
            prompt=("a cat",),
            family="sdxl",
            tiny=True,
            solver="ddim",
            grid="sd_trailing",
            end="grid",
            steps=4,
            omega=2.0,
            height=64,
            width=96,
            seed=3,
            out=tmp_path / "out",
        )
    )
    want = stock(xl, DDIMScheduler, **DDIM)(
        "a cat",
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=start()[:1],
        height=64,
        width=96,
    ).images[0]
    made = np.asarray(Image.open(out / "000.png")).astype(int)
    assert made.shape == (64, 96, 3) and made.std() > 5
    assert np.abs(made - np.asarray(want)).max() <= 1
    said = json.loads((out / "settings.json").read_text())
    assert said["network_samples"] == 8 and said["safety_checker"] is False


class TestWeights:
    @pytest.fixture
    def copy(self, folder, tmp_path):
        return Path(shutil.copytree(folder, tmp_path / "copy"))

    def test_a_folder_opens_with_its_licence(self, xl, folder):
        family = open_family("sdxl", str(folder), CPU, torch.bfloat16)
        assert family.licence == "openrail++" and family.identity == xl.identity
        assert (family.net.dtype, family.pipe.vae.dtype) == (torch.bfloat16, torch.float32)

    def test_weights_of_half_the_size_open_too(self, xl, tmp_path):
        halves = StableDiffusionXL.tiny(CPU, torch.float16).pipe
        halves.vae.half()
        halves.save_pretrained(tmp_path, variant="fp16")
        assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
        found = open_family("sdxl", str(tmp_path), CPU).net.state_dict()
        for name, value in xl.net.state_dict().items():
            assert torch.equal(found[name], value.half().float()), name

    def test_the_other_family_is_named(self, folder, eps_pipe, tmp_path):
        with pytest.raises(ValueError, match="holds a StableDiffusionXL.*; type --family sdxl$"):
            open_family("sd", str(folder), CPU)
        eps_pipe.save_pretrained(tmp_path)
        with pytest.raises(
            ValueError,
            match="runs StableDiffusionXLPipeline, that is .* XL .*; type --family sd$",
        ):
            open_family("sdxl", str(tmp_path), CPU)

    def test_what_is_missing_is_named_and_how_to_get_it(self, copy):
        shutil.rmtree(copy / "text_encoder_2")
        with pytest.raises(
            ValueError, match="(?s)lacks text_encoder_2.*hf download stabilityai/"
        ):
            open_family("sdxl", str(copy), CPU)
        with pytest.raises(
            ValueError, match="(?s)no such folder here.*stable-diffusion-xl-base.*14 GB"
        ):
            open_family("sdxl", str(copy / "no" / "where"), CPU)

    def test_another_formulation_is_refused(self, copy):
        """Playground 2.5 and CosXL are of this class, and are no ladder of ᾱ."""
        index = json.loads((copy / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", "EDMEulerScheduler"]
        (copy / "model_index.json").write_text(json.dumps(index))
        EDMEulerScheduler().save_pretrained(copy / "scheduler")
        with pytest.raises(ValueError, match="states no β.*EDMEulerScheduler.*EDM"):
            open_family("sdxl", str(copy), CPU).denoiser()

    def test_a_vae_with_a_shift_or_moments_is_obeyed(self, xl, folder):
        """Of the released VAEs some are moved by a number, some by a mean and a standard
        deviation a channel; the latter is what the stock pipeline undoes, too.
        """
        plain, family = xl, open_family("sdxl", str(folder), CPU)
        picture, vae = [Image.new("RGB", (64, 64), "red")], family.pipe.vae
        z = plain.encode_pictures(picture, 64) / 0.13025
        vae.register_to_config(shift_factor=0.5)
        x0 = family.encode_pictures(picture, 64)
        torch.testing.assert_close(x0, (z - 0.5) * 0.13025)
        torch.testing.assert_close(family.pixels(x0), plain.pixels(z * 0.13025))
        mean, std = [1.0, -2.0, 3.0, 0.5], [2.0, 4.0, 8.0, 0.5]
        vae.register_to_config(shift_factor=None, latents_mean=mean, latents_std=std)
        x0 = family.encode_pictures(picture, 64)
        column = lambda values: torch.tensor(values)[:, None, None]
        torch.testing.assert_close(x0, (z - column(mean)) / column(std) * 0.13025)
        torch.testing.assert_close(family.pixels(x0), plain.pixels(z * 0.13025))
