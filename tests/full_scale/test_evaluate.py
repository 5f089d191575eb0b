"""Scores against their definitions, on shapes whose truth is known and with a random tiny
CLIP; bad folders and bad rows.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import full_scale.evaluate as command
from dlib import metrics
from full_scale import rewards, sample
from full_scale.out import judges
from full_scale.out.duels import paired, win_rate
from full_scale.evaluate import Config
from full_scale.sources.captioned import Captioned, read_captioned
from full_scale.sources.pictures import pixels
from full_scale.families.tiny import tiny_pipeline
from toy_data.shapes import write_folder


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Two folders of 32 real shapes each."""
    root = tmp_path_factory.mktemp("shapes")
    for seed in (0, 1):
        write_folder(root / str(seed), 32, seed=seed)
    return root


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A random tiny CLIP as a folder of weights, with the tiny pipeline's tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    pipe = tiny_pipeline()
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    text = {
        **small,
        "vocab_size": len(pipe.tokenizer),
        "max_position_embeddings": 16,
        "eos_token_id": pipe.tokenizer.eos_token_id,
    }
    CLIPModel(
        CLIPConfig(
            text_config=text,
            vision_config={**small, "image_size": 16, "patch_size": 8},
            projection_dim=8,
        )
    ).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    pipe.tokenizer.save_pretrained(folder)
    return folder


def scores(out):
    return json.loads((out / "evaluation.json").read_text())["scores"]


def test_real_shapes_score_as_real(shapes):
    out = command.run(Config(pictures=shapes / "0", real=shapes / "1"))
    said = scores(out)
    assert out == Path("runs/evaluate-001") and said["pictures"] == said["real"] == 32
    assert said["shapes"]["accuracy"] == 1.0 and said["shapes"]["off"] < 0.01
    assert 0 < said["patches"]["frechet"] < 3 * said["patches"]["between_halves_of_real"]
    assert Image.open(out / "grid.png").size[0] == 8 * 100 - 4


def test_wrong_captions_and_noise_score_as_wrong(shapes, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for n, file in enumerate(sorted((shapes / "0").glob("*.png"))[:16]):
        (wrong / file.name).write_bytes(file.read_bytes())
        (wrong / file.with_suffix(".txt").name).write_text(
            "a large green triangle above a small red circle"
        )
    assert scores(command.run(Config(pictures=wrong)))["shapes"]["accuracy"] < 0.3
    noise = tmp_path / "noise"
    noise.mkdir()
    for n in range(16):
        Image.effect_noise((16, 16), 90).convert("RGB").save(noise / f"{n}.png")
    far, near = (
        scores(command.run(Config(pictures=folder, real=shapes / "1")))["patches"]["frechet"]
        for folder in (noise, shapes / "0")
    )
    assert far > 10 * near


def test_clip_score_and_frechet_are_their_definitions(shapes, clip):
    said = scores(
        command.run(
            Config(
                pictures=shapes / "0",
                real=shapes / "1",
                clip=str(clip),
                encoder=str(clip),
                batch=5,
            )
        )
    )
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    model, shown = CLIPModel.from_pretrained(clip), read_captioned(shapes / "0", "")[0]
    tokenise, prepare = (
        AutoTokenizer.from_pretrained(clip),
        CLIPImageProcessor.from_pretrained(clip),
    )
    one = []
    with torch.no_grad():
        for item in shown[:4]:
            output = model(
                **tokenise(item.caption, truncation=True, max_length=16, return_tensors="pt"),
                **prepare(item.picture, return_tensors="pt"),
            )
            one.append(
                100 * max(output.logits_per_image.item() / model.logit_scale.exp().item(), 0)
            )
    assert said["clip_score"]["each"]["score"][:4] == pytest.approx(one, abs=1e-3)
    assert said["clip_score"]["mean"] == pytest.approx(
        sum(said["clip_score"]["each"]["score"]) / 32
    )
    a, b = (
        judges.features(str(clip), read_captioned(shapes / seed, "")[0], 7, torch.device("cpu"))
        for seed in "01"
    )
    assert a.shape == (32, 8) and said["frechet"]["distance"] == pytest.approx(
        metrics.frechet(a, b), rel=1e-4
    )


def test_what_sample_wrote_is_read_with_its_prompts():
    made = sample.run(
        sample.Config(
            prompt=("a red circle", "a cat"),
            n=2,
            tiny=True,
            solver="ddim",
            steps=1,
            height=32,
            width=32,
        )
    )
    shown, bad = read_captioned(made, "--pictures")
    assert [item.caption for item in shown] == ["a red circle"] * 2 + ["a cat"] * 2 and not bad
    assert "shapes" not in scores(command.run(Config(pictures=made)))


def test_broken_rows_are_counted_and_named(shapes, tmp_path, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    for file in sorted((shapes / "0").glob("*"))[:8]:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "broken.png").write_bytes(b"no picture")
    out = command.run(Config(pictures=folder))
    bad = json.loads((out / "evaluation.json").read_text())["bad_rows"]
    assert len(bad) == 1 and "broken.png" in bad[0] and "BAD ROWS: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, match",
    [
        ({"pictures": Path("nowhere")}, "--pictures nowhere: no such folder"),
        ({"real": Path("nowhere")}, "--real nowhere: no such folder"),
        ({"batch": 0}, "--batch 0"),
        ({"encoder": "x"}, "--encoder measures a distance to real pictures: add --real"),
        (
            {"clip": "nowhere"},
            "--clip nowhere: no folder with a config.json there.*hf download openai/clip",
        ),
    ],
)
def test_bad_requests_are_answered_and_leave_nothing(shapes, tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        command.run(Config(**{"pictures": shapes / "0", **change}))
    assert not (tmp_path / "runs").exists()


def test_empty_and_captionless_folders_and_pickles(shapes, clip, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="it holds none"):
        command.run(Config(pictures=tmp_path / "empty"))
    bare = tmp_path / "bare"
    bare.mkdir()
    Image.new("RGB", (16, 16)).save(bare / "0.png")
    with pytest.raises(ValueError, match="1 pictures have no caption .number 1."):
        command.run(Config(pictures=bare, clip=str(clip)))
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="pickled weights can run code"):
        command.run(Config(pictures=bare, clip=str(tmp_path / "pickled")))
    for file in [file for file in Path(clip).iterdir() if "vocab" not in file.name]:
        if file.name != "tokenizer.json":
            (tmp_path / "pickled" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="no tokenizer.json there: download"):
        command.run(Config(pictures=bare, clip=str(tmp_path / "pickled")))
    (tmp_path / "pickled" / "preprocessor_config.json").unlink()
    real = {"real": bare, "encoder": str(tmp_path / "pickled")}
    with pytest.raises(ValueError, match="--encoder .*no preprocessor_config.json there: downl"):
        command.run(Config(pictures=bare, **real))


def half_each(values, groups):
    return win_rate(torch.tensor(values), torch.zeros(len(values)), groups)


def test_win_rates_and_their_errors_are_their_definitions():
    """Against independent pairs, and pairs that are copies of a prompt's one: copies add no
    knowledge.
    """
    won = [1.0, -1.0, 1.0, 0.0, 1.0, -1.0, 1.0, 1.0]
    share = torch.tensor([1.0, 0, 1, 0.5, 1, 0, 1, 1])
    want = {"win_rate": share.mean().item(), "standard_error": (share.std() / 8**0.5).item()}
    alone = half_each(won, [str(n) for n in range(8)])
    copied = half_each([each for each in won for _ in range(5)], [n // 5 for n in range(40)])
    one = half_each(won, ["a prompt"] * 8)
    for said in (alone, copied, one):
        assert said == {**{k: pytest.approx(v, abs=1e-6) for k, v in want.items()}, "ties": 1 / 8}
    assert half_each([1.0], ["x"])["standard_error"] is None
    near = win_rate(torch.tensor([25.0, 0.0]), torch.tensor([25.001, 0.0]), ["x", "y"])
    assert near == {"win_rate": 0.5, "standard_error": 0.0, "ties": 1.0}


def test_two_folders_are_compared_pair_by_pair(shapes, clip, tmp_path, capsys):
    """Real shapes win over those with exchanged captions' pictures by every score of a picture,
    whatever the order of files; a picture without a partner is named, and a folder ties with
    itself.
    """
    worse = tmp_path / "worse"
    worse.mkdir()
    files = sorted((shapes / "0").glob("*.png"))[:12]
    for file, other in zip(files, files[1:] + files[:1]):
        shutil.copy(file.with_suffix(".txt"), worse)
        noisy = Image.blend(
            Image.open(other).convert("RGB"), Image.effect_noise((16, 16), 90).convert("RGB"), 0.2
        )
        noisy.save(worse / file.name)
    command.run(Config(pictures=shapes / "0", against=worse))
    assert (
        "against: pairs 12, without a partner 20, shapes accuracy win_rate"
        in capsys.readouterr().out
    )
    said = scores(Path("runs/evaluate-001"))["against"]
    assert said["shapes off"]["win_rate"] == 1.0 and said["shapes off"]["standard_error"] == 0.0
    accuracy = said["shapes accuracy"]
    assert 0.5 < accuracy["win_rate"] <= 1.0 and accuracy["ties"] < 0.5
    assert len(said["lone"]) == 20 and "--pictures: 'a" in said["lone"][0]
    back = scores(command.run(Config(pictures=worse, against=shapes / "0")))["against"]
    assert back["shapes accuracy"]["win_rate"] == pytest.approx(1 - accuracy["win_rate"])
    same = command.run(Config(pictures=worse, against=worse, clip=str(clip), batch=5))
    wins = scores(same)["against"]
    assert {name for name in wins if isinstance(wins[name], dict)} == {
        "shapes accuracy",
        "shapes off",
        "clip_score score",
    }
    assert all(each["ties"] == 1.0 for each in wins.values() if isinstance(each, dict))


def test_a_reward_of_training_scores_single_pictures(shapes, tmp_path):
    """As the reward itself says, of right captions and of other pictures'; pictures that were
    enlarged for the eye are seen as they were; two sizes in a batch.
    """
    cpu = torch.device("cpu")
    asked, _ = read_captioned(shapes / "0", "--pictures")
    words = [item.caption for item in asked]
    x = pixels([item.picture for item in asked])
    for name, captions in (("right", words), ("wrong", words[1:] + words[:1])):
        (tmp_path / name).mkdir()
        for k, item in enumerate(asked):
            side = 16 + 112 * (k % 2)
            item.picture.resize((side, side), 0).save(tmp_path / name / f"{k:02}.png")
            (tmp_path / name / f"{k:02}.txt").write_text(captions[k])
        out = command.run(
            Config(tmp_path / name, reward="captions", out=tmp_path / f"{name}-out")
        )
        said = json.loads((out / "evaluation.json").read_text())["scores"]["reward captions"]
        want = rewards.opened("captions", "", cpu)(x, captions)
        torch.testing.assert_close(torch.tensor(said["each"]["score"]), want)
        assert said["mean"] == pytest.approx(float(want.mean()))
        error = float(want.double().std()) / len(want) ** 0.5
        assert said["standard_error"] == pytest.approx(error)
    large = [one._replace(picture=one.picture.resize((24, 20))) for one in asked[:2]]
    found = judges.rewarded("redness", "", [*asked[:2], *large, asked[2]], 5, cpu)
    alone = [judges.rewarded("redness", "", [one], 1, cpu)["mean"] for one in large]
    assert found["each"]["score"][2:4] == pytest.approx(alone)
    both = Config(shapes / "0", against=shapes / "0", reward="redness", out=tmp_path / "both")
    said = json.loads((command.run(both) / "evaluation.json").read_text())["scores"]
    assert said["against"]["reward redness score"]["ties"] == 1.0
    grey = shutil.copytree(shapes / "0", tmp_path / "grey")
    for file in grey.glob("*.png"):
        Image.open(file).convert("L").convert("RGB").save(file)
    both = Config(shapes / "0", against=grey, reward="redness", out=tmp_path / "other")
    said = json.loads((command.run(both) / "evaluation.json").read_text())["scores"]
    assert said["against"]["reward redness score"]["ties"] < 0.5
    for change, says in (
        ({"reward": "x"}, "--reward x: wanted one of"),
        ({"reward_weights": "mine"}, "--reward-weights belong to a reward"),
        ({"reward": "redness", "reward_weights": "mine"}, "redness has no weights"),
    ):
        with pytest.raises(ValueError, match=says):
            command.check(Config(shapes / "0", **change))
    with pytest.raises(ValueError, match="--reward captions: 1 pictures have no caption"):
        judges.rewarded("captions", "", [asked[0]._replace(caption=None)], 1, cpu)


def test_what_cannot_be_compared_is_said(shapes, tmp_path):
    for seed, name in ((3, "a"), (4, "b")):
        folder = tmp_path / name
        folder.mkdir()
        Image.effect_noise((20, 20), 90).convert("RGB").save(folder / "x.png")
        (folder / "x.txt").write_text("a cat")
    with pytest.raises(ValueError, match="no score of a single picture can be had: add --clip"):
        command.run(Config(pictures=tmp_path / "a", against=tmp_path / "b"))
    with pytest.raises(ValueError, match="none of its 32 pictures has the prompt and the seed"):
        command.run(Config(pictures=tmp_path / "a", against=shapes / "0"))


def test_sampled_pictures_are_paired_by_prompt_and_seed():
    """Not by their place: another order of prompts, more pictures, a seed that is missing."""
    picture = Image.new("RGB", (16, 16))
    shown = lambda *keys: [Captioned(picture, prompt, f"seed {n}") for prompt, n in keys]
    ours = shown(("a", 0), ("a", 1), ("b", 2), ("b", 2))
    theirs = shown(("b", 2), ("a", 1), ("a", 2), ("b", 2))
    pairs, lone = paired(ours, theirs)
    assert pairs == [(1, 1), (2, 0), (3, 3)]
    assert lone == ["--pictures: 'a', seed 0", "--against: 'a', seed 2"]
