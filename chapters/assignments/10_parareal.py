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
#     title: Assignment 10
#     summary: Write parareal, see it converge in at most K iterations, and draw up the timetable of its pipeline.
#     minutes: 90
#     memory: 1 GB
#     needs:
#       - chapter 10
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 10: K iterations at most
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
# There are $K$ blocks, counted from 0. `F(i, x)` and `G(i, x)` carry points $x$, shape $(B,2)$, across block $i$: by fine steps and
# by one coarse step. The **chain** is $U_0=x$, $U_{i+1}=F_i(U_i)$. All tensors are float64. "Exact" means equal in every bit.

# %%
from book import check  # first: it also tells torch not to spin
import torch

# %% [markdown]
# ## Question 10.1: one iteration (5 points)
#
# `starts` are $U_0,\dots,U_K$, shape $(K+1,B,2)$. Return the starts after one iteration, $V_0,\dots,V_K$, in the same shape:
#
# $$V_0=U_0,\qquad V_{i+1}=F_i(U_i)+\big[G_i(V_i)-G_i(U_i)\big].$$
#
# Where $V_i=U_i$, the next start must be $F_i(U_i)$ exactly. The check looks.


# %%
# ANSWER Q10.1
def iterate(F, G, starts):
    """The starts (K+1, B, 2) after one iteration."""
    ### BEGIN SOLUTION
    new = [starts[0]]
    for i in range(len(starts) - 1):
        new.append(F(i, starts[i]) + (G(i, new[i]) - G(i, starts[i])))
    return torch.stack(new)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q10.1", iterate)

# %% [markdown]
# ## Question 10.2: the sampler (6 points)
#
# Begin with the coarse guess, $U_0=x$ and $U_{i+1}=G_i(U_i)$. Iterate as in question 10.1. Stop after the first iteration that
# changes $U_K$ by at most `tol`, and after iteration $K$ at the latest. The change is the root *mean* square over the two coordinates,
# the largest over the batch. Return the new $U_K$ and the number of iterations; the guess is none.
#
# With `tol=0` the result must be the chain's exactly. Convince yourself on paper why $K$ iterations suffice, whatever $G$ is.


# %%
# ANSWER Q10.2
def parareal(F, G, x, K, tol):
    """(U_K, number of iterations)."""
    ### BEGIN SOLUTION
    starts = [x]
    for i in range(K):
        starts.append(G(i, starts[i]))
    for p in range(1, K + 1):
        new = [x]
        for i in range(K):
            new.append(F(i, starts[i]) + (G(i, new[i]) - G(i, starts[i])))
        change = (new[-1] - starts[-1]).square().mean(1).sqrt().max()
        starts = new
        if change <= tol:
            break
    return starts[-1], p
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q10.2", parareal)

# %% [markdown]
# ## Question 10.3: the timetable (5 points)
#
# In the pipeline each fine solve, of `J` steps, begins as soon as its start is known, and each coarse step too. A step takes one
# call of the network; as many as you like are made in the same call. $T(q,i)$ is the number of calls after which $U_i^q$ is known, with
# $T(q,0)=0$. For the guess $T(0,i)=i$. After that, $U_{i+1}^q$ needs the end of the fine solve from $U_i^{q-1}$ and the coarse step
# from $U_i^q$. Return the table $T$ for $q=0,\dots,p$ and $i=0,\dots,K$, shape $(p+1,K+1)$; here $p\lt K$ and $J\gt2$.


# %%
# ANSWER Q10.3
def ready(K, J, p):
    """(p+1, K+1): the call after which each start is known."""
    ### BEGIN SOLUTION
    T = torch.zeros(p + 1, K + 1, dtype=torch.float64)
    T[0] = torch.arange(K + 1)
    for q in range(1, p + 1):
        for i in range(K):
            T[q, i + 1] = max(T[q - 1, i] + J, T[q, i] + 1)
    return T
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q10.3", ready)

# %% [markdown]
# ## Question 10.4: why few iterations do (4 points)
#
# For one Gaussian both maps are factors, $F_i(U)=f_iU$ and $G_i(U)=g_iU$. Start with $U_0=1$ and the coarse guess. Return the starts
# $U_0,\dots,U_K$ after $p$ iterations without iterating:
#
# $$U_i^p=\prod_{j\lt i}g_j\,\sum_{m\le p}e_m(r_0,\dots,r_{i-1}),\qquad r_j=\frac{f_j-g_j}{g_j},$$
#
# where $e_m$ is the sum of all products of $m$ different $r_j$, and $e_0=1$. Why is this the chain for $i\le p$?


# %%
# ANSWER Q10.4
def after(f, g, p):
    """(K+1,): the starts after p iterations; f, g: (K,)."""
    ### BEGIN SOLUTION
    e = torch.zeros(p + 1, len(f) + 1, dtype=f.dtype)  # e[m, i] = e_m of the first i
    e[0] = 1
    for i, r in enumerate((f - g) / g):
        e[1:, i + 1] = e[1:, i] + r * e[:-1, i]
    return torch.cat([torch.ones_like(g[:1]), g.cumprod(0)]) * e.sum(0)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q10.4", after)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/10_parareal.ipynb
# ```

# %%
from book import tally

tally("10")
