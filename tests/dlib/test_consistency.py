"""Consistency losses against closed forms: perfect students, accumulated errors, phases,
guidance, gradients, batches.
"""

import inspect
import math

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, gaussian, mutant, normals

from dlib import (
    NULL,
    Batch,
    Denoiser,
    Draw,
    boundary,
    edm,
    edm_boundary,
    exact,
    flow,
    grid,
    guided,
    lcm_scalings,
    reference,
    vp,
)
from dlib.grids import pcm_edges
from dlib.losses import (
    consistency,
    consistency_losses,
    huber,
    multistep_consistency,
    squared,
    weights,
    with_omega,
)
from dlib.metrics import order
from dlib.schedule import CLEAN
from dlib.solvers import SOLVERS, ddim, heun, solver

ends, compared = consistency_losses.ends, consistency_losses.compared
X0, LABELS = normals(16, 2), torch.arange(16) % 3
EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))


class At(Draw):
    """A `Draw` that starts every sample at the same place of the grid."""

    def __init__(self, place, seed=0):
        super().__init__(seed)
        self.place = place

    def integers(self, high, n):
        assert self.place < high
        return torch.full((n,), self.place)


def V(level, c):
    return level.alpha**2 * c**2 + level.sigma**2


def walk_on(c):
    """The exact PF-ODE of N(0, c²) as a solver."""

    @solver(order=99)
    def step(model, x, a, b, memory=None, noise=None, cond=None):
        return x * (V(b, c) / V(a, c)) ** 0.5, memory

    return step


def at_the_end(schedule, c, t_end):
    """f*, the consistency function of N(0, c²) in y = x/α: y √((c² + κ_min²)/(c² + κ²))."""
    end = schedule.at(t_end)

    def net(x, t, cond):
        level = schedule.at(t, like=x)
        return x * ((c**2 + (end.sigma / end.alpha) ** 2) / V(level, c)) ** 0.5

    return Denoiser(net, schedule, "x0")


def phase_map(schedule, c, edges):
    """The network of N(0, c²) whose jump to the edge below is the flow: α_s x₀ + σ_s ε = x
    √(V_s/V_t).
    """

    def net(x, t, cond):
        below = (edges >= t[:, None]).sum(1).clamp(max=len(edges) - 1)
        s, level = schedule.at(edges[below], like=x), schedule.at(t, like=x)
        ratio = s.alpha / level.alpha
        raw = x * ((V(s, c) / V(level, c)).sqrt() - ratio) / (s.sigma - level.sigma * ratio)
        return raw.nan_to_num()  # 0/0 on the last edge itself, where the jump does not look at it

    return Denoiser(net, schedule, "eps")


# perfect students


@EVERY
@pytest.mark.parametrize("skip", [1, 3, 100])
def test_the_consistency_function_has_no_loss(schedule, skip):
    c, times = 0.6, grid(schedule, 9, "time", t_max=0.98)
    perfect = at_the_end(schedule, c, times[-1].item())
    for distance in (squared, huber()):
        loss = consistency(
            perfect,
            perfect,
            perfect,
            Batch(X0),
            Draw(0),
            times=times,
            skip=skip,
            solver=walk_on(c),
            distance=distance,
        )
        assert loss.value < 1e-15
    blunt = Denoiser(lambda x, t, cond: 0.9 * perfect.net(x, t, cond), schedule, "x0")
    assert (
        consistency(
            blunt, perfect, perfect, Batch(X0), Draw(0), times=times, skip=skip, solver=walk_on(c)
        ).value
        > 1e-3
    )


@EVERY
@pytest.mark.parametrize("phases", [1, 2, 3, 9])
@pytest.mark.parametrize("skip", [1, 2])
def test_perfect_phase_maps_have_no_loss(schedule, phases, skip):
    """Both sides land on the flow's point of the same edge, from wherever in the phase they
    start.
    """
    c, times = 0.6, grid(schedule, 9, "time", t_max=0.98)
    edges = pcm_edges(times, phases)
    perfect = phase_map(schedule, c, edges)

    both = ends(
        perfect,
        perfect,
        perfect,
        Batch(X0),
        Draw(0),
        times=times,
        edges=edges,
        skip=skip,
        solver=walk_on(c),
    )
    start, edge = both.prediction.level, both.edge
    assert (
        both.student - both.prediction.x * (V(edge, c) / V(start, c)) ** 0.5
    ).abs().max() < 1e-11
    for place in range(len(times) - 1):
        both = ends(
            perfect,
            perfect,
            perfect,
            Batch(X0),
            At(place),
            times=times,
            edges=edges,
            skip=skip,
            solver=walk_on(c),
        )
        assert (both.student - both.target).abs().max() < 1e-10
        assert both.edge.t.unique().item() == max(
            edge for edge in edges.tolist() if edge < times[place]
        )


def test_a_perfect_student_of_the_mixture_has_no_loss():
    """f* by DOP853 for each sample, with an exact step: no closed form anywhere."""
    schedule = vp()
    times = grid(schedule, 5, "lam", t_max=0.9, t_min=0.02)
    model = exact(appendix_a(), schedule)

    def along(x, start, end):
        """Each row from its start to its end, to 1e-8."""
        rows = zip(x.split(1), start.flatten().tolist(), end.flatten().tolist())
        return torch.cat(
            [
                row
                if s == t
                else reference(model, row, schedule.at(s), schedule.at(t), rtol=1e-10)
                for row, s, t in rows
            ]
        )

    def to_the_end(x, t, cond):
        return along(x, t, times[-1:].expand(len(x)))

    @solver(order=99)
    def step(model, x, a, b, memory=None, noise=None, cond=None):
        return along(x, a.t, b.t), memory

    perfect = Denoiser(to_the_end, schedule, "x0")
    assert (
        consistency(
            perfect,
            model,
            perfect,
            Batch(X0[:3]),
            Draw(0),
            times=times,
            solver=step,
            distance=squared,
        ).value
        < 1e-14
    )


# the accumulated error of consistency distillation on N(0, c²): every f_n is a_n y, and a_{n+1} =
# a_n × the step's factor


def accumulated(points, step, c=0.5):
    """a_N divided by the exact one, by regressing the student on the target at each point of
    the grid in turn.
    """
    schedule, slopes = edm(), {0: 1.0}
    times, model = grid(schedule, points - 1, "karras"), exact(gaussian(c, 1), schedule)
    for n in range(points - 1):
        place = points - 2 - n  # starts at point n + 1 and ends at n, from the clean end
        learnt = Denoiser(lambda x, t, cond: slopes[n] * x, schedule, "x0")
        both = ends(learnt, model, learnt, Batch(X0[:, :1]), At(place), times=times, solver=step)
        x = both.prediction.x
        slopes[n + 1] = ((both.target * x).sum() / (x * x).sum()).item()
    low, high = schedule.at(0.0).sigma, schedule.at(1.0).sigma
    return slopes[points - 1] / math.sqrt((c**2 + low**2) / (c**2 + high**2))


@pytest.mark.parametrize(
    "points, by_heun, by_euler",
    [
        (10, 1.2196, 0.730),
        (20, 1.0437, 0.861),
        (40, 1.0098, 0.930),
        (80, 1.0023, 0.965),
        (160, 1.0006, 0.982),
    ],
)
def test_accumulated_error(points, by_heun, by_euler):
    """Measured before, independently; to the digits given."""
    assert accumulated(points, heun) == pytest.approx(by_heun, abs=5.1e-5)
    assert accumulated(points, ddim) == pytest.approx(by_euler, abs=5.1e-4)


@pytest.mark.parametrize("step", [ddim, heun])
def test_the_error_has_the_order_of_the_solver(step):
    errors = {points: abs(accumulated(points, step) - 1) for points in (40, 80, 160)}
    assert order(errors) == pytest.approx(step.order, abs=0.1)


def test_a_long_step_is_biased_at_second_order():
    """skip = 1, 2, 4 of one fine grid: one DDIM step of length h misses the flow by O(h²)."""
    schedule, c, bias = vp(), 0.6, {}
    times = grid(schedule, 64, "lam", t_max=0.9, t_min=0.01)
    model = exact(gaussian(c), schedule)
    for skip in (1, 2, 4):
        both = ends(
            model,
            model,
            model,
            Batch(X0),
            At(30),
            times=times,
            edges=times[1:][skip - 1 + 30 :],
            skip=skip,
        )
        there = walk_on(c)(model, both.prediction.x, both.prediction.level, both.edge)[0]
        bias[skip] = (both.target - there).abs().max().item()
    assert bias[4] / bias[2] == pytest.approx(4, rel=0.15) and bias[2] / bias[1] == pytest.approx(
        4, rel=0.1
    )


# limits


def test_one_phase_is_the_unphased_loss_at_the_last_time():
    """M = 1 jumps to (α_s, σ_s) instead of the data: on `flow` with a last time of 0 these are
    the same; no c_skip either way.
    """
    schedule = flow()
    times = torch.linspace(1, 0, 9, dtype=F64)
    student, teacher = exact(appendix_a(), schedule), exact(gaussian(0.6), schedule)
    one = consistency(
        student, teacher, student, Batch(X0), Draw(0), times=times, edges=times[-1:]
    )
    assert (
        one.value == consistency(student, teacher, student, Batch(X0), Draw(0), times=times).value
        and one.value > 1e-3
    )


@EVERY
def test_one_phase_is_latent_consistency_without_its_boundary(schedule):
    """M = 1 against LCM: the same x̂, jumped to the last level instead of x₀; c_skip < 1e-4
    but at the end itself.
    """
    times = grid(schedule, 50, "time", t_max=0.98)
    student, teacher = exact(appendix_a(), schedule), exact(gaussian(0.6), schedule)
    f = boundary(student, lcm_scalings(schedule, times[-1].item()))
    for place in (0, 20, 47):
        phased = ends(
            student, teacher, student, Batch(X0), At(place), times=times, edges=times[-1:]
        )
        latent = ends(f, teacher, f, Batch(X0), At(place), times=times)
        s = phased.edge
        assert torch.equal(phased.prediction.x, latent.prediction.x) and latent.edge is CLEAN
        x0, eps = phased.prediction.x0, phased.prediction.eps
        assert (phased.student - (s.alpha * x0 + s.sigma * eps)).abs().max() < 1e-11
        assert (latent.student - x0).abs().max() < 1e-3 * phased.prediction.x.abs().max()


@EVERY
def test_as_many_phases_as_steps_is_the_teacher_s_own_step(schedule):
    times = grid(schedule, 7, "time", t_max=0.98)
    teacher, other = exact(appendix_a(), schedule), exact(gaussian(0.6), schedule)
    both = ends(other, teacher, other, Batch(X0), Draw(0), times=times, edges=times[1:])
    step, _ = ddim(teacher, both.prediction.x, both.prediction.level, both.edge)
    assert torch.equal(both.target, step)
    assert (
        consistency(
            teacher, teacher, other, Batch(X0), Draw(0), times=times, edges=times[1:]
        ).value
        == 0
    )


def test_a_step_stops_at_its_phase_s_edge():
    times = grid(vp(), 9, "time")
    seen, model = [], exact(gaussian(0.6), vp())

    def net(x, t, cond):
        seen.append(t)
        return model.net(x, t, cond)

    target = Denoiser(net, vp(), "v")
    for place, skip, edges, stop in (
        (0, 1, None, 1),
        (0, 4, None, 4),
        (7, 5, None, 9),
        (2, 4, [3, 6, 9], 3),
        (3, 2, [3, 6, 9], 5),
        (3, 4, [3, 6, 9], 6),
    ):
        ends(
            model,
            model,
            target,
            Batch(X0),
            At(place),
            times=times,
            edges=None if edges is None else times[edges],
            skip=skip,
        )
        assert (seen.pop() == times[stop]).all()


# multistep consistency


@EVERY
@pytest.mark.parametrize("phases", [1, 3, 9])
def test_multistep_consistency_is_the_phased_square_reweighted(schedule, phases):
    """x̂ − x̃ = (z_θ − z)/(α_s − ρα_t) for each sample: computed from the two points at the
    edge.
    """
    times = grid(schedule, 9, "time", t_max=0.98)
    student, teacher, edges = (
        exact(appendix_a(), schedule),
        exact(gaussian(0.6), schedule),
        pcm_edges(times, phases),
    )
    path = dict(times=times, edges=edges)
    both = ends(student, teacher, student, Batch(X0), Draw(0), **path)
    t, s = both.prediction.level, both.edge
    factor = weights.v(t, schedule) / (s.alpha - s.sigma / t.sigma * t.alpha) ** 2
    by_hand = (factor * (both.student - both.target) ** 2).mean()
    assert multistep_consistency(
        student, teacher, student, Batch(X0), Draw(0), **path
    ).value.item() == pytest.approx(by_hand.item(), rel=1e-9)


def test_multistep_consistency_s_two_limits():
    schedule = vp()
    times = grid(schedule, 9, "time")
    student, teacher = exact(appendix_a(), schedule), exact(gaussian(0.6), schedule)
    path = dict(times=times, weight=weights.x0)
    # M = 1: squared consistency distillation
    model = multistep_consistency(student, teacher, student, Batch(X0), Draw(0), **path)
    assert model.value.item() == pytest.approx(
        consistency(
            student, teacher, student, Batch(X0), Draw(0), times=times, distance=squared
        ).value.item(),
        rel=1e-12,
    )
    # M = N: the target is the teacher's x₀
    both = ends(student, teacher, student, Batch(X0), Draw(0), times=times, edges=times[1:])
    x, level = both.prediction.x, both.prediction.level
    plain = (both.prediction.x0 - teacher(x, level).x0).square().mean().item()
    assert multistep_consistency(
        student, teacher, student, Batch(X0), Draw(0), edges=times[1:], **path
    ).value.item() == pytest.approx(plain, rel=1e-9)


@EVERY
def test_multistep_consistency_has_no_loss_where_the_phase_map_is_perfect(schedule):
    c, times = 0.6, grid(schedule, 8, "time", t_max=0.98)
    edges = pcm_edges(times, 4)
    perfect = phase_map(schedule, c, edges)
    assert (
        multistep_consistency(
            perfect,
            perfect,
            perfect,
            Batch(X0),
            Draw(0),
            times=times,
            edges=edges,
            solver=walk_on(c),
        ).value
        < 1e-15
    )


# guidance


def test_the_target_is_linear_in_omega():
    """The teacher's step is: ε^ω = ε_c + ω(ε_c − ε_∅) and DDIM is linear in ε."""
    times = grid(vp(), 7, "time")
    model = exact(appendix_a(), vp())
    path = dict(times=times, edges=times[1:], null=torch.tensor(NULL))
    zero, one, four = (
        ends(model, model, model, Batch(X0, LABELS), Draw(0), omega=(w, w), **path).target
        for w in (0.0, 1.0, 4.0)
    )
    assert (zero + 4 * (one - zero) - four).abs().max() < 1e-11 and (
        one - zero
    ).abs().max() > 1e-2
    assert (
        zero
        - ends(model, model, model, Batch(X0, LABELS), At(0), times=times, edges=times[1:]).target
    ).abs().max() > 0


def test_each_sample_has_its_own_omega_in_the_order_of_the_draws():
    """By hand from a copy of the draws: places, ω, noise; the student of the guided teacher
    has no loss, and is told ω.
    """
    schedule, times, draw = vp(), grid(vp(), 7, "time"), Draw(5)
    model, null, told = exact(appendix_a(), schedule), torch.tensor(NULL), []
    replay = draw.copy()

    def net(x, t, cond):
        assert set(cond) == {"cond", "omega"}
        told.append(cond)
        return guided(model, cond["omega"], null).net(x, t, cond["cond"])

    student = Denoiser(net, schedule, "v")
    loss = consistency(
        student,
        model,
        student,
        Batch(X0, LABELS),
        draw,
        times=times,
        edges=times[1:],
        omega=(2.0, 14.0),
        null=null,
        embed=with_omega,
    )
    place, omega, noise = replay.integers(7, 16), 2 + 12 * replay.uniform(16), replay.normal(X0)
    assert (
        loss.value < 1e-12
        and torch.equal(told[0]["omega"], omega.double())
        and torch.equal(told[0]["omega"], told[1]["omega"])
    )
    assert torch.equal(told[0]["cond"], LABELS) and torch.equal(
        draw.normal(X0), replay.normal(X0)
    ), "nothing else is drawn"
    both = ends(
        model,
        model,
        model,
        Batch(X0, LABELS),
        draw.__class__(5),
        times=times,
        omega=(2.0, 14.0),
        null=null,
    )
    start = schedule.at(times[place], like=X0)
    assert (
        torch.equal(both.index, place)
        and (both.prediction.x - (start.alpha * X0 + start.sigma * noise)).abs().max() < 1e-14
    )
    assert with_omega({"text": LABELS}, omega).keys() == {"text", "omega"} and with_omega(
        None, omega
    ).keys() == {"omega"}


def test_a_mapping_as_condition_and_given_noise():
    times, model = grid(vp(), 7, "time"), exact(appendix_a(), vp())
    by_name = Denoiser(lambda x, t, cond: model.net(x, t, cond["label"]), vp(), "v")
    noise = normals(16, 2, seed=3)
    arguments = dict(times=times, omega=(1.0, 3.0))
    plain = consistency(
        model,
        model,
        model,
        Batch(X0, LABELS, noise),
        Draw(1),
        null=torch.tensor(NULL),
        **arguments,
    )
    named = consistency(
        by_name,
        by_name,
        by_name,
        Batch(X0, {"label": LABELS}, noise),
        Draw(1),
        null={"label": torch.tensor(NULL)},
        **arguments,
    )
    assert plain.value == named.value > 0
    both = ends(model, model, model, Batch(X0, None, noise), At(0), times=times)
    assert torch.equal(both.prediction.x, vp().at(1.0).alpha * X0 + vp().at(1.0).sigma * noise)


# gradients


def linear(value, schedule=vp()):
    weight = torch.tensor(value, dtype=F64, requires_grad=True)
    return weight, Denoiser(lambda x, t, cond: torch.tanh(weight * x), schedule, "x0")


@pytest.mark.parametrize("loss", [consistency, multistep_consistency])
def test_only_the_student_s_jump_has_a_gradient(loss):
    times = grid(vp(), 7, "time")
    (w, student), (u, teacher), (v, target) = linear(0.5), linear(0.6), linear(0.7)
    value, metrics = loss(
        student, teacher, target, Batch(X0), Draw(0), times=times, edges=pcm_edges(times, 3)
    )
    value.backward()
    assert (
        u.grad is None
        and v.grad is None
        and w.grad.abs() > 1e-3
        and not metrics["loss"].requires_grad
        and metrics["loss"] == value
    )


def slope(loss_of, at=0.5):
    """d/dw of the loss with student and target one network: by autograd."""
    w, student = linear(at)
    f = boundary(student, edm_boundary(vp(), 1e-3))
    times = grid(vp(), 7, "time")
    loss_of(
        f, linear(0.9)[1], f, Batch(X0), Draw(0), times=times, distance=squared
    ).value.backward()
    return w.grad.item()


def test_the_target_is_constant_even_if_it_is_the_student():
    """Central difference of the loss in the student's weight alone, the target's held."""
    times, teacher = grid(vp(), 7, "time"), linear(0.9)[1]

    def value(w):
        student, target = (boundary(linear(a)[1], edm_boundary(vp(), 1e-3)) for a in (w, 0.5))
        return consistency(
            student, teacher, target, Batch(X0), Draw(0), times=times, distance=squared
        ).value.item()

    assert slope(consistency) == pytest.approx(
        (value(0.5 + 1e-5) - value(0.5 - 1e-5)) / 2e-5, rel=1e-6
    )


def test_a_target_that_is_not_constant_is_caught(monkeypatch):
    honest = slope(consistency)
    leaky = mutant(compared, "torch.no_grad()", "torch.enable_grad()")
    monkeypatch.setattr(consistency_losses, "compared", leaky)
    assert slope(consistency) != pytest.approx(honest, rel=0.1)


@pytest.mark.parametrize(("n", "kept", "flat"), [(6, 0.779, 0.373), (17, 0.916, 0.377)])
def test_without_stop_gradient_a_noisy_target_flattens_f(n, kept, flat):
    """N(0, c²), f_n = a_n y, and the data point at the next level for a target: in 6 (17) steps
    the samples keep 0.779 (0.916) of the data's spread with the stop-gradient, where each a_n
    is the regression on the last, and 0.373 (0.377) without, where all of them minimise the
    loss together."""
    # c: the standard deviation of GMM5
    schedule, c = SCHEDULES["discrete"], 1.0878
    kappa = torch.tensor(
        [math.exp(-schedule.at(t).lam) for t in grid(schedule, n, "karras").flip(0).tolist()],
        dtype=F64,
    )
    variance, shared = c**2 + kappa**2, c**2 + kappa[1:] * kappa[:-1]
    stopped = (shared / variance[1:]).prod()
    # a_0 = 1 is the boundary
    a = torch.ones(n + 1, dtype=F64, requires_grad=True)
    loss = (
        a[1:] ** 2 * variance[1:] + a[:-1] ** 2 * variance[:-1] - 2 * a[1:] * a[:-1] * shared
    ).sum()
    slope = torch.autograd.grad(loss, a, create_graph=True)[0]
    curvature = torch.stack([torch.autograd.grad(s, a, retain_graph=True)[0] for s in slope])
    together = a - torch.nn.functional.pad(
        torch.linalg.solve(curvature[1:, 1:], slope[1:]), (1, 0)
    )
    spread = lambda slope: (slope * (variance[-1] / variance[0]).sqrt()).item()
    assert spread(stopped) == pytest.approx(kept, abs=1e-3)
    assert spread(together[-1]) == pytest.approx(flat, abs=1e-3)


SLIPS = [
    (
        "start.alpha * x0 + start.sigma * noise",
        "start.alpha * x0 + end.sigma * noise",
        lambda: test_each_sample_has_its_own_omega_in_the_order_of_the_draws(),
    ),
    (
        "target(there, end, told)",
        "target(x, start, told)",
        lambda: test_accumulated_error(10, 1.2196, 0.730),
    ),
    (
        "target(there, end, told)",
        "target(there, start, told)",
        lambda: test_the_consistency_function_has_no_loss(vp(), 3),
    ),
    (
        "target(there, end, told)",
        "target(there, end, cond)",
        lambda: test_each_sample_has_its_own_omega_in_the_order_of_the_draws(),
    ),
    (
        "there, end, told), edge)",
        "there, end, told), start)",
        lambda: test_perfect_phase_maps_have_no_loss(vp(), 3, 1),
    ),
    ("index, skip, x0)", "index, 1, x0)", lambda: test_a_step_stops_at_its_phase_s_edge()),
]


@pytest.mark.parametrize("old, new, check", SLIPS, ids=[new for _, new, _ in SLIPS])
def test_a_slip_is_caught(monkeypatch, old, new, check):
    check()
    if old in inspect.getsource(compared):
        monkeypatch.setattr(consistency_losses, "compared", mutant(compared, old, new))
    else:
        wrong = mutant(ends, old, new)
        monkeypatch.setattr(consistency_losses, "ends", wrong)
        monkeypatch.setitem(globals(), "ends", wrong)
    with pytest.raises(AssertionError):
        check()


# batches, dtypes, pictures, input


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    """With draws that belong to the rows, four micro-batches of four are one batch of sixteen."""
    from full_scale.data.draws import step_draws

    times, model, teacher = (
        grid(vp(), 7, "time"),
        exact(gaussian(0.6), vp()),
        exact(appendix_a(), vp()),
    )
    for loss, more in (
        (consistency, {}),
        (multistep_consistency, {}),
        (consistency, {"omega": (1.0, 5.0), "null": torch.tensor(NULL)}),
    ):
        value = lambda rows: (
            loss(
                model,
                teacher,
                model,
                Batch(X0[rows], LABELS[rows] * 0),
                step_draws(0, 3, rows),
                times=times,
                **more,
            ).value
        )
        whole = value(range(16))
        parts = torch.stack([value(range(4 * k, 4 * k + 4)) for k in range(4)]).mean()
        assert whole.item() == pytest.approx(parts.item(), rel=1e-12)


@EVERY
@pytest.mark.parametrize("loss", [consistency, multistep_consistency])
@pytest.mark.parametrize("phases", [None, 3])
def test_float32_is_float64_rounded(schedule, loss, phases):
    times = grid(schedule, 6, "time", t_max=0.98)
    edges = None if phases is None else pcm_edges(times, phases)
    student, teacher = exact(appendix_a(), schedule), exact(gaussian(0.6), schedule)
    double = loss(student, teacher, student, Batch(X0), Draw(0), times=times, edges=edges).value
    single = loss(
        student, teacher, student, Batch(X0.float()), Draw(0), times=times, edges=edges
    ).value
    assert single.dtype == torch.float32 and single.item() == pytest.approx(
        double.item(), rel=2e-3
    )


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "velocity", "score"])
def test_pictures_on_the_trained_ladder_in_every_face(predicts):
    """(B, C, H, W); bfloat16 data is noised and compared in float32, at the right times."""
    schedule, seen = SCHEDULES["discrete"], []
    times = grid(schedule, 50, "sd_trailing")

    def net(x, t, cond):
        seen.append(t)
        return torch.tanh(x)

    model = Denoiser(net, schedule, predicts, clock=lambda t: 1000 * t - 1)
    f = boundary(model, lcm_scalings(schedule))
    for x0 in (normals(3, 4, 6, 6).float(), normals(3, 4, 6, 6).bfloat16()):
        loss = consistency(f, model, f, Batch(x0), At(7), times=times)
        assert (
            loss.value.shape == () and loss.value.dtype == torch.float32 and loss.value.isfinite()
        )
        teacher, target, student = seen[-3:]
        assert (
            (teacher - 859).abs().max() < 1e-3
            and (target - 839).abs().max() < 1e-3
            and torch.equal(student, teacher)
        )
        assert consistency(
            model, model, model, Batch(x0), At(7), times=times, edges=pcm_edges(times, 4)
        ).value.isfinite()


def test_distances():
    a, b = normals(5, 2, 3, 3), normals(5, 2, 3, 3, seed=1)
    for i in range(5):
        d = a[i] - b[i]
        assert squared(a, b)[i].item() == pytest.approx((d * d).mean().item())
        assert huber(0.3)(a, b)[i].item() == pytest.approx(
            ((d * d + 0.09).sqrt() - 0.3).mean().item()
        )
    assert huber(1e-3)(a, b) == pytest.approx((a - b).abs().flatten(1).mean(1), rel=2e-2)
    assert 2e3 * huber(1e3)(a, b) == pytest.approx(squared(a, b), rel=1e-4)


MODEL, TIMES = exact(gaussian(0.6), vp()), grid(vp(), 7, "time")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"times": TIMES.flip(0)}, "must fall from noise to data"),
        ({"times": TIMES[:1]}, "must fall from noise to data"),
        ({"edges": TIMES[2:5]}, "the last of them the grid's last"),
        ({"edges": TIMES}, "descending times below the first"),
        ({"edges": TIMES[1:].flip(0)}, "descending"),
        ({"skip": 0}, "skip = 0 steps"),
        ({"skip": 1.5}, "skip = 1.5 steps .* a whole number"),
        ({"omega": (5.0, 4.0)}, r"omega = \(5.0, 4.0\), wanted a range"),
        ({"distance": lambda a, b: (a - b).abs()}, r"distance has shape \(\d+, 2\) for"),
        (
            {"solver": SOLVERS["dpm_solver_pp_2m"]},
            "dpm_solver_pp_2m has a memory or adds noise: use ddim",
        ),
        ({"solver": SOLVERS["lcm"]}, "lcm has a memory or adds noise"),
        ({"omega": (1.0,)}, "wanted a range"),
        ({"embed": with_omega}, "there is none: pass omega"),
        ({"omega": (1.0, 2.0)}, "no condition given"),
        (
            {"omega": (1.0, 2.0), "batch": Batch(X0, LABELS)},
            "no empty condition, null = None: pass null=…",
        ),
        ({"batch": Batch(X0, noise=X0[:1])}, "one ε for each x0"),
        ({"teacher": exact(gaussian(0.6), flow())}, "different schedules, vp and flow"),
        ({"target": exact(gaussian(0.6), flow())}, "different schedules, vp and flow"),
    ],
)
def test_bad_input(change, message):
    given = {"batch": Batch(X0), "times": TIMES, "teacher": MODEL, "target": MODEL, **change}
    players = (given.pop(name) for name in ("teacher", "target", "batch"))
    with pytest.raises(ValueError, match=message):
        consistency(MODEL, *players, Draw(0), **given)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: huber(0.0), "huber: c = 0"),
        (lambda: huber()(X0, X0[:1]), "huber: shapes"),
        (lambda: squared(X0, X0[:, :1]), "squared: shapes"),
        (lambda: edm_boundary(vp(), sigma_data=-0.5), "edm_boundary: sigma_data = -0.5"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_loss_never_waits_for_the_gpu():
    schedule = SCHEDULES["discrete"]
    model = Denoiser(lambda x, t, c: torch.tanh(x * t[:, None]), schedule, "eps")
    x0, times = X0.cuda().float(), grid(schedule, 50, "sd_trailing")
    run = lambda: consistency(
        model,
        model,
        model,
        Batch(x0, LABELS.cuda()),
        Draw(0),
        times=times,
        edges=pcm_edges(times, 4),
        omega=(4.0, 5.0),
        null=torch.tensor(NULL).cuda(),
    )
    run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
