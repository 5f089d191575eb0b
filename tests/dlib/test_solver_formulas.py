"""Each step against its published formula, written out a second time with ψ and φ in plain
floats.
"""

from math import expm1, sqrt

import pytest
from truth import SCHEDULES, appendix_a, normals

from dlib import Denoiser, exact, vp
from dlib.solvers import (
    ddim,
    dpm_solver_2,
    dpm_solver_3,
    dpm_solver_pp_2m,
    dpm_solver_pp_2s,
    dpm_solver_pp_3m,
    dpm_solver_pp_3m_released,
    euler,
    heun,
)

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
X = normals(6, 2)


def problem(schedule):
    """(model, levels) of a few finite steps."""
    return exact(appendix_a(), schedule), schedule.levels([0.9, 0.75, 0.6, 0.4])


def psi(h):
    """ψ₁, ψ₂, ψ₃ of the ε form."""
    first = expm1(h)
    return first, first / h - 1, (first / h - 1) / h - 0.5


def phi(h):
    """φ₁, φ₂, φ₃ of the data form."""
    first = expm1(-h)
    return first, first / h + 1, (first / h + 1) / h - 0.5


def close(a, b):
    return bool((a - b).abs().max() < 1e-9 * b.abs().max().clamp(min=1))


def inside(schedule, s, t, r):
    return schedule.at_lam(s.lam + r * (t.lam - s.lam))


@EVERY
def test_ddim_in_its_three_forms(schedule):
    """ε frozen, x₀ frozen, and the level changed: one step (Song et al. 2021a, eq. 12)."""
    model, (*_, s, t) = problem(schedule)
    h, said = t.lam - s.lam, model(X, s)
    for form in (
        t.alpha / s.alpha * X - t.sigma * expm1(h) * said.eps,
        t.sigma / s.sigma * X - t.alpha * expm1(-h) * said.x0,
        t.alpha * said.x0 + t.sigma * said.eps,
    ):
        assert close(ddim(model, X, s, t)[0], form)


@EVERY
def test_single_steps_in_eps(schedule):
    model, (*_, s, t) = problem(schedule)
    h, m = t.lam - s.lam, lambda x, level: model(x, level).eps
    first = lambda level, r: level.alpha / s.alpha * X - level.sigma * expm1(r * h) * m(X, s)
    half = inside(schedule, s, t, 0.5)
    midpoint = first(t, 1) - t.sigma * psi(h)[0] * (m(first(half, 0.5), half) - m(X, s))
    assert close(dpm_solver_2(model, X, s, t)[0], midpoint)

    third, two_thirds = inside(schedule, s, t, 1 / 3), inside(schedule, s, t, 2 / 3)
    d1 = m(first(third, 1 / 3), third) - m(X, s)
    u = (
        first(two_thirds, 2 / 3)
        - 2 * two_thirds.sigma * (expm1(2 / 3 * h) / (2 / 3 * h) - 1) * d1
    )
    assert close(
        dpm_solver_3(model, X, s, t)[0],
        first(t, 1) - 1.5 * t.sigma * psi(h)[1] * (m(u, two_thirds) - m(X, s)),
    )


@EVERY
def test_single_step_in_x0(schedule):
    model, (*_, s, t) = problem(schedule)
    h, m = t.lam - s.lam, lambda x, level: model(x, level).x0
    first = lambda level, r: level.sigma / s.sigma * X - level.alpha * expm1(-r * h) * m(X, s)
    half = inside(schedule, s, t, 0.5)
    assert close(
        dpm_solver_pp_2s(model, X, s, t)[0],
        first(t, 1) - t.alpha * phi(h)[0] * (m(first(half, 0.5), half) - m(X, s)),
    )


@EVERY
def test_multisteps(schedule):
    model, (p2, p1, s, t) = problem(schedule)
    h, h0, h1 = t.lam - s.lam, s.lam - p1.lam, p1.lam - p2.lam
    m_s, m_1, m_2 = model(X, s).x0, normals(6, 2, seed=1), normals(6, 2, seed=2)
    phi_1, phi_2, phi_3 = phi(h)
    A, r0, r1 = t.sigma / s.sigma * X - t.alpha * phi_1 * m_s, h0 / h, h1 / h
    d1_0, d1_1 = (m_s - m_1) / r0, (m_1 - m_2) / r1
    memory = ((p1.lam, m_1), (p2.lam, m_2))
    assert close(
        dpm_solver_pp_2m(model, X, s, t, memory[:1])[0], A - 0.5 * t.alpha * phi_1 * d1_0
    )
    d1 = d1_0 + r0 / (r0 + r1) * (d1_0 - d1_1)
    for step, factor in ((dpm_solver_pp_3m, 2), (dpm_solver_pp_3m_released, 1)):
        d2 = factor * (d1_0 - d1_1) / (r0 + r1)
        assert close(
            step(model, X, s, t, memory)[0], A + t.alpha * phi_2 * d1 - t.alpha * phi_3 * d2
        )


@EVERY
def test_heun_is_edm_s_algorithm_in_kappa(schedule):
    model, (*_, s, t) = problem(schedule)
    k_s, k_t, y = s.sigma / s.alpha, t.sigma / t.alpha, X / s.alpha
    D = lambda y, level: model(level.alpha * y, level).x0
    d = (y - D(y, s)) / k_s
    ahead = y + (k_t - k_s) * d
    assert close(
        heun(model, X, s, t)[0],
        t.alpha * (y + (k_t - k_s) * 0.5 * (d + (ahead - D(ahead, t)) / k_t)),
    )


def test_euler_is_euler():
    schedule = vp()
    s, t = schedule.levels([0.7, 0.5])
    model = Denoiser(lambda x, time, cond: x.sin(), schedule, "eps")
    beta = 0.1 + 19.9 * 0.7
    # f − ½g²s with s = −ε/σ
    velocity = -0.5 * beta * X + 0.5 * beta * X.sin() / sqrt(1 - s.alpha**2)
    assert close(euler(model, X, s, t)[0], X - 0.2 * velocity)
