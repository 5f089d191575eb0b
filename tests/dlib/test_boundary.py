"""The boundary: identity at the clean end, the published scalings elsewhere, and what
transforms make of it.
"""

import math

import pytest
import torch
from truth import F64, SCHEDULES, appendix_a, normals, per_row

from dlib import (
    Denoiser,
    boundary,
    counted,
    edm,
    edm_boundary,
    exact,
    flow,
    frozen,
    guided,
    lcm_scalings,
)
from dlib.denoiser import parameters

SD, X = SCHEDULES["discrete"], normals(4, 2)
FACES = pytest.mark.parametrize("predicts", ["eps", "x0", "v", "velocity", "score"])


def network(schedule, predicts, scale=1.0):
    return Denoiser(lambda x, t, cond: torch.sin(scale * x + t[:, None]), schedule, predicts)


@FACES
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_at_the_clean_end_f_is_its_input(schedule, predicts, dtype):
    """Bit by bit where α = 1 or f = x; else to the rounding of 1/α, and of κ at levels of
    tensors.
    """
    t_end = max(schedule.t_min, 1e-3)
    end, x = schedule.at(t_end), X.to(dtype)
    assert (
        lcm_scalings(schedule, t_end)(end)[0] == 1
        and edm_boundary(schedule, t_end)(end)[0] == 1 / end.alpha
    )
    for scalings, truth in (
        (lcm_scalings(schedule, t_end), x),
        (edm_boundary(schedule, t_end), x / end.alpha),
    ):
        f = boundary(network(schedule, predicts), scalings)
        assert torch.equal(f(x, end).x0, scalings(end)[0] * x) and scalings(end)[1] == 0
        assert (f(x, end).x0 - truth).abs().max() < (1e-15 if dtype == F64 else 1e-6)
        rows = schedule.at(torch.full((4,), t_end, dtype=F64), like=x)
        rows = type(rows)(*(field.to(dtype) for field in rows))
        assert (f(x, rows).x0 - truth).abs().max() < (1e-12 if dtype == F64 else 2e-5)


def test_the_end_is_the_schedule_s_own_unless_given():
    assert lcm_scalings(SD)(SD.at(1 / 1000)) == (1.0, 0.0) and edm_boundary(edm())(
        edm().at(0.0)
    ) == (1.0, 0.0)
    assert lcm_scalings(SD, 0.02)(SD.at(0.02)) == (1.0, 0.0)


@pytest.mark.parametrize("index", [0, 1, 19, 259, 999])
def test_lcm_scalings_are_diffusers_own(index):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.LCMScheduler().get_scalings_for_boundary_condition_discrete(index)
    assert lcm_scalings(SD)(SD.at((index + 1) / 1000)) == pytest.approx(theirs, rel=1e-9)


@FACES
@pytest.mark.parametrize("t", [0.05, 0.3, 0.7, 1.0])
def test_edm_boundary_is_the_paper_s_on_edm_s_network(t, predicts):
    """F is EDM's raw network: its denoiser is s(κ)x + σ_dκ/√(κ²+σ_d²) F; f = s(κ−κ_min)x +
    σ_d(κ−κ_min)/√(κ²+σ_d²) F.
    """
    schedule, d = edm(), 0.5
    level = schedule.at(t)
    k, k_min = level.sigma, schedule.at(0.0).sigma
    x, F = 3 * X, torch.cos(X)
    denoised = d**2 / (k**2 + d**2) * x + d * k / math.sqrt(k**2 + d**2) * F
    f = d**2 / ((k - k_min) ** 2 + d**2) * x + d * (k - k_min) / math.sqrt(k**2 + d**2) * F
    raw = Denoiser(lambda x, t, cond: denoised, schedule, "x0")(x, level)
    model = Denoiser(lambda x, t, cond: getattr(raw, predicts), schedule, predicts)
    assert (boundary(model, edm_boundary(schedule))(x, level).x0 - f).abs().max() < 1e-9 * k


def test_edm_boundary_means_the_same_on_every_schedule():
    """In y = x/α at the same κ the function is the same: the schedule only names the times."""
    y = normals(4, 2)
    values = []
    for schedule in (edm(), SCHEDULES["vp"], flow()):
        end, level = schedule.at_lam(4.0), schedule.at_lam(-0.5)
        model = Denoiser(lambda x, t, cond: torch.sin(y), schedule, "x0")
        values.append(boundary(model, edm_boundary(schedule, end.t))(level.alpha * y, level).x0)
    assert all((value - values[0]).abs().max() < 1e-9 for value in values)


@FACES
def test_levels_of_tensors_and_faces(predicts):
    schedule, level = SD, SD.at(0.4)
    f = boundary(network(schedule, predicts), lcm_scalings(schedule))
    by_float, by_tensor = f(X, level), f(X, per_row(level, X))
    assert (by_float.x0 - by_tensor.x0).abs().max() < 1e-12
    assert (level.alpha * by_float.x0 + level.sigma * by_float.eps - X).abs().max() < 1e-12


def test_transforms_reach_the_network_inside():
    """Guiding f and guiding the network agree, as f is affine in its output; weights are
    found, calls are counted.
    """
    schedule, labels, null = SD, torch.tensor([0, 1, 2, 1]), torch.tensor(-1)
    model, scalings, level = exact(appendix_a(), SD), lcm_scalings(SD), SD.at(0.02)
    outside = guided(boundary(model, scalings), 2.5, null)(X, level, labels).x0
    inside = boundary(guided(model, 2.5, null), scalings)(X, level, labels).x0
    by_hand = (
        3.5 * boundary(model, scalings)(X, level, labels).x0
        - 2.5 * boundary(model, scalings)(X, level, null.expand(4)).x0
    )
    assert (outside - inside).abs().max() < 1e-12 and (outside - by_hand).abs().max() < 1e-12
    counter = counted(boundary(model, scalings))
    counter(X, level), counter(X, level)
    assert counter.net.calls == 2
    net = torch.nn.Linear(2, 2).double()
    f = boundary(Denoiser(lambda x, t, c: net(x), schedule, "v"), scalings)
    assert f(X, level).x0.requires_grad and not frozen(f)(X, level).x0.requires_grad
    assert len(parameters(boundary(Denoiser(net, schedule, "v"), scalings).net)) == 2


def test_half_precision_comes_back_in_float32():
    f = boundary(network(SD, "eps"), lcm_scalings(SD))
    x = X.bfloat16()
    for level in (SD.at(0.4), per_row(SD.at(0.4), X.float())):
        assert f(x, level).x0.dtype == torch.float32


def test_a_boundary_of_a_boundary_is_refused():
    """Both work on the network's own output: the second would take the first one's x₀ for it."""
    f = boundary(network(SD, "eps"), lcm_scalings(SD))
    with pytest.raises(ValueError, match="boundary: this denoiser is already bounded"):
        boundary(f, lcm_scalings(SD))
