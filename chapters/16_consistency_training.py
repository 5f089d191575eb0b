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
from dlib.losses import denoising, imm_triples, ladder_pairs, laplace, mmd2, moment_matching
from dlib.losses import norm_huber, own, squared, taught, uniform_times, weights
from dlib.losses.bootstrapping import both_ends, estimated
from dlib.losses.continuous_time import angle, as_is, trig_velocity
from dlib.losses.curricula import ct_points, ect_end
from dlib.nets import MLP
from toy_data import gaussian, gmm5, shape_batches, shapes_teacher
from toy_data.shape_captions import say, tokens
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet

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
    plot.modes(one_call, mixture),
    "One call of the distilled student fills five modes; the one that was trained without a "
    "teacher smears its points between them.",
    "Same network, same 18 levels, 600 updates and seeds. Grey points lie in no mode.",
)

# %% [markdown]
# On average the two recipes ask for the same thing, as 16.1 proves. One has a mean as its target, the other a single data point.
# This chapter is about the price of that exchange and the four ways in which people have paid it.
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | $y=x/\alpha$, $\kappa=\sigma/\alpha$ | the sample and its noise in units of the data | chapter 7 |
# | $f(x_t,t)$, $h$ | the consistency function, the clean end of a path; the drift $h=y_t-f$ that is left on the way there | chapter 13; new |
# | $r<t$, $R$ | the cleaner time of a step; its *reward*, the part of the drift that the step removes | new |
# | $\bar x_0$, $\bar\varepsilon$ | whose clean data the step is made with, and the noise that then is in $x_t$ | new |
# | $a_n$ | slope of the best student at the $n$-th level of a ladder, on Gaussian data | new |
# | $\tau$, $F$ | TrigFlow's angle, $\tan\tau=\kappa/\sigma_d$; its network | new |
# | $g$, $\rho$ | the tangent that sCM trains on; its warm-up, from 0 to 1 | new |
#
# ## 16.1 Bootstrapping: the reward and the rest
#
# Follow a path from $y_t$ to its clean end. Everything that happens on the way is the drift $h=\int\varepsilon\,d\kappa$,
# and $f=y_t-h$. Cut the path at $r$. One DDIM step covers the first part, and the network itself answers for the rest:
#
# $$h(x_t,t)\;\leftarrow\;R+h^-(x_r,r),\qquad R=(\kappa_t-\kappa_r)\,\bar\varepsilon,\qquad \bar\varepsilon=\frac{x_t-\alpha_t\bar x_0}{\sigma_t}. \label{eq:ct-boot}$$
#
# This is the bootstrapping of reinforcement learning: a reward, plus your own estimate of what follows. The minus marks a
# copy of the network that gets no gradient. All that a method decides is **whose** $\bar x_0$ is in the reward.
#
# - Consistency *distillation* takes the teacher's mean of $x_0$ given $x_t$.
# - Consistency *training* takes the $x_0$ that made $x_t$ [@song2023consistency]. Then $\bar\varepsilon$ is the noise you drew.
# - *Stable consistency tuning* takes a weighted mean over many data points ([chapter 17](contents.md)).
#
# With a pencil: data $\mathcal N(0,1)$, a step from (α, σ) = (.6, .8) to (.8, .6). You drew $x_0=1$ and $\varepsilon=.5$, so $x_t=1$.
#
# | | $\bar x_0$ | $\bar\varepsilon$ | $R$ | $x_r$ |
# |---|---|---|---|---|
# | training | 1 | .5 | (1.333 − .75) · .5 = .292 | .8 · 1 + .6 · .5 = 1.1 |
# | distillation | .6 · 1 = .6 | (1 − .36)/.8 = .8 | .467 | .8 · .6 + .6 · .8 = .96 |
#
# Here is one term of the loss as a newcomer could write it, and the library's. `pairs` draws $t$ and $r$.

# %%
# NBVAL_CHECK_OUTPUT
Level = namedtuple("Level", "alpha sigma")
a, b = Level(0.6, 0.8), Level(0.8, 0.6)  # t and r


def plain(f, x_t, x0_bar):
    eps_bar = (x_t - a.alpha * x0_bar) / a.sigma
    reward = (a.sigma / a.alpha - b.sigma / b.alpha) * eps_bar
    y_r = x_t / a.alpha - reward
    target = f(b.alpha * y_r, b).detach()
    return (f(x_t, a) - target).square().mean()


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
    how = dict(pairs=always(t, r), estimate=estimate)
    found = consistency_training(student, student, Batch(data, noise=eps), Draw(0), **how)
    gaps.append(abs(found.value / plain(f, x_t, x0_bar) - 1))
claim("C16.1", "plain and library, two rewards: ratio less 1", max(gaps), below=1e-9)

# %% [markdown]
# Now fix $x_t=1$ and look at all the $x_0$ that may have made it. On $\mathcal N(0,1)$ they are normal, with mean .6 and
# variance .64. Over them the own reward has the teacher's as its **mean**, since $R$ is linear in $\bar x_0$. Its variance is
# $(\kappa_t-\kappa_r)^2\,(\alpha_t/\sigma_t)^2\cdot.64=.1225$. The mean of eight candidates lies between the two: one of them is the
# true one, the others are fresh data, weighted by how likely they make $x_t$. (We ask for four standard errors with 40 000 draws.)

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
    between=(-0.007, 0.007),
)
claim("C16.5", "its variance over that of one", eight.var() / one.var(), below=1)

# %% [markdown]
# That is the whole difference between the panels of the first figure. With one step the noise does no harm, since a network that
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
# short of the flow, whose slope is $\sqrt{(c^2+\kappa_1^2)/(c^2+\kappa_N^2)}$, by an error of order 1. With a pencil, for $c=1$ and the
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
# Does the library's loss rest there? Four data points whose moments are exactly those of the law make the expectation a finite
# sum. The gradient must vanish at \eqref{eq:ct-slope}, for any pair of levels.

# %%
# NBVAL_CHECK_OUTPUT
signs = torch.tensor([[1.0], [1], [-1], [-1]]).double()
four = Batch(0.5 * signs, noise=signs * torch.tensor([[1.0], [-1], [1], [-1]]).double())
high, low = edm().at(0.5), edm().at(0.4)
best = slopes([low.sigma, high.sigma], 0.5)[1]


def pull(slope):
    w = torch.tensor(slope, dtype=torch.float64, requires_grad=True)
    line = lambda k: Denoiser(lambda x, t, cond: k * x, edm(), "x0")
    found = consistency_training(line(w), line(1.0), four, Draw(0), pairs=always(0.5, 0.4))
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
# adds noise. So every recipe begins with long steps.
#
# - **CT** starts with 2 points and ends with 201 [@song2023consistency]: $N(k)=\lceil\sqrt{k/K\,((s_1+1)^2-s_0^2)+s_0^2}-1\rceil+1$.
# - **iCT** [@song2024improved] doubles from 11 to 1281, weights a step by $1/(\kappa_t-\kappa_r)$, and lets the target be the student itself.
# - **ECT** [@geng2024ect] has no ladder. It starts from a *diffusion model*, whose first target is $x_0$, and lets $r$ approach $t$, stage $a$ by stage:
#
# $$\kappa_r=\max\Big(0,\ \kappa_t\big(1-q^{-(a+1)}\big(1+\tfrac{k}{1+e^{b\kappa_t}}\big)\big)\Big),\qquad q=2,\ k=8,\ b=1. \label{eq:ct-ect}$$
#
# At $\kappa_t=2$ and $a=0$: $1+8/(1+e^2)=1.954$, so $\kappa_r=2\,(1-.977)=.046$. Each stage halves the step.

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
# Both authors also leave the square. They take the norm of a sample's error, or $\sqrt{\lVert\cdot\rVert^2+c^2}-c$. Its minimiser is
# not the mean of the targets but their *median*. If eight targets in ten are 0 and the others 1, the square answers .2 and the norm 0.
# Sharper answers, with a bias that nobody has removed: know that you bought it.

# %%
# NBVAL_CHECK_OUTPUT
targets, tries = torch.tensor([[0.0]] * 8 + [[1.0]] * 2), torch.linspace(-0.5, 1.5, 201)
lowest = lambda d: tries[
    torch.stack([d(x.expand(10, 1), targets).mean() for x in tries]).argmin()
]
claim("C16.13", "the square's best answer", lowest(squared), between=(0.19, 0.21))
claim("C16.14", "the norm's best answer", lowest(norm_huber(0.0)), between=(-0.01, 0.01))

# %% [markdown]
# Now tune a diffusion model of GMM5, 500 updates, with 600 of ECT. It has the same data and calls as the right panel above. We ask for
# half as many points between the modes. Sampling by `lcm` with a few calls is as in chapter 13.

# %%
# NBVAL_CHECK_OUTPUT
diffusion, _ = tuned(recipes.finetune(schedule, weight="v"), mlp(), 500, decay=0.0)
ect = recipes.ect(schedule, every=150, stages=4, mean=-0.4, std=1.6)
easy, healthy = tuned(ect, diffusion, 600, lr=2e-3, decay=0.0)
one_call["ECT"] = easy(noise, top).x0
figure(
    plot.modes({name: one_call[name] for name in ("trained without teacher", "ECT")}, mixture),
    "ECT's points lie in the five modes, with some between.",
    "One call each. Grey points lie in no mode.",
)
lost = {name: (mixture.modes_of(x) < 0).double().mean() for name, x in one_call.items()}
claim(
    "C16.15",
    "points in no mode: ECT over plain training",
    lost["ECT"] / lost["trained without teacher"],
    below=0.5,
)
