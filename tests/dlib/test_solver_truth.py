"""Steps against closed forms: constant predictions, polynomials in λ, Gaussian data, DDPM's
posterior.
"""

import math

import pytest
import torch
from truth import F64, SCHEDULES, gaussian, normals, per_row

from dlib import CLEAN, SOLVERS, Denoiser, Draw, exact, levels, sample, transition, vp
from dlib.solvers import (
    ancestral,
    ddim,
    ddim_eta,
    dpm_solver_3,
    dpm_solver_pp_2m,
    dpm_solver_pp_3m,
    dpm_solver_pp_3m_released,
    euler,
)

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
EXPONENTIAL = [
    name for name, solver in SOLVERS.items() if not solver.noisy and solver is not euler
]


def close(a, b, tolerance=1e-10):
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1))


@EVERY
@pytest.mark.parametrize("constant", ["eps", "x0"])
@pytest.mark.parametrize("name", EXPONENTIAL)
def test_a_constant_prediction_is_solved_exactly_in_any_step(name, constant, schedule):
    """x = αx₀ + σε with both fixed is the whole path: four steps of any size stay on it."""
    x0, eps = normals(4, 3), normals(4, 3, seed=1)
    model = Denoiser(lambda x, t, c: {"eps": eps, "x0": x0}[constant], schedule, constant)
    walk = schedule.levels([0.97, 0.6, 0.3, 0.11, 0.02])
    x = sample(model, walk[0].alpha * x0 + walk[0].sigma * eps, walk, SOLVERS[name])
    assert close(x, walk[-1].alpha * x0 + walk[-1].sigma * eps, 1e-11)


def polynomial(schedule, face, coefficients):
    """A denoiser whose `face` is a polynomial in λ."""

    def net(x, t, cond):
        lam = schedule.at(t, like=x).lam
        return sum(c * lam**k for k, c in enumerate(coefficients)).expand_as(x)

    return Denoiser(net, schedule, face)


def integral(coefficients, lam, sign):
    """The antiderivative of e^{sign·λ} Σ c_k λ^k for up to three coefficients."""
    c0, c1, c2 = (*coefficients, 0.0, 0.0)[:3]
    return (
        sign
        * math.exp(sign * lam)
        * (c0 + c1 * (lam - sign) + c2 * (lam**2 - 2 * sign * lam + 2))
    )


@EVERY
def test_3m_integrates_a_quadratic_in_lam_exactly(schedule):
    c = (0.3, -0.8, 0.5)
    model, x = polynomial(schedule, "x0", c), normals(4, 2)
    before, last, a, b = schedule.levels([0.8, 0.71, 0.55, 0.4])
    memory = tuple((level.lam, model(x, level).x0) for level in (last, before))
    truth = b.sigma / a.sigma * x + b.sigma * (integral(c, b.lam, 1) - integral(c, a.lam, 1))
    assert close(dpm_solver_pp_3m(model, x, a, b, memory)[0], truth, 1e-11)
    assert not close(dpm_solver_pp_3m_released(model, x, a, b, memory)[0], truth, 1e-4)


@EVERY
def test_dpm_solver_3_integrates_a_line_in_lam_exactly(schedule):
    c = (0.3, -0.8)
    model, x = polynomial(schedule, "eps", c), normals(4, 2)
    a, b = schedule.levels([0.7, 0.4])
    truth = b.alpha / a.alpha * x - b.alpha * (integral(c, b.lam, -1) - integral(c, a.lam, -1))
    assert close(dpm_solver_3(model, x, a, b)[0], truth, 1e-11)


def test_2m_takes_a_line_at_the_middle_of_the_step():
    c = (0.3, -0.8)
    schedule = vp()
    model, x = polynomial(schedule, "x0", c), normals(4, 2)
    last, a, b = schedule.levels([0.8, 0.7, 0.4])
    middle = c[0] + c[1] * (a.lam + b.lam) / 2
    truth = b.sigma / a.sigma * x - b.alpha * math.expm1(-(b.lam - a.lam)) * middle
    assert close(
        dpm_solver_pp_2m(model, x, a, b, ((last.lam, model(x, last).x0),))[0], truth, 1e-12
    )


def V(level, c):
    return level.alpha**2 * c**2 + level.sigma**2


@EVERY
def test_ddim_on_gaussian_data(schedule):
    """ε* = σx/V and x₀* = αc²x/V, so one step multiplies by (αα'c² + σσ')/V."""
    c, (a, b), x = 0.7, schedule.levels([0.8, 0.3]), normals(5, 2)
    factor = (a.alpha * b.alpha * c**2 + a.sigma * b.sigma) / V(a, c)
    assert close(ddim(exact(gaussian(c), schedule), x, a, b)[0], factor * x, 1e-12)


@pytest.mark.parametrize("name", EXPONENTIAL)
def test_many_steps_end_on_the_gaussian_flow(name):
    """x_b = x_a √(V_b/V_a); error bound 2 h^p with h = 8.1/320."""
    schedule, c, x = vp(), 0.7, normals(5, 2)
    walk = levels(schedule, 320, t_min=0.01)
    truth = x * math.sqrt(V(walk[-1], c) / V(walk[0], c))
    assert (
        sample(exact(gaussian(c), schedule), x, walk, SOLVERS[name]) - truth
    ).abs().max() < 2 * (8.1 / 320) ** SOLVERS[name].order


@EVERY
def test_eta_one_is_ddpm_s_posterior_in_both_forms(schedule):
    (s, t), x = schedule.levels([0.8, 0.3]), normals(5, 2)
    model = Denoiser(lambda x, time, cond: torch.sin(x), schedule, "v")
    x0, h = model(x, s).x0, t.lam - s.lam
    ratio = s.alpha / t.alpha  # α_{s|t}
    added = s.sigma**2 - ratio**2 * t.sigma**2  # σ²_{s|t}
    mean = ratio * t.sigma**2 / s.sigma**2 * x + t.alpha * added / s.sigma**2 * x0
    in_lam = t.sigma / s.sigma * math.exp(-h) * x - t.alpha * math.expm1(-2 * h) * x0
    step = transition(model, x, s, t, eta=1.0)
    assert close(step.mean, mean, 1e-12) and close(step.mean, in_lam, 1e-12)
    assert step.std == pytest.approx(math.sqrt(t.sigma**2 * added / s.sigma**2), rel=1e-12)
    up = math.sqrt((t.sigma / t.alpha) ** 2 * -math.expm1(-2 * h)) * t.alpha  # k-diffusion's κ_up
    assert step.std == pytest.approx(up, rel=1e-12)


def test_transition_in_float32_keeps_its_digits_over_a_long_step():
    """h = 9: the share of ε that is kept is e^{−h} = 1e-4, which 1 − (1 − e^{−2h}) has lost in
    float32.
    """
    schedule, x = SCHEDULES["flow"], normals(4, 2)
    a, b = schedule.levels([0.9999, 0.5])
    model = Denoiser(lambda x, t, c: torch.sin(x), schedule, "velocity")
    single, double = (
        transition(model, z, per_row(a, z), per_row(b, z), 1.0) for z in (x.float(), x)
    )
    assert (single.mean - double.mean).abs().max() < 2e-6 and (
        single.std - double.std
    ).abs().max() < 1e-6


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_eta_is_its_transition(eta):
    schedule, x, noise = vp(), normals(5, 2), normals(5, 2, seed=1)
    a, b = schedule.levels([0.8, 0.3])
    model = exact(gaussian(0.7), schedule)
    mean, std = transition(model, x, a, b, eta)
    assert close(ddim_eta(eta)(model, x, a, b, noise=noise)[0], mean + std * noise, 1e-14)
    share = -math.expm1(-2 * (b.lam - a.lam))
    assert std == pytest.approx(eta * b.sigma * math.sqrt(share))
    if eta == 0:
        assert close(mean, ddim(model, x, a, b)[0], 1e-14)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_stochastic_steps_keep_the_marginals_of_gaussian_data(eta):
    """A linear step maps a variance to m²V + s²: no sampling needed. The error falls as 1/N
    towards V at the end.
    """
    schedule, c = vp(), 0.7
    model, gaps = exact(gaussian(c, 1), schedule), []
    for n in (160, 320, 640):
        walk = levels(schedule, n, t_min=0.01)
        variance = V(walk[0], c)
        for a, b in zip(walk, walk[1:]):
            mean, std = transition(model, torch.ones(1, 1, dtype=F64), a, b, eta)
            variance = mean.item() ** 2 * variance + std**2
        gaps.append(abs(variance - V(walk[-1], c)))
    assert gaps[-1] < 0.02 * c**2 and gaps[0] / gaps[2] == pytest.approx(4, rel=0.2)


def test_ancestral_samples_have_the_data_s_variance():
    """20 000 values: five standard errors of a variance (5%) and the bias of 200 steps (1%);
    false alarms below 1e-6.
    """
    schedule, c = vp(), 0.7
    walk = levels(schedule, 200, t_min=0.01)
    x = sample(exact(gaussian(c), schedule), normals(10000, 2), walk, ancestral, draw=Draw(1))
    assert (
        x.var().item() == pytest.approx(V(walk[-1], c), rel=0.06)
        and abs(x.mean().item()) < 5 * 0.7 / 20000**0.5
    )


def test_ancestral_samples_keep_the_weights_of_the_modes():
    """Binomial counts, n = 4000: five standard errors; false alarms below 1e-5."""
    from toy_data.mixtures import three_far

    mixture, schedule, n = three_far(), vp(), 4000
    x = sample(
        exact(mixture, schedule),
        normals(n, 2, seed=5),
        levels(schedule, 100, t_min=0.01),
        ancestral,
        draw=Draw(2),
    )
    share = torch.bincount(torch.cdist(x, mixture.means).argmin(1), minlength=3) / n
    assert (
        (share - mixture.weights).abs()
        < 5 * (mixture.weights * (1 - mixture.weights) / n).sqrt() + 0.01
    ).all()


@EVERY
@pytest.mark.parametrize("name", list(SOLVERS))
def test_the_clean_end_returns_x0_exactly(name, schedule):
    x0 = normals(3, 2)
    seen = []
    model = Denoiser(lambda x, t, c: seen.append(x) or x0, schedule, "x0")
    walk = [*schedule.levels([0.9, 0.8, 0.7, 0.6, 0.5]), CLEAN]
    assert torch.equal(
        sample(model, normals(3, 2, seed=1), walk, SOLVERS[name], draw=Draw(0)), x0
    )
    assert len(seen) == 4 * SOLVERS[name].calls + 1
