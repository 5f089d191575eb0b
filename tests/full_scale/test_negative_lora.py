"""The negative branch of guidance with weights of its own: `sample --negative-lora`."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import save_file

import full_scale.sample as command
from dlib import SOLVERS, Draw, levels, sample
from dlib.guidance import contrasted
from dlib.lora import adapters, twin
from dlib.weight_merging import merge
from full_scale.data.draws import Draws
from full_scale.families import open_family
from full_scale.out import lora_files
from full_scale.sampling.request import Config

CPU, PROMPT = torch.device("cpu"), "a cat"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two LoRA files of the tiny Stable Diffusion, a positive one and a negative one."""
    return written("sd", tmp_path_factory.mktemp("loras"))


def written(name, root):
    family, found = open_family(name, None, CPU), []
    for seed, sign in enumerate(("positive", "negative")):
        torch.manual_seed(seed)
        net = twin(family.denoiser().net, rank=2, targets=["to_q", "to_v"])
        with torch.no_grad():
            for weight in adapters(net).values():
                weight.normal_(std=0.2)
        folder = root / sign
        folder.mkdir()
        lora_files.save(adapters(net), 2, 2.0, family.lora_prefix, folder)
        found.append(folder / lora_files.DIFFUSERS)
    return found


def loaded(*files, name="sd"):
    family = open_family(name, None, CPU)
    for file in files:
        family.add_lora(file)
    return family


def fused(*files):
    """The U-Net's weights with the files in them."""
    pipe = loaded(*files).pipe
    if files:
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    return pipe.unet.state_dict()


def drawn(omega, positive, negative, spacing="sd_trailing"):
    """What two families draw, guided by hand."""
    model = contrasted(positive.denoiser(), negative.denoiser(), omega, positive.null())
    walk = levels(model.schedule, 3, spacing, "clean")
    with torch.no_grad():
        cond = positive.encode_texts([PROMPT])
        x = Draws([Draw(5)]).normal((1, *positive.shape(64, 64)))
        return positive.decode(sample(model, x, walk, SOLVERS["ddim"], cond)[0])


def picture(out, **more):
    config = Config(
        prompt=(PROMPT,),
        tiny=True,
        solver="ddim",
        end="clean",
        steps=3,
        seed=5,
        height=64,
        width=64,
        out=out,
        **{"grid": "sd_trailing", **more},
    )
    return command.run(config)


@pytest.mark.parametrize(
    ("name", "spacing"), [("sd", "sd_trailing"), ("sdxl", "sd_trailing"), ("sd3", "sd3")]
)
def test_the_negative_branch_has_both_adapters(name, spacing, files, tmp_path):
    files = files if name == "sd" else written(name, tmp_path)
    positive, negative = files
    kind = {"family": name, "grid": spacing, "omega": 2.0, "lora": positive}
    out = picture(tmp_path / "out", negative_lora=negative, **kind)
    both = loaded(positive, name=name), loaded(*files, name=name)
    made, want = Image.open(out / "000.png"), drawn(2.0, *both, spacing)
    assert max(high for _, high in ImageChops.difference(made, want).getextrema()) <= 1
    said = json.loads((out / "settings.json").read_text())
    assert said["network_calls"] == said["network_samples"] == 6  # both networks, three steps
    plain = Image.open(picture(tmp_path / "plain", **kind) / "000.png")
    assert max(high for _, high in ImageChops.difference(made, plain).getextrema()) > 3


@pytest.mark.parametrize("m", [0.0, 0.4, 1.0])
def test_merge_is_the_library_s(files, tmp_path, m):
    positive, negative = files
    more = {"lora": positive, "negative_lora": negative, "merge": m}
    made = Image.open(picture(tmp_path / "out", omega=2.0, **more) / "000.png")
    other = loaded()
    weights = merge(fused(), fused(positive), fused(negative), m)
    other.pipe.unet.load_state_dict(weights)
    want = drawn(2.0, loaded(positive), other)
    assert max(high for _, high in ImageChops.difference(made, want).getextrema()) <= 1
    near = merge(fused(), fused(positive), fused(negative), abs(m - 0.3))
    other.pipe.unet.load_state_dict(near)
    far = ImageChops.difference(made, drawn(2.0, loaded(positive), other))
    assert max(high for _, high in far.getextrema()) > 1


@pytest.mark.parametrize("only", [0, 1])
def test_a_merge_of_one_file_is_refused(files, tmp_path, only):
    name = ("lora", "negative_lora")[only]
    with pytest.raises(ValueError, match="--merge 0.5: .*give both files"):
        picture(tmp_path / "out", omega=2.0, merge=0.5, **{name: files[only]})


def test_without_guidance_it_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match="no negative branch: give --omega above 0"):
        picture(tmp_path / "out", omega=0.0, negative_lora=files[1])


@pytest.mark.parametrize("bad", ["absent", "cut", "another network's"])
def test_a_file_that_cannot_be_read_names_the_flag_that_was_typed(
    bad, files, family, tmp_path, monkeypatch
):
    monkeypatch.setattr(command, "open_family", lambda *given: family)
    file = tmp_path / "bad.safetensors"
    if bad == "cut":
        file.write_bytes(files[1].read_bytes()[:99])
    if bad == "another network's":
        names = (f"unet.other.lora_{side}.weight" for side in "AB")
        save_file({name: torch.zeros(1, 1) for name in names}, file)
    with pytest.raises(ValueError, match=f"^--negative-lora {file}"):
        picture(tmp_path / "out", omega=2.0, negative_lora=file)
    with pytest.raises(ValueError, match=f"^--lora {file}"):
        picture(tmp_path / "out", omega=2.0, lora=file)
    with pytest.raises(ValueError, match="^--family shapes takes no --negative-lora"):
        open_family("shapes", None, torch.device("cpu")).add_lora(file, 1.0, "--negative-lora")
