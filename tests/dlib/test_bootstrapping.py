"""Consistency training against closed forms: its fixed point a_N, its three rewards, clean ends,
phases, weights and bad input.
"""

import math

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, gaussian, mutant, normals

from dlib import (
    Batch,
    Denoiser,
    Draw,
    boundary,
    counted,
    edm,
    edm_boundary,
    exact,
    flow,
    grid,
    vp,
)
from dlib.grids import pcm_edges
from dlib.losses import (
    bootstrapping,
    consistency,
    consistency_training,
    ect_times,
    inverse_step,
    ladder_times,
    norm_huber,
    own,
    squared,
    taught,
)

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
X0 = normals(16, 2)
# four points whose moments are those of independent standard normals
SIGNS, OTHERS = (
    torch.tensor([[1.0], [1], [-1], [-1]], dtype=F64),
    torch.tensor([[1.0], [-1], [1], [-1]], dtype=F64),
)


def step_of(t, r):
    """Always the same two times."""
    return lambda draw, n: (torch.full((n,), t, dtype=F64), torch.full((n,), r, dtype=F64))


def linear(schedule, slope):
    """f = slope · x, for every level."""
    return Denoiser(lambda x, t, cond: slope * x, schedule, "x0")


def gradient(loss, schedule, t, r, slope, below, c, **options):
    """d loss / d slope for the student slope · x at t and the target below · x at r, on data
    N(0, c²).
    """
    slope = torch.tensor(slope, dtype=F64, requires_grad=True)
    found = loss(
        linear(schedule, slope),
        linear(schedule, below),
        Batch(c * SIGNS, noise=OTHERS),
        Draw(0),
        times=step_of(t, r),
        **options,
    )
    return torch.autograd.grad(found.value, slope)[0].item()


def slopes_of(times, c, schedule=edm()):
    """a_n of CT's fixed point at each point of a ladder, from the clean end up: the recursion
    that the loss's gradient is checked against.
    """
    kappa = [level.sigma for level in schedule.levels(times.flip(0))]
    slopes = [1.0]
    for low, high in zip(kappa, kappa[1:]):
        slopes.append(slopes[-1] * (1 - (high - low) * high / (c**2 + high**2)))
    return slopes, kappa


@pytest.mark.parametrize(
    "points, share", [(10, 0.730), (20, 0.861), (40, 0.930), (80, 0.965), (160, 0.982)]
)
def test_the_fixed_point_is_a_n(points, share):
    """The loss's gradient vanishes at a_{n+1} = a_n (1 − (κ_{n+1} − κ_n) κ_{n+1}/(c² + κ²_{n+1}))
    and a_N falls short of the exact one by the card's share.
    """
    c, times = 0.5, grid(edm(), points - 1, "karras")
    slopes, kappa = slopes_of(times, c)
    exact_one = math.sqrt((c**2 + kappa[0] ** 2) / (c**2 + kappa[-1] ** 2))
    assert slopes[-1] / exact_one == pytest.approx(share, abs=5.1e-4)
    upwards = times.flip(0).tolist()
    for n in range(0, points - 1, 3):
        found = gradient(
            consistency_training, edm(), upwards[n + 1], upwards[n], slopes[n + 1], slopes[n], c
        )
        size = slopes[n + 1] * (c**2 + kappa[n + 1] ** 2)
        assert abs(found) < 1e-9 * size


@pytest.mark.parametrize(
    "old, new",
    [
        (".mix(end.alpha, end.sigma)", ".mix(end.alpha, start.sigma)"),
        ("target(there, asked", "target(x, asked"),
        ("draw.normal(x0) if batch.noise is None else batch.noise", "draw.normal(x0)"),
    ],
)
def test_slips_of_the_step_are_caught_by_the_fixed_point(old, new, monkeypatch):
    """A step to the wrong side, none at all, or fresh noise has another fixed point."""
    c, times = 0.5, grid(edm(), 9, "karras")
    slopes, _ = slopes_of(times, c)
    t, r = times[4].item(), times[5].item()
    for function in (bootstrapping.both_ends, mutant(bootstrapping.both_ends, old, new)):
        right = function is bootstrapping.both_ends
        monkeypatch.setattr(bootstrapping, "both_ends", function)
        found = gradient(consistency_training, edm(), t, r, slopes[5], slopes[4], c)
        assert (abs(found) < 1e-6) == right


@EVERY
def test_a_teacher_s_reward_is_consistency_distillation(schedule):
    times = grid(schedule, 9, "time", t_max=0.98)
    teacher, student = exact(appendix_a(), schedule), exact(gaussian(0.6), schedule)
    for edges in (None, pcm_edges(times, 3)):
        mine = consistency_training(
            student,
            student,
            Batch(X0),
            Draw(3),
            times=ladder_times(times),
            estimate=taught(teacher),
            edges=edges,
        )
        theirs = consistency(
            student,
            teacher,
            student,
            Batch(X0),
            Draw(3),
            times=times,
            edges=edges,
            distance=squared,
        )
        assert torch.allclose(mine.value, theirs.value, rtol=1e-9)


@EVERY
def test_the_own_sample_keeps_its_noise(schedule):
    """x_r = α_r x₀ + σ_r ε with the ε of x_t: at the far and at the near end."""
    noise = normals(16, 2, seed=1)
    for t, r in ((1.0, 0.2), (0.3, 0.01)):
        start, end = (
            bootstrapping.levels_at(schedule, torch.full((16,), s, dtype=F64), X0) for s in (t, r)
        )
        x = start.alpha * X0 + start.sigma * noise
        there = bootstrapping.estimated(x, start, Batch(X0), own, schedule)
        there = there.mix(end.alpha, end.sigma)
        scale = end.alpha.max() + end.sigma.max()
        assert (there - (end.alpha * X0 + end.sigma * noise)).abs().max() < 1e-10 * scale


@EVERY
def test_at_a_clean_end_the_target_is_the_estimate(schedule):
    """Then the loss is a denoising loss, and the network is never asked at σ = 0."""
    asked = []

    def net(x, t, cond):
        asked.append(t)
        return torch.full_like(x, float("nan")) if (t <= schedule.t_min).any() else 0 * x

    student = Denoiser(net, schedule, "x0")
    mine = consistency_training(
        student, student, Batch(X0), Draw(0), times=step_of(0.5, -1.0), distance=squared
    )
    assert mine.value.item() == pytest.approx(X0.square().mean().item(), rel=1e-12)
    assert all((t == 0.5).all() for t in asked)


def test_phases_end_at_their_edges():
    """Both sides jump to the edge below t, r stops there, and an edge below t_min is the data."""
    schedule = vp()
    model = exact(appendix_a(), schedule)
    noise, edges = normals(16, 2, seed=2), [0.5, -1.0]
    batch = Batch(X0, noise=noise)
    at = lambda t: bootstrapping.levels_at(schedule, torch.full((16,), t, dtype=F64), X0)
    for t, r, edge in ((0.9, 0.7, 0.5), (0.9, 0.2, 0.5), (0.4, 0.2, -1.0)):
        found = consistency_training(
            model, model, batch, Draw(0), times=step_of(t, r), edges=edges
        )
        start, end, goal = at(t), at(max(r, edge)), at(edge)
        both = [
            model(level.alpha * X0 + level.sigma * noise, level).mix(goal.alpha, goal.sigma)
            for level in (start, end)
        ]
        assert found.value.item() == pytest.approx(squared(*both).mean().item(), rel=1e-9)
    perfect = consistency_training(
        model, model, batch, Draw(0), times=step_of(0.9, 0.2), edges=edges
    )
    away = at(0.5).alpha * X0 + at(0.5).sigma * noise  # r is the edge: the target is x_r itself
    mine = model(at(0.9).alpha * X0 + at(0.9).sigma * noise, at(0.9))
    aim = squared(mine.mix(at(0.5).alpha, at(0.5).sigma), away).mean()
    assert perfect.value.item() == pytest.approx(aim.item(), rel=1e-9)


def test_only_the_student_s_call_has_a_gradient_and_there_are_two_calls(monkeypatch):
    weight = torch.ones(1, dtype=F64, requires_grad=True)
    net = lambda x, t, cond: weight * x
    student = counted(Denoiser(net, edm(), "x0"))
    drawn, batch = ladder_times(grid(edm(), 9, "karras")), Batch(X0)
    loss = consistency_training(student, student, batch, Draw(0), times=drawn)
    (mine,) = torch.autograd.grad(loss.value, weight)
    assert student.net.calls == 2
    constant = Denoiser(lambda x, t, cond: x * 1.0, edm(), "x0")
    loss = consistency_training(student, constant, batch, Draw(0), times=drawn)
    assert torch.equal(torch.autograd.grad(loss.value, weight)[0], mine)
    leaky = mutant(bootstrapping.both_ends, "with torch.no_grad():", "if True:")
    monkeypatch.setattr(bootstrapping, "both_ends", leaky)
    loss = consistency_training(student, student, batch, Draw(0), times=drawn)
    assert not torch.allclose(torch.autograd.grad(loss.value, weight)[0], mine)


def test_weights_and_distances():
    schedule, c = edm(), 0.00054 * math.sqrt(3072)
    assert c == pytest.approx(0.0299, abs=5e-5)  # CIFAR-10's in Song & Dhariwal (2024)
    t, r = schedule.at_lam(-math.log(2.0)).t, schedule.at_lam(-math.log(0.5)).t
    student, batch = linear(schedule, 0.0), Batch(torch.full((2, 4), 3.0, dtype=F64))
    options = dict(times=step_of(t, -1.0), weight=inverse_step, distance=norm_huber(0.0))
    loss = consistency_training(student, student, batch, Draw(0), **options)
    assert loss.value.item() == pytest.approx(6 / 2)  # ‖(3, 3, 3, 3)‖ over κ_t = 2
    assert loss.metrics["distance"].item() == pytest.approx(6)
    options = dict(times=step_of(t, r), weight=inverse_step)
    batch = Batch(torch.ones(2, 4, dtype=F64), noise=torch.zeros(2, 4, dtype=F64))
    loss = consistency_training(
        linear(schedule, 3.0), linear(schedule, 1.0), batch, Draw(0), **options
    )
    assert loss.value.item() == pytest.approx(4 / 1.5)
    gap = torch.tensor([[0.03, 0.04]], dtype=F64)
    assert norm_huber(0.12)(gap, 0 * gap).item() == pytest.approx(0.13 - 0.12)
    tie = torch.zeros(1, 2, requires_grad=True)
    assert torch.equal(
        torch.autograd.grad(norm_huber(0.0)(tie, tie.detach()).sum(), tie)[0], torch.zeros(1, 2)
    )


def test_the_norm_s_minimiser_is_the_median():
    """Two-point posterior .8/.2 on {0, 1}: the norm's optimum is 0, the square's is 0.2."""
    targets = torch.tensor([[0.0]] * 8 + [[1.0]] * 2, dtype=F64)
    best = {}
    for name, distance in (("norm", norm_huber(0.0)), ("square", squared)):
        tries = torch.linspace(-0.5, 1.5, 201, dtype=F64)
        losses = [distance(value.expand(10, 1), targets).mean() for value in tries]
        best[name] = tries[torch.stack(losses).argmin()].item()
    assert best == {"norm": pytest.approx(0, abs=1e-9), "square": pytest.approx(0.2, abs=1e-9)}


def test_a_boundary_and_float32():
    """At the least noise the student has no choice; float32 data give a float32 loss."""
    schedule = edm()
    net = lambda x, t, cond: torch.sin(x)
    student = boundary(Denoiser(net, schedule, "x0"), edm_boundary(schedule))
    times = grid(schedule, 9, "karras")
    loss = consistency_training(
        student, student, Batch(X0.float()), Draw(0), times=ladder_times(times)
    )
    assert loss.value.dtype == torch.float32 and torch.isfinite(loss.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(times=step_of(0.2, 0.4)), "r ≥ t"),
        (dict(times=lambda draw, n: (torch.ones(2), torch.zeros(2))), "times drew"),
        (dict(times=step_of(0.0, -1.0)), "no noise to take away"),
        (dict(times=step_of(1.5, 0.0)), "outside"),
        (dict(estimate=lambda x, level, batch: batch.x0[:1]), "one x̄₀ for each sample"),
        (dict(edges=[0.2, 0.5]), "descending"),
        (dict(distance=torch.nn.functional.mse_loss), r"distance has shape \(\) for"),
        (dict(edges=[0.9, 0.8]), "not above the last edge"),
        (dict(weight=lambda a, b: a.t[:3]), r"weight has shape \(3, 1\) for 16 .* \(16, 1\)"),
        (dict(weight=lambda a, b: a.t[:1]), r"weight has shape \(1, 1\) for 16 samples"),
        (dict(weight=lambda a, b: a.t.mean()), r"weight has shape \(\) for 16 samples"),
        (dict(weight=lambda a, b: X0), r"weight has shape \(16, 2\) .*one number a sample"),
        (dict(weight=lambda a, b: 1.0), r"weight has shape \(\) for 16 samples"),
        (dict(target=exact(gaussian(0.5), vp())), "on different schedules, flow and vp"),
    ],
)
def test_bad_input(change, words):
    model = exact(gaussian(0.5), flow())
    given = dict(target=model, times=step_of(0.5, 0.2)) | change
    with pytest.raises(ValueError, match=words):
        consistency_training(model, given.pop("target"), Batch(X0), Draw(0), **given)


def test_bad_noise_and_bad_widths():
    model = exact(gaussian(0.5), flow())
    with pytest.raises(ValueError, match="one ε for each x0"):
        batch = Batch(X0, noise=X0[:3])
        consistency_training(model, model, batch, Draw(0), times=ect_times(flow(), stage=0))
    with pytest.raises(ValueError, match="norm_huber: c = -1"):
        norm_huber(-1.0)
    with pytest.raises(ValueError, match="norm_huber: shapes"):
        norm_huber(1.0)(X0, X0[:1])
