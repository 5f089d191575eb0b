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
#     title: Assignment 17
#     summary: Write the variance-reduced target of stable consistency tuning yourself, and see what it needs to be right; no training needed.
#     minutes: 120
#     memory: 1 GB
#     needs:
#       - chapter 17
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 17: a target with less variance
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
# All tensors are in float64, but for conditions (int64) and masks (bool). A level `a` has the numbers `a.alpha` and
# `a.sigma`. In a batch of B noisy samples there are n references, which are clean samples.

# %%
from book import check  # first: it also tells torch not to spin
import itertools
import math
import torch

# %% [markdown]
# ## Question 17.1: the weights (4 points)
#
# How well does each reference explain each $x_t=\alpha x_0+\sigma\varepsilon$? Return the weights $w_i$ of equation (17.2): for each
# row of x they sum to 1 over the references. The $x_0$ that made a row need not be one of them here: then, near the clean end, all
# exponents of the row lie around $-10^8$. The weights must be right there, too.


# %%
# ANSWER Q17.1
def weights_of(x, references, a):
    """(B, n): the weight of each reference for each row of x.
    x: (B, d), at level a; references: (n, d)."""
    ### BEGIN SOLUTION
    far = (x[:, None] - a.alpha * references).square().sum(2)
    return torch.softmax(-far / (2 * a.sigma**2), 1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q17.1", weights_of)

# %% [markdown]
# ## Question 17.2: the step (4 points)
#
# The references are small pictures. Return their weighted mean $\bar x_0$ for each row, and $x_r$, the point at the cleaner level
# `b` that stable consistency tuning asks its target at. It contains the noise that belongs to $\bar x_0$.


# %%
# ANSWER Q17.2
def mean_and_step(x, weights, references, a, b):
    """(x̄₀, x_r), each like x.
    x: (B, C, H, W), at level a; weights: (B, n), rows sum to 1; references: (n, C, H, W)."""
    ### BEGIN SOLUTION
    x0 = torch.einsum("bn,nchw->bchw", weights, references)
    eps = (x - a.alpha * x0) / a.sigma
    return x0, b.alpha * x0 + b.sigma * eps
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q17.2", mean_and_step)

# %% [markdown]
# ## Question 17.3: with and without your own sample (5 points)
#
# The data are a few numbers: $x_0$ is `atoms[k]` with probability `prior[k]`. You stand at a fixed number $x_t=\alpha x_0+\sigma\varepsilon$ and
# take the weighted mean $\bar x_0$ of a batch of $n$ references. Compute, without sampling,
#
# - the mean and the variance of $\bar x_0$, over all batches, where one reference is the $x_0$ that made this $x_t$ (so, given $x_t$, it
#   has the law of the posterior) and the other $n-1$ are independent draws of the data;
# - the mean of $\bar x_0$ where all $n$ references are independent draws of the data.
#
# There are no more than 81 batches: `itertools.product(range(len(atoms)), repeat=n)` goes through all of them.


# %%
# ANSWER Q17.3
def over_batches(atoms, prior, x_t, alpha, sigma, n):
    """(mean with, variance with, mean without), three numbers.
    atoms, prior: (K,); x_t, alpha, sigma: numbers; n: an int."""
    ### BEGIN SOLUTION
    fit = -((x_t - alpha * atoms) ** 2) / (2 * sigma**2)
    posterior = torch.softmax(prior.log() + fit, 0)
    batches = torch.tensor(list(itertools.product(range(len(atoms)), repeat=n)))
    found = (torch.softmax(fit[batches], 1) * atoms[batches]).sum(1)
    others = prior[batches[:, 1:]].prod(1)
    chance = posterior[batches[:, 0]] * others
    mean = chance @ found
    return mean, chance @ (found - mean) ** 2, (prior[batches[:, 0]] * others) @ found
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q17.3", over_batches)

# %% [markdown]
# ## Question 17.4: who may speak (4 points)
#
# The rows of a batch are each other's references, and each row has a condition: a caption of L tokens. A row's references must be draws of its
# own condition. But a row whose caption was dropped has the empty caption instead. It stands for all the data, so
# the whole batch are its references. For the others a row without caption is judged like any row: its condition is not
# theirs, so it is not their reference.


# %%
# ANSWER Q17.4
def may_speak(cond, null):
    """(B, B) bool: entry i, j says whether sample j is a reference of row i.
    cond: (B, L) int64; null: (L,) int64, the empty caption."""
    ### BEGIN SOLUTION
    same = (cond[:, None] == cond).all(2)
    return same | (cond == null).all(1)[:, None]
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q17.4", may_speak)

# %% [markdown]
# ## Question 17.5: how many really count (3 points)
#
# The effective number of references, $n_{\text{eff}}=1/\sum_iw_i^2$, for each row. You are given the exponents
# $-\lVert x_t-\alpha x_0^{(i)}\rVert^2/2\sigma^2$, and who may speak. A reference that may not must change nothing.


# %%
# ANSWER Q17.5
def effective_number(exponents, shared):
    """(B,): n_eff of each row. exponents: (B, n), down to −1e8; shared: (B, n) bool."""
    ### BEGIN SOLUTION
    fit = exponents.masked_fill(~shared, -torch.inf)
    weights = torch.softmax(fit, 1)
    return 1 / (weights**2).sum(1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q17.5", effective_number)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/17_stable_consistency.ipynb
# ```

# %%
from book import tally

tally("17")
