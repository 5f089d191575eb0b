"""The adapters: U-Net, schedule, text, pictures, safety checker, draws."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler
from PIL import Image

import dlib
from dlib.losses import frame_times, uniform_times
from full_scale.data.draws import Draws
from full_scale.families import sd, unet
from full_scale.families.tiny import tiny_pipeline

ROOT = Path(__file__).resolve().parents[2]


def test_denoiser_calls_the_unet_at_the_trained_index(pipe):
    """t = (n + 1)/1000 is index n: same call, and x₀, ε from α, σ of ᾱ_n, whatever the network
    predicts.
    """
    model, config = sd.denoiser(pipe.unet, pipe.scheduler.config), pipe.scheduler.config
    x = dlib.Draw(0).normal((2, 4, 8, 8))
    cond = sd.StableDiffusion(pipe).encode(["a cat", "a bowl"])
    with torch.no_grad():
        raw = pipe.unet(x, torch.tensor([499, 499]), encoder_hidden_states=cond["text"]).sample
        said = model(x, model.schedule.at(0.5), cond)
    root = (
        pipe.scheduler.alphas_cumprod[499] ** 0.5,
        (1 - pipe.scheduler.alphas_cumprod[499]) ** 0.5,
    )
    x0 = (
        (x - root[1] * raw) / root[0]
        if config.prediction_type == "epsilon"
        else root[0] * x - root[1] * raw
    )
    torch.testing.assert_close(said.raw, raw)
    torch.testing.assert_close(said.x0, x0, rtol=1e-4, atol=1e-5)
    assert model.predicts == {"epsilon": "eps", "v_prediction": "v"}[config.prediction_type]
    assert all(model.clock((n + 1) / 1000) == pytest.approx(n, abs=1e-9) for n in range(1000))


def test_schedule_is_the_one_the_released_weights_state(eps_pipe):
    """SD1.5 ships a PNDM configuration: other class, same ladder. Any other β is taken from
    the configuration too.
    """
    ladder = unet.trained_schedule(
        PNDMScheduler.from_config(eps_pipe.scheduler.config, skip_prk_steps=True).config
    )
    assert ladder.at(1.0) == dlib.discrete(dlib.scaled_linear()).at(1.0)
    assert ladder.at(1.0).lam == pytest.approx(-2.682, abs=1e-3)
    other = unet.trained_schedule(
        {
            "num_train_timesteps": 50,
            "beta_start": 1e-4,
            "beta_end": 0.02,
            "beta_schedule": "linear",
        }
    )
    assert other.t_min == 1 / 50 and other.at(1 / 50).sigma == pytest.approx(1e-2, rel=1e-4)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prediction_type": "flow_prediction"}, "flow_prediction.*epsilon and v_prediction"),
        ({"rescale_betas_zero_snr": True}, "zero terminal SNR"),
    ],
)
def test_denoiser_refuses_what_it_cannot_hold(eps_pipe, change, message):
    with pytest.raises(ValueError, match=message):
        sd.denoiser(eps_pipe.unet, {**eps_pipe.scheduler.config, **change})


def test_unet_call_runs_in_the_weights_dtype_and_answers_in_that_of_x(bfloat16):
    """Time is not cast: bfloat16 has no 999, only 1000, and the network would see another
    level.
    """
    net, seen = unet.UNetCall(tiny_pipeline().unet.bfloat16()), []
    net.unet.register_forward_pre_hook(lambda module, args: seen.extend(args))
    x, cond = torch.zeros(1, 4, 8, 8), {"text": torch.zeros(1, 16, 32)}
    assert net(x, torch.tensor([999.0]), cond).dtype == torch.float32
    assert (
        seen[0].dtype == torch.bfloat16
        and seen[1].dtype == torch.float32
        and seen[1].item() == 999.0
    )
    assert {name.split(".")[0] for name in net.state_dict()} == {"unet"}


def test_encode_is_the_pipelines_own_and_warns_of_cut_prompts(eps_pipe):
    prompts = ["a cat", "a bowl of lemons"]
    want, empty = eps_pipe.encode_prompt(prompts, "cpu", 1, True)
    assert (
        torch.equal(sd.StableDiffusion(eps_pipe).encode(prompts)["text"], want)
        and not sd.StableDiffusion(eps_pipe).encode(prompts)["text"].requires_grad
    )
    # there in a batch of two: equal to rounding
    alone = sd.StableDiffusion(eps_pipe).encode([""])["text"]
    assert (alone - empty[:1]).abs().max() < 1e-5 * empty.abs().max()
    with pytest.warns(UserWarning, match="prompt of 22 tokens: the text encoder reads 16"):
        sd.StableDiffusion(eps_pipe).encode_texts(["cat " * 20])


def test_decode_is_the_pipelines_own(eps_pipe):
    latent = 3 * dlib.Draw(0).normal((4, 8, 8))
    with torch.no_grad():
        decoded = eps_pipe.vae.decode(latent[None] / eps_pipe.vae.config.scaling_factor).sample
    picture = np.asarray(sd.StableDiffusion(eps_pipe).decode(latent))
    want = np.asarray(eps_pipe.image_processor.postprocess(decoded, output_type="pil")[0])
    assert picture.shape == (64, 64, 3) and np.array_equal(picture, want) and picture.std() > 5


@pytest.mark.parametrize("flags_all", [True, False])
def test_the_weights_own_safety_checker_blackens_what_it_flags(flagging, eps_pipe, flags_all):
    pictures = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    if not flags_all:  # its thresholds are cosines
        torch.nn.init.constant_(flagging.safety_checker.concept_embeds_weights, 2.0)
    shown, flags = sd.StableDiffusion(flagging).censor(pictures)
    assert flags == [flags_all] * 2 and [picture.size for picture in shown] == [(64, 48)] * 2
    assert [picture.getpixel((0, 0)) for picture in shown] == (
        [(0, 0, 0)] * 2 if flags_all else [(255, 0, 0), (0, 0, 255)]
    )
    assert sd.StableDiffusion(eps_pipe).censor(pictures) == (pictures, [False, False])


def test_draws_do_not_depend_on_batch_mates_and_replay():
    like, draws = torch.empty(3, 2, 5), Draws(dlib.Draw(seed) for seed in (4, 5, 6))
    replay, alone = draws.copy(), dlib.Draw(5)
    first, second = draws.normal(like), draws.normal(like)
    assert torch.equal(first[1], alone.normal(like[1])) and torch.equal(
        second[1], alone.normal(like[1])
    )
    assert torch.equal(replay.normal((3, 2, 5)), first) and not torch.equal(first[0], first[1])
    assert torch.equal(replay.normal((3, 2, 5), torch.float64), second.double())
    for two in ((2, 5), torch.empty(2, 5)):
        with pytest.raises(ValueError, match="2 values asked of 3 rows"):
            draws.normal(two)


def test_times_of_frames_do_not_depend_on_batch_mates():
    times = frame_times(uniform_times(), 5)
    whole = times(Draws(dlib.Draw(seed) for seed in range(4)), 4)
    half = times(Draws(dlib.Draw(seed) for seed in (2, 3)), 2)
    assert torch.equal(whole[2:], half) and len(set(whole.flatten().tolist())) == 20


def test_tiny_is_reproducible_and_leaves_the_callers_randomness_alone(v_pipe):
    torch.manual_seed(7)
    again = tiny_pipeline("v_prediction")
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.unet.parameters(), v_pipe.unet.parameters(), strict=True)
    )


def test_dlib_knows_nothing_of_full_scale():
    """Layering: full_scale imports dlib; dlib imports neither it nor what only it needs."""
    above = {"full_scale", "diffusers", "transformers", "PIL", "tqdm", "tyro"}
    files = [*(ROOT / "dlib").rglob("*.py")]
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not above & {name.split(".")[0] for name in names}, file
