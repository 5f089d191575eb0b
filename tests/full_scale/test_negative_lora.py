"""The negative branch of guidance with weights of its own: `sample --negative-lora`."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image, ImageChops

import full_scale.sample as command
from dlib import SOLVERS, Draw, levels, sample
from dlib.guidance import contrasted
from dlib.lora import adapters, twin
from full_scale.data.draws import Draws
from full_scale.families import open_family
from full_scale.out import lora_files
from full_scale.sampling.request import Config

CPU, PROMPT = torch.device("cpu"), "a cat"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two LoRA files of the tiny pipeline, a positive one and a negative one."""
    root, family = tmp_path_factory.mktemp("loras"), open_family("sd", None, CPU)
    found = []
    for seed, name in enumerate(("positive", "negative")):
        torch.manual_seed(seed)
        net = twin(family.denoiser().net, rank=2, targets=["to_q", "to_v"])
        with torch.no_grad():
            for weight in adapters(net).values():
                weight.normal_(std=0.2)
        folder = root / name
        folder.mkdir()
        lora_files.save(adapters(net), 2, 2.0, family.lora_prefix, folder)
        found.append(folder / lora_files.DIFFUSERS)
    return found


def drawn(omega, *loras):
    """(the negative's net on top of the positive's, guided by hand)."""
    nets = []
    for group in loras:
        family = open_family("sd", None, CPU)
        for file in group:
            family.add_lora(file)
        nets.append(family)
    positive, negative = nets
    model = contrasted(positive.denoiser(), negative.denoiser(), omega, positive.null())
    walk = levels(model.schedule, 3, "sd_trailing", "clean")
    with torch.no_grad():
        cond = positive.encode_texts([PROMPT])
        x = Draws([Draw(5)]).normal((1, 4, 8, 8))
        return positive.decode(sample(model, x, walk, SOLVERS["ddim"], cond)[0])


def picture(out, **more):
    config = Config(
        prompt=(PROMPT,),
        tiny=True,
        solver="ddim",
        grid="sd_trailing",
        end="clean",
        steps=3,
        seed=5,
        height=64,
        width=64,
        out=out,
        **more,
    )
    return command.run(config)


def test_the_negative_branch_has_both_adapters(files, tmp_path):
    positive, negative = files
    out = picture(tmp_path / "out", omega=2.0, lora=positive, negative_lora=negative)
    made, want = (Image.open(out / "000.png"), drawn(2.0, [positive], [positive, negative]))
    assert max(high for _, high in ImageChops.difference(made, want).getextrema()) <= 1
    said = json.loads((out / "settings.json").read_text())
    assert said["network_calls"] == said["network_samples"] == 6  # both networks, three steps
    plain = Image.open(picture(tmp_path / "plain", omega=2.0, lora=positive) / "000.png")
    assert max(high for _, high in ImageChops.difference(made, plain).getextrema()) > 3


def test_without_guidance_it_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match="no negative branch: give --omega above 0"):
        picture(tmp_path / "out", omega=0.0, negative_lora=files[1])
