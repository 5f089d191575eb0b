"""Paths with probabilities, and paths with a gradient through their last steps."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from truth import mutant

from dlib import CLEAN, Denoiser, Draw, Mixture, counted, exact, flow, levels, sample, vp
from dlib.solvers import Transition, ancestral, ddim, dpm_solver_pp_2m, euler_maruyama, transition
from dlib.solvers.transitions import flow_transition, preserving_transition
from dlib.trajectories import last_steps, log_prob, roll, windowed

MIX = Mixture(
    torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.5], [0.8, 0.2]]), torch.tensor([0.3, 0.5])
)
STILL = partial(transition, eta=0.0)


def z(n=6, dtype=torch.float64):
    return Draw(1).normal((n, 2), dtype)


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    call = lambda x, t, cond: net(torch.cat([x, t[:, None]], 1))
    call.inner = net
    return Denoiser(call, vp(), "v"), net


def test_a_roll_is_a_sample_with_its_path():
    model, walk = exact(MIX, vp()), [*levels(vp(), 5), CLEAN]
    path = roll(model, z(), walk, draw=Draw(3))
    assert torch.equal(path.x0, sample(model, z(), walk, ancestral, draw=Draw(3)))
    assert path.states.shape == (6, 7, 2) and path.log_probs.shape == (6, 6)
    again = transition(model, path.states[:, 2], walk[2], walk[3])
    torch.testing.assert_close(log_prob(again, path.states[:, 3]), path.log_probs[:, 2])
    assert bool((path.log_probs[:, -1] == 0).all())  # nothing is drawn on the way to CLEAN


def test_the_log_probability_is_the_normal_s():
    mean, y = z(), z().flip(0)
    wanted = torch.distributions.Normal(mean, 0.3).log_prob(y).sum(1)
    torch.testing.assert_close(log_prob(Transition(mean, 0.3), y), wanted)
    assert not torch.allclose(log_prob(Transition(mean, 0.3), y), wanted / 2)  # a mean is another


def test_in_a_window_alone_something_is_drawn():
    model, walk = exact(MIX, vp()), levels(vp(), 5)
    half = roll(model, z(), walk, windowed(transition, STILL, range(1, 3), 5), draw=Draw(3))
    assert (half.log_probs != 0).any(0).tolist() == [False, True, True, False, False]
    none = roll(model, z(), walk, STILL, draw=Draw(3))
    torch.testing.assert_close(none.x0, sample(model, z(), walk, ddim))
    with pytest.raises(ValueError, match="2 kernels for 5 steps"):
        roll(model, z(), walk, [transition] * 2, draw=Draw(0))


@pytest.mark.parametrize("t", [(0.9, 0.8), (0.4, 0.1)])
def test_flow_grpo_s_step_is_euler_maruyama(t):
    model, (a, b) = exact(MIX, flow()), flow().levels(t)
    found = flow_transition(model, z(), a, b, noise=0.7)
    step = euler_maruyama(0.7 / 2**0.5)
    for noise in (torch.zeros_like(z()), z().flip(0)):
        wanted, _ = step(model, z(), a, b, noise=noise)
        torch.testing.assert_close(found.mean + found.std * noise, wanted, rtol=1e-12, atol=1e-12)


def test_at_pure_noise_the_rate_is_taken_at_the_step_s_end():
    model, (a, b) = exact(MIX, flow()), flow().levels((1.0, 0.9))
    found = flow_transition(model, z(), a, b, noise=0.7)
    assert found.std == pytest.approx((0.49 / 0.1 * 0.1) ** 0.5)  # s² = .49 · 1/(1 − .9)
    with pytest.raises(ValueError, match="wanted flow"):
        flow_transition(exact(MIX, vp()), z(), *vp().levels((0.9, 0.8)))


def test_preserving_steps_keep_the_level_s_noise():
    """For one point of data the sample stays α x₀ + σ · (a standard normal), at every noise."""
    point = Mixture(torch.ones(1), torch.ones(1, 2), torch.tensor([1e-6]))
    model, (a, b) = exact(point, flow()), flow().levels((0.8, 0.5))
    x = a.alpha + a.sigma * z()
    for noise, fresh in ((0.0, 0.0), (0.5, 0.5**0.5), (1.0, 1.0)):
        step = preserving_transition(model, x, a, b, noise)
        assert step.std == pytest.approx(fresh * b.sigma)
        left = (step.mean - b.alpha) / z()  # what is kept of ε
        total = left**2 + step.std**2
        torch.testing.assert_close(total, torch.full_like(x, b.sigma**2), rtol=1e-5, atol=0)
    wanted, _ = ddim(model, x, a, b)
    torch.testing.assert_close(preserving_transition(model, x, a, b, 0.0).mean, wanted)


@pytest.mark.parametrize("solver", [ddim, ancestral, dpm_solver_pp_2m])
def test_a_light_gradient_is_the_plain_one(solver):
    model, net = network()
    walk, grads = levels(vp(), 4), []
    for light in (False, True):
        x0 = last_steps(model, z(), walk, 3, solver, draw=Draw(2), light=light)
        (x0[:, 0] * x0[:, 1]).sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
        net.zero_grad()
    for plain, light in zip(*grads):
        torch.testing.assert_close(plain, light, rtol=1e-12, atol=1e-14)
    assert max(float(g.abs().max()) for g in grads[0]) > 1e-3


def walked_back(light, last, steps=7):
    """Calls of the network in a walk of so many steps, `last` of them with a gradient: on the
    way there, with the way back, and of how many calls an activation was held at once.
    """
    model, net = network()
    seen, most = [], 0

    def watched(x, t, cond):
        nonlocal most
        hidden = net[:2](torch.cat([x, t[:, None]], 1))
        seen.append(StorageWeakRef(hidden.untyped_storage()))
        most = max(most, sum(not one.expired() for one in seen))
        return net[2](hidden)

    watched.inner = net
    model = counted(Denoiser(watched, vp(), "v"))
    x0 = last_steps(model, z(), levels(vp(), steps), last, light=light)
    there = model.net.calls
    x0.square().sum().backward()
    return there, model.net.calls, most


@pytest.mark.parametrize("last", [3, 6])
def test_a_light_walk_makes_its_last_calls_again_and_holds_one(last):
    """Chen et al. 2016: work for memory. The plain walk holds what all of its last calls have
    computed until the way back.
    """
    assert walked_back(False, last) == (7, 7, last)
    assert walked_back(True, last) == (7, 7 + last, 1)


def test_detaching_the_network_s_early_outputs_leaves_the_same_gradient():
    """AlignProp's rule against DRaFT-K; without the detached steps the gradient is another."""
    model, net = network()
    walk, steps, last = levels(vp(), 6), 6, 2

    def align(keep):
        x = z()
        for k, (a, b) in enumerate(zip(walk, walk[1:])):
            said = model(x, a)
            raw = said.raw if k >= steps - keep else said.raw.detach()
            said.raw = raw
            x = said.mix(b.alpha, b.sigma)
        return x

    def gradient(x0):
        net.zero_grad()
        (x0[:, 0] * x0[:, 1]).sum().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    ours = gradient(last_steps(model, z(), walk, last))
    torch.testing.assert_close(ours, gradient(align(last)), rtol=1e-10, atol=1e-13)
    assert not torch.allclose(ours, gradient(align(last + 1)), rtol=1e-2)


def test_the_whole_walk_s_gradient_is_the_difference_quotient_s():
    model, net = network()
    walk, weight = levels(vp(), 4), net[2].bias
    value = lambda: last_steps(model, z(), walk, 4).square().sum()
    value().backward()
    with torch.no_grad():
        weight[0] += 1e-5
        above = value()
        weight[0] -= 2e-5
        below = value()
    assert float((above - below) / 2e-5) == pytest.approx(float(weight.grad[0]), rel=1e-6)


def test_calls_and_short_walks():
    model = counted(exact(MIX, vp()))
    walk = levels(vp(), 5)
    short = last_steps(model, z(), walk, 0, leave=2)
    assert model.net.calls == 3
    torch.testing.assert_close(short, sample(exact(MIX, vp()), z(), walk[:4]))
    with pytest.raises(ValueError, match="6 of 5 steps"):
        last_steps(model, z(), walk, 6)


CHECKS = {
    log_prob: [test_the_log_probability_is_the_normal_s],
    flow_transition: [
        lambda: test_flow_grpo_s_step_is_euler_maruyama((0.9, 0.8)),
        test_at_pure_noise_the_rate_is_taken_at_the_step_s_end,
    ],
    preserving_transition: [test_preserving_steps_keep_the_level_s_noise],
    last_steps: [
        lambda: test_a_light_walk_makes_its_last_calls_again_and_holds_one(3),
        test_detaching_the_network_s_early_outputs_leaves_the_same_gradient,
    ],
}
SLIPS = [
    (log_prob, "each.flatten(1).sum(1)", "each.flatten(1).mean(1)"),
    (log_prob, "- std.log()", "- 2 * std.log()"),
    (flow_transition, "1 + 0.5 * rate * dt", "1 - 0.5 * rate * dt"),
    (flow_transition, "a.t if a.t < 1 else b.t", "b.t"),
    (preserving_transition, "0.5 * math.pi * noise", "math.pi * noise"),
    (preserving_transition, "math.cos(angle)", "(1 - noise)"),
    (last_steps, "model.rewired(_light) if light else model", "model"),
    (last_steps, "torch.no_grad()", "torch.enable_grad()"),
]


@pytest.mark.parametrize("function, old, new", SLIPS)
def test_a_slip_is_caught(monkeypatch, function, old, new):
    monkeypatch.setitem(globals(), function.__name__, mutant(function, old, new))
    with pytest.raises(AssertionError):
        for check in CHECKS[function]:
            check()
