"""What parallel samplers say of bad input, and of a network whose output is not finite."""

import math

import pytest
import torch
from truth import appendix_a, normals

from dlib import SOLVERS, Denoiser, Draw, anderson, exact, levels, parareal, picard, vp
from dlib.parallel import sweeps
from dlib.solvers import ancestral, ddim, dpm_solver_pp_2m

MODEL, X = exact(appendix_a(), vp()), normals(6, 2)
WALK = levels(vp(), 24, t_min=0.01)
# the fourth argument of each is the solver
FINDERS = {"picard": picard, "anderson": anderson, "parareal": parareal}
EVERY_FINDER = pytest.mark.parametrize("find", FINDERS.values(), ids=list(FINDERS))


@EVERY_FINDER
@pytest.mark.parametrize(
    "name", [name for name, solver in SOLVERS.items() if not solver.memoryless]
)
def test_a_solver_with_memory_is_refused(find, name):
    with pytest.raises(
        ValueError, match=rf"{name} remembers former steps.*use a solver without memory"
    ):
        find(MODEL, X, WALK, SOLVERS[name], draw=Draw(0))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="tol = -1"):
        picard(MODEL, X, WALK, tol=-1.0)
    with pytest.raises(ValueError, match="tol = nan"):
        parareal(MODEL, X, WALK, tol=math.nan)
    for window in (0, -5):
        with pytest.raises(
            ValueError, match=f"window = {window}, wanted at least 1 step, or None for all 24"
        ):
            picard(MODEL, X, WALK, window=window)
    with pytest.raises(ValueError, match=r"the guess has 3 points, wanted 25 of shape \(6, 2\)"):
        sweeps(MODEL, X, WALK, guess=[X] * 3)
    for blocks in (0, -3, 25):
        with pytest.raises(ValueError, match=f"{blocks} blocks for 24 steps: wanted 1 … 24"):
            parareal(MODEL, X, WALK, blocks=blocks)
    with pytest.raises(ValueError, match="ancestral cannot be the coarse solver"):
        parareal(MODEL, X, WALK, coarse=ancestral)
    with pytest.raises(ValueError, match="dpm_solver_pp_2m cannot be the coarse solver"):
        parareal(MODEL, X, WALK, coarse=dpm_solver_pp_2m)
    with pytest.raises(ValueError, match="order = 0"):
        anderson(MODEL, X, WALK, order=0)
    with pytest.raises(ValueError, match="adds noise: pass draw"):
        picard(MODEL, X, WALK, ancestral)
    with pytest.raises(ValueError, match="not cleaner"):
        picard(MODEL, X, WALK[::-1])


@EVERY_FINDER
def test_an_output_that_is_not_finite_names_sweep_and_step(find):
    def net(x, time, cond):
        return torch.where(time[:, None] < 0.3, math.nan, MODEL.net(x, time, cond))

    first = next(i for i, level in enumerate(WALK) if level.t < 0.3)
    with pytest.raises(
        FloatingPointError,
        match=rf"sweep 1, after step {first + 1} of 24 \(from t = .*look at the network's output",
    ):
        find(Denoiser(net, vp(), "v"), X, WALK, ddim)


@pytest.mark.parametrize(
    ("find", "way_out"),
    [
        (picard, "a smaller window"),
        (lambda *a: parareal(*a, blocks=4), "more blocks for parareal"),
    ],
    ids=["picard", "parareal"],
)
def test_the_sweep_that_is_named_is_the_one_that_failed(find, way_out):
    """Step 17 of 24, in the third of four blocks: when parareal makes it first, its second
    iteration has begun elsewhere.
    """

    def net(x, time, cond):
        return torch.where(time[:, None] == WALK[16].t, math.nan, MODEL.net(x, time, cond))

    with pytest.raises(FloatingPointError, match=rf"sweep 1, after step 17 of 24 .*{way_out}"):
        find(Denoiser(net, vp(), "v"), X, WALK)


def test_a_network_that_fails_later_is_told_from_one_that_fails_at_once():
    calls = []

    def net(x, time, cond):
        calls.append(len(x))
        return MODEL.net(x, time, cond) * (math.nan if len(calls) == 3 else 1)

    with pytest.raises(
        FloatingPointError,
        match=r"picard: x is no longer finite in sweep 3, after step \d+ of 24",
    ):
        picard(Denoiser(net, vp(), "v"), X, WALK)
