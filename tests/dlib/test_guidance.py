"""Limited, rescaled and thresholded guidance against their definitions."""

import pytest
import torch
from truth import line, normals

from dlib import (
    NULL,
    Denoiser,
    anderson,
    between,
    counted,
    exact,
    flow,
    frozen,
    guided,
    levels,
    rescaled,
    sample,
    thresholded,
    vp,
)
from dlib.nets import MLP

MODEL, X, LABEL = exact(line(), vp()), normals(4, 1), torch.tensor([0, 1, 1, 0])
WALK = levels(vp(), 12, t_min=0.01)
EMPTY = torch.tensor(NULL)


def test_between_is_one_inside_and_the_other_outside():
    strong = guided(MODEL, 3.0, EMPTY)
    limited = between(strong, MODEL, 0.3, 4.0)
    for level in WALK:
        there = strong if 0.3 <= level.sigma / level.alpha <= 4.0 else MODEL
        assert torch.equal(limited(X, level, LABEL).x0, there(X, level, LABEL).x0)
    everywhere, nowhere = between(strong, MODEL, 0, 1e9), between(strong, MODEL, 1e8, 1e9)
    assert torch.equal(
        sample(everywhere, X, WALK, cond=LABEL), sample(strong, X, WALK, cond=LABEL)
    )
    assert torch.equal(sample(nowhere, X, WALK, cond=LABEL), sample(MODEL, X, WALK, cond=LABEL))


def test_outside_the_interval_guidance_costs_nothing():
    model = counted(between(guided(MODEL, 3.0, EMPTY), MODEL, 0.3, 4.0))
    sample(model, X, WALK, cond=LABEL)
    assert model.net.calls == 12 and model.net.samples == 4 * 12
    inside = sum(0.3 <= level.sigma / level.alpha <= 4.0 for level in WALK[:-1])
    inner = counted(MODEL)
    sample(between(guided(inner, 3.0, EMPTY), inner, 0.3, 4.0), X, WALK, cond=LABEL)
    assert inner.net.samples == 4 * (12 + inside)


def test_between_runs_in_parallel_and_frozen():
    limited = frozen(between(guided(MODEL, 3.0, EMPTY), MODEL, 0.3, 4.0))
    assert torch.equal(
        anderson(limited, X, WALK, tol=0, cond=LABEL).x, sample(limited, X, WALK, cond=LABEL)
    )


def test_rescaled_keeps_the_conditional_spread():
    """At φ = 1 each sample of the guided output has exactly the conditional one's standard
    deviation; at φ = 0 nothing changes.
    """
    torch.manual_seed(0)
    net = MLP(8, classes=3, width=16, depth=1).double()
    torch.nn.init.normal_(net.leave.weight)
    model, x, label, level = (
        Denoiser(net, vp(), "v"),
        normals(5, 2, 2, 2),
        torch.tensor([0, 1, 2, 0, 1]),
        vp().at(0.5),
    )
    plain, full = (
        guided(model, 4.0, EMPTY)(x, level, label).v,
        rescaled(model, 4.0, EMPTY, 1.0)(x, level, label).v,
    )
    wanted = model(x, level, label).v.flatten(1).std(1)
    assert torch.allclose(full.flatten(1).std(1), wanted) and not torch.allclose(
        plain.flatten(1).std(1), wanted, rtol=0.1
    )
    assert torch.allclose(rescaled(model, 4.0, EMPTY, 0.0)(x, level, label).v, plain)
    half = rescaled(model, 4.0, EMPTY, 0.5)(x, level, label).v
    assert torch.allclose(half, 0.5 * (plain + full))


def test_thresholding_clips_and_scales_each_sample():
    x0 = normals(3, 1, 20, 20) * torch.tensor([0.2, 1.0, 5.0]).view(3, 1, 1, 1)
    model = thresholded(Denoiser(lambda x, t, c: x0, flow(), "x0"), 0.9)
    said = model(normals(3, 1, 20, 20), flow().at(0.5))
    size = x0.flatten(1).abs().quantile(0.9, 1)
    assert torch.equal(said.x0[0], x0[0]) and said.x0.abs().max() <= 1
    assert torch.allclose(said.x0[2], (x0[2] / size[2]).clamp(-1, 1))
    level = flow().at(0.5)
    assert torch.allclose(level.alpha * said.x0 + level.sigma * said.eps, said.x), (
        "ε follows from the new x₀"
    )


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="not an interval"):
        between(MODEL, MODEL, 2.0, 1.0)
    with pytest.raises(ValueError, match="different schedules, vp and flow"):
        between(MODEL, exact(line(), flow()), 0.1, 1.0)
    with pytest.raises(ValueError, match="phi = 2"):
        rescaled(MODEL, 1.0, EMPTY, 2.0)
    with pytest.raises(ValueError, match="quantile = 0"):
        thresholded(MODEL, 0.0)
    with pytest.raises(ValueError, match="levels of floats"):
        between(MODEL, MODEL, 0.1, 1.0)(X, vp().at(torch.tensor([0.1, 0.2, 0.3, 0.4]), like=X))
    for verb in (guided, rescaled):
        with pytest.raises(
            ValueError, match=f"{verb.__name__}: this denoiser chooses between two networks"
        ):
            verb(between(MODEL, MODEL, 0.1, 1.0), 1.0, EMPTY)
    with pytest.raises(ValueError, match="thresholded: this denoiser is already between"):
        thresholded(between(MODEL, MODEL, 0.1, 1.0))
