"""What makes a run fast changes none of its numbers; and what is measured of it."""

from __future__ import annotations

import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from full_scale.run import speed
from full_scale.train import open_engine


def finish(s, processes):
    """Run to the end; the engine."""
    engine = open_engine(s, processes)
    engine.run(None)
    return engine


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
