"""Euler–Maruyama's family: its law on Gaussian data in closed form, its weak order, its
marginals, and its slips.
"""

import math

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, gaussian, line, mutant, normals

from dlib import Denoiser, Draw, exact, langevin, levels, sample, vp
from dlib.metrics import order
from dlib.solvers import euler, euler_maruyama, first_order

CONTINUOUS = {name: schedule for name, schedule in SCHEDULES.items() if name != "discrete"}
C = 0.7


def final_variance(solver, n, schedule=vp(), t_max=1.0, t_min=0.05):
    """(variance after n steps, the true one): on Gaussian data a step is linear, V ↦ m²V + s²,
    without sampling error.
    """
    walk, x, noise = (
        levels(schedule, n, "time", t_max=t_max, t_min=t_min),
        torch.eye(2, dtype=F64)[:, :1],
        torch.eye(2, dtype=F64)[:, 1:],
    )
    model, truth = (
        exact(gaussian(C, 1), schedule),
        lambda level: (level.alpha * C) ** 2 + level.sigma**2,
    )
    variance = truth(walk[0])
    for a, b in zip(walk, walk[1:]):
        m, s = solver(model, x, a, b, None, noise)[0].flatten().tolist()
        variance = m**2 * variance + s**2
    return variance, truth(walk[-1])


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=list(CONTINUOUS))
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_the_variance_on_gaussian_data_converges_at_order_one(eta, schedule):
    gaps = {
        n: abs(got - wanted)
        for n in (320, 640, 1280)
        for got, wanted in [final_variance(euler_maruyama(eta), n, schedule, 0.9, 0.3)]
    }
    assert order(gaps) == pytest.approx(1, abs=0.15)


def test_without_noise_it_is_euler_on_the_ode():
    model, x, (a, b) = exact(appendix_a(), vp()), normals(5, 2), vp().levels([0.7, 0.6])
    ours = euler_maruyama(0.0)(model, x, a, b, noise=normals(5, 2, seed=1))[0]
    assert (ours - euler(model, x, a, b)[0]).abs().max() < 1e-13


def test_the_reverse_sde_forgets_its_start():
    """As independent of its end as in the forward process, where x₀ leaves α₁ = .0066: 2500
    samples, five standard errors.
    """
    mixture, walk = line(), levels(vp(), 250, "time", t_min=0.01)
    start = walk[0].sigma * normals(2500, 1)
    end = sample(exact(mixture, vp()), start, walk, euler_maruyama(1.0), draw=Draw(3))
    quantiles = torch.stack([mixture.cdf(start, walk[0]), mixture.cdf(end, walk[-1])])
    assert abs(torch.corrcoef(quantiles)[0, 1]) < 5 / 2500**0.5


@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
def test_a_step_is_euler_on_the_ode_and_a_langevin_step(eta):
    model, x, (a, b) = exact(appendix_a(), vp()), normals(5, 2), vp().levels([0.7, 0.6])
    z = normals(5, 2, seed=1)
    draws = type("Fixed", (), {"normal": lambda self, like: z})()
    size = 0.5 * eta**2 * vp().diffusion(a.t) * (a.t - b.t)
    there = langevin(lambda x: model(x, a).score, x, size, 1, draws) - x
    assert (
        euler_maruyama(eta)(model, x, a, b, noise=z)[0] - euler(model, x, a, b)[0] - there
    ).abs().max() < 1e-13


@pytest.mark.parametrize(
    "old, new",
    [
        ("1 + eta**2", "1 + eta"),
        ("0.5 * (1 + eta**2)", "0.5"),
        ("- 0.5", "+ 0.5"),
        ("eta * (-dt * g2) ** 0.5", "eta**2 * (-dt * g2) ** 0.5"),
    ],
)
def test_slips_show_in_the_variance(old, new, monkeypatch):
    right, wanted = final_variance(euler_maruyama(0.5), 160, t_min=0.2)
    wrong, _ = final_variance(mutant(first_order.euler_maruyama, old, new)(0.5), 160, t_min=0.2)
    assert abs(right - wanted) < 0.02 < 0.05 < abs(wrong - wanted) or not math.isfinite(wrong)


@pytest.mark.parametrize("eta", [-0.1, math.inf, math.nan])
def test_bad_noise_scales_are_named(eta):
    with pytest.raises(ValueError, match="wanted 0 or more"):
        euler_maruyama(eta)
    with pytest.raises(ValueError, match="singular at t = 1"):
        schedule = SCHEDULES["flow"]
        euler_maruyama(1.0)(
            Denoiser(lambda x, t, c: x, schedule, "v"),
            normals(2, 2),
            *schedule.levels([1.0, 0.9]),
            noise=normals(2, 2),
        )
