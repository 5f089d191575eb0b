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
#     title: Progressive distillation
#     summary: Train a student to make two steps of its teacher in one. Make it the teacher, and do it again, until one step is left.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - DDIM, and λ (chapter 7; recapped in 11.1)
#       - weights of the denoising loss (chapter 3)
#       - PyTorch
# ---

# %% [markdown]
# # 11 Progressive distillation: halve the steps, again and again
#
# A diffusion model makes a good sample in 32 steps and a poor one in four. You want one step. The idea of this chapter is
# modest: never ask a network to learn 32 steps at once. Ask it to learn *two*. Then use what it has learnt, and ask again.
# Five rounds later one step is left.
#
# Here are four ways from the same noise. Only the first one makes 32 steps.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import copy
import math
import textwrap
from collections import namedtuple
from dataclasses import replace
from functools import partial
import torch
from dlib import NULL, Batch, Denoiser, Draw, Mixture, cosine, discrete, edm, exact, guided
from dlib import levels, metrics, plot, recipes, sample, scaled_linear, solvers, train
from dlib.losses import knowledge, progressive, weights
from dlib.losses.halving import halved, shares, two_step_target
from dlib.nets import MLP
from toy_data import digit_batches, digits_split, digits_teacher, distil, gmm5
from toy_data import shape_batches, shapes_teacher
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet
from toy_data.student_scores import rescored

schedule, mixture = cosine(), gmm5()
teacher = exact(mixture, schedule)  # the perfect network of these data
walks = {n: levels(schedule, n, "time", end="clean") for n in (1, 2, 4, 8, 16, 32)}
noise = Draw(99).normal((2000, 2))
fine = levels(schedule, 400, "time")
truth = sample(teacher, noise.double(), fine, solvers.dpm_solver_pp_2m)
off = lambda x: metrics.rms(x.detach().double(), truth)


def fresh():
    torch.manual_seed(0)
    return Denoiser(MLP(2, 96, 2), schedule, "v")


def data(step):
    return Batch(mixture.sample(256, Draw(step))[0].float())


def halve(teacher, steps, start, updates, weight=weights.truncated_snr):
    student = replace(start, net=copy.deepcopy(start.net).requires_grad_())
    loss = lambda batch, draw: progressive(
        student, teacher, batch, draw, levels=walks[2 * steps], weight=weight
    )
    history = train(student.net, loss, data, updates, lr=4e-3)
    student.net.requires_grad_(False)
    return student, history["net/loss"]


students = {32: teacher, 16: halve(teacher, 16, fresh(), 500)[0]}
for steps in (8, 4, 2, 1):
    students[steps] = halve(students[2 * steps], steps, students[2 * steps], 150)[0]


def two_rounds(weight):
    second, curve = halve(students[4], 2, fresh(), 300, weight)
    return {2: second, 1: halve(second, 1, second, 150, weight)[0]}, curve


unweighted, eps_curve = two_rounds(weights.eps)
even, snr_curve = two_rounds(weights.truncated_snr)  # nothing but the weight differs

one_step = {
    "teacher, 32 steps": sample(teacher, noise, walks[32]),
    "teacher, 1 step": sample(teacher, noise, walks[1]),
    "student, 1 step, ε-loss": sample(unweighted[1], noise, walks[1]),
    "student, 1 step": sample(even[1], noise, walks[1]),
}
figure(
    plot.endpoints(
        {name: x[:200] for name, x in one_step.items()},
        truth[:200],
        mixture.modes_of(truth[:200], within=9),
    ),
    "The teacher's 32 steps end where its paths end. Its one step puts every point at the mean. "
    "A student of the ε-loss leaves the points between the modes; the other reaches them.",
    "The same 200 points of noise. Grey: the distance to the end of the path.",
)

# %% [markdown]
# Both students learnt from the same four-step student, began as the same fresh network and made as many updates. Only their
# loss differs. One had the loss on the noise, which trained Stable Diffusion. In its last round this loss was zero, and it
# learnt nothing. You will see why, and what the right loss is.
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | α, σ, λ | a level's factors of data and noise; $\lambda=\log(\alpha/\sigma)$ | chapter 7 |
# | $z$ | a point on its way, at some level | chapter 7 (there $x_t$) |
# | $x_\theta(z)$ | a network's guess of the data | chapter 3 |
# | $x_0$, ε | the data; the noise, and $\varepsilon_\theta(z)$ its guess | chapter 3 |
# | $v$ | $\alpha\varepsilon-\sigma x_0$, for a network that must say both | chapter 3 |
# | $N$ | the student's number of steps; its teacher makes $2N$ | new |
# | $a\to b\to c$ | three levels: two steps of the teacher, noise first | new |
# | $\tilde x$ | the guess that would make both steps at once | new |
# | ρ | $\sigma_c/\sigma_a$ | new |
# | $w$ | the share of the teacher's second guess in $\tilde x$ | new |
# | SNR | $\alpha^2/\sigma^2$ | chapter 3 |
# | $w_{\text{loss}}(t)$ | the weight of a level in the loss | chapter 3 |
#
# ## 11.1 The naive way: learn the end of the walk
#
# DDIM takes a guess of the data, works out which noise would explain the point, and puts both together at the next level:
#
# $$z_b=\alpha_b\,x_\theta+\sigma_b\,\varepsilon_\theta,\qquad \varepsilon_\theta=(z_a-\alpha_ax_\theta)/\sigma_a. \label{eq:pd-ddim}$$
#
# There is no randomness in it. So the walk from noise to data is a function, and a function can be learnt. Take many points
# of noise, walk each to its end, and train a network on the pairs [@luhman2021knowledge]. That is **knowledge
# distillation**. Its loss is the squared distance to the end, a mean over coordinates and pairs, for a student that sees
# the noise at $t=1$. In plain PyTorch, for a network that says $x_0$:

# %%
# NBVAL_CHECK_OUTPUT
show(knowledge)


def plain_knowledge(net, noise, ends, top):
    z = (top.alpha**2 + top.sigma**2) ** 0.5 * noise  # on our schedule: the noise
    return (net(z, torch.full((len(z),), top.t), None) - ends).square().mean()


w = torch.tensor([0.7, 1.0, 1.3]).double().requires_grad_()  # to take gradients by
net, gaps = lambda z, t, cond: w * torch.sin(z + t[:, None]), []
ends, eps = (Draw(seed).normal((32, 3), torch.float64) for seed in (1, 2))
for known in (schedule, edm()):
    plain = plain_knowledge(net, eps, ends, known.at(1.0))
    said = Denoiser(net, known, "x0")
    library = knowledge(said, Batch(ends, noise=eps), Draw(0)).value
    by_hand, found = (torch.autograd.grad(loss, w)[0] for loss in (plain, library))
    gaps += [abs(plain / library - 1), (by_hand - found).norm() / found.norm()]
claim("C11.27", "pairs, loss and gradient: plain less library, relative", max(gaps), below=1e-9)

# %% [markdown]
# The walk must be deterministic. What if you make the pairs with DDPM's sampler, which draws new noise at every step? Then
# one start has many ends, and a squared loss teaches their *mean*. We train a student on each kind of pairs.


# %%
def learn_pairs(solver):
    start = Draw(5).normal((5000, 2))
    ends = sample(teacher, start, walks[32], solver, draw=Draw(6))
    student = fresh()

    def pairs(step):
        rows = Draw(step).integers(len(start), 256)
        return Batch(ends[rows], noise=start[rows])

    loss = lambda batch, draw: knowledge(student, batch, draw)
    return student, train(student.net, loss, pairs, 300, lr=4e-3)["net/loss"], ends


kept, healthy, _ = learn_pairs(solvers.ddim)
blurred, sick, ends = learn_pairs(solvers.ancestral)

# %% tags=["fold"]
figure(
    plot.curves(
        {"pairs of DDIM": plot.running_mean(healthy), "pairs of DDPM": plot.running_mean(sick)},
        {"variance of the data": ends.var(0).mean()},
        xlabel="update",
        ylabel="loss",
        log="y",
    ),
    "With DDIM's pairs the loss falls below a hundredth of the data's variance; with DDPM's it "
    "stays at the variance.",
    "Knowledge distillation, 5000 pairs each. Means over 20 updates.",
)
# %% [markdown]
# Our schedule has α = 0 at the start. The first noisy step forgets where it came from, so with DDPM the mean is the same for
# every start. Its loss should stop at the variance of the data, and we allow a tenth. From DDIM's pairs the student should
# come at least four times nearer to the true ends than one DDIM step does.

# %%
# NBVAL_CHECK_OUTPUT
stays = sum(sick[-100:]) / 100 / ends.var(0).mean()
claim("C11.1", "DDPM's pairs: the last losses over the variance", stays, between=(0.9, 1.1))
gains = off(sample(kept, noise, walks[1])) / off(one_step["teacher, 1 step"])
claim("C11.2", "DDIM's pairs: the student's distance over one DDIM step's", gains, below=0.25)

# %% [markdown]
# With DDIM's pairs it works very well in two dimensions. So why not stop here? First, each pair costs a
# whole walk. Luhman and Luhman made and stored about a million of them before the first update. Second, the student must
# learn at once a function that sends neighbouring points of noise to different modes. At the border between two modes this
# function is very steep: it draws neighbouring points of noise apart about a hundredfold. A small network that minimises a
# squared loss is less steep, so it sends a wider strip of noise to places between the modes. (C11.21 shows the trace.) And you get one step or nothing. What you want is a student that learns something easier, from targets that cost two calls, and useful students of
# eight and four steps on the way.
#
# ## 11.2 Two steps in one
#
# Take three levels: pure noise $a$ with (α, σ) = (0, 1), then $b$ = (0.6, 0.8), then $c$ = (0.8, 0.6). Let the data be
# $\mathcal N(1,1)$. The perfect guess at a point $z$ is then $1+\alpha(z-\alpha)$. Start at $z=1$ and take two steps with
# a pencil:
#
# | | guess of the data | guess of the noise | next point |
# |---|---|---|---|
# | at $a$, $z$ = 1 | 1 | 1 | 0.6 · 1 + 0.8 · 1 = 1.4 |
# | at $b$, $z$ = 1.4 | 1 + 0.6 · 0.8 = 1.48 | (1.4 − 0.6 · 1.48)/0.8 = 0.64 | 0.8 · 1.48 + 0.6 · 0.64 = 1.568 |
#
# Which guess at $a$ would have reached 1.568 in *one* step? Its noise is 1 again, because $a$ is all noise. So
# $0.8\,\tilde x+0.6=1.568$, and $\tilde x$ = **1.21**. In general, solve \eqref{eq:pd-ddim} from $a$ to $c$ for the guess
# [@salimans2022progressive]:
#
# $$\tilde x=\frac{z_c-\rho\,z_a}{\alpha_c-\rho\,\alpha_a},\qquad \rho=\frac{\sigma_c}{\sigma_a}. \label{eq:pd-target}$$
#
# This $\tilde x$ is what the student should say at $a$. You might write it so:

# %%
# NBVAL_CHECK_OUTPUT
Level = namedtuple("Level", "alpha sigma")


def ddim(x_0, z, a, b):
    eps = (z - a.alpha * x_0) / a.sigma
    return b.alpha * x_0 + b.sigma * eps


def target(guess, z, a, b, c):
    middle = ddim(guess(z, a), z, a, b)
    end = ddim(guess(middle, b), middle, b, c)
    rho = c.sigma / a.sigma
    return (end - rho * z) / (c.alpha - rho * a.alpha)


pencil = Level(0.0, 1.0), Level(0.6, 0.8), Level(0.8, 0.6)
print(f"{target(lambda z, level: 1 + level.alpha * (z - level.alpha), 1.0, *pencil):.2f}")

# %% [markdown]
# The target, 1.21, lies between the guesses, 1 and 1.48. That is no accident. Put both steps into \eqref{eq:pd-target}, and the algebra leaves a mean:
#
# $$\tilde x=(1-w)\,x_\theta(z_a)+w\,x_\theta(z_b),\qquad w=\frac{1-e^{\lambda_b-\lambda_c}}{1-e^{\lambda_a-\lambda_c}}. \label{eq:pd-mean}$$
#
# <details><summary>The algebra</summary>
#
# Write \eqref{eq:pd-ddim} without the noise: $z_b=\frac{\sigma_b}{\sigma_a}z_a+\alpha_b(1-e^{\lambda_a-\lambda_b})\,x_\theta(z_a)$.
# The step from $b$ to $c$ has the same form. Insert the first into the second. The terms with $z_a$ add up to
# $\rho z_a$, which the numerator takes away. The first guess keeps the factor
# $\frac{\sigma_c}{\sigma_b}\alpha_b(1-e^{\lambda_a-\lambda_b})=\alpha_c(e^{\lambda_b-\lambda_c}-e^{\lambda_a-\lambda_c})$, the
# second $\alpha_c(1-e^{\lambda_b-\lambda_c})$. The denominator is $\alpha_c(1-e^{\lambda_a-\lambda_c})$, which is their sum. So
# the weights add up to one.
#
# </details>
#
# In our example $e^{\lambda_b-\lambda_c}$ is 0.75/1.333 = 0.5625 and $e^{\lambda_a-\lambda_c}$ is 0. So the second guess
# has the share 0.4375, and 0.5625 · 1 + 0.4375 · 1.48 = 1.21. The formula says what a student really learns: *a mean of
# what the teacher says now and what it will say at the middle level*. In the last step to σ = 0 the share is 1. When steps are short,
# \eqref{eq:pd-target} divides the difference of two nearly equal points by a number near zero, and their rounding grows.
# In \eqref{eq:pd-mean} only the share is such a quotient, of two plain numbers that `expm1` knows to the last digit. The
# library computes it in this form.

# %%
# NBVAL_CHECK_OUTPUT
show(two_step_target, shares)
guess = lambda z, level: teacher(z, level).x0
mean, paper, landed = [], [], []
for k, (a, b, c) in enumerate(zip(*(walks[32][i:][::2] for i in range(3)))):
    z = noise.double()
    mean.append(two_step_target(teacher, z, a, b, shares(walks[32])[k]))
    paper.append(target(guess, z, a, b, c))
    two = sample(teacher, z, [a, b, c])
    landed.append(ddim(mean[-1], z, a, c) - two)
claim(
    "C11.3",
    "one step with x̃ − two steps, 16 places (largest difference)",
    torch.stack(landed).abs().max(),
    below=1e-10,
)
claim(
    "C11.4",
    "plain x̃ − the library's mean (largest difference)",
    (torch.stack(mean) - torch.stack(paper)).abs().max(),
    below=1e-10,
)

# %% [markdown]
# ## 11.3 What the perfect student is
#
# A denoising loss has a floor, because nobody can know the noise. This loss has none. The target is a *function* of
# $z_a$: the teacher computes it. A student that has learnt the function makes no error at all, and its walk of $N$ steps
# ends exactly where the teacher's $2N$ steps end. The library's `halved` is this student. It asks the teacher twice, so
# five of them, one inside the other, are 32 steps in one call. (It saves nothing: inside are 32 calls of the first teacher.)
#
# For Gaussian data you can *train* the perfect student with least squares. The first guess is a straight line in $z_a$, so $z_b$ is
# one too. The second guess is a straight line in $z_b$, hence in $z_a$, and so is the mean of both. Least squares finds a straight line exactly. Here is that student, a line for each
# of its levels.


# %%
def straight_lines(teacher, walk):
    lines, x = {}, Draw(1).normal((100, 2), torch.float64)
    ones = torch.ones(100, 1, dtype=torch.float64)
    for a, b, w in zip(walk[:-2:2], walk[1:-1:2], shares(walk)):
        aim = two_step_target(teacher, x, a, b, w)
        lines[a.t] = torch.linalg.lstsq(torch.cat([ones, x], 1), aim).solution
    net = lambda z, t, cond: lines[t[0].item()][0] + z @ lines[t[0].item()][1:]
    return Denoiser(net, schedule, "x0")


# %% [markdown]
# Take six rounds with it, from 64 steps to one. In each we compare the student's $N$ steps with its teacher's $2N$, and
# expect nothing but rounding. Perfect students should do as well on GMM5. Straight lines cannot. But they should fail in one
# round only: after the first round the teacher is itself made of straight lines, and its student loses nothing.


# %%
# NBVAL_CHECK_OUTPUT
def rounds_off(model, student_of, steps=64, z=noise.double()):
    walk, gaps = levels(schedule, steps, "time", end="clean"), []
    while len(walk) > 2:
        student = student_of(model, walk)
        gaps.append((sample(student, z, walk[::2]) - sample(model, z, walk)).abs().max())
        model, walk = student, walk[::2]
    return gaps


blob = Mixture(torch.ones(1), torch.tensor([[1.0, 0.5]]), torch.tensor([0.5]))
one_blob = max(rounds_off(exact(blob, schedule), straight_lines))
claim("C11.5", "a Gaussian: N steps − 2N steps, the worst of six rounds", one_blob, below=1e-10)
nested = max(rounds_off(teacher, halved, steps=32, z=noise[:200].double()))
claim("C11.6", "GMM5: the same for perfect students, five rounds", nested, below=1e-10)
failed = sum(gap > 1e-6 for gap in rounds_off(teacher, straight_lines))
claim("C11.7", "GMM5: rounds of six that straight lines fail", failed, between=(1, 1))

# %% [markdown]
# So progressive distillation loses nothing *by design*. It loses what the network cannot express, and what you did not
# train long enough. And it has nothing better than its first teacher to learn from: at best the last student of all is 32
# DDIM steps, with their own error.
#
# ## 11.4 The weight decides what a one-step student learns
#
# The student minimises the squared distance of its guess to $\tilde x$, with a weight that depends on the level:
#
# $$\mathcal L=\mathbb E\;w_{\text{loss}}(t)\,\lVert x_\theta(z_a)-\tilde x\rVert^2. \label{eq:pd-loss}$$
#
# Each usual loss is one of these weights. At a given point, a guess of the data that is wrong by $\Delta$ makes the guess of
# the noise wrong by $-\alpha\Delta/\sigma$. So the loss on ε weighs the data's error by $\alpha^2/\sigma^2$, the SNR. It makes
# $v$ wrong by $-\Delta/\sigma$ when $\alpha^2+\sigma^2=1$, so the loss on $v$ weighs it by SNR + 1. (Both are in
# [chapter 3](03_markov_view.ipynb).)
#
# | loss on | weight of the data's error | at $a$ = (0, 1) | at (0.6, 0.8) |
# |---|---|---|---|
# | ε | SNR | **0** | 0.56 |
# | $x_0$ | 1 | 1 | 1 |
# | $v$ | SNR + 1 | 1 | 1.56 |
# | the larger of ε's and $x_0$'s (the paper on CIFAR-10) | max(SNR, 1) | 1 | 1 |
#
# For a diffusion model the zero hardly matters: it is one level of a thousand. A one-step student lives there. *All* of
# its training happens at $a$, and the ε-loss multiplies all of it by zero. A two-step student has the same zero in one of its
# two steps, and the other step then starts from a wrong place.
#
# This is the whole loss in plain PyTorch, a point at a time, beside the library's. The paper draws the step $i$ uniformly,
# and so does the library. It then draws the noise.


# %%
# NBVAL_CHECK_OUTPUT
def plain_loss(student, guess, x_0, steps, eps, walk):
    total = 0.0
    for x, i, e in zip(x_0, steps, eps):
        a, b, c = walk[2 * i : 2 * i + 3]
        z = (a.alpha * x + a.sigma * e)[None]
        error = student(z, a).x0 - target(guess, z, a, b, c)
        total = total + max(a.alpha**2 / a.sigma**2, 1.0) * error.square().mean()
    return total / len(x_0)


show(progressive)
batch, draw = Batch(data(0).x0.double()), Draw(7)
steps, eps = draw.integers(4, 256), draw.normal(batch.x0)
other = exact(blob, schedule)  # a student with much to learn
plain = plain_loss(other, guess, batch.x0, steps.tolist(), eps, walks[8])
library = progressive(other, teacher, batch, Draw(7), levels=walks[8]).value
claim("C11.8", "plain loss over the library's, less 1", abs(plain / library - 1), below=1e-9)

# %% [markdown]
# And these are the losses of the first figure's two students, when they learnt two steps from four. One will fail.

# %% tags=["fold"]
figure(
    plot.curves(
        {"ε-loss": plot.running_mean(eps_curve), "max(SNR, 1)": plot.running_mean(snr_curve)},
        xlabel="update",
        ylabel="loss, each with its own weight",
        log="y",
    ),
    "Both losses fall by about two orders of magnitude, and the ε-loss is the lower one.",
    "The same fresh network and the same teacher. Means over 20 updates.",
)

# %% [markdown]
# Now look at the last round, from two steps to one, and at the largest gradient that any weight of the network gets. By the
# table it is zero for the ε-loss, and with max(SNR, 1) that of the weight 1. Then take the samples of both. We say that the ε-loss failed if its samples are more than
# twice as far from the ends of the paths as those of the other student.
#
# A *network* of ε says nothing about the data where α = 0, and `progressive` refuses it. On Stable Diffusion's levels it may be
# trained. But at the first max(SNR, 1) is 1, so ε-errors count 1/SNR = 214 times.


# %%
# NBVAL_CHECK_OUTPUT
def largest_gradient(weight):
    student = replace(students[2], net=copy.deepcopy(students[2].net).requires_grad_())
    how = dict(levels=walks[2], weight=weight)
    progressive(student, students[2], data(0), Draw(0), **how).value.backward()
    return max(p.grad.abs().max() for p in student.net.parameters())


claim(
    "C11.9",
    "one step: largest gradient of the ε-loss",
    largest_gradient(weights.eps),
    below=1e-12,
)
paper = largest_gradient(weights.truncated_snr) / largest_gradient(weights.x0)
claim("C11.10", "one step: the same, max(SNR, 1) over weight 1", paper, between=(0.999, 1.001))
far = {n: off(sample(unweighted[n], noise, walks[n])) for n in (2, 1)}
other = {n: off(sample(even[n], noise, walks[n])) for n in (2, 1)}
claim("C11.11", "two steps: distance, ε-loss over max(SNR, 1)", far[2] / other[2], above=2)
claim("C11.12", "one step: the same", far[1] / other[1], above=2)
try:
    progressive(replace(fresh(), predicts="eps"), teacher, data(0), Draw(0), levels=walks[2])
except ValueError as error:
    print(textwrap.fill(str(error), 80))
ladder = discrete(scaled_linear())  # Stable Diffusion's
known, walk = exact(mixture, ladder), levels(ladder, 2, "sd_trailing", end="clean")
a, right, x_0 = walk[0], halved(known, walk), Batch(data(0).x0.double())
net = lambda z, t, cond: (z - a.alpha * right.net(z, t, cond)) / a.sigma + 0.01
loss = progressive(Denoiser(net, ladder, "eps"), known, x_0, Draw(0), levels=walk).value
claim("C11.26", "one step, ε-network: loss over its error²", loss / 0.01**2, between=(213, 214))

# %% [markdown]
# The curves did not warn you. The failing student's loss is even the lower one, in the last round zero.
# **A distillation loss tells you how well the student does where the loss looks.** So always sample, and compare with the
# teacher from the same noise.
#
# ## 11.5 The budget of five rounds
#
# Every student inherits the errors of all its forerunners and adds its own. From the same noise you can measure each
# contribution: the **gap** of a round is the distance between the student's $N$ steps and its own teacher's $2N$. Distances
# obey the triangle inequality, so the last student's error is at most the sum of all gaps and of the first teacher's error.
# If these errors point in unrelated directions, their *squares* add up, and you expect the root of that sum.

# %%
ends = {n: sample(students[n], noise, walks[n]).double() for n in walks}
gaps = {n: metrics.rms(ends[n], ends[2 * n]) for n in walks if n < 32}
near = {n: off(ends[n]) for n in gaps}
ddim_alone = {n: off(sample(teacher, noise, walks[n])) for n in walks}

# %% tags=["fold"]
figure(
    plot.convergence(
        {
            "perfect teacher, DDIM": ddim_alone,
            "students": near,
            "students, ε-loss": far,
            "gap of the round": gaps,
        },
        "steps",
        "RMS distance to the ends",
    ),
    "DDIM's error grows as the steps get fewer, up to 1.5. The students' stays near 0.1; the "
    "gaps are largest in the first round. The ε-loss rises at two steps and at one.",
    "Distances from the same noise; for the gap, to the student's own teacher.",
)

# %% [markdown]
# Nothing makes these errors quite unrelated. So we ask that the last student's error lies between two thirds of this root and
# 1.5 times it. And one step of the last student should be four times nearer to the truth than one step of the perfect
# teacher.

# %%
# NBVAL_CHECK_OUTPUT
squares = sum(gap**2 for gap in gaps.values()) + ddim_alone[32] ** 2
budget = near[1] / squares**0.5
claim("C11.13", "one step: distance over the root of all squares", budget, between=(2 / 3, 1.5))
claim("C11.14", "one step: distance over one DDIM step's", near[1] / ddim_alone[1], below=0.25)

# %% [markdown]
# The first round is the most expensive: a fresh network must learn everything. In the later rounds a
# student *starts as its teacher* and only learns to look one step further ahead. So the rounds are short here.
#
# How many steps should the first teacher make? Its own error stays in the sum, whatever you train. The perfect teacher's
# walk misses the ends by 0.078 in 16 steps, by 0.046 in 32 and by 0.026 in 64. If your last student is far off although all
# gaps are small, this is the reason, and you should begin with more steps. Each doubling costs one more round with its gap.
#
# ## 11.6 Rung 2: digits and captioned shapes
#
# Real networks guide, and a guided step costs two calls. The first round can learn this away: its teacher is the guided
# network, and its student makes one call ([chapter 12](12_guided_distillation.ipynb) has the whole story). `recipes.progressive`
# is one round; `omega` guides its teacher, and `distil` trains a copy. Here are two rounds from eight guided steps, on
# scikit-learn's digits.


# %%
def rounds(model, batches, null, plan, omega, spacing, updates, lr):
    student, samplers = model, {}
    for steps in plan:
        how = dict(steps=steps, spacing=spacing, omega=omega)
        recipe = recipes.progressive(model.schedule, null, **how)
        student, omega = distil(recipe, student, student, batches, updates, lr), 0.0
        samplers[steps] = partial(recipe.sampler, student)
    return samplers


digits, (_, (held_out, names)) = digits_teacher(), digits_split()
ink, z = guided(digits, omega=1.0, null=NULL), Draw(10).normal(held_out)
batches = digit_batches(128, seed=0, drop=0)
writers = rounds(digits, batches, NULL, (4, 2), 1.0, "time", 100, 1e-3)
walk = levels(digits.schedule, 8, "time", end="clean")
rows = {
    "teacher, 8 guided steps": sample(ink, z, walk, cond=names),
    "student, 2 steps": writers[2](z, names),
    "teacher, 2 guided steps": sample(ink, z, walk[::4], cond=names),
}

# %% tags=["fold"]
first = torch.stack([(names == k).nonzero()[0, 0] for k in range(10)])
figure(
    plot.pictures({name: x[first] for name, x in rows.items()}),
    "Two steps of the student write the digits of eight guided steps, a little softer; those of "
    "two guided steps of the teacher are blacker and thicker.",
    "The same noise in each column. A guided step is two network calls, a student's is one.",
)
# %% [markdown]
# We ask for three quarters of DDIM's distance to what the eight steps make. Each student must end nearer to where its teacher ends
# than that teacher with half its steps, the second by a third. The root of 11.5 must hold within a quarter.

# %%
# NBVAL_CHECK_OUTPUT
eight, student_2, ddim_2 = rows.values()
nearer = metrics.rms(student_2, eight) / metrics.rms(ddim_2, eight)
claim("C11.15", "digits, 2 steps: distance to the 8 steps over DDIM's", nearer, below=0.75)
(once,), four = writers[4].args, writers[4](z, names)
gap_4, gap_2 = metrics.rms(four, eight), metrics.rms(student_2, four)
alone_4 = metrics.rms(sample(ink, z, walk[::2], cond=names), eight)
alone_2 = metrics.rms(sample(once, z, walk[::4], cond=names), four)
claim("C11.23", "digits, 4 steps: the gap over the teacher's own", gap_4 / alone_4, below=1)
claim("C11.24", "digits, 2 steps: the same", gap_2 / alone_2, below=2 / 3)
both = math.hypot(gap_4, gap_2)
claim(
    "C11.25",
    "digits: distance over the root",
    metrics.rms(student_2, eight) / both,
    between=(0.8, 1.25),
)

# %% [markdown]
# And in the tiny text-to-image world, with its transformer and Stable Diffusion's noise levels: two rounds of 60 updates,
# from four guided steps to one.

# %%
world, codes = shapes_teacher(), asked()  # 512 captions
batches = shape_batches(32, seed=0, drop=0)
painter = rounds(world, batches, NULL_TOKENS, (2, 1), 2.0, "sd_trailing", 60, 2e-4)[1]
text = tokens([say(tuple(code)) for code in codes.tolist()])
grey, top = Draw(11).normal((len(codes), 3, 16, 16)), world.schedule.at(1.0)
before = guided(world, omega=2.0, null=NULL_TOKENS)(grey, top, text).x0.detach()
after = painter(grey, text).detach()

# %% tags=["fold"]
figure(
    plot.pictures({"teacher, 1 guided step": before[:10], "student, 1 step": after[:10]}),
    "In one step the guided teacher paints soft blots, the student shapes.",
    "Ten captions; the same noise in each column.",
)
# %% [markdown]
# The yardstick is the Fréchet distance to real pictures, less what other real pictures have. We ask for half of that of one
# guided step. And a `reader` of shapes should find the caption in more of the 512 pictures, by a tenth.

# %%
# NBVAL_CHECK_OUTPUT
far_off = [shapes_frechet(x, codes) - shapes_floor(codes)[0] for x in (before, after)]
claim("C11.16", "shapes: Fréchet distance over the teacher's", far_off[1] / far_off[0], below=0.5)
told = [shows(read(x), codes).double().mean() for x in (before, after)]
claim(
    "C11.17", "shapes: share of captions shown, less the teacher's", told[1] - told[0], above=0.1
)

# %% [markdown]
# ## 11.7 What should look wrong here: more steps
#
# A diffusion model gets better with more steps. So does the four-step student, from one step to four. *You have the
# one-step student of the first figure. You can afford four steps. How much better do its samples get?* Decide, then run.

# %%
# NBVAL_CHECK_OUTPUT
more = {n: off(sample(students[1], noise, walks[n])) for n in (1, 4)}
claim("C11.18", "one-step student: distance in 4 steps over 1 step", more[4] / more[1], above=2)

# %% [markdown]
# They get much worse. The last round has trained this network at $t=1$ only. What it says at the other three levels was
# learnt in earlier rounds, and the last round has changed the weights since without looking there. (Even a network that
# forgot nothing would get worse: its first step goes straight towards the end, off the path on which the other levels
# learnt.) So a progressively distilled network belongs to its grid. Write the grid into the
# model card, as the export does.
#
# **With half a minute each**, a naive student and one of six rounds are shipped; `python -m bench students` has trained them. Here both are rescored. *d* is the sliced Wasserstein distance to the ends of the exact flow from the same noise, in units of what two exact sets of
# 10 000 points leave. We ask for d ≤ .5, an RMS of .05, and between 1.1 % of the points in no mode, as exact samples have, and 3.5 %. The naive student's pairs come from 60 steps of
# DPM-Solver++(2M), whose own d is about .05. The six rounds can only copy DDIM, whose 64 steps leave a d of about .5, and they share the half minute.
# So we expect a larger d of them.

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
naive, halved_six_times = rescored("knowledge"), rescored("progressive")
claim("C11.19", "naive distillation, one call: d", naive["d"], below=0.5)
claim("C11.20", "the same: RMS to the ends", naive["rms"], below=0.05)
claim("C11.21", "the same: share of points in no mode", naive["none"], between=(0.011, 0.035))
claim("C11.22", "six rounds: d over the naive one's", halved_six_times["d"] / naive["d"], above=1)

# %% [markdown]
# ## 11.8 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | all is well down to four steps, then blur | the ε-loss, at a level with little or no data | max(SNR, 1) or $v$ |
# | infinities at the first level, in your own code (the recipe refuses) | the network predicts ε and α = 0 there | predict $v$ or $x_0$ |
# | a loss that spikes, with a network of ε | max(SNR, 1) weighs its error of ε by up to 1/SNR, which is 214 at Stable Diffusion's first level | lower rate, clipped gradients, or predict $v$ |
# | a one-step student worse with more steps | it was trained on one level | sample on its own grid |
# | the gap grows from round to round | rounds too short, or the rate is not down at the end | anneal to 0 in *each* round; more updates for the last two |
# | soft samples from naive distillation | pairs of a sampler with noise | η = 0 |
# | naive loss near zero on the stored pairs, bad samples from new noise | too few pairs, learnt by heart | watch the loss on pairs held out; make more pairs, each a whole walk |
# | guiding the finished student spoils its samples | guidance was left to the end, or comes twice (chapter 12) | guide the teacher of the first round (ω = 6.5 is a `guidance_scale` of 7.5), and sample the students without guidance: `guidance_scale=1`, `--omega 0`. The strength is then fixed, and a negative prompt does nothing |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | pairs (11.1), or rounds | text-to-image: rounds. Small data and one step: pairs | rounds also leave students of 8, 4 and 2 steps; pairs must all be walked before the first update. In the bench the naive student is the nearer one on the plane, in equal time (11.7; its pairs come from a better solver, too). Fréchet distances, where real pictures have 1: on digits 1.4 for the naive student and 2.1 for the rounds, which had two thirds of its time; on captioned shapes 2.5 and 1.9. On CIFAR-10 the papers' rounds lead a little, and on latent text-to-image models we know of no comparison. At full scale `sample` makes the walks, `prepare --source` its folder makes pairs of them, and `train --method knowledge` learns them (no recipe file, not tried on real weights) |
# | steps of the first teacher | 32 or 64, where more steps hardly change the pictures any more (the published run begins at 8192); `--hyper.steps` counts the *student's*, so half of them | its error stays in every student: from the same noise, compare its pictures with those of twice as many steps |
# | spacing | your sampler's, if its grid of $N$ steps is every second level of its grid of $2N$: `time`, `lam`, `karras`, `arctan`, `sd_trailing` (`lcm` and `pcm` as well, for students of up to 25 steps) | a student learns the way from one of its levels to the next, so its teacher must stop at both and once between. With `sd_leading` and `sd3` the levels move with $N$, and the recipe refuses (but for one step of `sd3`). `lam`, `karras` and `arctan` need α > 0 at the first level, which this chapter's cosine does not have |
# | weight | max(SNR, 1), the paper's; the loss on $v$ (SNR + 1) is the other usual one | not the ε-loss: with α = 0 it fails at two steps and at one (11.4). At Stable Diffusion's first level the SNR is .005, not 0. With the ε-loss and two steps, the cleaner level weighs 80 times as much as the first, on which the picture depends |
# | what the network predicts | $v$ or $x_0$. One that predicts ε may stay so if α > 0 at its first level, as in Stable Diffusion | an ε-network whose loss spikes: lower the rate, clip the gradients |
# | rate, updates, batch | `progressive.toml`: from 1e-5 to 0, 50 000 a round, 128 | length and batch are CIFAR-10's; the rate is our guess, and was not tried |
# | length of a round | fixed beforehand, since the rate falls to 0 in it | the gap (11.5), from a fixed noise. Give more updates if it is larger than that of the round before, or if a longer round makes it clearly smaller |
# | number of rounds | as few as you can: stop as soon as the student is fast enough | each further round adds its gap |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | on eight A100 `progressive` needs 24 GB a card and 13 hours *for the first round*: counted, at an *assumed* 35 % of their peak |
# | seeds, to compare two settings | three | this page's figures have one seed each; the students of 11.7 have three in the bench, whose d deviate by a twentieth (the rounds) and a tenth (the naive one) |
#
# **The published run** [@salimans2022progressive], CIFAR-10: from 8192 steps to one, 50 000 updates a round and 100 000 in each of the last two, Adam, the rate
# falling linearly from 5e-5 to 0 in each round, batch 128, gradients clipped at 1, no average of weights, no dropout. The
# abstract reports an FID of 3.0 in four steps. Its table has 9.12 for one step. *Neither is reproduced
# here.* OpenAI's later code doubles the last two rounds as well. Count: 750 000 updates with 128 targets of two calls each
# are 192 million calls of teachers. By the abstract, the whole takes no more time than training the first
# teacher.
#
# **Two traps in code.** With $\sigma_c=0$ the target is the second guess itself, by either formula. If the last level keeps a
# little noise but the sampler returns its last guess, then $w=1$ must be set by hand. And clip guesses only when you sample:
# with a clipped target, one step no longer lands where the teacher's two steps land.
#
# **Where the toy stops being true.** Our first teacher is perfect and its 32 steps are nearly exact. In two dimensions
# naive distillation does better than all our rounds in equal time. On CIFAR-10 the two papers' one-step FIDs are close as well,
# 9.36 and 9.12. What the rounds add there are the students of eight, four and two steps, which
# are far better.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `halve`, `rounds` | `recipes.progressive`: one run of `full_scale.train` a round |
# | `students[2 * steps]` | `--weights RUN`, the run before |
# | `omega` in the first round | `--hyper.omega 6.5`, then `--hyper.omega 0` |
# | `walks`, ending at σ = 0 | `--hyper.spacing sd_trailing`; stock DDIM, set as the lines of the export's card set it, samples the same levels for 8, 4, 2 and 1 steps; students of 32 and 16 are sampled by `full_scale.sample` |
#
# ```bash
# full_scale/launch/one_node.sh progressive --data DATA \
#     --weights weights/stable-diffusion-v1-5 --out runs/halve-32
# last=32
# for steps in 16 8 4 2 1; do
#     full_scale/launch/one_node.sh progressive --data DATA --weights runs/halve-$last \
#         --out runs/halve-$steps --hyper.steps $steps --hyper.omega 0 || break
#     last=$steps
# done
# python -m full_scale.export runs/halve-4
# ```
#
# The recipe file sets 32 steps and ω = 6.5 for the first round. With `GPUS=1`, `--tiny` and `--steps 2` it runs anywhere, and learns nothing.
#
# **How far up the ladder.** Rung 1: exactly, and trained. Rung 2: digits in two steps, captioned shapes in one. Rung 3: the same
# loss: in the tests `progressive_with_omega` trains Stable Diffusion's networks with it, and two rounds of the shapes run, the second from the
# first's run. No published figure is reproduced.
#
# ## 11.9 Exercises
#
# 1. *(pencil)* In the angle form, α = cos φ and σ = sin φ, a DDIM step turns the point: $z'=\cos\delta\,z-\sin\delta\,v$,
#     where δ is the angle of the step. Let two steps turn by δ together. Which $\tilde v$ makes both at once? Check it with
#     $\tilde x$ = 1.21.
# 2. *(code)* Train the last round, from `even[2]`, with $x_0$'s weight instead of max(SNR, 1). Predict the difference, and say
#     which column of the table of weights decides it. Check: there is no difference beyond rounding.
# 3. *(code)* Let the straight lines of 11.3 learn one step from *two* steps of the perfect teacher of `gmm5`. What does the
#     line at $t=1$ say, and where do its samples lie? Check: with 10 000 points for the fit it
#     nearly says the mean of $\tilde x$, plus $z$ times the covariance of $\tilde x$ and $z$.
# 4. *(open)* Every round halves. Would a factor of four a round, with as many updates in all, be better? Measure gaps and the
#     last distance.
#
# <details><summary>Answers to 1 and 3</summary>
#
# 1. One step of δ reaches $\cos\delta\,z-\sin\delta\,\tilde v$, so $\tilde v=(\cos\delta\,z-z_c)/\sin\delta$. In the
# pencil example $\cos\delta=\sigma_c\sigma_a+\alpha_c\alpha_a=0.6$ and $\sin\delta=0.8$, so $\tilde v=(0.6-1.568)/0.8=-1.21$.
# At pure noise $v=\alpha\varepsilon-\sigma x_0=-x_0$, as it must be.
#
# 3. With many points, least squares of $\tilde x$ on $(1,z)$ gives $\operatorname{mean}(\tilde x)+\operatorname{Cov}(\tilde x,z)\,z$,
# because $z$ is standard normal at $t=1$. With 100 points it does so nearly. The line sends noise to a Gaussian with the mean
# of $\tilde x$: one ellipse instead of five modes.
#
# </details>
#
# ## References
#
# Learning the whole walk: [@luhman2021knowledge]. Halving: [@salimans2022progressive]; with guidance: [@meng2023guided].
# DDIM: [@song2021ddim]. Halving in phases, towards consistency: [@heek2024multistep].
