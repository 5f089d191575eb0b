"""Model families and pictures: what encodes, saves and loads, and what is refused."""

from __future__ import annotations

import doctest
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from full_scale import families
from full_scale.sources import pictures


@pytest.mark.parametrize("name", ["pictures", "folders", "encoding", "rows", "families"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"full_scale.{name}")).failed == 0


class TestFamilies:
    def test_opens_weights_and_tiny_and_saves_what_loads(self, folder, v_pipe, tmp_path):
        family = families.open_family("sd", str(folder), torch.device("cpu"))
        assert (
            family.licence == "creativeml-openrail-m"
            and family.size == 128
            and family.shape(64) == (4, 8, 8)
        )
        assert (
            family.identity == families.StableDiffusion(v_pipe).identity
            and json.loads(json.dumps(family.identity)) == family.identity
        )
        with torch.no_grad():
            family.net.conv_in.bias += 1
        family.save(family.net, tmp_path / "mine")
        again = families.open_family("sd", str(tmp_path / "mine"), torch.device("cpu"))
        assert (
            torch.equal(again.net.conv_in.bias, v_pipe.unet.conv_in.bias + 1)
            and again.denoiser().predicts == "v"
        )

    def test_denoiser_of_another_net_and_decode(self, family):
        other = torch.nn.Conv2d(1, 1, 1)
        assert (
            family.denoiser(other).net.unet is other
            and family.denoiser().net.unet is family.pipe.unet
        )
        assert family.decode(torch.zeros(4, 8, 8)).size == (64, 64)
        assert (
            family.null()["text"].shape == (16, 32)
            and family.truncated("cat " * 20)
            and not family.truncated("a cat")
        )

    @pytest.mark.parametrize(
        "spoil, match",
        [
            (lambda path: shutil.rmtree(path), "no such folder"),
            (
                lambda path: (path / "model_index.json").write_text(
                    '{"_class_name": "StableDiffusionXLPipeline"}'
                ),
                "holds a StableDiffusionXLPipeline",
            ),
        ],
    )
    def test_missing_weights_and_other_families(self, spoil, match, folder, tmp_path):
        path = Path(shutil.copytree(folder, tmp_path / "w" / "x" / "y"))
        spoil(path)
        with pytest.raises(ValueError, match=match):
            families.open_family("sd", str(path), torch.device("cpu"))

    def test_unknown_prediction_type(self, folder, tmp_path):
        path = Path(shutil.copytree(folder, tmp_path / "w"))
        config = path / "scheduler" / "scheduler_config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "prediction_type": "sample"})
        )
        with pytest.raises(
            ValueError, match="prediction_type 'sample'.*epsilon and v_prediction"
        ):
            families.open_family("sd", str(path), torch.device("cpu")).denoiser()

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="--family sdxl: no such family; there are sd"):
            families.open_family("sdxl", None, torch.device("cpu"))


class TestPictures:
    def test_modes_become_rgb(self):
        gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
        deep = pictures.rgb(Image.fromarray(gray.astype(np.uint16) * 257))
        assert np.array_equal(np.asarray(deep)[..., 0], gray)
        for mode in ("L", "P", "CMYK", "1", "LA", "RGBA"):
            assert pictures.rgb(Image.new(mode, (3, 2))).mode == "RGB"
        assert pictures.rgb(Image.new("LA", (1, 1), (9, 0))).getpixel((0, 0)) == (255, 255, 255)

    def test_exif_orientation_is_obeyed(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (30, 20)).save(tmp_path / "x.jpg", exif=exif)
        assert pictures.decoded(tmp_path / "x.jpg").size == (20, 30)

    def test_the_shorter_side_is_scaled_and_the_centre_kept(self):
        stripes = np.zeros((64, 192, 3), np.uint8)
        stripes[:, 64:128] = 255
        assert np.asarray(pictures.fitted(Image.fromarray(stripes), 64)).min() == 255
        assert (
            np.asarray(pictures.fitted(Image.fromarray(stripes).rotate(90, expand=True), 32))[
                2:-2
            ]
            > 250
        ).all()

    def test_shrinking_does_not_alias(self):
        """A one-pixel checkerboard shrinks to grey, not to a pattern."""
        board = np.indices((128, 128)).sum(0) % 2 * 255
        small = np.asarray(
            pictures.fitted(Image.fromarray(board.astype(np.uint8)).convert("RGB"), 16)
        ).astype(int)
        assert np.abs(small - 127.5).max() < 3
