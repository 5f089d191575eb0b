"""Against diffusers where it is right, with its own classes in float32; and what it does where
it is not.

Recipe: Stable Diffusion's ladder, f(x, n) = tanh(0.7x + n/1000) as ε, a unit start.
"""

import math

import pytest
import torch
from truth import SCHEDULES, appendix_a, exact_flow, normals

from dlib import (
    CLEAN,
    SOLVERS,
    Denoiser,
    discrete,
    exact,
    flow,
    grid,
    levels,
    metrics,
    reference,
    sample,
    scaled_linear,
    transition,
)
from dlib.metrics import order

diffusers = pytest.importorskip("diffusers")

SD = SCHEDULES["discrete"]
LADDER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
START = normals(16, 4).float()


def f(x, n):
    return torch.tanh(0.7 * x + n / 1000)


def ours(name, n, spacing="sd_trailing"):
    model = Denoiser(
        lambda x, time, cond: f(x, time[:, None]), SD, "eps", clock=lambda t: 1000 * t - 1
    )
    return sample(model, START, levels(SD, n, spacing), SOLVERS[name])


def theirs(scheduler, n, x=START, net=f):
    scheduler.set_timesteps(n)
    for step in scheduler.timesteps:
        x = scheduler.step(net(x, step), step, x).prev_sample
    return x


def ddim_peer(spacing="trailing"):
    offset = 1 if spacing == "leading" else 0
    return diffusers.DDIMScheduler(
        **LADDER,
        clip_sample=False,
        set_alpha_to_one=False,
        timestep_spacing=spacing,
        steps_offset=offset,
    )


def dpm_peer(solver_order):
    return diffusers.DPMSolverMultistepScheduler(
        **LADDER,
        solver_order=solver_order,
        timestep_spacing="trailing",
        final_sigmas_type="sigma_min",
        lower_order_final=False,
    )


def gap(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("n", [1, 4, 10, 50])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim(n, spacing):
    peer = theirs(ddim_peer(spacing), n)
    # a few roundings of float32
    assert gap(ours("ddim", n, f"sd_{spacing}"), peer) <= 1e-6 * peer.abs().max()


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_index_grids(spacing):
    """Ties (62.5 at 48 steps) are left out: theirs round by the last digit of numpy's
    `arange`, which at n = 61 even adds a 62nd, −1.
    """
    peer = ddim_peer(spacing)
    for n in range(1, 101):
        peer.set_timesteps(n)
        indices = (grid(SD, n, f"sd_{spacing}") * 1000 - 1).round(decimals=6)
        tie = torch.tensor(
            [
                spacing == "trailing" and (2000 * i) % n == 0 and (2000 * i // n) % 2 == 1
                for i in range(n)
            ]
        )
        assert (
            torch.equal(indices[:-1].long()[~tie], peer.timesteps[:n][~tie]) and indices[-1] == 0
        )


def test_the_ladder_is_diffusers_own():
    peer = ddim_peer()
    assert torch.equal(scaled_linear(), peer.alphas_cumprod)
    assert discrete(peer.alphas_cumprod).at(0.3) == SD.at(0.3)


@pytest.mark.parametrize("n", [5, 20])
def test_2m(n):
    assert gap(ours("dpm_solver_pp_2m", n), theirs(dpm_peer(2), n)) <= 1e-4


@pytest.mark.parametrize("n, apart", [(10, 0.12), (25, 0.04)])
def test_released_3m_is_theirs_and_the_corrected_one_is_not(n, apart):
    """An independent implementation measured 0.12 and 0.04 between the two for its own start;
    a factor of three is left for another.
    """
    peer = theirs(dpm_peer(3), n)
    assert gap(ours("dpm_solver_pp_3m_released", n), peer) <= 1e-4
    assert apart / 3 < gap(ours("dpm_solver_pp_3m", n), peer) < apart * 3


def test_transition_is_ddpm_s_step_with_the_same_noise():
    peer = diffusers.DDPMScheduler(
        **LADDER, clip_sample=False, variance_type="fixed_small", timestep_spacing="trailing"
    )
    peer.set_timesteps(10)
    model = Denoiser(
        lambda x, time, cond: f(x, time[:, None]), SD, "eps", clock=lambda t: 1000 * t - 1
    )
    walk = levels(SD, 10, "sd_trailing")
    # their last step goes to ᾱ = 1, ours to ᾱ_0
    for step, a, b in list(zip(peer.timesteps, walk, walk[1:]))[:-1]:
        there = peer.step(
            f(START, step), step, START, generator=torch.Generator().manual_seed(1)
        ).prev_sample
        mean, std = transition(model, START, a, b, eta=1.0)
        noise = torch.randn(START.shape, generator=torch.Generator().manual_seed(1))
        assert gap(mean + std * noise, there) < 2e-5


def test_diffusers_third_order_multistep_is_second_order():
    """On the exact mixture, both uniform in λ (their `use_lu_lambdas`, whose κ are exact;
    their indices are rounded: unused).

    Measured before, independently: the released class has slopes 1.92–2.31, the corrected
    formula 2.86–2.95 (float32 costs them nothing here).
    """
    model, x = exact(appendix_a(), SD), normals(64, 2)
    # smooth in λ, whatever the ladder does between its indices
    truth = exact_flow(model, x, 1.0, 1 / 1000)
    released, corrected = {}, {}
    for n in (40, 80, 160):
        peer = diffusers.DPMSolverMultistepScheduler(
            **LADDER,
            solver_order=3,
            use_lu_lambdas=True,
            final_sigmas_type="sigma_min",
            lower_order_final=False,
        )
        peer.set_timesteps(n + 1)  # their last step repeats κ_min and would divide by h = 0
        y = x.float()
        for step, kappa in zip(peer.timesteps[:n], peer.sigmas):
            # their first κ is float32: just outside the ladder
            level = SD.at_lam(max(-math.log(kappa), SD.at(1.0).lam))
            y = peer.step(model(y.double(), level).eps.float(), step, y).prev_sample
        released[n] = metrics.typical(y.double(), truth)
        corrected[n] = metrics.typical(
            sample(model, x, levels(SD, n), SOLVERS["dpm_solver_pp_3m"]), truth
        )
    assert order(released) < 2.5 < order(corrected)
    assert corrected[160] < released[160] / 4


def clean_end(mixture, x, top):
    """Where the PF-ODE from x at the level `top` ends at σ = 0: from λ = 9 the posterior mean
    is the end point up to 1e-8.
    """
    # in (x/α, σ/α) every schedule has the same ODE
    model, noisy, near = exact(mixture, flow()), flow().at_lam(top.lam), flow().at_lam(9.0)
    return model(reference(model, noisy.alpha / top.alpha * x, noisy, near), near).x0


@pytest.mark.parametrize(
    "solver_order, name", [(2, "dpm_solver_pp_2m"), (3, "dpm_solver_pp_3m_released")]
)
def test_diffusers_default_grid_converges_below_first_order(solver_order, name):
    """The class as it comes: N + 1 even indices, rounded, without index 0, then σ = 0; 640
    steps still make their last call at index 2.

    Ours on those levels does the same, so it is the grid. The last step, from the exact state,
    leaves an error that falls as κ² of its level.
    """
    peer = diffusers.DPMSolverMultistepScheduler(solver_order=solver_order)
    ladder = discrete(peer.alphas_cumprod)
    model, x = exact(appendix_a(), ladder), normals(64, 2)
    truth, released, ours, alone, bound = (
        clean_end(appendix_a(), x, ladder.at(1.0)),
        {},
        {},
        {},
        {},
    )
    for n in (160, 320, 640):
        peer = diffusers.DPMSolverMultistepScheduler(solver_order=solver_order)
        peer.set_timesteps(n)
        walk, y = ladder.levels((peer.timesteps.double() + 1) / 1000), x
        for step, level in zip(peer.timesteps, walk):
            y = peer.step(model(y, level).eps, step, y).prev_sample
        released[n] = metrics.typical(y, truth)
        ours[n] = metrics.typical(sample(model, x, [*walk, CLEAN], SOLVERS[name]), truth)
        alone[n] = metrics.typical(
            model(exact_flow(model, x, 1.0, walk[-1].t), walk[-1]).x0, truth
        )
        bound[n] = math.exp(-2 * walk[-1].lam)
    assert order(released) < 0.95 and order(ours) < 0.95
    assert all(abs(released[n] / ours[n] - 1) < 0.02 for n in ours), (released, ours)
    assert order(alone) == pytest.approx(order(bound), abs=0.05) and order(bound) < 0.95
    assert 0.4 < released[640] / alone[640] < 1.2


def constant_noise_error(scheduler, n):
    """x = αx₀ + σε with constant ε is one straight line in (x/α, σ/α): DDIM must end on it, at
    index 0.
    """
    x0, eps = normals(8, 2, seed=1).float(), normals(8, 2, seed=2).float()
    scheduler.set_timesteps(n)
    first, last = (SD.at((float(i) + 1) / 1000) for i in (scheduler.timesteps[0], 0))
    end = theirs(scheduler, n, first.alpha * x0 + first.sigma * eps, lambda x, step: eps)
    return gap(end, last.alpha * x0 + last.sigma * eps)


def test_diffusers_ddim_steps_to_the_wrong_index_unless_the_grid_is_even():
    """`prev = t − 1000 // n` whatever the grid: right for 50 trailing steps, wrong for 30 and
    for linspace.
    """
    assert constant_noise_error(ddim_peer(), 50) < 1e-4
    assert constant_noise_error(ddim_peer(), 30) > 1e-2
    assert constant_noise_error(ddim_peer("linspace"), 4) > 1e-1


def test_diffusers_third_order_sde_is_worse_than_its_second():
    """`sde-dpmsolver++` with solver_order=3 has −½ where +½ belongs. Without noise, for x₀
    quadratic in λ, the integral is a sum over three nodes and ours exact; theirs falls behind
    its own second order."""
    c = [0.3, -0.7, 0.2]
    x0 = lambda lam: sum(a * lam**k for k, a in enumerate(c))
    errors = {}
    for solver_order in (2, 3):
        peer = diffusers.DPMSolverMultistepScheduler(
            **LADDER,
            solver_order=solver_order,
            algorithm_type="sde-dpmsolver++",
            prediction_type="sample",
            use_lu_lambdas=True,
            final_sigmas_type="sigma_min",
            lower_order_final=False,
        )
        peer.set_timesteps(41)
        x, zeros = torch.zeros(1, 1), torch.zeros(1, 1)
        for step, kappa in zip(peer.timesteps[:40], peer.sigmas):
            x = peer.step(
                torch.full((1, 1), x0(-math.log(kappa))), step, x, variance_noise=zeros
            ).prev_sample
        walk = levels(SD, 40)
        model = Denoiser(
            lambda x, t, cond: torch.full_like(x, x0(SD.at(t[0].item()).lam)), SD, "x0"
        )
        y, memory = torch.zeros(1, 1, dtype=torch.float64), None
        for a, b in zip(walk, walk[1:]):
            y, memory = SOLVERS["sde_dpm_solver_pp_3m"](
                model, y, a, b, memory, torch.zeros_like(y)
            )
        errors[solver_order] = (x.double() - y).abs().item()
    assert errors[3] > 3 * errors[2] > 0, errors


def test_the_sign_is_all_that_is_wrong_with_diffusers_third_order_sde():
    """Theirs, step for step, is ours with (q − 1) for 2q before α h² d₂: the sign, and the
    factor 2 that their 3M lacks as well.
    """

    def as_released(model, x, a, b, memory=None, noise=None, cond=None):
        x_b, nodes = SOLVERS["sde_dpm_solver_pp_3m"](model, x, a, b, memory, noise, cond)
        if len(nodes) == 3:
            (l_0, m_0), (l_1, m_1), (l_2, m_2) = nodes
            d_2 = ((m_0 - m_1) / (l_0 - l_1) - (m_1 - m_2) / (l_1 - l_2)) / (l_0 - l_2)
            h = b.lam - a.lam
            q = 0.5 + (1 - math.exp(-2 * h) - 2 * h) / (4 * h * h)
            x_b = x_b + (q - 1 - 2 * q) * b.alpha * h * h * d_2
        return x_b, nodes

    peer = diffusers.DPMSolverMultistepScheduler(
        **LADDER,
        solver_order=3,
        algorithm_type="sde-dpmsolver++",
        timestep_spacing="trailing",
        final_sigmas_type="sigma_min",
        lower_order_final=False,
    )
    peer.set_timesteps(12)
    walk, model = (
        levels(SD, 12, "sd_trailing"),
        Denoiser(
            lambda x, time, cond: f(x, time[:, None]), SD, "eps", clock=lambda t: 1000 * t - 1
        ),
    )
    x, y, right, memory, ours = START, START.double(), START.double(), None, None
    for i, (step, a, b) in enumerate(zip(peer.timesteps, walk, walk[1:])):
        noise = normals(16, 4, seed=i)
        x = peer.step(f(x, step), step, x, variance_noise=noise.float()).prev_sample
        y, memory = as_released(model, y, a, b, memory, noise)
        right, ours = SOLVERS["sde_dpm_solver_pp_3m"](model, right, a, b, ours, noise)
    assert gap(x.double(), y) <= 1e-4 < 1e-2 < gap(x.double(), right)


def test_straight_paths_count_indices_as_stable_diffusion_3_does():
    """Index n at σ = t = (n + 1)/1000: what `grid` reads a schedule as that is a formula."""
    times = torch.cat([grid(flow(), 500, "sd_trailing"), grid(flow(), 333, "sd_leading")])
    trained = diffusers.FlowMatchEulerDiscreteScheduler().sigmas.double()
    nearest = (times[:, None] - trained).abs().min(1).values
    assert nearest.max() < 1e-7 and (trained[0], len(trained)) == (1.0, 1000)


@pytest.mark.parametrize("shift", [1, 3])
def test_euler_on_straight_paths(shift):
    """FlowMatchEulerDiscreteScheduler, taken at its own σ: on straight paths σ is t."""
    peer = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    end = theirs(peer, 10)
    model = Denoiser(
        lambda x, time, cond: f(x, time[:, None]), flow(), "velocity", clock=lambda t: 1000 * t
    )
    assert (
        gap(sample(model, START, flow().levels(peer.sigmas), SOLVERS["euler"]), end)
        <= 1e-6 * end.abs().max()
    )


def test_diffusers_shifts_the_clean_end_of_its_flow_grid_twice():
    """κ' = 3κ of t = 1/1000 is what `shift=3` promises as the last level before 0; it is
    applied when made and again when stepped.
    """
    peer = diffusers.FlowMatchEulerDiscreteScheduler(shift=3)
    peer.set_timesteps(10)
    once = 3e-3 / (1 + 2e-3)
    assert peer.sigmas[-2].item() == pytest.approx(
        3 * once / (1 + 2 * once), rel=1e-4
    ) and peer.sigma_min == pytest.approx(once, rel=1e-4)
