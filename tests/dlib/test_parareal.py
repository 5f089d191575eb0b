"""Parareal to the unit and against closed forms: its work, its timetable, its iterations on
Gaussian data, and what it becomes at its limits.
"""

import pytest
import torch
from truth import F64, gaussian, gmm5, mutant, normals

from dlib import exact, levels, parareal, sample, vp
from dlib.parallel import iterations, parareal_iteration, sweeps
from dlib.solvers import ddim, solver

MODEL, X = exact(gmm5(), vp()), normals(6, 2)
EVERY_SHAPE = pytest.mark.parametrize(
    "steps, blocks", [(100, 10), (96, 8), (36, 6), (100, 5), (100, 20)]
)


def _ready(blocks, length):
    """{(q, i): the call after which U_i^q is known}, for solves that a start begins: T(q, i+1)
    = max(T(q−1, i) + J, T(q, i) + 1).
    """
    T = {(0, i): i for i in range(blocks + 1)}
    for q in range(1, blocks + 1):
        for i in range(q - 1, blocks):
            T[q, i + 1] = max(T[q - 1, i] + length, T.get((q, i), 0) + 1)
    return {(q, i): T[q, i] for q in range(blocks) for i in range(q, blocks)}


@EVERY_SHAPE
@pytest.mark.parametrize("tol", [0.1, 0])
def test_the_timetable_and_the_work_are_those_of_the_recursion(steps, blocks, tol):
    """A solve begun at T has made min(J, calls − T) steps, and its start one coarse step."""
    *_, found = iterations(MODEL, X, levels(vp(), steps, t_min=0.01), blocks=blocks, tol=tol)
    length, ready = steps // blocks, _ready(blocks, steps // blocks)
    for call, made in enumerate(found.timetable):
        assert sorted(made) == sorted(at for at, T in ready.items() if T <= call < T + length)
    ages = [found.depth - T for T in ready.values() if T < found.depth]
    assert len(found.timetable) == found.depth and found.work == sum(
        min(length, age) + 1 for age in ages
    )


def test_on_gaussian_data_p_iterations_are_the_chain_multiplied_out_to_degree_p():
    """With factors f, g of the blocks, U_i^p = Π g · Σ_{m ≤ p} e_m(r), r = (f − g)/g."""
    line, unit, walk = (
        exact(gaussian(0.25, 1), vp()),
        torch.ones(1, 1, dtype=F64),
        levels(vp(), 100, t_min=0.01),
    )
    factors = lambda walk: torch.cat(
        [ddim(line, unit, *pair)[0][0] for pair in zip(walk, walk[1:])]
    )
    f, g = factors(walk).view(10, 10).prod(1), factors(walk[::10])
    e = torch.eye(11, 1, dtype=F64).repeat(1, 11)  # (degree, block)
    for j, r in enumerate((f - g) / g):
        e[1:, j + 1] = e[1:, j] + r * e[:-1, j]
    expanded = e.cumsum(0) * torch.cat([unit[0], g.cumprod(0)])
    seen = list(iterations(line, unit, walk, tol=0))
    assert len(seen) > 5
    for p, found in enumerate(seen):
        assert (torch.cat(found.starts)[:, 0] - expanded[p]).abs().max() < 1e-12


@solver(order=0, calls=0)
def _stay(model, x, a, b, memory=None, noise=None, cond=None):
    return x, memory


@solver(order=0, calls=0)
def _flip(model, x, a, b, memory=None, noise=None, cond=None):
    return -x, memory


def test_blocks_of_one_step_and_a_coarse_solver_that_stays_put_are_picard():
    walk = levels(vp(), 20, t_min=0.01)
    pairs = list(
        zip(
            iterations(MODEL, X, walk, coarse=_stay, blocks=20, tol=0),
            sweeps(MODEL, X, walk, tol=0),
        )
    )
    assert len(pairs) > 10
    for mine, picard in pairs:
        assert (torch.stack(mine.starts) - torch.stack(picard.points)).abs().max() < 1e-12


def test_the_coarse_solver_decides_how_long_it_takes_and_nothing_else():
    walk = levels(vp(), 36, t_min=0.01)
    found = parareal(MODEL, X, walk, coarse=_flip, tol=0)
    assert torch.equal(found.x, sample(MODEL, X, walk)) and (found.sweeps, found.depth) == (6, 36)


def test_a_wrong_sign_of_the_bracket_costs_iterations_and_no_bit(monkeypatch):
    walk = levels(vp(), 100, t_min=0.01)
    right = parareal(MODEL, X, walk, tol=1e-2)
    monkeypatch.setattr(
        parareal_iteration._Pipeline,
        "_next",
        mutant(parareal_iteration._Pipeline._next, "fine[p - 1, i] + (", "fine[p - 1, i] - ("),
    )
    wrong = parareal(MODEL, X, walk, tol=1e-2)
    assert wrong.sweeps == 10 > right.sweeps and torch.equal(wrong.x, sample(MODEL, X, walk))
