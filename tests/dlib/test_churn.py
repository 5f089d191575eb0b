"""EDM's stochastic Heun sampler."""

import pytest
import torch
from truth import F64, gaussian, normals

from dlib import Draw, edm, exact, levels, sample, vp
from dlib.solvers import heun, heun_churn

MODEL, X = exact(gaussian(0.5), edm()), 80 * normals(4, 2)
WALK = levels(edm(), 18, "karras")


def test_without_churn_it_is_heun():
    for solver in (heun_churn(0, 18), heun_churn(40, 18, s_min=100.0)):
        assert torch.equal(
            sample(MODEL, X, WALK, solver, draw=Draw(0)), sample(MODEL, X, WALK, heun)
        )


@pytest.mark.parametrize("schedule", [edm(), vp()], ids=lambda s: s.name)
def test_the_raised_level_has_the_right_law(schedule):
    """Exactly, noise as rows of its own: for data N(0, c²), x at the raised level κ̂ = κ(1 +
    γ) has that level's variance.
    """
    c, gamma = 0.5, 0.25
    model, (a, b) = exact(gaussian(c, 1), schedule), schedule.levels([0.6, 0.59])
    variance = lambda level: (level.alpha * c) ** 2 + level.sigma**2
    raised = schedule.at_lam(a.lam - torch.log1p(torch.tensor(gamma, dtype=F64)).item())
    x, noise = (
        torch.tensor([[variance(a) ** 0.5], [0.0]], dtype=F64),
        torch.tensor([[0.0], [1.0]], dtype=F64),
    )
    got, _ = heun_churn(18 * gamma, 18)(model, x, a, b, None, noise)
    start = torch.tensor([[variance(raised) ** 0.5]], dtype=F64)
    wanted, _ = heun(model, start, raised, b)
    assert got.square().sum().item() == pytest.approx(wanted.square().item(), rel=1e-12)


def test_churn_is_capped_and_bad_input_named():
    """γ ≤ √2 − 1: however much churn is asked for."""
    a, b = WALK[6:8]
    noise = normals(4, 2, seed=1)
    once, twice = (
        heun_churn(s, 18)(MODEL, X, a, b, None, noise)[0] for s in (18 * (2**0.5 - 1), 500)
    )
    assert torch.allclose(once, twice)
    with pytest.raises(ValueError, match="s_churn = -1"):
        heun_churn(-1, 18)
    with pytest.raises(ValueError, match="pass an s_max below"):
        sample(MODEL, X, WALK, heun_churn(40, 18), draw=Draw(0))
    assert sample(MODEL, X, WALK, heun_churn(40, 18, s_max=50), draw=Draw(0)).isfinite().all()
