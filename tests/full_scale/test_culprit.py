"""A number that is not finite: whose it is, what is kept of it, and how to go on without it."""

import gc
import json
import math
import shutil
import time
import weakref
from concurrent.futures import Future

import forked
import methods
import numpy as np
import pytest
import torch
from logged import losses
from safetensors.torch import load_file

from dlib import Batch, Loss, Part, Phase, Recipe
from dlib.training import Trained, Trainer
from full_scale import launch, train
from full_scale.data import digests, shards
from full_scale.data.draws import step_draws
from full_scale.data.rows import Rows, indices
from full_scale.out import manifest
from full_scale.run import checkpoint, engine, speed
from full_scale.run.culprit import guilty
from full_scale.train import open_engine

methods.register()
BAD = 12


def rewritten(data, out, change):
    """Prepared data whose columns were changed, in one shard."""
    shutil.copytree(data, out)
    table = Rows(data).table.with_format("numpy")[:]
    columns = {
        name: list(v) if v.dtype.kind in "OU" else np.stack(v) for name, v in table.items()
    }
    change(columns)
    shards.write(out, 0, columns, shards.records(data)[0])
    digests.close(out, shards.folders(out))
    return out


@pytest.fixture(scope="module")
def bad(shapes_data, tmp_path_factory):
    """The forty shapes, of which one has a latent that is not finite."""

    def spoil(columns):
        columns["latent"] = columns["latent"].copy()
        columns["latent"][BAD, 3] = np.inf

    return rewritten(shapes_data, tmp_path_factory.mktemp("bad") / "data", spoil)


@pytest.fixture(scope="module")
def one():
    """This process, alone."""
    yield launch.start("cpu")
    launch.stop()


def first_read() -> int:
    """The step that reads the bad row, of four rows a step."""
    return next(step for step in range(10) if BAD in indices(0, step, 4, 40))


def words(data, out, *more):
    flags = "--family shapes --tiny --device cpu --batch 4 --micro 2 --warmup 0 --log-every 1"
    flags += f" --save-every {first_read()} --show-every 0 --steps {first_read() + 2} --ema 0"
    return ["finetune", *flags.split(), "--data", str(data), "--out", str(out), *more]


def spoilt(run) -> None:
    try:
        train.train(train.read(run))
    except FloatingPointError as error:
        print(f"full_scale.train: {error}")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_of_two_processes_the_one_that_has_it_keeps_it_and_one_speaks(parallel, bad, tmp_path):
    """The first test here: forked processes must not inherit a process group."""
    asked = words(bad, tmp_path / "run", "--parallel", parallel)
    run = forked.start(2, tmp_path / "said", spoilt, asked)
    status, said = run.ended(), run.said.read_text()
    files = list((tmp_path / "run").glob("nonfinite-*.json"))
    assert sorted(status) == [0, 1] and len(files) == 1, f"{status}, {files}: {said[-3000:]}"
    about = json.loads(files[0].read_text())
    place = next(one["draws"][2] for one in about["samples"] if not one["finite"])
    assert about["rank"] == place // 2 and said.count("full_scale.train: ") == 1
    assert f"(process {about['rank']})" in said and f"row {BAD} of" in said
    assert "Traceback" not in said


def test_the_row_is_named_kept_and_left_out(bad, tmp_path, one, monkeypatch):
    """Stopped, started again without it, stopped and resumed: the numbers of the run that left
    it out in one go, up to where it stood and from there. The checkpoint that was being written
    meanwhile is finished.
    """
    step, out, seal = first_read(), tmp_path / "run", manifest.seal
    late = lambda *files: (time.sleep(0.3), seal(*files))
    monkeypatch.setattr(manifest, "seal", late)
    with pytest.raises(FloatingPointError) as end:
        open_engine(train.read(words(bad, out)), one).run(None)
    said = str(end.value)
    assert f"step {step}, " in said and f"row {BAD} of the data" in said and "\n" not in said
    assert f"--skip-rows {BAD}," in said and "(process 0)" in said
    (about,) = [json.loads(path.read_text()) for path in out.glob("nonfinite-*.json")]
    (sample,) = [sample for sample in about["samples"] if not sample["finite"]]
    place = sample["draws"][2]
    assert sample["row"] == BAD and not sample["data_finite"] and about["rank"] == 0
    assert sample["caption"] == Rows(bad).captions([BAD])[0] and len(about["samples"]) == 2
    (kept,) = out.glob("nonfinite-*.safetensors")
    assert kept.stat().st_mode == kept.with_suffix(".json").stat().st_mode  # as new files are
    assert load_file(kept)["x0"][place % 2].isinf().any()
    assert [path.name for path in out.glob("step-*")] == [f"step-{step:08d}"]
    shutil.copytree(out, tmp_path / "parts")
    for steps in (step + 1, step + 2):
        parts = words(bad, tmp_path / "parts", "--skip-rows", str(BAD), "--steps", str(steps))
        open_engine(train.read(parts), one).run(None)
    open_engine(train.read(words(bad, out, "--skip-rows", str(BAD))), one).run(None)
    log = losses(out)
    assert log == losses(tmp_path / "parts") and len(log) == step + 2
    with pytest.raises(ValueError, match=rf"skip_rows: without \[{BAD}\]"):
        open_engine(train.read(words(bad, out)), one)
    with pytest.raises(ValueError, match=r"--skip-rows \[40\]: .* rows 0 … 39"):
        open_engine(train.read(words(bad, out, "--skip-rows", "40")), one)


def test_an_engine_goes_with_its_last_reference(shapes_data, tmp_path, one):
    """Not when garbage is collected: in a forked process that would wait for the threads of the
    parent's process group.
    """
    s = train.read(words(shapes_data, tmp_path / "run", "--steps", "1"))
    gc.collect()
    gc.disable()
    try:
        run = open_engine(s, one)
        run.run(None)
        left = weakref.ref(run), weakref.ref(run.checkpoints)
        del run
        assert left[0]() is None and left[1]() is None
    finally:
        gc.enable()


def test_a_row_that_is_left_out_gives_its_place_to_another(bad, tmp_path, one):
    s = train.read(words(bad, tmp_path / "run"))
    run, step = open_engine(s, one), first_read()
    with_it = [pair for pairs in run.trainer.places(step) for pair in pairs]
    run.trainer.s = train.read(
        words(bad, tmp_path / "run", "--skip-rows", str(BAD), str(BAD + 1))
    )
    without = [pair for pairs in run.trainer.places(step) for pair in pairs]
    assert [p for p, _ in with_it] == [p for p, _ in without]
    changed = [(a, b) for (_, a), (_, b) in zip(with_it, without) if a != b]
    assert (BAD, BAD + 2) in changed and all(a in (BAD, BAD + 1) for a, _ in changed)


class Weight(torch.nn.Module):
    """A network of one number, and a loss of its own on every sample."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(1))


def toy(value):
    """A trainer whose loss is the mean of value(w, x, noise) over the samples."""
    net = Weight()

    def loss(roles, batch, draw):
        each = value(net.w, batch.x0, draw.normal(batch.x0))
        return Loss(each.mean(), {})

    recipe = Recipe((Phase("student", loss),), {"student": Part("copy")}, None)
    trainer = object.__new__(Trainer)
    trainer.recipe, trainer.trained = (
        recipe,
        {"student": Trained(torch.optim.SGD(net.parameters()))},
    )
    return trainer, recipe.phases[0]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (lambda w, x, noise: w * x / x.ne(5).float(), [(1, 1)]),  # an infinite loss
        (lambda w, x, noise: (w * (x - 5)).abs().sqrt(), [(1, 1)]),  # its slope alone
        (lambda w, x, noise: w * (1 - 2 * x.ge(4).float()).sqrt(), [(1, 0), (1, 1), (1, 2)]),
        (lambda w, x, noise: w * x, []),
        (lambda w, x, noise: w * x / 0, [(m, k) for m in range(2) for k in range(3)]),
        (lambda w, x, noise: w / noise.ne(NOISE).float(), [(1, 2)]),  # what it draws there
    ],
    ids=["loss", "slope", "several", "none", "all", "draw"],
)
def test_samples_are_found_by_their_loss_their_slope_and_their_draws(value, says):
    trainer, phase = toy(value)
    micro = [
        (Batch(torch.tensor([1.0, 2.0, 3.0])), step_draws(0, 0, range(3))),
        (Batch(torch.tensor([4.0, 5.0, 6.0])), step_draws(0, 0, range(3, 6))),
    ]
    trainer.cast = type("Nobody", (), {"roles": {}})
    assert guilty(trainer, phase, micro) == says
    assert guilty(trainer, phase, micro) == says  # the draws were copied


@pytest.mark.parametrize("kind", ["plain", "fused"])
def test_every_shape_of_method_can_be_taken_apart(kind, more, tmp_path, one, monkeypatch):
    """Rollouts, samples that one phase hands to the next, heads, pairs, preferences: nothing is
    wrong with any sample, and whose gradient was called wrong is said. Neither that role's
    weights nor those of a later one have changed, also where the norms are read at the end.
    """
    norm = engine.gradient_norm
    monkeypatch.setattr(speed, "FUSED", ("cpu",) if kind == "fused" else ())
    some = ("swiftbrush", "pcm_adversarial", "dmd2", "ddpo", "dpo", "reflow")
    for method in some if kind == "plain" else some[:4]:  # the others have one update a step
        flags = methods.TRIES if method == "ddpo" else []
        asked = words(more, tmp_path / method, "--method", method, *flags)
        run = open_engine(train.read(asked[1:]), one)
        later = list(run.trainer.trained.values())
        while later:
            own, before = later[0], [[p.detach().clone() for p in net.leaves] for net in later]
            nan = torch.tensor(math.nan)
            wrong = lambda w, clip: nan if w is own.leaves else norm(w, clip)
            monkeypatch.setattr(engine, "gradient_norm", wrong)
            role = next(r for r, net in run.trainer.trained.items() if net is own)
            with pytest.raises(FloatingPointError, match=f"'{role}' .* 4 samples none does it"):
                run.advance()
            now = [net.leaves for net in later]
            assert all(torch.equal(p, q) for a, b in zip(before, now) for p, q in zip(a, b))
            later.pop(0)


NOISE = float(step_draws(0, 0, [5]).normal(torch.zeros(1))[0])


def test_other_data_of_the_same_length_are_refused(shapes_data, tmp_path, one):
    """Turned around, one other caption, one other picture. In another folder they are the same."""

    def turned(columns):
        for name, values in columns.items():
            columns[name] = (
                values[::-1].copy() if isinstance(values, np.ndarray) else values[::-1]
            )

    def captions(columns):
        columns["caption"][1] += "s"

    def pictures(columns):
        columns["latent"] = columns["latent"].copy()
        columns["latent"][2, 5] += 0.5

    out = tmp_path / "run"
    open_engine(train.read(words(shapes_data, out, "--steps", "1")), one).run(None)
    for change in (turned, captions, pictures):
        other = rewritten(shapes_data, tmp_path / change.__name__, change)
        with pytest.raises(ValueError, match=f"--data {other} holds other rows than .* as many"):
            open_engine(train.read(words(other, out)), one)
    moved = shutil.copytree(shapes_data, tmp_path / "moved")
    assert open_engine(train.read(words(moved, out)), one).step == 1
    again = rewritten(shapes_data, tmp_path / "again", lambda columns: None)
    assert Rows(again).stamp == Rows(moved).stamp


def test_fewer_steps_than_done_is_said(shapes_data, tmp_path, one):
    out = tmp_path / "run"
    open_engine(train.read(words(shapes_data, out, "--steps", "3")), one).run(None)
    with pytest.raises(ValueError, match="--steps 2: --out .* has done 3 already: pass more"):
        open_engine(train.read(words(shapes_data, out, "--steps", "2")), one)
    assert open_engine(train.read(words(shapes_data, out, "--steps", "3")), one).step == 3


@pytest.mark.parametrize(
    "error", [ValueError("the first"), RuntimeError("Connection closed by peer")]
)
def test_an_error_keeps_what_is_being_written_and_is_not_hidden(error, tmp_path, one, capsys):
    """A lost process may keep the others from finishing: then only what is there is named."""
    checkpoints, state = checkpoint.Checkpoints(tmp_path, 2, one), {"w": torch.ones(2)}
    checkpoints.save(1, state, {})
    while launch.is_loss(error) and not checkpoints.pending[0].done():
        time.sleep(0.01)
    checkpoints.keep_last(error)
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["step-00000001"]
    checkpoints.save(2, state, {})
    (written, part), waiting = checkpoints.pending, (Endless(), checkpoints.pending[1])
    written.result()
    if launch.is_loss(error):
        checkpoints.pending = waiting
        checkpoints.keep_last(error)
        assert checkpoints.pending == waiting and part.is_dir() and not capsys.readouterr().err
    full: Future = Future()
    full.set_exception(OSError(28, "No space left on device"))
    checkpoints.pending = full, part
    checkpoints.keep_last(error)
    assert "ALARM: checkpoint step-00000002" in capsys.readouterr().err


class Endless(Future):
    """Of a writer that waits for a lost process."""

    def result(self, timeout=None):
        raise AssertionError("a lost process was waited for")
