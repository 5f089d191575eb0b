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
#     title: Assignment 5
#     summary: Write the converter, the test that tells right converters from wrong ones, the loss, and a walk with the right sign.
#     minutes: 90
#     memory: 1 GB
#     needs:
#       - chapter 5
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 5: every model in every other's clothes
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
# All tensors are float64. `x`, $x_0$ and $\varepsilon$ are batches of points, of shape (B, d). Time $t$ is 1 at noise and 0 at data,
# $x_t=\alpha_tx_0+\sigma_t\varepsilon$. A `level` has `.alpha`, `.sigma`, `.d_alpha` and `.d_sigma`, floats: α, σ and their time derivatives. It
# may belong to *any* schedule. The **faces** and their names:
#
# | `"eps"` | `"x0"` | `"v"` | `"velocity"` | `"score"` |
# |---|---|---|---|---|
# | $\varepsilon$ | $x_0$ | $\alpha\varepsilon-\sigma x_0$ | $\dot\alpha x_0+\dot\sigma\varepsilon$ | $-\varepsilon/\sigma$ |

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch

# %% [markdown]
# ## Question 5.1: the converter (4 points)
#
# A network was asked at `x` and `level` and said `w`, which is the face named `face`. Return $x_0$ and $\varepsilon$, from which
# every other face follows. Each face counts a fifth of the points.


# %%
# ANSWER Q05.1
def both(face, w, x, level):
    """(x₀, ε), each (B, d)."""
    ### BEGIN SOLUTION
    a, b = {
        "eps": (0, 1),
        "x0": (1, 0),
        "v": (-level.sigma, level.alpha),
        "velocity": (level.d_alpha, level.d_sigma),
        "score": (0, -1 / level.sigma),
    }[face]  # w = a x₀ + b ε, x = α x₀ + σ ε
    det = level.alpha * b - level.sigma * a
    return (b * x - level.sigma * w) / det, (level.alpha * w - a * x) / det
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q05.1", both)

# %% [markdown]
# ## Question 5.2: the change of schedule (4 points)
#
# `eps_model(x, level)` predicts ε on a variance-preserving schedule; `at_lam(lam)` is that schedule's level with
# $\lambda=\log(\alpha/\sigma)$ equal to `lam`. Make a velocity model for straight paths of it: return $u=\varepsilon-x_0$ at `x` and time `t` of the
# schedule $\alpha=1-t$, $\sigma=t$.


# %%
# ANSWER Q05.2
def velocity_of(eps_model, at_lam, x, t):
    """u on straight paths, (B, d). x: (B, d) at time t there; t: a float in (0, 1)."""
    ### BEGIN SOLUTION
    level = at_lam(math.log((1 - t) / t))  # the same κ = σ/α …
    x = level.alpha / (1 - t) * x  # … so the same y = x/α
    eps = eps_model(x, level)
    return eps - (x - level.sigma * eps) / level.alpha
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q05.2", velocity_of)

# %% [markdown]
# ## Question 5.3: the test (5 points)
#
# A colleague hands you `convert(have, want, w, x, level)`. It is told that a network said `w` at `x`, which is the face `have`, and
# returns the face `want`; both are names from the table above. Write its test: return True if it is right for every pair of faces at each of the
# `levels`, a list of levels of several schedules, none of them with α = 0 or σ = 0, and False otherwise.
#
# Your test is tested. It meets right converters, each with rounding errors of its own, and wrong ones. Some of those come
# back from every journey there and back as if nothing had happened. Choose the points yourself.


# %%
# ANSWER Q05.3
def converts(convert, levels):
    """True if the converter is right, False if not."""
    ### BEGIN SOLUTION
    x0, eps = torch.randn(8, 2, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    for level in levels:
        x = level.alpha * x0 + level.sigma * eps
        faces = {  # by definition: no conversion enters the truth
            "eps": eps,
            "x0": x0,
            "v": level.alpha * eps - level.sigma * x0,
            "velocity": level.d_alpha * x0 + level.d_sigma * eps,
            "score": -eps / level.sigma,
        }
        for have, w in faces.items():
            for want, truth in faces.items():
                off = (convert(have, want, w, x, level) - truth).abs().max()
                if not off <= 1e-6 * truth.abs().max():
                    return False
    return True
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q05.3", converts)

# %% [markdown]
# ## Question 5.4: the loss (3 points)
#
# The conditional flow-matching loss on straight paths, for given data, noise and times, one time a sample: the mean over the batch of
# $\lVert\mathrm{net}(x_t,t)-(\varepsilon-x_0)\rVert^2$. `net` takes `x` (B, d) and `t` (B,). It will be differentiated.


# %%
# ANSWER Q05.4
def cfm_loss(net, x0, eps, t):
    """A scalar. x0, eps: (B, d); t: (B,)."""
    ### BEGIN SOLUTION
    x_t = (1 - t[:, None]) * x0 + t[:, None] * eps
    return (net(x_t, t) - (eps - x0)).square().sum(1).mean()
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q05.4", cfm_loss)

# %% [markdown]
# ## Question 5.5: somebody else's network (4 points)
#
# A repository counts time the other way: `theirs(x, s)` takes a float $s$ with $s=1$ at *data*, and was trained to predict $x_0-\varepsilon$ on the line $x=s\,x_0+(1-s)\,\varepsilon$. Carry `x`
# by Euler's rule through `times`, which are in *this book's* time and fall, in unequal steps.


# %%
# ANSWER Q05.5
def follow(theirs, x, times):
    """x at times[-1], (B, d). times: falling floats; x: (B, d) at times[0]."""
    ### BEGIN SOLUTION
    for t, t_next in zip(times, times[1:]):
        u = -theirs(x, 1 - t)  # dx/dt = ε − x₀
        x = x + (t_next - t) * u
    return x
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q05.5", follow)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/05_flow_matching.ipynb
# ```

# %%
from book import tally

tally("05")
