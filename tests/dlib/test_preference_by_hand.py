"""The losses of Part VII in the plane, with conditions, against their formulas written out: a
mean for a sum, a forgotten condition and a missing stop-gradient show here.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid
from truth import F64, mutant

from dlib import Batch, Denoiser, Draw, flow, levels, transition, vp
from dlib.losses import weights
from dlib.losses.preference import (
    adjoint_matching,
    anchor,
    comparisons,
    d3po,
    diffusion_dpo,
    extremes,
    kto,
    lean_adjoints,
    nft,
    refl,
)
from dlib.solvers import walk

COND, HALF = torch.tensor([0.3, -1.2, 0.8], dtype=F64), torch.full((3,), 0.4, dtype=F64)
X = Draw(0).normal((3, 2), F64)


class Told(nn.Module):
    """raw = (1 + cond) W x + cond; without a condition it is W x."""

    def __init__(self, seed, scale=0.5):
        super().__init__()
        self.w = nn.Parameter(scale * Draw(seed).normal((2, 2), F64))

    def forward(self, x, t, cond):
        c = torch.zeros(len(x), dtype=F64) if cond is None else cond
        return (1 + c)[:, None] * (x @ self.w.T) + c[:, None]


def told(seed, schedule, predicts="v", scale=0.5):
    return Denoiser(Told(seed, scale), schedule, predicts)


def slope(value, model):
    """The gradient of a value in the model's weights."""
    return torch.autograd.grad(value, model.net.w, retain_graph=True)[0]


def same(found, wanted, model):
    """The value and its gradient in the model's weights, to rounding."""
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope(found, model), slope(wanted, model), rtol=1e-9, atol=1e-11)


def at(t):
    return lambda draw, n: torch.full((n,), t, dtype=F64)


@pytest.mark.parametrize("predicts", ["velocity", "eps"])
def test_nft(predicts):
    """On straight paths u = ε − x₀, whatever the network predicts."""
    student, old = told(1, flow(), predicts), told(2, flow(), predicts)
    share, beta, t = torch.tensor([0.1, 0.8, 0.5], dtype=F64), 0.7, 0.4
    eps = Draw(3).normal((3, 2), F64)
    batch = Batch(X, COND, noise=eps)
    found = nft(student, old, batch, share, Draw(0), beta=beta, times=at(t)).value
    x = (1 - t) * X + t * eps
    # of an ε-network, x₀ = (x − t ε)/(1 − t)
    u = lambda raw: raw if predicts == "velocity" else (raw - x) / (1 - t)
    new, before = u(student.net(x, None, COND)), u(old.net(x, None, COND).detach())
    truth = eps - X
    plus, minus = before + beta * (new - before), before - beta * (new - before)
    square = lambda one: (one - truth).square().sum(1)
    same(found, (share * square(plus) + (1 - share) * square(minus)).mean(), student)
    found.backward()
    assert old.net.w.grad is None


def test_lean_adjoints():
    """a_k = Jᵀ a_{k+1}, J the Jacobian of each sample's mean, by its two columns."""
    base, stops, gradient = told(2, vp()), vp().levels([0.9, 0.6, 0.4, 0.3]), Draw(4).normal(X)
    states, zero = Draw(5).normal((3, 4, 2), F64), torch.zeros_like(X)
    found, wanted = lean_adjoints(base, states, gradient, stops, cond=COND), [gradient]
    for k in (2, 1):
        mean = lambda x: transition(base, x, stops[k], stops[k + 1], cond=COND).mean.detach()
        columns = [mean(zero + unit) - mean(zero) for unit in torch.eye(2, dtype=F64)]
        pulled = [(column * wanted[0]).sum(1) for column in columns]
        wanted = [torch.stack(pulled, 1), *wanted]
    torch.testing.assert_close(found, torch.stack(wanted, 1))


def test_adjoint_matching():
    student, base = told(1, vp()), told(2, vp())
    stops, states = vp().levels([0.9, 0.6, 0.3]), Draw(5).normal((3, 3, 2), F64)
    adjoints = Draw(6).normal((3, 2, 2), F64).requires_grad_()
    found = adjoint_matching(student, base, states, adjoints, stops, 1, cond=COND).value
    now, held = (
        transition(model, states[:, 1], stops[1], stops[2], cond=COND)
        for model in (student, base)
    )
    gap = (now.mean - held.mean.detach()) / now.std - now.std * adjoints.detach()[:, 1]
    same(found, 0.5 * gap.square().sum(1).mean(), student)
    found.backward()
    assert base.net.w.grad is None and adjoints.grad is None


def test_the_anchor():
    student, base, t = told(1, vp()), told(2, vp()), 0.4
    how = dict(weight=weights.elbo, times=at(t))
    found = anchor(student, base, X, COND, draw=Draw(3), **how).value
    level = vp().at(t)
    x = level.alpha * X + level.sigma * Draw(3).normal(X)
    # α²/σ² falls by half of this a unit of time, and x₀ = αx − σv
    fall = -(vp().at(t + 1e-5).lam - vp().at(t - 1e-5).lam) / 2e-5
    weight = fall * level.alpha**2 / level.sigma**2 * level.sigma**2
    gap = student.net(x, None, COND) - base.net(x, None, COND).detach()
    torch.testing.assert_close(found, weight * gap.square().sum(1).mean(), rtol=1e-6, atol=0)
    same(found, found.detach() / gap.square().sum().detach() * gap.square().sum(), student)
    found.backward()
    assert base.net.w.grad is None


def errors(x0, eps, model, cond=COND):
    """Mean squared errors of ε at α = σ, each sample's own."""
    x = math.sqrt(0.5) * (x0 + eps)
    return (model.net(x, None, cond) - eps).square().mean(1)


def test_dpo():
    student, base = told(1, vp(), "eps"), told(2, vp(), "eps")
    t, eps, other = vp().at_lam(0.0).t, Draw(3).normal(X), X.flip(0)
    batch = Batch(X, COND, noise=eps, other=other)
    found = diffusion_dpo(student, base, batch, Draw(0), beta=3.0, times=at(t)).value
    gap = lambda x0: errors(x0, eps, student) - errors(x0, eps, base).detach()
    same(found, -logsigmoid(-1.5 * (gap(X) - gap(other))).mean(), student)
    found.backward()
    assert base.net.w.grad is None


def test_kto():
    """The student has got better on the whole, and worse on one: the reference point is the
    batch's mean, a constant.
    """
    student, base = told(1, vp(), "eps", scale=0.1), told(2, vp(), "eps")
    t, eps = vp().at_lam(0.0).t, Draw(3).normal(X)
    liked, batch = torch.tensor([True, False, True]), Batch(X, COND, noise=eps)
    found = kto(student, base, batch, liked, Draw(0), beta=0.5, times=at(t)).value
    gain = errors(X, eps, base).detach() - errors(X, eps, student)
    assert gain.mean() > 0.1 and gain.min() < -0.05
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=F64)
    same(found, (1 - torch.sigmoid(0.5 * sign * (gain - gain.mean().detach()))).mean(), student)
    found.backward()
    assert base.net.w.grad is None


def test_d3po():
    """The references are constants."""
    better, worse = (torch.tensor([v], requires_grad=True) for v in (0.02, -0.03))
    held, other = (torch.tensor([v], requires_grad=True) for v in (-0.01, 0.04))
    found = d3po(better, worse, held, other, beta=2.0).value
    assert found.item() == pytest.approx(math.log1p(math.exp(-2 * (0.03 + 0.07))), rel=1e-6)
    found.backward()
    assert better.grad < 0 < worse.grad and held.grad is other.grad is None


def test_extremes():
    """Shares of two scores differ by tanh of half of their difference: .245 and .336. The
    scores themselves would keep both rows.
    """
    best, worst, kept = extremes(torch.tensor([[0.5, 0.0], [0.0, 0.7]]), gap=0.3)
    assert kept.tolist() == [False, True]
    assert best.tolist() == [0, 1] and worst.tolist() == [1, 0]


class Nth(Draw):
    """Shared numbers that are chosen; all else is drawn."""

    def __init__(self, number):
        super().__init__(7)
        self.number = number

    def shared(self, high):
        assert self.number < high
        return self.number


def test_refl():
    """It guesses at any of the last `late` steps."""
    student, stops = told(1, vp()), levels(vp(), 5)
    starts = [step.x for step in walk(student, X, stops, cond=COND)]
    reward = lambda x, cond: x.sum(1) + cond
    for left in (1, 2, 3):
        found, x0 = refl(student, X, stops, reward, COND, draw=Nth(left - 1), late=3, enough=9.0)
        guess = student(starts[5 - left].detach(), stops[5 - left], COND).x0
        torch.testing.assert_close(x0, guess.detach())
        same(found.value, (9 - guess.sum(1) - COND).mean(), student)


CHECKS = {
    nft: [lambda: test_nft("velocity"), lambda: test_nft("eps")],
    lean_adjoints: [test_lean_adjoints],
    adjoint_matching: [test_adjoint_matching],
    anchor: [test_the_anchor],
    diffusion_dpo: [test_dpo],
    comparisons.gaps: [test_dpo],
    comparisons._gap: [test_dpo],
    kto: [test_kto],
    d3po: [test_d3po],
    extremes: [test_extremes],
    refl: [test_refl],
}
SLIPS = [
    (nft, "(scale * square).flatten(1).sum(1)", "(scale * square).flatten(1).mean(1)"),
    (nft, "scale = weight.on(student.predicts, level, student.schedule)", "scale = 1.0"),
    (nft, "old(x, level, batch.cond)", "old(x, level, None)"),
    (nft, "torch.no_grad()", "torch.enable_grad()"),
    (nft, "gap - move", "gap + move"),
    (lean_adjoints, "levels[k + 1], cond=cond", "levels[k + 1]"),
    (lean_adjoints, "levels[k], levels[k + 1]", "levels[1], levels[2]"),
    (lean_adjoints, "(mean, x, a)", "(mean, x, gradient)"),
    (adjoint_matching, "gap.square().flatten(1).sum(1)", "gap.square().flatten(1).mean(1)"),
    (adjoint_matching, "kernel(reference, x, a, b, cond=cond)", "kernel(reference, x, a, b)"),
    (adjoint_matching, "torch.no_grad()", "torch.enable_grad()"),
    (adjoint_matching, "adjoints[:, step].detach()", "adjoints[:, step]"),
    (anchor, "* square).flatten(1).sum(1)", "* square).flatten(1).mean(1)"),
    (anchor, "reference(x, level, cond)", "reference(x, level, None)"),
    (anchor, "torch.no_grad()", "torch.enable_grad()"),
    (diffusion_dpo, "-0.5 * beta", "0.5 * beta"),
    (diffusion_dpo, "-0.5 * beta", "-beta"),
    (comparisons.gaps, "torch.cat([noise, noise])", "torch.cat([noise, noise.flip(0)])"),
    (comparisons._gap, ".flatten(1).mean(1)", ".flatten(1).sum(1)"),
    (comparisons._gap, "torch.no_grad()", "torch.enable_grad()"),
    (kto, "gain.detach().mean().clamp(min=0)", "gain.detach().clamp(min=0)"),
    (kto, "gain.detach().mean().clamp", "gain.mean().clamp"),
    (kto, "* 2 - 1", "* -2 + 1"),
    (d3po, "held.detach()", "held"),
    (extremes, "torch.softmax(scores, 1)", "scores"),
    (extremes, "share.argmax(1), share.argmin(1)", "share.argmin(1), share.argmax(1)"),
    (refl, "1 + draw.shared(late)", "(draw.shared(late) or 1)"),
    (refl, "enough - each", "each - enough"),
]


@pytest.mark.parametrize("function, old, new", SLIPS)
def test_a_slip_is_caught(monkeypatch, function, old, new):
    wrong = mutant(function, old, new)
    monkeypatch.setitem(globals(), function.__name__, wrong)
    monkeypatch.setattr(comparisons, function.__name__, wrong, raising=False)
    with pytest.raises(AssertionError):
        for check in CHECKS[function]:
            check()
