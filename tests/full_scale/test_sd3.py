"""Stable Diffusion 3, a family of one file: its latents and conditions against diffusers' own
StableDiffusion3Pipeline, its weights, and its way through the other commands.
"""

from __future__ import annotations

import json
import math
import shutil

import datafolders
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from diffusers import DDIMScheduler
from PIL import Image as Pictures

from dlib import SOLVERS, Draw, grid, flow, guided, levels, sample
from full_scale import export, prepare
from full_scale.data.draws import Draws
from full_scale.families import named, open_family
from full_scale.run.settings import read
from full_scale.train import train

CPU, PROMPTS, SHAPE, TOLERANCE = torch.device("cpu"), ["a cat", "a red lemon"], (4, 8, 12), 1e-4


@pytest.fixture(scope="module")
def sd3():
    return open_family("sd3", None, CPU)


@pytest.fixture(scope="module")
def pairs3(tmp_path_factory):
    """Four rows of two pictures each."""
    root = tmp_path_factory.mktemp("votes")
    inks = ["red", "green", "blue", "white"]
    rows = {
        "image": [Pictures.new("RGB", (64, 64), ink) for ink in inks],
        "worse": [Pictures.new("RGB", (64, 64), "black")] * 4,
        "text": ["a cat"] * 4,
    }
    kinds = {"image": Image(), "worse": Image(), "text": Value("string")}
    Dataset.from_dict(rows, Features(kinds)).to_parquet(root / "votes.parquet")
    prepare.run(
        prepare.Config(
            source=(str(root / "votes.parquet"),),
            out=root / "data",
            family="sd3",
            tiny=True,
            size=64,
            other_column="worse",
        )
    )
    return root / "data"


def start():
    return Draws(Draw(seed) for seed in (3, 11)).normal((2, *SHAPE))


def theirs(sd3, omega, steps=5, **more):
    sd3.pipe.set_progress_bar_config(disable=True)
    return sd3.pipe(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=1 + omega,
        latents=start(),
        output_type="latent",
        height=64,
        width=96,
        max_sequence_length=16,
        **more,
    ).images


@torch.no_grad()
def ours(sd3, solver, omega, negative="", steps=5):
    model, cond = sd3.denoiser(), sd3.encode_texts(PROMPTS)
    model = guided(model, omega, sd3.null(negative)) if omega else model
    walk = levels(model.schedule, steps, "sd3", "clean")
    return sample(model, start(), walk, SOLVERS[solver], cond)


def gap(a, b):
    assert torch.isfinite(a).all() and torch.isfinite(b).all()
    return ((a - b).abs().max() / b.std()).item()


@pytest.mark.parametrize("omega", [0.0, 3.0])
@pytest.mark.parametrize("solver", ["euler", "ddim"])
def test_latents_are_the_stock_pipelines(sd3, solver, omega):
    """On straight paths Euler's step in t is DDIM's; both are the stock scheduler's."""
    assert gap(ours(sd3, solver, omega), theirs(sd3, omega)) < TOLERANCE


def test_what_is_needed_for_that(sd3):
    """The text, the guidance and the shift each change more than the tolerance."""
    plain = ours(sd3, "ddim", 3.0)
    assert gap(ours(sd3, "ddim", 3.0, "a dog"), plain) > 5 * TOLERANCE
    away = theirs(sd3, 3.0, negative_prompt=["a dog"] * 2)
    assert gap(ours(sd3, "ddim", 3.0, "a dog"), away) < TOLERANCE
    walk = levels(flow(), 5, "time", "clean")
    with torch.no_grad():
        other = sample(sd3.denoiser(), start(), walk, SOLVERS["ddim"], sd3.encode_texts(PROMPTS))
    assert gap(other, theirs(sd3, 0.0)) > 5 * TOLERANCE


def test_the_grid_is_the_scheduler_s(sd3):
    for n in (1, 4, 28):
        sd3.pipe.scheduler.set_timesteps(n)
        want = sd3.pipe.scheduler.sigmas[:-1].double()
        torch.testing.assert_close(grid(flow(), n, "sd3")[:-1], want, rtol=0, atol=1e-6)


def test_conditions_are_the_pipelines_own(sd3):
    want, empty, pooled, empty_pooled = sd3.pipe.encode_prompt(
        PROMPTS, PROMPTS, PROMPTS, device="cpu", max_sequence_length=16
    )
    found, null = sd3.encode_texts(PROMPTS), sd3.null()
    torch.testing.assert_close(found["text"], want)
    torch.testing.assert_close(found["pooled"], pooled)
    torch.testing.assert_close(null["text"], empty[0])
    torch.testing.assert_close(null["pooled"], empty_pooled[0])


def test_weights_without_t5_have_zeros_in_its_place(sd3, tmp_path):
    sd3.pipe.save_pretrained(tmp_path)
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(tmp_path / part)
    family = open_family("sd3", str(tmp_path), CPU, torch.bfloat16)
    assert family.pipe.vae.dtype == torch.float32 and family.net.dtype == torch.bfloat16
    text = family.encode_texts(PROMPTS)["text"]
    assert text.shape == (2, 16 + 256, 64) and not text[:, 16:].any() and text[:, :16].any()
    with pytest.raises(ValueError, match="holds a StableDiffusion3Pipeline.*type --family sd3$"):
        open_family("sd", str(tmp_path), CPU)
    with pytest.raises(ValueError, match="states no shift"):
        sd3.meaning(sd3.net, DDIMScheduler().config)
    plan = named("sd3").blueprint(str(tmp_path))
    assert named("sd3").side(str(tmp_path)) == sd3.size == 128
    assert plan.sides == (4, 16, 16) and plan.base.predicts == "velocity"
    assert tuple(plan.null()["text"].shape) == (272, 64)


def test_it_is_prepared_and_trained_as_the_others_are(sd3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = datafolders.beside(tmp_path / "pictures")
    data = datafolders.prepared(source, tmp_path / "data", family="sd3")
    s = read(
        ["finetune", "--family", "sd3", "--tiny", "--data", str(data), "--out", "run"]
        + ["--batch", "2", "--micro", "1", "--steps", "2", "--show-every", "2", "--lr", "1e-3"]
        + ["--device", "cpu", "--warmup", "0"]
    )
    engine = train(s)
    student = engine.cast.output
    x, cond = start(), sd3.encode_texts(PROMPTS)
    with torch.no_grad():
        level = student.schedule.at(0.5)
        said, base = student(x, level, cond).raw, sd3.denoiser()(x, level, cond).raw
    assert 0 < gap(said, base) < 1
    told = json.loads((export.run(export.Export(s.out)) / "settings.json").read_text())[
        "settings"
    ]
    assert told["sampler"] == engine.recipe.sampler.facts
    assert told["sampler"]["spacing"] == "sd3"  # on Stable Diffusion's ladder: karras


SMALL = {
    "flow_grpo": "--reward redness --hyper.steps 3 --hyper.group 2 --hyper.omega 1",
    "nft": "--reward redness --hyper.steps 2 --hyper.group 2",
    "dpo": "--hyper.beta 100",
}


@pytest.mark.parametrize("name", SMALL)
def test_preference_methods_train_its_adapters(name, pairs3, tmp_path):
    """Rollouts on straight paths, through the VAE to the reward, and pairs."""
    words = f"--method {name} --family sd3 --tiny --data {pairs3} --out {tmp_path / 'run'}"
    more = "--batch 4 --micro 2 --steps 1 --show-every 0 --lr 1e-2 --lora-rank 2 --device cpu"
    s = read([*words.split(), *more.split(), *SMALL[name].split(), "--lora-targets", "to_q"])
    student = train(s).cast.trained["student"]
    assert any(float(p.detach().abs().max()) > 0 for n, p in student.weights.items() if "_B" in n)
    logged = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert all(math.isfinite(value) for value in logged.values() if isinstance(value, float))
    # the first loss is taken where the student is still its reference, its rollout's policy
    first = {"flow_grpo": ("ratio", 1), "dpo": ("loss", math.log(2)), "nft": ("moved", 0)}
    metric, value = first[name]
    assert logged[f"student/{metric}"] == pytest.approx(value, rel=1e-6, abs=1e-9)
