"""The engine in one process: the same numbers however a batch is cut, whenever a run was
stopped, and as the chapters' `perform`.
"""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import methods
import pytest
import torch
from logged import losses
from safetensors.torch import load_file
from torch.distributed.checkpoint import filesystem

from dlib import Batch, perform
from full_scale.run.checkpoint import complete, described
from full_scale.families import open_family
from full_scale.run.cast import build
from full_scale.run.facts import compare, of
from full_scale.run.given import given_roles
from full_scale.run.settings import learning_rate, recipe_of
from full_scale.train import open_engine, pictures

methods.register()


def finish(s, processes):
    """Run to the end; the engine."""
    engine = open_engine(s, processes)
    engine.run(pictures)
    return engine


def weights(engine):
    return {
        name: p.detach().clone() for name, p in engine.cast.trained["student"].weights.items()
    }


@pytest.mark.parametrize("flags", [[], ["--lora-rank", "2"]], ids=["full", "lora"])
def test_the_cut_of_a_batch_does_not_matter(settings, processes, flags):
    """One backward pass of 8 rows, two of 4, four of 2: the same gradient, to rounding."""
    found = []
    for micro in ("8", "4", "2"):
        engine = open_engine(settings("--micro", micro, *flags, out=micro), processes)
        net = engine.cast.trained["student"]
        net.optim.step = lambda: None  # keep the gradient that the step would have used
        net.optim.zero_grad = lambda set_to_none=True: None
        engine.advance()
        found.append(torch.cat([p.grad.flatten() for p in net.weights.values()]))
    for gradient in found[1:]:
        assert (gradient - found[0]).norm() < 1e-6 * found[0].norm()


def test_recomputing_changes_no_gradient_and_bfloat16_little(settings, processes, bfloat16):
    """Gradient checkpointing repeats the same numbers. bfloat16 has 8 significant bits: a
    network of some ten layers stays within 5 %, and is not float32's.
    """
    found = {}
    for name, flags in {
        "plain": [],
        "recompute": ["--recompute"],
        "bfloat16": ["--dtype", "bfloat16"],
    }.items():
        engine = open_engine(settings("--micro", "8", "--clip", "0", *flags, out=name), processes)
        engine.cast.trained["student"].optim.step = lambda: None
        engine.advance()
        assert all(
            p.dtype == p.grad.dtype == torch.float32
            for p in engine.cast.trained["student"].weights.values()
        )
        found[name] = torch.cat(
            [p.grad.flatten() for p in engine.cast.trained["student"].weights.values()]
        )
    off = {
        name: ((gradient - found["plain"]).norm() / found["plain"].norm()).item()
        for name, gradient in found.items()
    }
    assert off["recompute"] < 1e-6 and 1e-5 < off["bfloat16"] < 0.05


@pytest.mark.parametrize(
    "flags", [["--ema", "0.9"], ["--lora-rank", "2", "--ema", "0.9"]], ids=["full", "lora"]
)
def test_a_stopped_run_goes_on_with_the_numbers_it_would_have_had(small, processes, flags):
    whole, first = small(*flags, out="whole"), small(*flags, "--steps", "2", out="parts")
    unbroken = finish(whole, processes)
    finish(first, processes)
    engine = open_engine(small(*flags, out="parts"), processes)
    assert engine.step == 2
    engine.run(pictures)
    assert losses(whole.out) == losses(first.out)
    for name, value in weights(unbroken).items():
        assert (value == weights(engine)[name]).all()
    for name, value in unbroken.cast.averages["ema"].weights.items():
        assert (value == engine.cast.averages["ema"].weights[name]).all()
    assert engine.cast.averages["ema"].count == 4


def test_the_average_is_not_the_student_and_not_its_start(small, processes):
    engine = finish(small("--ema", "0.9", "--lora-rank", "2"), processes)
    mean, live = engine.cast.averages["ema"].weights, engine.cast.trained["student"].weights
    assert any((mean[name] != live[name]).any() for name in live) and all(
        mean[name].abs().max() > 0 for name in live
    )
    frozen = dict(engine.cast.averages["ema"].net.named_parameters())
    shared = dict(engine.cast.trained["student"].inner.named_parameters())
    # one base for all
    assert all(
        frozen[name].data_ptr() == shared[name].data_ptr() for name in frozen if name not in live
    )


def by_perform(s, processes, family):
    """(history, the trained weights by role) of the notebooks' `perform` on the engine's own
    batches and draws.
    """
    fresh = open_engine(replace(s, out=s.out / "fresh"), processes)
    cast = build(family, fresh.recipe, s, processes, torch.float32, given_roles(s, family))
    own = {role: net.weights for role, net in cast.trained.items()}
    optims = {
        role: torch.optim.AdamW(
            own[role].values(), lr=learning_rate(s, role, 0), betas=s.betas, weight_decay=0.0
        )
        for role in own
    }
    history = perform(
        fresh.recipe,
        cast,
        optims,
        lambda step: fresh.micro_batches(step)[0][0],
        s.steps,
        lambda step: fresh.micro_batches(step)[0][1],
    )
    return history, own


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("reflow", []),
        ("dpo", []),
        ("sct", ["--hyper.mean", "3", "--hyper.std", "0.1"]),  # far into the noise: references
        ("ddpo", [*methods.TRIES, "--hyper.group", "4"]),
        ("dmd2", ["--hyper.ratio", "2"]),
        ("consistency_distillation", []),
        ("lcm_with_omega", []),
        ("pcm", []),
        ("pcm_adversarial", []),
        ("sds", []),
        ("diff_instruct", []),
    ],
)
def test_the_notebooks_trainer_does_so_for_methods_of_every_shape(
    settings, processes, more, method, flags
):
    """Pairs, preferences, rows that share their references, rollouts with inner epochs and a
    reward, heads, a network that is told ω, and the oldest methods: weights of all trained roles.
    """
    s = settings(
        *f"--method {method} --family shapes --tiny --data {more}".split(),
        *"--micro 8 --clip 0 --drop 0 --steps 2 --lora-rank 0".split(),
        *flags,
        out=method,
    )
    engine = finish(s, processes)
    _, own = by_perform(s, processes, engine.family)
    norms = [norm for k, norm in losses(s.out)[-1].items() if k.endswith("gradient_norm")]
    assert norms and min(norms) > 0  # diff_instruct's student has none at first: fake is teacher
    for role, net in engine.cast.trained.items():
        assert all((own[role][key] == value).all() for key, value in net.weights.items())


@pytest.mark.parametrize(
    ("name", "method"),
    [("sd", "finetune"), ("sd", "progressive"), ("shapes", "lcm"), ("shapes", "swiftbrush")],
)
def test_the_notebooks_trainer_gives_the_same_weights_bitwise(
    settings, processes, name, method, request
):
    """Denoising and progressive distillation on the tiny Stable Diffusion; LCM, and two networks
    with an optimiser each, on the very network and pictures of the chapters.
    """
    more = (
        ["--family", "shapes", "--data", str(request.getfixturevalue("shapes_data"))]
        if name == "shapes"
        else []
    )
    s = settings(
        "--method", method, "--micro", "8", "--clip", "0", "--drop", "0", *more, out=method
    )
    engine = finish(s, processes)
    history, own = by_perform(s, processes, open_family(name, None, torch.device("cpu")))
    for role, net in engine.cast.trained.items():
        assert (
            history[f"{role}/loss"] == [line[f"{role}/loss"] for line in losses(s.out)]
            and len(set(history[f"{role}/loss"])) == 4
        )
        assert all((own[role][key] == value).all() for key, value in net.weights.items())


def test_a_changed_setting_is_named_when_a_run_is_resumed(small, processes):
    finish(small("--steps", "2"), processes)
    with pytest.raises(ValueError, match="other settings: batch: 8 → 4.*use a new --out"):
        open_engine(small("--batch", "4"), processes)
    with pytest.raises(ValueError, match="hyper: .*eps.* → .*'v'"):
        open_engine(small("--hyper.weight", "v"), processes)
    with pytest.raises(
        ValueError,
        match="holds a run of finetune, not of swiftbrush: name the recipe that it was started "
        "with, or use a new --out$",
    ):
        open_engine(small("--method", "swiftbrush"), processes)
    # speed and length may change
    free = ["--micro", "2", "--recompute", "--save-every", "9", "--steps", "9"]
    assert open_engine(small(*free), processes).step == 2


TUNED = {
    "lr": (["--lr", "0.5"], "0.001 → 0.5"),
    "betas": (["--betas", "0.5", "0.7"], "[0.9, 0.999] → [0.5, 0.7]"),
    "weight_decay": (["--weight-decay", "0.3"], "0.0 → 0.3"),
    "clip": (["--clip", "0.2"], "1.0 → 0.2"),
    "schedule": (["--schedule", "cosine"], "'constant' → 'cosine'"),
    "warmup": (["--warmup", "3"], "0 → 3"),
    "dtype": (["--dtype", "float32"], "'auto' → 'float32'"),
    "roles.fake.lr": (["--roles.fake.lr", "0.5"], "None → 0.5"),
    "roles.fake.betas": (["--roles.fake.betas", "0", "0.9"], "None → [0.0, 0.9]"),
}


def test_how_steps_are_taken_changes_on_purpose_alone(small, processes, capsys):
    """Named, one by one and all together; then what was asked for holds, and not what the
    checkpoint has brought.
    """
    brush = ["--method", "swiftbrush", "--steps", "1", "--save-every", "1"]
    first = finish(small(*brush), processes)
    about = described(complete(first.s.out)[-1])
    resumed = lambda *flags: compare(about, of(s := small(*brush, *flags), first.rows), s)
    for name, (flags, what) in TUNED.items():
        with pytest.raises(ValueError) as found:
            resumed(*flags)
        own, said = name.split(".")[-1], str(found.value)
        assert f"other settings: {name}: {what}. Type" in said and said.endswith(
            f"use a new --out. To change it on purpose: --change {own}"
        )
    flags = [word for flags, _ in TUNED.values() for word in flags]
    with pytest.raises(ValueError, match=r"seed: 0 → 1; roles.fake.lr: .*: --change betas lr$"):
        resumed(*flags[-5:], "--seed", "1", "--change", "clip", "weight_decay")
    assert resumed("--change", "lr") == ""
    change = ["--change", *sorted({name.split(".")[-1] for name in TUNED})]
    capsys.readouterr()
    engine = open_engine(small(*brush, *flags, *change), processes)
    said = capsys.readouterr().out
    assert "--change, from step 1 on: lr: 0.001 → 0.5; betas: [0.9, 0.999] → " in said
    found = {role: net.optim.param_groups[0] for role, net in engine.cast.trained.items()}
    assert tuple(found["student"]["betas"]) == (0.5, 0.7)
    assert tuple(found["fake"]["betas"]) == (0.0, 0.9)
    assert found["student"]["weight_decay"] == 0.3 and engine.step == 1
    engine.s = replace(engine.s, steps=2, show_every=0)
    engine.run(None)
    about = described(complete(first.s.out)[-1])
    assert about["step"] == 2 and resumed(*flags, "--steps", "2") == ""  # no flag any more


def test_a_gradient_that_is_not_finite_stops_the_run_and_changes_nothing(settings, processes):
    """Every sample is broken: the weights are suspected before the data."""
    s = settings()
    engine = open_engine(s, processes)
    engine.advance()
    engine.save(wait=True)
    before, batches = weights(engine), engine.micro_batches(1)
    broken = [(Batch(batch.x0 * float("nan"), batch.cond), draw) for batch, draw in batches]
    engine.micro_batches = lambda step: broken
    with pytest.raises(
        FloatingPointError,
        match="'student' is not finite at step 1, and none of its weights was changed. Each of "
        "its 8 samples .* the weights",
    ):
        engine.advance()
    assert all((value == before[name]).all() for name, value in weights(engine).items())
    saved = load_file(s.out / "nonfinite-step-00000001-student-rank-0-micro-1.safetensors")
    assert (
        saved["x0"].isnan().all() and (saved["cond['text']"] == batches[-1][0].cond["text"]).all()
    )
    assert open_engine(s, processes).step == 1


def test_a_full_disk_costs_the_new_checkpoint_only(small, processes, monkeypatch, capsys):
    """Found before anything is written, at run.json, or in the middle of a shard: what is
    needed and what is free are told.
    """
    s = small()
    engine = open_engine(s, processes)
    engine.advance()
    engine.save(wait=True)
    size = sum(path.stat().st_size for path in (s.out / "step-00000001").iterdir())
    assert 0.8 * size < engine.checkpoints.needed < size  # a lower bound, and no bad one

    def no_room(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    engine.advance()
    little = shutil.disk_usage(s.out)._replace(free=engine.checkpoints.needed - 1)
    for where, name, what in (
        (shutil, "disk_usage", lambda path: little),
        (filesystem.FileSystem, "create_stream", no_room),
        (Path, "write_text", no_room),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, what)
            with pytest.raises(
                OSError,
                match="step-00000002 could not be written .*(No space left|disk is full).*: it "
                r"needs [\d.]+ MB, and [\d.]+ [MG]B were free.*last good one is .*step-00000001",
            ):
                engine.save(wait=True)
    assert [path.name for path in complete(s.out)] == ["step-00000001"] and not list(
        s.out.glob("*.part")
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    engine.s = replace(s, steps=0)
    engine.run(None)
    assert "--keep 2 and the one that is being written" in capsys.readouterr().out


def test_a_checkpoint_is_of_its_own_moment_and_the_last_ones_stay(small, processes):
    s = small("--keep", "2")
    engine = open_engine(s, processes)
    for step in range(3):
        engine.advance()
        before = weights(engine)
        engine.save()
        with torch.no_grad():
            for p in engine.cast.trained["student"].weights.values():
                p.add_(1e-3)  # training goes on while the checkpoint is written
        engine.checkpoints.finish()
        again = open_engine(s, processes)
        assert again.step == step + 1 and all(
            (value == before[name]).all() for name, value in weights(again).items()
        )
    assert [path.name for path in complete(s.out)] == ["step-00000002", "step-00000003"]


def test_half_a_checkpoint_is_not_one(small, processes):
    s = small("--steps", "2")
    finish(s, processes)
    half = s.out / "step-00000009.part"
    half.mkdir()
    (half / "run.json").write_text('{"step": 9}')
    assert open_engine(s, processes).step == 2 and not half.exists()


def test_a_torn_line_of_the_log_is_written_again(small, processes):
    s = small("--steps", "2")
    finish(s, processes)
    with (s.out / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "stud')
    finish(small(), processes)
    assert [line["step"] for line in losses(s.out)] == [0, 1, 2, 3]


def test_chapters_and_recipes_hold_the_same_function_objects(settings):
    import dlib
    from dlib import recipes
    from full_scale.run import settings as asked

    assert asked.recipes is recipes
    for method, name in {
        "finetune": "denoising",
        "consistency_distillation": "consistency",
        "lcm": "consistency",
        "pcm": "consistency",
        "tcd": "trajectory_consistency",
        "swiftbrush": "vsd",
        "diff_instruct": "vsd",
    }.items():
        loss = recipes.METHODS[method].__globals__[name]
        assert loss is getattr(dlib, name) and loss.__module__.startswith("dlib.losses.")
    assert (
        recipe_of(settings(), None, None).phases[0].loss.__globals__["denoising"]
        is dlib.denoising
    )
    assert learning_rate(settings(), "student", 3) == settings().lr
