"""DDPM's chain against the exact one: the true step back, the bound's terms, what they tend
to, and which grid wastes least.
"""

import math
from functools import cache

import pytest
import torch
from truth import F64, line

from dlib import CLEAN, Draw, bound, discrete, exact, levels, step_kl, transition

LADDER = discrete(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64), 0))  # DDPM's own
MODEL, DX = exact(line(), LADDER), 0.008
# sums over it are exact to rounding for these densities
AXIS = torch.arange(-8, 8 + DX / 2, DX, dtype=F64)[:, None]
SECOND = (line().weights @ (line().means[:, 0] ** 2 + line().stds ** 2)).item()  # E x₀²


def snr(level):
    return (level.alpha / level.sigma) ** 2


@cache
def error(level):
    """m = E‖x₀ − x₀*‖² = E x₀² − E x₀*²."""
    mass = line().log_prob(AXIS, level).exp() * DX
    return SECOND - (mass @ MODEL(AXIS, level).x0[:, 0] ** 2).item()


def entropy(level):
    log_p = line().log_prob(AXIS, level)
    return -DX * (log_p.exp() @ log_p).item()


def normal_entropy(sigma):
    return 0.5 * math.log(2 * math.pi * math.e * sigma**2)


def ends(first, last):
    """The means of L_N and L_0."""
    prior = first.alpha**2 * SECOND + first.sigma**2 - 1 - math.log(first.sigma**2)
    return prior / 2, normal_entropy(last.sigma / last.alpha)


def moments(log_mass):
    """Mean and variance of densities on the axis, one a column."""
    mass = torch.softmax(log_mass, 0)
    mean = (mass * AXIS).sum(0)[:, None]
    return mean, (mass * (AXIS - mean.T) ** 2).sum(0)[:, None]


@pytest.mark.parametrize("times", [(0.5, 0.3), (0.9, 0.1), (0.031, 0.030)])
def test_the_true_step_back_has_the_step_s_mean_and_a_larger_variance(times):
    """q(x_b|x_a) by Bayes' rule on a grid: mean μ̃(x_a, x₀*), variance ṽ(1 + ΔSNR
    Var[x₀|x_a]).
    """
    (a, b), x_a = LADDER.levels(times), torch.linspace(-2, 2, 5, dtype=F64)[:, None]
    bell = lambda scale, var: -((x_a.T - scale * AXIS) ** 2) / (2 * var)
    scale = a.alpha / b.alpha
    mean, var = moments(
        bell(scale, a.sigma**2 - scale**2 * b.sigma**2) + line().log_prob(AXIS, b)[:, None]
    )
    # Var[x₀|x_a]
    _, unknown = moments(bell(a.alpha, a.sigma**2) + line().log_prob(AXIS, CLEAN)[:, None])
    step = transition(MODEL, x_a, a, b)
    assert (mean - step.mean).abs().max() < 1e-9
    assert (var - step.std**2 * (1 + (snr(b) - snr(a)) * unknown)).abs().max() < 1e-9


def test_the_terms_of_the_bound_by_quadrature():
    """22 means of 64 runs with 1000 points; 5.5 standard errors: false alarms once in 60 000
    tries.
    """
    walk, draws = levels(LADDER, 20), Draw(2)

    def run():
        terms = bound(MODEL, line().sample(1000, draws)[0], walk, draws)
        return torch.cat([terms.prior[None], terms.steps, terms.reconstruction[None]])

    runs = torch.stack([run() for _ in range(64)])
    prior, decoder = ends(walk[0], walk[-1])
    truth = torch.tensor(
        [prior, *(step_kl(error(a), a, b) for a, b in zip(walk, walk[1:])), decoder], dtype=F64
    )
    assert ((runs.mean(0) - truth) / (runs.std(0) / 8)).abs().max() < 5.5


def area(walk, points=401):
    """∫ e dλ down the walk, e = SNR·m the error of ε, and e on its points."""
    lam = torch.linspace(walk[0].lam, walk[-1].lam, points, dtype=F64)
    e = torch.tensor(
        [snr(level) * error(level) for level in map(LADDER.at_lam, lam.tolist())], dtype=F64
    )
    return torch.trapezoid(e, lam).item(), lam, e


def test_the_bound_tends_to_the_exact_mean_of_minus_log_p_but_for_the_ladder_s_ends():
    """∫ e dλ is the information gained (Guo et al. 2005); with L_N and L_0: H(x₀ + κ₁ε) +
    KL(q(x_N) ‖ N(0, 1)).
    """
    first, last = levels(LADDER, 1)
    gained, (prior, decoder) = area((first, last))[0], ends(first, last)
    information = lambda level: entropy(level) - normal_entropy(level.sigma)
    assert abs(gained - (information(last) - information(first))) < 1e-6
    log_p = line().log_prob(AXIS, first)
    to_prior = (
        DX * (log_p.exp() @ (log_p + AXIS[:, 0] ** 2 / 2 + math.log(2 * math.pi) / 2)).item()
    )
    assert (
        abs(prior + gained + decoder - (entropy(last) - math.log(last.alpha) + to_prior)) < 1e-6
    )


def test_what_the_variances_save():
    """r ≈ 1 + 2hρ saves h∫ρ(2e − ρ)dλ of the gap h(∫e dλ − ½e₁): ρ = α² for β_n's, ρ = e for
    the best r = 1 + ΔSNR·m.
    """
    walk = levels(LADDER, 640)
    gained, lam, e = area(walk)
    h = (lam[-1] - lam[0]).item() / 640  # the next order is about h, 0.014

    def gap(ratio):
        return (
            sum(step_kl(error(a), a, b, 1, ratio(a, b)) for a, b in zip(walk, walk[1:])) - gained
        )

    posterior = gap(lambda a, b: 1.0)
    assert posterior / (h * (gained - e[-1].item() / 2)) == pytest.approx(1, abs=0.03)
    for ratio, rho in (
        (lambda a, b: (a.sigma / b.sigma) ** 2, torch.sigmoid(2 * lam)),
        (lambda a, b: 1 + (snr(b) - snr(a)) * error(a), e),
    ):
        law = h * torch.trapezoid(rho * (2 * e - rho), lam).item()
        assert (posterior - gap(ratio)) / law == pytest.approx(1, abs=0.03)


def test_the_grid_that_wastes_least():
    """A step of length h at λ wastes c h², c = −½ SNR dm/dλ; best is h ∝ 1/√c, with the gap
    (∫√c dλ)²/N (Cauchy–Schwarz).
    """
    gained, lam, e = area(levels(LADDER, 1), 801)
    m = e * (-2 * lam).exp()
    c = (-0.5 * (2 * lam).exp() * torch.gradient(m, spacing=(lam,))[0]).clamp(min=0)
    along = torch.cumulative_trapezoid(c.sqrt(), lam)
    at = torch.searchsorted(along, torch.linspace(0, along[-1], 101, dtype=F64)).clamp(
        max=len(along) - 1
    )
    at[-1] = len(lam) - 1
    walk = [LADDER.at_lam(value) for value in lam[at].tolist()]
    gap = sum(step_kl(error(a), a, b) for a, b in zip(walk, walk[1:])) - gained
    assert gap * 100 / along[-1].item() ** 2 == pytest.approx(1, abs=0.12)
