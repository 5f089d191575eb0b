"""Likelihoods against the mixture's own, and DDPM's bound against both."""

import math

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, gaussian, line, mutant, normals

from dlib import (
    Denoiser,
    Draw,
    Mixture,
    bound,
    decoder_nats,
    exact,
    levels,
    log_likelihood,
    normal_log_prob,
    step_kl,
    transition,
    ve,
    vp,
)
from dlib import likelihood as module
from toy_data.mixtures import gmm5

CONTINUOUS = {name: schedule for name, schedule in SCHEDULES.items() if name != "discrete"}


EVERY = pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=list(CONTINUOUS))


@EVERY
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


def test_the_normal_prior_misses_the_mean_of_p_1():
    """On VP its error in a point is, to first order, α₁ E x₀ · x₁: of size α₁‖E x₀‖ over many
    points (500: five standard errors).
    """
    mixture, a, b = gmm5(), vp().at(0.01), vp().at(1.0)
    x, _ = mixture.sample(500, Draw(4))
    x = a.alpha * x + a.sigma * Draw(5).normal(x)
    change, end = log_likelihood(exact(mixture, vp()), x, a, b)
    error = (change + normal_log_prob(end, b) - mixture.log_prob(x, a)).square().mean().sqrt()
    shift = b.alpha * (mixture.weights @ mixture.means).norm()
    assert 5e-4 < shift < 5e-3 and error / shift == pytest.approx(1, abs=0.16)


def test_hutchinson_over_all_signs_is_the_trace_and_one_sign_vector_is_off_by_about_a_nat():
    mixture, a, b = gmm5(), vp().at(0.01), vp().at(1.0)
    model, x = exact(mixture, vp()), mixture.sample(200, Draw(4))[0]
    truth, _ = log_likelihood(model, x, a, b)
    # the mean of vvᵀ is I
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=F64)[:, None].expand(2, 200, 2)
    off = [
        (log_likelihood(model, x, a, b, probes=v)[0] - truth).square().mean().sqrt()
        for v in (signs, signs[:1])
    ]
    assert off[0] < 1e-6 and 0.5 < off[1] < 2


def test_half_the_unit_of_length_is_worth_a_bit_per_dimension():
    mixture = gmm5()
    small = Mixture(mixture.weights, mixture.means / 2, mixture.stds / 2)
    nats = []
    for data, schedule, scale in ((small, ve(0.005, 25), 0.5), (mixture, ve(), 1.0)):
        x, a, b = scale * mixture.sample(32, Draw(11))[0], schedule.at(0.3), schedule.at(0.9)
        change, end = log_likelihood(exact(data, schedule), x, a, b)
        nats.append(change + data.log_prob(end, b))
    assert ((nats[0] - nats[1]) / (2 * math.log(2)) - 1).abs().max() < 1e-6


def test_hutchinson_is_unbiased_and_rademacher_has_the_smaller_variance():
    """512 probes one by one: the mean within 5 standard errors of the exact trace (false alarm
    6e-7 a point).
    """
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


@pytest.mark.parametrize(
    "old, new",
    [("volume - end[", "volume + end["), ("kappa * level.alpha * trace", "kappa * trace")],
)
def test_slips_in_the_likelihood_show(old, new):
    mixture, a, b = gmm5(), vp().at(0.05), vp().at(0.9)
    x, _ = mixture.sample(4, Draw(0))
    change, end = mutant(log_likelihood, old, new)(exact(mixture, vp()), x, a, b)
    assert (change + mixture.log_prob(end, b) - mixture.log_prob(x, a)).abs().max() > 0.1


def test_the_bound_holds_and_tightens_with_the_steps():
    """Its gap to the average −log p falls as 1/N. 20 000 points, the same for all: standard
    errors of about 0.02 nat.
    """
    mixture = gmm5()
    x0, _ = mixture.sample(20_000, Draw(0))
    truth = -mixture.log_prob(x0, vp().at(0.0)).mean().item()
    gap = {
        n: bound(exact(mixture, vp()), x0, levels(vp(), n, t_min=0.003), Draw(1)).total.item()
        - truth
        for n in (20, 80, 320)
    }
    assert gap[20] > gap[80] > gap[320] > 0.1
    assert gap[80] / gap[320] == pytest.approx(4, rel=0.3)


def test_the_bound_s_steps_are_kl_divergences():
    """Each step by its definition: Gaussians of the posterior's variance whose means are that
    of q and of the model.
    """
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


@EVERY
@pytest.mark.parametrize("ratio", [1.0, 0.6, 2.5])
def test_a_step_s_cost_is_torch_s_kl(schedule, ratio):
    (a, b), x0, guess = schedule.levels([0.6, 0.45]), normals(7, 3), normals(7, 3, seed=1)
    x = a.alpha * x0 + a.sigma * normals(7, 3, seed=2)
    q, p = (
        transition(Denoiser(lambda x, t, c, y=y: y, schedule, "x0"), x, a, b) for y in (x0, guess)
    )
    normal = torch.distributions.Normal
    truth = torch.distributions.kl_divergence(
        normal(q.mean, q.std), normal(p.mean, p.std * ratio**0.5)
    ).sum(1)
    assert torch.allclose(step_kl((x0 - guess).square().sum(1), a, b, 3, ratio), truth, rtol=1e-9)


def test_a_step_s_cost_is_ho_s_formula_and_beta_s_ratio():
    """Ho et al. 2020, eq. 12: β²/(2 v a (1 − ᾱ_n)) ‖ε − ε_θ‖² for v = ṽ and v = β, of one step
    n − 1 ← n.
    """
    a, b = vp().levels([0.5, 0.499])
    a_n, square = (a.alpha / b.alpha) ** 2, 0.3
    beta, error = 1 - a_n, square * (a.alpha / a.sigma) ** 2  # ‖ε − ε_θ‖²
    for v, ratio in ((beta * b.sigma**2 / a.sigma**2, 1.0), (beta, (a.sigma / b.sigma) ** 2)):
        without = step_kl(square, a, b, 1, ratio) - step_kl(0.0, a, b, 1, ratio)
        assert without == pytest.approx(beta**2 / (2 * v * a_n * a.sigma**2) * error, rel=1e-9)


def test_gaussian_data_with_the_true_variance_are_priced_exactly_in_any_number_of_steps():
    """The best r is 1 + ΔSNR·m; on N(0, c²) the terms then telescope to ½ log of (SNR + 1/c²).
    At c = 1 it is β_n's ratio.
    """
    snr = lambda level: (level.alpha / level.sigma) ** 2
    for c in (0.3, 1.0):
        walk, total = levels(vp(), 4), 0.0
        for a, b in zip(walk, walk[1:]):
            m = 1 / (snr(a) + c**-2)
            ratio = 1 + (snr(b) - snr(a)) * m
            total += step_kl(m, a, b, 1, ratio)
            assert all(
                step_kl(m, a, b, 1, ratio) < step_kl(m, a, b, 1, ratio * f) for f in (0.9, 1.1)
            )
            assert c != 1 or ratio == pytest.approx((a.sigma / b.sigma) ** 2, rel=1e-9)
        assert total == pytest.approx(
            0.5 * math.log((snr(walk[-1]) + c**-2) / (snr(walk[0]) + c**-2)), rel=1e-12
        )


class Aimed:
    """A `Draw` whose noise leads every x₀ to the same noisy y: what a decoder sees, whatever
    it is asked to decode.
    """

    def __init__(self, y, kappa):
        self.y, self.kappa = y, kappa

    def normal(self, like):
        return (self.y - like) / self.kappa


def test_the_decoder_of_a_few_values_is_a_softmax_by_hand():
    values, level = torch.tensor([-1.0, 0.0, 0.25, 1.0], dtype=F64), vp().at(0.1)
    k, kappa = torch.tensor([[0, 2, 3], [1, 1, 2]]), level.sigma / level.alpha
    y = values[k] + kappa * Draw(0).normal(values[k])
    odds = torch.exp(-0.5 * ((y[..., None] - values) / kappa) ** 2)
    truth = -(odds / odds.sum(-1, keepdim=True)).gather(-1, k[..., None]).log().sum((1, 2))
    assert torch.allclose(decoder_nats(values[k], level, values, Draw(0)), truth, rtol=1e-12)
    with pytest.raises(ValueError, match="pass the values of the data"):
        decoder_nats(values[k] + 0.1, level, values, Draw(0))


def test_the_decoder_of_a_few_values_is_a_probability():
    values, level = torch.linspace(-1, 1, 5, dtype=F64), vp().at(0.3)
    y = normals(6, 1)
    nats = [
        decoder_nats(
            torch.full_like(y, value), level, values, Aimed(y, level.sigma / level.alpha)
        )
        for value in values
    ]
    assert torch.allclose(
        torch.stack(nats).neg().exp().sum(0), torch.ones(6, dtype=F64), rtol=1e-12
    )


def test_a_perfect_guess_costs_only_the_ends():
    walk, x0 = levels(vp(), 5, t_min=0.05), normals(50, 2)
    terms = bound(Denoiser(lambda x, t, c: x0, vp(), "x0"), x0, walk, Draw(0))
    assert (
        terms.steps.abs().max() < 1e-20
        and terms.prior < 1e-3
        and terms.total == terms.prior + terms.reconstruction
    )


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
    assert module.normal_log_prob(
        torch.zeros(1, 2, dtype=F64), vp().at(1.0)
    ).item() == pytest.approx(-math.log(2 * math.pi))
