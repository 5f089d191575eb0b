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
#     title: Policy gradients
#     summary: Follow a reward that has no gradient. The sampler's steps become the actions of a policy; how far the methods get is measured against the exact optimum.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - the reward tilt and the proxy (chapter 26)
#       - ancestral sampling, a Gaussian a step (chapter 3)
#       - SDEs with the same marginals (chapter 4)
#       - velocities and straight paths (chapter 5)
#       - PyTorch
# ---

# %% [markdown]
# # 27 Policy gradients: the sampler as a decision process
#
# A judge answers yes or no. The picture shows three cats, or it does not; the text is spelled right, or not. Chapter 26
# followed the gradient of the reward. The middle panel shows what that does here: nothing.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import itertools
import json
import math
from collections import namedtuple
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from bench.report import RESULTS
from dlib import Batch, Denoiser, Draw, adapters, cast, exact, flow, levels, perform, plot
from dlib import recipes, sample, transition, twin, vp
from dlib.losses.preference import adjoint_matching, centred, clipped_ratio, gaussian_kl
from dlib.losses.preference import lean_adjoints, leave_one_out, nft, score_function
from dlib.reward_tilts import Linear, reward_tilt
from dlib.solvers import euler_maruyama
from dlib.solvers.transitions import flow_transition, preserving_transition
from dlib.trajectories import log_prob, roll, windowed
from toy_data import digits_classifier, digits_teacher, gaussian
from toy_data.finetuned import Frontier, adapted
from toy_data.preferences import Plane
from torch import nn

schedule = flow()
world = Plane(schedule=schedule)
mixture, truth, teacher = world.mixture, world.hidden, world.teacher


def finetuned(recipe, reward, updates=60, lr=2e-3, decays=None):
    """A student after updates of 128 samples each, and its history."""
    start = adapted(teacher)
    given = {"reward": reward}
    actors = cast(recipe, teacher, starts={"student": start}, given=given, decays=decays)
    student = actors.roles["student"]
    optim = torch.optim.Adam(student.net.adapter.parameters(), lr)
    asked = lambda step: Batch(torch.zeros(128, 2))
    return student, perform(recipe, actors, {"student": optim}, asked, updates, Draw(0))


ten = dict(steps=10, omega=0.0, spacing="time")
rl = partial(recipes.ddpo, schedule, group=128, clip=0.1, **ten)
walk = levels(schedule, 10, "time", end="clean")
z = Draw(7).normal((400, 2))
yes = lambda x, cond=None: (1 + x[:, 0].sign()) / 2  # is it on the right?
followed, _ = finetuned(recipes.reward_gradient(schedule, **ten), yes, 20)
tried, _ = finetuned(rl(), yes, 20)

line = lambda low, high: torch.linspace(low, high, 81, dtype=torch.float64)
axes = line(-2.2, 2.2), line(-1.5, 1.5)
around = mixture.log_prob(torch.cartesian_prod(*axes), schedule.at(1e-3))
opening = {"the model": teacher, "reward gradient": followed, "policy gradient": tried}
panels = {name: sample(model, z, walk).detach() for name, model in opening.items()}
figure(
    plot.over_density(
        {name: (x, mixture.modes_of(x.double())) for name, x in panels.items()}, around, axes
    ),
    "The model draws from both modes alike. The reward's gradient changes nothing; after 20 "
    "updates of a policy gradient nine of ten samples lie on the right.",
    "The judge says yes to the right half of the plane.",
)

# %% [markdown]
# A reward of zeros and ones is flat wherever it has a derivative. So there is no gradient to follow, and yet the third panel got there. It
# *tried*: it drew samples, asked which ones were liked, and made the steps that led to
# these a little more probable.
#
# Why is that a gradient, which of its relatives reach the exact optimum \eqref{eq:rg-tilt}, and what does each of them cost?
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | π, $r$, β | the reference (in $\log2\pi$ the number), the reward, the price of a nat | chapter 26 |
# | $p_\theta(x_b\mid x_a)=\mathcal N(\mu_\theta,s^2I)$ | one step of the sampler, from level $a$ to the cleaner $b$ | chapter 3 |
# | $J(\theta)$ | the mean reward of the sampler's samples | new |
# | $A$, $G$ | the advantage of a sample; how many samples of one prompt are compared | new |
# | ρ, χ | how much more probable a step is now than when it was drawn; how far ρ may be from 1 | new |
# | $a_{\text F}$ | how noisy Flow-GRPO's SDE is | new |
# | $u$; $q$, ζ | the velocity; NFT's share of a sample, and how far $u^\pm$ go towards the student: a round's step is 2/ζ (`beta` in the code) | chapter 5; new |
#
# ## 27.1 Steps are actions
#
# Read the sampler as a game: the *state* is a level and a point at it. The *action* is the next point, and the policy draws it from a Gaussian. The reward comes once,
# at the end. Everything about the policy is known, even the probability of each move:
#
# $$\log p_\theta(x_b\mid x_a)=-\frac{\lVert x_b-\mu_\theta\rVert^2}{2s^2}-d\log s-\frac d2\log2\pi. \label{eq:pg-logp}$$
#
# With a pencil: for data $\mathcal N(0,1)$ go by ancestral sampling from $a$ (α = 0.6, σ = 0.8) to $b$ (α = 0.8, σ = 0.6). The step's variance is $s^2=(\sigma_b^2/\sigma_a^2)\,(1-\alpha_a^2/\alpha_b^2)=0.5625\cdot0.4375=0.246$,
# so $s=0.496$. The mean is $\alpha_bx_\theta+\sqrt{\sigma_b^2-s^2}\,\varepsilon_\theta$ with $x_\theta=0.6\,x_a$ and $\varepsilon_\theta=0.8\,x_a$: 0.75 times $x_a$. You stand at 1 and draw 1.246, one standard deviation above the mean. Then $\log p$ is −0.5 + 0.701 − 0.919 = −0.718.
#
# **The score function** [@williams1992reinforce] gives the gradient of the mean reward, without any derivative of the reward. Because
# $\nabla p=p\,\nabla\log p$,
#
# $$\nabla J=\nabla\!\int p_\theta\,r=\int p_\theta\,r\,\nabla\log p_\theta=\mathbb E\Big[r(x_0)\sum_k\nabla\log p_\theta(x_{k+1}\mid x_k)\Big]. \label{eq:pg-sf}$$
#
# Of a path's probability only the steps depend on θ; the starting noise does not. (A last step that draws nothing drops out, and with it a little of $\nabla J$.) **DDPO-SF** [@black2024ddpo] is exactly this. In plain PyTorch:

# %%
# NBVAL_CHECK_OUTPUT
Gaussian = namedtuple("Gaussian", "mean std")


def plain_log_prob(step, y):
    square = ((y - step.mean) / step.std) ** 2
    return (-square / 2 - np.log(step.std) - np.log(2 * np.pi) / 2).sum(1)


def sf_loss(log_probs, rewards):  # (B, N), (B,)
    return -(log_probs.sum(1) * rewards).mean()


drawn = torch.tensor([[1.246]])
print(f"log p of the pencil's step: {plain_log_prob(Gaussian(0.75, 0.496), drawn).item():.3f}")
show(score_function)
step, y = Gaussian(Draw(0).normal((50, 3)).double(), 0.3), Draw(1).normal((50, 3)).double()
gap = (plain_log_prob(step, y) / log_prob(step, y) - 1).abs().max()
claim("C27.1", "plain log p over the library's, less 1 (largest of 50)", gap, below=1e-9)

# %% [markdown]
# Take two steps of a chain in one dimension, with a network of two weights, and the reward cos x. Gauss and Hermite's quadrature
# replaces chance: 14 nodes for each of three normals, and every expectation is exact to many digits. Either differentiate the *path*, since cos is smooth
# after all, or use \eqref{eq:pg-sf}.


# %% tags=["fold"]
class Affine(nn.Module):
    """raw = w x + c."""

    def __init__(self, w, c):
        super().__init__()
        self.w, self.c = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (w, c))

    def forward(self, x, t, cond):
        return self.w * x + self.c


points, masses = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(14))
nodes = torch.cartesian_prod(*[points] * 3)
mass = torch.cartesian_prod(*[masses / (2 * torch.pi) ** 0.5] * 3).prod(1)
policy = Denoiser(Affine(0.4, 0.3), vp(), "v")
trained = list(policy.net.parameters())
three = vp().levels([0.9, 0.6, 0.3])


def paths(model, through=False):
    """States of the chain at all nodes (2744, 3): constants, or functions of the weights."""
    states = [nodes[:, :1]]
    for k, (a, b) in enumerate(zip(three, three[1:])):
        step = transition(model, states[-1], a, b)
        y = step.mean + step.std * nodes[:, k + 1 : k + 2]
        states.append(y if through else y.detach())
    return torch.cat(states, 1)


def log_probs(model, states):
    """(2744, 2) of these states under this model."""
    pairs = enumerate(zip(three, three[1:]))
    at = lambda k: states[:, k : k + 1]
    found = [log_prob(transition(model, at(k), a, b), at(k + 1)) for k, (a, b) in pairs]
    return torch.stack(found, 1)


slope = lambda value: torch.stack(torch.autograd.grad(value, trained, retain_graph=True))

# %%
# NBVAL_CHECK_OUTPUT
reward = lambda states: torch.cos(states[:, -1])
direct = slope((mass * reward(paths(policy, through=True))).sum())
states = paths(policy)
now, weighed = log_probs(policy, states), len(nodes) * mass * reward(states)
for id, name, value in (
    ("C27.2", "the plain score function", sf_loss(now, weighed)),
    ("C27.3", "the library's", score_function(now, weighed).value),
):
    gap = (slope(value) + direct).abs().max() / direct.abs().max()
    claim(id, f"{name} and ∇J through the path (largest difference)", gap, below=1e-7)

# %% [markdown]
# ## 27.2 Old samples
#
# A rollout costs fifty network calls, and \eqref{eq:pg-sf} uses it for one update. **DDPO-IS** uses it for several. The samples then come from
# an older policy. The ratio $\rho=p_\theta/p_{\text{old}}$ of *whole paths* corrects that exactly. It is a product over all steps, and varies wildly. So practice takes a ratio for each step, and clips it as
# PPO does [@schulman2017ppo]:
#
# $$\mathcal L=\mathbb E\sum_k\max\big(-\rho_kA,\;-\mathrm{clip}(\rho_k,1\pm\chi)\,A\big). \label{eq:pg-is}$$
#
# With a pencil: ρ = 1.3, χ = 0.2, $A=1$ gives max(−1.3, −1.2) = −1.2, and no gradient: the step has already become probable enough. With $A=-1$ it
# is max(1.3, 1.2) = 1.3, and the gradient still pulls it back.
#
# At ρ = 1 the gradient is the score function's. Move the policy a little away from its samples, and the step ratios are biased. A step's own ratio corrects its action, but not the law of the states that it
# starts from, nor the steps after it. *Guess the bias before you look, for weights that differ by 0.03.*

# %%
# NBVAL_CHECK_OUTPUT
steps_loss = lambda now, old: sum(
    clipped_ratio(now[:, k], old[:, k], weighed, clip=9.0).value for k in range(2)
)
whole_loss = lambda now, old: -((now - old).sum(1).exp() * weighed).mean()
gap = (slope(steps_loss(now, now.detach())) + direct).abs().max() / direct.abs().max()
claim("C27.4", "at ρ = 1, step ratios and ∇J (largest difference)", gap, below=1e-7)

behind = Denoiser(Affine(0.43, 0.33), vp(), "v")
states = paths(behind)  # samples of another policy
now, old = log_probs(policy, states), log_probs(behind, states).detach()
weighed = len(nodes) * mass * reward(states)
off = lambda loss: (slope(loss(now, old)) + direct).norm() / direct.norm()
claim("C27.5", "old samples: the product's error over ∇J", off(whole_loss), below=1e-6)
claim(
    "C27.6", "old samples: the step ratios' error over ∇J", off(steps_loss), between=(0.001, 0.1)
)

# %% [markdown]
# Below a per cent, for a small change. The clip keeps the policy near.
#
# \eqref{eq:pg-logp} is a *sum* over the $d$ values of a sample. The released code takes their *mean*, and our recipes do too. Its ρ is the $d$th root, so χ must shrink like
# $1/d$. PPO's 0.2 would become 0.1 on our plane, 0.003 on the digits, and $10^{-5}$ for 16 384 values. In this chapter
# each rollout serves one update. So ρ = 1, and nothing is clipped.
#
# ## 27.3 Baselines
#
# A judge who gives marks from 7 to 8 raises the probability of *everything* you draw, and the differences drown. Subtract a baseline from the reward. As long as it does not depend
# on the sample, \eqref{eq:pg-sf} keeps its mean, because $\mathbb E\,\nabla\log p=0$.
#
# The mean of the $G$ samples of one prompt is a handy baseline, but the sample itself is in it. With a pencil: $G=2$, rewards 1 and 0. The mean is ½ and the advantages ±½. Leave
# the sample out, and the advantages are ±1. In general
#
# $$r_i-\bar r=\Big(1-\frac1G\Big)\Big(r_i-\frac1{G-1}\sum_{j\ne i}r_j\Big), \label{eq:pg-baseline}$$
#
# and the bracket is unbiased. So the group's own mean shrinks the expected gradient by exactly 1 − 1/G, which a learning rate can undo. GRPO [@shao2024grpo] also divides by the group's
# standard deviation. That is no longer the gradient of $J$: prompts on which all samples score nearly alike count as much as the others. To see the factor, enumerate: a policy of three actions, and all groups of $G$.


# %%
# NBVAL_CHECK_OUTPUT
show(centred, leave_one_out)
logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
marks, p = torch.tensor([1.0, 0.0, 2.5], dtype=torch.float64), logits.softmax(0)
grad = lambda value: torch.autograd.grad(value, logits, retain_graph=True)[0]


def expected(advantage, size):
    """The gradient of E r that groups of this size give, over the true one (a projection)."""
    value = 0.0
    for group in map(list, itertools.product(range(3), repeat=size)):
        loss = score_function(logits.log_softmax(0)[group], advantage(marks[group], size))
        value = value - p[group].prod().detach() * loss.value
    return (grad(value) @ grad(p @ marks) / grad(p @ marks).square().sum()).item()


for id, size in (("C27.7", 2), ("C27.8", 4)):
    gap = expected(centred, size) - (1 - 1 / size)
    claim(id, f"G = {size}: the factor of the own mean, less 1 − 1/G", abs(gap), below=1e-9)
claim(
    "C27.9",
    "G = 4: the factor of the others' mean, less 1",
    abs(expected(leave_one_out, 4) - 1),
    below=1e-9,
)

# %% [markdown]
# **DPOK** [@fan2023dpok] adds the price of \eqref{eq:rg-aim}. Both policies take Gaussian steps with the same $s$, so the divergence of a step is $\lVert\mu_\theta-\mu_{\text{ref}}\rVert^2/2s^2$, and the sum over the path
# bounds the divergence of the samples. When both are true reverse processes and the steps are short, the bound is tight. For two Gaussians whose means differ by δ it must come to $\delta^2/2S^2$. We ask for 3 % with 1000 steps.

# %%
# NBVAL_CHECK_OUTPUT
here, there = (exact(gaussian(mean, 0.5), vp()) for mean in (0.3, 0.7))
fine = levels(vp(), 1000)
still = torch.zeros(1, 1).double()  # the difference of the means is the same everywhere
both = [
    (transition(there, still, a, b), transition(here, still, a, b))
    for a, b in zip(fine, fine[1:])
]
total = sum(gaussian_kl(step, held).item() for step, held in both)
claim(
    "C27.10",
    "the sum of the steps' KL over δ²/2S²",
    total / (0.4**2 / 2 / 0.25),
    between=(0.97, 1.03),
)

# %% [markdown]
# ## 27.4 Flow-GRPO: an SDE for a flow
#
# A flow model samples with an ODE, which draws nothing. Its log-probabilities do not exist. **Flow-GRPO** [@liu2025flowgrpo] uses what chapter 4 knows: a whole family of SDEs has
# the ODE's marginals. So the reward judges the samples that the ODE will draw in use, and the network is asked only where it was trained. On straight paths, with time running down,
#
# $$dx=\Big[u+\frac{s_t^2}{2t}\big(x+(1-t)u\big)\Big]dt+s_t\,dw,\qquad s_t=a_{\text F}\sqrt{\frac t{1-t}}. \label{eq:pg-flow}$$
#
# Here $-(x+(1-t)u)/t$ is the score. Noise spreads the density, and the second part of the drift, which goes along the score, gathers it again as fast. Chapter 4's family has the noise ηg with $g^2=2t/(1-t)$, so this is **Euler–Maruyama with η = $a_{\text F}/\sqrt2$**. At $t=1$ the
# rate is infinite, and the code takes 1 − t at the step's end there.
#
# For Gaussian data a step is affine, so mean and variance can be followed without a sample. At t = ¾, ½, ¼ and 0 we ask for the ODE's mean, and for its variance within 3 %, half of what the first step adds.
# Beside it stands the authors' later choice, **coefficients-preserving** steps [@wang2025cps]: they exchange a part of the noise ε for fresh noise, so that a level has exactly the noise that belongs to it.

# %% tags=["fold"]
bell = exact(gaussian(0.5, 0.5), schedule)
probe = torch.tensor([[0.0], [1.0]]).double()


def moments(kernel, n):
    """At each level of n steps from N(0, 1), without sampling: the mean less the marginal's,
    and the variance over the marginal's."""
    mean, var, found, stops = 0.0, 1.0, [], levels(schedule, n, "time", end="clean")
    for a, b in zip(stops, stops[1:]):
        step = kernel(bell, probe, a, b)
        low, high = step.mean[:, 0].tolist()
        mean, var = low + (high - low) * mean, (high - low) ** 2 * var + float(step.std) ** 2
        found.append((mean - 0.5 * b.alpha, var / (0.25 * b.alpha**2 + b.sigma**2)))
    return found


kernels = {"ODE, Euler": partial(transition, eta=0.0)}
kernels |= {f"SDE, a = {a}": partial(flow_transition, noise=a) for a in (0.7, 1.0)}
kernels["preserving, 0.8"] = partial(preserving_transition, noise=0.8)
counts = [5, 10, 20, 40, 80, 160, 320]
walked = {name: [moments(kernel, n) for n in counts] for name, kernel in kernels.items()}
found = {name: [one[-1][1] for one in each] for name, each in walked.items()}
figure(
    plot.curves(
        {name: (counts, values) for name, values in found.items()},
        {"the data": 1.0},
        xlabel="steps",
        ylabel="variance of the samples over the data's",
        log="x",
    ),
    "With ten steps the ODE's variance is a quarter too small. The noisy steps correct most of "
    "that, and approach the data's variance; the preserving ones settle far below it.",
)

# %%
# NBVAL_CHECK_OUTPUT
show(flow_transition)
a, b = schedule.levels([0.6, 0.5])
ours, noise = flow_transition(bell, probe, a, b), y[:2, :1]
wanted, _ = euler_maruyama(0.7 / 2**0.5)(bell, probe, a, b, noise=noise)
gap = (ours.mean + ours.std * noise - wanted).abs().max()
claim("C27.11", "Flow-GRPO's step less Euler–Maruyama's, η = a/√2", gap, below=1e-9)
euler, noisy, _, kept = (torch.tensor(values) for values in found.values())
lost = (noisy[1] - 1) / (euler[1] - 1)
claim("C27.12", "10 steps: variance lost, the SDE's over Euler's", lost, between=(-0.5, 0.5))
stops = torch.tensor(walked["SDE, a = 0.7"][-1])[79::80]  # at t = ¾, ½, ¼ and 0
worst = max(stops[:, 1].tolist(), key=lambda value: abs(value - 1))
claim(
    "C27.13", "320 steps: variance over the marginal's (worst of 4)", worst, between=(0.97, 1.03)
)
claim("C27.36", "the same: mean less the marginal's", stops[:, 0].abs().max(), below=1e-9)
claim("C27.14", "320 steps: the preserving one's variance", kept[-1], between=(0.59, 0.72))

# %% [markdown]
# For $a_{\text F}<1$ the noisy steps converge more slowly than at first order. In the first steps 1 − t is a few times $1/N$, so no $N$ makes
# a step short against it. The very first leaves the variance at $1+a_{\text F}^4/4$ (exercise 1), the next ones add to it, and the excess dies out like $N^{-a_{\text F}^2}$. The preserving steps settle at a variance that is too *small*. They keep the noise of a level exactly, but the
# guess $x_0$ has less variance than the data, and nothing in the step corrects that. They multiply the old ε by cos φ, with φ = 0.8 · 90°, and in the limit of many steps
# $\cos^2(\varphi/2)$ of the variance is left: 0.65. We ask for that within a tenth.
#
# **MixGRPO** [@li2025mixgrpo] draws in a *window* of steps and walks the others by the ODE. The window moves from noise to data during training. Steps without noise have no
# gradient and need no call in the loss.

# %%
# NBVAL_CHECK_OUTPUT
show(windowed)
quiet = partial(transition, eta=0.0)
sde = partial(flow_transition, noise=0.7)
path = roll(teacher, z, walk, windowed(sde, quiet, range(2, 5), 10), draw=Draw(1))
drew = (path.log_probs != 0).any(0).sum()
claim("C27.15", "steps with a log-probability in a window of three", drew, between=(3, 3))

# %% [markdown]
# ## 27.5 DiffusionNFT: no probabilities at all
#
# **DiffusionNFT** [@zheng2025nft] leaves the sampler alone. Draw samples with any solver, give each of them a share $q\in[0,1]$ of goodness, noise them, and contrast two regressions. One velocity moves from the old model
# towards the student, the other one as far away from it:
#
# $$\mathcal L=\mathbb E\big[q\,\lVert u^+-u\rVert^2+(1-q)\,\lVert u^--u\rVert^2\big],\qquad u^\pm=u_{\text{old}}\pm\zeta\,(u_\theta-u_{\text{old}}). \label{eq:pg-nft}$$
#
# What does it learn? Set the derivative at a given $x_t$ to zero. What remains is $\zeta\,(u_\theta-u_{\text{old}})=\mathbb E[(2q-1)(u-u_{\text{old}})\mid x_t]$, and since
# $u_{\text{old}}$ is the mean of $u$,
#
# $$u_\theta=u_{\text{old}}+\frac2\zeta\,\mathrm{Cov}(q,u\mid x_t). \label{eq:pg-nft-min}$$
#
# That covariance is how the velocity of the tilted density changes as the tilt begins. So a round is one Euler step in 1/β, from 0 to 2/ζ, along the tilts of the old model's density by $e^{q/\beta}$. For a Gaussian and a linear $q=\frac12+cx$ the velocity is linear in
# the tilt, and one round lands *exactly* on the tilt with β = ζ/2.
#
# With a pencil: data $\mathcal N(0,1)$, $t=0.5$. Given $x_t$, the velocity is $u=2x_t-2x_0$, and $x_0$ has variance ½. So the covariance is −c, and the velocity falls by 2c/ζ. For data $\mathcal N(m,1)$ it
# is lower by $m$ at this level. So $m=2c/\zeta$, and that is the tilt's mean. The checks below take another level. With three points of data \eqref{eq:pg-nft-min} is a sum of three terms; for the Gaussian, points at ±1 integrate the square loss of an affine student exactly.

# %% tags=["fold"]
t, zeta, c = 0.6, 0.5, 0.3
fixed = lambda draw, n: torch.full((n,), t, dtype=torch.float64)
velocity = lambda model: lambda x: model(x, schedule.at(t)).velocity

# three points of data in the plane, with shares; which noise leads from each to one x_t
corners = torch.tensor([[-1.0, 0.4], [0.2, -0.7], [1.4, 0.5]]).double()
chances, q = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.1, 0.6]]).double()
eps = (torch.tensor([0.3, -0.2]) - (1 - t) * corners) / t
seen = (chances.log() - eps.square().sum(1) / 2).softmax(0)  # given x_t
u = eps - corners
mean = seen @ u  # the old model's velocity there
best = mean + 2 / zeta * (seen * (q - seen @ q)) @ (u - mean)
says = lambda u: Denoiser(Affine(0.0, u.tolist()), schedule, "velocity")

# N(0.5, 0.5²) and noise, by four points; the tilt
signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 2)
x0, quarter = 0.5 + 0.5 * signs[:, :1], torch.full((4,), 0.25).double()
share = 0.5 + c * (x0[:, 0] - 0.5)
aim = reward_tilt(gaussian(0.5, 0.5), Linear(torch.full((1,), c, dtype=x0.dtype)), zeta / 2)


def student_like(model):
    """An affine student that says at this level what the model says."""
    low, high = velocity(model)(probe)[:, 0].tolist()
    return Denoiser(Affine(high - low, low), schedule, "velocity")


# %%
# NBVAL_CHECK_OUTPUT
def nft_loss(new, old, x0, noise, t, share, zeta):  # of each row
    x, u = (1 - t) * x0 + t * noise, noise - x0
    told = old(x)
    move = zeta * (new(x) - told)
    plus, minus = (told + move - u).square().sum(1), (told - move - u).square().sum(1)
    return share * plus + (1 - share) * minus


def slopes(student, old, x0, noise, share, mass):  # the largest, of the mean by these masses
    each = nft_loss(velocity(student), velocity(old), x0, noise, t, share, zeta)
    grads = torch.autograd.grad(mass @ each, student.net.parameters())
    return max(g.abs().max() for g in grads)


plain = nft_loss(velocity(says(best)), velocity(says(mean)), corners, eps, t, q, zeta).mean()
ours = nft(says(best), says(mean), Batch(corners, noise=eps), q, Draw(0), beta=zeta, times=fixed)
gap = abs(plain / ours.value - 1).detach()
claim("C27.16", "in the plane: plain loss over the library's, less 1", gap, below=1e-9)
least = slopes(says(best), says(mean), corners, eps, q, seen)
claim("C27.37", "three points: gradient at u_old + (2/ζ) Cov", least, below=1e-9)
bells = {"tilt": student_like(exact(aim.mixture, schedule)), "old": student_like(bell)}
found = {k: slopes(one, bell, x0, signs[:, 1:], share, quarter) for k, one in bells.items()}
claim("C27.17", "a Gaussian: gradient at the exact tilt", found["tilt"], below=1e-9)
claim("C27.18", "a Gaussian: gradient at the old model", found["old"], above=0.01)

# %% [markdown]
# For mixtures many small rounds are needed. Their fixed point is no tilt, since nothing holds the student to π: NFT, like DDPO, climbs on until you stop it or add an anchor.
#
# ## 27.6 Adjoint matching: the other exact one
#
# If the reward does have a gradient, there is a method that aims at the tilt itself [@domingo2025adjoint]. It treats each step's drift as a control that costs energy. The best control at $x$ is $s\,\nabla\log\mathbb E[e^{r/\beta}\mid x]$, a mean over the reference's paths from there, which nobody knows.
# But the vector $g$ below, computed backwards along one path through the *reference's* steps, has this gradient as its mean over the optimal paths through $x$, and a regression finds means:
#
# $$g_N=\nabla r(x_0)/\beta,\qquad g_k=\Big(\frac{\partial\mu_{\text{ref}}}{\partial x}\Big)^{\!\top}g_{k+1},\qquad\mathcal L=\tfrac12\,\mathbb E\,\Big\lVert\frac{\mu_\theta-\mu_{\text{ref}}}s-s\,g_{k+1}\Big\rVert^2. \label{eq:pg-am}$$
#
# Step $k$ leads to $x_{k+1}$, so its control is $s\,g_{k+1}$. The student only regresses on it, one step at a time, so no graph through the sampler is held. One condition is essential: the sampler must be *memoryless*. Its end must not depend on the noise that it began with. That noise has a fixed law,
# so the best control gives the tilted law of paths divided by $\mathbb E[e^{r/\beta}\mid x_{\text{start}}]$, and only then is this a constant.
# Ancestral sampling from pure noise is memoryless. Flow-GRPO's SDE is so for $a_{\text F}=\sqrt2$; with less noise it is not.


# %% tags=["fold"]
def plain_matching(student, reference, states, pull, k):
    """Of step k, for pull = ∇r(x₀)/β (B, 2)."""
    g = pull
    for j in reversed(range(k + 1, len(walk) - 1)):
        x = states[:, j].clone().requires_grad_()
        (g,) = torch.autograd.grad(transition(reference, x, walk[j], walk[j + 1]).mean, x, g)
    at = states[:, k], walk[k], walk[k + 1]
    new, held = transition(student, *at), transition(reference, *at)
    return ((new.mean - held.mean) / new.std - new.std * g).square().sum(1).mean() / 2


# %%
# NBVAL_CHECK_OUTPUT
show(adjoint_matching)


def adjoint_matched(beta, updates=60, lr=6e-3):
    student = adapted(teacher)
    optim = torch.optim.Adam(student.net.adapter.parameters(), lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, updates)
    for step in range(updates):
        draw = Draw(step)
        with torch.no_grad():
            path = roll(student, draw.normal((128, 2)), walk, draw=draw)
        end = path.x0.requires_grad_()
        (pull,) = torch.autograd.grad(truth(end).sum() / beta, end)
        g = lean_adjoints(teacher, path.states, pull, walk)
        match = partial(adjoint_matching, student, teacher, path.states, g, walk)
        optim.zero_grad()
        sum(match(k).value for k in range(9)).backward()  # the last step draws nothing
        optim.step()
        rate.step()
    return student


path, pull = roll(tried, z, walk, draw=Draw(2)), Draw(3).normal((400, 2))
states, g = path.states.detach(), lean_adjoints(teacher, path.states, pull, walk)
plain = plain_matching(tried, teacher, states, pull, 4)
ours = adjoint_matching(tried, teacher, states, g, walk, 4).value
claim(
    "C27.38", "a step's plain loss over the library's, less 1", abs(plain / ours - 1), below=1e-4
)

# %% [markdown]
# ## 27.7 The frontier
#
# Now all of them at equal samples: 60 updates of 128. The reward is chapter 26's kind, $-\frac12\lVert x-c\rVert^2$ with $c=(1.5,0)$, and everybody sees the truth itself. Reward and divergence are measured on samples of each student's ODE, as in
# [26.7](26_reward_gradients.ipynb).
#
# Two have a window of three steps: MixGRPO, and the later Flow-GRPO, with preserving steps and no price. From chapter 26 comes DRaFT with an anchor.
#
# *Predict first: which will end on the line, and which will run off to the right?* Adjoint matching has β = 1: we ask for its tilt's divergence within a quarter. The
# anchor, also of weight 1, is only nearly a divergence: we allow a factor of two.

# %%
grpo = partial(recipes.flow_grpo, schedule, group=128, clip=0.1, **ten)
window = dict(window=3, move=9)  # once from noise to data in 60 updates
made = {
    "DDPO": rl(),
    "DPOK, 0.6": rl(kl=0.6),
    "Flow-GRPO, 0.6": grpo(kl=0.6),
    "MixGRPO, 0.6": grpo(kl=0.6, **window),
    "Flow-GRPO, later": grpo(kl=0.0, preserving=True, noise=0.8, **window),
    "DRaFT, anchor 1": recipes.reward_gradient(schedule, last=10, kl=1.0, **ten),
}
runs = {name: finetuned(recipe, truth) for name, recipe in made.items()}
look = recipes.nft(schedule, steps=10, spacing="time", group=128, kl=0.0)
runs["NFT"] = finetuned(look, truth, decays={"old": 0.5})
students = {name: student for name, (student, _) in runs.items()}
students["adjoint matching"] = adjoint_matched(beta=1.0)

# %%
# NBVAL_CHECK_OUTPUT
frontier = Frontier(mixture, truth, torch.logspace(2, -3, 400).tolist())
forty = levels(schedule, 40, t_max=0.999)
found = frontier.measured_together(students, forty, n=500)
figure(
    plot.curves(
        {},
        {"the exact optimum": (frontier.kl, frontier.reward)},
        points={name: ([kl], [reward]) for name, (kl, _, reward, _) in found.items()},
        xlabel="KL to the model (nats)",
        ylabel="mean reward",
        xlim=(-0.2, 6.0),
    ),
    "The three without a price have run to a divergence of several nats for the last tenth of "
    "reward; MixGRPO ends at 1.7 nats, the others below one, adjoint matching beside the tilt of "
    "its β.",
)
far = {name: kl / reward_tilt(mixture, truth, 1.0).kl for name, (kl, *_) in found.items()}
shares, above = zip(*(frontier.place(*one) for one in found.values()))
claim("C27.19", "above the frontier, in standard errors (most of eight)", max(above), below=3)
near = far["adjoint matching"]
claim("C27.20", "adjoint matching: its KL over the tilt's", near, between=(0.75, 1.25))
claim("C27.21", "adjoint matching: share of the possible rise", shares[-1], above=0.85)
claim("C27.22", "DDPO's KL over DPOK's", far["DDPO"] / far["DPOK, 0.6"], above=3)
priced = far["Flow-GRPO, later"] / far["MixGRPO, 0.6"]
claim("C27.31", "two windows: KL without a price over with", priced, above=1.5)
held = far["DRaFT, anchor 1"]
claim("C27.32", "DRaFT with an anchor: its KL over the tilt's", held, between=(0.5, 2))

# %% tags=["fold"]
paid = {}
for name in ("DPOK, 0.6", "NFT", "DRaFT, anchor 1"):
    updates, means = plot.running_mean(runs[name][1]["student/reward"], 5)
    paid[name] = 128 * updates, means
figure(
    plot.curves(
        paid,
        {"the tilt of β = 1": reward_tilt(mixture, truth, 1.0).reward},
        xlabel="samples that the judge has marked",
        ylabel="mean reward",
    ),
    "All three rise alike at first. NFT is the first to reach the reward of the tilt of β = 1, "
    "and climbs on until hardly any is lacking; DPOK follows, DRaFT with an anchor comes last.",
    "Running means over five updates.",
)

# %% [markdown]
# Of all eight, only adjoint matching has a theorem behind its β. (The students' ODE is another sampler than the
# ten steps of training, so nobody has to end exactly on the line.)
#
# | method | needs of the reward | aims at | network calls for a sample of $N$ steps |
# |---|---|---|---|
# | DDPO, Flow-GRPO without KL | its value | the reward alone: stop it | $N$, and $N$ with a gradient |
# | DPOK, Flow-GRPO with KL | its value | reward less a *bound* of the divergence | $N$ more, of the reference |
# | MixGRPO with KL | its value | as Flow-GRPO with KL | $N$, a window's with a gradient, a window's of the reference |
# | the later Flow-GRPO | its value | the reward alone: stop it | $N$, and a window's with a gradient |
# | NFT | its value, in [0, 1] | a step along the tilts each round, exact for one Gaussian | $N$ of any solver, 1 of the old model, and 1 with a gradient; with its anchor 2 more |
# | adjoint matching | its gradient | the tilt itself | $N$, $2N$ of the reference, $N$ with a gradient |
# | DRaFT-K with an anchor (chapter 26) | its gradient | near the frontier, at no known β | $N$, of these $K$ with a gradient, and 2 |
# | DRaFT-K without an anchor | its gradient | the reward alone: stop it | $N$, of these $K$ with a gradient |
# | DPO, in a table of values (chapter 28) | choices, no reward | the tilt itself, exactly | none: pairs that somebody judged |
# | Diffusion-DPO (chapter 28) | choices, no reward | a *bound* of DPO's loss | no sampling: for each picture of a pair 1 of the reference, 1 with a gradient. Chapter 28's runs saw 300 · 256 = 76 800 judged pairs. With its weight $B=100$ the reward ends .01 ± .05 below that of the tilt with the same KL (0.11 nats), with $B=20$ .02 ± .02 (1.87): one run each, measured by hand on 4000 samples of 160 steps, ± two standard errors of that |
# | NPO (chapter 29) | what its method needs, negated | the tilt by $-r$, as exactly as its method; used in guidance | its method's |
#
# How many samples do they need? `python -m bench reward_finetuning` trains five, three seeds each. It prints how far the mean reward is below that of the tilt
# with the same KL (± two standard errors), and that KL.

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
kept = json.loads((RESULTS / "reward_finetuning.json").read_text())
table = {}
for row in kept["rows"]:
    one = dict(zip(kept["columns"], row))
    table.setdefault(one["method"], {})[one["samples"]] = one
marked = list(table["NFT"])
print("after samples   " + "".join(f"{n:>20d}" for n in marked))
for name, row in table.items():
    cells = [f"{one['lacks']:.2f} ± {one['±']:.2f}, {one['KL']:.2f}" for one in row.values()]
    print(f"{name:16s}" + "".join(f"{cell:>20s}" for cell in cells))

few, more, last = 1280, 2560, 7680
least = min(row[few]["lacks"] / row[few]["±"] for row in table.values())
claim("C27.40", "1280 samples: what is lacking, over its ± (least of 5)", least, above=2)


def gained(row):
    """How much less is lacking at 7680 samples than at 2560, over the ± of the difference."""
    error = math.hypot(row[more]["±"], row[last]["±"])
    return (row[more]["lacks"] - row[last]["lacks"]) / error


least = min(map(gained, table.values()))
claim("C27.41", "less is lacking at 7680 than at 2560, over its ± (least of 5)", least, above=1)
nft_end, matched = (table[name][last] for name in ("NFT", "adjoint matching"))
least = (nft_end["KL"] - nft_end["± KL"]) / (matched["KL"] + matched["± KL"])
claim("C27.42", "7680: NFT's KL over adjoint matching's, at the least", least, above=3)

# %% [markdown]
# After 1280 samples nobody is near; DRaFT, which is least below, has moved least. After 7680 four are .07 to .1 below, and within their ± we cannot tell them apart. NFT is nearest,
# .04 below, but at seven times adjoint matching's divergence.
#
# ## 27.8 One step
#
# What if your model is distilled, and makes $x_0=f_\theta(z)$ in one call? After the noise $z$ nothing is drawn, and the density of $z$ does not depend on θ. *There is no action.* The sum in
# \eqref{eq:pg-sf} is empty, so its gradient is zero by construction, and `recipes.ddpo` refuses one step.
#
# So give it an action: add a normal $s\xi$ to the end. Take 27.5's Gaussian $\mathcal N(m,S^2)$, its perfect student $f(z)=m+Sz$, and the reward $x$. How should $f$ be shifted? One sample's policy gradient
# is $A\,\xi/s$, with $A=Sz+s\xi$. NFT at $t=1$ contrasts $x_0$ with what the student makes of *another* noise. Both are right on average, but look at the variance over the squared mean:
#
# $$\frac{A\,\xi}s=\frac{Sz\xi}s+\xi^2:\ \ \frac{S^2}{s^2}+2,\qquad\qquad(2q-1)\big(x_0-f(\varepsilon)\big)\propto z(z-\varepsilon):\ \ 3. \label{eq:pg-one}$$
#
# The less noise you add, the more samples the ratio needs, without bound. Now train both with the same 60 × 128 noises $z$. Our recipe has $q=\frac12+A/10$, with $A$ in standard deviations and at most 5. So $c=1/(10S)=0.2$, ζ = 0.1 makes β = 0.05, and by
# \eqref{eq:pg-nft-min} the tilt's mean is $0.5+0.25\cdot0.2/0.05=1.5$. We allow
# 15 % of the rise, twice the worst of 24 trial runs. *What will the ratio do with $s=0.001$, and with $s=S$?*

# %% tags=["fold"]
top, S = schedule.at(1.0), 0.5
start = lambda c=-0.5: Denoiser(Affine(0.5, c), schedule, "velocity")  # z ↦ 0.5 + 0.5 z
made_of = lambda student, z: student(z, top).x0  # one call
gain = lambda x0: (x0[:, 0] - 0.5) / S


def relative_variance(loss, slope, n=20_000):
    """The variance of one sample's slope in the shift, over the square of the true one."""
    student = start(np.full((n, 1), -0.5))  # a shift for each sample
    (each,) = torch.autograd.grad(n * loss(student, Draw(0), n), student.net.c)
    return each.var() / slope**2


def rise(loss, seed, updates=60):
    """How far the mean of the samples moves, over how far the tilt's does."""
    student = start()
    optim = torch.optim.Adam(student.net.parameters(), 0.05)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, updates)
    for step in range(updates):
        optim.zero_grad()
        loss(student, Draw(100 * seed + step), 128).backward()
        optim.step()
        rate.step()
    there = reward_tilt(gaussian(0.5, S), Linear(torch.ones(1).double()), S**2)
    return (made_of(student, torch.zeros(1, 1)).item() - 0.5) / (there.reward - 0.5)


# %%
# NBVAL_CHECK_OUTPUT
def ratio(student, draw, n, s):  # DDPO-IS: one action, N(f(z), s²)
    z, xi = draw.normal((n, 1)).double(), draw.normal((n, 1)).double()
    action = Gaussian(made_of(student, z), s)
    x0 = action.mean.detach() + s * xi
    now = log_prob(action, x0)
    return clipped_ratio(now, now.detach(), gain(x0), clip=0.1).value


def contrast(student, draw, n):  # NFT: the start's samples, contrasted at t = 1
    x0 = made_of(start(), draw.normal((n, 1)).double()).detach()
    share, at_noise = 0.5 + gain(x0).clamp(-5, 5) / 10, lambda draw, n: torch.ones(n).double()
    return nft(student, start(), Batch(x0), share, draw, beta=0.1, times=at_noise).value


sizes = {s: partial(ratio, s=s) for s in (S, 0.1, 0.01, 0.001)}
law = [relative_variance(loss, 1 / S) / (S**2 / s**2 + 2) for s, loss in sizes.items()]
worst = max(law, key=lambda value: abs(value - 1))
claim("C27.23", "ratio: the variance over the law's (worst of 4)", worst, between=(0.9, 1.1))
three = relative_variance(contrast, 0.04 * S)  # 2ζ E (2q − 1) x₀
claim("C27.33", "NFT: variance over mean²", three, between=(2.7, 3.3))
ends = [rise(contrast, seed) for seed in range(6)]
worst = max(ends, key=lambda value: abs(value - 1))
claim("C27.24", "NFT: rise over the tilt's (worst of 6 seeds)", worst, between=(0.85, 1.15))
lost = np.mean([rise(sizes[0.001], seed) for seed in range(6)])
claim("C27.34", "ratio, s = 0.001: the same (mean of 6 seeds)", lost, below=0.5)
claim("C27.35", "ratio, s = S: the same (one seed)", rise(sizes[S], 0), above=0.85)

# %% [markdown]
# With $s=S$ the ratio climbs, but then each picture shows a noise as large as the data. With little noise it walks blindly. NFT has the tilt, and a limit of its own: at $t=1$ the covariance in
# \eqref{eq:pg-nft-min} is the same for all noises. So it shifts all samples alike, which is the tilt of a Gaussian but not of two modes.
#
# ## 27.9 Healthy and sick curves
#
# With fresh samples ρ is 1, and the advantages of a group add up to zero. So without a price the *value* of the loss is zero, always. Here is DDPO's run, and
# the same at a tenth and at ten times its rate. *Which one would you keep?* Besides the curves, measure what they do not show: the spread of the
# samples. It is a collapse when less than a quarter of the model's is left. A run with a price should have about the spread of the tilt with the same divergence.

# %%
# NBVAL_CHECK_OUTPUT
other = {lr: finetuned(rl(), truth, 30, lr=lr) for lr in (2e-4, 2e-2)}
curves = {"rate 2e-3": runs["DDPO"][1]["student/reward"][:30]}
curves |= {f"rate {lr:g}": history["student/reward"] for lr, (_, history) in other.items()}
figure(
    plot.curves(
        {name: plot.running_mean(values, 3) for name, values in curves.items()},
        xlabel="update",
        ylabel="mean reward",
    ),
    "The middle rate climbs within twenty updates, the large one within five; the small one "
    "hardly moves.",
    "Running means over three updates.",
)
quiet_loss = max(abs(v) for v in runs["DDPO"][1]["student/loss"][:30])
claim("C27.25", "largest loss of DDPO's run, in size", quiet_loss, below=0.01)
spread = lambda model: sample(model, z, walk).detach().std(0).mean()
narrow = spread(other[2e-2][0]) / spread(teacher)
claim("C27.26", "rate 2e-2: spread of the samples over the model's", narrow, below=0.25)
at = frontier.at(found["DPOK, 0.6"][0])
optimum = frontier.tilts[at].mixture.sample(4000, Draw(0))[0].std(0).mean()
wide = spread(students["DPOK, 0.6"]) / optimum
claim("C27.27", "DPOK: spread over that of the tilt with its KL", wide, between=(0.6, 1.4))

# %% [markdown]
# The fastest curve belongs to a model that draws one point, and the second fastest is on its way there. Keep neither: the healthy run is DPOK's. Plot the divergence, or the spread within a group, beside the reward.
#
# ## 27.10 Rung 2: digits with little ink
#
# One of DDPO's rewards is the size of the JPEG file, which has no gradient. Ours is a count: minus the share of pixels above mid-grey. The student is a LoRA of
# rank 4 on the digits' teacher, with groups of 16 for each of four digits. One run is greedy, the other pays for its divergence. *What will the greedy one draw?* We ask that
# the greedy count falls below a fifth of the teacher's, and the share of digits that the classifier reads by at least 0.1; the other student's must stay, within 0.05.

# %%
digits, reader = digits_teacher(), digits_classifier()
counted = lambda x, cond=None: -(x > 0).flatten(1).float().mean(1)
kind = lambda step: Draw(step).integers(10, 4).repeat_interleave(16)
asked = lambda step: Batch(torch.zeros(64, 1, 8, 8), kind(step))
seen = {"teacher": digits}
for name, kl in (("greedy", 0.0), ("with KL", 0.192)):
    torch.manual_seed(0)
    made = recipes.ddpo(digits.schedule, group=16, clip=0.1, kl=kl, **ten)
    seen[name] = replace(digits, net=twin(digits.net, rank=4))
    actors = cast(made, digits, starts={"student": seen[name]}, given={"reward": counted})
    optim = torch.optim.Adam(adapters(seen[name].net).values(), 1.5e-3)
    perform(made, actors, {"student": optim}, asked, 35, Draw(0))

# %% tags=["fold"]
names = torch.arange(10).repeat(20)
noise, stops = Draw(10).normal((200, 1, 8, 8)), levels(digits.schedule, 10, "time", end="clean")
drawings = {
    name: sample(model, noise, stops, cond=names).detach() for name, model in seen.items()
}
figure(
    plot.pictures({name: x[:10] for name, x in drawings.items()}),
    "The greedy student draws a few grey specks; the one with a price draws the teacher's "
    "digits with slightly thinner strokes.",
    "The same noise in each column.",
)

# %%
# NBVAL_CHECK_OUTPUT
count = {name: counted(x).mean() for name, x in drawings.items()}
legible = {name: (reader(x).argmax(1) == names).float().mean() for name, x in drawings.items()}
left = count["greedy"] / count["teacher"]
claim("C27.28", "greedy: pixels counted, over the teacher's", left, below=0.2)
lost = legible["greedy"] - legible["teacher"]
claim("C27.39", "greedy: digits read, less the teacher's", lost, below=-0.1)
change = legible["with KL"] - legible["teacher"]
claim("C27.29", "with KL: digits read, less the teacher's", change, between=(-0.05, 0.05))

# %% [markdown]
# To the eye hardly a digit is left: specks, in greys that the count does not see. (The classifier still reads most.) A reward without a gradient is hacked like any other, and here a small price is enough.
#
# ## 27.11 What should look wrong here
#
# A judge adds 10 to every mark, so that they are near 8.4 instead of −1.6. Nothing else changes, so the expected gradient of \eqref{eq:pg-sf} is the same. *Predict by what factor the variance of its estimate grows without a baseline, and with
# the others' mean.* If reward and $\nabla\log p$ were independent, the factor would be about the mean square of the mark over that of the advantage: (8.4² + 1.46²) against 1.46² · 32/31. That is 33; we allow a factor of three.


# %%
# NBVAL_CHECK_OUTPUT
def noisiness(*advantages):
    """The variances of the policy gradient's estimate from 32 samples, summed over weights."""
    found = [[] for _ in advantages]
    for seed in range(40):
        path = roll(student, Draw(seed).normal((32, 2)), walk, draw=Draw(seed))
        states, rewards = path.states.detach(), truth(path.x0).detach()
        pairs = list(zip(walk, walk[1:]))[:-1]
        steps = [transition(student, states[:, k], a, b) for k, (a, b) in enumerate(pairs)]
        now = [log_prob(step, states[:, k + 1]) for k, step in enumerate(steps)]
        for advantage, each in zip(advantages, found):
            value = score_function(torch.stack(now, 1), advantage(rewards)).value
            leave = student.net.adapter.leave.parameters()
            grads = torch.autograd.grad(value, leave, retain_graph=True)
            each.append(torch.cat([g.flatten() for g in grads]))
    return [torch.stack(each).var(0).sum() for each in found]


student = adapted(teacher)
plain, with_others = noisiness(lambda r: r + 10, lambda r: leave_one_out(r + 10, 32))
factor = plain / with_others
claim("C27.30", "marks near 8.4: variance without a baseline over with", factor, between=(11, 99))

# %% [markdown]
# ## 27.12 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | the first ratio is not exactly 1 | sampler and loss differ: guidance, autocast, dropout, batch layout | make them the same call; assert ρ = 1 once |
# | log-probabilities explode at the last step | $s$ is tiny there | leave out the last step |
# | everything is clipped, or nothing | the clip belongs to a sum or to a mean over values | 0.1 to 0.2 for a sum over $d$ values; that over $d$ for their mean (27.2). The $10^{-4}$ of DDPO's code, and of our recipe files, lets a step of 16 384 values become five times as probable. With one update from each set of pictures, as in these files, ρ is 1 and nothing is clipped |
# | NaN in the advantages | all rewards of a group are equal: 0/0 | add $10^{-4}$ to the deviation, or drop the group |
# | reward up, pictures alike, grid artefacts | no price, or a rate that is too high | a KL term; divide the rate by three; stop early |
# | no progress, the loss near 0 | the loss is always near 0 | look at the reward; and with several updates a set (27.2) at ρ and at the clipped share |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | method, if the reward has a gradient | DRaFT with an anchor (chapter 26) | adjoint matching, if β must be known; `full_scale.train` does not have it |
# | method, if it has none | DDPO for a network of ε or $v$, Flow-GRPO for a flow; give DDPO a price as well: add `--hyper.kl .04` to the command below | ancestral steps draw by themselves; a flow is used by its ODE, and Flow-GRPO's steps keep its marginals. (The plane's DDPO draws ancestral steps on a flow.) NFT, if you want your own solver, or no probabilities; stop it early |
# | method, for one step | NFT, with `times` at $t=1$ in a loop of your own | with little added noise ratios of one step vary more than NFT (27.8). But NFT shifts all samples alike, and so does not choose between modes. `full_scale.train nft` draws other times |
# | group size $G$ | 8 to 24 for marks; for yes or no at least $2/y$, with $y$ the rarer answer's share | the others' mean adds a share $1/(G-1)$ to an advantage's variance. A group of equal answers teaches nothing; that happens with probability $y^G+(1-y)^G$, at most .135 at $G=2/y$ |
# | the price (`--hyper.kl`) of DDPO and Flow-GRPO | .6 on the plane; `flow_grpo.toml` has .04, from a release whose price is not in our unit (below). `ddpo.toml` has none, as released, and an alarm tells when the student is far, at .05 nats a value; .04 is where we would begin, untried | pictures alike: more; the reward stands still: less. As a β it is the price times the reward's deviation within a group, since advantages are divided by that. It *shrinks* as samples become alike, and the price with it. DPOK: .6 · 1.45 = .87 at first, .6 · .30 = .18 at the end, and its divergence is the tilt's with β = .33. MixGRPO ended at .6 · .05 = .03, hence its 1.7 nats |
# | clip (`--hyper.clip`) | 1e-4, as released for pictures; 0.1 on the plane | for 16 384 values 27.2's reckoning says 1e-5. It acts only with several updates a set (`--hyper.epochs` of `ddpo`). What it adds to 27.2's bias we did not measure |
# | rate | 3e-4 for adapters, as DDPO and Flow-GRPO released; rank 4 for DDPO, 32 for Flow-GRPO and NFT, as in the recipe files. (Our plane takes 2e-3, adjoint matching 6e-3 that falls along a cosine, 27.10 takes 1.5e-3) | reward up and spread down: lower it, or add a price |
# | rollouts | Flow-GRPO 10 steps with $a_{\text F}=.7$, DDPO 50; the guidance of use, in sampling and loss alike | as released; sample the trained flow with 40 |
# | NFT's ζ (`--hyper.beta`) | 1; a smaller one is bolder | a round steps by 2/ζ in 1/β of $q$; with $q=\frac12+A/10$ that is .2/ζ for a reward in its deviations. It drifts on (27.5). Its `--hyper.kl`, 1e-4, is the weight of a distance of velocities; what it holds we did not measure |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | on eight A100 `ddpo` needs 9 GB a card and 5.2 hours, and back-propagation, `reward_gradient` needs 17 GB a card and 0.9 hours (each as its file sets it, for other numbers of samples): counted, at an *assumed* 35 % of their peak |
# | seeds, to compare two settings | three | the runs of 27.7, 27.9 and 27.10 have one seed each; 27.7's table of samples is a benchmark's, with three, and of adjoint matching, whose rate falls to zero, each column is a run of its own. On pictures this chapter measures DDPO alone, so 27.7's order is the plane's |
#
# | | the real run, as read in the released codes or their threads |
# |---|---|
# | DDPO | 50 steps, η = 1, scale 5 inside training too, rate $3\cdot10^{-4}$, the gradient's norm clipped to 1, 100 epochs of 256 samples in about four hours on eight A100 |
# | DPOK | KL weight 0.01 on the difference of ε, rank 4, rate $10^{-5}$, ratio clip $10^{-4}$ |
# | Flow-GRPO, mid-2025 | 24 pictures for each of 48 prompts, 10 steps for training and 40 for use, $a_{\text F}=0.7$, β 0.04 or 0.01, rate $3\cdot10^{-4}$. Its printed KL lacks the step's length, so that its β is not ours. GenEval from 0.63 to 0.95 is the paper's figure, not reproduced here |
# | Flow-GRPO, later | preserving steps with 0.8, a window of three, clip $10^{-5}$, no guidance, no KL |
# | NFT | 10 steps of a second-order solver, ζ = 1 or 0.1, an old model with decay up to 0.5. GenEval from 0.24 to 0.98, also the paper's |
#
# **Where the toy stops being true.** A reward costs nothing here, and 128 samples say much about a plane.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `recipes.ddpo`, `flow_grpo`, `nft` | the same recipes, in `full_scale.train`; NFT's released code also divides each error by its own mean size, which moves the minimum in few dimensions |
# | `group=128`, one "prompt" | groups of 16 to 24 of a prompt, gathered over all processes |
# | `counted`, `yes` | compressibility, OCR, a detector, a language model's verdict |
# | `windowed(…)` | `--hyper.window 3` |
#
# | how far up the ladder: rung 1 | rung 2 | rung 3 |
# |---|---|---|
# | exactly, and trained on the plane | digits; through the engine all three learn what the judge of captioned shapes likes, in the tests | they train Stable Diffusion's classes in the tests, with random weights |
#
# ```bash
# full_scale/launch/one_node.sh ddpo --weights weights/stable-diffusion-v1-5 \
#     --data data/prompts --out runs/ddpo --reward compressibility
# full_scale/launch/one_node.sh flow_grpo --weights weights/stable-diffusion-3.5-medium \
#     --data data/prompts3 --out runs/grpo \
#     --reward clip --reward-weights weights/clip-vit-large-patch14
# ```
#
# ## 27.13 Exercises
#
# 1. *(pencil)* The first step of \eqref{eq:pg-flow} goes from $t=1$ to $1-1/N$, with 1 − t replaced by $1/N$. Show that it multiplies $x$ by $1-a_{\text F}^2/2$, up to $O(1/N)$, and leaves the variance $1+a_{\text F}^4/4$.
# 2. *(code)* Let `clip` be 1e-4 in a run with `epochs=4`, and compare with 0.1. Check: the mean of the metric `student/clipped` is above 0.4 for one of them, and below 0.15 for the other.
# 3. *(code)* Give adjoint matching too little noise: `kernel=partial(transition, eta=0.3)` in `roll`, `lean_adjoints` and `adjoint_matching`. Where does it end? Check: its KL stays below 0.8 of the tilt's.
# 4. *(open)* Make NFT end on the frontier: anchor, early stop, or another ζ? Check: `shares` of yours is above 0.85 at a KL below 1.
#
# <details><summary>Answers to 1 and 3</summary>
#
# 1. The rate $s^2/t$ is $a_{\text F}^2N$ and $dt=-1/N$. At $t=1$ the factor of $u$ is $dt$, which is $O(1/N)$, and that of $x$ is $1-a_{\text F}^2/2$. The noise adds $s^2/N=a_{\text F}^2$. So the variance is $(1-a_{\text F}^2/2)^2+a_{\text F}^2=1+a_{\text F}^4/4$.
#
# 3. It stops short of the tilt. With little noise the end still depends on the noise it started from, which nobody tilts, and a step may only move the sample by what it draws.
#
# </details>
#
# ## References
#
# The score function: [@williams1992reinforce]; PPO: [@schulman2017ppo]; GRPO: [@shao2024grpo]. DDPO: [@black2024ddpo]; DPOK: [@fan2023dpok]. Flow-GRPO: [@liu2025flowgrpo]; MixGRPO: [@li2025mixgrpo];
# preserving steps: [@wang2025cps]. DiffusionNFT: [@zheng2025nft]. Adjoint matching: [@domingo2025adjoint].
