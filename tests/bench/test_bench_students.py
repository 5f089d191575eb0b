"""The students' bench: it goes on where it stopped, measures again what has changed and nothing
else, and a student trained anew scores what the committed file says.
"""

import json
import os
from dataclasses import replace
from itertools import product

import pytest

from bench import adversarial, stable_consistency, students, students_report
from bench.__main__ import main
from bench.report import RESULTS
from book.benchmarks import benchmark_pictures, benchmarks_page
from book.errors import BookError
from dlib.recipes import continuous_time
from toy_data import student_settings
from toy_data.student_prints import alike, fingerprint
from toy_data.student_settings import SETTINGS

FEW = dict(only=("CD", "SCT"), worlds=("gmm5",), seeds=1, tiny=True)


def kept(folder):
    return json.loads((folder / "students.json").read_text())["cells"]


@pytest.fixture
def counted(monkeypatch):
    """The names of the students that were trained; raising at the one named "stop"."""
    seen, train = [], students.trained

    def trained(setting, seed):
        if seen[:1] == ["stop"] and len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(setting.method)
        return train(setting, seed)

    monkeypatch.setattr(students, "trained", trained)
    return seen


def test_a_run_that_was_stopped_goes_on_and_what_changed_is_measured_again(
    tmp_path, counted, monkeypatch, capsys
):
    counted.append("stop")
    with pytest.raises(KeyboardInterrupt):
        students.run(tmp_path, **FEW)
    assert counted == ["stop", "CD"] and [c["method"] for c in kept(tmp_path)] == ["CD"]
    counted.clear()
    students.run(tmp_path, **FEW)
    assert counted == ["SCT"] and [c["method"] for c in kept(tmp_path)] == ["CD", "SCT"]
    before = (tmp_path / "students.json").read_bytes()
    assert students.run(tmp_path, **FEW) is None and counted == ["SCT"]
    assert "all 2 cells are there" in capsys.readouterr().out
    assert (tmp_path / "students.json").read_bytes() == before
    other = replace(SETTINGS["gmm5/CD"], lr=1e-3)
    monkeypatch.setitem(students.SETTINGS, "gmm5/CD", other)
    report = students.run(tmp_path, **FEW)
    assert counted == ["SCT", "CD"], "only what has changed"
    said = students.fingerprint
    monkeypatch.setattr(
        students, "fingerprint", lambda s: [2.0 * v if s.method == "SCT" else v for v in said(s)]
    )
    report = students.run(tmp_path, **FEW)
    assert counted == ["SCT", "CD", "SCT"], "only whose loss says something else"
    cells = kept(tmp_path)
    assert [c["identity"] for c in cells if c["method"] == "CD"] == [other.shorter(2).identity]
    assert [row[0].split(": ")[1] for row in report.rows] == ["CD", "SCT"] and len(cells) == 2
    assert sorted(os.listdir(tmp_path)) == ["students.json", "students.png"], (
        "nothing half written is left"
    )
    page = benchmarks_page(tmp_path)
    assert "](students.png)" in page and "| gmm5: SCT |" in page
    assert list(benchmark_pictures(tmp_path)) == ["students.png"]
    (tmp_path / "students.png").unlink()
    with pytest.raises(BookError, match="students.json speaks of students.png: make bench"):
        benchmarks_page(tmp_path)


def test_an_identity_holds_the_recipes_own_defaults(monkeypatch):
    lcm = SETTINGS["gmm5/LCM"]
    assert replace(lcm, hyper={**lcm.hyper, "huber_c": 1e-3}).identity == lcm.identity
    assert replace(lcm, hyper={**lcm.hyper, "huber_c": 1e-2}).identity != lcm.identity
    before, recipe = lcm.identity, student_settings.RECIPES["lcm"]

    def changed(schedule, null, *, omega=(0.0, 0.0), steps=40, skip=1, spacing="sd_trailing",
                solver="ddim", huber_c=1e-3):  # fmt: skip
        return recipe(schedule, null, omega=omega, steps=steps)

    monkeypatch.setitem(student_settings.RECIPES, "lcm", changed)
    assert lcm.identity != before


@pytest.mark.parametrize("world", students.WORLDS)
def test_the_stored_cells_are_of_today_s_losses(world):
    """Else: python -m bench students, which measures those again."""
    cells = json.loads((RESULTS / "students.json").read_text())["cells"]
    old = {
        setting.name
        for setting in SETTINGS.values()
        if setting.world == world
        for said in [fingerprint(setting)]
        for cell in cells
        if (cell["world"], cell["method"]) == (world, setting.method)
        and not (cell["identity"] == setting.identity and alike(cell["fingerprint"], said))
    }
    assert not old and len([c for c in cells if c["world"] == world]) == 3 * sum(
        setting.world == world for setting in SETTINGS.values()
    )


def test_the_stored_table_is_what_the_stored_cells_make_today():
    """Else write(reported(load(path).values()), "students", RESULTS) of these modules."""
    kept = json.loads((RESULTS / "students.json").read_text())
    today = students_report.reported(kept["cells"])
    assert today.note == kept["note"] and today.rows == kept["rows"]
    assert today.columns == kept["columns"] and today.title == kept["title"]
    tenth = cell("knowledge, a tenth", ratio=1.0, paired=1.0, d=0.6, none=0.04, rms=0.06)
    whole = tenth | {"method": "CD", "cpu s": 20.0}
    least = students_report.reported([tenth | {"cpu s": 3.0}, whole]).note
    assert "20 to 20 were measured" in least, "a tenth of the budget is meant"


def test_so_is_the_benchmark_of_targets():
    kept = json.loads((RESULTS / "stable_consistency.json").read_text())
    said = stable_consistency.fingerprints()
    assert [row[0] for row in kept["rows"]] == [one["target"] for one in said]
    for cell, one in zip(kept["cells"], said, strict=True):
        assert alike(cell["fingerprint"], one["fingerprint"]), one["target"]


def test_so_is_the_benchmark_of_the_adversarial_term():
    kept = json.loads((RESULTS / "adversarial.json").read_text())
    assert [tuple(row[:2]) for row in kept["rows"]] == list(
        product(adversarial.PHASES, adversarial.WEIGHTS)
    )
    for cell, one in zip(kept["cells"], adversarial.prints(), strict=True):
        assert cell | {"fingerprint": 0} == one | {"fingerprint": 0}
        assert alike(cell["fingerprint"], one["fingerprint"]), one
    plain, heads = (one["fingerprint"] for one in kept["cells"][:2])
    assert not alike(plain, heads), "the term is in the student's gradient"
    start = adversarial.world()[0].net
    for weight in (0.0, 0.1):
        moved = adversarial.student(2, weight, 1, 0).net
        assert any((a != b).any() for a, b in zip(start.parameters(), moved.parameters()))


def test_a_fingerprint_sees_a_ramp_at_half_its_height(monkeypatch):
    setting = SETTINGS["gmm5/sCT"]
    before, rise = fingerprint(setting), continuous_time.warmup
    assert alike(before, fingerprint(setting))
    monkeypatch.setattr(continuous_time, "warmup", lambda step, n: rise(step, n) / 2)
    assert not alike(before, fingerprint(setting))


def test_an_unknown_name_is_answered_with_those_there_are(capsys):
    for wrong, said in ((["--only", "CDD"], "no method ['CDD']; there are knowledge"),
                        (["--world", "mars"], "no world ['mars']; there are gmm5")):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(["students", "--tiny", *wrong])
        assert stop.value.code == 2 and said in capsys.readouterr().err


def test_settings_are_refused_that_cannot_be_trained():
    with pytest.raises(ValueError, match="no recipe 'lmc'; there are"):
        replace(SETTINGS["gmm5/LCM"], recipe="lmc")
    with pytest.raises(ValueError, match="2 numbers of updates for 1 rounds"):
        replace(SETTINGS["gmm5/LCM"], updates=(1, 2))


def test_two_standard_errors():
    assert students_report.spread([1.0, 1.2, 1.4]) == "1.200 ± 0.231"  # 2 · 0.2/√3
    assert (
        students_report.spread([0.5]) == "0.500" and students_report.spread([None, None]) == "–"
    )


def cell(method, seed=0, **scores):
    return {"method": method, "world": "gmm5", "seed": seed, "calls": 1, "cpu s": 1.0,
            "identity": "x"} | scores  # fmt: skip


def test_the_verdict_says_what_was_reached_and_what_was_missed():
    good = dict(ratio=1.0, d=0.4, none=0.03, rms=0.04)
    cells = [
        cell("CD", **good),
        cell("LCM", **good | {"d": 0.6}),
        cell("CT", **good | {"d": 2.0}),
    ]
    said = students_report.verdict(cells)
    assert "one call is CD: ratio" in said and "missed" not in said and "SCT" not in said
    said = students_report.verdict([cell("CD", **good | {"none": 0.04})])
    assert "none 0.040 (asked: 0.035; **missed**)" in said and said.count("missed") == 1
    two = lambda method, *values: [cell(method, k, d=d) for k, d in enumerate(values)]
    said = students_report.verdict(two("CT", 2.0, 2.1) + two("SCT", 1.0, 1.1))
    assert "SCT is clearly better than CT: d 1.050 ± 0.100 against 2.050 ± 0.100" in said
    said = students_report.verdict(two("CT", 1.0, 2.0) + two("SCT", 0.9, 1.8))
    assert "SCT is **not** clearly better than CT" in said
    assert "with one seed" in students_report.verdict(two("CT", 2.0) + two("SCT", 1.0))
    said = students_report.verdict(two("ECT", 1.0, 1.1) + two("SCT", 2.0, 2.1))
    assert "SCT is clearly worse than ECT: d 2.050 ± 0.100 against 1.050 ± 0.100" in said
