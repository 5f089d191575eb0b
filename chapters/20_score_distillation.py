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
# recipes that this chapter derives; `generate` makes the student's samples, one call each.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import copy
import math
from dataclasses import replace
from functools import partial

import torch
from dlib import NULL, Batch, Denoiser, Draw, Loss, Mixture, Phase, Recipe, adapters
from dlib import cosine, exact, fake_score, fit, generate, metrics, plot, recipes, sds, twin, vsd
from dlib.losses.score_distillation import injected, kl, on_x0, variance
from dlib.nets import MLP
from toy_data import digits_classifier, digits_split, digits_teacher, gmm5
from toy_data.digit_scores import digits_floor, digits_frechet, draw_digits

mixture, schedule = gmm5(), cosine()
teacher = exact(mixture, schedule)

# %%
def learn(recipe, roles, data, steps, rates):
    """Adam without momentum for every trained role, the rates falling to zero."""
    own = lambda role: [p for p in roles[role].net.parameters() if p.requires_grad]
    optims = {r: torch.optim.Adam(own(r), rates[r], (0.0, 0.999)) for r in recipe.trained}
    falling = [torch.optim.lr_scheduler.CosineAnnealingLR(o, steps) for o in optims.values()]
    return fit(recipe.phases, roles, optims, data, steps, Draw(0),
               each=lambda step, found: [rate.step() for rate in falling])

def points(recipe, steps, predicts="v", start=1.0):
    """Train networks that know nothing; 4000 samples of the student."""
    torch.manual_seed(0)
    new = lambda: Denoiser(MLP(2, width=64, depth=2), schedule, predicts)
    roles = {"teacher": teacher} | {role: new() for role in recipe.trained}
    learn(recipe, roles, lambda step: Batch(torch.empty(256, 2)), steps,
          rates={"student": 1e-3, "fake": 3e-3})
    return generate(roles["student"], noise, schedule.levels([start])).detach()

# %%
noise, plain = Draw(9).normal(torch.empty(4000, 2)), {"omega": 0.0, "omega_fake": 0.0}
made = {"one-step teacher": generate(teacher, noise, schedule.levels([1.0])),
        "SDS": points(recipes.sds(schedule, None, omega=0.0), steps=300),
        "VSD": points(recipes.swiftbrush(schedule, None, **plain), steps=600)}
figure(plot.modes(made, mixture),
       "The teacher's one-step answer is a single point in the middle, the SDS student a small "
       "speck between two modes; the VSD student fills all five modes.",
       "4000 samples, one network call each. Circles: three standard deviations of each mode.")

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
# calls the teacher *real* and the network that knows $\varepsilon_p$ *fake*:

# %%
# NBVAL_CHECK_OUTPUT
show(vsd, injected)

# %% [markdown]
# `injected` is how a hand-made gradient $G$ enters autograd: the derivative of $\tfrac12\lVert x-\mathrm{sg}(x-G)\rVert^2$ by $x$ is $G$, if
# $\mathrm{sg}$ stops gradients. The value of such a loss means nothing: it is $\tfrac12\lVert G\rVert^2$.
#
# Now audit it. Two cases are known. For a student $m+sz$ and data $\mathcal N(0,\tau^2)$ let $v_p=\alpha^2s^2+\sigma^2$ and
# $v_q=\alpha^2\tau^2+\sigma^2$; then
#
# $$\frac{\partial\mathrm{KL}}{\partial m}=\frac{\alpha^2m}{v_q},\qquad\frac{\partial\mathrm{KL}}{\partial s}=\alpha^2s\Big(\frac1{v_q}-\frac1{v_p}\Big). \label{eq:sd-gauss}$$
#
# And a student with seven values of $z$ has a $p_t$ that is a mixture of seven Gaussians: there, KL is a sum over a grid and autograd
# differentiates the sum, whose code shares no formula with `vsd`. (For normal $z$ and linear scores, $z=\pm1$ is enough: it has the right
# moments up to order three.)

# %%
F64, level = torch.float64, schedule.at_lam(math.log(0.8 / 0.6))          # α = 0.8, σ = 0.6
nodes = torch.arange(-8, 8.01, 0.1, dtype=F64)      # the trapezoid rule for normal noise
mass = torch.softmax(-nodes**2 / 2, 0)

class Given(Draw):
    """Noise that is handed in: every node, for each of k values of z."""
    def __init__(self, k):
        self.noise = nodes.repeat(k)[:, None]
    def normal(self, like):
        return self.noise

def handed(loss, theta, x, at=level, weight=kl):
    """The mean over z and ε of what `loss` hands to x₀ (K,), carried on to θ."""
    many = x.repeat_interleave(len(nodes))[:, None]
    times = lambda draw, n: torch.full((n,), at.t, dtype=F64)
    value = loss(Batch(many), Given(len(x)), weight, times).value
    (G,) = torch.autograd.grad(value, many, retain_graph=True)
    each = len(nodes) * G.view(len(x), -1) @ mass
    return torch.autograd.grad(x, theta, each, retain_graph=True)[0]

# %%
# NBVAL_CHECK_OUTPUT
TAU = 1.0
def normal(m, s):
    """The exact denoiser of N(m, s²)."""
    m, s = torch.tensor([[m]], dtype=F64), torch.tensor([s], dtype=F64)
    return exact(Mixture(torch.ones(1), m, s), schedule)

def pushes(loss, m, s, at=level):
    """(∂/∂m, ∂/∂s) that `loss` hands to the student m + s z."""
    theta = torch.tensor([m, s], dtype=F64, requires_grad=True)
    return handed(loss, theta, theta[0] + theta[1] * torch.tensor([-1.0, 1.0], dtype=F64), at)

def formula(m, s, at=level):
    v_p, v_q = (at.alpha**2 * std**2 + at.sigma**2 for std in (s, TAU))
    return at.alpha**2 * torch.tensor([m / v_q, s / v_q - s / v_p], dtype=F64)

data = normal(0.0, TAU)
cases = [(m, s, schedule.at(t)) for m, s in ((0.7, 0.5), (-1.0, 2.0)) for t in (0.1, 0.5, 0.9)]
off = [pushes(partial(vsd, data, normal(*c[:2])), *c) - formula(*c) for c in cases]
claim("C20.1", "Gaussians: VSD with w = α/σ − the closed form of ∇KL (largest of 12)",
      torch.stack(off).abs().max(), below=1e-9)

# %%
# NBVAL_CHECK_OUTPUT
z7 = torch.linspace(-1.5, 1.5, 7, dtype=F64)
theta = torch.tensor([0.3, 0.8, -0.2, 0.5], dtype=F64, requires_grad=True)
atoms = torch.stack([z7**0, z7, z7**2, (2 * z7).sin()], 1) @ theta        # g(z), seven times
two = Mixture(torch.tensor([0.6, 0.4]), torch.tensor([[-1.0], [1.2]]), torch.tensor([0.3, 0.5]))
spikes = lambda x: Mixture(torch.ones(7) / 7, x[:, None], torch.full((7,), 1e-6))
line = torch.arange(-9, 9, 0.01, dtype=F64)[:, None]
log_p, log_q = spikes(atoms).log_prob(line, level), two.log_prob(line, level)
slope = lambda f: torch.autograd.grad(0.01 * f.sum(), theta, retain_graph=True)[0]
apart = lambda x, y: (x - y).norm() / y.norm()
true_kl = slope(log_p.exp() * (log_p - log_q))
real, fake = exact(two, schedule), exact(spikes(atoms.detach()), schedule)
claim("C20.2", "seven atoms: VSD − autograd of KL (relative)",
      apart(handed(partial(vsd, real, fake), theta, atoms), true_kl), below=1e-8)
claim("C20.3", "the term that was dropped, E ∂θ log p, is zero (largest entry)",
      slope(log_p.exp().detach() * log_p).abs().max(), below=1e-9)
by_x0 = handed(partial(vsd, real, fake), theta, atoms, weight=on_x0)
claim("C20.4", "Diff-Instruct's G, x̂₀ of the fake − x̂₀ of the teacher, is (σ/α)² ∇KL (relative)",
      apart(by_x0, (0.6 / 0.8) ** 2 * true_kl), below=1e-8)

# %% [markdown]
# ## 20.3 Leave the fake score out
#
# *Score distillation sampling* came first [@poole2023dreamfusion], and has no second network. In its place stands the noise that was added:
#
# $$\nabla^{\mathrm{SDS}}_\theta=\mathbb E_{z,\varepsilon}\Big[w(t)\,\big(\varepsilon_q(x_t)-\varepsilon\big)\cdot\frac{\partial g_\theta}{\partial\theta}\Big]. \label{eq:sd-sds}$$
#
# It looks like the same thing: subtracting $\varepsilon$ or its guess, what is the difference? But $\partial g/\partial\theta$ depends on $z$ only, and $\varepsilon$ is independent of $z$ with
# mean zero. So $-\varepsilon$ changes the variance, never the mean. What is left with $w=\alpha/\sigma$ is the $q$-part of \eqref{eq:sd-two}:
#
# $$\nabla^{\mathrm{SDS}}_\theta=-\nabla_\theta\,\mathbb E_{x\sim p_t}\log q_t(x)=\nabla_\theta\,\mathrm{CE}(p_t,q_t),\qquad \mathrm{KL}=\mathrm{CE}-\mathrm{H}(p_t). \label{eq:sd-ce}$$
#
# The entropy is gone, and with it the only reason to spread. For two Gaussians, $\partial\mathrm{CE}/\partial s=\alpha^2s/v_q>0$ for every $s$ and every level: shrink.

# %%
# NBVAL_CHECK_OUTPUT
show(sds)
claim("C20.5", "seven atoms: SDS − autograd of the cross-entropy (relative)",
      apart(handed(partial(sds, real), theta, atoms), slope(-log_p.exp() * log_q)), below=1e-8)
s = torch.linspace(0.05, 2.5, 25, dtype=F64)
v_p, v_q = (level.alpha**2 * std**2 + level.sigma**2 for std in (s, TAU))
d_ce, d_entropy = (level.alpha**2 * s / v for v in (v_q, v_p))
found = {"SDS": torch.stack([pushes(partial(sds, data), 0.0, w)[1] for w in s.tolist()]),
         "VSD": torch.stack([pushes(partial(vsd, data, normal(0.0, w)), 0.0, w)[1]
                             for w in s.tolist()])}
claim("C20.6", "SDS pushes every width down: the smallest ∂/∂s over 25 widths",
      found["SDS"].min(), above=0)
claim("C20.7", "VSD pulls up below the data's width and down above (smallest push that way)",
      (found["VSD"] * (s - TAU).sign())[(s - TAU).abs() > 0.01].min(), above=0)
figure(plot.audit(s, {"exact": d_ce, "": d_ce - d_entropy}, found,
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
square = torch.cartesian_prod(few, few)
share = torch.softmax(-square.square().sum(1) / 2, 0)
levels = [schedule.at(t) for t in torch.linspace(0.02, 0.98, 49).tolist()]
def bottom(weight):
    """The minimum of Φ to which a descent from the data's mean leads."""
    def potential():
        rows = [weight(at) * at.sigma / at.alpha
                * mixture.log_prob(at.alpha * x + at.sigma * square, at)
                for at in levels]
        (x.grad,) = torch.autograd.grad(total := -(torch.stack(rows) @ share).mean(), x)
        return total
    x = (mixture.weights @ mixture.means).requires_grad_()
    torch.optim.LBFGS([x], max_iter=40, line_search_fn="strong_wolfe").step(potential)
    return x.detach()

in_stds = lambda x: ((x - mixture.means).norm(dim=1) / mixture.stds).min()
claim("C20.8", "the trained SDS student: RMS distance to the minimum of Φ",
      metrics.rms(made["SDS"].double(), bottom(variance).expand(4000, 2)), below=0.1)
claim("C20.9", "with w = σ² that minimum is in no mode (standard deviations to the nearest)",
      in_stds(bottom(variance)), above=3)
claim("C20.10", "with w = α/σ it is inside a mode", in_stds(bottom(kl)), below=1)

# %% [markdown]
# (0.1 is half the width of the narrowest mode.) The weight decides *which* point, and $\sigma^2$, the weight in use, picks one where
# the noised densities agree and no data are. Guidance moves it: DreamFusion's $\omega=100$ sharpens $q_t$ until the point is a good one. For one 3-D
# scene, a point is all you need. For a generator it is a disaster.
#
# ## 20.5 The second network, and how fresh it must be
#
# $\varepsilon_p$ is the denoiser of the student's samples, so train one: `denoising` of chapter 1 on them as data, detached. The student moves, the
# fake follows, in turns.

# %%
# NBVAL_CHECK_OUTPUT
show(fake_score)
def ledger(x):
    k = mixture.modes_of(x)
    return torch.bincount(k[k >= 0], minlength=5) / len(x)

masses = {"data": ledger(mixture.sample(4000, Draw(8))[0]),
          "SDS": ledger(made["SDS"]), "VSD": ledger(made["VSD"])}
figure(plot.ledger(masses, mixture.weights),
       "The SDS student has nothing in any mode; the VSD student has close to the true "
       "weight in each, and about a sixth of its samples in none.",
       "The mode ledger. A sample is in a mode within three of its standard deviations.")

# %%
# NBVAL_CHECK_OUTPUT
claim("C20.11", "the teacher in one step answers with the mean of the data (RMS distance)",
      metrics.rms(made["one-step teacher"].double(),
                  (mixture.weights @ mixture.means).expand(4000, 2)), below=1e-6)
claim("C20.12", "SDS: share of the samples in any mode", masses["SDS"].sum(), between=(0, 0))
claim("C20.13", "VSD: smallest share of a mode over its weight",
      (masses["VSD"] / mixture.weights).min(), above=0.25)
claim("C20.14", "VSD: share of the samples in some mode", masses["VSD"].sum(), above=0.7)

# %% [markdown]
# Real samples score .989 in C20.14. A lost mode scores 0 in C20.13; we call one found from a quarter of its weight on. The
# student's map is continuous, so bridges between islands must remain; longer training thins them. The weights come out better than the shapes:
# $w=\sigma^2$ looks mostly at noisy levels, where a mode is a blur.
#
# How stale may the fake be? Take a student $\mathcal N(m,s^2)$ of fixed width, data $\mathcal N(0,\tau^2)$, and a fake $\mathcal N(m_f,s^2)$ that follows at
# rate $k$: $\dot m_f=k(m-m_f)$. The gradient of $m$ is linear in $(m,m_f)$:
#
# $$\dot m=a\,m-b\,m_f,\qquad a=\alpha^2\Big(\frac1{v_p}-\frac1{v_q}\Big),\quad b=\frac{\alpha^2}{v_p}. \label{eq:sd-lag}$$
#
# Trace $a-k$, determinant $k(b-a)=k\alpha^2/v_q>0$: the pair is **stable if and only if $k>a$**. A student wider than the data ($a<0$) forgives
# any delay. A *narrow* one runs from its own shadow: pushed away from where the fake still believes it to be. And the narrower the
# student, the faster the fake must be.

# %%
# NBVAL_CHECK_OUTPUT
narrow = 0.3
pull = lambda m, m_f: -pushes(partial(vsd, data, normal(m_f, narrow)), m, narrow)[0].item()
v_p, v_q = (level.alpha**2 * std**2 + level.sigma**2 for std in (narrow, TAU))
a, b = level.alpha**2 * (1 / v_p - 1 / v_q), level.alpha**2 / v_p
flow = lambda k: torch.tensor([[pull(1.0, 0.0), pull(0.0, 1.0)], [k, -k]], dtype=F64)
growth = lambda k: torch.linalg.eigvals(flow(k)).real.max()
claim("C20.15", "VSD's dynamics with a lagging fake − (a, −b)",
      max(abs(pull(1.0, 0.0) - a), abs(pull(0.0, 1.0) + b)), below=1e-9)
claim("C20.16", "a fake at 0.9 of the critical rate: growth rate", growth(0.9 * a), above=0)
claim("C20.17", "a fake at 1.1 of the critical rate: growth rate", growth(1.1 * a), below=0)

# %% [markdown]
# Now the same with networks. Everything as before, but the fake moves at every tenth step only. The student starts as a point, so it
# is narrow. *Predict how many modes it finds.*

# %%
# NBVAL_CHECK_OUTPUT
right = recipes.swiftbrush(schedule, None, **plain)
lazy = Recipe((right.phases[0], replace(right.phases[1], every=10)), right.roles)
stale = ledger(points(lazy, steps=400))
claim("C20.18", "a stale fake: the largest share of one mode among all that lies in modes",
      stale.max() / stale.sum(), above=0.9)

# %% [markdown]
# One. It fled from where the fake believed it to be, until a mode of the data caught it. A fake that lags turns VSD back into something like SDS;
# "two time scales", several fake steps a student step or a larger rate, is the cure.
#
# ## 20.6 Twins: the fake as an adapter
#
# At full scale, three networks of a billion weights are two too many. Teacher and fake differ little, so make the fake a
# **low-rank adapter** [@hu2022lora] on the frozen teacher: each chosen layer's $W$ becomes $W+\frac{\alpha_r}{r}BA$ with $B=0$ at first. `twin` returns a module tree of its own
# that *shares* the base's tensors. Nothing is switched on or off, and that matters. Here is what one network with switchable adapters
# does if you activate the other adapter between `forward` and `backward`, as peft's `set_adapter` does by freezing the first:

# %%
# NBVAL_CHECK_OUTPUT
base = digits_teacher()
start, labels = base.schedule.levels([1.0]), torch.arange(10)
z10 = Draw(2).normal(torch.empty(10, 1, 8, 8))
def gradient_of_adapters(between):
    """The norm of a student's gradient, if something happens before the backward pass."""
    torch.manual_seed(0)
    net = twin(base.net, rank=16)
    value = generate(replace(base, net=net), z10, start, labels).square().sum()
    between(adapters(net).values())
    value.backward()
    return sum(p.grad.norm() for p in adapters(net).values() if p.grad is not None)

def activate_another(own):
    for p in own:                                   # what set_adapter("fake") does to them
        p.requires_grad_(False)

claim("C20.19", "twins: the student's gradient", gradient_of_adapters(lambda own: None), above=0)
claim("C20.20", "switched before the backward pass, without an error: the gradient",
      gradient_of_adapters(activate_another), between=(0, 0))

# %% [markdown]
# No error, no gradient. (With gradient checkpointing it is worse: the forward pass is repeated with the *other* adapter. The test suite shows both
# with peft itself, on Stable Diffusion's U-Net.)
#
# ## 20.7 Rung 2: one-step digits
#
# The teacher is a trained network on 8×8 digits with labels; student, a copy of it; fake, a twin. SwiftBrush [@nguyen2024swiftbrush]
# is \eqref{eq:sd-vsd} with $w=\sigma^2$, starting at pure noise; here is all of it:

# %%
# NBVAL_CHECK_OUTPUT
show(recipes.swiftbrush)
torch.manual_seed(0)
roles = {"teacher": base, "fake": replace(base, net=twin(base.net, rank=16)),
         "student": replace(base, net=copy.deepcopy(base.net).requires_grad_(True))}
asked, null = Draw(3), torch.tensor(NULL)
digits = lambda step: Batch(torch.empty(128, 1, 8, 8), asked.integers(10, 128))
before = base(z10, start[0], labels).raw
history = learn(recipes.swiftbrush(base.schedule, null, **plain), roles, digits, steps=400,
                rates={"student": 3e-4, "fake": 3e-3})
claim("C20.21", "B = 0: the fake is the teacher, and G at the first step",
      history["student/gradient"][0], between=(0, 0))
claim("C20.22", "after one step of the fake: G", history["student/gradient"][1], above=0)
claim("C20.23", "the teacher after 400 steps of its twin: largest change of an output",
      (base(z10, start[0], labels).raw - before).abs().max(), between=(0, 0))

# %%
(_, (_, wanted)), classifier = digits_split(), digits_classifier()
z296 = Draw(4).normal(torch.empty(296, 1, 8, 8))
drawn = {f"{role}, 1 call": generate(roles[role], z296, start, wanted).detach()
         for role in ("teacher", "student")}
drawn["teacher, 20 calls"] = draw_digits(base, wanted, 0.0, seed=4)
frechet = {name: digits_frechet(x, classifier) for name, x in drawn.items()}
floor, spread = digits_floor(classifier)
first = torch.stack([(wanted == c).nonzero()[0, 0] for c in range(10)])
figure(plot.pictures({f"{name}: Fréchet {frechet[name]:.2f}": drawn[name][first]
                      for name in drawn}),
       "The teacher's one-call answers are blurred means of each class; the student's have the "
       "contrast of its 20-call samples, and stray grey pixels that those have not.",
       f"One label a column. Real digits against real digits: {floor:.3f} ± {spread:.3f}.")

# %% [markdown]
# We ask for half of the way from one call of the teacher to the floor, and do not expect all of it: the fake is a rank-16 adapter, for 400 steps.

# %%
# NBVAL_CHECK_OUTPUT
claim("C20.24", "digits, one call: what is left of the teacher's distance from the floor",
      (frechet["student, 1 call"] - floor) / (frechet["teacher, 1 call"] - floor), below=0.5)
claim("C20.25", "but the teacher's 20 calls are still better (Fréchet ratio)",
      frechet["student, 1 call"] / frechet["teacher, 20 calls"], above=1)

# %% [markdown]
# ## 20.8 What should look wrong here
#
# Three mistakes. *Predict each before you run the cell.* (a) The sign of $G$ is flipped. (b) The $\mathrm{sg}$ around the target is forgotten, so autograd
# differentiates $G$ as well. Data are wider than the student; which way does its width go? (c) Student and fake predict $\varepsilon$ instead of $v$,
# from $t=0.98$, where $\alpha=0.031$ and $x_0=(z-\sigma\varepsilon_\theta)/\alpha$.

# %%
# NBVAL_CHECK_OUTPUT
def flipped(roles, batch, draw):
    found = right.phases[0].loss(roles, batch, draw)
    return found._replace(value=-found.value)

away = points(Recipe((Phase("student", flipped), right.phases[1]), right.roles), steps=100)
size = lambda x: metrics.rms(x, 0 * x)
claim("C20.26", "(a) after 100 steps: RMS of the samples over that of the data",
      size(away) / size(mixture.sample(4000, Draw(8))[0]), above=4)

# %%
# NBVAL_CHECK_OUTPUT
def forgot(batch, draw, weight, times):
    x, fake = batch.x0, normal(0.0, narrow)
    x_t = level.alpha * x + level.sigma * draw.normal(x)
    G = weight(level) * (data(x_t, level).eps - fake(x_t, level).eps)
    return Loss(0.5 * (x - (x - G)).square().mean(), {})

expected = level.alpha**4 * narrow * (1 / v_q - 1 / v_p) ** 2
claim("C20.27", "(b) without sg, ∂/∂s is α⁴s(1/v_q − 1/v_p)², never negative (relative)",
      pushes(forgot, 0.0, narrow)[1] / expected - 1, between=(-1e-9, 1e-9))
claim("C20.28", "(b) while ∂KL/∂s is", formula(0.0, narrow)[1], below=0)
late = recipes.swiftbrush(schedule, None, start=0.98, **plain)
inside = {face: ledger(points(late, 400, face, start=0.98)).sum() for face in ("v", "eps")}
claim("C20.29", "(c) share in modes: ε-prediction over v-prediction",
      inside["eps"] / inside["v"], below=0.75)

# %% [markdown]
# (a) It descends towards itself, away from the data, without bound. (b) It shrinks: the loss has become $\tfrac12\lVert G\rVert^2$, which is smallest where the two scores happen to agree, so every sample
# moves there. Had $G$ been made under `no_grad`, the gradient would be exactly 0. (c) It stalls. An error $\delta$ of the network is $32\,\delta$ in $x_0$, and so is every
# optimiser step's jitter. At $\alpha=0$ there is no answer at all.
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
# - **Where the toy stops being true.** Here the audit had exact scores, and the 2-D fake was as large as the student. A low-rank fake lags, by 20.5.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `digits_teacher()` | `full_scale.sd.denoiser(unet, scheduler_config)` |
# | `twin(base.net, rank=16)` | `twin(unet, 64, 108.0, ("to_q", "to_v"))` |
# | `NULL` | the embedding of the empty prompt |
# | `fit(recipe.phases, …)` | `full_scale.engine`, the same phases over processes |
# | `recipes.swiftbrush` | the same function object: |

# %%
# NBVAL_CHECK_OUTPUT
from full_scale import settings

theirs = settings.recipe_of(settings.read(["swiftbrush"]), base.schedule, null)
ours = recipes.swiftbrush(base.schedule, null, omega=3.5, omega_fake=3.5)
batch = Batch(z10, labels)
claim("C20.30", "the function that `full_scale.train swiftbrush` looks up is this one",
      settings.recipes.METHODS["swiftbrush"] is recipes.swiftbrush, between=(1, 1))
first, second = (r.phases[0].loss(roles, batch, Draw(5)).value.item()
                 for r in (theirs, ours))
claim("C20.31", "its loss with the published settings − ours", first - second, between=(0, 0))

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
# **How far up the ladder.** Rung 1: both gradients against exact divergences, the collapse predicted, five modes. Rung 2: a one-call student of a trained,
# labelled teacher with a LoRA fake, on digits; captioned shapes are not done here. Rung 3: the same recipe on Stable Diffusion's classes; its quality is not measured here.
#
# ## 20.10 Exercises
#
# 1. *(pencil)* Show that $\mathbb E[\frac\alpha\sigma(\varepsilon-\varepsilon_p(x_t))\cdot\partial_\theta g]=-\nabla_\theta\mathrm H(p_t)$, and check it on $\mathcal N(m,s^2)$.
# 2. *(code)* Replace `gmm5` by `toy_data.ring8` in `points(recipes.sds(…), 300)` and `bottom(variance)`. Check: the radii agree within 0.1. The ring's
#    $\Phi$ has more than one minimum. Which does the student choose, for three seeds?
# 3. *(code)* Train SDS with $w=\alpha/\sigma$. Check: `in_stds` of the samples' mean is below 1.
# 4. *(open)* On GMM5 the weight $\alpha/\sigma$ put .91 of the samples into modes where $\sigma^2$ put .85; on `ring8` it kept three modes of eight (one run
#    each, 800 steps, `fake_steps=2`). Explain both, and find weights, levels or rates that get the shapes *and* the modes.
#
# <details><summary>Answer to 1</summary>
#
# Subtract \eqref{eq:sd-sds} from \eqref{eq:sd-vsd}, both with $w=\alpha/\sigma$: what remains is $\nabla(\mathrm{KL}-\mathrm{CE})=-\nabla\mathrm H$. For the Gaussian
# $\mathrm H=\tfrac12\log v_p+\text{const}$, so $-\partial_s\mathrm H=-\alpha^2s/v_p$: the second part of \eqref{eq:sd-gauss}.
#
# </details>
#
# Answer to 3, as code that runs:

# %%
# NBVAL_CHECK_OUTPUT
def loss(roles, batch, draw):
    x = generate(roles["student"], draw.normal(batch.x0), schedule.levels([1.0]))
    uniform = lambda draw, n: 0.02 + 0.96 * draw.uniform(n)
    return sds(roles["teacher"], Batch(x), draw, kl, uniform)

steep = points(Recipe((Phase("student", loss),), ("student", "teacher")), steps=300)
claim("C20.32", "SDS with w = α/σ: from the samples' mean to the nearest mode, in its stds",
      in_stds(steep.mean(0).double()), below=1)

# %% [markdown]
# ## References
#
# SDS: [@poole2023dreamfusion]. VSD: [@wang2023prolificdreamer]. The same gradient as an integral of KL: [@luo2023diffinstruct]. One step, from
# prompts: [@nguyen2024swiftbrush]. Adapters: [@hu2022lora]. The ODE: [@song2021sde]. Guidance: [@ho2022cfg].
