"""Langevin dynamics: the variance of every step in closed form, replay, and what a bad step says."""

import math

import pytest
import torch
from truth import F64, mutant, normals

from dlib import Draw, langevin

C, SIGMA, N = 0.8, 0.6, 100_000
V = C**2 + SIGMA**2  # data N(0, c²) smoothed by κ = σ: variance 1


def chain(step, n, start):
    """Variance after n steps: V ← (1 − η/(c²+κ²))² V + 2η (card 01, 3)."""
    for _ in range(n):
        start = (1 - step / V) ** 2 * start + 2 * step
    return start


def variance(step, n, start=0.25):
    x = math.sqrt(start) * normals(N, 1)
    return langevin(lambda x: -x / V, x, step, n, Draw(0)).var().item()


@pytest.mark.parametrize("step", [0.05, 0.4, 1.5])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_variance_of_each_step(step, n):
    """100 000 chains: a relative standard error of √(2/N) = 0.45 %; bound 2.2 %, nine cases: false alarms below 1e-4."""
    assert variance(step, n) == pytest.approx(chain(step, n, 0.25), rel=0.022)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
def test_the_fixed_point_is_off_by_the_step(step):
    """V* = V/(1 − η/2V) (card 01, 3); the transient is (1 − η/V)^2n < 1e-4 of the start."""
    fixed = V / (1 - step / (2 * V))
    assert chain(step, 1, fixed) == pytest.approx(fixed, rel=1e-12)
    assert variance(step, n=50) == pytest.approx(fixed, rel=0.022)


def test_one_step_by_hand():
    x, draw = normals(6, 1, 2, 2), Draw(5)
    z = draw.copy().normal(x)
    assert torch.equal(langevin(torch.sin, x, 0.3, 1, draw), x + 0.3 * torch.sin(x) + math.sqrt(0.6) * z)


def test_each_sees_every_state_and_the_chain_can_be_continued():
    seen, x, score = [], normals(5, 2), lambda x: -x  # noqa: E731
    end = langevin(score, x, 0.1, 4, Draw(0), each=lambda k, x: seen.append((k, x)))
    assert [k for k, _ in seen] == [0, 1, 2, 3, 4] and torch.equal(seen[0][1], x) and torch.equal(seen[-1][1], end)
    draw = Draw(0)
    assert torch.equal(langevin(score, langevin(score, x, 0.1, 2, draw), 0.1, 2, draw), end)


def test_no_graph_is_kept():
    weight = torch.ones(2, dtype=F64, requires_grad=True)
    assert not langevin(lambda x: -weight * x, normals(3, 2), 0.1, 3, Draw(0)).requires_grad


@pytest.mark.parametrize("old, new", [("(2 * step) ** 0.5", "step ** 0.5"), ("+ step * s", "- step * s"), ("+ step * s", "+ 0.5 * step * s"),
                                      ("(2 * step) ** 0.5", "2 * step")])
def test_a_slip_is_caught(monkeypatch, old, new):
    monkeypatch.setitem(globals(), "langevin", mutant(langevin.__wrapped__, old, new))
    with pytest.raises(AssertionError):
        test_the_variance_of_each_step(0.4, 2)


def test_bad_input():
    x, score = normals(3, 2), lambda x: -x  # noqa: E731
    for step in (0.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="wanted a positive number"):
            langevin(score, x, step, 3, Draw(0))
    with pytest.raises(ValueError, match="at least 1 step"):
        langevin(score, x, 0.1, 0, Draw(0))
    with pytest.raises(ValueError, match="x.float"):
        langevin(score, torch.ones(3, 2, dtype=torch.int64), 0.1, 3, Draw(0))
    with pytest.raises(ValueError, match="score has shape"):
        langevin(lambda x: x[:1], x, 0.1, 3, Draw(0))
    with pytest.raises(FloatingPointError, match="a step of 30 is unstable"):
        langevin(score, x, 30.0, 2000, Draw(0))
