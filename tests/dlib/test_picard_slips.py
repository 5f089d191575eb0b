"""What Picard's promises need, and what becomes of them without it: the order of a sum, noise
that stays, a solver without memory.
"""

import pytest
import torch
from truth import appendix_a, normals

from dlib import Draw, exact, levels, picard, vp, walk
from dlib.metrics import rms
from dlib.solvers import ancestral, ddim, dpm_solver_pp_2m, solver

MODEL, X = exact(appendix_a(), vp()), normals(64, 2)
WALK = levels(vp(), 40, t_min=0.01)
CHAIN = torch.stack([state.x for state in walk(MODEL, X, WALK)])


def test_the_sum_as_it_stands_keeps_the_first_k_points_to_rounding_only():
    """X_0 + Σ [Φ_i(X_i) − X_i] by cumsum. The library's order of the same terms leaves exactly
    nothing: see test_parallel.py.
    """
    points = torch.stack([X] * 41)
    for _ in range(30):
        made = torch.stack([ddim(MODEL, *rest)[0] for rest in zip(points, WALK, WALK[1:])])
        points = torch.cat([points[:1], X + (made - points[:-1]).cumsum(0)])
    assert 0 < (points - CHAIN)[:31].abs().max() < 1e-13


def test_with_noise_drawn_anew_in_every_sweep_nothing_settles_but_the_first_point():
    dice = Draw(2)

    @solver(order=1)
    def restless(model, x, a, b, memory=None, noise=None, cond=None):
        return ancestral(model, x, a, b, memory, dice.normal(x), cond)

    assert picard(MODEL, X, WALK, restless, tol=0.1).sweeps == 40
    assert picard(MODEL, X, WALK, ancestral, tol=0.1, draw=Draw(2)).sweeps < 30


def test_a_multistep_solver_whose_memory_is_kept_from_it_is_ddim():
    @solver(order=2)  # a lie: history=1 is left out
    def smuggled(model, x, a, b, memory=None, noise=None, cond=None):
        return dpm_solver_pp_2m(model, x, a, b, memory, noise, cond)

    assert rms(picard(MODEL, X, WALK, smuggled, tol=0).x, CHAIN[-1]) < 1e-12


@pytest.mark.parametrize("window", [1, 5, 13, 40, 100])
def test_the_work_of_an_exact_run_is_bounded(window):
    """The window moves by one at least, so sweep k has min(w, N − k) steps at most: N w − w (w
    − 1) / 2 altogether.
    """
    work, w = picard(MODEL, X, WALK, window=window, tol=0).work, min(window, 40)
    assert 40 <= work <= 40 * w - w * (w - 1) // 2
