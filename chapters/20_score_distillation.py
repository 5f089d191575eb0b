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
#     title: Score distillation
#     summary: Train a one-step generator on the difference of two scores; see why one score alone collapses it.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - chapter 1 (scores, denoising), PyTorch, the chain rule, Gaussian densities; guidance is recapped in 20.1
# ---

# %% [markdown]
# # 20 Score distillation: a generator that follows two scores
#
# A diffusion model calls its network many times for one sample. Train a **student** that turns noise into a sample in one call,
# and let the diffusion model be its **teacher**: it says how each of the student's samples should change. You need no picture,
# only the teacher.
#
# There are two ways to write this down. They differ in one term, and here is what that term does. The data are GMM5, the book's five
# modes in the plane, and the teacher is the perfect network of these data.
#
# (In code, a *recipe* says which networks are trained, and on what loss; `learn` runs one with Adam; its `sampler` makes samples. The
# recipes are derived below.)

# %% tags=["fold"]
from book import claim, figure, show  # first: it tells torch not to spin
import copy
import math
from dataclasses import replace
from functools import partial

import torch
from scipy.optimize import minimize
from dlib import NULL, Batch, Denoiser, Draw, Mixture, cosine, exact, fake_score
from dlib import metrics, plot, recipes, sds, twin, vsd
from dlib.losses.score_distillation import injected, kl
from dlib.nets import MLP
from toy_data import caption_batches, digits_classifier, digits_split, digits_teacher
from toy_data import gaussian, gmm5, handed, learn, shapes_teacher
from toy_data.digit_scores import digits_floor, digits_variety, sampler_scores
from toy_data.shape_captions import NULL_TOKENS, say
from toy_data.shape_scores import asked, draw_shapes, scores, variety

mixture, schedule, noise = gmm5(), cosine(), Draw(9).normal((4000, 2))
teacher = exact(mixture, schedule)
plain = {"omega": 0.0, "omega_fake": 0.0}  # no guidance


# %%
def points(recipe, steps, predicts="v", seed=0):
    """4000 samples of a student that knew nothing before these steps."""
    torch.manual_seed(seed)
    new = lambda: Denoiser(MLP(2, width=64, depth=2), schedule, predicts)
    roles = {"teacher": teacher} | {role: new() for role in recipe.trained}
    shape = lambda step: Batch(torch.empty(256, 2))  # no data: its shape counts
    learn(recipe, roles, shape, steps, rates={"student": 1e-3, "fake": 3e-3}, seed=seed)
    return recipe.sampler(roles["student"], noise).detach()


# %%
right = recipes.swiftbrush(schedule, None, **plain)  # VSD; shown in 20.7
made = {
    "one-step teacher": right.sampler(teacher, noise),
    "SDS": points(recipes.sds(schedule, None, omega=0.0), steps=300),
    "VSD": points(right, steps=600),
}
figure(
    plot.modes(made, mixture),
    "The teacher in one step makes a single point in the middle, SDS a small speck "
    "between two modes; VSD fills all five modes.",
    "4000 samples, one call each. Circles: three standard deviations of each mode.",
)

# %% [markdown]
# Left: the teacher, asked once at pure noise, answers with the mean of the data. Middle: *score distillation sampling* ends in a speck
# between the modes. Right: *variational score distillation* finds all five.
#
# ## 20.1 Recap: noise, score, guidance
#
# Noise makes $x_t=\alpha x_0+\sigma\varepsilon$ of a sample. At $t=1$ it is all noise, and here $\alpha^2+\sigma^2=1$. Call the density of noised data
# $q_t$. A denoiser that was trained by regression knows $\varepsilon_q(x)=\mathbb E[\varepsilon\mid x_t=x]$, and by Tweedie's formula
# ([chapter 1](01_score_matching.ipynb), 1.4) that is the score:
#
# $$\nabla\log q_t(x)=-\frac{\varepsilon_q(x)}{\sigma}. \label{eq:sd-score}$$
#
# The same answer can be given as $\hat x_0=(x-\sigma\varepsilon_q)/\alpha$, or as $v=\alpha\varepsilon-\sigma x_0$, from which $\hat x_0=\alpha x-\sigma v$. **Guidance**
# replaces $\varepsilon_q$ by $(1+\omega)\,\varepsilon_q(x,c)-\omega\,\varepsilon_q(x,\varnothing)$ to favour a condition $c$ [@ho2022cfg]; papers call $1+\omega$ the scale.
#
# A sampler follows the score along a path ([chapter 4](04_sde_pf_ode.ipynb)). This chapter has no path. It compares *distributions*.
#
# ## 20.2 The gradient of a divergence
#
# A student $g_\theta$ makes $x_0=g_\theta(z)$ of noise $z$. Noise its samples as well, and call their density $p_t$. At each level you want
# $p_t$ to be $q_t$, so descend
#
# $$\mathrm{KL}(p_t\Vert q_t)=\mathbb E_{z,\varepsilon}\big[\log p_t(x_t)-\log q_t(x_t)\big],\qquad x_t=\alpha\,g_\theta(z)+\sigma\varepsilon. \label{eq:sd-kl}$$
#
# Here $\theta$ sits in two places: in the *point* $x_t$, and in the *function* $\log p_t$. The chain rule gives a term for each:
#
# $$\nabla_\theta\mathrm{KL}=\mathbb E\Big[\alpha\,\Big(\frac{\partial g_\theta}{\partial\theta}\Big)^{\!\top}\big(\nabla\log p_t-\nabla\log q_t\big)(x_t)\Big]+\mathbb E_{x\sim p_t}\big[\partial_\theta\log p_t(x)\big]. \label{eq:sd-two}$$
#
# The second term asks how the student's density changes with its weights. Nobody can compute that for a network. But it is zero:
#
# $$\mathbb E_{p_t}[\partial_\theta\log p_t]=\int p_t\,\frac{\partial_\theta p_t}{p_t}\,dx=\partial_\theta\int p_t\,dx=\partial_\theta 1=0. \label{eq:sd-zero}$$
#
# So no network is ever differentiated except the student. Put \eqref{eq:sd-score} in for both scores:
#
# $$\nabla_\theta\mathrm{KL}(p_t\Vert q_t)=\mathbb E_{z,\varepsilon}\Big[\frac\alpha\sigma\big(\varepsilon_q(x_t)-\varepsilon_p(x_t)\big)\cdot\frac{\partial g_\theta}{\partial\theta}\Big]. \label{eq:sd-vsd}$$
#
# **Variational score distillation** averages this over $t$, with any positive weight $w(t)$ in the place of $\alpha/\sigma$
# [@wang2023prolificdreamer]. A weight multiplies whole levels, so $p=q$ stays the minimum. **Diff-Instruct** is the same gradient, found
# independently [@luo2023diffinstruct]; its code has $w=\sigma/\alpha$, the difference of two $\hat x_0$.
#
# In the code the teacher is *real*, and the network that knows $\varepsilon_p$ is *fake*. How does a gradient $G$ made by hand enter autograd?
# By a loss whose derivative it is: $\tfrac12\lVert x-\mathrm{sg}(x-G)\rVert^2$, where sg stops gradients. Its value, $\tfrac12\lVert G\rVert^2$, means nothing.
# (`_noised` makes $x_t$; `_loss` averages `injected`, with $G=w\,$`gap`.)
#
# Audit it at one level. Take a student with seven equally likely values of $z$, $g_\theta(z)=\theta_1+\theta_2z+\theta_3z^2+\theta_4\sin2z$. Its $p_t$ is a
# mixture of seven Gaussians, one around each sample, so KL against data of two modes is a sum over a grid, and autograd differentiates it. No formula of `vsd` is in it.

# %%
show(vsd, injected)
F64, level = torch.float64, schedule.at_lam(math.log(0.8 / 0.6))  # α = 0.8, σ = 0.6
z = torch.linspace(-1.5, 1.5, 7, dtype=F64)
theta = torch.tensor([0.3, 0.8, -0.2, 0.5], dtype=F64, requires_grad=True)
x = torch.stack([z**0, z, z**2, (2 * z).sin()], 1) @ theta  # the seven samples
law = Mixture(torch.ones(7) / 7, x[:, None], torch.full((7,), 1e-6))  # as a mixture of spikes
two = Mixture(torch.tensor([0.6, 0.4]), torch.tensor([[-1.0], [1.2]]), torch.tensor([0.3, 0.5]))
line = torch.arange(-9, 9, 0.01, dtype=F64)[:, None]
log_p, log_q = law.log_prob(line, level), two.log_prob(line, level)

# %% [markdown]
# `handed(loss, x, level)` is the gradient that a loss hands on to each sample, its mean over $\varepsilon$ taken by quadrature. Multiplied by
# $\partial x/\partial\theta$ it must be $\nabla_\theta$KL. (Both sums are exact to rounding for functions that fall off this fast.)

# %%
# NBVAL_CHECK_OUTPUT
by_theta = lambda y, push=None: torch.autograd.grad(y, theta, push, retain_graph=True)[0]
slope = lambda f: by_theta(0.01 * f.sum())  # ∂θ of the integral of f
real, fake = exact(two, schedule), exact(replace(law, means=x.detach()[:, None]), schedule)
push = handed(partial(vsd, real, fake, weight=kl), x, level)
claim(
    "C20.1",
    "seven samples: VSD with w = α/σ − autograd of KL (largest entry)",
    (by_theta(x, push) - slope(log_p.exp() * (log_p - log_q))).abs().max(),
    below=1e-8,
)
claim(
    "C20.2",
    "E ∂θ log p, the term that was dropped, is zero (largest entry)",
    slope(log_p.exp().detach() * log_p).abs().max(),
    below=1e-9,
)

# %% [markdown]
# ## 20.3 Leave the fake score out
#
# *Score distillation sampling* came first [@poole2023dreamfusion], and has no second network. In its place stands the noise that was added:
#
# $$\nabla^{\mathrm{SDS}}_\theta=\mathbb E_{z,\varepsilon}\Big[w(t)\,\big(\varepsilon_q(x_t)-\varepsilon\big)\cdot\frac{\partial g_\theta}{\partial\theta}\Big]. \label{eq:sd-sds}$$
#
# It looks the same. But $\partial g/\partial\theta$ depends on $z$ only, and $\varepsilon$ is independent of $z$ with mean zero. So $-\varepsilon$ changes the
# variance and never the mean. What is left, with $w=\alpha/\sigma$, is the $q$-part of \eqref{eq:sd-two}:
#
# $$\nabla^{\mathrm{SDS}}_\theta=-\nabla_\theta\,\mathbb E_{x\sim p_t}\log q_t(x)=\nabla_\theta\,\mathrm{CE}(p_t,q_t),\qquad \mathrm{KL}=\mathrm{CE}-\mathrm{H}(p_t). \label{eq:sd-ce}$$
#
# SDS descends the cross-entropy. The entropy H is gone, and with it the only reason to spread.

# %%
# NBVAL_CHECK_OUTPUT
show(sds)
push = handed(partial(sds, real, weight=kl), x, level)
claim(
    "C20.3",
    "seven samples: SDS with w = α/σ − autograd of cross-entropy (largest entry)",
    (by_theta(x, push) - slope(-log_p.exp() * log_q)).abs().max(),
    below=1e-8,
)

# %% [markdown]
# How strong is the missing pull? For a student $m+sz$ with normal $z$ and data $\mathcal N(0,\tau^2)$, let $v_p=\alpha^2s^2+\sigma^2$ and $v_q=\alpha^2\tau^2+\sigma^2$. Then
# $\mathrm{KL}=\tfrac12\big(\tfrac{v_p+\alpha^2m^2}{v_q}-1-\log\tfrac{v_p}{v_q}\big)$, and
#
# $$\frac{\partial\mathrm{KL}}{\partial m}=\frac{\alpha^2m}{v_q},\qquad\frac{\partial\mathrm{KL}}{\partial s}=\underbrace{\frac{\alpha^2s}{v_q}}_{\text{CE}}-\underbrace{\frac{\alpha^2s}{v_p}}_{\text{H}}. \label{eq:sd-gauss}$$
#
# The first part is positive for every $s$: shrink. Here is what the two losses hand on, for $\tau=1.5$. (The scores are linear, so $z=\pm1$
# does for normal $z$: it has the same mean and variance.)

# %%
# NBVAL_CHECK_OUTPUT
tau, widths = 1.5, torch.linspace(0.05, 2.5, 25, dtype=F64)
signs = torch.tensor([-1.0, 1.0], dtype=F64)
normal = lambda std: exact(gaussian(0.0, float(std)), schedule)


def by_s(loss_of):
    return torch.stack([handed(loss_of(s), s * signs, level) @ signs for s in widths])


found = {
    "SDS": by_s(lambda s: partial(sds, normal(tau), weight=kl)),
    "VSD": by_s(lambda s: partial(vsd, normal(tau), normal(s), weight=kl)),
}
v_p, v_q = (0.8**2 * std**2 + 0.6**2 for std in (widths, tau))
exactly = {"exact": 0.8**2 * widths / v_q, "": 0.8**2 * widths * (1 / v_q - 1 / v_p)}
claim(
    "C20.4",
    "Gaussians, 25 widths: both losses − ∂CE/∂s, ∂KL/∂s (largest difference)",
    max((a - b).abs().max() for a, b in zip(found.values(), exactly.values())),
    below=1e-9,
)
figure(
    plot.audit(widths, exactly, found, "width $s$ of the student", "derivative by $s$"),
    "SDS's derivative is positive at every width; VSD's is negative below the data's "
    "width of 1.5, zero there and positive above. Both lie on the exact curves.",
    "The gradient audit. Descent widens where the derivative is negative.",
)

# %% [markdown]
# ## 20.4 Where SDS collapses to
#
# With a weight $w$, SDS descends $\int w\,\frac\sigma\alpha\,\mathrm{CE}(p_t,q_t)\,dt$. Cross-entropy is a mean over the student's samples, so this is $\mathbb E_{x\sim p_0}\Phi(x)$,
# with a potential that knows nothing of the student:
#
# $$\Phi(x)=-\int w(t)\,\frac\sigma\alpha\;\mathbb E_\varepsilon\log q_t(\alpha x+\sigma\varepsilon)\,dt. \label{eq:sd-phi}$$
#
# Each sample rolls downhill alone, to a minimum of $\Phi$. You can find it *without training*, from log-densities only. Here for
# $w=\sigma^2$, as in released codes: 49 times, 289 nodes for $\varepsilon$, a descent from the mean of the data.

# %%
# NBVAL_CHECK_OUTPUT
few = torch.arange(-4, 4.01, 0.5, dtype=F64)
eps = torch.cartesian_prod(few, few).repeat(49, 1)
times = torch.linspace(0.02, 0.98, 49, dtype=F64).repeat_interleave(289)
at = schedule.at(times, like=eps)
weight = torch.softmax(-eps.square().sum(1) / 2, 0) * (at.sigma**3 / at.alpha)[:, 0]


def potential(x):
    return -weight @ mixture.log_prob(at.alpha * torch.from_numpy(x) + at.sigma * eps, at)


speck = torch.from_numpy(minimize(potential, mixture.weights @ mixture.means, tol=1e-9).x)
claim(
    "C20.5",
    "the trained SDS student: RMS distance to the minimum of Φ",
    metrics.rms(made["SDS"].double(), speck.expand(4000, 2)),
    below=0.1,
)
claim(
    "C20.6",
    "the minimum of Φ is in no mode: standard deviations to the nearest",
    ((speck - mixture.means).norm(dim=1) / mixture.stds).min(),
    above=3,
)

# %% [markdown]
# (0.1 is half the width of the narrowest mode.) That is the middle panel of the first figure, foretold. Guidance moves the point: DreamFusion's $\omega=100$
# sharpens $q_t$ until it is a good one. For one 3-D scene, a point is all you need. For a generator it is a disaster.
#
# ## 20.5 The second network, and how fresh it must be
#
# Back to \eqref{eq:sd-vsd}, which needs $\varepsilon_p$, the denoiser of the student's samples. So train one: chapter 1's denoising on these samples
# as data, detached. The student moves, the fake follows, in turns.
#
# Has the VSD student found the modes? A sample is *in* a mode within three of its standard deviations.

# %%
# NBVAL_CHECK_OUTPUT
show(fake_score)
shares = {name: mixture.shares(x) for name, x in made.items()}
figure(
    plot.ledger(shares, mixture.weights),
    "The one-step teacher and SDS have nothing in any mode; VSD has samples in each, in "
    "the rarest half of its weight, and about a sixth of them in none.",
    "The mode ledger.",
)
claim(
    "C20.7",
    "VSD: smallest share of a mode over its weight",
    (shares["VSD"] / mixture.weights).min(),
    above=0.25,
)
claim("C20.8", "VSD: share of the samples in any mode", shares["VSD"].sum(), above=0.71)

# %% [markdown]
# A lost mode scores 0 in C20.7; we call one found from a quarter of its weight on. In C20.8 one Gaussian with the data's mean and covariance would have
# .43 (`tests/toy_data/test_mixtures.py`), the data have .99; we ask for half of the way. The student's map is continuous, so bridges between the islands must remain. The rarest
# mode has half its due: $w=\sigma^2$ looks mostly at noisy levels, where a mode is a blur.
#
# **How stale may the fake be?** A narrow student runs from its own shadow: it is pushed away from where the fake still believes it to be.
# The narrower it is, the faster the fake must follow (exercise 1 has the rate). Now everything as before, but the fake moves at every
# tenth step only. The student starts as a point. *Predict how many modes it finds.*

# %%
# NBVAL_CHECK_OUTPUT
rare = replace(right.phases[1], every=10)
lazy = replace(right, phases=(right.phases[0], rare))
stale = mixture.shares(points(lazy, steps=400))
claim(
    "C20.9",
    "a stale fake: modes that the student finds",
    (stale > mixture.weights / 4).sum(),
    between=(0, 1),
)

# %% [markdown]
# At most one: it fled until a mode caught it. A fake that lags turns VSD back into something like SDS. The cure is *two time scales*: several
# fake steps for each of the student, or a larger rate.
#
# ## 20.6 Twins: the fake as an adapter
#
# Three networks of a billion weights are two too many. So make the fake a **low-rank
# adapter** [@hu2022lora] on the frozen teacher: each chosen layer's $W$ becomes
#
# $$W+\frac{\alpha_r}{r}BA,\qquad A\in\mathbb R^{r\times\text{in}},\quad B\in\mathbb R^{\text{out}\times r},\quad B=0\text{ at first}. \label{eq:sd-lora}$$
#
# The number $\alpha_r$, $r$ unless you give it, sets their scale. `twin(net, rank=r)` returns such a network. It shares the teacher's weights and trains $A$ and $B$ alone, so the teacher cannot change.
#
# $B=0$ has a consequence. At first the fake *is* the teacher, so $G$ is exactly zero: the student learns nothing until the fake has.
#
# ## 20.7 Rung 2: digits from labels, pictures from captions
#
# SwiftBrush [@nguyen2024swiftbrush] is \eqref{eq:sd-vsd} with $w=\sigma^2$, a twin as the fake, and a student that begins as a copy of the teacher. First
# scikit-learn's digits. The batches hold labels and no pictures. The fake takes two steps for each of the student. In training and after, the student is
# told that its noise stands at $t=0.6$: exercise 3 says why not at 1.

# %%
show(recipes.swiftbrush)


def trio(base):
    torch.manual_seed(0)
    nets = {
        "teacher": base.net,
        "student": copy.deepcopy(base.net).requires_grad_(True),
        "fake": twin(base.net, rank=16),
    }
    return {role: replace(base, net=net) for role, net in nets.items()}


digits, nothing = trio(digits_teacher()), torch.full((120, 1, 8, 8), math.nan)
brush = recipes.swiftbrush(digits["teacher"].schedule, NULL, **plain, fake_steps=2, start=0.6)
history = learn(
    brush,
    digits,
    lambda step: Batch(nothing, torch.arange(10).repeat(12)),
    steps=200,
    rates={"student": 3e-4, "fake": 3e-3},
)

# %% [markdown]
# The Fréchet distance is to held-out digits, above its *floor*, that of real ones; a student that has learnt nothing would have a ratio of 1. *Variety* is the variance among
# the pictures of one label, over that of real ones; the teacher's one call has next to none.

# %%
# NBVAL_CHECK_OUTPUT
judge, (_, (real, label)) = digits_classifier(), digits_split()
sampler = brush.sampler  # one call, at t = 0.6


def once(role):
    return lambda seed: sampler(digits[role], Draw(seed).normal(real), label).detach()


ways = {f"{role}, 1 call": once(role) for role in ("teacher", "student")}
one, ours = (sampler_scores(draw, judge)["frechet"] for draw in ways.values())
figure(
    plot.pictures({way: draw(0)[label == 4][:10] for way, draw in ways.items()}),
    "The teacher's ten fours are one soft picture ten times; the student's differ in "
    "slant and opening.",
    "The label is 4; columns share the noise.",
)
floor = digits_floor(judge)[0]
claim(
    "C20.10",
    "digits, one call: Fréchet above the floor, student's over teacher's",
    (ours - floor) / (one - floor),
    below=0.5,
)
claim(
    "C20.11",
    "digits: variety of the student's pictures of one label (real ones: 1)",
    digits_variety(once("student")(0)),
    above=0.25,
)

# %% [markdown]
# Now a small transformer that draws 16×16 pictures for captions like *a blue square below a small blue circle*, on Stable Diffusion's schedule
# ($\alpha=0.068$ at $t=1$), from captions and no pictures:

# %%
# NBVAL_CHECK_OUTPUT
base = shapes_teacher()
roles = trio(base)
brush = recipes.swiftbrush(base.schedule, NULL_TOKENS, **plain, fake_steps=2)
history = learn(
    brush, roles, caption_batches(20, seed=0), steps=200, rates={"student": 7e-5, "fake": 3e-3}
)
first, second, *_ = history["student/gradient"]
claim("C20.12", "B = 0: size of G at the first step", first, between=(0, 0))
claim("C20.13", "size of G after the fake's first two steps", second, above=0)

# %% [markdown]
# A program that knows how such pictures are made (no network) says whether each shows its caption. The Fréchet distance is to real pictures of the
# same captions.

# %%
codes = asked()  # 512 captions
ways = {
    "teacher, 1 call": ("teacher", 1),
    "student, 1 call": ("student", 1),
    "teacher, 4 calls": ("teacher", 4),
}  # calls of DDIM
drawn = {way: draw_shapes(roles[role], codes, 0.0, n) for way, (role, n) in ways.items()}
found = {way: scores(x, codes) for way, x in drawn.items()}
title = "{}: {accuracy:.0%} as asked, Fréchet {frechet:.2f}"
figure(
    plot.pictures({title.format(way, **found[way]): x[:10] for way, x in drawn.items()}),
    "The teacher's one-call pictures are pale blurs of all places where a thing may be; "
    "the student's have full colours and one place each; those of four have clean edges.",
    "Columns share caption and noise. The first is " + say(tuple(codes[0].tolist())) + ".",
)

# %% [markdown]
# A student that has learnt nothing would have 1 in the first claim (½ is more than ten standard errors away) and next to no variety. That is
# the variance among the pictures of one caption, over that of real ones.

# %%
# NBVAL_CHECK_OUTPUT
one, ours, four = found.values()
claim(
    "C20.14",
    "one call: the student's misread captions over the teacher's",
    (1 - ours["accuracy"]) / (1 - one["accuracy"]),
    below=0.5,
)
claim(
    "C20.15",
    "variety of the student's pictures of one caption (real ones: 1)",
    variety(roles["student"]),
    above=0.25,
)
claim(
    "C20.16",
    "four calls of the teacher are better: Fréchet, the student's one over theirs",
    ours["frechet"] / four["frechet"],
    above=1,
)

# %% [markdown]
# The last one is what did *not* work.
#
# ## 20.8 What should look wrong here
#
# Student and fake predict $\varepsilon$ instead of $v$, from $t=0.98$, where $\alpha=0.031$ and $x_0=(z-\sigma\varepsilon_\theta)/\alpha$. What they can
# say is the same. *Predict what changes.*

# %%
# NBVAL_CHECK_OUTPUT
late = recipes.swiftbrush(schedule, None, start=0.98, **plain)
inside = {face: mixture.shares(points(late, 250, face)).sum() for face in ("v", "eps")}
claim(
    "C20.17",
    "share of the samples in modes: ε-prediction over v-prediction",
    inside["eps"] / inside["v"],
    below=0.75,
)

# %% [markdown]
# It stalls. An error $\delta$ of the network is $32\,\delta$ in $x_0$, and so is every optimiser step's jitter. At $\alpha=0$ there is no answer at all.
#
# ## 20.9 In practice
#
# - **The published run.** SwiftBrush: Stable Diffusion 2.1-base, prompts only; student's rate $10^{-6}$, fake's $10^{-3}$ (a thousand times), LoRA rank 64 on
#     `to_q`, `to_v`, guidance scale 4.5 on *both* scores, $t$ in [.02, .98]; COCO-30K FID 16.67 in one call [@nguyen2024swiftbrush]. *Not reproduced here.*
# - **Where guidance goes.** ProlificDreamer guides the teacher alone, at 7.5 [@wang2023prolificdreamer]. Guiding both moves the fixed point: the *guided* scores agree there.
# - **The start.** SD 2.1-base predicts ε, and $\alpha=0.068$ at its last level: errors count 15 times. Divide in float32, as a `Denoiser` does. With $v$ there is no such trouble.
# - **Do not reset the fake.** A fresh adapter is the teacher; $G$ is 0 until it has learnt the student anew.
# - **One network, two adapters** is peft's way. Switch to the fake's between the student's forward and backward pass, and the student's gradient is 0, without an
#     error (measured: `tests/full_scale/test_twins.py`).
# - **Watch** `student/gradient`, `student/spread` (0 when the student collapses) and pictures, never the loss.
# - **Where the toy stops being true.** GMM5's teacher is perfect. A trained one errs, a LoRA fake errs otherwise, and $G$ contains the difference of their errors.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `shapes_teacher()` | `full_scale.families.sd.denoiser(unet, scheduler_config)` |
# | `twin(base.net, rank=16)` | `twin(unet, 64, 108.0, ("to_q", "to_v"))` |
# | `NULL_TOKENS` | the embedding of the empty prompt |
# | `learn(recipe, …)` | `full_scale.run.engine`, the same phases over processes |
# | `recipes.swiftbrush` | the same function |
#
# ```bash
# # on a CPU in a minute, learning nothing
# printf 'a red circle\na lighthouse at dusk\n' > prompts.txt
# python -m full_scale.prepare --tiny --source prompts.txt --out data/tiny
# python -m full_scale.train swiftbrush --tiny --data data/tiny --out runs/tiny \
#     --steps 5 --batch 2 --micro 2
#
# # on eight GPUs
# python -m full_scale.prepare --source prompts.txt --weights DIR_OR_HUB_ID --out data/prompts
# torchrun --standalone --nproc_per_node 8 -m full_scale.train swiftbrush \
#     --weights DIR_OR_HUB_ID --data data/prompts --out runs/swiftbrush
# ```
#
# The first line of the log says `student/loss` 0: claim C20.12, on Stable Diffusion's U-Net.
#
# **How far up the ladder.** Rung 1: both gradients against exact divergences, the collapse foretold, five modes. Rung 2: one-call students of digits from labels
# and of shapes from captions, with a LoRA fake; unguided, where published runs are guided. Rung 3: the recipe runs on Stable Diffusion's classes; its quality is not measured here.
#
# ## 20.10 Exercises
#
# 1. *(pencil)* A student $\mathcal N(m,s^2)$ of fixed width, data $\mathcal N(0,\tau^2)$, and a fake $\mathcal N(m_f,s^2)$ that follows at rate $k$: $\dot m_f=k(m-m_f)$.
#    The student's $m$ descends with \eqref{eq:sd-vsd}. For which $k$ is the pair stable?
# 2. *(code)* In 20.4, take the weight $w=\alpha/\sigma$. Check: the minimum is within one standard deviation of a mode. Then, with $w=\sigma^2$, take `toy_data.ring8()` for
#    `gmm5()`, descend from near its centre, and train SDS again. Check: speck and samples have the same radius, within 0.1. Which minimum do three seeds choose?
# 3. *(code)* Train the digits' student for 100 steps, start it and ask it at $t=1$, then at $t=0.6$. Check: `digits_variety` is below 0.2, then above. Why? What do 450
#    steps from $t=1$ give?
# 4. *(open)* Train `points` with $w=\alpha/\sigma$, on GMM5 and on `ring8`. Are the shapes better? Are the modes still there? Find weights, levels or rates that get both.
#
# <details><summary>Answer to 1</summary>
#
# With $v_p=\alpha^2s^2+\sigma^2$ descent is linear: $\dot m=a\,m-b\,m_f$ where $a=\alpha^2(1/v_p-1/v_q)$ and $b=\alpha^2/v_p$. The pair has trace $a-k$ and
# determinant $k(b-a)=k\alpha^2/v_q>0$: it is stable if and only if $k>a$. A student wider than the data ($a<0$) forgives any delay. For a narrow one $a$ grows
# as it shrinks, up to $\alpha^2(1/\sigma^2-1/v_q)$.
#
# </details>
#
# <details><summary>Answer to 3</summary>
#
# At $t=1$ the teacher answers a label with one picture: the student begins as ten points, and a narrow student wants the
# fastest fake (exercise 1). It spreads slowly: after 100 steps we had 0.12 to 0.16 from $t=1$ and 0.29 to 0.35 from $t=0.6$ (four seeds), after 450 from $t=1$ 0.64 to
# 0.67 (three).
#
# </details>
#
# ## References
#
# SDS: [@poole2023dreamfusion]. VSD: [@wang2023prolificdreamer; @luo2023diffinstruct]. One step, from prompts: [@nguyen2024swiftbrush]. Adapters:
# [@hu2022lora].
