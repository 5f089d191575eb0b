"""The NFE benchmark's search against errors known in advance, and its diffusers driver against
dlib on the same levels.
"""

import math

import pytest
import torch

import dlib
from bench import nfe, nfe_peers
from bench.nfe_curves import Curve, Problem, Sampler
from dlib.metrics import rms


def curve(error, every=40, last=640, calls=1, floor=1e-12):
    return Curve(
        Sampler("some", "solver", "setting", lambda n: (calls * n, *[error(n)] * 2), floor),
        every,
        last,
    )


@pytest.fixture(scope="module")
def problem():
    return Problem(starts=16)


@pytest.mark.parametrize("every, calls", [(40, 1), (40, 2), (10, 1)])
def test_reaches_finds_the_first_number_of_steps_that_suffices(every, calls):
    second_order = curve(lambda n: 7.0 / n**2, every, calls=calls)
    assert second_order.reaches(1e-2) == 27 * calls  # √700 = 26.46
    assert second_order.reaches(1e-3) == 84 * calls  # √7000 = 83.67


def test_reaches_counts_from_where_the_error_stays_small():
    assert curve(lambda n: 5e-2 if n == 30 else 1.0 / n**2).reaches(1e-2) == 31


def test_reaches_is_negative_for_never_and_three_for_at_once():
    assert curve(lambda n: math.nan).reaches(1e-2) == -1
    assert curve(lambda n: 1.0 / n, last=80).reaches(1e-3) == -1
    assert curve(lambda n: 1e-9).reaches(1e-2) == 3


def test_the_order_is_measured_above_the_floor_only():
    assert curve(lambda n: 8.0 / n**3).slope() == "3.00"
    # the last point, 3e-8, is left out
    assert curve(lambda n: 8.0 / n**3, floor=1e-7).slope() == "3.00"
    assert curve(lambda n: 8.0 / n**3, floor=1e-6).slope() == "—"


def test_error_at_twenty_calls_takes_the_most_steps_they_pay_for():
    assert curve(lambda n: 1.0 / n, calls=3).at_calls(20) == pytest.approx(1 / 6)


def test_each_number_of_steps_is_run_once():
    seen = []
    measured = curve(lambda n: seen.append(n) or 7.0 / n**2)
    measured.row()
    assert len(seen) == len(set(seen)) == len(measured.points)


def test_the_truth_reaches_sigma_zero(problem):
    near = problem.schedule.at_lam(8.0)
    assert rms(problem.truth(dlib.CLEAN), problem.truth(near)) < 5e-3  # σ = 3e-4
    assert torch.equal(problem.truth(problem.schedule.at(1.0)), problem.start)


@pytest.mark.parametrize("t_end", [1e-3, 1e-2])
def test_the_ladder_is_the_vp_schedule(t_end):
    bar = torch.cumprod(1 - torch.from_numpy(nfe_peers.betas(t_end)), 0)
    for index, t in ((0, t_end), (999, 1.0)):
        assert bar[index].item() == pytest.approx(dlib.vp().at(t).alpha ** 2, rel=1e-9)


@pytest.mark.parametrize(
    "cls, spacing, solver",
    [
        # by its fixed stride; with linspace its steps miss the levels of its calls
        ("DDIMScheduler", "trailing", dlib.solvers.ddim),
        ("EulerDiscreteScheduler", "linspace", dlib.solvers.ddim),
        ("HeunDiscreteScheduler", "linspace", dlib.solvers.heun),
        ("DPMSolverMultistepScheduler", "linspace", dlib.solvers.dpm_solver_pp_2m),
    ],
)
def test_the_driver_measures_what_dlib_measures_on_the_same_levels(problem, cls, spacing, solver):
    """States in x and in x/α, one call and two: up to the schedulers' float32 the driver adds
    no error of its own.
    """
    heun = solver is dlib.solvers.heun  # its one ending is at σ = 0
    options = {"clip_sample": False} if cls == "DDIMScheduler" else {}
    setting = next(
        s
        for s in nfe_peers.settings("", cls, options, spacing)
        if s.t_end == 1e-2 and s.zero == heun
    )
    scheduler = setting.scheduler()
    calls, error, _ = nfe_peers.drive(problem, scheduler, 20)
    levels = nfe_peers.visited(scheduler)
    levels = [level for i, level in enumerate(levels) if i == 0 or level.lam > levels[i - 1].lam]
    x = dlib.sample(problem.model, problem.start, levels, solver)
    assert calls == (39 if heun else 20)
    assert error == pytest.approx(rms(x, problem.truth(levels[-1])), rel=1e-3)


def test_time_as_passed_on_is_the_exact_level_where_nothing_is_rounded(problem):
    def error(spacing, rounded):
        setting = nfe_peers.settings("", "DPMSolverMultistepScheduler", {}, spacing)[0]
        return nfe_peers.drive(problem, setting.scheduler(), 16, rounded)[1]

    assert error("trailing", True) == pytest.approx(error("trailing", False), rel=1e-4)
    assert error("karras", True) != pytest.approx(error("karras", False), rel=1e-4)


def test_the_whole_benchmark_at_a_tiny_size(monkeypatch, problem):
    chosen = ("DDIM", "DPM-Solver++ 2M", "UniPC-3 bh1")
    monkeypatch.setattr(
        nfe_peers, "FAMILIES", [family for family in nfe_peers.FAMILIES if family[0] in chosen]
    )
    ours = [
        sampler for sampler in nfe.ours(problem) if sampler.solver in ("ddim", "dpm_solver_pp_2m")
    ]
    monkeypatch.setattr(nfe, "ours", lambda problem: ours)
    report = nfe.run(problem, every=6, last=20)
    assert {row[1] for row in report.rows if row[0] == "diffusers"} == set(chosen)
    assert [row[0] for row in report.rows[: len(ours) + 1]] == ["dlib"] * len(ours) + [
        "diffusers"
    ]
    assert sum(row[2] == "default" for row in report.rows) == 3
    error = {tuple(row[:3]): float(row[5]) for row in report.rows if row[5] != "NaN"}
    assert error["dlib", "dpm_solver_pp_2m", "grid lam"] < error["dlib", "ddim", "grid lam"]
