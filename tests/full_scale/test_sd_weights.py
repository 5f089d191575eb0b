"""Weights: what loads, and what each thing that does not load says."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from full_scale.families import Shapes, StableDiffusion, weights
from full_scale.families.sd import SD15

SD = StableDiffusion.kind
CPU = torch.device("cpu")
COMMAND = "hf download {} --local-dir weights/"


@pytest.fixture
def broken(folder, tmp_path) -> Path:
    """A copy of good weights, to break."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def refused(given, match: str) -> str:
    with pytest.raises(ValueError, match=match) as caught:
        weights.load(SD, str(given), CPU, torch.float32)
    return str(caught.value)


def test_folder_loads_with_its_licence_and_dtypes(folder, v_pipe):
    pipe, licence = weights.load(SD, str(folder), CPU, torch.bfloat16)
    assert licence == "creativeml-openrail-m"
    assert (pipe.unet.dtype, pipe.text_encoder.dtype, pipe.vae.dtype) == (
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
    )
    assert torch.equal(pipe.unet.conv_in.weight, v_pipe.unet.conv_in.weight.bfloat16())
    assert torch.equal(pipe.vae.post_quant_conv.weight, v_pipe.vae.post_quant_conv.weight)
    assert pipe.scheduler.config.prediction_type == "v_prediction" and not pipe.unet.training


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("text_encoder/model.safetensors", 500),
        ("unet/diffusion_pytorch_model.safetensors", 0),
        ("tokenizer/tokenizer.json", 100),
        ("vae/config.json", 0),
        ("model_index.json", 9),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(name, left, broken):
    (broken / name).write_bytes((broken / name).read_bytes()[:left])
    assert "\n" not in refused(broken, f"{name} is (damaged|not a pipeline's index)")


def test_damaged_weights_of_the_shapes_are_named(tmp_path):
    (tmp_path / "shapes_model.safetensors").write_bytes(b"cut")
    with pytest.raises(
        ValueError, match="model.safetensors is damaged .*copy or export it again"
    ):
        Shapes.open(str(tmp_path), CPU, torch.float32)


def renamed(file: Path, rename) -> None:
    tensors = load_file(file)
    save_file(
        {rename(name): tensor for name, tensor in tensors.items()},
        file,
        metadata={"format": "pt"},
    )


def test_tensor_names_of_the_released_files_load(flagging, tmp_path):
    """SD1.5's files are older than today's classes: CLIP one module deeper, VAE attention
    under other names. Nothing is lost.
    """
    flagging.save_pretrained(tmp_path)
    vae = {
        ".to_q.": ".query.",
        ".to_k.": ".key.",
        ".to_v.": ".value.",
        ".to_out.0.": ".proj_attn.",
    }

    def older(name: str) -> str:
        for new, old in vae.items():
            name = name.replace(new, old)
        return name

    renamed(tmp_path / "text_encoder" / "model.safetensors", lambda name: f"text_model.{name}")
    renamed(
        tmp_path / "safety_checker" / "model.safetensors",
        lambda name: name.replace("vision_model.", "vision_model.vision_model."),
    )
    renamed(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", older)
    assert "decoder.mid_block.attentions.0.query.weight" in load_file(
        tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    )
    pipe, _ = weights.load(SD, str(tmp_path), CPU, torch.float32)
    for part in ("text_encoder", "safety_checker", "vae"):
        want, got = (getattr(each, part).state_dict() for each in (flagging, pipe))
        assert want.keys() == got.keys() and all(
            torch.equal(want[name], got[name]) for name in want
        ), part


@pytest.mark.parametrize(
    "card, want",
    [
        (None, None),
        ("# no front matter\nlicense: mit\n", None),
        ("---\ntags: []\n---\nlicense: mit\n", None),
        ("---\nlicense: mit\n---\n", "mit"),
    ],
)
def test_licence_is_read_from_the_front_matter_only(tmp_path, card, want):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert weights.licence(tmp_path) == want


def test_missing_folder_says_what_to_download(tmp_path):
    said = refused(tmp_path / "nowhere" / "sd15", "no such folder here, and not a hub id")
    assert COMMAND.format(SD15) in said and "5.5 GB" in said and "--tiny" in said


def test_the_download_command_is_understood_and_takes_what_loading_needs():
    """The installed `hf` parses it, and its patterns take the parts out of SD1.5's repository,
    not its pickles and duplicates.
    """
    import click
    from huggingface_hub.cli.hf import app
    from huggingface_hub.utils import filter_repo_objects

    words = shlex.split(SD.how_to_download().splitlines()[0])
    assert words[:2] == ["hf", "download"]
    name, download, rest = app.resolve_command(click.Context(app), words[1:])
    given = download.make_context(name, rest).params
    assert given["repo_id"] == SD15 and str(given["local_dir"]) == "weights/stable-diffusion-v1-5"
    good = [
        "README.md",
        "model_index.json",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "safety_checker/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    bad = [
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "text_encoder/pytorch_model.bin",
        ".gitattributes",
    ]
    taken = filter_repo_objects(
        good + bad, allow_patterns=given["include"], ignore_patterns=given["exclude"]
    )
    assert list(taken) == good


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "v1-5.safetensors").touch()
    refused(tmp_path / "v1-5.safetensors", "is a file; wanted a folder.*from_single_file")


@pytest.mark.parametrize("family", ["StableDiffusionXLPipeline", "StableDiffusion3Pipeline"])
def test_other_families_are_named(broken, family):
    index = json.loads((broken / "model_index.json").read_text())
    (broken / "model_index.json").write_text(json.dumps({**index, "_class_name": family}))
    refused(broken, f"holds a {family}; this adapter runs StableDiffusionPipeline")


def test_a_folder_that_is_no_pipeline_lists_what_it_holds(tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    assert "hf download" in refused(
        tmp_path, "has no model_index.json.*Found: pytorch_lora_weights.safetensors"
    )


def test_unreadable_index_and_missing_parts_are_named(broken):
    shutil.rmtree(broken / "unet")
    refused(broken, r"lacks unet\. Found: README.md, model_index.json")
    (broken / "model_index.json").write_text("{")
    refused(broken, "model_index.json is not a pipeline's index")


@pytest.mark.parametrize(
    "part, file", [("unet", "diffusion_pytorch_model"), ("text_encoder", "model")]
)
def test_pickled_weights_are_refused(broken, part, file):
    """A .bin is an unpickler's input: it is not opened, not even when nothing else is there."""
    (broken / part / f"{file}.safetensors").unlink()
    pickled = broken / part / ("pytorch_model.bin" if part == "text_encoder" else f"{file}.bin")
    torch.save({}, pickled)
    assert "hf download" in refused(broken, "incomplete, or not safetensors")


def test_inpainting_weights_are_named(broken):
    from diffusers import UNet2DConditionModel

    config = json.loads((broken / "unet" / "config.json").read_text())
    UNet2DConditionModel.from_config({**config, "in_channels": 9}).save_pretrained(
        broken / "unet"
    )
    refused(broken, "network with 9 input channels.*not text to image")


def answer(status: int):
    import httpx

    return httpx.Response(status, request=httpx.Request("GET", "http://hub/owner/name"))


@pytest.mark.parametrize(
    "error, match",
    [
        (
            lambda: errors.LocalEntryNotFoundError("offline"),
            "nothing of that name in the hub's cache, and the hub did not answer",
        ),
        (lambda: errors.OfflineModeIsEnabled("offline"), "the hub did not answer"),
        (
            lambda: errors.RepositoryNotFoundError("404", response=answer(404)),
            "no such repository",
        ),
        (
            lambda: errors.RemoteEntryNotFoundError("404", response=answer(404)),
            "not in diffusers' format",
        ),
        (
            lambda: OSError("Could not find the necessary safetensors weights"),
            "format with safetensors .Could not find",
        ),
        (
            lambda: errors.GatedRepoError("403", response=answer(403)),
            "accept the licence.*hf auth login",
        ),
    ],
)
def test_what_the_hub_answers_becomes_something_to_do(monkeypatch, error, match):
    def hf_hub_download(*given):
        raise error()

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    assert COMMAND.format("owner/name") + "name" in refused("owner/name", match)


def test_offline_for_real(monkeypatch, tmp_path):
    """HF_HUB_OFFLINE=1 and an empty cache, through huggingface_hub itself."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    refused("owner/name", "the hub did not answer")
