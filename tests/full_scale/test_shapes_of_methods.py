"""The house's proof: methods of every shape run through the engine, on two processes as on one,
and go on after a stop with the numbers that they would have had.
"""

import math
from pathlib import Path

import forked
import methods
import pytest
import torch
from logged import losses

from dlib import Draw
from full_scale.data.rows import Rows
from full_scale import launch
from full_scale.run.settings import read
from full_scale.train import open_engine, pictures

methods.register()
SHORT = "--batch 8 --micro 2 --warmup 0 --log-every 1 --save-every 3 --show-every 0 --lr 1e-3"


def of(method, data, out, *flags):
    words = f"--method {method} --family shapes --tiny --data {data} --out {out} {SHORT}"
    return read([*words.split(), "--drop", "0", *flags])


def _whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _steps(s, steps, out):
    """Some steps of a run; for each phase which roles hold gradients after it, and everything
    logged; at the end the weights.
    """
    processes = launch.start("cpu")
    engine = open_engine(s, processes)
    held, logged, phase_of = [], [], engine.trainer._run

    def run(phase, micro, step):
        for net in engine.trainer.trained.values():
            net.optim.zero_grad(set_to_none=True)
        found = phase_of(phase, micro, step)
        nets = {role: net.inner.parameters() for role, net in engine.cast.trained.items()}
        held.append(
            (
                phase.name,
                sorted(r for r, ps in nets.items() if any(p.grad is not None for p in ps)),
            )
        )
        return found

    engine.trainer._run = run
    for _ in range(steps):
        metrics = engine.advance()
        logged.append({name: float(value) for name, value in metrics.items()})
    weights = {
        role: torch.cat([_whole(p.detach()).flatten() for p in net.weights.values()])
        for role, net in engine.cast.trained.items()
    }
    torch.save({"held": held, "logged": logged, "weights": weights}, f"{out}-{processes.rank}.pt")
    launch.stop()


def together(s, steps, out, size):
    """What `_steps` found, by rank."""
    forked.start(size, out.with_suffix(".said"), _steps, s, steps, out).finished()
    return [torch.load(f"{out}-{rank}.pt") for rank in range(size)]


FSDP = ["--parallel", "fsdp"]
GROUPS = [*methods.TRIES, *"--batch 12 --hyper.group 4".split()]
TWO = {  # name: (method, flags, flags on two processes alone)
    "dmd2": ("dmd2", [], []),
    "progressive-fsdp": ("progressive", [], FSDP),
    "diff_instruct-fsdp": ("diff_instruct", [], FSDP),  # two networks, both sharded
    "reflow": ("reflow", [], []),
    # groups of four in twelve places: the one in the middle has rows on either rank
    "ddpo": ("ddpo", GROUPS, []),
    # where the divergence has no price the reference is asked at one step, the same on all
    "ddpo-fsdp": ("ddpo", [*GROUPS, "--hyper.kl", "0"], FSDP),
    "nft": (
        "nft",
        "--batch 12 --reward redness --hyper.steps 2 --hyper.group 4".split()
        + "--hyper.solver ddim --hyper.spacing sd_trailing --hyper.kl 0.1".split(),
        [],
    ),
    # the number of steps with a gradient is drawn once for all
    "reward_gradient": (
        "reward_gradient",
        "--reward redness --hyper.steps 3 --hyper.deepest 3 --hyper.omega 0 --micro 4".split(),
        ["--micro", "2"],
    ),
    "dpo": ("dpo", [], []),
    # without captions, and far into the noise, the whole step's rows are references
    "sct": ("sct", "--drop 1 --hyper.mean 3 --hyper.std 0.1".split(), []),
}


@pytest.mark.parametrize("name", TWO)
def test_two_processes_do_what_one_does(name, more, tmp_path):
    """Gradients summed over ranks and micro-batches are those of the whole batch, to float32's
    rounding, also where rows need others' (a group's rewards, the step's clean samples); a
    phase leaves gradients in its own roles and nowhere else.
    """
    method, flags, on_two = TWO[name]
    steps = 6 if method == "dmd2" else 2  # the student's second turn is step 5
    found = {}
    for size in (1, 2):
        s = of(method, more, tmp_path / f"{size}", *flags, *(on_two if size == 2 else []))
        found[size] = together(s, steps, tmp_path / f"made{size}", size)
    one, (first, second) = found[1][0], found[2]
    assert first["held"] == second["held"] == one["held"]
    for phase, roles in one["held"]:
        assert roles == (["fake", "judge"] if (method, phase) == ("dmd2", "fake") else [phase])
    for role, want in one["weights"].items():
        start = found[2][0]["weights"][role]
        assert torch.equal(start, second["weights"][role]), "ranks agree bitwise"
        assert (start - want).abs().max() < 2e-3  # Adam's steps are 1e-3: signs of rounding
        assert (start - want).norm() < 0.02 * want.norm()
    for norm in (n for n in one["logged"][0] if n.endswith("gradient_norm")):
        assert first["logged"][0][norm] == pytest.approx(one["logged"][0][norm], rel=1e-4)
    for k, (a, b) in enumerate(zip(first["logged"], second["logged"])):
        assert (
            "student/k" not in a
            or a["student/k"] == b["student/k"] == one["logged"][k]["student/k"]
        )


def test_dpo_starts_at_ln_2_and_is_no_longer_there(more, tmp_path):
    logged = together(of("dpo", more, tmp_path / "run"), 3, tmp_path / "made", 1)[0]["logged"]
    assert logged[0]["student/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (
        logged[-1]["student/loss"] < math.log(2) - 1e-4
        or logged[-1]["student/loss"] > math.log(2) + 1e-4
    )


def finish(s, processes):
    engine = open_engine(s, processes)
    engine.run(pictures)
    return engine


@pytest.mark.parametrize("method", ["dmd2", "ddpo", "dpo", "reflow", "progressive"])
def test_a_stopped_run_goes_on_with_the_numbers_it_would_have_had(
    method, more, tmp_path, processes
):
    """A checkpoint falls between steps: after the last inner epoch, before the next rollout."""
    flags = methods.TRIES if method == "ddpo" else []
    whole, parts = (of(method, more, tmp_path / out, "--micro", "4", *flags) for out in "ab")
    finish(replaced(whole, steps=4), processes)
    finish(replaced(parts, steps=2), processes)
    finish(replaced(parts, steps=4), processes)
    assert losses(whole.out) == losses(parts.out) and len(losses(whole.out)) == 4


def replaced(s, **more):
    from dataclasses import replace

    return replace(s, **more)


def test_the_noise_of_a_pair_reaches_the_loss(more, tmp_path, processes):
    """A row's noise is its seed's."""
    engine = open_engine(of("reflow", more, tmp_path / "run"), processes)
    batch, _ = engine.micro_batches(0)[0]
    rows = Rows(more, "pairs")
    place = next(i for i in range(len(rows)) if torch.equal(rows[[i]].x0[0], batch.x0[0]))
    assert torch.equal(batch.noise[0], Draw(place).normal(batch.x0[0]))


def test_a_recipe_that_reads_what_is_not_there_is_told_so(shapes_data, tmp_path, processes):
    for method, what in (("dpo", "preferences"), ("reflow", "pairs")):
        with pytest.raises(ValueError, match=f"this method trains on {what}: prepare"):
            open_engine(of(method, shapes_data, tmp_path / method), processes)


def test_a_round_starts_at_the_student_of_the_last(more, tmp_path, processes):
    """--weights RUN: the next teacher is the last student, and the next run begins there."""
    first = finish(replaced(of("progressive", more, tmp_path / "one"), steps=2), processes)
    words = (
        f"--method progressive --family shapes --weights {tmp_path / 'one'} --data {more} {SHORT}"
    )
    s = read([*words.split(), "--out", str(tmp_path / "two"), "--steps", "2"])
    second = open_engine(s, processes)
    student = dict(first.cast.trained["student"].inner.named_parameters())
    teacher = dict(second.cast.roles["teacher"].net.named_parameters())
    assert all(torch.equal(teacher[name], student[name]) for name in student)
    second.run(pictures)
    assert open_engine(s, processes).step == 2
    assert (tmp_path / "two" / "step-00000002" / "run.json").is_file() and Path(
        s.weights
    ).is_dir()


def test_a_round_starts_at_the_adapted_student_of_the_last(more, tmp_path, processes):
    """The next reference and the next student are the last run's, with its adapters merged."""
    lora = ["--lora-rank", "2", "--steps", "2"]
    first = finish(of("dpo", more, tmp_path / "one", *lora), processes)
    s = of("dpo", more, tmp_path / "two", *lora, "--weights", f"{tmp_path / 'one'}", "--no-tiny")
    second = open_engine(s, processes)
    (batch, _), *_ = second.micro_batches(0)
    level = second.cast.roles["student"].schedule.at(0.5)
    ask = lambda engine, role: engine.cast.roles[role](batch.x0, level, batch.cond).raw.detach()
    old, new = ask(first, "reference"), ask(first, "student")
    for role in ("reference", "student"):
        assert (ask(second, role) - new).norm() < 1e-3 * (new - old).norm()
