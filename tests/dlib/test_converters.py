"""Every model in every other's clothes: faces × schedules × levels, there and back, against
the truth, and at the ends.
"""

import itertools

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, mutant, normals

from dlib import (
    NULL,
    Denoiser,
    conversion,
    cosine,
    counted,
    edm,
    exact,
    flow,
    frozen,
    guided,
    levels,
    parareal,
    picard,
    prediction,
    sample,
    solvers,
    thresholded,
    vp,
)
from dlib.conversion import converted
from dlib.denoiser import parameters
from dlib.prediction import FACES, Prediction, parts
from dlib.schedule import sub_vp
from toy_data.mixtures import labelled

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
PAIRS = list(itertools.product(FACES, FACES))
TWO = list(itertools.permutations(SCHEDULES.values(), 2))
SHAPES = [(1, 2), (4, 3), (3, 1, 2, 2)]


def reader(schedule, face):
    """A nonlinear network that reads x and the time."""
    return Denoiser(
        lambda x, t, c: torch.tanh(1.3 * x + t.reshape(-1, *(1,) * (x.ndim - 1)).to(x)),
        schedule,
        face,
    )


def random_levels(schedule, shape, dtype, seed):
    """One level a sample, at λ uniform on [−2.5, 3.4], which all schedules reach."""
    lam = (
        5.9 * torch.rand(shape[0], generator=torch.Generator().manual_seed(seed), dtype=F64) - 2.5
    )
    return schedule.at(schedule.time(lam).to(dtype), like=torch.empty(shape))


def allowance(level, dtype):
    """Rounding, times what conversion magnifies it by at most: x₀ from ε divides by 1/κ, ε
    from x₀ by κ, there and back by both.
    """
    kappa = torch.as_tensor(level.sigma / level.alpha)
    return 100 * torch.finfo(dtype).eps * (kappa + 1 / kappa) ** 2


def returns(home, have, other, want, shape, dtype, seed, by_float=False):
    """Whether the model comes back from `other` and `want` unchanged, at random points and
    levels.
    """
    model = reader(home, have)
    back = converted(converted(model, other, want), home, have)
    x, level = normals(*shape, seed=seed).to(dtype), random_levels(home, shape, dtype, seed)
    if by_float:
        level = home.at(level.t.flatten()[0].item())
    before, after = model(x, level).raw, back(x, level).raw
    return after.dtype == dtype and bool(
        ((after - before).abs() <= allowance(level, dtype)).all()
    )


@EVERY
@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("by_float", [False, True], ids=["tensors", "floats"])
def test_every_pair_of_faces_is_an_involution(schedule, dtype, by_float):
    for seed, (have, want) in enumerate(PAIRS):
        assert returns(schedule, have, schedule, want, SHAPES[seed % 3], dtype, seed, by_float), (
            have,
            want,
        )


@pytest.mark.parametrize("home, other", TWO, ids=[f"{a.name}-{b.name}" for a, b in TWO])
def test_there_and_back_through_every_other_schedule(home, other):
    for seed, (have, want) in enumerate(PAIRS):
        dtype = (F64, torch.float32)[seed % 2]
        assert returns(
            home, have, other, want, SHAPES[seed % 3], dtype, seed, by_float=seed % 5 == 0
        ), (have, want)


def is_the_exact_model(home, other, have, want, by_float=False):
    """The converted perfect network against what the posterior means say at the other
    schedule's own level: no conversion enters the truth.
    """
    mixture, shape = appendix_a(), (6, 2)
    level = random_levels(other, shape, F64, 3)
    level = other.at(level.t.flatten()[0].item()) if by_float else level
    x = normals(*shape, seed=4) * (level.alpha**2 + level.sigma**2) ** 0.5

    def net(x, t, c):
        return by_definition(
            have, *mixture.posterior_means(x, home.at(t, like=x)), home.at(t, like=x), home
        )

    wanted = by_definition(want, *mixture.posterior_means(x, level), level, other)
    found = converted(Denoiser(net, home, have), other, want)(x, level).raw
    return bool(((found - wanted).abs() <= 1e-9 * wanted.abs().max()).all())


def by_definition(face, x0, eps, level, schedule):
    """The face from x₀ and ε, spelled out."""
    d_alpha, d_sigma = schedule.rates(level.t)
    return {
        "eps": eps,
        "x0": x0,
        "v": level.alpha * eps - level.sigma * x0,
        "velocity": d_alpha * x0 + d_sigma * eps,
        "score": -eps / level.sigma,
    }[face]


@pytest.mark.parametrize(
    "home, other",
    [
        (vp(), flow()),
        (flow(), edm()),
        (edm(), sub_vp()),
        (sub_vp(), cosine()),
        (SCHEDULES["discrete"], flow()),
    ],
    ids=lambda schedule: schedule.name,
)
@pytest.mark.parametrize("by_float", [False, True], ids=["tensors", "floats"])
def test_the_perfect_model_becomes_the_perfect_model(home, other, by_float):
    for have, want in PAIRS:
        assert is_the_exact_model(home, other, have, want, by_float), (have, want)


@EVERY
def test_the_velocity_is_the_time_derivative_of_x(schedule):
    """With constant x₀ and ε, x moves with α and σ: central differences in t, away from the
    kinks of the ladder; their error is some h².
    """
    x0, eps, h = normals(3, 2, seed=1), normals(3, 2, seed=2), 1e-5
    x = lambda t: schedule.at(t).alpha * x0 + schedule.at(t).sigma * eps
    straight = Denoiser(lambda x, t, c: eps - x0, flow(), "velocity")
    for t in (0.2005, 0.5005, 0.8005):
        found = converted(straight, schedule, "velocity")(x(t), schedule.at(t)).velocity
        slope = (x(t + h) - x(t - h)) / (2 * h)
        assert (found - slope).abs().max() < 1e-5 * slope.abs().max()


@EVERY
def test_ddim_draws_the_same_samples_whatever_the_model_wears(schedule):
    model, kappas = exact(appendix_a(), vp()), [12.0, 3.0, 1.0, 0.3, 0.05]
    walk = lambda s: [s.at_lam(-torch.tensor(k, dtype=F64).log().item()) for k in kappas]
    y = normals(8, 2)
    ends = {
        s.name: sample(m, walk(s)[0].sigma * y, walk(s)) / walk(s)[-1].alpha
        for s, m in ((vp(), model), (schedule, converted(model, schedule, "velocity")))
    }
    assert (ends["vp"] - ends[schedule.name]).abs().max() < 1e-10


def test_on_straight_paths_euler_is_ddim():
    model = converted(exact(appendix_a(), vp()), flow(), "velocity")
    walk, x = levels(flow(), 7, "time", t_max=0.99, t_min=0.02), normals(8, 2)
    assert (
        sample(model, x, walk, solvers.euler) - sample(model, x, walk, solvers.ddim)
    ).abs().max() < 1e-13


def test_it_stands_inside_and_outside_of_the_other_transforms():
    mixture, home, other, label = labelled(), vp(), flow(), torch.tensor([0, 1, 1, 0])
    model, x, level = exact(mixture, home), normals(4, 2), other.at(0.6)
    wears = lambda m: converted(m, other, "velocity")
    guide = lambda m: guided(m, 1.5, torch.tensor(NULL))
    assert (
        guide(wears(model))(x, level, label).raw - wears(guide(model))(x, level, label).raw
    ).abs().max() < 1e-11
    assert (
        thresholded(wears(model), 0.9)(x, level, label).x0
        - thresholded(model, 0.9)(*home_of(model, x, level), label).x0
    ).abs().max() < 1e-11
    net = torch.nn.Linear(2, 2).double()
    trained = wears(Denoiser(lambda x, t, c: net(x), home, "eps"))
    trained.net.inner = net
    assert len(parameters(trained.net)) == 2
    trained(x, level).x0.sum().backward()
    assert net.weight.grad.abs().sum() > 0 and not frozen(trained)(x, level).raw.requires_grad
    one = counted(wears(model))
    one(x, level, label).velocity
    assert (one.net.calls, one.net.samples) == (1, 4)


def home_of(model, x, level):
    """(x, level) of the same noise on the model's own schedule."""
    twin = model.schedule.at_lam(level.lam)
    return twin.alpha / level.alpha * x, twin


def test_parallel_samplers_stay_exact_to_the_bit():
    model = converted(exact(appendix_a(), vp()), flow(), "velocity")
    walk, x = levels(flow(), 9, "time", t_max=0.99, t_min=0.02), normals(4, 2)
    wanted = sample(model, x, walk, solvers.euler)
    for found in (
        picard(model, x, walk, solvers.euler, tol=0),
        parareal(model, x, walk, solvers.euler, tol=0),
    ):
        assert torch.equal(found.x, wanted)


@pytest.mark.parametrize(
    "dtype, kept",
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (F64, F64),
    ],
)
def test_dtypes(dtype, kept):
    seen = []
    model = Denoiser(lambda x, t, c: seen.append(x.dtype) or torch.zeros_like(x), vp(), "eps")
    assert converted(model, flow(), "velocity")(
        torch.ones(3, 2, dtype=dtype), flow().at(0.5)
    ).x0.dtype == kept and seen == [dtype]


def test_the_network_is_told_its_own_time_and_its_own_x():
    seen = []
    ladder = SCHEDULES["discrete"]
    model = Denoiser(
        lambda x, t, c: seen.append((x, t)) or x, ladder, "eps", clock=lambda t: 1000 * t - 1
    )
    home, level = ladder.at(0.75), flow().at_lam(ladder.at(0.75).lam)
    converted(model, flow(), "velocity")(torch.ones(2, 3, dtype=F64), level)
    ((x, time),) = seen
    assert torch.allclose(time, torch.full((2,), 749.0, dtype=F64)) and torch.allclose(
        x, torch.full((2, 3), home.alpha / level.alpha, dtype=F64)
    )


# at α = 0 (flow and cosine, t = 1): what a network tells of; at σ = 0 (flow and sub-VP, t = 0)
# likewise
ENDS = {
    ("α = 0", "eps"): {"eps", "score"},
    ("α = 0", "x0"): set(FACES),
    ("α = 0", "v"): set(FACES),
    ("α = 0", "velocity"): set(FACES),
    ("σ = 0", "eps"): set(FACES) - {"score"},
    ("σ = 0", "x0"): {"x0"},
    ("σ = 0", "v"): set(FACES) - {"score"},
    ("σ = 0", "velocity"): set(FACES) - {"score"},
    ("σ = 0", "score"): set(),
}


@pytest.mark.parametrize("by_float", [False, True], ids=["tensors", "floats"])
@pytest.mark.parametrize("end, have", ENDS, ids=[f"{have} at {end}" for end, have in ENDS])
def test_at_the_ends_a_face_is_finite_or_a_named_error(end, have, by_float):
    home, other, t = (cosine(), flow(), 1.0) if end == "α = 0" else (sub_vp(), flow(), 0.0)
    x = normals(2, 2)
    level = other.at(t) if by_float else other.at(torch.full((2,), t, dtype=F64), like=x)
    for want in FACES:
        model = converted(reader(home, have), other, want)
        if want in ENDS[end, have]:
            assert model(x, level).raw.isfinite().all()
        else:
            with pytest.raises(
                ValueError,
                match=rf"at t = {t:g}, where alpha = .* the {want} on flow cannot be had from "
                rf"a network that predicts {have} on {home.name}",
            ):
                model(x, level)


def test_levels_beyond_the_model_are_a_named_error():
    model = converted(reader(vp(), "eps"), flow(), "velocity")
    with pytest.raises(
        ValueError,
        match=r"flow has λ = -inf at t = 1, but the model was made for vp, with λ from -5.025 "
        r"to inf: keep t between 0 and 0.9935",
    ):
        model(normals(2, 2), flow().at(1.0))
    model(normals(2, 2), flow().at_lam(vp().at(1.0).lam))  # its own end is inside
    with pytest.raises(ValueError, match="predicts='epsilon'"):
        converted(reader(vp(), "eps"), flow(), "epsilon")


def test_a_velocity_that_a_schedule_does_not_have_is_a_named_error():
    # σ̇ is infinite at t = 0
    with pytest.raises(ValueError, match="the velocity on vp cannot be had"):
        converted(reader(flow(), "v"), vp(), "velocity")(normals(2, 2), vp().at(0.0))


def involutions(schedules=(vp(), flow(), edm())):
    return all(
        returns(a, have, b, want, (4, 3), F64, 5)
        for a, b in itertools.product(schedules, schedules)
        for have, want in PAIRS
    )


def truths():
    return all(
        is_the_exact_model(a, b, have, want)
        for a, b in ((vp(), flow()), (flow(), edm()))
        for have, want in PAIRS
    )


@pytest.mark.parametrize(
    "old, new",
    [
        ("_size(twin) / _size(level)", "_size(level) / _size(twin)"),
        ("_size(twin) / _size(level) * x", "x"),
        ("home.at_lam(level.lam)", "home.at(time, like=x)"),
        ("level if schedule is home else home.at_lam(level.lam)", "level"),
    ],
)
def test_a_wrong_change_of_schedule_is_caught(monkeypatch, old, new):
    assert truths()
    monkeypatch.setitem(globals(), "converted", mutant(conversion.converted, old, new))
    assert not truths()


def test_a_table_without_d_is_caught_off_the_variance_preserving_schedules(monkeypatch):
    """v's inverse divides by D = α² + σ², which is 1 on VP: there alone the slip is no slip."""
    monkeypatch.setattr(
        Prediction,
        "mix",
        mutant(
            Prediction.mix,
            "det = alpha * b - sigma * a",
            "det = (alpha * b - sigma * a) / (alpha**2 + sigma**2)",
        ),
    )
    assert (
        involutions((vp(),))
        and not involutions((flow(),))
        and not involutions((edm(),))
        and not truths()
    )


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
    for module in (prediction, conversion):
        monkeypatch.setattr(module, "parts", mutant(parts, old, new))
    assert not truths()


def test_there_and_back_alone_cannot_see_a_velocity_of_the_wrong_sign(monkeypatch):
    """−u converts to x₀ and back as u does: what is wrong in both directions comes back
    unchanged. Hence the tests against the truth.
    """
    for module in (prediction, conversion):
        monkeypatch.setattr(
            module,
            "parts",
            mutant(
                parts,
                "return schedule.rates(level.t)",
                "return tuple(-rate for rate in schedule.rates(level.t))",
            ),
        )
    assert involutions() and not truths()


def test_the_other_side_of_a_sign_slip_is_caught_there_and_back():
    """A slip in one direction only, the network's −u taken for u, does not come back."""
    model = reader(vp(), "eps")
    slide = Denoiser(
        lambda x, t, c: -converted(model, flow(), "velocity").net(x, t, c), flow(), "velocity"
    )
    x, level = normals(4, 3), vp().at(0.5)
    assert (converted(slide, vp(), "eps")(x, level).raw - model(x, level).raw).abs().max() > 0.1
