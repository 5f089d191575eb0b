"""Trajectory consistency distillation: its step, its one limit that is exact, and the floor
that a network has which is not told where it is to stop.
"""

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, gaussian, mutant, normals

from dlib import NULL, SOLVERS, Batch, Denoiser, Draw, exact, flow, grid, sample, vp
from dlib.losses import trajectory_consistency, trajectory_consistency_losses
from dlib.losses.consistency_steps import jump
from dlib.recipes import tcd
from dlib.solvers import ddim, solver

SD, X0 = SCHEDULES["discrete"], normals(16, 2)
EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
trajectory_ends = trajectory_consistency_losses.trajectory_ends


class At(Draw):
    """A `Draw` that starts every sample at the same place and gives s by a uniform of its own."""

    def __init__(self, place, share):
        super().__init__(0)
        self.place, self.share = place, share

    def integers(self, high, n):
        assert self.place < high
        return torch.full((n,), self.place)

    def uniform(self, n):
        return torch.full((n,), self.share)


def V(level, c):
    return level.alpha**2 * c**2 + level.sigma**2


def walk_on(c):
    """The exact PF-ODE of N(0, c²) as a solver."""

    @solver(order=99)
    def step(model, x, a, b, memory=None, noise=None, cond=None):
        return x * (V(b, c) / V(a, c)) ** 0.5, memory

    return step


def floor_of(schedule, times, c):
    """The ε = e_i x that minimises the squared loss at each place i, from the clean end: the
    mean of what the targets mean, weighted by (α_s(κ_i − κ_s))², since x_s = (α_s/α_i) x −
    α_s(κ_i − κ_s) ε.
    """
    levels = schedule.levels(times)
    alpha = torch.tensor([level.alpha for level in levels], dtype=F64)
    kappa = torch.tensor([level.sigma for level in levels], dtype=F64) / alpha
    V_ = torch.tensor([V(level, c) for level in levels], dtype=F64)
    e = torch.zeros(len(times), dtype=F64)
    for i in reversed(range(len(times) - 1)):
        s = torch.arange(i + 1, len(times))
        there = alpha[s] / alpha[i + 1] - alpha[s] * (kappa[i + 1] - kappa[s]) * e[i + 1]
        goal, weight = (V_[i + 1] / V_[i]).sqrt() * there, alpha[s] * (kappa[i] - kappa[s])
        e[i] = (weight * (alpha[s] / alpha[i] - goal)).sum() / weight.square().sum()
    return e


def of(schedule, times, e):
    """The network ε = e_i x of these slopes."""

    def net(x, t, cond):
        place = (times[None, :] >= t.double()[:, None] - 1e-9).sum(1) - 1
        return x * e[place, None]

    return Denoiser(net, schedule, "eps")


def test_the_minimiser_is_the_closed_form():
    """The gradient of the loss in the student's slope vanishes at each place; where several s
    ask, the loss does not.
    """
    times, c = grid(SD, 10, "sd_trailing"), 0.5
    e = floor_of(SD, times, c)
    target, path = of(SD, times, e), dict(times=times, solver=walk_on(c))
    for place in (0, 4, 9):
        slope = e.clone().requires_grad_()
        values = [
            trajectory_consistency(
                of(SD, times, slope),
                target,
                target,
                Batch(X0),
                At(place, (k + 0.5) / (10 - place)),
                **path,
            ).value
            for k in range(10 - place)
        ]
        (grad,) = torch.autograd.grad(torch.stack(values).mean(), slope)
        assert grad[place].abs() < 1e-9 and all(v.item() >= 0 for v in values)
        assert place == 9 or sum(values) > 1e-6  # the floor: several s, one ε


@pytest.mark.parametrize(
    "calls, c_half, c_one",
    [(1, 0.586, 0.699), (2, 0.832, 1.023), (4, 1.074, 1.247), (8, 1.250, 1.382)],
)
def test_one_epsilon_for_all_s_is_too_narrow_in_one_call_and_too_wide_in_eight(
    calls, c_half, c_one
):
    """The standard deviation of samples over the exact one, at η = 0, by an exact teacher and
    the loss's own minimiser. Computed before by another program, to the digits given.
    """
    times = grid(SD, 50, "sd_trailing")
    for c, want in ((0.5, c_half), (1.0, c_one)):
        model = of(SD, times, floor_of(SD, times, c))
        walk = SD.levels(grid(SD, calls, "lcm"))
        x = sample(model, torch.ones(1, 1, dtype=F64), walk, ddim)
        exact_one = (V(walk[-1], c) / V(walk[0], c)) ** 0.5
        assert x.item() / exact_one == pytest.approx(want, abs=6e-4)


@EVERY
def test_s_lies_between_the_step_s_end_and_the_grid_s(schedule):
    times = grid(schedule, 9, "time", t_max=0.98)
    model = exact(gaussian(0.6), schedule)
    for place, skip in ((0, 1), (3, 2), (8, 1), (7, 5)):
        first = min(place + skip, 9)
        for share, at in ((0.0, first), (0.5, first + (10 - first) // 2), (1 - 1e-7, 9)):
            both = trajectory_ends(
                model, model, model, Batch(X0), At(place, share), times=times, skip=skip
            )
            assert (both.edge.t - times[at]).abs().max() < 1e-12
            by_hand = both.edge.alpha * both.prediction.x0 + both.edge.sigma * both.prediction.eps
            assert (both.student - by_hand).abs().max() < 1e-11
    places = trajectory_ends(model, model, model, Batch(normals(4000, 2)), Draw(0), times=times)
    shares = (places.edge.t.flatten()[None, :] == times[:, None]).double().mean(1)
    want = (
        sum(torch.cat([torch.zeros(i + 1), torch.full((9 - i,), 1 / (9 - i))]) for i in range(9))
        / 9
    )
    # 4000 draws: five standard errors of a share of at most 0.4
    assert (shares - want).abs().max() < 5 * (0.24 / 4000) ** 0.5


@EVERY
def test_at_the_step_s_end_the_target_is_the_teacher_s_step(schedule):
    times = grid(schedule, 7, "time", t_max=0.98)
    teacher, other = exact(appendix_a(), schedule), exact(gaussian(0.6), schedule)
    both = trajectory_ends(other, teacher, other, Batch(X0), At(2, 0.0), times=times)
    x, start, end = both.prediction.x, both.prediction.level, both.edge
    assert torch.equal(both.target, ddim(teacher, x, start, end)[0])


def test_the_target_is_constant_and_nobody_else_gets_a_gradient():
    scale = torch.tensor(0.7, dtype=F64, requires_grad=True)
    model = Denoiser(lambda x, t, cond: scale * torch.sin(x), vp(), "v")
    both = trajectory_ends(model, model, model, Batch(X0), Draw(0), times=grid(vp(), 7, "time"))
    assert both.student.requires_grad and not both.target.requires_grad


def test_the_recipe_is_the_loss_with_its_settings():
    batch, null = Batch(X0, torch.arange(16) % 3), torch.tensor(NULL)
    student = Denoiser(lambda x, t, c: torch.sin(x + t[:, None]), SD, "v")
    roles = {"student": student, "teacher": exact(appendix_a(), SD), "target": student}
    for more, want in (
        ({}, dict(omega=(5.0, 15.0), null=null)),
        (dict(omega=(0, 0), skip=2), dict(skip=2)),
    ):
        recipe = tcd(SD, null, **more)
        ours = recipe.phases[0].loss(roles, batch, Draw(0)).value
        times = grid(SD, 50, "sd_trailing")
        by_hand = trajectory_consistency(*roles.values(), batch, Draw(0), times=times, **want)
        assert ours == by_hand.value
    assert recipe.sampler.facts["end"] == "grid" and recipe.sampler.solver == "tcd"


SLIPS = [
    ("last + 1 - end", "last - end"),
    ("end + (draw", "index + (draw"),
    ("times[place]]", "times[end]]"),
]


@pytest.mark.parametrize("old, new", SLIPS, ids=[new for _, new in SLIPS])
def test_a_slip_is_caught(monkeypatch, old, new):
    wrong = mutant(trajectory_ends, old, new)
    monkeypatch.setitem(globals(), "trajectory_ends", wrong)
    with pytest.raises(AssertionError):
        test_s_lies_between_the_step_s_end_and_the_grid_s(vp())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"times": grid(vp(), 7, "time").flip(0)}, "must fall from noise to data"),
        ({"skip": 0}, "wanted at least 1"),
        ({"solver": SOLVERS["lcm"]}, "has a memory or adds noise"),
        ({"omega": (1.0,)}, "wanted a range"),
        ({"embed": lambda c, w: c}, "there is none"),
        ({"teacher": exact(gaussian(0.6), flow())}, "different schedules, vp and flow"),
    ],
)
def test_bad_input(change, message):
    model = exact(gaussian(0.6), vp())
    given = {"times": grid(vp(), 7, "time"), "teacher": model} | change
    with pytest.raises(ValueError, match=f"trajectory_consistency: .*{message}"):
        trajectory_consistency(model, given.pop("teacher"), model, Batch(X0), Draw(0), **given)


def test_pictures_in_float32_and_the_jump_is_dlib_s():
    model = Denoiser(lambda x, t, c: torch.tanh(x), SD, "eps", clock=lambda t: 1000 * t - 1)
    both = trajectory_ends(
        model,
        model,
        model,
        Batch(normals(3, 4, 6, 6).float()),
        Draw(0),
        times=grid(SD, 50, "sd_trailing"),
    )
    assert both.target.dtype == torch.float32 and both.target.isfinite().all()
    assert torch.equal(both.student, jump(both.prediction, both.edge))
