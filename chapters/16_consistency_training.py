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
#     title: Consistency training
#     summary: Learn to jump without a teacher, from your own answer one step nearer to the data. What one data point costs, and how CT, ECT, sCM and IMM pay.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - the denoiser and its faces (chapters 1 to 3)
#       - DDIM as one step (chapter 7)
#       - consistency functions, their boundary and the averaged target (chapter 13)
#       - PyTorch
# ---

# %% [markdown]
# # 16 Consistency training: no teacher
#
# You want a network that jumps from noise to data in one call. [Chapter 13](13_consistency_distillation.ipynb) trains one, and
# needs a finished diffusion model for every step it takes. Suppose that you have only data. The recipe below looks as if
# nothing were missing. Where distillation asks the teacher for its mean, it takes the data point that it started from.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import copy
import math
from collections import namedtuple
from dataclasses import replace
import torch
from dlib import Batch, Denoiser, Draw, Mixture, boundary, cast, edm, edm_boundary, exact, grid
from dlib import lcm_scalings, metrics, perform, plot, recipes, reference, train, vp
from dlib.forward_mode import tangent
from dlib.losses import Loss, by_norm, by_rms, consistency_training, continuous_consistency
from dlib.losses import denoising, imm_triples, ladder_times, laplace, mmd2, moment_matching
from dlib.losses import norm_huber, own, squared, taught, uniform_times, weights
from dlib.losses.bootstrapping import both_ends, estimated
from dlib.losses.continuous_time import angle, as_is, trig_velocity
from dlib.losses.curricula import ct_points, ect_end, ict_law, ict_points
from dlib.nets import MLP
from toy_data import digit_batches, digits_classifier, digits_split, digits_teacher
from toy_data import gaussian, gmm5, shape_batches, shapes_teacher
from toy_data.digit_scores import digits_floor, digits_frechet
from toy_data.shape_captions import say, tokens
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet
from toy_data.student_scores import rescored

schedule, mixture = vp(), gmm5()
teacher, top = exact(mixture, schedule), schedule.at(1.0)
fresh = lambda step: Batch(mixture.sample(256, Draw(step))[0].float())


def mlp():
    torch.manual_seed(0)
    return Denoiser(MLP(2, 96, 2), schedule, "v")


def normal(c, d):  # N(0, c²) in d dimensions
    return Mixture(torch.ones(1).double(), torch.zeros(1, d).double(), torch.tensor([c]).double())


def tuned(recipe, start, steps, lr=4e-3, decay=0.95, data=fresh):
    """A copy of `start` after `steps` of Adam, and the history of its training."""
    student = replace(start, net=copy.deepcopy(start.net).requires_grad_())
    players = cast(
        recipe, teacher, starts={"student": student}, decays={"target": decay} if decay else {}
    )
    optim = torch.optim.Adam(student.net.parameters(), lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    step_rate = lambda step, found: rate.step()
    history = perform(recipe, players, {"student": optim}, data, steps, Draw(1), step_rate)
    student.net.requires_grad_(False)
    return student, history


ends = dict(spacing="arctan", sigma_data=1.0)
cd, ct = (
    recipes.consistency_distillation(schedule, points=18, solver="ddim", **ends),
    recipes.ct(schedule, points=(17, 17), growth=1, **ends),
)
noise = Draw(0).normal((2000, 2))
one_call = {
    name: recipe.sampler.wrap(tuned(recipe, mlp(), 600)[0])(noise, top).x0
    for name, recipe in {"distilled": cd, "trained without teacher": ct}.items()
}
figure(
    plot.modes({name: x[:800] for name, x in one_call.items()}, mixture),
    "One call of the distilled student fills five modes; the one that was trained without a "
    "teacher smears its points between them.",
    "Same network, 600 updates and seeds, the same ladder of levels. Grey points lie in no mode.",
)

# %% [markdown]
# On average the two recipes take the same step, as 16.1 proves. One is told the mean of the data that fit, the other a single data point.
# This chapter is about the price of that exchange, and four ways to pay it: a ladder (CT, iCT), stages (ECT), a tangent (sCM), groups (IMM).
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | $y=x/\alpha$, $\kappa=\sigma/\alpha$ | the sample and its noise in units of the data | chapter 7 |
# | $f(x_t,t)$, $h$ | the consistency function, the clean end of a path; the drift $h=y_t-f$ that is left on the way there (the lecture's letter: no step size $h$ occurs here) | chapter 13; new |
# | $c$ | standard deviation of Gaussian data | chapter 7 |
# | $r<t$, $R$ | the cleaner time of a step; its *reward*, the part of the drift that the step removes | new |
# | $\bar x_0$, $\bar\varepsilon$ | whose clean data the step is made with, and the noise that then is in $x_t$ | new |
# | $a_n$ | slope of the best student at the $n$-th level of a ladder, on Gaussian data | new |
# | $N(k)$; $k$, $K$, $s_0$, $s_1$ | points of a ladder at update $k$ of $K$; the settings that fix the first and the last | new |
# | $j$, $\delta$ | the stage of ECT; where a rounded norm turns from a square into a norm (`huber_c`) | new |
# | $\tau$, $F$ | TrigFlow's angle, $\tan\tau=\kappa/\sigma_d$; its network | new |
# | $g$, $\rho$ | the tangent that sCM trains on; its warm-up, from 0 to 1 | new |
# | $D$; $M$ | values of one sample; samples of one group of IMM | new |
#
# ## 16.1 Bootstrapping: the reward and the rest
#
# Follow a path from $y_t$ to its clean end. Everything that happens on the way is the drift $h=\int\varepsilon\,d\kappa$,
# and $f=y_t-h$. Cut the path at $r$. One DDIM step covers the first part, and the network itself answers for the rest:
#
# $$h(x_t,t)\;\leftarrow\;R+h^-(x_r,r),\qquad R=(\kappa_t-\kappa_r)\,\bar\varepsilon,\qquad \bar\varepsilon=\frac{x_t-\alpha_t\bar x_0}{\sigma_t}. \label{eq:ct-boot}$$
#
# This is the bootstrapping of reinforcement learning: a reward, plus your own estimate of what follows. The minus marks a
# copy of the network that gets no gradient. On average such a step is wrong by $O\big((\kappa_t-\kappa_r)^2\big)$, and all
# methods share this bias. (A random reward adds another of that order: half its variance times the copy's curvature.) All that a method decides is **whose** $\bar x_0$ is in the reward.
#
# - Consistency *distillation* takes the teacher's mean of $x_0$ given $x_t$. At a given $x_t$ this has no variance, but
#   it carries the teacher's error. (Ours is exact.)
# - Consistency *training* takes the $x_0$ that made $x_t$ [@song2023consistency]. Then $\bar\varepsilon$ is the noise you drew.
# - *Stable consistency tuning* takes a weighted mean over many data points (chapter 17).
#
# With a pencil: data $\mathcal N(0,1)$, a step from (α, σ) = (.6, .8) to (.8, .6). You drew $x_0=1$ and $\varepsilon=.5$, so $x_t=1$.
#
# | | $\bar x_0$ | $\bar\varepsilon$ | $R$ | $x_r$ |
# |---|---|---|---|---|
# | training | 1 | .5 | (1.333 − .75) · .5 = .292 | .8 · 1 + .6 · .5 = 1.1 |
# | distillation | .6 · 1 = .6 | (1 − .36)/.8 = .8 | .467 | .8 · .6 + .6 · .8 = .96 |
#
# One term of the loss:

# %%
Level = namedtuple("Level", "alpha sigma")
a, b = Level(0.6, 0.8), Level(0.8, 0.6)  # t and r


def plain(f, x_t, x0_bar):
    eps_bar = (x_t - a.alpha * x0_bar) / a.sigma
    reward = (a.sigma / a.alpha - b.sigma / b.alpha) * eps_bar
    y_r = x_t / a.alpha - reward
    target = f(b.alpha * y_r, b).detach()
    return (f(x_t, a) - target).square().mean()


# %% [markdown]
# The library's serves all levels and estimates. In it `both_ends` makes $x_t$ and $x_r$ and asks student and target.
# `estimated` is the estimate, a prediction whose $x_0$ is $\bar x_0$; the reward follows from it, and its `mix` is the DDIM step. On 64 points in three
# dimensions, with a student and a teacher that are known denoisers, the two must agree, for both rewards.

# %%
# NBVAL_CHECK_OUTPUT
show(estimated, both_ends)
t, r = (schedule.at_lam(math.log(level.alpha / level.sigma)).t for level in (a, b))
always = lambda *times: (
    lambda draw, n: torch.tensor(times, dtype=torch.float64)[:, None].expand(-1, n)
)
data, eps = (Draw(seed).normal((64, 3), torch.float64) for seed in (2, 3))
student, judge = exact(normal(0.7, 3), schedule), exact(normal(1.0, 3), schedule)
f = lambda x, level: student(x, schedule.at(t if level is a else r)).x0
x_t, gaps = a.alpha * data + a.sigma * eps, []
for estimate, x0_bar in ((own, data), (taught(judge), judge(x_t, schedule.at(t)).x0)):
    how = dict(times=always(t, r), estimate=estimate)
    found = consistency_training(student, student, Batch(data, noise=eps), Draw(0), **how)
    gaps.append(abs(found.value / plain(f, x_t, x0_bar) - 1))
claim("C16.1", "plain and library, two rewards: ratio less 1", max(gaps), below=1e-9)

# %% [markdown]
# Now fix $x_t=1$ and look at all the $x_0$ that may have made it. On $\mathcal N(0,1)$ they are normal, with mean .6 and
# variance .64. Over them the own reward has the teacher's as its **mean**, since $R$ is linear in $\bar x_0$. Its variance is
# $(\kappa_t-\kappa_r)^2\,(\alpha_t/\sigma_t)^2\cdot.64=.1225$. Chapter 17 puts a weighted mean of eight candidates in between: one is the
# true one, the others are fresh data, and each is weighted by how likely it makes $x_t$. Its reward has the same mean and varies less. For many
# candidates $n$ the variance is that of the own one times $1.20/n$, about .15 for eight. (The 1.20 is the mean of $\ell\,(x_0-.6)^2/.64$ over the $x_0$ that may have made $x_t$. In it $\ell$ is the density of $x_0$ given $x_t$
# over that of $x_0$. We allow four standard errors, with 40 000 draws: .007 for one and .0027 for eight.)

# %%
# NBVAL_CHECK_OUTPUT
n = 40_000
mine = 0.6 + 0.8 * Draw(4).normal((n, 1), torch.float64)  # x₀ given x_t = 1
others = torch.cat([mine, Draw(5).normal((n, 7), torch.float64)], 1)
likely = torch.softmax(-((1 - a.alpha * others) ** 2) / (2 * a.sigma**2), 1)
reward = lambda x0_bar: (a.sigma / a.alpha - b.sigma / b.alpha) * (1 - a.alpha * x0_bar) / a.sigma
one, eight = reward(mine[:, 0]), reward((likely * others).sum(1))
claim(
    "C16.2",
    "mean of the own reward less the teacher's",
    one.mean() - reward(0.6),
    between=(-0.007, 0.007),
)
claim("C16.3", "its variance over the formula's", one.var() / 0.1225, between=(0.97, 1.03))
claim(
    "C16.4",
    "mean of eight candidates' reward less the teacher's",
    eight.mean() - reward(0.6),
    between=(-0.0027, 0.0027),
)
claim("C16.5", "its variance over that of one", eight.var() / one.var(), between=(0.14, 0.16))

# %% [markdown]
# That is the whole difference between the first figure's panels. With one step the noise does no harm, since a network that
# learns a squared loss averages its targets. But $f(x_r,r)$ is not linear, and every level learns from the level below, noise
# included.
#
# ## 16.2 The best it can do
#
# Take data $\mathcal N(0,c^2)$ and a ladder of levels, $\kappa_1<\dots<\kappa_N$. A boundary fixes the lowest answer: $f=y$, or
# $a_1=1$. On level $n+1$ the best answer to \eqref{eq:ct-boot} is the regression of $a_ny_n$ on $y_{n+1}$. Both hold the same $x_0$
# and ε, so their covariance is $c^2+\kappa_n\kappa_{n+1}$, and
#
# $$a_{n+1}=a_n\,\frac{c^2+\kappa_n\kappa_{n+1}}{c^2+\kappa_{n+1}^2}=a_n\Big(1-\frac{(\kappa_{n+1}-\kappa_n)\,\kappa_{n+1}}{c^2+\kappa_{n+1}^2}\Big). \label{eq:ct-slope}$$
#
# Each factor is one Euler step of the teacher. So the perfect trained student *is* the distilled one with DDIM, here. It falls
# short of the flow, whose slope is $\sqrt{(c^2+\kappa_1^2)/(c^2+\kappa_N^2)}$. Euler's method has order 1, so twice as many points halve what is
# missing. With a pencil, for $c=1$ and the
# pair above: (1 + .75 · 1.333)/(1 + 1.778) = .72, where the flow has $\sqrt{1.5625/2.778}=.75$.


# %%
# NBVAL_CHECK_OUTPUT
def slopes(kappa, c):
    found = [1.0]
    for low, high in zip(kappa, kappa[1:]):
        found.append(found[-1] * (c**2 + low * high) / (c**2 + high**2))
    return found


def share(points, c=0.5):  # a_N over the flow's own slope, from κ = .002 to 80
    kappa = [level.sigma for level in edm().levels(grid(edm(), points - 1, "karras").flip(0))]
    return slopes(kappa, c)[-1] / ((c**2 + kappa[0] ** 2) / (c**2 + kappa[-1] ** 2)) ** 0.5


sizes = [10, 20, 40, 80, 160]
table = {points: share(points) for points in sizes}
figure(
    plot.curves(
        {"best trained student": (sizes, list(table.values()))},
        {"the flow": 1.0},
        xlabel="points of the ladder $N$",
        ylabel="slope over the flow's",
        log="x",
    ),
    "The best student keeps 73 % of the flow's slope with 10 points and 98 % with 160.",
)
claim("C16.6", "slope over the flow's, 10 points", table[10], between=(0.7295, 0.7305))
claim("C16.7", "slope over the flow's, 160 points", table[160], between=(0.9815, 0.9825))
claim(
    "C16.8",
    "what is missing at 160 over 80 points",
    (1 - table[160]) / (1 - table[80]),
    between=(0.45, 0.55),
)

# %% [markdown]
# Does the library's loss rest there? Four data points whose means and covariances are exactly those of the law make the expectation a finite
# sum. The gradient must vanish at \eqref{eq:ct-slope} for any pair of levels.

# %%
# NBVAL_CHECK_OUTPUT
signs = torch.tensor([[1.0], [1], [-1], [-1]]).double()
four = Batch(0.5 * signs, noise=signs * torch.tensor([[1.0], [-1], [1], [-1]]).double())
high, low = edm().at(0.5), edm().at(0.4)
best = slopes([low.sigma, high.sigma], 0.5)[1]


def pull(slope):
    w = torch.tensor(slope, dtype=torch.float64, requires_grad=True)
    line = lambda k: Denoiser(lambda x, t, cond: k * x, edm(), "x0")
    found = consistency_training(line(w), line(1.0), four, Draw(0), times=always(0.5, 0.4))
    return torch.autograd.grad(found.value, w)[0]


claim(
    "C16.9",
    "gradient at the formula's slope, over that at 0",
    abs(pull(best) / pull(0.0)),
    below=1e-9,
)

# %% [markdown]
# ## 16.3 Long steps first
#
# Long steps are biased, and \eqref{eq:ct-slope} says how much. Short ones hand news upward one level at a time, and each hand-over
# adds noise. So these recipes begin with long steps.
#
# - **CT** [@song2023consistency] goes from 2 points to 201 on ImageNet ($s_0=2$, $s_1=200$): $N(k)=\lceil\sqrt{k/K\,((s_1+1)^2-s_0^2)+s_0^2}-1\rceil+1$.
# - **iCT** [@song2024improved] doubles the number of steps from 10 to 1280, weights a step by $1/(\kappa_t-\kappa_r)$, and lets the target be the student itself, not its average.
#   It draws a step with the share of the law $\ln\kappa\sim\mathcal N(-1.1,2^2)$ that lies in it:
#   $p(n)\propto\operatorname{erf}\frac{\ln\kappa_{n+1}+1.1}{2\sqrt2}-\operatorname{erf}\frac{\ln\kappa_n+1.1}{2\sqrt2}$.
# - **ECT** [@geng2024ect] has no ladder. A *diffusion model* is the case in which every step ends at the clean data, $r=0$, and its target is $x_0$ itself.
#   ECT starts there (as stage −1) and lets $r$ approach $t$ in stages $j=0,1,\dots$ Like iCT, it divides a step's loss by the step's length in κ.
#
# $$\kappa_r=\max\Big(0,\ \kappa_t\big(1-2^{-(j+1)}\big(1+\tfrac{8}{1+e^{\kappa_t}}\big)\big)\Big). \label{eq:ct-ect}$$
#
# At $\kappa_t=2$ and $j=0$: $1+8/(1+e^2)=1.954$, so $\kappa_r=2\,(1-.977)=.046$. Each stage halves the step, unless it was
# cut off at 0.

# %%
# NBVAL_CHECK_OUTPUT
show(ct_points, ect_end)
grows = [ct_points(k, 800_000, s_1=200) for k in (0, 100_000, 200_000, 400_000, 800_000)]
claim(
    "C16.10",
    "N(k) is the table 2, 72, 101, 143, 201",
    grows == [2, 72, 101, 143, 201],
    between=(1, 1),
)
kappa = torch.logspace(-2, 2, 60).double()
stages = {f"stage {stage}": (kappa, ect_end(kappa, stage) / kappa) for stage in (0, 1, 3, 7)}
figure(
    plot.curves(
        stages, xlabel="noise level $\\kappa_t$", ylabel="$\\kappa_r/\\kappa_t$", log="x"
    ),
    "At stage 0 the step from low noise ends at the clean data, from high noise half-way; at "
    "stage 7 nearly where it began.",
)
two = torch.tensor(2.0).double()
claim("C16.11", "κ_r from κ = 2 at stage 0", ect_end(two, 0), between=(0.0455, 0.0465))
claim("C16.12", "κ_r from κ = 2 at stage 3", ect_end(two, 3), between=(1.7555, 1.7565))

# %% [markdown]
# iCT and ECT also leave the square. ECT takes the norm of a sample's error, iCT $\sqrt{\lVert\cdot\rVert^2+\delta^2}-\delta$. The norm's minimiser is
# not the mean of the targets but their *median*. If eight targets in ten are 0 and the others 1, the square answers .2 and the norm 0.
# So the answers are sharper, and they are biased wherever the targets are skewed. Where they scatter evenly, mean and median agree.

# %%
# NBVAL_CHECK_OUTPUT
targets, tries = torch.tensor([[0.0]] * 8 + [[1.0]] * 2), torch.arange(-50, 151) / 100
cost = lambda d: torch.stack([d(x.expand(10, 1), targets).mean() for x in tries])
lowest = lambda d: tries[cost(d).argmin()]
claim("C16.13", "the square's best answer", lowest(squared), between=(0.19, 0.21))
claim("C16.14", "the norm's best answer", lowest(norm_huber(0.0)), between=(-0.01, 0.01))

# %% [markdown]
# Here is ECT's whole loss. Folded below it is iCT's, with ladder, law, δ and chapter 13's boundary.

# %%
# NBVAL_CHECK_OUTPUT
w = torch.tensor([0.7, 1.0, 1.3]).double().requires_grad_()  # to take gradients by
wave = lambda x, kappa: w * torch.sin(x) / (1 + kappa)  # the student
late = lambda x, kappa: w * torch.cos(x) / (1 + kappa)  # a target that is not the student


def plain_step(f, f_minus, noise, upper, lower, delta=0.0):  # EDM's schedule, where α = 1
    there = f_minus(data + lower * noise, lower)
    gap = f(data + upper * noise, upper) - torch.where(lower > 0, there, data).detach()
    norm = (gap.square().sum(1, keepdim=True) + delta**2).sqrt() - delta
    return (norm / (upper - lower)).mean()


def plain_ect(draw, stage):  # κ is at least .002, and at most 80
    upper = (-1.1 + 2 * draw.normal((64,)).double()).exp().clamp(0.002, 80)[:, None]
    lower = upper * (1 - 2.0 ** -(stage + 1) * (1 + 8 / (1 + upper.exp())))
    return plain_step(wave, late, draw.normal(data), upper, lower * (lower >= 0.002))


def off(plain, recipe, step):  # in the loss or in its gradient, the larger
    library = recipe.phases[0].loss(roles, Batch(data, step=step), Draw(8)).value
    by_hand, found = (torch.autograd.grad(loss, w)[0] for loss in (plain, library))
    return max(abs(plain / library - 1), (by_hand - found).norm() / found.norm())


says = lambda f: Denoiser(lambda x, t, cond: f(x, edm().at(t, like=x).sigma), edm(), "x0")
roles, ect = {"student": says(wave), "target": says(late)}, recipes.ect(edm(), every=100)
gaps = [off(plain_ect(Draw(8), stage), ect, 100 * stage) for stage in (0, 2)]
claim(
    "C16.37",
    "ECT's whole loss and gradient, stages 0 and 2: plain less library, relative",
    max(gaps),
    below=1e-9,
)

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
# iCT's whole loss by hand: its ladder and law from the formulas above, then its boundary.
every = int(400_000 / (math.log2(1280 / 10) + 1))  # updates between two doublings


def rungs(step):
    points = min(10 * 2 ** (step // every), 1280) + 1
    kappa = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), points, dtype=torch.float64) ** 7
    share = torch.erf((kappa.log() + 1.1) / (2 * 2**0.5)).diff()
    return kappa, share / share.sum()


def bounded(net, c=0.5):  # as in chapter 13: the input itself at κ = .002
    shrunk = lambda x, kappa: x * c**2 / (c**2 + kappa**2)
    return lambda x, kappa: (
        shrunk(x, kappa - 0.002) + (1 - 0.002 / kappa) * (net(x, kappa) - shrunk(x, kappa))
    )


def plain_ict(draw, step, delta):
    kappa, law = rungs(step)
    place = draw.choice(law, 64)[:, None]
    both, noise = (bounded(wave), bounded(late)), draw.normal(data)
    return plain_step(*both, noise, kappa[place], kappa[place + 1], delta)


at = (0, every - 1, every, 200_000, 400_000)
counts = [len(rungs(k)[0]) for k in at]
same = counts == [ict_points(k, 400_000) for k in at] == [11, 11, 21, 161, 1281]
claim("C16.38", "iCT's points are 11, 11, 21, 161, 1281, plain and library", same, between=(1, 1))
gap = (ict_law(edm(), grid(edm(), 10, "karras")) - rungs(0)[1]).abs().max()
claim("C16.39", "iCT's law: plain less library, the largest", gap, below=1e-9)
ict = recipes.ict(edm(), huber_c=0.1)
gaps = [off(plain_ict(Draw(8), step, 0.1), ict, step) for step in (0, 200_000)]
claim(
    "C16.40",
    "iCT's whole loss and gradient, 11 and 161 points: plain less library, relative",
    max(gaps),
    below=1e-9,
)

# %% [markdown]
# Now train a diffusion model of GMM5 for 500 updates, and tune it with 600 updates of ECT in four stages. We ask for at most half as many points between the
# modes as in the right panel above. Before you believe that number, ask how *wide* the result should be. On Gaussian data \eqref{eq:ct-slope} answers for each stage:
# follow $\kappa_t\to\kappa_r\to\dots$ down to the clean data and multiply. GMM5 is not Gaussian, but we borrow the answer for the standard deviation of its coordinates, 1.06. A
# run that starts at stage 0 and leaves at stage 3 should end between the two.


# %%
def kept(stage, c):  # of the spread, by the best student of one stage
    kappa, slope = torch.tensor(top.sigma / top.alpha).double(), 1.0
    width = (c**2 + kappa**2) ** 0.5 / c
    while kappa > 1e-3:
        lower = ect_end(kappa, stage)
        slope, kappa = slope * (c**2 + kappa * lower) / (c**2 + kappa**2), lower
    return float(slope * width)


diffusion, _ = tuned(recipes.finetune(schedule, weight="v"), mlp(), 500, decay=0.0)
ect = recipes.ect(schedule, every=150, stages=4, mean=-0.4, std=1.6)
easy, healthy = tuned(ect, diffusion, 600, lr=2e-3, decay=0.0)

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
alone = "trained without teacher"
both = {alone: one_call[alone], "ECT": easy(noise, top).x0}
figure(
    plot.modes({"ECT": both["ECT"][:800]}, mixture),
    "ECT leaves few points between the modes, but all are drawn inwards: they fill the inner "
    "half of each circle.",
    "One call each. Grey points lie in no mode.",
)
plain_ct, tuned_ect = ((mixture.modes_of(x) < 0).double().mean() for x in both.values())
real = mixture.sample(2000, Draw(7))[0].std()
claim("C16.15", "points in no mode: ECT over plain training", tuned_ect / plain_ct, below=0.5)
claim(
    "C16.16",
    "ECT: spread over the data's, between the limits of its first and last stage",
    both["ECT"].std() / real,
    between=(round(kept(0, 1.06), 2), round(kept(3, 1.06), 2)),
)
apart = [metrics.sliced_w2(x, mixture.sample(2000, Draw(7))[0]) for x in both.values()]
claim("C16.17", "sliced W₂ to the data: ECT over plain training", apart[1] / apart[0], above=1)

# %% [markdown]
# The first claim alone would have fooled you. Fewer points are lost, but they are not where the data are: the long steps of the early stages pull
# all to the middle. In sliced $W_2$ plain training is the better one here (third claim). *Always read two scores*, one for stray points and one for width.
#
# ## 16.4 No step at all: sCM
#
# Let $r\to t$. The difference of two answers becomes a derivative along the path, and no discretisation is left. Lu and Song
# [@lu2025scm] write the path as an angle, $x_\tau=\cos\tau\,x_0+\sin\tau\,\sigma_d\varepsilon$ with $\tan\tau=\kappa/\sigma_d$, and let the network $F$ give the path's end $f$:
#
# $$\frac{dx_\tau}{d\tau}=\cos\tau\,\sigma_d\varepsilon-\sin\tau\,x_0,\qquad f=\cos\tau\,x_\tau-\sin\tau\,\sigma_dF. \label{eq:ct-trig}$$
#
# A diffusion model's $\sigma_dF$ is the mean of this slope, a consistency model's is what makes $f$ the end of the path. The network need not know any of this. $x_\tau$ is a multiple of $x_t$, and $\sigma_dF=\cos\tau\,\sigma_d\hat\varepsilon-\sin\tau\,\hat x_0$ is one more
# mixture of what any network says. EDM's raw output is $-F$. Multiply $df^-/d\tau$ by $\cos\tau$ and sort. (Exercise 5: it is the discrete loss for short steps, positively weighted.) The second bracket holds the network's derivative, which is large and unsteady early
# in training. So it gets a factor ρ, the warm-up, which grows from 0 to 1:
#
# $$g=-\cos^2\tau\,\Big(\sigma_dF^--\frac{dx_\tau}{d\tau}\Big)-\rho\,\cos\tau\sin\tau\,\Big(x_\tau+\sigma_d\frac{dF^-}{d\tau}\Big),\qquad \mathcal L=\mathbb E\,\lVert F_\theta-F^--g\rVert^2. \label{eq:ct-tangent}$$
#
# In this $dx_\tau/d\tau$ you meet 16.1 again: with the own $\bar x_0$ it is consistency training (sCT), with the teacher's distillation (sCD).
# The total derivative $dF^-/d\tau$ comes from *forward mode*: the network computes with pairs (value, derivative) and keeps no graph.
# A central difference of the whole network must give the same:

# %%
# NBVAL_CHECK_OUTPUT
show(trig_velocity, tangent)
level = schedule.at(torch.full((64,), t, dtype=torch.float64), like=data)
model, dt = exact(normal(0.5, 3), schedule), torch.full((64, 1), 0.5).double()
dx = model(x_t, level).velocity / 2  # along the path, at half its speed
_, forward = tangent(model, x_t, level, dx, dt, read=lambda said: said.x0)


def shifted(by):
    later = schedule.at(torch.full((64,), t + by / 2, dtype=torch.float64), like=data)
    return model(x_t + by * dx, later).x0


apart = (shifted(1e-5) - shifted(-1e-5)) / 2e-5 - forward
claim(
    "C16.18", "forward mode less differences, relative", apart.norm() / forward.norm(), below=1e-5
)

# %% [markdown]
# While ρ is below 1 the network is asked for something else. For the true $f$ the two brackets of \eqref{eq:ct-tangent} cancel at
# ρ = 1, so $g=-(1-\rho)\cos^2\tau\,(\sigma_dF-dx_\tau/d\tau)$: **the warm-up moves the fixed point.** With a pencil: if the data are
# $\mathcal N(0,\sigma_d^2)$, the path stands still and $f=x_\tau$, so $\sigma_dF=-\tan(\tau/2)\,x_\tau$. At (.6, .8) and $\sigma_d=1$ that is
# $-\tfrac12x_\tau$, and $g=(1-\rho)\cdot.36\cdot\tfrac12\,x_\tau=.18\,(1-\rho)\,x_\tau$. In plain PyTorch, on a schedule with $\alpha=\cos\tau$ and $\sigma=\sin\tau$, like ours:


# %%
# NBVAL_CHECK_OUTPUT
def plain_scm(F, x0, eps, tau, rho):
    x, slope = tau.cos() * x0 + tau.sin() * eps, tau.cos() * eps - tau.sin() * x0
    F_minus, dF = torch.func.jvp(F, (x, tau), (slope, torch.ones_like(tau)))
    g = -(tau.cos() ** 2) * (F_minus - slope) - rho * tau.cos() * tau.sin() * (x + dF)
    g = g / (g.norm(dim=1, keepdim=True) + 0.1)
    return (F(x, tau) - (F_minus + g).detach()).square().mean()


F = lambda x, tau: (1 + tau) * torch.sin(x)
tau_of = lambda level: torch.atan2(level.sigma, level.alpha)
said = Denoiser(lambda x, time, cond: F(x, tau_of(schedule.at(time, like=x))), schedule, "v")
still = lambda draw, n: torch.full((n,), t, dtype=torch.float64)
how = dict(times=still, estimate=own, rho=0.5, normalise=by_norm(0.1), sigma_data=1.0)
found = continuous_consistency(said, said, Batch(data, noise=eps), Draw(0), **how)
by_hand = plain_scm(F, data, eps, tau_of(level), 0.5)
claim("C16.34", "sCM, plain over library, less 1", abs(by_hand / found.value - 1), below=1e-9)


def ended(x, time, cond):  # f* of N(0, 1), down to κ = 0
    level = schedule.at(time, like=x)
    return x / (level.alpha**2 + level.sigma**2).sqrt()


f_star, law = Denoiser(ended, schedule, "x0"), exact(normal(1.0, 3), schedule)

# %% [markdown]
# The library's loss, which serves every schedule, reports the root mean square of $g$ before it is normalised. Over that of $x$ it must be 0, then half of .18, then .18:


# %%
# NBVAL_CHECK_OUTPUT
show(continuous_consistency)


def g_of(rho):
    how = dict(times=still, estimate=taught(law), rho=rho, normalise=as_is, sigma_data=1.0)
    loss = continuous_consistency(f_star, f_star, Batch(data, noise=eps), Draw(0), **how)
    return loss.metrics["tangent"] / x_t.square().mean().sqrt()


claim("C16.19", "g of the true f at ρ = 1, over x", g_of(1.0), below=1e-9)
claim("C16.20", "g of the true f at ρ = ½, over x", g_of(0.5), between=(0.0899, 0.0901))
claim("C16.21", "g of the true f at ρ = 0, over x", g_of(0.0), between=(0.1799, 0.1801))

# %% [markdown]
# The raw $g$ varies by orders of magnitude, with one sample's noise above all. Normalised, no sample pulls harder than others. Two scales are in use: $g/(\lVert g\rVert+0.1)$, and with the root mean square,
# $g/(\lVert g\rVert/\sqrt D+0.1)$, for $D$ values a sample. In two dimensions they hardly differ while $g$ is small. Take $g=.02$ in every value: in Stable
# Diffusion's 16 384 the first divides by 2.66, where .1 is nothing. In two it divides by .128, mostly the .1. So settings found on a toy
# carry over with the second scale alone.


# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
# The two scales, in 2 and in 16 384 dimensions
def size(normalise, dims):  # of one value, after normalising, times √D for the norm
    g = normalise(torch.full((1, dims), 0.02).double())
    return g.norm().item()


damped = lambda dims: size(by_norm(0.1), dims)
even = lambda dims: size(by_rms(0.1), dims) / dims**0.5
claim(
    "C16.22",
    "by norm: length of g in 16 384 over 2 dimensions",
    damped(16384) / damped(2),
    between=(4.3, 4.4),
)
claim(
    "C16.23",
    "by root mean square: value of g, the same ratio",
    even(16384) / even(2),
    between=(0.999, 1.001),
)

# %% [markdown]
# Train it with the exact teacher's slope (sCD): 240 updates from the same diffusion model, the first eighty of them warm-up. Fewer points are lost, and
# again they are drawn inwards.

# %%
scm = recipes.scm(schedule, None, rise=80, mean=-0.4, sigma_data=1.0)
smooth, curve = tuned(scm, diffusion, 240, lr=2e-3, decay=0.0)

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
mean = lambda history, name: plot.running_mean(history[f"student/{name}"])
figure(
    plot.curves(
        {
            "ECT, loss": mean(healthy, "loss"),
            "ECT, distance": mean(healthy, "distance"),
            "sCM, loss": mean(curve, "loss"),
        },
        xlabel="update",
        ylabel="value",
        log="y",
    ),
    "ECT's distance falls at each new stage, its weighted loss hardly; sCM's loss rises while ρ "
    "grows, and then falls a little.",
    "Healthy runs. None of these curves says how good the student is.",
)
lost = (mixture.modes_of(smooth(noise, top).x0) < 0).double().mean()
was = (mixture.modes_of(diffusion(noise, top).x0) < 0).double().mean()
claim(
    "C16.24",
    "sCM, one call: points in no mode over those of the diffusion model",
    lost / was,
    below=0.5,
)
wide = smooth(noise, top).x0.std() / real
claim("C16.25", "sCM: spread over the data's", wide, between=(0.5, 0.9))

# %% [markdown]
# **Read the curves with care.** ECT's distance falls in stairs because its steps get shorter, and would fall for a network that learns
# nothing. sCM's loss *rises* during a good run: ρ grows, and a normalised $g$ has about the same size until the raw $g$ comes down to a few tenths. What to
# watch instead: samples at a fixed seed, a Fréchet distance, or the `tangent` before it is normalised. It is worth watching once ρ is 1 and if a teacher
# gives the slope; with the own $x_0$ it stays noisy at the optimum, too.
#
# ## 16.5 Laws instead of points: IMM
#
# Inductive moment matching [@zhou2025imm] groups $M$ samples that share both times and a level to jump to (the third of our `triples`; −1 is the clean data), and compares the two groups $a=f(x_t)$ and $b=f^-(x_r)$ by a kernel $k$,
# $\mathrm{MMD}^2=\overline{k(a,a')}+\overline{k(b,b')}-2\,\overline{k(a,b)}$. With $M=1$ and $k=-\lVert\cdot\rVert^2$ this is $2\lVert a-b\rVert^2$,
# consistency training. With more it is a statement about laws. The groups {0, 2} and {2, 0} have MMD² = 0 for every kernel, since the same
# pairs occur in all three means. Point by point they are 2 apart. A sample meets its whole group, so the noise of one averages out. But in large groups IMM can hardly tell the flow's map $f$ from the *reflected* one, $-f$, of symmetric data. Only pairs that belong together, one in $M$, see it.
# So both maps' losses fall like 1/M, and the reflected one's stays several times the flow's. (Pairing a point with itself adds at most 2/n to the mean. We allow twice that. At our
# two levels, $\kappa_t=12.38$ and $\kappa_r=2.52$, $y_t$ and $y_r$ have the correlation $(c^2+\kappa_t\kappa_r)/\sqrt{(c^2+\kappa_t^2)(c^2+\kappa_r^2)}=.988$. Both maps
# end at the spread $c$, with opposite signs, so the consistency loss should be $c^2(2+2\cdot.988)$. With 1000 samples four standard errors are 18 %.)

# %%
# NBVAL_CHECK_OUTPUT
show(mmd2)
n, c = 1000, 0.5
scaled = lambda k: Denoiser(lambda x, time, cond: k * ended_at(x, time), edm(), "x0")
ended_at = lambda x, time: x * c / (c**2 + edm().at(time, like=x).sigma ** 2).sqrt()
data_1d, eps_1d = (Draw(seed).normal((n, 1), torch.float64) for seed in (6, 7))
line = Batch(c * data_1d, noise=eps_1d)
groups = dict(triples=always(0.7, 0.5, -1.0), group=n, kernel=laplace(0.5))
imm = lambda f, f_minus: moment_matching(f, f_minus, line, Draw(0), **groups).value
flow, mirror, narrow = scaled(1.0), scaled(-1.0), scaled(0.5)
point = consistency_training(mirror, flow, line, Draw(0), times=always(0.7, 0.5)).value


def plain_imm(a, b):  # the Laplace kernel of width ½, one value a sample
    k = lambda u, w: torch.exp(-torch.cdist(u, w) / 0.5).mean()
    return k(a, a) + k(b, b) - 2 * k(a, b)


kappas = [edm().at(time).sigma for time in (0.7, 0.5)]
a_n, b_n = (c * (c * data_1d + k * eps_1d) / (c**2 + k**2) ** 0.5 for k in kappas)
by_hand = plain_imm(0.5 * a_n, b_n) / imm(narrow, flow) - 1
claim("C16.35", "IMM of the halved map, plain over library, less 1", abs(by_hand), below=1e-9)
claim("C16.26", "IMM of the reflected map against the flow's", imm(mirror, flow), below=4 / n)
claim("C16.27", "IMM of a map that halves the spread", imm(narrow, flow), above=10 * 4 / n)
groups["group"] = 4
small = imm(mirror, flow) / imm(flow, flow)
claim("C16.36", "groups of 4: reflected map over the flow's", small, between=(4, 8))
claim(
    "C16.28", "consistency loss of the reflected map, over c²", point / c**2, between=(3.26, 4.69)
)

# %% [markdown]
# So ask IMM, in large groups, for the law, as of a GAN, and not that a seed keeps its picture. Its authors report steady training, which we have
# not tested.
#
# ## 16.6 Rung 2: digits and captioned shapes
#
# Here is the function of the full-scale run, with fewer, shorter stages and a smaller δ. It starts from a diffusion model, sees pictures and labels or captions, and has no teacher: 200
# updates for the digits, 100 for the small text-to-image world. Of both we ask for three quarters of the Fréchet distance before training, less what
# real pictures have.

# %%
digits, judge, (_, (held_out, names)) = digits_teacher(), digits_classifier(), digits_split()
scribe = recipes.ect(digits.schedule, every=50, stages=4, mean=-0.4, std=1.6, huber_c=0.03)
writer, _ = tuned(scribe, digits, 200, 1e-3, 0.0, digit_batches(128, seed=0, drop=0))
world, codes = shapes_teacher(), asked()
text = tokens([say(tuple(code)) for code in codes.tolist()])
painter = recipes.ect(world.schedule, every=40, stages=3, mean=-0.4, std=1.6, huber_c=0.015)
pupil, _ = tuned(painter, world, 100, lr=3e-4, decay=0.0, data=shape_batches(32, seed=0, drop=0))

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
z, first = Draw(10).normal(held_out), digits.schedule.at(1.0)
crude, fine = (
    digits_frechet(net(z, first, names).x0, judge) - digits_floor(judge)[0]
    for net in (digits, writer)
)
grey = Draw(11).normal((len(codes), 3, 16, 16))
before, after = (
    boundary(net, lcm_scalings(net.schedule))(grey, net.schedule.at(1.0), text).x0
    for net in (world, pupil)
)
figure(
    plot.pictures({"before, 1 call": before[:10], "ECT, 1 call": after[:10]}),
    "In one call the diffusion model paints shapes with pale halos; after ECT the halos are "
    "smaller and the edges firmer.",
    "Ten captions; the same noise in each column.",
)
far = [shapes_frechet(x, codes) - shapes_floor(codes)[0] for x in (before, after)]
claim(
    "C16.29",
    "digits and shapes: Fréchet distance over the diffusion model's, the larger",
    max(fine / crude, far[1] / far[0]),
    below=0.75,
)

# %% [markdown]
# And yet one call draws nearly the same 3 for every noise (`digits_variety` measures it).
#
# ## 16.7 What should look wrong here
#
# $x_t$ and $x_r$ share their ε. It is easy to draw noise twice. Then $x_r$ still has the right law at $r$, but it
# is no longer the neighbour of $x_t$ on a path. *Predict what the student draws.* (For $\mathcal N(0,c^2)$ the regression is now
# $a_nc^2/(c^2+\kappa_{n+1}^2)$. Multiply it up the ladder.)

# %%
# NBVAL_CHECK_OUTPUT
times = grid(schedule, 17, "arctan")


def two_noises(shared):
    new = mlp()
    f = boundary(new, edm_boundary(schedule, sigma_data=1.0))

    def loss(batch, draw):
        t, r = ladder_times(times)(draw, 256)
        a, b = (schedule.at(time.float(), like=batch.x0) for time in (t, r))
        eps = draw.normal(batch.x0)
        other = eps if shared else draw.normal(batch.x0)
        target = f(b.alpha * batch.x0 + b.sigma * other, b).x0.detach()
        value = squared(f(a.alpha * batch.x0 + a.sigma * eps, a).x0, target).mean()
        return Loss(value, {"loss": value.detach()})

    losses = train(new.net, loss, fresh, 200, lr=4e-3)["net/loss"]
    return f(noise, top).x0.detach().std() / real, plot.running_mean(losses)


(whole, fit), (shrunk, unfit) = two_noises(True), two_noises(False)
figure(
    plot.curves({"one noise": fit, "two noises": unfit}, xlabel="update", ylabel="loss", log="y"),
    "Both losses fall and settle; that of two noises settles higher.",
    "Healthy and sick. Each curve by itself looks like training.",
)
claim("C16.30", "one noise: spread of the samples over the data's", whole, above=0.6)
claim("C16.31", "two noises: the same", shrunk, below=0.3)

# %% [markdown]
# With noise of its own, $x_r$ says nothing more about $x_t$ than that both came from the same data. Each level averages once more, and
# after a ladder of averages the samples sit near the middle. (The product is near 0; after 200 updates a fifth is left.) Nothing in the loss
# warns you: it has a sound minimum, at the wrong place. If the network has dropout, the two calls must share its mask as well (16.8).
#
# **With half a minute each** on GMM5, `python -m bench students` has trained every method of this chapter, and its students are shipped. *d* is the
# sliced Wasserstein distance to the ends of the exact flow from the same noise, in units of what two exact sets of 10 000 points leave. The bar for one call
# is .5; chapter 13's student of a perfect teacher reaches it, with .43 ± .02. We expect those scored here that have no teacher to end far from it, for the reasons of 16.1
# and 16.3, and the slope of a teacher (sCD) to lead nearer than that of one sample (sCT).

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
d = {name: rescored(name, 300)["d"] for name in ("CD", "CT", "ECT", "sCT", "IMM", "sCD")}
alone = min(d[name] for name in d if name not in ("CD", "sCD"))
claim("C16.32", "without a teacher, one call: the least d over CD's", alone / d["CD"], above=2)
claim("C16.33", "d of sCD over that of sCT", d["sCD"] / d["sCT"], below=1)

# %% [markdown]
# ## 16.8 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | samples shrink to the middle | long steps of early stages (16.3), a run that is too short; else two noises, or a gradient through the target (chapter 13) | later stages, longer runs; share ε; `no_grad` around the target |
# | the loss stays high however short the steps are | dropout: the two calls draw different masks. The library's losses do not share them, and no network of this book has dropout | run the target's call under `torch.random.fork_rng()`, which puts torch's generator back: the student, asked next, draws the same mask |
# | blurred, and you do not know whether variance or bias is the limit | the target's variance, or the bias of long steps | keep the ladder and change only the estimate or the batch. If the student improves, the variance limited it; if only a finer ladder helps, the bias did |
# | blurred between modes, few updates | noise of one data point, handed up a long ladder | start from a diffusion model (ECT), begin with long steps, use larger batches, average the target (chapter 13) or the data (chapter 17) |
# | better, then worse as steps get short | too few updates a stage; or half precision, where $1/(\kappa_t-\kappa_r)$ magnifies the rounding of a difference of two nearly equal answers, and overflows float16 beyond 65 504 | longer stages; float32 for the loss |
# | NaN at the first updates, and a weight of 0 does not help | the network is asked at σ = 0, where ln κ is −∞, and 0 · NaN is NaN; or the gradient of the norm of an error that is exactly 0 | where $r$ is clean, *select* $\bar x_0$ as the target and do not ask the network; `norm_huber` |
# | sCM diverges | raw $g$, high-frequency time features, dropout | normalise $g$, slow time features (a trained U-Net's are as they are: a lower rate), dropout off |
# | sCM wrong although $g$ is small | still in the warm-up | wait until ρ is 1 |
# | sharp, but rare things are missing | the norm learns a median | a larger δ (`huber_c`), or the square |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | a teacher, or none | a teacher, if you have one: chapters 13 and 14 | in half a minute on GMM5, *d* is .43 for CD (whose teacher steps by `dpm_solver_3` in the bench) and 3.4 for CT, the least of this chapter's methods without one (chapter 17 has 1.6). By Fréchet distance a teacher leads as well, but not each method: on digits CD 1.7, on shapes LCM 1.8 (and CD 4.7). These are over the distance of real pictures, after 12 s each. Both budgets are short: in long published runs without one, iCT is ahead of CD (next table) |
# | which one without | at full scale ECT, from a trained diffusion model: the only one without a teacher that has a full-scale recipe file in this chapter. On a toy try CT too | our worlds disagree. By *d* CT leads on GMM5 (3.4; IMM 4.5, ECT 7.5), though 19 % of its points lie in no mode. By Fréchet distance IMM leads on digits (2.5; CT 2.9, ECT 3.9) and ECT on shapes (2.4; CT 2.7, IMM 3.3). On pictures all of them started from a diffusion model; on GMM5 CT and iCT started from nothing |
# | CT, or iCT | for short runs CT, with an average and `points=(10, 60)` | iCT came behind: a *d* of 5 ± 1 to 3.4 on GMM5 (though 8 % of its points lie in no mode, to CT's 19 %), Fréchet distances, over those of real pictures, of 3.6 to 2.9 on digits and 3.6 to 2.7 on shapes. Its own runs are far longer. Its target is not an average, in the paper as in our runs |
# | a boundary | CT and iCT: `edm_boundary`. ECT, sCM and IMM: none, if the network says ε or $v$ | something must fix the answer at the lowest noise, else a constant agrees with itself, at a loss of 0 (14.8). In ECT's stages 0 and 1 steps from low noise end at the data. Later, and in sCM and IMM always, the form of the network does it: at the lowest noise its guess is nearly $x$. The guess of a network which says $x_0$ is not: wrap it in a boundary |
# | sCM | for long runs with a teacher, and memory for a derivative | we did not train one long: at our budget sCD's *d* is 6.3, beside CD's .43. Its published figures come from long runs |
# | its scale of $g$ | the root mean square, as `scm` has it | the paper's is `--hyper.normalise norm`. 16.4 says how they differ. A run without it, or without the warm-up, we did not try |
# | sCT, without a teacher | not at our budget | *d* 9 ± 2, and 24 % of its points in no mode: the slope of a single sample scatters. `recipes.scm_training`; no recipe file, so `full_scale.train --method scm_training --hyper.sigma_data 1` for latents |
# | guidance | without a teacher, drop a tenth of the captions (`ect.toml` does) and guide the student's calls; with one, guide the teacher: `scm.toml` has ω = 3.5, a `guidance_scale` of 4.5 | burnt colours: lower it |
# | network passes an update | CT, ECT, IMM: two, one of them with a way back | sCM: a guided teacher's two, a derivative's three, and one with a way back. sCT: a derivative's three, and one with a way back. CD by DDIM: three, one of them with a way back. Chapter 14's LCM has four |
# | stages, rate, batch | `ect.toml`: 8 stages of 5000 updates, 1e-5, 128; `scm.toml`: 20 000 updates, 2e-6, 64 | a start, not a result. Samples at a fixed seed still change at a stage's end: longer stages |
# | δ (`huber_c`) | iCT's $0.00054\sqrt D$, .069 for Stable Diffusion's latents | rare things are missing: larger |
# | averages | of the target, none at full scale: it is the student itself. Of the exported weights, .9999 in `ect.toml` and in `scm.toml` | our short runs gain from an average of the target, a remedy for variance: `--roles.target.decay .95` |
# | IMM's step (`halvings`) | 6 on our worlds; 12 in the paper's long runs | each halves the step in κ. Points between the modes: longer steps |
# | IMM's group $M$ | the paper's 4, or 8; IMM has no full-scale run here | larger, if you want the law rather than the pairs: of 16.5's halved spread the loss is 3.5 times the true map's in groups of 4, and about 15 times in groups of 50 |
# | IMM's kernel, $e^{-\lVert a-b\rVert/(\text{width}\cdot D)}$ | so wide that the exponent for two samples is about 1 or less: the bench has `laplace(1)` on points and 4 on pictures, after `recipes.imm` has divided $a$ and $b$ by `jump_scale`, so that the exponent is larger at low noise | the ratio of the row above says how well the loss sees a wrong spread: 1.2 with an exponent of 28, 1.9 with 5.6, 3.5 with 16.5's 1.1, and 4.3 with .06 |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | Stable Diffusion 1.5 at 512 pixels on eight A100: `ect` needs 23 GB a card and 6.3 hours, CUDA's own 1 to 2 GB apart; `scm` needs 27 GB a card and 2.9 hours: counted, at an *assumed* 35 % of their peak |
# | seeds, to compare two settings | three | this page's figures have one seed each, the bench's three |
#
# | real run | from code, README or abstract; none is reproduced |
# |---|---|
# | CT [@song2023consistency] | 800 000 updates of batch 2048 at rate $10^{-4}$, on ImageNet. CIFAR-10, one call: FID 8.70, and 3.55 for the same paper's CD, as we recall |
# | iCT [@song2024improved] | CIFAR-10: FID 2.51 in one call and 2.24 in two, for its deeper network as we recall. Batch 1024 and 400 000 updates: from memory, unverified |
# | ECT [@geng2024ect] | CIFAR-10: 200 000 updates of batch 128 with RAdam at $10^{-4}$, dropout .2, an average of .9999. FID 3.86 in one call, 2.15 in two |
# | sCM [@lu2025scm] | CIFAR-10: FID 2.06 in two calls; as we recall, of sCT, which has no teacher |
# | IMM [@zhou2025imm] | CIFAR-10: FID 1.98 in two calls, by its abstract, unverified |
#
# ECT's released code puts the boundary at κ = 0 in training, at .003 in evaluation. CT's
# divides by $N-1$ in the decay of its target, where the paper has $N$.
#
# **sCM at full scale** needs a derivative of the whole U-Net. Attention must be written out, since fused kernels have no forward mode, and autocast
# must be off inside. PyTorch then makes three products where a plain pass makes one, so a derivative costs about three passes; `estimate` counts them. It runs under DDP and under FSDP2. With
# bfloat16 shards or adapters the command refuses, since half precision leaves little of a derivative.
#
# **Where the toy stops being true.** Two dimensions, an exact teacher for CD and sCM, and a network that is large for its task. In
# pictures the norm of $g$ and the medians behave differently, as 16.4 showed for the norm.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `recipes.ect(schedule, every=150, …)` | the same function, `full_scale/recipes/ect.toml`: 8 stages of 5000 updates |
# | `recipes.scm(schedule, None, …)` | the same, `scm.toml`: guided teacher, ω = 3.5, `sigma_data` = 1 |
# | `tuned`, 600 updates of 256 points | `full_scale.train ect`: 40 000 updates of 128 pictures, all weights |
# | one call at `top` | `full_scale.sample`, two calls of `lcm` |
#
# ```bash
# python -m full_scale.prepare --weights weights/stable-diffusion-v1-5 --source pictures/ --out data
# full_scale/launch/one_node.sh ect --weights weights/stable-diffusion-v1-5 --data data --out runs/ect
# full_scale/launch/one_node.sh scm --weights weights/stable-diffusion-v1-5 --data data --out runs/scm
# python -m full_scale.export runs/ect
# ```
#
# With `GPUS=1`, `--tiny` for `--weights …` and `--steps 2` both run anywhere and learn nothing. We know of no published run of either on Stable Diffusion 1.5.
#
# **How far up the ladder.** Rung 1: fixed points, schedules and tangents exactly. Rung 2: ECT on digits and captioned shapes. Rung 3: in the tests `scm`
# trains Stable Diffusion's classes, with random weights, `ect` captioned shapes.
#
# ## 16.9 Exercises
#
# 1. *(pencil)* With two noises, $\mathcal N(0,1)$ and the levels κ = .75 and 1.333, what slope does the best student have on the upper level? Compare with
#     .72. What is left of the spread after three levels with κ = 1?
# 2. *(code)* Write `estimate` for the mean of eight candidates of 16.1, for GMM5, with candidates from the batch itself. Train the first figure's
#     student with it, 600 updates. Check: fewer points lie in no mode than in the right panel.
# 3. *(code)* Replace `laplace(0.5)` by `minus_squared` in 16.5, groups of $n$. Does the loss still see that `narrow` halves the spread? Check: it
#     is below the bound of C16.26.
# 4. *(open)* Find a warm-up for \eqref{eq:ct-tangent} that does not move the fixed point of the true $f$, and train with it. Check: C16.20 holds with 0, and the
#     run is as good as 16.4's.
#
# 5. *(pencil)* Take $\lVert f_\theta(x_\tau)-f^-(x_{\tau-\Delta})\rVert^2$ and its gradient over Δ. What is it for Δ → 0, and how does it differ from that of
#     \eqref{eq:ct-tangent} with ρ = 1? Check: by a factor that depends on τ alone.
#
# <details><summary>Answers to 1, 3 and 5</summary>
#
# 1. The covariance loses $\kappa_n\kappa_{n+1}$: the slope is 1/(1 + 1.778) = .36, half of .72. Three levels with κ = 1 multiply by $(1/2)^3$, and the
# spread of $y$ is $\sqrt2$, so .18 of 1 is left.
#
# 3. No. With $k=-\lVert\cdot\rVert^2$ MMD² is twice the squared difference of the *means*, and both are near 0. `dlib.losses.inductive.minus_squared` is that kernel.
# A characteristic kernel, such as Laplace's, sees every difference between two laws.
#
# 5. The gradient is $2(\nabla f_\theta)^\top(f-f^-_{\tau-\Delta})$, which over Δ becomes $2(\nabla f_\theta)^\top df^-/d\tau=-2\sin\tau\,\sigma_d(\nabla F_\theta)^\top df^-/d\tau$, by \eqref{eq:ct-trig}.
# That of $\lVert F_\theta-F^--g\rVert^2$, where $F_\theta=F^-$, is $-2(\nabla F_\theta)^\top g$, and at ρ = 1 $g=\cos\tau\,df^-/d\tau$. So it is the first times $1/(\sigma_d\tan\tau)$, a positive weight of the level.
#
# </details>
#
# ## References
#
# Consistency training and its improvements: [@song2023consistency; @song2024improved; @geng2024ect]. Continuous time: [@lu2025scm].
# Moment matching: [@zhou2025imm]. DDIM: [@song2021ddim].
