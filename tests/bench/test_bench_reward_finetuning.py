"""The benchmark of reward fine-tuning: its stored table is of today's methods and gradients, a row
says what it is called, and which rows are of one run.
"""

import json

import pytest
import torch

from bench import reward_finetuning as bench
from bench.report import RESULTS
from toy_data.student_prints import alike

KEPT = json.loads((RESULTS / "reward_finetuning.json").read_text())


def test_the_stored_table_is_of_today_s_methods_and_gradients():
    """Else python -m bench reward_finetuning."""
    said = bench.fingerprints()
    methods = [one["method"] for one in said]
    assert list(dict.fromkeys(row[0] for row in KEPT["rows"])) == methods == list(bench.methods())
    for cell, one in zip(KEPT["cells"], said, strict=True):
        assert cell | {"fingerprint": 0} == one | {"fingerprint": 0}
        assert alike(cell["fingerprint"], one["fingerprint"]), one["method"]
    assert {row[1] for row in KEPT["rows"]} == {1280, 2560, 3840, 7680} and len(
        KEPT["rows"]
    ) == 20


def test_a_fingerprint_sees_the_price(monkeypatch):
    priced = bench.recipes.flow_grpo
    cheaper = lambda *given, kl, **how: priced(*given, kl=0.9 * kl, **how)
    monkeypatch.setattr(bench.recipes, "flow_grpo", cheaper)
    monkeypatch.setattr(bench, "methods", lambda made=bench.methods: only(made(), "Flow"))
    kept = next(c for c in KEPT["cells"] if c["method"].startswith("Flow"))
    assert not alike(bench.fingerprints()[0]["fingerprint"], kept["fingerprint"])


def only(methods, *names):
    return {name: one for name, one in methods.items() if name.startswith(names)}


def test_a_row_says_what_was_measured_and_what_it_lacks(monkeypatch):
    made, found, scored = only(bench.methods(), "NFT"), [], bench.scored
    monkeypatch.setattr(bench, "methods", lambda: made)
    monkeypatch.setattr(bench, "BETAS", torch.logspace(2, -3, 40).tolist())
    monkeypatch.setattr(bench, "FORTY", bench.levels(bench.SCHEDULE, 3, t_max=0.999))
    monkeypatch.setattr(bench, "scored", lambda *given: found.append(scored(*given)) or found[-1])
    report = bench.run(stops=(1, 2), seeds=2, n=2)
    assert [row[:2] for row in report.rows] == [["NFT", 128], ["NFT", 256]]
    assert report.columns == KEPT["columns"] and len(report.cells) == 1
    line = bench.Frontier(bench.WORLD.mixture, bench.WORLD.hidden, bench.BETAS)
    (kl, reward, lacks), (_, _, other) = (one["NFT", 2] for one in found)
    assert lacks == pytest.approx(line.highest(kl) - reward) and lacks != other
    *_, mean, error = report.rows[1]
    assert mean == pytest.approx((lacks + other) / 2)
    assert error == pytest.approx(abs(lacks - other))  # 2 · (|a − b|/√2)/√2


def test_one_run_passes_through_all_rows_unless_its_rate_falls():
    weights = lambda student: torch.cat([w.flatten() for w in student.net.adapter.parameters()])
    for name, method in only(bench.methods(), "NFT", "adjoint").items():
        on_the_way, alone = (
            weights(bench.one_run(method, stops, 0)[2]) for stops in ((2, 3), (2,))
        )
        assert torch.equal(on_the_way, alone) != method.falls, name
        assert torch.equal(weights(bench.trained(method, (2, 3), 0)[2]), alone), name
