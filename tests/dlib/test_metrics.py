"""Metrics: closed forms, invariances, bias laws and noise floors."""

import math

import pytest
import torch
from truth import F64, gaussian, mutant, normals

from dlib import SOLVERS, Denoiser, Draw, exact, levels, metrics, sample, vp
from dlib.metrics import (
    frechet,
    kolmogorov,
    noise_floor,
    order,
    rms,
    sliced_w2,
    typical,
    variance,
)
from toy_data.mixtures import ring8


def turn(x):
    q, _ = torch.linalg.qr(normals(x.shape[1], x.shape[1], seed=77))
    return x @ q


def test_rms_by_hand():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert rms(x, torch.zeros(2, 2)) == pytest.approx(math.sqrt(12.5)) and rms(x, x) == 0
    assert rms(x.reshape(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)) == pytest.approx(math.sqrt(12.5))
    assert rms(turn(x.double()), torch.zeros(2, 2)) == pytest.approx(math.sqrt(12.5))


def test_order_is_minus_the_log_slope():
    assert order({n: 7 * n**-2.5 for n in (10, 30, 90, 270)}) == pytest.approx(2.5)
    steps = torch.tensor([10.0, 20.0, 40.0], dtype=F64).log()
    noisy = {10: 1e-2, 20: 4e-3, 40: 1e-3}
    fit = torch.linalg.lstsq(
        torch.stack([steps, torch.ones(3)], 1).double(),
        torch.tensor(list(noisy.values()), dtype=F64).log()[:, None],
    )
    assert order(noisy) == pytest.approx(-fit.solution[0].item())


def test_variance_of_ddim_on_a_gaussian_is_a_product_of_cosines():
    """Song et al.'s step on N(0, c²) turns by φ = arctan(κ/c) and keeps cos Δφ of the width; a
    sampled cloud agrees to 5 standard errors.
    """
    c, walk = 0.5, levels(vp(), 12, t_min=0.01)
    model, noisy, clean = (
        exact(gaussian(c, 1), vp()),
        *((a.alpha * c) ** 2 + a.sigma**2 for a in (walk[0], walk[-1])),
    )
    angles = [math.atan2(a.sigma, a.alpha * c) for a in walk]
    width = math.prod(math.cos(a - b) for a, b in zip(angles, angles[1:]))
    found = variance(model, walk, SOLVERS["ddim"], noisy)
    assert found == pytest.approx(clean * width**2, rel=1e-12)
    cloud = sample(model, noisy**0.5 * normals(20000, 1), walk, SOLVERS["ddim"])
    assert found == pytest.approx(cloud.var().item(), rel=5 * (2 / 20000) ** 0.5)


@pytest.mark.parametrize("name", ["ancestral", "sde_dpm_solver_pp_2m", "sde_dpm_solver_pp_3m"])
def test_variance_counts_each_step_s_noise_once(name):
    """x₀ = 0 for sure: an exact step of the SDE has variance σ² at every level, whatever the
    steps. Without its noise it falls short.
    """
    walk, zero = (
        levels(vp(), 7, t_min=0.01),
        Denoiser(lambda x, t, cond: torch.zeros_like(x), vp(), "x0"),
    )
    assert variance(zero, walk, SOLVERS[name], walk[0].sigma ** 2) == pytest.approx(
        walk[-1].sigma ** 2, rel=1e-12
    )
    quiet = mutant(metrics.variance, "memory, noise)", "memory, 0 * noise)")
    assert quiet(zero, walk, SOLVERS[name], walk[0].sigma ** 2) < 0.9 * walk[-1].sigma ** 2


def test_sliced_w2_of_two_gaussians():
    """d = 4, means e₁ apart, s = 1 against 1.5: √(¼ + ¼ · 1) = .7071.

    256 directions average u₁² = ¼ to ±.012 (one standard error: 1.7% of SW2); 10⁴ points to
    ±.006: four of them together.
    """
    x, y = normals(10000, 4), 1.5 * normals(10000, 4, seed=1) + torch.tensor([1.0, 0, 0, 0])
    assert sliced_w2(x, y) == pytest.approx(0.7071, abs=0.05)


def test_sliced_w2_is_a_distance_with_symmetries():
    x, y = normals(500, 3), 1.3 * normals(500, 3, seed=1) + 0.2
    assert sliced_w2(x, x) == 0 and sliced_w2(x, y) == sliced_w2(y, x) == sliced_w2(x, y)
    assert sliced_w2(
        x[torch.randperm(500, generator=torch.Generator().manual_seed(0))], y
    ) == pytest.approx(sliced_w2(x, y), rel=1e-12)
    assert sliced_w2(x + 5, y + 5) == pytest.approx(sliced_w2(x, y), rel=1e-9)
    assert sliced_w2(3 * x, 3 * y) == pytest.approx(3 * sliced_w2(x, y), rel=1e-12)
    assert sliced_w2(turn(x), turn(y), directions=1024) == pytest.approx(
        sliced_w2(x, y, directions=1024), rel=0.1
    )
    z = normals(500, 3, seed=2)
    assert sliced_w2(x, y) <= sliced_w2(x, z) + sliced_w2(z, y)
    assert sliced_w2(x[:, :1], y[:, :1]) == pytest.approx(
        (x[:, 0].sort()[0] - y[:, 0].sort()[0]).square().mean().sqrt().item()
    )


def test_sliced_w2_is_bounded_by_the_paired_distance():
    """Pairing is one transport plan, so SW2 ≤ rms/√d, up to the directions: E u uᵀ is I/d only
    on average (10%).
    """
    x = normals(2000, 4)
    for k, size in enumerate((1e-3, 1e-1, 1.0)):
        y = x + size * normals(2000, 4, seed=5 + k)
        assert sliced_w2(x, y) <= 1.1 * rms(x, y) / 2
    shifted = x + 1.0  # a translation is the optimal plan: equality
    assert sliced_w2(x, shifted) == pytest.approx(rms(x, shifted) / 2, rel=0.1)


def test_sliced_w2_floor_falls_as_one_over_root_n():
    draws = iter(range(100, 1000))
    real = lambda n: lambda: normals(n, 64, seed=next(draws))
    (small, spread), (large, _) = (
        noise_floor(sliced_w2, real(1000)),
        noise_floor(sliced_w2, real(4000), repeats=3),
    )
    # measured before, independently: .0789 ± .0029
    assert small == pytest.approx(0.0789, abs=5 * 0.0029) and spread < 0.01
    assert small / large == pytest.approx(2, rel=0.1)


def test_sliced_w2_floor_of_eight_gaussians():
    """Measured before, independently: .111 ± .026 at n = 2000; the mean of 8 repeats lies
    within four of its standard errors (.009).
    """
    draw = Draw(0)
    mean, spread = noise_floor(sliced_w2, lambda: ring8().sample(2000, draw)[0])
    assert mean == pytest.approx(0.111, abs=0.037) and 0.005 < spread < 0.08


def test_frechet_of_two_gaussians():
    """‖m‖² between N(0, I) and N(m, I), and d(s − 1)² under a scale; bias d(d+5)/2n = 1.4e-4."""
    x, y = normals(100000, 3), normals(100000, 3, seed=1)
    assert frechet(x, y + torch.tensor([1.0, -2.0, 0.5])) == pytest.approx(5.25, abs=0.06)
    assert frechet(x, 2 * y) == pytest.approx(3.0, abs=0.06)


def test_frechet_with_known_moments():
    """Two samples whose moments are set exactly: commuting covariances give Σ(√a − √b)², any
    others scipy's matrix root.
    """
    from scipy.linalg import sqrtm

    def with_moments(mean, root, seed):
        x = normals(50, 2, seed=seed)
        x = x - x.mean(0)
        white = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
        return white @ root.T + mean

    roots = [
        torch.tensor([[1.0, 0.0], [0.7, 0.5]], dtype=F64),
        torch.tensor([[2.0, 0.0], [-0.4, 0.3]], dtype=F64),
    ]
    x, y = (
        with_moments(torch.tensor([1.0, 2.0]), roots[0], 0),
        with_moments(torch.tensor([0.0, -1.0]), roots[1], 1),
    )
    a, b = (root @ root.T for root in roots)
    expected = 10 + (a.trace() + b.trace()).item() - 2 * sqrtm((a @ b).numpy()).real.trace()
    assert frechet(x, y) == pytest.approx(expected, rel=1e-9)


def test_frechet_bias_law():
    """E[FD] ≈ d(d+5)/(2n) between two draws of N(0, I_d): d = 64, n = 1000 → 2.208 (measured
    before: 2.198 ± .060), within 5%.
    """
    draws = iter(range(200, 1000))
    mean, _ = noise_floor(frechet, lambda: normals(1000, 64, seed=next(draws)))
    assert mean == pytest.approx(64 * 69 / 2000, rel=0.05)


def test_frechet_symmetries():
    x, y = normals(400, 3), 1.5 * normals(300, 3, seed=1) + 0.3
    assert (
        frechet(x, y)
        == pytest.approx(frechet(y, x), rel=1e-9)
        == pytest.approx(frechet(turn(x), turn(y)), rel=1e-9)
    )
    assert (
        frechet(x + 4, y + 4) == pytest.approx(frechet(x, y), rel=1e-9)
        and abs(frechet(x, x)) < 1e-12
    )
    flat = x * torch.tensor([1.0, 1.0, 0.0])  # a singular covariance must not give NaN
    assert frechet(flat, y) > 0 and frechet(x[:, :1], y[:, :1]) >= 0


def test_noise_floor_is_mean_and_standard_deviation():
    values = iter([1.0, 2.0, 3.0, 6.0])
    mean, spread = noise_floor(lambda a, b: next(values), lambda: torch.zeros(1), repeats=4)
    assert mean == 3 and spread == pytest.approx(math.sqrt(14 / 3))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: rms(torch.zeros(2, 2), torch.zeros(3, 2)), "rms: shapes"),
        (lambda: sliced_w2(torch.zeros(2, 2), torch.zeros(3, 2)), "take equally many points"),
        (
            lambda: frechet(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)),
            r"frechet: features of shape \(2, 2, 2\)",
        ),
        (lambda: frechet(torch.zeros(1, 2), torch.zeros(2, 2)), "with n > 1"),
        (lambda: frechet(torch.zeros(4, 2), torch.zeros(4, 3)), "frechet"),
        (lambda: order({10: 1.0}), "two or more positive errors"),
        (lambda: order({10: 1.0, 20: 0.0}), "positive errors"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_typical_is_the_geometric_mean_of_the_distances():
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    y = torch.tensor([[0.6, 0.8], [3.0, 4.0]])  # distances 1 and 4
    assert typical(x, y) == pytest.approx(2.0, rel=1e-6) and rms(x, y) == pytest.approx(
        (17 / 2) ** 0.5, rel=1e-6
    )


def test_kolmogorov_of_the_midpoints_of_equal_cells_and_of_a_shift():
    n = 100
    even = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert kolmogorov(even.flip(0)) == pytest.approx(0.5 / n**0.5)
    assert kolmogorov(even + 0.2) == pytest.approx(n**0.5 * (0.2 + 0.5 / n))
    assert kolmogorov(even - 0.2) == pytest.approx(n**0.5 * (0.2 + 0.5 / n))
    assert kolmogorov(torch.tensor([0.3])) == pytest.approx(0.7)
    with pytest.raises(ValueError, match="wanted"):
        kolmogorov(torch.zeros(3, 1))
