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
#     title: Assignment 28
#     summary: Derive and write the loss of preference optimisation, from the tilt to Diffusion-DPO, and convert the numbers of public scripts; no training needed.
#     minutes: 100
#     memory: 1 GB
#     needs:
#       - chapter 28
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 28: derive the loss
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
# All tensors are in float64. Letters are those of chapter 28: β is the price of a nat of KL divergence, $B$ is the number that
# scripts call `beta`.

# %%
from book import check  # first: it also tells torch not to spin
import torch

# %% [markdown]
# ## Question 28.1: the tilt (3 points)
#
# A table of $K$ answers has the reference probabilities `pi` and the rewards `r`. Which probabilities maximise
# $\mathbb E_p\,r-\beta\,\mathrm{KL}(p\,\Vert\,\pi)$? They must sum to 1.


# %%
# ANSWER Q28.1
def tilt(pi, r, beta):
    """p*, (K,).
    pi: (K,), positive, its sum is 1; r: (K,); beta: a number, positive."""
    ### BEGIN SOLUTION
    return torch.softmax(pi.log() + r / beta, 0)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q28.1", tilt)

# %% [markdown]
# ## Question 28.2: the loss of DPO (4 points)
#
# Solve the tilt for the reward and put it into the judge's probability, the sigmoid of a difference of rewards. Write minus the
# logarithm of that probability for each pair, for a model whose log-probabilities are known. (`torch.nn.functional` has what you need.)


# %%
# ANSWER Q28.2
def dpo_loss(log_win, log_lose, ref_win, ref_lose, beta):
    """(N,): the loss of each pair.
    log_win, log_lose: log p_θ of the winner and of the loser, (N,); ref_win, ref_lose: log π."""
    ### BEGIN SOLUTION
    margin = beta * ((log_win - ref_win) - (log_lose - ref_lose))
    return -torch.nn.functional.logsigmoid(margin)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q28.2", dpo_loss)

# %% [markdown]
# ## Question 28.3: the loss of Diffusion-DPO (5 points)
#
# Now the model is a network that predicts ε. `net(x, alpha, sigma)` and `ref(x, alpha, sigma)` take noisy points $x_t=\alpha x_0+\sigma\varepsilon$, (N, 3), and
# return tensors like them. Write the loss for each pair at one level and one noise, in the authors' convention: with the ½, and with the squared errors *averaged* over the values of
# a sample. Both of a pair get the same noise. The check looks at the values and at their gradient in the student's weights.


# %%
# ANSWER Q28.3
def diffusion_dpo_loss(net, ref, winner, loser, eps, alpha, sigma, B):
    """(N,): the loss of each pair.
    winner, loser: x₀ of each pair, (N, 3); eps: the noise, (N, 3); alpha, sigma, B: numbers."""

    ### BEGIN SOLUTION
    def gap(x_0):
        x_t = alpha * x_0 + sigma * eps
        new = (net(x_t, alpha, sigma) - eps).square().mean(1)
        old = (ref(x_t, alpha, sigma) - eps).square().mean(1)
        return new - old

    inside = -0.5 * B * (gap(winner) - gap(loser))
    return -torch.nn.functional.logsigmoid(inside)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q28.3", diffusion_dpo_loss)

# %% [markdown]
# ## Question 28.4: what one level asks for (4 points)
#
# The data are $\mathcal N(0,S^2I)$ in $D$ dimensions, the judge's reward is $r(x)=x_1$, and the student may shift its mean by δ in the first coordinate. At one level
# $(\alpha,\sigma)$, which δ minimises the expected loss of question 28.3? (Put the shifted Gaussian's exact ε into the argument of the sigmoid, and compare it with the judge's.)


# %%
# ANSWER Q28.4
def asked_shift(alpha, sigma, S, B, D):
    """δ at each level, (L,).
    alpha, sigma: (L,), of L levels; S, B, D: numbers."""
    ### BEGIN SOLUTION
    gamma = (alpha * sigma / (alpha**2 * S**2 + sigma**2)) ** 2
    return D / (B * gamma)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q28.4", asked_shift)

# %% [markdown]
# ## Question 28.5: somebody else's beta (4 points)
#
# Four scripts have the loss $-\log\operatorname{sigmoid}(-b\,c\,[e(x^w)-e(x^l)])$ with their own number $b$. In it $c$ is ½ where `half` is true, and else 1, and $e$ is the
# difference of the student's and the reference's squared errors of a sample of `values` numbers: their *sum* where `summed` is true, and else their mean. Which $B$ has the same effect in the authors'
# convention, with the ½ and means?


# %%
# ANSWER Q28.5
def authors_beta(b, half, summed, values):
    """B, a number."""
    ### BEGIN SOLUTION
    B = b if half else 2 * b
    return B * values if summed else B
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q28.5", authors_beta)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/28_preference_optimization.ipynb
# ```

# %%
from book import tally

tally("28")
