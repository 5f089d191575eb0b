"""The loss on held-out rows: what it is, that nothing sees it, and that nothing moves."""

from __future__ import annotations

import forked
import methods
import pytest
import torch
from logged import losses

from full_scale.data.draws import row_draws
from full_scale.run.checks import check, check_rows
from full_scale.run.validation import validate
from full_scale.train import open_engine

methods.register()
NAME = "validation/student/loss"


def test_two_processes_validate_as_one_does(shapes_data, tmp_path):
    """The first test here: forked processes must not inherit a process group. Three rows by
    ones: the second process has one batch less, and takes part in it all the same. Before any
    step the weights are the same bits, so only rounding is left.
    """
    words = ["finetune", "--family", "shapes", "--tiny", "--data", str(shapes_data)]
    words += ["--micro", "1", "--steps", "1", "--show-every", "0", "--lr", "0"]
    words += ["--held-out", "3", "--validate-every", "1"]
    runs = [([*words, "--parallel", way], tmp_path / way) for way in ("ddp", "fsdp")]
    forked.training(*runs).finished()
    forked.alone(words, tmp_path / "one")
    found = {way: losses(tmp_path / way)[-1][NAME] for way in ("one", "ddp", "fsdp")}
    assert found["ddp"] == pytest.approx(found["one"], rel=1e-5)
    assert found["fsdp"] == pytest.approx(found["one"], rel=1e-5)


def everything(engine):
    """All that a step moves, and torch's own generator."""
    moved = [engine.cast.averages["ema"].weights.values(), engine.trainer.trained["fake"].leaves]
    for net in engine.trainer.trained.values():
        moved += [net.leaves, *(state.values() for state in net.optim.state.values())]
    return [torch.random.get_rng_state(), *(p.detach().clone() for some in moved for p in some)]


def test_validation_moves_nothing_and_goes_on_after_a_stop(small, more, processes):
    """A run that never validates, one that does at every step, and one that was stopped."""
    flags = ["--method", "dmd2", "--data", str(more), "--ema", "0.9", "--held-out", "7", "--drop"]
    flags += ["0.5", "--micro", "8", "--validate-every"]
    torch.manual_seed(0)
    runs = [
        small(*flags, "100", out="never"),
        small(*flags, "1", out="always"),
        small(*flags, "1", "--steps", "2", out="parts"),
        small(*flags, "1", out="parts"),
    ]
    engines = []
    for s in runs:
        state = torch.random.get_rng_state()
        engines.append(open_engine(s, processes))
        torch.random.set_rng_state(state)
        engines[-1].run(None)
    never, always, _, parts = engines
    for a, b in zip(everything(never), everything(always), strict=True):
        assert torch.equal(a, b)
    assert losses(always.s.out) == losses(parts.s.out)
    lines = losses(always.s.out)
    values = [line.pop(NAME) for line in lines]
    assert lines == losses(never.s.out) and len(set(values)) == len(values) == 4
    train = {row for k in range(12) for pairs in never.trainer.places(k) for _, row in pairs}
    assert train == set(range(33))


def test_it_is_the_mean_over_the_rows_however_they_are_cut(small, processes):
    """Of a row's own loss, with noise of that row; the same whenever it is asked."""
    s = small("--held-out", "5", "--skip-rows", "37", "--validate-every", "1")
    engine = open_engine(s, processes)
    rows, loss = [35, 36, 38, 39], engine.recipe.phases[0].loss
    alone = []
    for row in rows:
        batch, draw = engine._made([row], row_draws(s.seed, [row]), 0.0)
        assert torch.equal(batch.x0, engine.rows[[row]].x0)
        alone.append(float(loss(engine.cast.roles, batch, draw).metrics["loss"]))
    (found,) = engine.validated().values()
    engine.step = 7  # the noise is not of a step
    (again,) = engine.validated().values()
    assert found == again == pytest.approx(sum(alone) / 4, rel=1e-5)
    make = lambda some: engine._made(some, row_draws(s.seed, some), 0.0)
    for micro in (1, 3):
        (cut,) = validate(engine.trainer, rows, make, micro, 0, processes).values()
        assert cut == pytest.approx(found, rel=1e-5)
    assert min(abs(a - b) for k, a in enumerate(alone) for b in alone[:k]) > 1e-6


@pytest.mark.parametrize("method", ["ddpo", "swiftbrush", "reward_gradient", "nft"])
def test_a_method_without_such_a_loss_refuses(method, small):
    with pytest.raises(ValueError, match=f"--held-out with {method}: its student learns from"):
        check(small("--method", method, "--held-out", "4", "--batch", "96"))


def test_rows_that_are_held_out_are_not_counted_and_cannot_change(small, processes):
    check_rows(small("--held-out", "32"), range(40))
    with pytest.raises(ValueError, match="have 7 rows to train on, fewer than one global batch"):
        check_rows(small("--held-out", "33"), range(40))
    with pytest.raises(ValueError, match="--held-out 2: --skip-rows leaves none of them"):
        check_rows(small("--held-out", "2", "--skip-rows", "38", "39"), range(40))
    open_engine(small("--steps", "1"), processes).run(None)
    with pytest.raises(ValueError, match="held_out: 0 → 4"):
        open_engine(small("--steps", "1", "--held-out", "4"), processes)
