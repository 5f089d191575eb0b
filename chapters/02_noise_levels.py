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
#
# `schedule` is a family of noise levels $x=x_0+\sigma z$, from $\sigma=20$ to 0.1; `at(sigma)` finds a level. As in
# chapter 1, `exact(mixture, schedule)` is the perfect network, which gives `.score` and `.x0`.
# A `ladder` is a list of levels, its *rungs*, whose $\sigma$ have a constant ratio.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import math

import torch
from dlib import CLEAN, Batch, Denoiser, Draw, Mixture, annealed_langevin, denoising
from dlib import exact, langevin, levels, metrics, nets, plot, sample, train, ve
from dlib.losses import uniform_times, weights
from toy_data import digits_classifier, digits_split, digits_teacher, gaussian
from toy_data.digit_scores import digits_frechet

mixture = Mixture(
    torch.tensor([0.8, 0.2]), torch.tensor([[-5.0, 0.0], [5.0, 0.0]]), torch.ones(2)
)
schedule = ve(0.1, 20)
model = exact(mixture, schedule)
at = lambda sigma: schedule.at_lam(-math.log(sigma))
left = lambda x: (x[:, 0] < 0).double().mean().item()  # the share on the left


def ladder(n, top=20, low=0.1):
    """n geometric noise levels from σ = top down to σ = low."""
    return levels(schedule, n - 1, t_max=at(top).t, t_min=at(low).t)


# %%
start = mixture.means[1:].repeat(2000, 1)  # everyone in the wrong mode
plain = langevin(lambda x: model(x, at(0.1)).score, start, step=0.05, n=480, draw=Draw(0))
annealed = annealed_langevin(model, start, ladder(24), step=0.002, n=20, draw=Draw(0))
figure(
    plot.modes(
        {
            f"plain: {left(plain):.0%} on the left": plain,
            f"annealed: {left(annealed):.0%} on the left": annealed,
        },
        mixture,
    ),
    "Plain Langevin leaves every chain in the right mode; annealed Langevin, with as "
    "many steps, brings about four fifths of them to the left.",
    "2000 chains, 480 exact scores each, all started in the right mode.",
)

# %% [markdown]
# On the left, nobody has crossed. On the right the same 480 calls, 20 on each of 24 rungs, moved four chains in five,
# which is what the data say. Why do the levels work? How does one network learn them all? And how do you choose them?
#
# ## 2.1 Noise builds a bridge
#
# Recap of chapter 1. The score of a density is $s=\nabla\log p$. Data plus noise, $x=x_0+\sigma z$, has the density $p_\sigma$,
# and a network learns *its* score by regression on $-z/\sigma$. Langevin dynamics,
#
# $$x\leftarrow x+\eta\,s(x)+\sqrt{2\eta}\,z,$$
#
# draws from the density whose score it is given, if $\eta$ is small. But it changes modes only by climbing through the valley
# between them, and that takes time exponential in the depth.
#
# How deep is it? Take two modes of equal weight and of width $c$, at a distance $D$. Noise makes their variance $v=c^2+\sigma^2$.
# Halfway, each has fallen to $e^{-D^2/8v}$ of its peak, and there are two of them. So the valley is
#
# $$\frac{D^2}{8v}-\log 2\;\text{ nats deep, and gone when }D\le2\sqrt{c^2+\sigma^2}. \label{eq:valley}$$
#
# (It is gone when $\log p$ no longer curves upwards halfway; its curvature there is $(D^2/4v-1)/v$.) Here $D=10$ and $c=1$:
# twelve nats for the data, two at $\sigma=2$, none from $\sigma=4.9$ on. With unequal weights the valley is deeper from the
# heavy side, shallower from the light one, and gone earlier. On the line through the modes the score has three zeros where
# there is a valley, and one where there is none.

# %%
# NBVAL_CHECK_OUTPUT
axis = torch.linspace(-14, 14, 281, dtype=torch.float64)
line = torch.stack([axis, torch.zeros_like(axis)], 1)
figure(
    plot.bridge(
        axis, {f"σ = {sigma:g}": mixture.log_prob(line, at(sigma)) for sigma in (0.1, 2, 5, 20)}
    ),
    "Between the modes the density falls by twelve nats at σ = 0.1 and by two and a "
    "half at σ = 2; at σ = 5 there is no valley.",
    "$\\log p_\\sigma$ along the line through both modes: noise fills the valley.",
)
zeros = lambda sigma: (model(line, at(sigma)).score[:, 0].sign().diff() != 0).sum()
claim("C02.1", "σ = 2: zeros of the score on the line", zeros(2), between=(3, 3))
claim("C02.2", "σ = 5: zeros of the score on the line", zeros(5), between=(1, 1))

# %% [markdown]
# ## 2.2 One network for all levels
#
# So you want the scores of *many* densities, one for each of $\sigma_1>\dots>\sigma_L$. NCSN [@song2019ncsn] learns them with
# one network that is told $\sigma$:
#
# $$\sum_i w_i\;\tfrac12\,\mathbb E\,\Big\lVert s_\theta(x_0+\sigma_iz,\sigma_i)+\frac{z}{\sigma_i}\Big\rVert^2,\qquad w_i=\sigma_i^2. \label{eq:ncsn}$$
#
# Why that weight? The target $z/\sigma$ has the variance $d/\sigma^2$: unweighted, $\sigma=0.1$ counts 40 000 times as much as
# $\sigma=20$. Now let the network predict the noise $z$ itself; its prediction is called $\varepsilon_\theta$, and the score is
# $s_\theta=-\varepsilon_\theta/\sigma$. With $w_i=\sigma_i^2$ each term is $\tfrac12\,\mathbb E\lVert z-\varepsilon_\theta\rVert^2$, of one size on every rung.
#
# In the library this is the weight `eps`, and `Weight("score")` is the unweighted loss; both leave out the ½. (Papers call the weight $\lambda$,
# which here is $\log(\alpha/\sigma)$.) Instead of a list we draw $\log\sigma$ uniformly: on this schedule that is `uniform_times`. A
# `Denoiser` is a network with its schedule and its **face**, that is, what it predicts. In general
# $x=\alpha x_0+\sigma\varepsilon$ (here $\alpha=1$, and ε is our $z$), and a face is a mixture $a\,x_0+b\,\varepsilon$: `parts` gives $(a,b)$,
# and `exchange` turns the error of one face into another's (chapter 3).

# %%
show(denoising)


def learn(weight):
    torch.manual_seed(0)
    net, points = nets.MLP(2, width=64, depth=2), Draw(1)
    network = Denoiser(net, schedule, "eps")
    loss = lambda batch, draw: denoising(network, batch, draw, weight, uniform_times(0))
    train(net, loss, lambda step: Batch(mixture.sample(512, points)[0].float()), 600, lr=5e-3)
    return network


learnt, unweighted = learn(weights.eps), learn(weights.Weight("score"))

# %% [markdown]
# Measure the error of $\varepsilon_\theta$ by the noise's own size, $\sqrt d$. As in chapter 1 we allow a fifth, now on every rung. The unweighted loss
# hardly sees the upper rungs: at the top it should be worse than a network that always says 0, whose error is about 1.

# %%
# NBVAL_CHECK_OUTPUT
x0 = mixture.sample(4000, Draw(2))[0]


def off(net, level):
    x = x0 + level.sigma * Draw(3).normal(x0)
    return metrics.rms(net(x.float(), level).eps, model(x, level).eps) / 2**0.5


claim(
    "C02.3",
    "weight σ²: error of ε over √d, the worst of 24 rungs",
    max(off(learnt, level) for level in ladder(24)),
    below=0.2,
)
claim("C02.4", "unweighted: the same at σ = 20", off(unweighted, at(20)), above=1)

# %% [markdown]
# ## 2.3 Annealed Langevin dynamics
#
# Run Langevin on the noisiest rung, where one step forgets a lot. Go down a rung, where the density is a little different.
# And so on. The step must shrink with the level, because the widths of the density do [@song2019ncsn, algorithm 1]:
#
# $$\eta_i=\epsilon\,\frac{\sigma_i^2}{\sigma_L^2}=\delta\,\sigma_i^2,\qquad\delta:=\epsilon/\sigma_L^2. \label{eq:eta}$$
#
# On average $s=-z/\sigma$, so a step takes the share $\delta$ of the noise $\sigma z$ away, and brings fresh noise. (Our $\eta$ multiplies
# the score; the paper's $\alpha_i$ is $2\eta_i$, though its code's $\epsilon$ is ours.) Above, `step` is $\epsilon=0.002$, so $\delta=0.2$.
#
# What does a step do, exactly? On data $\mathcal N(0,c^2)$ the score is $-x/v$ with $v=c^2+\sigma^2$, and the step is $x\leftarrow(1-\eta/v)\,x+\sqrt{2\eta}\,z$.
# The two parts are independent, so a variance $V$ becomes
#
# $$V\leftarrow\Big(1-\frac{\eta}{v}\Big)^2V+2\eta,\qquad\text{with the fixed point}\quad V^\star=\frac{v}{1-\eta/2v}. \label{eq:ula}$$
#
# $V^\star>v$: however many steps you take, this *unadjusted Langevin algorithm*, ULA, stays too wide, by a factor of up to
# $1/(1-\delta/2)$. Here it is rung by rung, for $c=\tfrac12$, with 60 steps each: enough to forget the rung before. The bound is five standard
# errors of a variance from 100 000 chains.

# %%
# NBVAL_CHECK_OUTPUT
show(annealed_langevin)
many, ratios = torch.zeros(100_000, 1), []


def compare(level, x):
    v, eta = 0.5**2 + level.sigma**2, 0.2 * level.sigma**2
    ratios.append((x.var() / (v / (1 - eta / (2 * v)))).item())


annealed_langevin(
    exact(gaussian(0, 0.5), schedule),
    many,
    ladder(6, top=8, low=0.5),
    0.2 * 0.5**2,
    60,
    Draw(4),
    each=compare,
)
claim(
    "C02.5",
    "ULA's variance over V*: the one of six rungs that is farthest from 1",
    max(ratios, key=lambda ratio: abs(ratio - 1)),
    between=(0.978, 1.022),
)

# %% [markdown]
# After the last rung the samples still carry the noise $\sigma_L$. One more call removes it, by Tweedie's formula:
# $\mathbb E[x_0\mid x]=x+\sigma_L^2s(x)$, in code `model(x, levels[-1]).x0`.
#
# ## 2.4 The weights come back
#
# Now the two modes. The share of $p_\sigma$ on the left is known, from the distribution function of the first coordinate: 0.56 at
# $\sigma=20$, 0.8 in the end. The chains must follow this curve, and they can only move while the valley is shallow. Three ladders, 480 steps each:
#
# - 24 rungs from $\sigma_1=20$;
# - *two* rungs, 20 and 0.1: the second has the full valley, so that the share of the first should stay;
# - 24 rungs from $\sigma_1=1$, where the valley is still 5 nats deep from the light side.


# %%
def follow(rungs, n, model=model, x=start):
    """(the rungs' σ, the share on the left after n steps on each)"""
    shares = []
    annealed_langevin(
        model, x, rungs, 0.002, n, Draw(5), each=lambda level, x: shares.append(left(x))
    )
    return [level.sigma for level in rungs], shares


runs = {
    "24 rungs from 20": follow(ladder(24), 20),
    "2 rungs": follow(ladder(2), 240),
    "24 rungs from 1": follow(ladder(24, top=1), 20),
}

# %%
first = Mixture(mixture.weights, mixture.means[:, :1], mixture.stds)  # of x₁ alone
truth = [first.cdf(torch.zeros(1, 1), level).item() for level in ladder(24)]
figure(
    plot.annealing((runs["24 rungs from 20"][0], truth), runs, "share on the left"),
    "With 24 rungs from 20 the share follows the exact curve from 0.56 to about 0.8; "
    "two rungs stay near 0.55, and a ladder that begins at 1 stays near zero.",
    "The weights are settled at about $\\sigma=2$; later nobody crosses.",
)

# %%
# NBVAL_CHECK_OUTPUT
good, two, low = [shares[-1] for sigmas, shares in runs.values()]
claim("C02.6", "plain Langevin, 480 steps: share on the left", left(plain), below=0.01)
claim("C02.7", "24 rungs from 20: share on the left", good, between=(0.75, 0.85))
claim(
    "C02.8",
    "two rungs: share on the left over the exact one at σ = 20",
    two / truth[0],
    between=(0.9, 1.1),
)
claim("C02.9", "24 rungs from 1: share on the left", low, below=0.05)
by_net = follow(ladder(24), 20, learnt, start.float())[1][-1]
claim("C02.10", "24 rungs, learnt score: share on the left", by_net, between=(0.75, 0.85))

# %% [markdown]
# (Five binomial standard errors of 2000 chains are 0.045. For plain Langevin, 11 nats deep from the light side means that a chain crosses
# some $e^{-11}$ times in a unit of $\eta\times$ steps; it has 24 such units.) The share ends a little low, because crossing stops at about
# $\sigma=2$, where the exact share is still 0.79.
#
# ## 2.5 How to choose a ladder
#
# **The top** must bridge the modes: by \eqref{eq:valley}, $\sigma_1\ge D/2$ will do. You do not know $D$, so NCSNv2 [@song2020improved] takes
# the largest distance between two data points. **The bottom** must be invisible, small against the
# thinnest width that you care about. **In between**, the ratio $\gamma=\sigma_{i-1}/\sigma_i$ must be close enough to 1 for the weights to settle
# while chains can still cross: here, between $\sigma=5$ and 2.
#
# **The steps.** On data of no width, and in most directions pictures have little, a step leaves the share $1-\delta$ of the noise that it finds.
# The start has $\sigma_1$. After $T$ steps on each of $L$ rungs, what is left of that must be below $\sigma_L$:
#
# $$\sigma_1(1-\delta)^{LT}<\sigma_L,\qquad\text{that is}\quad LT>\log\frac{\sigma_1}{\sigma_L}\Big/\log\frac1{1-\delta}. \label{eq:ladder}$$
#
# By this law our ladder needs 24 steps, and it took 480: the rest was spent on crossing. The law is necessary, not sufficient.
#
# ## 2.6 What should look wrong here
#
# It is easy to forget $\sigma_L$ in \eqref{eq:eta}: $\eta_i=\epsilon\,\sigma_i^2$. Then $\delta$ is 0.002. *Start from noise,
# $\sigma=20$. After the last denoising, where are the samples? Where would you look for the bug?*

# %%
# NBVAL_CHECK_OUTPUT
noise = 20 * Draw(11).normal(start)


def in_a_mode(step):
    x = annealed_langevin(model, noise, ladder(24), step, 20, Draw(12))
    return mixture.shares(model(x, at(0.1)).x0).sum()


claim("C02.11", "with σ_L: share of samples in a mode", in_a_mode(0.002), above=0.95)
claim("C02.12", "without σ_L: share in a mode", in_a_mode(0.002 * 0.1**2), below=0.3)

# %% [markdown]
# (Of perfect samples 0.989 lie within three standard deviations.) Without $\sigma_L$ they are nearly where they started. The law wants
# $5.3/0.002=2650$ steps. After 480, at least $0.998^{480}=0.38$ of the noise is left, a spread of nearly 8, and fresh noise on top; a
# coordinate that wide is within $\pm3$ less than 0.3 of the time. No error is raised: the samples look like an untrained network's.
#
# ## 2.7 Rung 2: real pictures, and an honest race
#
# The digits' teacher was trained on another schedule, with $x=\alpha x_0+\sigma z$. There $x/\alpha$ has the noise level
# $\sigma/\alpha$, and `annealed_langevin` carries $x/\alpha$ from rung to rung. Here $\sigma/\alpha$ goes from 150 down to 0.08. By
# \eqref{eq:ladder} that takes 72 steps with $\delta=0.1$, and 9 with $\delta=0.6$.
#
# The rival is DDIM, which follows an ODE down the same schedule (chapter 7). The judge is the Fréchet distance to held-out digits, in the
# features of a classifier. (Langevin gets one call more, for the last denoising.)

# %%
teacher, judge = digits_teacher(), digits_classifier()
_, (held_out, digit) = digits_split()
x_T = Draw(0).normal(held_out)
rungs = lambda n: levels(teacher.schedule, n - 1, t_min=0.02)


def anneal(delta, n):  # two steps a rung, n in all
    levels = rungs(n // 2)
    step = delta * levels[-1].sigma ** 2
    x = annealed_langevin(teacher, x_T, levels, step, 2, Draw(20), digit)
    return teacher(x, levels[-1], digit).x0


# %%
digits = {"DDIM, 20 calls": sample(teacher, x_T, [*rungs(20), CLEAN], cond=digit)}
for delta, n in ((0.1, 50), (0.6, 20), (0.6, 50)):
    digits[f"annealed, δ = {delta}, {n} calls"] = anneal(delta, n)
frechet = {name: digits_frechet(x, judge) for name, x in digits.items()}
figure(
    plot.pictures({f"{name}: {frechet[name]:.2f}": digits[name][::30] for name in digits}),
    "DDIM's 20 calls and annealed Langevin's 50 make digits; its 20 make ragged ones, "
    "and with δ = 0.1 its 50 make noise.",
    "The numbers are Fréchet distances: Langevin's 50 calls come near DDIM's 20.",
)

# %%
# NBVAL_CHECK_OUTPUT
ddim, unlawful, short, long = frechet.values()
pure = digits_frechet(held_out.std() * x_T, judge)  # noise as large as the data
claim("C02.13", "δ = 0.1, 50 calls: Fréchet distance over pure noise's", unlawful / pure, above=1)
claim("C02.14", "δ = 0.6, 20 calls: Fréchet distance over DDIM's", short / ddim, above=2)
claim("C02.15", "δ = 0.6, 50 calls: over DDIM's with 20", long / ddim, below=2)

# %% [markdown]
# With $\delta=0.1$, 50 calls leave $150\cdot0.9^{50}=0.8$ of the start, noise as large as the data: no better than noise alone, says the first bound. The other two
# are margins around the values of several seeds. Twenty calls with $\delta=0.6$ obey the law and lose all the same: necessary,
# not sufficient. Langevin dynamics is not bad; it is slow.
#
# ## 2.8 In practice
#
# - **NCSN's settings** [@song2019ncsn]: ten levels from 1 to 0.01, $T=100$, $\epsilon=2\cdot10^{-5}$, so $\delta=0.2$. NCSNv2
#     [@song2020improved]: 232 levels from 50 to 0.01, $T=5$, $\epsilon=6.2\cdot10^{-6}$, so $\delta=0.062$; an average of the weights; a last denoising. Image quality: *not reproduced here*.
# - **NCSNv2's ratio.** In $d$ dimensions noise lies on a shell, $\lVert\sigma z\rVert\approx\sqrt d\,\sigma$, and neighbouring shells should overlap by half:
#     $\gamma=1/(1-3/\sqrt{2d})$, which makes 219 levels for CIFAR-10. In a plane every ratio passes this rule.
# - **NCSNv2's step** is the best for one rung that is entered exactly. On data of no width it leaves 5.5 % too much variance there; down the whole ladder it is 13 % (exercise 1;
#     measured in `tests/dlib/test_langevin.py`).
# - **The last denoising** helps where data are thin. On $\mathcal N(0,c^2)$ it shrinks the variance's error by $c^2/(c^2+\sigma_L^2)$: to a hundredth for
#     $c=\sigma_L/10$, by a seventh for $c=2.5\,\sigma_L$ (measured in the same file).
# - **Networks without $\sigma$.** NCSNv2's network is not told the level: its output is divided by $\sigma$. It must guess the noise from the picture,
#     which a shell allows in 3072 dimensions and nothing allows in two.
# - **Levels belong to their schedule.** The network is told $t$. A level of another `ve(…)` has another $t$ for the same $\sigma$, and the answer is
#     quietly wrong. Cut ladders out of one schedule, as `ladder` does.
# - **What survives today** is the training, \eqref{eq:ncsn}, and the idea of levels. Samplers follow the ODE of chapter 4; the
#     churn of EDM [@karras2022edm], fresh noise before a step, is what is left of Langevin in them.
# - **Where the toy stops being true.** An exact score has no error. With a trained one, fresh noise also repairs errors of earlier steps: a reason to keep some.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(mixture, ve(0.1, 20))` | `full_scale.families.sd.denoiser(unet, scheduler_config)` |
# | `denoising(…, weights.eps, times)` | the same function, in `full_scale.train finetune` |
# | `annealed_langevin` | accepts that denoiser; `full_scale.sample` has noisy solvers instead: |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" --solver ancestral --steps 50
# ```
#
# **How far up the ladder.** Rung 1: variances and shares in closed form, weights recovered with the exact and with a learnt score. Rung 2: a trained network, where 50 calls come
# near DDIM's 20. Rung 3: the loss is there, the sampler is replaced.
#
# ## 2.9 Exercises
#
# 1. *(pencil)* Data of no width, $c=0$, a long ladder of ratio $\gamma$, $T$ steps a rung. Show from \eqref{eq:ula} that the variance in units of $\sigma_i^2$ tends to
#     $V^\star(1-a)/(1-a\gamma^2)$ with $a=(1-\delta)^{2T}$ and $V^\star=1/(1-\delta/2)$, if $a\gamma^2<1$. What is it for NCSNv2?
# 2. *(code)* Find the smallest $\sigma_1$, to 0.5, for which 24 rungs recover the weights within 0.05. Check with modes at $\pm10$: it should
#     about double. Which side of $\sqrt{(D/2)^2-c^2}$ is it on, and why?
# 3. *(code)* Enter each rung exactly: one call a rung, $x\leftarrow x+\delta\,\sigma_i^2s(x)+\beta\,\sigma_{i+1}z$, with $\beta$ such that on
#     data of no width the variance is $\sigma_{i+1}^2$ at every rung [@jolicoeur2021adversarial]. Check that variance. For which $\delta$ is $\beta=0$, and which sampler is it?
# 4. *(open)* With 100 calls and the exact score, find the ladder and the $T$ of each rung that bring the share on the left nearest to 0.8 when all start on the right.
#
# <details><summary>Answer to 1</summary>
#
# For $c=0$, $v=\sigma_i^2$. In its units a step is $V\leftarrow(1-\delta)^2V+2\delta$ with the fixed point $V^\star=1/(1-\delta/2)$, and $T$ steps give $aV+(1-a)V^\star$. A rung further
# down the unit $\sigma_i^2$ is $\gamma^2$ times smaller, so the next rung starts with $\gamma^2$ times that. Set $V=a\gamma^2V+(1-a)V^\star$ and solve. NCSNv2: $\gamma=5000^{1/231}=1.0376$, $a=0.938^{10}=0.527$,
# $V^\star=1.032$: 1.128, 13 % too much. (A rung entered exactly, with $\gamma^2$, ends with $a\gamma^2+(1-a)V^\star=1.055$.)
#
# </details>
#
# Answer to 3, as code that runs; solve it before you read on:


# %%
# NBVAL_CHECK_OUTPUT
def consistent(model, x, levels, delta, draw):
    for here, below in zip(levels, levels[1:]):
        rest = (1 - delta) * here.sigma / below.sigma  # what is left of the old noise
        beta = max(0.0, 1 - rest**2) ** 0.5
        x = x + delta * here.sigma**2 * model(x, here).score
        x = x + beta * below.sigma * draw.normal(x)
    return x


point, wide = exact(gaussian(0, 1e-6), schedule), 20 * Draw(13).normal(many)
exactly = consistent(point, wide, ladder(24), 0.5, Draw(14))
claim(
    "C02.16",
    "δ = 0.5: variance at the last rung over σ_L²",
    exactly.var() / 0.1**2,
    between=(0.978, 1.022),
)
no_noise = consistent(model, noise, ladder(24), 1 - 200 ** (-1 / 23), Draw(15))
claim(
    "C02.17",
    "δ = 1 − 1/γ: distance to DDIM",
    metrics.rms(no_noise, sample(model, noise, ladder(24))),
    below=1e-4,
)

# %% [markdown]
# ($\beta^2=1-(1-\delta)^2\gamma^2$. At $\delta=1-1/\gamma$, here with $\gamma=200^{1/23}$, the noise vanishes and a walk down the ladder has become a step of an ODE: chapter 4. The bound leaves room for
# $\beta$, the root of a rounding error.)
#
# ## References
#
# Noise-conditional scores and annealed Langevin: [@song2019ncsn]; how to choose their numbers: [@song2020improved]. The unadjusted
# algorithm: [@roberts1996exponential]. Consistent noise: [@jolicoeur2021adversarial]. Churn: [@karras2022edm]. DDIM: [@song2021ddim].
