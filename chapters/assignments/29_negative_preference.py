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
#     title: Assignment 29
#     summary: Write the one line that trains a negative model, the contrast that uses it, and the closed forms for what it does; no training needed.
#     minutes: 90
#     memory: 1 GB
#     needs:
#       - chapter 29
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 29: the one-line change
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
# All tensors are in float64. Letters are those of chapter 29; ω = 0 is no guidance.

# %%
from book import check  # first: it also tells torch not to spin
import torch

# %% [markdown]
# ## Question 29.1: the contrast (4 points)
#
# At some point the positive network predicts `eps_pos` for the prompt, and the negative one predicts `eps_neg` for the empty prompt. Mix them, for a `guidance_scale` as public libraries count it: there 1 means
# no guidance, and it is 1 + ω in this book.


# %%
# ANSWER Q29.1
def contrast(eps_pos, eps_neg, guidance_scale):
    """The guided prediction, (N, 2).
    eps_pos, eps_neg: (N, 2); guidance_scale: a number."""
    ### BEGIN SOLUTION
    omega = guidance_scale - 1
    return (1 + omega) * eps_pos - omega * eps_neg
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q29.1", contrast)

# %% [markdown]
# ## Question 29.2: the one line (4 points)
#
# A file has pairs of pictures and votes: 1 where people preferred the first, 0 where they preferred the second, and ½ for a tie. A trainer of Diffusion-DPO takes two tensors, the winners and the
# losers. Give it the pairs, in the file's order, such that it trains a *negative* model. Leave out the ties.


# %%
# ANSWER Q29.2
def negative_pairs(first, second, votes):
    """(winners, losers): what the trainer takes for winners and for losers, each (M, 2).
    first, second: the two of each pair, (N, 2); votes: (N,), of 0, ½ and 1."""
    ### BEGIN SOLUTION
    kept = votes != 0.5
    liked = (votes == 1)[kept, None]
    first, second = first[kept], second[kept]
    return torch.where(liked, second, first), torch.where(liked, first, second)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q29.2", negative_pairs)

# %% [markdown]
# ## Question 29.3: where it ends (4 points)
#
# The base model is the exact denoiser of $\mathcal N(\mu,S^2I)$, and the reward is $\rho\cdot x$. The positive model is the exact tilt for the price β, and the negative model the exact tilt for $-r$ at
# *another* price, `beta_neg`. What is the mean of the samples at guidance ω?


# %%
# ANSWER Q29.3
def guided_mean(mu, rho, S, beta, beta_neg, omega):
    """The mean, (2,).
    mu, rho: (2,); S, beta, beta_neg, omega: numbers, the first three positive."""
    ### BEGIN SOLUTION
    up, down = mu + S**2 * rho / beta, mu - S**2 * rho / beta_neg
    return (1 + omega) * up - omega * down
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q29.3", guided_mean)

# %% [markdown]
# ## Question 29.4: how much variety is left (4 points)
#
# The base is $\mathcal N(0,S^2)$ on a line, the reward is $r(x)=-x^2/2w^2$, and both models are exact: the positive is the tilt for the price β, and the negative the tilt for $-r$ at the same price. What is the
# variance of the samples at guidance ω, if the guided ODE is solved exactly? (Chapter 6 has the law for two Gaussians with one mean.)


# %%
# ANSWER Q29.4
def guided_variance(S, w, beta, omega):
    """The variance, (L,), for L values of ω.
    omega: (L,); S, w, beta: numbers, with S² < β w²."""
    ### BEGIN SOLUTION
    up, down = 1 / (1 / S**2 + 1 / (beta * w**2)), 1 / (1 / S**2 - 1 / (beta * w**2))
    return up ** (1 + omega) * down ** (-omega)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q29.4", guided_variance)

# %% [markdown]
# ## Question 29.5: merging, and a mixed-up file (4 points)
#
# You have the base's weights, the positive's weights, and a file with the negative. The file holds either the negative's *full* weights (`is_full` is true) or only what its training added to the base. Make the weights
# of the merged negative, $\theta_-=\theta_0+(1-m)\,\eta_++\eta_-$.


# %%
# ANSWER Q29.5
def merged_negative(base, positive, file, is_full, m):
    """The merged weights, (K,).
    base, positive, file: (K,); is_full: True or False; m: a number."""
    ### BEGIN SOLUTION
    added = file - base if is_full else file
    return base + (1 - m) * (positive - base) + added
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q29.5", merged_negative)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/29_negative_preference.ipynb
# ```

# %%
from book import tally

tally("29")
