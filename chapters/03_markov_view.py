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
#     minutes: 40
#     memory: 1 GB
#     needs:
#       - denoising, and why it gives a conditional mean (chapter 1; recapped below)
#       - Gaussian densities, Bayes' rule, Kullback–Leibler divergence
# ---

# %% [markdown]
# # 3 The Markov view: small steps back, and what each one costs
#
# Chapter 2 went down a ladder of noise levels with many Langevin steps on each rung. Can you take *one* step a rung? You
# have a perfect denoiser: at every level it knows the mean of the clean data. On the left, the first idea: ask where $x$
# should be at the next level, on average, and go there. On the right, DDPM's step [@ho2020ddpm]: the same mean, and some
# noise.
#
# In the code, `levels(n)` are the $n+1$ noise levels of a walk from noise to data, `transition` is the mean and the standard
# deviation of one step; `walk` and `sample` go step by step.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import math
from functools import partial
from itertools import pairwise
import dlib
import torch
from torch.distributions import Normal
from dlib import CLEAN, Batch, Denoiser, Draw, Mixture, bound, denoising, discrete
from dlib import exact, metrics, nets, plot, sample, solvers, step_kl, train
from dlib import transition, vp, walk
from dlib.losses import uniform_times, weights
from dlib.losses.weights import exchange
from toy_data import digits_classifier, digits_split, digits_teacher
from toy_data.digit_scores import digits_floor, sampler_scores

line = Mixture(
    torch.tensor([0.3, 0.7]), means=torch.tensor([[-1.2], [0.8]]), stds=torch.tensor([0.25, 0.4])
)
beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # DDPM's
schedule = discrete(torch.cumprod(1 - beta, 0))
model = exact(line, schedule)  # the perfect network for these data
levels = partial(dlib.levels, schedule)


# %%
@solvers.solver(order=1)  # a step from level a to level b
def mean_alone(model, x, a, b, memory=None, noise=None, cond=None):
    return transition(model, x, a, b).mean, memory


steps = levels(200, "time")
start = torch.tensor([-1.5, -0.6, 0, 0.6, 1.5]).double().repeat_interleave(3)[:, None]


def path(way):
    return torch.stack([s.x[:, 0] for s in walk(model, start, steps, way, draw=Draw(0))])[::5]


figure(
    plot.fans(
        {"the mean alone": path(mean_alone), "DDPM": path(solvers.ancestral)},
        steps[::5],
        torch.arange(15) // 3,
        line,
        reach=2.5,
    ),
    "The mean alone carries every path to the same point; DDPM's paths fill the exact "
    "density and end in both modes.",
    "The same perfect denoiser, 200 steps, three paths from each of five starts.",
)

# %% [markdown]
# The picture in one number: the largest gap between the samples' distribution function and the exact one, times $\sqrt n$
# (the Kolmogorov–Smirnov distance). Perfect samples have about 0.8, and more than 2.5 at most once in 130 000 runs.

# %%
# NBVAL_CHECK_OUTPUT
many = Draw(0).normal((4000, 1), torch.float64)


def off(way):
    x = sample(model, many, [*steps, CLEAN], way, draw=Draw(1))
    return metrics.kolmogorov(line.cdf(x, CLEAN))


claim("C03.1", "DDPM's step: Kolmogorov–Smirnov distance", off(solvers.ancestral), below=2.5)
claim("C03.2", "the mean alone: Kolmogorov–Smirnov distance", off(mean_alone), above=5)

# %% [markdown]
# Which mean is it, how much noise, and why? And what does a step cost? That price list tells you what your loss weighs.
#
# **Recap.** $x_t=\alpha_tx_0+\sigma_t\varepsilon$; $t=1$ is noise, $t=0$ data. The signal-to-noise ratio is
# $\mathrm{SNR}=\alpha^2/\sigma^2$, and $\lambda=\log(\alpha/\sigma)$ is half its logarithm. A network trained with squared
# error learns a conditional mean: $x_\theta(x,t)\approx x^\star=\mathbb E[x_0\mid x_t=x]$ (chapter 1), and `exact` is that
# mean. Steps go from a noisier level $a$ to a cleaner $b$.
#
# ## 3.1 A chain of small steps
#
# DDPM adds noise by a Markov chain: $x_n=\sqrt{1-\beta_n}\,x_{n-1}+\sqrt{\beta_n}\,z$. (The paper calls $1-\beta_n$
# $\alpha_n$; here $\alpha$ is always the factor of $x_0$.) Gaussians compose: means multiply, and a variance $V$ becomes
# $(1-\beta_n)V+\beta_n$. So $\alpha^2=\prod(1-\beta_n)=\bar\alpha_n$, $\sigma^2=1-\bar\alpha_n$, and any jump from $b$ to $a$ is
#
# $$q(x_a\mid x_b)=\mathcal N\big(\alpha_{a|b}x_b,\;\sigma_{a|b}^2I\big),\qquad
# \alpha_{a|b}=\frac{\alpha_a}{\alpha_b},\quad\sigma_{a|b}^2=\sigma_a^2-\alpha_{a|b}^2\sigma_b^2. \label{eq:mv-jump}$$
#
# Between neighbours $\sigma^2_{a|b}$ is $\beta_n$. Every schedule whose λ falls with $t$ is such a chain.
#
# ## 3.2 The way back, if you knew the data
#
# Bayes' rule, with everything given $x_0$: $q(x_b\mid x_a,x_0)\propto q(x_a\mid x_b)\,q(x_b\mid x_0)$. Both factors are
# Gaussian in $x_b$; precisions add, and means are weighted by them:
#
# $$\frac1{\tilde v}=\frac{\alpha_{a|b}^2}{\sigma_{a|b}^2}+\frac1{\sigma_b^2}=\frac{\sigma_a^2}{\sigma_{a|b}^2\sigma_b^2},\qquad
# \tilde\mu=\tilde v\Big(\frac{\alpha_{a|b}x_a}{\sigma_{a|b}^2}+\frac{\alpha_bx_0}{\sigma_b^2}\Big)
# =\alpha_{a|b}\frac{\sigma_b^2}{\sigma_a^2}x_a+\alpha_b\frac{\sigma_{a|b}^2}{\sigma_a^2}x_0. \label{eq:mv-beta}$$
#
# That is DDPM's formula. Now write it in λ. With $h=\lambda_b-\lambda_a$ you have $e^{-2h}=\mathrm{SNR}_a/\mathrm{SNR}_b$ and
# $\sigma_{a|b}^2=\sigma_a^2(1-e^{-2h})$; put in $x_a=\alpha_ax_0+\sigma_a\varepsilon$, and the schedule almost disappears:
#
# $$\tilde\mu=\alpha_bx_0+\sigma_be^{-h}\varepsilon,\qquad\tilde v=\sigma_b^2(1-e^{-2h}). \label{eq:mv-lambda}$$
#
# In words: go to level $b$, keep a share $e^{-2h}$ of the old noise's variance, draw the rest afresh. The library has this
# form. (`mix(c, d)` is $c\,x_\theta+d\,\varepsilon_\theta$; η, not Langevin's step here, is 1 until chapter 4.)
#
# Check both forms against Bayes' rule itself, $q(x_a\mid x_b)\,q(x_b\mid x_0)\,/\,q(x_a\mid x_0)$, at points drawn anywhere. The "network" here is told $x_0$.

# %%
# NBVAL_CHECK_OUTPUT
show(transition)
x_0, (a, b) = torch.tensor(0.7).double(), schedule.levels([0.5, 0.3])
told = Denoiser(lambda x, t, cond: x_0.expand_as(x), schedule, "x0")
log_q = lambda x, level: Normal(level.alpha * x_0, level.sigma).log_prob(x)  # given x₀
scale = a.alpha / b.alpha  # α_{a|b}, and next σ²_{a|b}
var = a.sigma**2 - scale**2 * b.sigma**2
x_a, x_b = Draw(2).normal((2, 100, 1), torch.float64)
bayes = Normal(scale * x_b, var**0.5).log_prob(x_a) + log_q(x_b, b) - log_q(x_a, a)
mean = (scale * b.sigma**2 * x_a + b.alpha * var * x_0) / a.sigma**2
forms = [Normal(mean, b.sigma * var**0.5 / a.sigma), Normal(*transition(told, x_a, a, b))]
in_beta, in_lam = [(form.log_prob(x_b) - bayes).abs().max() for form in forms]
claim("C03.3", "log q(x_b | x_a, x₀): DDPM's formula − Bayes' rule", in_beta, below=1e-9)
claim("C03.4", "log q(x_b | x_a, x₀): the library's form − Bayes' rule", in_lam, below=1e-9)

# %% [markdown]
# ## 3.3 What you do not know
#
# You are not told $x_0$, so the true way back averages over it: $q(x_b\mid x_a)=\mathbb E_{x_0\mid x_a}\,q(x_b\mid x_a,x_0)$.
#
# *The mean.* At a given $x_a$, \eqref{eq:mv-beta} is linear in $x_0$, so the true mean is $\tilde\mu$ at $x_0=x^\star(x_a)$.
# A denoiser is all you need, and `mean_alone` had this mean.
#
# *The variance* is $\tilde v$ plus the spread of $x_0$ times the square of its factor,
# $\gamma=\alpha_b\sigma_{a|b}^2/\sigma_a^2=\alpha_b(1-e^{-2h})$. In units of $\tilde v$ this square is
# $\mathrm{SNR}_b(1-e^{-2h})=\mathrm{SNR}_b-\mathrm{SNR}_a$. Call this number $\Delta$; it will be back.
#
# $$\mathbb E[x_b\mid x_a]=\tilde\mu\big(x_a,x^\star\big),\qquad\operatorname{Var}[x_b\mid x_a]=\tilde v\,\big(1+\Delta\operatorname{Var}[x_0\mid x_a]\big). \label{eq:mv-true}$$
#
# For short steps the true step is nearly Gaussian. So DDPM's model of it is a Gaussian, with the network's $x_\theta$ for
# $x^\star$ and one number $r$ for the bracket:
#
# $$p_\theta(x_b\mid x_a)=\mathcal N\big(\tilde\mu(x_a,x_\theta),\;r\,\tilde vI\big). \label{eq:mv-model}$$
#
# The *posterior's variance*, $r=1$, is right if $x_0$ is certain; `ancestral` has it. *β's variance*, $\sigma_{a|b}^2$, has
# $r=\sigma_a^2/\sigma_b^2$. On a schedule with $\alpha^2+\sigma^2=1$, as DDPM's is, that is right for $\mathcal N(0,1)$. There
# $\operatorname{Var}[x_0\mid x_a]=1/(1+\mathrm{SNR}_a)=\sigma_a^2$, and the bracket is $(1+\mathrm{SNR}_b)/(1+\mathrm{SNR}_a)=r$.
#
# ## 3.4 What a step costs
#
# How many nats does the walk need to say $x_0$? Levels run from $1$ (cleanest) to $N$
# (noisiest). The model starts at $p(x_N)=\mathcal N(0,I)$, walks back, and ends with a decoder, here
# $p(x_0\mid x_1)=\mathcal N(x_1/\alpha_1,\kappa_1^2I)$ with $\kappa=\sigma/\alpha$. By Jensen's inequality
# $-\log p_\theta(x_0)\le\mathbb E_q\log\frac{q(x_{1:N}\mid x_0)}{p_\theta(x_{0:N})}$. Given $x_0$, a Markov chain is one when
# read backwards too: $q(x_{1:N}\mid x_0)$ is $q(x_N\mid x_0)$ times all the $q(x_{n-1}\mid x_n,x_0)$. Pair the factors:
#
# $$\begin{aligned}-\log p_\theta(x_0)\le{}&\underbrace{\mathrm{KL}\big(q(x_N|x_0)\Vert p(x_N)\big)}_{L_N}+\underbrace{\mathbb E[-\log p(x_0|x_1)]}_{L_0}\\
# &+\sum_{n=2}^N\underbrace{\mathbb E\,\mathrm{KL}\big(q(x_{n-1}|x_n,x_0)\Vert p_\theta(x_{n-1}|x_n)\big)}_{L_{n-1}}.\end{aligned} \label{eq:mv-bound}$$
#
# Each term of the sum compares two Gaussians. Their means differ by $\gamma(x_0-x_\theta)$, and $\gamma^2/\tilde v$ is
# $\Delta$. In $d$ dimensions
#
# $$\mathrm{KL}\big(q(x_b|x_a,x_0)\,\Vert\,p_\theta\big)=\frac{\Delta}{2r}\lVert x_0-x_\theta\rVert^2+\frac d2\Big(\frac1r-1+\log r\Big). \label{eq:mv-kl}$$
#
# With $r=1$: *half Δ times the denoiser's squared error.* That is all of DDPM's price list.
#
# Slides often show the sum alone. It trains the same network, but it is no bound: end the ladder early, at $\kappa_1=1$, and
# it is a third of a nat, where $-\log p$ is one.

# %%
# NBVAL_CHECK_OUTPUT
show(step_kl, bound)
early = levels(20, t_min=schedule.at_lam(0.0).t)  # κ₁ = 1
points, _ = line.sample(20_000, Draw(3))
truth = -line.log_prob(points, CLEAN).mean()  # −log p, exactly
terms = bound(model, points, early, Draw(4))
claim(
    "C03.5", "the sum alone (to κ₁ = 1) − the mean of −log p", terms.steps.sum() - truth, below=0
)
claim("C03.6", "with both ends − the mean of −log p (nats)", terms.total - truth, above=0)

# %% [markdown]
# ## 3.5 What the price is made of
#
# Take the perfect network, with error $m=\mathbb E\lVert x_0-x^\star\rVert^2$. The steps cost $\tfrac12\sum\Delta\,m$: a sum of
# rectangles, $m$ high and $\Delta$ wide. With shorter steps it becomes an integral. Since $d\,\mathrm{SNR}=2\,\mathrm{SNR}\,d\lambda$,
#
# $$\tfrac12\sum\Delta\,m\;\to\;\tfrac12\int m\;d\,\mathrm{SNR}=\int_{\lambda_N}^{\lambda_1}e\,d\lambda,\qquad
# e=\mathrm{SNR}\,m=\mathbb E\lVert\varepsilon-\varepsilon^\star\rVert^2. \label{eq:mv-area}$$
#
# So *per unit of λ, the price is the error of ε*, on every schedule. The area is what the walk reveals about $x_0$, the
# information $I(x_0;x_1)-I(x_0;x_N)$ [@guo2005immse]: no model can save it. You pay two things on top. The
# *shape*: a step of finite length is not the Gaussian that we take for it. And the *network*: since
# $\mathbb E\lVert x_0-x_\theta\rVert^2=m+\mathbb E\lVert x^\star-x_\theta\rVert^2$ (chapter 1), its error is a part of its own.

# %%
snr = lambda level: (level.alpha / level.sigma) ** 2
axis, dx = torch.linspace(-8, 8, 2001, dtype=torch.float64)[:, None], 0.008
second = (line.weights @ (line.means[:, 0] ** 2 + line.stds**2)).item()  # E x₀²


def error(level):  # m = E x₀² − E x*², a sum over the axis
    mass = line.log_prob(axis, level).exp() * dx
    return second - (mass @ model(axis, level).x0[:, 0] ** 2).item()


lam = torch.linspace(levels(1)[0].lam, levels(1)[1].lam, 401, dtype=torch.float64)
e = torch.tensor([snr(level) * error(level) for level in map(schedule.at_lam, lam.tolist())])

# %% [markdown]
# Now networks with errors. Train one ε-network twice: one loss weighs the error of ε, the other that of $x_0$. (`train` is
# Adam, its rate falling to zero.) Then let `bound` price twenty steps.


# %%
def trained(weight, seed=0):
    torch.manual_seed(seed)
    net, data = nets.MLP(1, width=64, depth=2), Draw(1 + seed)
    student = Denoiser(net, schedule, "eps")
    loss = lambda batch, draw: denoising(student, batch, draw, weight, uniform_times())
    train(net, loss, lambda step: Batch(line.sample(512, data)[0].float()), 500, lr=3e-3)
    return student


by_eps, by_x0 = trained(weights.eps), trained(weights.x0)


# %%
def price(network):  # of each of the twenty steps
    return bound(network, points.float(), twenty, Draw(5)).steps


twenty = levels(20)
perfect, on_eps, on_x0 = price(model), price(by_eps), price(by_x0)
edges = torch.tensor([level.lam for level in twenty])
figure(
    plot.per_lam(
        {
            "20 steps, perfect network": (edges, perfect / edges.diff()),
            "trained, error of ε": (edges, on_eps / edges.diff()),
            "trained, error of x₀": (edges, on_x0 / edges.diff()),
        },
        "nats per unit of λ",
        truth=(lam, e),
    ),
    "The exact curve rises from 0 to 1; the stairs of 20 perfect steps lie above it, at "
    "the clean end by two thirds; the network trained on ε is on them, the one trained on "
    "x₀ pays twice as much at the clean end.",
    "Areas are nats. Dashed: what steps reveal. Above it: the shape, then the network.",
)

# %%
# NBVAL_CHECK_OUTPUT
area = torch.trapezoid(e, lam).item()
shape = perfect.sum() - area  # a tenth of it is little
claim(
    "C03.7",
    "trained on the error of ε: what it adds, over the shape of 20 steps",
    (on_eps - perfect).sum() / shape,
    below=0.1,
)
claim(
    "C03.8",
    "trained on the error of x₀: what it adds, over the shape of 20 steps",
    (on_x0 - perfect).sum() / shape,
    above=1,
)

# %% [markdown]
# The second network says $\varepsilon\approx x$ at every level. That is right for pure noise; at the clean end it is off by a
# whole ε. In units of $x_0$ that error is divided by the SNR, up to $10^4$, and the loss does not see it.
#
# ## 3.6 More steps, or a better variance
#
# The shape is what rectangles have over the area. Their left corner is on a *falling* $m$, so each level that you insert
# tightens the bound. With steps of length $h$ in λ, what is left is $\tfrac h2\int\mathrm{SNR}\,d(-m)$. By parts, with
# $e(\lambda_N)\approx0$,
#
# $$\text{gap}\;\approx\;h\Big(\int_{\lambda_N}^{\lambda_1}e\,d\lambda-\tfrac12e(\lambda_1)\Big)\;\propto\;\frac1N. \label{eq:mv-rate}$$
#
# Most of it is at the clean end, and there you can do better. The noise is finer than any detail of the density, so
# $\operatorname{Var}[x_0\mid x_a]\approx\kappa_a^2=1/\mathrm{SNR}_a$, and the bracket in \eqref{eq:mv-true} is
# $\mathrm{SNR}_b/\mathrm{SNR}_a\approx\sigma_a^2/\sigma_b^2$: β's variance is right, whatever the data. We ask it to remove at
# least half of the gap of twenty steps.


# %%
# NBVAL_CHECK_OUTPUT
def gap(n, ratio=lambda a, b: 1.0):
    return sum(step_kl(error(a), a, b, ratio=ratio(a, b)) for a, b in pairwise(levels(n))) - area


law = (lam[-1] - lam[0]) / 640 * (area - e[-1] / 2)  # good to about h, here 0.014
claim(
    "C03.9",
    "posterior's variance, 160 to 640 steps: the order of the gap",
    metrics.order({n: gap(n) for n in (160, 320, 640)}),
    between=(0.85, 1.15),
)
claim("C03.10", "640 steps: the gap over its law", gap(640) / law, between=(0.97, 1.03))
claim(
    "C03.11",
    "20 steps: the gap with β's variance over that with the posterior's",
    gap(20, lambda a, b: (a.sigma / b.sigma) ** 2) / gap(20),
    below=0.5,
)

# %% [markdown]
# ## 3.7 One loss, many weights
#
# At a given $x$, $\alpha x_\theta+\sigma\varepsilon_\theta=x=\alpha x_0+\sigma\varepsilon$. So all errors are one:
# $\varepsilon-\varepsilon_\theta=-\tfrac\alpha\sigma(x_0-x_\theta)$, and $c\,x_0+d\,\varepsilon$ errs by $(c\sigma-d\alpha)/\sigma$ times
# as much as $x_0$. Whatever you regress, you train $x_0$ with a weight:
#
# | loss | factor of $\lVert x_0-x_\theta\rVert^2$ |
# |---|---|
# | $x_0$ | 1 |
# | ε: DDPM's "simple" loss | SNR |
# | $v=\alpha\varepsilon-\sigma x_0$, with $\alpha^2+\sigma^2=1$ | SNR + 1 |
# | score, unweighted | $\mathrm{SNR}/\sigma^2$ |
# | min-SNR-5 [@hang2023minsnr] | $\min(\mathrm{SNR},5)$ |
# | the bound, $t$ uniform | $-\tfrac12\,d\,\mathrm{SNR}/dt=\mathrm{SNR}\,\lvert\dot\lambda\rvert$ |
#
# The last line is \eqref{eq:mv-kl} over $dt$; "simple" drops its $\lvert\dot\lambda\rvert$, and with it most of the clean end.
# Divided by the last line, each one says what a loss attends to, per unit of λ [@kingma2021vdm; @kingma2023understanding]:

# %%
smooth, lam = vp(), torch.linspace(-5, 4.6, 97, dtype=torch.float64)
level = smooth.at(smooth.time(lam))  # DDPM's ladder, rungs without end
over = lambda weight: weight(level, smooth) / weights.elbo(level, smooth)
named = {
    "the bound": weights.elbo,
    "x₀": weights.x0,
    "ε (simple)": weights.eps,
    "v": weights.v,
    "min-SNR-5": weights.min_snr(),
}
figure(
    plot.per_lam(
        {name: (lam, over(weight) / over(weight).mean()) for name, weight in named.items()},
        "weight over the bound's",
        log=True,
    ),
    "The bound is flat; simple is flat up to λ = 1, then falls a hundredfold; min-SNR falls "
    "off sooner; v and x₀ fall by many orders of magnitude from the noise on.",
    "What each loss attends to, per unit of λ (mean 1), times uniform in $t$.",
)

# %%
# NBVAL_CHECK_OUTPUT
show(exchange)
now = schedule.at(0.1)  # SNR 8.7, where min-SNR-5 acts
fixed = lambda draw, n: torch.full((n,), now.t, dtype=torch.float64)
loss = lambda weight: denoising(told, Batch(points), Draw(6), weight, fixed).value
table = {
    weights.eps: snr(now),
    weights.v: snr(now) + 1,
    weights.min_snr(5): 5,
    weights.Weight("score"): snr(now) / now.sigma**2,
}
wrong = max(abs(loss(w) / loss(weights.x0) / factor - 1) for w, factor in table.items())
claim("C03.12", "four losses over that on x₀: largest error of the table", wrong, below=1e-9)

# %% [markdown]
# ## 3.8 Rung 2: digits
#
# The same steps, with the shipped network of scikit-learn's digits. Few steps pay in shape: the Fréchet distance to held-out
# pictures should be more than twice that of other real pictures with five steps, and less with a hundred. (`sampler_scores`
# is a mean of four seeds.)

# %%
# NBVAL_CHECK_OUTPUT
teacher, classifier, labels = digits_teacher(), digits_classifier(), digits_split()[1][1]


def drawn(n, labels, seed):  # n calls, the last of them to σ = 0
    down = [*dlib.levels(teacher.schedule, n - 1, "time"), CLEAN]
    noise = Draw(seed).normal((len(labels), 1, 8, 8))
    return sample(teacher, noise, down, solvers.ancestral, labels, Draw(seed + 10))


def away(n):
    scores = sampler_scores(lambda seed: drawn(n, labels, seed), classifier)
    return scores["frechet"] / digits_floor(classifier)[0]


claim("C03.13", "digits, 5 steps: Fréchet distance over that of real pictures", away(5), above=2)
claim("C03.14", "digits, 100 steps: the same distance", away(100), below=2)
figure(
    plot.pictures({f"{n} steps": drawn(n, torch.arange(10), 0) for n in (5, 20, 100)}),
    "With five steps the digits are plain and soft, with twenty they gain strokes of "
    "their own, with a hundred they look like handwriting.",
    "Ancestral sampling from the same noise.",
)

# %% [markdown]
# ## 3.9 What should look wrong here
#
# DDPM's last step goes to $\sigma_b=0$. There $\tilde v=0$, so the step adds no noise: it returns the mean $x^\star$. Some code adds
# a noise of β's variance all the same, and that is $\sigma_a^2$ there.
#
# *Data: two modes of width $c=0.02$. Ladder: every 50th of DDPM's levels, so the last step starts at $\sigma_a=0.170$, or
# $\kappa_a=0.173$ in units of the data. How wide do the modes come out, without that noise and with it?*
#
# Work out the first with a pencil. In $y=x/\alpha$ a noised mode is $\sqrt{c^2+\kappa_a^2}$ wide. Inside a mode the mean is linear,
# $x^\star=m+\frac{c^2}{c^2+\kappa_a^2}(y-m)$, and so the means are
#
# $$\frac{c^2}{c^2+\kappa_a^2}\cdot\sqrt{c^2+\kappa_a^2}=\frac{c^2}{\sqrt{c^2+\kappa_a^2}} \label{eq:mv-last}$$
#
# wide. A few samples end between the modes, and they alone would decide a standard deviation. So we measure by the quartiles, which
# lie 1.349 standard deviations apart on a normal. With 2800 samples in the right mode this has a standard error of 2.2 %, and the
# bounds allow 10 %.

# %%
# NBVAL_CHECK_OUTPUT
c = 0.02
narrow = exact(Mixture(line.weights, line.means, torch.full((2,), c)), schedule)
few = schedule.levels(torch.arange(1000, 0, -50) / 1000)
x = sample(narrow, many, [*few, CLEAN], solvers.ancestral, draw=Draw(1))
noisy = x + few[-1].sigma * Draw(9).normal(x)
quartiles = torch.tensor([0.25, 0.75]).double()
width = lambda x: x[x > 0].quantile(quartiles).diff().item() / 1.349
mean_width = c**2 / (c**2 + (few[-1].sigma / few[-1].alpha) ** 2) ** 0.5
claim(
    "C03.15",
    "20 steps: width of the right mode over c²/√(c² + κ_a²)",
    width(x) / mean_width,
    between=(0.9, 1.1),
)
claim(
    "C03.16",
    "with noise on the last step: the width over that of means plus noise",
    width(noisy) / (mean_width**2 + few[-1].sigma ** 2) ** 0.5,
    between=(0.9, 1.1),
)

# %% [markdown]
# Neither is right. Without the noise the modes come out .0023 wide, almost nine times too narrow. Each sample is the *mean* of all
# the data that it could have been, and a mean has lost their spread. With the noise they are .170 wide, more than eight times too
# wide. The right noise is the spread that was lost, $c\kappa_a/\sqrt{c^2+\kappa_a^2}=.0199$. A sampler that knows only means does not
# know that number.
#
# What helps is a last step that starts lower. With all thousand levels it starts at $\sigma_a=.01$, half a mode's width. There
# \eqref{eq:mv-last} loses only a tenth, and a noise that does not belong there is hard to see. Nobody notices it until someone
# samples with fewer steps.
#
# ## 3.10 In practice
#
# - **DDPM's run** [@ho2020ddpm]: CIFAR-10, $N=1000$, β from $10^{-4}$ to $0.02$, ε with the simple loss, β's variance, Adam at
#     $2\cdot10^{-4}$ with 5000 steps of warm-up, batch 128, gradients clipped at 1, dropout 0.1, weights averaged at 0.9999.
#     Reported: FID 3.17 and at most 3.75 bits a dimension; trained on the bound: 13.51 and 3.70. *Not reproduced here.* The
#     figure of weights has the reason: the bound looks where no eye does.
# - **The cosine schedule** ends at α = 0, where $\beta_N$ would be 1. The paper clips β at 0.999; an ε-network says nothing
#     about $x_0$ there. Use v.
# - **Cheaper in nats is not prettier.** With ten steps on CIFAR-10, DDIM's paper reports FID 367 for β's variance, whose noise
#     stays in the picture, and 41 for the posterior's [@song2021ddim, table 1]: *not reproduced here*. A learnt
#     variance, between $\log\tilde v$ and $\log\beta_n$, saves steps and bits [@nichol2021improved].
# - **Stable Diffusion's ladder** stops at α = 0.068, but samplers start from pure noise: $L_N$ is not zero, and pictures come
#     out too evenly bright [@lin2024zerosnr].
# - **Bits.** Grey values are discrete: with `decoder_nats` as $L_0$, the bound is the length of a code. Measured on held-out
#     digits: 6 % shorter than by every pixel's histogram (`tests/toy_data/test_digits_teacher.py`).
# - **Where the toy stops being true.** In pictures most nats are detail that nobody sees.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `discrete(torch.cumprod(1 - beta, 0))` | the same, from the scheduler's configuration |
# | `solvers.ancestral` | the same function, `--solver ancestral`; a test compares it with diffusers' `DDPMScheduler` |
# | `denoising(…, weights.eps, times)` | the same function, in `full_scale.train finetune`; other weights by name in its recipe |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" \
#     --solver ancestral --grid sd_trailing --steps 50
#
# torchrun --standalone --nproc_per_node 8 -m full_scale.train finetune \
#     --weights DIR_OR_HUB_ID --data DATA --out runs/finetune
# ```
#
# **How far up the ladder.** Rung 1: the posterior, the price of each step and its limit, against exact densities. Rung 2: the
# sampler on a trained network. Rung 3: sampler and loss are the functions that run on Stable Diffusion. Next, chapter 4 lets
# the steps shrink to nothing.
#
# ## 3.11 Exercises
#
# 1. *(pencil)* Another first idea: guess $x_0$ and noise the guess, $x_b=\alpha_bx^\star+\sigma_bz$. Show that with many steps,
#     on $\mathcal N(0,c^2)$, the variance ends at $c^2/2$. (In $y=x/\alpha$ a step is
#     $y\leftarrow\frac{c^2}{c^2+\kappa_a^2}y+\kappa_bz$.)
# 2. *(code)* A loss has a floor that is not zero. On $\mathcal N(0,c^2)$, where is it for $x_0$, ε and v? Check with `denoising`
#     and 200 000 draws: within 2 %. At which $c$ is one of them the same at every level?
# 3. *(code)* Which $r$ makes the mean of \eqref{eq:mv-kl} smallest, for a given $m$? Price $\mathcal N(0,c^2)$ in four steps
#     with it. Check: nothing above the area $\tfrac12\log\frac{\mathrm{SNR}_1+c^{-2}}{\mathrm{SNR}_N+c^{-2}}$, to $10^{-12}$.
# 4. *(open)* Let $r$ depend on $x_a$, by \eqref{eq:mv-true}. At which order does the gap fall now? Train a network for it.
#
# <details><summary>Answer to 1</summary>
#
# The fresh noise at the last level is $\kappa^2$, so for nearly equal levels the variance settles at
# $V=\big(\frac{c^2}{c^2+\kappa^2}\big)^2V+\kappa^2$, or
# $V=\frac{(c^2+\kappa^2)^2}{2c^2+\kappa^2}\to\frac{c^2}2$ as $\kappa\to0$. Samples come out too narrow by $\sqrt2$.
#
# </details>
#
# <details><summary>Answer to 3</summary>
#
# The derivative vanishes at $r^\star=1+\Delta m/d$: the mean of the bracket in \eqref{eq:mv-true} [@bao2022analytic]. What is
# left is $\tfrac d2\log r^\star$. Here $d=1$ and $m=1/(\mathrm{SNR}_a+c^{-2})$, so
# $r^\star=(\mathrm{SNR}_b+c^{-2})/(\mathrm{SNR}_a+c^{-2})$ and the logarithms telescope, in any number of steps: on Gaussian
# data the true step *is* a Gaussian. At $c=1$ you find β's variance again. (`tests/dlib/test_likelihood.py` has this sum.)
#
# </details>
#
# ## References
#
# The chain and its bound: [@sohldickstein2015deep; @ho2020ddpm]. In SNR, and the decoder: [@kingma2021vdm]. Information and
# mean squares: [@guo2005immse]. Variances: [@nichol2021improved; @bao2022analytic]. Weights:
# [@salimans2022progressive; @hang2023minsnr; @kingma2023understanding].
