"""Forward-mode derivatives and continuous-time consistency against closed forms, differences
and short steps.
"""

import math

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, gaussian, mutant, normals

from dlib import Batch, Denoiser, Draw, counted, discrete, edm, exact, flow, scaled_linear, vp
from dlib.forward_mode import tangent
from dlib.losses import (
    by_norm,
    by_rms,
    consistency_training,
    continuous_consistency,
    continuous_time,
    own,
    taught,
    uniform_times,
)
from dlib.losses.bootstrapping import levels_at
from dlib.losses.continuous_time import angle, as_is, inverse_kappa, trig_velocity, warmup
from dlib.nets import DiT

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
X0, NOISE = normals(8, 2), normals(8, 2, seed=1)


def at_times(schedule, t):
    return levels_at(schedule, torch.full((8,), t, dtype=F64), X0)


def still(t):
    return lambda draw, n: torch.full((n,), t, dtype=F64)


def ended(schedule, c):
    """The consistency function of N(0, c²) down to κ = 0: f = (x/α) c/√(c² + κ²)."""

    def net(x, t, cond):
        level = schedule.at(t, like=x)
        return x * c / ((level.alpha * c) ** 2 + level.sigma**2).sqrt()

    return Denoiser(net, schedule, "x0")


# forward mode


@EVERY
@pytest.mark.parametrize("face", ["x0", "eps", "v"])
def test_the_derivative_is_that_of_differences(schedule, face):
    model, t, h = exact(appendix_a(), schedule), 0.6004, 1e-5
    level, dx = at_times(schedule, t), normals(8, 2, seed=2)
    x, dt = level.alpha * X0 + level.sigma * NOISE, torch.full((8, 1), 0.7, dtype=F64)
    read = lambda said: getattr(said, face)
    value, derivative = tangent(model, x, level, dx, dt, read=read)
    ahead, behind = (read(model(x + s * dx, at_times(schedule, t + s * 0.7))) for s in (h, -h))
    assert torch.allclose(value, read(model(x, level)))
    size = derivative.abs().max()
    assert (derivative - (ahead - behind) / (2 * h)).abs().max() < 1e-5 * size
    broken = mutant(tangent, "s * dt", "s")
    assert not torch.allclose(
        broken(model, x, level, dx, dt, read=read)[1], derivative, rtol=0.01
    )


def test_attention_and_autocast():
    """A DiT with attention to words: the written-out kernel, in full precision whatever the
    caller computes in.
    """
    torch.manual_seed(0)
    net = DiT(8, 3, words=5, length=2, width=16, depth=1, heads=2)
    for weight in net.parameters():
        weight.data += 0.1 * torch.randn_like(weight)  # its last layer starts at zero
    model = Denoiser(net, flow(), "v")
    x, dx = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    level, dt = flow().at(torch.tensor([0.4, 0.7]), like=x), torch.full((2, 1, 1, 1), 0.5)
    cond = torch.tensor([[1, 2], [3, 0]])
    read = lambda said: said.x0
    value, derivative = tangent(model, x, level, dx, dt, cond, read=read)
    with torch.autocast("cpu", torch.bfloat16):
        again = tangent(model, x, level, dx, dt, cond, read=read)
    assert torch.equal(again[0], value) and torch.equal(again[1], derivative)
    net.double()
    x, dx, cond = x.double(), dx.double(), cond
    there = lambda s: read(
        model(x + s * dx, flow().at(torch.tensor([0.4, 0.7]).double() + 0.5 * s, like=x), cond)
    )
    truth = (there(1e-5) - there(-1e-5)) / 2e-5
    assert (derivative - truth).abs().max() < 1e-4 * truth.abs().max()
    assert not derivative.requires_grad


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(x=X0.bfloat16(), dx=X0.bfloat16()), "mostly rounding"),
        (dict(level=flow().at(0.5)), r"a level of float, wanted tensors, .*torch.full\(\(8,\)"),
        (dict(dx=X0[:1]), "one direction a sample"),
        (dict(dt=torch.ones(8)), r"dt is \(8,\), wanted one value .*like level.t \(8, 1\)"),
        (dict(dt=X0), r"dt is \(8, 2\), wanted one value a sample"),
        (dict(dt=torch.ones(1, 8, 1)), r"dt is \(1, 8, 1\)"),
        (dict(dt=1.0), "dt is float"),
        (dict(read=lambda said: said.x0.detach()), "does not depend on x"),
    ],
)
def test_forward_mode_says_what_it_wants(change, words):
    given = dict(x=X0, level=at_times(flow(), 0.5), dx=X0, dt=torch.ones(8, 1, dtype=F64))
    given |= dict(read=lambda said: said.x0)
    with pytest.raises(ValueError, match=words):
        tangent(exact(gaussian(0.5), flow()), **given | change)


def test_one_speed_serves_all_samples():
    model, level = exact(gaussian(0.5), flow()), at_times(flow(), 0.5)
    read = lambda said: said.x0
    every, one = (
        tangent(model, X0, level, NOISE, torch.full(shape, 0.7, dtype=F64), read=read)[1]
        for shape in ((8, 1), (1, 1))
    )
    assert torch.equal(every, one)


# TrigFlow


@EVERY
def test_trigflow_is_any_network_seen_from_an_angle(schedule):
    """x_τ = cos τ x₀ + sin τ σ_d ε, f = cos τ x_τ − sin τ σ_d F, and dx_τ/dτ by differences."""
    model, sigma_data = exact(appendix_a(), schedule), 0.7
    level = at_times(schedule, 0.6)
    at = angle(level, sigma_data)
    assert torch.allclose(at.cos**2 + at.sin**2, torch.ones_like(at.cos))
    assert torch.allclose(at.sin / at.cos * sigma_data, level.sigma / level.alpha)
    x = level.alpha * X0 + level.sigma * NOISE
    here = x / at.scale
    assert torch.allclose(here, at.cos * X0 + at.sin * sigma_data * NOISE)
    said = model(x, level)
    velocity = trig_velocity(said, sigma_data)
    assert torch.allclose(at.cos * here - at.sin * velocity, said.x0)
    ahead = at_times(schedule, 0.6 + 1e-6)
    moved = (x + 1e-6 * said.velocity) / angle(ahead, sigma_data).scale
    turned = torch.atan2(angle(ahead, sigma_data).sin, angle(ahead, sigma_data).cos)
    slope = (moved - here) / (turned - torch.atan2(at.sin, at.cos))
    assert (slope - velocity).abs().max() < 1e-3 * velocity.abs().max()


def test_edm_s_network_is_trigflow_s_up_to_its_sign():
    """F_trig(x_τ/σ_d, τ) = −F_EDM(c_in x, κ), for any F."""
    c, schedule = 0.5, edm()
    raw = lambda x, kappa: torch.sin(3 * x + kappa.log())

    def net(x, t, cond):
        kappa = schedule.at(t, like=x).sigma
        skip, root = c**2 / (kappa**2 + c**2), (kappa**2 + c**2).sqrt()
        return skip * x + c * kappa / root * raw(x / root, kappa)

    level = at_times(schedule, 0.45)
    x = X0 + level.sigma * NOISE
    found = trig_velocity(Denoiser(net, schedule, "x0")(x, level), c) / c
    assert (found + raw(x / (level.sigma**2 + c**2).sqrt(), level.sigma)).abs().max() < 1e-11


# the loss


@EVERY
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_the_consistency_function_has_no_tangent(schedule, sigma_data):
    """At ρ = 1. In the warm-up it has: g = −(1 − ρ) cos²τ (σ_d F − dx/dτ), exactly."""
    c, teacher, perfect = 0.6, exact(gaussian(0.6), schedule), ended(schedule, 0.6)
    level = at_times(schedule, 0.5)
    x = level.alpha * X0 + level.sigma * NOISE
    gap = trig_velocity(perfect(x, level), sigma_data) - trig_velocity(
        teacher(x, level), sigma_data
    )
    whole = (angle(level, sigma_data).cos ** 2 * gap).square().mean().sqrt().item()
    assert whole > 1e-4 * c
    for rho in (1.0, 0.5, 0.0):
        loss = continuous_consistency(
            perfect,
            perfect,
            Batch(X0, noise=NOISE),
            Draw(0),
            times=still(0.5),
            estimate=taught(teacher),
            rho=rho,
            normalise=as_is,
            sigma_data=sigma_data,
        )
        found = loss.metrics["tangent"].item()
        assert found == pytest.approx((1 - rho) * whole, rel=1e-6, abs=1e-9)
        assert loss.value.item() == pytest.approx(found**2, rel=1e-6, abs=1e-15)


class Weighted(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.weight, self.inner = torch.nn.Parameter(torch.ones((), dtype=F64)), net

    def forward(self, x, t, cond):
        return self.inner(self.weight * x, t, cond)


SLIPS = [
    ("g = -(at.cos**2)", "g = (at.cos**2)"),
    ("rho * (at.cos", "-rho * (at.cos"),
    ("said.x / at.scale", "said.x"),
    ("said.velocity * per_angle", "said.velocity"),
    ("(velocity - trig_velocity(said, sigma_data))", "velocity"),
    ("velocity / sigma_data + normalise", "normalise"),
]


@EVERY
@pytest.mark.parametrize("estimate", ["own", "taught"])
def test_its_gradient_is_that_of_a_short_step(schedule, estimate):
    """Consistency training from τ to τ − Δ: its gradient over Δ tends to tan τ σ_d times ours."""
    if schedule.name == "discrete":
        schedule = discrete(scaled_linear(n=1000))
    teacher = exact(gaussian(0.6), schedule)
    reward = own if estimate == "own" else taught(teacher)
    t, sigma_data, batch = 0.5004, 0.7, Batch(X0, noise=NOISE)

    def gradient(loss, **options):
        net = Weighted(appendix_a().net(schedule))
        model = Denoiser(net, schedule, "v")
        value = loss(model, model, batch, Draw(0), estimate=reward, **options).value
        return torch.autograd.grad(value, net.weight)[0].item()

    def turned(t):
        level = schedule.at(t)
        return math.atan2(level.sigma, level.alpha * sigma_data)

    step = lambda h: turned(t) - turned(t - h)
    # Richardson: two short steps leave O(Δ²)
    short = [
        gradient(
            consistency_training, times=lambda draw, n: (still(t)(draw, n), still(t - h)(draw, n))
        )
        / (step(h) * math.tan(turned(t)) * sigma_data)
        for h in (2e-5, 4e-5)
    ]
    aim = 2 * short[0] - short[1]
    options = dict(times=still(t), normalise=as_is, sigma_data=sigma_data)
    assert gradient(continuous_consistency, **options) == pytest.approx(aim, rel=2e-4)
    if schedule.name == "vp":
        for old, new in SLIPS:
            broken = mutant(continuous_consistency, old, new)
            assert gradient(broken, **options) != pytest.approx(aim, rel=0.02), old


def test_it_is_the_same_on_every_schedule():
    """One network's meaning, wrapped twice: κ is what matters, not α or t."""
    found, lam = [], 0.3
    for schedule in (vp(), edm(), flow()):
        level = schedule.at_lam(lam)

        def net(x, t, cond, schedule=schedule):
            now = schedule.at(t, like=x)
            return torch.sin(x / now.alpha) * now.sigma / now.alpha

        model = Denoiser(net, schedule, "x0")
        batch = Batch(X0, noise=NOISE)
        options = dict(times=still(level.t), normalise=by_norm())
        loss = continuous_consistency(model, model, batch, Draw(0), **options)
        found.append((loss.value.item(), loss.metrics["tangent"].item()))
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)


def test_both_normalisations():
    """Of a tangent whose values are all a: by_norm depends on the dimension, by_rms does not."""
    for d in (2, 16384):
        g = torch.full((1, d), 0.02, dtype=F64)
        size = lambda normalise: torch.linalg.vector_norm(normalise(g)).item()
        assert size(by_norm(0.1)) == pytest.approx(0.02 * d**0.5 / (0.02 * d**0.5 + 0.1))
        assert size(by_rms(0.1)) / d**0.5 == pytest.approx(0.02 / 0.12)
    g = torch.randn(3, 7, dtype=F64)
    assert torch.allclose(by_rms(0.1)(g), by_norm(0.1 * 7**0.5)(g) * 7**0.5)


@EVERY
def test_a_weight_is_one_number_for_each_sample(schedule):
    """sCM's 1/(σ_d tan τ): the loss is the mean of each sample's own, so weighted."""
    x0, noise = normals(4, 2, 3), normals(4, 2, 3, seed=1)
    t, sigma_data = torch.tensor([0.25, 0.4, 0.6, 0.8], dtype=F64), 0.7
    model = Denoiser(lambda x, time, cond: torch.sin(x + time.view(-1, 1, 1)), schedule, "v")

    def value(rows, **how):
        batch, times = Batch(x0[rows], noise=noise[rows]), lambda draw, n: t[rows]
        how = dict(normalise=as_is, sigma_data=sigma_data) | how
        return continuous_consistency(model, model, batch, Draw(0), times=times, **how).value

    alone = torch.stack([value([i]) for i in range(4)])
    level = schedule.at(t)
    tau = torch.atan2(level.sigma, level.alpha * sigma_data)
    found = value([0, 1, 2, 3], weight=inverse_kappa)
    assert found.item() == pytest.approx((alone / (sigma_data * tau.tan())).mean().item())
    assert value([0, 1, 2, 3]).item() == pytest.approx(alone.mean().item())


def test_calls_and_what_has_a_gradient():
    net = Weighted(appendix_a().net(vp()))
    student, teacher = counted(Denoiser(net, vp(), "v")), counted(exact(gaussian(0.6), vp()))
    times, batch = uniform_times(0.1, 0.9), Batch(X0)
    loss = continuous_consistency(
        student, student, batch, Draw(0), times=times, estimate=taught(teacher)
    )
    assert student.net.calls == 2 and teacher.net.calls == 1
    (mine,) = torch.autograd.grad(loss.value, net.weight)
    other = Denoiser(Weighted(appendix_a().net(vp())), vp(), "v")
    loss = continuous_consistency(
        student, other, batch, Draw(0), times=times, estimate=taught(teacher)
    )
    assert torch.equal(torch.autograd.grad(loss.value, net.weight)[0], mine)
    assert [warmup(step, 100) for step in (0, 50, 100, 500)] == [0, 0.5, 1, 1]


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(rho=1.5), "rho = 1.5"),
        (dict(times=lambda draw, n: torch.full((1,), 0.5)), r"times drew \(1,\) for"),
        (dict(sigma_data=0.0), "sigma_data = 0"),
        (dict(estimate=lambda x, level, batch: batch.x0[:1]), "one x̄₀ for each sample"),
        (dict(times=still(0.0)), "clean end of vp, where there is no noise"),
        (dict(weight=lambda level: level.t[:3]), r"weight has shape \(3, 1\) for .* samples"),
        (dict(weight=lambda level: 1.0), r"weight has shape \(\)"),
        (dict(target=exact(gaussian(0.5), flow())), "on different schedules, vp and flow"),
    ],
)
def test_bad_input(change, words):
    model = exact(gaussian(0.5), vp())
    given = dict(target=model, times=still(0.5)) | change
    with pytest.raises(ValueError, match=words):
        continuous_consistency(model, given.pop("target"), Batch(X0), Draw(0), **given)
    with pytest.raises(ValueError, match="one ε for each x0"):
        continuous_consistency(model, model, Batch(X0, noise=X0[:1]), Draw(0), times=still(0.5))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: warmup(-1), "warmup: step -1"),
        (lambda: by_norm(-1.0), "by_norm: c = -1"),
        (lambda: by_norm(0.0), "by_norm: c = 0"),
        (lambda: by_rms(-1.0), "by_rms: c = -1"),
        (lambda: continuous_time.angle(vp().at(0.5), -0.5), "angle: sigma_data = -0.5"),
        (
            lambda: continuous_time.dt_by_angle(vp(), vp().at(0.5), 0.0),
            "dt_by_angle: sigma_data = 0",
        ),
    ],
)
def test_bad_settings(call, words):
    with pytest.raises(ValueError, match=words):
        call()
