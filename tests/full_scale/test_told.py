"""Students that are told ω: both stages of guided distillation through the engine, one run the
teacher of the next, with the losses of `dlib`; an export whose ω reaches the network.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import full_scale.sample as sampling
from dlib import Batch, levels
from dlib.losses import guided_distillation, progressive, uniform_times, with_omega
from dlib.nets import Told
from full_scale import export
from full_scale.families import open_family
from full_scale.run.guard import moved
from full_scale.run.settings import read
from full_scale.sampling.request import Config
from full_scale.train import open_engine, pictures

SHORT = "--batch 4 --micro 4 --lr 1e-3 --warmup 0 --show-every 0 --steps 2 --ema 0 --drop 0"
CPU = torch.device("cpu")


def words(recipe, family, weights, data, out):
    start = ["--weights", str(weights)] if weights else ["--tiny"]
    place = ["--family", family, "--data", str(data), "--out", str(out), "--device", "cpu"]
    return read([recipe, *SHORT.split(), *start, *place])


@pytest.fixture(scope="module", params=["shapes", "sd"])
def runs(request, more, data, tmp_path_factory, processes):
    """(family, its data, the engines of the first stage and of a round of the second, each
    after two steps).
    """
    kind = request.param
    rows, root = more if kind == "shapes" else data, tmp_path_factory.mktemp(kind)
    first = open_engine(words("guided", kind, None, rows, root / "first"), processes)
    first.run(pictures)
    second = open_engine(
        words("progressive_with_omega", kind, root / "first", rows, root / "second"), processes
    )
    return kind, rows, first, second


def test_the_first_student_is_the_next_teacher_and_both_losses_are_dlib_s(runs, processes):
    kind, rows, first, second = runs
    net = dict(first.cast.trained["student"].inner.named_parameters())
    for role in ("teacher", "student"):
        found = dict(second.cast.roles[role].net.named_parameters())
        assert all(torch.equal(found[name], net[name]) for name in net)
    again = open_engine(
        words("guided", kind, None, rows, first.s.out.with_name("again")), processes
    )
    for engine in (again, second):
        ((batch, draw),) = engine.micro_batches(0)
        roles, same = engine.cast.roles, draw.copy()
        schedule, low, high = roles["student"].schedule, *engine.s.hyper.omega
        if engine is again:
            how = dict(omega=(low, high), null=engine.null, times=uniform_times(1e-3))
            want = guided_distillation(roles["student"], roles["teacher"], batch, same, **how)
        else:  # nothing is guided again: both are told the same ω
            omega = low + (high - low) * same.uniform(4)
            told = Batch(batch.x0, with_omega(batch.cond, omega))
            walk = levels(schedule, 2 * engine.s.hyper.steps, "sd_trailing", end="clean")
            pair = roles["student"], roles["teacher"]
            want = progressive(*pair, told, same, levels=walk)
        assert engine.advance()["student/loss"] == pytest.approx(want.value.item(), rel=1e-5)
    student, teacher = second.cast.trained["student"].inner, second.cast.roles["teacher"].net
    change, size = moved(student, teacher)
    every = sum(p.numel() for p in student.parameters())
    assert 0 < change < every * 1.1e-6 and size > 0  # Adam's first step is at most the rate


def test_the_export_is_told_omega_and_sampled_with_it(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, *_, first, _ = runs
    student = first.cast.trained["student"].inner
    out = export.run(export.Export(first.s.out, to=tmp_path / "export"))
    found = open_family(kind, str(out), CPU)
    own = dict(found.denoiser().net.named_parameters())
    assert found.told and all(
        torch.equal(own[name], weight) for name, weight in student.named_parameters()
    )
    if kind == "shapes":
        assert isinstance(found.net, Told)
    with torch.no_grad():  # two steps tell little: make the export's dial loud
        dial = next(w for name, w in own.items() if name.endswith(("read.weight", "proj.weight")))
        dial.add_(torch.randn(dial.shape, generator=torch.Generator().manual_seed(0)))
    found.save(found.net, tmp_path / "loud")
    how = dict(weights="loud", family=kind, solver="ddim", grid="sd_trailing", steps=1)
    asked = lambda omega: sampling.run(Config(("a red circle",), **how, omega=omega))
    one, two = (asked(omega) for omega in (2.0, 7.0))
    a, b = (np.asarray(Image.open(folder / "000.png")).astype(int) for folder in (one, two))
    assert np.abs(a - b).max() > 2
    facts = json.loads((one / "settings.json").read_text())
    assert facts["network_samples"] == facts["network_calls"] == 1


def test_a_told_run_and_others_are_not_taken_for_each_other(runs, tmp_path, processes):
    kind, rows, first, _ = runs
    with pytest.raises(ValueError, match="halve its steps with progressive_with_omega"):
        open_engine(words("progressive", kind, first.s.out, rows, tmp_path / "a"), processes)
    if kind == "shapes":
        plain = tmp_path / "plain"
        family = open_family("shapes", None, CPU)
        family.save(family.net, plain)
        match = "halves the steps of a student that takes ω.*--weights .*plain do not: name"
        with pytest.raises(ValueError, match=match):
            open_engine(
                words("progressive_with_omega", kind, plain, rows, tmp_path / "b"), processes
            )
