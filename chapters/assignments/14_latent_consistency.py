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
#     title: Assignment 14
#     summary: Count the indices that LCM visits, and write its guided step, its boundary and TCD's step yourself; no training needed.
#     minutes: 120
#     memory: 1 GB
#     needs:
#       - chapter 14
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 14: the indices and the steps of LCM
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
# A ladder has $N$ indices, from 0, the cleanest level, to $N-1$, the noisiest. Where levels are needed, you get its table:
# `alpha` and `sigma` are tensors (N,), so that `alpha[n]` and `sigma[n]` belong to index $n$. At index 0, σ is not 0.
# Points `x` are tensors (B, 2). All numbers are float64, all tensors of indices int64.

# %%
from book import check  # first: it also tells torch not to spin
import math
import torch

# %% [markdown]
# ## Question 14.1: which steps are trained (3 points)
#
# A ladder of $N$ indices is cut into $S$ steps, each of which skips $k=\lfloor N/S\rfloor$ of them. The first step, the one
# nearest to the data, starts at index $k-1$, the next at $2k-1$, and so on up to $Sk-1$. (If $S$ does not divide $N$, a few
# indices above that stay unused.) Each ends $k$ lower than it starts. The first would leave the ladder; it ends at 0. Return
# the starts and the ends of all $S$ steps, that nearest to the data first.


# %%
# ANSWER Q14.1
def trained_steps(count, steps):
    """(starts, ends), each (S,), indices.
    count: N; steps: S, both int."""
    ### BEGIN SOLUTION
    k = count // steps
    starts = torch.arange(1, steps + 1) * k - 1
    return starts, (starts - k).clamp(min=0)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q14.1", trained_steps)

# %% [markdown]
# ## Question 14.2: the guided step, with a guidance a sample (5 points)
#
# LCM's teacher makes one DDIM step of the augmented ODE: from a sample's index $n$ it goes $k$ indices down, or to index 0 if
# there are fewer. Every sample has a start $n$ and a guidance ω of its own. The network predicts $v=\alpha\varepsilon-\sigma x_0$, and you
# get both of its answers, $v(x,c)$ and $v(x,\varnothing)$. Guidance is $\varepsilon^\omega=(1+\omega)\,\varepsilon(x,c)-\omega\,\varepsilon(x,\varnothing)$;
# you may guide $v$ in the same way, for at one $(x,n)$ they are linear in each other. Both $x_0$ and ε of the step are guided.


# %%
# ANSWER Q14.2
def augmented_step(x, v_cond, v_null, n, k, omega, alpha, sigma):
    """x̂ where the steps end, like x.
    x, v_cond, v_null: (B, 2); n: (B,), the index of each x; omega: (B,); k: int."""
    ### BEGIN SOLUTION
    m = (n - k).clamp(min=0)
    w = omega[:, None]
    v = (1 + w) * v_cond - w * v_null
    x0 = alpha[n, None] * x - sigma[n, None] * v
    eps = sigma[n, None] * x + alpha[n, None] * v
    return alpha[m, None] * x0 + sigma[m, None] * eps
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q14.2", augmented_step)

# %% [markdown]
# ## Question 14.3: LCM's boundary (3 points)
#
# LCM makes its consistency function of the network's guess of the data, $f=c_{\text{skip}}\,x+c_{\text{out}}\,x_\theta$, with
#
# $$c_{\text{skip}}=\frac{0.25}{\tau^2+0.25},\qquad c_{\text{out}}=\frac{\tau}{\sqrt{\tau^2+0.25}},\qquad \tau=10\,n.$$
#
# Here the network predicts ε. Every sample has an index $n$ of its own, and you get `n`, `alpha` and `sigma` of each. At index 0
# your function must return $x$ itself, whatever the network says.


# %%
# ANSWER Q14.3
def lcm_function(x, eps, n, alpha, sigma):
    """f, like x.
    x: (B, 2); eps: the network's ε, like x; n, alpha, sigma: (B,), each sample's, float64."""
    ### BEGIN SOLUTION
    x0 = (x - sigma[:, None] * eps) / alpha[:, None]
    tau = 10.0 * n[:, None]
    skip = 0.25 / (tau**2 + 0.25)
    out = tau / (tau**2 + 0.25).sqrt()
    return skip * x + out * x0
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q14.3", lcm_function)

# %% [markdown]
# ## Question 14.4: at which indices LCM is asked (4 points)
#
# Sampling in $C$ calls visits $C$ of the $S$ trained starts, $C\le S$. Number the starts of question 14.1 from the *noisiest*, which has place 0;
# call $i=0,\dots,C-1$ is at place $\lfloor S\,i/C\rfloor$. Return the indices on the ladder in the order of the calls. (1000 indices in 50 steps, four
# calls: 999, 759, 499, 259.)


# %%
# ANSWER Q14.4
def lcm_indices(count, steps, calls):
    """(C,), indices from noise to data.
    count: N; steps: S; calls: C, all int."""
    ### BEGIN SOLUTION
    k = count // steps
    return torch.tensor([(steps - steps * i // calls) * k - 1 for i in range(calls)])
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q14.4", lcm_indices)

# %% [markdown]
# ## Question 14.5: TCD stops below (5 points)
#
# One step of TCD's sampler. The network was asked at index $n$ and said ε; the next call will be at index $m<n$. The jump
# goes below that, to index $s=\lfloor(1-\gamma)\,m\rfloor$, without new noise: $x_s=\alpha_sx_\theta+\sigma_s\varepsilon$. From there new noise $z$ brings it
# up to $m$, $x_m=\frac{\alpha_m}{\alpha_s}x_s+r\,z$. *You* find the number $r$: if $x_s$ has the noise of its level, of standard
# deviation $\sigma_s$, then $x_m$ must have that of its own, $\sigma_m$, and $z$ is independent of it. There is no boundary here: $x_\theta$ is the network's
# guess of the data. In the check $0<\gamma\le1$.


# %%
# ANSWER Q14.5
def tcd_step(x, eps, noise, n, m, gamma, alpha, sigma):
    """x at index m, like x.
    x: (B, 2), at index n; eps: ε there; noise: z, normal, all like x; n, m: int; gamma: float."""
    ### BEGIN SOLUTION
    s = math.floor((1 - gamma) * m)
    x0 = (x - sigma[n] * eps) / alpha[n]
    x_s = alpha[s] * x0 + sigma[s] * eps
    ratio = alpha[m] / alpha[s]
    return ratio * x_s + (sigma[m] ** 2 - (ratio * sigma[s]) ** 2).sqrt() * noise
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q14.5", tcd_step)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/14_latent_consistency.ipynb
# ```

# %%
from book import tally

tally("14")
