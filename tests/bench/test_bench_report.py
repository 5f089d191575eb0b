"""The fixed shape of a result, the files that are committed, and writing them whole or not at
all.
"""

import datetime
import json
import os
import re

import pytest

import dlib
from bench.__main__ import BENCHMARKS
from bench.loss_rounds import WEIGHTS
from bench.report import RESULTS, Report, machine, write

COMMITTED = sorted(RESULTS.glob("*.json"))
REPORT = Report("A title", "A *note*.", ["name", "value"], [["one", 1.23456789], ["two", 2]])


def test_what_every_machine_can_measure_is_committed():
    assert (
        {"step_overhead", "nfe", "ema", "imports"}
        <= {path.stem for path in COMMITTED}
        <= set(BENCHMARKS)
    )


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_result_has_the_fixed_shape(path):
    text = path.read_text(encoding="utf-8")
    result = json.loads(text)
    more = {
        "students": ["cells", "picture"],
        "stable_consistency": ["cells"],
        "adversarial": ["cells"],
        "reward_finetuning": ["cells"],
    }.get(path.stem, [])
    assert list(result) == ["title", "note", "columns", "rows", "machine", "date", *more]
    assert all(
        isinstance(result[key], str) and result[key]
        for key in ("title", "note", "machine", "date")
    )
    assert datetime.date.fromisoformat(result["date"])
    assert result["rows"] and all(len(row) == len(result["columns"]) for row in result["rows"])
    assert all(isinstance(cell, str | int | float) for row in result["rows"] for cell in row)
    assert not re.search(r"(?:^|[\s`(])/\w+/|https?://", text), (
        "a result names no path and no host"
    )
    assert "Python 3." in result["machine"] and "torch 2." in result["machine"]


def test_every_chapter_was_timed_and_takes_less_than_a_minute():
    """Else: python -m bench chapters."""
    seconds = committed("chapters", "chapter", "seconds")
    written = {path.stem for path in (RESULTS.parents[1] / "chapters").glob("[0-9][0-9]_*.ipynb")}
    assert set(seconds) == written
    assert max(seconds.values()) < 60, seconds


def test_gpu_figures_come_from_a_gpu():
    path = RESULTS / "gpu_loop.json"
    if not path.exists():
        pytest.skip("gpu_loop has not been measured: it needs a GPU")
    assert re.search("NVIDIA|AMD", json.loads(path.read_text())["machine"])


def test_committed_orders_are_those_the_solvers_state():
    rows = json.loads((RESULTS / "nfe.json").read_text())["rows"]
    orders = {row[1]: float(row[-1]) for row in rows if row[0] == "dlib" and row[2] == "grid lam"}
    del orders["euler"]  # in t on a grid uniform in λ it is not yet asymptotic at 640 steps
    assert len(orders) >= 8
    for name, slope in orders.items():
        assert slope == pytest.approx(dlib.SOLVERS[name].order, abs=0.25), name


def committed(name, label, value):
    """{label: value} of two columns of a committed result."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    columns = [result["columns"].index(column) for column in (label, value)]
    return dict([row[column] for column in columns] for row in result["rows"])


def test_the_published_ratios_are_those_we_promise():
    """They are asserted where they are published; on a shared machine a fresh ratio of two
    times may be anything.
    """
    steps = committed("step_overhead", "sampler", "ratio of minima")
    for method in (
        "DDIM",
        "DPM-Solver++ 2M",
        "DPM-Solver++ 3M (as released)",
        "UniPC-2",
        "LCM, noise given",
    ):
        assert steps[f"diffusers {method}"] > 1.2, method
    assert committed("ema", "average", "ratio of minima")["diffusers EMAModel"] > 1.2
    seconds = committed("imports", "statement", "min s")
    assert seconds["import dlib"] < 0.2 * seconds["import torch"]


def test_the_losses_add_next_to_nothing_to_their_network_calls():
    """Three in a hundred, and two standard errors of what was measured. SCT's weights have no
    network call beside them.
    """
    ratios = committed("loss_overhead", "loss", "ratio")
    errors = committed("loss_overhead", "loss", "± s.e.")
    assert {"LCM loss", "SCT loss", "sCM loss"} <= set(ratios)
    over = {name: ratios[name] - 1.03 - 2 * errors[name] for name in set(ratios) - {WEIGHTS}}
    assert max(over.values()) <= 0, over


def test_write_keeps_the_report_and_four_digits(tmp_path):
    path = write(REPORT, "some", tmp_path)
    result = json.loads(path.read_text())
    assert path.name == "some.json" and os.listdir(tmp_path) == ["some.json"]
    assert result["rows"] == [["one", 1.235], ["two", 2]] and result["machine"] == machine()


@pytest.mark.parametrize("trouble", ["disk", "nan"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, trouble):
    path = write(REPORT, "some", tmp_path)
    before = path.read_text()
    if trouble == "disk":
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        report = REPORT
    else:
        report = Report("A title", "", ["value"], [[float("nan")]])
    with pytest.raises((OSError, ValueError)):
        write(report, "some", tmp_path)
    assert path.read_text() == before and os.listdir(tmp_path) == ["some.json"]


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Report("A title", "", ["a", "b"], [["only one"]])


def test_table_is_aligned():
    assert REPORT.table().splitlines() == ["name  value", "one   1.235", "two   2"]
