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
# Draw noise $\varepsilon$, draw data $x_0$, join them by a straight line. Train a network on the direction of such lines, and
# sample by following it. A straight line needs one step. Does it? The data are two modes on a line and the network is
# perfect; grey is the density at each time.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import math

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from dlib import CLEAN, Batch, Denoiser, Draw, Mixture, converted, cosine, denoising
from dlib import edm, exact, flow, metrics, nets, optimal_coupling, plot, sample, solvers
from dlib import sub_vp, vp, walk
from dlib.denoiser import FACES
from dlib.losses import lognormal_times, uniform_times, weights
from toy_data import digits_teacher, gmm5, labelled

f64, schedule = torch.float64, flow()               # α = 1 − t, σ = t
line = Mixture(torch.tensor([0.3, 0.7]), means=torch.tensor([[-1.2], [0.8]]),
               stds=torch.tensor([0.25, 0.4]))
perfect = exact(line, schedule)
even = lambda n: schedule.levels(torch.linspace(1, 0, n + 1))

# %%
noise = math.sqrt(2) * torch.erfinv(torch.linspace(-0.96, 0.96, 25, dtype=f64))[:, None]
data, stops = line.sample(25, Draw(1))[0], even(100)
def euler(model):
    return torch.stack([state.x[:, 0] for state in walk(model, noise, stops, solvers.euler)])

first = perfect(noise, stops[0]).velocity
minus = Denoiser(lambda x, t, c: -perfect(x, schedule.at(t, like=x)).velocity,
                 schedule, "velocity")
drawn = lambda place: torch.stack([place(level)[:, 0] for level in stops])
panels = {"pairs: straight, they cross": drawn(lambda a: a.alpha * data + a.sigma * noise),
          "the flow: it bends": euler(perfect),
          "one Euler step": drawn(lambda a: noise + (a.t - 1) * first),
          "x₀ − ε as dx/dt": euler(minus)}
figure(plot.fans(panels, stops, torch.arange(25) // 5, line),
       "Straight pairs cross each other; the flow bends and keeps its order; a single Euler "
       "step sends all noise to one point; with the sign reversed the paths leave the data.",
       "Colour: where the noise lay. The first two panels have one density at every time.")

# %% [markdown]
# One step sends *everything* to one point. The lines that the network was trained on are not the paths that it makes.
# This chapter says what it does learn, why that is a diffusion model, and what really straightens paths.
#
# **Recap.** Noise is added as $x_t=\alpha_tx_0+\sigma_t\varepsilon$, $t=1$ noise, $t=0$ data, a dot is $d/dt$, $\lambda=\log(\alpha/\sigma)$,
# $\kappa=\sigma/\alpha$. The density $p_t$ of $x_t$ is carried by the probability-flow ODE, $\dot x=fx-\tfrac12g^2\nabla\log p_t$ with
# $f=\dot\alpha/\alpha$ and $g^2=-2\sigma^2\dot\lambda$; with $y=x/\alpha$ it is $dy/d\kappa=\varepsilon(x,t)$, whatever the schedule. One call of a network has five
# faces: `.eps`, `.x0`, `.v` $=\alpha\varepsilon-\sigma x_0$, `.velocity` $=\dot x$, `.score`. `exact(mixture, schedule)` is the perfect network. DDIM's
# step from level $a$ to $b$ is $\alpha_bx_0+\sigma_b\varepsilon$: change the level, keep the rest.
#
# ## 5.1 From crossing lines to a flow
#
# Fix a pair $(x_0,\varepsilon)$. As $t$ moves, $x_t$ has the **conditional velocity** $\dot\alpha x_0+\dot\sigma\varepsilon$; on the straight
# schedule $\alpha=1-t$, $\sigma=t$ that is $\varepsilon-x_0$. Where lines cross there are many. Their mean is the **marginal velocity**
#
# $$u_t(x)=\mathbb E\big[\dot\alpha x_0+\dot\sigma\varepsilon\,\big|\,x_t=x\big]. \label{eq:fm-marginal}$$
#
# It moves the density just as the lines do. Take a smooth test function $\varphi$ that vanishes far away. By the chain rule
#
# $$\frac d{dt}\mathbb E\,\varphi(x_t)=\mathbb E\big[\nabla\varphi(x_t)\cdot(\dot\alpha x_0+\dot\sigma\varepsilon)\big]=\mathbb E\big[\nabla\varphi(x_t)\cdot u_t(x_t)\big],$$
#
# the second step by conditioning on $x_t$. Write both ends as integrals and integrate by parts: the **continuity equation**
#
# $$\frac{\partial p_t}{\partial t}=-\nabla\cdot(p_t\,u_t). \label{eq:fm-continuity}$$
#
# So $\dot x=u_t(x)$, started in $p_1$, has the marginals $p_t$ (for a $u$ smooth enough to have one solution). And the single point? At $t=1$
# nothing is known of $x_0$, so $u_1(x)=x-\mathbb E\,x_0$: the step lands on the mean of the data.

# %%
# NBVAL_CHECK_OUTPUT
claim("C05.1", "one Euler step from t = 1 − the mean of the data (largest)",
      (noise - first - line.weights @ line.means).abs().max(), below=1e-12)
x, x0 = torch.linspace(-2, 2, 9, dtype=f64)[:, None], torch.linspace(-6, 6, 1201, dtype=f64)
def averaged(t):                                    # E[ε − x₀ | x_t = x], summed over x₀
    eps = (x - (1 - t) * x0) / t
    mass = line.log_prob(x0[:, None], CLEAN).exp() * (-eps**2 / 2).exp()
    return (mass * (eps - x0)).sum(1) / mass.sum(1)

claim("C05.2", "the mean of crossing directions − the network's velocity (largest)",
      max((averaged(t) - perfect(x, schedule.at(t)).velocity[:, 0]).abs().max()
          for t in (0.2, 0.5, 0.8)), below=1e-9)

# %% [markdown]
# Note what the proof did *not* use: neither that $\varepsilon$ is normal, nor that it is independent of $x_0$. If it is both, $-\mathbb
# E[\varepsilon\mid x]/\sigma$ is the score, and $u$ is chapter 4's ODE. (Differences in $t$ with $h=10^{-5}$ are good to some $(h/t)^2$ and to rounding over $h$.)

# %%
# NBVAL_CHECK_OUTPUT
def residual(t, h=1e-5):                            # of the continuity equation
    x = torch.linspace(-3, 3, 61, dtype=f64)[:, None].requires_grad_()
    p = lambda t: line.log_prob(x, schedule.at(t)).exp()
    flux = p(t) * perfect(x, schedule.at(t)).velocity[:, 0]
    left, (right,) = (p(t + h) - p(t - h)) / (2 * h), torch.autograd.grad(flux.sum(), x)
    return ((left + right[:, 0]).abs().max() / left.abs().max()).item()

claim("C05.3", "the continuity equation (largest residual)",
      max(map(residual, (0.2, 0.5, 0.8))), below=1e-6)
def apart(s, t=0.6):                                # u against f x − ½ g² ∇log p
    said = exact(line, s)(x, s.at(t))
    ode = s.drift(t) * x - 0.5 * s.diffusion(t) * said.score
    return ((said.velocity - ode).abs().max() / ode.abs().max()).item()

every = (vp(), cosine(), sub_vp(), edm(), flow())
claim("C05.4", "marginal velocity − chapter 4's drift, five schedules (largest, relative)",
      max(map(apart, every)), below=1e-10)

# %% [markdown]
# ## 5.2 The loss that you can compute
#
# You would like to regress on $u$ (**flow matching**). You can only regress on lines (**conditional** flow matching
# [@lipman2023flow; @liu2023rectified; @albergo2023stochastic]):
#
# $$\mathrm{FM}=\mathbb E\lVert u_\theta(x_t,t)-u_t(x_t)\rVert^2,\qquad \mathrm{CFM}=\mathbb E\lVert u_\theta(x_t,t)-(\dot\alpha x_0+\dot\sigma\varepsilon)\rVert^2. \label{eq:fm-losses}$$
#
# Given $x_t$, the target scatters around $u_t(x_t)$ with mean zero, and $u_\theta(x_t,t)-u_t(x_t)$ is a constant. The cross term vanishes:
#
# $$\mathrm{CFM}=\mathrm{FM}+\mathbb E\operatorname{Var}[\dot\alpha x_0+\dot\sigma\varepsilon\mid x_t]. \label{eq:fm-gap}$$
#
# The last term does not contain $\theta$. So the gradients agree, exactly. The code is the book's one denoising loss:
# $x_t$ by the schedule, the target by `parts`. On a line the expectation is a double sum, good to rounding; its masses come in through the loss's own weight.

# %%
show(denoising)
z, h = torch.arange(-8, 8, 0.25, dtype=f64), 0.25
def cfm(model, data, t, width=0.5, face="velocity"):
    """The loss at time t, by the trapezoid rule over x₀ (in steps of width·h) and ε."""
    x0, eps = torch.cartesian_prod(width * z, z).split(1, dim=1)
    mass = (data.log_prob(x0, CLEAN) - eps[:, 0] ** 2 / 2).exp() / math.sqrt(2 * math.pi)
    by_mass = weights.Weight(face, lambda level, s: len(x0) * mass[:, None] * width * h**2)
    return denoising(model, Batch(x0, noise=eps), Draw(0), by_mass,
                     lambda draw, n: torch.full((n,), t, dtype=f64)).value

def fm(model, data, t):
    x, level = torch.arange(-8, 8, 0.05, dtype=f64)[:, None], schedule.at(t)
    off = model(x, level).velocity - exact(data, schedule)(x, level).velocity
    return 0.05 * data.log_prob(x, level).exp() @ off[:, 0] ** 2

# %%
# NBVAL_CHECK_OUTPUT
def pair(seed, t=0.4):                              # a random network: losses, gradients
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(),
                              torch.nn.Linear(16, 1)).double()
    model = Denoiser(lambda x, t, c: net(torch.cat([x, t[:, None]], 1)),
                     schedule, "velocity")
    for loss in (cfm(model, line, t), fm(model, line, t)):
        slopes = torch.autograd.grad(loss, net.parameters())
        yield loss.item(), torch.cat([slope.flatten() for slope in slopes])

((c1, g1), (f1, k1)), ((c2, _), (f2, _)) = pair(1), pair(2)
claim("C05.5", "gradient of CFM − gradient of FM (relative)",
      (g1 - k1).norm() / k1.norm(), below=1e-9)
claim("C05.6", "CFM − FM is the same for two networks (difference)",
      abs((c1 - f1) - (c2 - f2)), below=1e-9)
claim("C05.7", "and it is the loss of the perfect network (difference)",
      abs(c1 - f1 - cfm(perfect, line, 0.4).item()), below=1e-9)

# %% [markdown]
# ## 5.3 A loss that cannot reach zero
#
# A flow-matching loss that stops falling is not broken: it has a floor. For data $\mathcal N(0,c^2)$ you can compute it. With $V=\alpha^2c^2+\sigma^2$ the
# variance of $a x_0+b\varepsilon$ given $x_t$ (its variance less covariance squared over $V$) is
#
# $$a^2c^2+b^2-\frac{(a\alpha c^2+b\sigma)^2}{V}=\frac{c^2(a\sigma-b\alpha)^2}{V}, \label{eq:fm-variance}$$
#
# by Lagrange's identity. The velocity of the straight schedule has $a=-1$, $b=1$, the bracket is 1, and with $\tan\varphi=\kappa/c$
#
# $$\min\mathrm{CFM}=\int_0^1\frac{c^2\,dt}{(1-t)^2c^2+t^2}=c\int_0^{\pi/2}d\varphi=\frac{c\pi}2\quad\text{a dimension}. \label{eq:fm-floor}$$
#
# (This is the spread of lines at crossings. How much the *flow* bends is another number: chapter 18.)
#
# **Flow matching by its other name.** At the same $x_t$ all errors are proportional, so flow matching is a weighted ε-loss. On the straight schedule
# $u=(\varepsilon-x)/\alpha$ errs by $1/\alpha$ times ε's error (and $1/t$ times $x_0$'s), and $d\lambda/dt=-1/(t(1-t))$. Uniform $t$ gives
#
# $$\int_0^1\frac{\lVert\varepsilon-\varepsilon_\theta\rVert^2}{(1-t)^2}\,dt=\int e^{-\lambda}\,\lVert\varepsilon-\varepsilon_\theta\rVert^2\,d\lambda. \label{eq:fm-weight}$$
#
# Do the same for the $v$-loss on the cosine schedule $\alpha=\cos\frac\pi2t$, $\sigma=\sin\frac\pi2t$: the weight is $\frac2\pi e^{-\lambda}$. **Flow matching is
# $v$-prediction on the cosine schedule, times $\pi/2$** [@kingma2023understanding]. Objectives differ by a weight over λ and by nothing else (networks differ in the scale of their input and in what they
# put out). So the $v$-loss must stop at $c$, not $c\pi/2$:

# %%
# NBVAL_CHECK_OUTPUT
nodes, shares = np.polynomial.legendre.leggauss(60)
def least(c, s, face):                              # ∫ dt of the perfect network's loss
    bell = Mixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([c]))
    return sum(w / 2 * cfm(exact(bell, s), bell, (t + 1) / 2, c, face).item()
               for t, w in zip(nodes.tolist(), shares))

widths = (0.2, 1.0, 2.0)
claim("C05.8", "least CFM loss over cπ/2, c = 0.2, 1, 2 (largest departure from 1)",
      max(abs(least(c, flow(), "velocity") / (c * math.pi / 2) - 1) for c in widths),
      below=1e-6)
claim("C05.9", "least v-loss on the cosine schedule over c (largest departure from 1)",
      max(abs(least(c, cosine(s=0.0), "v") / c - 1) for c in widths), below=1e-6)
def per_lambda(face, s, lam=torch.linspace(-4, 4, 41, dtype=f64)):
    level = s.at_lam(lam)
    d_alpha, d_sigma = s.rates(level.t)
    rate = d_alpha / level.alpha - d_sigma / level.sigma
    return weights.Weight(face)(level, s) / rate.abs()

ratio = per_lambda("velocity", flow()) / per_lambda("v", cosine(s=0.0))
claim("C05.10", "weights over λ, flow matching over cosine v, minus π/2 (largest)",
      (ratio - math.pi / 2).abs().max(), below=1e-10)

# %% [markdown]
# ## 5.4 One model in other clothes
#
# Given $x$ and a level, two linear equations tie a face $w=a x_0+b\varepsilon$ to $x_0$ and $\varepsilon$:
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
# Mind $D$: it is 1 on variance-preserving schedules, and code that forgot it works there and nowhere else.
#
# Now the schedule. What a network knows depends on $y=x_0+\kappa\varepsilon$ alone. So go to the level of the *other* schedule with the same κ, where $y$ is
# the same and $x$ is $\alpha'/\alpha$ times as large; there $x_0$ and ε are unchanged. (With $\sqrt{D'/D}$ for $\alpha'/\alpha$ this works at $\alpha=0$ too.)

# %%
# NBVAL_CHECK_OUTPUT
show(converted)
def returns(home, other):                           # there and back, every pair of faces
    level, x = home.at_lam(0.7), Draw(0).normal(torch.empty(5, 2, dtype=f64))
    for have, want in ((have, want) for have in FACES for want in FACES):
        model = Denoiser(lambda x, t, c: torch.sin(2 * x + t[:, None]), home, have)
        back = converted(converted(model, other, want), home, have)
        yield (back(x, level).raw - model(x, level).raw).abs().max().item()

claim("C05.11", "there and back: 25 pairs of faces, 25 of schedules (largest change)",
      max(gap for home in every for other in every for gap in returns(home, other)),
      below=1e-10)
mixture = gmm5()
on_vp = converted(exact(mixture, vp()), vp(), "eps")        # an ε-model
on_flow = converted(on_vp, flow(), "velocity")              # is a velocity model
points, level = Draw(1).normal(torch.empty(99, 2, dtype=f64)), flow().at(0.6)
x0, eps = mixture.posterior_means(points, level)            # (E[x₀|x], E[ε|x]): no table
claim("C05.12", "ε on VP, converted − E[ε − x₀ | x] on straight paths (largest)",
      (on_flow(points, level).raw - (eps - x0)).abs().max(), below=1e-9)

# %% [markdown]
# There and back is not enough: a velocity of the wrong sign, wrong both ways, comes back unchanged. That is why C05.12 compares with the posterior's own mean. Write the test that catches such converters in assignment 5.
#
# **The same samples.** On straight paths Euler's step is
#
# $$x_a+(t_b-t_a)(\varepsilon-x_0)=(1-t_b)\,x_0+t_b\,\varepsilon=\alpha_bx_0+\sigma_b\varepsilon. \label{eq:fm-euler}$$
#
# That is DDIM. **Euler for flow matching is DDIM**, and DDIM does not see the schedule. So walk the ε-model by DDIM on VP and its converted twin by
# Euler, through the same ten κ:

# %%
# NBVAL_CHECK_OUTPUT
y_start = Draw(0).normal(torch.empty(256, 2, dtype=f64))
def end(model, solver, start=y_start, label=None, lam=(-3.5, 3.5), n=10):
    """y = x/α after n steps even in λ, whatever the model's schedule is."""
    path = [model.schedule.at_lam(l) for l in torch.linspace(*lam, n + 1).tolist()]
    return sample(model, path[0].sigma * start, path, solver, label) / path[-1].alpha

claim("C05.13", "ε on VP by DDIM − velocity on straight paths by Euler (RMS)",
      metrics.rms(end(on_vp, solvers.ddim), end(on_flow, solvers.euler)), below=1e-9)
claim("C05.14", "ε on VP by Euler in t is another method (RMS)",
      metrics.rms(end(on_vp, solvers.euler), end(on_flow, solvers.euler)), above=0.05)

# %% [markdown]
# Same noise, same data, same pairs. A trajectory looks straighter in one schedule's $x$ and more bent in another's; it is one curve $y(\kappa)$, and
# which points it joins does not change. What straight *conditional* paths give is a training weight, \eqref{eq:fm-weight}, and a schedule on which Euler is DDIM.
#
# ## 5.5 What does straighten: the coupling
#
# Section 5.1 allows *any* coupling of $x_0$ and $\varepsilon$. Optimal transport takes the one with the least $\mathbb E\lVert
# x_0-\varepsilon\rVert^2$. No swap of two noises makes it cheaper, so $(x_0-x_0')\cdot(\varepsilon-\varepsilon')\ge0$ for every two pairs. Lines that meet at a time $t$
# have $(1-t)(x_0-x_0')=-t(\varepsilon-\varepsilon')$, a negative product. **Lines of optimal pairs never cross.** Then $x_t$ tells the target, the floor is 0, the flow is straight
# and one step is exact.
#
# In practice one pairs within a batch [@tong2024improving; @pooladian2023multisample], and the optimum of samples is not that of laws. For $\mathcal N(0,1)$ on a line, a batch of two
# sorts both sides. A sorted normal has mean $\pm1/\sqrt\pi$, so data and noise correlate by $1/\pi$, not 1 (standard error .034 for π times it; the bound allows five).

# %%
# NBVAL_CHECK_OUTPUT
show(optimal_coupling)
def crossing(batch):                                # share of two lines with that product < 0
    gap = lambda x: x[:, None] - x
    return ((gap(batch.x0) * gap(batch.noise)).sum(2) < -1e-12).double().mean()

some = mixture.sample(1000, Draw(2))[0]
claim("C05.15", "optimal pairs: share of two lines that could cross",
      crossing(optimal_coupling(Batch(some), Draw(3))), between=(0, 0))
claim("C05.16", "independent pairs: one half",
      crossing(Batch(some, noise=Draw(3).normal(some))), between=(0.4, 0.6))
def cost(size, d, repeats):                         # E‖x₀ − ε‖² over independent pairs'
    draw, empty = Draw(size), torch.empty(size, d, dtype=f64)
    pairs = (optimal_coupling(Batch(draw.normal(empty)), draw) for _ in range(repeats))
    return sum(((b.x0 - b.noise) ** 2).mean().item() for b in pairs) / repeats / 2

claim("C05.17", "batches of two on a line: correlation of data and noise times π",
      math.pi * (1 - cost(2, 1, 4000)), between=(0.82, 1.18))

# %%
sizes = (1, 4, 16, 64, 256)
costs = {f"d = {d}": {b: cost(b, d, max(4, 1024 // b)) for b in sizes}
         for d in (1, 2, 8, 64)}
figure(plot.convergence(costs, "batch size", "transport cost over independent pairs'"),
       "On a line the cost falls towards zero as the batch grows; in 64 dimensions it is "
       "still two thirds of the independent pairs' cost at 256.",
       "Data and noise both normal, in $d$ dimensions: the laws' optimum costs nothing.")

# %% [markdown]
# Two traps. **No score**: $p_1$ and $p_0$ are right and the algebra \eqref{eq:fm-table} holds, but $\varepsilon$ given $x_0$ is no longer normal, and $-\mathbb E[\varepsilon\mid x]/\sigma$ is *not*
# $\nabla\log p_t$. For data $\mathcal N(0,4)$ the optimal pairs are $x_0=2\varepsilon$, and $u=-x/(2-t)$. One Euler step gives the variance 4. Ancestral sampling, which reads a score off, gives
# $\tfrac43$. **Labels**: pair across classes, and a class's noise is no longer $\mathcal N(0,I)$, but that is where sampling starts.
#
# <details><summary>Why 4/3</summary>
#
# Chapter 4's family with η = 1, where $\varepsilon=x/(2-t)$ is read as $-\sigma s$: the variance obeys $\dot V=\frac{2t}{(1-t)(2-t)}V-\frac{2t}{1-t}$. The homogeneous solution is $(2-t)^4/(1-t)^2$, and $V$ is finite at
# $t=1$, so $V(0)=16\int_0^1\frac{2s(1-s)}{(2-s)^4}ds=16\cdot\frac1{12}$.
#
# </details>

# %%
# NBVAL_CHECK_OUTPUT
optimal = Denoiser(lambda x, t, c: -x / (2 - t[:, None]), schedule, "velocity")
def variance(model, solver, n, v=1.0):              # a linear step maps v to m²v + s²
    x, z = torch.eye(2, dtype=f64).split(1, dim=1)
    for a, b in zip(even(n), even(n)[1:]):
        m, s = solver(model, x, a, b, None, z)[0].flatten().tolist()
        v = m**2 * v + s**2
    return v

claim("C05.18", "optimal pairs, data N(0, 4): variance after one Euler step, minus 4",
      abs(variance(optimal, solvers.euler, 1) - 4), below=1e-12)
claim("C05.19", "after 1000 ancestral steps, over 4/3",
      variance(optimal, solvers.ancestral, 1000) * 3 / 4, between=(0.98, 1.02))
x0, label = labelled().sample(256, Draw(4))
astray = optimal_coupling(Batch(x0, label), Draw(5)).noise[label == 1].mean(0)
claim("C05.20", "paired across labels: mean of one label's noise, in standard errors",
      astray.norm() * (label == 1).sum() ** 0.5, above=5)

# %% [markdown]
# Now train: GMM5, a small MLP, 400 steps, batches of 128, with independent and with coupled noise. Then *one* step. The independent network should send all noise to the mean of the data, up to
# its fitting error (we allow a third of the data's spread); the coupled one should end several times closer to the data.

# %%
def trained(couple, seed, steps=400):
    torch.manual_seed(seed)
    model, draw = Denoiser(nets.MLP(2, width=64, depth=2), schedule, "velocity"), Draw(seed)
    optim = torch.optim.Adam(model.net.parameters(), 4e-3)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    for _ in range(steps):
        batch = couple(Batch(mixture.sample(128, draw)[0].float()), draw)
        optim.zero_grad()
        denoising(model, batch, draw, weights.velocity, uniform_times(0, 1)).value.backward()
        optim.step(), slower.step()
    with torch.no_grad():
        return sample(model, Draw(9).normal(torch.empty(2000, 2)), even(1), solvers.euler)

# %%
# NBVAL_CHECK_OUTPUT
real = mixture.sample(2000, Draw(8))[0].float()
alone = [trained(lambda batch, draw: batch, seed) for seed in (0, 1, 2)]
coupled = [trained(optimal_coupling, seed) for seed in (0, 1, 2)]
from_mean = lambda x: metrics.rms(x, (mixture.weights @ mixture.means).expand_as(x))
w2 = lambda x: metrics.sliced_w2(x, real)
claim("C05.21", "independent, one step: distance from the mean over the data's (worst of 3)",
      max(from_mean(x) / from_mean(real) for x in alone), below=0.35)
claim("C05.22", "coupled over independent, one step: sliced W₂ to the data (worst of 3)",
      max(w2(x) / w2(y) for x, y in zip(coupled, alone)), below=0.3)
shown = {"data": real, "independent": alone[0], "coupled": coupled[0]}
figure(plot.modes(shown, mixture),
       "One Euler step of the independent network gathers in the middle; that of the coupled "
       "network covers the five modes, with a few points between them.",
       "One network call from noise. Grey points lie in no mode.")

# %% [markdown]
# A coupling changes the way, not the goal, and it is a weak lever where it would matter most, in pictures: you saw the 64 dimensions. Chapter 18 makes its pairs with the model itself.
#
# ## 5.6 Rung 2: the digits network is a flow model
#
# The shipped digits network predicts $v$ on VP. No training, one line, and Euler for flow matching runs it:

# %%
# NBVAL_CHECK_OUTPUT
teacher, digit = digits_teacher(), torch.arange(10)
starts, lam = Draw(3).normal(torch.empty(10, 1, 8, 8)), (-5.0, 3.5)
draw = lambda model, solver: end(model, solver, starts, digit, lam)
rows = {"v on VP, DDIM": draw(teacher, solvers.ddim),
        "the same, as a velocity on straight paths, Euler":
            draw(converted(teacher, flow(), "velocity"), solvers.euler),
        "velocity on VP, Euler": draw(teacher, solvers.euler)}
by_ddim, by_flow, by_euler = rows.values()
claim("C05.23", "digits, ten steps: v on VP − its conversion (largest; ink 1, paper −1)",
      (by_ddim - by_flow).abs().max(), below=1e-3)
claim("C05.24", "and Euler on VP − DDIM (largest)", (by_ddim - by_euler).abs().max(),
      above=0.1)
figure(plot.pictures(rows),
       "The first two rows are the same ten digits; the third, by Euler on the variance-"
       "preserving schedule, differs in its greys.",
       "One network, one noise a column, ten calls.")

# %% [markdown]
# (Float32, magnified by at most $\kappa=e^5$, allows some $10^{-4}$.)
#
# ## 5.7 What should look wrong here
#
# Many codes regress $x_0-\varepsilon$. With $t=1$ at data (the rectified-flow release, facebookresearch/flow_matching, torchcfm) that is right, it is $dx/dt$ there. Lecture slides take it over to
# $x_t=(1-t)x_0+t\varepsilon$, this book's and SD3's time, where it is $-\dot x$ and the sampler must subtract. Take data $\mathcal N(0,c^2)$ with $c=\tfrac12$ and forget it. *Predict the standard deviation at the end.*
# ($u=\frac{\dot V}{2V}x$, and now $\dot x=-u$.)

# %%
# NBVAL_CHECK_OUTPUT
bell = exact(Mixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([0.5])), schedule)
velocity = lambda x, t: bell(x, schedule.at(t, like=x)).velocity
slip = Denoiser(lambda x, t, c: -velocity(x, t), schedule, "velocity")
theirs = lambda x, t: -velocity(x, 1 - t)           # t = 1 is data, target x₀ − ε
entered = Denoiser(lambda x, t, c: -theirs(x, 1 - t), schedule, "velocity")
spread = lambda model: variance(model, solvers.euler, 1000) ** 0.5
claim("C05.25", "the sign forgotten: standard deviation at the end, over 1/c",
      spread(slip) * 0.5, between=(0.98, 1.02))
claim("C05.26", "a t = 1-is-data network, entered with both signs: over c",
      spread(entered) / 0.5, between=(0.98, 1.02))

# %% [markdown]
# $\dot x=-u$ integrates to $x\propto1/\sqrt V$, so the end is $\sqrt{V_1/V_0}=1/c$. No error message, and narrow data become wide.
#
# ## 5.8 In practice
#
# - **Which times.** SD3 draws $\operatorname{logit}t\sim\mathcal N(0,1)$ [@esser2024scaling]. On straight paths $\operatorname{logit}t=\log\kappa$, so this is EDM's log-normal κ:
#   `lognormal_times(flow(), 0, 1)`. It moves training to the middle of λ and changes no optimum.
# - **Shift.** $t'=\frac{mt}{1+(m-1)t}$ is $\kappa'=m\kappa$, or $\lambda'=\lambda-\log m$: a translation. It is the same as dividing the data by $m$: $y'/m=x_0/m+\kappa\varepsilon$. SD3 uses $m=3$ at $1024^2$. diffusers
#   shifts its clean end twice (.003, then .009); the cell takes its times as they are.
# - **The ends.** A velocity network is well defined at $\alpha=0$; a score read off it divides by $t$. A converted VP model stops where VP stops, at $t=.9935$, and `converted` says so.
# - **Euler's grid.** The rectified-flow release evaluates at $i/N(1-10^{-3})+10^{-3}$ but steps by $1/N$: off by $10^{-3}$ in time.
# - **Batch coupling.** torchcfm draws pairs *with replacement* from the plan, so that points repeat; an assignment is a permutation.
# - **Reported** on CIFAR-10: FID 2.07 in the README of facebookresearch/flow_matching, 3.5 in torchcfm's; *not reproduced here*.

# %%
# NBVAL_CHECK_OUTPUT
t = lognormal_times(flow(), 0, 1)(Draw(0), 10_000).double()
claim("C05.27", "logit t is normal: √n · Kolmogorov distance",
      metrics.kolmogorov(torch.special.ndtr(t.logit())), below=2.7)
m, t = 3, torch.linspace(0.01, 0.99, 99, dtype=f64)
moved = schedule.at(m * t / (1 + (m - 1) * t)).lam - schedule.at(t).lam
claim("C05.28", "shifted times: λ' − λ + log m (largest)",
      (moved + math.log(m)).abs().max(), below=1e-12)
peer = FlowMatchEulerDiscreteScheduler(shift=3)
peer.set_timesteps(10)
net = lambda x, n: torch.tanh(0.7 * x + n / 1000)   # any network will do
theirs = x_1 = Draw(6).normal(torch.empty(64, 2))
for n in peer.timesteps:
    theirs = peer.step(net(theirs, n), n, theirs).prev_sample
ours = Denoiser(lambda x, n, c: net(x, n[:, None]), flow(), "velocity",
                clock=lambda t: 1000 * t)
mine = sample(ours, x_1, flow().levels(peer.sigmas), solvers.euler)
claim("C05.29", "ten steps are diffusers' ten (largest difference over largest value)",
      (mine - theirs).abs().max() / theirs.abs().max(), below=1e-6)

# %% [markdown]
# - **Where the toy stops being true.** A learnt ε-model errs, and conversion keeps its errors: dividing by $\alpha$ magnifies them near noise. Fine-tuning SD 1.5 with a flow-matching loss needs the level change *and* the face.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.sd.denoiser(unet, scheduler_config)`, ε or $v$ on its ladder |
# | `converted(model, flow(), "velocity")` | the same function on that denoiser; a test runs it |
# | Euler on straight paths | `--solver ddim` at the same κ: the same pictures, by \eqref{eq:fm-euler} |
# | `denoising` with `weights.velocity` | the same function: `--hyper.weight velocity`, with the ladder's own clock |
# | weights trained as flows (SD3) | no adapter; the step is equal to diffusers' (C05.29) |
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
# **How far up the ladder.** Rung 1: both losses, the floor, all conversions to rounding. Rung 2: a trained $v$-network as a flow model. Rung 3: conversion and Euler's step, on Stable Diffusion's
# classes; no flow-trained weights.
#
# ## 5.9 Exercises
#
# 1. *(pencil)* Find the least ε-loss at a level from \eqref{eq:fm-variance}. Where does it go as $\sigma\to0$ and as $\alpha\to0$, and what does that say about an ε-network near data?
# 2. *(code)* Lipman's path keeps some noise: $\alpha=1-t$, $\sigma=\sigma_{\min}+(1-\sigma_{\min})t$. Build it as a `NoiseSchedule`. Check: `converted` there and back with `flow()` changes `.raw` by less than $10^{-9}$.
# 3. *(code)* Couple each label's rows by themselves. Check: the mean of a label's noise is within five standard errors of 0.
# 4. *(open)* At 64 dimensions batch coupling saves a third of the cost. Does one step get better on the digits? Measure before you believe.
#
# <details><summary>Answer to 1</summary>
#
# $a=0$, $b=1$: $\alpha^2c^2/(\alpha^2c^2+\sigma^2)$. As $\alpha\to0$ it is 0: $x_t$ *is* the noise. As $\sigma\to0$ it is 1, the whole variance: nothing can be known of ε, and since the velocity of straight paths
# is $\varepsilon-x_0$, its loss cannot fall below 1 there either.
#
# </details>
#
# Answer to 3, as code that runs:

# %%
# NBVAL_CHECK_OUTPUT
def by_label(batch, draw):
    noise = torch.empty_like(batch.x0)
    for k in batch.cond.unique():
        rows = batch.cond == k
        noise[rows] = optimal_coupling(Batch(batch.x0[rows]), draw).noise
    return Batch(batch.x0, batch.cond, noise)

homely = by_label(Batch(*labelled().sample(256, Draw(4))), Draw(5))
claim("C05.30", "paired within labels: mean of one label's noise, in standard errors",
      homely.noise[label == 1].mean(0).norm() * (label == 1).sum() ** 0.5, below=5)

# %% [markdown]
# ## References
#
# Flow matching: [@lipman2023flow; @liu2023rectified; @albergo2023stochastic]. Couplings in batches: [@tong2024improving; @pooladian2023multisample]. Weights over λ: [@kingma2023understanding]. At scale: [@esser2024scaling].
# One ODE for all schedules: [@song2021sde; @karras2022edm].
