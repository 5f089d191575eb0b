"""`sample` and `walk`: what they do with good input, and what they say about bad input."""

import math

import pytest
import torch
from truth import F64, appendix_a, normals

from dlib import (
    CLEAN,
    SOLVERS,
    Denoiser,
    Draw,
    counted,
    exact,
    flow,
    frozen,
    grid,
    guided,
    levels,
    sample,
    vp,
    walk,
)
from dlib.nets import MLP
from dlib.solvers import ancestral, ddim, ddim_eta, dpm_solver_pp_2m, dpm_solver_pp_3m, solver

MODEL, X = exact(appendix_a(), vp()), normals(4, 2)
FIVE = levels(vp(), 5, t_min=0.01)


def test_sample_is_a_loop_over_steps():
    x, memory = X, None
    for a, b in zip(FIVE, FIVE[1:]):
        x, memory = dpm_solver_pp_2m(MODEL, x, a, b, memory)
    assert torch.equal(sample(MODEL, X, FIVE, dpm_solver_pp_2m), x)
    assert torch.equal(sample(MODEL, X, FIVE), sample(MODEL, X, FIVE, ddim))


def test_walk_yields_the_start_and_every_step():
    states, seen = list(walk(MODEL, X, FIVE, ddim)), []
    x = sample(MODEL, X, FIVE, ddim, each=seen.append)
    assert [(s.step, s.steps, s.level) for s in states] == [
        (i, 5, level) for i, level in enumerate(FIVE)
    ]
    assert states[0].x is X and torch.equal(states[-1].x, x)
    assert len(seen) == 6 and all(torch.equal(a.x, b.x) for a, b in zip(states, seen))


def test_walk_is_lazy_but_checks_at_once():
    model = counted(MODEL)
    states = walk(model, X, FIVE, ddim)
    next(states), next(states)
    assert model.net.calls == 1
    with pytest.raises(ValueError, match="make no step"):
        walk(model, X, FIVE[:1], ddim)


def test_noise_is_drawn_one_normal_a_step_and_replays():
    draw, x = Draw(3), X
    for a, b in zip(FIVE, FIVE[1:]):
        x, _ = ancestral(MODEL, x, a, b, noise=draw.normal(x))
    assert torch.equal(sample(MODEL, X, FIVE, ancestral, draw=Draw(3)), x)
    assert not torch.equal(sample(MODEL, X, FIVE, ancestral, draw=Draw(4)), x)
    before = draw.copy()
    sample(MODEL, X, FIVE, ddim, draw=draw)
    assert torch.equal(before.normal(X), draw.normal(X)), "a solver without noise must not draw"


def test_a_last_level_without_noise_is_a_denoising():
    before = sample(MODEL, X, FIVE, dpm_solver_pp_2m)
    assert torch.equal(
        sample(MODEL, X, [*FIVE, CLEAN], dpm_solver_pp_2m), MODEL(before, FIVE[-1]).x0
    )
    whole = levels(flow(), 4, "time", t_min=0.0)
    assert sample(exact(appendix_a(), flow()), X, whole, dpm_solver_pp_2m).isfinite().all()


def test_conditions_reach_the_network():
    one = guided(MODEL, 3.0, torch.tensor(-1))
    x = sample(
        one,
        normals(60, 2),
        levels(vp(), 40, t_min=0.01),
        dpm_solver_pp_2m,
        cond=torch.arange(60) % 3,
    )
    assert torch.equal(torch.cdist(x, appendix_a().means).argmin(1), torch.arange(60) % 3)


def broken(at_call, value=math.nan):
    """A network that answers with NaN from its call number `at_call` on; numbered by the time
    that it sees.
    """
    return Denoiser(
        lambda x, t, c: torch.full_like(x, value) if t[0] < FIVE[at_call].t + 1e-9 else 0 * x,
        vp(),
        "eps",
    )


@pytest.mark.parametrize("step", [0, 2, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_network_that_breaks_is_named_with_its_step(step, value):
    with pytest.raises(
        FloatingPointError,
        match=rf"no longer finite after step {step + 1} of 5 \(t = {FIVE[step + 1].t:g}",
    ):
        sample(broken(step, value), X, FIVE, ddim)


def test_a_broken_noisy_run_is_replayed_with_the_same_noise():
    """The network fails where the first value exceeds a bound, which depends on the noise: the
    replay must meet it again.
    """
    model = Denoiser(
        lambda x, t, c: torch.where(x[:1, :1] > 1.0, math.nan, 0.1) + 0 * x, vp(), "eps"
    )
    start, draw = torch.zeros(1, 2, dtype=F64), Draw(0)
    finite = [
        bool(state.x.isfinite().all())
        for state in walk(model, start, FIVE, ancestral, draw=draw.copy())
    ]
    assert finite[1] and not finite[-1]
    with pytest.raises(FloatingPointError, match=f"after step {finite.index(False)} of 5"):
        sample(model, start, FIVE, ancestral, draw=draw)


def test_a_start_that_is_not_finite_is_said_to_be():
    with pytest.raises(FloatingPointError, match="before the first step"):
        sample(MODEL, X / 0, FIVE, ddim)


def test_a_network_that_fails_only_once_is_called_undeterministic():
    answers = iter([math.nan] + [0.0] * 20)
    with pytest.raises(FloatingPointError, match="not deterministic"):
        sample(
            Denoiser(lambda x, t, c: torch.full_like(x, next(answers)), vp(), "eps"),
            X,
            FIVE,
            ddim,
        )


def mlp(dtype=torch.float32, device="cpu"):
    return Denoiser(MLP(2, width=8, depth=1, classes=2).to(device, dtype), vp(), "eps")


LABELS = torch.zeros(4, dtype=torch.long)
BAD = {
    "time above 1": (lambda: vp().levels([1.2, 0.5]), "time 1.2 is outside"),
    "time below 0": (lambda: vp().levels([0.5, -0.1]), "time -0.1 is outside"),
    "grid rises": (
        lambda: sample(MODEL, X, FIVE[::-1], ddim),
        "levels must go from noise to data, but level 1.*reverse the grid",
    ),
    "grid repeats": (
        lambda: sample(MODEL, X, [FIVE[0], FIVE[1], FIVE[1]], ddim),
        "level 2 .* is not cleaner than level 1",
    ),
    "beyond clean": (lambda: sample(MODEL, X, [FIVE[0], CLEAN, CLEAN], ddim), "level 2"),
    "no step": (lambda: sample(MODEL, X, FIVE[:1], ddim), "1 noise level.* make no step.*n ≥ 1"),
    "no level": (lambda: sample(MODEL, X, [], ddim), "0 noise level"),
    "order 2": (
        lambda: sample(MODEL, X, FIVE[:2], dpm_solver_pp_2m),
        r"dpm_solver_pp_2m reaches order 2 by looking back over 1 step\(s\), but there are "
        r"only 1 in all: use n ≥ 2",
    ),
    "order 3": (
        lambda: sample(MODEL, X, FIVE[:3], dpm_solver_pp_3m),
        "order 3 by looking back over 2 step.*use n ≥ 3 steps, or ddim",
    ),
    "no draw": (
        lambda: sample(MODEL, X, FIVE, ancestral),
        r"ancestral adds noise: pass draw=Draw\(seed\)",
    ),
    "eta": (lambda: ddim_eta(1.5), r"eta = 1.5 is outside \[0, 1\]"),
    "cond batch": (
        lambda: sample(MODEL, X, FIVE, ddim, cond=LABELS[:3]),
        r"cond has batch \(3,\), x has batch 4",
    ),
    "tensor levels": (
        lambda: sample(
            MODEL, X, [vp().at(torch.full((4,), t), like=X) for t in (0.9, 0.5)], ddim
        ),
        r"levels must hold floats.*pass levels\(schedule, n\)",
    ),
    "a grid": (
        lambda: sample(MODEL, X, grid(vp(), 5), ddim),
        r"pass levels\(schedule, n\), or schedule.levels\(times\)",
    ),
    "a name": (lambda: sample(MODEL, X, FIVE, "ddim"), "SOLVERS"),
    "undecorated": (
        lambda: sample(MODEL, X, FIVE, lambda model, x, a, b, memory, noise, cond: (x, memory)),
        "@solver",
    ),
    "integers": (
        lambda: sample(MODEL, X.long(), FIVE, ddim),
        "x has dtype torch.int64, wanted a floating dtype",
    ),
    "float64 x": (
        lambda: sample(mlp(), X, FIVE, ddim, LABELS),
        "x is torch.float64, the network's weights are torch.float32",
    ),
    "float32 x": (
        lambda: sample(mlp(F64), X.float(), FIVE, ddim, LABELS),
        r"x.to\(torch.float64\)",
    ),
    "device": (
        lambda: sample(mlp(device="meta"), X.float(), FIVE, ddim, LABELS),
        "x is on cpu, the network on meta",
    ),
    "device of x": (
        lambda: sample(mlp(), X.float().to("meta"), FIVE, ddim, LABELS),
        "x is on meta, the network on cpu",
    ),
    "device of cond": (
        lambda: sample(mlp(), X.float(), FIVE, ddim, LABELS.to("meta")),
        "cond is on meta, x on cpu",
    ),
    "through guided": (
        lambda: sample(guided(mlp(), 1.0, torch.tensor(-1)), X, FIVE, ddim, LABELS),
        "x is torch.float64",
    ),
    "through frozen": (
        lambda: sample(frozen(mlp()), X, FIVE, ddim, LABELS),
        "x is torch.float64",
    ),
    "through counted": (
        lambda: sample(counted(mlp()), X, FIVE, ddim, LABELS),
        "x is torch.float64",
    ),
    "shape": (
        lambda: sample(MODEL, normals(4, 3), FIVE, ddim),
        r"x has shape \(4, 3\), wanted \(B, 2\)",
    ),
}


@pytest.mark.parametrize("call, message", BAD.values(), ids=list(BAD))
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_a_half_precision_network_runs_under_the_caller_s_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        x = sample(mlp(), X.float(), FIVE, dpm_solver_pp_2m, LABELS)
    assert x.dtype == torch.float32 and x.isfinite().all()


def test_a_solver_of_your_own():
    @solver(order=1)
    def stay(model, x, a, b, memory=None, noise=None, cond=None):
        return x, memory

    assert (
        torch.equal(sample(MODEL, X, FIVE, stay), X)
        and stay.order == 1
        and stay.memoryless
        and not stay.noisy
    )


def test_every_solver_is_listed_under_its_own_name():
    assert SOLVERS["dpm_solver_1"] is ddim
    assert all(step.__name__ == name for name, step in SOLVERS.items() if name != "dpm_solver_1")


def test_values_are_judged_by_themselves_not_by_their_sum():
    """The check adds x up first: a sum may overflow where no value does, and opposite
    infinities must not cancel.
    """

    @solver(order=1)
    def stay(model, x, a, b, memory=None, noise=None, cond=None):
        return x, memory

    large = torch.full((1, 64), 3e38)
    assert large.sum().isinf() and torch.equal(sample(MODEL, large, FIVE, stay), large)
    with pytest.raises(FloatingPointError, match="before the first step"):
        sample(MODEL, torch.tensor([[math.inf, -math.inf]]), FIVE, stay)
