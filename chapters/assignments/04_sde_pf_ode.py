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
#     title: Assignment 4
#     summary: Find a schedule's SDE, run it backwards with the right sign, change schedules, and compute a likelihood.
#     minutes: 90
#     memory: 1 GB
#     needs:
#       - chapter 4
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 4: backwards, with the right sign
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
# All tensors are float64. `x` is a batch of points, of shape (B, d). Time $t$ is 1 at noise and 0 at data,
# $x_t=\alpha_tx_0+\sigma_t\varepsilon$, and `d_alpha`, `d_sigma` are $\dot\alpha$ and $\dot\sigma$.

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch

# %% [markdown]
# ## Question 4.1: the SDE of a schedule (4 points)
#
# Derive the $f$ and $g^2$ of $dx=f\,x\,dt+g\,dw$ that has the mean $\alpha_tx_0$ and the variance $\sigma_t^2$ given $x_0$,
# as in section 4.1. You get the numbers of several schedules at several times.


# %%
# ANSWER Q04.1
def forward_sde(alpha, sigma, d_alpha, d_sigma):
    """(f, g²), each of the shape of the inputs, (n,)."""
    ### BEGIN SOLUTION
    f = d_alpha / alpha  # the mean: α̇ = f α
    return f, 2 * sigma * d_sigma - 2 * f * sigma**2  # the variance: dσ²/dt = 2fσ² + g²
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q04.1", forward_sde)

# %% [markdown]
# ## Question 4.2: the drift of the way back (5 points)
#
# Sampling runs the same clock backwards, $dt<0$, with noise $\eta\,g\,d\bar w$. Return the drift, the factor of $dt$, with
# which every η has the marginals of the forward SDE. `score` maps a batch to $\nabla\log p_t$ at the time in question.


# %%
# ANSWER Q04.2
def reverse_drift(score, x, f, g2, eta):
    """The drift, shape (B, d). f, g2, eta: floats."""
    ### BEGIN SOLUTION
    return f * x - 0.5 * (1 + eta**2) * g2 * score(x)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q04.2", reverse_drift)

# %% [markdown]
# ## Question 4.3: Euler and Maruyama (4 points)
#
# Walk from the first of `times` (the noisiest) to the last, in steps of unequal length, by Euler–Maruyama for the family of
# question 4.2. The normals of all steps are given; use all of them. `score(x, t)`, `f(t)` and `g2(t)` are functions.


# %%
# ANSWER Q04.3
def reverse_walk(score, x, times, f, g2, eta, noise):
    """x at times[-1], shape (B, d). times: n + 1 falling floats; noise: (n, B, d)."""
    ### BEGIN SOLUTION
    for t, t_next, z in zip(times, times[1:], noise):
        dt = t_next - t  # negative
        drift = f(t) * x - 0.5 * (1 + eta**2) * g2(t) * score(x, t)
        x = x + dt * drift + eta * math.sqrt(g2(t) * -dt) * z
    return x
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q04.3", reverse_walk)

# %% [markdown]
# ## Question 4.4: one curve, two clocks (3 points)
#
# At level `a` of one schedule a trajectory of the probability-flow ODE is at `x` with velocity `u` $=\dot x$. Level `b` of
# *another* schedule has the same $\kappa=\sigma/\alpha$. Where is the same trajectory on that schedule, and how fast does it
# move there? Section 4.4 says what the two have in common. A level has `.alpha`, `.sigma`, `.d_alpha` and `.d_sigma`.


# %%
# ANSWER Q04.4
def same_curve(x, u, a, b):
    """(x at b, its velocity at b), each (B, d)."""
    ### BEGIN SOLUTION
    det = a.alpha * a.d_sigma - a.sigma * a.d_alpha
    x0 = (a.d_sigma * x - a.sigma * u) / det  # from x = α x₀ + σ ε, u = α̇ x₀ + σ̇ ε
    eps = (a.alpha * u - a.d_alpha * x) / det
    return b.alpha * x0 + b.sigma * eps, b.d_alpha * x0 + b.d_sigma * eps
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q04.4", same_curve)

# %% [markdown]
# ## Question 4.5: how probable is this point? (4 points)
#
# Compute $\log p_a(x)$ by the change of variables of section 4.5: follow $dx/dt=u(x,t)$ through `times`, which *rise* from
# $t_a$ to $t_b$, and integrate $\nabla\cdot u$ on the way. `velocity(x, t)` is $u$, and it can be differentiated;
# `log_prior` maps points at $t_b$ to their log density there, (B,). The check wants $2\cdot10^{-3}$ nats. There are 80 equal
# steps: Euler's rule is not accurate enough (and gets half of the points), any rule of second order is.


# %%
# ANSWER Q04.5
def log_density(velocity, log_prior, x, times):
    """log p at times[0], shape (B,)."""

    ### BEGIN SOLUTION
    def rate(x, t):
        x = x.detach().requires_grad_()
        u = velocity(x, t)
        trace = 0
        for i in range(x.shape[1]):
            (row,) = torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)
            trace = trace + row[:, i]
        return u.detach(), trace

    change = 0
    for t, t_next in zip(times, times[1:]):  # Heun's rule
        dt = t_next - t
        u, trace = rate(x, t)
        u_next, trace_next = rate(x + dt * u, t_next)
        x = x + dt * (u + u_next) / 2
        change = change + dt * (trace + trace_next) / 2
    return log_prior(x) + change
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q04.5", log_density)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/04_sde_pf_ode.ipynb
# ```

# %%
from book import tally

tally("04")
