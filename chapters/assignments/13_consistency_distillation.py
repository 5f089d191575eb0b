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
#     title: Assignment 13
#     summary: Write the parts of consistency distillation yourself, from the boundary to the sampler; no training needed.
#     minutes: 120
#     memory: 1 GB
#     needs:
#       - chapter 13; guidance (chapter 6) for question 13.3
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 13: the parts of a consistency model
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
# Points `x` are tensors (B, 2) in float64. A level `a` has the numbers `a.t`, `a.alpha`, `a.sigma` and `a.lam`, where
# λ = log(α/σ). `levels` is a list of them from noise to data: `levels[0]` is the noisiest. Schedules change from check to
# check.

# %%
from book import check  # first: it also tells torch not to spin
import torch

# %% [markdown]
# ## Question 13.1: the boundary (4 points)
#
# In the paper's form a consistency function is made of EDM's raw network $F$, whose output has unit variance:
# $f=c_{\text{skip}}(\kappa)\,y+c_{\text{out}}(\kappa)\,F$. EDM's denoiser has
#
# $$c_{\text{skip}}=\frac{\sigma_d^2}{\kappa^2+\sigma_d^2},\qquad c_{\text{out}}=\frac{\sigma_d\,\kappa}{\sqrt{\kappa^2+\sigma_d^2}}.$$
#
# Both are right at $\kappa=0$, where $f=y$. But a path ends at $\kappa_{\min}>0$. Change them so that $f=y$ there: as
# in the paper, wherever κ measures the distance to the end it is replaced by $\kappa-\kappa_{\min}$, while the root in
# $c_{\text{out}}$, which belongs to the size of the network's *input*, stays as it is.


# %%
# ANSWER Q13.1
def boundary_scalings(kappa, kappa_min, sigma_d):
    """(c_skip, c_out), each like kappa, a float64 tensor of levels ≥ kappa_min."""
    ### BEGIN SOLUTION
    beyond = kappa - kappa_min
    skip = sigma_d**2 / (beyond**2 + sigma_d**2)
    return skip, sigma_d * beyond / (kappa**2 + sigma_d**2).sqrt()
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q13.1", boundary_scalings)

# %% [markdown]
# ## Question 13.2: the loss, and who gets a gradient (5 points)
#
# Equation (13.4) for one step of the grid, with the squared distance: the student at the noisier level `a` must agree with
# what it says itself, as a constant, at the end of the teacher's step. `f(x, level)` is the student's answer, a tensor
# like x; `step(x, a, b)` is where the teacher's solver step from `a` to `b` ends, likewise. Average over a sample's
# values, not over the batch. The check looks at the values *and* at their gradient in the student's weights.


# %%
# ANSWER Q13.2
def consistency_loss(f, step, x, a, b):
    """(B,): for each sample the mean squared difference of the student's two answers.
    x: (B, 2), at level a."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        target = f(step(x, a, b), b)
    return (f(x, a) - target).square().mean(1)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q13.2", consistency_loss)

# %% [markdown]
# ## Question 13.3: a guided step that skips (4 points)
#
# A look ahead at chapter 14, LCM's teacher. From `levels[i]` make one DDIM step over `k` steps of the grid, with guidance
# $\varepsilon^\omega=(1+\omega)\,\varepsilon(x,c)-\omega\,\varepsilon(x,\varnothing)$. A step that would leave the grid
# stops at its last level. The network has been called already: you get both of its answers.


# %%
# ANSWER Q13.3
def skipped_step(x, eps_cond, eps_null, levels, i, k, omega):
    """x̂ where the step ends.
    x: (B, 2), at levels[i]; eps_cond, eps_null: ε(x, c) and ε(x, ∅), each like x."""
    ### BEGIN SOLUTION
    a, b = levels[i], levels[min(i + k, len(levels) - 1)]
    eps = (1 + omega) * eps_cond - omega * eps_null
    x0 = (x - a.sigma * eps) / a.alpha
    return b.alpha * x0 + b.sigma * eps
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q13.3", skipped_step)

# %% [markdown]
# ## Question 13.4: edges and jumps (4 points)
#
# A look ahead at chapter 15, PCM. It cuts the $N$ steps of the grid into $M$ phases. Their clean edges lie
# $\lfloor mN/M\rfloor$ steps above the clean end, for $m=0,\dots,M-1$. The jump from `levels[i]` goes to the edge *below* it, to $\alpha_sx_0+\sigma_s\varepsilon$.
# A start that is itself an edge belongs to the phase that begins there.


# %%
# ANSWER Q13.4
def phase_jump(x, eps, levels, i, phases):
    """x at the clean edge of its phase.
    x: (B, 2), at levels[i]; eps: the network's ε there, like x; phases: M."""
    ### BEGIN SOLUTION
    n = len(levels) - 1
    edges = [n - m * n // phases for m in range(phases)]
    a, s = levels[i], levels[min(e for e in edges if e > i)]
    x0 = (x - a.sigma * eps) / a.alpha
    return s.alpha * x0 + s.sigma * eps
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q13.4", phase_jump)

# %% [markdown]
# ## Question 13.5: sampling with new noise (3 points)
#
# Multistep consistency sampling, as LCM does it: one call at every level of the list, the last included. The answer is
# noised to the next level with new noise; after the last call it is the sample. `model(x, a).x0` is the consistency
# function.


# %%
# ANSWER Q13.5
def consistency_sample(model, x, levels, noise):
    """The samples, (B, 2).
    x: (B, 2), at levels[0]; noise: (len(levels) − 1, B, 2), normal; noise[0] is for levels[1]."""
    ### BEGIN SOLUTION
    for a, b, z in zip(levels, levels[1:], noise):
        x = b.alpha * model(x, a).x0 + b.sigma * z
    return model(x, levels[-1]).x0
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q13.5", consistency_sample)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/13_consistency_distillation.ipynb
# ```

# %%
from book import tally

tally("13")
