"""Score distillation against closed forms, quadrature and finite samples whose moments are
exact.
"""

import itertools
import math

import pytest
import torch
from truth import F64, line, mutant, normals

from dlib import Batch, Denoiser, Draw, Mixture, discrete, exact, scaled_linear, sds, vp, vsd
from dlib.losses import denoising, fake_score, score_distillation as sd, uniform_times, weights
from dlib.nets import MLP

SCHEDULE = vp()
LEVEL = SCHEDULE.at_lam(math.log(0.8 / 0.6))  # α = 0.8, σ = 0.6


class Given(Draw):
    """Draws that are handed in: the noise of the single normal that is asked for."""

    def __init__(self, noise):
        self.noise = noise

    def normal(self, like):
        return self.noise.to(like)


def at(t):
    """Fixed times: one for all, or a tensor with one a sample."""
    return lambda draw, n: torch.as_tensor(t, dtype=F64).expand(n)


def normal(mean, std):
    """Data N(mean, std²) in one dimension."""
    return exact(
        Mixture(torch.ones(1), torch.tensor([[mean]], dtype=F64), torch.tensor([std], dtype=F64)),
        SCHEDULE,
    )


# Four points with the moments of two independent normals up to order 3: averages of quadratics
# over them are exact.
Z, EPS = (
    torch.tensor(column, dtype=F64)[:, None]
    for column in zip(*itertools.product((-1.0, 1.0), repeat=2))
)


def affine_gradient(loss, m, s, t=LEVEL.t):
    """(∂/∂m, ∂/∂s) that `loss` gives the student x = m + s z."""
    m, s = (torch.tensor(value, dtype=F64, requires_grad=True) for value in (m, s))
    value = loss(Batch(m + s * Z), Given(EPS), times=at(t)).value
    return [g.item() for g in torch.autograd.grad(value, (m, s))]


REFERENCE = {"m": 0.7, "s": 0.5}, {"mean": -0.4, "std": 1.3}


def vsd_gaussians(m, s, mean, std, weight=sd.kl, t=LEVEL.t):
    return affine_gradient(
        lambda *a, **k: vsd(normal(mean, std), normal(m, s), *a, weight=weight, **k), m, s, t
    )


def test_vsd_is_the_gradient_of_the_divergence_of_two_gaussians():
    """w = α/σ: ∂KL/∂m = α²(m − μ)/v_q and ∂KL/∂s = α²s(1/v_q − 1/v_p), v = α²·variance + σ²."""
    assert vsd_gaussians(0.7, 0.5, -0.4, 1.3) == pytest.approx(
        [0.4883462819, -0.3934090327], abs=2e-10
    )
    for m, s, mean, std, t in ((0.0, 2.0, 1.0, 0.3, 0.1), (-1.0, 0.1, 0.5, 0.5, 0.9)):
        alpha, sigma = SCHEDULE.at(t).alpha, SCHEDULE.at(t).sigma
        v_p, v_q = alpha**2 * s**2 + sigma**2, alpha**2 * std**2 + sigma**2
        want = [alpha**2 * (m - mean) / v_q, alpha**2 * s * (1 / v_q - 1 / v_p)]
        assert vsd_gaussians(m, s, mean, std, t=t) == pytest.approx(want, rel=1e-9)


def test_sds_is_the_gradient_of_the_cross_entropy():
    """w = α/σ: ∂CE/∂m = α²(m − μ)/v_q, as in KL, but ∂CE/∂s = α²s/v_q > 0 for every s: it
    shrinks every student.
    """
    found = affine_gradient(
        lambda *a, **k: sds(normal(-0.4, 1.3), *a, weight=sd.kl, **k), 0.7, 0.5
    )
    v_q = 0.64 * 1.69 + 0.36
    assert found == pytest.approx([0.64 * 1.1 / v_q, 0.64 * 0.5 / v_q], abs=1e-10)


@pytest.mark.parametrize(
    "weight, factor", [(sd.variance, 0.36 / (0.8 / 0.6)), (sd.on_x0, (0.6 / 0.8) ** 2)]
)
def test_weights_only_scale_a_level(weight, factor):
    exact_gradient = vsd_gaussians(0.7, 0.5, -0.4, 1.3)
    assert vsd_gaussians(0.7, 0.5, -0.4, 1.3, weight) == pytest.approx(
        [factor * g for g in exact_gradient], rel=1e-9
    )


def test_diff_instruct_s_gradient_is_the_difference_of_the_clean_predictions():
    x, real, fake = normals(5, 1).requires_grad_(), exact(line(), SCHEDULE), normal(0.3, 0.8)
    noise = normals(5, 1, seed=1)
    vsd(real, fake, Batch(x), Given(noise), sd.on_x0, at(0.5)).value.backward()
    level = SCHEDULE.at(0.5)
    x_t = level.alpha * x.detach() + level.sigma * noise
    torch.testing.assert_close(
        5 * x.grad, fake(x_t, level).x0 - real(x_t, level).x0, rtol=1e-9, atol=1e-12
    )


def atoms(theta):
    """A generator over seven values of z: θ₀ + θ₁z + θ₂z² + θ₃ sin 2z."""
    z = torch.linspace(-1.5, 1.5, 7, dtype=F64)
    return torch.stack([torch.ones_like(z), z, z**2, (2 * z).sin()], 1) @ theta


def log_p(x0, x, level):
    """log of the mixture of N(α x0_k, σ²) at x, by hand."""
    joint = -0.5 * ((x[:, None] - level.alpha * x0) / level.sigma) ** 2 - math.log(
        level.sigma * math.sqrt(2 * math.pi) * len(x0)
    )
    return torch.logsumexp(joint, 1)


@pytest.mark.parametrize("divergence", ["kl", "cross entropy"])
def test_against_the_divergence_by_quadrature(divergence):
    """A student of seven atoms has p_t in closed form: no network, no formula of dlib on the
    other side.
    """
    theta = torch.tensor([0.3, 0.8, -0.2, 0.5], dtype=F64, requires_grad=True)
    q, level = line(), LEVEL
    grid = torch.linspace(-9, 9, 6001, dtype=F64)
    log_q = q.log_prob(grid[:, None], level)
    p = log_p(atoms(theta), grid, level)
    entropy_part = p if divergence == "kl" else torch.zeros_like(p)
    (want,) = torch.autograd.grad(torch.trapezoid(p.exp() * (entropy_part - log_q), grid), theta)

    eps = torch.linspace(-9, 9, 401, dtype=F64)
    # the trapezoid rule of normal noise, for each atom
    mass = torch.softmax(-0.5 * eps**2, 0).repeat(7)[:, None] / 7
    x = atoms(theta).repeat_interleave(401)[:, None]
    fake = exact(
        Mixture(torch.full((7,), 1 / 7), atoms(theta.detach())[:, None], torch.full((7,), 1e-7)),
        SCHEDULE,
    )
    draw, real = Given(eps.repeat(7)[:, None]), exact(q, SCHEDULE)
    loss = (
        vsd(real, fake, Batch(x), draw, sd.kl, at(level.t))
        if divergence == "kl"
        else sds(real, Batch(x), draw, sd.kl, at(level.t))
    )
    (each,) = torch.autograd.grad(loss.value, x, retain_graph=True)
    (found,) = torch.autograd.grad(x, theta, each * len(x) * mass)
    assert want.norm() > 0.1
    torch.testing.assert_close(found, want, rtol=1e-8, atol=1e-10)


def descend(loss, steps=100, rate=2.0):
    """(m, s) after descending from (0.7, 0.5) by the exact gradient, averaged over seven
    times.
    """
    m, s = (torch.tensor(value, dtype=F64, requires_grad=True) for value in (0.7, 0.5))
    times = torch.linspace(0.1, 0.7, 7, dtype=F64).repeat_interleave(4)
    for _ in range(steps):
        value = loss(
            Batch((m + s * Z).repeat(7, 1)),
            Given(EPS.repeat(7, 1)),
            times=at(times),
            student=(m.item(), s.item()),
        ).value
        gradients = torch.autograd.grad(value, (m, s))
        with torch.no_grad():
            m -= rate * gradients[0]
            s -= rate * gradients[1]
    return m.item(), s.item()


def test_sds_shrinks_the_student_to_a_point_and_vsd_finds_the_data():
    real = normal(-0.4, 0.9)
    m, s = descend(lambda *a, student, **k: sds(real, *a, weight=sd.variance, **k))
    assert m == pytest.approx(-0.4, abs=1e-6) and abs(s) < 1e-6
    m, s = descend(
        lambda *a, student, **k: vsd(
            real, normal(student[0], max(student[1], 1e-9)), *a, weight=sd.variance, **k
        )
    )
    assert (m, s) == pytest.approx((-0.4, 0.9), abs=1e-6)


def test_vsd_of_the_data_is_exactly_zero_and_sds_is_not():
    x = normals(6, 1).requires_grad_()
    vsd(
        normal(0.2, 0.7), normal(0.2, 0.7), Batch(x), Draw(0), sd.kl, uniform_times(0.02, 0.98)
    ).value.backward()
    assert not x.grad.any()
    assert (
        min(
            affine_gradient(
                lambda *a, **k: sds(normal(0.2, 0.7), *a, weight=sd.kl, **k), 0.2, 0.7
            )[1:]
        )
        > 0.1
    )


def networks(predicts="eps"):
    torch.manual_seed(0)
    nets = [MLP(3, width=16, depth=1) for _ in range(3)]
    for net in nets:
        torch.nn.init.normal_(net.leave.weight)
    return [Denoiser(net, SCHEDULE, predicts) for net in nets]


@pytest.mark.parametrize("predicts", ["eps", "v", "x0"])
def test_the_gradient_is_G_for_each_sample_whatever_the_batch(predicts):
    """To the last bit, far from zero too; and a batch's gradient is the mean of those of its
    parts.
    """
    _, real, fake = networks(predicts)
    x = (100 + torch.randn(8, 3, generator=torch.Generator().manual_seed(1))).requires_grad_()
    noise, times = (
        torch.randn(8, 3, generator=torch.Generator().manual_seed(2)),
        torch.linspace(0.1, 0.8, 8),
    )
    vsd(real, fake, Batch(x), Given(noise), sd.variance, lambda draw, n: times).value.backward()
    level = SCHEDULE.at(times, like=x)
    with torch.no_grad():
        x_t = level.alpha * x + level.sigma * noise
        gradient = level.sigma**2 * (real(x_t, level).eps - fake(x_t, level).eps)
    assert torch.equal(8 * x.grad, gradient)
    (plain,) = torch.autograd.grad(
        sds(real, Batch(x), Given(noise), sd.variance, lambda draw, n: times).value, x
    )
    with torch.no_grad():
        assert torch.equal(8 * plain, level.sigma**2 * (real(x_t, level).eps - noise))
    whole, x.grad = x.grad, None
    for i in range(0, 8, 2):
        part = slice(i, i + 2)
        loss = vsd(
            real,
            fake,
            Batch(x[part]),
            Given(noise[part]),
            sd.variance,
            lambda draw, n, part=part: times[part],
        )
        (loss.value / 4).backward()
    torch.testing.assert_close(x.grad, whole, rtol=1e-4, atol=1e-7)


def test_the_value_and_the_metrics():
    _, real, fake = networks()
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = vsd(real, fake, Batch(x), Draw(0), sd.variance, at(0.5))
    (each,) = torch.autograd.grad(loss.value, x)
    gradient = 8 * each
    assert (
        loss.value.item()
        == pytest.approx(0.5 * gradient.square().sum(1).mean().item(), rel=1e-6)
        == loss.metrics["loss"].item()
    )
    assert loss.metrics["gradient"].item() == pytest.approx(
        gradient.norm(dim=1).mean().item(), rel=1e-6
    )
    assert loss.metrics["gap"].item() == pytest.approx(
        (gradient / SCHEDULE.at(0.5).sigma ** 2).square().mean().sqrt().item(), rel=1e-5
    )
    assert loss.metrics["spread"].item() == pytest.approx(
        x.std(0, unbiased=False).mean().item(), rel=1e-6
    )
    assert not any(value.requires_grad for value in loss.metrics.values())
    assert vsd(real, fake, Batch(x[:1]), Draw(0), sd.variance, at(0.5)).metrics["spread"] == 0


def test_each_loss_reaches_its_own_network_only():
    student, real, fake = networks()
    parameters = lambda model: list(model.net.parameters())
    x = student(normals(5, 3).float(), SCHEDULE.at(0.9)).x0
    vsd(real, fake, Batch(x), Draw(0), sd.variance, at(0.5)).value.backward(retain_graph=True)
    assert all(p.grad is not None for p in parameters(student)) and all(
        p.grad is None for p in parameters(real) + parameters(fake)
    )
    for p in parameters(student):
        p.grad = None
    fake_score(fake, Batch(x), Draw(0), weights.eps, at(0.5)).value.backward()
    assert all(p.grad is None for p in parameters(student) + parameters(real)) and any(
        p.grad.any() for p in parameters(fake)
    )


def test_the_fake_score_is_denoising_and_finds_the_student_s_law():
    """Of all N(m, s²) the loss is least, on the same draws, at the samples' own moments."""
    x = 0.3 + 0.7 * normals(20000, 1)
    loss = lambda m, s: fake_score(
        normal(m, s), Batch(x), Draw(1), weights.eps, uniform_times(0.1, 0.9)
    ).value.item()
    assert (
        loss(0.3, 0.7)
        == denoising(
            normal(0.3, 0.7), Batch(x), Draw(1), weights.eps, uniform_times(0.1, 0.9)
        ).value.item()
    )
    assert all(
        loss(m, s) > loss(0.3, 0.7) + 1e-3
        for m, s in ((0.1, 0.7), (0.5, 0.7), (0.3, 0.5), (0.3, 0.9))
    )


MUTANTS = [
    (
        vsd,
        "real(x_t, level, batch.cond).eps - fake(x_t, level, batch.cond).eps",
        "fake(x_t, level, batch.cond).eps - real(x_t, level, batch.cond).eps",
    ),
    (vsd, "torch.no_grad()", "torch.enable_grad()"),
    (sds, ".eps - noise", ".eps + noise"),
    (sds, ".eps - noise", ".eps"),
    (fake_score, "batch.x0.detach()", "batch.x0"),
    (sd.injected, "(x - x.detach())", "(x.detach() - x)"),
    (sd.injected, "(x - x.detach())", "x"),
    (sd.injected, "gradient.detach()", "gradient.detach() * (x / x.detach())"),
    (
        sd._noised,
        "level.alpha * x0 + level.sigma * noise",
        "level.alpha * x0 - level.sigma * noise",
    ),
    (sd._loss, ".mean()\n    return", ".sum()\n    return"),
    (sd._loss, "weight * gap", "gap"),
]


@pytest.mark.parametrize("function, old, new", MUTANTS)
def test_a_slip_is_caught(monkeypatch, function, old, new):
    """Signs, stop-gradients, noise, reductions: at least one of the tests above fails for
    each.
    """
    scope = globals() if function.__name__ in globals() else vars(sd)
    monkeypatch.setitem(scope, function.__name__, mutant(function, old, new))
    checks = (
        test_vsd_is_the_gradient_of_the_divergence_of_two_gaussians,
        test_sds_is_the_gradient_of_the_cross_entropy,
        lambda: test_the_gradient_is_G_for_each_sample_whatever_the_batch("v"),
        test_the_value_and_the_metrics,
        test_each_loss_reaches_its_own_network_only,
    )
    assert any(fails(check) for check in checks)


def fails(check):
    try:
        check()
    except (AssertionError, RuntimeError):
        return True
    return False


def test_the_one_step_answer_of_stable_diffusion_is_taken_in_float32():
    """x₀ = (z − σε)/α at t = 1, α² = 0.0047: rounding is multiplied by 15 and no more, in half
    precision too.
    """
    schedule = discrete(scaled_linear())
    level = schedule.at(1.0)
    assert level.alpha**2 == pytest.approx(0.0047, abs=5e-5)
    z, raw = (torch.randn(64, 4, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    want = (z.double() - level.sigma * raw.double()) / level.alpha
    found = Denoiser(lambda x, t, c: raw, schedule, "eps")(z, level).x0
    assert (
        found.dtype == torch.float32
        and (found - want).abs().max() < 4 * 2**-24 * 15 * (z.abs() + raw.abs()).max()
    )
    half = Denoiser(lambda x, t, c: raw.bfloat16(), schedule, "eps")(z, level).x0
    assert half.dtype == torch.float32
    torch.testing.assert_close(
        half.double(),
        (z.double() - level.sigma * raw.bfloat16().double()) / level.alpha,
        rtol=1e-5,
        atol=1e-5,
    )


def test_bad_input():
    _, real, fake = networks()
    with pytest.raises(ValueError, match="brings its own noise"):
        vsd(
            real, fake, Batch(torch.zeros(2, 3), noise=torch.zeros(2, 3)), Draw(0), sd.kl, at(0.5)
        )
