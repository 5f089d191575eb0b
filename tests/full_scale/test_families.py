"""Model families and pictures: what every family answers, what encodes, saves and loads, and
what is refused.
"""

from __future__ import annotations

import copy
import doctest
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlib import Draw, guided
from dlib.losses import drop
from dlib.lora import adapters, twin
from full_scale.families import FAMILIES, StableDiffusion, introduced, named, open_family
from full_scale.families.heads import judge
from full_scale.sources import pictures

CPU = torch.device("cpu")
TEXTS = ["a red circle", "a blue square"]


@pytest.mark.parametrize(
    "name", ["sources.pictures", "sources.folders", "data.encoding", "data.rows", "families"]
)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"full_scale.{name}")).failed == 0


@pytest.fixture(scope="module", params=FAMILIES)
def any_family(request):
    """Every registered family, tiny."""
    return open_family(request.param, None, CPU)


def two_x0(family) -> torch.Tensor:
    return 0.5 * Draw(0).normal((2, *family.shape(family.size)))


def said(family, model=None, cond=None) -> torch.Tensor:
    """What a family's network answers at one fixed input."""
    model = family.denoiser() if model is None else model
    with torch.no_grad():
        cond = family.encode_texts(TEXTS) if cond is None else cond
        return model(two_x0(family), model.schedule.at(0.7), cond).raw


class TestEveryFamily:
    """What preparing data, training, sampling and exporting rely on, family by family."""

    def test_names_itself_and_what_its_data_must_agree_with(self, any_family):
        name = any_family.name
        assert FAMILIES[name] is type(any_family) and any_family.identity["family"] == name
        assert json.loads(json.dumps(any_family.identity)) == any_family.identity
        assert any_family.tiny_is in introduced(any_family, None)
        assert any_family.x0_is and any_family.weights_are and not any_family.told

    def test_states_the_schedule_of_its_weights_without_them(self, any_family):
        found, want = named(any_family.name).schedule(), any_family.denoiser().schedule
        assert (found.name, found.ladder) == (want.name, want.ladder)
        for t in (0.001, 0.5, 1.0):
            a, b = found.at(t), want.at(t)
            assert (a.alpha, a.sigma) == pytest.approx((b.alpha, b.sigma), rel=1e-5, abs=1e-7)

    def test_pictures_become_x0_of_the_shape_it_states(self, any_family):
        size = any_family.size
        drawn = [Image.new("RGB", (size, size), colour) for colour in ("red", "blue")]
        x0 = any_family.encode_pictures([*drawn, drawn[0].resize((2 * size, size))], size)
        assert x0.shape == (3, *any_family.shape(size)) and x0.dtype == torch.float32
        assert torch.equal(x0[0], x0[2]) and not torch.equal(x0[0], x0[1])
        with pytest.raises(ValueError, match=f"{size + 1} × {size + 1} pixels"):
            any_family.shape(size + 1)
        with pytest.raises(ValueError, match=f"{size} × {size + 1} pixels"):
            any_family.shape(size, size + 1)

    def test_the_empty_condition_stands_in_for_any_row(self, any_family):
        """By name, shape and dtype: guidance and dropout put it there."""
        cond, null = any_family.encode_texts(TEXTS), any_family.null()
        assert cond.keys() == null.keys() and all(len(value) == 2 for value in cond.values())
        gone = drop(cond, null, 1.0, Draw(0))
        for name, value in null.items():
            assert (value.shape, value.dtype) == (cond[name].shape[1:], cond[name].dtype)
            assert torch.equal(gone[name], value.expand_as(cond[name]))
        for name, value in any_family.null(TEXTS[0]).items():
            torch.testing.assert_close(value, cond[name][0], rtol=1e-5, atol=1e-5)
        assert not any_family.truncated(TEXTS[0])

    def test_its_denoiser_hears_every_condition_and_guidance_uses_it(self, any_family):
        model, cond = any_family.denoiser(), any_family.encode_texts(TEXTS)
        plain, shape = said(any_family), (2, *any_family.shape(any_family.size))
        assert plain.shape == shape and torch.isfinite(plain).all()
        for name, empty in any_family.null().items():
            other = cond | {name: empty.expand_as(cond[name])}
            assert (said(any_family, cond=other) - plain).abs().max() > 1e-4 * plain.std(), name
        null = {name: empty.expand_as(cond[name]) for name, empty in any_family.null().items()}
        empty = said(any_family, cond=null)
        want = empty + 3.0 * (plain - empty)
        found = said(any_family, guided(model, 2.0, any_family.null()))
        assert (found - want).abs().max() < 1e-4 * plain.std()

    def test_pixels_have_a_gradient_and_are_what_decode_shows(self, any_family):
        x0, size = two_x0(any_family).requires_grad_(), any_family.size
        found, alone = any_family.pixels(x0), any_family.pixels(x0[1:]).detach()
        assert found.shape == (2, 3, size, size)
        torch.testing.assert_close(found[1:].detach(), alone, rtol=1e-4, atol=1e-4)
        found[0].square().mean().backward()
        assert torch.isfinite(x0.grad).all() and x0.grad[0].abs().max() > 0
        assert not x0.grad[1].any()
        parts = vars(any_family).values()
        modules = [m for part in parts for m in getattr(part, "components", {}).values()]
        assert not [
            p
            for module in [*modules, any_family.net]
            if isinstance(module, torch.nn.Module)
            for p in module.parameters()
            if p.grad is not None
        ]
        shown = any_family.decode(x0.detach()[1]).resize((size, size), Image.NEAREST)
        want = np.asarray(pictures.picture(alone[0]))
        assert np.array_equal(np.asarray(shown), want)
        assert want.std() > 5

    def test_saved_with_another_network_it_opens_with_that(self, any_family, tmp_path):
        other = copy.deepcopy(any_family.net)
        with torch.no_grad():
            next(other.parameters()).mul_(1.5)
        any_family.save(other, tmp_path / "mine")
        again = open_family(any_family.name, str(tmp_path / "mine"), CPU)
        mine, its = other.state_dict(), again.net.state_dict()
        assert mine.keys() == its.keys() and all(
            torch.equal(its[name], mine[name]) for name in mine
        )
        # weights read from a file lie elsewhere in memory: some processors add in another order
        want = said(any_family, any_family.denoiser(other))
        torch.testing.assert_close(said(again), want)
        assert not torch.allclose(said(any_family), want, rtol=1e-3, atol=1e-3)
        assert again.identity == any_family.identity
        torch.testing.assert_close(again.null(), any_family.null())

    def test_its_blueprint_has_its_shapes(self, any_family):
        plan, count = (
            named(any_family.name).blueprint(None),
            lambda net: sum(p.numel() for p in net.parameters()),
        )
        assert plan.shape(any_family.size) == any_family.shape(any_family.size)
        assert {name: value.shape for name, value in plan.null().items()} == {
            name: value.shape for name, value in any_family.null().items()
        }
        assert count(plan.base.net) == count(any_family.net) and plan.base.net(
            plan.batch(2).x0, torch.empty(2, device="meta"), plan.batch(2).cond
        ).shape == (2, *plan.sides)

    def test_its_network_can_be_adapted_judged_and_told_or_says_why_not(self, any_family):
        call = any_family.denoiser().net
        prefix = any_family.lora_prefix
        student = twin(call, 2, targets=any_family.lora_targets)
        assert prefix is None or all(name.startswith(f"{prefix}.") for name in adapters(student))
        assert (prefix is None) == (any_family.pipeline is None)
        x, time, cond = (
            two_x0(any_family),
            torch.full((2,), 500.0),
            any_family.encode_texts(TEXTS),
        )
        with torch.no_grad():
            opinions = judge(any_family.denoiser(), any_family, CPU)(x, time, cond)
        assert len(opinions) == 2 and len(any_family.stages(call)) > 1
        try:
            told = any_family.told_omega(call)
        except ValueError as error:
            assert f"family {any_family.name}" in str(error)
        else:
            with torch.no_grad():
                deaf = told(x, time, cond | {"omega": torch.tensor([0.0, 7.0])})
                assert torch.equal(deaf, call(x, time, cond))
            (new,), (old,) = told.children(), call.children()
            assert new is not old and not any_family.told
            listening = any_family.with_net(new)
            assert listening.told and listening.net is new and any_family.net is old
            omega = {"omega": torch.tensor([0.0, 7.0])}
            with torch.no_grad():  # and one that has learnt to listen is copied as it is
                for weight in new.parameters():
                    weight.add_(0.01)
                heard = any_family.told_omega(told)(x, time, cond | omega)
                assert torch.equal(heard, told(x, time, cond | omega))
                assert not torch.equal(heard, deaf)


class TestFamilies:
    def test_opens_weights_and_tiny_and_saves_what_loads(self, folder, v_pipe, tmp_path):
        family = open_family("sd", str(folder), CPU)
        assert (
            family.licence == "creativeml-openrail-m"
            and family.size == 128
            and family.shape(64) == (4, 8, 8)
        )
        assert (
            family.identity == StableDiffusion(v_pipe).identity
            and json.loads(json.dumps(family.identity)) == family.identity
        )
        with torch.no_grad():
            family.net.conv_in.bias += 1
        family.save(family.net, tmp_path / "mine")
        again = open_family("sd", str(tmp_path / "mine"), CPU)
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
            open_family("sd", str(path), CPU)

    def test_unknown_prediction_type(self, folder, tmp_path):
        path = Path(shutil.copytree(folder, tmp_path / "w"))
        config = path / "scheduler" / "scheduler_config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "prediction_type": "sample"})
        )
        with pytest.raises(
            ValueError, match="prediction_type 'sample'.*epsilon and v_prediction"
        ):
            open_family("sd", str(path), CPU).denoiser()

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="--family sd4: no such family; there are sd, "):
            open_family("sd4", None, CPU)


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
