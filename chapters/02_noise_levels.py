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
#     title: Noise levels
#     summary: One score is not a sampler. A ladder of noise levels, from far to near, finds modes and their weights.
#     minutes: 40
#     memory: 1 GB
#     needs:
#       - score, Langevin dynamics, denoising score matching (chapter 1; recapped in 2.1)
#       - PyTorch
# ---

# %% [markdown]
# # 2 Noise levels: one network, many scores
#
# Two modes, ten standard deviations apart. Four fifths of the data are on the left. You have the *exact* score, and
# Langevin dynamics, which follows it with noise. Below, all chains start in the right-hand mode.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import math
from statistics import NormalDist

import torch
from dlib import CLEAN, Batch, Denoiser, Draw, Mixture, Phase, annealed_langevin
from dlib import denoising, exact, fit, grid, langevin, metrics, nets, plot, sample
from dlib import solvers, ve
from dlib.losses import uniform_times, weights
from toy_data import digits_classifier, digits_split, digits_teacher
from toy_data.digit_scores import digits_frechet, digits_floor

mixture = Mixture(torch.tensor([0.8, 0.2]), torch.tensor([[-5.0, 0.0], [5.0, 0.0]]),
                  torch.ones(2))
schedule = ve(0.1, 20)                             # α = 1, σ from 20 down to 0.1
model = exact(mixture, schedule)
def ladder(schedule, n, top, low):
    """n geometric noise levels from σ = top down to σ = low."""
    t_max, t_min = (schedule.at_lam(-math.log(sigma)).t for sigma in (top, low))
    return schedule.levels(grid(schedule, n - 1, t_max=t_max, t_min=t_min))

# %%
levels = ladder(schedule, 24, top=20, low=0.1)
start = mixture.means[1:].repeat(2000, 1)          # everyone in the wrong mode
DELTA, STEPS = 0.2, 20
def anneal(model, x, levels, n=STEPS, delta=DELTA, **more):
    return annealed_langevin(model, x, levels, delta * levels[-1].sigma**2, n, **more)

left = lambda x: (x[:, 0] < 0).double().mean().item()
plain = langevin(lambda x: model(x, levels[-1]).score, start, 0.05, 480, Draw(0))
annealed = anneal(model, start, levels, draw=Draw(0))
figure(plot.modes({f"plain: {left(plain):.0%} on the left": plain,
                   f"annealed: {left(annealed):.0%} on the left": annealed}, mixture),
       "Plain Langevin leaves every chain in the right mode; annealed Langevin, with as "
       "many steps, brings about four fifths of them to the left.",
       "2000 chains, 480 exact scores each, all started in the right mode.")

# %% [markdown]
# On the left, nobody has crossed. On the right the same 480 calls, spent on 24 noise levels, moved four chains in five,
# which is what the data say. Why do the levels work, how does one network learn
# them all, and how do you choose them?
#
# ## 2.1 Noise builds a bridge
#
# Recap. The score of a density is $s=\nabla\log p$. Data plus noise, $x=x_0+\sigma z$, has the density $p_\sigma$, and a
# network learns *its* score by regression on $-z/\sigma$. Langevin dynamics, $x\leftarrow x+\eta s(x)+\sqrt{2\eta}z$,
# draws from the density whose score it is given, but changes modes only by climbing through the valley between them,
# which takes time exponential in the depth. How deep is it? For two modes of width $c$ at a distance $D$,
# noise makes their variance $v=c^2+\sigma^2$, and for equal weights the valley is about
#
# $$\frac{D^2}{8v}-\log 2\;\text{ nats deep, and gone when }D\le2\sqrt{c^2+\sigma^2}. \label{eq:valley}$$
#
# Here $D=10$ and $c=1$: twelve nats for the data, two at $\sigma=2$, none from $\sigma=4.9$ on. (With unequal weights it is
# deeper from the heavy side, shallower from the light one, and gone earlier.) Where there is a valley, the score on the line has three zeros; without, one.

# %%
axis = torch.linspace(-14, 14, 281, dtype=torch.float64)
line = torch.stack([axis, torch.zeros_like(axis)], 1)
at = lambda sigma: schedule.at_lam(-math.log(sigma))
figure(plot.bridge(axis, {f"σ = {sigma:g}": mixture.log_prob(line, at(sigma))
                          for sigma in (0.1, 2, 5, 20)}),
       "Between the modes the density falls by twelve nats at σ = 0.1 and by two and a "
       "half at σ = 2; at σ = 5 there is no valley.",
       "$\\log p_\\sigma$ along the line through both modes: noise fills the valley.")

# %%
# NBVAL_CHECK_OUTPUT
zeros = lambda sigma: (model(line, at(sigma)).score[:, 0].sign().diff() != 0).sum()
claim("C02.1", "σ = 2: zeros of the score on the line (two modes and a valley)",
      zeros(2), between=(3, 3))
claim("C02.2", "σ = 5, where D < 2√(c² + σ²): zeros of the score on the line",
      zeros(5), between=(1, 1))
claim("C02.3", "plain Langevin, exact score: share on the left after 480 steps",
      left(plain), below=0.01)

# %% [markdown]
# (For the last bound: from the light side the valley is 11 nats deep, so a chain crosses some $e^{-11}$ times in a unit of $\eta\times$ steps. It has 24
# such units.)
#
# ## 2.2 One network for all levels
#
# So one wants the scores of *many* densities: $\sigma_1>\dots>\sigma_L$, geometric, from wider than the data to
# invisible. NCSN [@song2019ncsn] learns them with one network that is told $\sigma$:
#
# $$\sum_i w_i\;\tfrac12\,\mathbb E\,\Big\lVert s_\theta(x_0+\sigma_iz,\sigma_i)+\frac{z}{\sigma_i}\Big\rVert^2,\qquad w_i=\sigma_i^2. \label{eq:ncsn}$$
#
# Why that weight? The target $z/\sigma$ has variance $d/\sigma^2$: unweighted, $\sigma=0.1$ counts 40 000 times as much as
# $\sigma=20$. With $w_i=\sigma_i^2$ and $s=-\varepsilon/\sigma$ every level's term is $\tfrac12\lVert\varepsilon-\varepsilon_\theta\rVert^2$, of
# the same size. In the library that is the weight `eps`; `score` is the unweighted loss. (Papers call the weight $\lambda$. Here
# $\lambda$ is $\log(\alpha/\sigma)$. We draw $\sigma$ continuously, log-uniform, not from a list.)

# %%
show(denoising)

def learn(weight, steps=600):
    torch.manual_seed(0)
    mlp, points = nets.MLP(2, width=64, depth=2), Draw(1)
    size = lambda x, t: (schedule.at(t, like=x).sigma ** 2 + 25).sqrt()     # of x
    model = Denoiser(lambda x, t, cond: mlp(x / size(x, t), t), schedule, "eps")
    times = uniform_times(0)
    loss = lambda roles, batch, draw: denoising(model, batch, draw, weight, times)
    optim = torch.optim.Adam(mlp.parameters(), 3e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    fit([Phase("net", loss)], {"net": mlp}, {"net": optim},
        lambda step: Batch(mixture.sample(512, points)[0].float()), steps, Draw(0),
        each=lambda step, found: rate.step())
    return model

learnt, unweighted = learn(weights.eps), learn(weights.Weight("score"))

# %% [markdown]
# The network sees $x$ divided by its size, and it outputs $\varepsilon$: the score is that over $\sigma$, so the output has one scale at
# all levels. We ask for what chapter 1 asked for, an error below a fifth, here of the noise's own size $\sqrt d$. The
# unweighted loss hardly sees the upper rungs, and should fail there.

# %%
# NBVAL_CHECK_OUTPUT
x0 = mixture.sample(4000, Draw(2))[0]
def off(network, level):
    x = x0 + level.sigma * Draw(3).normal(x0)
    with torch.no_grad():
        return metrics.rms(network(x.float(), level).eps, model(x, level).eps) / 2**0.5

claim("C02.4", "weight σ²: error of ε over √d, the worst of 24 levels",
      max(off(learnt, level) for level in levels), below=0.2)
claim("C02.5", "unweighted: error of ε over √d at σ = 20",
      off(unweighted, levels[0]), above=0.4)

# %% [markdown]
# ## 2.3 Annealed Langevin dynamics
#
# Run Langevin at the noisiest level, where one step forgets a lot; go down one rung, where the density has changed a
# little; and so on. The step must shrink with the level, because the widths of the density do [@song2019ncsn, algorithm 1]:
#
# $$\eta_i=\epsilon\,\frac{\sigma_i^2}{\sigma_L^2}=\delta\,\sigma_i^2,\qquad\delta:=\epsilon/\sigma_L^2. \label{eq:eta}$$
#
# (Our $\eta$ multiplies the score; the paper's $\alpha_i$ is $2\eta_i$, though its code's $\epsilon$ is ours.) $\delta$ is the
# share of the noise that a step takes away and renews.

# %%
show(annealed_langevin)

# %% [markdown]
# What does it do, exactly? On data $\mathcal N(0,c^2)$ the score at level $\sigma$ is $-x/v$ with $v=c^2+\sigma^2$, and a step maps
# a variance $V$ to
#
# $$V\leftarrow\Big(1-\frac{\eta}{v}\Big)^2V+2\eta,\qquad\text{with the fixed point}\quad V^\star=\frac{v}{1-\eta/2v}. \label{eq:ula}$$
#
# $V^\star>v$: the unadjusted Langevin algorithm, ULA, is too wide, by a factor of about $1+\eta/2v\le1+\delta/2$ that does not vanish however
# many steps you take. Level by level, with $c=\tfrac12$ and 60 steps each: enough to forget the level before
# ($(1-\eta/v)^{120}<10^{-5}$ at each of these). The bound on the ratio is five standard errors of a variance from 100 000 chains.

# %%
# NBVAL_CHECK_OUTPUT
c = 0.5
gaussian = lambda c: Mixture(torch.ones(1), torch.zeros(1, 1), torch.full((1,), c))
ratios = []
def compare(level, x):
    eta, v = DELTA * level.sigma**2, c**2 + level.sigma**2
    ratios.append((x.var() / (v / (1 - eta / (2 * v)))).item())

many = torch.zeros(100_000, 1)
anneal(exact(gaussian(c), schedule), many, ladder(schedule, 6, top=8, low=0.5), 60,
       draw=Draw(4), each=compare)
claim("C02.6", "ULA's variance over V*, six levels, the one farthest from 1",
      max(ratios, key=lambda ratio: abs(ratio - 1)), between=(0.978, 1.022))

# %% [markdown]
# ## 2.4 The weights come back
#
# Now the two modes. At each level the exact share on the left of $x_1=0$ is known: with $\Phi$ the normal
# distribution function, $0.8\,\Phi(5/\sqrt v)+0.2\,\Phi(-5/\sqrt v)$. At $\sigma=20$ that is only 0.56. The chains must follow this curve up to 0.8, and
# they can only move while the valley is shallow. Three ladders, all with 480 calls: 24 rungs from 20; *two* rungs, 20 and
# 0.1, where the second is frozen from its first step, so that the share of the first should stay; and 24 rungs from
# $\sigma_1=1$, where the valley is still 5 nats deep from the light side.

# %%
normal = NormalDist()
def truth(sigma):
    z = 5 / (1 + sigma**2) ** 0.5
    return 0.8 * normal.cdf(z) + 0.2 * normal.cdf(-z)

def follow(model, rungs, n, x=start):
    sigmas, shares = [], []
    def note(level, x):
        sigmas.append(level.sigma), shares.append(left(x))
    end = anneal(model, x, rungs, n, draw=Draw(5), each=note)
    return end, (sigmas, shares)

end, good = follow(model, levels, STEPS)
_, sparse = follow(model, ladder(schedule, 2, 20, 0.1), 240)
_, low = follow(model, ladder(schedule, 24, 1, 0.1), STEPS)
sigmas = [level.sigma for level in levels]
figure(plot.annealing((sigmas, [truth(sigma) for sigma in sigmas]),
                      {"24 rungs from 20": good, "2 rungs": sparse,
                       "24 rungs from 1": low},
                      "share on the left"),
       "With 24 rungs from 20 the share follows the exact curve from 0.56 to about 0.8; "
       "two rungs stay near 0.55, and a ladder that begins at 1 stays near zero.",
       "The weights are settled at about $\\sigma=2$; later nobody crosses.")

# %%
# NBVAL_CHECK_OUTPUT
clean = model(end, levels[-1]).x0
learnt_end, _ = follow(learnt, levels, STEPS, start.float())
claim("C02.7", "24 rungs: share on the left", good[1][-1], between=(0.75, 0.85))
claim("C02.8", "two rungs: share on the left, over that of p₂₀ (0.559)",
      sparse[1][-1] / truth(20), between=(0.9, 1.1))
claim("C02.9", "24 rungs from σ₁ = 1: share on the left", low[1][-1], below=0.05)
claim("C02.10", "24 rungs, the learnt score: share on the left",
      left(learnt_end), between=(0.75, 0.85))

# %% [markdown]
# (Five binomial standard errors of 2000 chains are 0.045. The share ends near 0.785: crossing stops at about $\sigma=2$,
# where the exact share on the left is 0.79.) NCSNv2's first advice [@song2020improved] is to let
# $\sigma_1$ be about the largest distance between two data points. Among 2000 points of ours that is 17. It is on the safe side: from 5
# the share ends as high, from 3 it ends at 0.74.
#
# ## 2.5 How many rungs?
#
# In high dimension there is a second condition, and the plane does not show it. Noise lives on a *shell*: $\lVert\sigma
# z\rVert$ is $\sqrt d\,\sigma$ give or take $\sigma/\sqrt2$. Shells of neighbouring levels should overlap. With $\gamma=\sigma_{i-1}/\sigma_i$, the share
# of level $i$ inside three standard deviations of shell $i-1$ is
#
# $$\Phi\big(\sqrt{2d}(\gamma-1)+3\gamma\big)-\Phi\big(\sqrt{2d}(\gamma-1)-3\gamma\big), \label{eq:shell}$$
#
# and NCSNv2 asks for one half. That gives $\gamma=1/(1-3/\sqrt{2d})$, as the first term is 1 whenever it matters. For CIFAR-10,
# $d=3072$ and $\sigma$ from 50 to 0.01, it makes 219 levels; the paper uses 232. In our plane, and up to $d=4$, the
# formula is never as small as a half: any ratio will do, and what spoilt the two rungs above was not this.
#
# A normal shape for $\lVert z\rVert$ is right up to $1/\sqrt{d}$; at $d=64$ that moves the share by 0.02 to 0.03.

# %%
# NBVAL_CHECK_OUTPUT
d, gamma = 64, 1 / (1 - 3 / 128**0.5)
radius = Draw(6).normal(torch.empty(20_000, d)).norm(dim=1)
inside = (radius - d**0.5 * gamma).abs() < 3 * gamma / 2**0.5
claim("C02.11", "d = 64, γ by the rule: share of a level inside the shell before",
      inside.double().mean(), between=(0.46, 0.54))

# %% [markdown]
# How long to stay on a rung? Take data of no width, which is what thin sets of pictures look like across. In units of $\sigma_i^2$, $T$ steps change $V$ to $a V+(1-a)V^\star$, with $a=(1-\delta)^{2T}$ and
# $V^\star=1/(1-\delta/2)$; going down a rung multiplies it by $\gamma^2$. So down a long ladder
#
# $$V\;\to\;V^\star\frac{1-a}{1-a\gamma^2},\qquad\text{if } a\gamma^2<1,\text{ that is }\quad T\log\frac1{1-\delta}>\log\gamma. \label{eq:ladder}$$
#
# Otherwise noise piles up. NCSNv2 chooses $\delta$ so that *one* rung, entered exactly, is left with $V$ nearest to 1. With its
# 232 levels and $T=5$ the best is $\delta=0.0618$; the released $\epsilon=6.2\cdot10^{-6}$ is $\delta=0.062$. But the rungs are not entered
# exactly: \eqref{eq:ladder} says 13 % too much variance at the bottom, not 6 %.

# %%
# NBVAL_CHECK_OUTPUT
per_rung, T = 5000 ** (1 / 231), 5
rung = lambda delta, V: ((1 - delta) ** (2 * T) * (V - 1 / (1 - delta / 2))
                         + 1 / (1 - delta / 2))
best = min((k / 1e4 for k in range(1, 2000)), key=lambda delta: rung(delta, per_rung**2))
claim("C02.12", "NCSNv2's δ = 0.062 over the δ that leaves V nearest to 1 on one rung",
      0.062 / best, between=(0.98, 1.02))
fine = ve(0.01, 50)
bottom = anneal(exact(gaussian(1e-5), fine), 50 * Draw(7).normal(many),
                ladder(fine, 232, 50, 0.01), T, 0.062, draw=Draw(8))
a = (1 - 0.062) ** (2 * T)
predicted = (1 - a) / (1 - a * per_rung**2) / (1 - 0.062 / 2)
claim("C02.13", "down 232 levels: V/σ² over the law's 1.128",
      bottom.var() / 0.01**2 / predicted, between=(0.978, 1.022))

# %% [markdown]
# (The last bound is five standard errors of 100 000 chains.)
#
# ## 2.6 The last denoising
#
# The samples still carry $\sigma_L$. One more call removes it, by Tweedie's formula $x+\sigma_L^2s(x)=\mathbb E[x_0\mid x]$. It is easy
# to believe that this always helps. On $\mathcal N(0,c^2)$ the variance is $c^2+\sigma^2$ before and $c^4/(c^2+\sigma^2)$ after, so the
# error of the variance shrinks by the factor
#
# $$\frac{c^2-c^4/(c^2+\sigma^2)}{\sigma^2}=\frac{c^2}{c^2+\sigma^2}: \label{eq:denoise}$$
#
# a hundredfold where the data are thin, $c\ll\sigma$, as pictures are in most directions; next to nothing where they are wide. There you trade samples that are too wide
# for samples that are too narrow.

# %%
# NBVAL_CHECK_OUTPUT
sigma = at(0.2)
def ratio(c):
    network, spread = exact(gaussian(c), schedule), (c**2 + sigma.sigma**2) ** 0.5
    noisy = spread * Draw(9).normal(torch.empty(400_000, 1, dtype=torch.float64))
    noisy = anneal(network, noisy, [sigma], n=5, delta=0.02, draw=Draw(10))
    return (c**2 - network(noisy, sigma).x0.var()) / (noisy.var() - c**2)

claim("C02.14", "c = σ/10: variance lacking after over excess before denoising (0.0099)",
      ratio(0.02), between=(0.009, 0.011))
claim("C02.15", "c = 2.5 σ: the same (0.86)", ratio(0.5), between=(0.73, 1.01))

# %% [markdown]
# ## 2.7 What should look wrong here
#
# The commonest slip is to forget $\sigma_L$: $\eta_i=\epsilon\,\sigma_i^2$, without the division. The step is then $\sigma_L^2=0.01$ of what it was.
# *Start from noise, $\sigma=20$. After the last denoising, where are the samples? Where would you look for the bug?*

# %%
# NBVAL_CHECK_OUTPUT
noise = 20 * Draw(11).normal(start)
slip = anneal(model, noise, levels, delta=DELTA * levels[-1].sigma**2, draw=Draw(12))
V = 20.0**2
for level in levels:                               # (2.4) for x₂, which is N(0, 1) data
    eta, v = DELTA * 0.1**2 * level.sigma**2, 1 + level.sigma**2
    for _ in range(STEPS):
        V = (1 - eta / v) ** 2 * V + 2 * eta
in_a_mode = lambda x: (mixture.modes_of(x) >= 0).double().mean()
claim("C02.16", "with σ_L: share of samples in a mode (0.989 for perfect ones)",
      in_a_mode(clean), above=0.95)
claim("C02.17", "without: share in a mode, after the same denoising",
      in_a_mode(model(slip, levels[-1]).x0), below=0.2)
claim("C02.18", "without: variance of x₂ over that of (2.4)",
      slip[:, 1].var() / V, between=(0.84, 1.16))

# %% [markdown]
# They are still where they started: the ladder removes a factor of about $e^{-\delta LT}$ of the noise, and
# $\delta LT\approx1$ where $\log(20/0.1)=5.3$ was needed. No error is raised; the samples look like an untrained network's.
#
# ## 2.8 Rung 2: real pictures, and an honest race
#
# The digits' teacher was trained on another schedule (`vp`), but a score is a score: $x/\alpha$ has the noise level
# $\sigma/\alpha$, and `annealed_langevin` carries $x$ over as $x/\alpha$. Its ladder goes from $\sigma/\alpha=150$ to 0.08. Against it, DDIM, which
# follows an ODE down the same schedule (chapter 7). Both are judged by the Fréchet distance to held-out digits, in the
# features of a classifier, at equal calls (but for the one of the last denoising).
#
# \eqref{eq:ladder}, summed over the ladder, makes a prediction: it takes at least $\log(150/0.08)/\log\frac1{1-\delta}$ calls before the noise of the start is
# gone: about 72 for $\delta=0.1$, 21 for $0.3$, 8 for $0.6$.

# %%
teacher, judge = digits_teacher(), digits_classifier()
_, (held_out, digit) = digits_split()
noises = [Draw(seed).normal(held_out) for seed in range(2)]
def score(run):
    with torch.no_grad():
        ends = [run(x, Draw(20 + i)) for i, x in enumerate(noises)]
    return ends[0], sum(digits_frechet(end, judge) for end in ends) / len(ends)

def langevin_digits(calls, delta, n=2):
    times = grid(teacher.schedule, calls // n - 1, t_min=0.02)
    rungs = teacher.schedule.levels(times)
    def run(x, draw):
        x = anneal(teacher, x, rungs, n, delta, draw=draw, cond=digit)
        return teacher(x, rungs[-1], digit).x0
    return score(run)

def ddim_digits(calls):
    rungs = teacher.schedule.levels(grid(teacher.schedule, calls - 1))
    return score(lambda x, draw: sample(teacher, x, [*rungs, CLEAN], solvers.ddim, digit))

# %%
runs = {"DDIM": {n: ddim_digits(n) for n in (20, 50, 100)}}
runs |= {f"annealed, δ = {delta}": {n: langevin_digits(n, delta) for n in (20, 50, 100)}
         for delta in (0.1, 0.3, 0.6)}
floor, _ = digits_floor(judge)
curves = {name: {n: f for n, (_, f) in row.items()} for name, row in runs.items()}
figure(plot.convergence(curves, ylabel="Fréchet distance", floor=floor),
       "At 20 and 50 calls DDIM is far ahead; δ = 0.1 needs more than 100 calls, while "
       "δ = 0.6 is near DDIM from 50 on.",
       "Mean of two seeds; two steps a rung. Shaded: what real digits score.")

# %%
chosen = [("DDIM", 20), ("annealed, δ = 0.6", 20), ("annealed, δ = 0.1", 50),
          ("annealed, δ = 0.3", 100)]
rows = {f"{name}, {n} calls": runs[name][n][0][::30] for name, n in chosen}
figure(plot.pictures(rows),
       "With δ = 0.1 and 50 calls the pictures are noise; with δ = 0.3 and 100 calls "
       "they are digits.", "The first row needs a fifth of the last row's calls.")

# %%
# NBVAL_CHECK_OUTPUT
against = lambda delta, n: curves[f"annealed, δ = {delta}"][n] / curves["DDIM"][n]
claim("C02.19", "digits, 50 calls, δ = 0.1 (the law: 72): Fréchet distance over DDIM's",
      against(0.1, 50), above=20)
claim("C02.20", "digits, 20 calls, δ = 0.6: Fréchet distance over DDIM's",
      against(0.6, 20), above=2)
claim("C02.21", "digits, 100 calls, δ = 0.3: Fréchet distance over DDIM's",
      against(0.3, 100), below=2)

# %% [markdown]
# The first bound follows from the law: noise of ten times $\sigma_L$, as large as the data, is left, and noise alone scores some
# sixty times DDIM's distance: we ask for a third of that. (Twice the step would score nine.) The other two are margins around
# the values of several seeds. The law is necessary, not sufficient: 20 calls at $\delta=0.6$ obey it and lose by a factor of five. At 100 calls
# DDIM is still ahead, by a fifth or so. Langevin dynamics is not bad; it is slow.
#
# ## 2.9 In practice
#
# - **NCSN's settings** [@song2019ncsn]: ten levels from 1 to 0.01, $T=100$, $\epsilon=2\cdot10^{-5}$, that is, as released, $\delta=0.2$: a thousand calls. NCSNv2
#     [@song2020improved]: 232 levels from 50 to 0.01, $T=5$, $\delta=0.062$, an average of the weights, one last denoising. Their image quality is *not reproduced here*.
# - **Networks without $\sigma$.** NCSNv2's network is not told the level: its output is divided by $\sigma$. It must guess the noise from the picture,
#     which a shell allows in 3072 dimensions and nothing allows in two.
# - **Levels belong to their schedule.** The network is told $t$. A level made by another `ve(…)` has another $t$ for the same $\sigma$, and the answer is
#     quietly wrong. Cut ladders out of one schedule, as `ladder` above does.
# - **What survives today** is the training, \eqref{eq:ncsn}, and the idea of levels. Samplers follow the ODE of chapter 4 instead; the
#     churn of EDM [@karras2022edm] is what is left of Langevin in them.
# - **Where the toy stops being true.** An exact score has no error to correct. With a trained one, fresh noise also repairs errors of earlier steps: a reason to keep some.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(mixture, ve(0.1, 20))` | `full_scale.sd.denoiser(unet, scheduler_config)` |
# | `denoising(model, batch, draw, weights.eps, times)` | the same function, in `full_scale.train finetune` |
# | `annealed_langevin(model, x, levels, …)` | the same function accepts that denoiser; no option of `full_scale.sample`, which has noisy solvers: |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" --solver ancestral --steps 50
# ```
#
# **How far up the ladder.** Rung 1: variances and shares in closed form, weights recovered with the exact and with a learnt score. Rung 2: a trained network, close
# to DDIM at 100 calls and far behind at 20. Rung 3: the loss is there, the sampler is replaced.
#
# ## 2.10 Exercises
#
# 1. *(pencil)* Derive \eqref{eq:ladder} from \eqref{eq:ula} for $c=0$. How long a $T$ does $\gamma=10$ need with $\delta=0.2$?
# 2. *(code)* Find the smallest $\sigma_1$, to 0.5, for which 24 rungs recover the weights within 0.05. Check with modes at $\pm10$: it should
#     about double. Which side of $\sqrt{(D/2)^2-c^2}$ is it on, and why?
# 3. *(code)* Enter each rung exactly: one call a rung, $x\leftarrow x+\eta\,\sigma_i^2s(x)+\beta\,\sigma_{i+1}z$, with $\beta$ such that on
#     data of no width the variance is $\sigma_{i+1}^2$ at every rung [@jolicoeur2021adversarial]. Check that variance. For which $\eta$ is $\beta=0$, and which sampler is it?
# 4. *(open)* With 100 calls and the exact score, find the ladder and the $T$ of each rung that bring the share on the left nearest to 0.8 when all start on the right.
#
# <details><summary>Answer to 1</summary>
#
# For $c=0$, $v=\sigma_i^2$, so in its units $V\leftarrow(1-\delta)^2V+2\delta$ with $V^\star=2\delta/(1-(1-\delta)^2)=1/(1-\delta/2)$, and $T$ steps give $aV+(1-a)V^\star$. A rung further
# down the unit is $\gamma^2$ times smaller. $V=a\gamma^2V+(1-a)V^\star$ has the solution \eqref{eq:ladder}. $T>\log10/\log1.25=10.3$: eleven steps.
#
# </details>
#
# Answer to 3, as code that runs; solve it before you read on:

# %%
# NBVAL_CHECK_OUTPUT
def consistent(model, x, levels, eta, draw):
    for here, below in zip(levels, levels[1:]):
        rest = (1 - eta) * here.sigma / below.sigma     # what is left of the old noise
        beta = max(0.0, 1 - rest**2) ** 0.5
        x = x + eta * here.sigma**2 * model(x, here).score
        x = x + beta * below.sigma * draw.normal(x)
    return x

point, wide = exact(gaussian(1e-6), schedule), 20 * Draw(13).normal(many)
exactly = consistent(point, wide, levels, 0.5, Draw(14))
claim("C02.22", "η = 0.5: variance at the last rung over σ_L²",
      exactly.var() / levels[-1].sigma ** 2, between=(0.978, 1.022))
no_noise = 1 - levels[1].sigma / levels[0].sigma        # β = 0 at η = 1 − 1/γ
claim("C02.23", "η = 1 − 1/γ: distance to DDIM",
      metrics.rms(consistent(model, noise, levels, no_noise, Draw(15)),
                  sample(model, noise, levels, solvers.ddim)), below=1e-6)

# %% [markdown]
# ($\beta^2=1-(1-\eta)^2\gamma^2$. At $\eta=1-1/\gamma$ the noise vanishes and a walk down the ladder has become a step of an ODE: chapter 4. The bound leaves room for
# $\beta$, the root of a rounding error.)
#
# ## References
#
# Noise-conditional scores and annealed Langevin: [@song2019ncsn]; how to choose their numbers: [@song2020improved]. The unadjusted
# algorithm: [@roberts1996exponential]. Consistent noise: [@jolicoeur2021adversarial]. Churn: [@karras2022edm]. DDIM: [@song2021ddim].
