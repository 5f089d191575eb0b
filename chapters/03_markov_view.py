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
#     title: The Markov view
#     summary: DDPM walks back in small Gaussian steps. What one step is, what it costs in nats, and which weight your loss really has.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - denoising, and why it gives a conditional mean (chapter 1; recapped below)
#       - Gaussian densities, Bayes' rule, Kullback–Leibler divergence
# ---

# %% [markdown]
# # 3 The Markov view: small steps back, and what each one costs
#
# Chapter 2 went down a ladder of noise levels with many Langevin steps on each rung. Can you take *one* step a rung? You
# have a perfect denoiser: at every level it knows the mean of the clean data. On the left, the first idea: ask where $x$ should be
# at the next level, on average, and go there. On the right, DDPM's step [@ho2020ddpm]: the same mean, and some noise.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import math

import torch
from dlib import CLEAN, Batch, Denoiser, Draw, Mixture, bound, denoising, discrete, exact
from dlib import grid, metrics, plot, sample, solvers, step_kl, transition, vp, walk
from dlib.losses import weights

line = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.2], [0.8]]),
               torch.tensor([0.25, 0.4]))
beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)       # DDPM's
schedule = discrete(torch.cumprod(1 - beta, 0))
model = exact(line, schedule)                       # the perfect network for these data
levels = lambda n, spacing="lam": schedule.levels(grid(schedule, n, spacing))

# %%
@solvers.solver(order=1)                            # a step from level a to level b
def mean_alone(model, x, a, b, memory=None, noise=None, cond=None):
    return transition(model, x, a, b).mean, memory

start = torch.tensor([-1.5, -0.6, 0, 0.6, 1.5]).double().repeat_interleave(3)[:, None]
steps = levels(200, "time")
def path(way):
    return torch.stack([s.x[:, 0] for s in walk(model, start, steps, way, draw=Draw(0))])

figure(plot.fans({"the mean alone": path(mean_alone)[::5],
                  "DDPM": path(solvers.ancestral)[::5]},
                 steps[::5], torch.arange(15) // 3, line, reach=2.5),
       "The mean alone carries every path to the same point; DDPM's paths fill the exact "
       "density and end in both modes.",
       "The same perfect denoiser, 200 steps, three paths from each of five starts.")

# %%
# NBVAL_CHECK_OUTPUT
many = Draw(0).normal(torch.empty(4000, 1, dtype=torch.float64))
def off(way):       # perfect samples: some 0.8; above 2.5 once in 130 000 runs, 5 never
    x = sample(model, many, [*steps, CLEAN], way, draw=Draw(1))
    return metrics.kolmogorov(line.cdf(x, CLEAN))

claim("C03.1", "DDPM's step: Kolmogorov–Smirnov distance of 4000 samples",
      off(solvers.ancestral), below=2.5)
claim("C03.2", "the mean alone: the same", off(mean_alone), above=5)

# %% [markdown]
# Which mean is it, how much noise, and why? And what does a step cost, in nats? The price list will tell you what your
# training loss weighs.
#
# **Recap.** $x_t=\alpha_tx_0+\sigma_t\varepsilon$; $t=1$ is noise, $t=0$ data. $\mathrm{SNR}=\alpha^2/\sigma^2$, and $\lambda=\log(\alpha/\sigma)$ is
# half its logarithm. A network trained with squared error learns a conditional mean: $x_\theta(x,t)\approx x^\star=\mathbb
# E[x_0\mid x_t=x]$ (chapter 1), and `exact` is that mean. Steps go from a noisier level $a$ to a cleaner $b$.
#
# ## 3.1 A chain of small steps
#
# DDPM noises by a Markov chain: $x_n=\sqrt{a_n}\,x_{n-1}+\sqrt{\beta_n}\,z$ with $a_n=1-\beta_n$. (The paper calls our $a_n$
# $\alpha_n$; here $\alpha$ is always the factor of $x_0$.) Gaussians compose: means multiply, and a variance $V$ becomes
# $a_nV+\beta_n$. So $\alpha^2=\prod a_n=\bar\alpha_n$, $\sigma^2=1-\bar\alpha_n$, and any jump from $b$ to $a$ is
#
# $$q(x_a\mid x_b)=\mathcal N\big(\alpha_{a|b}x_b,\;\sigma_{a|b}^2I\big),\qquad
# \alpha_{a|b}=\frac{\alpha_a}{\alpha_b},\quad\sigma_{a|b}^2=\sigma_a^2-\alpha_{a|b}^2\sigma_b^2. \label{eq:mv-jump}$$
#
# For neighbours $\sigma^2_{a|b}$ is $\beta_n$. Every pair $(\alpha,\sigma)$ with falling λ is such a chain.
#
# ## 3.2 The way back, if you knew the data
#
# Bayes' rule, with everything given $x_0$: $q(x_b\mid x_a,x_0)\propto q(x_a\mid x_b)\,q(x_b\mid x_0)$. Both factors are Gaussian in
# $x_b$; precisions add, and means are weighted by them:
#
# $$\frac1{\tilde v}=\frac{\alpha_{a|b}^2}{\sigma_{a|b}^2}+\frac1{\sigma_b^2}=\frac{\sigma_a^2}{\sigma_{a|b}^2\sigma_b^2},\qquad
# \tilde\mu=\tilde v\Big(\frac{\alpha_{a|b}x_a}{\sigma_{a|b}^2}+\frac{\alpha_bx_0}{\sigma_b^2}\Big)
# =\alpha_{a|b}\frac{\sigma_b^2}{\sigma_a^2}x_a+\alpha_b\frac{\sigma_{a|b}^2}{\sigma_a^2}x_0. \label{eq:mv-beta}$$
#
# That is DDPM's formula. Now let $h=\lambda_b-\lambda_a$, so that $e^{-2h}=\mathrm{SNR}_a/\mathrm{SNR}_b$ and $\sigma_{a|b}^2=\sigma_a^2(1-e^{-2h})$. The schedule almost
# disappears:
#
# $$\tilde\mu=\frac{\sigma_b}{\sigma_a}e^{-h}x_a+\alpha_b(1-e^{-2h})x_0=\alpha_bx_0+\sigma_be^{-h}\varepsilon,\qquad\tilde v=\sigma_b^2(1-e^{-2h}), \label{eq:mv-lambda}$$
#
# with $\varepsilon=(x_a-\alpha_ax_0)/\sigma_a$. In words: go to level $b$, keep a share $e^{-2h}$ of the old noise's variance, draw the rest afresh. The library has the
# last form, with a knob η that chapters 4 and 7 turn; DDPM is η = 1. `mix(c, d)` is $c\,x_\theta+d\,\varepsilon_\theta$. We check the forms against each other on
# DDPM's own steps, then Bayes' rule itself as a sum over a grid.

# %%
# NBVAL_CHECK_OUTPUT
show(transition)
x_a, x_0 = torch.linspace(-2, 2, 5).double()[:, None], torch.tensor(0.7).double()
told = Denoiser(lambda x, t, cond: x_0.expand_as(x), schedule, "x0")    # it knows x₀
def gaps(a, b, b_n):
    mean, std = transition(told, x_a, a, b)
    in_beta = ((1 - b_n)**0.5 * b.sigma**2 * x_a + b.alpha * b_n * x_0) / a.sigma**2
    h = b.lam - a.lam
    in_lam = b.sigma / a.sigma * math.exp(-h) * x_a - b.alpha * math.expm1(-2 * h) * x_0
    return max((in_beta - mean).abs().max(), (in_lam - mean).abs().max(),
               abs(b.sigma**2 * b_n / a.sigma**2 - std**2))

ddpm = levels(999, "time")                          # its thousand levels, noise first
claim("C03.3", "posterior in β, in λ and in the library: largest difference, 999 steps",
      max(gaps(*step) for step in zip(ddpm, ddpm[1:], beta.flip(0).tolist())), below=1e-12)

# %%
# NBVAL_CHECK_OUTPUT
dx = 0.008
axis = torch.arange(-8, 8 + dx / 2, dx, dtype=torch.float64)[:, None]
def moments(log_mass):                              # of densities on the axis, one a column
    mass = torch.softmax(log_mass, 0)
    mean = (mass * axis).sum(0)[:, None]
    return mean, (mass * (axis - mean.T) ** 2).sum(0)[:, None]

bell = lambda x, mean, var: -((x - mean) ** 2) / (2 * var)
a, b = schedule.levels([0.5, 0.3])
scale = a.alpha / b.alpha                           # next: log q(x_a | x_b), in columns
seen = bell(x_a.T, scale * axis, a.sigma**2 - scale**2 * b.sigma**2)
mean, var = moments(seen + bell(axis, b.alpha * x_0, b.sigma**2))
step = transition(told, x_a, a, b)
claim("C03.4", "q(x_b | x_a, x₀) by Bayes' rule on a grid − the formula: mean, variance",
      max((mean - step.mean).abs().max(), (var - step.std**2).abs().max()), below=1e-9)

# %% [markdown]
# ## 3.3 What you do not know
#
# You are not told $x_0$, so the true way back averages over it: $q(x_b\mid x_a)=\mathbb E_{x_0\mid x_a}\,q(x_b\mid x_a,x_0)$. The mean
# \eqref{eq:mv-lambda} is linear in $x_0$, so the true mean is $\tilde\mu$ at $x_0=x^\star(x_a)$: exactly what a denoiser provides. The variance grows by the spread of
# $x_0$, times the square of its coefficient $\gamma=\alpha_b(1-e^{-2h})$. In units of $\tilde v$ that square is $\mathrm{SNR}_b(1-e^{-2h})$, or
# $\Delta:=\mathrm{SNR}_b-\mathrm{SNR}_a$. So
#
# $$\mathbb E[x_b\mid x_a]=\tilde\mu\big(x_a,x^\star\big),\qquad\operatorname{Var}[x_b\mid x_a]=\tilde v\,\big(1+\Delta\operatorname{Var}[x_0\mid x_a]\big). \label{eq:mv-true}$$

# %%
# NBVAL_CHECK_OUTPUT
snr = lambda level: (level.alpha / level.sigma) ** 2
mean, var = moments(seen + line.log_prob(axis, b)[:, None])
_, unknown = moments(line.log_prob(axis, CLEAN)[:, None]
                     + bell(x_a.T, a.alpha * axis, a.sigma**2))     # Var[x₀ | x_a]
step = transition(model, x_a, a, b)
true_var = step.std**2 * (1 + (snr(b) - snr(a)) * unknown)
claim("C03.5", "the true step back on a grid − the formula: mean, variance",
      max((mean - step.mean).abs().max(), (var - true_var).abs().max()), below=1e-9)

# %% [markdown]
# For short steps, $\Delta\to0$, the true step is nearly Gaussian and $\tilde v$ is nearly its variance. So DDPM's model is a Gaussian,
# $p_\theta(x_b\mid x_a)=\mathcal N(\tilde\mu(x_a,x_\theta),\,r\tilde v)$, with one of two fixed $r$. $r=1$ ("fixed small") is right if $x_0$ is certain. A variance of $\beta_n$, that is
# $r=\sigma_a^2/\sigma_b^2$ ("fixed large"), is right if the data are $\mathcal N(0,1)$: there $\operatorname{Var}[x_0\mid x_a]=\sigma_a^2$; put it into \eqref{eq:mv-true}.
#
# Its means differ from the posterior's by $\gamma(x_0-x_\theta)$. With $\gamma^2/\tilde v=\Delta$ the divergence of the two Gaussians is, in $d$ dimensions,
#
# $$\mathrm{KL}\big(q(x_b|x_a,x_0)\,\Vert\,p_\theta\big)=\frac{\Delta}{2r}\lVert x_0-x_\theta\rVert^2+\frac d2\Big(\frac1r-1+\log r\Big). \label{eq:mv-kl}$$
#
# The weight is one number of the schedule, $\Delta$. $r$ divides it: it changes which levels training attends to, not what is best at a level.
#
# ## 3.4 The bound, with both its ends
#
# Levels run from $1$ (cleanest) to $N$ (noisiest). The model starts at $p(x_N)=\mathcal N(0,I)$, walks back, and ends with a decoder $p(x_0\mid x_1)$. By Jensen's
# inequality $-\log p_\theta(x_0)\le\mathbb E_q\log\frac{q(x_{1:N}\mid x_0)}{p_\theta(x_{0:N})}$. Given $x_0$, a Markov chain is one when read backwards too: $q(x_{1:N}\mid x_0)$ is
# $q(x_N\mid x_0)$ times all the $q(x_{n-1}\mid x_n,x_0)$. Pair the factors:
#
# $$\begin{aligned}-\log p_\theta(x_0)\le{}&\underbrace{\mathrm{KL}\big(q(x_N|x_0)\Vert p(x_N)\big)}_{L_N}+\underbrace{\mathbb E[-\log p(x_0|x_1)]}_{L_0}\\
# &+\sum_{n=2}^N\underbrace{\mathbb E\,\mathrm{KL}\big(q(x_{n-1}|x_n,x_0)\Vert p_\theta(x_{n-1}|x_n)\big)}_{L_{n-1}}.\end{aligned} \label{eq:mv-bound}$$
#
# Our decoder is $\mathcal N(x_1/\alpha_1,\kappa_1^2)$, $\kappa=\sigma/\alpha$, so $L_0=\frac d2\log(2\pi e\kappa_1^2)$ on average. Slides often show the sum alone, $n$ from 2. All the network's
# parameters are in it, so it trains the same network. But it is no bound: end the ladder early, at a large $\kappa_1$, and it is nearly nothing.

# %%
show(step_kl)
from functools import lru_cache
second = (line.weights * (line.means[:, 0] ** 2 + line.stds**2)).sum().item()   # E x₀²

@lru_cache(None)
def error(level, network=None):
    """E‖x₀ − x_θ‖² at a level: of the perfect network, unless another one is given."""
    mass = line.log_prob(axis, level).exp() * dx
    best = line.posterior_means(axis, level)[0][:, 0]
    with torch.no_grad():
        apart = 0 * best if network is None else network(axis, level).x0[:, 0] - best
    return (second - mass @ best**2 + mass @ apart**2).item()

def costs(levels, ratio=lambda a, b: 1.0, network=None):
    return torch.tensor([step_kl(error(a, network), a, b, ratio=ratio(a, b))
                         for a, b in zip(levels, levels[1:])], dtype=torch.float64)

def ends(first, last):                              # L_N and L_0
    prior = first.alpha**2 * second + first.sigma**2 - 1 - math.log(first.sigma**2)
    decoder = math.log(2 * math.pi * math.e * (last.sigma / last.alpha) ** 2)
    return prior / 2, decoder / 2

# %%
# NBVAL_CHECK_OUTPUT
show(bound)
twenty, draws = levels(20), Draw(2)
def run():                                          # all terms, from 1000 draws
    terms = bound(model, line.sample(1000, draws)[0], twenty, draws)
    return torch.cat([terms.prior[None], terms.steps, terms.reconstruction[None]])

runs = torch.stack([run() for _ in range(64)])
prior, decoder = ends(twenty[0], twenty[-1])
truth = torch.cat([torch.tensor([prior]), costs(twenty), torch.tensor([decoder])])
claim("C03.6", "22 terms by sampling − by quadrature, in standard errors (largest)",
      ((runs.mean(0) - truth) / (runs.std(0) / 8)).abs().max(),
      below=5.5)                                    # by chance once in 60 000 tries

def entropy(level):                                 # the mean of −log p
    log_p = line.log_prob(axis, level)
    return -dx * (log_p.exp() * log_p).sum()

early = schedule.levels(grid(schedule, 20, t_min=schedule.at_lam(0.0).t))     # κ₁ = 1
alone = costs(early).sum() - entropy(CLEAN)
claim("C03.7", "ladder ended at κ₁ = 1: the sum alone − the mean of −log p (nats)",
      alone, below=0)
claim("C03.8", "the same with both ends", alone + sum(ends(early[0], early[-1])), above=0)

# %% [markdown]
# ## 3.5 What a step's cost is made of
#
# Inside the logarithm of the KL, multiply and divide by the true step $q(x_b\mid x_a)$. One part of the mean is then $I(x_0;x_b\mid x_a)$, the information about $x_0$ in $x_b$ that $x_a$ lacks:
#
# $$\mathbb E\,L_{n-1}=I(x_0;x_b)-I(x_0;x_a)+\mathbb E\,\mathrm{KL}\big(q(x_b\mid x_a)\,\Vert\,p_\theta(x_b\mid x_a)\big). \label{eq:mv-budget}$$
#
# You pay for what the step reveals, which no model can save, and for its wrong *shape*. Since $\mathbb E\lVert x_0-x_\theta\rVert^2=\mathbb E\lVert
# x_0-x^\star\rVert^2+\mathbb E\lVert x^\star-x_\theta\rVert^2$ (chapter 1), the network's error is a third, separate part.
#
# Let the steps shrink. The shape's share vanishes (3.6 says how fast), and with the perfect network's error $m=\mathbb E\lVert x_0-x^\star\rVert^2$ the sum becomes an integral,
#
# $$I(x_0;x_b)-I(x_0;x_a)=\tfrac12\int m\;d\,\mathrm{SNR}=\int_{\lambda_a}^{\lambda_b}e\,d\lambda,\qquad e=\mathrm{SNR}\,m=\mathbb E\lVert\varepsilon-\varepsilon^\star\rVert^2, \label{eq:mv-info}$$
#
# since $d\,\mathrm{SNR}=2\,\mathrm{SNR}\,d\lambda$ [@guo2005immse]. The ends fit: $\mathbb E\,L_N=I(x_0;x_N)+\mathrm{KL}(q(x_N)\Vert p(x_N))$, and
# $\mathbb E\,L_0$ is the entropy of $x_1/\alpha_1=x_0+\kappa_1\varepsilon$ given $x_0$. So \eqref{eq:mv-bound} tends to
#
# $$H\big(x_0+\kappa_1\varepsilon\big)+\mathrm{KL}\big(q(x_N)\,\Vert\,p(x_N)\big): \label{eq:mv-limit}$$
#
# the exact mean of $-\log p$, but for the two ends of the ladder. The schedule enters *only* through them. To see the third part, train one ε-network twice, alike
# but for the loss: one weighs the error of ε, the other that of $x_0$.

# %%
from dlib import Phase, fit, nets
from dlib.losses import uniform_times

def learn(weight, seed=0, steps=500):
    torch.manual_seed(seed)
    mlp, points = nets.MLP(1, width=64, depth=2), Draw(1 + seed)
    network, times = Denoiser(mlp, schedule, "eps"), uniform_times(schedule.t_min)
    optim = torch.optim.Adam(mlp.parameters(), 3e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    loss = lambda roles, batch, draw: denoising(network, batch, draw, weight, times)
    fit([Phase("net", loss)], {"net": mlp}, {"net": optim},
        lambda step: Batch(line.sample(512, points)[0].float()), steps, Draw(seed),
        each=lambda step, found: rate.step())
    mlp.double()
    return network

by_eps, by_x0 = learn(weights.eps), learn(weights.x0)

# %%
first, last = twenty[0], twenty[-1]                 # the ends of DDPM's ladder
fine = torch.linspace(first.lam, last.lam, 2001, dtype=torch.float64)
m = torch.tensor([error(schedule.at_lam(lam.item())) for lam in fine]).double()
e = (2 * fine).exp() * m                            # nats per unit of λ
edges = torch.tensor([level.lam for level in twenty]).double()
paid, on_eps, on_x0 = (costs(twenty, network=network) for network in (None, by_eps, by_x0))
stairs = {"20 steps, perfect network": paid, "trained, error of ε": on_eps,
          "trained, error of x₀": on_x0}
figure(plot.per_lam({name: (edges, cost / edges.diff()) for name, cost in stairs.items()},
                    "nats per unit of λ", truth=(fine, e)),
       "The exact curve rises from 0 to 1; the stairs of 20 perfect steps lie "
       "above it, at the clean end by two thirds; the network trained on ε is on them, the "
       "one trained on x₀ pays twice as much at the clean end.",
       "Areas are nats. Dashed: what steps reveal. Above it: the shape, then the network.")

# %%
# NBVAL_CHECK_OUTPUT
bell_entropy = lambda sigma: 0.5 * math.log(2 * math.pi * math.e * sigma**2)
known = torch.stack([entropy(level) - bell_entropy(level.sigma) for level in twenty])
claim("C03.9", "20 steps: cost − what the step reveals (least, nats)",
      (paid - known.diff()).min(), above=0)
area, log_p = torch.trapezoid(e, fine).item(), line.log_prob(axis, first)
to_prior = dx * log_p.exp() @ (log_p + axis[:, 0] ** 2 / 2 + math.log(2 * math.pi) / 2)
limit = entropy(last) - math.log(last.alpha) + to_prior
claim("C03.10", "L_N + area + L_0 − (entropy at κ₁ + KL to the prior), nats",
      abs(prior + area + decoder - limit), below=1e-6)
shape = paid.sum() - area                           # a tenth of it is small
claim("C03.11", "the network trained on ε costs, over the shape of 20 steps",
      (on_eps - paid).sum() / shape, below=0.1)
claim("C03.12", "the one trained on x₀, over the same", (on_x0 - paid).sum() / shape,
      above=1)

# %% [markdown]
# The second network says $\varepsilon\approx x$ at every level. That is right for pure noise; at the clean end it is off by a whole ε. In units of $x_0$ that
# error is divided by the SNR, up to $10^4$, and the loss does not see it.
#
# ## 3.6 More steps, and the right variance
#
# With $r=1$ and the perfect network the sum is $\tfrac12\sum\Delta\,m(\mathrm{SNR}_a)$: the integral \eqref{eq:mv-info} by rectangles whose left corner is on a *falling* $m$. So the
# bound tightens with every level you insert. With steps of length $h$ in λ, what is left is half a rectangle a step, $\tfrac h2\int\mathrm{SNR}\,d(-m)$; by parts, with $e(\lambda_N)\approx0$,
#
# $$\text{gap}\;\approx\;h\Big(\int_{\lambda_N}^{\lambda_1}e\,d\lambda-\tfrac12e(\lambda_1)\Big). \label{eq:mv-rate}$$
#
# Can a better $r$ help? Let $r\approx1+2h\rho$, with a function ρ of λ, and expand \eqref{eq:mv-kl}: $\Delta m\approx2he$, $\frac1r-1+\log r\approx\frac12(2h\rho)^2$. A step becomes cheaper by
#
# $$h^2\rho\,(2e-d\rho). \label{eq:mv-save}$$
#
# On VP, $\sigma_a^2/\sigma_b^2\approx1+2h\alpha^2$: for β, $\rho=\alpha^2$. At the clean end $e\to d$ and $\alpha\to1$ whatever the density of the data, and β saves all of the shape. The best $\rho$ is $e/d$. Exactly, the mean of \eqref{eq:mv-kl} has its minimum over $r$ at
#
# $$r^\star=1+\Delta\,m/d,\qquad \mathbb E\,L_{n-1}=\tfrac d2\log(1+\Delta\,m/d), \label{eq:mv-best}$$
#
# and $r^\star\tilde v$ is the mean of \eqref{eq:mv-true} [@bao2022analytic]. On Gaussian data the logarithms telescope: no shape is left to pay, in any number of steps.

# %%
ratios = {"posterior": lambda a, b: 1.0,
          "β": lambda a, b: (a.sigma / b.sigma) ** 2,
          "best r": lambda a, b: 1 + (snr(b) - snr(a)) * error(a)}
counts = (10, 20, 40, 80, 160, 320, 640)
gap = lambda walk, name: (costs(walk, ratios[name]).sum() - area).item()
fall = {name: {n: gap(levels(n), name) for n in counts} for name in ratios}
in_time = {n: gap(levels(n, "time"), "posterior") for n in counts}
figure(plot.convergence(fall | {"posterior, uniform t": in_time}, "steps",
                        "bound − its limit, nats", slopes=(1,)),
       "All gaps fall, in the end as one over the steps; with β or the best variance they "
       "are ten times smaller than with the posterior's, and DDPM's grid is the worst.",
       "The same perfect network; steps uniform in λ, except for the last curve.")

# %%
# NBVAL_CHECK_OUTPUT
each = fall["posterior"]
orders = [metrics.order({n: gaps[n] for n in (160, 320, 640)}) for gaps in fall.values()]
claim("C03.13", "three variances: the order of the gap, farthest from 1",
      max(orders, key=lambda order: abs(order - 1)), between=(0.85, 1.15))
h = (fine[-1] - fine[0]) / 640                      # next order of the laws: about h, 0.014
claim("C03.14", "640 steps, posterior's variance: gap over its law",
      each[640] / (h * (area - e[-1] / 2)), between=(0.97, 1.03))
law = {"β": (2 * fine).sigmoid(), "best r": e}      # ρ; the first is α²
saved = [(each[640] - fall[name][640]) / (h * torch.trapezoid(rho * (2 * e - rho), fine))
         for name, rho in law.items()]
claim("C03.15", "640 steps: what β and the best r save over the law, farthest from 1",
      max(saved, key=lambda ratio: abs(ratio - 1)), between=(0.97, 1.03))

def four_steps(c, ratio):                           # the gap on N(0, c²)
    m, w = lambda level: 1 / (snr(level) + c**-2), levels(4)
    paid = [step_kl(m(a), a, b, ratio=ratio(a, b, m(a))) for a, b in zip(w, w[1:])]
    return abs(sum(paid) - 0.5 * math.log(m(w[0]) / m(w[-1])))

claim("C03.16", "four steps, best r on N(0, 0.3²) and β on N(0, 1): larger gap",
      max(four_steps(0.3, lambda a, b, m: 1 + (snr(b) - snr(a)) * m),
          four_steps(1, lambda a, b, m: ratios["β"](a, b))), below=1e-12)

# %% [markdown]
# ## 3.7 One loss, many weights
#
# At a given $x$, $\alpha x_\theta+\sigma\varepsilon_\theta=x=\alpha x_0+\sigma\varepsilon$. So all errors are one: $\varepsilon-\varepsilon_\theta=-\tfrac\alpha\sigma(x_0-x_\theta)$, and $c\,x_0+d\,\varepsilon$ errs by
# $(c\sigma-d\alpha)/\sigma$ times that of $x_0$. Whatever you regress, you train $x_0$ with a weight. The bound's, for $t$ uniform, is \eqref{eq:mv-kl} over $dt$:
#
# | loss | factor of $\lVert x_0-x_\theta\rVert^2$ | against the bound |
# |---|---|---|
# | $x_0$ | 1 | $1/(\mathrm{SNR}\,\lvert\dot\lambda\rvert)$ |
# | ε: DDPM's "simple" loss | SNR | $1/\lvert\dot\lambda\rvert$ |
# | $v=\alpha\varepsilon-\sigma x_0$, on VP | SNR + 1 | $(1+1/\mathrm{SNR})/\lvert\dot\lambda\rvert$ |
# | score, unweighted | $\mathrm{SNR}/\sigma^2$ | $1/(\sigma^2\lvert\dot\lambda\rvert)$ |
# | min-SNR-γ [@hang2023minsnr] | $\min(\mathrm{SNR},\gamma)$ | $\min(1,\gamma/\mathrm{SNR})/\lvert\dot\lambda\rvert$ |
# | the bound | $-\tfrac12\,d\,\mathrm{SNR}/dt=\mathrm{SNR}\,\lvert\dot\lambda\rvert$ | 1 |
#
# "Simple" drops $\lvert\dot\lambda\rvert$, and with it most of the clean end. Per unit of λ, the bound is the error of ε with weight *one* at every level [@kingma2021vdm; @kingma2023understanding].

# %%
smooth = vp()                                       # DDPM's ladder, rungs without end
lam = torch.linspace(-5, 4.6, 97, dtype=torch.float64)
at_lam = smooth.at(smooth.time(lam))
def per_lam(weight):                                # its mean over λ set to 1
    value = weight(at_lam, smooth) / weights.elbo(at_lam, smooth)
    return lam, value / value.mean()

named = {"the bound": weights.elbo, "x₀": weights.x0, "ε (simple)": weights.eps,
         "v": weights.v, "min-SNR-5": weights.min_snr()}
figure(plot.per_lam({name: per_lam(weight) for name, weight in named.items()},
                    "weight of ‖ε − ε_θ‖², relative", log=True),
       "The bound is flat; simple is nearly flat and falls by fifty at the clean end; min-SNR "
       "falls off beyond λ = 1; v and x₀ fall by many orders of magnitude from the noise on.",
       "What each loss attends to, per unit of λ, times uniform in $t$.")

# %%
# NBVAL_CHECK_OUTPUT
from dlib.denoiser import FACES                     # ε, x₀, v, velocity, score
from dlib.losses.weights import exchange
show(exchange)
now = smooth.at(0.1)                               # SNR 8.6, where min-SNR-5 acts
anything = Denoiser(lambda x, t, cond: torch.tanh(2 * x), smooth, "v")
at_now = lambda draw, n: torch.full((n,), now.t, dtype=torch.float64)
def value(weight, face):                            # the same function, predicting a face
    told = lambda x, t, cond: getattr(anything(x, smooth.at(t, like=x)), face)
    batch = Batch(line.sample(2000, Draw(3))[0])
    return denoising(Denoiser(told, smooth, face), batch, Draw(4), weight, at_now).value

table = {weights.eps: snr(now), weights.v: snr(now) + 1, weights.min_snr(5): 5,
         weights.Weight("score"): snr(now) / now.sigma**2}
claim("C03.17", "losses over that on x₀, any face predicted: largest error of the table",
      max(abs(value(weight, face) / value(weights.x0, "v") / factor - 1)
          for face in FACES for weight, factor in table.items()), below=1e-9)

# %%
# NBVAL_CHECK_OUTPUT
from dlib import cosine, flow
def through(s):                                     # the bound's weight, integrated over t
    t = s.time(fine[20::4])                         # from λ = −4.96, which all three reach
    each = [weights.elbo(s.at(t_k), s) * error(s.at(t_k.item())) for t_k in t]
    return torch.trapezoid(torch.stack(each), -t).item()

in_lam = torch.trapezoid(e[20:], fine[20:]).item()
claim("C03.18", "the bound's weight on three schedules, same ends: largest gap to the area",
      max(abs(through(s) - in_lam) for s in (vp(), flow(), cosine())), below=1e-3)

# %% [markdown]
# **A loss has a floor**, and it is not zero: $\mathbb E\lVert x_0-x^\star\rVert^2$ in the loss's units. On $\mathcal N(0,c^2)$, with $D=\alpha^2c^2+\sigma^2$, it is $c^2\sigma^2/D$ for $x_0$, $\alpha^2c^2/D$ for ε, $c^2/D$ for v, a
# dimension. So for data of unit variance the loss on v is about 1 at *every* level, the steadiest curve to watch.

# %%
# NBVAL_CHECK_OUTPUT
from toy_data import gaussian
def over_floor(c, face):                            # at t = 0.1
    data = gaussian(0, c)
    batch = Batch(data.sample(200_000, Draw(5))[0])
    loss = denoising(exact(data, smooth), batch, Draw(6), weights.Weight(face), at_now)
    top = {"x0": c * now.sigma, "eps": now.alpha * c, "v": c}[face] ** 2
    return loss.value.item() * ((now.alpha * c) ** 2 + now.sigma**2) / top

found = [over_floor(c, face) for c in (0.5, 1, 2) for face in ("x0", "eps", "v")]
claim("C03.19", "loss of the perfect network over its floor, 9 cases, farthest from 1",
      max(found, key=lambda ratio: abs(ratio - 1)),
      between=(0.984, 1.016))                       # five standard errors

# %% [markdown]
# ## 3.8 Rung 2: digits
#
# The shipped network of scikit-learn's digits, which predicts v, and DDPM's sampler, `ancestral`. Few steps pay in shape: five should miss the Fréchet distance of real pictures
# by more than a factor of two, a hundred should be within it.

# %%
# NBVAL_CHECK_OUTPUT
from toy_data import digits_classifier, digits_split, digits_teacher
from toy_data.digit_scores import digits_floor, digits_frechet
teacher, classifier = digits_teacher(), digits_classifier()
(train, _), (held_out, labels) = digits_split()
def drawn(n, seed=0):                               # n calls, the last of them to σ = 0
    walk = teacher.schedule.levels(grid(teacher.schedule, n - 1, "time"))
    noise = Draw(seed).normal(held_out)
    return sample(teacher, noise, [*walk, CLEAN], solvers.ancestral, labels, Draw(seed + 10))

real, _ = digits_floor(classifier)
def away(n):                                        # mean of three seeds
    each = [digits_frechet(drawn(n, seed), classifier) for seed in range(3)]
    return sum(each) / 3 / real

claim("C03.20", "digits, 5 steps: Fréchet distance over that of real pictures", away(5),
      above=2)
claim("C03.21", "digits, 100 steps: the same", away(100), below=2)

first_of = [(labels == digit).nonzero()[0].item() for digit in range(10)]
figure(plot.pictures({f"{n} steps": drawn(n)[first_of] for n in (5, 20, 100)}),
       "With five steps the digits are plain and soft, with twenty they gain strokes of "
       "their own, with a hundred they look like handwriting.",
       "Ancestral sampling from the same noise.")

# %% [markdown]
# **Bits.** Here pixels take 17 values, so $L_0$ can be a true probability: guess each pixel from its own noisy one, among those 17. Then \eqref{eq:mv-bound} bounds the length of a code for the picture. To beat:
# every pixel coded by its histogram in the training set.

# %%
# NBVAL_CHECK_OUTPUT
from dlib import decoder_nats
show(decoder_nats)
teacher.net.double()
pictures, greys = held_out.double(), torch.linspace(-1, 1, 17).double()
end = teacher.schedule.at_lam(-math.log(0.06))      # κ₁: about half a grey's step
rungs = teacher.schedule.levels(grid(teacher.schedule, 200, t_min=end.t))
terms = bound(teacher, pictures, rungs, Draw(7), labels)
last_nats = decoder_nats(pictures, rungs[-1], greys, Draw(8)).mean()
total = (terms.prior + terms.steps.sum() + last_nats) / 64          # a pixel

ink = lambda pictures: ((pictures + 1) * 8).round().long().flatten(1)
counts = 1 + torch.nn.functional.one_hot(ink(train), 17).sum(0)     # (64, 17)
by_pixel = -(counts / counts.sum(1, keepdim=True)).log().gather(1, ink(held_out).T).mean()
claim("C03.22", "held-out digits, 200 steps: the bound over the histograms' code",
      total / by_pixel, below=1)

# %% [markdown]
# ## 3.9 What should look wrong here
#
# DDPM's last step adds no noise. Some code forgets. With $r=1$ that changes nothing: at $\sigma_b=0$, $\tilde v=0$. With β's variance, the step from $a$ to clean data has $\sigma_{a|b}^2=\sigma_a^2$. *Data: two modes of width
# 0.02. Ladder: every 50th of DDPM's levels, so the last step starts at $\sigma_a=0.170$. How wide are the modes if the last noise is added? And with all thousand levels?*

# %%
# NBVAL_CHECK_OUTPUT
narrow = exact(Mixture(line.weights, line.means, torch.full((2,), 0.02)), schedule)
def forgetful(every):
    walk = schedule.levels(torch.arange(1000, 0, -every) / 1000)
    x = narrow(sample(narrow, many, walk, solvers.ancestral, draw=Draw(1)), walk[-1]).x0
    wrong = x + walk[-1].sigma * Draw(9).normal(x)
    width = lambda x: (x[x > 0] - line.means[1]).square().mean().sqrt().item()
    return width(x), width(wrong), walk[-1].sigma

right, wrong, sigma = forgetful(50)
claim("C03.23", "20 steps: width of the modes (0.02, but for a few points between)",
      right, below=0.03)
claim("C03.24", "with noise on the last step: the width over √(0.02² + σ_a²)",
      wrong / (0.02**2 + sigma**2) ** 0.5, between=(0.9, 1.1))

# %% [markdown]
# $\sqrt{0.02^2+\sigma_a^2}=0.171$: eight times too wide, after twenty perfect steps. With all thousand levels $\sigma_a=0.01$, an eighth too wide, and nobody notices until someone samples with fewer steps.
#
# ## 3.10 In practice
#
# - **DDPM's run** [@ho2020ddpm]: CIFAR-10, $N=1000$, β from $10^{-4}$ to $0.02$, ε with the simple loss, β's variance, Adam at $2\cdot10^{-4}$ with 5000 steps of warm-up, batch 128, gradients
#     clipped at 1, dropout 0.1, weights averaged at 0.9999. Reported: FID 3.17 and at most 3.75 bits a dimension; trained on the bound: 13.51 and 3.70. *Not reproduced here*, but the figure of
#     weights has the reason: the bound looks where no eye does.
# - **Learnt variances** interpolate between $\log\tilde v$ and $\log\beta_n$, and save steps and bits [@nichol2021improved].
# - **The cosine schedule** ends at α = 0, where $\beta_N$ would be 1. The paper clips β at 0.999; an ε-network says nothing about $x_0$ there. Use v.
# - **Clipping $x_\theta$** to $[-1,1]$ is for pixels, not latents. Clip *before* \eqref{eq:mv-lambda}, so that ε follows.
# - **Precision.** Half-precision $1-\bar\alpha_n$ loses the clean end: keep ladders in float32.
# - **Stable Diffusion's ladder** stops at α = 0.068, but samplers start from pure noise: $L_N$ is not zero, and pictures come out too evenly bright [@lin2024zerosnr].
# - **Where the toy stops being true.** In pictures most nats are detail that nobody sees.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `discrete(torch.cumprod(1 - beta, 0))` | the same, from the scheduler's configuration |
# | `solvers.ancestral` | the same function, `--solver ancestral`; a test compares it with diffusers' `DDPMScheduler` |
# | `denoising(…, weights.eps, times)` | the same function, in `full_scale.train finetune`; other weights by name in its recipe |
# | `bound` | runs on any denoiser; bits of latents are not bits of pictures; no command |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" --solver ancestral --grid sd_trailing --steps 50
#
# torchrun --standalone --nproc_per_node 8 -m full_scale.train finetune \
#     --weights DIR_OR_HUB_ID --data DATA --out runs/finetune
# ```
#
# **How far up the ladder.** Rung 1: every term against quadrature, the limit against an entropy. Rung 2: a true bound on the digits' code length, whose limit nobody knows. Rung 3: sampler and loss
# are the functions that run on Stable Diffusion.
#
# ## 3.11 Exercises
#
# 1. *(pencil)* Another first idea: guess $x_0$ and noise the guess, $x_b=\alpha_bx^\star+\sigma_bz$. Show that with many steps, on $\mathcal N(0,c^2)$, the variance ends at $c^2/2$. (In $y=x/\alpha$ a
#     step is $y\leftarrow\frac{c^2}{c^2+\kappa_a^2}y+\kappa_bz$.)
# 2. *(code)* Write DDPM's algorithm 2, with ε, $a_n$ and $\beta_n$ only, and $v=\tilde v$. Check: a thousand steps equal to `ancestral` with the same noise to $10^{-10}$.
# 3. *(code)* Steps need not be uniform in λ. To leading order one at λ wastes $c\,h^2$ with $c=-\tfrac12\mathrm{SNR}\,dm/d\lambda$. Which grid is best, and what is its gap? Check with 320 steps.
# 4. *(open)* Let $r$ depend on $x_a$, by \eqref{eq:mv-true}. At which order does the gap fall now? Train a network for it.
#
# <details><summary>Answer to 1</summary>
#
# The fresh noise at the last level is $\kappa^2$, so for nearly equal levels the variance settles at $V=\big(\frac{c^2}{c^2+\kappa^2}\big)^2V+\kappa^2$, or
# $V=\frac{\kappa^2(c^2+\kappa^2)^2}{\kappa^2(2c^2+\kappa^2)}\to\frac{c^2}2$ as $\kappa\to0$. Samples come out too narrow by $\sqrt2$.
#
# </details>
#
# Answer to 3, as code that runs. With local step $h(\lambda)$ the gap is $\int c\,h\,d\lambda$ for $\int d\lambda/h=N$ steps; by Cauchy–Schwarz it is at least $(\int\sqrt c\,d\lambda)^2/N$, reached for $h\propto1/\sqrt c$.

# %%
# NBVAL_CHECK_OUTPUT
c = -0.5 * (2 * fine).exp() * torch.gradient(m, spacing=(fine,))[0]
along = torch.cumulative_trapezoid(c.clamp(min=0).sqrt(), fine)
equal = torch.linspace(0, along[-1], 321, dtype=torch.float64)      # equal parts of ∫√c
places = torch.searchsorted(along, equal).clamp(max=len(along) - 1)
places[-1] = len(fine) - 1
best = gap([schedule.at_lam(lam.item()) for lam in fine[places]], "posterior")
claim("C03.25", "best grid, 320 steps: gap over (∫√c)²/N", best * 320 / along[-1] ** 2,
      between=(0.95, 1.05))

# %% [markdown]
# ## References
#
# The chain and its bound: [@sohldickstein2015deep; @ho2020ddpm]. In SNR, and the decoder: [@kingma2021vdm]. Information and mean squares: [@guo2005immse]. Variances: [@nichol2021improved;
# @bao2022analytic]. Weights: [@salimans2022progressive; @hang2023minsnr; @kingma2023understanding].
