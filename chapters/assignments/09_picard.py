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
#     title: Assignment 9
#     summary: Write Picard's sampler, and the test that tells an exact parallel sampler from a nearly exact one.
#     minutes: 120
#     memory: 1 GB
#     needs:
#       - chapter 9
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 9: exact, to the last bit
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
# - The point is to write the formulas yourself: `dlib.parallel` has them all, and a person sees when an answer calls it.
#
# The **chain** is $X_{j+1}=\Phi_j(X_j)$, $j=0,\dots,N-1$, from a given $X_0$. All tensors are float64. "Exact" means equal
# in every bit, as `torch.equal` sees it.

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch

# %% [markdown]
# ## Question 9.1: one sweep (4 points)
#
# `points` are $X_0,\dots,X_N$, shape $(N+1,B,2)$; `made` are $\Phi_0(X_0),\dots,\Phi_{N-1}(X_{N-1})$, shape $(N,B,2)$;
# `size`, shape $(N+1,)$, are the sizes $s_0,\dots,s_N$. Return the points after one sweep: $X_0$ stays, and
#
# $$X_{j+1}\leftarrow\Phi_j(X_j)+\sum_{i<j}\frac{s_{j+1}}{s_{i+1}}\big[\Phi_i(X_i)-X_{i+1}\big].$$
#
# Where all brackets before a point are zero, the new point must be $\Phi_j(X_j)$ exactly. The check looks.


# %%
# ANSWER Q09.1
def sweep(points, made, size):
    """The points (N+1, B, 2) after one sweep."""
    ### BEGIN SOLUTION
    n = torch.arange(len(made))
    ratio = size[1:, None] / size[1:]  # s_{j+1} / s_{i+1}
    carry = torch.where(n[:, None] > n, ratio, 0.0)
    brackets = made - points[1:]
    return torch.cat([points[:1], made + torch.tensordot(carry, brackets, 1)])
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q09.1", sweep)

# %% [markdown]
# ## Question 9.2: the test (5 points)
#
# A colleague hands you `sampler(step, guess, sweeps)`. It returns the points, shape $(N+1,B,2)$, after that many sweeps from
# the points `guess`, whose first is the start $X_0$; `step(j, x)` is $\Phi_j(x)$ for $x$ of shape $(B,2)$. Write the test of
# **prefix exactness**: it returns True if, for every $k$ from 0 to $N$, the points $X_0,\dots,X_k$ after $k$ sweeps are exactly the
# chain's, and False otherwise.
#
# Your test is tested. It meets samplers that have the property, among them one that is no Picard iteration, and samplers that
# nearly have it.


# %%
# ANSWER Q09.2
def prefix_is_exact(sampler, step, guess):
    """True if the first k points after k sweeps are the chain's, bit for bit, for every k."""
    ### BEGIN SOLUTION
    chain = [guess[0]]
    for j in range(len(guess) - 1):
        chain.append(step(j, chain[-1]))
    for k in range(len(guess)):
        points = sampler(step, guess, k)
        if not all(torch.equal(points[j], chain[j]) for j in range(k + 1)):
            return False
    return True
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q09.2", prefix_is_exact)

# %% [markdown]
# ## Question 9.3: how far the window moves (3 points)
#
# `change`, shape $(w,B)$, says how far a sweep has moved each of the window's $w$ points, for each sample of the batch. A point
# is settled if *no* sample moved it by more than `tol`. The window moves past the settled points before the first unsettled
# one, and by one step at least. Return by how many steps.


# %%
# ANSWER Q09.3
def move(change, tol):
    """By how many steps the window moves: a whole number from 1 to w."""
    ### BEGIN SOLUTION
    settled = change.amax(1) <= tol
    return max(1, int(settled.long().cumprod(0).sum()))
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q09.3", move)

# %% [markdown]
# ## Question 9.4: the sampler (5 points)
#
# Put it together, on a variance-preserving schedule, where all sizes are 1. `step(j, points)` makes the steps
# $j,j+1,\dots$ of the given points $X_j,X_{j+1},\dots$, shape $(w,32,2)$, in one call, and returns $\Phi_j(X_j),\Phi_{j+1}(X_{j+1}),\dots$ in the
# same shape. `sigma` is the list $\sigma_0,\dots,\sigma_N$. Start with all points equal to `x`, shape (32, 2), and nothing done. Until
# all $N$ steps are done:
#
# 1. Step the points of the window: it begins at the first step that is not done, and has `window` steps, or what is left.
# 2. Sweep: the points $X_{j+1}$ of these steps become those of question 9.1, its sum running over the window's brackets.
# 3. The change of $X_{j+1}$ is the root *mean* square over the two coordinates of new less old, divided by $\sigma_{j+1}$.
# 4. Move as in question 9.3. Points beyond the window that was are set to its last point.
#
# Return $X_N$ and the number of sweeps. With `tol=0`, $X_N$ must be the chain's exactly, for every window
# and whatever the steps are.


# %%
# ANSWER Q09.4
def picard(step, x, sigma, window, tol):
    """(X_N, number of sweeps)."""
    ### BEGIN SOLUTION
    steps, done, sweeps = len(sigma) - 1, 0, 0
    points = torch.stack([x] * (steps + 1))
    level = torch.tensor(sigma, dtype=x.dtype)[:, None]
    while done < steps:
        stop = min(done + window, steps)
        old, made = points[done + 1 : stop + 1].clone(), step(done, points[done:stop])
        before = torch.cumsum(made - old, 0).roll(1, 0)
        before[0] = 0  # no bracket comes before the first point
        points[done + 1 : stop + 1] = made + before
        points[stop + 1 :] = points[stop]
        moved = (made + before - old).square().mean(2).sqrt() / level[done + 1 : stop + 1]
        settled = moved.amax(1) <= tol
        done += max(1, int(settled.long().cumprod(0).sum()))
        sweeps += 1
    return points[-1], sweeps
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q09.4", picard)

# %% [markdown]
# ## Question 9.5: the proof, in closed form (3 points)
#
# Prefix exactness can be read off a formula. For one Gaussian the step multiplies, $\Phi_j(u)=(1+l_j)\,u$, and all sizes are 1. Start
# with every point equal to 1. Return the points $u_0,\dots,u_N$ after $k$ sweeps,
#
# $$u_j=\sum_{m\le k}e_m(l_0,\dots,l_{j-1}),\qquad e_m=\sum_{i_1<\dots<i_m}l_{i_1}\cdots l_{i_m},\qquad e_0=1,$$
#
# and convince yourself on paper why this is $\prod_{i<j}(1+l_i)$, the chain, whenever $j\le k$.


# %%
# ANSWER Q09.5
def after_sweeps(l, k):
    """(N+1,): the points after k sweeps from all ones; l: (N,)."""
    ### BEGIN SOLUTION
    e = torch.zeros(k + 1, len(l) + 1, dtype=l.dtype)  # e[m, j] = e_m of the first j
    e[0] = 1
    for j in range(len(l)):
        e[1:, j + 1] = e[1:, j] + l[j] * e[:-1, j]
    return e.sum(0)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q09.5", after_sweeps)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/09_picard.ipynb
# ```

# %%
from book import tally

tally("09")
