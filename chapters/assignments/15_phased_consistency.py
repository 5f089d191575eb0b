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
#     title: Assignment 15
#     summary: Find the edges of phases, stop steps at them, sample from edge to edge, and write the adversarial term yourself; no training needed.
#     minutes: 120
#     memory: 1 GB
#     needs:
#       - chapter 15
#       - PyTorch
# ---

# %% [markdown]
# # Assignment 15: edges, jumps and the adversarial term
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
# Points are tensors (B, 2). All numbers are float64, all tensors of indices int64. An *edge* is the clean end of a phase.
# A start that is itself an edge belongs to the phase *below* it: its jump goes down to the next edge.

# %%
from book import check  # first: it also tells torch not to spin
import torch

# %% [markdown]
# ## Question 15.1: which indices are edges (4 points)
#
# As in chapter 14, a ladder of $N$ indices (0 is the cleanest) is cut into $S$ steps of $k=\lfloor N/S\rfloor$, which start at $k-1$, $2k-1$, …, $Sk-1$.
# Number these starts 0 to $S-1$, from the cleanest. There are $M\le S$ phases. Edge $m=0,\dots,M-1$ is the start one place below the number $\lfloor mS/M\rfloor$.
# Below number 0 there is none; that edge is index 0. Return the indices of the edges, the cleanest first. (1000 indices, 50 steps, four
# phases: 0, 239, 499, 739.)


# %%
# ANSWER Q15.1
def phase_edges(count, steps, phases):
    """(M,), indices, from the cleanest edge to the noisiest.
    count: N; steps: S; phases: M, all int."""
    ### BEGIN SOLUTION
    k = count // steps
    return torch.tensor([max(m * steps // phases * k - 1, 0) for m in range(phases)])
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q15.1", phase_edges)

# %% [markdown]
# ## Question 15.2: a step stops at its edge (4 points)
#
# In the loss of phased consistency the teacher's step begins at index $n$ and goes $k$ indices down, but no further than the edge of $n$'s phase. Both
# sides of the loss then jump to that edge. Return, for each sample, the edge and the index where the step ends.


# %%
# ANSWER Q15.2
def stopped_steps(n, edges, k):
    """(edge, end), each (B,), indices.
    n: (B,), indices above 0; edges: (M,), rising, edges[0] = 0; k: int."""
    ### BEGIN SOLUTION
    edge = edges[(edges < n[:, None]).sum(1) - 1]
    return edge, torch.maximum(n - k, edge)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q15.2", stopped_steps)

# %% [markdown]
# ## Question 15.3: several calls without new noise (4 points)
#
# Sample from a student of $M$ phases: from `levels[0]` jump to the noisiest edge, from there to the next one, and so on to the cleanest, which
# is `levels[-1]`. That takes $M$ calls. `levels` has the $N+1$ levels of a grid from noise to data; each has `alpha` and `sigma`. Here the edges lie
# $\lfloor mN/M\rfloor$ places before the end of the list, $m=0,\dots,M-1$. One call `p = model(x, a)` gives `p.x0` and `p.eps` at level `a`. Return $x$ where
# the last jump ends.


# %%
# ANSWER Q15.3
def phased_sample(model, x, levels, phases):
    """The samples at levels[-1], (B, 2).
    x: (B, 2), at levels[0]; phases: M, int."""
    ### BEGIN SOLUTION
    n = len(levels) - 1
    places = [0] + [n - m * n // phases for m in reversed(range(phases))]
    for i, j in zip(places, places[1:]):
        a, s = levels[i], levels[j]
        p = model(x, a)
        x = s.alpha * p.x0 + s.sigma * p.eps
    return x
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q15.3", phased_sample)

# %% [markdown]
# ## Question 15.4: where the discriminator looks (4 points)
#
# PCM noises the student's point from its edge $s_m$ up to a time $s$ of the same phase, before the discriminator sees it. Compute $s_m$ and
# $s=s_m+u\,(s_{m+1}-s_m)$, where $s_{m+1}$ is the *true* next edge above. Phases may be of unequal length. The noisiest phase has no edge above; it ends where the
# grid begins, at `times[0]`.


# %%
# ANSWER Q15.4
def adversarial_times(times, edges, i, u):
    """(s_m, s), each (B,), times.
    times: (N + 1,), falling; edges: (M,), some of these times, falling, the last is times[-1];
    i: (B,), the student's point started at times[i]; u: (B,), from 0 to 1."""
    ### BEGIN SOLUTION
    phase = (edges >= times[i, None]).sum(1)
    edge, top = edges[phase], torch.cat([times[:1], edges])[phase]
    return edge, edge + u * (top - edge)
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q15.4", adversarial_times)

# %% [markdown]
# ## Question 15.5: the hinges (4 points)
#
# The discriminator's loss, and the student's adversarial term with weight $w$, as means over the batch:
#
# $$\mathcal L_D=\mathbb E\big[\max(0,1-D(x^{\text{real}}))+\max(0,1+D(x^{\text{fake}}))\big],\qquad \mathcal L_G=w\,\mathbb E\max(0,1-D(x^{\text{fake}})).$$
#
# `D(x)` returns a tensor (B,) of opinions. Both kinds of points require a gradient. $\mathcal L_D$ must train $D$ and send no gradient into any point; $\mathcal L_G$
# must send its gradient into the fakes. (What $\mathcal L_G$ leaves in $D$'s weights is not looked at.)


# %%
# ANSWER Q15.5
def hinge_losses(D, real, fake, weight):
    """(L_D, L_G), two numbers.
    real, fake: (B, 2); weight: w, float."""
    ### BEGIN SOLUTION
    opinions = (1 - D(real.detach())).clamp(min=0) + (1 + D(fake.detach())).clamp(min=0)
    return opinions.mean(), (weight * (1 - D(fake)).clamp(min=0)).mean()
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
check("Q15.5", hinge_losses)

# %% [markdown]
# ## Before you hand it in
#
# Restart the kernel and run all cells: the last one says how many questions pass. Or test the saved notebook, wherever it is,
# in a terminal in the folder where `make setup` was run; `.venv/bin/python` is the Python that has torch and this book:
#
# ```bash
# .venv/bin/python -m pytest --nbval-lax --nbval-cell-timeout 120 my-assignments/15_phased_consistency.ipynb
# ```

# %%
from book import tally

tally("15")
