"""Score matching: gaps that are constants, sliced estimators with known variances, Tweedie,
energies, broken copies.
"""

import math

import pytest
import torch
from truth import F64, gaussian, line, mutant, normals

from dlib import CLEAN, Batch, Draw, Mixture, denoising_score_matching, edm, energy_score, exact
from dlib.losses import explicit, implicit, score_matching, sliced, sliced_vr

SIGMA = 0.5
SMOOTHED = edm().at_lam(-math.log(SIGMA))  # α = 1, σ = ½
SCORES = {
    "tanh": lambda x: -torch.tanh(x + 0.3),
    "wave": lambda x: torch.sin(2 * x) - x / 3,
    "line": lambda x: 0.4 - 0.8 * x,
}


def log_score(mixture, level=CLEAN):
    return energy_score(lambda x: -mixture.log_prob(x, level))


def expectation(mixture, level, loss, step=0.08):
    """E_p loss(Batch(x)) in one dimension by the trapezoid rule, which is spectrally accurate
    for what falls off so fast.
    """
    x = torch.arange(-9, 9, step, dtype=F64)[:, None]
    mass = mixture.log_prob(x, level).exp() * step
    return sum(w * loss(Batch(point[None])).value.item() for w, point in zip(mass.tolist(), x))


def double_expectation(mixture, loss, step_x=0.125, step_z=0.3125):
    """E over x₀ ~ p and z ~ N(0, 1), by the same rule in the plane."""
    x, z = torch.arange(-5, 5, step_x, dtype=F64), torch.arange(-8, 8, step_z, dtype=F64)
    mass_x = mixture.log_prob(x[:, None], CLEAN).exp() * step_x
    mass_z = torch.exp(-0.5 * z**2) * step_z / math.sqrt(2 * math.pi)
    return sum(
        a * b * loss(Batch(u.reshape(1, 1), noise=v.reshape(1, 1))).value.item()
        for a, u in zip(mass_x.tolist(), x)
        if a > 1e-14
        for b, v in zip(mass_z.tolist(), z)
    )


def information(mixture, level):
    """½ E ‖∇ log p‖²: the constant between explicit and the others."""
    truth = log_score(mixture, level)
    return expectation(mixture, level, lambda batch: explicit(lambda x: 0 * x, batch, truth))


def implicit_gaps():
    mixture = line()
    truth = log_score(mixture)
    return [
        expectation(mixture, CLEAN, lambda batch: implicit(s, batch))
        - expectation(mixture, CLEAN, lambda batch: explicit(s, batch, truth))
        for s in SCORES.values()
    ]


def test_implicit_is_explicit_minus_a_constant():
    """Hyvärinen 2005, theorem 1, by quadrature: three different scores, one gap, and the gap
    is −½ E‖∇ log p‖².
    """
    assert implicit_gaps() == pytest.approx([-information(line(), CLEAN)] * 3, abs=1e-9)


def denoising_gaps():
    mixture = line()
    truth = log_score(mixture, SMOOTHED)
    return [
        double_expectation(
            mixture, lambda batch: denoising_score_matching(s, batch, Draw(0), SIGMA)
        )
        - expectation(mixture, SMOOTHED, lambda batch: explicit(s, batch, truth))
        for s in list(SCORES.values())[:2]
    ]


def test_denoising_is_explicit_on_the_smoothed_density_plus_a_constant():
    """Vincent 2011: E‖z/σ‖² = 1/σ², so the gap is ½/σ² − ½ E_σ‖∇ log p_σ‖²; by quadrature in
    (x₀, z).
    """
    assert denoising_gaps() == pytest.approx(
        [0.5 / SIGMA**2 - information(line(), SMOOTHED)] * 2, abs=1e-9
    )


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)])
def test_the_trace_is_that_of_the_jacobian(shape):
    x = normals(5, *shape)
    weight = normals(x[0].numel(), x[0].numel(), seed=1)
    score = lambda x: torch.tanh(x.flatten(1) @ weight.T).view_as(x)
    jacobian = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda row: score(row[None])[0], row).reshape(
                len(weight), -1
            )
            for row in x
        ]
    )
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1).mean()
    loss = implicit(score, Batch(x))
    assert loss.metrics["trace"].item() == pytest.approx(trace.item(), rel=1e-12)
    assert loss.value.item() == pytest.approx(
        (0.5 * score(x).square().flatten(1).sum(1).mean() + trace).item(), rel=1e-12
    )


J = torch.tensor([[0.9, 0.5, -0.2], [0.1, -1.1, 0.7], [0.4, -0.3, 0.6]], dtype=F64)
DIRECTIONS = {"rademacher": score_matching.rademacher, "gaussian": score_matching.gaussian}


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("loss", [sliced, sliced_vr])
def test_sliced_is_unbiased_for_implicit(loss, name):
    """200 000 directions at one x: within 4.5 standard errors, false alarms below 1e-5 a case."""
    n, linear = 200_000, lambda x: x @ J.T
    x = torch.tensor([[0.3, -0.5, 0.8]], dtype=F64)
    goal = implicit(linear, Batch(x)).value.item()
    estimates = torch.tensor(
        [
            loss(linear, Batch(x.expand(n // 20, 3)), Draw(k), DIRECTIONS[name]).value.item()
            for k in range(20)
        ]
    )
    v = DIRECTIONS[name](Draw(99), x.expand(n, 3))
    s = linear(x)[0]
    part = (v @ s).square() / 2 if loss is sliced else 0.5 * s.square().sum()
    error = ((v @ J * v).sum(1) + part).std().item() / math.sqrt(n)
    assert abs(estimates.double().mean().item() - goal) < 4.5 * error


def variances(quadratic):
    """Var vᵀSv for both kinds of direction, from 200 000 draws."""
    x = normals(1, 3).expand(200_000, 3).clone().requires_grad_()
    return {
        name: quadratic(x @ J.T, x, draw(Draw(3), x.detach())).var().item()
        for name, draw in DIRECTIONS.items()
    }


def test_the_two_variances_of_the_trace():
    """Rademacher 2 Σ_{i≠j} S², Gaussian 2 Σ S², S = sym J: standard errors below 0.6 %, bound
    3 %.
    """
    square = ((J + J.T) / 2).square()
    found = variances(score_matching._quadratic)
    assert found["gaussian"] == pytest.approx(2 * square.sum().item(), rel=0.03)
    assert found["rademacher"] == pytest.approx(
        2 * (square.sum() - square.diagonal().sum()).item(), rel=0.03
    )


def test_signs_are_exact_for_a_diagonal_jacobian_and_in_one_dimension():
    batch = Batch(normals(7, 4))
    diagonal = lambda x: torch.sin(x)
    assert sliced_vr(diagonal, batch, Draw(0)).value.item() == pytest.approx(
        implicit(diagonal, batch).value.item(), rel=1e-12
    )
    one = Batch(normals(7, 1))
    assert sliced(diagonal, one, Draw(0)).value.item() == pytest.approx(
        implicit(diagonal, one).value.item(), rel=1e-12
    )
    signs = score_matching.rademacher(Draw(0), batch.x0)
    assert signs.dtype == F64 and set(signs.unique().tolist()) == {-1.0, 1.0}


def test_the_reduced_variance_is_smaller():
    """SSM minus SSM-VR is ½((vᵀs)² − ‖s‖²): no mean, and noise of its own."""
    score, x = lambda x: 3 + 0.1 * x, normals(1, 6).expand(64, 6)
    spread = {
        loss: torch.tensor([loss(score, Batch(x), Draw(k)).value.item() for k in range(60)])
        .std()
        .item()
        for loss in (sliced, sliced_vr)
    }
    assert spread[sliced] > 5 * spread[sliced_vr]


def test_gaussian_data_have_the_closed_form():
    """N(0, c²I): s(x) = −x/(c²+σ²); at it, ISM = −½d/c², DSM = ½d(1/σ² − 1/(c²+σ²))."""
    c, d, n = 0.7, 3, 200_000
    x0 = c * normals(n, d)
    smooth = exact(gaussian(c, d), edm())(x0, SMOOTHED).score
    assert torch.allclose(smooth, -x0 / (c**2 + SIGMA**2), atol=1e-12)
    assert implicit(lambda x: -x / c**2, Batch(x0)).value.item() == pytest.approx(
        -0.5 * d / c**2, rel=0.01
    )
    dsm = denoising_score_matching(
        lambda x: -x / (c**2 + SIGMA**2), Batch(x0), Draw(0), SIGMA
    ).value.item()
    assert dsm == pytest.approx(0.5 * d * (1 / SIGMA**2 - 1 / (c**2 + SIGMA**2)), rel=0.01)


def test_the_minimiser_of_dsm_is_tweedie():
    """Orthogonality: E[(s* + z/σ)·g(x)] = 0 for any g, so DSM(s* + g) − DSM(s*) = ½E‖g‖²; four
    standard errors of 100 000.
    """
    mixture, n = line(), 100_000
    x0, z = mixture.sample(n, Draw(0))[0], normals(n, 1, seed=1)
    truth = lambda x: (exact(mixture, edm())(x, SMOOTHED).x0 - x) / SIGMA**2
    x = x0 + SIGMA * z
    # Tweedie is the gradient
    assert torch.allclose(truth(x), log_score(mixture, SMOOTHED)(x), atol=1e-9)
    value = lambda s: denoising_score_matching(s, Batch(x0, noise=z), Draw(0), SIGMA).value.item()
    for g in SCORES.values():
        cross = ((truth(x) + z / SIGMA) * g(x)).std().item() / math.sqrt(n)
        assert (
            abs(
                value(lambda x: truth(x) + g(x))
                - value(truth)
                - 0.5 * g(x).square().mean().item()
            )
            < 4 * cross
        )


def net(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1)
    ).double()


@pytest.mark.parametrize(
    "loss",
    [
        implicit,
        lambda s, b: sliced(s, b, Draw(1)),
        lambda s, b: sliced_vr(s, b, Draw(1)),
        lambda s, b: denoising_score_matching(s, b, Draw(1), SIGMA),
        lambda s, b: explicit(s, b, lambda x: -x),
    ],
    ids=["implicit", "sliced", "sliced_vr", "denoising", "explicit"],
)
def test_an_energy_is_trained_through_two_derivatives(loss):
    """d loss / d weight against a finite difference, for every weight of the first layer."""
    model, batch = net(), Batch(normals(16, 2))
    score = energy_score(lambda x: model(x).squeeze(1))
    weight = model[0].weight
    (slope,) = torch.autograd.grad(loss(score, batch).value, weight)
    for i in range(3):
        old, step = weight[i, 0].item(), 1e-5
        values = []
        for new in (old + step, old - step):
            with torch.no_grad():
                weight[i, 0] = new
            values.append(loss(score, batch).value.item())
        with torch.no_grad():
            weight[i, 0] = old
        assert slope[i, 0].item() == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8
        )


def test_an_energy_does_not_know_its_constant_and_is_curl_free():
    mixture = Mixture(
        torch.tensor([0.4, 0.6]),
        torch.tensor([[-1.0, 0.5], [1.0, 0.0]]),
        torch.tensor([0.5, 0.7]),
    )
    x = normals(6, 2)
    with torch.no_grad():
        shifted = energy_score(lambda x: 7 - mixture.log_prob(x, CLEAN))(x)
    assert not shifted.requires_grad and torch.allclose(
        shifted, log_score(mixture)(x), atol=1e-14
    )
    model = net(3)
    jacobian = torch.autograd.functional.jacobian(
        lambda row: energy_score(lambda x: model(x).squeeze(1))(row[None])[0], x[0]
    )
    assert torch.allclose(jacobian, jacobian.T, atol=1e-14) and jacobian[0, 1].abs() > 1e-4


def test_the_batch_is_untouched_and_metrics_are_detached():
    batch = Batch(normals(4, 2))
    for loss in (implicit(SCORES["tanh"], batch), sliced(SCORES["tanh"], batch, Draw(0))):
        assert set(loss.metrics) == {"loss", "trace"} and not any(
            m.requires_grad for m in loss.metrics.values()
        )
        assert loss.metrics["loss"].item() == loss.value.item()
    assert not batch.x0.requires_grad


MUTANTS = [
    (implicit, "+ trace", "- trace", "test_implicit_is_explicit_minus_a_constant"),
    (implicit, "[:, i] for i", "[:, 0] for i", "test_the_trace_is_that_of_the_jacobian"),
    (implicit, "0.5 * columns", "columns", "test_implicit_is_explicit_minus_a_constant"),
    (sliced, "0.5 *", "", "sliced"),
    (sliced, "trace + 0.5", "trace - 0.5", "sliced"),
    (sliced_vr, "0.5 *", "", "sliced_vr"),
    (score_matching._quadratic, "(s * v)", "s", "test_the_two_variances_of_the_trace"),
    (
        score_matching.rademacher,
        "-1.0, 1.0",
        "-1.0, 2.0",
        "test_signs_are_exact_for_a_diagonal_jacobian_and_in_one_dimension",
    ),
    (
        denoising_score_matching,
        "score(x), _one",
        "-score(x), _one",
        "test_the_minimiser_of_dsm_is_tweedie",
    ),
    (
        denoising_score_matching,
        "_one_level(sigma)",
        "_one_level(2 * sigma)",
        "test_the_minimiser_of_dsm_is_tweedie",
    ),
    (
        energy_score,
        "return -_pullback",
        "return _pullback",
        "test_the_minimiser_of_dsm_is_tweedie",
    ),
]


@pytest.mark.parametrize("function, old, new, test", MUTANTS)
def test_a_slip_is_caught(monkeypatch, function, old, new, test):
    broken = mutant(function, old, new)
    monkeypatch.setitem(globals(), function.__name__, broken)
    monkeypatch.setattr(score_matching, function.__name__, broken)
    with pytest.raises(AssertionError):
        if test.startswith("sliced"):
            test_sliced_is_unbiased_for_implicit(globals()[test], "rademacher")
        elif test == "test_the_trace_is_that_of_the_jacobian":
            test_the_trace_is_that_of_the_jacobian((3,))
        else:
            globals()[test]()


def test_bad_input():
    batch, s = Batch(normals(4, 2)), SCORES["tanh"]
    with pytest.raises(ValueError, match="one value a sample, use energy_score"):
        implicit(lambda x: x.sum(1), batch)
    with pytest.raises(ValueError, match="dtype torch.int64"):
        sliced(s, Batch(torch.ones(2, 2, dtype=torch.int64)), Draw(0))
    with pytest.raises(ValueError, match=r"remove torch.no_grad\(\)"):
        implicit(lambda x: s(x).detach(), batch)
    with torch.no_grad(), pytest.raises(ValueError, match="does not depend on x"):
        sliced_vr(s, batch, Draw(0))
    with pytest.raises(ValueError, match=r"energy has shape \(4, 2\)"):
        energy_score(torch.sin)(batch.x0)
    with pytest.raises(ValueError, match="truth has shape"):
        explicit(s, batch, lambda x: x[:1])
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="wanted a positive noise level"):
            denoising_score_matching(s, batch, Draw(0), sigma)
    with pytest.raises(ValueError, match="network returned"):
        denoising_score_matching(lambda x: x[:, :1], batch, Draw(0), 0.5)
    with pytest.raises(ValueError, match="one ε for each"):
        denoising_score_matching(s, Batch(batch.x0, noise=batch.x0[:1]), Draw(0), 0.5)
