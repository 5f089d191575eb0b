"""`python -m bench`: names, help, and that a benchmark which cannot measure writes nothing."""

import json
import os
import sys
import types

import pytest
import torch

import bench.__main__ as command
from bench import gpu_loop
from bench.report import Report


def test_an_unknown_name_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["ema", "emma"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "no benchmark is called emma" in said
    assert all(name in said for name in command.BENCHMARKS)


def test_help_says_what_each_measures(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said and what in said for name, what in command.BENCHMARKS.items())


@pytest.fixture
def three(monkeypatch, tmp_path):
    """Two stand-in benchmarks that measure and one that cannot; results go to a temporary
    folder.
    """
    report = Report("Stand-in", "", ["value"], [[1]])
    for name, result in (("one", report), ("two", report), ("none", None)):
        module = types.ModuleType(f"bench.{name}")
        module.run = lambda result=result: result
        monkeypatch.setitem(sys.modules, f"bench.{name}", module)
    monkeypatch.setattr(command, "BENCHMARKS", {"one": "first", "two": "second", "none": "third"})
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    return tmp_path


def test_all_by_default_and_nothing_for_what_was_skipped(three, capsys):
    assert command.main([]) == 0
    assert sorted(os.listdir(three)) == ["one.json", "two.json"]
    assert json.loads((three / "one.json").read_text())["title"] == "Stand-in"
    assert "bench/results/two.json" in capsys.readouterr().out


def test_only_what_is_named(three):
    command.main(["two"])
    assert os.listdir(three) == ["two.json"]


def test_without_a_gpu_the_gpu_loop_is_skipped(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_loop.run() is None
    assert "skipped" in capsys.readouterr().out
