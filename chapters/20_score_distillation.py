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
#     minutes: 50
#     memory: 1 GB
#     needs:
#       - chapter 1 (scores, denoising); the PF-ODE and guidance are recapped in 20.1
#       - PyTorch, the chain rule, Gaussian densities
# ---

# %% [markdown]
# # 20 Score distillation: a generator that follows two scores
#
# A diffusion model needs many network calls for a sample. Its knowledge, the score, can also *teach*: train a **student** that
# turns noise into a sample in one call, and let the teacher say how each sample should change. No picture is needed, only
# the teacher. There are two ways to write this down. They differ by one term, and here is what the term does.
#
# The data are GMM5, five Gaussian modes, and the teacher is exact. `recipes.sds` and `recipes.swiftbrush` are training
# recipes that this chapter derives; `learn` runs one (Adam without momentum, rates falling to zero); `generate` makes the student's
# samples, one call each.

# %%
from book import claim, figure, show                # first: it tells torch not to spin
import copy
import inspect
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import torch
from scipy.optimize import minimize
from dlib import NULL, Batch, Denoiser, Draw, Mixture, Recipe, adapters, cosine, exact
from dlib import fake_score, generate, metrics, plot, recipes, sds, twin, vsd
from dlib.losses.score_distillation import injected, kl, on_x0, variance
from dlib.nets import MLP
from toy_data import caption_batches, digits_classifier, digits_split, digits_teacher
from toy_data import gaussian, gmm5, learn, shapes_teacher
from toy_data.digit_scores import digits_floor, digits_variety, draw_digits, sampler_scores
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_scores import asked, draw_shapes, scores, shapes_floor, variety
from toy_data.shapes import pictures

# %%
mixture, schedule, noise = gmm5(), cosine(), Draw(9).normal(torch.empty(4000, 2))
teacher = exact(mixture, schedule)

def points(recipe, steps, predicts="v", start=1.0, seed=0):
    """Train networks that know nothing; 4000 samples of the student."""
    torch.manual_seed(seed)
    new = lambda: Denoiser(MLP(2, width=64, depth=2), schedule, predicts)
    roles = {"teacher": teacher} | {role: new() for role in recipe.trained}
    learn(recipe, roles, lambda step: Batch(torch.empty(256, 2)), steps,
          rates={"student": 1e-3, "fake": 3e-3}, seed=seed)
    return generate(roles["student"], noise, schedule.levels([start])).detach()

plain = {"omega": 0.0, "omega_fake": 0.0}           # no guidance
made = {"one-step teacher": generate(teacher, noise, schedule.levels([1.0])),
        "SDS": points(recipes.sds(schedule, None, omega=0.0), steps=300),
        "VSD": points(recipes.swiftbrush(schedule, None, **plain), steps=600)}
figure(plot.modes(made, mixture),
       "The teacher's one-step answer is a single point in the middle, the SDS student a "
       "small speck between two modes; the VSD student fills all five modes.",
       "4000 samples, one call each. Circles: three standard deviations of each mode.")

# %% [markdown]
# Left: asked once, at pure noise, the teacher answers with the mean of the data. Middle: score distillation sampling, as
# used for text-to-3D, ends in a speck *between* the modes. Right: variational score distillation finds all five.
#
# ## 20.1 Recap: score, ODE, guidance
#
# Noise makes $x_t=\alpha x_0+\sigma\varepsilon$ of a sample; $t=1$ is noise, and here $\alpha^2+\sigma^2=1$. Call the density of noised data
# $q_t$. A denoiser trained by regression knows $\mathbb E[\varepsilon\mid x_t]$, and by Tweedie's formula (1.4 in
# [chapter 1](01_score_matching.ipynb)) that is the score:
#
# $$\nabla\log q_t(x)=-\frac{\varepsilon_q(x)}{\sigma},\qquad x=\alpha\,\hat x_0(x)+\sigma\,\varepsilon_q(x). \label{eq:sd-score}$$
#
# The **probability-flow ODE**, $dx/dt=\frac{\dot\alpha}{\alpha}x-\sigma\dot\lambda\,\varepsilon_q(x)$ with $\lambda=\log(\alpha/\sigma)$, carries noise to data along
# $q_t$ [@song2021sde]; a sampler solves it in 10 to 50 calls. **Guidance** replaces $\varepsilon_q$ by
# $(1+\omega)\,\varepsilon_q(x,c)-\omega\,\varepsilon_q(x,\varnothing)$ to favour a condition $c$ [@ho2022cfg]; papers call $1+\omega$ the scale. This chapter uses neither sampler
# nor trajectory. It compares *distributions*.
#
# ## 20.2 The gradient of a divergence
#
# A student $g_\theta$ makes $x_0=g_\theta(z)$ of noise $z$. Noise its samples as well, and call their density $p_t$. We would like to
# descend, at every level,
#
# $$\mathrm{KL}(p_t\Vert q_t)=\mathbb E_{z,\varepsilon}\big[\log p_t(x_t)-\log q_t(x_t)\big],\qquad x_t=\alpha\,g_\theta(z)+\sigma\varepsilon. \label{eq:sd-kl}$$
#
# Here $\theta$ sits in two places: in the *point* $x_t$, and in the *function* $\log p_t$. The chain rule gives a term for each:
#
# $$\nabla_\theta\mathrm{KL}=\mathbb E\Big[\alpha\,\Big(\frac{\partial g_\theta}{\partial\theta}\Big)^{\!\top}\big(\nabla\log p_t-\nabla\log q_t\big)(x_t)\Big]+\mathbb E_{x\sim p_t}\big[\partial_\theta\log p_t(x)\big]. \label{eq:sd-two}$$
#
# The second term asks how the student's score function changes with its weights: hopeless to compute. It is zero:
#
# $$\mathbb E_{p_t}[\partial_\theta\log p_t]=\int p_t\,\frac{\partial_\theta p_t}{p_t}\,dx=\partial_\theta\int p_t\,dx=\partial_\theta 1=0. \label{eq:sd-zero}$$
#
# That is why no network is ever differentiated except the student. Put \eqref{eq:sd-score} in for both scores:
#
# $$\nabla_\theta\mathrm{KL}(p_t\Vert q_t)=\mathbb E_{z,\varepsilon}\Big[\frac\alpha\sigma\big(\varepsilon_q(x_t)-\varepsilon_p(x_t)\big)\cdot\frac{\partial g_\theta}{\partial\theta}\Big]. \label{eq:sd-vsd}$$
#
# **Variational score distillation** averages this over $t$ with any positive weight $w(t)$ for $\alpha/\sigma$ [@wang2023prolificdreamer]; **Diff-Instruct**
# found it independently, as an integral of KL over levels [@luo2023diffinstruct]. A weight multiplies whole levels, so $p=q$ stays the minimum. The code
# calls the teacher *real* and the network that knows $\varepsilon_p$ *fake*. `injected` is how a hand-made gradient $G$ enters autograd: the derivative of $\tfrac12\lVert x-\mathrm{sg}(x-G)\rVert^2$ by $x$ is $G$, if
# $\mathrm{sg}$ stops gradients. The value of such a loss means nothing: it is $\tfrac12\lVert G\rVert^2$.
#
# Below the library's code is a tool to audit it, at one level. `handed` returns the gradient by $\theta$ that a loss hands on to a student
# with $K$ equally likely values of $z$; the mean over $\varepsilon$ is a quadrature, whose masses ride on the weight $w$.

# %%
# NBVAL_CHECK_OUTPUT
show(vsd, injected)
F64, level = torch.float64, schedule.at_lam(math.log(0.8 / 0.6))   # α = 0.8, σ = 0.6
nodes = torch.arange(-8, 8.01, 0.1, dtype=F64)      # the trapezoid rule for normal noise
mass = len(nodes) * torch.softmax(-nodes**2 / 2, 0)

def handed(loss, theta, x, at=level, weight=kl):
    """The gradient by θ that `loss` hands to the student whose samples are x (K,)."""
    all_of = lambda values: values.repeat(len(x))[:, None]      # a row for each z and ε
    rows = Batch(x.repeat_interleave(len(nodes))[:, None])
    draw = SimpleNamespace(normal=lambda like: all_of(nodes))
    times = lambda draw, n: torch.full((n,), at.t, dtype=F64)
    value = loss(rows, draw, lambda level: weight(level) * all_of(mass), times).value
    return torch.autograd.grad(value, theta, retain_graph=True)[0]

# %% [markdown]
# Two cases are known. For a student $m+sz$ and data $\mathcal N(0,\tau^2)$ let $v_p=\alpha^2s^2+\sigma^2$ and $v_q=\alpha^2\tau^2+\sigma^2$; then
#
# $$\frac{\partial\mathrm{KL}}{\partial m}=\frac{\alpha^2m}{v_q},\qquad\frac{\partial\mathrm{KL}}{\partial s}=\alpha^2s\Big(\frac1{v_q}-\frac1{v_p}\Big). \label{eq:sd-gauss}$$
#
# (Here $z=\pm1$ will do for normal $z$: the scores are linear, and it has the right moments up to order three.)

# %%
# NBVAL_CHECK_OUTPUT
normal = lambda m, s: exact(gaussian(m, s), schedule)
TAU, data = 1.0, normal(0.0, 1.0)                   # x₀ ~ N(0, τ²)

def pushes(loss, m, s, at=level):
    """(∂/∂m, ∂/∂s) that `loss` hands to the student m + s z."""
    theta = torch.tensor([m, s], dtype=F64, requires_grad=True)
    return handed(loss, theta, torch.stack([theta[0] - theta[1], theta.sum()]), at)

def formula(m, s, at):
    v_p, v_q = (at.alpha**2 * width**2 + at.sigma**2 for width in (s, TAU))
    return at.alpha**2 * torch.tensor([m / v_q, s / v_q - s / v_p], dtype=F64)

cases = [(m, s, schedule.at(t))
         for m, s in ((0.7, 0.5), (-1.0, 2.0)) for t in (0.1, 0.5, 0.9)]
off = [pushes(partial(vsd, data, normal(*c[:2])), *c) - formula(*c) for c in cases]
claim("C20.1", "Gaussians: VSD with w = α/σ − the closed form of ∇KL (largest of 12)",
      torch.stack(off).abs().max(), below=1e-9)

# %% [markdown]
# And a student with seven values of $z$ has a $p_t$ that is a mixture of seven Gaussians: there, KL is a sum over a grid and autograd
# differentiates the sum, whose code shares no formula with `vsd`.

# %%
# NBVAL_CHECK_OUTPUT
z7 = torch.linspace(-1.5, 1.5, 7, dtype=F64)
theta = torch.tensor([0.3, 0.8, -0.2, 0.5], dtype=F64, requires_grad=True)
atoms = torch.stack([z7**0, z7, z7**2, (2 * z7).sin()], 1) @ theta   # g(z), seven times
spikes = lambda x: Mixture(torch.ones(7) / 7, x[:, None], torch.full((7,), 1e-6))
two = Mixture(*map(torch.tensor, ([0.6, 0.4], [[-1.0], [1.2]], [0.3, 0.5])))
line = torch.arange(-9, 9, 0.01, dtype=F64)[:, None]
log_p, log_q = spikes(atoms).log_prob(line, level), two.log_prob(line, level)
slope = lambda f: torch.autograd.grad(0.01 * f.sum(), theta, retain_graph=True)[0]
apart = lambda x, y: (x - y).norm() / y.norm()
true_kl = slope(log_p.exp() * (log_p - log_q))
real, fake = exact(two, schedule), exact(spikes(atoms.detach()), schedule)
by_vsd = partial(handed, partial(vsd, real, fake), theta, atoms)
claim("C20.2", "seven atoms: VSD − autograd of KL (relative)",
      apart(by_vsd(), true_kl), below=1e-8)
claim("C20.3", "the term that was dropped, E ∂θ log p, is zero (largest entry)",
      slope(log_p.exp().detach() * log_p).abs().max(), below=1e-9)
claim("C20.4", "Diff-Instruct: x̂₀ of the fake − of the teacher is (σ/α)² ∇KL (relative)",
      apart(by_vsd(weight=on_x0), (0.6 / 0.8) ** 2 * true_kl), below=1e-8)

# %% [markdown]
# ## 20.3 Leave the fake score out
#
# *Score distillation sampling* came first [@poole2023dreamfusion], and has no second network. In its place stands the noise that was added:
#
# $$\nabla^{\mathrm{SDS}}_\theta=\mathbb E_{z,\varepsilon}\Big[w(t)\,\big(\varepsilon_q(x_t)-\varepsilon\big)\cdot\frac{\partial g_\theta}{\partial\theta}\Big]. \label{eq:sd-sds}$$
#
# It looks like the same thing. But $\partial g/\partial\theta$ depends on $z$ only, and $\varepsilon$ is independent of $z$ with
# mean zero. So $-\varepsilon$ changes the variance, never the mean. What is left with $w=\alpha/\sigma$ is the $q$-part of \eqref{eq:sd-two}:
#
# $$\nabla^{\mathrm{SDS}}_\theta=-\nabla_\theta\,\mathbb E_{x\sim p_t}\log q_t(x)=\nabla_\theta\,\mathrm{CE}(p_t,q_t),\qquad \mathrm{KL}=\mathrm{CE}-\mathrm{H}(p_t). \label{eq:sd-ce}$$
#
# The entropy is gone, and with it the only reason to spread. For two Gaussians, $\partial\mathrm{CE}/\partial s=\alpha^2s/v_q>0$ for every $s$ and every level: shrink.

# %%
# NBVAL_CHECK_OUTPUT
show(sds)
claim("C20.5", "seven atoms: SDS − autograd of the cross-entropy (relative)",
      apart(handed(partial(sds, real), theta, atoms), slope(-log_p.exp() * log_q)),
      below=1e-8)
widths = torch.linspace(0.05, 2.5, 25, dtype=F64)
of_s = lambda loss: torch.stack([pushes(loss(w), 0.0, w)[1] for w in widths.tolist()])
found = {"SDS": of_s(lambda w: partial(sds, data)),
         "VSD": of_s(lambda w: partial(vsd, data, normal(0.0, w)))}
claim("C20.6", "SDS pushes every width down: the smallest ∂/∂s over 25 widths",
      found["SDS"].min(), above=0)
claim("C20.7", "VSD pulls up below the data's width, down above (smallest push that way)",
      (found["VSD"] * (widths - TAU).sign()).min(), above=0)
exactly = torch.stack([formula(w, w, level) for w in widths.tolist()]).T   # CE, then KL
figure(plot.audit(widths, {"exact": exactly[0], "": exactly[1]}, found,
                  "width $s$ of the student", "derivative by $s$"),
       "SDS's derivative is positive at every width; VSD's is negative below the data's "
       "width of one, zero there and positive above. Both lie on the exact curves.",
       "The gradient audit: what the losses hand on, over the closed forms (dashed).")

# %% [markdown]
# ## 20.4 Where SDS collapses to
#
# Cross-entropy is *linear* in $p$: $\mathrm{CE}=\mathbb E_{x\sim p_0}\Phi(x)$, over all levels, with a potential that knows nothing of the student,
#
# $$\Phi(x)=-\int w(t)\frac\sigma\alpha\;\mathbb E_\varepsilon\log q_t(\alpha x+\sigma\varepsilon)\,dt. \label{eq:sd-phi}$$
#
# Each sample rolls downhill alone, to a minimum of $\Phi$. (Several equal minima would be allowed to share the samples.) So you can find the
# speck of the first figure *without training*, from log-densities only:

# %%
# NBVAL_CHECK_OUTPUT
few = torch.arange(-4, 4.01, 0.5, dtype=F64)
eps = torch.cartesian_prod(few, few).repeat(49, 1)                   # 289 nodes a level
mass = torch.softmax(-eps.square().sum(1) / 2, 0)
times = torch.linspace(0.02, 0.98, 49, dtype=F64).repeat_interleave(289)
at = schedule.at(times, like=eps)
def potential(x, weight):
    log_q = mixture.log_prob(at.alpha * torch.from_numpy(x) + at.sigma * eps, at)
    return -(mass * (weight(at) * at.sigma / at.alpha)[:, 0]) @ log_q

mean = mixture.weights @ mixture.means              # the descent starts here
bottom = lambda weight: torch.from_numpy(minimize(potential, mean, weight, tol=1e-9).x)
in_stds = lambda x: ((x - mixture.means).norm(dim=1) / mixture.stds).min()
claim("C20.8", "the trained SDS student: RMS distance to the minimum of Φ",
      metrics.rms(made["SDS"].double(), bottom(variance).expand(4000, 2)), below=0.1)
claim("C20.9", "with w = σ² that minimum is in no mode (stds to the nearest)",
      in_stds(bottom(variance)), above=3)
claim("C20.10", "with w = α/σ it is inside a mode", in_stds(bottom(kl)), below=1)

# %% [markdown]
# (0.1 is half the width of the narrowest mode.) The weight decides *which* point, and $\sigma^2$, the weight in use, picks one where no data are. Guidance moves it: DreamFusion's $\omega=100$ sharpens $q_t$ until the point is a good one. For one 3-D
# scene, a point is all you need. For a generator it is a disaster.
#
# ## 20.5 The second network, and how fresh it must be
#
# $\varepsilon_p$ is the denoiser of the student's samples, so train one: `denoising` of chapter 1 on them as data, detached. The student moves, the
# fake follows, in turns.

# %%
# NBVAL_CHECK_OUTPUT
show(fake_score)
real_ones, _ = mixture.sample(4000, Draw(8))
blob = mean + Draw(1).normal(real_ones) @ torch.linalg.cholesky(real_ones.T.cov()).T
masses = {name: mixture.shares(x) for name, x in {"data": real_ones, **made}.items()}
del masses["one-step teacher"]
figure(plot.ledger(masses, mixture.weights),
       "The SDS student has nothing in any mode; the VSD student has samples in "
       "each, in the rarest half of its weight, and about a sixth of them in none.",
       "The mode ledger. A sample is in a mode within three of its standard deviations.")
claim("C20.11", "the teacher in one step: RMS distance to the mean of the data",
      metrics.rms(made["one-step teacher"].double(), mean.expand(4000, 2)), below=1e-6)
claim("C20.12", "SDS: share of the samples in any mode", masses["SDS"].sum(),
      between=(0, 0))
claim("C20.13", "VSD: smallest share of a mode over its weight",
      (masses["VSD"] / mixture.weights).min(), above=0.25)
floor, top, ours = (m.sum() for m in (mixture.shares(blob), masses["data"], masses["VSD"]))
claim("C20.14", "VSD: share in modes, from one Gaussian's (0) to the data's (1)",
      (ours - floor) / (top - floor), above=0.5)

# %% [markdown]
# A lost mode scores 0 in C20.13; we call one found from a quarter of its weight on. In C20.14 a Gaussian
# with the data's mean and covariance scores 0; we ask for half of the way. The student's map is continuous, so bridges between islands must remain; longer training thins them. The shapes
# are off, and the rarest mode has half its due: $w=\sigma^2$ looks mostly at noisy levels, where a mode is a blur.
#
# How stale may the fake be? A narrow student runs from its own shadow: it is pushed away from where the fake still believes it to be, and
# the narrower it is, the faster the fake must follow. (Exercise 1 has the rate.) Now everything as before, but the fake moves at every
# tenth step only. The student starts as a point, so it is narrow. *Predict how many modes it finds.*

# %%
# NBVAL_CHECK_OUTPUT
right = recipes.swiftbrush(schedule, None, **plain)
lazy = Recipe((right.phases[0], replace(right.phases[1], every=10)), right.roles)
stale = mixture.shares(points(lazy, steps=400))
claim("C20.15", "a stale fake: modes that the student finds",
      (stale > mixture.weights / 4).sum(), between=(0, 1))

# %% [markdown]
# At most one: it fled until a mode of the data caught it. A fake that lags turns VSD back into something
# like SDS; "two time scales", several fake steps a student step or a larger rate, is the cure.
#
# ## 20.6 Twins: the fake as an adapter
#
# At full scale, three networks of a billion weights are two too many. Teacher and fake differ little, so make the fake a
# **low-rank adapter** [@hu2022lora] on the frozen teacher: each chosen layer's $W$ becomes $W+\frac{\alpha_r}{r}BA$ with $B=0$ at first. `twin` returns a module tree of its own
# that *shares* the base's tensors. Nothing is switched on or off, and that matters. The alternative, one network with two adapters, is what
# peft offers: `set_adapter("fake")` freezes the student's. What if that happens between `forward` and `backward`?

# %%
# NBVAL_CHECK_OUTPUT
base = shapes_teacher()
start, text = base.schedule.levels([1.0]), tokens(["a red circle", "a blue square"])
student, fake = twin(base.net, rank=16), twin(base.net, rank=16)
z = Draw(2).normal(torch.empty(2, 3, 16, 16))

def gradient(freeze=()):
    """The norm of the student's, if weights are frozen before the backward pass."""
    student.zero_grad()
    value = generate(replace(base, net=student), z, start, text).square().sum()
    for weight in freeze:
        weight.requires_grad_(False)
    value.backward()
    return sum(p.grad.norm() for p in adapters(student).values() if p.grad is not None)

undisturbed = gradient()
claim("C20.16", "twins: the student's gradient, the fake frozen midway, over without",
      gradient(adapters(fake).values()) / undisturbed, between=(1, 1))
claim("C20.17", "one network, its adapter frozen by the switch: the same ratio",
      gradient(adapters(student).values()) / undisturbed, between=(0, 0))

# %% [markdown]
# No error, no gradient. (Under gradient checkpointing the forward pass is even repeated with the *other* adapter. The test suite shows both with peft itself.)
#
# ## 20.7 Rung 2: digits from labels, pictures from captions
#
# SwiftBrush [@nguyen2024swiftbrush] is \eqref{eq:sd-vsd} with $w=\sigma^2$ for a student that begins as a copy of the teacher. First on scikit-learn's 8×8 digits: a small
# trained network as teacher, a twin as fake, two steps of the fake for each of the student (section 20.5), no guidance. At $t=1$ this teacher answers a label
# with *one* picture, and a student that begins there is a point (exercise 3); at $t=0.6$ the answers differ a little. The batch has NaN for pictures: nobody looks at one.

# %%
# NBVAL_CHECK_OUTPUT
show(recipes.swiftbrush)

def trio(teacher):
    """The teacher, a copy as the student, a twin as the fake."""
    torch.manual_seed(0)
    nets = {"student": copy.deepcopy(teacher.net).requires_grad_(True),
            "fake": twin(teacher.net, rank=16)}
    new = {role: replace(teacher, net=net) for role, net in nets.items()}
    return {"teacher": teacher} | new

digits, nan = trio(digits_teacher()), torch.full((120, 1, 8, 8), math.nan)
of_digits = digits["teacher"].schedule
brush = recipes.swiftbrush(of_digits, NULL, **plain, fake_steps=2, start=0.6)
history = learn(brush, digits, lambda step: Batch(nan, torch.arange(10).repeat(12)),
                steps=200, rates={"student": 3e-4, "fake": 3e-3})

# %%
# NBVAL_CHECK_OUTPUT
judge, (_, (held_out, label)) = digits_classifier(), digits_split()
once = lambda role: lambda seed: generate(
    digits[role], Draw(seed).normal(held_out), of_digits.levels([0.6]), label).detach()
ways = {"teacher, 1 call": once("teacher"), "student, 1 call": once("student"),
        "teacher, 20 calls": partial(draw_digits, digits["teacher"], label, 0.0)}
found = {way: sampler_scores(draw, judge) for way, draw in ways.items()}
figure(plot.pictures({f"{way}: Fréchet {found[way]['frechet']:.2f}": draw(0)[label == 4][:10]
                      for way, draw in ways.items()}),
       "Ten fours of each: the teacher's one-call fours are one soft picture ten times; the "
       "student's are darker and differ in slant and opening, with grey specks and one smear; "
       "those of twenty calls differ as much and are clean.",
       "The label is 4; columns share the noise.")
(floor, _), (one, ours, _) = digits_floor(judge), found.values()
claim("C20.18", "digits, one call: Fréchet above the floor, the student's over the teacher's",
      (ours["frechet"] - floor) / (one["frechet"] - floor), below=0.5)
claim("C20.19", "digits, one call: variety of the student's pictures of a label (real ones: 1)",
      digits_variety(ways["student, 1 call"](0)), above=0.25)
claim("C20.20", "digits, one call: share of the student's that a classifier reads as asked",
      ours["accuracy"], above=0.95)

# %% [markdown]
# (The Fréchet distance is to held-out digits, on a classifier's features; the floor is that of real ones. Variety is the variance within a
# label.) A student that has learnt nothing has a ratio of 1 and a variety of 0.05, and SDS makes both worse. We ask for half of the way; seven seeds had 0.30 to 0.36.
# Accuracy alone is a trap: the teacher's soft digits score 100 %, real ones 98 %.
#
# Now the same recipe for a small transformer that draws 16×16 pictures for captions like *a large blue square left of a small
# yellow triangle*, on Stable Diffusion's schedule ($\alpha=0.068$ at $t=1$), from pure noise.

# %%
# NBVAL_CHECK_OUTPUT
roles = trio(base)
brush = recipes.swiftbrush(base.schedule, NULL_TOKENS, **plain, fake_steps=2)
before = base(z, start[0], text).raw
history = learn(brush, roles, caption_batches(20, seed=0), steps=200,
                rates={"student": 7e-5, "fake": 3e-3})
claim("C20.21", "B = 0: the fake is the teacher, and G at the first step",
      history["student/gradient"][0], between=(0, 0))
claim("C20.22", "after the fake's first two steps: G",
      history["student/gradient"][1], above=0)
claim("C20.23", "the teacher after 400 steps of its twin: largest change of an output",
      (base(z, start[0], text).raw - before).abs().max(), between=(0, 0))

# %% [markdown]
# A reader that knows how the pictures were made (no network) says whether each shows its caption; Fréchet distance and variety compare with real
# ones of the same captions.

# %%
# NBVAL_CHECK_OUTPUT
codes, (floor, _) = asked(), shapes_floor(asked())  # 512 captions; real pictures' Fréchet
ways = {"teacher, 1 call": ("teacher", 1), "student, 1 call": ("student", 1),
        "teacher, 4 calls": ("teacher", 4)}         # calls of DDIM
drawn = {way: draw_shapes(roles[role], codes, 0.0, n) for way, (role, n) in ways.items()}
one, ours, four = found = [scores(x, codes) for x in drawn.values()]
titles = [f"{way}: {100 * of['accuracy']:.0f} % as asked, Fréchet {of['frechet']:.2f}"
          for way, of in zip(ways, found)]
figure(plot.pictures(dict(zip(titles, (x[:10] for x in drawn.values())))),
       "The teacher's one-call pictures are pale blurs of all places where a thing may be; "
       "the student's have full colours and one place each, with frayed edges; those of "
       "four calls have the cleanest edges.",
       "Columns share caption and noise. The first three: " + "; ".join(
           say(tuple(code)) for code in codes[:3].tolist()) + ".")
claim("C20.24", "one call: the student's misread captions over the teacher's",
      (1 - ours["accuracy"]) / (1 - one["accuracy"]), below=0.5)
claim("C20.25", "one call: the student's Fréchet above the floor, over the teacher's",
      (ours["frechet"] - floor) / (one["frechet"] - floor), below=1)
claim("C20.26", "variety of the student's pictures of one caption (real ones: 1)",
      variety(roles["student"]), above=0.25)
claim("C20.27", "but four calls of the teacher are better: Fréchet, student over teacher",
      ours["frechet"] / four["frechet"], above=1)

# %% [markdown]
# A student that has learnt nothing has 1 in the first two (0.5 is more than ten standard errors away), and next to no variety.
# What did *not* work: four calls of this teacher beat our one.
#
# ## 20.8 What should look wrong here
#
# Student and fake predict $\varepsilon$ instead of $v$, from $t=0.98$, where $\alpha=0.031$ and $x_0=(z-\sigma\varepsilon_\theta)/\alpha$.
# It is the same family of functions. *Predict what changes.*

# %%
# NBVAL_CHECK_OUTPUT
late = recipes.swiftbrush(schedule, None, start=0.98, **plain)
inside = {face: mixture.shares(points(late, 250, face, start=0.98)).sum()
          for face in ("v", "eps")}
claim("C20.28", "share in the modes: ε-prediction over v-prediction",
      inside["eps"] / inside["v"], below=0.75)

# %% [markdown]
# It stalls. An error $\delta$ of the network is $32\,\delta$ in $x_0$, and so is every optimiser step's jitter. At $\alpha=0$ there is no answer at all.
#
# ## 20.9 In practice
#
# - **The published run.** SwiftBrush: Stable Diffusion 2.1-base, prompts only; student's rate $10^{-6}$, fake's $10^{-3}$ (a thousand times), LoRA rank 64 on
#     `to_q`, `to_v`, guidance scale 4.5 on *both* scores, $t$ in [.02, .98]; COCO-30K FID 16.67 in one call [@nguyen2024swiftbrush]. *Not reproduced here.*
# - **Where guidance goes.** ProlificDreamer guides the teacher alone, at 7.5 [@wang2023prolificdreamer]. Guiding both moves the fixed point: the *guided* scores agree there.
# - **The start.** SD 2.1-base predicts ε, and $\alpha_{T}=0.0686$: errors count 15 times. `generate` takes the division in float32. A v- or flow-predicting
#     teacher has no such trouble.
# - **Do not reset the fake.** A fresh adapter is the teacher; $G$ is 0 until it has learnt the student anew.
# - **Watch** `student/gradient`, `student/spread` and pictures, never the loss. `vsd` sums over a sample's values; the recipes, like the released codes,
#     take their mean: Adam does not care, clipping does.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `shapes_teacher()` | `full_scale.sd.denoiser(unet, scheduler_config)` |
# | `twin(base.net, rank=16)` | `twin(unet, 64, 108.0, ("to_q", "to_v"))` |
# | `NULL_TOKENS` | the embedding of the empty prompt |
# | `learn(recipe, …)` | `full_scale.engine`, the same phases over processes |
# | `recipes.swiftbrush` | the same code: |

# %%
# NBVAL_CHECK_OUTPUT
from full_scale import settings

theirs = settings.recipe_of(settings.read(["swiftbrush"]), base.schedule, NULL_TOKENS)
published = recipes.swiftbrush(base.schedule, NULL_TOKENS, omega=3.5, omega_fake=3.5)
first, second = (recipe.phases[0].loss(roles, Batch(z, text), Draw(5)).value.item()
                 for recipe in (theirs, published))
inner = lambda recipe: inspect.getclosurevars(recipe.phases[0].loss).nonlocals["loss"]
claim("C20.29", "`full_scale.train swiftbrush` runs the code shown in 20.7 and no copy of it",
      inner(theirs).__code__ is inner(published).__code__, between=(1, 1))
claim("C20.30", "its loss with the published settings − ours", first - second,
      between=(0, 0))

# %% [markdown]
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
# The first line of the log says `student/loss` 0: that is claim C20.21, on Stable Diffusion's U-Net.
#
# **How far up the ladder.** Rung 1: both gradients against exact divergences, the collapse predicted, five modes. Rung 2: one-call students of trained
# teachers, from labels and captions alone, with LoRA fakes; unguided, where published runs are guided. Rung 3: the same recipe on Stable Diffusion's
# classes; its quality is not measured here.
#
# ## 20.10 Exercises
#
# 1. *(pencil)* A student $\mathcal N(m,s^2)$ of fixed width, data $\mathcal N(0,\tau^2)$, and a fake $\mathcal N(m_f,s^2)$ that follows at rate $k$: $\dot m_f=k(m-m_f)$.
#    The student descends with \eqref{eq:sd-vsd}. For which $k$ is the pair stable?
# 2. *(code)* In the second cell, replace `gmm5()` by `toy_data.ring8()`, then train SDS and find `bottom(variance)`. Check: the radii agree within 0.1. The ring's
#    $\Phi$ has more than one minimum. Which does the student choose, for three seeds?
# 3. *(code)* Digits, 100 steps: start and ask the student at $t=1$, then at $t=0.6$. Check: the first has a variety below 0.2, the second above it; the accuracies
#    agree within 0.01. Why? And what do 450 steps from $t=1$ give?
# 4. *(open)* Train `points` with $w=\alpha/\sigma$, on GMM5 and on `ring8`. It favours shapes. Does it keep the modes? Find weights, levels or rates that get both.
#
# <details><summary>Answer to 1</summary>
#
# With $v_p=\alpha^2s^2+\sigma^2$ the gradient by $m$ is linear: $\dot m=a\,m-b\,m_f$, where $a=\alpha^2(1/v_p-1/v_q)$ and $b=\alpha^2/v_p$. The pair has trace $a-k$ and
# determinant $k(b-a)=k\alpha^2/v_q>0$: it is stable if and only if $k>a$. A student wider than the data ($a<0$) forgives any delay. For a narrow one $a$ grows
# as it shrinks, up to $\alpha^2(1/\sigma^2-1/v_q)$.
#
# </details>
#
# <details><summary>Answer to 3</summary>
#
# At $t=1$ the teacher's variety is 0.01: the student begins as ten points, and by exercise 1 a narrow student wants the fastest fake. It spreads slowly:
# after 100 steps we had 0.12 to 0.16 from $t=1$ and 0.29 to 0.35 from $t=0.6$ (four seeds), after 450 from $t=1$ 0.64 to 0.67 (three).
#
# </details>
#
# ## References
#
# SDS: [@poole2023dreamfusion]. VSD: [@wang2023prolificdreamer]. The same gradient as an integral of KL: [@luo2023diffinstruct]. One step, from
# prompts: [@nguyen2024swiftbrush]. Adapters: [@hu2022lora]. The ODE: [@song2021sde]. Guidance: [@ho2022cfg].
