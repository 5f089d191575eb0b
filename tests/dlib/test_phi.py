"""The ϕ functions against 50 digits (mpmath comes with torch), and the two expansions against
exact integrals.
"""

import math

import mpmath
import pytest
import torch
from truth import F64, SCHEDULES, mutant, normals

from dlib.solvers import expand_eps, expand_x0, phi
from dlib.solvers.exponential import _series, expm1

POINTS = [
    s * h
    for s in (1, -1)
    for h in (
        1e-12,
        1e-6,
        1e-3,
        0.05,
        0.3,
        0.9,
        0.999999,
        1.0,
        1.000001,
        1.3,
        2.0,
        5.0,
        12.0,
        30.0,
    )
]


def high_precision(k, h):
    with mpmath.workdps(60):
        h = mpmath.mpf(h)
        return float((mpmath.exp(h) - sum(h**j / mpmath.factorial(j) for j in range(k))) / h**k)


def worst(function, k):
    return max(abs(function(k, h) / high_precision(k, h) - 1) for h in POINTS)


@pytest.mark.parametrize("k, ulp", [(1, 2e-16), (2, 1e-15), (3, 1e-15)])
def test_floats_to_the_last_digit(k, ulp):
    assert worst(phi, k) <= 2 * ulp
    assert phi(k, 0.0) == 1 / math.factorial(k)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_tensors_are_floats(k):
    h = torch.tensor(POINTS, dtype=F64)
    assert (
        (phi(k, h) / torch.tensor([phi(k, p) for p in POINTS], dtype=F64) - 1).abs() < 2e-15
    ).all()
    single = phi(k, h.float())
    assert (
        single.dtype == torch.float32
        and ((single / phi(k, h.float().double()) - 1).abs() < 2e-6).all()
    )


def test_gradient_of_phi_is_finite_at_zero():
    h = torch.tensor([0.0, 0.5, 2.0], dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(phi(2, h).sum(), h)
    assert slope[0].item() == pytest.approx(1 / 6) and slope.isfinite().all()


def test_expm1():
    """Of tensors to a few last bits: torch's own may round otherwise than the C library's."""
    assert expm1(1e-9) == math.expm1(1e-9)
    assert expm1(torch.tensor(1e-9, dtype=F64)).item() == pytest.approx(
        math.expm1(1e-9), rel=1e-15, abs=0
    )
    assert expm1(-math.inf) == -1


def test_a_truncated_series_is_caught():
    short = mutant(_series, "k + 17", "k + 9")
    assert max(abs(short(2, h) / high_precision(2, h) - 1) for h in POINTS if abs(h) < 1) > 1e-12


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_expansions_integrate_polynomials(name):
    """∫ e^{∓λ} (λ − λ_a)^k / k! dλ by quadrature at 30 digits (the two semi-linear forms)."""
    schedule = SCHEDULES[name]
    a, b = schedule.levels([0.7, 0.35])
    x, derivatives = normals(3, 2), [normals(3, 2, seed=k) for k in (1, 2, 3)]

    def moment(k, sign):
        with mpmath.workdps(30):
            f = lambda lam: mpmath.exp(sign * lam) * (lam - a.lam) ** k / mpmath.factorial(k)
            return float(mpmath.quad(f, [a.lam, b.lam]))

    from_eps = b.alpha / a.alpha * x - b.alpha * sum(
        moment(k, -1) * d for k, d in enumerate(derivatives)
    )
    from_x0 = b.sigma / a.sigma * x + b.sigma * sum(
        moment(k, 1) * d for k, d in enumerate(derivatives)
    )
    for given, expected in (
        (expand_eps(x, a, b, *derivatives), from_eps),
        (expand_x0(x, a, b, *derivatives), from_x0),
    ):
        assert (given - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("k", [0, 47])
def test_an_index_without_coefficients_is_named(k):
    with pytest.raises(ValueError, match=f"phi: k = {k}, wanted 1 ≤ k ≤ 46"):
        phi(k, 0.5)


def test_the_last_index_has_its_whole_series():
    assert phi(46, 0.9) == pytest.approx(
        sum(0.9**n / math.factorial(n + 46) for n in range(25)), rel=1e-14
    )
