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
#     minutes: 40
#     memory: 1 GB
#     needs:
#       - the score, and why denoising gives it (chapter 1; recapped below)
#       - PyTorch, integration by parts
# ---

# %% [markdown]
# # 4 SDEs and the probability-flow ODE: one family, the same marginals
#
# You have a network that knows the score of the data at every noise level. How do you get from noise to data with it?
# By a random walk or along a smooth curve? This chapter shows that both are right, that a whole family lies between
# them, and that one number must be right in all of them.
#
# The data are two modes on a line, so the perfect network is a formula. Each panel sends three paths from each of the same
# five points. The number η says how much noise a sampler adds on the way; grey is the exact density at every time. One sampler is
# wrong. (In code, a *solver* carries `x` from noise level `a` to the cleaner level `b`, and `walk` gives the state after each step.)

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import math
import torch
from dlib import CLEAN, NULL, Draw, Mixture, cosine, exact, flow, levels, log_likelihood
from dlib import metrics, normal_log_prob, plot, reference, sample, solvers
from dlib import sub_vp, ve, vp, walk
from scipy.integrate import solve_ivp
from toy_data import digits_split, digits_teacher, gaussian, gmm5

line = Mixture(
    torch.tensor([0.3, 0.7]), means=torch.tensor([[-1.2], [0.8]]), stds=torch.tensor([0.25, 0.4])
)
schedule = vp()
model = exact(line, schedule)  # the perfect network for these data
times = lambda n: levels(schedule, n, "time", t_min=0.01)


# %%
@solvers.solver(order=1, noisy=True)
def noise_only(model, x, a, b, memory=None, noise=None, cond=None):
    ahead, _ = solvers.euler(model, x, a, b)  # the drift of η = 0, the noise of η = 1
    return ahead + (model.schedule.diffusion(a.t) * (a.t - b.t)) ** 0.5 * noise, memory


samplers = {f"η = {eta:g}": solvers.euler_maruyama(eta) for eta in (0, 0.5, 1)}
samplers["noise without its drift"] = noise_only


def states(solver, x):
    return list(walk(model, x, times(250), solver, draw=Draw(0)))


# %%
starts = torch.tensor([-1.5, -0.6, 0, 0.6, 1.5]).double().repeat_interleave(3)[:, None]
panels = {
    name: torch.stack([state.x[:, 0] for state in states(solver, starts)[::5]])
    for name, solver in samplers.items()
}
figure(
    plot.fans(panels, times(250)[::5], torch.arange(15) // 3, line),
    "With η = 0 the paths of a start coincide, with η = ½ and 1 they spread and still "
    "fill the exact density; noise without its drift leaves the density.",
    "Colour: the common start. Three of the four samplers end on the data's density.",
)

# %% [markdown]
# The last sampler takes the drift of the first and the noise of the third. What it lacks is the subject of 4.3.
#
# **Recap.** Noise is added as $x_t=\alpha_tx_0+\sigma_t\varepsilon$, with $t=1$ noise and $t=0$ data; $p_t$ is the density of
# $x_t$, $\lambda=\log(\alpha/\sigma)$, a dot is $d/dt$. A network that predicts the noise knows the score: $s=\nabla\log
# p_t=-\varepsilon(x,t)/\sigma_t$. `exact(mixture, schedule)` is the perfect one. At a level it answers with `.eps`, `.score` or
# `.velocity`.
#
# ## 4.1 From many noising steps to an SDE
#
# Let a noising step of length $dt$ be a small drift and a small kick, $x\leftarrow x+f\,x\,dt+g\sqrt{dt}\,z$ with $z\sim\mathcal
# N(0,I)$. As the steps shrink it becomes a **stochastic differential equation**, in which $dw$ stands for $\sqrt{dt}\,z$:
#
# $$dx=f(t)\,x\,dt+g(t)\,dw. \label{eq:sde-forward}$$
#
# Which $f$ and $g$ add noise as $\alpha$ and $\sigma$ do? Given $x_0$, the mean must be $\alpha x_0$ and the variance $\sigma^2$. A step
# multiplies the mean by $1+f\,dt$, and the variance by $(1+f\,dt)^2$ before it adds $g^2dt$. So $\dot\alpha=f\alpha$ and
# $\tfrac{d}{dt}\sigma^2=2f\sigma^2+g^2$, or
#
# $$f=\frac{\dot\alpha}\alpha,\qquad g^2=\frac{d\sigma^2}{dt}-2\frac{\dot\alpha}\alpha\sigma^2=-2\sigma^2\dot\lambda. \label{eq:sde-fg}$$
#
# Every pair $(\alpha,\sigma)$ with falling $\lambda$ *is* an SDE. Three have names [@song2021sde]. Here $B(t)=\int_0^t\beta$, and the usual β rises
# from .1 to 20:
#
# | | $f$ | $g^2$ | $\alpha$ | $\sigma^2$ |
# |---|---|---|---|---|
# | variance preserving, VP | $-\tfrac12\beta$ | $\beta$ | $e^{-B/2}$ | $1-e^{-B}$ |
# | sub-VP | $-\tfrac12\beta$ | $\beta(1-e^{-2B})$ | $e^{-B/2}$ | $(1-e^{-B})^2$ |
# | variance exploding, VE | $0$ | $d\sigma^2/dt$ | $1$ | $\sigma_{\min}^2(\sigma_{\max}/\sigma_{\min})^{2t}$ |
#
# VE's last entry is not quite what its SDE makes of clean data. That would be $\sigma_{\min}^2(\sigma_{\max}/\sigma_{\min})^{2t}-\sigma_{\min}^2$,
# which is 0 at $t=0$. The paper and the library drop the last term. So at $t=0$ their data already carry a noise of $\sigma_{\min}$, by default
# .01.
#
# The library computes $g^2$ from $\dot\alpha$ and $\dot\sigma$. Is that the slope of λ? Central differences with $h=10^{-5}$ are good to some
# $(h/t)^2<10^{-7}$, so a bound of $10^{-6}$ is safe.

# %%
# NBVAL_CHECK_OUTPUT
show(type(schedule).diffusion)
t, h = torch.linspace(0.05, 0.95, 19).double(), 1e-5


def off(s):
    lam_dot = (s.at(t + h).lam - s.at(t - h).lam) / (2 * h)
    return (s.diffusion(t) / (-2 * s.at(t).sigma ** 2 * lam_dot) - 1).abs().max()


every = (vp(), sub_vp(), ve(), flow(), cosine())
claim(
    "C04.1",
    "g² = −2σ²λ̇ on five schedules (largest relative error)",
    max(off(s) for s in every),
    below=1e-6,
)

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
# Take a smooth test function $\varphi$ that vanishes far away, and expand $\varphi(x+fx\,dt+g\sqrt{dt}\,z)$ to second order. The term linear in $z$
# has mean 0, the quadratic one has $\mathbb E\,zz^\top=I$, the rest is $o(dt)$. So one step changes $\mathbb E\,\varphi(x)$ by
# $\mathbb E[\nabla\varphi\cdot fx+\tfrac12g^2\Delta\varphi]\,dt$. Write this mean as $\int p\,(\dots)\,dx$ and integrate by parts, once and twice:
# $\int\varphi\,\partial_tp\,dx=\int\varphi\,[-\nabla\cdot(fxp)+\tfrac12g^2\Delta p]\,dx$. It holds for every $\varphi$.
#
# </details>
#
# Now the one trick of this chapter. Since $p\,s=\nabla p$, diffusion is also a drift: $\Delta p=\nabla\cdot(p\,s)$. Move any
# share of it to the first term. For every number $e$,
#
# $$\frac{\partial p}{\partial t}=-\nabla\!\cdot\big([\,f\,x-\tfrac12(1+e)\,g^2s\,]\,p\big)-\tfrac12\,e\,g^2\,\Delta p. \label{eq:sde-share}$$
#
# With $e=-1$ this is \eqref{eq:sde-fp}. With $e=0$ the Laplacian is gone: pure transport, no randomness. With $e>0$ the Laplacian
# has the wrong sign, until you run time backwards. That is what a sampler does.
#
# Here are both sides on a grid. On a line $\nabla\cdot$ and $\Delta$ are derivatives in $x$, by autograd; the slope in time is a
# difference as above.

# %%
# NBVAL_CHECK_OUTPUT
x = torch.linspace(-3, 3, 61).double()[:, None].requires_grad_()
d_dx = lambda y: torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def residual(e, s, t):
    p = lambda t: line.log_prob(x, s.at(t)).exp()[:, None]
    score, g2 = exact(line, s)(x, s.at(t)).score, s.diffusion(t)
    drift = s.drift(t) * x - 0.5 * (1 + e) * g2 * score
    left = (p(t + h) - p(t - h)) / (2 * h)
    right = -d_dx(drift * p(t)) - 0.5 * e * g2 * d_dx(d_dx(p(t)))
    return ((left - right).abs().max() / left.abs().max()).item()


claim(
    "C04.2",
    "both sides agree for e = −1, 0, ¼, 1 on VP, sub-VP, VE (largest residual)",
    max(residual(e, s, t) for e in (-1, 0, 0.25, 1) for s in every[:3] for t in (0.2, 0.5)),
    below=1e-6,
)

# %% [markdown]
# ## 4.3 Back from noise: η
#
# While you sample, $t$ falls, so count time by $\tau=1-t$. Then $\partial p/\partial\tau=-\partial p/\partial t$, and
# \eqref{eq:sde-share} with $e=\eta^2$ reads $\partial p/\partial\tau=-\nabla\!\cdot\big(-[\dots]\,p\big)+\tfrac12\eta^2g^2\Delta p$. This is a
# Fokker–Planck equation again, of drift $-[\dots]\,d\tau=[\dots]\,dt$ and noise $\eta g$:
#
# $$dx=\big[f\,x-\tfrac12(1+\eta^2)\,g^2s\big]dt+\eta\,g\,d\bar w,\qquad t\text{ from }1\text{ to }0. \label{eq:sde-family}$$
#
# (Here $dt<0$, and $d\bar w$ stands for $\sqrt{|dt|}\,z$.) So η = 1 is Anderson's **reverse SDE** [@anderson1982reverse], with the drift
# $fx-g^2s$, to which chapter 3's DDPM steps tend as they get short. η = 0 is the **probability-flow ODE**, with *half* of the score term. Every η has the same marginals $p_t$, if it starts
# in $p_1$. The noise of one with the drift of another has not.
#
# Euler and Maruyama's rule takes finite steps of \eqref{eq:sde-family}. We judge it by the largest gap between the distribution of 10 000
# samples and the exact one, times $\sqrt n$. For exact samples that passes 2.7 once in $10^6$ times ($2e^{-2\cdot2.7^2}$).

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.euler_maruyama)
first, x_0 = schedule.at(1.0), line.sample(10_000, Draw(1))[0]
x_1 = first.alpha * x_0 + first.sigma * Draw(2).normal(x_0)  # exactly p_1
distance = lambda state: metrics.kolmogorov(line.cdf(state.x, state.level))
*right, wrong = [
    max(map(distance, states(solver, x_1)[125::125]))  # halfway, and at the end
    for solver in samplers.values()
]
claim("C04.3", "η = 0, ½, 1: largest √n · distance to p_t", max(right), below=2.7)
claim("C04.4", "noise without its drift: √n · distance to p_t", wrong, above=2.7)

# %% [markdown]
# **Same marginals, different couplings.** The ODE is a map: a start has one end. On a line paths cannot cross, so each point even
# keeps its quantile. At η = 1 the sampler is the forward process filmed backwards, whose start and end are all but independent,
# $\alpha_1=.0066$.
#
# **What the noise is for.** Split the step: \eqref{eq:sde-family} is the ODE plus $-\tfrac12\eta^2g^2s\,dt+\eta g\,d\bar w$. The second part is
# chapter 1's Langevin step at fixed $t$, $x\leftarrow x+\delta s+\sqrt{2\delta}\,z$, size $\delta=\tfrac12\eta^2g^2|dt|$. It leaves $p_t$ alone and pulls
# everything else towards it. So η > 0 *repairs* errors. Start the samplers of $\mathcal N(0,1)$ with a wrong variance: at the end all of the error is left for
# η = 0, 8 % for ½, nothing for 1 (exercise 3). The price is in the steps, because noise must be resolved too.
# [Chapter 8](08_dpm_solver.ipynb) counts calls.
#
# ## 4.4 All probability-flow ODEs are one
#
# Put \eqref{eq:sde-fg} and $s=-\varepsilon/\sigma$ into \eqref{eq:sde-family} with η = 0:
#
# $$\frac{dx}{dt}=\frac{\dot\alpha}\alpha x-\sigma\dot\lambda\,\varepsilon(x,t). \label{eq:sde-ode}$$
#
# (With $x_0=(x-\sigma\varepsilon)/\alpha$ this is $\dot\alpha x_0+\dot\sigma\varepsilon$: both parts move with their coefficients.) Divide the known linear part away. With $y=x/\alpha$ and $\kappa=\sigma/\alpha=e^{-\lambda}$ we have $\dot y=\dot x/\alpha-\dot\alpha
# x/\alpha^2$ and $\dot\kappa=-\kappa\dot\lambda$, so
#
# $$\frac{dy}{d\kappa}=\varepsilon(\alpha y,\kappa). \label{eq:sde-one}$$
#
# No $\dot\alpha$, no $\dot\sigma$. Does ε still know the schedule? The perfect ε is the mean of the noise given $x_t=x$, and that condition
# says no more than $x_0+\kappa\varepsilon=y$. So ε depends on the pair $(y,\kappa)$ and on nothing else. The data have **one** family of curves
# $y(\kappa)$. A schedule chooses where on a curve you are at time $t$, and at what scale you see it.
#
# To test this, integrate \eqref{eq:sde-ode} from κ = 5 to .05 for each schedule in its own $t$, at a tolerance of $10^{-12}$. `own_clock`
# gives the levels that the integrator visits, and $x$ at each.

# %%
y = 5 * Draw(0).normal((16, 1), torch.float64)
at = lambda s, kappa: s.at_lam(-math.log(kappa))


def own_clock(s):
    net, start = exact(line, s), at(s, 5).alpha * y[:, 0].numpy()
    rate = lambda t, x: net(torch.from_numpy(x)[:, None], s.at(t)).velocity[:, 0].numpy()
    ends = at(s, 5).t, at(s, 0.05).t
    path = solve_ivp(rate, ends, start, "DOP853", rtol=1e-12, atol=1e-13)
    return s.at(torch.from_numpy(path.t)), torch.from_numpy(path.y)


# %% [markdown]
# Compare with `reference`, which solves \eqref{eq:sde-one}.

# %%
# NBVAL_CHECK_OUTPUT
runs = {s.name: own_clock(s) for s in every}
a, b = at(schedule, 5), at(schedule, 0.05)
goal = reference(model, a.alpha * y, a, b)[:, 0] / b.alpha
claim(
    "C04.5",
    "five schedules, each on its clock, end where dy/dκ = ε does (largest gap)",
    max((x[:, -1] / level.alpha[-1] - goal).abs().max() for level, x in runs.values()),
    below=1e-9,
)
curves = {
    name: (level.t, x[4], level.sigma / level.alpha, x[4] / level.alpha)
    for name, (level, x) in runs.items()
    if name != "cosine"
}
figure(
    plot.one_curve(curves),
    "On the left four different curves over t; on the right, as y over κ, they lie on "
    "each other.",
    "One trajectory on four schedules.",
)

# %% [markdown]
# What differs between schedules is what a coarse step in $t$ does to them; [Explore](../book/pages/explore.md) lets you try. Solvers that step
# in $(y,\kappa)$, or in λ, get the linear part for nothing. That is where chapters [7](07_exact_solution.ipynb) and 8 start.
#
# ## 4.5 The probability of a picture
#
# Without noise you can follow the density along a path. Write $u$ for the ODE's velocity $dx/dt$, and divide \eqref{eq:sde-share} with
# $e=0$ by $p$: $\partial_t\log p=-\nabla\cdot u-u\cdot\nabla\log p$. Moving with the flow adds $u\cdot\nabla\log p$. What is left is
#
# $$\frac{d}{dt}\log p_t(x_t)=-\nabla\cdot u(x_t,t),\qquad \log p_a(x_a)=\log p_b(x_b)+\int_a^b\nabla\cdot u\,dt, \label{eq:sde-likelihood}$$
#
# the instantaneous change of variables [@chen2018node]. You now travel from data to noise: $a$ is the clean level; at $b$ you know the density. The
# library solves it in λ, for $y$ and the integral together. On GMM5, the book's five modes in the plane, the mixture knows the answer,
# and must agree to $10^{-4}$ nat:

# %%
# NBVAL_CHECK_OUTPUT
show(log_likelihood)
mixture, axis = gmm5(), torch.linspace(-2.6, 2.6, 41).double()
square, a, b = torch.cartesian_prod(axis, axis), schedule.at(0.05), schedule.at(1.0)
change, x_b = log_likelihood(exact(mixture, schedule), square, a, b)
found, truth = change + mixture.log_prob(x_b, b), mixture.log_prob(square, a)
claim(
    "C04.6",
    "log p by the ODE − the mixture's (largest of 1681 points, in nats)",
    (found - truth).abs().max(),
    below=1e-4,
)
figure(
    plot.log_density(found, truth, axis),
    "Five bright modes on a dark ground; the dashed contours of the exact density "
    "follow the colours everywhere, between the modes too.",
    "Log-likelihood from 1681 ODEs, GMM5 at $t=.05$.",
)

# %% [markdown]
# Two things change with real data. **The prior**: $p_1$ is unknown, and $\mathcal N(0,I)$ stands in. On VP its mean misses by
# $\alpha_1\mathbb E\,x_0$; on GMM5 that costs some $10^{-3}$ nat a point. **The divergence** is a trace and costs $d$ backward passes.
# Hutchinson's estimate $v^\top\nabla u\,v$ with random signs $v$ costs one [@hutchinson1989stochastic; @grathwohl2019ffjord]. It is unbiased, but off
# by about a nat in a single point. (Measured: `tests/dlib/test_likelihood.py`.)
#
# ## 4.6 Rung 2: real pictures
#
# Now a learnt network, on digits. Each digit gets one start and several draws of the noise. The solver is
# `sde_dpm_solver_pp(p, eta)`: \eqref{eq:sde-family} with the linear part solved exactly. Its `eta` is our $\eta^2$.

# %%
teacher, digit = digits_teacher(), torch.arange(10).repeat_interleave(40)
steps = [*levels(schedule, 50, t_min=0.01), CLEAN]


def draw_digits(x, eta):
    return sample(teacher, x, steps, solvers.sde_dpm_solver_pp(2, eta**2), digit, Draw(6))


one_start = Draw(7).normal((10, 1, 8, 8)).repeat_interleave(40, 0)
draws = {eta: draw_digits(one_start, eta) for eta in (0, 0.5, 1)}
rows = {
    f"η = {eta:g}, {name} noise": x[k::40]
    for eta, x in draws.items()
    for k, name in enumerate(("first", "second"))
}
figure(
    plot.pictures(rows),
    "At η = 0 both rows are the same ten digits; at η = ½ and 1 the two rows show "
    "different handwriting of the same digits.",
    "One start in each column, two draws of the noise.",
)

# %% [markdown]
# If the learnt score is good, the draws from *one* start at η = 1 differ as much as the ODE's from many. (40 draws for each digit: a
# standard error of some 5 %; we allow five.)

# %%
# NBVAL_CHECK_OUTPUT
spread = lambda x: x.view(10, 40, 64).var(1).sum()
many = draw_digits(Draw(8).normal(one_start), 0)
claim(
    "C04.7",
    "digits, η = 1: spread from one start over the ODE's from many",
    spread(draws[1]) / spread(many),
    between=(0.75, 1.25),
)

# %% [markdown]
# **How probable are digits that the network has never seen?** It is told no label (`NULL`), and asked at $t=.05$. Two numbers enclose
# its answer. It should beat the best single Gaussian, fitted to the training pictures. And no model's $\log p$ can be more than $-\tfrac
# d2\log(2\pi e\sigma^2)$ on average, the noise's own: $x_t=\alpha x_0+\sigma\varepsilon$ is at least as random as $\sigma\varepsilon$.

# %%
# NBVAL_CHECK_OUTPUT
teacher.net.double()
(train, _), (held_out, _) = digits_split()
x_0, none = held_out[:100].double(), torch.full((100,), NULL)
x = a.alpha * x_0 + a.sigma * Draw(9).normal(x_0)  # a: t = 0.05, b: t = 1, as above
signs = Draw(10).normal(x[None]).sign()  # one vector a picture
change, x_b = log_likelihood(teacher, x, a, b, none, signs, rtol=1e-3)

z = a.alpha * train.double().flatten(1)
cov = z.T.cov() + a.sigma**2 * torch.eye(64).double()
gauss = torch.distributions.MultivariateNormal(z.mean(0), cov).log_prob(x.flatten(1))
ceiling = -64 / 2 * math.log(2 * math.pi * math.e * a.sigma**2)
claim(
    "C04.8",
    "held-out digits: log p in nats, above a Gaussian's and below the ceiling",
    (change + normal_log_prob(x_b, b)).mean(),
    between=(gauss.mean(), ceiling),
)

# %% [markdown]
# The network's $\log p$ is 11 nats above the Gaussian's: to it, a digit is $e^{11}$ times as probable. It needs no unit.
#
# ## 4.7 What should look wrong here
#
# Take `noise_only`, the fourth panel, to $\mathcal N(0,1)$ on VP, where the ODE does not move at all. *Predict the variance at the end
# before you run this.* No sampling is needed. A step is $x\leftarrow mx+kz$, so the variance becomes $m^2v+k^2$; two rows, $x=1$ without noise and
# noise alone, reveal $m$ and $k$.

# %%
# NBVAL_CHECK_OUTPUT
bell, unit = exact(gaussian(0.0, 1.0), schedule), torch.eye(2).double()


def variance(solver, v):
    for a, b in zip(times(1000), times(1000)[1:]):
        m, k = solver(bell, unit[:, :1], a, b, noise=unit[:, 1:])[0].flatten().tolist()
        v = m**2 * v + k**2
    return v


claim(
    "C04.9",
    "noise without its drift: the variance at the end, which should be 1",
    variance(noise_only, 1.0),
    between=(11.02, 11.08),
)

# %% [markdown]
# All noise ever added is still there: $1+\int_{.01}^1\beta=11.05$. (Steps are .001 long and β rises by 20: the sum may be off by .01; we
# allow three times that.) A factor of two in a drift, and no error message.
#
# ## 4.8 In practice
#
# - **η.** The ODE for few calls, for editing and for distilling: it is a map. Noise for quality at many calls. With a *learnt* score the marginals of different η
#     differ. EDM's churn [@karras2022edm] is Langevin in other clothes.
# - **Predictor–corrector** samplers add Langevin steps at each level [@song2021sde]. The released step size has norms averaged over the *batch*: a sample depends on its
#     neighbours.
# - **Bits per dimension** are $-\log_2p/d$. A density bounds a probability only if the pictures were *dequantised* by uniform noise of one grey level [@theis2016note]. For 8-bit
#     values on $[-1,1]$ add 7, one for each halving of the unit.
# - **Ends.** The released likelihood code integrates from $t=10^{-5}$ with a tolerance of $10^{-5}$. VE's prior $\mathcal N(0,\sigma_{\max}^2I)$ must be wider than the data, hence $\sigma_{\max}=50$ there.
# - **Reported**: FID 2.20 and 2.99 bits per dimension on CIFAR-10 [@song2021sde]; *not reproduced here*.
# - **Where the toy stops being true.** A learnt ODE has a likelihood of its own; it is not the data's, and high likelihood is not high quality. For latent models it is that of *latents*, so not comparable with pixels'.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(line, vp())` | `full_scale.families.sd.denoiser(unet, scheduler_config)` |
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
# 2. *(code)* Let η change with time: 1 while $t>\tfrac12$, then 0, by a solver that calls two of the `samplers`. Check: `distance(states(yours, x_1)[-1])` is below 2.7. Why must it be?
# 3. *(code)* Start the samplers of $\mathcal N(0,1)$ with the variance 4 instead of 1. Predict from \eqref{eq:sde-family} what share of the excess is left at $t=.01$. Check: `variance` agrees within .01, for η = 0, ½ and 1.
# 4. *(open)* Give the network of 4.6 the labels instead of `NULL`. Were $p(x\mid c)$ and $p(x)$ parts of one joint density, that could be worth at most $\log10=2.3$ nats on average. Measure what it is worth, and explain.
#
# <details><summary>Answer to 1</summary>
#
# $f=-1/(1-t)$. With $\lambda=\log\frac{1-t}t$, $\dot\lambda=-\frac1{t(1-t)}$ and $g^2=-2t^2\dot\lambda=\frac{2t}{1-t}$; at ½ it is 2. Both are infinite at $t=1$, where $\alpha=0$: the
# SDE has to forget $x_0$ in finite time. The ODE's velocity, $\varepsilon-x_0$, is finite.
#
# </details>
#
# Answer to 3. On VP with $s=-x$, \eqref{eq:sde-family} is $dx=\tfrac12\eta^2\beta\,x\,dt+\eta\sqrt\beta\,d\bar w$. In $\tau=1-t$ the variance obeys
# $dV/d\tau=\eta^2\beta\,(1-V)$, so
#
# $$V_t-1=(V_1-1)\,e^{-\eta^2\int_t^1\beta}. \label{eq:sde-forget}$$
#
# At 1000 steps Euler's rule is off by some $10^{-3}$; the bound is ten times that.

# %%
# NBVAL_CHECK_OUTPUT
left = {eta: (variance(solvers.euler_maruyama(eta), 4.0) - 1) / 3 for eta in (0, 0.5, 1)}
claim(
    "C04.10",
    "share left of a wrong start, η = 0, ½, 1 (largest distance to theory)",
    max(abs(share - math.exp(-(eta**2) * 10.048)) for eta, share in left.items()),
    below=0.01,
)

# %% [markdown]
# ## References
#
# SDEs, the ODE, predictor–corrector: [@song2021sde]; time reversal: [@anderson1982reverse]; Fokker–Planck: [@risken1996fokker]; the ODE found from it in physics:
# [@maoutsa2020interacting]. $g^2=-2\sigma^2\dot\lambda$: [@kingma2021vdm]. Langevin inside the SDE, and $(y,\kappa)$: [@karras2022edm]. Likelihoods: [@chen2018node; @grathwohl2019ffjord; @hutchinson1989stochastic; @theis2016note].
