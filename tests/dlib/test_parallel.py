"""Parallel samplers find what `sample` finds, exactly when asked to, at the depth that theory
says.
"""

import pytest
import torch
from truth import appendix_a, mutant, normals

import dlib
from dlib import (
    CLEAN,
    NULL,
    SOLVERS,
    Denoiser,
    Draw,
    anderson,
    between,
    cosine,
    counted,
    edm,
    exact,
    flow,
    guided,
    levels,
    parareal,
    picard,
    sample,
    vp,
)
from dlib.metrics import rms
from dlib.nets import MLP
from dlib.parallel import iterations, picard_iteration, sweeps
from dlib.solvers import ancestral, ddim, dpm_solver_3, heun

MODEL, X = exact(appendix_a(), vp()), normals(6, 2)
WALK = levels(vp(), 24, t_min=0.01)
MEMORYLESS = [name for name, solver in SOLVERS.items() if solver.memoryless]
FINDERS = {
    "picard": picard,
    "anderson": anderson,
    "parareal": lambda *a, **k: parareal(
        *a[:3], fine=a[3] if len(a) > 3 else k.pop("solver", ddim), **k
    ),
}
EVERY_FINDER = pytest.mark.parametrize("find", FINDERS.values(), ids=list(FINDERS))


@EVERY_FINDER
@pytest.mark.parametrize("name", MEMORYLESS)
def test_without_tolerance_every_solver_gives_the_sequential_sample_bit_for_bit(find, name):
    """Noise included: both draw one normal a step, before or while stepping."""
    found = find(MODEL, X, WALK, SOLVERS[name], tol=0, draw=Draw(1))
    assert torch.equal(found.x, sample(MODEL, X, WALK, SOLVERS[name], draw=Draw(1)))
    assert found.sweeps <= 24


@EVERY_FINDER
@pytest.mark.parametrize("schedule", [vp(), flow(), cosine(), edm()], ids=lambda s: s.name)
def test_singular_ends_and_every_schedule(find, schedule):
    """From α = 0 where there is one, and on to σ = 0."""
    model = exact(appendix_a(), schedule)
    walk = [*levels(schedule, 17, "time"), CLEAN]
    x = normals(4, 2) * walk[0].sigma
    assert torch.equal(
        find(model, x, walk, ancestral, tol=0, draw=Draw(2)).x,
        sample(model, x, walk, ancestral, draw=Draw(2)),
    )


@EVERY_FINDER
def test_networks_conditions_guidance_and_pictures(find):
    """A trained kind of network in float32. Its matrix products may depend on the batch in the
    last bit, a part of 1e-7 that 24 steps may make larger; values reach 2e6.
    """
    torch.manual_seed(0)
    net = MLP(12, width=32, depth=1, classes=3)
    torch.nn.init.normal_(net.leave.weight)
    plain = Denoiser(net, vp(), "eps")
    model = between(guided(plain, 2.0, torch.tensor(NULL)), plain, 0.2, 3.0)
    x, label = Draw(0).normal((5, 3, 2, 2)), torch.tensor([0, 1, 2, 1, 0])
    found = find(model, x, WALK, ddim, tol=0, cond=label)
    truth = sample(model, x, WALK, ddim, label)
    assert found.x.dtype == torch.float32
    assert rms(found.x, truth) < 1e-5 * truth.abs().max()


@EVERY_FINDER
def test_gaps_close_with_the_tolerance(find):
    truth = sample(MODEL, X, WALK)
    runs = [find(MODEL, X, WALK, tol=tol) for tol in (1e-1, 1e-2, 1e-3, 0)]
    assert [run.sweeps for run in runs] == sorted(run.sweeps for run in runs)
    for tol, run in zip((1e-1, 1e-2, 1e-3, 0), runs):
        assert rms(run.x, truth) <= 5 * tol


@EVERY_FINDER
def test_depth_and_work_are_the_network_s_own_count(find):
    model = counted(MODEL)
    found = find(model, X, WALK, heun, tol=1e-3)
    assert found.depth == model.net.calls and found.work == model.net.samples / len(X)


@pytest.mark.parametrize("guess", [None, "noise"], ids=["constant", "noise"])
@pytest.mark.parametrize("solver", [ddim, ancestral], ids=["ddim", "ancestral"])
def test_the_first_k_points_are_exact_after_k_sweeps(solver, guess):
    """Shih et al. 2023, proposition 1, whatever the start and however little has converged."""
    exactly = _states(MODEL, X, WALK, solver, Draw(3))
    guess = guess and [X, *(normals(6, 2, seed=j) for j in range(24))]
    for k, sweep in enumerate(sweeps(MODEL, X, WALK, solver, tol=0, draw=Draw(3), guess=guess)):
        assert all(torch.equal(sweep.points[j], exactly[j]) for j in range(k + 1))
        assert k > 11 or not torch.equal(sweep.points[23], exactly[23])
        assert sweep.done >= k and sweep.points[0] is X
    assert 1 < k <= 24 and torch.equal(sweep.points[24], exactly[24])


def test_every_schedule_with_the_same_levels_sweeps_alike():
    """In x/√(α²+σ²) all schedules are one: so are the guess, the points after each sweep and
    the number of sweeps.
    """
    lams = [level.lam for level in levels(vp(), 24, t_min=0.01)]
    runs = []
    for schedule in (vp(), flow(), edm(sigma_min=1e-3, sigma_max=200.0)):
        walk = [schedule.at_lam(lam) for lam in lams]
        size = torch.tensor(
            [(level.alpha**2 + level.sigma**2) ** 0.5 for level in walk], dtype=torch.float64
        )[:, None, None]
        found = sweeps(exact(appendix_a(), schedule), X * size[0], walk)
        runs.append([torch.stack(sweep.points) / size for sweep in found])
    assert len(runs[0]) == len(runs[1]) == len(runs[2])
    for one, *others in zip(*runs):
        assert all((one - other).abs().max() < 1e-9 for other in others)


def test_picard_is_its_sweeps_to_the_end():
    found, (guess, *seen) = picard(MODEL, X, WALK, window=7), sweeps(MODEL, X, WALK, window=7)
    assert guess.done == guess.work == 0 and len(guess.points) == 25
    assert torch.equal(found.x, seen[-1].points[-1]) and found.sweeps == len(seen)
    assert (found.depth, found.work) == (seen[-1].depth, seen[-1].work)
    assert all(
        torch.equal(a.nan_to_num(-1), b.change.nan_to_num(-1))
        for a, b in zip(found.residuals, seen)
    )


def test_a_good_guess_saves_sweeps_and_the_answer_itself_needs_one():
    answer = _states(MODEL, X, WALK)
    assert len(list(sweeps(MODEL, X, WALK, guess=answer))) == 2  # the guess itself, and one look
    near = [X, *(point + 1e-3 for point in answer[1:])]
    assert len(list(sweeps(MODEL, X, WALK, guess=near))) - 1 < picard(MODEL, X, WALK).sweeps


def _states(model, x, walk, solver=ddim, draw=None):
    return [state.x for state in dlib.walk(model, x, walk, solver, draw=draw)]


@pytest.mark.parametrize("tol", [0.3, 0.1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5])
def test_the_window_passes_what_has_settled(tol):
    # points after it settle before it
    one_wrong = [point + (i == 4) for i, point in enumerate(_states(MODEL, X, WALK))]
    for guess in (None, one_wrong):
        seen = list(sweeps(MODEL, X, WALK, window=7, tol=tol, guess=guess))
        for old, new in zip(seen, seen[1:]):
            inside = range(old.done + 1, min(old.done + 7, 24) + 1)
            unsettled = [
                i for i in inside if not _moved(old.points[i], new.points[i], WALK[i]) <= tol
            ]
            assert new.done == max(old.done + 1, min(unsettled, default=inside.stop) - 1)


def test_parareal_stops_when_its_end_has_settled():
    """Tolerances a little above and a little below the change of each iteration."""
    ends = [found.starts[-1] for found in iterations(MODEL, X, WALK, tol=0)]
    moves = [_moved(old, new, WALK[-1]) for old, new in zip(ends, ends[1:])]
    assert len(moves) == 5 and min(moves) > 0
    for tol in [factor * move for factor in (0.999, 1.001) for move in moves]:
        assert parareal(MODEL, X, WALK, tol=tol).sweeps == next(
            (p for p, move in enumerate(moves, 1) if move <= tol), 5
        )


def _moved(old, new, level):
    """Root mean square of each sample, over the point's own σ, the largest of the batch."""
    return ((new - old).square().mean(1).sqrt() / level.sigma).max().item()


@pytest.mark.parametrize("window", [1, 7, 24, 100])
def test_a_window_bounds_the_batch(window):
    model = counted(MODEL)
    found = picard(model, X, WALK, window=window, tol=1e-3)
    assert (
        found.work <= found.sweeps * min(window, 24)
        and rms(found.x, sample(MODEL, X, WALK)) < 5e-3
    )
    if window == 1:
        assert found.sweeps == found.depth == found.work == 24


def test_anderson_without_memory_over_all_steps_is_picard():
    one, other = picard(MODEL, X, WALK), anderson(MODEL, X, WALK, order=24, memory=1)
    assert torch.equal(one.x, other.x) and one.sweeps == other.sweeps


def test_mixing_weights_are_least_squares_over_the_points_not_cleaner():
    """For each point and sample by `lstsq`, without the ridge; the first point is not mixed."""
    (new, old), past = (
        normals(2, 5, 3, 4),
        [(0, *normals(2, 5, 3, 4, seed=seed)) for seed in (1, 2)],
    )
    mixed, _ = picard_iteration._mix(new, old, past, 0, memory=3, ridge=0.0)
    dx, dr = (
        torch.stack([now - then for then in each])
        for now, each in ((old, [x for _, x, _ in past]), (new - old, [r for _, _, r in past]))
    )
    assert torch.equal(mixed[0], new[0])
    for j in range(1, 5):
        for b in range(3):
            gamma = torch.linalg.lstsq(
                dr[:, : j + 1, b].flatten(1).T, (new - old)[: j + 1, b].flatten()[:, None]
            ).solution[:, 0]
            assert torch.allclose(mixed[j, b], new[j, b] - gamma @ (dx + dr)[:, j, b], atol=1e-10)


def test_mixing_saves_sweeps_where_noise_makes_them_many():
    walk = levels(vp(), 60, t_min=0.01)
    x = normals(32, 2)
    plain = picard(MODEL, x, walk, ancestral, draw=Draw(0), tol=1e-3)
    mixed = anderson(MODEL, x, walk, ancestral, draw=Draw(0), tol=1e-3, order=60, memory=3)
    assert mixed.sweeps <= 0.8 * plain.sweeps
    assert rms(mixed.x, sample(MODEL, x, walk, ancestral, draw=Draw(0))) < 5e-3


@pytest.mark.parametrize("steps, blocks", [(100, 10), (96, 8), (36, 6), (12, 12), (12, 1)])
def test_parareal_s_pipelined_depth(steps, blocks):
    """K + p(J − 1) network calls for p iterations of K blocks of J steps: the coarse sweep,
    then J − 1 more a fine solve.
    """
    walk = levels(vp(), steps, t_min=0.01)
    for tol in (1e-3, 0):
        found, length = parareal(MODEL, X, walk, blocks=blocks, tol=tol), steps // blocks
        assert found.depth == (blocks + found.sweeps * (length - 1) if blocks > 1 else steps)
    assert found.depth <= steps


def test_parareal_s_first_blocks_are_exact():
    """After p iterations the residual of the first p starts is that of a settled point: zero
    in every later iteration.
    """
    found = parareal(MODEL, X, levels(vp(), 36, t_min=0.01), blocks=6, tol=0)
    for p, change in enumerate(found.residuals, start=1):
        assert bool((change[:p] == 0).all()) and (p == found.sweeps or change[p + 1] > 0)


def test_iterations_show_every_start():
    """The coarse guess first; after p iterations the first p starts are points of the
    sequential path.
    """
    walk, path = levels(vp(), 20, t_min=0.01), _states(MODEL, X, levels(vp(), 20, t_min=0.01))
    seen = list(iterations(MODEL, X, walk, blocks=5, tol=0))
    assert (
        seen[0].edges == [0, 4, 8, 12, 16, 20]
        and bool(seen[0].change.isnan().all())
        and seen[0].depth == 5
    )
    for p, found in enumerate(seen):
        assert all(torch.equal(found.starts[i], path[found.edges[i]]) for i in range(p + 1))
    last = parareal(MODEL, X, walk, blocks=5, tol=0)
    assert torch.equal(seen[-1].starts[-1], last.x) and (
        seen[-1].depth,
        seen[-1].work,
        len(seen) - 1,
    ) == (last.depth, last.work, last.sweeps)


@pytest.mark.parametrize("steps, blocks", [(10, 4), (97, None), (11, 6), (5, 5)])
def test_blocks_need_not_divide_the_steps(steps, blocks):
    walk = levels(vp(), steps, t_min=0.01)
    found = parareal(MODEL, X, walk, blocks=blocks, tol=0)
    assert torch.equal(found.x, sample(MODEL, X, walk))
    edges = next(iterations(MODEL, X, walk, blocks=blocks)).edges
    lengths = [b - a for a, b in zip(edges, edges[1:])]
    assert (
        len(lengths) == (blocks or 10)
        and lengths[:-1] == lengths[:1] * (len(lengths) - 1)
        and 0 < lengths[-1] <= lengths[0]
    )


def test_a_coarse_solver_like_the_fine_one_needs_one_look():
    """Blocks of one step: the guess is the fine solution already, and the first iteration
    finds no change.
    """
    found = parareal(MODEL, X, WALK, blocks=24, tol=1e-3)
    assert found.sweeps == 1 and found.residuals.max() == 0


def test_a_wrong_sign_is_seen(monkeypatch):
    right = picard(MODEL, X, WALK).sweeps
    monkeypatch.setattr(
        picard_iteration,
        "_summed",
        mutant(picard_iteration._summed, "made - old, 1)", "old - made, 1)"),
    )
    try:
        sweeps = picard(MODEL, X, WALK).sweeps
    except FloatingPointError:
        return
    assert sweeps > 1.3 * right


def test_a_window_that_runs_ahead_is_seen(monkeypatch):
    wrong = mutant(
        picard_iteration._sweeps, "done += max(1, int(settled))", "done += min(2, steps - done)"
    )
    monkeypatch.setattr(picard_iteration, "_sweeps", wrong)
    assert not torch.equal(picard(MODEL, X, WALK, tol=0).x, sample(MODEL, X, WALK))


def test_progress_reaches_the_end():
    seen = []
    picard(MODEL, X, WALK, each=lambda done, steps: seen.append((done, steps)))
    assert seen[-1] == (24, 24) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    parareal(MODEL, X, WALK, each=lambda p, change: seen.append(change))
    assert seen[-1] <= 1e-3


def test_a_third_order_solver_asks_three_times_a_sweep():
    found = picard(MODEL, X, WALK, dpm_solver_3)
    assert found.depth == 3 * found.sweeps
