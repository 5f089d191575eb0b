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
#     title: Assignment 1
#     summary: Derive a mixture's score and match autograd; denoise by Tweedie's formula; write two losses and a sampler.
#     minutes: 90
#     memory: 1 GB
#     needs:
#       - chapter 1
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 1: a score you can trust
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
# All tensors are float64. `x` is a batch of points, of shape (B, d); d is 2 to 5 and changes from check to check.

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch

# %% [markdown]
# ## Question 1.1: the score of a mixture (6 points)
#
# Nearly every claim of this book is checked against a Gaussian mixture, whose score is a formula:
#
# $$p(x)=\sum_{k=1}^K w_k\,\mathcal N(x;\mu_k,S_k^2 I),\qquad
# \mathcal N(x;\mu,S^2I)=(2\pi S^2)^{-d/2}\,e^{-\lVert x-\mu\rVert^2/2S^2}.$$
#
# Derive $\nabla\log p(x)$ with pencil and paper, then code it *without* autograd. The check uses autograd to compare, to
# $10^{-6}$, and refuses an answer that needs it. Some of its points lie 80 units away from every mode.


# %%
# ANSWER Q01.1
def mixture_score(x, weights, means, stds):
    """∇ log p(x), shape (B, d). weights: (K,), sum 1; means: (K, d); stds: (K,), the S_k."""
    ### BEGIN SOLUTION
    offset = means - x[:, None]  # (B, K, d)
    square = offset.square().sum(2) / stds**2
    log_joint = weights.log() - square / 2 - x.shape[1] * stds.log()
    share = torch.softmax(log_joint, 1)  # p(k | x): safe where all densities are 0
    return (share[:, :, None] * offset / stds[:, None] ** 2).sum(1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q01.1", mixture_score)

# %% [markdown]
# ## Question 1.2: to denoise is to know the score (4 points)
#
# Data $x_0$ come from such a mixture; you are given $x=x_0+\sigma z$ with $z\sim\mathcal N(0,I)$. Return the best guess of
# $x_0$, the posterior mean $\mathbb E[x_0\mid x]$. Section 1.4 of the chapter computes it from a score, by Tweedie's formula.
# *Whose* score? (An answer cannot call the function of another cell. If you want `mixture_score`, copy it into this one.)


# %%
# ANSWER Q01.2
def denoise(x, sigma, weights, means, stds):
    """E[x₀ | x], shape (B, d). sigma: a float; the mixture of x₀ is given as in question 1.1."""
    ### BEGIN SOLUTION
    variance = stds**2 + sigma**2  # of each mode after the noise
    offset = means - x[:, None]
    log_joint = (
        weights.log() - offset.square().sum(2) / (2 * variance) - x.shape[1] / 2 * variance.log()
    )
    share = torch.softmax(log_joint, 1)
    score = (share[:, :, None] * offset / variance[:, None]).sum(1)
    return x + sigma**2 * score
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q01.2", denoise)

# %% [markdown]
# ## Question 1.3: Hyvärinen's loss (4 points)
#
# For one sample, the integrand of implicit score matching is $\tfrac12\lVert s(x)\rVert^2+\operatorname{tr}\nabla s(x)$. Compute
# it for every row of `x`, the trace exactly, by autograd. `score` maps a batch to a batch, each row by itself. A trainer will
# differentiate your loss once more, in the network's weights; the check does that too.


# %%
# ANSWER Q01.3
def implicit_loss(score, x):
    """½‖s‖² + tr ∇s of each row, shape (B,)."""
    ### BEGIN SOLUTION
    x = x.clone().requires_grad_()
    s = score(x)
    trace = 0
    for i in range(x.shape[1]):
        (gradient,) = torch.autograd.grad(s[:, i].sum(), x, create_graph=True)
        trace = trace + gradient[:, i]
    return s.square().sum(1) / 2 + trace
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q01.3", implicit_loss)

# %% [markdown]
# ## Question 1.4: Vincent's loss (3 points)
#
# The integrand of denoising score matching, the first equation of section 1.4, for every row: no trace, no derivative. The
# noise is given to you, so that the result can be compared. Keep the ½, and no weight. Here too, a trainer will differentiate.


# %%
# ANSWER Q01.4
def denoising_loss(score, x0, z, sigma):
    """The loss of each row, shape (B,). x0, z: (B, d), data and normal noise; sigma: a float."""
    ### BEGIN SOLUTION
    residual = score(x0 + sigma * z) + z / sigma
    return residual.square().sum(1) / 2
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q01.4", denoising_loss)

# %% [markdown]
# ## Question 1.5: a sampler in three lines (3 points)
#
# Unadjusted Langevin dynamics, as in section 1.6, with drift $\eta\,s(x)$. The normals of all steps are given.


# %%
# ANSWER Q01.5
def langevin_chain(score, x, eta, noise):
    """x after one step for each noise[k], shape (B, d). eta: a float; noise: (n, B, d),
    normal.
    """
    ### BEGIN SOLUTION
    for z in noise:
        x = x + eta * score(x) + math.sqrt(2 * eta) * z
    return x
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q01.5", langevin_chain)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/01_score_matching.ipynb
# ```

# %%
from book import tally

tally("01")
