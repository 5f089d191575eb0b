# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   book:
#     title: Reward gradients
#     summary: Learn a reward from choices, follow its gradient through the sampler, watch the score rise while the samples get worse, and measure what stops that.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - DDIM and the walk from noise to data (chapters 3 and 7)
#       - likelihood along the probability-flow ODE (chapter 4; used once)
#       - PyTorch
# ---

# %% [markdown]
# # 26 Reward gradients: back-propagate through the sampler
#
# Somebody looked at pairs of your samples, 4000 of them, and said each time which one is better. You fit a small network to
# these choices, and it predicts them well. It has a gradient, and so has your sampler. So you follow the gradient.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import copy
from collections import namedtuple
from dataclasses import replace
from functools import partial

import torch
from dlib import (
    Batch,
    Denoiser,
    Draw,
    adapters,
    cast,
    counted,
    levels,
    perform,
    plot,
    recipes,
    sample,
    twin,
)
from dlib.losses import weights
from dlib.losses.preference import anchor, bradley_terry, draft, draft_lv, refl
from dlib.reward_tilts import Quadratic, reward_tilt
from dlib.trajectories import last_steps
from toy_data import caption_batches, gmm5
from toy_data.finetuned import Frontier, adapted
from toy_data.preferences import Plane, Shapes
from torch import nn

world = Plane(mixture=gmm5(), hidden=Quadratic(torch.tensor([2.0, 1.2])))
mixture, truth, schedule, teacher = world.mixture, world.hidden, world.schedule, world.teacher


class Scorer(nn.Module):
    """A reward model: points (B, 2) to rewards (B,)."""

    def __init__(self):
        super().__init__()
        parts = [nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1)]
        self.net = nn.Sequential(*parts)

    def forward(self, x, cond=None):
        return self.net(x)[:, 0]


def fitted(pairs, updates=200):
    """A reward model, fitted to pairs by Bradley and Terry's loss, and its losses."""
    torch.manual_seed(0)
    model, losses = Scorer(), []
    optim = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(updates):
        pair = pairs[step % len(pairs)]
        loss = bradley_terry(model(pair.x0), model(pair.other)).value
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return model.requires_grad_(False), losses


def finetuned(reward, updates, keep=(), lr=7e-4, **how):
    """A student, the mean of reward and of truth in each update, and copies on the way."""
    recipe = recipes.reward_gradient(schedule, omega=0.0, spacing="lam", **how)
    start, true, kept = adapted(teacher), [], {}

    def watched(x, cond=None):
        true.append(truth(x.detach()).mean().item())
        return reward(x, cond)

    actors = cast(recipe, teacher, starts={"student": start}, given={"reward": watched})
    student = actors.roles["student"]
    optim = torch.optim.Adam(student.net.adapter.parameters(), lr)

    def each(step, found):
        if step + 1 in keep:
            kept[step + 1] = copy.deepcopy(student)

    asked = lambda step: Batch(torch.zeros(64, 2))
    history = perform(recipe, actors, {"student": optim}, asked, updates, Draw(0), each)
    return student, (history["student/reward"], true), kept


votes = [world.batches(1000, seed=0)(step) for step in range(4)]
score, fit_losses = fitted(votes)
_, hacked, stages = finetuned(score, 100, keep=(40, 50, 60, 70, 90), steps=20, last=1)

walk = levels(schedule, 20, end="clean")
z = Draw(7).normal((400, 2))
drawn = lambda model: sample(model, z, walk).detach()
line = lambda low, high: torch.linspace(low, high, 81, dtype=torch.float64)
axes = line(-2.4, 6.4), line(-2.4, 4.4)
around = mixture.log_prob(torch.cartesian_prod(*axes), schedule.at(schedule.t_min))
opening = {"the model": teacher, "60 updates": stages[60], "90 updates": stages[90]}
panels = {name: drawn(model) for name, model in opening.items()}
figure(
    plot.over_density(
        {name: (x, mixture.modes_of(x.double())) for name, x in panels.items()}, around, axes
    ),
    "After 60 updates the samples have left most modes for the upper right; after 90 they all "
    "sit in one small heap far outside of the data.",
    "The score of the third panel is the best. Dashed: the density of the data.",
)

# %% [markdown]
# The samples rush to the upper right, where the judge's favourites lie, and do not stop there. In the third panel they
# lie where no data are and where nobody ever voted. The score there is the highest of the three. This is **reward
# hacking**: the student has found out what your reward model does not know.
#
# In this chapter you build the two parts of that machine, the reward model and the gradient. You will see which steps of the
# sampler the gradient comes from. Then you measure three things that stop the hacking, against an optimum that is known exactly.
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | $x_0$, $x_a$, α, σ; ε | a clean sample, one at level $a$, the factors of data and noise; the noise | chapter 2 |
# | $x_\theta$, $\varepsilon_\theta$ | what the network guesses of data and of noise | chapter 3 |
# | π | the density of the model that you start from, the *reference* | new |
# | $r$; $r_\phi$ | the reward that the judge goes by, hidden; the one that was learnt, a *proxy* | new |
# | β | what a nat of divergence from π costs, in units of reward | new (DDPM's β is another) |
# | $K$, $N$ | how many last steps get a gradient, of how many | new |
# | κ; $S$ | σ/α, the noise level of $x/\alpha$; the spread of the data | chapter 7; new |
#
# ## 26.1 What you should want
#
# The highest reward alone is a bad wish: one perfect sample, again and again, fulfils it. So you ask for a high reward *near
# the model that you have*, and pay β for each nat of distance:
#
# $$\max_p\ \mathbb E_p\,r(x)-\beta\,\mathrm{KL}(p\,\|\,\pi). \label{eq:rg-aim}$$
#
# Write the second term as an expectation under $p$, and the whole is $-\beta\,\mathrm{KL}(p\,\|\,\pi e^{r/\beta}/Z)+\beta\log Z$. A
# divergence is never negative, so the optimum is the **tilted density** [@korbak2022rl]:
#
# $$p^\star=\pi\,e^{r/\beta}/Z,\qquad\text{and it reaches}\quad\beta\log Z. \label{eq:rg-tilt}$$
#
# With a pencil: π is $\mathcal N(1,0.25)$ on a line, the reward $2x$, and β = 1. The tilt multiplies the density by $e^{2x}$. That moves the mean by
# variance times slope, to 1.5, and keeps the variance. The reward is now 3. The divergence is $0.5^2/(2\cdot0.25)=0.5$, and the optimum 2.5. The model
# itself had 2.
#
# For a mixture of Gaussians, and a reward that is linear or quadratic, the tilt is a mixture again. So you know the truth that papers
# have to do without. Our hidden reward is $-\frac12\lVert x-c\rVert^2$ around $c=(2,1.2)$, a little outside of the data.

# %%
# NBVAL_CHECK_OUTPUT
best = reward_tilt(mixture, truth, beta=1.0)
grid = torch.cartesian_prod(*[torch.linspace(-6, 6, 601).double()] * 2)
log_p, log_pi = (m.log_prob(grid, schedule.at(1e-9)) for m in (best.mixture, mixture))
mean = lambda value: (log_p.exp() * value).sum() * 0.02**2
value = mean(truth(grid)) - mean(log_p - log_pi)
claim("C26.1", "E r − KL of the tilt over log Z, less 1", abs(value / best.log_z - 1), below=1e-4)

# %% [markdown]
# ## 26.2 A reward from choices
#
# People give poor marks and good comparisons. **Bradley and Terry's** model [@bradley1952rank] says how comparisons come about: the probability that
# $x$ wins against $y$ is a sigmoid of the difference of their rewards. Fit a network by maximum likelihood, and the loss of a pair is
#
# $$\mathcal L=-\log\frac1{1+e^{-(r_\phi(x)-r_\phi(y))}},\qquad x\text{ preferred to }y. \label{eq:rg-bt}$$
#
# With a pencil: rewards 1 and 0 give the winner 1/(1 + 0.368) = 0.731, and the loss is 0.313. Rewards 8 and 7 give the same. The gradient is $-(1-P)\,\nabla\big(r_\phi(x)-r_\phi(y)\big)$, with $P$ the winner's chance: a pair that is clear already teaches little. *Choices find a reward up to a
# constant*, one for each prompt. So you may rank the samples of one prompt by $r_\phi$, and the tilt stays the same, since $Z$ takes up
# the constant. But a comparison of scores from two prompts, or of a score with a fixed threshold, means nothing. Its scale, however, is found: where a judge is rarely in doubt, rewards differ much. In the library's loss, `share` is how much of the vote
# the first one got, ½ in a tie.

# %%
# NBVAL_CHECK_OUTPUT
plain_bt = lambda better, worse: -torch.log(1 / (1 + torch.exp(worse - better))).mean()
one = torch.ones(1)
print(f"{plain_bt(one, 0 * one):.3f} for rewards 1 and 0", end=", ")
print(f"{plain_bt(8 * one, 7 * one):.3f} for 8 and 7")
show(bradley_terry)
x, y = Draw(1).normal((2, 500), torch.float64)
gap = abs(plain_bt(x, y) / bradley_terry(x, y).value - 1)
claim("C26.2", "the plain loss over the library's, less 1", gap, below=1e-9)

# %% [markdown]
# How good is the reward model of the first figure? On fresh data its rewards should be the hidden ones plus a constant. So regress one on the
# other. The slope should be 1, and we allow a tenth to both sides. A hundredth of the variance may be left. Then ask the same in the
# region where the hacked samples went.

# %%
# NBVAL_CHECK_OUTPUT
fresh, _ = mixture.sample(2000, Draw(5))
outside = panels["90 updates"].double()


def compared(x):
    """Slope of the learnt reward on the hidden one, share of variance left, mean difference."""
    learnt, hidden = score(x.float()).double(), truth(x)
    (var, both), (_, own) = torch.stack([hidden, learnt]).cov().tolist()
    return both / var, 1 - both**2 / (var * own), (learnt - hidden).mean()


slope, left, offset = compared(fresh)
claim("C26.3", "on data: slope of the learnt reward", slope, between=(0.9, 1.1))
claim("C26.4", "on data: share of the variance left", left, below=0.01)
beyond = compared(outside)[2] - offset
claim("C26.5", "where the student went: overrated by", beyond, above=1)

# %% [markdown]
# On the data the model is excellent. It is wrong where it saw nothing, and it is wrong *upwards*: it goes on along its last slope, while the hidden reward
# turns down beyond $c$. No test on held-out votes shows that, since those votes come from the data too. An optimiser goes exactly there.
#
# ## 26.3 The gradient through the sampler
#
# A sampler is a function of its starting noise and of the weights, so its mean reward has a gradient. **DRaFT** [@clark2024draft] takes it by
# back-propagation, through all $N$ steps or through the last $K$. The others are walked without gradient, and $x$ counts as a constant where they stop.
#
# Try it on two steps. The data are $\mathcal N(0,1)$, and the walk goes from $a$ (α = 0.6, σ = 0.8) by DDIM to $b$ (α = 0.8, σ = 0.6), and from there to the
# clean end. The network is the perfect one with a shift: $\varepsilon_\theta=\sigma x+\theta$. The reward is $x$ itself.
#
# | | what θ adds | what arrives |
# |---|---|---|
# | the last step, $x_0=(x_b-\sigma_b\varepsilon)/\alpha_b$ | −0.6/0.8 = −0.75 | −0.75 |
# | the step before, to $\alpha_bx_\theta+\sigma_b\varepsilon_\theta$ | 0.6 − 0.8 · 0.8/0.6 = −0.467 | −0.467 · (1 − 0.36)/0.8 = −0.373 |
#
# (What arrives: $x_0=(x_b-0.6\,(0.6\,x_b+\theta))/0.8$, so a change of $x_b$ arrives times 0.8.) So DRaFT-1 sees a gradient of −0.75, and the full one is −1.123. **AlignProp** [@prabhudesai2023alignprop] draws $K$ anew in each update, and its code has another
# rule. No step is walked without gradient, but the *network's answer* is made a constant in the early ones. Is that the same? Starting noise has no
# gradient, and nothing else enters the early steps. So yes: it is DRaFT-$K$, with graphs of the early calls that are built for nothing. Both in plain PyTorch:

# %%
# NBVAL_CHECK_OUTPUT
Level = namedtuple("Level", "alpha sigma")


def draft_k(net, z, levels, reward, last):
    x, first = z, len(levels) - 1 - last
    for k, (a, b) in enumerate(zip(levels, levels[1:])):
        with torch.set_grad_enabled(k >= first):
            eps = net(x, a)
            x = b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps
    return reward(x).mean()


def alignprop(net, z, levels, reward, last):
    x, first = z, len(levels) - 1 - last
    for k, (a, b) in enumerate(zip(levels, levels[1:])):
        eps = net(x, a) if k >= first else net(x, a).detach()
        x = b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps
    return reward(x).mean()


theta, three = torch.zeros(1, requires_grad=True), [Level(0.6, 0.8), Level(0.8, 0.6), Level(1, 0)]
shifted = lambda x, level: level.sigma * x + theta
for k in (1, 2):
    value = draft_k(shifted, torch.ones(5, 1), three, lambda x: x[:, 0], last=k)
    print(f"DRaFT-{k}: {torch.autograd.grad(value, theta)[0].item():.3f}")

# %% [markdown]
# Memory is the price. A graph of $N$ calls holds the activations of all of them. **Checkpointing** [@chen2016checkpointing] keeps each call's *input* alone and makes the
# call again on the way back. That is a third more work in the steps with a gradient, since a way back costs about two calls, and one call is held at a time. In the library that is `light`, and we count its calls. We take a network with random weights, the
# reward of the judge, and compare gradients in all weights, in units of the largest entry.

# %%
# NBVAL_CHECK_OUTPUT
show(last_steps)
net = adapted(teacher).net.double()
torch.nn.init.normal_(net.adapter.leave.weight, std=0.1)
model, noise = Denoiser(net, schedule, "v"), Draw(3).normal((64, 2), torch.float64)


def gradient(value):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, net.adapter.parameters())])


asked = lambda x, level: model(x, level).eps
plain = gradient(draft_k(asked, noise, walk, truth, last=5))
rules = {
    "C26.6": ("the library's", -draft(model, noise, walk, truth, last=5, light=False)[0].value),
    "C26.7": ("with checkpoints", -draft(model, noise, walk, truth, last=5, light=True)[0].value),
    "C26.8": ("AlignProp's", alignprop(asked, noise, walk, truth, last=5)),
}
for id, (name, value) in rules.items():
    gap = (gradient(value) - plain).abs().max() / plain.abs().max()
    claim(id, f"K = 5: the plain gradient, and {name} (largest difference)", gap, below=1e-9)
made = {}
for light in (True, False):
    counting = counted(model)
    gradient(draft(counting, noise, walk, truth, last=5, light=light)[0].value)
    made[light] = counting.net.calls
more = made[True] - made[False]
claim("C26.28", "K = 5: calls with checkpoints, less those without", more, between=(5, 5))

# %% [markdown]
# ## 26.4 ReFL and DRaFT-LV
#
# **ReFL** [@xu2023imagereward] came first. It stops the walk at a random late step, asks the network once, with a gradient, for its guess of the clean sample, and
# rewards the guess. Its loss is max(0, 2 − r): above 2 nothing pulls any more. That is a small brake of its own. It expects a reward of unit variance, and a constant that means something, which choices alone do not give (26.2).
#
# **DRaFT-LV** ("low variance") stays with the last step. It noises the finished sample back to where that step began, several times, and
# averages the gradients. Only noise of the last step is averaged away. A sample of a good model, noised, has the law of the points where the last step
# begins. So the expectation should point where DRaFT-1 points; we ask for a cosine above 0.99.

# %%
# NBVAL_CHECK_OUTPUT
show(refl)
last, draw, finished = walk[-2], Draw(4), sample(model, noise, walk).detach()
renoised = [last.alpha * finished + last.sigma * draw.normal(noise) for _ in range(16)]
plain = gradient(torch.stack([truth(model(x, last).x0) for x in renoised]).mean())
found, _ = draft_lv(model, noise, walk, truth, draw=Draw(4), repeats=16)
gap = (gradient(-found.value) - plain).abs().max() / plain.abs().max()
claim("C26.9", "plain DRaFT-LV and the library's (largest difference)", gap, below=1e-9)
once = gradient(draft(model, noise, walk, truth, last=1)[0].value)
cosine = partial(torch.cosine_similarity, dim=0)
claim("C26.25", "cosine of its gradient and DRaFT-1's", cosine(-once, plain), above=0.99)
rich = lambda x, cond: truth(x) + 1000
enough = refl(model, noise, walk, rich, draw=Draw(5))[0].value.detach()
claim("C26.10", "ReFL's loss where all rewards are above 2", enough, between=(0, 0))

# %% [markdown]
# ## 26.5 Which steps carry the gradient
#
# How much of the full gradient does DRaFT-$K$ see? Suppose that ε changes by $e$ in one step, from $a$ to $b$. DDIM then moves $x/\alpha$ by
# $-(\kappa_a-\kappa_b)\,e$, with $\kappa=\sigma/\alpha$. For centred Gaussian data $\varepsilon=\kappa\,(x/\alpha)/(S^2+\kappa^2)$, so along the ODE $x/\alpha$ shrinks
# like $\sqrt{S^2+\kappa^2}$, and the rest of the walk multiplies a change by about $S/\sqrt{S^2+\kappa_b^2}$. So a step counts with
#
# $$w_{ab}=(\kappa_a-\kappa_b)\,\frac S{\sqrt{S^2+\kappa_b^2}}. \label{eq:rg-step}$$
#
# Far above $S$ that is $S\,(\kappa_a/\kappa_b-1)$, and our steps are even in log κ. So all noisy steps count alike. Far below $S$ it is the
# step in κ itself, and there it is almost nothing. Our network answers with v. Since $\varepsilon=\sigma x+\alpha v$, a change of v changes ε by α times as much. So the noisiest steps count
# little too, and those in the middle, with κ near 1, count most. The known statement that early steps dominate is about networks
# of ε: there the first ten of our twenty carry more than four fifths, here less than half.
#
# *How long, do you think, is the gradient of the last step alone, relative to that of all twenty?* If a change of the network's weights changes v alike at
# all levels, the steps' gradients are parallel, with lengths as $\alpha_aw_{ab}$. With $S$ the spread of the whole data, the last step's part is then a hundredth. Our data are no Gaussian, so for the judge's reward we ask for this part within a factor of two, and for that of the last ten steps within a quarter.

# %%
# NBVAL_CHECK_OUTPUT
ks, S = range(1, 21), fresh.std().item()
alphas, kappa = torch.tensor([(level.alpha, level.sigma / level.alpha) for level in walk]).T
of_eps = (kappa[:-1] - kappa[1:]) * S / (S**2 + kappa[1:] ** 2).sqrt()
counts = alphas[:-1] * of_eps
share = torch.stack([counts[-k:].sum() for k in ks]) / counts.sum()
print(f"S = {S:.2f}; of the last step: {share[0]:.4f}, of the last ten: {share[9]:.2f}")
early = [(one[:10].sum() / one.sum()).item() for one in (of_eps, counts)]
print("of the first ten: {:.2f} for a network of ε, {:.2f} for ours".format(*early))
shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)


def early_part(by):
    """Of the gradient of a shift of the network's answers: what the first ten steps carry."""
    net = lambda x, level: model(x, level).eps + by(level) * shift
    ten, twenty = (
        torch.autograd.grad(draft_k(net, noise, walk, truth, last=k), shift)[0] for k in (10, 20)
    )
    return 1 - ten.norm() / twenty.norm()


claim("C26.29", "a shift of ε: the first ten steps' part", early_part(lambda _: 1), above=0.8)
claim("C26.30", "a shift of v: the same", early_part(lambda level: level.alpha), below=0.5)

# %% [markdown]
# Length is one thing, direction another. We take two rewards. The judge's pulls every sample the same way. The other one, cos 2x₁ sin 2x₂, pulls each sample
# to its own nearest peak. For that one we ask that ten steps point as twenty do, with a cosine above 0.85.

# %%
# NBVAL_CHECK_OUTPUT
waves = lambda x, cond=None: torch.cos(2 * x[:, 0]) * torch.sin(2 * x[:, 1])
lines, some = {}, [1, 5, 10, 20]
noise = Draw(3).normal((1024, 2), torch.float64)
for name, reward in {"the judge's": truth, "waves": waves}.items():
    found = [gradient(draft(model, noise, walk, reward, last=k)[0].value) for k in some]
    lines[f"{name}: length"] = some, torch.stack([g.norm() / found[-1].norm() for g in found])
    lines[f"{name}: cosine"] = some, torch.stack([cosine(g, found[-1]) for g in found])
figure(
    plot.curves(
        lines,
        {"length, predicted": (ks, share)},
        xlabel="$K$, steps with a gradient",
        ylabel="relative to all 20",
        log="y",
    ),
    "The length of DRaFT's gradient rises from 0.01 (the judge's) and 0.03 (waves) for one step "
    "to 0.6 and 0.7 for ten; the cosine is near 1 for the judge's reward, and for waves about "
    "0.7 with one step or five and above 0.9 with ten.",
    "Dashed: the length that the weights predict, for one Gaussian with the spread of the data.",
)
one, _, ten, _ = lines["the judge's: length"][1]
cosines = {name: lines[f"{name}: cosine"][1] for name in ("the judge's", "waves")}
claim("C26.11", "K = 1: its length over the predicted", one / share[0], between=(0.5, 2))
claim("C26.26", "K = 10: the same", ten / share[9], between=(0.8, 1.25))
claim("C26.12", "K = 10, waves: cosine with the full gradient", cosines["waves"][2], above=0.85)
claim("C26.13", "K = 1, the judge's: the same", cosines["the judge's"][0], above=0.9)

# %% [markdown]
# So the gradient of the last step alone is one to three hundredths as long, and its direction is a matter of the reward. If one shift is good for all samples, the last step
# knows it too: for the judge's the cosine is 0.97 here, and 0.92 to 0.98 with other adapters and noises. If each sample must be sent to another place, it is
# less sure. For waves it was 0.67 to 0.95 with one step, by the draw; with only 256 samples it fell to 0.23 once, and such a gradient is mostly noise. What a small $K$ leaves out are the noisy steps, which settle *where* a
# sample goes. It asks for something else: *improve the last touches*. In a picture the layout is fixed
# by then, and texture and colour can still be tuned.
#
# Why then did DRaFT-1 move the whole cloud in the first figure? Because one network serves all steps. It learns a shift at the clean end, and the noisy
# steps get it as well. And Adam divides by the gradient's size, so that a hundredth of the length is no obstacle.
#
# ## 26.6 Healthy and sick curves
#
# Here is the run of the first figure, with the hidden truth beside the score. *Before you look: at which score would you have stopped?*
# We ask that the score still rises by more than 1 after update 60, that the truth gains more than 1 on the way, and that it ends below where it began.

# %%
# NBVAL_CHECK_OUTPUT
smooth = [plot.running_mean(values, 5) for values in hacked]
figure(
    plot.curves(
        dict(zip(("score (learnt)", "truth (hidden)"), smooth)),
        xlabel="update",
        ylabel="mean reward",
        ylim=(-11, 7),
    ),
    "The score rises faster and faster; the truth rises with it for about seventy updates, then "
    "falls steeply.",
    "DRaFT-1, running means over five updates of 64 samples.",
)
told, true = (values for _, values in smooth)
claim("C26.14", "the score's rise from update 60 to the end", told[-1] - told[55], above=1)
claim("C26.15", "the truth's best less its start", true.max() - true[0], above=1)
claim("C26.16", "the truth at the end less its start", true[-1] - true[0], below=0)

# %% [markdown]
# The score's curve gives no warning. It is smooth, and never looked better than at its end. What tells you are things that the reward does not see: pictures from fixed
# noise, a second reward model, and the divergence from where you began. Language models show the same curve [@gao2023scaling].
#
# ## 26.7 What stops it
#
# Three brakes are in use. **Early stopping** is AlignProp's: 20 to 25 epochs. **The adapter's scale** is DRaFT's: train too far, then multiply the
# adapter by a number below 1. And a **KL anchor** puts the price of \eqref{eq:rg-aim} into the loss:
#
# $$\mathcal L=-\,\mathbb E\,r_\phi(x_0)+\beta\int\tfrac12\Big(-\frac{d\,\mathrm{SNR}}{dt}\Big)\mathbb E\,\lVert x_\theta(x_t,t)-x_{\text{ref}}(x_t,t)\rVert^2\,dt. \label{eq:rg-anchor}$$
#
# The integrand is that of chapter 3's bound, taken on the student's own samples, noised. The samples count as constants in it.
#
# How far did each of them go? The divergence of a *student* has no closed form, so it is estimated. `kl_estimate` draws samples with the probability-flow ODE, computes their
# likelihood along it, and averages $\log p_\theta-\log\pi$. Here that has a standard error of about a tenth of a nat. `measured` returns
# this estimate and the mean hidden reward. `place` divides a student's gain in hidden reward by that of the tilt with the same divergence: its *share of the possible rise*. On the other side everything is exact. No
# density with this divergence can have a higher hidden reward than the tilt \eqref{eq:rg-tilt}, and the tilts of all β draw a **frontier**.


# %% tags=["fold"]
def plain_anchor(student, reference, x0, t, eps):
    """The anchor of samples x0 (B, 2) at times t (B,) with noise eps, by hand."""
    snr = lambda t: (schedule.at(t).alpha / schedule.at(t).sigma) ** 2
    falls = (snr(t - 1e-4) - snr(t + 1e-4)) / 2e-4
    level = schedule.at(t.float(), like=x0)
    x_t = level.alpha * x0 + level.sigma * eps
    gap = student(x_t, level).x0 - reference(x_t, level).x0
    return (falls / 2 * gap.square().sum(1)).mean()


# %%
# NBVAL_CHECK_OUTPUT
show(anchor)
x, t = panels["60 updates"], torch.linspace(0.2, 0.8, 400).double()
plain = plain_anchor(stages[60], teacher, x, t, Draw(2).normal(x))
at_these = dict(weight=weights.elbo, times=lambda draw, n: t)
ours = anchor(stages[60], teacher, x, draw=Draw(2), **at_these).value
claim("C26.27", "the plain anchor over the library's, less 1", abs(plain / ours - 1), below=1e-4)

# %%
weak = copy.deepcopy(stages[70])
weak.net.scale = 0.3
anchored = lambda beta: finetuned(score, 60, lr=2e-3, steps=10, last=10, kl=beta)[0]
runs = {"stop at 40": stages[40], "stop at 50": stages[50], "scale 0.3": weak}
runs |= {f"anchor, β = {beta}": anchored(beta) for beta in (2, 1)}

# %%
# NBVAL_CHECK_OUTPUT
frontier = Frontier(mixture, truth, torch.logspace(2, -1, 200).tolist())
forty = levels(schedule, 40)
found = {name: frontier.measured(model, forty, n=200) for name, model in runs.items()}
figure(
    plot.curves(
        {},
        {"the exact optimum": (frontier.kl, frontier.reward)},
        points={name: ([kl], [reward]) for name, (kl, _, reward, _) in found.items()},
        xlabel="KL to the model (nats)",
        ylabel="hidden reward",
    ),
    "The anchored students lie close below the exact frontier; those that were stopped or "
    "scaled down lie further below, at the same divergence.",
    "Each point is a student that was trained on the learnt score.",
)
shares, above = zip(*(frontier.place(*one) for one in found.values()))
claim("C26.17", "above the frontier, in standard errors (most of five)", max(above), below=3)
claim("C26.18", "anchored: share of the possible rise (least)", min(shares[3:]), above=0.75)
better = min(shares[3:]) - max(shares[:3])
claim("C26.19", "anchored: least share, less the most of the other three", better, above=0)
worse = shares[2] - min(shares[:2])
claim("C26.31", "scaled down: its share, less the lower of the two stops'", worse, below=0)

# %% [markdown]
# The frontier holds. With the anchor you get most of what the divergence allows. (Three standard errors leave a false alarm in
# fewer than one of a hundred runs.) A student that follows the learnt score alone spends nats on narrowing the
# cloud, which the hidden reward hardly pays for. The adapter's scale is cheap, since no new training is needed, but its share
# is smaller than either stop's. (In a run of ours, greedy DRaFT with all steps in the graph lay no higher than DRaFT-1. So it is the anchor that matters here.)
#
# Is \eqref{eq:rg-anchor} the KL of the samples? Not quite. It is, if student and reference are each the true denoiser of their own samples. Our reference is; a trained student is not.
# For any other student, a bound on the KL needs Girsanov's theorem along the student's own walk, with steps that draw noise. The anchor takes noised samples
# instead. So it is neither the KL nor a bound on it, and an optimiser can exploit that (exercise 1).
#
# ## 26.8 Rung 2: captioned shapes
#
# Now pictures with captions, and the hack that every practitioner has met. The hidden judge counts facts: are the things there, each in its place, with the right
# shape, colour and size? A perfect picture gets 8. The proxy has a gradient, and looks only for *the colour that was asked for*. Among real pictures that is a fair sign.
# The teacher already draws what is asked, so there is little to win and much to lose. The student is a LoRA of rank 4, and takes 20 updates of DRaFT-1, with
# and without the anchor. We ask that the greedy proxy more than doubles, that its truth loses more than one of the eight points, and that the
# anchored one loses less than half a point.

# %%
# NBVAL_CHECK_OUTPUT
shapes = Shapes()
captioned, seen = shapes.ask(128, seed=0), {"the teacher": shapes.teacher}
for name, beta in (("greedy", 0.0), ("anchored", 0.05)):
    torch.manual_seed(0)
    made = recipes.reward_gradient(shapes.teacher.schedule, omega=0.0, steps=8, kl=beta)
    low_rank = replace(shapes.teacher, net=twin(shapes.teacher.net, rank=4))
    given = {"reward": shapes.proxy}
    actors = cast(made, shapes.teacher, starts={"student": low_rank}, given=given)
    optim = torch.optim.Adam(adapters(low_rank.net).values(), 3e-3)
    perform(made, actors, {"student": optim}, caption_batches(16, seed=0), 20, Draw(0))
    seen[name] = low_rank
pictures = {name: shapes.draw(model, captioned, seed=1) for name, model in seen.items()}
figure(
    plot.pictures({name: x[:10] for name, x in pictures.items()}),
    "The greedy student floods its pictures with the colour of the caption and loses the "
    "shapes; the anchored one draws what the teacher draws.",
    "Ten captions; the same noise in each column.",
)
base, hack, held = (shapes.scores(x, captioned) for x in pictures.values())
claim("C26.20", "greedy: the proxy over the teacher's", hack["proxy"] / base["proxy"], above=2)
claim(
    "C26.21", "greedy: facts right, less the teacher's", hack["reward"] - base["reward"], below=-1
)
claim("C26.22", "anchored: the same", held["reward"] - base["reward"], between=(-0.5, 0.5))

# %% [markdown]
# ## 26.9 What should look wrong here
#
# Here is a slip that many have made. To save memory you detach *the sample* before each call, instead of the network's answer. The code looks like AlignProp's, with $K=5$.
# *Predict what its gradient is.*


# %%
# NBVAL_CHECK_OUTPUT
def slipped(net, z, levels, reward, last):
    x, first = z, len(levels) - 1 - last
    for k, (a, b) in enumerate(zip(levels, levels[1:])):
        x = x.detach()
        eps = net(x, a) if k >= first else net(x, a).detach()
        x = b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps
    return reward(x).mean()


noise = noise[:64]
wrong = gradient(slipped(asked, noise, walk, truth, last=5))
once, five = (gradient(draft_k(asked, noise, walk, truth, last=k)) for k in (1, 5))
gap = (wrong - once).abs().max() / once.abs().max()
claim("C26.23", "its gradient and that of K = 1 (largest difference)", gap, below=1e-9)
claim("C26.24", "its length over that of K = 5", wrong.norm() / five.norm(), below=0.5)

# %% [markdown]
# Each call is now a leaf of its own, and only the last one is connected to the reward. No error is raised, and the score still rises. The cure is to test the
# gradient against one that you trust, as in 26.3.
#
# ## 26.10 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | the score rises, pictures get worse | the proxy is followed to where it knows nothing | the anchor; stop early; a second reward that is not trained on |
# | all samples of a prompt look alike | a reward has one best picture | a larger β; a smaller adapter scale |
# | the gradient explodes, then NaN | $K=N$: a noisy step moves $x/\alpha$ by $\kappa_a-\kappa_b$ times a change of its ε. The true model's later steps shrink such a change again (26.5); those of a network with wrong slopes may not | clip the gradient's norm to 1; a smaller $K$ |
# | saturated pixels never change back | a `clamp` after the decoder has no gradient there | clamp for display only |
# | the gradient is zero | the reward's preprocessing goes through uint8 or PIL | resize and normalise in torch |
# | ReFL stands still | all rewards are above 2 | standardise the reward, or raise the threshold |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | the reward (`--reward`) | `redness`, to try the machine. For use `aesthetic` (the recipe file's), `pickscore`, `hps` or `clip`, with `--reward-weights FOLDER` | `clip`, `pickscore` and `hps` read the caption. A folder that is missing is refused, with what belongs there; whether a CLIP is PickScore's no program can see. `full_scale.convert` makes the file of `aesthetic`, beside its CLIP, and the folder of `hps`. Keep one reward back as the second judge |
# | the reward's scale | as it is; measure its deviation $s$ among samples of *one* prompt, by a few lines of your own | each prompt may have its own constant (26.2), so an $s$ pooled over prompts is too large. ReFL alone wants a unit deviation |
# | β of the anchor (`--hyper.kl`) | $s/\sqrt2$, for a nat, or less where the reward turns down; pictures bear more nats, so less | in 26.8 the proxy has $s$ = .16, hence .11, and we chose .05. The printed command's 0.01 is for `redness`, which is there to be tried: in the tests it holds the captions of shapes |
# | what a β spends | about $s^2/2\beta^2$ nats, if the optimum stays near the model | exactly so for the *tilt* of a Gaussian by a linear reward. Our hidden reward has $s$ = 2.5: the tilt of β = 8 spends .045 nats where .048 are predicted, that of β = 1 spends 1.05 where 3.1 are, since the reward turns down. The anchor is another price than the tilt's, and its best student may go further or less far (exercise 1). As it happened, the anchored runs of 26.7 are 0.45 and 1.04 nats away (by `measured`), the tilts of their β = 2 and 1 are 0.48 and 1.05 |
# | $K$ (`--hyper.last`) | 1 | one call with a gradient, whose business is colour and texture. It moves the layout as well, since one network serves all steps (26.5), but its direction there is reliable only for a shift that all samples share. Layout must change otherwise: about half of the steps. For the waves of 26.5, in one draw, the cosine is .68 with 5 of 20 steps and .93 with 10. Keep the trainer's clip of the gradient's norm, 1 |
# | DRaFT-1, or LV | DRaFT-1. (LV is a loss of `dlib`, for your own loop) | on the plane, with the judge's reward, DRaFT-1 and LV with 1, 4 and 16 copies have gradients of the same variance, within 2 % (40 draws of 64 samples): nearly all of it comes from the starting noise. On pictures we did not measure it |
# | the adapter's scale | 1 in training | if it was hacked, sweep .2 to 1 on fixed noise, and choose by a judge that was not trained on |
# | when to stop | save often, and compare pictures from one noise | a second judge falls; without one you stop too late. Even the best stop is dear: the first figure's run has its best truth, −.40, at about update 70, and is 18.6 nats away then. The exact tilt gets that for 2.4 |
# | how far a *picture* model went | the anchor's value (`student/kl` in the log) | likelihoods of pictures cost too much. It is no bound (26.7), and is taken without guidance, so look as well at the distance of the student's pictures from the reference's, from the same noise |
# | rate, rank, guidance | `reward_gradient.toml`: 4e-4, rank 8, 2000 updates of 16 pictures, ω = 6.5 in the sampler | DRaFT's rate and rank, from memory: a start, not a result. If the reward's curve jumps, take a third of the rate |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | on eight A100 `reward_gradient` needs 17 GB a card and 0.9 hours, with `aesthetic` and one step with a gradient; the VAE's decoder and the reward are in it. Counted, at an *assumed* 35 % of their peak |
# | seeds, to compare two settings | three | this page's runs have one seed each; “anchored above the others” is two runs against three points of one run, with other settings: last ten of ten steps and 2e-3, to last one of twenty and 7e-4 |
#
# **The real runs.** ReFL walks 40 steps and stops in the last ten, with a loss weight of $10^{-3}$, learning rate $10^{-5}$ and 100 updates. AlignProp walks 50 DDIM steps with
# scale 5 (ω = 4), draws its first step with a gradient from a normal around the 42nd, has learning rate $10^{-3}$, clips the gradient's norm to 1 and stops after 20 to 25 epochs of 128 pictures. These were read in the released code. DRaFT has
# rank 8, learning rate $4\cdot10^{-4}$, batch 16, and two copies in LV; these we know from memory and did not verify. None of their results is reproduced here.
#
# **Where the toy stops being true.** The judge is exact and honest, and the plane has two dimensions, so that 4000 votes cover it. Votes on pictures cover next to nothing. There a proxy is
# wrong much nearer to the data.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `fitted`, 4000 pairs | PickScore, HPSv2: CLIP, fitted to 100 000 votes and more (ImageReward is BLIP; `full_scale` has no reader for it) |
# | `draft`, `last_steps(light=True)` | the same functions, through the VAE's decoder |
# | `recipes.reward_gradient(schedule, last=1, kl=…)` | the same recipe, `full_scale.train reward_gradient` |
# | the adapter's `scale` | the LoRA's weight when it is loaded |
#
# ```bash
# full_scale/launch/one_node.sh reward_gradient --weights weights/stable-diffusion-v1-5 \
#     --data data/prompts --out runs/reward --reward redness --hyper.kl 0.01
# ```
#
# **How far up the ladder.** Rung 1: exactly, and trained. Rung 2: captioned shapes. Rung 3: the recipe trains Stable Diffusion's classes in the tests,
# through the VAE's decoder, with random weights.
#
# ## 26.11 Exercises
#
# 1. *(pencil)* π is $\mathcal N(0,S^2)$ and the reward $ax$. Measure noise by κ = σ/α, from 0 to $\kappa_{\max}$. The student adds δ(κ) to the reference's guess of $x_0$, and the ODE sampler carries it to the end
#     as $\int\delta\,S/(\kappa\sqrt{S^2+\kappa^2})\,d\kappa$. The anchor is $\int\delta^2/\kappa^3\,d\kappa$. Which δ maximises reward minus β times anchor, and how far does it move the samples? Compare with the tilt.
# 2. *(code)* Train the first figure's student by AlignProp's rule: `deepest=10` in `finetuned`. Does the truth turn later? Check: its best truth is within 0.5 of DRaFT-1's.
# 3. *(code)* Fit five reward models, with five seeds of their own and a fifth of the votes each, and follow their *minimum*. Check: after 100 updates the truth is higher than the greedy
#     student's.
# 4. *(open)* Collect votes on the samples of the student after 60 updates, fit again, and go on. How many rounds does the truth need to reach the tilt's?
#
# <details><summary>Answers to 1 and 3</summary>
#
# 1. Pointwise, $aS/(\kappa\sqrt{S^2+\kappa^2})=2\beta\delta/\kappa^3$, so $\delta=aS\kappa^2/(2\beta\sqrt{S^2+\kappa^2})$. The samples move by $\frac{aS^2}{4\beta}\log(1+\kappa_{\max}^2/S^2)$. The tilt moves by
# $aS^2/\beta$, whatever $\kappa_{\max}$. A change at noisy levels is cheap for the anchor and carried on by the sampler, so that β means something else for every schedule. The frontier is what you can compare.
#
# 3. In `fitted` put `torch.manual_seed(seed)`, and give it `[world.batches(800, seed=seed)(0)]`. Then take `lowest = lambda x, cond=None: torch.stack([m(x) for m in models]).amin(0)` as the reward. The models agree on the data and differ
# outside, so their minimum stops rising sooner. It is no guarantee, since all five may be wrong in the same way.
#
# </details>
#
# ## References
#
# Choices: [@bradley1952rank]. The tilt: [@korbak2022rl]. ReFL: [@xu2023imagereward]; DRaFT: [@clark2024draft]; AlignProp: [@prabhudesai2023alignprop]. Checkpointing:
# [@chen2016checkpointing]. Over-optimised rewards: [@gao2023scaling].
