"""Sampling in parallel on Stable Diffusion's classes: the sequential pictures exactly, alone
or on two processes; bad requests.
"""

from __future__ import annotations

import json
from dataclasses import replace

import forked
import numpy as np
import pytest
import torch
from PIL import Image

import dlib
import full_scale.sample as command
from full_scale.sampling.latents import latents
from full_scale.families import sd
from full_scale.sampling.request import Config
from full_scale.sampling.spread import PARALLEL_IN_TIME, spread
from full_scale.launch import Processes

SMALL = Config(
    prompt=("a cat", "a bowl"),
    tiny=True,
    solver="ddim",
    grid="sd_trailing",
    steps=9,
    height=64,
    width=64,
    tol=0.0,
    chunk=1,
)


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_the_functions_are_the_books():
    assert all(PARALLEL_IN_TIME[name] is getattr(dlib, name) for name in PARALLEL_IN_TIME)


@pytest.fixture(scope="module")
def sequential(pipe):
    """Latents of SMALL's prompts by `sample`, and what made them."""
    model = sd.denoiser(pipe.unet, pipe.scheduler.config)
    null = sd.StableDiffusion(pipe).null()
    model, cond = (
        dlib.guided(model, 6.5, null),
        sd.StableDiffusion(pipe).encode(["a cat", "a bowl"]),
    )
    levels = dlib.levels(model.schedule, 9, "sd_trailing", "clean")
    with torch.no_grad():
        return (
            {
                solver: latents(model, (4, 8, 8), levels, dlib.SOLVERS[solver], cond, [7, 8], 2)
                for solver in ("ddim", "ancestral")
            },
            model,
            cond,
            levels,
        )


@pytest.mark.parametrize("solver", ["ddim", "ancestral"])
@pytest.mark.parametrize("name", list(PARALLEL_IN_TIME))
def test_without_tolerance_the_latents_are_the_sequential_ones(sequential, name, solver):
    """Bit for bit with one step a network call; to rounding in convolutions of another batch
    size with all at once.
    """
    truth, model, cond, levels = sequential
    for chunk, exact in ((1, True), (None, False)):

        def find(model, x, levels, step, cond, draws, each):
            return PARALLEL_IN_TIME[name](
                spread(model, len(x), None, chunk),
                x,
                levels,
                step,
                tol=0.0,
                cond=cond,
                draw=draws,
            ).x

        with torch.no_grad():
            found = latents(
                model, (4, 8, 8), levels, dlib.SOLVERS[solver], cond, [7, 8], 2, find=find
            )
        assert (
            torch.equal(found, truth[solver])
            if exact
            else (found - truth[solver]).abs().max() < 1e-3 * truth[solver].std()
        )


@pytest.mark.parametrize("processes", [None, Processes(0, 1, torch.device("cpu"), None)])
@pytest.mark.parametrize("chunk", [None, 1, 2, 5])
def test_a_spread_network_answers_every_row(processes, chunk):
    calls = []

    def net(x, time, cond):
        calls.append(len(x))
        return x * time[:, None] + cond["shift"]

    model = dlib.Denoiser(net, dlib.vp(), "eps")
    x, time, cond = torch.randn(12, 3), torch.rand(12), {"shift": torch.randn(12, 3)}
    assert torch.equal(spread(model, 3, processes, chunk).net(x, time, cond), net(x, time, cond))
    assert all(n == 12 if chunk is None else n <= 3 * chunk for n in calls[:-1])


@pytest.mark.parametrize("parallel", ["picard", "parareal"])
def test_two_processes_share_the_steps_and_give_the_sequential_pictures(tmp_path, parallel):
    """gloo: pictures equal, the network's work halved, one process alone writes."""
    alone = command.run(replace(SMALL, parallel_in_time=None, chunk=None, out=tmp_path / "alone"))
    both = replace(SMALL, parallel_in_time=parallel, out=tmp_path / "both")
    forked.start(2, tmp_path / "said", command.run, both).finished()
    for name in ("000.png", "001.png"):
        assert np.array_equal(
            *(np.asarray(Image.open(folder / name)) for folder in (alone, tmp_path / "both"))
        )
    one, two = (
        json.loads((folder / "settings.json").read_text())
        for folder in (alone, tmp_path / "both")
    )
    (cost,) = two["parallel_in_time"]
    assert (
        two["processes"] == 2
        and cost["work"] > one["network_calls"]
        and two["network_calls"] < 0.75 * cost["work"]
    )


def test_settings_say_what_it_cost(tmp_path):
    said = json.loads(
        (
            command.run(replace(SMALL, parallel_in_time="picard", tol=1e-2, chunk=None))
            / "settings.json"
        ).read_text()
    )
    (cost,) = said["parallel_in_time"]
    assert (
        cost["depth"] == said["network_calls"] <= 9
        and cost["work"] * 2 * 2 == said["network_samples"]
    )


@pytest.mark.parametrize(
    "change, match",
    [
        (
            {"parallel_in_time": "picart"},
            "--parallel-in-time picart: no such sampler; there are picard, anderson, parareal",
        ),
        ({"solver": "dpm_solver_pp_2m"}, "remembers former steps.*type --solver ddim"),
        ({"tol": -1.0}, "--tol -1: wanted 0"),
        ({"chunk": 0}, "--chunk 0: wanted at least 1"),
        ({"window": 0}, "--window 0: wanted at least 1"),
        ({"parallel_in_time": "parareal", "window": 3}, "parareal has blocks"),
    ],
)
def test_bad_requests_are_answered(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        command.run(replace(SMALL, **{"parallel_in_time": "picard", **change}))
    assert not any(tmp_path.iterdir())


def test_several_processes_without_parallel_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ValueError, match="every one would make the same pictures: add --parallel-in-time"
    ):
        command.run(replace(SMALL, parallel_in_time=None))
