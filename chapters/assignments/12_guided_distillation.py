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
#     title: Assignment 12
#     summary: Write the parts of guided distillation yourself, from the features of ω to the exact guided guess; no training needed.
#     minutes: 100
#     memory: 1 GB
#     needs:
#       - chapter 12
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 12: guidance in one call
#
# Each question asks for one short function; nothing has to be trained. The cell below your answer calls it on inputs that
# are new every time and prints `PASS`, or says what is wrong and where to look. A grader will do the same with inputs of
# its own.
#
# - Put each answer into its cell, instead of the line `raise NotImplementedError`. Keep the first line, `# ANSWER …`, and
#   the function's name.
# - An answer may use the first code cell and its own cell, nothing else: copy what it needs into its cell. More cells for
#   trying things out may go anywhere, they are not graded.
# - A `PASS` that you see before you have run a cell is what it will print when the answer is right. "Run All" runs every
#   check, and the last cell says how many questions pass.
# - The point is to write the formulas yourself: `dlib` has them all, and a person sees when an answer calls it.
#
# Points `z` are tensors (B, 2) in float64. ω = 0 is no guidance. $c$ is a condition, $\varnothing$ the empty one. A noisy point is
# $z=\alpha x_0+\sigma\varepsilon$ with α² + σ² = 1, and $v=\alpha\varepsilon-\sigma x_0$.

# %%
from book import check  # first: it also tells torch not to spin
import math
import torch

# %% [markdown]
# ## Question 12.1: how a network hears ω (4 points)
#
# A number enters a network as sines and cosines. Here the angles are $1000\,\omega\,r_k$, with `dim/2` rates that fall
# geometrically from $r_0=1$ down to the last one, which is 1/10 000, both included. Return for each sample all sines, in
# the order of the rates, and then all cosines.
#
# Compute in float64 throughout: angles of thousands lose three digits in float32. (`torch.arange(n)` holds whole numbers, and dividing
# it makes float32. Give it `dtype=torch.float64`.)


# %%
# ANSWER Q12.1
def omega_features(omega, dim):
    """(B, dim), float64.
    omega: (B,), float64; dim: even, at least 4."""
    ### BEGIN SOLUTION
    half = dim // 2
    k = torch.arange(half, dtype=torch.float64)
    rates = 10_000 ** (-k / (half - 1))
    angle = 1000 * omega[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], 1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q12.1", omega_features)

# %% [markdown]
# ## Question 12.2: what the student should say (3 points)
#
# `guess(z, c)` is the teacher's guess of the data at the level at hand: `z` is a tensor (B, 2), `c` holds B labels as whole numbers, and the
# guess is a tensor like `z`. The label `null` is the empty condition. Return the guided guess $x^\omega$. Every sample has its own ω.


# %%
# ANSWER Q12.2
def guided_target(guess, z, c, null, omega):
    """x^ω, like z.
    z: (B, 2); c: (B,), labels; null: a label; omega: (B,)."""
    ### BEGIN SOLUTION
    full = guess(z, c)
    empty = guess(z, torch.full_like(c, null))
    return full + omega[:, None] * (full - empty)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q12.2", guided_target)

# %% [markdown]
# ## Question 12.3: the error, where the network predicts (4 points)
#
# This teacher predicts ε and was asked twice. The student predicts $v$, and its loss is the squared error of $v$: the difference
# between what it said and the guided teacher's $v$ at the same noisy point. Every sample has its own level and its own ω. Average
# over a sample's values, not over the batch. No level has α = 0 or σ = 0.


# %%
# ANSWER Q12.3
def guided_loss(said, z, eps_cond, eps_null, alpha, sigma, omega):
    """(B,): for each sample the mean squared error of v.
    said: (B, 2), the student's v; z, eps_cond, eps_null: like said, the noisy points, ε(z, c)
    and ε(z, ∅); alpha, sigma, omega: (B, 1)."""
    ### BEGIN SOLUTION
    eps = eps_cond + omega * (eps_cond - eps_null)
    x0 = (z - sigma * eps) / alpha
    v = alpha * eps - sigma * x0
    return (said - v).square().mean(1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q12.3", guided_loss)

# %% [markdown]
# ## Question 12.4: the range, and the condition that carries ω (4 points)
#
# In training every sample draws its own ω, uniform on the range, and the student's condition is a dictionary that has it under the name
# `"omega"`. What the teacher is told stays in it. If the teacher's condition `cond` is a dictionary itself, the new one has all its
# entries too, under their names. If it is a tensor, the tensor is in the new one under the name `"cond"`. There are no other entries, and
# the dictionary that you were given must not change, since the teacher gets it as well.
#
# A user thinks in `guidance_scale`, $g=1+\omega$, so the range is given in $g$. `u` is uniform on [0, 1]: it stands for the draw.


# %%
# ANSWER Q12.4
def told(cond, u, low, high):
    """The student's condition, a new dictionary.
    cond: a tensor or a dictionary; u: (B,); low, high: the least and the largest g."""
    ### BEGIN SOLUTION
    omega = low + (high - low) * u - 1
    entries = cond if isinstance(cond, dict) else {"cond": cond}
    return {**entries, "omega": omega}
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q12.4", told)

# %% [markdown]
# ## Question 12.5: the truth for two labelled Gaussians (5 points)
#
# The data have two labels, in two dimensions. With label $k$ they are $\mathcal N(m_k,s_k^2I)$, and the share of the label is $p_k$. With no
# label they are the mixture of both. Return the exact guided guess $x^\omega$ at noisy points of one level, each with its own label. For one
# Gaussian the exact guess of the data is
#
# $$m_k+\frac{\alpha s_k^2}{\alpha^2s_k^2+\sigma^2}\,(z-\alpha m_k).$$
#
# *Hint: without a label, average both guesses with the probabilities of the labels at z. A noisy point of label k is itself
# Gaussian: what are its mean and variance?*


# %%
# ANSWER Q12.5
def exact_guess(z, c, means, stds, shares, alpha, sigma, omega):
    """x^ω, like z.
    z: (B, 2); c: (B,), labels 0 or 1; means: (2, 2), a row for each label; stds, shares: (2,);
    alpha, sigma, omega: numbers."""
    ### BEGIN SOLUTION
    var = alpha**2 * stds**2 + sigma**2
    off = z[:, None] - alpha * means
    each = means + (alpha * stds**2 / var)[:, None] * off
    log_p = shares.log() - var.log() - off.square().sum(2) / (2 * var)
    empty = (log_p.softmax(1)[:, :, None] * each).sum(1)
    full = each[torch.arange(len(z)), c]
    return full + omega * (full - empty)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q12.5", exact_guess)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 \
#     my-assignments/12_guided_distillation.ipynb
# ```

# %%
from book import tally

tally("12")
