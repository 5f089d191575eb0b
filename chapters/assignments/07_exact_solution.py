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
#     title: Assignment 7
#     summary: Do the integral in λ, write DDIM, and find the grid on which it loses least.
#     minutes: 90
#     memory: 1 GB
#     needs:
#       - chapter 7
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 7: the exact solution and its first term
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
# - The point is to write the formulas yourself: `dlib.solvers` has them all, and a person sees when an answer calls it.
#
# A step goes from the noisier level s to the cleaner level t. λ = log(α/σ), κ = σ/α. The levels belong to no particular schedule: nothing
# here needs α² + σ² = 1.

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch

# %% [markdown]
# ## Question 7.1: the ε form with the network frozen (4 points)
#
# In the exact solution
#
# $$x_t=\frac{\alpha_t}{\alpha_s}x_s-\alpha_t\int_{\lambda_s}^{\lambda_t}e^{-\lambda}\,\varepsilon\,d\lambda$$
#
# let ε be constant. The step is then `c_x * x + c_eps * eps`. Return `(c_x, c_eps)`. All four arguments are tensors of shape (24,), one entry a step.


# %%
# ANSWER Q07.1
def eps_weights(alpha_s, sigma_s, alpha_t, sigma_t):
    ### BEGIN SOLUTION
    ratio = alpha_t / alpha_s
    return ratio, sigma_t - ratio * sigma_s
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q07.1", eps_weights)

# %% [markdown]
# ## Question 7.2: the data form with the network frozen (4 points)
#
# The same for
#
# $$x_t=\frac{\sigma_t}{\sigma_s}x_s+\sigma_t\int_{\lambda_s}^{\lambda_t}e^{\lambda}\,x_0\,d\lambda$$
#
# with constant $x_0$: return `(c_x, c_x0)`.


# %%
# ANSWER Q07.2
def data_weights(alpha_s, sigma_s, alpha_t, sigma_t):
    ### BEGIN SOLUTION
    ratio = sigma_t / sigma_s
    return ratio, alpha_t - ratio * alpha_s
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q07.2", data_weights)

# %% [markdown]
# ## Question 7.3: DDIM (5 points)
#
# `levels` is a list of noise levels, noisiest first; each has the numbers `.t`, `.alpha`, `.sigma` and `.lam`. `x`, (32, 2), is at `levels[0]`.
# `model(x, level)` makes one network call and returns a prediction with the faces `.eps`, `.x0` and `.velocity`. Walk through all levels by DDIM, one
# call a step, and return x at the last one.


# %%
# ANSWER Q07.3
def ddim_sample(model, x, levels):
    ### BEGIN SOLUTION
    for a, b in zip(levels, levels[1:]):
        prediction = model(x, a)
        x = b.alpha * prediction.x0 + b.sigma * prediction.eps
    return x
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q07.3", ddim_sample)

# %% [markdown]
# ## Question 7.4: the flow of a Gaussian (4 points)
#
# The data are $\mathcal N(m,c^2I)$. Return where the probability-flow ODE carries `x`, (16, 2), from level s to level t, exactly and
# without a network. `mean` is $m$, a tensor (2,); the other arguments are numbers.


# %%
# ANSWER Q07.4
def gaussian_flow(x, mean, c, alpha_s, sigma_s, alpha_t, sigma_t):
    ### BEGIN SOLUTION
    variance = lambda alpha, sigma: (alpha * c) ** 2 + sigma**2
    widen = (variance(alpha_t, sigma_t) / variance(alpha_s, sigma_s)) ** 0.5
    return alpha_t * mean + widen * (x - alpha_s * mean)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q07.4", gaussian_flow)

# %% [markdown]
# ## Question 7.5: the grid on which DDIM loses least (3 points)
#
# For data $\mathcal N(0,c^2I)$ DDIM narrows the cloud by a factor in every step. Return the n + 1 values of λ, from `lam_start` (noise) to
# `lam_end` (data), for which n steps narrow it least, as a tensor in float64.


# %%
# ANSWER Q07.5
def best_grid(lam_start, lam_end, c, n):
    ### BEGIN SOLUTION
    ends = (math.atan(math.exp(-lam) / c) for lam in (lam_start, lam_end))
    return -(c * torch.linspace(*ends, n + 1, dtype=torch.float64).tan()).log()
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q07.5", best_grid)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/07_exact_solution.ipynb
# ```

# %%
from book import tally

tally("07")
