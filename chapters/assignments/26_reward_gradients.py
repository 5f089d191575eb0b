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
#     title: Assignment 26
#     summary: Write a judge's likelihood, the tilt, and truncated back-propagation yourself; no training needed.
#     minutes: 120
#     memory: 1 GB
#     needs:
#       - chapter 26
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 26: the gradient of a reward
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
# Points `x` are tensors (B, 2) in float64. A level `a` has the numbers `a.alpha`, `a.sigma`, `a.lam` and `a.t`. `levels` is a list of
# them from noise to data: `levels[0]` is the noisiest. Where a question hands you `net`, then `net(x, a)` is the network's ε at `x` and level `a`, a
# tensor like x; its weights get a gradient. `reward(x)` is a tensor (B,), and differentiable.

# %%
from book import check  # first: it also tells torch not to spin
import torch

# %% [markdown]
# ## Question 26.1: what a vote tells (4 points)
#
# A judge compared pairs. `share` is how much of the vote the *first* picture of a pair got: 1, 0, or ½ for a tie. By Bradley and Terry the first wins with
# probability $P$, the sigmoid of the difference of the two rewards. Return the cross-entropy of each pair,
#
# $$-\big[s\log P+(1-s)\log(1-P)\big].$$
#
# Differences may be as large as ±1000, and the answer must stay finite: `torch.nn.functional.logsigmoid` is of use.


# %%
# ANSWER Q26.1
def vote_loss(first, second, share):
    """(B,): the loss of each pair.
    first, second: (B,), the rewards of the two pictures; share: (B,), from 0 to 1."""
    ### BEGIN SOLUTION
    margin = first - second
    log_p = torch.nn.functional.logsigmoid(margin)
    log_not = torch.nn.functional.logsigmoid(-margin)
    return -(share * log_p + (1 - share) * log_not)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q26.1", vote_loss)

# %% [markdown]
# ## Question 26.2: the tilt of a mixture (4 points)
#
# The model's density is a mixture of Gaussians $\sum_kw_k\,\mathcal N(\mu_k,S_k^2I)$, and the reward is linear, $r(x)=a\cdot x$. The optimum of
# reward minus β times divergence is the density times $e^{r/\beta}$, normalised. It is a mixture again. Each mean moves; each weight changes by the factor
#
# $$\int\mathcal N(x;\mu_k,S_k^2I)\,e^{a\cdot x/\beta}\,dx=\exp\Big(\frac{a\cdot\mu_k}\beta+\frac{\lVert a\rVert^2S_k^2}{2\beta^2}\Big),$$
#
# and then all weights are divided by their sum. The $S_k$ stay as they are. Return the new weights and the new means. (Complete the square to see where a mean goes.)


# %%
# ANSWER Q26.2
def tilted(weights, means, stds, a, beta):
    """(weights, means) of the tilt, (K,) and (K, 2).
    weights: (K,); means: (K, 2); stds: S, (K,); a: (2,), the slope; beta: float."""
    ### BEGIN SOLUTION
    factor = torch.exp(means @ a / beta + (a @ a) * stds**2 / (2 * beta**2))
    moved = means + stds[:, None] ** 2 * a / beta
    return weights * factor / (weights * factor).sum(), moved
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q26.2", tilted)

# %% [markdown]
# ## Question 26.3: truncated back-propagation (5 points)
#
# Walk from `x` at `levels[0]` to `levels[-1]` by DDIM, with $N$ steps for $N+1$ levels, and return the rewards at the end. A step goes from level $a$ to the next one, $b$:
#
# $$x_b=\alpha_b\,\frac{x_a-\sigma_a\varepsilon(x_a,a)}{\alpha_a}+\sigma_b\,\varepsilon(x_a,a).$$
#
# Only the last `last` steps have a gradient: what the network says
# in them counts, and so does how it depends on $x$ there. The steps before them have none. The check looks at the rewards *and* at their gradient in the network's weights.


# %%
# ANSWER Q26.3
def truncated_reward(net, x, levels, reward, last):
    """(B,): the rewards, with a gradient through the last steps.
    x: (B, 2), at levels[0]; last: K, int, from 1 to N."""
    ### BEGIN SOLUTION
    first = len(levels) - 1 - last
    for k, (a, b) in enumerate(zip(levels, levels[1:])):
        eps = net(x, a)
        x = b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps
        if k < first:
            x = x.detach()
    return reward(x)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q26.3", truncated_reward)

# %% [markdown]
# ## Question 26.4: ReFL (4 points)
#
# Walk by DDIM without gradient from `x` at `levels[0]` until you stand at `levels[stop]`. Ask the network there once, with a gradient, for its guess of the clean sample,
# $(x-\sigma\varepsilon)/\alpha$, and reward the guess. Return the loss of each sample, max(0, `enough` − r). Again the values and their gradient are looked at.


# %%
# ANSWER Q26.4
def refl_loss(net, x, levels, reward, stop, enough):
    """(B,): the losses.
    x: (B, 2), at levels[0]; stop: int, from 0 to N − 1; enough: float."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        for a, b in zip(levels[:stop], levels[1:]):
            eps = net(x, a)
            x = b.alpha * (x - a.sigma * eps) / a.alpha + b.sigma * eps
    a = levels[stop]
    guess = (x - a.sigma * net(x, a)) / a.alpha
    return (enough - reward(guess)).clamp(min=0)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q26.4", refl_loss)

# %% [markdown]
# ## Question 26.5: DRaFT-LV (3 points)
#
# You have finished samples `x0`, constants. Noise each of them to the level `a`, once for each given noise, ask the network for its guess of the clean sample there, and reward
# it. Return for each sample the mean reward over the noises, with its gradient. `net` and `reward` take points (B, 2), not (n, B, 2).


# %%
# ANSWER Q26.5
def lv_reward(net, x0, a, noise, reward):
    """(B,): the mean rewards.
    x0: (B, 2), clean; a: a level; noise: (n, B, 2), normal."""
    ### BEGIN SOLUTION
    found = []
    for eps in noise:
        x = a.alpha * x0 + a.sigma * eps
        found.append(reward((x - a.sigma * net(x, a)) / a.alpha))
    return torch.stack(found).mean(0)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q26.5", lv_reward)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/26_reward_gradients.ipynb
# ```

# %%
from book import tally

tally("26")
