"""What makes a run fast changes none of its numbers; and what is measured of it."""

from __future__ import annotations

import json

import methods
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torch.utils._python_dispatch import TorchDispatchMode

from dlib import Batch, NoiseSchedule
from full_scale.run import speed
from full_scale.train import open_engine

methods.register()


def weights(engine):
    """Of every trained role, as they are now."""
    nets = engine.cast.trained.items()
    return {role: [p.detach().clone() for p in net.leaves] for role, net in nets}


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_line_says_how_fast_its_steps_were(small, processes, monkeypatch):
    """A second a step by a clock that the test turns: the mean over a line's steps, and its
    rows; memory that this process really has. In TensorBoard as well.
    """
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    s = small("--steps", "5", "--log-every", "2", "--save-every", "5")
    engine = open_engine(s, processes)
    forward = engine.trainer.advance

    def slow(*given):
        now[0] += 1.0 + engine.step % 2  # 1 s, 2 s, 1 s, …
        return forward(*given)

    engine.trainer.advance = slow
    engine.run(None)
    lines = [json.loads(line) for line in (s.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4]
    assert [line["speed/s_per_step"] for line in lines] == [1.0, 1.5, 1.5]
    assert [line["speed/rows_per_s"] for line in lines] == [8.0, 8 / 1.5, 8 / 1.5]
    assert all(0.1 < line["speed/peak_GB"] < 100 for line in lines)
    board = EventAccumulator(str(s.out / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("speed/s_per_step")][1] == (2, 1.5)


class Reads(TorchDispatchMode):
    """Counts the numbers that the host reads out of tensors."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def fused(monkeypatch):
    """A CPU takes a GPU's way: one kernel that can be told to do nothing."""
    monkeypatch.setattr(speed, "FUSED", ("cpu",))


def test_the_host_reads_norms_once_a_step(small, processes, fused, monkeypatch):
    """Two phases, and the norms of both at the end; no walk through the networks."""
    engine = open_engine(small("--method", "swiftbrush", "--ema", "0.9"), processes)
    engine.advance()
    batches, read, reads = engine.micro_batches(1), engine.trainer._read, []
    engine.trainer._read = lambda step: reads.append(len(engine.trainer.unread)) or read(step)
    engine.micro_batches = lambda step: batches
    walk = lambda *given, **named: pytest.fail("a walk through a network")
    with monkeypatch.context() as patch, Reads() as numbers:
        for net in engine.cast.trained.values():
            patch.setattr(net.inner, "named_parameters", walk)
        patch.setattr(NoiseSchedule, "_check_time", lambda *given: None)  # reads on CPUs alone
        metrics = engine.advance()
    assert reads == [2] and numbers.count == 0
    assert metrics["fake/gradient_norm"] > 0 and metrics["student/gradient_norm"] > 0


def test_a_bad_gradient_changes_no_weight_though_it_is_read_late(small, more, processes, fused):
    """DMD2's fake score and its heads read a broken picture; the student, which does not, has
    moved before. The norm of the fake is read after the heads'.
    """
    s = small("--method", "dmd2", "--data", str(more), "--drop", "0", "--batch", "4")
    engine = open_engine(s, processes)
    ((batch, draw),) = engine.micro_batches(0)
    x0 = batch.x0.clone()
    x0[2, 0] = torch.inf
    engine.micro_batches = lambda step: [(Batch(x0, batch.cond), draw)]
    before, row = weights(engine), engine.trainer.places(0)[0][2][1]
    with pytest.raises(
        FloatingPointError, match=f"'fake' is not finite.*comes from row {row} of"
    ):
        engine.advance()
    after = weights(engine)
    assert [r for r in after if not same(before[r], after[r])] == ["student"]
