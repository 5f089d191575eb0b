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
    bradley_terry,
    clipped_ratio,
    comparisons,
    d3po,
    diffusion_dpo,
    draft,
    draft_lv,
    extremes,
    gaussian_kl,
    kto,
    lean_adjoints,
    leave_one_out,
    nft,
    policy_gradients,
    refl,
    score_function,
    standardised,
)
from dlib.solvers import Transition, walk

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


def paid(x, cond):
    """A reward that reads the condition."""
    return (2 - (0.0 if cond is None else cond)) * x.square().sum(1)


def walked(student, stops, last):
    """Where DDIM leads, with a gradient through the last steps."""
    x = X
    for k, (a, b) in enumerate(zip(stops, stops[1:])):
        with torch.set_grad_enabled(k >= len(stops) - 1 - last):
            x = student(x, a, COND).mix(b.alpha, b.sigma)
    return x


def test_draft():
    student, stops = told(1, vp()), levels(vp(), 4)
    found, x0 = draft(student, X, stops, paid, COND, last=2)
    torch.testing.assert_close(x0, walked(student, stops, 0))
    same(found.value, -paid(walked(student, stops, 2), COND).mean(), student)


def test_draft_lv():
    """The copies are noised to the last step's start, and their network and their reward are
    told the condition.
    """
    student, stops, draw = told(1, vp()), levels(vp(), 4), Draw(2)
    found, x0 = draft_lv(student, X, stops, paid, COND, draw=Draw(2), repeats=3)
    torch.testing.assert_close(x0, walked(student, stops, 0))
    a, values = stops[-2], []
    for _ in range(3):
        x = a.alpha * x0 + a.sigma * draw.normal(x0)
        guess = a.alpha * x - a.sigma * student.net(x, None, COND)  # the network answers with v
        values.append(paid(guess, COND).mean())
    same(found.value, -sum(values) / 3, student)


def test_score_function():
    """A sum over the steps; the advantages are constants."""
    log_probs = Draw(1).normal((3, 4), F64).requires_grad_()
    gain = torch.tensor([1.0, -2.0, 0.5], dtype=F64, requires_grad=True)
    found = score_function(log_probs, gain).value
    assert found.item() == pytest.approx(-(log_probs.sum(1) @ gain).item() / 3)
    found.backward()
    torch.testing.assert_close(log_probs.grad, -gain.detach()[:, None].expand(3, 4) / 3)
    assert gain.grad is None


def test_clipped_ratio():
    """Ratios 1.5, 1.5, .5 and .5, clipped at 1.2 and .8; what is worse for the policy counts.
    The old probabilities and the advantages are constants.
    """
    now = torch.tensor([1.5, 1.5, 0.5, 0.5], dtype=F64).log().requires_grad_()
    old = torch.zeros(4, dtype=F64, requires_grad=True)
    gain = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=F64, requires_grad=True)
    found = clipped_ratio(now, old, gain, 0.2).value
    assert found.item() == pytest.approx((-1.2 + 1.5 - 0.5 + 0.8) / 4)
    found.backward()
    torch.testing.assert_close(now.grad, torch.tensor([0.0, 1.5, -0.5, 0.0], dtype=F64) / 4)
    assert old.grad is gain.grad is None


def test_gaussian_kl():
    """‖μ − μ_ref‖² = 4.25 over 2 · .5²; the reference is a constant."""
    mean = torch.tensor([[2.0, 0.0]], dtype=F64, requires_grad=True)
    held = torch.tensor([[0.0, 0.5]], dtype=F64, requires_grad=True)
    found = gaussian_kl(Transition(mean, 0.5), Transition(held, 0.5))
    assert found.tolist() == pytest.approx([8.5])
    found.sum().backward()
    torch.testing.assert_close(mean.grad, (mean - held).detach() / 0.25)
    assert held.grad is None


def test_advantages():
    """Two groups of three. The first one's rewards have the mean 2 and the variance 14/3."""
    rewards = torch.tensor([5.0, 1.0, 0.0, 3.0, 3.0, 6.0], dtype=F64)
    assert leave_one_out(rewards, 3).tolist() == pytest.approx([4.5, -1.5, -3, -1.5, -1.5, 3])
    wanted = torch.tensor([3.0, -1.0, -2.0, -1.0, -1.0, 2.0], dtype=F64)
    spread = torch.tensor([14 / 3] * 3 + [2] * 3, dtype=F64).sqrt()
    torch.testing.assert_close(standardised(rewards, 3, least=1e-9), wanted / spread)


def test_bradley_terry():
    """Margins log 3 and −log 4: the first wins with ¾ and ⅕."""
    better = torch.tensor([3.0, 1.0], dtype=F64).log().requires_grad_()
    worse = torch.tensor([1.0, 4.0], dtype=F64).log()
    found = bradley_terry(better, worse, torch.tensor([1.0, 0.3])).value
    wanted = -(math.log(3 / 4) + 0.3 * math.log(1 / 5) + 0.7 * math.log(4 / 5)) / 2
    assert found.item() == pytest.approx(wanted, rel=1e-6)
    found.backward()
    slope = torch.tensor([3 / 4 - 1, 1 / 5 - 0.3], dtype=F64) / 2  # P less the share
    torch.testing.assert_close(better.grad, slope, rtol=1e-6, atol=0)


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
    draft: [test_draft],
    draft_lv: [test_draft_lv],
    score_function: [test_score_function],
    policy_gradients._constant: [test_score_function],
    clipped_ratio: [test_clipped_ratio],
    gaussian_kl: [test_gaussian_kl],
    leave_one_out: [test_advantages],
    standardised: [test_advantages],
    bradley_terry: [test_bradley_terry],
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
    (draft, "solver, cond, draw, light", "solver, None, draw, light"),
    (draft, "_valued(reward, x0, cond)", "_valued(reward, x0, None)"),
    (draft_lv, "a, cond).x0", "a).x0"),
    (draft_lv, ".x0, cond)", ".x0, None)"),
    (draft_lv, "a, cond).x0, cond)", "a).x0, None)"),
    (draft_lv, "0, solver, cond, draw)", "0, solver, None, draw)"),
    (draft_lv, "levels[-2]", "levels[-3]"),
    (score_function, "-1).sum(1)", "-1).mean(1)"),
    (policy_gradients._constant, "advantages.detach()", "advantages"),
    (clipped_ratio, "torch.minimum", "torch.maximum"),
    (clipped_ratio, "old.detach()", "old"),
    (gaussian_kl, "reference.mean.detach()", "reference.mean"),
    (gaussian_kl, "gap.square().flatten(1).sum(1)", "gap.square().flatten(1).mean(1)"),
    (leave_one_out, "group / (group - 1)", "(group - 1) / group"),
    (standardised, "correction=0", "correction=1"),
    (bradley_terry, "logsigmoid(-margin)", "logsigmoid(margin)"),
]


@pytest.mark.parametrize("function, old, new", SLIPS)
def test_a_slip_is_caught(monkeypatch, function, old, new):
    wrong = mutant(function, old, new)
    monkeypatch.setitem(globals(), function.__name__, wrong)
    for module in (comparisons, policy_gradients):
        monkeypatch.setattr(module, function.__name__, wrong, raising=False)
    with pytest.raises(AssertionError):
        for check in CHECKS[function]:
            check()
