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
#     title: Score matching
#     summary: Learn the gradient of a log-density without its normaliser, and see where data leave you without an answer.
#     minutes: 40
#     memory: 1 GB
#     needs:
#       - PyTorch
#       - integration by parts, Gaussian densities
# ---

# %% [markdown]
# # 1 Score matching: a density's slope without its normaliser
#
# A generative model must know where data are likely. This book's models know something weaker, and it is enough: the
# **score** $\nabla\log p(x)$, the direction in which data become likelier. You can learn it from samples by an ordinary
# regression. First, see that regression fail.
#
# The data are three narrow Gaussian modes, far apart, so the true score is a formula. A small network is trained by
# score matching in its oldest form, with fresh samples at every step: it never runs out of data.
#
# Some words of the library: `Draw(seed)` is a random generator, `Batch` holds the data `x0`, and `train` follows a loss
# downhill with Adam. `edm()` is the family of noise levels $x=x_0+\sigma z$; a level is found by $\lambda=-\log\sigma$,
# and `CLEAN` is $\sigma=0$. `energy_score(f)` is $-\nabla f$, here the true score. Later, `show` prints the library's own
# source, and `claim` measures a number against a bound.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import math

import torch
from dlib import CLEAN, Batch, Draw, Mixture, denoising_score_matching, edm
from dlib import energy_score, exact, langevin, metrics, plot, train
from dlib.losses import explicit, implicit, sliced, sliced_vr
from toy_data import digits_split, three_far
from torch import nn

mixture, SIGMA = three_far(), 2.0
smooth = edm().at_lam(-math.log(SIGMA))  # the level α = 1, σ = 2


# %%
def mlp(outputs):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, outputs)
    )


points = Draw(1)
fresh = lambda step: Batch(mixture.sample(512, points)[0].float())
vanilla, noised = mlp(2), mlp(2)
dsm = denoising_score_matching
train(vanilla, lambda batch, draw: implicit(vanilla, batch), fresh, 600, lr=5e-3)
train(noised, lambda batch, draw: dsm(noised, batch, draw, SIGMA), fresh, 600, lr=5e-3)

# %%
axis = torch.linspace(-6, 6, 121)
square = torch.cartesian_prod(axis, axis)
truth = lambda level: energy_score(lambda x: -mixture.log_prob(x, level))


def panel(net, level):
    error = (net(square) - truth(level)(square)).norm(dim=1)
    return error.detach(), mixture.log_prob(square, level)


figure(
    plot.score_error(
        {"score matching": panel(vanilla, CLEAN), "with noise σ = 2": panel(noised, smooth)}, axis
    ),
    "Score matching is right inside three small discs of data and wrong by up to 30 "
    "elsewhere; with noise on the data the error is small on the whole square.",
    "How wrong the learnt score is, over contours of the density it was learnt from.",
)

# %% [markdown]
# On the left the network is right where there are data, and nowhere else. On the right the *same* network learnt from
# the same data plus noise. This chapter explains both panels, and what the noise costs.
#
# ## 1.1 Energies, and the number nobody can compute
#
# Any positive function makes a density, if you divide it by its integral. An **energy-based model** does that:
#
# $$p_\theta(x)=\frac{e^{-f_\theta(x)}}{Z_\theta},\qquad Z_\theta=\int e^{-f_\theta(x)}\,dx. \label{eq:ebm}$$
#
# Maximum likelihood needs $\log Z_\theta$, an integral over all pictures. But $Z_\theta$ does not depend on $x$, so it
# leaves with the first derivative:
#
# $$\nabla\log p_\theta(x) = -\nabla f_\theta(x) - \nabla\log Z_\theta = -\nabla f_\theta(x). \label{eq:score}$$
#
# All derivatives here are in $x$. In code, with $f=7-\log p$ for the three modes plus noise: whatever the 7, the score
# is exact. (`_pullback(f, x)` is $\nabla f$ of each sample by automatic differentiation. `exact(mixture, edm())` is the
# perfect network of a mixture; at a level it gives `.score`, and `.x0`, the mean of the clean data given $x$.)

# %%
# NBVAL_CHECK_OUTPUT
show(energy_score)
x = mixture.sample(1000, Draw(2))[0]
shifted = energy_score(lambda x: 7 - mixture.log_prob(x, smooth))
claim(
    "C01.1",
    "an energy gives the exact score, whatever its constant (RMS distance)",
    metrics.rms(shifted(x), exact(mixture, edm())(x, smooth).score),
    below=1e-12,
)

# %% [markdown]
# A network may also output $s_\theta(x)$ itself. Then nothing forces it to be the gradient of anything (exercise 2).
# That freedom is cheap, and nearly all diffusion models take it.
#
# ## 1.2 Explicit and implicit score matching
#
# The regression one would like is **explicit score matching** (lectures often drop the ½):
#
# $$\mathrm{ESM}(s) = \tfrac12\,\mathbb E_p\,\lVert s(x)-\nabla\log p(x)\rVert^2. \label{eq:esm}$$
#
# Its target is what we do not have. Hyvärinen's step [@hyvarinen2005score] removes it: expand the square. The cross
# term is $-\int p\,s\cdot\nabla\log p=-\int s\cdot\nabla p$, and integration by parts turns it into $+\int
# p\,\operatorname{tr}\nabla s$, if $p\,s\to0$ at infinity. What is left is **implicit score matching**:
#
# $$\mathrm{ISM}(s) = \mathbb E_p\big[\tfrac12\lVert s\rVert^2+\operatorname{tr}\nabla s\big] = \mathrm{ESM}(s)-\tfrac12\mathbb E_p\lVert\nabla\log p\rVert^2. \label{eq:ism}$$
#
# The last term does not contain $s$: two very different scores must show the same gap. In one dimension the expectation
# is a sum over a grid (exact to rounding for functions that fall off this fast), so you can check it to nine digits.
# (`explicit` is \eqref{eq:esm}. `_with_slope` gives $x$, ready to be differentiated by, and $s(x)$; `_loss` is the mean over
# the batch.)

# %%
# NBVAL_CHECK_OUTPUT
show(implicit)
line = Mixture(
    torch.tensor([0.6, 0.4]), means=torch.tensor([[-1.0], [1.0]]), stds=torch.tensor([0.5, 0.4])
)


def mean(value, level, h=0.125):
    """E_p value(Batch(x)) by the trapezoid rule."""
    grid = torch.arange(-7, 7, h, dtype=torch.float64)[:, None]
    mass = line.log_prob(grid, level).exp() * h
    return sum(w * value(Batch(x[None])) for w, x in zip(mass.tolist(), grid))


slope = lambda level: energy_score(lambda x: -line.log_prob(x, level))
two = (lambda x: -torch.tanh(x), lambda x: torch.sin(2 * x) - x / 3)
esm = lambda s, level: mean(lambda b: explicit(s, b, slope(level)).value.item(), level)
ism = lambda s: mean(lambda b: implicit(s, b).value.item(), CLEAN)
information = esm(lambda x: 0 * x, CLEAN)  # ½ E‖∇log p‖²
claim(
    "C01.2",
    "two scores: ISM − ESM + ½ E‖∇log p‖² (the larger)",
    max(abs(ism(s) - esm(s, CLEAN) + information) for s in two),
    below=1e-9,
)

# %% [markdown]
# ## 1.3 Slices instead of a trace
#
# The trace costs one backward pass for each of the $d$ coordinates: fine for two, hopeless for a picture. **Sliced
# score matching** [@song2019sliced] projects on random directions $v$ with $\mathbb E\,vv^\top=I$:
#
# $$\mathrm{SSM}(s)=\mathbb E_p\mathbb E_v\big[v^\top\nabla s\,v+\tfrac12(v^\top s)^2\big],\qquad
# \mathbb E_v\,v^\top\nabla s\,v=\operatorname{tr}\nabla s. \label{eq:ssm}$$
#
# One backward pass, whatever $d$. Since $\mathbb E_v(v^\top s)^2=\lVert s\rVert^2$ is known, SSM-VR writes it out: one
# source of noise less. Which directions? Random signs. Their squares are always 1, so the diagonal of $\nabla s$ is read
# without any noise; Gaussian $v$ are unbiased too, and noisier. (In code `_quadratic` is $v^\top\nabla s\,v$.)
#
# Two exact tests. A function that acts on each coordinate by itself has a diagonal Jacobian. For it one draw of signs gives
# the trace exactly, so SSM-VR must give ISM. SSM need not: its $(v^\top s)^2$ still changes with the signs. And all four sign
# vectors of the plane together have a mean $vv^\top$ of exactly $I$: averaged over them, SSM too must *be* ISM, whatever the
# score.

# %%
# NBVAL_CHECK_OUTPUT
show(sliced, sliced_vr)
batch = Batch(x)
claim(
    "C01.3",
    "a diagonal Jacobian, one draw of signs: SSM-VR − ISM",
    abs(
        sliced_vr(torch.sin, batch, Draw(3)).value.item()
        - implicit(torch.sin, batch).value.item()
    ),
    below=1e-12,
)
wave = lambda x: torch.sin(x @ torch.tensor([[0.9, 0.5], [0.5, -1.1]]).to(x))
along = lambda v: sliced(wave, batch, Draw(3), lambda draw, x: v.to(x).expand_as(x)).value
signs = torch.cartesian_prod(torch.tensor([-1, 1]), torch.tensor([-1, 1]))
claim(
    "C01.4",
    "any Jacobian, SSM averaged over all sign vectors − ISM",
    abs(sum(along(v).item() for v in signs) / 4 - implicit(wave, batch).value.item()),
    below=1e-12,
)

# %% [markdown]
# ## 1.4 Denoising: the target that comes for free
#
# Add noise, $x=x_0+\sigma z$ with $z\sim\mathcal N(0,I)$, and call the density of the result $p_\sigma$. **Denoising
# score matching** [@vincent2011connection] regresses on the slope of the *noise*, which you know because you drew it:
#
# $$\mathrm{DSM}(s)=\tfrac12\,\mathbb E\,\lVert s(x_0+\sigma z)+z/\sigma\rVert^2 = \mathrm{ESM}_{p_\sigma}(s)+\text{const}. \label{eq:dsm}$$
#
# No derivative of the network, no trace. A squared-error regression returns the conditional mean of its target, so its
# minimiser is
#
# $$s^\star(x)=-\frac{\mathbb E[z\mid x]}{\sigma}=\frac{\mathbb E[x_0\mid x]-x}{\sigma^2}=\nabla\log p_\sigma(x), \label{eq:tweedie}$$
#
# and the last equality is Tweedie's formula [@efron2011tweedie]: **to denoise is to know the score.**
#
# <details><summary>Why the last equality holds</summary>
#
# $\nabla p_\sigma(x)=\int p(x_0)\,\nabla_x\mathcal N(x;x_0,\sigma^2I)\,dx_0=\int p(x_0)\,\mathcal
# N(x;x_0,\sigma^2I)\,\frac{x_0-x}{\sigma^2}\,dx_0$. Divide by $p_\sigma(x)$; what stands in front of $(x_0-x)/\sigma^2$
# is the posterior $p(x_0\mid x)$.
#
# </details>
#
# The same fact proves \eqref{eq:dsm}. Expand both squares. Both have $\tfrac12\mathbb E_{p_\sigma}\lVert s\rVert^2$, and the
# cross terms agree:
#
# $$\mathbb E\,s(x)\cdot\frac z\sigma=\mathbb E\,s(x)\cdot\frac{\mathbb E[z\mid x]}\sigma=-\mathbb
# E_{p_\sigma}\,s\cdot\nabla\log p_\sigma.$$
#
# What is left is the constant, $\tfrac12d/\sigma^2-\tfrac12\mathbb E_{p_\sigma}\lVert\nabla\log p_\sigma\rVert^2$.
#
# The function is three lines, because the book's one denoising loss already does it (chapter 2 shows it). `_one_level` is
# a schedule with this one σ, and `_HALF_SCORE` a weight: half the square of the score's error.

# %%
# NBVAL_CHECK_OUTPUT
show(denoising_score_matching)
half = edm().at_lam(math.log(2))  # σ = ½
z, h = torch.arange(-7.5, 7.5, 0.375, dtype=torch.float64), 0.375
mass = (torch.exp(-(z**2) / 2) * h / math.sqrt(2 * math.pi)).tolist()


def total(s):  # the same rule, over x₀ and over z
    at = lambda x0, u: dsm(s, Batch(x0, noise=u.view(1, 1)), Draw(0), 0.5).value.item()
    return mean(lambda b: sum(w * at(b.x0, u) for w, u in zip(mass, z)), CLEAN)


constant = 0.5 / 0.5**2 - esm(lambda x: 0 * x, half)
claim(
    "C01.5",
    "two scores: DSM − ESM of p_σ − (½/σ² − ½ E‖∇log p_σ‖²) (the larger)",
    max(abs(total(s) - esm(s, half) - constant) for s in two),
    below=1e-9,
)

# %% [markdown]
# Now the minimiser. What $x$ leaves unknown of the target, $s^\star(x)+z/\sigma$, is uncorrelated with every function of
# $x$. So a departure $g$ from $s^\star$ must cost exactly $\tfrac12\mathbb E_{p_\sigma}\lVert g\rVert^2$, and no $g$ can gain:

# %%
# NBVAL_CHECK_OUTPUT
tweedie = lambda x: (exact(line, edm())(x, half).x0 - x) / 0.5**2
g = two[0]
cost = total(lambda x: tweedie(x) + g(x)) - total(tweedie)
claim(
    "C01.6",
    "DSM(Tweedie + g) − DSM(Tweedie) is ½E‖g‖² (difference)",
    abs(cost - mean(lambda b: 0.5 * g(b.x0).square().item(), half)),
    below=1e-9,
)
x = line.sample(1000, Draw(4))[0]
claim(
    "C01.7",
    "and Tweedie's score is ∇log p_σ (RMS distance)",
    metrics.rms(tweedie(x), slope(half)(x)),
    below=1e-12,
)

# %% [markdown]
# The price is in \eqref{eq:dsm}: you learn $p_\sigma$, not $p$. A small $\sigma$ blurs little, but the target
# $z/\sigma$ has variance $d/\sigma^2$, nearly all of it noise.
#
# ## 1.5 Why the vanilla objective fails
#
# Real data are *sparse* and *disconnected*: thin sets with nothing between them. Three things go wrong.
#
# **It is not even defined.** On a finite data set \eqref{eq:ism} has no minimum over all functions. Put a Gaussian of
# width $h$ on each point: at the points $s=0$ and $\operatorname{tr}\nabla s=-d/h^2$, so ISM is $-d/h^2$. Halve $h$ and
# it is four times as negative, for ever.
#
# **No data, no answer.** ISM and SSM are averages over $p$: errors where $p\approx0$ cost nothing, and nothing corrects
# them. That is the left panel. On data we ask for an error below a fifth of the score's size; over the square it should
# be of the score's own order, so we ask for more than half. DSM averages over $p_\sigma$, which at $\sigma=2$ reaches
# all of the square: again a fifth. (Is it the noise that helps, or the other objective? Exercise 3.)


# %%
# NBVAL_CHECK_OUTPUT
def relative(net, level, x):
    with torch.no_grad():
        return metrics.rms(net(x), truth(level)(x)) / metrics.rms(truth(level)(x), 0 * x)


data = mixture.sample(4000, Draw(6))[0].float()
claim(
    "C01.8", "score matching, on data: relative error", relative(vanilla, CLEAN, data), below=0.2
)
claim(
    "C01.9",
    "score matching, over the square: relative error",
    relative(vanilla, CLEAN, square),
    above=0.5,
)
claim(
    "C01.10",
    "DSM at σ = 2, over the square: relative error",
    relative(noised, smooth, square),
    below=0.2,
)

# %% [markdown]
# **The weights do not enter.** Inside mode $k$, $p\approx w_k\,\mathcal N_k$ and $\nabla\log p\approx\nabla\log\mathcal
# N_k$: the weight $w_k$ leaves just as $Z$ did. It survives only where modes overlap, which is where there are no data.
# For our three modes the exact scores of weights (.5, .3, .2) and (⅓, ⅓, ⅓) differ on data by less than rounding. No
# data set you will meet tells them apart through their scores.

# %%
# NBVAL_CHECK_OUTPUT
exact_score, exactly = truth(CLEAN), data.double()
equal = Mixture(torch.ones(3) / 3, mixture.means, mixture.stds)
equal_score = energy_score(lambda x: -equal.log_prob(x, CLEAN))
claim(
    "C01.11",
    "equal weights give the same score on data (RMS distance)",
    metrics.rms(exact_score(exactly), equal_score(exactly)),
    below=1e-12,
)

# %% [markdown]
# ## 1.6 Langevin dynamics walks uphill, and stays
#
# A score is enough to draw samples. Climb it, with noise [@roberts1996exponential]:
#
# $$x \leftarrow x+\eta\,s(x)+\sqrt{2\eta}\,z. \label{eq:langevin}$$
#
# As $\eta\to0$ and the number of steps grows, $x$ follows $p$. For finite $\eta$ this *unadjusted* algorithm (ULA)
# follows something else: on $\mathcal N(0,c^2)$ a step maps the variance $V$ to $(1-\eta/c^2)^2V+2\eta$, with fixed
# point $c^2/(1-\eta/2c^2)$: [chapter 2](02_noise_levels.ipynb) measures it. (We write $\eta$ where NCSN writes
# $\alpha/2$.)
#
# <details><summary>Why x follows p</summary>
#
# For a smooth test function $f$ one step changes $\mathbb E f(x)$ by $\eta\,\mathbb E[s\cdot\nabla f+\Delta
# f]+O(\eta^2)$. If $x\sim p$ and $s=\nabla\log p$, the bracket is $\int(\nabla p\cdot\nabla f+p\,\Delta f)\,dx=0$, by
# parts: $p$ stays.
#
# </details>

# %%
# NBVAL_CHECK_OUTPUT
show(langevin)
mode = lambda x: (x[:, None] - mixture.means).norm(dim=2).argmin(1)
start = mixture.means.repeat_interleave(200, 0)  # 200 chains in each mode
end = langevin(exact_score, start, 0.02, 500, Draw(8))
claim(
    "C01.12",
    "exact score, 500 steps: share of chains that left their first mode",
    (mode(start) != mode(end)).double().mean(),
    between=(0, 0),
)

paths, spread = [], 12 * Draw(9).uniform(120).view(60, 2) - 6
langevin(exact_score, spread, 0.01, 300, Draw(10), each=lambda k, x: paths.append(x))
figure(
    plot.trajectories(torch.stack(paths[::4]), mode(paths[-1])),
    "Each chain climbs to a mode close by and stays; the modes get the shares of the "
    "square's three sectors, not their weights of one half, 0.3 and 0.2.",
    "Sixty Langevin chains, exact score. Grey: the start, uniform on the square.",
)

# %% [markdown]
# Started in equal shares, the chains keep equal shares: a total variation of $\tfrac16$ from the true weights, for ever
# in practice. Between two modes, $p$ falls by some $3.8^2/(2\cdot0.4^2)=45$ nats or more: to cross takes some $e^{45}$
# steps. And this is the *exact* score.
#
# Noise cures both diseases: with $\sigma=2$ the empty regions fill, the modes overlap, and the weights enter the score.
# Start again in equal shares, now with the score of $p_\sigma$. Noise does not move the mean, $\sum_kw_k\mu_k$, so the
# chains' mean tells their weights. They should forget the start: we ask for a quarter of $\tfrac16$, which is
# four standard errors of a weight found from 3000 chains.


# %%
# NBVAL_CHECK_OUTPUT
def off(x):
    """Total variation between the true weights and those that have the mean of x."""
    means = torch.cat([mixture.means.T, torch.ones(1, 3)])  # and they sum to 1
    found = torch.linalg.solve(means, torch.cat([x.mean(0), torch.ones(1)]))
    return (found - mixture.weights).abs().sum() / 2


many = mixture.means.repeat_interleave(1000, 0)
claim(
    "C01.13",
    "exact score of p_σ, σ = 2, 500 steps: the weights' total variation",
    off(langevin(truth(smooth), many, 0.2, 500, Draw(16))),
    below=1 / 24,
)
claim("C01.14", "exact score of p, 500 steps: the same", off(end), between=(0.9 / 6, 1.1 / 6))

# %% [markdown]
# But now you sample $p_\sigma$. Use *many* $\sigma$, from large to small: that is the next chapter's idea, and
# diffusion's.
#
# ## 1.7 Rung 2: real pictures
#
# Scikit-learn's digits, 1501 training pictures with 64 pixels in $[-1,1]$, at one noise level, $\sigma=\tfrac12$. On a
# finite data set DSM does have a minimum, and we know it: Tweedie's score of the *training set itself*, a mixture of
# 1501 spikes. It is the best score possible on training pictures, and it denoises everything to a training picture or
# the mean of a few near ones. Against it, a small MLP, trained for 500 steps.

# %%
(train_set, _), (held_out, _) = digits_split()
spike = Mixture(torch.ones(1501) / 1501, train_set.flatten(1), torch.full((1501,), 1e-3))
memory = lambda x: exact(spike, edm())(x.flatten(1), half).score.view_as(x)
torch.manual_seed(0)
net = nn.Sequential(
    nn.Flatten(),
    nn.Linear(64, 256),
    nn.SiLU(),
    nn.Linear(256, 256),
    nn.SiLU(),
    nn.Linear(256, 64),
    nn.Unflatten(1, (1, 8, 8)),
)
learnt, rows = lambda x: (net(x) - x) / 0.5**2, Draw(11)  # the net says E[x₀|x]
train(
    net,
    lambda batch, draw: dsm(learnt, batch, draw, sigma=0.5),
    lambda step: Batch(train_set[rows.integers(1501, 128)]),
    500,
    lr=3e-3,
)

# %%
# NBVAL_CHECK_OUTPUT
noisy = held_out[:10] + 0.5 * Draw(12).normal(held_out[:10])
denoise = lambda score: (noisy + 0.5**2 * score(noisy)).detach()
figure(
    plot.pictures(
        {
            "held out": held_out[:10],
            "with noise σ = ½": noisy,
            "Tweedie, learnt score": denoise(learnt),
            "Tweedie, exact score of the training set": denoise(memory),
        }
    ),
    "The learnt score removes most noise and blurs a little; the training set's own "
    "score returns crisper digits: training pictures, or blends of a few.",
    "Denoising with $x+\\sigma^2 s(x)$. Last row: training pictures or their means.",
)


@torch.no_grad()
def digit_loss(score, pictures):
    return dsm(score, Batch(pictures), Draw(13), sigma=0.5).value


claim(
    "C01.15",
    "training pictures: the learnt score's DSM over the training set's own",
    digit_loss(learnt, train_set) / digit_loss(memory, train_set),
    above=1,
)
claim(
    "C01.16",
    "held-out pictures: the learnt score's DSM over the training set's own",
    digit_loss(learnt, held_out) / digit_loss(memory, held_out),
    below=1,
)

# %% [markdown]
# So the objective's minimiser is a machine that memorises. What you want is the network's *failure* to reach it.
#
# ## 1.8 What should look wrong here
#
# Flip the sign of the trace in \eqref{eq:ism}: $\tfrac12\lVert s\rVert^2-\operatorname{tr}\nabla s$. The loss falls
# nicely and has a minimum. *For Gaussian data $\mathcal N(0,c^2I)$ and a linear score $s=Wx$, what will $W$ be?* Decide
# before you run this.


# %%
# NBVAL_CHECK_OUTPUT
def flipped(score, batch):
    true = implicit(score, batch)
    half_square = explicit(score, batch, lambda x: 0 * x).value
    return true._replace(value=2 * half_square - true.value)


c, points = 0.7, Draw(14)
gauss = lambda step: Batch(c * points.normal((1024, 2)))
right, wrong = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
train(right, lambda batch, draw: implicit(right, batch), gauss, 300, lr=0.05)
train(wrong, lambda batch, draw: flipped(wrong, batch), gauss, 300, lr=0.05)
claim(
    "C01.17",
    "Gaussian data: −c² tr W / 2, learnt with the right sign",
    -(c**2) * right.weight.trace().item() / 2,
    between=(0.95, 1.05),
)
claim(
    "C01.18",
    "and with the wrong sign",
    -(c**2) * wrong.weight.trace().item() / 2,
    between=(-1.05, -0.95),
)

# %% [markdown]
# $W=+I/c^2$: integrating by parts backwards, the flipped loss is $\tfrac12\mathbb E\lVert s+\nabla\log p\rVert^2$ minus
# a constant. It learns to run *away* from the data, and its curve looks as healthy as the right one. Never judge a
# score by its loss; look at a sample.
#
# ## 1.9 In practice
#
# - **Which objective.** Diffusion models train with \eqref{eq:dsm}, weighted by $\sigma^2$: for a
#     network $\varepsilon_\theta$ of the noise, with $s=-\varepsilon_\theta/\sigma$, it is
#     $\tfrac12\lVert z-\varepsilon_\theta\rVert^2$, half of the library's `weights.eps`. Unweighted, the smallest $\sigma$ rules the gradient.
# - **EBM code.** NCSN's released energy version of DSM multiplies the score by $\sigma^2$ before it takes the residual:
#     its value is $\sigma^4$ times ours. Compare losses of two repositories only after checking such factors.
# - **Double backward.** ISM, SSM and energies differentiate the network twice. An energy made of ReLUs has a piecewise
#     constant score, whose trace is 0 wherever autograd looks: use SiLU or softplus.
# - **One level is not a sampler.** NCSN [@song2019ncsn] uses ten, $\sigma$ from 1 to 0.01, with 100 Langevin steps at
#     each; SD 1.5 uses a thousand levels. Sample quality from NCSN is *not reproduced here*.
# - **Where the toy stops being true.** In two dimensions a square can be filled; in 64 no start is near the data, and
#     noise levels are the only bridge.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(mixture, edm())(x, level).score` | `StableDiffusion(pipe).denoiser()(x, level, cond).score` |
# | `denoising_score_matching` at one σ | `dlib.denoising` with `weights.eps` over all levels: `full_scale.train finetune` ([3.10](03_markov_view.ipynb)) |
# | `implicit`, `sliced`, energies | not used at this scale |
# | `langevin` on one level | replaced by the solvers of [chapter 8](08_dpm_solver.ipynb): |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" --solver ancestral --steps 50
# ```
#
# **How far up the ladder.** Rung 1: every identity, to nine digits or to known sampling error. Rung 2: one noise level
# on real digits, against the training set's exact score. Rung 3: the score of Stable Diffusion is read off, sampled with
# and, at all levels, trained by the same functions.
#
# ## 1.10 Exercises
#
# 1. *(pencil)* For $p=\mathcal N(0,c^2I)$ in $d$ dimensions and $s=-ax$, compute ISM as a function of $a$, its
#     minimiser, and its value there. Check \eqref{eq:ism}.
# 2. *(code)* With `f = mlp(1)`, train the energy `energy_score(lambda x: f(x).squeeze(1))` by DSM. Check: its score's
#     Jacobian (`torch.autograd.functional.jacobian`) is symmetric to rounding, that of `vanilla` is off by more than 1 %.
# 3. *(code)* Is it the noise that helps on the square, or the other objective? Keep ISM, and add the noise to the data.
#     Predict, then check against `truth(smooth)`.
# 4. *(open)* Recover the weights of the three modes with the exact score and Langevin steps only, no second noise
#     level. What does it cost, and how does it scale with the distance?
#
# <details><summary>Answer to 1</summary>
#
# $\tfrac12a^2dc^2-ad$, smallest at $a=1/c^2$, where it is $-\tfrac12d/c^2$. There ESM is 0, and $-\tfrac12\mathbb
# E\lVert x/c^2\rVert^2=-\tfrac12d/c^2$ is the gap.
#
# </details>
#
# Answer to 3, as code that runs: it is the noise.

# %%
# NBVAL_CHECK_OUTPUT
control, more = mlp(2), Draw(15)


def noisy_data(step):
    x0 = fresh(step).x0
    return Batch(x0 + SIGMA * more.normal(x0))


train(control, lambda batch, draw: implicit(control, batch), noisy_data, 600, lr=5e-3)
claim(
    "C01.19",
    "the control, ISM on data plus noise, over the square: relative error",
    relative(control, smooth, square),
    below=0.2,
)

# %% [markdown]
# ## References
#
# Score matching: [@hyvarinen2005score]; sliced: [@song2019sliced]; denoising: [@vincent2011connection]; Tweedie's
# formula: [@efron2011tweedie]. Langevin's algorithm and when it converges: [@roberts1996exponential]. Its failure on
# far modes, and the cure: [@song2019ncsn; @song2020improved].
