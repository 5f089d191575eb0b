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
#     title: Assignment 27
#     summary: Write advantages, clipped ratios, an SDE step of Flow-GRPO, the loss of DiffusionNFT, and a test that tells unbiased gradients from biased ones; no training needed.
#     minutes: 120
#     memory: 1 GB
#     needs:
#       - chapter 27
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 27: steps as actions
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
# All numbers are float64, and points are tensors (B, 2). For a flow, α = 1 − t and σ = t.

# %%
from book import check  # first: it also tells torch not to spin
import torch

# %% [markdown]
# ## Question 27.1: advantages (4 points)
#
# `rewards` has a row for each prompt, with the rewards of its $G$ samples. Return two advantages of the same shape: the reward less the mean of the *other*
# samples of its prompt; and GRPO's, the reward less the mean of all samples of its prompt, divided by their standard deviation plus $10^{-4}$. The standard deviation is that of the group itself, with
# $G$ in the denominator. Prompts must not mix.


# %%
# ANSWER Q27.1
def advantages(rewards):
    """(leave-one-out, GRPO's), two tensors like rewards.
    rewards: (prompts, G), G ≥ 2."""
    ### BEGIN SOLUTION
    size = rewards.shape[1]
    others = (rewards.sum(1, keepdim=True) - rewards) / (size - 1)
    centred = rewards - rewards.mean(1, keepdim=True)
    deviation = centred.square().mean(1, keepdim=True).sqrt()
    return rewards - others, centred / (deviation + 1e-4)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q27.1", advantages)

# %% [markdown]
# ## Question 27.2: the clipped ratio (4 points)
#
# PPO's loss for one step of each sample. The step was drawn from a Gaussian with mean `old` and standard deviation `std`, and it is `y`. The present mean is `mean`, with the same `std`. With the ratio ρ of the two densities of `y` (a *sum*
# over the values of a sample in the logarithm), return max(−ρA, −clip(ρ, 1 − χ, 1 + χ) A) for each sample. `old`, `y` and `advantage` are constants; the check looks at the values *and* at the gradient in the weights that made `mean`.


# %%
# ANSWER Q27.2
def ratio_loss(mean, old, std, y, advantage, chi):
    """(B,): the losses.
    mean, old, y: (B, 2); std: float; advantage: A, (B,); chi: χ, float."""
    ### BEGIN SOLUTION
    square = (y - old).square() - (y - mean).square()
    ratio = (square.sum(1) / (2 * std**2)).exp()
    clipped = ratio.clamp(1 - chi, 1 + chi)
    return torch.maximum(-ratio * advantage, -clipped * advantage)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q27.2", ratio_loss)

# %% [markdown]
# ## Question 27.3: Flow-GRPO's step (4 points)
#
# One Euler–Maruyama step of
#
# $$dx=\Big[u+\frac{s^2}{2t}\big(x+(1-t)\,u\big)\Big]dt+s\,dw,\qquad s=a_{\text F}\sqrt{\frac t{1-t}},$$
#
# from time `t` to the smaller time `r`, so that $dt=r-t$ is negative. Return the mean of the step and its standard deviation, a number. $t$ is below 1.


# %%
# ANSWER Q27.3
def flow_step(x, u, t, r, a_F):
    """(mean, std) of the step: (B, 2) and a float.
    x, u: (B, 2), the point and the velocity there; t, r, a_F: floats."""
    ### BEGIN SOLUTION
    dt = r - t
    s = a_F * (t / (1 - t)) ** 0.5
    drift = u + s**2 / (2 * t) * (x + (1 - t) * u)
    return x + drift * dt, s * (-dt) ** 0.5
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q27.3", flow_step)

# %% [markdown]
# ## Question 27.4: DiffusionNFT (4 points)
#
# Noise the samples to time `t` of a flow, and return for each sample $q\,\lVert u^+-u\rVert^2+(1-q)\,\lVert u^--u\rVert^2$ with $u=\varepsilon-x_0$ and
# $u^\pm=u_{\text{old}}\pm\zeta(u_\theta-u_{\text{old}})$, summed over a sample's values. `new(x, t)` and `old(x, t)` return velocities like x. The old model is a constant. Values and the gradient in the weights of `new` are looked at.


# %%
# ANSWER Q27.4
def nft_loss(new, old, x0, noise, t, share, zeta):
    """(B,): the losses.
    x0, noise: (B, 2); t, zeta: floats; share: q, (B,)."""
    ### BEGIN SOLUTION
    x, u = (1 - t) * x0 + t * noise, noise - x0
    told = old(x, t).detach()
    move = zeta * (new(x, t) - told)
    plus = (told + move - u).square().sum(1)
    minus = (told - move - u).square().sum(1)
    return share * plus + (1 - share) * minus
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q27.4", nft_loss)

# %% [markdown]
# ## Question 27.5: a test of unbiasedness (4 points)
#
# Write a test. A policy chooses one of $n$ actions with probabilities `p`, the softmax of its logits, and `r` has their rewards. So the gradient of the mean reward in the logits is known: its entry $i$ is
# $p_i\,(r_i-\sum_jp_jr_j)$. Somebody hands you an estimator. `estimate(actions)` takes a *group* of two actions, a list of two numbers from 0 to $n-1$, and returns a gradient, a tensor (n,).
#
# The two actions are drawn independently from `p`. Return True if the *expectation* of the estimate is the true gradient, to $10^{-9}$ in every entry, and False if not. Do not draw: there are only $n^2$ groups. The check hands your test right
# estimators and wrong ones.


# %%
# ANSWER Q27.5
def is_unbiased(estimate, p, r):
    """bool: whether the expected estimate is the gradient.
    estimate: [i, j] ↦ (n,); p, r: (n,)."""
    ### BEGIN SOLUTION
    n = len(p)
    expected = sum(p[i] * p[j] * estimate([i, j]) for i in range(n) for j in range(n))
    wanted = p * (r - p @ r)
    return bool((expected - wanted).abs().max() < 1e-9)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q27.5", is_unbiased)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/27_policy_gradient.ipynb
# ```

# %%
from book import tally

tally("27")
