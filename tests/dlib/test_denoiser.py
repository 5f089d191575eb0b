"""One call, five faces: the conversion table, the exact mixture, and what a network sees and
returns.
"""

import itertools
from dataclasses import replace

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, by_quadrature, line, mutant, normals, per_row

from dlib import CLEAN, Denoiser, discrete, exact, flow, prediction, scaled_linear, vp
from dlib.denoiser import one_schedule, parameters
from dlib.prediction import FACES, parts

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
PAIRS = list(itertools.product(FACES, FACES))


def truth_table(schedule, t, x0, eps):
    """Every face from x₀ and ε by its definition; the velocity as the PF-ODE's f − ½g²s with s
    = −ε/σ.
    """
    level = schedule.at(t)
    x = level.alpha * x0 + level.sigma * eps
    score = -eps / level.sigma
    velocity = schedule.drift(t) * x - 0.5 * schedule.diffusion(t) * score
    return x, {
        "eps": eps,
        "x0": x0,
        "v": level.alpha * eps - level.sigma * x0,
        "velocity": velocity,
        "score": score,
    }


def close(a, b, tolerance=1e-10):
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1))


@EVERY
@pytest.mark.parametrize("have, want", PAIRS)
def test_every_face_from_every_other(schedule, have, want):
    for t in (0.004, 0.3, 0.7, 0.995):
        x, faces = truth_table(schedule, t, normals(5, 3), normals(5, 3, seed=1))
        model = Denoiser(lambda x, time, cond: faces[have], schedule, have)
        assert close(getattr(model(x, schedule.at(t)), want), faces[want])


@EVERY
@pytest.mark.parametrize("have", FACES)
def test_float_and_tensor_levels_agree(schedule, have):
    x, raw, t = (
        normals(4, 3),
        normals(4, 3, seed=1),
        torch.tensor([0.004, 0.3, 0.7, 0.995], dtype=F64),
    )
    model = Denoiser(lambda x, time, cond: raw[: len(x)], schedule, have)
    together = model(x, schedule.at(t, like=x))
    for i in range(4):
        alone = Denoiser(lambda x, time, cond, i=i: raw[i : i + 1], schedule, have)(
            x[i : i + 1], schedule.at(t[i].item())
        )
        for face in FACES:
            assert close(getattr(together, face)[i : i + 1], getattr(alone, face), 1e-12)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_flow_velocity_is_noise_minus_data(t):
    x, faces = truth_table(flow(), t, normals(5, 3), normals(5, 3, seed=1))
    model = Denoiser(lambda x, time, cond: faces["eps"] - faces["x0"], flow(), "velocity")
    prediction = model(x, flow().at(t))
    assert close(prediction.x0, x - t * prediction.velocity) and close(
        prediction.eps, x + (1 - t) * prediction.velocity
    )


@EVERY
def test_score_is_the_gradient_of_log_prob_and_tweedie_holds(schedule):
    mixture = appendix_a()
    for t in (0.02, 0.4, 0.9):
        level = schedule.at(t)
        x = (normals(6, 2) * (level.alpha**2 + level.sigma**2) ** 0.5).requires_grad_()
        (score,) = torch.autograd.grad(mixture.log_prob(x, level).sum(), x)
        prediction = exact(mixture, schedule)(x.detach(), level)
        assert close(prediction.score, score)
        assert close(prediction.x0, (x.detach() + level.sigma**2 * score) / level.alpha)
        drift = schedule.drift(t) * x.detach() - 0.5 * schedule.diffusion(t) * score
        assert close(prediction.velocity, drift)


@pytest.mark.parametrize("name", ["vp", "flow", "edm"])
@pytest.mark.parametrize("t", [0.1, 0.4, 0.8])
def test_posterior_means_by_quadrature(name, t):
    schedule, mixture = SCHEDULES[name], line()
    level = schedule.at(t)
    for point in (-1.3, 0.1, 2.0):
        x = torch.tensor([[point * level.alpha]], dtype=F64)
        density, x0, eps = by_quadrature(mixture, x.item(), level.alpha, level.sigma)
        prediction = exact(mixture, schedule)(x, level)
        assert mixture.log_prob(x, level).exp().item() == pytest.approx(density, rel=1e-9)
        assert prediction.x0.item() == pytest.approx(
            x0, rel=1e-8
        ) and prediction.eps.item() == pytest.approx(eps, rel=1e-8, abs=1e-10)


def test_exact_is_finite_at_both_singular_ends():
    for schedule in (flow(), vp()):
        model, x = exact(appendix_a(), schedule), normals(8, 2)
        noisy, clean = model(x, schedule.at(1.0)), model(x, CLEAN)
        # vp: α(1) = 0.0066, not 0
        assert close(noisy.eps, x, 1e-10 if schedule.name == "flow" else 2e-2)
        assert close(clean.x0, x, 1e-14)


@pytest.mark.parametrize(
    "given, kept",
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (F64, F64),
    ],
)
def test_dtypes(given, kept):
    seen = []

    def net(x, time, cond):
        seen.append((x.dtype, time.dtype))
        return torch.zeros_like(x)

    prediction = Denoiser(net, vp(), "v")(torch.ones(3, 2, dtype=given), vp().at(0.5))
    assert {getattr(prediction, face).dtype for face in FACES} == {kept}
    assert seen == [(given, kept)]  # the caller owns autocast: the network sees x as it is


def test_a_half_precision_network_answers_in_float32():
    model = Denoiser(lambda x, time, cond: x.bfloat16(), vp(), "eps")
    assert model(torch.ones(3, 2), vp().at(0.5)).x0.dtype == torch.float32
    assert model(torch.ones(3, 2, dtype=F64), vp().at(0.5)).x0.dtype == F64


def test_a_float32_network_takes_float64_levels():
    net = torch.nn.Linear(1, 2)
    model = Denoiser(lambda x, time, cond: net(time[:, None]), vp(), "eps")
    x = torch.ones(3, 2)
    by_float, by_tensor = model(x, vp().at(0.5)), model(x, per_row(vp().at(0.5), x.double()))
    assert by_tensor.x0.dtype == torch.float32 and close(by_float.x0, by_tensor.x0, 1e-6)


def test_clock_translates_time():
    seen = []
    model = Denoiser(
        lambda x, time, cond: seen.append(time) or x,
        discrete(scaled_linear()),
        "eps",
        clock=lambda t: 1000 * t - 1,
    )
    x = torch.zeros(2, 3, 4)
    model(x, model.schedule.at(0.75))
    model(x, model.schedule.at(torch.tensor([0.001, 1.0]), like=x))
    assert seen[0].shape == (2,) and seen[0].tolist() == pytest.approx([749, 749])
    assert seen[1].shape == (2,) and seen[1].tolist() == pytest.approx([0, 999], abs=1e-4)


def test_one_call_whatever_faces_are_read():
    calls = []
    prediction = Denoiser(lambda x, time, cond: calls.append(1) or x, vp(), "eps")(
        torch.ones(1, 2), vp().at(0.5)
    )
    for face in FACES:
        getattr(prediction, face)
    assert len(calls) == 1


def test_gradients_reach_the_network_and_x():
    net = torch.nn.Linear(2, 2)
    x = torch.ones(3, 2, requires_grad=True)
    Denoiser(lambda x, time, cond: net(x), vp(), "v")(x, vp().at(0.5)).x0.sum().backward()
    assert x.grad.abs().sum() > 0 and net.weight.grad.abs().sum() > 0
    assert len(parameters(net)) == 2 and parameters(lambda: 0) == []


@pytest.mark.parametrize(
    "predicts, schedule, t, face",
    [
        ("eps", flow(), 1.0, "x0"),
        ("score", flow(), 1.0, "x0"),
        ("x0", flow(), 0.0, "eps"),
        ("score", flow(), 0.0, "eps"),
        ("x0", flow(), 0.0, "score"),
        ("v", flow(), 0.0, "score"),
        ("eps", vp(), 0.0, "velocity"),
        ("velocity", vp(), 0.0, "x0"),
    ],
)
def test_a_face_that_is_not_determined_is_a_named_error(predicts, schedule, t, face):
    prediction = Denoiser(lambda x, time, cond: torch.ones_like(x), schedule, predicts)(
        torch.ones(2, 2), schedule.at(t)
    )
    with pytest.raises(ValueError, match=rf"at t = {t:g}, where alpha = .* and sigma = "):
        getattr(prediction, face)


def test_what_the_network_says_itself_is_had_at_the_ends_too():
    """A score at α = 0 is −ε/σ, x₀ at σ = 0 is x₀, though nothing else is determined there."""
    level, x = flow().at(1.0), normals(4, 2)
    said = Denoiser(lambda x, time, cond: x**2, flow(), "score")(x, level)
    assert torch.equal(said.eps, -(x**2)) and torch.equal(said.score, x**2)
    ended = Denoiser(lambda x, time, cond: x**2, flow(), "x0")(x, CLEAN)
    assert torch.equal(ended.mix(0.5, 0.0), 0.5 * x**2)
    with pytest.raises(ValueError, match="does not determine"):
        ended.mix(0.5, 0.1)


BAD = {
    "predicts": (
        lambda: Denoiser(lambda x, t, c: x, vp(), "epsilon"),
        "predicts='epsilon'; choose one of eps, x0, v",
    ),
    "shape": (
        lambda: Denoiser(lambda x, t, c: x[:, :1], vp(), "eps")(torch.ones(3, 2), vp().at(0.5)),
        r"returned \(3, 1\) for x \(3, 2\)",
    ),
    "levels": (
        lambda: Denoiser(lambda x, t, c: x, vp(), "eps")(
            torch.ones(3, 2), vp().at(torch.ones(2), like=torch.ones(2, 2))
        ),
        r"2 noise levels of shape \(2, 1\) for x \(3, 2\): draw one t a sample",
    ),
    "cond": (
        lambda: Denoiser(lambda x, t, c: x, vp(), "eps")(
            torch.ones(8, 2), vp().at(0.5), torch.ones(4)
        ),
        r"cond has batch \(4,\), x has batch 8: repeat_interleave cond or pass x\[:4\]",
    ),
    "mapping": (
        lambda: Denoiser(lambda x, t, c: x, vp(), "eps")(
            torch.ones(8, 2), vp().at(0.5), {"text": torch.ones(4, 3)}
        ),
        r"cond\['text'\] has batch \(4,\)",
    ),
    "scalar": (
        lambda: Denoiser(lambda x, t, c: x, vp(), "eps")(
            torch.ones(8, 2), vp().at(0.5), torch.tensor(3)
        ),
        r"cond has batch \(\)",
    ),
    "device": (
        lambda: Denoiser(lambda x, t, c: x, vp(), "eps")(
            torch.ones(8, 2), vp().at(0.5), torch.ones(8, device="meta")
        ),
        "cond is on meta, x on cpu",
    ),
}


def test_one_schedule_is_one_of_the_same_values():
    """Made twice, or from weights in single precision, it is the same; and no other one is."""
    on = lambda schedule: exact(line(), schedule)
    for schedule in (vp, flow, lambda: discrete(scaled_linear())):
        one_schedule("verb", on(schedule()), on(schedule()))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=F64) ** 2
    ladder = (1 - betas).cumprod(0)
    one_schedule("verb", on(discrete(ladder)), on(discrete(ladder.float())))
    short = [on(discrete(torch.linspace(0.9, 0.1, 4))) for _ in range(2)]  # from t = ¼ on
    one_schedule("verb", *short)
    head = torch.cat([ladder[:300] ** 1.001, ladder[300:]])
    tail = torch.cat([ladder[:300], ladder[300:] ** 1.0002])
    bent = replace(flow(), name="bent", coefficients=lambda t: (1 - t**2, t))  # σ is flow's
    pairs = [(discrete(ladder), discrete(near)) for near in (head, tail)]
    pairs.append((flow(), bent))
    for a, b in itertools.chain(pairs, itertools.combinations(SCHEDULES.values(), 2)):
        with pytest.raises(ValueError, match=f"verb: .* {a.name} and {b.name}: pass dlib.conv"):
            one_schedule("verb", on(a), on(b))


@pytest.mark.parametrize("call, message", BAD.values(), ids=list(BAD))
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "old, new",
    [
        ("return -level.sigma, level.alpha", "return level.sigma, level.alpha"),
        ("-1 / level.sigma", "1 / level.sigma"),
        (
            "return schedule.rates(level.t)",
            "return tuple(-rate for rate in schedule.rates(level.t))",
        ),
    ],
)
def test_a_wrong_sign_in_the_table_is_caught(monkeypatch, old, new):
    monkeypatch.setattr(prediction, "parts", mutant(parts, old, new))
    with pytest.raises(AssertionError):
        for have, want in PAIRS:
            test_every_face_from_every_other(vp(), have, want)
