"""Gaussian mixtures: the density against quadrature and torch.distributions, the draws against
their moments.
"""

import math

import pytest
import torch
from torch import distributions as dist
from truth import F64, MIXTURES, appendix_a, line, mutant, normals

from dlib import CLEAN, NULL, Draw, Mixture, flow, vp
from toy_data.mixtures import gmm5, labelled, ring8, three_far

NAMED = pytest.mark.parametrize(
    "mixture",
    [gmm5(), three_far(), labelled(), ring8(), appendix_a()],
    ids=["gmm5", "three_far", "labelled", "ring8", "appendix_a"],
)


def peer(mixture, alpha, sigma):
    spread = (alpha**2 * mixture.stds**2 + sigma**2).sqrt()
    parts = dist.Independent(
        dist.Normal(alpha * mixture.means, spread[:, None].expand_as(mixture.means)), 1
    )
    return dist.MixtureSameFamily(dist.Categorical(mixture.weights), parts)


def test_gmm5_is_the_book_s():
    """Means on a circle of radius 1.5 at 90° + 72°k; the weights and widths of every
    benchmark.
    """
    mixture, angle = gmm5(), torch.deg2rad(90 + 72 * torch.arange(5, dtype=F64))
    assert torch.allclose(
        mixture.means, 1.5 * torch.stack([angle.cos(), angle.sin()], 1), atol=1e-15
    )
    assert mixture.weights.tolist() == pytest.approx([0.30, 0.25, 0.20, 0.15, 0.10])
    assert mixture.stds.tolist() == [
        0.20,
        0.25,
        0.30,
        0.25,
        0.20,
    ] and mixture.labels.tolist() == [0, 1, 2, 3, 4]


@NAMED
@pytest.mark.parametrize("t", [0.0, 0.2, 0.7, 1.0])
def test_log_prob_is_that_of_torch_distributions(mixture, t):
    level = vp().at(t)
    x = 2 * normals(50, 2)
    expected = peer(mixture, level.alpha, level.sigma).log_prob(x)
    assert ((mixture.log_prob(x, level) - expected).abs() <= 1e-12 * expected.abs()).all()


@NAMED
def test_density_integrates_to_one(mixture):
    # the trapezoid rule converges faster than any power here
    side = torch.linspace(-10, 10, 401, dtype=F64)
    x = torch.cartesian_prod(side, side)
    for t in (0.0, 0.3):
        assert mixture.log_prob(x, vp().at(t)).exp().sum().item() * 0.05**2 == pytest.approx(
            1, abs=1e-9
        )


@pytest.mark.parametrize("label", [0, 1, NULL])
def test_conditional_density_integrates_to_one(label):
    x = torch.linspace(-9, 9, 6001, dtype=F64)[:, None]
    density = line().log_prob(x, vp().at(0.3), torch.full((6001,), label)).exp()
    assert density.sum().item() * 0.003 == pytest.approx(1, abs=1e-10)


def test_labels_choose_components_and_null_is_all():
    mixture, x, level = line(), normals(6, 1), vp().at(0.4)
    every = torch.full((6,), NULL)
    assert (mixture.log_prob(x, level, every) - mixture.log_prob(x, level)).abs().max() < 1e-14
    first = dist.Normal(
        torch.tensor(-level.alpha, dtype=F64), math.sqrt(0.09 * level.alpha**2 + level.sigma**2)
    )
    assert (
        mixture.log_prob(x, level, torch.zeros(6, dtype=torch.long)) - first.log_prob(x)[:, 0]
    ).abs().max() < 1e-12
    mixed = mixture.log_prob(x, level, torch.tensor([0, 1, NULL] * 2))
    for i, label in enumerate([0, 1, NULL] * 2):
        assert mixed[i] == mixture.log_prob(x[i : i + 1], level, torch.tensor([label]))
    # Bayes: p(x) = Σ_c p(c) p(x|c), with p(0) = .5
    joint = torch.stack(
        [mixture.log_prob(x, level, torch.full((6,), c)) + math.log(0.5) for c in (0, 1)]
    )
    assert (joint.logsumexp(0) - mixture.log_prob(x, level)).abs().max() < 1e-13


@NAMED
def test_samples_have_the_mixture_s_moments(mixture):
    """Five standard errors for each of 5 moments and the K weights: false alarms below 1e-5 a
    mixture.
    """
    n = 20000
    x, label = mixture.sample(n, Draw(0))
    mean = mixture.weights @ mixture.means
    second = torch.einsum(
        "k,ki,kj->ij", mixture.weights, mixture.means, mixture.means
    ) + torch.eye(2) * (mixture.weights @ mixture.stds**2)
    assert x.dtype == F64 and x.shape == (n, 2)
    assert ((x.mean(0) - mean).abs() < 5 * x.std(0) / n**0.5).all()
    products = torch.einsum("ni,nj->nij", x, x)
    assert ((products.mean(0) - second).abs() < 5 * products.std(0) / n**0.5).all()
    for c in mixture.labels.unique():
        p = mixture.weights[mixture.labels == c].sum().item()
        assert abs((label == c).double().mean().item() - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_class_probabilities_sum_to_one_and_are_those_of_the_draws():
    """A reliability check: among 20000 draws, those of class 1 less their predicted number; 5
    standard errors, false alarms below 1e-6.
    """
    mixture, level = labelled(), vp().at(0.4)
    x0, label = mixture.sample(20000, Draw(0))
    x = level.alpha * x0 + level.sigma * Draw(1).normal(x0)
    p = [mixture.class_prob(x, level, torch.full_like(label, c)) for c in (0, 1, NULL)]
    assert (p[0] + p[1] - 1).abs().max() < 1e-12 and (p[2] - 1).abs().max() < 1e-12
    for inside in (p[1] < 0.3, (p[1] > 0.3) & (p[1] < 0.7), p[1] > 0.7):
        gap = (label[inside] == 1).double() - p[1][inside]
        assert inside.sum() > 500 and gap.mean().abs() < 5 * gap.std() / inside.sum() ** 0.5
    # x says nothing: what is left is the prior
    unequal = Mixture(torch.tensor([0.9, 0.1]), torch.zeros(2, 1), torch.ones(2))
    assert unequal.class_prob(
        normals(4, 1), level, torch.tensor([0, 1, 0, 1])
    ).tolist() == pytest.approx([0.9, 0.1, 0.9, 0.1])


@pytest.mark.parametrize("omega", [-1.0, 0.0, 1.0, 6.5])
def test_samples_of_the_guidance_tilt_have_its_moments(omega):
    """Mean, second moments and doubt against quadrature of `log_guidance_tilt`; 5 standard errors,
    false alarms below 1e-5.
    """
    mixture, level, n = labelled(), vp().at(0.1), 20000
    axis = torch.linspace(-4, 4, 161, dtype=F64)
    mesh = torch.cartesian_prod(axis, axis)
    mass = mixture.log_guidance_tilt(
        mesh, level, torch.ones(len(mesh), dtype=torch.int64), omega
    ).softmax(0)
    x = mixture.guidance_tilt_sample(n, level, 1, omega, Draw(0))
    assert x.shape == (n, 2) and x.dtype == F64
    doubt = lambda x: 1 - mixture.class_prob(x, level, torch.ones(len(x), dtype=torch.int64))
    for value in (
        lambda x: x[:, 0],
        lambda x: x[:, 1],
        lambda x: x[:, 0] * x[:, 1],
        lambda x: x[:, 0] ** 2,
        lambda x: x[:, 1] ** 2,
        doubt,
    ):
        assert (value(x).mean() - mass @ value(mesh)).abs() < 5 * value(x).std() / n**0.5


@pytest.mark.parametrize(
    "old, new",
    [
        ("** (1 + omega)", "** omega"),
        ("** (1 + omega)", "** (2 + omega)"),
        ("+ level.sigma", "+ 2 * level.sigma"),
        ("draw.uniform(n) <", "draw.uniform(n) >"),
    ],
)
def test_a_slip_in_the_guidance_tilt_is_caught(monkeypatch, old, new):
    monkeypatch.setattr(
        Mixture, "guidance_tilt_sample", mutant(Mixture.guidance_tilt_sample, old, new)
    )
    with pytest.raises(AssertionError):
        test_samples_of_the_guidance_tilt_have_its_moments(1.0)


def test_a_guidance_tilt_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="wanted omega ≥ −1"):
        labelled().guidance_tilt_sample(3, vp().at(0.1), 1, -1.5, Draw(0))
    with pytest.raises(ValueError, match="label 7 is none of"):
        labelled().guidance_tilt_sample(3, vp().at(0.1), 7, 1.0, Draw(0))


@pytest.mark.parametrize("t", [0.15, 0.5])
def test_posterior_samples_have_the_posterior_s_moments(t):
    """Mean and covariance against Tweedie's two identities; 5 standard errors, false alarms
    below 1e-5.
    """
    mixture, level, n = appendix_a(), vp().at(t), 20000
    x = torch.tensor([0.3, 0.1], dtype=F64)
    hessian = torch.autograd.functional.hessian(lambda z: mixture.log_prob(z[None], level)[0], x)
    (score,) = torch.autograd.functional.jacobian(lambda z: mixture.log_prob(z[None], level), x)
    mean = (x + level.sigma**2 * score) / level.alpha
    covariance = level.sigma**2 / level.alpha**2 * (torch.eye(2) + level.sigma**2 * hessian)
    draws = mixture.posterior_sample(x.expand(n, 2), level, Draw(3))
    centred = draws - mean
    products = torch.einsum("ni,nj->nij", centred, centred)
    assert (centred.mean(0).abs() < 5 * draws.std(0) / n**0.5).all()
    assert ((products.mean(0) - covariance).abs() < 5 * products.std(0) / n**0.5).all()


def test_posterior_samples_keep_to_their_label():
    mixture = three_far()
    x, label = torch.zeros(500, 2, dtype=F64), torch.arange(500) % 3
    draws = mixture.posterior_sample(x, vp().at(0.95), Draw(0), label)
    # modes are 8 apart, 0.4 wide
    assert torch.equal(torch.cdist(draws, mixture.means).argmin(1), label)


@pytest.mark.parametrize("name", list(MIXTURES))
def test_finite_and_right_at_the_singular_ends(name):
    mixture, x = MIXTURES[name](), normals(20, 2)
    x0, eps = mixture.posterior_means(x, CLEAN)
    assert torch.allclose(x0, x, rtol=1e-14) and (eps == 0).all()
    x0, eps = mixture.posterior_means(x, flow().at(1.0))
    assert torch.allclose(
        x0, (mixture.weights @ mixture.means).expand(20, 2), atol=1e-14
    ) and torch.allclose(eps, x, rtol=1e-14)
    assert torch.equal(mixture.posterior_sample(x, CLEAN, Draw(0)), x) or torch.allclose(
        mixture.posterior_sample(x, CLEAN, Draw(0)), x
    )
    far = 1e3 * x
    assert (
        mixture.log_prob(far, vp().at(0.01)).isfinite().all()
        and mixture.posterior_means(far, vp().at(0.01))[0].isfinite().all()
    )


def test_levels_differing_by_row():
    mixture, x, t = appendix_a(), normals(3, 2), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    together = mixture.log_prob(x, vp().at(t, like=x))
    alone = torch.stack(
        [mixture.log_prob(x[i : i + 1], vp().at(t[i].item()))[0] for i in range(3)]
    )
    assert (together - alone).abs().max() < 1e-13


def test_float32_points_give_float32_answers():
    x = normals(4, 2).float()
    single, double = (
        appendix_a().log_prob(x, vp().at(0.3)),
        appendix_a().log_prob(x.double(), vp().at(0.3)),
    )
    assert single.dtype == torch.float32 and (single - double).abs().max() < 1e-5


@pytest.mark.parametrize("weights", [[0.3, 0.3, 0.2, 0.2], [0.7, 0.1, 0.1, 0.1]])
def test_float32_weights_still_sum_to_one(weights):
    mixture = Mixture(torch.tensor(weights), normals(4, 1).float(), torch.ones(4))
    assert mixture.weights.sum().item() == pytest.approx(1, abs=1e-14)


BAD = {
    "shapes": (
        lambda: Mixture(torch.ones(2) / 2, torch.zeros(3, 2), torch.ones(2)),
        r"wanted \(K,\), \(K, d\) and \(K,\)",
    ),
    "sum": (
        lambda: Mixture(torch.ones(2), torch.zeros(2, 2), torch.ones(2)),
        "divide the weights by their sum",
    ),
    "std": (
        lambda: Mixture(torch.ones(2) / 2, torch.zeros(2, 2), torch.zeros(2)),
        "stds must be positive",
    ),
    "dim": (
        lambda: appendix_a().log_prob(torch.zeros(4, 3), CLEAN),
        r"x has shape \(4, 3\), wanted \(B, 2\)",
    ),
    "label": (
        lambda: appendix_a().log_prob(torch.zeros(2, 2), CLEAN, torch.tensor([0, 7])),
        r"label 7 is none of \[0, 1, 2\]",
    ),
    "labels": (
        lambda: Mixture(
            torch.ones(2) / 2, torch.zeros(2, 2), torch.ones(2), labels=torch.tensor([0])
        ),
        "labels",
    ),
}


@pytest.mark.parametrize("call, message", BAD.values(), ids=list(BAD))
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_point_lies_in_the_nearest_mode_counted_in_its_own_standard_deviations():
    mixture = Mixture(
        torch.tensor([0.5, 0.5]), torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.tensor([0.5, 2.0])
    )
    x = torch.tensor([[1.4, 0.0], [0.5, 0.0], [-1.4, 0.0], [-2.5, 0.0], [9.9, 0.0], [10.1, 0.0]])
    assert mixture.modes_of(x).tolist() == [1, 0, 1, -1, 1, -1]
    assert mixture.modes_of(x, within=1.0).tolist() == [-1, 0, -1, -1, -1, -1]


def test_shares_count_the_points_of_each_mode_and_leave_out_the_rest():
    mixture = Mixture(
        torch.ones(3) / 3, torch.tensor([[0.0], [4.0], [9.0]]), torch.tensor([0.5, 0.5, 0.5])
    )
    assert mixture.shares(torch.tensor([[0.1], [3.0], [4.2], [6.7]])).tolist() == [0.25, 0.5, 0.0]
    assert mixture.shares(torch.tensor([[0.1], [3.0], [4.2], [6.7]]), within=1.0).tolist() == [
        0.25,
        0.25,
        0.0,
    ]


def test_the_share_of_its_own_samples_that_lie_in_a_mode():
    """1 − e^{−9/2} = 0.98889 of 40 000, within five standard errors; the modes of three_far
    are too far apart to mix.
    """
    k = three_far().modes_of(three_far().sample(40_000, Draw(3))[0])
    assert (k >= 0).double().mean().item() == pytest.approx(
        1 - math.exp(-4.5), abs=5 * (0.989 * 0.011 / 40_000) ** 0.5
    )
    assert torch.bincount(k[k >= 0]) / 40_000 == pytest.approx(
        three_far().weights * 0.98889, abs=5 * 0.5 / 200
    )


def test_the_distribution_function_on_a_line_is_the_integral_of_the_density():
    x, level = torch.linspace(-9, 9, 3001, dtype=F64)[:, None], vp().at(0.3)
    mixture = line()
    total = torch.cumulative_trapezoid(mixture.log_prob(x, level).exp(), x[:, 0])
    assert (mixture.cdf(x, level)[1:] - total).abs().max() < 1e-5
    with pytest.raises(ValueError, match="cdf is for one dimension"):
        gmm5().cdf(torch.zeros(1, 2), level)
