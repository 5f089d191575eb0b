"""Likelihoods against the mixture's own, and DDPM's bound against both."""

import math

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, gaussian, levels, line, mutant, normals

from dlib import Denoiser, Draw, bound, exact, log_likelihood, normal_log_prob, vp
from dlib import likelihood as module
from toy_data.mixtures import gmm5

CONTINUOUS = {name: schedule for name, schedule in SCHEDULES.items() if name != "discrete"}


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=list(CONTINUOUS))
@pytest.mark.parametrize("mixture", [gmm5, appendix_a, line], ids=["gmm5", "appendix_a", "line"])
def test_the_ode_s_likelihood_is_the_mixture_s(mixture, schedule):
    """Within 1e-4 nat, asked of it with the exact density at the noisy end."""
    mixture = mixture()
    x, _ = mixture.sample(32, Draw(0))
    a, b = schedule.at(max(schedule.t_min, 0.02)), schedule.at(0.98)
    x = a.alpha * x + a.sigma * Draw(1).normal(x)
    change, end = log_likelihood(exact(mixture, schedule), x, a, b)
    assert (change + mixture.log_prob(end, b) - mixture.log_prob(x, a)).abs().max() < 1e-5


def test_the_normal_prior_costs_little_on_vp():
    """p(x₁) is not quite N(0, I): at most 0.02 nat for any point here, and not nothing."""
    mixture, a, b = gmm5(), vp().at(0.01), vp().at(1.0)
    x, _ = mixture.sample(64, Draw(0))
    change, end = log_likelihood(exact(mixture, vp()), x, a, b)
    gap = (change + normal_log_prob(end, b) - mixture.log_prob(x, a)).abs()
    assert 1e-5 < gap.max() < 0.05


def test_hutchinson_is_unbiased_and_rademacher_has_the_smaller_variance():
    """512 probes one by one: the mean within 5 standard errors of the exact trace (false alarm 6e-7 a point)."""
    mixture, a, b = appendix_a(), vp().at(0.05), vp().at(0.9)
    model, x = exact(mixture, vp()), mixture.sample(1, Draw(3))[0]
    truth, _ = log_likelihood(model, x, a, b)
    many = x.expand(512, -1)
    spread = {}
    for name, v in (("rademacher", normals(1, 512, 2).sign()), ("normal", normals(1, 512, 2))):
        change, _ = log_likelihood(model, many.contiguous(), a, b, probes=v, rtol=1e-6)
        spread[name] = change.std().item()
        assert (change.mean() - truth).abs() < 5 * change.std() / 512**0.5
    assert spread["rademacher"] < spread["normal"]


def test_a_gaussian_in_closed_form():
    """Data N(0, c²): density N(0, (αc)² + σ²) at every level."""
    a, b, c = vp().at(0.1), vp().at(0.8), 0.5
    x = normals(4, 2)
    change, end = log_likelihood(exact(gaussian(c), vp()), x, a, b)
    v = [(level.alpha * c) ** 2 + level.sigma**2 for level in (a, b)]
    assert torch.allclose(end, x * (v[1] / v[0]) ** 0.5, atol=1e-7)
    assert torch.allclose(change, torch.full((4,), math.log(v[1] / v[0]), dtype=F64), atol=1e-7)


@pytest.mark.parametrize("old, new", [("volume - end[", "volume + end["), ("kappa * level.alpha * trace", "kappa * trace")])
def test_slips_in_the_likelihood_show(old, new):
    mixture, a, b = gmm5(), vp().at(0.05), vp().at(0.9)
    x, _ = mixture.sample(4, Draw(0))
    change, end = mutant(log_likelihood, old, new)(exact(mixture, vp()), x, a, b)
    assert (change + mixture.log_prob(end, b) - mixture.log_prob(x, a)).abs().max() > 0.1


def test_the_bound_holds_and_tightens_with_the_steps():
    """Its gap to the average −log p falls as 1/N. 20 000 points, the same for all: standard errors of about 0.02 nat."""
    mixture = gmm5()
    x0, _ = mixture.sample(20_000, Draw(0))
    truth = -mixture.log_prob(x0, vp().at(0.0)).mean().item()
    gap = {n: bound(exact(mixture, vp()), x0, levels(vp(), n, t_min=0.003), Draw(1)).total.item() - truth for n in (20, 80, 320)}
    assert gap[20] > gap[80] > gap[320] > 0.1
    assert gap[80] / gap[320] == pytest.approx(4, rel=0.3)


def test_the_bound_s_steps_are_kl_divergences():
    """Each step by its definition: Gaussians of the posterior's variance whose means are that of q and of the model."""
    from dlib import transition

    mixture, walk = line(), levels(vp(), 6, t_min=0.05)
    model, (x0, _) = exact(mixture, vp()), mixture.sample(500, Draw(0))
    terms, draw = bound(model, x0, walk, Draw(5)), Draw(5)
    for step, a, b in zip(terms.steps, walk, walk[1:]):
        x = a.alpha * x0 + a.sigma * draw.normal(x0)
        mean, std = transition(model, x, a, b)
        told = Denoiser(lambda x, t, c: x0, vp(), "x0")
        true_mean, _ = transition(told, x, a, b)
        kl = ((mean - true_mean) ** 2).sum(1).mean() / (2 * std**2)
        assert step.item() == pytest.approx(kl.item(), rel=1e-9)


def test_a_perfect_guess_costs_only_the_ends():
    walk, x0 = levels(vp(), 5, t_min=0.05), normals(50, 2)
    terms = bound(Denoiser(lambda x, t, c: x0, vp(), "x0"), x0, walk, Draw(0))
    assert terms.steps.abs().max() < 1e-20 and terms.prior < 1e-3 and terms.total == terms.prior + terms.reconstruction


def test_bad_input_is_named():
    model, x = exact(gmm5(), vp()), normals(3, 2)
    with pytest.raises(ValueError, match="wanted x.double"):
        log_likelihood(model, x.float(), vp().at(0.1), vp().at(0.9))
    with pytest.raises(ValueError, match="a must be the cleaner level"):
        log_likelihood(model, x, vp().at(0.9), vp().at(0.1))
    with pytest.raises(ValueError, match=r"probes have shape \(1, 2\), wanted \(K, 3, 2\)"):
        log_likelihood(model, x, vp().at(0.1), vp().at(0.9), probes=torch.ones(1, 2))
    with pytest.raises(ValueError, match="two or more noise levels"):
        bound(model, x, [vp().at(0.5)], Draw(0))
    assert module.normal_log_prob(torch.zeros(1, 2, dtype=F64), vp().at(1.0)).item() == pytest.approx(-math.log(2 * math.pi))
