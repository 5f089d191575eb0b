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
#     title: SDEs and the probability-flow ODE
#     summary: One equation for every sampler between pure noise and no noise, and the probability of a picture.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - the score, and why denoising gives it (chapter 1; recapped below)
#       - PyTorch, integration by parts
# ---

# %% [markdown]
# # 4 SDEs and the probability-flow ODE: one family, the same marginals
#
# You have a network that knows the score of the data at every noise level. How do you get from noise to data with it?
# By a random walk or along a smooth curve? This chapter shows that both are right, that there is a whole family between
# them, and that one number must be right in all of them.
#
# The data are two modes on a line, so the perfect network is a formula. Each panel starts five paths from each of the same
# five points. Grey is the exact density at every time. One sampler is wrong.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import math

import torch
from dlib import CLEAN, NULL, Draw, Mixture, cosine, exact, flow, grid, log_likelihood
from dlib import metrics, normal_log_prob, plot, reference, sample, solvers
from dlib import sub_vp, ve, vp, walk
from scipy.integrate import solve_ivp
from toy_data import digits_split, digits_teacher, gmm5

line = Mixture(torch.tensor([0.3, 0.7]), means=torch.tensor([[-1.2], [0.8]]),
               stds=torch.tensor([0.25, 0.4]))
schedule, mixture = vp(), gmm5()
model = exact(line, schedule)                       # the perfect network for these data
times = lambda n: schedule.levels(grid(schedule, n, "time", t_min=0.01))

# %%
@solvers.solver(order=1, noisy=True)
def ode_plus_noise(model, x, a, b, memory=None, noise=None, cond=None):
    ahead, _ = solvers.euler(model, x, a, b)        # the ODE's drift and the SDE's noise
    return ahead + (model.schedule.diffusion(a.t) * (a.t - b.t)) ** 0.5 * noise, memory

starts = torch.tensor([-1.5, -0.6, 0, 0.6, 1.5]).double().repeat_interleave(5)[:, None]
family = {f"η = {name}": solvers.euler_maruyama(eta)
          for name, eta in (("0: the ODE", 0), ("½", 0.5), ("1: the reverse SDE", 1))}
def path(solver):
    states = walk(model, starts, times(250), solver, draw=Draw(0))
    return torch.stack([state.x[:, 0] for state in states])[::5]

panels = {name: path(solver) for name, solver in family.items()}
panels["noise without drift"] = path(ode_plus_noise)
figure(plot.fans(panels, times(250)[::5], torch.arange(25) // 5, line),
       "With η = 0 the five paths of a start coincide, with η = ½ and 1 they spread and "
       "still fill the exact density; noise without its drift leaves the density.",
       "Colour: the common start. Three of the four samplers end on the data's density.")

# %% [markdown]
# The last sampler takes the drift of the first and the noise of the third. What it lacks is the subject of 4.3.
#
# **Recap.** Noise is added as $x_t=\alpha_tx_0+\sigma_t\varepsilon$, with $t=1$ noise and $t=0$ data; $p_t$ is the density of
# $x_t$, $\lambda=\log(\alpha/\sigma)$, a dot is $d/dt$. A network that predicts the noise knows the score: $s=\nabla\log
# p_t=-\varepsilon(x,t)/\sigma_t$. `exact(mixture, schedule)` is the perfect one; at a level it has the faces `.eps`, `.score`,
# `.velocity`.
#
# ## 4.1 From many noising steps to an SDE
#
# Let a noising step of length $dt$ be $x\leftarrow x+f\,x\,dt+g\sqrt{dt}\,z$, with $z\sim\mathcal N(0,I)$. As the steps
# shrink it becomes a **stochastic differential equation**,
#
# $$dx=f(t)\,x\,dt+g(t)\,dw. \label{eq:sde-forward}$$
#
# A step multiplies the mean by $1+f\,dt$, and the variance by $(1+f\,dt)^2$ before it adds $g^2dt$. Given $x_0$, the mean is
# to be $\alpha x_0$ and the variance $\sigma^2$. So $\dot\alpha=f\alpha$ and $\tfrac{d}{dt}\sigma^2=2f\sigma^2+g^2$, or
#
# $$f=\frac{\dot\alpha}\alpha,\qquad g^2=\frac{d\sigma^2}{dt}-2\frac{\dot\alpha}\alpha\sigma^2=-2\sigma^2\dot\lambda. \label{eq:sde-fg}$$
#
# Every pair $(\alpha,\sigma)$ with falling $\lambda$ *is* an SDE. Three have names [@song2021sde]; with $B(t)=\int_0^t\beta$:
#
# | | $f$ | $g^2$ | $\alpha$ | $\sigma^2$ |
# |---|---|---|---|---|
# | variance preserving, VP | $-\tfrac12\beta$ | $\beta$ | $e^{-B/2}$ | $1-e^{-B}$ |
# | sub-VP | $-\tfrac12\beta$ | $\beta(1-e^{-2B})$ | $e^{-B/2}$ | $(1-e^{-B})^2$ |
# | variance exploding, VE | $0$ | $d\sigma^2/dt$ | $1$ | $\sigma_{\min}^2(\sigma_{\max}/\sigma_{\min})^{2t}$ |
#
# The code computes $g^2$ from $\dot\alpha$ and $\dot\sigma$; is it the slope of λ, and is it the table's? The slope is taken by central
# differences with $h=10^{-5}$, good to some $(h/t)^2\approx10^{-7}$.

# %%
# NBVAL_CHECK_OUTPUT
show(type(schedule).diffusion)
named, every = (vp(), sub_vp(), ve()), (vp(), sub_vp(), ve(), flow(), cosine())
inside, h = torch.linspace(0.05, 0.95, 19, dtype=torch.float64), 1e-5
off = lambda found, truth: ((found - truth) / truth).abs().max()
slope = lambda s: (s.at(inside + h).lam - s.at(inside - h).lam) / (2 * h)
B, beta = 0.1 * inside + 9.95 * inside**2, 0.1 + 19.9 * inside
table = (beta, beta * (1 - (-2 * B).exp()), 2 * math.log(5000) * ve().at(inside).sigma ** 2)
claim("C04.1", "g² = −2σ²λ̇ on five schedules (largest relative error)",
      max(off(s.diffusion(inside), -2 * s.at(inside).sigma ** 2 * slope(s)) for s in every),
      below=1e-6)
claim("C04.2", "g² of VP, sub-VP and VE is the table's (largest relative error)",
      max(off(s.diffusion(inside), g2) for s, g2 in zip(named, table)), below=1e-12)

# %% [markdown]
# And do $n$ steps of \eqref{eq:sde-forward} lead to $\sigma^2$? Their error should fall as $1/n$ (as all orders in this book, ± 0.15).

# %%
# NBVAL_CHECK_OUTPUT
def gap(s, n):
    """n forward steps from t = 0.01 to 1: error of the variance given x₀."""
    ts, v = torch.linspace(0.01, 1, n + 1).tolist(), s.at(0.01).sigma ** 2
    for t, dt in ((t, u - t) for t, u in zip(ts, ts[1:])):
        v = (1 + s.drift(t) * dt) ** 2 * v + s.diffusion(t) * dt
    return abs(v - s.at(1.0).sigma ** 2)

orders = [metrics.order({n: gap(s, n) for n in (160, 320, 640)}) for s in named]
claim("C04.3", "n forward steps reach σ² at order 1 (of three, the order furthest from 1)",
      max(orders, key=lambda order: abs(order - 1)), between=(0.85, 1.15))

# %% [markdown]
# ## 4.2 Fokker–Planck: how the density moves
#
# Single paths are random; their density is not. It obeys the **Fokker–Planck equation**: drift carries it, noise spreads
# it [@risken1996fokker].
#
# $$\frac{\partial p}{\partial t}=-\nabla\!\cdot(f\,x\,p)+\tfrac12g^2\Delta p. \label{eq:sde-fp}$$
#
# <details><summary>Why</summary>
#
# For a smooth test function $\varphi$ that vanishes far away, one step changes $\mathbb E\,\varphi(x)$ by $\mathbb E[\nabla\varphi\cdot
# fx+\tfrac12g^2\Delta\varphi]\,dt$: the term linear in $z$ has mean 0, the quadratic one has $\mathbb E\,zz^\top=I$, the rest is $o(dt)$. Write the mean as
# $\int p\,(\dots)\,dx$, integrate by parts once and twice; it holds for every $\varphi$.
#
# </details>
#
# Now the one trick of this chapter. Since $p\,s=\nabla p$, diffusion is also a drift: $\Delta p=\nabla\cdot(p\,s)$. Move any
# share of it to the first term. For every number $e$,
#
# $$\frac{\partial p}{\partial t}=-\nabla\!\cdot\big([\,f\,x-\tfrac12(1+e)\,g^2s\,]\,p\big)-\tfrac12\,e\,g^2\,\Delta p. \label{eq:sde-share}$$
#
# With $e=-1$ this is \eqref{eq:sde-fp}. With $e=0$ the Laplacian is gone: pure transport, no randomness. With $e=\eta^2>0$ the Laplacian
# has the wrong sign, until you run time backwards. That is what a sampler does. Here are both sides on a grid over GMM5, the book's five
# modes. The density comes from the mixture, the score from the network, the slope in time from differences as above.

# %%
# NBVAL_CHECK_OUTPUT
def div(field, x):
    return sum(torch.autograd.grad(field[:, i].sum(), x, create_graph=True)[0][:, i]
               for i in range(x.shape[1]))

def residual(e, s, t):
    """The two sides of (4.4): largest difference over largest |∂p/∂t|."""
    axis = torch.linspace(-3, 3, 31, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis).requires_grad_()
    p = lambda t: mixture.log_prob(x, s.at(t)).exp()
    score = exact(mixture, s)(x, s.at(t)).score
    drift = s.drift(t) * x - 0.5 * (1 + e) * s.diffusion(t) * score
    (slope,) = torch.autograd.grad(p(t).sum(), x, create_graph=True)
    right = -div(drift * p(t)[:, None], x) - 0.5 * e * s.diffusion(t) * div(slope, x)
    left = (p(t + h) - p(t - h)) / (2 * h)
    return ((left - right).abs().max() / left.abs().max()).item()

worst = lambda *es: max(residual(e, s, t) for e in es for s in named for t in (0.2, 0.5))
claim("C04.4", "the mixture's density obeys Fokker–Planck (largest residual)",
      worst(-1), below=1e-6)
claim("C04.5", "and the shifted equation, e = 0, ¼ and 1 (largest residual)",
      worst(0, 0.25, 1), below=1e-6)

# %% [markdown]
# ## 4.3 Back from noise: η
#
# Read \eqref{eq:sde-share} backwards in time with $e=\eta^2$. It is the Fokker–Planck equation of
#
# $$dx=\big[f\,x-\tfrac12(1+\eta^2)\,g^2s\big]dt+\eta\,g\,d\bar w,\qquad t\text{ from }1\text{ to }0. \label{eq:sde-family}$$
#
# (Here $dt<0$, and the noise of a step is $\eta\,g\sqrt{|dt|}\,z$.) η = 1 is Anderson's **reverse SDE** [@anderson1982reverse], with the drift
# $fx-g^2s$. η = 0 is the **probability-flow ODE**, with *half* of the score term. Every η has the same marginals $p_t$, if it starts in $p_1$. The noise of
# one with the drift of another has not. The simplest discretisation is Euler–Maruyama's; it is the whole method:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.euler_maruyama)
n, first = 10_000, schedule.at(1.0)
x_0, _ = line.sample(n, Draw(1))
x_1 = first.alpha * x_0 + first.sigma * Draw(2).normal(x_0)          # exactly p_1
def run(solver):
    """√n · Kolmogorov distance to p_t, the worst of three times; and the end points."""
    states = list(walk(model, x_1, times(250), solver, draw=Draw(3)))
    gap = lambda state: metrics.kolmogorov(line.cdf(state.x, state.level))
    return max(gap(states[k]) for k in (125, 190, 250)), states[-1].x

ends = {}
for number, (name, solver) in enumerate(family.items(), 6):
    distance, ends[name] = run(solver)
    claim(f"C04.{number}", f"{name}: √n · Kolmogorov distance to p_t", distance, below=2.7)
claim("C04.9", "noise without drift: √n · Kolmogorov distance to p_t",
      run(ode_plus_noise)[0], above=2.7)

# %% [markdown]
# For exact samples the bound is passed by chance once in $10^6$ ($2e^{-2\cdot2.7^2}$) at each of the times.
#
# Same marginals, different couplings. On a line the ODE can do only one thing: paths cannot cross, so each point keeps its
# *quantile*, exactly. (`reference` solves the ODE to some $10^{-10}$.) At η = 1 the sampler is the forward process filmed backwards. There start and end are all but independent,
# $\alpha_1=.0066$; so they must be here, within five standard errors, $5/\sqrt n$.

# %%
# NBVAL_CHECK_OUTPUT
last, some = schedule.at(0.01), x_1[:200]
carried = reference(model, some, first, last)
claim("C04.10", "the ODE keeps every point's quantile (largest change)",
      (line.cdf(carried, last) - line.cdf(some, first)).abs().max(), below=1e-9)
both = torch.stack([line.cdf(x_1, first), line.cdf(ends["η = 1: the reverse SDE"], last)])
claim("C04.11", "η = 1: correlation of the quantiles of start and end",
      torch.corrcoef(both)[0, 1], between=(-0.05, 0.05))

# %% [markdown]
# **What the noise is for.** Split the step: \eqref{eq:sde-family} is the ODE plus $-\tfrac12\eta^2g^2s\,dt+\eta g\,d\bar w$. The second part is Langevin
# dynamics at fixed $t$ with step $\tfrac12\eta^2g^2|dt|$: it leaves $p_t$ alone and pulls everything else towards it. η is how much
# Langevin you mix in, so η > 0 *repairs* errors. On $\mathcal N(0,1)$ and VP you can compute how fast: start with the variance
# $1+\delta$ and
#
# $$V_t-1=\delta\,e^{-\eta^2(B(1)-B(t))}. \label{eq:sde-forget}$$
#
# A linear step maps a variance to $m^2V+s^2$, which needs no sampling. With 1000 steps theory's error is below $10^{-3}$; we allow ten times that.

# %%
# NBVAL_CHECK_OUTPUT
bell = exact(Mixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1)), schedule)
def variance(solver, start, n=1000):
    x, z = torch.eye(2, dtype=torch.float64).split(1, dim=1)
    for a, b in zip(times(n), times(n)[1:]):
        m, s = solver(bell, x, a, b, None, z)[0].flatten().tolist()
        start = m**2 * start + s**2
    return start

integral = 10.05 - (0.1 * 0.01 + 9.95 * 0.01**2)    # B(1) − B(0.01)
left = {eta: (variance(solvers.euler_maruyama(eta), 4.0) - 1) / 3 for eta in (0, 0.5, 1)}
claim("C04.12", "share left of a wrong start, η = 0, ½, 1: largest distance to exp(−η²B)",
      max(abs(share - math.exp(-(eta**2) * integral)) for eta, share in left.items()),
      below=0.01)

# %% [markdown]
# All of the error stays at η = 0, 8 % at ½, nothing at 1. The price is in the steps: noise must be resolved as well, and step counts
# rise. [Chapter 8](08_dpm_solver.ipynb) counts calls.
#
# ## 4.4 All probability-flow ODEs are one
#
# Put \eqref{eq:sde-fg} and $s=-\varepsilon/\sigma$ into \eqref{eq:sde-family} with η = 0:
#
# $$\frac{dx}{dt}=\frac{\dot\alpha}\alpha x-\sigma\dot\lambda\,\varepsilon(x,t). \label{eq:sde-ode}$$
#
# Divide the known linear part away. With $y=x/\alpha$ and $\kappa=\sigma/\alpha=e^{-\lambda}$ we have $\dot y=\dot x/\alpha-\dot\alpha
# x/\alpha^2$ and $\dot\kappa=-\kappa\dot\lambda$, so
#
# $$\frac{dy}{d\kappa}=\varepsilon(\alpha y,\kappa). \label{eq:sde-one}$$
#
# No $\dot\alpha$, no $\dot\sigma$. And the perfect ε depends on $x$ and its level through $y=x_0+\kappa\varepsilon$ alone. So there is **one** family of curves $y(\kappa)$ for
# the data; a schedule chooses where on it you are at time $t$, and at what scale you see it. To test this, integrate \eqref{eq:sde-ode}
# for each schedule in its own $t$, at a tolerance of $10^{-12}$:

# %%
# NBVAL_CHECK_OUTPUT
y_start = 5 * Draw(0).normal(torch.empty(16, 2, dtype=torch.float64))
def own_clock(s):
    """(levels, x at each) from κ = 5 to 0.05, by dx/dt in the schedule's own time."""
    a, b, net = s.at_lam(-math.log(5)), s.at_lam(-math.log(0.05)), exact(mixture, s)
    points = lambda x: torch.from_numpy(x.T.copy()).view(-1, 16, 2)
    rate = lambda t, x: net(points(x)[0], s.at(t)).velocity.flatten().numpy()
    found = solve_ivp(rate, (a.t, b.t), (a.alpha * y_start).flatten().numpy(), "DOP853",
                      rtol=1e-12, atol=1e-13)
    return s.at(torch.from_numpy(found.t)), points(found.y)

paths = {s.name: own_clock(s) for s in every}
y_end = {name: x[-1] / level.alpha[-1] for name, (level, x) in paths.items()}
claim("C04.13", "the end points y of five schedules, each on its clock: largest difference",
      max((y - y_end["vp"]).abs().max() for y in y_end.values()), below=1e-9)
a, b = flow().at_lam(-math.log(5)), flow().at_lam(-math.log(0.05))
in_kappa = reference(exact(mixture, flow()), a.alpha * y_start, a, b) / b.alpha
claim("C04.14", "and to the solution of dy/dκ = ε", (in_kappa - y_end["vp"]).abs().max(),
      below=1e-9)

# %%
shown = {name: (level.t, x[:, 4, 0], level.sigma / level.alpha, x[:, 4, 0] / level.alpha)
         for name, (level, x) in paths.items() if name != "cosine"}
figure(plot.one_curve(shown),
       "On the left four different curves over t; on the right, as y over κ, they lie on "
       "each other.", "One trajectory on four schedules.")

# %% [markdown]
# The noisy samplers become one as well, $dy=(1+\eta^2)\,\varepsilon\,d\kappa+\eta\sqrt{2\kappa}\,d\bar w$. What differs between schedules is what a coarse step in
# $t$ does to them; [Explore](../book/pages/explore.md) shows it for one noise on three schedules. Solvers that step in $(y,\kappa)$, or in λ, get the linear part for nothing: that is where
# chapters [7](07_exact_solution.ipynb) and 8 start.
#
# ## 4.5 The probability of a picture
#
# Without noise you can follow the density along a path. Divide \eqref{eq:sde-share} with $e=0$ by $p$, write $u$ for the velocity: $\partial_t\log p=-\nabla\cdot u-u\cdot\nabla\log p$. Moving
# with the flow adds $u\cdot\nabla\log p$. What is left is
#
# $$\frac{d}{dt}\log p_t(x_t)=-\nabla\cdot u(x_t,t),\qquad \log p_a(x_a)=\log p_b(x_b)+\int_a^b\nabla\cdot u\,dt, \label{eq:sde-likelihood}$$
#
# the instantaneous change of variables [@chen2018node], from data level $a$ to a noise level $b$ whose density you know. The library solves it in λ, $x$ and integral together:

# %%
# NBVAL_CHECK_OUTPUT
show(log_likelihood)
def along_ode(s, t_a, count=500, **how):
    a, b, net = s.at(t_a), s.at(1.0), exact(mixture, s)
    x_0, _ = mixture.sample(count, Draw(4))
    x = a.alpha * x_0 + a.sigma * Draw(5).normal(x_0)
    change, x_b = log_likelihood(net, x, a, b, **how)
    return change, mixture.log_prob(x, a), mixture.log_prob(x_b, b), normal_log_prob(x_b, b)

rms = lambda values: values.square().mean().sqrt()
runs = [along_ode(s, t) for s, t in ((vp(), 0.01), (sub_vp(), 0.01), (ve(), 0.3))]
claim("C04.15", "log-likelihood by ODE − the mixture's, VP, sub-VP, VE: largest, in nats",
      max((change + end - truth).abs().max() for change, truth, end, _ in runs), below=1e-4)
change, truth, end, normal = runs[0]
shift = first.alpha * (mixture.weights @ mixture.means).norm()       # the mean of p_1
claim("C04.16", "N(0, I) in place of p_1: RMS error over α_1‖E x₀‖",
      rms(change + normal - truth) / shift, between=(0.84, 1.16))
signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double()[:, None].expand(2, 500, 2)
by_signs = lambda probes: rms(along_ode(vp(), 0.01, probes=probes)[0] - change)
claim("C04.17", "Hutchinson, averaged over all signs − exact trace (RMS, nats)",
      by_signs(signs), below=1e-6)
claim("C04.18", "one sign vector alone (RMS, nats)", by_signs(signs[:1]), above=0.1)

# %% [markdown]
# **The prior.** $p_1$ is not quite $\mathcal N(0,I)$: on VP its mean is $m=\alpha_1\mathbb E\,x_0$. To first order a point's error is $m\cdot
# x$, of size $\lVert m\rVert$ (the bound allows five standard errors). The mean error is $\mathrm{KL}(p_1\Vert\mathcal
# N)\approx\tfrac12\lVert m\rVert^2$, some $10^{-6}$ nat here: small in an average, a thousand times larger in a point.
#
# **The trace** costs $d$ backward passes. Hutchinson's estimate $v^\top\nabla u\,v$ costs one [@hutchinson1989stochastic; @grathwohl2019ffjord], is unbiased, and is noisy in a point: you saw .9 nat.

# %%
axis = torch.linspace(-2.6, 2.6, 41, dtype=torch.float64)
square, level = torch.cartesian_prod(axis, axis), schedule.at(0.05)
change, x_b = log_likelihood(exact(mixture, schedule), square, level, first, rtol=1e-5)
found = change + normal_log_prob(x_b, first)
figure(plot.log_density(found, mixture.log_prob(square, level), axis),
       "Five bright modes on a dark ground; the dashed contours of the exact density "
       "follow the colours everywhere, between the modes too.",
       "Log-likelihood from 1681 ODEs and the normal prior, GMM5 at $t=.05$.")

# %% [markdown]
# ## 4.6 Rung 2: real pictures
#
# The shipped digits network, one start for each digit. Equation \eqref{eq:sde-family} with the linear part solved exactly is `sde_dpm_solver_pp(p, eta)`, whose
# `eta` is our $\eta^2$. At η = 1 the draws from *one* start should differ as much as the ODE's from many, if the learnt score is good; at η = 0 not at all.
# (Variances of 40 draws for each digit: a standard error of some 5 %; we allow five. At η = 0 only rounding is left.)

# %%
# NBVAL_CHECK_OUTPUT
teacher, digit = digits_teacher(), torch.arange(10).repeat_interleave(40)
levels = [*schedule.levels(grid(schedule, 50, t_min=0.01)), CLEAN]
def draw_digits(x, eta):
    return sample(teacher, x, levels, solvers.sde_dpm_solver_pp(2, eta**2), digit, Draw(6))

one_start = Draw(7).normal(torch.empty(10, 1, 8, 8)).repeat_interleave(40, 0)
spread = lambda x: x.view(10, 40, 64).var(1).sum()
many = spread(draw_digits(Draw(8).normal(one_start), 0))
claim("C04.19", "digits, η = 0: spread of 40 draws from one start",
      spread(draw_digits(one_start, 0)), below=1e-6)
claim("C04.20", "digits, η = 1: spread from one start over the ODE's from many",
      spread(draw_digits(one_start, 1)) / many, between=(0.75, 1.25))

# %%
two = lambda eta: draw_digits(one_start, eta).view(10, 40, 1, 8, 8)[:, :2].transpose(0, 1)
rows = {f"η = {name}, {order} noise": picture
        for name, eta in (("0", 0), ("½", 0.5), ("1", 1))
        for order, picture in zip(("first", "second"), two(eta))}
figure(plot.pictures(rows),
       "At η = 0 both rows are the same ten digits; at η = ½ and 1 the two rows show "
       "different handwriting of the same digits.",
       "One start in each column, two draws of the noise.")

# %% [markdown]
# **Bits per dimension.** A density of grey values is not a probability: these pixels take 17 values, $\tfrac18$ apart. *Dequantise*: add uniform
# noise $r$ of that width. By Jensen's inequality $-\mathbb E\log_2p(x+r)/d+\log_2 8$ bits a pixel then suffice to code the pictures [@theis2016note]. The last term is the unit: one bit for each halving of the width; it
# is 7 for 8-bit pictures on $[-1,1]$. We evaluate $p$ at the level whose noise has the same variance as $r$, $\kappa=\tfrac18/\sqrt{12}$: below it, the border
# pixels that are always paper have densities without bound.
#
# To beat: independent pixels, each with its histogram in the training set. A fair match takes their density at the same level, a
# sum of 17 normals, at the same points. (The noise costs them at most $\tfrac12\log_2\tfrac{\pi e}6=.255$ bits a pixel, a normal's price for uniform
# noise of its own variance.)

# %%
# NBVAL_CHECK_OUTPUT
(train, _), (held_out, labels) = digits_split()
ink = lambda pictures: ((pictures + 1) * 8).round().long().flatten(1)          # 0 … 16
counts = 1.0 + torch.nn.functional.one_hot(ink(train), 17).sum(0)              # (64, 17)
log_share = (counts / counts.sum(1, keepdim=True)).double().log()

kappa, labels, some = 0.125 / 12**0.5, labels[:96], held_out[:96].double()
x = some + (Draw(10).uniform(96 * 64).view_as(some).double() - 0.5) / 8
normals = torch.distributions.Normal(torch.arange(17).double() / 8 - 1, kappa)
per_pixel = lambda nats: -nats.mean() / (64 * math.log(2))                     # in bits
code = per_pixel(log_share.gather(1, ink(some).T).sum(0))
independent = log_share + normals.log_prob(x.flatten(1)[:, :, None])
by_pixel = math.log2(8) + per_pixel(independent.logsumexp(2).sum(1))
claim("C04.21", "what dequantising costs independent pixels, in bits per pixel",
      by_pixel - code, between=(0, 0.255))

# %%
# NBVAL_CHECK_OUTPUT
teacher.net.double()
level = schedule.at_lam(-math.log(kappa))
probe = Draw(9).normal(some[None]).sign()
def bits(label):
    z = level.alpha * x                             # its density is that of x over α⁶⁴
    change, z_b = log_likelihood(teacher, z, level, first, label, probe, rtol=1e-4)
    nats = change + normal_log_prob(z_b, first) + 64 * math.log(level.alpha)
    return math.log2(8) + per_pixel(nats)

told, untold = bits(labels), bits(torch.full_like(labels, NULL))
claim("C04.22", "held-out digits: bits per pixel, the network's over independent pixels'",
      untold / by_pixel, below=1)
claim("C04.23", "held-out digits: what the label is worth to the network, in nats",
      64 * math.log(2) * (untold - told), above=math.log(10))

# %% [markdown]
# The network beats independent pixels, 2.37 bits to 2.55: a gain of 7 %, with a standard error of 1.2 % from 96 pictures. As a plain code, without noise, the histograms take 2.40
# bits: dequantising costs nearly all that the network has learnt. The last claim is a confession. Were $p(x\mid c)$ and $p(x)$ parts of one joint density, the label would be worth
# its mutual information with the picture, at most $\log10=2.3$ nats. It is worth more than twice that: the conditional and the unconditional network do not fit together. Guidance
# (chapter 6) builds on their difference.
#
# ## 4.7 What should look wrong here
#
# Take `ode_plus_noise`, the fourth panel, to $\mathcal N(0,1)$ with VP, where the ODE does not move at all. *Predict the variance at the end before you run
# this.* (Steps are 0.001 long and β rises by 20: the sum is off by .01.)

# %%
# NBVAL_CHECK_OUTPUT
claim("C04.24", "noise without drift: the variance at the end, which should be 1",
      variance(ode_plus_noise, 1.0), between=(1 + integral - 0.03, 1 + integral + 0.03))
claim("C04.25", "with all of the drift (η = 1)", variance(solvers.euler_maruyama(1), 1.0),
      between=(0.99, 1.01))

# %% [markdown]
# All noise ever added is still there: $1+\int\beta=11$. A factor of two in a drift, and no error message.
#
# ## 4.8 In practice
#
# - **η.** The ODE for few calls, for editing and for distilling: its map is a function. Noise for quality at many calls. With a *learnt* score the marginals of different η
#     differ; nothing in this chapter promises otherwise. EDM's churn [@karras2022edm] is Langevin in other clothes.
# - **Predictor–corrector** samplers add Langevin steps at each level [@song2021sde]. The released step size has norms averaged over the *batch*: a sample depends on its
#     neighbours.
# - **Ends.** The released likelihood code integrates from $t=10^{-5}$ with a tolerance of $10^{-5}$, on dequantised data. VE's prior $\mathcal N(0,\sigma_{\max}^2I)$ must be wider than the data, hence $\sigma_{\max}=50$ there.
# - **Reported**: FID 2.20 and 2.99 bits per dimension on CIFAR-10 [@song2021sde]; *not reproduced here*.
# - **Where the toy stops being true.** A learnt ODE has a likelihood of its own; it is not the data's, and high likelihood is not high quality. For latent models it is that of *latents*, so not comparable with pixels'.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.sd.denoiser(unet, scheduler_config)` |
# | `solvers.euler_maruyama(1)` | the same function, `--solver euler_maruyama` |
# | `sde_dpm_solver_pp(2, eta)` | the same function at η = 1, `--solver sde_dpm_solver_pp_2m` |
# | `log_likelihood` | runs on any denoiser in float64; no command |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" --solver euler_maruyama --steps 100
#
# python -m full_scale.sample --weights DIR_OR_HUB_ID --prompt "a lighthouse at dusk" \
#     --solver sde_dpm_solver_pp_2m --steps 25 --grid sd_trailing --omega 6.5
# ```
#
# **How far up the ladder.** Rung 1: every identity to rounding, every η against exact marginals. Rung 2: a learnt network's noise and likelihood, where only bounds are
# known. Rung 3: the samplers run on Stable Diffusion's classes.
#
# ## 4.9 Exercises
#
# 1. *(pencil)* Find $f$ and $g^2$ of the straight schedule $\alpha=1-t$, $\sigma=t$. What happens at $t=1$? Check with `flow().diffusion(0.5)`.
# 2. *(code)* Let η change with time: 1 while $t>\tfrac12$, then 0, by a solver that calls two of the `family`. Check: `run(yours)[0]` is below 2.7. Why must it be?
# 3. *(code)* Bits per dimension depend on the unit of length. Halve GMM5 and the noise of VE together. Check: `log_likelihood` changes by $2\log2$ nats, 1 bit per dimension.
# 4. *(open)* Lower the level of `bits` towards $\kappa=.01$. Which pixels pay, and what would you train differently?
#
# <details><summary>Answer to 1</summary>
#
# $f=-1/(1-t)$. With $\lambda=\log\frac{1-t}t$, $\dot\lambda=-\frac1{t(1-t)}$ and $g^2=-2t^2\dot\lambda=\frac{2t}{1-t}$; at ½ it is 2. Both are infinite at $t=1$, where $\alpha=0$: the
# SDE has to forget $x_0$ in finite time. The ODE's velocity, $\varepsilon-x_0$, is finite.
#
# </details>
#
# Answer to 3, as code that runs:

# %%
# NBVAL_CHECK_OUTPUT
small = Mixture(mixture.weights, mixture.means / 2, mixture.stds / 2)
def nats(data, s, scale):
    x, a, b = scale * mixture.sample(100, Draw(11))[0], s.at(0.3), s.at(0.9)
    change, x_b = log_likelihood(exact(data, s), x, a, b)
    return change + data.log_prob(x_b, b)

saved = (nats(small, ve(0.005, 25), 0.5) - nats(mixture, ve(), 1)) / (2 * math.log(2))
claim("C04.26", "half the unit saves a bit per dimension (largest departure of 100 points)",
      (saved - 1).abs().max(), below=1e-6)

# %% [markdown]
# ## References
#
# SDEs, the ODE, predictor–corrector: [@song2021sde]; time reversal: [@anderson1982reverse]; Fokker–Planck: [@risken1996fokker]; the ODE found from it in physics:
# [@maoutsa2020interacting]. $g^2=-2\sigma^2\dot\lambda$: [@kingma2021vdm]. Langevin inside the SDE, and $(y,\kappa)$: [@karras2022edm]. Likelihoods: [@chen2018node; @grathwohl2019ffjord; @hutchinson1989stochastic; @theis2016note].
