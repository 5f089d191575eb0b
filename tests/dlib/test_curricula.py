"""Two times a step and their schedules: the papers' tables, laws and bad input."""

import math

import pytest
import torch
from truth import F64, SCHEDULES

from dlib import Draw, edm, grid
from dlib.losses import ect_times, ladder_times, lognormal_times
from dlib.losses.curricula import ct_decay, ct_points, ect_end, ect_stage, ict_law, ict_points

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))


def test_the_ladder_of_consistency_training_grows():
    assert [ct_points(k, 800_000, s_1=200) for k in (0, 100_000, 200_000, 400_000, 800_000)] == [
        2,
        72,
        101,
        143,
        201,
    ]
    for steps in (7, 1000):  # the formula in floats, where no square root is whole
        for k in range(1, steps, 3):
            value = math.sqrt(k / steps * (151**2 - 4) + 4)
            if abs(value - round(value)) > 1e-9:
                assert ct_points(k, steps) == math.ceil(value - 1) + 1
    assert ct_decay(2) == pytest.approx(0.95)
    assert ct_decay(201) == pytest.approx(math.exp(2 * math.log(0.95) / 201))


def test_the_ladder_of_improved_consistency_training_doubles():
    found = [ict_points(k, 400_000) for k in range(0, 400_001, 25_000)]
    assert sorted(set(found)) == [10 * 2**j + 1 for j in range(8)] and found[-1] == 1281
    assert ict_points(49_999, 400_000) == 11 and ict_points(50_000, 400_000) == 21


def test_r_of_easy_consistency_tuning():
    """The table that was computed from the released code's formula."""
    end = lambda kappa, stage, q=2.0: ect_end(torch.tensor(kappa, dtype=F64), stage, q).item()
    assert end(2.0, 0) == pytest.approx(0.046, abs=5e-4)
    assert end(10.0, 0) == pytest.approx(5.0, abs=5e-3)
    assert end(2.0, 3) == pytest.approx(1.756, abs=5e-4)
    assert end(0.3, 0) == 0.0  # 1 + 8σ(−0.3) is more than 2: the clean data
    for kappa in (0.5, 2.0, 20.0):  # q = 256 at its first stage is q = 2 at its eighth
        assert end(kappa, 0, 256.0) == pytest.approx(end(kappa, 7), rel=1e-12)
    assert end(2.0, 0) < end(2.0, 0.5) < end(2.0, 1)  # a real number, for smoother schedules
    assert [ect_stage(step, 100) for step in (0, 99, 100, 350)] == [0, 0, 1, 3]


@EVERY
def test_pairs_of_easy_consistency_tuning(schedule):
    t, r = ect_times(schedule, stage=1)(Draw(0), 4000)
    assert t.dtype == r.dtype == F64 and bool((r < t).all())
    kappa = (-schedule.at(t).lam).exp()
    aim, some = ect_end(kappa, 1), r >= schedule.t_min
    assert torch.allclose((-schedule.at(r[some]).lam).exp(), aim[some], rtol=1e-6)
    least = math.exp(-schedule.at(schedule.t_min).lam)
    assert bool((aim[~some] <= least * (1 + 1e-9)).all()) and 0.2 < some.double().mean() < 0.9
    # ln κ is N(−1.1, 2²) where the schedule reaches: its quartiles, to four standard errors
    for share, normal in ((0.5, 0.0), (0.75, 0.6745)):
        error = 2.0 * 4 * math.sqrt(share * (1 - share) / 4000) / 0.31
        assert kappa.log().quantile(share).item() == pytest.approx(-1.1 + 2 * normal, abs=error)


def test_the_law_of_improved_consistency_training():
    """p(i) ∝ erf((ln κ_{i+1} + 1.1)/(2√2)) − erf((ln κ_i + 1.1)/(2√2)), most at middle noise."""
    times = grid(edm(), 10, "karras")
    law = ict_law(edm(), times)
    kappa = edm().at(times).sigma
    raw = -torch.erf((kappa.log() + 1.1) / (2 * math.sqrt(2))).diff()
    assert torch.allclose(law, raw / raw.sum(), rtol=1e-12) and law.sum().item() == pytest.approx(
        1
    )
    place = torch.bucketize(-ladder_times(times, law)(Draw(0), 20_000)[0], -times)
    found = torch.bincount(place, minlength=10) / 20_000
    assert bool(((found - law).abs() < 4 * (law * (1 - law) / 20_000).sqrt() + 1e-9).all())


def test_neighbours_on_a_ladder():
    times = grid(edm(), 5, "karras")
    t, r = ladder_times(times)(Draw(0), 400)
    place = torch.bucketize(-t, -times)
    assert torch.equal(times[place], t) and torch.equal(times[place + 1], r)
    assert place.unique().tolist() == [0, 1, 2, 3, 4]


def weighed(*law):
    return ladder_times(grid(edm(), len(law), "karras"), torch.tensor(law))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: ladder_times(torch.tensor([0.0, 1.0])), "must fall"),
        (lambda: ladder_times(torch.tensor([1.0, 0.0]), torch.ones(2)), "one for each step"),
        (lambda: weighed(1.0, -0.5, 1.0), r"law = \[1, -0.5, 1\], wanted .*from 0 on"),
        (lambda: weighed(0.0, 0.0, 0.0, 0.0, 0.0), r"law = \[0, 0, 0, 0, …\], .*not all 0"),
        (lambda: weighed(1.0, math.nan), r"law = \[1, nan\]"),
        (lambda: weighed(1.0, math.inf), r"law = \[1, inf\]"),
        (lambda: ect_times(edm(), stage=-1), "stage = -1"),
        (lambda: ect_times(edm(), stage=0, q=1.0), "q = 1"),
        (lambda: ct_points(5, 4), "step 5 of 4"),
        (lambda: ct_points(0, 4, s_0=1), "s_0 = 1"),
        (lambda: ict_points(-1, 4), "step -1"),
        (lambda: ct_decay(1), "1 points"),
        (lambda: ct_decay(2, mu_0=1.0), "mu_0"),
        (lambda: ect_stage(3, 0), "a stage every 0"),
        (lambda: ct_decay(3, s_0=-2), "s_0 = -2, wanted .* 2 … 3"),
        (lambda: ct_decay(3, s_0=4), "s_0 = 4"),
        (lambda: ict_law(edm(), grid(edm(), 5), std=-1.0), "ict_law: std = -1"),
        (lambda: ict_law(edm(), torch.tensor([0.2, 0.9])), "ict_law: times .* must fall"),
        (lambda: ect_times(edm(), stage=0, std=-1.0), "ect_times: std = -1"),
        (lambda: ect_times(edm(), stage=0, k=-3.0), "k = -3"),
        (lambda: ect_times(edm(), stage=0, b=-1.0), "b = -1"),
        (lambda: lognormal_times(edm(), std=-1.0), "lognormal_times: std = -1"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
