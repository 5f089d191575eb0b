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
#     title: Assignment 16
#     summary: Write the parts of consistency training yourself, from the ladder to the tangent of sCM; no training needed.
#     minutes: 120
#     memory: 1 GB
#     needs:
#       - chapter 16
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 16: the parts of consistency training
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
# All tensors are in float64. A noise level is a number $\kappa=\sigma/\alpha$, and $y=x/\alpha$ is the sample in units of
# the data. Where a whole level `a` is given, it has the numbers `a.t`, `a.alpha` and `a.sigma`.

# %%
from book import check  # first: it also tells torch not to spin
import math
import torch

# %% [markdown]
# ## Question 16.1: how many points (3 points)
#
# CT lets its ladder grow. Before the first update, at $k=0$, it has $s_0$ points; after the last, at $k=K$, it has $s_1+1$.
# In between it is the *square* of this number that grows linearly in $k$. Round the number (not its square) up.


# %%
# ANSWER Q16.1
def ladder_points(k, total, s_0, s_1):
    """N(k), the points of the ladder at update k of `total` (this is K). All are ints."""
    ### BEGIN SOLUTION
    square = s_0**2 + k / total * ((s_1 + 1) ** 2 - s_0**2)
    return math.ceil(math.sqrt(square))
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q16.1", ladder_points)

# %% [markdown]
# ## Question 16.2: the other end of ECT's step (4 points)
#
# ECT has no ladder. From $\kappa_t$ its step removes, at stage $j=0,1,\dots$, the share
#
# $$q^{-(j+1)}\Big(1+\frac{b}{1+e^{\kappa_t}}\Big)$$
#
# of $\kappa_t$. (The chapter has $q=2$ and $b=8$.) A step cannot end below the clean data, where κ is 0. Its loss is weighted by
# one over what the step has removed, $1/(\kappa_t-\kappa_r)$.


# %%
# ANSWER Q16.2
def ect_step(kappa, stage, q, b):
    """(κ_r, the weight), each like kappa, a tensor of levels κ_t > 0. stage: j."""
    ### BEGIN SOLUTION
    share = (1 + b / (1 + kappa.exp())) / q ** (stage + 1)
    lower = (kappa * (1 - share)).clamp(min=0)
    return lower, 1 / (kappa - lower)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q16.2", ect_step)

# %% [markdown]
# ## Question 16.3: the best student (4 points)
#
# The data are numbers from $\mathcal N(0,c^2)$, and the ladder is $\kappa_1<\dots<\kappa_N$. On each level the student is a line,
# $f(y_n)=a_ny_n$ with $y_n=x_0+\kappa_n\varepsilon$. A boundary fixes $a_1=1$. On level $n+1$ consistency training regresses
# $a_ny_n$ on $y_{n+1}$, where both have the same $x_0$ and the same ε. Which $a_N$ comes out of infinitely much data and training? And which slope has the
# flow, which takes $y_N$ along the probability-flow ODE to $\kappa_1$?


# %%
# ANSWER Q16.3
def best_slopes(kappa, c):
    """(a_N, the flow's slope). kappa: (N,), growing; c: the data's standard deviation."""
    ### BEGIN SOLUTION
    low, high = kappa[:-1], kappa[1:]
    student = ((c**2 + low * high) / (c**2 + high**2)).prod()
    return student, ((c**2 + kappa[0] ** 2) / (c**2 + kappa[-1] ** 2)).sqrt()
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q16.3", best_slopes)

# %% [markdown]
# ## Question 16.4: the reward and the rest (5 points)
#
# Equation (16.1), with a network that says the drift itself: `h(x, level)`, a tensor like x, is what must be subtracted from
# $y=x/\alpha$ to come to the clean end. You stand at $x_t$, at level `a`, and step to the cleaner level `b`. You are given
# $\bar x_0$, whosever it is. The drift at $x_t$ must agree with the reward plus the drift that is left at $x_r$, as a
# constant. Compare by the squared difference. Average over a sample's values, not over the batch. The check looks at the values *and* at their
# gradient in the weights of h.


# %%
# ANSWER Q16.4
def bootstrap_loss(h, x_t, x0_bar, a, b):
    """(B,): for each sample the mean squared difference of h(x_t) and R + h⁻(x_r).
    x_t, x0_bar: (B, 2); a, b: the levels of t and r."""
    ### BEGIN SOLUTION
    eps = (x_t - a.alpha * x0_bar) / a.sigma
    reward = (a.sigma / a.alpha - b.sigma / b.alpha) * eps
    with torch.no_grad():
        x_r = b.alpha * (x_t / a.alpha - reward)
        target = reward + h(x_r, b)
    return (h(x_t, a) - target).square().mean(1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q16.4", bootstrap_loss)

# %% [markdown]
# ## Question 16.5: the tangent of sCM (4 points)
#
# TrigFlow's path is $x_\tau=\cos\tau\,x_0+\sin\tau\,\sigma_d\varepsilon$, with $x_0$ and ε fixed. The consistency function is made of the network F:
# $f=\cos\tau\,x_\tau-\sin\tau\,\sigma_dF(x_\tau,\tau)$. Its tangent is $g=\cos\tau\,\frac{df}{d\tau}$, with the *total* derivative
# along this path. Differentiate the products. For the warm-up, multiply by ρ those parts of g that contain $\sin\tau$ as a factor of
# its own (the $\sin\tau$ within $x_\tau$ and $dx_\tau/d\tau$ is none). Do not normalise g.
#
# The derivative of F along a direction is `torch.func.jvp(F, (x, tau), (dx, dtau))`: it returns F and the derivative.


# %%
# ANSWER Q16.5
def scm_tangent(F, x0, eps, tau, sigma_d, rho):
    """g, (B, 2). F(x, tau): the network, (B, 2). x0, eps: (B, 2); tau: (B, 1); sigma_d: σ_d."""
    ### BEGIN SOLUTION
    cos, sin = tau.cos(), tau.sin()
    x = cos * x0 + sin * sigma_d * eps
    dx = cos * sigma_d * eps - sin * x0
    said, change = torch.func.jvp(F, (x, tau), (dx, torch.ones_like(tau)))
    g = -(cos**2) * (sigma_d * said - dx)
    return g - rho * cos * sin * (x + sigma_d * change)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q16.5", scm_tangent)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/16_consistency_training.ipynb
# ```

# %%
from book import tally

tally("16")
