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
#     title: Assignment 8
#     summary: Write the solvers of chapter 8 yourself, from ϕ to a multistep solver; their order is measured.
#     minutes: 120
#     memory: 1 GB
#     needs:
#       - chapter 8
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 8: order 2 from scratch
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
# `x` is a tensor of shape (32, 2) in float64. A level `a` has the numbers `a.t`, `a.alpha`, `a.sigma` and `a.lam`, where
# λ = log(α/σ). `model(x, a)` makes one network call and returns a prediction with the faces `.eps` and `.x0`;
# `model.schedule.at_lam(lam)` is the level with that λ. The schedule and the network change from check to check; `vp()` is a schedule
# for trials of your own.

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch
from dlib import vp

# %% [markdown]
# ## Question 8.1: two integrals (3 points)
#
# Every exponential integrator is made of
#
# $$\phi_{k+1}(h) = \int_0^1 e^{(1-\theta)h}\,\frac{\theta^k}{k!}\,d\theta,\qquad \phi_1(h)=\frac{e^h-1}{h},\qquad \phi_2(h)=\frac{\phi_1(h)-1}{h}.$$
#
# With many steps h is small, and both closed forms subtract nearly equal numbers. Write them so that the relative error is below
# $10^{-10}$ for every h from −5 to 5, those of size $10^{-14}$ and 0 included.


# %%
# ANSWER Q08.1
def phis(h):
    """(ϕ₁(h), ϕ₂(h)) for a float64 tensor h of any shape."""
    ### BEGIN SOLUTION
    small = h.abs() < 1
    safe = torch.where(small, 1.0, h)  # torch.where evaluates both branches
    series = [sum(h**n / math.factorial(n + k) for n in range(18)) for k in (1, 2)]
    first = torch.where(small, series[0], torch.expm1(safe) / safe)
    second = torch.where(small, series[1], (torch.expm1(safe) / safe - 1) / safe)
    return first, second
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q08.1", phis)

# %% [markdown]
# ## Question 8.2: one DDIM step (3 points)
#
# From level `a` to the cleaner level `b`: $x_b=\alpha_b x_\theta+\sigma_b\varepsilon$, with both faces of *one* network call at `a`.


# %%
# ANSWER Q08.2
def ddim_step(model, x, a, b):
    """x at level b."""
    ### BEGIN SOLUTION
    prediction = model(x, a)
    return b.alpha * prediction.x0 + b.sigma * prediction.eps
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q08.2", ddim_step)

# %% [markdown]
# ## Question 8.3: order 2 in two calls (6 points)
#
# Write a step with *two* network calls and no memory whose error falls as $1/N^2$. Section 8.3 of the chapter derives one:
# go to the middle of the step in λ, ask there, and use that ε for the whole step. The check walks with 20, 40, 80 and 160 steps,
# takes the errors against a far more accurate solution apart into powers of $1/N$, and wants $1/N^2$ to be the first that counts.
# Any step of which that is true is right.


# %%
# ANSWER Q08.3
def midpoint_step(model, x, a, b):
    """x at level b, from two network calls."""
    ### BEGIN SOLUTION
    middle = model.schedule.at_lam((a.lam + b.lam) / 2)
    start = model(x, a)
    u = middle.alpha * start.x0 + middle.sigma * start.eps
    growth = math.expm1(b.lam - a.lam)
    return b.alpha / a.alpha * x - b.sigma * growth * model(u, middle).eps
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q08.3", midpoint_step)

# %% [markdown]
# ## Question 8.4: order 2 in one call (5 points)
#
# DPM-Solver++(2M), as in section 8.4. With $h=\lambda_b-\lambda_a$ and $h_0$ the length of the step before,
#
# $$x_b = \frac{\sigma_b}{\sigma_a}x_a + \alpha_b(1-e^{-h})\Big[x_\theta^{a} + \frac{h}{2h_0}\big(x_\theta^{a}-x_\theta^{\text{before}}\big)\Big].$$
#
# `memory` is whatever you returned from the step before, and `None` at the first step, which is DDIM. The check walks through
# steps of *unequal* length.


# %%
# ANSWER Q08.4
def two_m_step(model, x, a, b, memory):
    """(x at level b, memory for the next step), from one network call."""
    ### BEGIN SOLUTION
    x0, h = model(x, a).x0, b.lam - a.lam
    middle = x0
    if memory is not None:
        lam_before, x0_before = memory
        middle = x0 + h / (2 * (a.lam - lam_before)) * (x0 - x0_before)
    return b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * middle, (a.lam, x0)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q08.4", two_m_step)

# %% [markdown]
# ## Question 8.5: the factor of two that the world forgot (3 points)
#
# A third-order multistep solver needs the slope and the curvature of $x_\theta(\lambda)$ at the newest of three points.
# Return both for the parabola through them. (Section 8.5 tells which of the two the released solvers get wrong, and what it costs.)


# %%
# ANSWER Q08.5
def slope_and_curvature(lam, f):
    """(f', f'') at lam[0], of f[0]'s shape. lam: (3,), newest first, uneven; f: (3, …),
    values.
    """
    ### BEGIN SOLUTION
    d1 = (f[0] - f[1]) / (lam[0] - lam[1])
    d1_before = (f[1] - f[2]) / (lam[1] - lam[2])
    d2 = (d1 - d1_before) / (lam[0] - lam[2])
    return d1 + (lam[0] - lam[1]) * d2, 2 * d2
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q08.5", slope_and_curvature)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/08_dpm_solver.ipynb
# ```

# %%
from book import tally

tally("08")
