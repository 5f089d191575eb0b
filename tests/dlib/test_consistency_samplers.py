"""LCM, TCD, multistep consistency sampling and `travel`: closed forms first, then diffusers'
own schedulers.
"""

import math

import pytest
import torch
from truth import F64, SCHEDULES, gaussian, mutant, normals, per_row

from dlib import (
    CLEAN,
    SOLVERS,
    Denoiser,
    Draw,
    boundary,
    edm,
    exact,
    flow,
    grid,
    lcm_scalings,
    levels,
    sample,
    vp,
)
from dlib.grids import pcm_edges
from dlib.solvers import ddim, lcm, stochastic_iterative, tcd, travel

SD, EVERY = (
    SCHEDULES["discrete"],
    pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES)),
)


def V(level, c):
    return level.alpha**2 * c**2 + level.sigma**2


@EVERY
@pytest.mark.parametrize("times", [(0.1, 0.6), (0.3, 0.9), (0.2, 1.0), (0.01, 0.011)])
def test_travel_carries_one_marginal_into_the_other(schedule, times):
    """x_a = α_a x₀ + σ_a ε becomes α_b x₀ + σ_b ε': the factor of x₀ and the total noise
    variance, to rounding.
    """
    a, b = schedule.levels(times)
    zero, one = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    ratio, fresh = travel(one, a, b, zero).item(), travel(zero, a, b, one).item()
    assert ratio * a.alpha == pytest.approx(b.alpha, rel=1e-12, abs=1e-15)
    assert ratio**2 * a.sigma**2 + fresh**2 == pytest.approx(b.sigma**2, rel=1e-11)


@EVERY
def test_travel_composes_and_starts_at_the_data(schedule):
    a, b, c = schedule.levels([0.2, 0.5, 0.8])
    zero, one = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    first, second, whole = (travel(zero, s, t, one).item() for s, t in ((a, b), (b, c), (a, c)))
    assert (c.alpha / b.alpha * first) ** 2 + second**2 == pytest.approx(whole**2, rel=1e-11)
    assert travel(one, CLEAN, b, one).item() == pytest.approx(b.alpha + b.sigma, rel=1e-14)


@EVERY
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_travel_to_the_same_level_is_nothing(schedule, dtype):
    x, level = normals(3, 2).to(dtype), schedule.at(0.37)
    assert torch.equal(travel(x, level, level, torch.ones_like(x)), x)
    assert torch.equal(travel(x, per_row(level, x), per_row(level, x), torch.ones_like(x)), x)


def test_travel_keeps_its_digits_over_a_short_way():
    """Δλ = 1e-7: σ_b² − (α_b/α_a)²σ_a² has lost nine digits, its difference form none."""
    b = vp().at(0.5)
    a = vp().at_lam(b.lam + 1e-7)
    fresh = travel(torch.zeros(1, dtype=F64), a, b, torch.ones(1, dtype=F64)).item()
    assert fresh == pytest.approx(
        b.sigma * math.sqrt(-math.expm1(2 * (b.lam - a.lam))), rel=1e-14
    )


def variances(solver, model, walk, c):
    """The variance of x in a chain of linear steps from N(0, V(walk[0])): no sampling needed."""
    variance, one, zero = V(walk[0], c), torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
    for a, b in zip(walk, walk[1:]):
        kept, fresh = (
            solver(model, one, a, b, noise=zero)[0].item(),
            solver(model, zero, a, b, noise=one)[0].item(),
        )
        variance = kept**2 * variance + fresh**2
        yield variance, V(b, c)


def perfect(schedule, c, end):
    """The consistency function of N(0, c²): f = x α_end √(V'_end/V'), V' = c² + κ², as the x₀
    it predicts in y = x/α at the end.
    """

    def net(x, t, cond):
        level = schedule.at(t, like=x)
        kappa, kappa_end = level.sigma / level.alpha, end.sigma / end.alpha
        return x / level.alpha * ((c**2 + kappa_end**2) / (c**2 + kappa**2)) ** 0.5

    return Denoiser(net, schedule, "x0")


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_perfect_consistency_model_keeps_every_marginal(n):
    """Variance exploding from κ = 80: any number of steps has exactly the right variance, at
    each of them.
    """
    schedule, c = edm(), 0.5
    model = perfect(schedule, c, schedule.at(0.0))
    walk = levels(schedule, n, "karras")
    assert all(
        have == pytest.approx(want, rel=1e-12)
        for have, want in variances(stochastic_iterative, model, walk, c)
    )


@pytest.mark.parametrize("way", [lcm, tcd(1.0)], ids=["lcm", "tcd(1)"])
@pytest.mark.parametrize("n", [1, 4, 50])
def test_on_straight_paths_latent_consistency_keeps_every_marginal(way, n):
    """Velocity of the perfect jump x₀ = c x/√V, which has an answer at α = 0 too; the walk starts
    there, and ends at σ = 0.
    """
    schedule, c = flow(), 0.7

    def net(x, t, cond):
        level = schedule.at(t, like=x)
        return (x - c * x / (level.alpha**2 * c**2 + level.sigma**2) ** 0.5) / level.sigma

    walk = levels(schedule, n, "lcm", end="clean")
    found = [*variances(way, Denoiser(net, schedule, "velocity"), walk[:-1], c)]
    assert all(have == pytest.approx(want, rel=1e-12) for have, want in found)
    x = normals(5, 1)
    end = sample(Denoiser(net, schedule, "velocity"), x, walk, way, draw=Draw(0))
    assert walk[0].alpha == 0 and (n > 1 or (end - c * x).abs().max() < 1e-12)


def test_forgetting_kappa_min_is_caught():
    """Full noise on top of a point that already has κ_min: 1e-3 too much variance at κ = 0.06."""
    schedule, c = edm(), 0.5
    walk = [schedule.at(1.0), schedule.at_lam(-math.log(0.06))]
    wrong = mutant(
        stochastic_iterative,
        "end, b, noise",
        "CLEAN, b, noise".replace("CLEAN", "end._replace(lam=float('inf'))"),
    )
    [(have, want)] = variances(wrong, perfect(schedule, c, schedule.at(0.0)), walk, c)
    assert have - want == pytest.approx(0.002**2, rel=1e-6)


def test_lcm_is_consistency_sampling_where_the_clean_end_has_no_noise():
    model, x, noise = exact(gaussian(0.7), vp()), normals(3, 2), normals(3, 2, seed=1)
    a, b = vp().levels([0.8, 0.3])
    assert (
        lcm(model, x, a, b, noise=noise)[0] - stochastic_iterative(model, x, a, b, noise=noise)[0]
    ).abs().max() < 1e-14
    assert (
        lcm(model, x, a, b, noise=noise)[0] - (b.alpha * model(x, a).x0 + b.sigma * noise)
    ).abs().max() < 1e-14


@EVERY
def test_tcd_with_gamma_zero_is_ddim(schedule):
    model, x = Denoiser(lambda x, t, c: torch.sin(x), schedule, "v"), normals(4, 2)
    walk = levels(schedule, 5, "time", t_max=0.95)
    assert torch.equal(
        sample(model, x, walk, tcd(0.0), draw=Draw(0)), sample(model, x, walk, ddim)
    )


@EVERY
def test_tcd_with_gamma_one_jumps_to_the_clean_end(schedule):
    model, x, noise = (
        Denoiser(lambda x, t, c: torch.sin(x), schedule, "v"),
        normals(4, 2),
        normals(4, 2, seed=1),
    )
    a, b, end = *schedule.levels([0.8, 0.3]), schedule.at(schedule.t_min)
    by_hand = travel(model(x, a).mix(end.alpha, end.sigma), end, b, noise)
    assert (tcd(1.0)(model, x, a, b, noise=noise)[0] - by_hand).abs().max() < 1e-12


@pytest.mark.parametrize("gamma", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("schedule", [vp(), flow()], ids=["vp", "flow"])
def test_tcd_goes_a_share_gamma_below(schedule, gamma):
    model, x, noise = (
        Denoiser(lambda x, t, c: torch.sin(x), schedule, "v"),
        normals(4, 2),
        normals(4, 2, seed=1),
    )
    a, b = schedule.levels([0.8, 0.5])
    s = schedule.at((1 - gamma) * 0.5)
    by_hand = (b.alpha / s.alpha) * (s.alpha * model(x, a).x0 + s.sigma * model(x, a).eps)
    by_hand = by_hand + math.sqrt(b.sigma**2 - (b.alpha / s.alpha * s.sigma) ** 2) * noise
    assert (tcd(gamma)(model, x, a, b, noise=noise)[0] - by_hand).abs().max() < 1e-12


def test_tcd_floors_on_a_ladder_in_both_precisions():
    """b at index 499, γ = 0.3: ⌊349.3⌋; index 10, γ = 0.5: 5 and not 4, though float32 times
    are 6e-5 of an index off.
    """
    for n, gamma, below in (
        (499, 0.3, 349),
        (10, 0.5, 5),
        (739, 0.0, 739),
        (739, 1.0, 0),
        (0, 0.3, 0),
    ):
        a, b, s = (SD.at((i + 1) / 1000) for i in (999, n, below))
        model = Denoiser(lambda x, t, c: torch.sin(x), SD, "eps")
        for dtype in (F64, torch.float32):
            x, noise = normals(4, 2).to(dtype), normals(4, 2, seed=1).to(dtype)
            by_hand = travel(model(x, a).mix(s.alpha, s.sigma), s, b, noise)
            tensor = tcd(gamma)(model, x, per_row(a, x), per_row(b, x), noise=noise)[0]
            assert (tcd(gamma)(model, x, a, b, noise=noise)[0] - by_hand).abs().max() < (
                1e-12 if dtype == F64 else 1e-5
            )
            assert (tensor - by_hand).abs().max() < (1e-12 if dtype == F64 else 1e-4)


def test_bad_gamma():
    for gamma in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"tcd: gamma = .* is outside \[0, 1\]"):
            tcd(gamma)
    assert SOLVERS["tcd"].__name__ == "tcd" and tcd(0.5).__name__ == "tcd(0.5)"


# diffusers' own classes. Their order of operations is x₀ first, then boundary, then noise; ours
# is one fused p·x + q·raw. The formula
# is the same, the roundings are not: equal to a few units in the last place, in float64 as in
# float32.

LADDER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
PEER = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def net(x, n):
    return torch.tanh(0.7 * x + n / 1000)


class Same(Draw):
    """Normals from torch's own generator in the dtype of x, as diffusers draws them."""

    def normal(self, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def theirs(scheduler, n, x, dtype, **options):
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(dtype)
    scheduler.set_timesteps(n)
    # below: an int, as LCMScheduler's scalings of a tensor are float32
    generator = torch.Generator().manual_seed(3)
    for step in scheduler.timesteps:
        x = scheduler.step(
            net(x, step.to(dtype)), int(step), x, generator=generator, **options
        ).prev_sample
    return x


def apart(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def ours(predicts):
    return Denoiser(
        lambda x, t, cond: net(x, t[:, None]), SD, PEER[predicts], clock=lambda t: 1000 * t - 1
    )


PRECISIONS = pytest.mark.parametrize("dtype, bound", [(F64, 1e-14), (torch.float32, 2e-6)])


@PRECISIONS
@pytest.mark.parametrize("predicts", list(PEER))
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_lcm_is_diffusers_lcm(n, predicts, dtype, bound):
    diffusers = pytest.importorskip("diffusers")
    x = normals(16, 4).to(dtype)
    peer = theirs(diffusers.LCMScheduler(**LADDER, prediction_type=predicts), n, x, dtype)
    walk = [*levels(SD, n, "lcm")[:-1], CLEAN]
    assert (
        apart(
            sample(boundary(ours(predicts), lcm_scalings(SD)), x, walk, lcm, draw=Same(3)), peer
        )
        < bound
    )


@PRECISIONS
@pytest.mark.parametrize("predicts", list(PEER))
@pytest.mark.parametrize("n, gamma", [(4, 0.3), (4, 0.0), (8, 0.5), (1, 0.3), (2, 1.0), (8, 0.3)])
def test_tcd_is_diffusers_tcd(n, gamma, predicts, dtype, bound):
    diffusers = pytest.importorskip("diffusers")
    x = normals(16, 4).to(dtype)
    peer = theirs(
        diffusers.TCDScheduler(**LADDER, prediction_type=predicts), n, x, dtype, eta=gamma
    )
    assert (
        apart(sample(ours(predicts), x, levels(SD, n, "lcm"), tcd(gamma), draw=Same(3)), peer)
        < bound
    )


@pytest.mark.parametrize(
    "old, new", [("mix(b.alpha, 0.0)", "mix(1.0, 0.0)"), ("b.sigma * noise", "a.sigma * noise")]
)
def test_a_slip_in_lcm_is_caught(old, new):
    diffusers = pytest.importorskip("diffusers")
    x, walk = normals(16, 4), [*levels(SD, 4, "lcm")[:-1], CLEAN]
    model = boundary(ours("epsilon"), lcm_scalings(SD))
    peer = theirs(diffusers.LCMScheduler(**LADDER), 4, x, F64)
    assert apart(sample(model, x, walk, mutant(lcm, old, new), draw=Same(3)), peer) > 1e-2


@pytest.mark.parametrize(
    "old, new",
    [
        ("b.t, gamma)", "a.t, gamma)"),
        ("b.t, gamma)", "b.t, 1 - gamma)"),
        ("s, b, noise", "s, a, noise"),
    ],
)
def test_a_slip_in_tcd_is_caught(old, new):
    diffusers = pytest.importorskip("diffusers")
    x = normals(16, 4)
    peer = theirs(diffusers.TCDScheduler(**LADDER), 4, x, F64, eta=0.3)
    assert (
        apart(
            sample(
                ours("epsilon"), x, levels(SD, 4, "lcm"), mutant(tcd, old, new)(0.3), draw=Same(3)
            ),
            peer,
        )
        > 1e-2
    )


@pytest.mark.parametrize(
    "old, new",
    [
        ("2 * (b.lam - a.lam)", "(b.lam - a.lam)"),
        ("b.alpha / a.alpha", "a.alpha / b.alpha"),
        ("b.sigma * fresh", "a.sigma * fresh"),
    ],
)
def test_a_slip_in_travel_is_caught(monkeypatch, old, new):
    monkeypatch.setitem(globals(), "travel", mutant(travel, old, new))
    with pytest.raises(AssertionError):
        test_travel_carries_one_marginal_into_the_other(vp(), (0.3, 0.9))


def test_phases_are_sampled_by_ddim():
    """A perfect phase map: F(x, t → s_m; ε) is the flow to s_m. DDIM along the edges is then
    the PF-ODE, for every number of phases.
    """
    schedule, c, x = vp(), 0.6, normals(5, 2)
    times = grid(schedule, 24)
    for phases in (1, 2, 4, 8):
        edges = pcm_edges(times, phases)

        def phase_map(x, t, cond):
            edge = edges[(edges >= t[:, None]).sum(1)]
            level, s = schedule.at(t, like=x), schedule.at(edge, like=x)
            there = x * (V(s, c) / V(level, c)).sqrt()
            return (there - s.alpha / level.alpha * x) / (
                s.sigma - level.sigma * s.alpha / level.alpha
            )

        walk = schedule.levels([times[0], *edges])
        end = sample(Denoiser(phase_map, schedule, "eps"), x, walk, ddim)
        assert (end - x * math.sqrt(V(walk[-1], c) / V(walk[0], c))).abs().max() < 1e-11
