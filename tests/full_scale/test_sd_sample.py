"""The command line: pictures on disk from prompts, the same in any batch, and an answer to
every bad request.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dlib
import full_scale.sample as command
from full_scale.out import folder as output
from full_scale.families import sd, unet
from full_scale.sampling import work
from full_scale.sampling.latents import latents
from full_scale.sampling.request import Config, check
from full_scale.families.tiny import tiny_pipeline

SMALL = Config(prompt=("a cat",), tiny=True, solver="ddim", steps=2, height=64, width=64)


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_command_line_end_to_end(tmp_path):
    """As a reader types it: files complete, JSON valid, pictures of the right size and not all
    the same.
    """
    words = [
        "--tiny",
        "--prompt",
        "a cat",
        "a bowl",
        "--n",
        "2",
        "--steps",
        "4",
        "--height",
        "64",
        "--width",
        "96",
        "--seed",
        "5",
    ]
    root = Path(command.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "full_scale.sample", *words, "--out", tmp_path / "out"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (
        str(tmp_path / "out") in done.stdout
        and "4/4" in done.stderr
        and "torchvision" not in done.stderr
    )
    names = [f"{k:03d}.png" for k in range(4)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *names,
        "grid.png",
        "settings.json",
    }
    pictures = [np.asarray(Image.open(tmp_path / "out" / name)) for name in names]
    assert all(picture.shape == (64, 96, 3) and picture.std() > 5 for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])
    assert Image.open(tmp_path / "out" / "grid.png").size == (2 * 96 + 4, 2 * 64 + 4)
    said = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert [picture["seed"] for picture in said["pictures"]] == [5, 6, 7, 8] and said["pictures"][
        2
    ]["prompt"] == "a bowl"
    assert said["solver"] == {"order": 4, "calls": 1, "history": 3, "noisy": False}
    assert (
        (said["network_calls"], said["network_samples"]) == (4, 4 * 4 * 2)
        and said["times"][0] == 1.0
        and said["times"][-1] == 0.0
    )
    assert (
        said["config"]["omega"] == 6.5
        and said["versions"]["torch"] == torch.__version__
        and said["safety_checker"] is False
    )


def test_weights_folder_samples_and_states_its_licence(folder, capsys):
    out = command.run(replace(SMALL, tiny=False, weights=str(folder)))
    said = json.loads((out / "settings.json").read_text())
    assert out == Path("runs/sample-001") and Image.open(out / "000.png").size == (64, 64)
    assert (
        said["predicts"] == "v"
        and said["licence"] == "creativeml-openrail-m"
        and "creativeml-openrail-m" in capsys.readouterr().out
    )


def test_a_safety_checker_in_the_folder_runs_on_every_picture(flagging, tmp_path, capsys):
    flagging.save_pretrained(tmp_path / "weights")
    out = command.run(replace(SMALL, tiny=False, weights=str(tmp_path / "weights"), n=2))
    said = json.loads((out / "settings.json").read_text())
    assert "safety checker: kept" in capsys.readouterr().out and said["safety_checker"] is True
    assert [picture["flagged"] for picture in said["pictures"]] == [True, True]
    assert not np.asarray(Image.open(out / "000.png")).any()


def test_the_functions_are_the_books():
    """The very objects of dlib, not copies: this is what the book promises."""
    assert command.sample is dlib.sample and command.planned is work.planned
    for name in ("guided", "counted", "SOLVERS", "Denoiser"):
        assert getattr(work, name) is getattr(dlib, name)
    assert unet.discrete is dlib.discrete


@pytest.mark.parametrize("solver", ["dpm_solver_pp_2m", "ancestral"])
def test_batched_equals_one_by_one(pipe, solver):
    """To float32 rounding in convolutions of another batch size: 1e-4 of the latents' spread;
    a wrong seed differs by about it.
    """
    model = sd.denoiser(pipe.unet, pipe.scheduler.config)
    cond, levels = (
        sd.StableDiffusion(pipe).encode(["a cat", "a dog", "a bowl"]),
        dlib.levels(model.schedule, 4, "karras", "clean"),
    )
    with torch.no_grad():
        together, apart, two = (
            latents(model, (4, 8, 8), levels, dlib.SOLVERS[solver], cond, [7, 8, 9], batch)
            for batch in (3, 1, 2)
        )
    scale = together.std()
    assert (together - apart).abs().max() < 1e-4 * scale and (
        together - two
    ).abs().max() < 1e-4 * scale
    assert (together[0] - together[1]).std() > 0.5 * scale


def test_stops_keep_the_grid_and_change_only_its_end(eps_pipe):
    schedule = unet.trained_schedule(eps_pipe.scheduler.config)
    grid, clean = (dlib.levels(schedule, 4, "sd_trailing", end) for end in ("grid", "clean"))
    assert [round(1000 * level.t - 1) for level in grid] == [999, 749, 499, 249, 0]
    assert clean[:-1] == grid[:-1] and clean[-1] is dlib.CLEAN


def test_guidance_costs_nothing_at_omega_zero_and_follows_the_negative_prompt():
    def made(**change):
        out = command.run(replace(SMALL, **change))
        return json.loads((out / "settings.json").read_text())["network_samples"], np.asarray(
            Image.open(out / "000.png")
        ).astype(int)

    (free, plain), (guided, pushed), (_, other) = made(omega=0.0), made(), made(negative="a dog")
    assert (free, guided) == (2, 4)
    assert np.abs(plain - pushed).max() > 2 and np.abs(pushed - other).max() > 2


def test_progress_counts_steps_of_all_batches(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, **more):
            self.total, self.count = total, 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, n):
            self.count += n

    monkeypatch.setattr(command, "tqdm", Bar)
    command.run(replace(SMALL, solver="heun", steps=3, n=3, batch=2))
    assert [(bar.total, bar.count) for bar in bars] == [(6, 6)]


@pytest.mark.parametrize(
    "change, match",
    [
        ({"prompt": ()}, "--prompt is empty"),
        ({"tiny": False}, "pass exactly one of them"),
        ({"weights": "somewhere"}, "pass exactly one of them"),
        ({"solver": "dpm_pp_2m"}, "no such solver; did you mean dpm_solver_pp_2m"),
        ({"grid": "trailing"}, "no such grid; did you mean sd_trailing"),
        ({"steps": 0}, "--steps 0: wanted at least 1"),
        ({"n": 0}, "--n 0"),
        ({"batch": 0}, "--batch 0"),
        ({"omega": -1.0}, "--omega -1: wanted a finite ω ≥ 0.*g − 1"),
        ({"omega": float("nan")}, "--omega nan"),
        (
            {"height": 60},
            "--height 60 --width 64: .*60 × 64 pixels.*wanted positive multiples of 8; this network's own size is 128",
        ),
        ({"width": 0}, "--width 0: wanted at least 1"),
        ({"family": "sd4"}, "--family sd4: no such family; there are sd, "),
        ({"device": "gpu"}, "--device gpu.*type auto, cpu or cuda"),
        ({"solver": "dpm_solver_pp_3m"}, "order 3.*use n ≥ 3"),
        ({"grid": "sd_trailing", "steps": 1000}, "a ladder of 1000"),
    ],
)
def test_bad_requests_are_answered_and_leave_nothing_behind(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        command.run(replace(SMALL, **change))
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_cuda_asked_for_but_absent():
    with pytest.raises(ValueError, match="--device cuda: torch .* sees no CUDA GPU"):
        command.run(replace(SMALL, device="cuda"))


def test_main_answers_in_one_line_without_a_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sample", "--tiny", "--prompt", "a", "--solver", "dimm"])
    with pytest.raises(SystemExit) as answer:
        command.main()
    assert str(answer.value).startswith(
        "full_scale.sample: --solver dimm"
    ) and "did you mean ddim" in str(answer.value)


def test_a_network_that_breaks_names_the_step_and_leaves_nothing_behind(monkeypatch, tmp_path):
    def poisoned():
        pipe = tiny_pipeline()
        torch.nn.init.constant_(pipe.unet.conv_out.bias, float("nan"))
        return pipe

    monkeypatch.setattr(sd, "tiny_pipeline", poisoned)
    monkeypatch.setattr(
        sys, "argv", ["sample", "--tiny", "--prompt", "a", "--solver", "ddim", "--steps", "2"]
    )
    with pytest.raises(SystemExit, match="no longer finite after step 1 of 2"):
        command.main()
    assert not any(tmp_path.iterdir())


def test_existing_output_is_never_touched(tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    check(replace(SMALL, out=out))  # an empty folder is free
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(
        ValueError, match="is not empty; nothing was overwritten. Pass --out .*mine-001"
    ):
        command.run(replace(SMALL, out=out))
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_output_is_complete_or_absent(tmp_path):
    def fail(folder):
        (folder / "x").write_text("half")
        raise TypeError

    with pytest.raises(TypeError):
        output.whole(tmp_path / "half", fail)
    assert not any(tmp_path.iterdir())
    names = [
        output.whole(tmp_path / "runs" / "whole", lambda half: (half / f"{k}").touch()).name
        for k in range(3)
    ]
    assert (
        names
        == ["whole", "whole-001", "whole-002"]
        == sorted(path.name for path in (tmp_path / "runs").iterdir())
    )
    assert all((tmp_path / "runs" / name / str(k)).is_file() for k, name in enumerate(names))


def test_contact_sheet_is_in_reading_order():
    sheet = output.contact_sheet(
        [Image.new("RGB", (10, 6), color) for color in ("red", "green", "blue")], columns=2, gap=2
    )
    assert sheet.size == (22, 14)
    corners = [sheet.getpixel(place) for place in ((0, 0), (12, 0), (0, 8), (12, 8))]
    assert corners == [(255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)]
