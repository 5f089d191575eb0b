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
#     title: Assignment 06
#     summary: Convert the conventions of guidance, guide any face, and say where the flow and the tilt put mean, variance and mass.
#     minutes: 80
#     memory: 1 GB
#     needs:
#       - chapter 6
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 6: read the dial
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
# All tensors are float64. As in the chapter, $x_t=\alpha x_0+\sigma\varepsilon$ with $\alpha^2+\sigma^2=1$, and $\omega=0$ is no guidance. *told* is what the network says given the
# condition, *empty* what it says given $\varnothing$.

# %%
from book import check  # first: it also tells torch not to spin
import math

import torch

# %% [markdown]
# ## Question 6.1: one dial, three labels (3 points)
#
# You read three papers. One gives its weight as $\omega$, as this book does (`"omega"`). One gives the *scale* $g$ of diffusers, where 1 is no guidance (`"scale"`). One writes
# "told plus $w'$ times the difference of told and empty" (`"extra"`). Return the guided output.


# %%
# ANSWER Q06.1
def guide(told, empty, w, kind):
    """The guided output (B, d). told, empty: (B, d); w: a float, the paper's number; kind:
    "omega", "scale" or "extra"."""
    ### BEGIN SOLUTION
    omega = w - 1 if kind == "scale" else w
    return (1 + omega) * told - omega * empty
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q06.1", guide)

# %% [markdown]
# ## Question 6.2: guide whatever the network predicts (4 points)
#
# The network's outputs are $\varepsilon$, or $v=\alpha\varepsilon-\sigma x_0$, or the score $-\varepsilon/\sigma$. Return the guided $x_0$. It is the same $x_0$ whether you guide the outputs and convert, or
# convert both and guide.


# %%
# ANSWER Q06.2
def guided_x0(told, empty, x, alpha, sigma, predicts, omega):
    """x₀, (B, d). told, empty: (B, d), outputs at the noisy x (B, d); alpha, sigma: floats;
    predicts: "eps", "v" or "score"; omega: a float."""
    ### BEGIN SOLUTION
    out = (1 + omega) * told - omega * empty
    if predicts == "v":
        return alpha * x - sigma * out
    eps = out if predicts == "eps" else -sigma * out
    return (x - sigma * eps) / alpha
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q06.2", guided_x0)

# %% [markdown]
# ## Question 6.3: Gaussians under guidance (5 points)
#
# The class is $\mathcal N(m_c,v_c)$ in one dimension. Derive three numbers, for the flow $dy/d\kappa=\varepsilon^\omega$ from $\kappa=\infty$ to 0:
#
# - the **mean** it ends at, if $\varnothing$ is $\mathcal N(m_\varnothing,v_c)$, as wide as the class, and guidance acts only at $\texttt{low}\le\kappa\le\texttt{high}$;
# - the **variance** it ends with, if $\varnothing$ is $\mathcal N(m_c,v_\varnothing)$ and guidance acts at all levels;
# - the variance of the **tilt** $p(x|c)^{1+\omega}p(x)^{-\omega}$ in that second case.
#
# The check knows no closed form: it integrates the flow numerically.


# %%
# ANSWER Q06.3
def guided_gaussian(m_c, m_null, v_c, v_null, omega, low, high):
    """(mean, variance of the flow, variance of the tilt), three floats, of floats."""
    ### BEGIN SOLUTION
    cos = lambda kappa: math.sqrt(v_c / (v_c + kappa**2))
    mean = m_c + omega * (m_c - m_null) * (cos(low) - cos(high))
    flow = v_c ** (1 + omega) * v_null**-omega
    return mean, flow, 1 / ((1 + omega) / v_c - omega / v_null)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q06.3", guided_gaussian)

# %% [markdown]
# ## Question 6.4: where the tilt moves the mass (3 points)
#
# A class and the whole have the same $K$ modes, far apart and of equal shape, with different weights: $p(x|c)=\sum_k a_k\,q(x-\mu_k)$ and $p(x)=\sum_kb_k\,q(x-\mu_k)$. Which share of the
# tilt $p(x|c)^{1+\omega}p(x)^{-\omega}$ lies in each mode? (This is the *tilt*. The flow decides on modes at noisy levels, where they overlap; chapter 6.3 shows that it disagrees.)


# %%
# ANSWER Q06.4
def tilted_masses(of_class, of_all, omega):
    """The masses (K,), which sum to 1. of_class: a, (K,); of_all: b, (K,); omega: a float."""
    ### BEGIN SOLUTION
    mass = of_class * (of_class / of_all) ** omega
    return mass / mass.sum()
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q06.4", tilted_masses)

# %% [markdown]
# ## Question 6.5: the guided ε of a mixture (5 points)
#
# In two dimensions, the data are $\sum_kw_k\,\mathcal N(\mu_k,s_k^2I)$, and component $k$ belongs to the class `labels[k]`. At a level $(\alpha,\sigma)$ the noised component is $\mathcal N(\alpha\mu_k,v_kI)$ with
# $v_k=\alpha^2s_k^2+\sigma^2$. Return the exact $\varepsilon^\omega(x)=(1+\omega)\,\varepsilon(x,c)-\omega\,\varepsilon(x,\varnothing)$, where $\varnothing$ is the whole mixture. No autograd is needed; the check uses it.


# %%
# ANSWER Q06.5
def guided_eps(x, weights, means, stds, labels, c, omega, alpha, sigma):
    """ε^ω, (B, 2). x: (B, 2); weights, stds: (K,); means: (K, 2); labels: (K,) integers; c: the
    class, an int; omega, alpha, sigma: floats."""
    ### BEGIN SOLUTION
    v = (alpha * stds) ** 2 + sigma**2
    apart = x[:, None] - alpha * means  # (B, K, 2)
    log_share = weights.log() - v.log() - (apart**2).sum(2) / (2 * v)

    def eps(inside):
        share = torch.softmax(log_share.masked_fill(~inside, -math.inf), 1)
        return sigma * torch.einsum("bk,bkd->bd", share / v, apart)

    told, empty = eps(labels == c), eps(labels == labels)
    return (1 + omega) * told - omega * empty
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q06.5", guided_eps)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/06_guidance.ipynb
# ```

# %%
from book import tally

tally("06")
