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
#     title: Assignment 2
#     summary: Build a ladder of noise levels, its loss and its sampler; then choose one that finds the weights of far modes.
#     minutes: 90
#     memory: 1 GB
#     needs:
#       - chapter 2
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 2: a ladder that finds the weights
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
# All tensors are float64 unless you make others. Here $x=x_0+\sigma z$, and a score is a function `score(x, sigma)` of points (B, d)
# and of their $\sigma$: one number, or one for each row, of shape (B,) or (B, 1).

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch

# %% [markdown]
# ## Question 2.1: geometric levels (3 points)
#
# Return $n$ noise levels from $\sigma_1=$ `top` down to $\sigma_n=$ `low`, both included, with a constant ratio
# $\sigma_i/\sigma_{i+1}$.


# %%
# ANSWER Q02.1
def geometric(top, low, n):
    """The levels, shape (n,), noisiest first. top > low > 0: floats; n ≥ 2."""
    ### BEGIN SOLUTION
    return torch.exp(torch.linspace(math.log(top), math.log(low), n, dtype=torch.float64))
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q02.1", geometric)

# %% [markdown]
# ## Question 2.2: the loss of all levels (4 points)
#
# Denoising score matching with NCSN's weight, for every row: $\tfrac12\sigma^2\lVert s(x_0+\sigma z,\sigma)+z/\sigma\rVert^2$. Each row
# has its own $\sigma$. A trainer will differentiate your loss in the network's weights; the check does that too.


# %%
# ANSWER Q02.2
def level_loss(score, x0, z, sigma):
    """The loss of each row, shape (B,). x0, z: (B, d); sigma: (B,)."""
    ### BEGIN SOLUTION
    s = sigma[:, None]
    residual = s * score(x0 + s * z, sigma) + z  # σ (s + z/σ), without the division
    return residual.square().sum(1) / 2
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q02.2", level_loss)

# %% [markdown]
# ## Question 2.3: what Langevin makes of a variance (4 points)
#
# On $\mathcal N(0,v)$ the score is $-x/v$ and a Langevin step is $x\leftarrow x-\eta x/v+\sqrt{2\eta}\,z$. Start with variance `start`.
# Return two numbers: the variance after $n$ steps, and the variance to which it tends.


# %%
# ANSWER Q02.3
def langevin_variance(start, v, eta, n):
    """(variance after n steps, its limit). start, v, eta: floats, eta < 2v; n: an int."""
    ### BEGIN SOLUTION
    variance = start
    for _ in range(n):
        variance = (1 - eta / v) ** 2 * variance + 2 * eta
    return variance, v / (1 - eta / (2 * v))
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q02.3", langevin_variance)

# %% [markdown]
# ## Question 2.4: annealed Langevin dynamics (5 points)
#
# NCSN's sampler, as in section 2.3 of the chapter, with $\eta_i=\epsilon\,\sigma_i^2/\sigma_L^2$ and all its normals given; and, at the very
# end, one denoising by Tweedie's formula at $\sigma_L$.


# %%
# ANSWER Q02.4
def annealed(score, x, sigmas, epsilon, noise):
    """x at the end, denoised. sigmas: (L,), falling; epsilon: a float; noise: (L, T, B, d)."""
    ### BEGIN SOLUTION
    for i in range(len(sigmas)):
        eta = epsilon * sigmas[i] ** 2 / sigmas[-1] ** 2
        for k in range(noise.shape[1]):
            x = x + eta * score(x, sigmas[i]) + torch.sqrt(2 * eta) * noise[i, k]
    return x + sigmas[-1] ** 2 * score(x, sigmas[-1])
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q02.4", annealed)

# %% [markdown]
# ## Question 2.5: choose a ladder (4 points)
#
# Two modes in the plane, each of standard deviation `width`, at a distance `apart`, with unequal weights that you are not told. The check
# starts 2000 chains in the *light* mode and runs annealed Langevin with the exact scores, $\delta=0.2$ ($\eta_i=0.2\,\sigma_i^2$), on the levels that
# you choose, the same number of steps at each, at most `calls` steps in all. After a last denoising it counts who is where,
# within three widths. Your ladder passes if the ledger is within 0.08 of the true weights (total variation, where "in no mode" counts
# as a third place). The last level must be at most a fifth of `width`.


# %%
# ANSWER Q02.5
def choose_ladder(apart, width, calls):
    """(sigmas, steps): levels (L,), falling; steps at each, an int, with L · steps ≤ calls."""
    ### BEGIN SOLUTION
    n = 24  # σ₁: where the modes are one; σ_L: invisible
    levels = torch.linspace(math.log(apart), math.log(width / 10), n, dtype=torch.float64)
    return torch.exp(levels), calls // n
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q02.5", choose_ladder)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/02_noise_levels.ipynb
# ```

# %%
from book import tally

tally("02")
