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
#     title: Assignment 3
#     summary: DDPM's posterior in closed form and by weighted samples, a walk back to data, the weights of four losses, and the bound.
#     minutes: 90
#     memory: 1 GB
#     needs:
#       - chapter 3
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 3: one step back, and its price
#
# Each question asks for one short function. The cell below your answer calls it on inputs that are new every time and
# prints `PASS`, or says what is wrong and where to look. A grader will do the same with inputs of its own.
#
# - Put each answer into its cell, instead of the line `raise NotImplementedError`. Keep the first line, `# ANSWER …`, and
#   the function's name.
# - An answer may use the first code cell and its own cell, nothing else: copy what it needs into its cell. More cells for
#   trying things out may go anywhere, they are not graded.
# - A `PASS` that you see before you have run a cell is what it will print when the answer is right. "Run All" runs every
#   check, and the last cell says how many questions pass.
# - The point is to write the formulas yourself: `dlib` has them all, and a person sees when an answer calls it.
#
# All tensors are float64. A level has `.alpha` and `.sigma`, floats, and $x=\alpha x_0+\sigma\varepsilon$ at it. Steps go
# from a noisier level `a` to a cleaner `b`.

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch

# %% [markdown]
# ## Question 3.1: the posterior (4 points)
#
# Derive the mean and the variance of the Gaussian $q(x_b\mid x_a,x_0)$, as in section 3.2. The schedule is any one: do not
# lean on $\alpha^2+\sigma^2=1$.


# %%
# ANSWER Q03.1
def posterior(x_a, x_0, a, b):
    """(mean, shape (B, d); variance of each coordinate, a float)."""
    ### BEGIN SOLUTION
    scale = a.alpha / b.alpha  # α_{a|b}
    added = a.sigma**2 - scale**2 * b.sigma**2  # σ²_{a|b}
    mean = (scale * b.sigma**2 * x_a + b.alpha * added * x_0) / a.sigma**2
    return mean, b.sigma**2 * added / a.sigma**2
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q03.1", posterior)

# %% [markdown]
# ## Question 3.2: the same without a formula (4 points)
#
# How would you notice a slip in question 3.1? Draw $x_b$ given $x_0$ only, and let $x_a$ speak through weights: $x_b=\alpha_bx_0+\sigma_bz$, each
# weighted in proportion to $q(x_a\mid x_b)$, the weights of one $(x_a,x_0)$ summing to 1. Return the weighted mean of $x_b$ and the weighted mean of
# $(x_b-\text{mean})^2$, for every $(x_a,x_0)$. All of them use the same normals. (Then compare with your first answer, in a cell of your own. How far apart should they be?)


# %%
# ANSWER Q03.2
def posterior_by_sampling(x_a, x_0, a, b, z):
    """(means, variances), each (B,). x_a, x_0: (B,), points on a line; z: (M,), normals."""
    ### BEGIN SOLUTION
    scale = a.alpha / b.alpha
    x_b = b.alpha * x_0[:, None] + b.sigma * z
    gap = x_a[:, None] - scale * x_b
    w = torch.softmax(-(gap**2) / (2 * (a.sigma**2 - scale**2 * b.sigma**2)), 1)
    mean = (w * x_b).sum(1)
    return mean, (w * (x_b - mean[:, None]) ** 2).sum(1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q03.2", posterior_by_sampling)

# %% [markdown]
# ## Question 3.3: back to data (4 points)
#
# Walk through `levels`, noise first, by DDPM's steps with the posterior's variance. `eps(x, level)` is the network's ε, at all levels but the last. That
# one has $\sigma=0$ and $\alpha=1$, where $\lambda$ is infinite: $e^{-h}=\alpha_a\sigma_b/(\alpha_b\sigma_a)$ needs no logarithm. The step to it adds no
# noise, so there is one array of normals fewer than there are steps.


# %%
# ANSWER Q03.3
def walk_back(eps, x, levels, noise):
    """x at the last level, shape (B, d). levels: n + 1 of them; noise: (n − 1, B, d)."""
    ### BEGIN SOLUTION
    for k, (a, b) in enumerate(zip(levels, levels[1:])):
        e = eps(x, a)
        x_0 = (x - a.sigma * e) / a.alpha
        keep = a.alpha * b.sigma / (b.alpha * a.sigma)  # e^{−h}
        x = b.alpha * x_0 + b.sigma * keep * e
        if b.sigma > 0:
            x = x + b.sigma * math.sqrt(1 - keep**2) * noise[k]
    return x
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q03.3", walk_back)

# %% [markdown]
# ## Question 3.4: what a loss weighs (4 points)
#
# On a variance-preserving schedule, at levels with these $\alpha$ and $\sigma$, noise first: which factor stands before $\lVert
# x_0-x_\theta\rVert^2$ when you write as a loss on $x_0$
#
# 1. the loss $\lVert\varepsilon-\varepsilon_\theta\rVert^2$,
# 2. the loss $\lVert v-v_\theta\rVert^2$ with $v=\alpha\varepsilon-\sigma x_0$,
# 3. the min-SNR-γ loss, which is the first one times $\min(\mathrm{SNR},\gamma)/\mathrm{SNR}$,
# 4. the bound's KL of the step from each level to the next, with the posterior's variance?


# %%
# ANSWER Q03.4
def loss_weights(alpha, sigma, gamma):
    """Four arrays, of shapes (n,), (n,), (n,) and (n − 1,). alpha, sigma: (n,)."""
    ### BEGIN SOLUTION
    snr = (alpha / sigma) ** 2
    return snr, snr + 1, snr.clamp(max=gamma), (snr[1:] - snr[:-1]) / 2
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q03.4", loss_weights)

# %% [markdown]
# ## Question 3.5: the bound, with both its ends (4 points)
#
# Compute the terms of $-\log p(x_0)\le L_N+\sum_nL_{n-1}+L_0$ in nats, each a mean over the batch. At `levels[k]` (noise first, N of them, variance
# preserving) the noise is `noise[k]`. $L_N$ is the exact KL to $\mathcal N(0,I)$. A step from `levels[k]` to the next has the posterior's variance. The
# decoder at the last level is $\mathcal N(x_b/\alpha_b,\kappa_b^2I)$ with $\kappa=\sigma/\alpha$. `x0_of(x, level)` is the network's $x_\theta$.


# %%
# ANSWER Q03.5
def bound_terms(x0_of, x0, levels, noise):
    """(L_N, steps of shape (N − 1,) in the order of the walk, L_0); noise: (N, B, d)."""
    ### BEGIN SOLUTION
    first, last, d = levels[0], levels[-1], x0.shape[1]
    size = x0.square().sum(1).mean()
    prior = 0.5 * (first.alpha**2 * size + d * (first.sigma**2 - 1 - math.log(first.sigma**2)))
    steps = []
    for a, b, z in zip(levels, levels[1:], noise):
        gain = (b.alpha / b.sigma) ** 2 - (a.alpha / a.sigma) ** 2
        off = x0 - x0_of(a.alpha * x0 + a.sigma * z, a)
        steps.append(0.5 * gain * off.square().sum(1).mean())
    kappa = last.sigma / last.alpha  # x₀ − x_b/α_b = −κ_b ε
    decoder = 0.5 * (noise[-1].square().sum(1).mean() + d * math.log(2 * math.pi * kappa**2))
    return prior, torch.stack(steps), decoder
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q03.5", bound_terms)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/03_markov_view.ipynb
# ```

# %%
from book import tally

tally("03")
