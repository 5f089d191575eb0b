"""The denoising loss: each weight against the error it claims to be, floors in closed form,
gradients, broken copies.
"""

import math

import pytest
import torch
from truth import F64, SCHEDULES, gaussian, mutant, normals

from dlib import Batch, Denoiser, Draw, denoising, discrete, exact, flow, scaled_linear, vp
from dlib.prediction import FACES, parts
from dlib.losses import uniform_times, weights

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
TIMES = uniform_times(0.02, 0.98)
X0 = normals(32, 3)


def at(t):
    """Every sample at the time t."""
    return lambda draw, n: torch.full((n,), t, dtype=F64)


def drawn(schedule, batch=X0, seed=0, times=TIMES):
    """The draws of the loss, in the documented order: times, then noise."""
    draw = Draw(seed)
    t = times(draw, len(batch)).to(batch)
    return schedule.at(t, like=batch), draw.normal(batch)


def predictor(schedule, predicts):
    return Denoiser(lambda x, t, c: torch.tanh(x + t[:, None]), schedule, predicts)


def squared(error):
    return error.square().sum(1)


@EVERY
@pytest.mark.parametrize("predicts", FACES)
@pytest.mark.parametrize("face", ["eps", "x0", "v", "velocity"])
def test_each_weight_is_the_error_of_its_face(face, predicts, schedule):
    """One currency: w·‖x₀ − x₀_θ‖² is the squared error of the face, whatever the network
    predicts.
    """
    model = predictor(schedule, predicts)
    level, noise = drawn(schedule)
    prediction = model(level.alpha * X0 + level.sigma * noise, level)
    a, b = parts(face, level, schedule)
    direct = squared(getattr(prediction, face) - (a * X0 + b * noise)).mean()
    loss = denoising(model, Batch(X0), Draw(0), getattr(weights, face), TIMES)
    assert loss.value.item() == pytest.approx(direct.item(), rel=1e-9)


def test_the_four_targets_by_hand():
    schedule = flow()
    level, noise = drawn(schedule)
    prediction = predictor(schedule, "velocity")(level.alpha * X0 + level.sigma * noise, level)
    loss = lambda weight: denoising(
        predictor(schedule, "velocity"), Batch(X0), Draw(0), weight, TIMES
    ).value.item()
    assert loss(weights.x0) == pytest.approx(squared(X0 - prediction.x0).mean().item())
    assert loss(weights.eps) == pytest.approx(squared(noise - prediction.eps).mean().item())
    assert loss(weights.velocity) == pytest.approx(
        squared(noise - X0 - prediction.raw).mean().item()
    )
    assert loss(weights.v) == pytest.approx(
        squared(level.alpha * noise - level.sigma * X0 - prediction.v).mean().item()
    )
    score = squared(level.sigma * (prediction.score + noise / level.sigma)).mean().item()
    assert loss(weights.eps) == pytest.approx(score)  # σ² times denoising score matching


@EVERY
def test_one_function_seen_through_three_faces_has_one_loss(schedule):
    """The same x₀ predictor, expressed as ε-, x₀-, v- and velocity-network."""
    base = predictor(schedule, "x0")

    def seen_as(face):
        net = lambda x, t, c: getattr(base(x, schedule.at(t, like=x)), face)
        return denoising(
            Denoiser(net, schedule, face), Batch(X0), Draw(0), weights.v, TIMES
        ).value.item()

    values = [seen_as(face) for face in FACES]
    assert values == pytest.approx([values[0]] * len(values), rel=1e-8)


@EVERY
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_perfect_denoiser_scores_the_floor(schedule, t):
    """Data N(0, c²I): x-MSE c²σ²/V, ε-MSE α²c²/V, v-MSE c²(α² + σ²)²/V a dimension, V = α²c² +
    σ².

    40 000 χ² values: standard error √(2/40000) = 0.7%; five of them; 15 cases: false alarms
    below 1e-5.
    """
    c, d, level = 0.7, 4, schedule.at(t)
    V = level.alpha**2 * c**2 + level.sigma**2
    run = lambda weight: denoising(
        exact(gaussian(c, d), schedule), Batch(c * normals(10000, d)), Draw(1), weight, at(t)
    ).value.item()
    assert run(weights.x0) == pytest.approx(d * c**2 * level.sigma**2 / V, rel=0.035)
    assert run(weights.eps) == pytest.approx(d * level.alpha**2 * c**2 / V, rel=0.035)
    assert run(weights.v) == pytest.approx(
        d * c**2 * (level.alpha**2 + level.sigma**2) ** 2 / V, rel=0.035
    )


def test_the_floor_is_the_minimum():
    """Scaling the perfect x₀* by 1 ± 0.1 adds exactly 0.01 E‖x₀*‖² (orthogonality), here a
    sixth of the floor.
    """
    schedule, c = vp(), 0.7
    best, batch = exact(gaussian(c), schedule), Batch(c * normals(20000, 2))
    scaled = lambda s: Denoiser(
        lambda x, t, k: s * best(x, schedule.at(t, like=x)).x0, schedule, "x0"
    )
    low, floor, high = (
        denoising(scaled(s), batch, Draw(1), weights.x0, at(0.3)).value.item()
        for s in (0.9, 1.0, 1.1)
    )
    level = schedule.at(0.3)
    extra = 0.01 * 2 * level.alpha**2 * c**4 / (level.alpha**2 * c**2 + level.sigma**2)
    assert low - floor == pytest.approx(extra, rel=0.5) and high - floor == pytest.approx(
        extra, rel=0.5
    )


@EVERY
def test_the_gradient_is_that_of_a_finite_difference(schedule):
    def value(scale):
        model = Denoiser(lambda x, t, c: torch.tanh(scale * x), schedule, "v")
        return denoising(model, Batch(X0), Draw(0), weights.eps, TIMES).value

    scale = torch.tensor(0.8, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(scale), scale)
    step = 1e-5
    assert slope.item() == pytest.approx(
        ((value(scale.detach() + step) - value(scale.detach() - step)) / (2 * step)).item(),
        rel=1e-6,
    )


def test_pairs_keep_their_noise_and_conditions_pass():
    seen = []
    model = Denoiser(lambda x, t, c: seen.append((x, c)) or x, flow(), "velocity")
    noise, cond = normals(32, 3, seed=9), torch.arange(32)
    loss = denoising(model, Batch(X0, cond=cond, noise=noise), Draw(0), weights.x0, at(0.25))
    assert torch.allclose(seen[0][0], 0.75 * X0 + 0.25 * noise) and seen[0][1] is cond
    assert set(loss.metrics) == {"loss", "raw_mse"} and not any(
        value.requires_grad for value in loss.metrics.values()
    )
    assert loss.metrics["raw_mse"].item() == pytest.approx(
        (seen[0][0] - (noise - X0)).square().mean().item()
    )


def test_the_draws_are_the_times_and_then_the_noise():
    draw, twin = Draw(0), Draw(0)
    denoising(predictor(vp(), "eps"), Batch(X0), draw, weights.x0, TIMES)
    twin.uniform(32), twin.normal(X0)
    assert torch.equal(draw.normal(X0), twin.normal(X0))


def test_named_weights():
    schedule = vp()
    level = schedule.at(torch.linspace(0.02, 0.98, 25, dtype=F64))
    snr = (level.alpha / level.sigma) ** 2
    assert torch.equal(weights.min_snr(5.0)(level, schedule), snr.clamp(max=5)) and torch.equal(
        weights.x0(level, schedule), torch.ones(25)
    )
    assert torch.equal(weights.truncated_snr(level, schedule), snr.clamp(min=1))
    assert torch.allclose(weights.v(level, schedule), snr + 1, rtol=1e-12)
    lam_dot = schedule.rates(level.t)[0] / level.alpha - schedule.rates(level.t)[1] / level.sigma
    assert torch.allclose(
        weights.velocity(level, schedule), (level.alpha * lam_dot) ** 2, rtol=1e-10
    )
    flow_level = flow().at(level.t)
    assert torch.allclose(
        weights.velocity(flow_level, flow()), 1 / flow_level.sigma**2, rtol=1e-10
    )


@EVERY
def test_elbo_is_the_limit_of_half_the_fall_of_snr(schedule):
    """L_{n−1} = ½(SNR_{n−1} − SNR_n)‖x₀ − x₀_θ‖², a step of 2e-5; away from the kinks of the
    ladder.
    """
    t, step = torch.tensor([0.1005, 0.3005, 0.7005, 0.9005], dtype=F64), 2e-5
    fall = weights.eps(schedule.at(t - step / 2), schedule) - weights.eps(
        schedule.at(t + step / 2), schedule
    )
    assert torch.allclose(weights.elbo(schedule.at(t), schedule), fall / (2 * step), rtol=1e-6)


@EVERY
def test_elbo_integrates_to_the_gaussian_s_information(schedule):
    """∫ w(t) c²σ²/V dt = ½ log((1 + c² SNR_clean)/(1 + c² SNR_noisy)): the schedule matters
    only through its ends.
    """
    c, t = 0.7, torch.linspace(0.05, 0.95, 20001, dtype=F64)
    level = schedule.at(t)
    floor = c**2 * level.sigma**2 / (level.alpha**2 * c**2 + level.sigma**2)
    integral = torch.trapezoid(weights.elbo(level, schedule) * floor, t).item()
    ends = [(1 + c**2 * (schedule.at(s).alpha / schedule.at(s).sigma) ** 2) for s in (0.05, 0.95)]
    assert integral == pytest.approx(0.5 * math.log(ends[0] / ends[1]), rel=1e-4)


USUAL = [
    ("eps", weights.eps, 1.0),
    ("x0", weights.x0, 0.0),
    ("x0", weights.x0, 1.0),
    ("v", weights.v, 0.0),
    ("v", weights.v, 1.0),
    ("velocity", weights.velocity, 0.0),
    ("velocity", weights.velocity, 1.0),
]


@pytest.mark.parametrize("predicts, weight, t", USUAL)
def test_the_usual_pairings_are_finite_at_singular_times(predicts, weight, t):
    """The weight of a face on a network of that face is a plain mean square: it has no
    singular time.
    """
    model = predictor(flow(), predicts)
    level, noise = drawn(flow(), times=at(t))
    a, b = parts(predicts, level, flow())
    raw = model(level.alpha * X0 + level.sigma * noise, level).raw
    value = denoising(model, Batch(X0), Draw(0), weight, at(t)).value.item()
    assert value == pytest.approx(squared(raw - (a * X0 + b * noise)).mean().item(), rel=1e-9)


def test_half_precision_data_is_noised_at_the_right_time():
    """Times in bfloat16 have 8 bits: index 998 of the ladder would become 1000 or 992."""
    schedule, seen = discrete(scaled_linear()), []
    model = Denoiser(lambda x, t, c: seen.append(t) or torch.zeros_like(x), schedule, "eps")
    denoising(model, Batch(X0.bfloat16()), Draw(0), weights.eps, uniform_times(0.5, 1.0))
    assert (seen[0].double() - uniform_times(0.5, 1.0)(Draw(0), 32).double()).abs().max() < 1e-5


MUTANTS = [
    ("level.alpha * x0 + level.sigma * noise", "level.alpha * x0 - level.sigma * noise"),
    ("(a * x0 + b * noise)", "(b * x0 + a * noise)"),
    (
        "exchange(weight.face, model.predicts, level, model.schedule) ** 2",
        "exchange(weight.face, model.predicts, level, model.schedule)",
    ),
    ("exchange(weight.face, model.predicts", "exchange(model.predicts, weight.face"),
]


@pytest.mark.parametrize("old, new", MUTANTS)
def test_a_slip_is_caught(monkeypatch, old, new):
    monkeypatch.setitem(globals(), "denoising", mutant(denoising, old, new))
    with pytest.raises(AssertionError):
        for face in ("eps", "x0", "v", "velocity"):
            test_each_weight_is_the_error_of_its_face(face, "v", vp())


def test_bad_input():
    model = predictor(vp(), "eps")
    for low, high in ((0.5, 0.2), (-0.1, 0.5), (0.1, 1.5)):
        with pytest.raises(ValueError, match="uniform_times: .* is not an interval"):
            uniform_times(low, high)
    with pytest.raises(ValueError, match="time .* is outside"):
        denoising(model, Batch(X0), Draw(0), weights.x0, at(1.5))
    with pytest.raises(ValueError, match=r"cond has batch \(4,\)"):
        denoising(model, Batch(X0, cond=torch.zeros(4)), Draw(0), weights.x0, TIMES)
    with pytest.raises(ValueError, match="noise"):
        denoising(model, Batch(X0, noise=X0[:1]), Draw(0), weights.x0, TIMES)
