"""Inductive moment matching: it is consistency training lifted from points to laws."""

import pytest
import torch
from truth import F64, appendix_a, gaussian, mutant, normals

from dlib import CLEAN, Batch, Denoiser, Draw, edm, exact, flow, vp
from dlib.losses import (
    consistency_training,
    imm_triples,
    laplace,
    mmd2,
    moment_matching,
    squared,
    with_omega,
)
from dlib.losses.inductive import jump_scale, minus_squared

X0 = normals(16, 2)


def always(*times):
    return lambda draw, n: tuple(torch.full((n,), t, dtype=F64) for t in times)


@pytest.mark.parametrize("s", [-1.0, 0.2])
def test_groups_of_one_are_consistency_training(s):
    """MMD² of two points with k = −‖·‖² is 2‖a − b‖², a sum over a sample's values."""
    model, schedule = exact(appendix_a(), vp()), vp()
    options = dict(group=1, kernel=minus_squared)
    mine = moment_matching(
        model, model, Batch(X0), Draw(0), triples=always(0.8, 0.5, s), **options
    )
    theirs = consistency_training(
        model,
        model,
        Batch(X0),
        Draw(0),
        times=always(0.8, 0.5),
        edges=[s],
        distance=lambda a, b: 2 * (a - b).square().sum(1),
    )
    assert schedule is not None and mine.value.item() == pytest.approx(
        theirs.value.item(), rel=1e-10
    )


def test_it_accepts_the_reflected_map():
    """Law, not map: on N(0, c²) both f and −f have no loss, however far −f is from the flow;
    a map that shrinks has one.
    """
    c, n, schedule = 0.5, 2000, edm()

    def told(sign):
        def net(x, t, cond):
            kappa = schedule.at(t, like=x).sigma
            return sign * x * c / (c**2 + kappa**2).sqrt()

        return Denoiser(net, schedule, "x0")

    batch = Batch(c * normals(n, 1))
    options = dict(triples=always(0.7, 0.5, -1.0), group=n, kernel=laplace(0.5))
    loss = lambda a, b: moment_matching(a, b, batch, Draw(0), **options).value.item()
    # V-statistic: its bias is at most (k(0) + k(0))/n, and here the two groups are correlated
    assert abs(loss(told(1.0), told(1.0))) < 2 / n and abs(loss(told(-1.0), told(-1.0))) < 2 / n
    assert abs(loss(told(-1.0), told(1.0))) < 4 / n  # even against the map that it is not
    assert loss(told(0.5), told(1.0)) > 20 * 4 / n
    point = consistency_training(
        told(-1.0), told(1.0), batch, Draw(0), times=always(0.7, 0.5), distance=squared
    )
    assert point.value.item() > 3 * c**2  # (2c)² for a perfect correlation


def test_its_value_in_three_dimensions():
    a, b = normals(2, 3, 3), normals(2, 3, 3, seed=1)
    found = mmd2(a, b, laplace(0.5))
    for g in range(2):
        k = lambda x, y: torch.exp(-(x - y).norm() / 1.5).item()
        mean = lambda u, w: sum(k(x, y) for x in u for y in w) / 9
        aim = mean(a[g], a[g]) + mean(b[g], b[g]) - 2 * mean(a[g], b[g])
        assert found[g].item() == pytest.approx(aim, rel=1e-10)
        broken = mutant(mmd2, "- 2 * k(a, b)", "- k(a, b)")
        assert broken(a, b, laplace(0.5))[g].item() != pytest.approx(aim, rel=0.01)


@pytest.mark.parametrize("s", [-1.0, 0.2])
def test_the_unit_of_distances_is_what_one_more_v_moves_a_jump(s):
    schedule, t = vp(), torch.tensor([0.3, 0.8], dtype=F64)
    x, start = normals(2, 2), schedule.at(t[:, None])
    goal = CLEAN if s < 0 else schedule.at(s)
    said = lambda more: Denoiser(lambda x, t, cond: 0.7 * x + more, schedule, "v")(x, start)
    moved = (said(1.0).mix(goal.alpha, goal.sigma) - said(0.0).mix(goal.alpha, goal.sigma)).abs()
    assert torch.allclose(moved, jump_scale(start, goal).expand_as(moved), rtol=1e-10)


def test_distances_are_measured_in_that_unit():
    model, batch = exact(appendix_a(), vp()), Batch(X0)
    how = dict(triples=always(0.8, 0.5, 0.2), kernel=laplace(0.5))
    unit = jump_scale(vp().at(0.8), vp().at(0.2))
    scaled = moment_matching(model, model, batch, Draw(0), scale=jump_scale, **how)
    by_hand = dict(how, kernel=lambda distance, values: laplace(0.5)(distance / unit, values))
    want = moment_matching(model, model, batch, Draw(0), **by_hand)
    assert scaled.value.item() == pytest.approx(want.value.item(), rel=1e-9)
    plain = moment_matching(model, model, batch, Draw(0), **how)
    assert scaled.value.item() != pytest.approx(plain.value.item(), rel=0.05)


def test_rows_of_a_group_share_their_times_and_the_net_is_told_where_to():
    seen = []

    def net(x, t, cond):
        seen.append((t, cond["omega"]))
        return x * 0.9

    model = Denoiser(net, vp(), "x0")
    moment_matching(
        model, model, Batch(X0), Draw(0), triples=imm_triples(vp()), group=4, embed=with_omega
    )
    for t, s in seen:
        groups = t.reshape(4, 4)
        assert torch.equal(groups, groups[:, :1].expand(4, 4)) and bool((s.flatten() < t).all())


def test_triples():
    t, r, s = imm_triples(vp(), halvings=3)(Draw(0), 2000)
    assert bool((s <= r).all() and (r < t).all()) and bool((r > s).any())
    kappa = lambda u: (-vp().at(u).lam).exp()
    step = (kappa(torch.tensor(0.994, dtype=F64)) - kappa(torch.tensor(1e-3, dtype=F64))) / 8
    free = r > s + 1e-9
    assert torch.allclose((kappa(t) - kappa(r))[free], step.expand(int(free.sum())), rtol=1e-6)


def test_gradient_reaches_the_student_alone_and_ties_have_none():
    weight = torch.ones(1, dtype=F64, requires_grad=True)
    student = Denoiser(lambda x, t, cond: weight * x, vp(), "x0")
    constant = Denoiser(lambda x, t, cond: 1.0 * x, vp(), "x0")
    grads = [
        torch.autograd.grad(
            moment_matching(
                student, target, Batch(X0), Draw(0), triples=always(0.8, 0.5, -1.0)
            ).value,
            weight,
        )[0]
        for target in (student, constant)
    ]
    assert torch.equal(*grads) and bool(torch.isfinite(grads[0]).all()) and grads[0].abs() > 1e-6


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(group=5), "groups of 5"),
        (dict(group=2.5), "group = 2.5, wanted a whole number"),
        (dict(triples=always(0.8, 0.5, 0.6)), "above its r"),
        (dict(triples=always(0.5, 0.8, -1.0)), "r ≥ t"),
        (dict(weight=lambda a, b: a.t[:4]), r"the weight has shape \(4, 1\) for .* samples"),
        (dict(scale=lambda a, b: a.t[:1]), r"the scale has shape \(1, 1\) for .* samples"),
    ],
)
def test_bad_input(change, words):
    model = exact(gaussian(0.5), vp())
    with pytest.raises(ValueError, match=words):
        moment_matching(
            model, model, Batch(X0), Draw(0), **dict(triples=imm_triples(vp())) | change
        )


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: laplace(0.0), "laplace: width = 0"),
        (lambda: imm_triples(vp(), halvings=-3), "halvings = -3"),
        (lambda: imm_triples(vp(), t_min=0.9, t_max=0.2), "t_min = 0.9 is not below t_max = 0.2"),
        (lambda: imm_triples(flow(), t_max=1.0), "κ is 0 or infinite"),
        (lambda: imm_triples(flow(), t_min=0.0), "κ is 0 or infinite"),
        (lambda: mmd2(X0[None], X0[None, :, :1], laplace()), "points have shapes"),
        (lambda: mmd2(X0, X0, laplace()), r"wanted \(G, M, D\)"),
    ],
)
def test_bad_settings(call, words):
    with pytest.raises(ValueError, match=words):
        call()
