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
#     title: Latent consistency
#     summary: Skip twenty steps at a time and put guidance into the teacher. Which skip, which rate, which average, how many calls, and what TCD changes.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - consistency distillation (chapter 13; recapped in 14.1)
#       - guidance (chapter 6)
#       - PyTorch
# ---

# %% [markdown]
# # 14 Latent consistency: skip steps, and take guidance inside
#
# You have a teacher that paints from captions, and you want its pictures in one network call. Chapter 13 tells you how: walk
# the teacher a level or two, and ask for the same answer at both ends. You train for sixty updates. This is
# what you get.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import math
from collections import namedtuple
from dataclasses import replace

import dlib
import torch
from diffusers import LCMScheduler, TCDScheduler
from dlib import CLEAN, NULL, Batch, Denoiser, Draw, Phase, Recipe, boundary, cast, consistency
from dlib import discrete, exact, grid, guided, lcm_scalings, metrics, perform, plot, recipes
from dlib import sample, scaled_linear, solvers, trajectory_consistency, vp
from dlib.losses.consistency_steps import compared
from dlib.losses.trajectory_consistency_losses import trajectory_ends
from dlib.nets import MLP
from dlib.rollout import composed
from toy_data import digit_batches, digits_classifier, digits_split, digits_teacher, distil
from toy_data import gaussian, gmm5, labelled, shape_batches, shapes_teacher
from toy_data.digit_scores import digits_floor, digits_frechet
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet
from toy_data.student_scores import FLOOR, rescored, yardstick

schedule = discrete(scaled_linear())  # Stable Diffusion's thousand levels
top, clean = schedule.at(1.0), schedule.at(schedule.t_min)  # the first and the last of them
scalings = lcm_scalings(schedule)  # explained in 14.3
world, codes = shapes_teacher(), asked()  # a small text-to-image teacher; 512 captions
text = tokens([say(tuple(code)) for code in codes.tolist()])
grey = Draw(11).normal((len(codes), 3, 16, 16))


def pupil(skip, omega):
    recipe = recipes.lcm(schedule, NULL_TOKENS, omega=(omega, omega), steps=1000 // skip)
    return distil(recipe, world, world, shape_batches(32, seed=0, drop=0), 60, lr=3e-4)


models = {"before training": world, "two levels": pupil(2, 0.0), "LCM": pupil(20, 2.0)}
one_call = {name: boundary(model, scalings)(grey, top, text).x0 for name, model in models.items()}
slow = sample(
    guided(world, 2.0, NULL_TOKENS),
    grey[:10],
    dlib.levels(schedule, 25, "sd_trailing"),
    solvers.ddim,
    text[:10],
)

# %% tags=["fold"]
figure(
    plot.pictures({name: x[:10] for name, x in one_call.items()} | {"teacher, 50 calls": slow}),
    "In one call the untrained student paints soft blots, and so does the one trained over two "
    "levels; LCM's shapes have corners; the guided teacher's, in 50 calls, are crisp.",
    "Ten captions, the same noise in each column. The two middle rows had 60 updates each.",
)

# %% [markdown]
# The second row has learnt next to nothing. The third had the same loss, as many updates, and the same learning rate. Only two
# decisions are different: the teacher walks *twenty* levels at a time, and it walks with guidance. Together they are LCM,
# the latent consistency model [@luo2023lcm]. ("Latent" says where it was done first, in the latents of Stable Diffusion's autoencoder. No formula
# depends on that.) Which of the two decisions makes the difference? Section 14.9 says. This chapter derives both, and measures what people ask about them. How many
# levels should I skip? Which learning rate, which average? Why is my LCM blurry, and why do more steps not help?
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | $x_t=\alpha_tx_0+\sigma_t\varepsilon$, $\kappa=\sigma/\alpha$, $\lambda$ | a noisy sample; its noise level; $-\log\kappa$ | chapters 2, 4 |
# | $f$ | the consistency function, from any level to the end of the path | chapter 13 |
# | $\omega$; $c$, $\varnothing$ | the guidance; a condition, and the empty one | chapter 6 |
# | $n$; $k$ | an index of Stable Diffusion's ladder, 0 to 999; how many of them a step skips | new |
# | $a$, $b$ | where the teacher's step starts, and where it ends | chapter 3 |
# | $x_\theta$, $\varepsilon_\theta$ | the data and the noise that the network guesses at $x$ | chapter 3 |
# | θ⁻; sg | the moving average of the weights θ; "no gradient through this" | chapter 13 |
# | $s$; $\gamma$ | the level at which a jump stops; how far below the next one that is | new |
# | $S$ | the number of calls | new |
#
# ## 14.1 Guidance inside the step
#
# Recall the probability-flow ODE of chapter 4, in $y=x/\alpha$. Guidance replaces its ε by a combination of two answers.
# LCM calls the result the *augmented* ODE. It has paths of its own for every ω:
#
# $$\frac{dy}{d\kappa}=\varepsilon^\omega,\qquad \varepsilon^\omega=(1+\omega)\,\varepsilon(x,c)-\omega\,\varepsilon(x,\varnothing). \label{eq:lc-ode}$$
#
# Do one step by hand. Start at $a$ (α = 0.6, σ = 0.8) with $x_a=1$, and go to $b$ (α = 0.8, σ = 0.6). The teacher says ε = 0.5
# with the caption and 0.25 without it.
#
# | ω | guided ε | clean guess $(1-0.8\,\varepsilon)/0.6$ | $x_b$ = 0.8 · guess + 0.6 · ε |
# |---|---|---|---|
# | 0 | 0.5 | 1.000 | 1.100 |
# | 1 | 0.75 | 0.667 | 0.983 |
# | 2 | 1 | 0.333 | 0.867 |
#
# Every unit of ω moves the end by −0.117. In letters this is the DDIM step of chapter 7, and ω enters it linearly:
#
# $$x_b=\frac{\alpha_b}{\alpha_a}x_a-\alpha_b\,(\kappa_a-\kappa_b)\,\varepsilon^\omega. \label{eq:lc-step}$$
#
# So guidance costs the student nothing. The *teacher* asks twice, during training, and what the student learns is one call.
# (Why not learn $f$ without guidance and guide its answers afterwards? The paths with the caption and without it start at the same
# noise and often end in different modes, and the difference of two such ends is no direction at the data; chapter 12 measured it.)
# Some students are told ω as one more input [@meng2023guided]. Adapters [@luo2023lcmlora] are not. In the public script for them ω is drawn anew for each sample.
# The step is linear in ω, so from one start the ends average to the end at the average ω. The *targets* average only nearly so,
# because the target network is not linear in its input.

# %%
# NBVAL_CHECK_OUTPUT
Level = namedtuple("Level", "alpha sigma")


def guided_step(x, a, b, eps_c, eps_0, omega):
    eps = (1 + omega) * eps_c - omega * eps_0
    return b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps


a, b = Level(0.6, 0.8), Level(0.8, 0.6)
print(*(f"ω = {w}: {guided_step(1, a, b, 0.5, 0.25, w):.3f}" for w in (0, 1, 2)), sep="   ")

# %% [markdown]
# Does the library agree, with a real teacher? From here on that is the exact denoiser of two overlapping classes in the plane.

# %%
# NBVAL_CHECK_OUTPUT
mixture = labelled()
classes, label = exact(mixture, schedule), torch.arange(1000) % 2
x, (a, b) = Draw(1).normal((1000, 2), torch.float64), schedule.levels([0.6, 0.58])
eps_c, eps_0 = (classes(x, a, c).eps for c in (label, 0 * label - 1))
plain = lambda w: guided_step(x, a, b, eps_c, eps_0, w)
library = lambda w: solvers.ddim(guided(classes, w, NULL), x, a, b, cond=label)[0]
gap = max((plain(w) - library(w)).abs().max() for w in (0.0, 2.0, 7.5))
claim("C14.1", "plain guided step − the library's, 1000 points (largest)", gap, below=1e-9)
drawn = torch.stack([library(5.0 + w) for w in range(11)]).mean(0)
gap = (drawn - library(10.0)).abs().max()
claim("C14.2", "mean of the ends over ω = 5 … 15, less the end at ω = 10", gap, below=1e-9)

# %% [markdown]
# ## 14.2 Which indices: the public script, line by line
#
# Now the skip. The script that everybody starts from (diffusers' `train_lcm_distill`) divides the 1000 indices by 50, so $k=20$.
# A step starts at one of the indices 19, 39, …, 999, and ends 20 lower. The first start would end at −1, so it
# ends at 0. Three facts follow, and each has cost somebody an afternoon. The noisiest level is 999, never 1000. The end of every path is index 0, where
# σ is 0.029 and not 0. And the student is never trained at an index between two starts.
#
# The library keeps times, with index $n$ at $(n+1)/1000$, falling from noise to data.


# %%
# NBVAL_CHECK_OUTPUT
def script(steps=50):
    k = 1000 // steps
    starts = torch.arange(1, steps + 1) * k - 1
    return starts, (starts - k).clamp(min=0)


starts, ends_at = script()
print(
    "starts", *starts[:3].tolist(), "…", starts[-1].item(), "  ends", *ends_at[:3].tolist(), "…"
)
times = grid(schedule, 50, "sd_trailing")
index = (times * 1000 - 1).round().long()
apart = (index[:-1] - starts.flip(0)).abs().sum() + (index[1:] - ends_at.flip(0)).abs().sum()
claim("C14.3", "indices: the script's − the library's grid (sum)", apart, between=(0, 0))

# %% [markdown]
# ## 14.3 The loss
#
# Chapter 13 asks that $f$ be the same at both ends. The distance $d$ is Huber's, which is nearly $|u-v|$. It is taken of each value, and averaged:
#
# $$\mathcal L=\mathbb E\;d\big(f_\theta(x_a,c,a),\ \operatorname{sg}f_{\theta^-}(x_b,c,b)\big),\qquad d(u,v)=\sqrt{(u-v)^2+10^{-6}}-10^{-3}. \label{eq:lc-loss}$$
#
# At the end of the path $f(x)$ must be $x$. LCM mixes the input into the network's guess, $f=c_{\text{skip}}x+c_{\text{out}}x_\theta$, with τ = 10 n:
#
# $$c_{\text{skip}}=\frac{0.25}{\tau^2+0.25},\qquad c_{\text{out}}=\frac{\tau}{\sqrt{\tau^2+0.25}}. \label{eq:lc-boundary}$$
#
# At index 0 these are 1 and 0. At the first start, index 19, $c_{\text{skip}}$ is already 0.000007. So it is a switch,
# which is on at the very end and off everywhere else. This is the whole of LCM in plain PyTorch, for a network that predicts $v$:


# %%
alpha, sigma = schedule.at((torch.arange(1000).double() + 1) / 1000)[1:3]


def f(net, x, n, c):
    v = net(x, (n + 1) / 1000, c)
    x_theta = alpha[n, None] * x - sigma[n, None] * v
    tau = 10.0 * n[:, None]
    return 0.25 / (tau**2 + 0.25) * x + tau / (tau**2 + 0.25) ** 0.5 * x_theta


def lcm_loss(student, target, teacher, x_0, c, n, eps, omega, k=20):
    m = (n - k).clamp(min=0)  # the step: from index n down to m
    a, b = (Level(alpha[i, None], sigma[i, None]) for i in (n, m))
    x_a = a.alpha * x_0 + a.sigma * eps
    v_c, v_0 = (teacher(x_a, (n + 1) / 1000, label) for label in (c, 0 * c - 1))
    eps_c, eps_0 = (a.sigma * x_a + a.alpha * v for v in (v_c, v_0))
    with torch.no_grad():
        x_b = guided_step(x_a, a, b, eps_c, eps_0, omega[:, None])
        goal = f(target, x_b, m, c)
    return (((f(student, x_a, n, c) - goal) ** 2 + 1e-6).sqrt() - 1e-3).mean()


# %% [markdown]
# The library's version serves every consistency loss. `compared` takes three levels: start, end, and the edge to which both sides jump, which for
# LCM is the clean data. We give both the same draws: the places, ω, the noise.

# %%
# NBVAL_CHECK_OUTPUT
show(compared, lcm_scalings)
x_0, c = mixture.sample(256, Draw(2))
torch.manual_seed(0)
student, other = (MLP(2, 96, 2, classes=2).double() for _ in range(2))
for net in (student, other):  # any two networks will do
    torch.nn.init.normal_(net.leave.weight, std=0.1)

draw = Draw(3)
place, omega, eps = draw.integers(50, 256), 5 + 10 * draw.uniform(256), draw.normal(x_0)
by_hand = lcm_loss(student, other, classes.net, x_0, c, 999 - 20 * place, eps, omega)
roles = {"student": Denoiser(student, schedule, "v"), "target": Denoiser(other, schedule, "v")}
recipe = recipes.lcm(schedule, NULL)  # ω from 5 to 15, as in the script
ours = recipe.phases[0].loss(roles | {"teacher": classes}, Batch(x_0, c), Draw(3)).value
gap = abs(by_hand.item() / ours.item() - 1)
claim("C14.4", "the plain loss over the library's, less 1", gap, below=1e-6)

# %% [markdown]
# ## 14.4 How many indices should a step skip?
#
# Two errors pull in opposite directions. One DDIM step is wrong by $O(h^2)$, where $h$ is its length in λ, and a path has
# $1/h$ of them. So even a student that has brought its loss to zero is wrong by $O(h)$: it *is* the teacher's sampler with
# $1000/k$ steps. That speaks for short steps.
#
# Against them speaks time. The only place where $f$ is known at the outset is the clean end. What a student learns at one
# start must wait until its target, one step below, is right. So knowledge climbs the ladder step by step, and there are $1000/k$ rungs.

# %%
# NBVAL_CHECK_OUTPUT
pair = guided(classes, 2.0, NULL)  # ω = 2 from here on
lam = schedule.at(0.6).lam
within = lambda h: [schedule.at_lam(lam + h * i / 16) for i in range(17)]
one = lambda h: solvers.ddim(pair, x, *within(h)[::16], cond=label)[0]
fine = lambda h: sample(pair, x, within(h), solvers.dpm_solver_3, label)
local = {n: metrics.rms(one(1 / n), fine(1 / n)) for n in (20, 40, 80)}
claim("C14.5", "one DDIM step: order of its error", metrics.order(local), between=(1.85, 2.15))

noise, many = Draw(0).normal((1000, 2)), dlib.levels(schedule, 60)
end = lambda model: model(noise.double(), top, label).x0
goal = end(composed(pair, many, solvers.dpm_solver_3))  # the ends of the guided paths
best = lambda k: composed(pair, schedule.levels(grid(schedule, 1000 // k, "sd_trailing")))
perfect = {k: metrics.rms(end(best(k)), goal) for k in (4, 8, 20, 100, 200, 500)}
whole = metrics.order({1000 // k: perfect[k] for k in (4, 8, 20)})
claim("C14.6", "the student of zero loss: order of its error", whole, between=(0.85, 1.15))

# %% [markdown]
# Now train. Every student gets 300 updates of 256 points, and only the skip differs. We expect a valley: $k=20$ should be at least twice as
# good as either end, $k=2$ and $k=500$.


# %%
def mlp(predicts="v"):
    torch.manual_seed(0)
    return Denoiser(MLP(2, 96, 2, classes=2), schedule, predicts)


def points(step):
    x_0, c = mixture.sample(256, Draw(step))
    return Batch(x_0.float(), c)


def trained(recipe, lr=4e-3, decay=0.95, start=None, steps=300):
    """The student, and the loss of each update: Adam, its rate falling along a cosine."""
    starts = {"student": start or mlp()}
    actors = cast(recipe, classes, starts=starts, decays={"target": decay})
    optim = torch.optim.Adam(actors.roles["student"].net.parameters(), lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    each = lambda step, found: rate.step()
    history = perform(recipe, actors, {"student": optim}, points, steps, Draw(0), each)
    return actors.roles["student"], history["student/loss"]


over = lambda k: recipes.lcm(schedule, NULL, omega=(2.0, 2.0), steps=1000 // k)
runs = {k: trained(over(k)) for k in (2, 20, 500)}


# %%
# NBVAL_CHECK_OUTPUT
@torch.no_grad()
def error(student):
    return metrics.rms(boundary(student, scalings)(noise, top, label).x0, goal)


found = {k: error(student) for k, (student, _) in runs.items()}
figure(
    plot.curves(
        {"300 updates": (list(found), list(found.values()))},
        {"zero loss": (list(perfect), list(perfect.values()))},
        xlabel="$k$, indices skipped",
        ylabel="RMS to the paths' ends",
        log="xy",
    ),
    "After 300 updates the error falls from 1.6 at k = 2 to 0.3 at 20 and "
    "rises to 0.9 at 500, where it meets the line of the student of zero loss.",
    "One call, $\\omega=2$. Left: too little time. Right: the teacher's steps are too long. "
    "Dashed: what endless training would reach, the teacher's own sampler in $1000/k$ steps.",
)
claim("C14.7", "error, k = 2 over k = 20", found[2] / found[20], above=2)
claim("C14.8", "error, k = 500 over k = 20", found[500] / found[20], above=2)

# %% [markdown]
# That is the blur of the opening picture. With $k=2$ there are 500 rungs, and in so few updates next to nothing has climbed them. So
# the student still says nearly what it said at the start. Here that was $0.068\,x$, nearly zero, since the new network says $v=0$. In the opening picture it was the
# teacher's one guess: the mean of all that might be there. Where the valley lies depends on your budget. With 1000
# updates, $k=20$ came to 0.20 and $k=5$ only to 1.1. LCM's 20 is a choice for 1000 indices and thousands to
# a hundred thousand updates.
#
# ## 14.5 Healthy and sick curves: the rate and the average
#
# *Before you look: which of these five has the smallest loss at the end, and which the smallest error?*

# %%
# NBVAL_CHECK_OUTPUT
runs |= {
    "rate ÷ 16": trained(over(20), lr=2.5e-4),
    "rate × 16": trained(over(20), lr=6.4e-2),
    "no average": trained(over(20), decay=0.0),
}
shown = {"healthy": 20, "skip 2": 2} | {
    name: name for name in ("rate ÷ 16", "rate × 16", "no average")
}
figure(
    plot.curves(
        {name: plot.running_mean(runs[key][1], 30) for name, key in shown.items()},
        xlabel="update",
        ylabel="loss",
        log="y",
    ),
    "With two levels a step the loss is the lowest by far. Of the four others the healthy curve "
    "ends lowest; with a rate 16 times larger it stays flat, without an average it stays high.",
    "Running means over 30 updates.",
)
bad = {name: error(runs[name][0]) / found[20] for name in list(runs)[3:]}
claim("C14.9", "error, rate ÷ 16, over the healthy one", bad["rate ÷ 16"], above=2)
claim("C14.10", "error, rate × 16, over the healthy one", bad["rate × 16"], above=2)
claim("C14.11", "error, no average, over the healthy one", bad["no average"], above=2)
last = lambda key: sum(runs[key][1][-50:])
claim("C14.12", "loss at the end, k = 2 over k = 20", last(2) / last(20), below=0.5)

# %% [markdown]
# **A small loss is no sign of quality.** The smallest of the five belongs to the run with two levels a step, which is among the worst. The loss compares neighbours, so it is
# small where steps are short and where nothing moves. With one and the same skip it is of some use: the healthy run ends lowest. But it does not
# rank the sick ones: the highest loss is not the largest error. Judge an LCM by its
# pictures from a fixed noise. The rate has a wide valley: 0.001 and 0.016 came to 0.46 and 0.32. The average is worth more than the rate: decays
# of 0, 0.5, 0.8 and 0.95 gave 1.24, 0.49, 0.32 and 0.30, and 0.99 no more. (Our averages warm up: in 300 updates no
# decay gets beyond 0.97.) A network that starts from nothing needs the average, because it runs after its own noise. The public script
# for adapters has none; that for all weights, which also starts as the teacher, keeps 0.95.
#
# ## 14.6 More calls
#
# For a second call, add new noise and jump again. The grid for $S$ calls takes every $50/S$-th of the fifty starts, rounded down, from
# the noisiest: 999, 759, 499, 259 for four. Here is the loop, beside diffusers' and the library's `lcm`:


# %% tags=["fold"]
class Same(Draw):  # draws in x's own precision, as diffusers does
    def normal(self, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


LADDER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def theirs(scheduler, calls, x, **how):
    """What a scheduler of diffusers makes of x in float64."""
    scheduler = scheduler(**LADDER, clip_sample=False, set_alpha_to_one=False)
    scheduler.alphas_cumprod, generator = alpha**2, torch.Generator().manual_seed(3)
    scheduler.set_timesteps(calls)
    for n in scheduler.timesteps.tolist():
        x = scheduler.step(any_net(x, n), n, x, generator=generator, **how).prev_sample
    return x


# %%
# NBVAL_CHECK_OUTPUT
show(solvers.lcm)
any_net = lambda x, n: torch.tanh(0.7 * x + n / 1000)  # says ε


def lcm_sample(net, x, calls, draw):
    visits = [int(starts.flip(0)[50 * i // calls]) for i in range(calls)]
    for n, following in zip(visits, [*visits[1:], None]):
        x_theta = (x - sigma[n] * net(x, n)) / alpha[n]
        skip, out = 0.25 / (100 * n**2 + 0.25), 10 * n / (100 * n**2 + 0.25) ** 0.5
        x = skip * x + out * x_theta
        if following is not None:
            x = alpha[following] * x + sigma[following] * draw.normal(x)
    return x


ask = Denoiser(lambda x, t, c: any_net(x, (1000 * t - 1)[:, None]), schedule, "eps")
walk = lambda n: dlib.levels(schedule, n, "lcm", end="clean")
ours = lambda n: sample(boundary(ask, scalings), x, walk(n), solvers.lcm, draw=Same(3))
jumps = lambda n: sample(ask, x, dlib.levels(schedule, n, "lcm"), solvers.tcd(0.3), draw=Same(3))
most = lambda f, g: max(((f(n) - g(n)).abs().max() / g(n).abs().max()) for n in (1, 2, 4, 8))
peer = lambda n: theirs(LCMScheduler, n, x)
gap = most(lambda n: lcm_sample(any_net, x, n, Same(3)), peer)
claim("C14.13", "the plain loop − LCMScheduler (relative)", gap, below=1e-9)
claim("C14.14", "the library − LCMScheduler", most(ours, peer), below=1e-9)
gap = most(jumps, lambda n: theirs(TCDScheduler, n, x, eta=0.3))
claim("C14.15", "the library's tcd − TCDScheduler", gap, below=1e-9)

# %% [markdown]
# The last claim is about **TCD** [@zheng2024tcd]. It stops each jump at a level $s$ *below* the next call's level, and adds only the noise that is missing
# from there. If the next call is at index $n$, the jump stops at index $s=\lfloor(1-\gamma)n\rfloor$. With γ = 1 it goes to index 0, nearly as LCM's does. With γ = 0 no noise is
# added at all.
#
# Does that matter? Take students that are *perfect*: they follow the guided path to any level without error. One call is exact. *Are eight?*
# New noise is right if the points of the paths at a level are distributed like noised end points. For the plain ODE they are. But nothing makes
# $\varepsilon^\omega$ the score of a noised density (chapter 6), so each new noise gives $x$ another law than the points of guided paths
# have there. We ask that LCM's distance to the true ends at least doubles, in sliced $W_2$. With γ = 0 the calls follow the path, so the distance must stay what it is.
# Without guidance it must stay as well, up to the scatter of such distances, which can reach a half.

# %% tags=["fold"]
ladder, ask_for = grid(schedule, 25, "sd_trailing").tolist(), torch.arange(1200) % 2


def flow(model, x, a, s):  # the perfect student: along the path from level a to s
    between = [t for t in ladder if s.t + 1e-9 < t < a.t - 1e-9]
    stops = schedule.levels([a.t, *between, s.t])
    return x if s.t > a.t - 1e-9 else sample(model, x, stops, solvers.dpm_solver_pp_2m, ask_for)


def perfect_calls(model, calls, gamma, draw):
    x, stops = Draw(0).normal((1200, 2), torch.float64), dlib.levels(schedule, calls, "lcm")
    for a, b in zip(stops, stops[1:]):
        s = schedule.at(clean.t + (1 - gamma) * (b.t - clean.t))
        x = solvers.travel(flow(model, x, a, s), s, b, draw.normal(x))
    return x


# %%
# NBVAL_CHECK_OUTPUT
fresh = Draw(6).normal((1200, 2), torch.float64)
true = {model: flow(model, fresh, top, clean) for model in (pair, classes)}
far = lambda m, calls, gamma: metrics.sliced_w2(perfect_calls(m, calls, gamma, Draw(2)), true[m])
drift = {g: [far(pair, calls, g) for calls in (1, 2, 4, 8)] for g in (1.0, 0.3, 0.0)}
figure(
    plot.curves(
        {f"γ = {g:g}": ((1, 2, 4, 8), values) for g, values in drift.items()},
        xlabel="calls",
        ylabel="sliced $W_2$ to the guided paths' ends",
        floor=drift[0.0][0],
    ),
    "With γ = 1 the distance grows with every doubling of the calls; with 0.3 it stays on the "
    "sampling floor up to four calls and leaves it at eight; with γ = 0 it stays there.",
    "Perfect students, $\\omega=2$. Shaded: what two exact sets of 1200 points differ by.",
)
eight = {gamma: values[3] / values[0] for gamma, values in drift.items()}
claim("C14.16", "γ = 1: distance, 8 calls over one", eight[1.0], above=2)
claim("C14.17", "γ = 0: the same", eight[0.0], between=(0.9, 1.1))
plain = far(classes, 8, 1.0) / far(classes, 1, 1.0)
claim("C14.18", "γ = 1 without guidance: the same", plain, between=(0.5, 1.6))

# %% [markdown]
# So here is why an LCM gets *worse* beyond some number of calls: each call leaves the guided path a little further. And new noise
# puts you on another path, so the same seed gives another picture for each number of calls, even if $f$ is perfect. A real
# student is far from perfect, and the error of its $f$ enters again at every call. With few calls the new noise still repairs more than it spoils. The paper's Fréchet distances for 1, 2, 4 and 8 calls are said to be 35.4,
# 13.3, 11.1 and 11.8 (Stable Diffusion at 512 pixels, ω = 8; not verified, not reproduced here).
#
# ## 14.7 What TCD trains
#
# To stop anywhere, the student must have learnt to. TCD's loss draws $s$ from the grid, between the end of the teacher's step and the end of the path,
# and compares there. The square, too, is taken of each value and averaged. (Students that jump to any level go back to [@kim2024ctm]. The jump $F$ is the first-order one, chapter 7's DDIM.)
#
# $$F_{t\to s}(x)=\frac{\alpha_s}{\alpha_t}x-\alpha_s(\kappa_t-\kappa_s)\,\varepsilon_\theta(x,t),\qquad \mathcal L=\mathbb E_s\,\big\lVert F_{a\to s}(x_a)-\operatorname{sg}F_{b\to s}(x_b)\big\rVert^2. \label{eq:lc-tcd}$$
#
# In plain PyTorch the places of the ladder are 0 to 50, from index 999 down to 0. A step goes from one place to the next, and every place from there
# to the last may be the stop.

# %%
# NBVAL_CHECK_OUTPUT
show(trajectory_ends)
rungs, kappa = torch.cat([starts.flip(0), torch.tensor([0])]), sigma / alpha
said = lambda net, x, n, c: sigma[n, None] * x + alpha[n, None] * net(x, (n + 1) / 1000, c)


def F(x, n, s, eps):  # from index n to index s
    down = alpha[s] * (kappa[n] - kappa[s])
    return (alpha[s] / alpha[n])[:, None] * x - down[:, None] * eps


def tcd_loss(student, target, teacher, x_0, c, place, share, eps, omega):
    a, b = rungs[place], rungs[place + 1]
    s = rungs[place + 1 + (share * (50 - place)).long()]  # b or any index below
    x_a = alpha[a, None] * x_0 + sigma[a, None] * eps
    with torch.no_grad():
        eps_c, eps_0 = (said(teacher, x_a, a, label) for label in (c, 0 * c - 1))
        x_b = F(x_a, a, b, eps_c + omega[:, None] * (eps_c - eps_0))
        goal = F(x_b, b, s, said(target, x_b, b, c))
    return (F(x_a, a, s, said(student, x_a, a, c)) - goal).square().mean()


draw = Draw(4)
drawn = draw.integers(50, 256), draw.uniform(256), 5 + 10 * draw.uniform(256), draw.normal(x_0)
place, share, omega, eps = drawn
by_hand = tcd_loss(student, other, classes.net, x_0, c, place, share, eps, omega)
ours = (
    recipes.tcd(schedule, NULL)
    .phases[0]
    .loss(roles | {"teacher": classes}, Batch(x_0, c), Draw(4))
)
gap = abs(by_hand.item() / ours.value.item() - 1)
claim("C14.31", "the plain TCD loss over the library's, less 1", gap, below=1e-6)

# %% [markdown]
# Look at what the network is told: $x$ and $t$, but not $s$. It has *one* ε for all the places where it may be asked to stop. On a curved path
# the right ε depends on where you stop. The squared loss settles for a weighted mean of them, in which the ε for the stop $s$ has the weight
# $[\alpha_s(\kappa_t-\kappa_s)]^2$. For the Gaussian $\mathcal N(0,0.5^2)$ everything is linear, ε = e · x, and that mean can be followed from the clean end upwards. To check it, we then train a table of
# fifty numbers e with the library's loss. (With equal weights the spreads below would be 0.19 and 0.88, and with the end of the path as the only $s$ they would be 0.95 and 1.46.)

# %%
# NBVAL_CHECK_OUTPUT
al, si = torch.stack(
    [torch.tensor([l.alpha, l.sigma]).double() for l in schedule.levels(times)], 1
)
ka, size = si / al, (0.25 * al**2 + si**2).sqrt()  # size: the data's spread at each level
jump = lambda e, i, s: al[s] / al[i] - al[s] * (ka[i] - ka[s]) * e[i]  # its factor of x
e, perfect_eps = torch.zeros(51).double(), si / size**2
for i in reversed(range(50)):
    s = torch.arange(i + 1, 51)
    aim, weight = jump(perfect_eps, i, i + 1) * jump(e, i + 1, s), al[s] * (ka[i] - ka[s])
    e[i] = (weight * (al[s] / al[i] - aim)).sum() / weight.square().sum()


def spread(e, calls):  # of deterministic samples, over the exact one
    stops = [50 * i // calls for i in range(calls)] + [50]
    return math.prod(jump(e, i, s) for i, s in zip(stops, stops[1:])) * size[0] / size[50]


tight = spread(e, 1)
claim("C14.19", "one call of the minimiser: spread over the exact", tight, between=(0.55, 0.6))
claim("C14.20", "eight calls: the same", spread(e, 8), between=(1.15, 1.2))

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
table = torch.nn.Parameter(torch.zeros(51))
row = lambda t: (50 - (t * 50).round()).long()
learner = Denoiser(lambda x, t, c: table[row(t), None] * x, schedule, "eps")
narrow = exact(gaussian(0.0, 0.5), schedule)
optim = torch.optim.Adam([table], 0.03)
rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 1500)
for update in range(1500):
    batch, draw = Batch(0.5 * Draw(update).normal((256, 1))), Draw(9999 + update)
    loss = trajectory_consistency(learner, narrow, learner, batch, draw, times=times)
    optim.zero_grad()
    loss.value.backward()
    optim.step()
    rate.step()

gap = max(abs(spread(table.detach().double(), calls) - spread(e, calls)) for calls in (1, 8))
claim("C14.21", "1 and 8 calls: the trained table's spread less these", gap, below=0.05)

# %% [markdown]
# The best that this loss can find, each level with its targets held fixed, has samples that are 44 % too narrow in one call and 18 % too wide in eight. (With exact steps in place of DDIM's: 41 and 25 %.) No training
# helps. A consistency model has no such floor: its $s$ is always the end. Two cures are known. Tell the network $s$, for which Stable Diffusion's
# U-Net has no input; or fix $s$ to a few edges, and that is [chapter 15](15_phased_consistency.ipynb).
#
# ## 14.8 What should look wrong here: no boundary
#
# Take the boundary away: let $f$ be the network's own guess $x_\theta$. *Predict the first fifty losses of a new network that says $x_0$, whose last layer
# starts at zero. And what will become of our $v$-network?*


# %%
# NBVAL_CHECK_OUTPUT
def bare(roles, batch, draw):
    who = (roles[name] for name in ("student", "teacher", "target"))
    return consistency(*who, batch, draw, times=times, omega=(2.0, 2.0), null=NULL)


no_boundary = Recipe((Phase("student", bare),), over(20).parts)
silent, losses = trained(no_boundary, start=mlp("x0"), steps=50)
claim("C14.22", "x₀-network: the largest of 50 losses", max(losses), below=1e-6)
free, _ = trained(no_boundary)
without = metrics.rms(free(noise, top, label).x0.detach(), goal) / found[20]
claim("C14.23", "v-network: error over the healthy one", without, between=(0.4, 2.5))

# %% [markdown]
# The first has loss zero from the first update, and says zero for ever: a constant agrees with itself. The second learns as well as with its boundary.
# At index 0 a $v$-network's guess is $\alpha x-\sigma v$ with σ = 0.029, so it is nearly $x$, as long as $v$ is of order one. Its form has the
# boundary built in. So has an ε-network's. That is why a forgotten boundary goes unnoticed on Stable Diffusion, and can ruin an $x_0$-model.
#
# ## 14.9 Rung 2: digits and captioned shapes
#
# First scikit-learn's digits, with ω = 2 inside. A student of zero loss ends where fifty guided steps of its teacher end, which cost a hundred calls.
# Ours has 150 updates. What must its one call have learnt? A student that does not listen to its *noise* can do no better than to write the mean of each
# digit's ends, so we ask for a smaller distance to the ends than these means have. A student that has not learnt guidance leaves the mean digits where
# the unguided teacher has them. How far has ours moved them towards the guided teacher's? 0 is not at all, 1 is all the way, and we ask
# for 1 within a third.

# %%
# NBVAL_CHECK_OUTPUT
digits, judge, (_, (held_out, names)) = digits_teacher(), digits_classifier(), digits_split()
z, path = Draw(10).normal(held_out), dlib.levels(digits.schedule, 50, "sd_trailing", end="clean")
plain, ink = (sample(guided(digits, w, NULL), z, path, cond=names) for w in (0.0, 2.0))
recipe = recipes.lcm(digits.schedule, NULL, omega=(2.0, 2.0))
writer = distil(recipe, digits, digits, digit_batches(128, seed=0, drop=0), 150, lr=1e-3)
with torch.no_grad():
    writes = lambda calls: replace(recipe.sampler, steps=calls)(writer, z, names, draw=Draw(3))
    once, four = writes(1), writes(4)

mean = lambda x: torch.stack([x[names == k].mean(0) for k in range(10)])[names]
nearer = metrics.rms(once, ink) / metrics.rms(mean(ink), ink)
claim("C14.32", "digits, one call: RMS to the ends over that of their means", nearer, below=1)
along = mean(ink) - mean(plain)
moved = ((mean(once) - mean(plain)) * along).sum() / along.square().sum()
claim("C14.33", "digits: how far the mean digits moved", moved, between=(2 / 3, 4 / 3))
apart = lambda x: digits_frechet(x, judge) - digits_floor(judge)[0]
in_one, in_four = apart(once) / apart(ink), apart(four) / apart(ink)
claim("C14.34", "digits, one call: Fréchet distance over the teacher's", in_one, above=2)
claim("C14.35", "digits, four calls: the same", in_four, between=(0.5, 2))

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
recipe = recipes.tcd(digits.schedule, NULL, omega=(2.0, 2.0))
jumper = distil(recipe, digits, digits, digit_batches(128, seed=0, drop=0), 150, lr=1e-3)
with torch.no_grad():
    tcd_four = replace(recipe.sampler, steps=4)(jumper, z, names, draw=Draw(3))
moved = ((mean(tcd_four) - mean(plain)) * along).sum() / along.square().sum()
claim("C14.36", "TCD, four calls: how far the mean digits moved", moved, between=(2 / 3, 4 / 3))
in_four = apart(tcd_four) / apart(ink)
claim("C14.37", "TCD, four calls: Fréchet distance over the teacher's", in_four, between=(0.5, 2))

column = torch.stack([(names == k).nonzero()[0, 0] for k in range(10)])
first_guess = boundary(digits, scalings)(z, digits.schedule.at(1.0), names).x0
rows = {"teacher, 100 calls": ink, "LCM, 4 calls": four, "LCM, 1 call": once}
rows |= {"TCD, 4 calls": tcd_four, "untrained, 1 call": first_guess}
figure(
    plot.pictures({name: x[column] for name, x in rows.items()}),
    "The guided teacher's digits are bold and clear, and so are LCM's and TCD's in four calls, "
    "in other shapes; LCM's one call writes softer ones, the untrained student's are grey means.",
    "The same noise in each column; four calls add new noise three times.",
)

# %% [markdown]
# One call falls short. Five seeds moved the means by 0.81 to 0.94, so it has learnt where guidance leads. But its pictures of one digit vary a seventh as much as real
# ones: 150 updates are few for fifty rungs. Its Fréchet distance, less what other real pictures have, was about three times the teacher's with each seed. In four
# calls it is the teacher's, within a factor of two.
#
# Now back to the opening. We ask that LCM's distance to real pictures, less what other real pictures have, is below half of the untrained teacher's, and that
# two levels a step leave more than half. The share of captions that a reader of shapes finds should rise by a tenth, three standard
# errors of 512 pictures.

# %%
# NBVAL_CHECK_OUTPUT
floor = shapes_floor(codes)[0]
untrained, two, lcm = (shapes_frechet(x, codes) - floor for x in one_call.values())
claim("C14.24", "two levels: Fréchet distance over the untrained's", two / untrained, above=0.5)
claim("C14.25", "LCM: the same", lcm / untrained, below=0.5)
before, _, after = (shows(read(x), codes).double().mean() for x in one_call.values())
claim("C14.26", "captions shown by LCM less the untrained's", after - before, above=0.1)

# %% [markdown]
# And which decision did it? We trained two more, with one of them each. Their distances, too, are over the untrained student's. Twenty levels *without* guidance
# came to 0.29, where LCM has 0.30, and showed 70 % of the captions. Two levels *with* guidance came to 0.79, and showed 58 %. So here the skip removes the blur, and both help to obey: untrained 56 %, LCM 80 %.
#
# **With half a minute**, on GMM5, VP and without guidance, the students of `python -m bench students` are shipped with the book; here they are scored again.
# A student of zero loss *is* its teacher's own walk of fifty DDIM steps, so we walk that as well. *d* (not the distance of 14.3) is the sliced Wasserstein distance to the
# flow's ends of the same noise, in units of what two exact sets of 10 000 points leave. The book asks students of one call for d ≤ .5, and the perfect
# walk misses it: better training cannot help, a better solver can (chapter 13's students have one). TCD's one ε for all $s$ (14.7) costs far more.

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
given, fifty = yardstick(300), vp().levels(grid(vp(), 50, "sd_trailing"))
start, ends = given.noise.flatten(0, 1), given.ends.flatten(0, 1)
walked = lambda solver: sample(exact(gmm5(), vp()), start, fifty, solver)
own, better = walked(solvers.ddim), walked(solvers.dpm_solver_3)
own_d, better_d = (metrics.sliced_w2(x, ends) / FLOOR for x in (own, better))
own_rms = metrics.rms(own, ends)
one, tcd_one = rescored("LCM", 300), rescored("TCD", 300)
claim("C14.27", "the perfect teacher's fifty DDIM steps: d", own_d, above=0.5)
claim("C14.28", "the same in steps of DPM-Solver-3: d", better_d, below=0.05)
claim("C14.29", "LCM, one call: RMS over that of these steps", one["rms"] / own_rms, above=1)
claim("C14.30", "one call: RMS of TCD over LCM's", tcd_one["rms"] / one["rms"], above=2)

# %% [markdown]
# ## 14.10 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | blurred in one call, loss tiny | too few updates for so many rungs | more updates, or $k=20$ and up |
# | blurred, loss high and flat | learning rate too large | divide it by ten |
# | training from nothing fails, loss high and wavy | no target average | decay 0.95; the script's adapters have none |
# | sharp in 4 calls, worse in 16 | new noise leaves the guided path | at most 8 calls; chapter 15; TCD with γ = 0 does not leave the path, but has the floor of 14.7 |
# | burnt colours | guided twice: ω is inside already | no guidance outside: `guidance_scale`, which is $1+\omega$ in diffusers, 1 or at most 2. (The student of `lcm` is told ω, by the same number: there pass 1 plus the ω that you want) |
# | details vanish from 25 to 26 calls | a scheduler from before diffusers #5836 (November 2023) takes the first 26 of the fifty starts, so the last jump starts at 499 (#5815) | update it |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | `lcm_lora`, `lcm` or `tcd` | `lcm_lora`: the cheapest, and it fits on other weights of the same model | users turn ω: `lcm`. `tcd`, if you want several calls with less new noise (with γ = 0 none), and can take the floor of 14.7. We did not compare them on Stable Diffusion |
# | updates, batch | the recipe files: `lcm_lora` 5000 of 96, `tcd` 10 000 of 96, `lcm` 100 000 of 72 | soft in 4 calls: more updates |
# | the teacher's ω | the `guidance_scale` that you like with the teacher, less 1: for 7.5, with `lcm_lora` or `tcd`, `--hyper.omega 6.5 6.5`; for `lcm`, which is told ω, the range that you serve (`lcm.toml` has 2 to 14) | the commands below keep the script's range from 5 to 15, which acts about as 10 on a student that is not told ω (14.1). Burnt even at a `guidance_scale` of 1: lower it. At a `guidance_scale` of 1 a negative prompt does nothing: the empty condition is inside |
# | skip $k$ | 20, which is `--hyper.steps 50` | blurred, loss tiny: too many rungs for your updates (14.4). `--hyper.skip` says how many steps of that grid the teacher takes at once: leave it at 1 |
# | rate | the recipe files': adapters 1e-4, `lcm` the paper's 8e-6, `tcd` a port's 4e-6. The script for all weights has 1e-6 | loss high and flat: a tenth of it. Pictures hardly change: a higher rate |
# | average of the target | none for adapters; 0.95 for all weights | so the scripts, for students that start as their teacher. From nothing a network needs it (14.5) |
# | Huber, or the square | Huber, as LCM | its slope stays near 1 down to errors of 0.003, and no single large error rules a batch. On the plane it makes no difference: an error (14.4, $k=20$) of 0.30, and with the square 0.28 |
# | calls | 4 | one call is soft: nothing mends the error of its jump. Soft in 4 as well: train on. With each doubling of the calls new noise leads further from the guided path (14.6): at most 8 |
# | TCD's γ | 0.3, which diffusers calls `eta` | the paper's choice, as we recall. γ belongs to the sampler: training draws every stop $s$ and knows no γ. With .3 a *perfect* student is as near as samples can tell, up to four calls (14.6); with 0 no noise is added, and it keeps its picture whatever the calls. A *trained* one has the floor of 14.7, with γ = 0 too. On digits, at four calls, LCM is the nearer (14.9); more calls, and Stable Diffusion, we did not compare |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | Stable Diffusion 1.5 at 512 pixels on eight A100: `lcm_lora` needs 9 GB a card and 0.8 hours; `lcm` needs 30 GB a card and 13 hours; `tcd` needs 31 GB a card and 1.7 hours: counted, at an *assumed* 35 % of their peak |
# | seeds, to compare two settings | three | this page's claims have one seed each; LCM's one call on digits has five, the students of GMM5 at the end of 14.9 three, in the bench |
#
# **Settings of the real runs.** The public script: learning rate 1e-6, decay 0.95, Huber constant 0.001, ω from 5 to 15, 12 pictures a GPU. For adapters: rank 64, rate
# 1e-4, no average. Two runs are quoted as "LCM" [@luo2023lcm]. The released model was made from Dreamshaper v7 at 768 pixels, in 4000 updates and 32 A100-hours, says its model card. Of the paper's experiments
# we have not verified the rate (8e-6), batch (72), updates (100 000) and skip (20). TCD's authors released
# no training code; `tcd.toml` takes an independent port's rate (4e-6) and average, unverified too.
#
# **Where the toy stops being true.** The plane has two coordinates, the teacher is perfect, and the network is new. A student that starts as its teacher says something sensible from the first update,
# so the valley of 14.4 may be wider. What should carry over is its shape: too little time on one side, too long a step on the other. *No published figure is reproduced.*
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `recipes.lcm(schedule, NULL, …)` | the same function, in `full_scale.train lcm_lora` |
# | `lcm_with_omega` | `full_scale.train lcm`: all weights, ω as an input |
# | `recipes.tcd` | `full_scale.train tcd`; its card hands the student to diffusers' `TCDScheduler` |
# | `solvers.lcm`, `solvers.tcd_default` | `full_scale.sample --solver lcm` or `tcd` |
#
# | how far up the ladder: rung 1 | rung 2 | rung 3 |
# |---|---|---|
# | exactly, and trained on the plane | digits, captioned shapes | all three recipes train Stable Diffusion's classes in the tests, with random weights |
#
# ```bash
# torchrun --standalone --nproc_per_node 8 -m full_scale.train lcm_lora \
#     --weights weights/stable-diffusion-v1-5 --data data --out runs/lcm
# python -m full_scale.export runs/lcm
# torchrun --standalone --nproc_per_node 8 -m full_scale.train tcd \
#     --weights weights/stable-diffusion-v1-5 --data data --out runs/tcd
# python -m full_scale.export runs/tcd
# ```
#
# ## 14.11 Exercises
#
# 1. *(pencil)* From $x_a=1$ of 14.1 with ω = 2, the student says $f=0.4$ at $a$ and 0.5 at $b$. What is the Huber loss, and what is its slope in the student's
#     answer? What would the squared loss have?
# 2. *(code)* Write the old grid of diffusers #5815: with `skipping = 50 // S`, take every `skipping`-th start from the noisiest, and of those the first $S$. At which index
#     does it stop for $S=26$? What does $\kappa$ there say about the picture? Check against 499.
# 3. *(code)* Train with ω drawn from (0, 4) and without telling it. Which single ω is the student nearest to? Check its error to the ends of ω = 0, 2 and 4.
# 4. *(open)* Tell TCD's network where to stop: give `learner` a table with a row and a column. Does the floor of 14.7 disappear? How would you tell a U-Net?
#
# <details><summary>Answer to 1</summary>
#
# The difference is −0.1, so the loss is $\sqrt{0.01+10^{-6}}-10^{-3}=0.099$ and its slope $-0.1/\sqrt{0.010001}=-1.000$. The squared loss would have 0.01 and
# −0.2. The Huber slope is 0.95 even for a difference of 0.003, so small errors keep pulling.
#
# </details>
#
# <details><summary>Answer to 3</summary>
#
# `trained(recipes.lcm(schedule, NULL, omega=(0.0, 4.0)))`, then `error` with the ends of each ω. It is nearest to ω = 2, because each teacher's step is linear in ω. Not exactly:
# the next step starts from the end of the last, where ε depends on ω as well, and Huber's loss aims at a median.
#
# </details>
#
# ## References
#
# Latent consistency, and as adapters: [@luo2023lcm; @luo2023lcmlora]. TCD and its forerunner: [@zheng2024tcd; @kim2024ctm].
# Consistency models: [@song2023consistency]. The distilled ω: [@meng2023guided]. Guidance: [@ho2022cfg].
