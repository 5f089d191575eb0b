"""Rewards against transformers' own preprocessing and models, with a random tiny CLIP; what
reaches them through a run; bad input.
"""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
import tiny_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from full_scale import rewards
from full_scale.data.captions import BYTES, packed, unpacked
from full_scale.families import open_family
from full_scale.run.given import check_given, given_roles
from full_scale.run.settings import read
from full_scale.sources.pictures import pixels
from toy_data.judged_pictures import caption_reward, colour_reward
from toy_data.shape_captions import tokens
from toy_data.shapes import captioned

CPU, WORDS = torch.device("cpu"), ["a cat", "a red circle and a blue square"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip.write(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def files():
    """Two smooth pictures of 48 × 32 pixels, as a file has them."""
    y, x = np.mgrid[0:32, 0:48] / 32
    one = np.stack([x / 1.5, y, 1 - y], 2)
    return [Image.fromarray((255 * a).astype(np.uint8)) for a in (one, one[::-1] ** 2)]


def by_transformers(clip, files):
    """The model's own cosine, its processor on the files."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    model, prepare = CLIPModel.from_pretrained(clip), CLIPImageProcessor.from_pretrained(clip)
    tokens = AutoTokenizer.from_pretrained(clip)(
        WORDS, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        said = model(
            **tokens, pixel_values=prepare(images=files, return_tensors="pt").pixel_values
        )
    cosine = torch.cosine_similarity(said.image_embeds, said.text_embeds)
    return cosine, model.logit_scale.exp().detach(), said.image_embeds


def test_scores_are_those_of_the_models_they_are_named_after(clip, files):
    """The picture goes through torch, not through 8-bit files: half a grey level is allowed."""
    cosine, scale, _ = by_transformers(clip, files)
    x = pixels(files)
    for name, want in (("clip", 100 * cosine), ("pickscore", scale * cosine), ("hps", cosine)):
        found = rewards.opened(name, str(clip), CPU)(x, WORDS)
        torch.testing.assert_close(found, want, rtol=0, atol=2e-3 * float(want.abs().max()))
        with torch.autocast("cpu", torch.bfloat16):  # a run's, in which the network is asked
            again = rewards.opened(name, str(clip), CPU)(x, WORDS)
        torch.testing.assert_close(again, found, rtol=1e-5, atol=0)
    swapped = rewards.opened("hps", str(clip), CPU)(x, WORDS[::-1])
    assert (swapped - cosine).abs().max() > 1e-2


def test_the_gradient_reaches_the_picture_and_no_weight(clip, files):
    x = pixels(files).requires_grad_()
    score = rewards.opened("clip", str(clip), CPU)
    score(x, WORDS).sum().backward()
    seen = x.grad.abs().amax((1, 2)) > 0  # of 48 columns the middle 32 are cut out
    assert bool(seen[:, 12:36].all()) and not bool(seen[:, :4].any())
    step = torch.zeros_like(x)
    step[0, 1, 10:20, 10:20] = 1e-2
    with torch.no_grad():
        rise = (score(x + step, WORDS) - score(x - step, WORDS))[0] / 2
    assert float((x.grad * step).sum()) == pytest.approx(float(rise), rel=0.05)


def test_the_aesthetic_predictor_is_an_affine_map_of_the_unit_vector(clip, files, tmp_path):
    _, _, unit = by_transformers(clip, files)
    with pytest.raises(ValueError, match="no aesthetic.safetensors there"):
        rewards.opened("aesthetic", str(clip), CPU)
    torch.manual_seed(0)
    sizes, layers, want = (8, 1024, 128, 64, 16, 1), {}, unit / unit.norm(dim=1, keepdim=True)
    for place, a, b in zip((0, 2, 4, 6, 7), sizes, sizes[1:]):  # the published names' numbers
        weight, bias = torch.randn(b, a) / a**0.5, torch.randn(b)
        layers |= {f"layers.{place}.weight": weight, f"layers.{place}.bias": bias}
        want = want @ weight.T + bias
    save_file(layers, clip / "aesthetic.safetensors")
    found = rewards.opened("aesthetic", str(clip), CPU)(pixels(files), WORDS)
    torch.testing.assert_close(found, want[:, 0], rtol=0, atol=1e-2 * float(want.abs().max()))
    save_file(
        {k: v for k, v in layers.items() if "layers.7" not in k}, clip / "aesthetic.safetensors"
    )
    with pytest.raises(ValueError, match="belongs to another CLIP"):
        rewards.opened("aesthetic", str(clip), CPU)


def test_plain_rewards(files):
    x = pixels(files)
    found = rewards.opened("compressibility", "", CPU)(x, WORDS)
    for one, kilobytes in zip(files, found):
        file = io.BytesIO()
        one.save(file, "jpeg", quality=95)
        assert -kilobytes == pytest.approx(len(file.getvalue()) / 1000, abs=0.02)
    noise = rewards.opened("incompressibility", "", CPU)(torch.rand(1, 3, 32, 48) * 2 - 1, [""])
    assert noise > (-found).max()
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert rewards.opened("redness", "", CPU)(red, [""]) == 2.0


def test_the_judge_of_the_shapes_knows_right_from_wrong():
    x, words = captioned(8, seed=3)
    judge = rewards.opened("shapes", "", CPU)
    assert judge(x, words).tolist() == [1.0] * 8
    assert judge(x, [*words[1:], words[0]]).mean() < 0.5


@pytest.mark.parametrize("name", ["captions", "colours"])
def test_the_toys_exact_rewards_are_the_toys_own(name):
    """The hidden reward and the proxy that follows it, on pictures that are partly wrong; only
    the proxy has a gradient.
    """
    x, words = captioned(8, seed=3)
    asked = [*words[1:], words[0]]
    toy = {"captions": caption_reward, "colours": colour_reward}[name]
    score = rewards.opened(name, "", CPU)
    x.requires_grad_()
    found = score(x, asked)
    torch.testing.assert_close(found, toy(x, tokens(asked)), rtol=0, atol=0)
    assert found.requires_grad == (name == "colours")
    assert len(set(found.tolist())) > 1 and bool((score(x, words) > found).any())


def test_those_that_read_captions_are_listed(clip):
    """Which of them mind whose caption it is; the affine map above reads none."""
    x, words = captioned(8, seed=3)
    for name in rewards.SCORES.keys() - {"aesthetic"}:
        folder = str(clip) if name in rewards.encoders.EXAMPLES else ""
        score = rewards.opened(name, folder, CPU)
        minds = not torch.equal(score(x, words), score(x, [*words[1:], words[0]]))
        assert minds == (name in rewards.READERS), name
    assert "aesthetic" not in rewards.READERS


@pytest.mark.parametrize("name", ["shapes", "captions", "colours"])
def test_who_reads_captioned_shapes_refuses_other_captions(name):
    says = f"--reward {name} reads captions of the captioned shapes alone: 'a lighthouse'"
    with pytest.raises(ValueError, match=says):
        rewards.opened(name, "", CPU)(torch.zeros(1, 3, 16, 16), ["a lighthouse"])


def test_captions_travel_as_bytes():
    texts = ["", "ein Löwe 🦁", "x" * 600, "é" * 300]
    rows = packed(texts)
    assert rows.shape == (4, BYTES) and rows.dtype == torch.uint8
    assert unpacked(rows) == ["", texts[1], "x" * 512, "é" * 256]


@pytest.mark.parametrize("family", ["sd", "shapes"])
def test_the_reward_of_a_run_sees_the_decoded_picture_and_the_caption(family):
    s = read(["--method", "reward_gradient", "--family", family, "--tiny", "--reward", "redness"])
    opened = open_family(family, None, CPU)
    score = given_roles(s, opened)["reward"]
    x0 = torch.randn(2, *opened.shape(opened.size), requires_grad=True)
    value = score(x0, {"caption": packed(["a", "b"])})
    want = rewards.opened("redness", "", CPU)(opened.pixels(x0), ["a", "b"])
    torch.testing.assert_close(value, want)
    value.sum().backward()
    assert x0.grad.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize(
    "name, weights, said",
    [
        ("", "", r"--reward \(none\): wanted one of clip,"),
        ("clipp", "", "wanted one of"),
        ("redness", "somewhere", "redness has no weights"),
        ("clip", "", "--reward clip needs --reward-weights FOLDER.*openai/clip"),
        ("pickscore", "/no/where", "PickScore_v1"),
    ],
)
def test_bad_names_and_weights_say_what_to_type(name, weights, said):
    with pytest.raises(ValueError, match=said):
        rewards.opened(name, weights, CPU)


@pytest.mark.parametrize(
    "name, gone, said",
    [
        ("pickscore", "preprocessor_config.json", "copy .* of laion/CLIP-ViT-H-14-laion2B-s32B"),
        ("pickscore", "tokenizer.json", "copy .* of laion/CLIP-ViT-H-14-laion2B-s32B"),
        ("hps", "tokenizer.json", "copy .* of laion/CLIP-ViT-H-14-laion2B-s32B"),
        ("clip", "tokenizer.json", "copy .* of openai/clip-vit-large-patch14"),
        ("aesthetic", "preprocessor_config.json", "copy .* of openai/clip-vit-large-patch14"),
    ],
)
def test_a_folder_without_what_reads_pictures_and_captions_says_whose_it_wants(
    name, gone, said, clip, tmp_path
):
    """PickScore's weights are read with LAION's files. The slower form of a tokenizer will do."""
    folder = shutil.copytree(clip, tmp_path / "clip")
    (folder / rewards.encoders.PREDICTOR).touch()
    (folder / gone).unlink()
    with pytest.raises(ValueError, match=f": no {gone} there, which {name} reads with: {said}"):
        rewards.check(name, str(folder))
    if gone == "tokenizer.json":
        (folder / "vocab.json").write_text("{}")
        with pytest.raises(ValueError, match="no tokenizer.json there"):
            rewards.check(name, str(folder))  # words without their parts: merges.txt
        (folder / "merges.txt").touch()
        rewards.encoders.check_folder(name, str(folder))


@pytest.mark.parametrize("flag", ["--reward", "--reward-weights"])
def test_a_reward_that_nobody_follows_is_named(flag):
    s = read(["finetune", "--family", "shapes", "--tiny", flag, "clip"])
    for refuse in (check_given, lambda s: given_roles(s, None)):
        with pytest.raises(ValueError, match=f"^{flag} clip: finetune follows no reward"):
            refuse(s)


@pytest.mark.parametrize(
    "words, weights",
    [
        ("nft --reward shapes", ""),
        ("flow_grpo --reward=redness", ""),
        ("reward_gradient --reward redness", ""),
        ("reward_gradient --reward clip", ""),
        ("reward_gradient --reward clip --reward-weights mine", "mine"),
        ("reward_gradient --reward aesthetic", "weights/clip-vit-large-patch14"),
        ("reward_gradient --lr 1", "weights/clip-vit-large-patch14"),
    ],
)
def test_a_reward_that_is_typed_takes_no_other_s_weights_from_the_recipe(words, weights):
    s = read(words.split())
    assert s.reward_weights == weights
    if s.reward in ("shapes", "redness"):
        check_given(s)
        with pytest.raises(ValueError, match=f"--reward-weights mine: {s.reward} has no weights"):
            check_given(read([*words.split(), "--reward-weights", "mine"]))
    else:
        with pytest.raises(ValueError, match=f"--reward {s.reward} needs --reward-weights"):
            check_given(s)


@pytest.mark.parametrize("harm", ["cut", "emptied", "overwritten"])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "aesthetic.safetensors", "preprocessor_config.json", "tokenizer.json"],
)
def test_damaged_weights_are_one_line_with_the_file(name, harm, clip, tmp_path):
    """Whatever the library says that fails on them, and before anything is loaded."""
    folder = shutil.copytree(clip, tmp_path / "clip")
    save_file({"x": torch.zeros(1)}, folder / "aesthetic.safetensors")
    whole = (folder / name).read_bytes()
    left = {"cut": whole[: len(whole) // 2], "emptied": b"", "overwritten": b"\xff" * len(whole)}
    (folder / name).write_bytes(left[harm])
    with pytest.raises(ValueError, match=f"^--reward-weights .*{name} is damaged") as found:
        rewards.check("aesthetic", str(folder))
    assert "\n" not in str(found.value)


def test_a_predictor_without_a_bias_belongs_to_another_clip(clip, tmp_path):
    folder = shutil.copytree(clip, tmp_path / "clip")
    save_file({f"{n}.weight": torch.zeros(1) for n in range(5)}, folder / "aesthetic.safetensors")
    with pytest.raises(ValueError, match="belongs to another CLIP"):
        rewards.opened("aesthetic", str(folder), CPU)
