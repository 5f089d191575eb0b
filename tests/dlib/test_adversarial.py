"""Hinge losses and the phased discriminator: the hinge's optimum, levels inside the phase,
marginals, who gets a gradient.
"""

import pytest
import torch
from truth import F64, SCHEDULES, mutant, normals

from dlib import Draw, grid, vp
from dlib.grids import pcm_edges
from dlib.losses import adversarial
from dlib.losses.adversarial import (
    held,
    hinge_fake,
    hinge_real,
    in_phase,
    phased_discriminator,
    phased_generator,
)
from dlib.nets import MLP

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))


def test_hinges():
    logits = torch.tensor([[-2.0, 0.0], [0.5, 3.0]])
    assert hinge_real(logits).tolist() == [2.0, 0.25] and hinge_fake(logits).tolist() == [
        0.5,
        2.75,
    ]


@pytest.mark.parametrize("p, q", [(0.7, 0.2), (0.1, 0.4), (0.5, 0.5)])
def test_the_hinge_s_optimum_is_the_sign_of_p_minus_q(p, q):
    """At a point with densities p (real) and q (fake), p max(0, 1 − D) + q max(0, 1 + D) is
    least at sign(p − q): 2 min(p, q).
    """
    D = torch.linspace(-3, 3, 6001, dtype=F64)[:, None]
    value = p * hinge_real(D) + q * hinge_fake(D)
    assert value.min().item() == pytest.approx(2 * min(p, q), rel=1e-12)
    if p != q:
        assert D[value.argmin()].item() == pytest.approx(1.0 if p > q else -1.0, abs=1e-3)


@EVERY
@pytest.mark.parametrize("phases", [1, 3, 6])
def test_levels_lie_in_their_sample_s_phase(schedule, phases):
    """u = 0 and 1 are the ends of (s_m, s_{m+1}]; a start on an edge belongs to the phase
    below it.
    """
    times = grid(schedule, 6, "time", t_max=0.98)
    edges, index, like = pcm_edges(times, phases), torch.arange(6), normals(6, 2)

    class Fixed(Draw):
        def uniform(self, n):
            return torch.full((n,), self.value)

    draw = Fixed(0)
    tops = torch.cat([times[:1], edges])
    for place in range(6):
        below = max(edge for edge in edges.tolist() if edge < times[place])
        above = min(top for top in tops.tolist() if top >= times[place])
        for draw.value in (0.0, 0.25, 0.99):
            edge, s = (
                level.t[place].item()
                for level in in_phase(schedule, index, draw, like, times=times, edges=edges)
            )
            assert edge == below and s == pytest.approx(
                above - draw.value * (above - below), rel=1e-6
            )


def test_renoised_points_have_the_forward_marginal():
    """Gaussian data, samples at the edge: at s their variance is α_s² c² + σ_s². 100 000
    values: bound five standard errors.
    """
    schedule, c, n = vp(), 0.6, 100_000
    times = grid(schedule, 8, "time")
    edges, index, seen = pcm_edges(times, 2), torch.full((n,), 2), []
    edge = schedule.at(edges[0].item())
    x = (edge.alpha**2 * c**2 + edge.sigma**2) ** 0.5 * normals(n, 1)
    phased_generator(
        lambda x, t, cond: seen.append((x, t)) or x,
        schedule,
        x,
        index,
        Draw(0),
        times=times,
        edges=edges,
    )
    (y, t), level = seen[0], schedule.at(seen[0][1])
    scaled = y[:, 0] / (level.alpha**2 * c**2 + level.sigma**2).sqrt()
    assert (
        t.min() > edges[0]
        and t.max() <= 1
        and scaled.var().item() == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
    )


def problem():
    times = grid(vp(), 8, "time")
    torch.manual_seed(0)
    judge = MLP(2, width=8, depth=1).double()
    torch.nn.init.normal_(judge.leave.weight)
    return judge, dict(times=times, edges=pcm_edges(times, 2)), torch.arange(4)


def test_the_generator_s_gradient_reaches_the_student_alone():
    """The same as through the live discriminator, whose weights stay without gradient, and
    trainable.
    """
    judge, place, index = problem()
    fake = normals(4, 2).requires_grad_()
    phased_generator(judge, vp(), fake, index, Draw(0), **place).sum().backward()
    assert all(w.grad is None and w.requires_grad for w in judge.parameters())
    through, fake.grad = fake.grad, None
    edge, s = in_phase(vp(), index, draw := Draw(0), fake, **place)
    hinge_real(
        judge(adversarial.travel(fake, edge, s, draw.normal(fake)), s.t.flatten(), None)
    ).sum().backward()
    assert (
        torch.equal(through, fake.grad)
        and through.abs().max() > 0
        and judge.leave.weight.grad.abs().max() > 0
    )


def test_the_discriminator_s_gradient_reaches_it_alone_and_the_noises_differ():
    judge, place, index = problem()
    real, fake = normals(4, 2).requires_grad_(), normals(4, 2, seed=1).requires_grad_()
    value, metrics = phased_discriminator(judge, vp(), real, fake, index, Draw(0), **place)
    value.backward()
    assert (
        real.grad is None
        and fake.grad is None
        and all(w.grad is not None for w in judge.parameters())
    )
    draw = Draw(0)
    edge, s = in_phase(vp(), index, draw, real, **place)
    points = [adversarial.travel(x.detach(), edge, s, draw.normal(x)) for x in (real, fake)]
    yes, no = (judge(x, s.t.flatten(), None) for x in points)
    assert value.item() == pytest.approx(
        (torch.relu(1 - yes).mean() + torch.relu(1 + no).mean()).item(), rel=1e-12
    )
    assert metrics["real"] == yes.mean() and metrics["fake"] == no.mean()
    seen = []
    phased_discriminator(
        lambda x, t, c: seen.append(x) or x, vp(), real, real, index, Draw(0), **place
    )
    assert (seen[0] - seen[1]).abs().max() > 0.1


def test_time_and_condition_reach_the_discriminator():
    _, place, index = problem()
    seen = []
    phased_generator(
        lambda x, t, cond: seen.append((t, cond)) or x,
        vp(),
        normals(4, 2),
        index,
        Draw(0),
        cond="text",
        clock=lambda t: 1000 * t - 1,
        **place,
    )
    assert seen[0][0].shape == (4,) and seen[0][0].max() > 1 and seen[0][1] == "text"


def test_a_plain_function_is_held_as_it_is():
    judge = lambda x, t, cond: x
    assert held(judge) is judge


@pytest.mark.parametrize(
    "function, old, new",
    [
        ("held", "weight.detach()", "weight"),
        ("hinge_real", "1 - logits", "1 + logits"),
        ("_opinion", "travel(x, edge, s", "travel(x, s, edge"),
        ("in_phase", "top - draw", "edge - draw"),
        ("in_phase", "(top - edge)", "(0 * top - edge)"),
    ],
)
def test_a_slip_is_caught(monkeypatch, function, old, new):
    slip = mutant(getattr(adversarial, function), old, new)
    monkeypatch.setattr(adversarial, function, slip)
    for name in {function} & set(globals()):
        monkeypatch.setitem(globals(), name, slip)
    with pytest.raises((AssertionError, ValueError)):
        test_the_generator_s_gradient_reaches_the_student_alone()
        test_hinges()
        test_renoised_points_have_the_forward_marginal()
        test_levels_lie_in_their_sample_s_phase(vp(), 3)


def opinions(shape):
    return lambda x, t, cond: torch.zeros(shape)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(fake=normals(1, 2)), r"real and fake: shapes \(4, 2\) and \(1, 2\)"),
        (dict(index=torch.zeros(1).long()), r"index has shape \(1,\), wanted \(4,\)"),
        (dict(edges=torch.tensor([0.2, 0.5])), "edges must be descending"),
        (dict(judge=opinions(4)), r"discriminator: it returned \(4,\) for 4 samples"),
        (dict(judge=opinions((1, 3))), r"it returned \(1, 3\) for 4 samples, wanted \(4, k\)"),
    ],
)
def test_bad_input(change, words):
    judge, place, index = problem()
    x = normals(4, 2)
    given = dict(judge=judge, real=x, fake=x, index=index, **place) | change
    judge, real, fake, index = (given.pop(name) for name in ("judge", "real", "fake", "index"))
    with pytest.raises(ValueError, match=words):
        phased_discriminator(judge, vp(), real, fake, index, Draw(0), **given)


def test_dtypes():
    judge, place, index = problem()
    for dtype, net in ((torch.float32, judge.float()), (F64, problem()[0])):
        fake = normals(4, 2).to(dtype)
        assert phased_generator(net, vp(), fake, index, Draw(0), **place).dtype == dtype
        assert (
            phased_discriminator(net, vp(), fake, fake, index, Draw(0), **place).value.dtype
            == dtype
        )
