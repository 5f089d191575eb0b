"""The random tiny pipelines that all full-scale tests share: made once, never changed."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPVisionConfig

from full_scale.tiny import tiny_pipeline


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
    (path / "README.md").write_text("---\ntags: [test]\nlicense: creativeml-openrail-m\n---\n# Tiny\nlicense: not this\n")
    return path


@pytest.fixture
def flagging(eps_pipe) -> StableDiffusionPipeline:
    """The tiny pipeline with a tiny safety checker that flags every picture: its cosine thresholds are below −1."""
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=CLIPTextConfig(**small), projection_dim=8,
                        vision_config=CLIPVisionConfig(**small, image_size=16, patch_size=8, projection_dim=8))
    checker = StableDiffusionSafetyChecker(config).eval()
    torch.nn.init.constant_(checker.concept_embeds_weights, -2.0)
    torch.nn.init.constant_(checker.special_care_embeds_weights, 2.0)
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return StableDiffusionPipeline(**{**eps_pipe.components, "safety_checker": checker, "feature_extractor": processor})
