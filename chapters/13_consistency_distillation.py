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
#     title: Consistency distillation
#     summary: Train a network that jumps to the end of a sampling path in one call. What it learns at best, what its loss tells you, and where a second call leads.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - the probability-flow ODE, DDIM and orders (chapters 7 and 8; recapped in 13.1)
#       - PyTorch
# ---

# %% [markdown]
# # 13 Consistency distillation: jump to the end of the path
#
# You have a perfect diffusion model, and time for one network call. So you take one DDIM step, all the way from noise to
# data. The left panel shows where that leads.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import copy
from collections import namedtuple
from dataclasses import replace
from functools import partial

import dlib
import torch
from dlib import CLEAN, Batch, Denoiser, Draw, Loss, boundary, cast, consistency, discrete
from dlib import edm_boundary, exact, grid, metrics, perform, plot, recipes, sample
from dlib import scaled_linear, solvers, train, vp, walk
from dlib.losses import multistep_consistency, squared, weights
from dlib.losses.consistency_losses import ends
from dlib.losses.consistency_steps import compared, jump
from dlib.nets import MLP
from dlib.rollout import composed
from toy_data import digit_batches, digits_split, digits_teacher, gaussian, gmm5, labelled
from toy_data import shape_batches, shapes_teacher
from toy_data.shape_captions import say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet
from toy_data.student_scores import FLOOR, rescored, yardstick

schedule, mixture = discrete(scaled_linear()), gmm5()  # Stable Diffusion's thousand levels
teacher = exact(mixture, schedule)  # the perfect network of these data
top, clean = schedule.at(1.0), schedule.at(schedule.t_min)  # the first and the last level
levels = partial(dlib.levels, schedule)
fresh = lambda step: Batch(mixture.sample(256, Draw(step))[0].float())


def mlp():
    torch.manual_seed(0)
    return Denoiser(MLP(2, 96, 2), schedule, "v")


def trained(recipe, start, teacher, data, steps, lr=4e-3, decay=0.95):
    """A copy of `start` after `steps` of Adam, and the loss of each update."""
    student = replace(start, net=copy.deepcopy(start.net).requires_grad_())
    actors = cast(recipe, teacher, starts={"student": student}, decays={"target": decay})
    optim = torch.optim.Adam(student.net.parameters(), lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    each = lambda step, found: rate.step()
    history = perform(recipe, actors, {"student": optim}, data, steps, Draw(0), each)
    student.net.requires_grad_(False)
    return student, history["student/loss"]


cd = recipes.consistency_distillation(schedule, points=18, sigma_data=1.0)
network, healthy = trained(cd, mlp(), teacher, fresh, 800)
student = cd.sampler.wrap(network)  # the boundary of 13.3

x_T = Draw(0).normal((256, 2))
path = list(walk(teacher, x_T.double(), levels(100), solvers.dpm_solver_3))
truth = path[-1].x / clean.alpha
one_call = {
    "one DDIM step": teacher(x_T, top).x0,
    "student": cd.sampler(network, x_T, draw=Draw(1)),
}
figure(
    plot.endpoints(one_call, truth, mixture.modes_of(truth, within=9)),
    "One DDIM step puts every point near the mean of the data, far from all five modes; "
    "one call of the student puts nearly every point where the teacher's path ends.",
    "Same noise, one network call each. Grey: the distance to the end of the path.",
)

# %% [markdown]
# The teacher is not to blame. From pure noise it can only name the mean of all data, and that is a *direction*, good for a
# short step. The right panel has a network that was asked another question: where does the path end? It learnt
# the answer in 800 updates, from the same teacher, and it too was called once.
#
# How can you train on the ends of paths without walking to them? That is the idea of this chapter. You will also see what such a
# student is at best, how to read its loss, and what a second call does.
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | $x_t=\alpha_tx_0+\sigma_t\varepsilon$ | the sample at time $t$: 1 is noise, 0 the last level of the schedule (`t_min` in code) | chapter 2 |
# | $y=x/\alpha$, $\kappa=\sigma/\alpha$, $\lambda$ | the sample and its noise in units of the data; $-\log\kappa$ | chapter 7 |
# | $x_\theta$, $\varepsilon_\theta$ | the data and the noise that a network guesses at $x$ | chapter 3 |
# | $a$, $b$; $h$ | where the teacher's step starts and ends; its length $\lambda_b-\lambda_a$ | chapter 3 |
# | $\Phi_{t\to s}$; $f$ | the flow map along a path; the jump to its end | new |
# | $N$, $\Psi_i$ | the number of steps of a grid; the teacher's solver step from $t_i$ | new |
# | $d$; sg; θ⁻ | a distance; "no gradient through this"; a moving average of the weights θ | new |
# | $\kappa'$, $q$; $\sigma_d$ | two parts of the boundary; the standard deviation of the data | new |
# | $c$ | the standard deviation of Gaussian data | chapter 7 |
# | $C_{ij}$ | by how much two ways to the end differ | new |
#
# ## 13.1 One step of the teacher
#
# In $y$ and $\kappa$ the probability-flow ODE of every schedule has one form:
#
# $$\frac{dy}{d\kappa}=\varepsilon(\alpha y,\lambda). \label{eq:cd-ode}$$
#
# Its curves are the *paths*. The **flow map** $\Phi_{t\to s}$ carries a point at level $t$ along its path to level $s$. A step of DDIM
# replaces the curve by a straight line, because it freezes the network's answer [@song2021ddim]:
#
# $$F_{t\to s}(x)=\alpha_s\,x_\theta(x,t)+\sigma_s\,\varepsilon_\theta(x,t). \label{eq:jump}$$
#
# One step is off by $O(h^2)$. A path of $N$ such steps has an error $O(1/N)$, so DDIM has order 1. Heun's method asks twice: it goes to the end of DDIM's step, asks
# there again, and takes the mean of both answers for ε. It has order 2.
#
# Try both with a pencil. The data are $\mathcal N(0,1)$, and the step goes from $a$ (α = 0.6, σ = 0.8) to $b$ (α = 0.8, σ = 0.6). For these data
# the perfect network says $x_\theta=\alpha x$ and $\varepsilon_\theta=\sigma x$. The path is a constant, because $x_t$ has variance 1 at every level. You start
# at $x_a=1$, so you should end at 1.
#
# | | ε | $x_b$ |
# |---|---|---|
# | DDIM | 0.8 | 0.8 · 0.6 + 0.6 · 0.8 = 0.96 |
# | Heun | (0.8 + 0.6 · 0.96)/2 = 0.688 | 0.8 · (1/0.6 − (1.333 − 0.75) · 0.688) = 1.012 |
#
# ## 13.2 Ask two neighbours the same question
#
# The **consistency function** is the flow map to the end, in units of data: $f(x,t)=\Phi_{t\to0}(x)/\alpha_0$. Two properties
# determine it [@song2023consistency]. To see that, put $s=0$ into the first:
#
# $$f(x_t,t)=f\big(\Phi_{t\to s}(x_t),s\big)\ \text{for all }s<t,\qquad f(x,0)=x/\alpha_0. \label{eq:consistency}$$
#
# The first property says what two points of one path have *in common*. Nobody has to know the end to check it. So here is the
# training. Choose a grid of $N$ steps, $1=t_1>\dots>t_{N+1}=0$. Draw $i$ uniformly, noise the data to $x_{t_i}$, let the teacher make one step
# to $\hat x_{t_{i+1}}$, and ask for the same answer at both points:
#
# $$\mathcal L=\mathbb E\,d\big(f_\theta(x_{t_i},t_i),\ \mathrm{sg}\,f_{\theta^-}(\hat x_{t_{i+1}},t_{i+1})\big). \label{eq:cd-loss}$$
#
# The cleaner point serves as the target, since it is nearer to the end and should know better. It is answered by a moving average of
# the student's weights, and the **stop-gradient** sg makes a constant of it. In the first figure $N$ is 17, and $d$ is the square, averaged
# over the coordinates.
#
# ## 13.3 The boundary
#
# One thing is missing. A student that says 0 everywhere agrees with itself perfectly. The second property forbids it, and we do not
# train it but build it in. The function $f$ mixes the network's guess with its input, so that only the input is left at the end:
#
# $$f=c_{\text{skip}}\,x+c_{\text{out}}\,x_\theta(x,t). \label{eq:boundary}$$
#
# The factors have to be 1/α and 0 at the end. Those of the paper are
#
# $$c_{\text{out}}=\frac{\kappa'}{\kappa},\qquad c_{\text{skip}}=\frac{q(\kappa')-c_{\text{out}}\,q(\kappa)}{\alpha}. \label{eq:cd-factors}$$
#
# Here $\kappa'=\kappa-\kappa_{\min}$ is the distance to the end, and $q(\kappa)=\sigma_d^2/(\kappa^2+\sigma_d^2)$. At the end $\kappa'=0$, so that $q(\kappa')=1$,
# and $f=x/\alpha$ is left. (The paper writes this with EDM's raw network in the place of $x_\theta$.)
#
# Back to the pencil. Let the grid have a single step, so that every path ends at $b$, where κ is 0.75. At $a$ the distance to the
# end is 0.583, which gives $c_{\text{out}}=0.4375$, and with $\sigma_d=1$ we get $c_{\text{skip}}=0.981$. Let the student start as the perfect denoiser. It says 0.6
# at $x_a=1$, so $f=0.981+0.4375\cdot0.6=1.244$. Heun's step leads to $x_b=1.012$, and the target there is 1.012/0.8 = 1.265. The squared loss is
# 0.0005. The true end is 1/0.8 = 1.25.
#
# This is all of it in plain PyTorch. A network here takes $(x,\text{level})$ and returns its guess of the data:

# %%
# NBVAL_CHECK_OUTPUT
Level = namedtuple("Level", "alpha sigma")


def heun(net, x, a, b):
    k_a, k_b = a.sigma / a.alpha, b.sigma / b.alpha
    eps = lambda x, level: (x - level.alpha * net(x, level)) / level.sigma
    first = eps(x, a)
    second = eps(b.alpha * (x / a.alpha + (k_b - k_a) * first), b)
    return b.alpha * (x / a.alpha + (k_b - k_a) * (first + second) / 2)


def f(net, x, level, end, sigma_d=1.0):
    kappa, last = level.sigma / level.alpha, end.sigma / end.alpha
    q = lambda k: sigma_d**2 / (k**2 + sigma_d**2)
    c_out = (kappa - last) / kappa
    return (q(kappa - last) - c_out * q(kappa)) / level.alpha * x + c_out * net(x, level)


def cd_loss(student, target, teacher, x_0, noise, a, b, end):
    x_a = a.alpha * x_0 + a.sigma * noise
    with torch.no_grad():
        goal = f(target, heun(teacher, x_a, a, b), b, end)
    return (f(student, x_a, a, end) - goal).square().mean()


a, b, one = Level(0.6, 0.8), Level(0.8, 0.6), torch.tensor(1.0)
perfect = lambda x, level: level.alpha * x  # the denoiser of N(0, 1)
print(f"Heun {heun(perfect, one, a, b):.3f}, f at a {f(perfect, one, a, b):.3f}", end=", ")
print(f"loss {cd_loss(perfect, perfect, perfect, one, one / 2, a, b, b):.4f}")

# %% [markdown]
# (The last line has $x_0=1$ and ε = 0.5, which makes $x_a=1$.) In the library `boundary(network, scalings)` is $f$. The function `compared` computes both sides of
# \eqref{eq:cd-loss} for every consistency loss of the book, so it has options that you need not read yet. They are guidance, for [chapter
# 14](14_latent_consistency.ipynb), and an edge before the end, for [chapter 15](15_phased_consistency.ipynb). Here `edge` is `CLEAN`, where `jump`
# returns $f$. We hand both versions the same places of the grid and the same noise, and two networks with arbitrary weights.

# %%
# NBVAL_CHECK_OUTPUT
show(jump, compared)
x_0, times = mixture.sample(256, Draw(2))[0], grid(schedule, 17, "karras")
nets = [MLP(2, 96, 2).double() for _ in range(2)]
for seed, net in enumerate(nets):
    torch.manual_seed(seed)
    torch.nn.init.normal_(net.leave.weight, std=0.1)
new, mean = (Denoiser(net, schedule, "v") for net in nets)

draw = Draw(3)
i, noise = draw.integers(17, 256), draw.normal(x_0)
a, b = (schedule.at(times[place], like=x_0) for place in (i, i + 1))
guess = lambda model: lambda x, level: model(x, level).x0
plain = cd_loss(guess(new), guess(mean), guess(teacher), x_0, noise, a, b, clean)
roles = {"student": new, "target": mean, "teacher": teacher}
library = cd.phases[0].loss(roles, Batch(x_0), Draw(3)).value
gap = abs(plain.item() / library.item() - 1)
claim("C13.1", "the plain loss over the library's, less 1", gap, below=1e-9)

scalings = edm_boundary(schedule, sigma_data=1.0)
wild = Denoiser(lambda x, t, cond: 9 + torch.sin(9 * x), schedule, "eps")
gap = (boundary(wild, scalings)(x_0, clean).x0 - x_0 / clean.alpha).abs().max()
claim("C13.2", "a wild network's f − x/α at the last level (largest)", gap, below=1e-9)

# %% [markdown]
# ## 13.4 What the perfect student is
#
# The pencil has already told us something. The student that brings the loss to zero says 1.265, because that is its target. The truth
# is 1.25. A perfect student repeats the error of its teacher's step.
#
# First see that the loss itself makes no error. For one Gaussian $\mathcal N(0,c^2)$ we know everything. Its standard deviation at level $t$ is
# $\sqrt{\alpha^2c^2+\sigma^2}$, called `size` below, and the flow map only rescales by it. So the true $f$ is known, and so are steps
# without error. Together they must have no loss:

# %%
# NBVAL_CHECK_OUTPUT
c, sixteen = 0.5, grid(schedule, 16, "karras")
size = lambda level: (level.alpha**2 * c**2 + level.sigma**2) ** 0.5
scaled = lambda x, t, cond: x * size(clean) / clean.alpha / size(schedule.at(t, like=x))
f_star = Denoiser(scaled, schedule, "x0")


@solvers.solver(order=99)  # a solver of our own
def exact_step(model, x, a, b, memory=None, noise=None, cond=None):
    return x * size(b) / size(a), memory


how = dict(times=sixteen, solver=exact_step, distance=squared)
found = consistency(f_star, f_star, f_star, Batch(x_T.double()), Draw(3), **how).value
claim("C13.3", "N(0, c²): the loss of the true f, with exact steps", found, below=1e-12)

# %% [markdown]
# Real steps have errors. Suppose that the loss is 0 and that $\theta^-=\theta$. Then the student's answer at $t_i$ is its answer one step later, which
# is its answer two steps later, and so on. Follow this chain down to the boundary:
#
# $$f(\cdot,t_i)=\Psi_N\circ\dots\circ\Psi_{i+1}\circ\Psi_i/\alpha_0. \label{eq:perfect}$$
#
# **The perfect student is the teacher's $N$-step sampler, in one call.** If the solver has order $p$, the student is off by
# $O(N^{-p})$, and no training repairs that. The library's `composed` builds this student. We double $N$ twice and measure the order against
# the true $f$. It should be 2 for Heun and 1 for DDIM. (Such a slope is not yet settled at finite $N$. We allow 0.15.)

# %%
# NBVAL_CHECK_OUTPUT
show(composed)
line, one = exact(gaussian(0.0, c), schedule), torch.ones(1, 1).double()


def off(solver, n):
    best = composed(line, levels(n, "karras"), solver)
    return metrics.rms(best(one, top).x0, f_star(one, top).x0)


p = lambda solver: metrics.order({n: off(solver, n) for n in (40, 80, 160)})
claim("C13.4", "order of Heun's perfect student's error", p(solvers.heun), between=(1.85, 2.15))
claim("C13.5", "order of DDIM's perfect student's error", p(solvers.ddim), between=(0.85, 1.15))

# %% [markdown]
# ## 13.5 What a trained one is: the commutator
#
# No trained student is perfect. Audit the one of the first figure by two ways round. Jump from $x_{t_i}$ to the end; or follow the flow to a later
# $x_{t_j}$ and jump from there. By \eqref{eq:consistency} both should arrive at the same point. The distance between them is the **commutator**:
#
# $$C_{ij}=\big\lVert f(x_{t_i},t_i)-f\big(\Phi_{t_i\to t_j}(x_{t_i}),t_j\big)\big\rVert_{\text{rms}}. \label{eq:commutator}$$
#
# One walk of the teacher fills the whole matrix. Its last column is the distance to the truth. We ask the student for a quarter
# of what one DDIM step has, on average.


# %%
# NBVAL_CHECK_OUTPUT
def commutator(model):
    said = [model(state.x.float(), state.level).x0 for state in path[::10]]
    return torch.tensor([[metrics.rms(u, v) for v in said] for u in said])


two = {"one DDIM step": commutator(teacher), "student": commutator(student)}
figure(
    plot.commutator(two, torch.tensor([state.level.lam for state in path[::10]])),
    "The DDIM step's two ways differ by up to 1.4, the student's by up to 0.24.",
)
jumps, own = (matrix.triu(1).sum() for matrix in two.values())
claim("C13.6", "the student's mean commutator over the DDIM step's", own / jumps, below=0.25)

# %% [markdown]
# ## 13.6 Healthy and sick curves
#
# Two more students have the same network, data and draws. One has no moving average: its target is the student itself. The other
# stops after 200 updates. *Before you look: which of the three losses ends lowest, and is the order of the errors the same?*

# %%
without, losses = trained(cd, mlp(), teacher, fresh, 800, decay=0.0)
early, first_losses = trained(cd, mlp(), teacher, fresh, 200)
curves = {"healthy": healthy, "no average": losses, "200 updates": first_losses}

# %%
# NBVAL_CHECK_OUTPUT
figure(
    plot.curves(
        {name: plot.running_mean(found, 20) for name, found in curves.items()},
        xlabel="update",
        ylabel="loss",
        log="y",
    ),
    "The healthy loss falls from 0.005 to below 0.0002; without an average it ends more than "
    "ten times higher; the run of 200 updates ends between them.",
    "Running means over 20 updates.",
)

# %% [markdown]
# The loss is small from the start, while one call is still wrong by the size of the data. It compares *neighbours*, and a path has
# 17 pairs of them. The error of one call is the sum of their 17 differences. If these are independent, it is $\sqrt{17}=4.1$ times the
# root of the loss. If they are all equal, it is 17 times the root, and by the inequality of Cauchy and Schwarz it cannot be more
# (but for the small errors of the teacher's steps). So we ask both a new network and the healthy student to keep between these two.
# Of the sick runs we ask that they at least double the healthy error. Their own errors should agree within a quarter, although one loss is at least half
# as large again as the other.

# %%
# NBVAL_CHECK_OUTPUT
error = lambda net: metrics.rms(cd.sampler(net, x_T, draw=Draw(1)), truth)
crowd = Batch(mixture.sample(4096, Draw(4))[0].float())


def loss_of(net):  # with itself as the target
    own = {"student": net, "target": net, "teacher": teacher}
    return cd.phases[0].loss(own, crowd, Draw(5)).value.item()


reach = lambda net: error(net) / (2 * loss_of(net)) ** 0.5  # 2: a mean over two coordinates
claim("C13.7", "no average: error over the healthy", error(without) / error(network), above=2)
sick = error(early) / error(without)
claim("C13.8", "200 updates: error over that without average", sick, between=(0.8, 1.25))
sick = loss_of(without) / loss_of(early)
claim("C13.9", "no average: loss over that of 200 updates", sick, above=1.5)
claim("C13.10", "new network: error over its loss's root", reach(mlp()), between=(4.1, 17))
claim("C13.11", "healthy student: the same", reach(network), between=(4.1, 17))

# %% [markdown]
# So read the loss like this: its root, times the number of steps. One call's error per coordinate is hardly larger.
#
# The moving average earns its place. Without it, the student runs after its own noise. The run of 200 updates ends with less than half of that
# run's loss, and with the same error. (Three more seeds gave the same picture.) So judge by samples from fixed noise. (For learning rates that are too large or too small, see
# [14.5](14_latent_consistency.ipynb).)
#
# ## 13.7 A second call
#
# May you call the student twice? Its first answer lies at the end. Add new noise, up to some level $s$, and jump
# again [@song2023consistency, alg. 1]:
#
# $$x_s=\alpha_s\,f(x_t,t)+\sigma_s\,z,\qquad z\sim\mathcal N(0,I). \label{eq:renoise}$$
#
# (The path ends at $\kappa_{\min}$, and some noise is left in $f$. The algorithm therefore adds a little less, $\sqrt{\kappa_s^2-\kappa_{\min}^2}$ in units of the data.) After new noise you are on
# *another path*. The sample changes, but a perfect student's samples keep their distribution, because noised data are what level $s$
# should look like. Is that so? Of exact samples a share $e^{-9/2}=0.011$ lies outside of the circles of three
# standard deviations. With 4000 samples we allow four standard errors, which are 0.0066.

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.stochastic_iterative)
many, stops = Draw(5).normal((4000, 2)), [*schedule.levels([1.0, 0.75, 0.5, 0.25]), CLEAN]
again = lambda f, stops: sample(f, many, stops, solvers.stochastic_iterative, draw=Draw(2))
outside = lambda x: (mixture.modes_of(x.double()) < 0).double().mean()
best = composed(teacher, levels(50), solvers.dpm_solver_pp_2m)
claim(
    "C13.12",
    "perfect student, 4 calls: the share outside",
    outside(again(best, stops)),
    between=(0.0045, 0.0177),
)

# %% [markdown]
# And the trained student? One call leaves about 9 % of its points outside, two calls (from $t=1$ and 0.5) fewer than 7 %. So the second call mends
# some of what the first got wrong. *Predict what four calls leave.*
#
# New noise blurs what earlier calls got wrong, until $x_s$ looks much like noised data. Then only the error of the *last* call is left.
# That call can be had alone: noise exact data to the last stop, and jump once. (At a share of a tenth, with 4000 samples on both sides, four standard
# errors of a ratio are 0.27.)

# %%
# NBVAL_CHECK_OUTPUT
real, z = mixture.sample(4000, Draw(6))[0].float(), Draw(9).normal((4000, 2))
last = stops[3]  # t = 0.25
alone = outside(student(last.alpha * real + last.sigma * z, last).x0)
two, four = (outside(again(student, at)) for at in ([top, stops[2], CLEAN], stops))
claim("C13.13", "4 calls: share outside over the last call's", four / alone, between=(0.73, 1.27))
claim("C13.14", "4 calls over 2 calls: the same", four / two, above=1)

# %% [markdown]
# Four calls leave about 11 %, more than two do. With exact data this student leaves 10 % when it jumps from $t=0.25$, and 7 % from 0.5. With three other seeds the four calls
# left 1.6, 1.1 and 1.6 times what two left. So more is not always better. Choose the last stop where the student is good.
#
# With **guidance** it gets worse. New noise gives $x_s$ the law of noised data, and the points of guided paths at that level have another. [Chapter
# 14](14_latent_consistency.ipynb) measures this, with the longer teacher's steps that made consistency models fast to train.
#
# ## 13.8 Between diffusion and consistency
#
# What if the jump need not go to the end? Cut the grid into *phases*, and let each phase have an edge of its own as the end.
# [Chapter 15](15_phased_consistency.ipynb) does so with the jump of \eqref{eq:jump}. **Multistep consistency models**
# [@heek2024multistep] have the same edges and another loss. They take the target's point $\hat x_s$ at the edge $s$, and ask which clean guess would have led DDIM there from $x_t$.
# Solve $\hat x_s=F_{t\to s}(x_t)$ for $x_\theta$:
#
# $$\tilde x=\frac{\hat x_s-\rho\,x_t}{\alpha_s-\rho\,\alpha_t},\qquad\rho=\frac{\sigma_s}{\sigma_t}. \label{eq:mcm}$$
#
# The loss is the mean of $w(t)\,\lVert x_\theta(x_t,t)-\tilde x\rVert^2$, with a weight $w$.
#
# With a pencil: the edge is $b$, and the target says that $\hat x_s=0.96$. From $x_a=1$ we have ρ = 0.75 and $\tilde x=(0.96-0.75)/(0.8-0.45)=0.6$, the denoiser's
# answer that DDIM used. So this is a denoising loss with a better target (of the same form as in
# [chapter 11](11_progressive_distillation.ipynb)). At one end of the scale stands a single
# phase, which is consistency distillation. At the other end every step is a phase, and the student learns the teacher's $x_\theta$: a diffusion model. Any student must show both limits:

# %%
# NBVAL_CHECK_OUTPUT
stranger, x_0 = exact(labelled(), schedule), Batch(x_T.double())  # it knows other data


def value(loss, edges, **how):
    return loss(stranger, teacher, stranger, x_0, Draw(8), times=sixteen, edges=edges, **how)


mcm = lambda edges: value(multistep_consistency, edges, weight=weights.x0).value
gap = abs(mcm(None) / value(consistency, None, distance=squared).value - 1)
claim("C13.15", "one phase: the multistep loss over distillation's, less 1", gap, below=1e-9)
said = value(ends, sixteen[1:]).prediction
apart = squared(said.x0, teacher(said.x, said.level).x0).mean()
gap = abs(mcm(sixteen[1:]) / apart - 1)
claim("C13.16", "a phase a step: over the squared distance of both x₀, less 1", gap, below=1e-9)

# %% [markdown]
# ## 13.9 Rung 2: digits and captioned shapes
#
# The same recipe distils trained networks. The student starts as a copy of its teacher, so *before training* is the teacher in one call. First
# scikit-learn's digits, with 250 updates. The yardstick is the end of the teacher's own path, in 120 calls. We ask that a fifth of the distance to it is gone.
# It should not come nearer than the perfect student of this grid (13.4).

# %%
# NBVAL_CHECK_OUTPUT
digits, (_, (held_out, names)) = digits_teacher(), digits_split()
made = recipes.consistency_distillation(digits.schedule, points=18, sigma_data=1.0)
writer, _ = trained(made, digits, digits, digit_batches(128, seed=0, drop=0), 250, lr=5e-4)
z, slow = Draw(10).normal(held_out), dlib.levels(digits.schedule, 40)
rows = {
    name: made.sampler(net, z, names, draw=Draw(1))
    for name, net in (("before", digits), ("CD", writer))
}
rows = {f"{name}, 1 call": x for name, x in rows.items()}
rows["teacher, 120 calls"] = sample(digits, z, slow, solvers.dpm_solver_3, names)
first = torch.stack([(names == k).nonzero()[0, 0] for k in range(10)])
figure(
    plot.pictures({name: x[first] for name, x in rows.items()}),
    "Before training one call draws a soft mean digit; after it the strokes lean as they do at "
    "the end of the teacher's path.",
    "Same noise in each column.",
)
before, after, solved = rows.values()
ladder = dlib.levels(digits.schedule, 17, "karras")
ideal = composed(digits, ladder, solvers.heun)(z, ladder[0], names).x0
share, least = (metrics.rms(x, solved) / metrics.rms(before, solved) for x in (after, ideal))
claim(
    "C13.17",
    "digits, 1 call: distance to the teacher's ODE over that before",
    share,
    between=(round(least, 2), 0.8),
)

# %% [markdown]
# One call now comes about as near as two DDIM steps of the teacher do (0.74 of the distance before), and 250 updates are far from enough for
# the rest. They need the moving average: without it the same run ended at 1.2, farther away than it began.
#
# Then a tiny text-to-image world of 16×16 pixels, whose captions have ten tokens. The student gets 100 updates. We
# ask for half of the Fréchet distance to real pictures (less what other real pictures have). And a `reader` of shapes
# should find the caption in a tenth more of the 512 pictures, which is three standard errors.

# %%
# NBVAL_CHECK_OUTPUT
world, codes = shapes_teacher(), asked()  # 512 captions
made = recipes.consistency_distillation(schedule, points=18)
pupil, _ = trained(made, world, world, shape_batches(32, seed=0, drop=0), 100, lr=2e-4)
text = tokens([say(tuple(code)) for code in codes.tolist()])
grey = Draw(11).normal((len(codes), 3, 16, 16))
before, after = (made.sampler(net, grey, text, draw=Draw(1)) for net in (world, pupil))
figure(
    plot.pictures({"before, 1 call": before[:10], "CD, 1 call": after[:10]}),
    "In one call the untrained student paints soft blots, the distilled one shapes.",
    "Ten captions; the same noise in each column.",
)
far = [shapes_frechet(x, codes) - shapes_floor(codes)[0] for x in (before, after)]
claim("C13.18", "shapes: Fréchet distance over that before", far[1] / far[0], below=0.5)
told = [shows(read(x), codes).double().mean() for x in (before, after)]
claim("C13.19", "captions shown, less those before", told[1] - told[0], above=0.1)

# %% [markdown]
# ## 13.10 What should look wrong here
#
# Do you need a teacher? **Consistency training** [@song2023consistency] takes the data point at the next level with the *same noise*, in the
# place of the teacher's step. On average that is where the teacher's Euler step ends (exercise 1, and [chapter 16](16_consistency_training.ipynb)).
#
# Train it on a grid of six steps, with the stop-gradient of \eqref{eq:cd-loss} and without. *Predict what the second one
# draws.* For Gaussian data of the same spread the answer is known. In the limit the samples keep 0.78 of the spread with the
# stop-gradient, and 0.37 without (`tests/dlib/test_consistency.py`). GMM5 is no Gaussian and 300 updates are no limit, so we allow 0.1 to both
# sides, a quarter of the difference.


# %%
# NBVAL_CHECK_OUTPUT
def without_teacher(gradient_through_target):
    new, times = mlp(), grid(schedule, 6, "karras").float()
    f = boundary(new, scalings)

    def loss(batch, draw):
        i, eps = draw.integers(6, 256), draw.normal(batch.x0)
        a, b = schedule.at(times[i], like=eps), schedule.at(times[i + 1], like=eps)
        with torch.set_grad_enabled(gradient_through_target):
            target = f(b.alpha * batch.x0 + b.sigma * eps, b).x0
        return Loss(squared(f(a.alpha * batch.x0 + a.sigma * eps, a).x0, target).mean(), {})

    train(new.net, loss, fresh, 300, lr=4e-3)
    return f(x_T, top).x0.detach()


kept, leaky = (without_teacher(flows).std() / truth.std() for flows in (False, True))
claim("C13.20", "stop-gradient: spread over the data's", kept, between=(0.68, 0.88))
claim("C13.21", "no stop-gradient: the same", leaky, between=(0.27, 0.47))

# %% [markdown]
# Given $x_{t_i}$, the target still varies, because $x_0$ does. A gradient through the target lowers that variance by
# flattening $f$. The loss falls, and the samples shrink to the middle. So what the stop-gradient guards against
# is *noise in the target*. The teacher's step has no noise. There you may let the gradient through: the zero of the
# loss is still \eqref{eq:perfect}, since the boundary forbids constants (exercise 2).
#
# More steps promise more, if you wait. With 17 steps the Gaussian's limit is 0.92, but what is learnt at the clean end has
# 17 levels to climb. After 300 updates the spread was still 1.15 there; after 600, 1200 and 2400 it was 1.06, 0.94 and 0.93.
#
# **With half a minute** on GMM5, VP, `python -m bench students` has trained this recipe on 17 steps of DPM-Solver-3; its student is shipped. *d* (not the loss's) is the sliced
# Wasserstein distance to the flow's ends, over that of two exact sets of 10 000 points. The book asks for .5. Training, not the grid, should limit it.

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
given, rungs = yardstick(1000), vp().levels(grid(vp(), 17, "arctan"))
begin, goal = given.noise.flatten(0, 1), given.ends.flatten(0, 1)
walked = sample(exact(mixture, vp()), begin, rungs, solvers.dpm_solver_3)
walked_d, shipped_d = metrics.sliced_w2(walked, goal) / FLOOR, rescored("CD")["d"]
claim("C13.22", "the shipped student, one call: d", shipped_d, below=0.5)
claim("C13.23", "d of its teacher's 17 steps over its own", walked_d / shipped_d, below=0.1)

# %% [markdown]
# ## 13.11 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | one call is blurred, the loss tiny | the loss compares neighbours; news climbs one level at a time | more updates, or fewer and longer steps (chapter 14) |
# | the loss stays high and wavy | no moving average (13.6) | decay 0.95 |
# | the loss stays high and flat | a rate that is too high (14.5) | divide the rate by ten |
# | samples shrink to the middle | a gradient through a noisy target | `no_grad` around the target |
# | everything becomes one colour, loss 0 | no boundary: a constant agrees with itself | wrap student *and* target in `boundary` |
# | sharp, but not the teacher's samples | the step's own error, \eqref{eq:perfect} | a solver of order 2, or more steps |
# | more calls do not help | the last call's own error stays, and guidance drifts | choose the last stop; 2 to 4 calls; chapters 14 and 15 |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | CD, or a relative | for points, and digits, CD; at full scale `lcm_lora` (chapter 14), which has guidance inside. CD has no recipe file; `full_scale.train` knows it as `--method` `consistency_distillation`; add `--roles.target.decay .95` | in equal time and one call, *d* (13.10's, of the bench) on GMM5 is .43 for CD, 1.2 for LCM, 10 for TCD; CD's teacher makes better steps than DDIM's, which the others have. By Fréchet distance, over that of real pictures, CD leads LCM on digits (1.7 to 3.0); on captioned shapes LCM (1.8) and TCD (2.5) lead CD (4.7) |
# | CD, or finished pairs (chapter 11) | on points, and for one call, pairs | 65 536 of them leave a *d* of .15 in CD's time, their walks counted; 4096, in a seventh of it, leave .6. On digits pairs lead CD too (Fréchet distance 1.4 to 1.7), and on captioned shapes (2.5 to 4.7). CD needs no finished walk, and answers from every level |
# | the teacher's step | CD on the plane: `dpm_solver_3`, three calls; CD on small pictures: Heun, the paper's, two calls. `lcm_lora` keeps its DDIM, one call | the student inherits the step's error, \eqref{eq:perfect}. On the bench's grid seventeen steps of `dpm_solver_3` leave a *d* of .015, Heun's .5, DDIM's 1.7. If samples are sharp, but not the teacher's: a better solver first, then more steps |
# | multistep consistency (13.8) | not yet | we checked its two limits and trained none; chapter 15's phases, its relatives, are measured |
# | points of the grid | 18, that is 17 steps; the paper's ImageNet run has 40 points | a student inherits little error even from eight steps of `dpm_solver_3`, whose walk has a *d* of .06; with Heun's take more. One call blurred, the loss tiny: fewer steps, or more updates |
# | spacing | `karras`; on GMM5 `arctan` | with `arctan` and `dpm_solver_3` instead of `karras` and Heun, and with $\sigma_d=1$ in place of .5, a run on the book's mixtures leaves about half the error. We did not take the three apart |
# | $\sigma_d$ | about the standard deviation of your data: .5 for the captioned shapes, .75 or 1 for the digits | it only shapes the boundary; we did not compare values |
# | average of the target | 0.95 | without it the error on the plane triples (C13.7), and on the digits 250 updates end farther away than they began (1.2 times the distance). The adapters of LCM's script have none (chapter 14); whether they would gain we did not measure |
# | rate | from nothing 4e-3; from a teacher 5e-4 (digits), 2e-4 (shapes) | loss high and flat: a tenth of it. Pictures hardly change: three times as much |
# | updates | until samples from fixed noise no longer change | the loss does not tell (13.6). 800 updates of 256 points leave 9 % outside; on VP 2300 of 512 left 3.7 % in no mode, and 2900 leave 3.3 %. Exact points: 1.1 % |
# | calls | on the plane one; or two, with the second from $t=0.5$. On pictures 2 to 4 are usual | four left 1.1 to 1.7 times as many points outside as two did (13.7). The last stop belongs where one jump from noised data is good |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | chapter 14 has memory and hours of `lcm_lora`; its rows on skip, rate and ω are for Stable Diffusion too |
# | seeds, to compare two settings | three | this page's claims have one seed each, the bench three; where the text has more, it says so |
#
# **The real runs.** Start student and target as the teacher. CD for ImageNet-64 has 40 points, Heun's step, decay
# 0.95, batch 2048 and 600 000 updates [@song2023consistency]. On Stable Diffusion the loss runs in latent space with guidance inside, as LCM:
# 4000 updates at $768^2$, 32 A100-hours [@luo2023lcm]. For adapters [@luo2023lcmlora] the public script takes *no average*, at rate $10^{-4}$. None of
# these results is reproduced here.
#
# **Where the toy stops being true.** The plane has two dimensions and a perfect teacher. A real student is far from perfect at one
# call, so new noise may repair more than it spoils there: 2 to 4 calls are usual.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(mixture, schedule)` | `full_scale.families.sd.denoiser(unet, scheduler_config)`, frozen |
# | `compared`, `consistency` | the same functions, in `full_scale.train lcm_lora` and `pcm_lora` |
# | `trained`, 800 updates of 256 points | `full_scale.train lcm_lora`: 5000 steps of 96 pictures, adapters, checkpoints |
# | `cd.sampler(network, x_T)` | the recipe's own sampler, which `full_scale.sample` and `full_scale.export` read |
#
# ```bash
# python -m full_scale.prepare --weights weights/stable-diffusion-v1-5 --source pictures/ --out data
# torchrun --standalone --nproc_per_node 8 -m full_scale.train lcm_lora \
#     --weights weights/stable-diffusion-v1-5 --data data --out runs/lcm
# python -m full_scale.export runs/lcm
# ```
#
# With `--tiny` for `--weights …`, `--steps 2` and one process, everything runs anywhere, and learns nothing.
#
# **How far up the ladder.** Rung 1: exactly, and trained. Rung 2: digits and captioned shapes. Rung 3: the recipes train Stable Diffusion's classes in
# the tests, with random weights. No published figure is reproduced.
#
# ## 13.12 Exercises
#
# 1. *(pencil)* $\mathcal N(0,c^2)$, $\alpha=1$: show that an Euler step from $\kappa_1$ to $\kappa_2$ multiplies $y$ by
#     $(c^2+\kappa_1\kappa_2)/(c^2+\kappa_1^2)$, and that this is also the regression of the noisy neighbour on $y$. So what does a
#     noisy target cost *with* the stop-gradient?
# 2. *(code)* Train as in 13.10 without stop-gradient, but on 17 steps and towards the end of the teacher's Heun step, for 800
#     updates. Predict whether it shrinks. Check: its distance to `truth` is less than that of the first figure's student.
# 3. *(code)* Sample the *perfect* student of 13.7 by DDIM, with four calls and without new noise, from `x_T`. Does it keep to its path?
#     Check: its distance to `truth` is more than ten times that of its own single call.
# 4. *(open)* The first figure's student is limited by its grid, its solver and its 800 updates. Which of them matters most? Check: you reach
#     half of its distance to `truth` in the same time. (The docstring of the recipe has a hint.)
#
# <details><summary>Answers to 1 and 3</summary>
#
# 1. $\varepsilon=\kappa_1y/(c^2+\kappa_1^2)$, so $y+(\kappa_2-\kappa_1)\,\varepsilon=y\,(c^2+\kappa_1\kappa_2)/(c^2+\kappa_1^2)$. The
# neighbours $x_0+\kappa_1\varepsilon$ and $x_0+\kappa_2\varepsilon$ have covariance $c^2+\kappa_1\kappa_2$, the first has variance
# $c^2+\kappa_1^2$: the same ratio. With the stop-gradient a noisy target gives Euler's student: order 1, claim C13.5.
#
# 3. `metrics.rms(sample(best, x_T, stops, solvers.ddim), truth)`. It does not keep to its path. $f$ is the *end of the
# path*, not the mean $x_\theta$ that DDIM wants: it steps along a straight line to the end, and the path is curved.
#
# </details>
#
# ## References
#
# Consistency models, their distillation and training: [@song2023consistency]; in phases: [@heek2024multistep].
# Latent consistency, and as an adapter: [@luo2023lcm; @luo2023lcmlora]. DDIM: [@song2021ddim].
