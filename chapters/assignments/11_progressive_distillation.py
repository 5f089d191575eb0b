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
#     title: Assignment 11
#     summary: Write the parts of progressive distillation yourself, from the two-step target to the pairs of the naive way; no training needed.
#     minutes: 100
#     memory: 1 GB
#     needs:
#       - chapter 11
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 11: two steps in one
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
# Points `z` are tensors (B, 2) in float64. A level `a` has the numbers `a.t`, `a.alpha`, `a.sigma` and `a.lam`, where
# λ = log(α/σ), and α² + σ² = 1. Steps go from the noisier level to the cleaner one, `a` to `b` to `c`. The first level may be
# pure noise, with α = 0 and λ = −∞, and the last one may be clean, with σ = 0 and λ = ∞. In between neither is zero.

# %%
from book import check  # first: it also tells torch not to spin
import math
import torch

# %% [markdown]
# ## Question 11.1: the guess that makes both steps (5 points)
#
# A teacher makes two DDIM steps, from $a$ to $b$ and from $b$ to $c$. `guess(z, level)` is its guess of the data, a tensor like
# `z`. Return the guess $\tilde x$ with which *one* DDIM step from $a$ to $c$ ends at the same point. Your formula must also hold
# when $a$ is pure noise and when $c$ is clean.
#
# *Hint: write a DDIM step without ε, as a factor times the old point plus a factor times the guess.*


# %%
# ANSWER Q11.1
def two_step_guess(guess, z, a, b, c):
    """x̃ at level a, like z.
    z: (B, 2), at level a."""

    ### BEGIN SOLUTION
    def ddim(x0, z, a, b):
        return b.alpha * x0 + b.sigma * (z - a.alpha * x0) / a.sigma

    middle = ddim(guess(z, a), z, a, b)
    end = ddim(guess(middle, b), middle, b, c)
    rho = c.sigma / a.sigma
    return (end - rho * z) / (c.alpha - rho * a.alpha)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q11.1", two_step_guess)

# %% [markdown]
# ## Question 11.2: the same for v (4 points)
#
# A student that predicts $v=\alpha\varepsilon-\sigma x_0$ should say $\tilde v$. The teacher has made its two steps already: you
# get the point $z_c$ where they end. Return the $\tilde v$ with which one DDIM step from $a$ to $c$ ends there. Again $a$ may be
# pure noise, and $c$ clean.
#
# *Hint: with α = cos φ and σ = sin φ, a DDIM step turns by δ = φ_a − φ_c: z_c = cos δ z − sin δ v. Write cos δ and sin δ with the
# four numbers of the two levels.*


# %%
# ANSWER Q11.2
def two_step_velocity(z, z_c, a, c):
    """ṽ at level a, like z.
    z: (B, 2), at level a; z_c: like z, where the teacher's two steps end, at level c."""
    ### BEGIN SOLUTION
    cos = a.alpha * c.alpha + a.sigma * c.sigma
    sin = a.sigma * c.alpha - a.alpha * c.sigma
    return (cos * z - z_c) / sin
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q11.2", two_step_velocity)

# %% [markdown]
# ## Question 11.3: three losses, three weights (3 points)
#
# A student's guess of the data is wrong. The noisy point $z=\alpha x_0+\sigma\varepsilon$ is given, so its guesses of the noise and of
# $v=\alpha\varepsilon-\sigma x_0$ at this point are wrong as well. Each usual loss is the
# squared error of this guess times a weight $w(\alpha,\sigma)$. Return three of these weights: of the squared error in ε; of the
# squared error in $v$; and the weight of the progressive distillation paper, which is at every level the larger one of ε's weight
# and of $x_0$'s. One of the levels is pure noise, none is clean.
#
# *Hint: if the guess is wrong by u, what is the noise wrong by that explains the same z?*


# %%
# ANSWER Q11.3
def data_weights(alpha, sigma):
    """(ε's weight, v's weight, the paper's weight), each like alpha.
    alpha, sigma: (N,), of N levels."""
    ### BEGIN SOLUTION
    snr = alpha**2 / sigma**2
    return snr, snr + 1, snr.clamp(min=1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q11.3", data_weights)

# %% [markdown]
# ## Question 11.4: the levels of a round (4 points)
#
# `t` are the times of the first teacher's levels, noise first, unevenly spaced. Each round halves the steps: the student of round 1
# makes two of the first teacher's steps in one. In round 2 it is the teacher itself, on its own levels, and so on. Return the times
# $(t_a,t_b,t_c)$ of every step of the student of round `k`: where the step starts, where that round's *teacher* is asked for the second
# time, and where the step ends. The student's first step comes first.
#
# *Hint: with five times t₀ … t₄, round 1 has the rows (t₀, t₁, t₂) and (t₂, t₃, t₄), and round 2 has one row.*


# %%
# ANSWER Q11.4
def round_times(t, k):
    """(N, 3), a row for each of the N steps of the student of round k.
    t: (N·2ᵏ + 1,); k: 1, 2, …"""
    ### BEGIN SOLUTION
    walk = t[:: 2 ** (k - 1)]
    return torch.stack([walk[:-2:2], walk[1:-1:2], walk[2::2]], 1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q11.4", round_times)

# %% [markdown]
# ## Question 11.5: pairs of the naive way (4 points)
#
# Knowledge distillation asks the student for the end of the teacher's whole walk at once. Walk from `z`, at `levels[0]`, by DDIM through
# all levels to the last one, which is clean. The loss is the squared distance between that end and the student's guess of the data at
# the walk's *start*. Average over a sample's values, not over the batch.
#
# `model(x, a)` makes one network call and returns the teacher's prediction `p`; `p.x0` is its guess of the data, `p.eps` of the
# noise. `student(x, a)` is the student's guess of the data, a tensor like x. One call of the teacher a step is enough. The check looks at
# the values *and* at their gradient in the student's weights.


# %%
# ANSWER Q11.5
def knowledge_loss(student, model, z, levels):
    """(B,): for each sample the mean squared difference.
    z: (B, 2), at levels[0]; levels: a list, noise first."""
    ### BEGIN SOLUTION
    x = z
    for a, b in zip(levels, levels[1:]):
        said = model(x, a)
        x = b.alpha * said.x0 + b.sigma * said.eps
    return (student(z, levels[0]) - x).square().mean(1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q11.5", knowledge_loss)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 \
#     my-assignments/11_progressive_distillation.ipynb
# ```

# %%
from book import tally

tally("11")
