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
#     title: "Stable consistency tuning: a target with less variance"
#     summary: One clean sample is a noisy witness of where a path goes. Ask a whole batch, weigh the answers, and the bias stays zero.
#     minutes: 40
#     memory: 1 GB
#     needs:
#       - consistency training (chapter 16; recapped in 17.1)
#       - phases and their edges, for 17.8 (chapter 15)
#       - Bayes' rule
# ---

# %% [markdown]
# # 17 Stable consistency tuning: a target with less variance
#
# You want a one-call student and you have no teacher, only data. Consistency training makes that possible. Here are two of
# its students, after the same 700 updates on the same 256 points each, with the same noise and network calls.
# Grey points lie in none of the five modes.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import json
import math
from collections import namedtuple
from itertools import product
import torch
from bench.report import RESULTS
from dlib import (
    CLEAN,
    Batch,
    Denoiser,
    Draw,
    Part,
    Phase,
    Recipe,
    boundary,
    cast,
    edm_boundary,
    exact,
)
from dlib import edm, grid, levels, metrics, perform, plot, recipes, solvers, vp
from dlib.losses import consistency_training, ladder_times, own, variance_reduced_target
from dlib.losses.curricula import ect_end, ect_stage, smooth_stage
from dlib.losses.variance_reduction import Bank, among, marks, reduced, weighed
from dlib.nets import MLP
from dlib.recipes.stable_consistency import skipped
from dlib.rollout import composed
from toy_data import digit_batches, digits_classifier, digits_split, digits_teacher, distil
from toy_data import gaussian, gmm5, labelled, shape_batches, shapes_teacher
from toy_data.digit_scores import digits_floor, digits_frechet
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet
from toy_data.student_scores import rescored

schedule, mixture = vp(), gmm5()
top, times = schedule.at(1.0), grid(vp(), 23, "arctan")
scalings, neighbours = edm_boundary(schedule, times[-1].item(), 1.0), ladder_times(times)


def data(step, who=None):
    x_0 = mixture.sample(256, Draw(step))[0].float()
    return Batch(x_0, memo={"references": x_0, "shared": who})


def trained(estimate, data=data, steps=700):
    """The student, in its boundary, and its loss at every step."""

    def loss(roles, batch, draw):
        student, target = (boundary(roles[name], scalings) for name in ("student", "target"))
        return consistency_training(
            student, target, batch, draw, times=neighbours, estimate=estimate
        )

    recipe = Recipe((Phase("student", loss),), {"student": Part("copy"), "target": Part("mean")})
    torch.manual_seed(0)
    model = Denoiser(MLP(2, 96, 2), schedule, "v")
    actors = cast(recipe, model, starts={"student": model}, decays={"target": 0.95})
    optim = torch.optim.Adam(model.net.parameters(), 4e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    after = lambda step, found: rate.step()
    history = perform(recipe, actors, {"student": optim}, data, steps, Draw(0), after)
    model.net.requires_grad_(False)
    return boundary(model, scalings), history["student/loss"]


# %%
x_T = Draw(1).normal((4000, 2))
plain, stable = trained(own), trained(reduced)
drawn = {
    "one clean sample": plain[0](x_T, top).x0,
    "256 clean samples, weighed": stable[0](x_T, top).x0,
}
figure(
    plot.modes({name: x[:1500] for name, x in drawn.items()}, mixture),
    "The plain student's points fill the gaps between the five modes; most of the stable "
    "student's lie inside the modes.",
    "One call each, after 700 updates. Only the target of the training differs.",
)

# %% [markdown]
# The left student learns from targets that contradict each other. From one noisy point, one update sends it to the first
# mode, the next to the third. The right one learns from the *same* data. It only asks more of them before it decides where a
# point should go. That is **stable consistency tuning**, SCT [@wang2024stable]. Its authors' repository holds no code, so what you
# read is written from the formulas, and proved.
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | $x_t=\alpha x_0+\sigma\varepsilon$; κ | a noisy sample; its noise in units of the data, σ/α | chapter 13 |
# | $t\to r$ | a short step towards the data | chapter 16 |
# | $d$; $c$ | coordinates of a sample; standard deviation of Gaussian data | chapter 7 |
# | $f$, $\operatorname{sg}$ | the consistency function, and the stop-gradient | chapter 13 |
# | $x_0^{(i)}$, $i\le n$ | the references: $n$ clean samples. One of them is the $x_0$ that made $x_t$ | new |
# | $w_i$ | how well reference $i$ explains $x_t$; they sum to 1 | new |
# | $\bar x_0$, $\bar\varepsilon$ | the weighted mean of the references, and the noise that goes with it | new |
# | $n_{\text{eff}}$ | the effective number of references, $1/\sum w_i^2$ | new |
# | $q$ | by how much ECT divides its steps at each stage, 2 | chapter 16 |
# | $s$; η | an edge between two phases; where the sampler goes instead, as a share of the edge's noise | chapter 15; new |
#
# ## 17.1 One clean sample is a noisy witness
#
# Toss a coin: $x_0$ is 1 or −1. Stand at the level $t$ with α = 0.6 and σ = 0.8, at $x_t=0.4$, and make a step to $r$ with
# α = 0.8 and σ = 0.6. Consistency training keeps the clean sample and its noise: $x_r=\alpha_rx_0+\sigma_r\varepsilon$ with
# $\varepsilon=(x_t-\alpha_tx_0)/\sigma_t$. So where you go depends on the coin that you do not see.
#
# | | chance, given $x_t$ | ε | $x_r$ |
# |---|---|---|---|
# | $x_0=1$ | 0.679 | −0.25 | 0.65 |
# | $x_0=-1$ | 0.321 | 1.25 | −0.05 |
# | their mean, $\bar x_0=0.358$ | | 0.231 | **0.425** |
# | their variance | | | 0.107 |
#
# The chances come from Bayes' rule. The two likelihoods are $e^{-0.2^2/1.28}$ and $e^{-1/1.28}$, and their ratio is $e^{0.75}$.
# The row of the mean is the DDIM step of a perfect teacher, because a perfect denoiser answers with the mean. On average the plain
# step is right. But the student sees 0.65 and −0.05 and has to find 0.425 by averaging over many updates.
#
# In the words of chapter 16, all consistency methods learn $f(x_t)\leftarrow\operatorname{sg}f(x_r)$ and differ in *whose* clean
# sample makes the step: the teacher's mean in distillation, one draw in consistency training. SCT has a third answer.
#
# ## 17.2 Ask all of them
#
# What you want is the mean of $x_0$ given $x_t$. Write it as two averages over clean samples, which do not know $x_t$:
#
# $$\mathbb E[x_0\mid x_t]=\frac{\mathbb E\big[p(x_t\mid x_0)\,x_0\big]}{\mathbb E\big[p(x_t\mid x_0)\big]}\approx\frac{\frac1n\sum_ip(x_t\mid x_0^{(i)})\,x_0^{(i)}}{\frac1n\sum_jp(x_t\mid x_0^{(j)})}. \label{eq:sct-ratio}$$
#
# Both averages carry a factor $1/n$, and both factors cancel. What stays is a softmax:
#
# $$\bar x_0=\sum_iw_i\,x_0^{(i)},\qquad w_i=\operatorname{softmax}_i\Big({-\frac{\lVert x_t-\alpha x_0^{(i)}\rVert^2}{2\sigma^2}}\Big),\qquad\bar\varepsilon=\frac{x_t-\alpha\bar x_0}{\sigma}. \label{eq:sct-mean}$$
#
# The step is $x_r=\alpha_r\bar x_0+\sigma_r\bar\varepsilon$. Nothing else changes in the loss. You could have written it in five
# lines:

# %%
# NBVAL_CHECK_OUTPUT
Level = namedtuple("Level", "alpha sigma")
t, r = Level(0.6, 0.8), Level(0.8, 0.6)


def weighted_mean(x_t, references, level):
    far = (x_t - level.alpha * references).square().flatten(1).sum(1)
    weights = torch.softmax(-far / (2 * level.sigma**2), 0)
    return torch.einsum("n,n...->...", weights, references)


coin = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
x_t = torch.tensor([0.4], dtype=torch.float64)
mean = weighted_mean(x_t, coin, t)
x_r = r.alpha * mean + r.sigma * (x_t - t.alpha * mean) / t.sigma
print(f"mean {mean.item():.3f}, next point {x_r.item():.3f}")

# %% [markdown]
# The pencil agrees. The library does the same for a whole batch. It multiplies out the square, so that the
# distances of all rows to all references are one matrix product, and leaves out $\lVert x_t\rVert^2$, which no weight sees. It
# computes in float64: near the clean end the exponents reach a hundred million.

# %%
# NBVAL_CHECK_OUTPUT
show(variance_reduced_target)
pictures = Draw(2).normal((8, 3, 4, 4), torch.float64)
noisy = t.alpha * pictures + t.sigma * Draw(3).normal(pictures)
plainly = torch.stack([weighted_mean(x, pictures, t) for x in noisy])
claim(
    "C17.1",
    "eight small pictures: the plain weighted mean − the library's (largest difference)",
    (variance_reduced_target(noisy, t, pictures).x0 - plainly).abs().max(),
    below=1e-9,
)

# %% [markdown]
# ## 17.3 The spare 1/n
#
# The lecture that this book follows has these same weights and *another* $1/n$ before the score. Try it with the coin. Its two references
# give the score $(\alpha\bar x_0-x_t)/\sigma^2=-0.289$. With the spare factor it would be −0.145, as if $x_t$ held only half of its noise.
# The reward of each step (chapter 16) is $n$ times too small, so every path moves $n$ times too slowly. With 64 references a step
# does next to nothing: it moves $y$ by 0.002 instead of 0.135.
#
# What does a student learn from that? On normal data of width $c$, the path obeys $dy/d\kappa=\kappa y/(c^2+\kappa^2)$ in
# $y=x/\alpha$. Divide the right side by $n$, and from the sampler's start at $t=T$ the same integral gives
#
# $$f(x_T)=\frac{x_T}{\alpha_T}\Big(\frac{c^2}{c^2+\kappa_T^2}\Big)^{1/2n}. \label{eq:sct-spare}$$
#
# For $n=1$ this is the true map. With $n=32$ the student hands back most of the noise. We check it with 160 steps of Heun's
# method, whose own error is far below one per cent.

# %%
# NBVAL_CHECK_OUTPUT
c, line = 0.5, exact(gaussian(0.0, 0.5), schedule)
kappa = lambda level: level.sigma / level.alpha


def width(n):
    """Of the samples of a perfect student whose scores are n times too small."""
    small = Denoiser(lambda x, t, cond: line(x, schedule.at(t, like=x)).eps / n, schedule, "eps")
    student = composed(small, levels(schedule, 160, "karras"), solvers.heun)
    return student(torch.ones(1, 1).double(), top).x0.item()


def formula(n):
    return (c**2 / (c**2 + kappa(top) ** 2)) ** (1 / (2 * n)) / top.alpha


claim(
    "C17.2",
    "the spare 1/n, n = 2 and 32: the samples' width over the formula's, less 1",
    max(abs(width(n) / formula(n) - 1) for n in (2, 32)),
    below=0.01,
)
claim("C17.3", "n = 32: the samples' width over the data's", width(32) / c, above=200)

# %% [markdown]
# ## 17.4 Why nothing is lost: your own sample must be among them
#
# A ratio of two averages is usually biased, even if both averages are not. Here it is not, for a reason that is worth knowing.
#
# Imagine that somebody drew $n$ clean samples, chose one of them at random, and noised it to $x_t$. You see the samples and
# $x_t$, but not which was chosen. How likely is it that it was number $i$? Before you look at $x_t$, all are equally likely. After
# you look, Bayes' rule gives exactly $w_i$. So $\bar x_0$ is not an approximation of anything:
#
# $$\bar x_0=\mathbb E\big[x_0\mid x_t,\,x_0^{(1)},\dots,x_0^{(n)}\big]. \label{eq:sct-tower}$$
#
# Take the mean over all that the other samples might have been, and you get $\mathbb E[x_0\mid x_t]$, **for every $n$**. And a
# conditional mean never varies more than the thing itself. (Statisticians know the two facts as the tower property and the
# Rao–Blackwell theorem.) For $n=1$ it is consistency training.
#
# The argument needs that the true $x_0$ is one of the references, once. Let us take the coin and go through every batch that
# could have been drawn, with its probability: no sampling, no error bars.

# %%
posterior, prior = torch.softmax(0.75 * torch.tensor([1.0, 0.0]).double(), 0), [0.5, 0.5]


def over_batches(n, first=posterior, twice=False):
    """Mean and variance of the weighted mean over all batches; the first coin has made x_t."""
    total = torch.zeros(2).double()
    for batch in product((0, 1), repeat=n):
        chance = first[batch[0]] * 0.5 ** (n - 1)
        found = weighted_mean(x_t, coin[[batch[0]] * twice + list(batch)], t).item()
        total += chance * torch.tensor([found, found**2], dtype=torch.float64)
    return total[0].item(), (total[1] - total[0] ** 2).item()


# %%
# NBVAL_CHECK_OUTPUT
truth = (posterior @ coin).item()
bias = lambda n, **how: over_batches(n, **how)[0] - truth
variances = [over_batches(n)[1] for n in range(1, 9)]
claim(
    "C17.4",
    "with its own sample: the largest bias for n = 1 … 8",
    max(abs(bias(n)) for n in range(1, 9)),
    below=1e-12,
)
claim(
    "C17.5",
    "the variance with n = 2 … 8 over that with n − 1 (the largest)",
    max(b / a for a, b in zip(variances, variances[1:])),
    below=1,
)
claim("C17.6", "without it, n = 2: the bias", bias(2, first=prior), between=(-0.19, -0.17))
claim("C17.7", "with it twice, n = 2: the bias", bias(2, twice=True), between=(0.034, 0.037))

# %% [markdown]
# Without its own sample the mean is pulled to the mean of all coins, which is 0 (for $n=2$ halfway). More references help only in
# proportion to $1/n$. With its own sample *twice*, as happens when a memory holds a picture that comes again, the bias is
# smaller, but it is there for every $n$ from 2 on. (By hand for $n=2$: if the other coin differs, the weights are 2 to 1 in favour of the own
# one, times $e^{\pm0.75}$. The four cases give 0.394 instead of 0.358.)
#
# Where is the bias worst, for $n=2$? Take α = 1 and the root mean square over $x_t$: it
# is below 0.0001 at σ = 0.2, 0.011 at 0.5, 0.032 at 2 and 0.011 again at 10. At low noise the own sample has nearly all the weight
# already, and at high noise it is 1 nearly as often as −1, so doubling favours neither.
#
# ## 17.5 How much it helps, and where it cannot
#
# On GMM5 the true mean is a formula, so we can measure how far $\bar x_0$ is from it. Each point below is a mean over 64 draws of
# the other references. As soon as a few references are near, $\bar x_0$ is an average of independent draws, whose error falls like $1/n$. We ask for a slope of 1 within 0.15.

# %%
# NBVAL_CHECK_OUTPUT
counts, x_0 = (1, 4, 16, 64, 256, 1024), mixture.sample(100, Draw(4))[0]


def error(n, level):
    """Mean square distance to the perfect denoiser's answer: the own sample and n − 1 others."""
    x = level.alpha * x_0 + level.sigma * Draw(5).normal(x_0)
    goal, alone, total = exact(mixture, schedule)(x, level).x0, torch.eye(len(x)).bool(), 0.0
    for seed in range(64):
        others = mixture.sample(n, Draw(100 + seed))[0][1:]
        who = torch.cat([alone, torch.ones(len(x), n - 1).bool()], 1)
        found = variance_reduced_target(x, level, torch.cat([x_0, others]), who).x0
        total += (found - goal).square().sum(1).mean().item() / 64
    return total


errors = {
    k: {n: error(n, schedule.at_lam(-math.log(k))) for n in counts} for k in (0.2, 1.0, 5.0)
}
late = {n: errors[1.0][n] for n in (16, 64, 256, 1024)}
claim("C17.8", "κ = 1: the order in n", metrics.order(late), between=(0.85, 1.15))
claim(
    "C17.9",
    "κ = 1: the error with 64 over that with one",
    errors[1.0][64] / errors[1.0][1],
    below=0.1,
)

# %% tags=["fold"]
figure(
    plot.curves(
        {f"κ = {k:g}": (counts, list(line.values())) for k, line in errors.items()},
        xlabel="references $n$",
        ylabel="mean square error of $\\bar x_0$",
        log="xy",
    ),
    "The error falls like 1/n from the first reference on at high noise; at κ = 0.2 it falls "
    "slowly until there are some fifty references.",
)

# %% [markdown]
# At low noise only near neighbours count, and there are few. The number that really counts is the **effective number of
# references**, $n_{\text{eff}}=1/\sum w_i^2$. Between two typical points of $d$ coordinates with standard deviation ½ the squared
# distance is $d/2$. So a stranger's weight is smaller than your own by the factor $e^{-d/4\kappa^2}$. With 64 strangers the weights
# collapse to one when that is below 1/64, which is about $e^{-4}$, so where κ falls below $\sqrt d/4$. For a small colour picture
# with $d=3072$ that is κ = 14.

# %%
# NBVAL_CHECK_OUTPUT
kappas = torch.logspace(-1, 2, 13).tolist()


def effective(d, k):
    clean = Draw(6).normal((64, d)) / 2
    return variance_reduced_target(clean + k * Draw(7).normal(clean), Level(1.0, k), clean).size


sizes = {d: [effective(d, k).mean().item() for k in kappas] for d in (2, 32, 512, 3072)}
figure(
    plot.curves(
        {f"d = {d}": (kappas, size) for d, size in sizes.items()},
        xlabel="noise κ",
        ylabel="effective number, of 64",
        log="x",
    ),
    "The effective number rises to 64; it passes half of that near κ = 0.5 in two dimensions, "
    "and only near κ = 31 in 3072.",
)
claim("C17.10", "d = 3072, κ = 1: the effective number", effective(3072, 1.0).mean(), below=1.01)
claim("C17.11", "d = 3072, κ = 80: the same", effective(3072, 80.0).mean(), above=32)

# %% [markdown]
# So SCT helps at high noise. Real pictures lie near surfaces of fewer dimensions than these normal ones, so it helps them
# somewhat earlier. And high noise is where help is needed: there a student must choose among all the data.
#
# ## 17.6 Healthy and sick curves
#
# In the library the loss has an argument `estimate`: where the step's clean sample comes from. `own` is the batch's own, and
# `reduced` finds its references in the batch's memo. The two students of the opening differ in this word. The third one below
# also uses `reduced`, with groups of eight references, and somebody left each row's own sample out. *Which of the three curves
# will fall, and which will look sick?*

# %%
show(weighed, reduced)
groups = among(1 + torch.arange(256) // 8)
others = groups & ~torch.eye(256).bool()
alone = trained(reduced, lambda step: data(step, others))

# %% tags=["fold"]
runs = {"one sample": plain, "256 references": stable, "8, own left out": alone}
figure(
    plot.curves(
        {name: plot.running_mean(loss, 40) for name, (_, loss) in runs.items()},
        xlabel="training step",
        ylabel="loss",
        log="y",
    ),
    "With 256 references the loss is some forty times lower than that of plain consistency "
    "training, which hardly moves; the run whose own samples were left out falls steadily.",
    "Means over 40 steps.",
)

# %%
# NBVAL_CHECK_OUTPUT
outside = lambda f: 1 - mixture.shares(f(x_T, top).x0.double()).sum().item()
claim(
    "C17.12",
    "share of samples in no mode: 256 references over one sample",
    outside(stable[0]) / outside(plain[0]),
    below=0.6,
)
narrow = alone[0](x_T, top).x0.std() / mixture.sample(4000, Draw(8))[0].std()
claim("C17.13", "own sample left out: the samples' spread over the data's", narrow, below=0.9)

# %% [markdown]
# **The loss compares nothing.** The healthy plain run hardly moves, because its loss is nearly all variance of the targets. The sick
# run falls as a good one should. Its student has shrunk the samples towards the middle. Look at samples and $n_{\text{eff}}$.
#
# `python -m bench stable_consistency` trains three seeds of each, for 1500 updates, and keeps
# the sliced Wasserstein distance between one-call samples and the ends of the exact paths. Its unit is the distance that two exact sets of 10 000 samples have; ± is two standard errors over the seeds.

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
# Read what the bench has kept
kept = json.loads((RESULTS / "stable_consistency.json").read_text())
rows = {row[0]: dict(zip(kept["columns"], row)) for row in kept["rows"]}
for name, row in rows.items():
    how_far = f"distance {row['distance']:5.2f} ± {row['±']:.2f}"
    print(f"{name:16s} {how_far}   in no mode {row['none']:.3f}")
one, many = rows["one sample"], rows["32 references"]
claim(
    "C17.14",
    "the distances of one sample and of 32 references, apart by so many of their two errors",
    (one["distance"] - many["distance"]) / math.hypot(one["±"], many["±"]),
    above=2,
)

# %% [markdown]
# The last row is the step of a perfect teacher, what infinitely many references would give. Thirty-two of them bring the student most
# of the way there. The rest of the distance all rows share: it is the
# length of the steps, and what the training has not reached.
#
# ## 17.7 References must share the condition
#
# A student that is told a class must learn $\mathbb E[x_0\mid x_t,\text{class}]$. The argument of 17.4 then needs references of that class.
# Take two overlapping classes and draw 2000 samples. Let the references of a row be all of them, or those of its class. With all of them you
# learn the unconditional answer, however many you take. In the library `marks` gives equal conditions equal numbers, and `among`
# compares them. (An empty condition, from dropped captions, stands for all the data, so such a row has all references.)

# %%
# NBVAL_CHECK_OUTPUT
two, level = labelled(), schedule.at_lam(0.0)
x_0, label = two.sample(2000, Draw(9))
x = level.alpha * x_0 + level.sigma * Draw(10).normal(x_0)
goal, free = (two.posterior_means(x, level, which)[0] for which in (label, None))
mixed = variance_reduced_target(x, level, x_0).x0
classed = variance_reduced_target(x, level, x_0, among(marks(label))).x0
claim(
    "C17.15",
    "all references: the error over the distance of the two exact answers",
    metrics.rms(mixed, goal) / metrics.rms(free, goal),
    between=(0.9, 1.1),
)
claim(
    "C17.16",
    "references of the class: the same",
    metrics.rms(classed, goal) / metrics.rms(free, goal),
    below=0.1,
)
lonely = variance_reduced_target(x[:64].float(), level, x_0[:64].float(), torch.eye(64).bool())
claim(
    "C17.17",
    "every condition occurs once: x̄₀ is the own sample bit for bit",
    torch.equal(lonely.x0, x_0[:64].float()),
    between=(1, 1),
)

# %% [markdown]
# **Unique captions mean $n=1$, and that is plain consistency training.** SCT needs classes, repeated captions, or no condition.
# With many classes and small batches a *memory bank* keeps the last $m$ samples of each class. Ours, `Bank`, is a value: `add`
# returns a new one. Ask it before you add the batch, and take care that a picture which comes again has left it. Below, batches of two classes
# have gone through one. It must hold the last 400 samples of each. With 400 references, not about 1000, we allow √2.5 times C17.16's bound.

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
# A bank of two classes: what it hands to a row, and how near that comes
bank, asked_for = Bank.empty(2, 400, x_0), slice(1600, None)  # the rest has gone through it
for some in torch.arange(1600).split(100):
    bank = bank.add(x_0[some], label[some])
held, which = bank.x0.flatten(0, 1), label[asked_for]
last = [x_0[:1600][label[:1600] == kind][-400:] for kind in (0, 1)]
handed, as_set = bank.shared(which), lambda rows: set(map(tuple, rows.tolist()))
odd = [len(as_set(held[row]) ^ as_set(last[kind])) for row, kind in zip(handed, which)]
claim(
    "C17.32",
    "two classes in a bank: samples of the other, too old or missing, the most of a row",
    max(odd),
    between=(0, 0),
)
both = torch.cat([torch.eye(400).bool(), handed], 1), torch.cat([x_0[asked_for], held])
banked = variance_reduced_target(x[asked_for], level, both[1], both[0]).x0
claim(
    "C17.33",
    "the bank's and the own sample: the error, as in C17.16",
    metrics.rms(banked, goal[asked_for]) / metrics.rms(free[asked_for], goal[asked_for]),
    below=0.16,
)

# %% [markdown]
# ## 17.8 A smoother schedule, and skipped edges
#
# SCT's authors change two more things. Easy consistency tuning [@geng2024ect] divides the length of its steps by $q$ at each
# stage. Each stage starts with a jolt: the targets move nearer, but what the network knows there is still the old. SCT shrinks the
# steps *gradually*. In `ect_end` the stage may be any real number, and `smooth_stage` lets it grow at every update.
# (The rule is ours. It passes through the stages of the original.)

# %%
# NBVAL_CHECK_OUTPUT
five = torch.tensor(5.0).double()
length = lambda stage: [5 - ect_end(five, stage(k, 100)).item() for k in range(801)]
stairs, smooth = length(ect_stage), length(smooth_stage)
claim(
    "C17.18",
    "ECT's stairs: the largest shrinking in one update",
    max(a / b for a, b in zip(stairs, stairs[1:])),
    between=(1.999, 2.001),
)
claim(
    "C17.19",
    "smooth: the same, over q to the 1/100, less 1",
    abs(max(a / b for a, b in zip(smooth, smooth[1:])) / 2**0.01 - 1),
    below=1e-6,
)

# %%
# NBVAL_CHECK_OUTPUT
# The recipe's whole loss by hand, on eight rows: two classes, and two rows without a caption.
law, x_0 = edm(), Draw(6).normal((8, 3), torch.float64)  # α = 1, so κ = σ
kinds, delta = torch.tensor([0, 0, 0, 1, 1, 1, -1, -1]), 0.1
student = lambda x, kappa: torch.sin(x) / (1 + kappa)
average = lambda x, kappa: torch.cos(x) / (1 + kappa)


def plain_sct(draw, stage):
    kappas = (0.5 + 1.6 * draw.normal((8,)).double()).exp()
    noise, total = draw.normal(x_0), 0.0
    for mine, kind, kappa, eps in zip(x_0, kinds, kappas, noise):
        lower = kappa * (1 - 2 ** -(stage + 1) * (1 + 8 / (1 + kappa.exp())))
        x, near = mine + kappa * eps, x_0 if kind < 0 else x_0[kinds == kind]
        mean = weighted_mean(x, near, Level(1.0, kappa))
        eps_bar = (x - mean) / kappa
        target = average(mean + lower * eps_bar, lower) if lower > 0 else mean
        gap = (student(x, kappa) - target).norm()
        total += ((gap**2 + delta**2).sqrt() - delta) / (kappa - lower.clamp(min=0))
    return total / len(x_0)


says = lambda f: Denoiser(lambda x, t, cond: f(x, law.at(t, like=x).sigma), law, "x0")
roles = {"student": says(student), "target": says(average)}
recipe = recipes.sct(law, -1, every=100, mean=0.5, std=1.6, huber_c=delta)
batch = Batch(x_0, kinds, step=50, memo={})
memo = recipe.before(roles, batch, Draw(7))
batch.memo.update(recipe.pool([memo], lambda rows: (rows, slice(0, len(rows))))[0])
found = recipe.phases[0].loss(roles, batch, Draw(7)).value
gap = abs(plain_sct(Draw(7), 0.5) / found - 1)
claim("C17.31", "SCT's whole loss, plain over library, less 1", gap, below=1e-9)

# %% [markdown]
# The other concerns several calls, with phases as in chapter 15. Just above an edge $s$ a phase's map is nearly the identity. Just
# below, the next phase must jump far. A network that is smooth in time cannot make that turn, and a sampler that stops at $s$ asks
# it exactly there. So SCT starts the next phase a little lower, and we do so at η times the edge's noise. (We could not check the paper's own formula.)
# The recipe's `eta` moves the sampler's stop. The training does not change.
#
# Take a network that knows both phases of $\mathcal N(0,\tfrac14)$, with an edge at $\kappa=1$, but blurs its answers over a tenth of $\ln\kappa$. With
# $c=\tfrac12$, just above the edge $\bar x_0/x$ is $c^2/(c^2+1)=.2$, just below $c/\sqrt{c^2+1}=.447$. At the edge itself the network says about .33, so two calls keep about $.33/.447=.74$ of the
# spread. Stop a fifth lower, and the second call is asked where the blur hardly reaches. What is lost now has another cause: the first jump
# was made to end at the edge, and below it leaves the flow's path.

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
c, line, one = 0.5, edm(), torch.tensor(1.0).double()
away = lambda kappa: (c**2 + kappa**2).sqrt()


def knows(kappa):  # x̄₀/x of a phase that ends at κ = 1, or at the data
    first = (away(one) / away(kappa) - 1 / kappa) / (1 - 1 / kappa)
    return torch.where(kappa > 1, first, c / away(kappa))


def blurred(x, time, cond):
    z = torch.linspace(-4, 4, 401, dtype=torch.float64)
    kappa = (line.at(time, like=x).sigma.log()[..., None] + 0.1 * z).exp()
    return x * (torch.softmax(-z.square() / 2, 0) * knows(kappa)).sum(-1)


def left(eta):  # of the spread, after two calls
    net, x = Denoiser(blurred, line, "x0"), away(torch.tensor([[line.at(1.0).sigma]]).double())
    walk = [*line.levels([1.0, skipped(line, line.at_lam(0.0).t, eta)]), CLEAN]
    return solvers.sample(net, x, walk, solvers.ddim).item() / c


etas = [1 - k / 50 for k in range(31)]
figure(
    plot.curves(
        {"two calls": (etas, [left(eta) for eta in etas])}, xlabel="η", ylabel="spread kept"
    ),
    "The kept spread rises from .74 at η = 1 to .97 at .8 and falls slowly below.",
    "A network that cannot turn at the edge.",
)
claim("C17.27", "two calls, η = 1: spread kept", left(1.0), between=(0.71, 0.75))
claim("C17.28", "two calls, η = .8: spread kept", left(0.8), between=(0.96, 0.98))
claim(
    "C17.29",
    "what η = .5 loses over what η = .8 loses",
    (1 - left(0.5)) / (1 - left(0.8)),
    above=3,
)

# %% [markdown]
# So there is a best η, and it depends on how sharply a network can turn. *Whether trained students gain we have not reproduced* (exercise 4).
#
# ## 17.9 Rung 2: digits and captioned shapes
#
# Digits have ten classes, so in a batch of 128 each picture has about a dozen of its kind. We tune the book's trained digits
# network with the recipe. Before tuning, one call returns the mean of a class. We ask that 250 updates remove at
# least a tenth of its Fréchet distance, less what other real pictures have.

# %%
# NBVAL_CHECK_OUTPUT
show(recipes.sct)
writer, judge = digits_teacher(), digits_classifier()
recipe = recipes.sct(writer.schedule, -1, every=50, stages=4.0, huber_c=0.03)
tuned = distil(recipe, writer, writer, digit_batches(128, seed=0, drop=0), 250, 1e-3, 0.9)

_, (held_out, names) = digits_split()
calls = [model(Draw(0).normal(held_out), top, names).x0 for model in (writer, tuned)]
first = torch.stack([(names == k).nonzero()[0, 0] for k in range(10)])
figure(
    plot.pictures({"before": calls[0][first], "after SCT": calls[1][first]}),
    "Before tuning, one call writes ten soft mean digits; after it, they are crisper.",
    "One call each; the same noise in each column.",
)
before, after = (digits_frechet(x, judge) - digits_floor(judge)[0] for x in calls)
claim(
    "C17.20", "digits, one call: the Fréchet distance over that before", after / before, below=0.9
)

# %% [markdown]
# And the captioned shapes? There are 36 captions of single things (twelve kinds, each with no size, small or large), and thousands of captions of two. We count
# who has company in a batch of 64 captions. Then we tune the shapes' network for 80 updates. As chapter 14 did with LCM, we ask
# for half of the Fréchet distance before, less what other real pictures have.

# %%
# NBVAL_CHECK_OUTPUT
caption = shape_batches(64, seed=0, drop=0)(0).cond
company = among(marks(caption)).sum(1)
pair = (caption != 0).sum(1) > 4  # "a large red circle" has four words
claim(
    "C17.21",
    "captions of two things: most rows that share one",
    company[pair].max(),
    between=(1, 1),
)
shared = company[~pair].double().mean()
claim("C17.22", "captions of one thing: rows that share one, on average", shared, above=1)

world, codes = shapes_teacher(), asked()
recipe = recipes.sct(world.schedule, NULL_TOKENS, every=25, stages=4.0, mean=0.5, huber_c=0.05)
painter = distil(recipe, world, world, shape_batches(32, seed=0), 80, lr=5e-4, decay=0.9)
text, grey = (
    tokens([say(tuple(code)) for code in codes.tolist()]),
    Draw(11).normal((512, 3, 16, 16)),
)
drawn = [model(grey, world.schedule.at(1.0), text).x0 for model in (world, painter)]
before, after = (shapes_frechet(x, codes) - shapes_floor(codes)[0] for x in drawn)
claim(
    "C17.23", "shapes, one call: the Fréchet distance over that before", after / before, below=0.5
)

# %% [markdown]
# Captions of two things are alone, so for them SCT is plain consistency training; only rows whose caption was dropped have the
# whole batch. At full scale captions are longer, and lonelier.
#
# ## 17.10 What should look wrong here: a memory that remembers too well
#
# You keep a bank of 64 samples of the class, from an epoch ago. Now the epoch begins again. Your $x_0$ is in the bank, and you add
# it as your own, as you have learnt to do. *Is the mean of your targets still right?* Predict the direction of the error, then run.
# (The data here are four numbers, so that the bank can hold them all.)

# %%
# NBVAL_CHECK_OUTPUT
class_data = torch.tensor([[-1.0], [-0.4], [0.5], [1.2]], dtype=torch.float64)
bank = Bank.empty(1, 4, class_data).add(class_data, torch.zeros(4, dtype=torch.int64))
held = bank.x0.flatten(0, 1)
chances = torch.softmax(-(x_t - t.alpha * held).square().sum(1) / (2 * t.sigma**2), 0)
own_class = bank.shared(torch.zeros(1, dtype=torch.int64))
once = variance_reduced_target(x_t[None], t, held, own_class).x0[0]
twice = chances @ torch.stack([weighted_mean(x_t, torch.cat([held, x[None]]), t) for x in held])
right = chances @ held
claim(
    "C17.24", "the bank alone, which holds x₀: the bias", (once - right).abs().item(), below=1e-9
)
claim(
    "C17.25", "the bank, and x₀ once more: the bias", (twice - right).item(), between=(0.02, 0.03)
)

# %% [markdown]
# The sample that is doubled is the one that has made $x_t$, and most often that is one that explains $x_t$ well. Its weight grows.
# So the targets lean towards what is likely anyway, and the student becomes too sure. Nothing in the loss tells you. If pictures come again, let the bank hold everything but the batch. Or, if their order never changes, make it
# shorter than an epoch; after a reshuffle, mask each row's own old copy.
#
# **With half a minute each** on GMM5, `python -m bench students` has trained consistency training on a ladder that grows from 10 to 61 points by chapter 16's $N(k)$, with one clean sample and
# with the mean of 32. In the same time the second sees half the batch and fewer updates. Both students are shipped, and scored here again by 17.6's distance. The better target should win. SCT's whole recipe also takes ECT's long
# steps, and at this budget both recipes stay far behind the ladder. (Over three seeds SCT's distance is 9 ± 2 and ECT's 7.5 ± .6: its whole recipe is not better here.)

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
one, many = (rescored(name)["d"] for name in ("CT", "CT, SCT's target"))
claim("C17.26", "the ladder: distance, 32 references over one", many / one, below=0.9)
recipes_d = {name: rescored(name, 300)["d"] for name in ("SCT", "ECT")}
claim(
    "C17.30",
    "SCT's and ECT's recipes: the smaller distance over CT's",
    min(recipes_d.values()) / one,
    above=1.5,
)

# %% [markdown]
# ## 17.11 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | SCT is no better than consistency training | each caption occurs once, so $n=1$ | classes, repeated captions, larger batches; the log's `references` |
# | samples still noisy after training | a spare $1/n$ | weights must sum to 1 |
# | samples too narrow, the loss healthy | the own $x_0$ is not among the references | put it in, once |
# | every class looks like the others | references of other classes | compare conditions, bit for bit |
# | infinities, or one-hot weights where 17.5 expects many | the exponents in half precision | float64, or log-sum-exp of centred squares |
# | jolts in the loss | the schedule jumps at each stage | `smooth_stage` |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | references | all rows of the step with the same condition (of a row's `group`, 32, in `ct_reduced`) | on the plane 32 bring most of what there is (17.6). The log's `references` is the mean $n_{\text{eff}}$ over all levels: where it stays near 1, you have plain consistency training. A row whose caption was dropped has the whole step, so look with `--drop 0`: else such rows lift the mean though all captions differ |
# | a bank | none, if a batch has several rows of each class. No recipe has one either: their references are rows of the step, while a bank would be one more thing for a resumed run to restore, and captions seldom repeat. `Bank` is for your own loop | many classes, small batches. Pictures that come again must have left it (17.10) |
# | stages, rate, batch | `sct.toml`: 8 stages of 5000 updates, halving the steps ($q=2$), 1e-5, 128; noise with a mean of ln κ of −.4 (the function's own is −1.1) | a start, not a result |
# | δ (`huber_c`) | chapter 16's $0.00054\sqrt D$, .069 for latents | rare things are missing: larger. (17.9 takes larger ones, .03 and .05, where the rule says .004 and .015.) |
# | ECT's stages, or CT's ladder | for pictures `sct`; on a toy in the plane CT's ladder with this target, `recipes.ct_reduced` with `points=(10, 60), growth=2000, spacing="arctan", sigma_data=1.0` and an average of decay .95 for the target | in half a minute on GMM5 the ladder's distance (17.6's) is 1.55, `sct`'s 9 ± 2. On pictures we have not measured the ladder with this target; to try it, `full_scale.train --method ct_reduced`, with `--roles.target.decay 0.95` |
# | phases | one; for several calls `--hyper.phases 4` | chapter 15. `full_scale.sample` then goes through the edges, unless you type `--steps` or `--grid` |
# | η, with phases | 1, plain phases, since no trained student was measured with less | `--hyper.eta` only tells the sampler where to stop, and is stored with the run. To compare .9 and .8 on one student and one noise, walk `skipped(schedule, edge, eta)` with `dlib`. The toy's network blurs over .1 in ln κ, and two blurs below the edge were best: $e^{-.2}=.8$ |
# | is it the target that helps? | change it alone: `estimate=own` for `reduced` | in 17.6, at equal updates, it does: a distance of 4.20 to 2.71. On the ladder of 17.10, in equal time, 3.44 to 1.55. Whole recipes, SCT to ECT, differ in their schedule too: Fréchet distances, over that of real pictures, of 3.45 ± .01 to 3.86 ± .06 on digits (CT has 2.9), a tie on shapes, and on GMM5 17.10's distance is 9 ± 2 to 7.5 ± .6 |
# | guidance | drop a tenth of the captions, as `sct.toml` does, and guide the student's calls | there is no teacher to guide (16.8) |
# | what it costs | no network call: two small matrix products for 128 rows and 128 references | beside the bench's tiny network on a CPU they count, so there it got fewer updates |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | on eight A100 `sct` needs 23 GB a card and 6.3 hours: counted, at an *assumed* 35 % of their peak |
#
# **The real runs.** To our knowledge SCT tunes EDM and EDM2 networks with the recipe of easy consistency tuning. Its abstract reports an FID of 2.42
# with one call and 1.55 with two on ImageNet-64 [@wang2024stable]; *not reproduced here*. Its learning
# rates we could not check. For the score itself the same mean is known as the stable target field [@xu2023stable].
#
# **What it cannot do.** Its mean step is that of consistency training, so the bias of long steps stays. And $f$ is not linear:
# an unbiased $\bar x_0$ makes an unbiased *step*, while the mean of $f(x_r)$ still depends on how $x_r$ scatters. Less scatter
# brings it nearer to a teacher's. With the whole training set as references, each step is that of a model that has learnt
# your pictures by heart. With fewer references single steps vary, but their mean over all batches is still that model's step. So SCT does
# not generalise by itself: the network must.
#
# **Where the toy stops being true.** In two dimensions 256 references are many. A latent has 16 384 values. If they were normal with deviation 1,
# their weights would collapse below κ = 64 (17.5), and Stable Diffusion's noisiest level has 14.6. So SCT gains there only as far as latents have few dimensions.
#
# | this chapter | full scale |
# |---|---|
# | `estimate=reduced` | the same function, in `recipes.sct` |
# | references: the batch | the rows of the *whole step*, over all micro-batches and processes: results do not depend on the cut |
# | `recipes.sct(schedule, null, …)` | `full_scale.run.settings` takes it from `dlib.recipes.METHODS["sct"]` |
# | sampling by one call | `full_scale.sample`: two calls of `lcm`; one by `--steps 1` |
#
# | how far up the ladder: rung 1 | rung 2 | rung 3 |
# |---|---|---|
# | exactly, and trained on the plane | digits, captioned shapes | `sct` trains in the engine on captioned shapes, in the tests; never yet on real weights |
#
# ```bash
# python -m full_scale.prepare --family shapes --tiny --source pictures/ --out data
# python -m full_scale.train sct --family shapes --tiny --data data --out runs/sct --device cpu
#
# torchrun --standalone --nproc_per_node 8 -m full_scale.train sct \
#     --weights weights/stable-diffusion-v1-5 --data data --out runs/sct
# ```
#
# ## 17.12 Exercises
#
# 1. *(pencil)* Two references, its own among them, and a fair coin, at any $x_t$. Show that the variance of $\bar x_0$ is exactly half
#     of the posterior's. Why half?
# 2. *(code)* Train the opening's student with groups of 4 and of 32 references. Which share of their samples lies outside the modes?
#     Check: both shares lie between those of the opening's two students, in the order of $n$.
# 3. *(code)* Easy consistency tuning measures its loss by the norm, whose best answer is a median. Take the coin at $x_t=0.4$. Which
#     number minimises the mean of $|f-\bar x_0|$ over all batches, for $n=1$ and for $n=12$? Check: the first is 1; the second is
#     0.358 within 0.01.
# 4. *(open)* Train two phases on GMM5 with `edges`, and sample with η = 1, 0.9 and 0.7. Is the turn at the edge what limits your
#     student? Measure the distance to the exact path's end, over three seeds.
#
# <details><summary>Answer to 1</summary>
#
# With probability ½ both coins are equal, and $\bar x_0$ is that coin, ±1 as likely as the posterior says. With probability ½ they differ,
# and $\bar x_0$ is the posterior's mean $m$ exactly. So the squared distance from $m$ is the posterior's variance half of the time, and 0
# otherwise.
#
# </details>
#
# <details><summary>Answer to 3</summary>
#
# For $n=1$ the values are 1 with probability 0.679 and −1 else, and the median is 1. For $n=12$ list the means of all batches with
# their probabilities, sort them, and take the first at which the sum passes ½. It belongs to the batches with six coins of each side,
# and there $\bar x_0$ is the posterior's mean. A median is a fair answer once the scatter is small.
#
# </details>
#
# ## References
#
# The method: [@wang2024stable]. The same target for the score: [@xu2023stable]. Easy consistency tuning: [@geng2024ect].
