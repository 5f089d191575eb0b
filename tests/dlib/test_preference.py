"""The losses of Part VII against closed forms: no training, no statistics."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from truth import mutant

from dlib import (
    Batch,
    Denoiser,
    Draw,
    Mixture,
    converted,
    exact,
    flow,
    guided,
    levels,
    transition,
    vp,
)
from dlib.guidance import contrasted
from dlib.losses import preference, weights
from dlib.losses.preference import (
    adjoint_matching,
    anchor,
    bradley_terry,
    centred,
    clipped_ratio,
    d3po,
    diffusion_dpo,
    draft,
    draft_lv,
    gaps,
    gaussian_kl,
    kto,
    lean_adjoints,
    leave_one_out,
    negated,
    nft,
    preferred,
    refl,
    score_function,
    standardised,
    swapped,
)
from dlib.prediction import parts
from dlib.reward_tilts import Linear, Quadratic, reward_tilt
from dlib.solvers import Transition
from dlib.solvers import walk as dlib_walk
from dlib.trajectories import log_prob, roll
from dlib.weight_merging import merge

TWO = Mixture(
    torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.5], [0.8, 0.2]]), torch.tensor([0.3, 0.5])
)
GAUSS = Mixture(torch.ones(1), torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([0.5]))
at = lambda t: lambda draw, n: torch.full((n,), t, dtype=torch.float64)


class Affine(nn.Module):
    """raw = w x + c: what a Gaussian needs at one time."""

    def __init__(self, w=0.0, c=0.0):
        super().__init__()
        self.w, self.c = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (w, c))

    def forward(self, x, t, cond):
        return self.w * x + self.c


def pairs(n=5):
    x = Draw(0).normal((2 * n, 2), torch.float64)
    return Batch(x[:n], other=x[n:])


# --- policy gradients ------------------------------------------------------------------------


def chain_gradient(loss, steps=2, nodes=14):
    """∇ of a loss over every path of a chain of Gaussian steps, by Gauss–Hermite quadrature,
    and the exact ∇J: the end is Gaussian, since the network is affine.
    """
    net = Affine(0.4, 0.3)
    model, walk = Denoiser(net, vp(), "v"), vp().levels([0.9, 0.6, 0.3][: steps + 1])
    u, w = np.polynomial.hermite_e.hermegauss(nodes)
    u, w = torch.from_numpy(u), torch.from_numpy(w / math.sqrt(2 * math.pi))
    grid = torch.cartesian_prod(*[u] * (steps + 1))
    weight = torch.cartesian_prod(*[w] * (steps + 1)).prod(1)
    x, found = grid[:, :1], []
    for k, (a, b) in enumerate(zip(walk, walk[1:])):
        step = transition(model, x, a, b)
        y = (step.mean + step.std * grid[:, k + 1 : k + 2]).detach()
        found, x = [*found, log_prob(step, y)], y
    reward = torch.cos(x[:, 0])
    value = loss(torch.stack(found, 1), len(grid) * weight * (reward - 0.1))
    got = torch.autograd.grad(value, list(net.parameters()))

    mean, variance = 0.0, torch.ones((), dtype=torch.float64)
    for a, b in zip(walk, walk[1:]):
        zero, one = (transition(model, torch.full((1, 1), v).double(), a, b) for v in (0.0, 1.0))
        slope = (one.mean - zero.mean).squeeze()
        mean, variance = zero.mean.squeeze() + slope * mean, slope**2 * variance + zero.std**2
    objective = torch.exp(-variance / 2) * torch.cos(mean)  # E cos of a normal
    wanted = torch.autograd.grad(objective, list(net.parameters()))
    return torch.stack(got), -torch.stack(wanted)


def test_the_score_function_is_the_gradient_of_the_mean_reward():
    got, wanted = chain_gradient(lambda now, gain: score_function(now, gain).value)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9)
    assert wanted.abs().min() > 1e-2


def test_the_clipped_ratio_starts_as_the_score_function():
    def ratios(now, gain):
        parts = [clipped_ratio(now[:, k], now[:, k], gain, 0.2).value for k in range(2)]
        return sum(parts)

    got, wanted = chain_gradient(ratios)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9)


def test_a_ratio_beyond_the_clip_stops_where_it_would_gain():
    now = torch.tensor([0.5, 0.5, -0.5, -0.5], requires_grad=True)
    gain = torch.tensor([1.0, -1.0, 1.0, -1.0])
    found = clipped_ratio(now, torch.zeros(4), gain, 0.2)
    found.value.backward()
    assert (now.grad != 0).tolist() == [False, True, True, False]
    assert float(found.metrics["clipped"]) == 1.0
    far = torch.tensor([200.0, 200.0], requires_grad=True)
    clipped_ratio(far, torch.zeros(2), torch.tensor([1.0, 0.0]), 0.2).value.backward()
    assert far.grad.tolist() == [0.0, 0.0]


def test_the_group_s_own_mean_costs_one_part_in_n_and_the_others_cost_nothing():
    """Three actions, groups of three, every outcome enumerated."""
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    reward, size = torch.tensor([1.0, 0.0, 2.5], dtype=torch.float64), 3
    p = logits.softmax(0)
    (wanted,) = torch.autograd.grad(p @ reward, logits, retain_graph=True)
    for advantage, factor in ((centred, 1 - 1 / size), (leave_one_out, 1.0)):
        value = 0.0
        for group in itertools.product(range(3), repeat=size):
            chosen = list(group)
            loss = score_function(logits.log_softmax(0)[chosen], advantage(reward[chosen], size))
            value = value + p[chosen].prod().detach() * loss.value
        (got,) = torch.autograd.grad(value, logits, retain_graph=True)
        torch.testing.assert_close(-got, factor * wanted, rtol=1e-12, atol=1e-12)


def test_standardised_advantages_and_equal_rewards():
    rewards = torch.tensor([0.0, 2.0, 5.0, 5.0])
    torch.testing.assert_close(
        standardised(rewards, 2), torch.tensor([-1.0, 1.0, 0.0, 0.0]), rtol=0, atol=2e-4
    )
    with pytest.raises(ValueError, match="group = 1"):
        standardised(rewards, 1)  # 0 for all, and nothing would be learnt


def test_the_divergence_of_two_steps_is_torch_s():
    mean = Draw(0).normal((4, 3), torch.float64)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(mean, 0.3), normal(-mean, 0.3)).sum(1)
    torch.testing.assert_close(gaussian_kl(Transition(mean, 0.3), Transition(-mean, 0.3)), wanted)
    with pytest.raises(ValueError, match="different std"):
        gaussian_kl(Transition(mean, 0.3), Transition(mean, 0.2))


# --- DiffusionNFT ----------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.2, 0.7])
@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("schedule", [vp(), flow()])
def test_nft_s_minimum_on_a_gaussian_is_the_tilt(schedule, beta, t):
    """±1 nodes integrate the quadratic loss of an affine student exactly (moments to order 3):
    at the tilt with 1/β_RL = 2a/β its gradient is zero.
    """
    slope, old = 0.3, exact(GAUSS, schedule)
    best = exact(
        reward_tilt(GAUSS, Linear(torch.tensor([slope], dtype=torch.float64)), beta / 2).mixture,
        schedule,
    )
    sign = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 2)
    batch = Batch(0.3 + 0.5 * sign[:, :1], noise=sign[:, 1:])
    share = 0.5 + slope * (batch.x0[:, 0] - 0.3)

    def gradient(model):
        x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        raw = model(x, schedule.at(t)).raw
        net = Affine(float(raw[1] - raw[0]), float(raw[0]))
        student = Denoiser(net, schedule, "v")
        nft(student, old, batch, share, Draw(0), beta=beta, times=at(t)).value.backward()
        return torch.stack([net.w.grad, net.c.grad])

    torch.testing.assert_close(gradient(best), torch.zeros(2).double(), rtol=0, atol=1e-10)
    assert gradient(old).abs().max() > 1e-2


@pytest.mark.parametrize(("schedule", "face"), [(flow(), "velocity"), (vp(), "v")])
def test_nft_s_minimum_is_the_covariance_of_share_and_answer(schedule, face):
    """On three points of data, with shares that are linear in nothing: at a given x_t the loss
    is a sum over three posterior weights, and its slope is zero at u_old + (2/β) Cov(r, u | x_t).
    """
    x0, prior = torch.tensor([[-1.0], [0.2], [1.4]]).double(), torch.tensor([0.2, 0.5, 0.3])
    share, beta, t = torch.tensor([0.9, 0.1, 0.6]).double(), 0.7, 0.4
    level = schedule.at(t)
    a, b = parts(face, level, schedule)
    for x_t in (-0.5, 0.3):
        eps = (x_t - level.alpha * x0) / level.sigma
        weight = torch.softmax(prior.log() - eps[:, 0].square() / 2, 0)
        answer = (a * x0 + b * eps)[:, 0]
        mean = weight @ answer
        best = mean + 2 / beta * (weight @ ((share - weight @ share) * (answer - mean)))
        says = lambda value: Denoiser(lambda x, time, cond: value.expand_as(x), schedule, face)

        def slope(at_value):
            value, total = at_value.clone().requires_grad_(), 0.0
            for k in range(3):
                row = Batch(x0[k : k + 1], noise=eps[k : k + 1])
                how = dict(beta=beta, times=at(t))
                found = nft(says(value), says(mean), row, share[k : k + 1], Draw(0), **how)
                total = total + weight[k] * found.value
            return torch.autograd.grad(total, value)[0].item()

        assert abs(slope(best)) < 1e-12 < 1e-2 < abs(slope(mean))


def test_nft_learns_nothing_from_equal_shares():
    net = Affine(0.2, 0.1)
    model = Denoiser(net, vp(), "v")
    batch, half = Batch(Draw(0).normal((8, 1), torch.float64)), torch.full((8,), 0.5)
    nft(model, model, batch, half, Draw(1)).value.backward()
    assert max(float(p.grad.abs()) for p in net.parameters()) < 1e-12
    with pytest.raises(ValueError, match=r"each in \[0, 1\]"):
        nft(model, model, batch, 2 * torch.ones(8), Draw(1))


# --- adjoint matching ------------------------------------------------------------------------


def test_matched_adjoints_shift_a_gaussian_by_what_the_steps_have_drawn():
    """The optimal shift of each step is s²a; together they move the end by the variance that
    the steps have drawn. The variance of z is missing: so the sampler must be memoryless.
    """
    model, walk, slope = exact(GAUSS, vp()), vp().levels([1.0, 0.8, 0.5, 0.2, 0.05]), 0.7
    path = roll(model, Draw(0).normal((3, 1), torch.float64), walk, draw=Draw(1))
    adjoints = lean_adjoints(
        model, path.states, torch.full((3, 1), slope, dtype=torch.float64), walk
    )
    moved, shift, variance, memory = 0.0, [], 0.0, 1.0
    for k, (a, b) in enumerate(zip(walk, walk[1:])):
        ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        step = transition(model, ends, a, b)
        jacobian = float(step.mean[1] - step.mean[0])
        shift.append(step.std**2 * float(adjoints[0, k]))
        moved = jacobian * moved + shift[-1]
        variance, memory = jacobian**2 * variance + step.std**2, jacobian * memory
    assert moved == pytest.approx(slope * variance, rel=1e-10)
    assert memory**2 < 1e-3 * variance  # from nearly pure noise nothing is remembered
    for k in range(len(walk) - 1):
        # a network whose step is shifted so has loss 0 …
        a, b = walk[k], walk[k + 1]
        pushed = lambda m, x, a, b, cond=None: Transition(
            transition(m, x, a, b).mean + (shift[k] if m is not model else 0.0),
            transition(m, x, a, b).std,
        )
        other = replace(model)
        found = adjoint_matching(other, model, path.states, adjoints, walk, k, pushed)
        assert float(found.value) < 1e-18
    # … and the reference's is ½ (s a)²
    left = adjoint_matching(model, model, path.states, adjoints, walk, 2).value
    std = transition(model, path.states[:, 2], walk[2], walk[3]).std
    assert float(left) == pytest.approx(0.5 * (std * float(adjoints[0, 2])) ** 2)


# --- rewards with a gradient -----------------------------------------------------------------

TILT = Linear(torch.tensor([1.0, -0.5]))
Z = Draw(1).normal((6, 2), torch.float64)


def net2():
    torch.manual_seed(0)
    inner = nn.Linear(2, 2).double()
    call = lambda x, t, cond: torch.tanh(inner(x))
    call.inner = inner
    return Denoiser(call, vp(), "v"), inner


def test_draft_values_its_samples_and_only_the_sign_turns_for_the_negative():
    model, inner = net2()
    walk, grads = levels(vp(), 4), []
    for reward in (TILT, negated(TILT)):
        found, x0 = draft(model, Z, walk, reward, last=2)
        torch.testing.assert_close(found.metrics["reward"], reward(x0).mean())
        grads.append(torch.autograd.grad(found.value, inner.weight)[0])
    torch.testing.assert_close(grads[0], -grads[1])
    assert grads[0].abs().max() > 1e-3


def test_one_lv_copy_with_the_sample_s_own_noise_is_draft_1():
    """Noised to where the last step began and denoised once: E over copies is DRaFT-1's value
    for a network that is sure; here, that the copies are averaged and z gets no gradient."""
    model, inner = net2()
    walk = levels(vp(), 4)
    found, x0 = draft_lv(model, Z, walk, TILT, draw=Draw(2), repeats=3)
    a, draw = walk[-2], Draw(2)
    each = [model(a.alpha * x0 + a.sigma * draw.normal(x0), a).x0 for _ in range(3)]
    wanted = -torch.stack([TILT(x) for x in each]).mean()
    torch.testing.assert_close(found.value, wanted)


def test_refl_stops_early_and_asks_for_no_more_than_enough():
    model, inner = net2()
    walk = levels(vp(), 5)
    found, x0 = refl(model, Z, walk, TILT, draw=Draw(0), late=2, enough=-100.0)
    assert float(found.value.detach()) == 0.0  # all rewards are above
    found, x0 = refl(model, Z, walk, TILT, draw=Draw(0), late=1, enough=50.0)
    x = dict(enumerate(s.x for s in dlib_walk(model, Z, walk)))[4]
    torch.testing.assert_close(x0, model(x, walk[4]).x0.detach())
    torch.testing.assert_close(found.value, 50 - TILT(x0).mean())
    with pytest.raises(ValueError, match="late = 6"):
        refl(model, Z, walk, TILT, draw=Draw(0), late=6)


def test_the_anchor_is_the_divergence_of_two_gaussians_paths():
    """With the ELBO's weight, integrated over all of time, it is KL of the two *ends* when the
    two Gaussians differ in their mean alone: ½ δ²/S² (both processes start alike).
    """
    moved = Mixture(torch.ones(1), torch.tensor([[0.5]]), torch.tensor([0.5]))
    a, b = exact(moved, vp()), exact(GAUSS, vp())
    t, w = np.polynomial.legendre.leggauss(200)
    t, w = torch.from_numpy(0.5 + 0.5 * t), torch.from_numpy(0.5 * w)
    each = [
        float(
            anchor(a, b, Z[:2, :1], draw=Draw(0), weight=weights.elbo, times=at(float(s))).value
        )
        for s in t.clamp(1e-4, 1 - 1e-9)
    ]
    assert float(w @ torch.tensor(each).double()) == pytest.approx(
        0.5 * (0.2 / 0.5) ** 2, rel=1e-3
    )
    assert (
        float(anchor(a, a, Z[:2, :1], draw=Draw(0), weight=weights.elbo, times=at(0.5)).value)
        == 0
    )


def test_a_reward_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match="one number a sample"):
        draft(exact(TWO, vp()), Z, levels(vp(), 3), lambda x, cond: x, last=1)


# --- pairs -----------------------------------------------------------------------------------


def test_dpo_starts_at_log_2_with_a_quarter_of_beta_times_the_gap_s_gradient():
    net = Affine(0.3, 0.2)
    student, base = Denoiser(net, vp(), "eps"), Denoiser(Affine(0.3, 0.2), vp(), "eps")
    batch, beta = pairs(), 40.0
    found = diffusion_dpo(student, base, batch, Draw(3), beta=beta)
    got = torch.stack(torch.autograd.grad(found.value, list(net.parameters())))
    assert float(found.value) == pytest.approx(math.log(2), abs=1e-12)
    assert float(found.metrics["accuracy"]) == 0.5

    # m by hand: a mean over the plane's two values, the same t and ε for both
    draw = Draw(3)
    t = 0.02 + 0.98 * draw.uniform(5)
    level = vp().at(t.double(), like=batch.x0)
    eps = draw.normal(batch.x0)
    m = lambda x: (net(level.alpha * x + level.sigma * eps, None, None) - eps).square().mean(1)
    gap = (m(batch.x0) - m(batch.other)).mean()
    wanted = beta / 4 * torch.stack(torch.autograd.grad(gap, list(net.parameters())))
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-8)  # the times are float32's


def test_swapped_pairs_turn_the_margin_around():
    student, base = (Denoiser(Affine(w, 0.1), vp(), "eps") for w in (0.5, 0.2))
    one, two = (
        gaps(student, base, pairs(), Draw(0)),
        gaps(student, base, swapped(pairs()), Draw(0)),
    )
    torch.testing.assert_close(one.better, two.worse)
    torch.testing.assert_close(one.worse, two.better)
    with pytest.raises(ValueError, match="the worse of each pair"):
        swapped(Batch(Z))
    with pytest.raises(ValueError, match="wanted preferences"):
        gaps(student, base, Batch(Z), Draw(0))


@pytest.mark.parametrize("predicts", ["x0", "v", "velocity"])
def test_the_gap_is_the_same_in_every_face(predicts):
    one = [
        gaps(converted(exact(GAUSS2, vp()), vp(), p), exact(TWO, vp()), pairs(), Draw(0)).better
        for p in ("eps", predicts)
    ]
    torch.testing.assert_close(*one, rtol=1e-8, atol=1e-10)


GAUSS2 = Mixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1))


def test_a_table_of_log_densities_fitted_to_all_pairs_is_the_tilt():
    """DPO's argument in the tabular case, with Newton's method on the population's loss."""
    ref = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    reward, beta = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 0.7
    prefer = torch.sigmoid(reward[:, None] - reward)

    def loss(logits):
        gap = logits.log_softmax(0) - ref.log()
        return -(prefer * torch.nn.functional.logsigmoid(beta * (gap[:, None] - gap))).sum()

    logits = torch.zeros(3, dtype=torch.float64)
    for _ in range(30):
        slope = torch.autograd.functional.jacobian(loss, logits)
        curve = torch.autograd.functional.hessian(loss, logits) + 1e-9 * torch.eye(3)
        logits = logits - torch.linalg.solve(curve, slope)
    wanted = (ref.log() + reward / beta).softmax(0)
    torch.testing.assert_close(logits.softmax(0), wanted, rtol=1e-7, atol=1e-8)


def test_kto_starts_at_one_half_and_pulls_what_is_liked():
    net = Affine(0.3, 0.2)
    student, base = Denoiser(net, vp(), "eps"), Denoiser(Affine(0.3, 0.2), vp(), "eps")
    liked = torch.tensor([True, False, True, True, False])
    found = kto(student, base, Batch(pairs().x0), liked, Draw(3), beta=7.0)
    got = torch.stack(torch.autograd.grad(found.value, list(net.parameters())))
    assert float(found.value) == pytest.approx(0.5)
    draw = Draw(3)
    level = vp().at((0.02 + 0.98 * draw.uniform(5)).double(), like=Z[:5])
    eps = draw.normal(pairs().x0)
    m = (net(level.alpha * pairs().x0 + level.sigma * eps, None, None) - eps).square().mean(1)
    sign = liked.double() * 2 - 1
    wanted = torch.autograd.grad((7.0 / 4 * sign * m).mean(), list(net.parameters()))
    torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-6, atol=1e-8)
    # where the batch has got worse on the whole, the reference point is 0 and not its mean
    spoilt = Denoiser(Affine(3.0, 0.2), vp(), "eps")
    value = kto(spoilt, base, Batch(pairs().x0), liked, Draw(3), beta=7.0).value
    error = lambda w: (w * x_t + 0.2 - eps).square().mean(1)
    x_t = level.alpha * pairs().x0 + level.sigma * eps
    gain = error(0.3) - error(3.0)
    assert float(gain.mean()) < -0.1
    torch.testing.assert_close(
        value.detach(), (1 - torch.sigmoid(sign * 7.0 * gain)).mean(), rtol=1e-5, atol=1e-7
    )
    own = kto(spoilt, base, Batch(pairs().x0, noise=-eps), liked, Draw(3), beta=7.0).value
    eps = -eps
    x_t = level.alpha * pairs().x0 + level.sigma * eps
    gain = error(0.3) - error(3.0)
    torch.testing.assert_close(
        own.detach(),
        (1 - torch.sigmoid(sign * 7.0 * (gain - gain.mean().clamp(min=0)))).mean(),
        rtol=1e-5,
        atol=1e-7,
    )
    with pytest.raises(ValueError, match="one verdict a picture"):
        kto(student, base, Batch(Z), liked.float(), Draw(0))


def test_d3po_is_log_2_at_the_start_and_flat_outside_of_its_clip():
    now = torch.tensor([0.0, 0.5, 200.0, -200.0], requires_grad=True)  # e²⁰⁰ overflows
    zero = torch.zeros(4)
    assert float(d3po(zero, zero, zero, zero).value) == pytest.approx(math.log(2))
    loss = d3po(now, zero, zero, zero, beta=2.0).value
    loss.backward()
    assert now.grad.tolist() == [pytest.approx(-2.0 / 2 / 4), 0, 0, 0]  # −β/2 a pair, of four
    wanted = [math.log1p(rho**-2.0) for rho in (1.0, 1.1, 1.1, 0.9)]  # −log sigmoid(2 log ρ)
    assert loss.item() == pytest.approx(sum(wanted) / 4)


def test_the_judge_chooses_with_the_probability_of_the_model_that_is_fitted():
    """4000 draws at r₁ − r₂ = 1 against sigmoid(1) = .731: four standard errors are .028."""
    first = torch.ones(4000)
    share = preferred(first, torch.zeros(4000), Draw(0)).double().mean()
    assert abs(float(share) - 0.7311) < 0.028
    # the population's loss has its minimum at the true margin
    margin = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    bradley_terry(
        margin, torch.zeros(1).double(), torch.sigmoid(margin.detach())
    ).value.backward()
    assert abs(float(margin.grad)) < 1e-12
    with pytest.raises(ValueError, match="one reward a picture"):
        bradley_terry(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        bradley_terry(torch.zeros(2), torch.zeros(2), 2.0)


# --- the negative ----------------------------------------------------------------------------


def test_twice_the_same_network_is_guidance():
    model, label = exact(TWO, vp()), torch.tensor([0, 1, 1, 0, 1, 0])
    null, level = torch.tensor(-1), vp().at(0.5)
    both = contrasted(model, model, 2.0, null)(Z, level, label).raw
    by_hand = torch.lerp(
        model(Z, level, torch.full_like(label, -1)).raw, model(Z, level, label).raw, 3.0
    )
    assert torch.equal(both, by_hand)
    wanted = guided(model, 2.0, null)(Z, level, label).raw
    torch.testing.assert_close(both, wanted, rtol=1e-12, atol=1e-12)
    alone = contrasted(model, exact(GAUSS2, vp()), 0.0, None)(Z, level).raw
    torch.testing.assert_close(alone, model(Z, level).raw)
    for other in (exact(TWO, flow()), replace(model, clock=lambda t: 1000 * t)):
        with pytest.raises(ValueError, match="both must be alike"):
            contrasted(model, other, 1.0, None)
    with pytest.raises(ValueError, match="no condition given"):
        contrasted(model, model, 1.0, null)(Z, level)


@pytest.mark.parametrize("omega", [0.0, 1.0, 3.0])
def test_the_contrast_of_two_tilts_is_a_tilt_by_one_plus_two_omega(omega):
    """Positive N(μ + τ²a/β, τ²), negative N(μ − τ²a/β, τ²): the mean is μ + (1+2ω)τ²a/β; with
    the base for a negative μ + (1+ω)τ²a/β.
    """
    reward, beta, x = Linear(torch.tensor([0.8])), 0.5, Z[:, :1]
    tilted = lambda b: exact(reward_tilt(GAUSS, reward, b).mixture, vp())
    for negative, times in ((tilted(-beta), 1 + 2 * omega), (exact(GAUSS, vp()), 1 + omega)):
        found = contrasted(tilted(beta), negative, omega, None)
        for t in (0.1, 0.5, 0.9):
            wanted = tilted(beta / times)(x, vp().at(t)).eps
            torch.testing.assert_close(found(x, vp().at(t)).eps, wanted, rtol=1e-10, atol=1e-10)


def test_merged_weights():
    base, pos, neg = ({"w": torch.tensor([v]), "n": torch.tensor(3)} for v in (1.0, 3.0, 0.5))
    assert merge(base, pos, neg)["w"].item() == 2.5  # θ_pos + δ
    assert merge(base, pos, neg, m=1.0)["w"].item() == 0.5  # θ_neg itself
    assert merge(base, base, neg)["w"].item() == 0.5 and merge(base, pos, neg)["n"].item() == 3
    with pytest.raises(ValueError, match="base and negative differ"):
        merge(base, pos, {"w": torch.ones(1)})
    with pytest.raises(ValueError, match=r"base and positive differ in \['w'\]"):
        merge(base, {**pos, "w": torch.ones(2)}, neg)


SLIPS = [
    (contrasted, "cond if null is None else alone(cond, null)", "cond"),
    (contrasted, "1.0 + omega", "omega"),
    (merge, "(1 - m) * (positive[name] - value)", "(1 - m) * positive[name]"),
    (merge, "(negative[name] - value)", "(negative[name] - positive[name])"),
]


@pytest.mark.parametrize("function, old, new", SLIPS)
def test_a_slip_in_the_negative_is_caught(monkeypatch, function, old, new):
    monkeypatch.setitem(globals(), function.__name__, mutant(function, old, new))
    with pytest.raises(AssertionError):
        test_twice_the_same_network_is_guidance()
        test_the_contrast_of_two_tilts_is_a_tilt_by_one_plus_two_omega(1.0)
        test_merged_weights()


ONE, FOUR, HALF = torch.zeros(1), torch.zeros(4), torch.full((6,), 0.5)
EXACT, STOPS = exact(TWO, vp()), vp().levels([1.0, 0.6, 0.2])
STATES, PUSHES = torch.zeros(6, 3, 2), torch.zeros(6, 2, 2)
PATH = (EXACT, EXACT, STATES, PUSHES, STOPS)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: clipped_ratio(FOUR, ONE, FOUR, 0.2), r"shapes \(4,\) and \(1,\)"),
        (lambda: gaussian_kl(Transition(Z, 0.3), Transition(Z[:1], 0.3)), "gaussian_kl: means"),
        (lambda: log_prob(Transition(Z[:1], 0.3), Z), "log_prob: mean and y"),
        (lambda: standardised(FOUR, 2, least=0.0), "least = 0"),
        (lambda: d3po(FOUR, FOUR, FOUR, ONE), r"d3po: .* \(4,\) and \(1,\)"),
        (lambda: d3po(FOUR, FOUR, FOUR, FOUR, beta=-1.0), "beta = -1"),
        (lambda: preference.extremes(torch.zeros(2, 3), gap=-0.1), "gap = -0.1"),
        (lambda: preferred(FOUR, ONE, Draw(0)), "preferred: rewards"),
        (lambda: bradley_terry(FOUR, FOUR, torch.ones(4, 1)), r"share has shape \(4, 1\)"),
        (lambda: draft(EXACT, Z, levels(vp(), 3), TILT, last=0), "last = 0"),
        (lambda: nft(EXACT, EXACT, Batch(Z, noise=Z[:1]), HALF, Draw(0)), "nft: noise and x0"),
        (
            lambda: gaps(EXACT, EXACT, Batch(Z, noise=Z[:, :1], other=Z), Draw(0)),
            "gaps: noise and x0",
        ),
        (lambda: adjoint_matching(*PATH, -1), "step -1 of 3 states"),
        (lambda: adjoint_matching(*PATH, 2), "wanted a step from 0 to 1"),
        (lambda: adjoint_matching(*PATH[:3], STATES, STOPS, 0), "3 adjoints"),
        (lambda: lean_adjoints(EXACT, STATES, Z[:1], STOPS), "gradient and the path's end"),
        (lambda: merge({}, {}, {}, m=1.5), "merge: m = 1.5"),
        (lambda: Quadratic(torch.zeros(2), width=-1.0), "width = -1"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_everything_is_exported():
    assert all(hasattr(preference, name) for name in preference.__all__)
