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
#     title: Flow matching
#     summary: Regress on straight lines, get a curved flow; and every diffusion model is a velocity model, once you convert it.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - the probability-flow ODE (chapter 4; recapped below)
#       - PyTorch, conditional expectations
# ---

# %% [markdown]
# # 5 Flow matching: a diffusion model is a velocity model after conversion
#
# Draw noise $\varepsilon$, draw data $x_0$, and join them by a straight line. Train a network on the direction of such lines; sample by
# following what it says. A straight line needs one step. Does it?
#
# The data are two modes on a line, grey is their density at each time, and the network is perfect.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import math
import numpy as np
import torch
from dlib import CLEAN, Batch, Denoiser, Draw, Mixture, converted, cosine, denoising, exact
from dlib import flow, metrics, nets, optimal_coupling, plot, sample, solvers, train, vp
from dlib import walk
from dlib.losses import uniform_times, weights
from toy_data import digits_teacher, gmm5

f64, schedule = torch.float64, flow()  # α = 1 − t, σ = t
even = lambda n: schedule.levels(torch.linspace(1, 0, n + 1))  # n equal steps in t
line = Mixture(
    torch.tensor([0.3, 0.7]), means=torch.tensor([[-1.2], [0.8]]), stds=torch.tensor([0.25, 0.4])
)
bell = lambda c: Mixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([c]))  # N(0, c²)
perfect = exact(line, schedule)

# %%
noise = torch.special.ndtri(torch.linspace(0.02, 0.98, 25, dtype=f64))[:, None]  # quantiles
data, levels = line.sample(25, Draw(1))[0], even(100)
straight = lambda data: [a.alpha * data + a.sigma * noise for a in levels]
first = perfect(noise, levels[0]).velocity
panels = {
    "pairs: straight, they cross": straight(data),
    "the flow: it bends": [s.x for s in walk(perfect, noise, levels, solvers.euler)],
    "one Euler step": [noise + (a.t - 1) * first for a in levels],
    "sorted pairs: none cross": straight(data.sort(0).values),
}
panels = {name: torch.stack(xs)[:, :, 0] for name, xs in panels.items()}
figure(
    plot.fans(panels, levels, torch.arange(25) // 5, line),
    "Straight pairs cross each other; the flow bends and keeps its order; a single Euler "
    "step sends all noise to one point between the modes; sorted pairs do not cross.",
    "Colour: where the noise lay. Grey: the density along the first two panels' paths.",
)

# %% [markdown]
# Top left, the lines that the network was trained on: they cross. Top right, the paths that it makes: they bend, and keep
# their order. Bottom left, one step along its first direction: *everything* lands on one point.
#
# What does the network learn? Why is that a diffusion model? And what really straightens the paths (bottom right)?
#
# **Recap.**
#
# - Noise is added as $x_t=\alpha_tx_0+\sigma_t\varepsilon$; $t=1$ is noise, $t=0$ is data, a dot is $d/dt$. We write $\lambda=\log(\alpha/\sigma)$ and $\kappa=\sigma/\alpha$.
# - The perfect network says $\varepsilon(x,t)=\mathbb E[\varepsilon\mid x_t=x]$. A call has five faces (chapter 2): `.eps`, `.x0`,
#   `.v` $=\alpha\varepsilon-\sigma x_0$, `.velocity`, `.score` $=\nabla\log p_t$. `exact(mixture, schedule)` is such a network.
# - The probability-flow ODE carries the density $p_t$ of $x_t$ (chapter 4). For $y=x/\alpha$ it reads $dy/d\kappa=\varepsilon(x,t)$, whatever the schedule.
# - DDIM steps from level $a$ to $b$ by $\alpha_bx_0+\sigma_b\varepsilon$: keep what the network said, change the level.
#
# ## 5.1 From crossing lines to a flow
#
# Fix a pair $(x_0,\varepsilon)$. As $t$ moves, $x_t$ has the **conditional velocity** $\dot\alpha x_0+\dot\sigma\varepsilon$. On the straight
# schedule, $\alpha=1-t$ and $\sigma=t$, that is $\varepsilon-x_0$. Many lines pass through one point $x$. The mean of their velocities is the **marginal velocity**
#
# $$u_t(x)=\mathbb E\big[\dot\alpha x_0+\dot\sigma\varepsilon\,\big|\,x_t=x\big]. \label{eq:fm-marginal}$$
#
# It moves the density just as the lines do. Take a smooth test function $\varphi$ that vanishes far away. By the chain rule
#
# $$\frac d{dt}\mathbb E\,\varphi(x_t)=\mathbb E\big[\nabla\varphi(x_t)\cdot(\dot\alpha x_0+\dot\sigma\varepsilon)\big]=\mathbb E\big[\nabla\varphi(x_t)\cdot u_t(x_t)\big],$$
#
# the second step by averaging over pairs with the same $x_t$ first. Write both ends as integrals against $p_t$ and integrate by parts. Since $\varphi$ is arbitrary, this is the **continuity equation**
#
# $$\frac{\partial p_t}{\partial t}=-\nabla\cdot(p_t\,u_t). \label{eq:fm-continuity}$$
#
# So points that start in $p_1$ and follow $\dot x=u_t(x)$ have the density $p_t$ at every time (if $u$ is smooth enough to have one solution). And the single
# point? At $t=1$ nothing is known of $x_0$, so $u_1(x)=x-\mathbb E\,x_0$: the step lands on the mean of the data.
#
# Check it on the mixture, whose density is known. (A central difference with $h=10^{-5}$ is good to some $(h/t)^2$, and to rounding over $h$: hence the bound.)

# %%
# NBVAL_CHECK_OUTPUT
x = torch.linspace(-3, 3, 61, dtype=f64).repeat(3)[:, None].requires_grad_()
t, h = torch.tensor([0.2, 0.5, 0.8], dtype=f64).repeat_interleave(61), 1e-5
density = lambda t: line.log_prob(x, schedule.at(t, like=x)).exp()
flux = density(t) * perfect(x, schedule.at(t, like=x)).velocity[:, 0]
outflow = torch.autograd.grad(flux.sum(), x)[0][:, 0]
change = (density(t + h) - density(t - h)) / (2 * h)
claim(
    "C05.1",
    "∂p/∂t + ∇·(pu), the continuity equation (largest, over the largest ∂p/∂t)",
    ((change + outflow).abs().max() / change.abs().max()).item(),
    below=1e-6,
)

# %% [markdown]
# The proof used neither that $\varepsilon$ is normal nor that it is independent of $x_0$ (section 5.5 lives on that). If it is both, $u$ is chapter 4's
# ODE: put $x_0=(x-\sigma\varepsilon)/\alpha$ into \eqref{eq:fm-marginal}, and $u=\frac{\dot\alpha}\alpha x-\sigma\dot\lambda\,\varepsilon(x,t)$.
#
# ## 5.2 The loss that you can compute
#
# You would like to regress on $u$ (**flow matching**, FM). You can regress on lines (**conditional** flow matching, CFM
# [@lipman2023flow; @liu2023rectified; @albergo2023stochastic]):
#
# $$\mathrm{FM}=\mathbb E\lVert u_\theta(x_t,t)-u_t(x_t)\rVert^2,\qquad \mathrm{CFM}=\mathbb E\lVert u_\theta(x_t,t)-(\dot\alpha x_0+\dot\sigma\varepsilon)\rVert^2. \label{eq:fm-losses}$$
#
# Given $x_t$, the line's velocity scatters around its mean $u_t(x_t)$, and nothing else is random. So the cross term of the square vanishes:
#
# $$\mathrm{CFM}=\mathrm{FM}+\mathbb E\operatorname{Var}[\dot\alpha x_0+\dot\sigma\varepsilon\mid x_t]. \label{eq:fm-gap}$$
#
# The last term does not contain $\theta$: **the gradients agree, exactly.** Here is CFM in code. It is the book's one denoising loss, for a network that
# predicts `velocity`. To get its expectation without sampling error, hand it all pairs of a grid, each weighted by its probability: on a line such sums are good to rounding.

# %%
show(denoising)
z = torch.arange(-10, 10, 0.25, dtype=f64)


def cfm(model, data, t, face="velocity"):
    x0, eps = torch.cartesian_prod(data.stds.max() * z, z).split(1, dim=1)  # all pairs
    share = torch.softmax(data.log_prob(x0, CLEAN) - eps[:, 0] ** 2 / 2, 0)[:, None]
    weight = weights.Weight(face, lambda level, schedule: len(x0) * share)  # mean → sum
    times = lambda draw, n: torch.full((n,), t, dtype=f64)
    return denoising(model, Batch(x0, noise=eps), Draw(0), weight, times).value


# %% [markdown]
# And FM, since we know $u$. Any function with two parameters is the network.


# %%
# NBVAL_CHECK_OUTPUT
def fm(model, data, t):
    x, level = torch.arange(-8, 8, 0.05, dtype=f64)[:, None], schedule.at(t)
    off = model(x, level).velocity - exact(data, schedule)(x, level).velocity
    return torch.softmax(data.log_prob(x, level), 0) @ off[:, 0] ** 2


theta = torch.tensor([1.3, 0.7], dtype=f64, requires_grad=True)
wild = Denoiser(lambda x, t, cond: torch.sin(theta[0] * x + theta[1]), schedule, "velocity")
slope = lambda loss: torch.autograd.grad(loss(wild, line, 0.4), theta)[0]
claim(
    "C05.2",
    "gradient of CFM − gradient of FM (relative)",
    (slope(cfm) - slope(fm)).norm() / slope(fm).norm(),
    below=1e-9,
)

# %% [markdown]
# ## 5.3 A loss that cannot reach zero
#
# A flow-matching loss that stops falling is not broken: it has a floor, the variance in \eqref{eq:fm-gap}. For data $\mathcal N(0,c^2)$ you can compute
# it. Given $x_t$, a mixture $ax_0+b\varepsilon$ has its variance, less its squared covariance with $x_t$ over $V=\alpha^2c^2+\sigma^2$, the variance of $x_t$:
#
# $$a^2c^2+b^2-\frac{(a\alpha c^2+b\sigma)^2}{V}=\frac{c^2(a\sigma-b\alpha)^2}{V}. \label{eq:fm-variance}$$
#
# On straight paths $a=-1$ and $b=1$, so the squared bracket is $(\sigma+\alpha)^2=1$. With $\tan\varphi=\kappa/c$
#
# $$\min\mathrm{CFM}=\int_0^1\frac{c^2\,dt}{(1-t)^2c^2+t^2}=c\int_0^{\pi/2}d\varphi=\frac{c\pi}2\quad\text{a dimension}. \label{eq:fm-floor}$$
#
# **Flow matching by its other name.** At a given $x_t$, an error of ε fixes the error of every other face. So flow matching is an ε-loss with a weight. On straight
# paths $u=(\varepsilon-x)/\alpha$ errs by $1/\alpha$ times ε's error, and $d\lambda/dt=-1/(t(1-t))$. Uniform $t$ gives
#
# $$\int_0^1\frac{\lVert\varepsilon-\varepsilon_\theta\rVert^2}{(1-t)^2}\,dt=\int e^{-\lambda}\,\lVert\varepsilon-\varepsilon_\theta\rVert^2\,d\lambda. \label{eq:fm-weight}$$
#
# Do the same for the $v$-loss on the cosine schedule, $\alpha=\cos\frac\pi2t$ and $\sigma=\sin\frac\pi2t$: $v$ errs by $1/\alpha$ too, $d\lambda/dt=-\frac\pi{2\alpha\sigma}$, and the weight is $\frac2\pi e^{-\lambda}$. **Flow matching is
# $v$-prediction on the cosine schedule, times $\pi/2$** [@kingma2023understanding]. Such objectives differ by a weight over λ, and by nothing else. So the $v$-loss must stop at $c$, not at $c\pi/2$:

# %%
# NBVAL_CHECK_OUTPUT
nodes, shares = np.polynomial.legendre.leggauss(60)  # an integral from −1 to 1


def least(c, schedule=schedule, face="velocity"):  # the perfect network's loss, ∫ dt
    at = lambda t: cfm(exact(bell(c), schedule), bell(c), t, face).item()
    return [at((node + 1) / 2) for node in nodes] @ shares / 2


claim(
    "C05.3",
    "least CFM loss over cπ/2, c = 0.2, 1, 2 (largest departure from 1)",
    max(abs(least(c) / (c * math.pi / 2) - 1) for c in (0.2, 1.0, 2.0)),
    below=1e-6,
)
claim(
    "C05.4",
    "least v-loss on the cosine schedule over c (largest departure from 1)",
    max(abs(least(c, cosine(s=0.0), "v") / c - 1) for c in (0.2, 1.0, 2.0)),
    below=1e-6,
)

# %% [markdown]
# ## 5.4 One model in other clothes
#
# **Another face.** A face is a mixture $w=ax_0+b\varepsilon$, and so is $x$. Two linear equations for $x_0$ and $\varepsilon$, solved by Cramer's rule:
#
# $$\begin{pmatrix}x\\w\end{pmatrix}=\begin{pmatrix}\alpha&\sigma\\a&b\end{pmatrix}\begin{pmatrix}x_0\\\varepsilon\end{pmatrix},\qquad
# x_0=\frac{bx-\sigma w}{\alpha b-\sigma a},\quad \varepsilon=\frac{\alpha w-ax}{\alpha b-\sigma a}. \label{eq:fm-table}$$
#
# | face | $(a,b)$ | $\alpha b-\sigma a$ | silent at |
# |---|---|---|---|
# | ε | $(0,1)$ | $\alpha$ | $\alpha=0$, on $x_0$ |
# | $x_0$ | $(1,0)$ | $-\sigma$ | $\sigma=0$, on ε |
# | $v$ | $(-\sigma,\alpha)$ | $D=\alpha^2+\sigma^2$ | nowhere |
# | velocity | $(\dot\alpha,\dot\sigma)$ | $-\alpha\sigma\dot\lambda$; 1 on straight paths | nowhere on straight paths |
# | score | $(0,-1/\sigma)$ | $-\alpha/\sigma$ | both ends |
#
# Mind $D$: it is 1 on variance-preserving schedules, and code that forgot it works only there.
#
# **Another schedule.** A perfect network answers with the means of $x_0$ and ε, given $y=x/\alpha=x_0+\kappa\varepsilon$. They depend on the pair $(y,\kappa)$ and on nothing else. So ask it at the
# level of its *own* schedule that has the same κ, and keep $y$: the point there is $x'=\frac{\alpha'}\alpha x$, with a prime for its own schedule. Its $x_0$ and ε hold unchanged. (`_size` is $\sqrt D$: the code uses $\sqrt{D'/D}$, the same ratio, which survives $\alpha=0$. `.raw` is what a network
# itself said.)
#
# Here an ε-model on VP, the variance-preserving schedule, becomes a velocity model on straight paths. The truth needs no table: the mixture's own $\mathbb E[\varepsilon-x_0\mid x]$.

# %%
# NBVAL_CHECK_OUTPUT
show(converted)
mixture = gmm5()  # five modes in the plane
on_vp = converted(exact(mixture, vp()), vp(), "eps")
on_flow = converted(on_vp, flow(), "velocity")
x, level = Draw(1).normal((99, 2), f64), flow().at(0.6)
x0, eps = mixture.posterior_means(x, level)  # E[x₀|x], E[ε|x]
claim(
    "C05.5",
    "ε on VP, converted − E[ε − x₀ | x] on straight paths (largest)",
    (on_flow(x, level).raw - (eps - x0)).abs().max(),
    below=1e-9,
)

# %% [markdown]
# Converting there and back proves less: a velocity with its sign wrong both ways comes back unchanged. In assignment 5 you
# write the test that catches such converters.
#
# **The same samples.** On straight paths Euler's step is
#
# $$x_a+(t_b-t_a)(\varepsilon-x_0)=(1-t_b)\,x_0+t_b\,\varepsilon=\alpha_bx_0+\sigma_b\varepsilon, \label{eq:fm-euler}$$
#
# because $x_a=(1-t_a)x_0+t_a\varepsilon$. **Euler for flow matching is DDIM**, and DDIM, Euler's rule in $(y,\kappa)$, does not see the schedule. Walk the ε-model by DDIM on VP and its
# converted twin by Euler, through the same ten κ:


# %%
# NBVAL_CHECK_OUTPUT
def end(model, solver, start, label=None):  # y = x/α after ten steps
    path = [model.schedule.at_lam(l) for l in torch.linspace(-3.5, 3.5, 11).tolist()]
    return sample(model, path[0].sigma * start, path, solver, label) / path[-1].alpha


start = Draw(0).normal((256, 2), f64)
by_ddim, by_euler = end(on_vp, solvers.ddim, start), end(on_flow, solvers.euler, start)
claim(
    "C05.6",
    "ε on VP by DDIM − velocity on straight paths by Euler (RMS)",
    metrics.rms(by_ddim, by_euler),
    below=1e-9,
)

# %% [markdown]
# A path may look straighter in one schedule's $x$ than in another's; it is one curve $y(\kappa)$. What straight *conditional* paths give you is a training weight, \eqref{eq:fm-weight}, and a schedule on which Euler is DDIM.
#
# ## 5.5 What does straighten: the coupling
#
# Section 5.1 allows *any* coupling of $x_0$ and $\varepsilon$. **Optimal transport** takes the one with the least $\mathbb E\lVert
# x_0-\varepsilon\rVert^2$. No swap of two noises may make it cheaper, so $(x_0-x_0')\cdot(\varepsilon-\varepsilon')\ge0$ for every two pairs. Two lines that meet at a time $t$
# have $(1-t)(x_0-x_0')=-t(\varepsilon-\varepsilon')$, a negative product. **Lines of optimal pairs never cross.** Then $x_t$ tells the target, the floor of the loss is 0, the flow is straight
# and one step is exact.
#
# In practice one pairs within a batch of $n$ [@tong2024improving; @pooladian2023multisample]. What does that save of $\mathbb E\lVert x_0-\varepsilon\rVert^2$? Only its
# part $-2x_0\cdot\varepsilon$ depends on the pairs. Given $x_0$, its products with the $n$ noises are normal with standard deviation $\lVert x_0\rVert$, and the largest of $n$ such numbers is on average at
# most $\lVert x_0\rVert\sqrt{2\ln n}$. For data with $\mathbb E\lVert x_0\rVert^2=d$, their dimension, $\mathbb E\lVert x_0\rVert\le\sqrt d$, and independent pairs cost $2d$. So
#
# $$\text{share of the cost that is saved}\;\le\;\sqrt{\frac{2\ln n}d}. \label{eq:fm-batch}$$
#
# Many dimensions come near it: if each $x_0$ in turn picks the best noise left, three quarters choose among $n/4$ or more. For $n=256$ that alone is half of the bound.

# %%
# NBVAL_CHECK_OUTPUT
show(optimal_coupling)


def cost(n, d):  # over independent pairs', 2 a coordinate
    draw = Draw(n)
    pairs = [optimal_coupling(Batch(draw.normal((n, d), f64)), draw) for _ in range(8192 // n)]
    return sum((b.x0 - b.noise).square().mean().item() for b in pairs) / len(pairs) / 2


costs = {f"d = {d}": {n: cost(n, d) for n in (2, 4, 16, 64, 256)} for d in (1, 2, 8, 64)}
claim(
    "C05.7",
    "d = 64, n = 256: share of the cost saved, over √(2 ln n / d)",
    (1 - costs["d = 64"][256]) / math.sqrt(2 * math.log(256) / 64),
    between=(0.5, 1),
)
figure(
    plot.convergence(costs, "batch size n", "transport cost over independent pairs'"),
    "On a line the cost falls towards zero as the batch grows; in 64 dimensions it is "
    "still two thirds of the independent pairs' cost at 256.",
    "Data and noise both normal, in $d$ dimensions: the laws' optimum costs nothing.",
)

# %% [markdown]
# In Stable Diffusion's $d=16\,384$, a batch of 256 saves at most 2.6 %. Chapter 18 makes its pairs with the model itself.
#
# Two traps. **No score**: $\varepsilon$ given $x_0$ is no longer normal, and $-\mathbb E[\varepsilon\mid x]/\sigma$ is *not*
# $\nabla\log p_t$. A sampler that reads a score off gives wrong variances (exercise 3). **Labels**: couple within each class. Across classes, a class's noise is no longer the $\mathcal N(0,I)$ from which you sample.
#
# Now train a small MLP on the five modes, with independent and with coupled noise.


# %%
def trained(couple, seed):
    torch.manual_seed(seed)
    model, points = (
        Denoiser(nets.MLP(2, width=64, depth=2), schedule, "velocity"),
        Draw(10 + seed),
    )

    def loss(batch, draw):
        return denoising(model, couple(batch, draw), draw, weights.velocity, uniform_times(0))

    data = lambda step: Batch(mixture.sample(128, points)[0].float())
    train(model.net, loss, data, 400, lr=2e-3, seed=seed)
    return model


# %% [markdown]
# Take *one* step from 2000 noises. The independent network can only send them near the mean (section 5.1). The coupled one should end several times closer to the data.

# %%
# NBVAL_CHECK_OUTPUT
start, real = Draw(9).normal((2000, 2)), mixture.sample(2000, Draw(8))[0].float()
one_step = lambda model: sample(model, start, even(1), solvers.euler).detach()
alone = [one_step(trained(lambda batch, draw: batch, seed)) for seed in (0, 1, 2)]
coupled = [one_step(trained(optimal_coupling, seed)) for seed in (0, 1, 2)]
w2 = lambda x: metrics.sliced_w2(x, real)
claim(
    "C05.8",
    "coupled over independent, one step: sliced W₂ to the data (worst of 3)",
    max(w2(x) / w2(y) for x, y in zip(coupled, alone)),
    below=0.3,
)
figure(
    plot.modes({"data": real, "independent": alone[0], "coupled": coupled[0]}, mixture),
    "One Euler step of the independent network gathers in the middle; that of the coupled "
    "network covers the five modes, with some points between them.",
    "One network call from noise. Grey points lie in no mode.",
)

# %% [markdown]
# ## 5.6 Rung 2: the digits network is a flow model
#
# The shipped digits network predicts $v$ on VP. One line, no training, and Euler for flow matching runs it. (Float32's $10^{-7}$, times at most $\kappa=e^{3.5}$ in each of ten steps, makes less than $10^{-4}$; the bound leaves the network a factor of ten.)

# %%
# NBVAL_CHECK_OUTPUT
teacher, digit = digits_teacher(), torch.arange(10)
start = Draw(3).normal((10, 1, 8, 8))
by_ddim = end(teacher, solvers.ddim, start, digit)
by_flow = end(converted(teacher, flow(), "velocity"), solvers.euler, start, digit)
claim(
    "C05.9",
    "digits, ten steps: v on VP − its conversion (largest; ink 1, paper −1)",
    (by_ddim - by_flow).abs().max(),
    below=1e-3,
)
figure(
    plot.pictures({"v on VP, by DDIM": by_ddim, "as a velocity, by Euler": by_flow}),
    "Both rows show the same ten digits.",
    "One network, one noise a column, ten calls.",
)

# %% [markdown]
# ## 5.7 What should look wrong here
#
# Many codes put $t=1$ at data (the rectified-flow release, facebookresearch/flow_matching, torchcfm) and regress $x_0-\varepsilon$, which is $dx/dt$ there. In the time of
# this book and of SD3 it is $-\dot x$, and the sampler must subtract.
#
# Forget it, for data $\mathcal N(0,c^2)$ with $c=\tfrac12$. *Predict the standard deviation at the end*, before you run the cell.
# ($u$ is linear, so a start at 1 ends at it.)

# %%
# NBVAL_CHECK_OUTPUT
c, right, one = 0.5, exact(bell(0.5), schedule), torch.ones(1, 1, dtype=f64)
slip = Denoiser(
    lambda x, t, cond: -right(x, schedule.at(t, like=x)).velocity, schedule, "velocity"
)
spread = lambda model: sample(model, one, even(1000), solvers.euler).item()
claim(
    "C05.10",
    "the sign forgotten: standard deviation at the end, over 1/c",
    spread(slip) * c,
    between=(0.98, 1.02),
)
claim("C05.11", "the right sign: over c", spread(right) / c, between=(0.98, 1.02))

# %% [markdown]
# The right flow keeps $x/\sqrt V$ constant, so $u=\frac{\dot V}{2V}x$; with $\dot x=-u$ it is $x\sqrt V$ that stays, and the end is $\sqrt{V_1/V_0}=1/c$. Narrow data become wide.
#
# ## 5.8 In practice
#
# - **Which times.** SD3 draws $\operatorname{logit}t\sim\mathcal N(0,1)$ [@esser2024scaling]. On straight paths $\operatorname{logit}t=\log\kappa$, so this is EDM's log-normal κ:
#   `lognormal_times(flow(), 0, 1)`. It trains more in the middle of λ and changes no optimum.
# - **Shift.** $t'=\frac{mt}{1+(m-1)t}$ is $\kappa'=m\kappa$: the same as dividing the data by $m$, since $y'/m=x_0/m+\kappa\varepsilon$. SD3 uses $m=3$ at $1024^2$. diffusers
#   shifts its clean end twice (.003, then .009; a test shows it).
# - **The ends.** A velocity network is well defined at $\alpha=0$. A converted VP model starts where VP does, at $t=.9935$; `converted` says so.
# - **Where the toy stops being true.** A learnt ε-model errs, and conversion keeps its errors: dividing by $\alpha$ magnifies them near noise.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.families.sd.denoiser(unet, scheduler_config)`, ε or $v$ on its ladder |
# | `converted(model, flow(), "velocity")` | the same function on that denoiser; a test runs it |
# | Euler on straight paths | `--solver ddim` at the same κ: the same pictures, by \eqref{eq:fm-euler} |
# | `denoising` with `weights.velocity` | the same function: `--hyper.weight velocity`, with the ladder's own clock |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" --solver ddim --grid lam --steps 20
#
# python -m full_scale.sample --weights DIR_OR_HUB_ID --prompt "a lighthouse at dusk" \
#     --solver ddim --grid lam --steps 20 --omega 6.5
#
# python -m full_scale.train finetune --weights DIR_OR_HUB_ID --data DATA --out runs/flow \
#     --hyper.weight velocity
# ```
#
# **How far up the ladder.** Rung 1: both losses, the floor, the conversion to rounding. Rung 2: a trained $v$-network as a flow model. Rung 3: conversion and Euler's step, on Stable Diffusion's
# classes; there is no adapter for weights trained as flows (SD3). So far nobody asked for anything: [chapter 6](06_guidance.ipynb) asks for a class.
#
# ## 5.9 Exercises
#
# 1. *(pencil)* Find the least ε-loss at a level from \eqref{eq:fm-variance}. Where does it go as $\sigma\to0$ and as $\alpha\to0$, and what does that say about an ε-network near data?
# 2. *(code)* Couple a batch of 256 from `labelled()` across its labels, then each label's rows by themselves. Check: one label's mean noise is more than five standard errors from 0, then less.
# 3. *(pencil and code)* For data $\mathcal N(0,4)$ the optimal pairs are $x_0=2\varepsilon$. Find $u$, and the variance that ancestral sampling (chapter 4's η = 1) ends with when it reads $-\varepsilon/\sigma$ as the score. Check: one Euler step gives 4, a thousand ancestral steps do not.
# 4. *(open)* In 64 dimensions batch coupling saves a third of the cost. Does one step get better on the digits, which have 64 pixels?
#
# <details><summary>Answer to 1</summary>
#
# $a=0$, $b=1$: $\alpha^2c^2/(\alpha^2c^2+\sigma^2)$. As $\alpha\to0$ it is 0: $x_t$ *is* the noise. As $\sigma\to0$ it is 1, the whole variance: nothing can be known of ε.
#
# </details>
#
# <details><summary>Answer to 3</summary>
#
# $x_t=(2-t)\varepsilon$, so $\varepsilon=x/(2-t)$ and $u=-x/(2-t)$. With $s=-\varepsilon/\sigma$ the variance obeys $\dot V=\frac{2t}{(1-t)(2-t)}V-\frac{2t}{1-t}$. The homogeneous solution is $(2-t)^4/(1-t)^2$, and $V$ is finite at
# $t=1$, so $V(0)=16\int_0^1\frac{2s(1-s)}{(2-s)^4}ds=16\cdot\frac1{12}=\frac43$. In code, a step is linear, $mx+sz$ with new noise $z$: read $m$ and $s$ off one call, and $V$ becomes $m^2V+s^2$.
#
# </details>

# %%
# NBVAL_CHECK_OUTPUT
optimal = Denoiser(lambda x, t, cond: -x / (2 - t[:, None]), schedule, "velocity")
claim(
    "C05.12",
    "optimal pairs, data N(0, 4): one Euler step from 1, minus 2",
    sample(optimal, one, even(1), solvers.euler).item() - 2,
    between=(-1e-12, 1e-12),
)
V, (x, z) = 1.0, torch.eye(2, dtype=f64).split(1, dim=1)  # x without z, z without x
for a, b in zip(even(1000), even(1000)[1:]):
    m, s = solvers.ancestral(optimal, x, a, b, None, z)[0].flatten().tolist()
    V = m**2 * V + s**2
claim("C05.13", "variance after 1000 ancestral steps, over 4/3", V * 3 / 4, between=(0.98, 1.02))

# %% [markdown]
# ## References
#
# Flow matching: [@lipman2023flow; @liu2023rectified; @albergo2023stochastic]. Couplings in batches: [@tong2024improving; @pooladian2023multisample]. Weights over λ: [@kingma2023understanding]. At scale: [@esser2024scaling].
# One ODE for all schedules: [@song2021sde; @karras2022edm].
