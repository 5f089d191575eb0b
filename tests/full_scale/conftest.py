"""The random tiny pipelines that all full-scale tests share: made once, never changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPVisionConfig

from full_scale import prepare
from full_scale import families
from full_scale.data import digests, shards
from full_scale.data.rows import Rows
from full_scale import launch
from full_scale.run.settings import read
from full_scale.families.tiny import SCHEDULER, tiny_pipeline

sys.path.append(str(Path(__file__).parent))  # for the tests of data
import datafolders


@pytest.fixture(scope="session")
def eps_pipe() -> StableDiffusionPipeline:
    return tiny_pipeline("epsilon")


@pytest.fixture(scope="session")
def v_pipe() -> StableDiffusionPipeline:
    return tiny_pipeline("v_prediction")


@pytest.fixture(scope="session", params=["epsilon", "v_prediction"])
def pipe(request, eps_pipe, v_pipe) -> StableDiffusionPipeline:
    return {"epsilon": eps_pipe, "v_prediction": v_pipe}[request.param]


@pytest.fixture(scope="session")
def folder(v_pipe, tmp_path_factory):
    """The tiny v pipeline in diffusers' format on disk, with a model card."""
    path = tmp_path_factory.mktemp("weights") / "tiny-v"
    v_pipe.save_pretrained(path)
    (path / "README.md").write_text(
        "---\ntags: [test]\nlicense: creativeml-openrail-m\n---\n# Tiny\nlicense: not this\n"
    )
    return path


@pytest.fixture
def flagging(eps_pipe) -> StableDiffusionPipeline:
    """The tiny pipeline with a tiny safety checker that flags every picture: its cosine
    thresholds are below −1.
    """
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config=CLIPTextConfig(**small),
        projection_dim=8,
        vision_config=CLIPVisionConfig(**small, image_size=16, patch_size=8, projection_dim=8),
    )
    checker = StableDiffusionSafetyChecker(config).eval()
    torch.nn.init.constant_(checker.concept_embeds_weights, -2.0)
    torch.nn.init.constant_(checker.special_care_embeds_weights, 2.0)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    return StableDiffusionPipeline(
        **{**eps_pipe.components, "safety_checker": checker, "feature_extractor": processor}
    )


@pytest.fixture(scope="session")
def bfloat16():
    """Skips where this torch's own bfloat16 attention does not run: with
    ATEN_CPU_CAPABILITY=default it asks for instructions that it was told not to use.
    """
    x = torch.zeros(1, 1, 64, 32, dtype=torch.bfloat16)
    try:
        torch.nn.functional.scaled_dot_product_attention(x, x, x)
    except RuntimeError as error:
        pytest.skip(f"torch's bfloat16 attention fails here: {error}")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Forty captioned shapes as PNG files, prepared with the tiny pipeline: what the training
    tests read.
    """
    from toy_data.shapes import write_folder

    root = tmp_path_factory.mktemp("data")
    write_folder(root / "pictures", 40, seed=0)
    prepare.run(
        prepare.Config(source=(str(root / "pictures"),), out=root / "prepared", tiny=True)
    )
    return root / "prepared"


@pytest.fixture(scope="session")
def family(eps_pipe):
    """The tiny pipeline as a family; never changed."""
    return families.StableDiffusion(eps_pipe)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, family):
    """A folder of pictures, and what an unbroken run makes of it; never changed."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "open_family", lambda *given: family)
        return datafolders.beside(path / "pictures"), datafolders.prepared(
            path / "pictures", path / "out"
        )


@pytest.fixture
def preparing(monkeypatch, tmp_path, family):
    """A folder of one's own, and the shared tiny model instead of one that is opened anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(prepare, "open_family", lambda *given: family)


@pytest.fixture(scope="session")
def shapes_data(tmp_path_factory):
    """The same forty pictures, prepared for the family of the captioned shapes."""
    from toy_data.shapes import write_folder

    root = tmp_path_factory.mktemp("shapes")
    write_folder(root / "pictures", 40, seed=0)
    prepare.run(
        prepare.Config(
            source=(str(root / "pictures"),), out=root / "prepared", family="shapes", tiny=True
        )
    )
    return root / "prepared"


@pytest.fixture(scope="session")
def more(shapes_data, tmp_path_factory):
    """Prepared data with a worse picture and a seed a row: the same rows, turned around."""
    out = tmp_path_factory.mktemp("more") / "data"
    out.mkdir()
    table = Rows(shapes_data).table.with_format("numpy")[:]
    columns = {
        name: list(v) if v.dtype.kind in "OU" else np.stack(v) for name, v in table.items()
    }
    columns |= {
        "other": columns["latent"][::-1].copy(),
        "seed": np.arange(len(Rows(shapes_data))),
    }
    record = {**shards.records(shapes_data)[0]}
    shards.write(out, 0, columns, record)
    for name in ("null.safetensors", "info.json"):
        (out / name).write_bytes((shapes_data / name).read_bytes())
    digests.close(out, shards.folders(out))
    return out


VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
TEXT = {  # text_encoder/config.json as published
    "architectures": ["CLIPTextModel"],
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 77,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "projection_dim": 768,
    "vocab_size": 49408,
}
CHECKER = {  # safety_checker/config.json: CLIP's ViT-L
    "architectures": ["StableDiffusionSafetyChecker"],
    "projection_dim": 768,
    "text_config": {},
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
}
SD15 = {  # unet/config.json as published
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}


SD35 = {  # of Stable Diffusion 3.5 medium, transformer/config.json as published
    "_class_name": "SD3Transformer2DModel",
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "dual_attention_layers": list(range(13)),
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 24,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "sample_size": 128,
}


@pytest.fixture(scope="session")
def sd35(tmp_path_factory):
    """As `sd15`, of Stable Diffusion 3.5 medium without T5."""
    path = tmp_path_factory.mktemp("sd35")
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "sample_size": 1024}
    affine = {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609}
    large = {**TEXT, "architectures": ["CLIPTextModelWithProjection"]}
    wide = {"hidden_size": 1280, "intermediate_size": 5120, "projection_dim": 1280}
    deep = {"num_attention_heads": 20, "num_hidden_layers": 32}
    straight = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
    for part, name, value in (
        ("transformer", "config", SD35),
        ("text_encoder", "config", large),
        ("text_encoder_2", "config", large | wide | deep),
        ("scheduler", "scheduler_config", {**straight, "shift": 3.0}),
        ("vae", "config", VAE | plain | affine),
    ):
        (path / part).mkdir()
        (path / part / f"{name}.json").write_text(json.dumps(value))
    return path


@pytest.fixture(scope="session")
def sd15(tmp_path_factory):
    """A folder with the configuration files and no weights."""
    path = tmp_path_factory.mktemp("sd15")
    for part, name, value in (
        ("unet", "config", SD15),
        ("text_encoder", "config", TEXT),
        ("safety_checker", "config", CHECKER),
        ("scheduler", "scheduler_config", {**SCHEDULER, "prediction_type": "epsilon"}),
        ("vae", "config", VAE),
    ):
        (path / part).mkdir()
        (path / part / f"{name}.json").write_text(json.dumps(value))
    return path


@pytest.fixture(scope="module")
def processes():
    """This process, alone."""
    found = launch.start("cpu")
    yield found
    launch.stop()


@pytest.fixture
def settings(data, tmp_path):
    """The settings of a short run, after these flags."""

    def make(*flags, out="run"):
        short = [
            "--steps",
            "4",
            "--batch",
            "8",
            "--micro",
            "4",
            "--warmup",
            "0",
            "--log-every",
            "1",
            "--save-every",
            "2",
            "--show-every",
            "0",
            "--ema",
            "0",
        ]
        method = [] if "--method" in flags else ["finetune"]
        return read(
            [
                *method,
                "--tiny",
                "--data",
                str(data),
                "--out",
                str(tmp_path / out),
                "--lr",
                "1e-3",
                *short,
                *flags,
            ]
        )

    return make


@pytest.fixture
def small(settings, shapes_data):
    """The same on the small network of the captioned shapes, for what no network changes."""
    return lambda *flags, **more: settings(
        "--family", "shapes", "--data", str(shapes_data), *flags, **more
    )
