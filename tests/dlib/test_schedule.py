"""Schedules against the numbers of the literature, their own inverses, and finite differences."""

import math

import pytest
import torch
from truth import F64, SCHEDULES

from dlib import NoiseSchedule, cosine, discrete, edm, flow, scaled_linear, sub_vp, ve, vp
from dlib.metrics import order

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
TIMES = torch.linspace(0.002, 0.998, 83, dtype=F64)


def test_stable_diffusion_numbers():
    table, schedule = scaled_linear(), SCHEDULES["discrete"]
    clean, noisy = schedule.at(1 / 1000), schedule.at(1.0)
    assert table[0].item() == pytest.approx(0.99915, abs=5e-6) and table[
        999
    ].item() == pytest.approx(0.0046601, abs=5e-8)
    assert noisy.alpha == pytest.approx(0.06826, abs=5e-6) and clean.sigma == pytest.approx(
        0.0292, abs=5e-5
    )
    assert clean.sigma / clean.alpha == pytest.approx(
        0.029168, abs=5e-7
    ) and noisy.sigma / noisy.alpha == pytest.approx(14.6146, abs=5e-5)
    assert clean.lam == pytest.approx(3.535, abs=5e-4) and noisy.lam == pytest.approx(
        -2.682, abs=5e-4
    )


def test_discrete_passes_through_every_index():
    table = scaled_linear().double()
    levels = discrete(table).levels((torch.arange(1000, dtype=F64) + 1) / 1000)
    alphas = torch.tensor([level.alpha for level in levels], dtype=F64)
    assert (alphas**2 - table).abs().max() < 1e-14


def test_discrete_is_linear_in_lam_between_indices():
    schedule = SCHEDULES["discrete"]
    left, right, inside = schedule.at(0.4), schedule.at(0.401), schedule.at(0.40025)
    assert inside.lam == pytest.approx(0.75 * left.lam + 0.25 * right.lam, abs=1e-12)


@EVERY
def test_lam_is_log_alpha_over_sigma_and_falls(schedule):
    level = schedule.at(TIMES)
    assert (level.lam - (level.alpha / level.sigma).log()).abs().max() < 1e-12
    assert (level.lam.diff() < 0).all()


@EVERY
def test_time_inverts_lam(schedule):
    assert (schedule.at_lam(schedule.at(TIMES).lam).t - TIMES).abs().max() < 1e-12
    for t in (0.01, 0.5, 0.97):
        level = schedule.at_lam(schedule.at(t).lam)
        assert level.t == pytest.approx(t, abs=1e-12) and level.alpha == pytest.approx(
            schedule.at(t).alpha, abs=1e-12
        )


@pytest.mark.parametrize("name", ["vp", "cosine", "discrete"])
def test_variance_preserving(name):
    level = SCHEDULES[name].at(TIMES)
    assert (level.alpha**2 + level.sigma**2 - 1).abs().max() < 1e-14


def test_closed_forms():
    for t in (1e-3, 0.3, 1.0):
        integral = 0.1 * t + 0.5 * 19.9 * t**2
        assert vp().at(t).alpha == pytest.approx(math.exp(-0.5 * integral), rel=1e-14)
        assert vp().at(t).sigma == pytest.approx(math.sqrt(-math.expm1(-integral)), rel=1e-14)
        bar = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2)
        assert cosine().at(t).alpha == pytest.approx(bar(t) / bar(0), rel=1e-12, abs=1e-15)
        assert flow().at(t)[:3] == pytest.approx((t, 1 - t, t), rel=1e-15)
        assert edm().at(t).sigma == pytest.approx(
            (0.002 ** (1 / 7) * (1 - t) + 80 ** (1 / 7) * t) ** 7, rel=1e-13
        )
    assert (
        edm().at(0.0).sigma == pytest.approx(0.002)
        and edm().at(1.0).sigma == pytest.approx(80.0)
        and edm().at(0.3).alpha == 1
    )


def test_singular_ends_are_exact():
    for schedule in (cosine(), flow()):
        noisy, clean = schedule.at(1.0), schedule.at(0.0)
        assert (
            noisy.alpha == 0
            and noisy.sigma == pytest.approx(1, abs=1e-15)
            and noisy.lam == -math.inf
        )
        assert (
            clean.sigma == 0
            and clean.alpha == pytest.approx(1, abs=1e-15)
            and clean.lam == math.inf
        )


def test_cosine_sigma_keeps_its_digits_near_the_data():
    # 1 − α² loses half of its digits at t = 1e-6; the series in t does not
    q, s, t = math.pi / 2 / 1.008, 0.008, 1e-6
    slope = 2 * q * math.tan(q * s)  # d(1 − α²)/dt at t = 0; the next term is q²(1 − tan²) t²
    series = slope * t + q**2 * (1 - math.tan(q * s) ** 2) * t**2
    assert cosine().at(t).sigma ** 2 == pytest.approx(series, rel=1e-11, abs=0)


@EVERY
def test_floats_are_float64_tensors(schedule):
    for t in (0.003, 0.25, 0.5, 0.8125, 1.0):
        row = schedule.at(torch.full((7,), t, dtype=F64))
        for one, many in zip(schedule.at(t), row):
            assert isinstance(one, float) and (many == one).all()
        assert schedule.levels([1.0, t] if t < 1 else [t, 0.5])[t < 1] == schedule.at(t)


def test_shape_follows_like():
    level = vp().at(torch.tensor([0.1, 0.9]), like=torch.zeros(2, 3, 8, 8))
    assert {field.shape for field in level} == {
        (2, 1, 1, 1)
    } and level.alpha.dtype == torch.float32


@EVERY
def test_rates_are_derivatives(schedule):
    t = TIMES[1:-1] + 0.0003  # away from the kinks of the discrete ladder
    h = 1e-6
    up, down = schedule.at(t + h), schedule.at(t - h)
    for rate, above, below in zip(
        schedule.rates(t), (up.alpha, up.sigma), (down.alpha, down.sigma)
    ):
        slope = (above - below) / (2 * h)
        assert ((rate - slope).abs() <= 1e-8 + 1e-7 * slope.abs()).all()
    for one, many in zip(schedule.rates(t[5].item()), schedule.rates(t)):
        assert one == pytest.approx(many[5].item(), rel=1e-12)


@EVERY
def test_diffusion_is_minus_two_sigma_squared_lam_dot(schedule):
    t, h = TIMES[1:-1] + 0.0003, 1e-6
    lam_dot = (schedule.at(t + h).lam - schedule.at(t - h).lam) / (2 * h)
    expected = -2 * schedule.at(t).sigma ** 2 * lam_dot
    assert ((schedule.diffusion(t) - expected).abs() <= 1e-6 * expected).all()


@pytest.mark.parametrize("name", ["vp", "sub_vp", "ve"])
def test_steps_of_the_forward_sde_reach_sigma_at_order_one(name):
    """x ← x + f x dt + g √dt z from x₀: after n steps the variance is σ² up to O(1/n)."""
    schedule, gaps = SCHEDULES[name], {}
    for n in (160, 320, 640):
        times, v = (
            torch.linspace(0.01, 1, n + 1, dtype=F64).tolist(),
            schedule.at(0.01).sigma ** 2,
        )
        for t, u in zip(times, times[1:]):
            v = (1 + schedule.drift(t) * (u - t)) ** 2 * v + schedule.diffusion(t) * (u - t)
        gaps[n] = abs(v - schedule.at(1.0).sigma ** 2)
    assert order(gaps) == pytest.approx(1, abs=0.15)


def test_drift_and_diffusion_of_the_table():
    t = 0.37
    beta = 0.1 + 19.9 * t
    assert vp().drift(t) == pytest.approx(-0.5 * beta, rel=1e-12) and vp().diffusion(
        t
    ) == pytest.approx(beta, rel=1e-12)
    assert flow().drift(t) == pytest.approx(-1 / (1 - t)) and flow().diffusion(
        t
    ) == pytest.approx(2 * t / (1 - t))
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    kappa_squared_dot = 14 * (low + t * (high - low)) ** 13 * (high - low)
    assert edm().drift(t) == 0 and edm().diffusion(t) == pytest.approx(
        kappa_squared_dot, rel=1e-12
    )


def test_a_schedule_of_your_own():
    mine = NoiseSchedule(
        "mine",
        lambda t: ((1 - t) ** 2, t),
        lambda t: (2 * t - 2, torch.ones_like(t)),
        lambda lam: lam,
    )
    assert mine.at(0.5).alpha == 0.25 and mine.drift(0.5) == pytest.approx(-4)


@EVERY
@pytest.mark.parametrize(
    "t", [-0.01, 1.01, math.nan, torch.tensor([0.5, 1.5]), torch.tensor([math.nan])], ids=str
)
def test_time_outside_is_an_error(schedule, t):
    with pytest.raises(
        ValueError, match=f"{schedule.name}: time .* is outside .*rescale the times"
    ):
        schedule.at(t)


def test_discrete_has_no_level_below_its_first_index():
    with pytest.raises(ValueError, match=r"time 0.0005 is outside \[0.001, 1\]"):
        SCHEDULES["discrete"].at(0.0005)


@pytest.mark.parametrize("n", [3, 7, 49, 100, 1000])
def test_discrete_ends_survive_float32(n):
    schedule = discrete(scaled_linear(n=n))
    for t in (1 / n, 1.0):
        assert schedule.at(torch.tensor([t])).alpha.item() == pytest.approx(
            schedule.at(t).alpha, abs=1e-5
        )


@pytest.mark.parametrize(
    "table",
    [
        torch.linspace(0.1, 0.9, 10),
        torch.linspace(0.9, 0.0, 10),
        torch.linspace(1.0, 0.1, 10),
        torch.tensor([0.5]),
        torch.full((4,), 0.5),
        torch.ones(2, 2) * 0.5,
    ],
    ids=["rising", "zero end", "one", "short", "flat", "two axes"],
)
def test_discrete_rejects_what_is_no_ladder(table):
    with pytest.raises(ValueError, match="discrete: alphas_cumprod must be"):
        discrete(table)


def test_levels_wants_one_axis():
    with pytest.raises(ValueError, match="levels: the grid has shape"):
        vp().levels(torch.ones(2, 2))


def test_sub_vp_and_ve_are_the_papers():
    """Song et al. 2021b, eq. 29 and 30: g² = β(1 − e^{−2B}) for sub-VP, κ_t² · 2
    log(κ_max/κ_min) for VE.
    """
    for t in (0.05, 0.4, 0.9):
        integral, beta = 0.1 * t + 0.5 * 19.9 * t**2, 0.1 + 19.9 * t
        level = sub_vp().at(t)
        assert level.alpha == pytest.approx(
            math.exp(-0.5 * integral), rel=1e-14
        ) and level.sigma == pytest.approx(1 - math.exp(-integral), rel=1e-14)
        assert sub_vp().diffusion(t) == pytest.approx(
            beta * (1 - math.exp(-2 * integral)), rel=1e-12
        )
        assert (
            sub_vp().drift(t) == pytest.approx(-0.5 * beta, rel=1e-12)
            and level.sigma < vp().at(t).sigma
        )
        assert ve().at(t).sigma == pytest.approx(0.01 * 5000**t, rel=1e-13) and ve().drift(t) == 0
        assert ve().diffusion(t) == pytest.approx(
            2 * math.log(5000) * ve().at(t).sigma ** 2, rel=1e-12
        )
