"""The recipes that follow a reward, by hand: guidance in rollouts and losses, the ratio, the
price of a divergence, whose samples are judged.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from truth import F64, mutant

from dlib import SOLVERS, Batch, Denoiser, Draw, flow, levels, recipes, sample, transition, vp
from dlib.losses import weights
from dlib.losses.preference import anchor, draft, nft
from dlib.recipes import forward_process, rewards
from dlib.solvers.transitions import flow_transition

NULL, OMEGA = torch.tensor(-0.5, dtype=F64), 1.5
COND = torch.tensor([0.7, 0.7, -1.1, -1.1], dtype=F64)
EMPTY, ZEROS = NULL.expand(4), torch.zeros(4, 2, dtype=F64)


class Labelled(nn.Module):
    """raw = W x + cond c: two values a sample."""

    def __init__(self, seed):
        super().__init__()
        draw = Draw(seed)
        self.w = nn.Parameter(0.5 * draw.normal((2, 2), F64))
        self.c = nn.Parameter(draw.normal((2,), F64))

    def forward(self, x, t, cond):
        return x @ self.w.T + cond[:, None] * self.c


def reward(x, cond):
    return x[:, 0] + cond * x[:, 1].square()


def company(schedule):
    """All of them different, and nobody frozen."""
    names = ("student", "reference", "old")
    roles = {n: Denoiser(Labelled(seed), schedule, "v") for seed, n in enumerate(names)}
    return {**roles, "reward": reward}


def guided_by_hand(model):
    net = model.net
    return replace(
        model, net=lambda x, t, c: (1 + OMEGA) * net(x, t, c) - OMEGA * net(x, t, EMPTY)
    )


def remembered(recipe, roles):
    """The batch with the memo of its rollout."""
    batch = Batch(ZEROS, COND, memo={})
    with torch.no_grad():
        memos = [recipe.before(roles, batch, Draw(3))]
        batch.memo.update(recipe.pool(memos, lambda rows: (rows, slice(None)))[0])
    return batch


def slopes(value, model):
    grads = torch.autograd.grad(value, list(model.net.parameters()), retain_graph=True)
    return torch.cat([grad.flatten() for grad in grads])


def same(found, wanted, roles):
    """The value, its gradient in the student, and none in anybody else."""
    student = roles["student"]
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        slopes(found, student), slopes(wanted, student), rtol=1e-6, atol=1e-8
    )
    found.backward(retain_graph=True)
    others = [p for n in ("reference", "old") for p in roles[n].net.parameters()]
    assert all(p.grad is None for p in others)


POLICIES = {
    "ddpo": (vp(), transition, "sd_trailing"),
    "flow_grpo": (flow(), partial(flow_transition, noise=0.7), "time"),
}


@pytest.mark.parametrize("kl", [0.2, 0.0])
@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_s_parts(name, kl):
    """Away from ρ = 1, on both sides of the clip: the student has moved since the rollout, and
    the rollout's own probabilities are those of the guided student that made it.
    """
    schedule, kernel, spacing = POLICIES[name]
    how = dict(steps=3, omega=OMEGA, group=2, clip=0.05, kl=kl, spacing=spacing)
    recipe, roles = getattr(recipes, name)(schedule, NULL, **how), company(schedule)
    batch, stops = remembered(recipe, roles), levels(schedule, 3, spacing, end="clean")
    path, start = batch.memo["path"], replace(roles["student"], net=Labelled(0))
    with torch.no_grad():
        roles["student"].net.c.add_(0.1)
    rows = reward(path[:, -1], COND).view(2, 2)
    wanted = (rows - rows.mean(1, keepdim=True)) / (
        rows.std(1, correction=0, keepdim=True) + 1e-4
    )
    gain = batch.memo["advantage"].double()  # in float32, as the rewards are gathered
    torch.testing.assert_close(gain, wanted.flatten(), rtol=1e-4, atol=1e-5)
    spread = rows.std(1, correction=0).mean()
    parts = recipe.phases[0].loss(roles, batch, Draw(4))
    assert len(parts) == 2  # the third step ends at the data and draws nothing
    stopped = set()
    for k, part in enumerate(parts):
        step, before, held = (
            kernel(guided_by_hand(model), path[:, k], stops[k], stops[k + 1], cond=COND)
            for model in (roles["student"], start, roles["reference"])
        )
        log_p = lambda at: torch.distributions.Normal(at.mean, at.std).log_prob(path[:, k + 1])
        assert torch.allclose(batch.memo["old"][:, k], log_p(before).sum(1))
        ratio = (log_p(step) - log_p(before).detach()).mean(1).exp()
        stopped |= {"up"} if (ratio[gain > 0] > 1.05).any() else set()
        stopped |= {"down"} if (ratio[gain < 0] < 0.95).any() else set()
        lost = torch.maximum(-ratio * gain, -ratio.clamp(0.95, 1.05) * gain)
        far = (step.mean - held.mean.detach()).square() / (2 * step.std**2)
        found = part()
        same(found.value, (lost.mean() + kl * far.mean()) / 2, roles)
        # in nats, of both steps together: a trainer averages the parts
        if "kl" in found.metrics:
            nats = 2 * float(far.sum(1).mean().detach())
            assert float(found.metrics["kl"]) == pytest.approx(nats)
        assert float(found.metrics["reward_spread"]) == pytest.approx(float(spread), rel=1e-4)
    assert stopped == {"up", "down"}


def test_a_reward_s_gradient_and_its_price():
    """Less reward costs, and so does more divergence, which is told in nats."""
    how = dict(steps=4, last=2, omega=OMEGA)
    roles, batch, stops = (
        company(vp()),
        Batch(ZEROS, COND),
        levels(vp(), 4, "sd_trailing", "clean"),
    )
    draw = Draw(5)
    z = draw.normal(ZEROS)
    found, x0 = draft(guided_by_hand(roles["student"]), z, stops, reward, COND, last=2)
    student, reference = roles["student"], roles["reference"]
    nats = dict(weight=weights.elbo, times=rewards.inner_times(vp()))
    before = draw.copy()
    held = anchor(student, reference, x0, COND, draw=draw, **nats)
    for kl in (0.0, 0.3):  # at no price it is told as well
        made = recipes.reward_gradient(vp(), NULL, **how, kl=kl).phases[0].loss
        at = Draw(5)
        said = made(roles, batch, at)
        # without a price nothing that is drawn later changes
        assert float(at.uniform(1)) == float((draw if kl else before).copy().uniform(1))
        same(said.value, found.value + kl * held.value, roles)
        assert float(said.metrics["kl"]) == pytest.approx(float(held.metrics["anchor"]))
    assert float(found.value.detach()) == pytest.approx(-float(reward(x0, COND).mean()))


def test_what_has_no_price_is_estimated_from_one_step():
    """Either step is asked, and says the whole divergence as if the other were like it: what it
    says with a price, where both are asked. Nothing that is drawn later changes.
    """
    roles, found = company(vp()), {}
    for kl in (0.2, 0.0):
        recipe = recipes.ddpo(vp(), NULL, steps=3, omega=OMEGA, group=2, clip=0.3, kl=kl)
        batch, seen = remembered(recipe, roles), []
        for seed in range(32):
            draw = Draw(seed)
            told = [part().metrics for part in recipe.phases[0].loss(roles, batch, draw)]
            assert float(draw.uniform(1)) == float(Draw(seed).uniform(1))
            seen += [round(float(one["kl"]), 6) for one in told if "kl" in one]
        found[kl] = seen
    assert len(found[0.2]) == 64 and len(found[0.0]) == 32
    assert set(found[0.2]) == set(found[0.0]) and len(set(found[0.0])) == 2


def test_every_micro_batch_has_the_advantages_of_its_own_rows():
    """The groups of two processes: the second has the last two, a micro-batch each."""
    theirs, mine = torch.tensor([9.0, 5.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 8.0, 2.0])
    memos = [{"reward": mine[:2]}, {"reward": mine[2:]}]
    gather = lambda rows: (torch.cat([theirs, rows]), slice(4, 8))
    found = rewards.advantages(memos, gather, group=2)
    for memo, wanted in zip(found, ([-1.0, 1.0], [1.0, -1.0])):
        torch.testing.assert_close(memo["advantage"], torch.tensor(wanted), rtol=0, atol=1e-3)
        assert float(memo["spread"]) == (2 + 1 + 1 + 3) / 4


@pytest.mark.parametrize("schedule", [vp(), flow()])
def test_times_reach_both_ends(schedule):
    """From the schedule's last time, or a thousandth, to .999, evenly; 4000 of them."""
    t, first = rewards.inner_times(schedule)(Draw(0), 4000), max(schedule.t_min, 1e-3)
    assert first <= t.min() < first + 0.005 and 0.994 < t.max() <= 0.999
    assert float(t.mean()) == pytest.approx(0.5, abs=0.02)


def test_alignprop_s_depth_takes_all_values(monkeypatch):
    """32 draws of three: one is missing in 7 of a million seeds."""
    seen = []

    def kept(*given, last, **more):
        seen.append(last)
        return draft(*given, last=last, **more)

    monkeypatch.setattr(rewards, "draft", kept)
    how = dict(steps=5, last=2, deepest=4, omega=OMEGA)
    loss = recipes.reward_gradient(vp(), NULL, **how).phases[0].loss
    for seed in range(32):
        loss(company(vp()), Batch(ZEROS, COND), Draw(seed))
    assert set(seen) == {2, 3, 4}


def test_nft_s_samples_shares_and_price():
    """The average's samples are judged, and the better ones have the larger share."""
    how = dict(steps=3, solver="ddim", group=2, beta=0.5)
    roles, stops = company(flow()), levels(flow(), 3, "time", end="clean")
    batch = remembered(recipes.nft(flow(), NULL, **how), roles)
    x0 = sample(roles["old"], Draw(3).normal(ZEROS), stops, SOLVERS["ddim"], COND)
    torch.testing.assert_close(batch.memo["sample"], x0.detach())
    torch.testing.assert_close(batch.memo["reward"], reward(x0, COND).detach())
    better = reward(x0, COND).view(2, 2).diff(dim=1).sign()  # of two, ±1 standard deviation
    wanted = 0.5 + torch.cat([-better, better], 1).flatten() / 10
    draw, times = Draw(6), rewards.inner_times(flow())
    mine, share = Batch(x0.detach(), COND), 0.5 + batch.memo["advantage"] / 10
    torch.testing.assert_close(share, wanted.detach().float(), rtol=0, atol=1e-3)
    # of a large group one may be far better: its share is 1 all the same
    batch.memo["advantage"] = torch.tensor([6.0, -7.0, 1.0, -1.0])
    share = torch.tensor([1.0, 0.0, 0.6, 0.4])
    found = nft(roles["student"], roles["old"], mine, share, draw, beta=0.5, times=times)
    how_far = dict(draw=draw, weight=weights.velocity, times=times)
    held = anchor(roles["student"], roles["reference"], mine.x0, COND, **how_far)
    for kl in (0.0, 0.3):
        said = recipes.nft(flow(), NULL, **how, kl=kl).phases[0].loss(roles, batch, Draw(6))
        same(said.value, found.value + kl * held.value, roles)
    assert float(said.metrics["anchor"]) == pytest.approx(float(held.metrics["anchor"]))


GUIDED = '_guided(roles["student"], omega, null)'
SLIPS = [
    (
        rewards._policy,
        f"model = {GUIDED}\n        each",
        'model = roles["student"]\n        each',
    ),
    (
        rewards._policy,
        f"model = {GUIDED}\n        step",
        'model = roles["student"]\n        step',
    ),
    (rewards._policy, '_guided(roles["reference"], omega, null)', 'roles["reference"]'),
    (rewards._policy, "now / size, old[:, k] / size", "now, old[:, k]"),
    (rewards._policy, "kl * far / x.flatten(1).shape[1]", "kl * far"),
    (rewards._policy, "steps[one : one + 1]", "steps[:1]"),
    (rewards._policy, "draw.copy()", "draw"),
    (rewards._policy, "+ kl * far", "- kl * far"),
    (rewards._policy, "count(batch) * far", "far"),
    (rewards._policy, "found.value / count(batch), found", "found.value, found"),
    (rewards.advantages, "[mine]", "[: sum(counts)]"),
    (rewards.advantages, "everyone, group)", "everyone, len(everyone))"),
    (recipes.reward_gradient, f"model = {GUIDED}", 'model = roles["student"]'),
    (recipes.reward_gradient, "+ kl * held", "- kl * held"),
    (recipes.reward_gradient, "draw.copy()", "draw"),
    (recipes.reward_gradient, '"weight": weights.elbo', '"weight": weights.velocity'),
    (recipes.reward_gradient, "draw.shared(deepest - last + 1)", "0"),
    (recipes.reward_gradient, "draw.shared(deepest - last + 1)", "draw.shared(deepest - last)"),
    (recipes.nft, 'sample(roles["old"]', 'sample(roles["student"]'),
    (recipes.nft, "0.5 + batch", "0.5 - batch"),
    (recipes.nft, ".clamp(-5, 5)", ".clamp(-4, 4)"),
    (recipes.nft, "+ kl * held", "- kl * held"),
    (recipes.nft, "weight=weights.velocity", "weight=weights.elbo"),
]


@pytest.mark.parametrize("function, old, new", SLIPS)
def test_a_slip_is_caught(monkeypatch, function, old, new):
    wrong = mutant(function, old, new)
    for module in (recipes, rewards, forward_process):
        monkeypatch.setattr(module, function.__name__, wrong, raising=False)
    with pytest.raises(AssertionError):
        for kl in (0.2, 0.0):
            test_a_policy_s_parts("ddpo", kl)
        test_every_micro_batch_has_the_advantages_of_its_own_rows()
        test_what_has_no_price_is_estimated_from_one_step()
        test_a_reward_s_gradient_and_its_price()
        test_nft_s_samples_shares_and_price()
        test_alignprop_s_depth_takes_all_values(monkeypatch)
