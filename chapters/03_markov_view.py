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
# Chapter 2 went down a ladder of noise levels with many Langevin steps on each rung. Can you take *one* step a rung, given a
# perfect denoiser? Four ways: guess $x_0$ and noise the guess to the next level; move by the right mean and add nothing;
# mix guess and point the wrong way round; and DDPM's way [@ho2020ddpm].

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import functools
import math

import torch
from dlib import CLEAN, Batch, Denoiser, Draw, Mixture, Phase, bound, cosine
from dlib import decoder_nats, denoising, discrete, exact, fit, flow, grid, metrics, nets
from dlib import plot, sample, solvers, step_kl, transition, vp, walk
from dlib.denoiser import FACES
from dlib.losses import uniform_times, weights
from dlib.losses.weights import exchange
from toy_data import digits_classifier, digits_split, digits_teacher, gaussian
from toy_data.digit_scores import digits_floor, digits_frechet

line = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.2], [0.8]]),
               torch.tensor([0.25, 0.4]))
beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)       # DDPM's
schedule = discrete(torch.cumprod(1 - beta, 0))
model = exact(line, schedule)                       # the perfect network for these data
levels = lambda n, spacing="lam": schedule.levels(grid(schedule, n, spacing))

# %%
noisy = solvers.solver(order=1, noisy=True)         # a step from level a to level b
@noisy
def noise_the_guess(model, x, a, b, memory=None, noise=None, cond=None):
    return b.alpha * model(x, a).x0 + b.sigma * noise, memory

@noisy
def mean_alone(model, x, a, b, memory=None, noise=None, cond=None):
    return transition(model, x, a, b).mean, memory

@noisy
def swapped(model, x, a, b, memory=None, noise=None, cond=None):
    keep = b.sigma / a.sigma * math.exp(a.lam - b.lam)
    take = b.alpha * (1 - math.exp(2 * (a.lam - b.lam)))
    mean = take * x + keep * model(x, a).x0         # should be the other way round
    return mean + transition(model, x, a, b).std * noise, memory

# %%
ways = {"noise the guess": noise_the_guess, "the mean alone": mean_alone,
        "coefficients swapped": swapped, "DDPM": solvers.ancestral}
start = torch.tensor([-1.5, -0.6, 0, 0.6, 1.5]).double().repeat_interleave(3)[:, None]
steps = levels(200, "time")
def path(way):
    return torch.stack([s.x[:, 0] for s in walk(model, start, steps, way, draw=Draw(0))])

figure(plot.fans({name: path(way)[::8] for name, way in ways.items()}, steps[::8],
                 torch.arange(15) // 3, line, reach=2.5),
       "Noising the guess ends in modes that are too narrow, the mean alone and the "
       "swapped coefficients in a single mode; DDPM's paths fill the exact density.",
       "The same perfect denoiser, 200 steps, three paths from each of five starts.")

# %%
# NBVAL_CHECK_OUTPUT
many = Draw(0).normal(torch.empty(4000, 1, dtype=torch.float64))
def off(way):                                       # 0.8 or so for perfect samples
    x = sample(model, many, [*steps, CLEAN], way, draw=Draw(1))
    return metrics.kolmogorov(line.cdf(x, CLEAN))

claim("C03.1", "DDPM's step: Kolmogorov–Smirnov distance of 4000 samples",
      off(solvers.ancestral), below=2.5)
claim("C03.2", "the best of the three other ways",
      min(off(way) for way in (noise_the_guess, mean_alone, swapped)), above=5)

# %% [markdown]
# (Perfect samples exceed 2.5 once in 130 000 runs, and 5 never.) Where does DDPM's step come from? And what does it cost,
# in nats? The price list will tell you what your training loss weighs.
#
# **Recap.** $x_t=\alpha_tx_0+\sigma_t\varepsilon$; $t=1$ is noise, $t=0$ data. $\mathrm{SNR}=\alpha^2/\sigma^2$, and $\lambda=\log(\alpha/\sigma)$ is
# half its logarithm. Squared error teaches a network the conditional mean $x^\star=\mathbb E[x_0\mid x_t]$ (chapter 1); `exact` is that mean. Steps
# go from a noisier level $a$ to a cleaner $b$.
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
# ## 3.2 The way back, if you knew $x_0$
#
# Bayes' rule, with everything given $x_0$: $q(x_b\mid x_a,x_0)\propto q(x_a\mid x_b)\,q(x_b\mid x_0)$. Both factors are Gaussian in
# $x_b$; precisions add, and means are weighted by them:
#
# $$\frac1{\tilde v}=\frac{\alpha_{a|b}^2}{\sigma_{a|b}^2}+\frac1{\sigma_b^2}=\frac{\sigma_a^2}{\sigma_{a|b}^2\sigma_b^2},\qquad
# \tilde\mu=\tilde v\Big(\frac{\alpha_{a|b}x_a}{\sigma_{a|b}^2}+\frac{\alpha_bx_0}{\sigma_b^2}\Big)
# =\alpha_{a|b}\frac{\sigma_b^2}{\sigma_a^2}x_a+\alpha_b\frac{\sigma_{a|b}^2}{\sigma_a^2}x_0. \label{eq:mv-beta}$$
#
# That is DDPM's formula. With $h=\lambda_b-\lambda_a$, $e^{-2h}=\mathrm{SNR}_a/\mathrm{SNR}_b$ and $\sigma_{a|b}^2=\sigma_a^2(1-e^{-2h})$, so
#
# $$\tilde\mu=\frac{\sigma_b}{\sigma_a}e^{-h}x_a+\alpha_b(1-e^{-2h})x_0=\alpha_bx_0+\sigma_be^{-h}\varepsilon,\qquad\tilde v=\sigma_b^2(1-e^{-2h}), \label{eq:mv-lambda}$$
#
# with $\varepsilon=(x_a-\alpha_ax_0)/\sigma_a$: go to level $b$, keep a share $e^{-2h}$ of the old noise's variance, draw the rest afresh. The library has the
# last form, with a knob η for chapter 7 (DDPM is 1). `mix(c, d)` is $c\,x_\theta+d\,\varepsilon_\theta$.

# %%
# NBVAL_CHECK_OUTPUT
show(transition)
V, composed = 0.0, []
for b_n in beta.tolist():
    V = (1 - b_n) * V + b_n
    composed.append(V)
ddpm = levels(999, "time")                          # its thousand levels, noise first
claim("C03.3", "a thousand small steps: variance given x₀ − σ² (largest)",
      max(abs(V - level.sigma**2) for V, level in zip(composed, reversed(ddpm))),
      below=1e-12)

# %%
# NBVAL_CHECK_OUTPUT
def jump(a, b):                                     # α_{a|b} and σ²_{a|b}
    scale = a.alpha / b.alpha
    return scale, a.sigma**2 - scale**2 * b.sigma**2

x_a, x_0 = torch.linspace(-2, 2, 5).double()[:, None], torch.tensor(0.7).double()
told = Denoiser(lambda x, t, cond: x_0.expand_as(x), schedule, "x0")    # it knows x₀
def gaps(a, b):
    (scale, added), h = jump(a, b), b.lam - a.lam
    mean, std = transition(told, x_a, a, b)
    in_beta = (scale * b.sigma**2 * x_a + b.alpha * added * x_0) / a.sigma**2
    in_lam = b.sigma / a.sigma * math.exp(-h) * x_a - b.alpha * math.expm1(-2 * h) * x_0
    return max((in_beta - mean).abs().max(), (in_lam - mean).abs().max(),
               abs(b.sigma**2 * added / a.sigma**2 - std**2))

pairs = [*zip(ddpm, ddpm[1:]), *zip(ddpm[::100], ddpm[99::100])]
claim("C03.4", "posterior in β, in λ and in the library: largest difference, 1009 steps",
      max(gaps(a, b) for a, b in pairs), below=1e-12)

# %% [markdown]
# ## 3.3 What you do not know
#
# You are not told $x_0$. The true step back, $q(x_b\mid x_a)$, averages over what it may be. \eqref{eq:mv-lambda} is linear in $x_0$, so the true mean is $\tilde\mu$ at
# $x_0=x^\star$: what a denoiser provides. The variance grows by that of $x_0$ times the square of its coefficient $\gamma=\alpha_b(1-e^{-2h})$. In units of
# $\tilde v$ that square is $\Delta:=\mathrm{SNR}_b-\mathrm{SNR}_a$:
#
# $$\mathbb E[x_b\mid x_a]=\tilde\mu\big(x_a,x^\star\big),\qquad\operatorname{Var}[x_b\mid x_a]=\tilde v\,\big(1+\Delta\operatorname{Var}[x_0\mid x_a]\big). \label{eq:mv-true}$$
#
# On a line all of this is a sum over a grid:

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
scale, added = jump(a, b)
seen = bell(x_a.T, scale * axis, added)             # log q(x_a | x_b), columns for x_a
mean, var = moments(seen + bell(axis, b.alpha * x_0, b.sigma**2))
claim("C03.5", "q(x_b | x_a, x₀) by Bayes' rule on a grid − the formula: mean, variance",
      max((mean - transition(told, x_a, a, b).mean).abs().max(),
          (var - transition(told, x_a, a, b).std ** 2).abs().max()), below=1e-9)

# %%
# NBVAL_CHECK_OUTPUT
snr = lambda level: (level.alpha / level.sigma) ** 2
mean, var = moments(seen + line.log_prob(axis, b)[:, None])
_, unknown = moments(line.log_prob(axis, CLEAN)[:, None]
                     + bell(x_a.T, a.alpha * axis, a.sigma**2))     # Var[x₀ | x_a]
step = transition(model, x_a, a, b)
claim("C03.6", "the true step back: mean (largest difference)",
      (mean - step.mean).abs().max(), below=1e-9)
claim("C03.7", "the true step back: variance (largest difference)",
      (var - step.std**2 * (1 + (snr(b) - snr(a)) * unknown)).abs().max(), below=1e-9)

# %% [markdown]
# For short steps the true step is nearly Gaussian and $\tilde v$ nearly its variance. So DDPM's model is a Gaussian,
# $p_\theta(x_b\mid x_a)=\mathcal N(\tilde\mu(x_a,x_\theta),\,r\tilde v)$. Two $r$ are common. $r=1$ ("fixed small") is right if $x_0$ is certain. $r=\sigma_a^2/\sigma_b^2$, a variance of
# $\beta_n$ ("fixed large"), is right for data $\mathcal N(0,1)$, where $\operatorname{Var}[x_0\mid x_a]=\sigma_a^2$.
#
# Its mean differs from the posterior's by $\gamma(x_0-x_\theta)$, and $\gamma^2=\Delta\tilde v$. So the divergence of the two Gaussians is, in $d$ dimensions,
#
# $$\mathrm{KL}\big(q(x_b|x_a,x_0)\,\Vert\,p_\theta\big)=\frac{\Delta}{2r}\lVert x_0-x_\theta\rVert^2+\frac d2\Big(\frac1r-1+\log r\Big). \label{eq:mv-kl}$$
#
# One number of the schedule, $\Delta$, is the weight. $r$ divides it: it changes which levels training attends to, not what is best at a level.
#
# ## 3.4 The bound, with both its ends
#
# Number the levels $1$ (cleanest) to $N$ (noisiest). The model starts at $p(x_N)=\mathcal N(0,I)$, walks back, and ends with a decoder $p(x_0\mid x_1)$. By Jensen's
# inequality $-\log p_\theta(x_0)\le\mathbb E_q\log\frac{q(x_{1:N}\mid x_0)}{p_\theta(x_{0:N})}$. Given $x_0$, a Markov chain is one when read backwards too: $q(x_{1:N}\mid x_0)$ is
# $q(x_N\mid x_0)$ times all the $q(x_{n-1}\mid x_n,x_0)$. Pair the factors:
#
# $$-\log p_\theta(x_0)\le\underbrace{\mathrm{KL}\big(q(x_N|x_0)\Vert p(x_N)\big)}_{L_N}+\sum_{n=2}^N\underbrace{\mathbb E\,\mathrm{KL}\big(q(x_{n-1}|x_n,x_0)\Vert
# p_\theta(x_{n-1}|x_n)\big)}_{L_{n-1}}+\underbrace{\mathbb E[-\log p(x_0|x_1)]}_{L_0}. \label{eq:mv-bound}$$
#
# Slides often show the sum alone, $n$ from 2. All the network's parameters are in it here, so it trains the same network. But by itself it says nothing about
# $-\log p$. The decoder below is $\mathcal N(x_1/\alpha_1,\kappa_1^2)$, $\kappa=\sigma/\alpha$, so $L_0=\frac d2\log(2\pi e\kappa_1^2)$ on average: *minus* 3.2 nats for our ladder. Double
# $\kappa_1$ and the sum loses $\log2$, while the total does not notice.

# %%
show(step_kl, bound)

# %%
second = (line.weights * (line.means[:, 0] ** 2 + line.stds**2)).sum().item()   # E x₀²

@functools.lru_cache(None)
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

def ends(levels):
    first, last = levels[0], levels[-1]
    prior = first.alpha**2 * second + first.sigma**2 - 1 - math.log(first.sigma**2)
    decoder = math.log(2 * math.pi * math.e * (last.sigma / last.alpha) ** 2)
    return prior / 2, decoder / 2

# %%
# NBVAL_CHECK_OUTPUT
twenty, draws = levels(20), Draw(2)
def run():                                          # all terms, from 1000 draws
    terms = bound(model, line.sample(1000, draws)[0], twenty, draws)
    return torch.cat([terms.prior[None], terms.steps, terms.reconstruction[None]])

runs = torch.stack([run() for _ in range(64)])
prior, decoder = ends(twenty)
truth = torch.cat([torch.tensor([prior]), costs(twenty), torch.tensor([decoder])])
claim("C03.8", "22 terms by sampling − by quadrature, in standard errors (largest)",
      ((runs.mean(0) - truth) / (runs.std(0) / 8)).abs().max(), below=5.5)

# %% [markdown]
# (Among 22 terms, each from 64 runs, 5.5 is exceeded once in 60 000 tries.)
#
# ## 3.5 What a step's cost is made of
#
# Inside the logarithm of the KL, multiply and divide by the true step $q(x_b\mid x_a)$. One part of the mean over data is then $I(x_0;x_b\mid x_a)$, the
# information about $x_0$ in $x_b$ that $x_a$ lacks, and for a Markov chain $x_0\to x_b\to x_a$ that is a difference:
#
# $$\mathbb E\,L_{n-1}=I(x_0;x_b)-I(x_0;x_a)+\mathbb E\,\mathrm{KL}\big(q(x_b\mid x_a)\,\Vert\,p_\theta(x_b\mid x_a)\big). \label{eq:mv-budget}$$
#
# You pay for what the step reveals, which no model can save, and for its wrong *shape*. The network's error, $\mathbb E\lVert
# x^\star-x_\theta\rVert^2$ on top of $m=\mathbb E\lVert x_0-x^\star\rVert^2$ (chapter 1), is a third, separate part.
#
# Let the steps shrink. The shape's share vanishes, and with the perfect network the sum becomes an integral,
#
# $$I(x_0;x_b)-I(x_0;x_a)=\tfrac12\int m\;d\,\mathrm{SNR}=\int_{\lambda_a}^{\lambda_b}\mathbb E\lVert\varepsilon-\varepsilon^\star\rVert^2\,d\lambda, \label{eq:mv-info}$$
#
# since $\mathrm{SNR}\,m$ is the error of ε [@guo2005immse]. The ends fit: $L_N$ is $I(x_0;x_N)+\mathrm{KL}(q(x_N)\Vert p(x_N))$ on average, and $L_0$ the entropy of
# $x_0+\kappa_1\varepsilon$ given $x_0$. So \eqref{eq:mv-bound} tends to
#
# $$H\big(x_0+\kappa_1\varepsilon\big)+\mathrm{KL}\big(q(x_N)\,\Vert\,p(x_N)\big): \label{eq:mv-limit}$$
#
# the exact mean of $-\log p$, but for the two ends of the ladder. The schedule enters *only* through them. To see the third part, train one network twice: same
# data, same steps, same output ε, but one loss weighs the error of ε and the other that of $x_0$.
#
# <details><summary>Why the shape vanishes</summary>
#
# In units of $\sqrt{\tilde v}$ the true step is a standard normal shifted by a random $s$ of mean 0 and variance $\propto\Delta$, by \eqref{eq:mv-true}. Its density over the normal's,
# $\mathbb E_s\,e^{sz-s^2/2}$, differs from 1 by $O(\Delta)$, so the divergence is $O(\Delta^2)$. The steps number $\propto1/\Delta$.
#
# </details>

# %%
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
eps_error = (2 * fine).exp() * m                    # E‖ε − ε*‖², nats per unit of λ
edges = torch.tensor([level.lam for level in twenty]).double()
paid, on_eps, on_x0 = (costs(twenty, network=network) for network in (None, by_eps, by_x0))
stairs = {"20 steps, perfect network": paid, "trained, error of ε": on_eps,
          "trained, error of x₀": on_x0}
figure(plot.per_lam({name: (edges, cost / edges.diff()) for name, cost in stairs.items()},
                    "nats per unit of λ", truth=(fine, eps_error)),
       "The exact curve rises from 0 to 1; the stairs of 20 perfect steps lie above it by "
       "two thirds; the network trained on ε is on them, the one trained on x₀ pays "
       "twice as much at the clean end.",
       "Areas are nats. Dashed: what steps reveal. Above it: the shape, then the network.")

# %%
# NBVAL_CHECK_OUTPUT
def entropy(level):
    log_p = line.log_prob(axis, level)
    return -dx * (log_p.exp() * log_p).sum()

bell_entropy = lambda sigma: 0.5 * math.log(2 * math.pi * math.e * sigma**2)
known = torch.stack([entropy(level) - bell_entropy(level.sigma) for level in twenty])
claim("C03.9", "20 steps: cost − what the step reveals (least, nats)",
      (paid - known.diff()).min(), above=0)
area, log_p = torch.trapezoid(eps_error, fine).item(), line.log_prob(axis, first)
to_prior = dx * log_p.exp() @ (log_p + axis[:, 0] ** 2 / 2 + math.log(2 * math.pi) / 2)
limit = entropy(last) - math.log(last.alpha) + to_prior
claim("C03.10", "L_N + area + L_0 − (entropy at κ₁ + KL to the prior), nats",
      abs(prior + area + decoder - limit), below=1e-6)

# %%
# NBVAL_CHECK_OUTPUT
clean_end = fine >= last.lam - math.log(2)          # up to here with twice the κ₁
lost = torch.trapezoid(eps_error[clean_end], fine[clean_end]).item()
claim("C03.11", "twice the κ₁: the sum alone loses, over log 2",
      lost / math.log(2), between=(0.98, 1.01))
claim("C03.12", "and all terms together change by (nats)", abs(math.log(2) - lost),
      below=0.01)
shape = paid.sum() - area
claim("C03.13", "the network trained on ε costs, over the shape of 20 steps",
      (on_eps - paid).sum() / shape, below=0.1)
claim("C03.14", "the one trained on x₀, over the same", (on_x0 - paid).sum() / shape,
      above=1)

# %% [markdown]
# (C03.13: we ask that the network cost at most a tenth of the shape.) The second network has given up at the clean end: it says ε ≈ 0. In units of $x_0$ that errs by next to nothing;
# in nats it doubles every step.
#
# ## 3.6 More steps, and the right variance
#
# With $r=1$ and the perfect network the sum is $\tfrac12\sum\Delta\,m(\mathrm{SNR}_a)$: the integral \eqref{eq:mv-info} by rectangles that stand on the left corner of a *falling* $m$. So the
# bound falls with every level you insert. What is left after $N$ steps uniform in λ is half a rectangle a step, $\tfrac h2\int\mathrm{SNR}\,d(-m)$; by parts, with
# $e=\mathrm{SNR}\,m$, the error of ε,
#
# $$\text{gap}\;\approx\;h\Big(\int_{\lambda_N}^{\lambda_1}e\,d\lambda-\tfrac12e(\lambda_1)\Big),\qquad h=\frac{\lambda_1-\lambda_N}N. \label{eq:mv-rate}$$
#
# ($e(\lambda_N)\approx0$.) Where $e$ is flat, a step costs $1+h$ times what it reveals. Can a better $r$ help? Minimise the mean of \eqref{eq:mv-kl} over $r$:
#
# $$r^\star=1+\Delta\,m/d,\qquad \mathbb E\,L_{n-1}=\tfrac d2\log(1+\Delta\,m/d). \label{eq:mv-best}$$
#
# It is the mean variance of \eqref{eq:mv-true} [@bao2022analytic] and, for data of unit variance, lies between $1$ and β's $\sigma_a^2/\sigma_b^2$. On Gaussian data the logarithms telescope:
# no shape is left to pay, in any number of steps.

# %%
ratios = {"posterior": lambda a, b: 1.0,
          "β": lambda a, b: (a.sigma / b.sigma) ** 2,
          "best r": lambda a, b: 1 + (snr(b) - snr(a)) * error(a)}
counts = (10, 20, 40, 80, 160, 320, 640)
gap = lambda walk, name: (costs(walk, ratios[name]).sum() - area).item()
fall = {f"{name}, uniform λ": {n: gap(levels(n), name) for n in counts} for name in ratios}
for name in ("posterior", "β"):
    fall[f"{name}, uniform t"] = {n: gap(levels(n, "time"), name) for n in counts}
figure(plot.convergence(fall, "steps", "bound − its limit, nats", slopes=(1,)),
       "All gaps fall as one over the steps; with β or the best variance they are ten "
       "times smaller than with the posterior's, which is worst on DDPM's grid.",
       "The same perfect network. Only the variance of the step and the grid differ.")

# %%
# NBVAL_CHECK_OUTPUT
law = (fine[-1] - fine[0]) / 640 * (area - eps_error[-1] / 2)
claim("C03.15", "640 steps, posterior's variance: gap over its law",
      fall["posterior, uniform λ"][640] / law, between=(0.97, 1.03))
slopes = [metrics.order({n: fall[f"{name}, uniform λ"][n] for n in (160, 320, 640)})
          for name in ratios]
claim("C03.16", "three variances: the order, farthest from 1",
      max(slopes, key=lambda slope: abs(slope - 1)), between=(0.85, 1.15))
own = {name: gap(ddpm, name) for name in ratios}
claim("C03.17", "DDPM's thousand levels: gap of the posterior's variance over β's",
      own["posterior"] / own["β"], above=50)

# %%
# NBVAL_CHECK_OUTPUT
def four_steps(c, ratio):                           # the gap on N(0, c²)
    m, w = lambda level: 1 / (snr(level) + c**-2), levels(4)
    each = [step_kl(m(a), a, b, ratio=ratio(a, b, m(a))) for a, b in zip(w, w[1:])]
    return abs(sum(each) - 0.5 * math.log(m(w[0]) / m(w[-1])))

claim("C03.18", "four steps, N(0, 0.3²), best r: gap",
      four_steps(0.3, lambda a, b, m: 1 + (snr(b) - snr(a)) * m), below=1e-12)
claim("C03.19", "four steps, N(0, 1), β: gap",
      four_steps(1, lambda a, b, m: ratios["β"](a, b)), below=1e-12)

# %% [markdown]
# (C03.15 allows the next order, about $h$; orders in this book ± 0.15.) On DDPM's own ladder the posterior's variance wastes 0.45 nats, β 0.003. Yet both sample well: the waste is at the
# clean end, in noise you cannot see.
#
# ## 3.7 One loss, many weights
#
# At a given $x$, $\alpha x_\theta+\sigma\varepsilon_\theta=x=\alpha x_0+\sigma\varepsilon$. So all errors are one: $\varepsilon-\varepsilon_\theta=-\tfrac\alpha\sigma(x_0-x_\theta)$, and $c\,x_0+d\,\varepsilon$ errs by
# $(c\sigma-d\alpha)/\sigma$ times that of $x_0$. Whatever you regress, you train $x_0$ with a weight (the bound's, for $t$ uniform, is \eqref{eq:mv-kl} over $dt$):
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
# So "simple" drops $\lvert\dot\lambda\rvert$, and with it most of the clean end. Per unit of λ, the bound is the error of ε with weight *one* at every level [@kingma2021vdm; @kingma2023understanding].

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
       "The bound is flat; simple is nearly flat and falls by fifty at the clean end; "
       "min-SNR falls off beyond λ = 1; v and x₀ fall by many orders of magnitude.",
       "What each loss attends to, per unit of λ, times uniform in $t$.")

# %%
# NBVAL_CHECK_OUTPUT
show(exchange)
anything = Denoiser(lambda x, t, cond: torch.tanh(2 * x), smooth, "v")
def told_as(face):                                  # the same function, predicting a face
    seen = lambda x, t: anything(x, smooth.at(t, like=x))
    return Denoiser(lambda x, t, cond: getattr(seen(x, t), face), smooth, face)

def value(weight, face="v", times=uniform_times(0.02)):
    batch = Batch(line.sample(2000, Draw(3))[0])
    return denoising(told_as(face), batch, Draw(4), weight, times).value

now = smooth.at(0.3)
table = {"eps": snr(now), "v": snr(now) + 1, "score": snr(now) / now.sigma**2}
at_now = lambda draw, n: torch.full((n,), now.t, dtype=torch.float64)
claim("C03.20", "loss on ε, v, score over that on x₀, against the table (largest error)",
      max(abs(value(weights.Weight(face), times=at_now) / value(weights.x0, times=at_now)
              / factor - 1) for face, factor in table.items()), below=1e-9)
claim("C03.21", "one function as ε, x₀, v, velocity, score: spread of its loss, 5 weights",
      max(max(abs(value(weight, face) / value(weight) - 1) for face in FACES)
          for weight in named.values()), below=1e-9)

# %%
# NBVAL_CHECK_OUTPUT
def through(s):                                     # the bound's weight, integrated over t
    t = s.time(fine[20::4])                         # from λ = −4.96, which all three reach
    each = [weights.elbo(s.at(t_k), s) * error(s.at(t_k.item())) for t_k in t]
    return torch.trapezoid(torch.stack(each), -t).item()

in_lam = torch.trapezoid(eps_error[20:], fine[20:]).item()
claim("C03.22", "the bound's weight on three schedules, same ends: largest gap to the area",
      max(abs(through(s) - in_lam) for s in (vp(), flow(), cosine())), below=1e-3)

# %% [markdown]
# **A loss has a floor**, and it is not zero: $\mathbb E\lVert x_0-x^\star\rVert^2$ in the loss's units. On $\mathcal N(0,c^2)$, with $D=\alpha^2c^2+\sigma^2$, it is $c^2\sigma^2/D$ for $x_0$, $\alpha^2c^2/D$ for ε, $c^2/D$ for v, a
# dimension. For data of unit variance the loss on v is 1 at *every* level. (Bounds: five standard errors of a mean of 200 000 squares.)

# %%
# NBVAL_CHECK_OUTPUT
def over_floor(c, face):                            # at t = 0.3
    data = gaussian(0, c)
    batch = Batch(data.sample(200_000, Draw(5))[0])
    loss = denoising(exact(data, smooth), batch, Draw(6), weights.Weight(face), at_now)
    top = {"x0": c * now.sigma, "eps": now.alpha * c, "v": c}[face] ** 2
    return loss.value.item() * ((now.alpha * c) ** 2 + now.sigma**2) / top

found = [over_floor(c, face) for c in (0.5, 1, 2) for face in ("x0", "eps", "v")]
claim("C03.23", "loss of the perfect network over its floor, 9 cases, farthest from 1",
      max(found, key=lambda ratio: abs(ratio - 1)), between=(0.984, 1.016))

# %% [markdown]
# ## 3.8 Rung 2: digits
#
# The shipped network of scikit-learn's digits, which predicts v, and DDPM's sampler, `ancestral`. Few steps pay in shape. We ask five to be visibly wrong, at more than twice the Fréchet
# distance of real pictures, and a hundred to be within that.

# %%
# NBVAL_CHECK_OUTPUT
teacher, classifier = digits_teacher(), digits_classifier()
(train, names), (held_out, labels) = digits_split()
def drawn(n, seed=0):                               # n calls, the last of them to σ = 0
    rungs = [*teacher.schedule.levels(grid(teacher.schedule, n - 1, "time")), CLEAN]
    noise = Draw(seed).normal(held_out)
    return sample(teacher, noise, rungs, solvers.ancestral, labels, Draw(seed + 10))

real, _ = digits_floor(classifier)
def away(n):                                        # mean of three seeds
    return sum(digits_frechet(drawn(n, seed), classifier) for seed in range(3)) / 3

claim("C03.24", "digits, 5 steps: Fréchet distance over that of real pictures",
      away(5) / real, above=2)
claim("C03.25", "digits, 100 steps: the same", away(100) / real, below=2)

# %%
first_of = [(labels == digit).nonzero()[0].item() for digit in range(10)]
figure(plot.pictures({f"{n} steps": drawn(n)[first_of] for n in (5, 20, 100)}),
       "With five steps the digits are plain and soft, with twenty they gain strokes of "
       "their own, with a hundred they look like handwriting.",
       "Ancestral sampling from the same noise.")

# %% [markdown]
# **Bits.** Here pixels take 17 values, so $L_0$ can be a true probability: guess each pixel from its own noisy one, among those 17. Then \eqref{eq:mv-bound} bounds the length of a code for the picture. The one
# to beat codes every pixel by its histogram in the training set.

# %%
# NBVAL_CHECK_OUTPUT
show(decoder_nats)
teacher.net.double()
greys, end = torch.linspace(-1, 1, 17).double(), teacher.schedule.at_lam(-math.log(0.06))
def nats(n, pictures, digits):                      # a pixel: (steps, their λ, the total)
    rungs = teacher.schedule.levels(grid(teacher.schedule, n, t_min=end.t))
    terms = bound(teacher, pictures.double(), rungs, Draw(7), digits)
    last = decoder_nats(pictures.double(), rungs[-1], greys, Draw(8)).mean()
    total = terms.prior + terms.steps.sum() + last
    return terms.steps / 64, torch.tensor([level.lam for level in rungs]), total / 64

# %%
# NBVAL_CHECK_OUTPUT
ink = lambda pictures: ((pictures + 1) * 8).round().long().flatten(1)
counts = 1 + torch.nn.functional.one_hot(ink(train), 17).sum(0)                # (64, 17)
by_pixel = -(counts / counts.sum(1, keepdim=True)).log().gather(1, ink(held_out).T).mean()
(few, _, long), (most, _, short) = (nats(n, held_out, labels) for n in (50, 200))
claim("C03.26", "held-out digits, 200 steps: the bound over the histograms' code",
      short / by_pixel, below=1)
h = (end.lam - teacher.schedule.at(1.0).lam) / 200  # of 200 steps; 50 have 4h
law = most.sum() / (1 + h) - most[-8:].mean() / h / 2
claim("C03.27", "held-out digits: what 200 steps save on 50, over the law of the gap",
      (long - short) / (3 * h * law), between=(0.95, 1.25))

# %%
# NBVAL_CHECK_OUTPUT
seen, edges, _ = nats(30, train, names)
unseen, _, _ = nats(30, held_out, labels)
claim("C03.28", "held-out over training pictures: the steps' nats",
      unseen.sum() / seen.sum(), above=1.05)
figure(plot.per_lam({"training pictures": (edges, seen / edges.diff()),
                     "held-out pictures": (edges, unseen / edges.diff())},
                    "nats per pixel and unit of λ"),
       "Both stairs rise towards data; up to λ = 0 they coincide, beyond it held-out "
       "pictures cost up to a fifth more.",
       "The price list of the digits network, 30 steps: where it knows its training set.")

# %% [markdown]
# (C03.27: the next order adds $\tfrac23h$, a tenth at 50 steps. C03.28: sampling errors are some 1 %; new pictures should cost clearly more.) The last figure is a tool: the bound splits
# overfitting by noise level.
#
# ## 3.9 What should look wrong here
#
# DDPM's last step adds no noise. Some code forgets. With $r=1$ that changes nothing: at $\sigma_b=0$, $\tilde v=0$. With β's variance, the step from $a$ to clean data has $\sigma_{a|b}^2=\sigma_a^2$. *Data: two modes of width
# 0.02. Ladder: every 50th of DDPM's levels, so the last step starts at $\sigma_a=0.170$. How wide are the modes if the last noise is added? And with all thousand levels?*

# %%
# NBVAL_CHECK_OUTPUT
narrow = exact(Mixture(line.weights, line.means, torch.full((2,), 0.02)), schedule)
def forgetful(every):
    rungs = schedule.levels(torch.arange(1000, 0, -every) / 1000)
    x = sample(narrow, many, rungs, solvers.ancestral, draw=Draw(1))
    x, sigma = narrow(x, rungs[-1]).x0, rungs[-1].sigma
    wrong = x + sigma * Draw(9).normal(x)
    width = lambda x: (x[x > 0] - line.means[1]).square().mean().sqrt().item()
    return width(x), width(wrong), sigma

right, wrong, sigma = forgetful(50)
claim("C03.29", "20 steps: width of the modes (0.02, but for a few points between)",
      right, below=0.03)
claim("C03.30", "with noise on the last step: the width over σ_a",
      wrong / (0.02**2 + sigma**2) ** 0.5, between=(0.9, 1.1))

# %% [markdown]
# $\sqrt{0.02^2+\sigma_a^2}=0.171$: eight times too wide, after twenty perfect steps. With all thousand levels $\sigma_a=0.01$ and nobody notices, until the day someone samples with fewer steps.
#
# ## 3.10 In practice
#
# - **DDPM's run** [@ho2020ddpm]: CIFAR-10, $N=1000$, simple loss, β's variance, Adam at $2\cdot10^{-4}$, warm-up 5000, batch 128, gradients clipped at 1, dropout 0.1, weights averaged
#     at 0.9999. Reported: FID 3.17 and 3.75 bits a dimension; trained on the bound, 13.51 and 3.70. *Not reproduced here*, but the last figure of 3.7 says why: the bound spends its weight where no
#     eye looks. Learnt variances, between $\tilde v$ and $\beta_n$, save bits and steps [@nichol2021improved].
# - **Cosine schedule**: at its end α = 0 and $\beta_N$ would be 1; the paper clips β at 0.999. An ε-network says nothing about $x_0$ there. Use v.
# - **Clipping $x_\theta$** to $[-1,1]$ is for pixels, not latents; clip *before* \eqref{eq:mv-lambda}, so that ε follows.
# - **Precision.** Half precision loses $1-\bar\alpha_n$ at the clean end: keep ladders in float32.
# - **Stable Diffusion's ladder** stops at α = 0.068, but samplers start from pure noise: $L_N$ is not zero, and pictures come out of medium brightness [@lin2024zerosnr].
# - **Where the toy stops being true.** In pictures most nats are detail that nobody sees, so the bound and quality part ways.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `discrete(torch.cumprod(1 - beta, 0))` | the same, from the scheduler's configuration |
# | `solvers.ancestral` | the same function, `--solver ancestral`; a test compares it with diffusers' `DDPMScheduler` |
# | `denoising(…, weights.eps, times)` | the same function, in `full_scale.train finetune`; its recipe names the weight |
# | `bound` | runs on any denoiser, without a command; bits of latents are not bits of pictures |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" --solver ancestral --grid sd_trailing --steps 50
#
# torchrun --standalone --nproc_per_node 8 -m full_scale.train finetune \
#     --weights DIR_OR_HUB_ID --data DATA --out runs/finetune
# ```
#
# **How far up the ladder.** Rung 1: every term against quadrature. Rung 2: a bound on the digits' code length, of which only the rate is known. Rung 3: sampler and loss run on Stable Diffusion.
#
# ## 3.11 Exercises
#
# 1. *(pencil)* Noising the guess, with many steps, on $\mathcal N(0,c^2)$: show that the variance ends at $c^2/2$. (In $y=x/\alpha$ a step is $y\leftarrow\frac{c^2}{c^2+\kappa_a^2}y+\kappa_bz$.)
# 2. *(code)* Write DDPM's algorithm 2, with ε, $a_n$ and $\beta_n$ only, and $v=\tilde v$. Check: a thousand steps equal to `ancestral` with the same noise to $10^{-10}$.
# 3. *(code)* To leading order a step wastes $c\,h^2$ with $c=-\tfrac12\mathrm{SNR}\,dm/d\lambda$. Which grid is best, and what is its gap? Check with 320 steps.
# 4. *(open)* Let $r$ depend on $x_a$, by \eqref{eq:mv-true}. At which order does the gap fall now? Train a network for it.
#
# <details><summary>Answer to 1</summary>
#
# For nearly equal levels the variance settles at $V=\big(\frac{c^2}{c^2+\kappa^2}\big)^2V+\kappa^2$, or $V=\frac{(c^2+\kappa^2)^2}{2c^2+\kappa^2}\to\frac{c^2}2$ as $\kappa\to0$. Each mode of the first
# figure is too narrow by $\sqrt2$.
#
# </details>
#
# Answer to 3, as code that runs. The gap is $\int c\,h\,d\lambda$ for $\int d\lambda/h=N$ steps: at least $(\int\sqrt c\,d\lambda)^2/N$ by Cauchy–Schwarz, reached for $h\propto1/\sqrt c$.

# %%
# NBVAL_CHECK_OUTPUT
c = -0.5 * (2 * fine).exp() * torch.gradient(m, spacing=(fine,))[0]
along = torch.cumulative_trapezoid(c.clamp(min=0).sqrt(), fine)
equal = torch.linspace(0, along[-1], 321, dtype=torch.float64)   # equal parts of ∫√c
places = torch.searchsorted(along, equal).clamp(max=len(along) - 1)
places[-1] = len(fine) - 1
found = gap([schedule.at_lam(lam.item()) for lam in fine[places]], "posterior")
claim("C03.31", "best grid, 320 steps: gap over (∫√c)²/N", found * 320 / along[-1] ** 2,
      between=(0.95, 1.05))
claim("C03.32", "and over that of the grid uniform in λ",
      found / fall["posterior, uniform λ"][320], below=0.9)

# %% [markdown]
# ## References
#
# The chain and its bound: [@sohldickstein2015deep; @ho2020ddpm]. In SNR, and the decoder: [@kingma2021vdm]. Information and mean squares: [@guo2005immse]. Variances: [@nichol2021improved;
# @bao2022analytic]. Weights: [@salimans2022progressive; @hang2023minsnr; @kingma2023understanding].
