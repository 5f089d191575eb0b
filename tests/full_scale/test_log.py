"""Loggers: a text file, TensorBoard that can be read back, and Weights & Biases behind the
same two methods.
"""

import sys
import types

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from full_scale.run.log import Lines, open_loggers


def test_tensorboard_reads_back_numbers_and_pictures(tmp_path):
    for log in open_loggers(tmp_path, 0, "", {}):
        log.scalars(3, {"student/loss": 0.5})
        log.picture(3, "samples", Image.new("RGB", (4, 2), "red"))
        if hasattr(log, "writer"):
            log.writer.flush()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("student/loss")] == [(3, 0.5)] and len(
        board.Images("samples")
    ) == 1
    assert (
        tmp_path / "pictures" / "samples-00000003.png"
    ).is_file() and '"student/loss": 0.5' in (tmp_path / "log.jsonl").read_text()


def test_lines_that_a_disk_has_changed_are_left_out(tmp_path):
    """Cut short, no JSON of a line, bytes that are no text, zeros, a step that is none."""
    path = tmp_path / "log.jsonl"
    good = b'{"step": 0, "a": 1.0}\n{"step": 1, "a": 2.0}\n'
    for bad in (b'{"step": 1, "a', b"3", b"[]", b"\xff\xfe{", b"\0" * 9, b'{"step": "x"}'):
        path.write_bytes(good + bad + b"\n" + b'{"step": 2, "a": 1.0}\n')
        Lines(tmp_path, 2)
        assert path.read_bytes() == good and [*tmp_path.iterdir()] == [path]


def test_wandb_is_asked_to_go_on_with_the_same_run(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(log=lambda values, step: calls.append((step, values)))
    fake = types.SimpleNamespace(
        init=lambda **given: calls.append(given) or run, Image=lambda image: image.size
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for log in open_loggers(tmp_path / "lcm", 0, "book", {"lr": 1}):
        log.scalars(2, {"a": 1.0})
        log.picture(2, "samples", Image.new("RGB", (4, 2)))
    assert calls[0] == {
        "project": "book",
        "dir": tmp_path / "lcm",
        "id": "lcm",
        "resume": "allow",
        "config": {"lr": 1},
    }
    assert calls[1:] == [(2, {"a": 1.0}), (2, {"samples": (4, 2)})]


def test_without_the_package_wandb_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="--wandb book: .*pip install wandb"):
        open_loggers(tmp_path, 0, "book", {})
