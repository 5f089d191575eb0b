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
#     title: Guided distillation
#     summary: Fold the two calls of a guided network into one call that is told ω, and only then take fewer steps.
#     minutes: 40
#     memory: 1 GB
#     needs:
#       - guidance (chapter 6; recapped in 12.1)
#       - progressive distillation (chapter 11)
#       - PyTorch
# ---

# %% [markdown]
# # 12 Guided distillation: two network calls into one
#
# Chapter 11 took a walk of 32 steps and made it one step. A text-to-image model is hardly ever sampled without guidance,
# though, and guidance needs two calls at every step: one with the prompt and one without. Here is a tempting shortcut. Distil the network first, with and
# without the prompt. Then guide the student, in its one step, as you always did.
#
# Suppose that the distillation was *perfect*: the student's one step ends exactly where the 32 steps end. This is what the
# shortcut makes, beside what you wanted.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import copy
import math
from dataclasses import replace
from functools import partial
import torch
from dlib import NULL, Batch, Denoiser, Draw, cosine, counted, exact, guided, levels
from dlib import metrics, plot, recipes, sample, train
from dlib.losses import guided_distillation, progressive, uniform_times, with_omega
from dlib.nets import MLP, Told, omega_features
from toy_data import digit_batches, digits_split, digits_teacher, distil, labelled
from toy_data import shape_batches, shapes_teacher
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked
from toy_data.student_scores import rescored

schedule, mixture = cosine(), labelled()
teacher = exact(mixture, schedule)  # the perfect network of these data
walks = {n: levels(schedule, n, "time", end="clean") for n in (1, 2, 4, 8, 16, 32)}
noise, label = Draw(3).normal((2000, 2)), torch.arange(2000) % 2
many = partial(torch.full, (2000,))
guide = partial(guided, teacher, null=NULL)
walked = lambda omega, n=32: sample(guide(omega), noise.double(), walks[n], cond=label)
ends = {omega: walked(omega) for omega in (0.0, 2.0, 4.0)}


def data(step):
    x0, label = mixture.sample(256, Draw(step))
    return Batch(x0.float(), label)


def mlp():
    torch.manual_seed(0)
    return MLP(2, 96, 2, classes=2)


def learn(loss, start, updates, data=data):
    student = replace(start, net=copy.deepcopy(start.net).requires_grad_())
    history = train(student.net, partial(loss, student), data, updates, lr=4e-3)
    student.net.requires_grad_(False)
    return student, history["net/loss"]


how = dict(omega=(0.0, 4.0), null=NULL, times=uniform_times())
new = Denoiser(Told(mlp()), schedule, "v")
dial, healthy = learn(
    lambda student, batch, draw: guided_distillation(student, teacher, batch, draw, **how),
    new,
    500,
)


def told_data(step):
    batch, omega = data(step), 4 * Draw(10**6 + step).uniform(256)
    return Batch(batch.x0, with_omega(batch.cond, omega))


def halve(before, steps):
    loss = lambda student, batch, draw: progressive(
        student, before, batch, draw, levels=walks[2 * steps]
    )
    return learn(loss, before, 150, told_data)[0]


students = {16: dial}
for steps in (8, 4, 2, 1):
    students[steps] = halve(students[2 * steps], steps)


def made(steps, omega):
    return sample(students[steps], noise, walks[steps], cond=with_omega(label, many(omega)))


empty = sample(teacher, noise.double(), walks[32], cond=many(NULL))
shortcut = 3 * ends[0.0] - 2 * empty
panels = {
    "guided walk, 64 calls": ends[2.0],
    "distil, then guide: 2 calls": shortcut,
    "teacher, 1 guided step: 2 calls": walked(2.0, 1),
    "guide, then distil: 1 call": made(1, 2.0),
}
figure(
    plot.endpoints({name: x[:200] for name, x in panels.items()}, ends[2.0][:200], label[:200]),
    "Guiding the ends of perfect walks throws the points far outside the data. The student that "
    "learnt guidance first ends where the guided walk ends.",
    "Two classes, $\\omega=2$, the same noise. Grey: the distance to the end of the guided path.",
)

# %% [markdown]
# The shortcut fails although both of its walks are as good as walks can be. The conditional walk and the unconditional walk
# start at the same noise and often end in different modes. Their difference then says nothing about a direction at the data.
# Guidance is made for *guesses at one noisy point*. So it must be folded into the network first, and the steps are taken away afterwards. That
# is this chapter, in two stages [@meng2023guided]. The last panel makes one call, and it can do so for any ω in a range.
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | α, σ | a level's factors of data and noise | chapter 7 |
# | $v$ | $\alpha\varepsilon-\sigma x_0$, a mixture of noise and data | chapter 3 |
# | $w_{\text{loss}}(t)$ | the weight of a level in a loss; SNR is $\alpha^2/\sigma^2$ | chapters 3 and 11 |
# | ω | the guidance weight, 0 for none; diffusers' `guidance_scale` is 1 + ω | chapter 6 |
# | $c$, $\varnothing$ | the condition; the empty one | chapter 6 |
# | $x_\theta(z,c)$ | the teacher's guess of the data at a noisy point $z$ | chapter 6 |
# | $x^\omega$ | the guided guess | new |
# | $x_\eta(z,c,\omega)$ | the student's guess, which is told ω | new |
#
# ## 12.1 What the student should say
#
# First a recap. A conditional network was trained with its condition left out now and then, so it can guess the data with
# the condition and without. Guidance takes the guess with the condition and goes further in the direction that leads there
# from the guess without. How far is ω. Both guesses are made at the *same* noisy point, and a library makes them in one batch
# of twice the size. The price is the same as that of two calls.
#
# Take one level, (α, σ) = (0.6, 0.8), and the point $z=1$. The prompt $c$ fixes the picture completely: its data are the single
# point 1. All data together, of all prompts, are $\mathcal N(0,1)$. With the prompt the perfect guess is 1 wherever you are.
# Without it the guess is $\alpha z$, as in [chapter 11](11_progressive_distillation.ipynb) with mean 0. With a pencil, for ω = 2:
#
# | | with $c$ | with $\varnothing$ | guided, 3 · first − 2 · second |
# |---|---|---|---|
# | data | 1 | 0.6 · 1 = 0.6 | 3 − 1.2 = **1.8** |
# | noise, (1 − 0.6 · data)/0.8 | 0.5 | 0.8 | 1.5 − 1.6 = −0.1 |
# | $v$ = 0.6 · noise − 0.8 · data | −0.5 | 0 | −1.5 |
#
# Each row agrees with the others: (1 − 0.6 · 1.8)/0.8 is −0.1, and 0.6 · (−0.1) − 0.8 · 1.8 is −1.5. So it does not
# matter which of them the network predicts. At one point $z$, $v=a\,x+b\,z$ with numbers $a$ and $b$ that no condition changes. So
# $(1+\omega)\,v(c)-\omega\,v(\varnothing)=a\,x^\omega+b\,z$, which is the $v$ that belongs to $x^\omega$. (You also see guidance exaggerate:
# 1.8 lies beyond the only point that the prompt allows.) In letters:
#
# $$x^\omega=(1+\omega)\,x_\theta(z,c)-\omega\,x_\theta(z,\varnothing)=x_\theta(z,c)+\omega\,\big(x_\theta(z,c)-x_\theta(z,\varnothing)\big). \label{eq:gd-target}$$
#
# The student learns to say this in one call. It sees noised data, as in every denoising loss, and an ω that is drawn for each
# sample:
#
# $$\mathcal L=\mathbb E\;w_{\text{loss}}(t)\,\lVert x_\eta(z,c,\omega)-x^\omega\rVert^2,\qquad \omega\sim U[\omega_{\min},\omega_{\max}]. \label{eq:gd-loss}$$
#
# With the weight SNR + 1 this is the squared error of $v$, as in chapter 11. Here it is, as you might write it yourself:


# %%
def plain_loss(student, teacher, x0, c, omega, level, eps):
    z = level.alpha * x0 + level.sigma * eps
    with torch.no_grad():
        conditional = teacher(z, level, c).v
        empty = teacher(z, level, torch.full_like(c, NULL)).v
        target = conditional + omega[:, None] * (conditional - empty)
    said = student(z, level, {"cond": c, "omega": omega}).v
    return (said - target).square().mean()


# %% [markdown]
# The library's function draws ω, the times and the noise, in this order. We compare the two losses of an untrained
# student on the same draws. And the analytic guided denoiser, written as a network that is told ω, must have no loss.

# %%
# NBVAL_CHECK_OUTPUT
show(guided_distillation)
batch, draw = Batch(data(0).x0.double(), data(0).cond), Draw(7)
omega, t = 4 * draw.uniform(256).double(), uniform_times()(draw, 256).double()
level, eps = schedule.at(t, like=batch.x0), draw.normal(batch.x0)
deaf = Denoiser(lambda z, t, cond: teacher.net(z, t, cond["cond"]), schedule, "v")
tell = lambda z, t, cond: guide(cond["omega"]).net(z, t, cond["cond"])
plain = plain_loss(deaf, teacher, batch.x0, batch.cond, omega, level, eps)
library = lambda student: guided_distillation(student, teacher, batch, Draw(7), **how).value
claim(
    "C12.1", "plain loss over the library's, less 1", abs(plain / library(deaf) - 1), below=1e-6
)
analytic = Denoiser(tell, schedule, "v")
claim("C12.2", "the loss of the analytic x^ω", library(analytic), below=1e-12)

# %% [markdown]
# So this loss has no floor either: the target is a function of what the student sees. Look at \eqref{eq:gd-target} again. As
# ω grows, the target moves along a straight line. Two things follow. A network that is a straight line in ω would be enough.
# And a student that is *not* told ω learns the mean of all targets. On a straight line this is the target of the mean ω. We
# test the second statement with five values of ω, in all five quantities that a network may predict.

# %%
# NBVAL_CHECK_OUTPUT
z, here = noise.double(), schedule.at(0.6)
faces = ("x0", "eps", "v", "velocity", "score")
said = {omega: guide(omega)(z, here, label) for omega in (0.0, 1.0, 2.0, 3.0, 4.0)}
mean = {face: sum(getattr(said[w], face) for w in said) / 5 for face in faces}
bent = max((mean[face] - getattr(said[2.0], face)).abs().max() for face in faces)
claim("C12.3", "mean of the targets − the target of the mean ω (largest)", bent, below=1e-10)

# %% [markdown]
# ## 12.2 How a network is told ω
#
# A number enters a network as times do: as sines and cosines of many frequencies. (For the first stage a straight line in ω is enough; the second needs more, 12.4. The bare number was not tried.) The released codes [@luo2023lcm] feed
# $\sin(1000\,\omega\,r_k)$ and $\cos(1000\,\omega\,r_k)$ with rates $r_k$ that fall geometrically from 1 to 1/10 000. The vector goes through one linear layer without a bias, and is added to the
# features of the time. We call this input the dial. **Ours starts at zero.** So a student made of its teacher's weights begins as an exact copy of the
# conditional teacher, whatever ω it is told, and training only has to add the difference.

# %%
# NBVAL_CHECK_OUTPUT
show(omega_features, Told)
rates = [1000 * 10_000 ** (-k / 31) for k in range(32)]
plain = torch.tensor([[math.sin(1.5 * r) for r in rates] + [math.cos(1.5 * r) for r in rates]])
off = (omega_features(torch.tensor([1.5]), 64) - plain).abs().max()
claim("C12.4", "plain features of ω − the library's (largest difference)", off, below=1e-3)
start = mlp()
torch.nn.init.normal_(start.leave.weight)  # a network that says something
asked_of = lambda w: Told(start)(noise, many(0.5), with_omega(label, many(w)))
apart = max((asked_of(w) - start(noise, many(0.5), label)).abs().max() for w in (0.0, 4.0))
claim(
    "C12.5", "a fresh student − its conditional teacher, ω = 0 and 4", apart.detach(), below=1e-12
)

# %% [markdown]
# ## 12.3 The dial against the truth
#
# The first stage of the first figure's student was trained so, with ω between 0 and 4, for 500 updates. (Its teacher is a formula, so its
# network starts afresh.) Its sick twin has the same network
# and the same targets, but is always told ω = 0. You know what it learns: the target of the mean ω, which is 2. And you know
# its loss: the variance of ω, which is 16/12, times the mean square of $v(c)-v(\varnothing)$.

# %%
deaf_loss = lambda student, batch, draw: guided_distillation(
    student, teacher, batch, draw, **how, embed=lambda c, omega: with_omega(c, 0 * omega)
)
untold, sick = learn(deaf_loss, new, 300)
clean, sort = mixture.sample(20_000, Draw(77))
level = schedule.at(uniform_times()(Draw(79), 20_000).double(), like=clean)
z = level.alpha * clean + level.sigma * Draw(78).normal(clean)
gap = teacher(z, level, sort).v - teacher(z, level, torch.full_like(sort, NULL)).v
floor = gap.square().mean() * 16 / 12

# %% tags=["fold"]
figure(
    plot.curves(
        {"told ω": plot.running_mean(healthy), "not told": plot.running_mean(sick)},
        {"variance of the targets": floor},
        xlabel="update",
        ylabel="loss",
        log="y",
    ),
    "The loss of the student that is told ω falls by two orders of magnitude; without ω it stops "
    "at the variance of the targets.",
    "The same network and targets. Means over 20 updates.",
)

# %% [markdown]
# A plateau like this one means that your student does not use ω: it does not reach the network, or is not learnt yet (12.5). Now test the told student where the truth is known: on
# a grid of ω, at 20 000 noised points, against the analytic $x^\omega$. At ω = 0 that is the conditional teacher. A useful scale
# is how far *one unit* of ω moves the answer. Inside the range we ask for errors below a quarter of it. The last ω lies
# outside of the range.

# %%
unit = metrics.rms(guide(1.0)(z, level, sort).x0, guide(0.0)(z, level, sort).x0)


def error(student, omega, told=None):
    cond = with_omega(sort, torch.full((20_000,), omega if told is None else told))
    said = student(z.float(), schedule.at(level.t.float()), cond).x0
    return metrics.rms(said.double(), guide(omega)(z, level, sort).x0) / unit


grid = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0]
errors = {"told ω": dial, "not told": untold}
errors = {name: [error(model, omega) for omega in grid] for name, model in errors.items()}

# %% tags=["fold"]
figure(
    plot.curves(
        {name: (grid, found) for name, found in errors.items()},
        xlabel="ω",
        ylabel="RMS error of the guess, in units of one ω",
        band=(0.0, 4.0),
    ),
    "The student that is told ω is right between 0 and 4 and wrong at 5. The other is right at "
    "2 alone; its error is a V.",
    "Shaded: the range of ω in training.",
)

# %%
# NBVAL_CHECK_OUTPUT
told, not_told = (dict(zip(grid, found)) for found in errors.values())
claim("C12.6", "ω = 0: error against the conditional teacher", told[0.0], below=0.25)
inside = max(told[omega] for omega in grid[1:-1])
claim("C12.7", "ω from ½ to 4: largest error against the analytic x^ω", inside, below=0.25)
claim(
    "C12.8",
    "ω = 5, outside the range: error over the largest inside",
    told[5.0] / inside,
    above=2,
)
last = sum(sick[-100:]) / 100 / floor
claim("C12.9", "not told: the last losses over the targets' variance", last, between=(0.85, 1.15))
claim("C12.10", "not told: error at ω = 2", not_told[2.0], below=0.25)
claim(
    "C12.11", "not told: error at ω = 4, where two are missing", not_told[4.0], between=(1.7, 2.3)
)

# %% [markdown]
# Do not ask for more guidance than the student has seen. A formula would go on in a straight line. The network only knows
# sines and cosines of ω, and at ω = 5 they take values that it has never met together. The other student's curve is a V because
# it has learnt the mean of all targets, which is the target of ω = 2. There it is right, and with each unit of ω away from 2 it
# misses one unit more.
#
# ## 12.4 The second stage: fewer steps
#
# The first stage halves the price of a step. Its student is an ordinary denoiser, so everything that makes steps fewer can
# follow. The paper takes [progressive distillation](11_progressive_distillation.ipynb). In each round, which makes one step of the teacher's two, teacher and student are
# told the same ω, drawn anew for each sample. They must be, since each ω has a walk of its own: told another ω, the student
# would learn to end where the walk of the wrong ω ends. Nothing in the loss changes: the batch's condition carries ω, and
# `progressive` hands it on.
#
# One thing does change. A *guess* is a straight line in ω, but the *end of a walk* is not: each guided step starts where the
# last one ended. So a network that is a straight line in ω is enough for the first stage and not for the second. You can
# measure this without any student. If the ends were on straight lines, those of ω = 2 would lie halfway between those of 0
# and 4.

# %%
# NBVAL_CHECK_OUTPUT
distance = metrics.rms(ends[0.0], ends[4.0])
halfway = metrics.rms((ends[0.0] + ends[4.0]) / 2, ends[2.0]) / distance
claim(
    "C12.12",
    "exact walks: how far ω = 2 ends from halfway, over the distance",
    halfway,
    above=0.05,
)

# %% [markdown]
# From 16 steps, four rounds of 150 updates lead to one step. We compare each student with the guided teacher at as many
# steps, which makes twice as many calls. In one step we ask the student to be four times nearer to the end of the guided path,
# for three values of ω.

# %%
far = lambda x, omega: metrics.rms(x.double(), ends[omega])
student_off = {w: {n: far(made(n, w), w) for n in students} for w in ends}
teacher_off = {w: {n: far(walked(w, n), w) for n in students} for w in ends}
asks, both = counted(students[1]), counted(teacher)
for model, cond in ((asks, with_omega(label, many(2.0))), (guided(both, 2.0, NULL), label)):
    sample(model, noise, walks[1], cond=cond)

# %% tags=["fold"]
figure(
    plot.convergence(
        {f"teacher, ω = {w:g}": teacher_off[w] for w in ends}
        | {f"student, ω = {w:g}": student_off[w] for w in ends},
        "steps",
        "RMS distance to the ends",
    ),
    "The guided teacher's error grows to between 1 and 3 in one step; the students' errors stay "
    "near 0.1 for all three ω.",
    "A step of the teacher is two evaluations, a step of the student is one.",
)

# %%
# NBVAL_CHECK_OUTPUT
worst = max(student_off[w][1] / teacher_off[w][1] for w in ends)
claim(
    "C12.13", "one step, the worst of three ω: student's error over teacher's", worst, below=0.25
)
evaluations = both.net.samples / asks.net.samples
claim(
    "C12.14",
    "one step: evaluations of the teacher over the student's",
    evaluations,
    between=(2, 2),
)
lost = metrics.rms(shortcut, ends[2.0]) / student_off[2.0][1]
claim("C12.15", "ω = 2: the shortcut's error over the one-step student's", lost, above=4)

# %% [markdown]
# Look at the right end of the figure, too. With 16 steps the guided teacher is the nearer one, because its guesses are exact
# and the student carries the error of its first stage. Distillation pays where steps are few.
#
# And what do these samples follow? Whatever the guided walk follows. [Chapter 6](06_guidance.ipynb) showed that this is not the
# tilted density. The student copies the walk, with all that guidance does to it.

# %% [markdown]
# ## 12.5 Rung 2: digits and captioned shapes
#
# `recipes.guided` is the first stage, and `Told` makes the student from a trained network. First the digits: 300 updates,
# ω from 0 to 4. We noise the digits that the guided teacher made, and there compare the student's guess with the guided
# teacher's, for ω = 2 and 4. An untrained student gives the conditional answer, and misses the whole distance between the two
# answers. One that has learnt only the middle, like the untold twin, misses half of it at ω = 4. So we ask for less than half.

# %%
digits, ((pixels, names), _) = digits_teacher(), digits_split()
recipe = recipes.guided(digits.schedule, NULL, omega=(0.0, 4.0))
batches = digit_batches(128, seed=0, drop=0)
writer = distil(recipe, replace(digits, net=Told(digits.net)), digits, batches, 300, lr=1e-3)
names, paper = torch.arange(10).repeat(4), Draw(10).normal((40, *pixels.shape[1:]))
walk = levels(digits.schedule, 8, "time", end="clean")
inked = lambda w: sample(writer, paper, walk, cond=with_omega(names, torch.full((40,), w)))
ink = {w: sample(guided(digits, w, NULL), paper, walk, cond=names) for w in (0.0, 2.0, 4.0)}

# %% tags=["fold"]
rows = {f"teacher, ω = {w:g}, 16 calls": ink[w][:10] for w in (0.0, 4.0)}
rows |= {f"student, ω = {w:g}, 8 calls": inked(w)[:10] for w in (0.0, 4.0)}
figure(
    plot.pictures(rows),
    "With ω = 4 the digits are bolder and plainer, the student's like the teacher's.",
    "The same noise in each column, eight steps each.",
)


def one_guess(omega, of=digits.schedule.at(0.5)):
    x = of.alpha * ink[omega] + of.sigma * Draw(12).normal(paper)
    wish = guided(digits, omega, NULL)(x, of, names).x0
    said = writer(x, of, with_omega(names, torch.full((40,), omega))).x0
    return metrics.rms(said, wish) / metrics.rms(digits(x, of, names).x0, wish)


# %%
# NBVAL_CHECK_OUTPUT
worse = max(one_guess(2.0), one_guess(4.0))
claim("C12.16", "digits: one guess, the error over that without guidance", worse, below=0.5)

# %% [markdown]
# Then the captioned shapes, with Stable Diffusion's noise levels. A transformer needs longer to listen, and 100 updates are
# few. We only ask that a `reader` finds the caption in more of 512 pictures than without guidance, at the price of no
# guidance: four calls. The bar is 3 in a hundred. The noise is the same, so a chance difference has a standard error of 1.3.
# Then we tell the same student ω = 0 and count its captions again. The second claim says that its two shares, with ω = 2 and with
# ω = 0, differ by less than 3 in a hundred. Which of the two claims surprises you?

# %%
# NBVAL_CHECK_OUTPUT
world, codes = shapes_teacher(), asked()
recipe = recipes.guided(world.schedule, NULL_TOKENS, omega=(0.0, 4.0))
fresh, batches = replace(world, net=Told(world.net)), shape_batches(32, seed=0, drop=0)
painter = distil(recipe, fresh, world, batches, 100, lr=5e-4)
text = tokens([say(tuple(code)) for code in codes.tolist()])
grey, walk = (
    Draw(11).normal((512, 3, 16, 16)),
    levels(world.schedule, 4, "sd_trailing", end="clean"),
)
shown = lambda model, cond: (
    shows(read(sample(model, grey, walk, cond=cond)), codes).double().mean()
)
at = {w: shown(painter, with_omega(text, torch.full((512,), w))) for w in (0.0, 2.0)}
plain = shown(world, text)
claim("C12.17", "shapes: share of captions shown, less the unguided", at[2.0] - plain, above=0.03)
deaf = at[2.0] - at[0.0]
claim("C12.18", "shapes: the share with ω = 2, less that with 0", deaf, between=(-0.03, 0.03))

# %% [markdown]
# Asked with ω = 0, the student should be no better than its unguided teacher. It shows as many captions as with ω = 2, so it does not
# hear ω yet, and has probably learnt the *middle* of its range. This is the untold twin of 12.3. A likely reason is that every
# sample pulls the weights that all ω share the same way, while the layer of ω starts at zero.
#
# How much of the dial is learnt is one number, and needs no eye. From ω = 0 to 4 the teacher's answer at one noisy point moves along a straight line. Project the
# student's move on it: 0 is deaf, 1 is the whole way. We ask for three quarters of it on the plane, for half from the digits' student, and for less than a tenth from the shapes'.
# A second student of the shapes gets twice the updates at four times the rate. At high noise it should hear 0.3.


# %%
# NBVAL_CHECK_OUTPUT
def heard(student, teacher, null, x, of, cond):
    tell = lambda omega: with_omega(cond, torch.full((len(x),), omega))
    said = [student(x, of, tell(omega)).x0 for omega in (0.0, 4.0)]
    wish = [guided(teacher, omega, null)(x, of, cond).x0 for omega in (0.0, 4.0)]
    move, way = said[1] - said[0], wish[1] - wish[0]
    return (move * way).sum() / way.square().sum()


half = schedule.at(0.5)
there = half.alpha * ends[2.0].float() + half.sigma * Draw(13).normal((2000, 2))
on_plane = heard(dial, teacher, NULL, there, half, label)
claim("C12.21", "the plane's dial: share of the way heard", on_plane, between=(0.75, 1.25))
of = digits.schedule.at(0.5)
x = of.alpha * ink[2.0] + of.sigma * Draw(12).normal(paper)
on_digits = heard(writer, digits, NULL, x, of, names)
claim("C12.22", "the digits': the same", on_digits, between=(0.5, 1.25))
of = world.schedule.at(0.5)
arrived = sample(guided(world, 2.0, NULL_TOKENS), grey[:128], walk, cond=text[:128])
x = of.alpha * arrived + of.sigma * Draw(12).normal(arrived)
on_shapes = heard(painter, world, NULL_TOKENS, x, of, text[:128])
claim("C12.23", "the shapes': the same", on_shapes, between=(-0.1, 0.1))
hearing = distil(recipe, fresh, world, batches, 200, lr=2e-3)
of = world.schedule.at(0.9)
x = of.alpha * arrived + of.sigma * Draw(12).normal(arrived)
on_shapes = heard(hearing, world, NULL_TOKENS, x, of, text[:128])
claim("C12.24", "200 updates at rate 2e-3, t = .9: the same", on_shapes, between=(0.3, 1.25))
at = {w: shown(hearing, with_omega(text, torch.full((512,), w))) for w in (0.0, 4.0)}
claim("C12.25", "its share with ω = 4, less that with 0", at[4.0] - at[0.0], above=0.03)

# %% [markdown]
# ## 12.6 What should look wrong here: ω or g
#
# diffusers calls its argument `guidance_scale`; that is $g=1+\omega$. Its pipelines for Stable Diffusion and LCM subtract 1 before they feed the
# network. You forget it, and feed $g$ to your student. *You wanted ω = 2. By how many units of ω are its guesses wrong, and in
# which direction would you see it in a picture?* Decide, then run.

# %%
# NBVAL_CHECK_OUTPUT
claim("C12.19", "ω = 2, told 3: error in units of ω", error(dial, 2.0, 3.0), between=(0.75, 1.25))

# %% [markdown]
# One unit, as it must be: the answer is right, for another question. No error message and no loss will tell you. The pictures
# have a little too much contrast, and at the top of the range you leave it.
#
# **With half a minute** for the first stage alone, `python -m bench students` has trained a student of this mixture for ω from 0 to 4. It is shipped, and
# asked here with ω = 2 for eight DDIM steps, eight calls. The guided teacher takes the same eight steps with sixteen. Whoever learns the teacher's
# answers makes the teacher's steps, so the two should end equally far from the guided path's ends, within a quarter.

# %%
# NBVAL_CHECK_OUTPUT
told = rescored("guided")
ratio = told["rms"] / told["teacher rms"]
claim("C12.20", "ω = 2, 8 steps: RMS, student over teacher", ratio, between=(0.8, 1.25))

# %% [markdown]
# ## 12.7 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | the student ignores ω | the dial is learnt last, or ω is cast to half precision | train longer; features in float32 |
# | the loss stops high | ω does not reach the network, or is not learnt yet | look at the weights of ω's layer: if they are still exactly 0 after many updates, it is not connected. Print the ω that the network receives: if all samples have the same, the batch is at fault. Else train longer |
# | right at ω = 0, error in proportion to ω | the wrong $\varnothing$ in the target; or a student that has hardly begun, and answers as without guidance | measure 12.5's share, with the teacher's own $\varnothing$. Train longer; if the share then stays at a value that is not 1, the target's $\varnothing$ was another |
# | too much contrast everywhere | $g$ was fed instead of ω | one name in your code, and convert at the border |
# | broken pictures at high ω | outside the range of training | train the range that you serve |
# | a negative prompt does nothing | the empty condition is inside the weights | keep the guided teacher for those users |
# | far too much contrast, and two calls a step | a student with guidance inside is guided again | one call a step. A student of one fixed ω: $g=1$. A student with the dial: do not wrap it in `guided`; in diffusers $g=1+\omega$ sets the dial |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | one ω, or the dial | one, if you serve one: `lcm_lora` with `--hyper.omega 6.5 6.5` (chapter 14), or `progressive` from the original weights, `--hyper.omega 6.5` in the first round and 0 in all later ones | a student of one ω can be an adapter, and needs no wide range. If your users turn ω: the dial, with all weights, by `guided` and then `progressive_with_omega`, or by `lcm`, which learns guidance and few steps at once (chapter 14). What the dial costs in quality, against a student of one ω, we did not measure |
# | the dial's range | what you will serve; `guided.toml` has 2 to 14 | one unit beyond it the answers are wrong (12.3). Type the same `--hyper.omega LOW HIGH` for `guided` and for every round after it |
# | is the dial learnt? | train until 12.5's share is .9 at every noise level. Measure it between the two ends of *your* range, with the teacher's $\varnothing$; at full scale that is a few lines of your own, like `heard` | the bar is our guess. At t = .5 the plane's dial has .96; the digits' has .81 after 300 updates, so train on; the shapes' has .01 after 100. In separate runs of 200 updates at four times the rate (three seeds) the shapes' has .2 at t = .5 and .6 at t = .9. These students show 88 to 91 % of the captions with ω = 0, and 97 to 98 % with ω = 4 |
# | rate, updates, batch | `guided.toml`: 1e-5, 10 000, 128; a round of the second stage: 1e-5 → 0, 50 000, 128 | our guess, not tried; the length of a round is CIFAR-10's (chapter 11) |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | on eight A100 `guided` needs 27 GB a card and 1.9 hours, and `progressive_with_omega` needs 24 GB a card and 9.5 hours *for each round*, two days for five. All counted, at an *assumed* 35 % of their peak |
# | seeds, to compare two settings | three | the runs that this page makes have one seed each; the bench's guided student (12.6) has three, each within 1.5 % of its teacher |
#
# **The published runs** [@meng2023guided]: ω from 0 to 4 for pixels, from 2 to 14 for latent text-to-image models, with the loss
# on $v$; then rounds of halving. The abstract reports scores like the teacher's in 4 steps for ImageNet 64×64 and CIFAR-10 in
# pixels, and pictures of high fidelity in 1 to 4 steps for latent models. The ranges are quoted from memory, and *nothing of this
# is reproduced here*. LCM ([chapter 14](14_latent_consistency.ipynb)) has the same input for ω, and learns guidance and few
# steps at once. The paper can also sample its students with noise: a step of double length, then back by one. We left this out.
#
# **The empty condition** must be the one that the teacher was trained with. Clip guesses only after guiding: after clipping,
# guided data and guided noise no longer agree.
#
# **Where the toy stops being true.** The plane's teacher is exact, so $x(c)-x(\varnothing)$ is exact. A real network's difference
# is small and noisy, and ω = 7 magnifies its errors sevenfold. The student learns those too.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `Told(net)` | `family.told_omega`: adds diffusers' `time_cond_proj_dim` and sets its weights to zero (diffusers' own start is random) |
# | `omega_features` | the same function, 256 of them |
# | `recipes.guided` | `full_scale.train guided`: all weights, since adapters have no input for ω |
# | `told_data`, `halve` | `recipes.progressive_with_omega`: a round of the second stage, from `--weights RUN`. It draws ω and tells teacher and student |
# | the second stage for one fixed ω | `progressive` with `--hyper.omega 6.5` in its first round |
#
# ```bash
# full_scale/launch/one_node.sh guided --data DATA \
#     --weights weights/stable-diffusion-v1-5 --out runs/guided
# teacher=runs/guided
# for steps in 16 8 4 2 1; do
#     full_scale/launch/one_node.sh progressive_with_omega --data DATA \
#         --weights $teacher --out runs/dial-$steps --hyper.steps $steps || break
#     teacher=runs/dial-$steps
# done
# python -m full_scale.export runs/dial-4
# python -m full_scale.sample --weights runs/dial-4/export --omega 6.5 --prompt "a lighthouse at dusk"
# ```
#
# On a laptop: `export GPUS=1`, `--tiny` in place of the first line's weights, and `--steps 2` in each training line. Then every line runs, and learns nothing.
#
# **How far up the ladder.** Rung 1: exactly, and both stages. Rung 2: the first stage on digits, and on shapes a dial
# that is heard at high noise. Rung 3: both stages train Stable Diffusion's classes in the tests, a round from the run before, and stock diffusers
# samples the exports. That a dial still works after the rounds is shown on rung 1 alone.
#
# ## 12.8 Exercises
#
# 1. *(pencil)* In the example of 12.1, let ω be uniform on [0, 4]. A student is not told ω. What does it say about the data at
#     $z=1$, and what is its smallest loss there, with weight 1?
# 2. *(code)* Write a student that is a straight line in ω: two networks, one for $x(c)$ and one for the direction. Train it as
#     `dial`. Check: at ω = 5 its error is less than a tenth of the dial's.
# 3. *(code)* Let the first stage draw ω from [0, 1] and ask for 4 anyway, with the student of exercise 2. How does its error grow with
#     ω? Check: roughly in proportion, outside the range.
# 4. *(open)* Guidance in an interval [@kynkaanniemi2024interval] guides only the middle noise levels. Fold it into a student.
#     What happens to the claim that the shortcut fails?
#
# <details><summary>Answers to 1 and 3</summary>
#
# 1. The target is 1 + 0.4 ω, and its mean is that of ω = 2, which is 1.8. The loss is the variance,
# $0.4^2\cdot16/12=0.213$.
#
# 3. The student says $\hat x(c)+\omega\hat d$. The error of the direction, $\hat d-d$, is multiplied by ω, so far outside the range
# the error grows in proportion to ω. A network with sines of 1000 ω has no such law.
#
# </details>
#
# ## References
#
# Two stages, and ω as an input: [@meng2023guided]. Guidance: [@ho2022cfg]. Halving: [@salimans2022progressive]. The features and
# where they enter, as released: [@luo2023lcm].
