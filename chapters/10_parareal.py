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
#     title: Parareal
#     summary: Long steps guess where every block of short steps begins; a correction makes the guess exact, block by block, to the last bit.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - DDIM (recapped in 10.1)
#       - Picard iteration, to compare with (chapter 9; not needed to follow)
#       - PyTorch
# ---

# %% [markdown]
# # 10 Parareal: a coarse solver corrects many fine ones
#
# You want the sample that 400 small steps give, and you do not want to wait for 400 network calls one after another. Twenty
# *long* steps are quick and wrong, as the left panel shows. A grey line ties each point to where the 400 steps would have
# carried it.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
from functools import partial
from itertools import islice
from unittest.mock import patch

import dlib
import torch
from dlib import CLEAN, NULL, Draw, exact, guided, metrics
from dlib import parareal, picard, plot, sample, solvers, vp, walk
from dlib.parallel import iterations
from dlib.parallel.parareal_iteration import _Pipeline
from toy_data import digits_teacher, gmm5

schedule, mixture = vp(), gmm5()
model = exact(mixture, schedule)  # the perfect network for this data
levels = partial(dlib.levels, schedule, t_min=1e-2)
x_T = Draw(0).normal((256, 2), torch.float64)  # noise, at t = 1
fine = sample(model, x_T, levels(400))  # what we want: 400 steps of DDIM

# %%
guess, _, _, third = islice(iterations(model, x_T, levels(400)), 4)
labels = (fine[:, None] - mixture.means).norm(dim=2).argmin(1)
panels = {
    f"20 long steps: {guess.depth} calls": guess.starts[-1],
    f"3 corrections: {third.depth} calls": third.starts[-1],
}
figure(
    plot.endpoints(panels, fine, labels),
    "After twenty long steps most points are visibly off; after three "
    "corrections hardly a line can be seen.",
    "Grey: the distance to the result of 400 steps, one after another.",
)

# %% [markdown]
# On the right the same long steps have been corrected three times: 77 calls one after another instead of 400. Corrected by what?
# By the small steps themselves, made in 20 places *at the same time*. This chapter derives the correction, proves that it ends at
# the 400-step sample to the last bit, and counts what you wait for and what you pay.
#
# ## 10.1 Guess the starts, correct the starts
#
# **Recap.** A noisy sample is $x=\alpha x_0+\sigma\varepsilon$, pure noise at $t=1$ and data at $t=0$. A *level* is a time with its $\alpha$
# and $\sigma$. From $x$ and its level the network predicts the data, $x_\theta(x)$, and the noise, $\varepsilon(x)$. A **DDIM** step mixes the two anew
# for a cleaner level $b$ [@song2021ddim]: $x\mapsto\alpha_b\,x_\theta(x)+\sigma_b\,\varepsilon(x)$, one network call. Small steps follow the
# path from noise to data, long ones leave it.
#
# Cut $N$ steps into $K$ **blocks** of $J$ steps. Two maps cross block $i$:
#
# - $F_i$, the *fine* one: its $J$ small steps. $J$ calls, one after another.
# - $G_i$, the *coarse* one: a single long step from the block's first level to its last. One call.
#
# The sequential sampler is the **chain** $U_{i+1}^*=F_i(U_i^*)$ with $U_0^*=x_T$. Begin with the cheap chain,
# $U_{i+1}^0=G_i(U_i^0)$: the left panel. It guesses where each block starts, so all blocks can be solved *at once*. Their ends
# show that the starts were wrong; block $i$ should have begun not at $U_i^{p-1}$ but at a better $U_i^p$. How far would that move the block's
# end? $F$ knows, for another $J$ calls. Ask $G$ instead:
#
# $$U_{i+1}^{p}=F_i(U_i^{p-1})+\big[G_i(U_i^{p})-G_i(U_i^{p-1})\big] \label{eq:update}$$
#
# with $U_0^p=x_T$. This is **parareal** [@lions2001parareal], brought to diffusion as SRDS, *self-refining diffusion samplers* [@selvam2024srds]. Only
# the bracket is sequential, one coarse call a block. In the library, where `None` means "not known yet", `fine[p, i]` is $F_i(U_i^p)$ and `coarse[p, i]` is $G_i(U_i^p)$, and with tolerance 0, which
# iterates until the end does not change in any bit:

# %%
# NBVAL_CHECK_OUTPUT
show(_Pipeline._next)
settled = parareal(model, x_T, levels(400), tol=0)
claim(
    "C10.1",
    "400 steps, tolerance 0: parareal's samples less the sequential ones (RMS)",
    metrics.rms(settled.x, fine),
    between=(0, 0),
)

# %% [markdown]
# ## 10.2 Exact, block by block
#
# Not close: equal. **After $p$ iterations the starts $U_0,\dots,U_p$ are the chain's.** Start 0 is given. Suppose start $i$ is exact
# from iteration $i$ on, and take any $p\ge i+1$. Then $U_i^p$ and $U_i^{p-1}$ are *both* $U_i^*$. The bracket of \eqref{eq:update} is the
# difference of two equal numbers, and $U_{i+1}^p=F_i(U_i^*)=U_{i+1}^*$: start $i+1$ is exact from iteration $i+1$ on.
# So $K$ iterations always suffice. Nothing had to contract, and $G$ may be any function at all.
#
# It holds in floating point too, because the bracket is *one* number, added last: $F+(G-G)=F+0$. (Where it must be zero the library does
# not even compute it.)
#
# Here is the error of every block's start after every iteration: for DDIM, and for *ancestral* steps, DDPM's sampler, which
# adds noise in each step. All noise is drawn beforehand, so $F$ is a fixed function there as well.

# %%
# NBVAL_CHECK_OUTPUT
starts = x_T[:64]


def error_map(solver):
    """(iterations + 1, 11): RMS error of every start; row 0 is the coarse guess."""
    path = [state.x for state in walk(model, starts, levels(100), solver, draw=Draw(1))]
    found = iterations(model, starts, levels(100), solver, tol=0, draw=Draw(1))
    return torch.tensor(
        [[metrics.rms(x, path[n]) for x, n in zip(run.starts, run.edges)] for run in found]
    )


maps = {"DDIM": error_map(solvers.ddim), "ancestral": error_map(solvers.ancestral)}
for number, (name, errors) in enumerate(maps.items(), start=2):
    claim(
        f"C10.{number}",
        f"{name}: the first p blocks after p iterations, largest error",
        max(row[: p + 1].max() for p, row in enumerate(errors)),
        between=(0, 0),
    )

# %%
figure(
    plot.sweeps(maps),
    "Below the dashed diagonal both maps are white, bitwise exact. Above it DDIM's "
    "error falls faster and faster; the ancestral one stays large until the diagonal "
    "is near.",
    "10 blocks of 10 steps. Point $j$: where block $j$ starts; a sweep: an iteration.",
)

# %% [markdown]
# Theory promises the white triangle and no more. Left, the colours say that you need not wait for it. Right, they say that you
# must; section 10.6 asks why. ([Explore](../book/pages/explore.md) goes through the iterations with a slider.)
#
# ## 10.3 The pipeline
#
# Count the calls made one after another, the **depth**. It is what you wait for, if a call on many states takes as long as
# a call on one. The guess takes $K$. Then each iteration takes $J$ for the fine solves and $K$ for the brackets: $K+p(J+K)$ in all, and most
# blocks idle most of the time.
#
# But $F_i(U_i^{p-1})$ needs *only* $U_i^{p-1}$. Start it when that arrives, while later blocks still wait for theirs. Let $U_i^p$ be
# known after $T(p,i)$ calls; the guess has $T(0,i)=i$. The next start needs the end of a fine solve, and a coarse step:
#
# $$T(p,i+1)=\max\big\{T(p-1,i)+J,\;T(p,i)+1\big\}. \label{eq:ready}$$
#
# By induction $T(p,i)=i+p(J-1)$ for $i\ge p$. For a start $i+1$ that follows a start $i\ge p$ both entries of the maximum agree: each is
# $i+1+p(J-1)$. The diagonal, $i+1=p$, is a case of its own, since there $i<p$. Start $p-1$ has been exact since iteration $p-1$ (section
# 10.2) and does not move again, so $T(p,p-1)=T(p-1,p-1)=(p-1)J$. The entries are $pJ$ and $(p-1)J+1$. The larger is $pJ$, as the formula
# says. The last start is there after
#
# $$\text{depth}=K+p\,(J-1). \label{eq:depth}$$
#
# At worst, for $p=K$, this is $KJ=N$: **never later than the sequential sampler**. Without the pipeline the worst case is about $2N$.
# In the library, one call advances all that can be advanced. (`under_way` holds the next step and the state of each fine solve, `new` the
# starts whose coarse step is due; `_steps` makes them all in one call, and `_learn` notes a start and begins its fine solve.)

# %%
show(_Pipeline._tick)
*_, third = islice(iterations(model, starts, levels(36)), 4)
figure(
    plot.pipeline(third.timetable),
    "The bars of one iteration form a staircase, one call later in each block; in "
    "each block the next iteration's bar begins in the last call of this one's.",
    "6 blocks of 6 steps until the third iteration is known: 21 calls, not 36.",
)

# %% [markdown]
# Any $N$, any $K$, stopped early or not at all:

# %%
# NBVAL_CHECK_OUTPUT
shapes = ((100, 10), (96, 8), (36, 6), (100, 5), (100, 20))
runs = {
    (N, K, tol): parareal(model, starts[:8], levels(N), blocks=K, tol=tol)
    for N, K in shapes
    for tol in (0.1, 0)
}
excess = [run.depth - (K + run.sweeps * (N // K - 1)) for (N, K, tol), run in runs.items()]
claim(
    "C10.4", "depth less K + p(J−1), largest of ten runs", max(map(abs, excess)), between=(0, 0)
)
claim(
    "C10.5",
    "the worst case, tolerance 0: largest depth over N",
    max(run.depth / N for (N, K, tol), run in runs.items()),
    between=(1, 1),
)

# %% [markdown]
# What the pipeline does not save is **work**, all evaluations together: about $N$ for each iteration.
#
# ## 10.4 Why few iterations
#
# For data $\mathcal N(0,c^2)$ both maps are factors, $F_i(U)=f_iU$ and $G_i(U)=g_iU$, and \eqref{eq:update} reads
# $U_{i+1}^p=g_iU_i^p+(f_i-g_i)U_i^{p-1}$. Each block contributes $g_i$, or $f_i-g_i$ at the price of one iteration. With $p$ iterations
# to spend, and $r_j=(f_j-g_j)/g_j$,
#
# $$U_i^{p}=x_T\prod_{j\lt i}g_j\;\sum_{m\le p}e_m(r_0,\dots,r_{i-1}), \label{eq:gauss-rounds}$$
#
# where $e_m$ is the sum of all products of $m$ different $r_j$. The chain is $\prod f_j=\prod g_j(1+r_j)$; $p$ iterations are this product
# *multiplied out to degree $p$* in how wrong the coarse step is. Of $i$ factors there is no degree above $i$: the triangle again.
# (Assignment 10 has you check this.)
#
# A first-order step over a block of length $1/K$ is off by $r_j=O(K^{-2})$. So the first term left out is at most
#
# $$e_{p+1}\le\frac{1}{(p+1)!}\Big(\sum_j|r_j|\Big)^{p+1}=O\big(K^{-(p+1)}\big). \label{eq:order}$$
#
# Each iteration gains an order, for smooth equations in general [@gander2007parareal]. **More blocks do not need more
# iterations.** Here are the orders on GMM5, from the geometric mean of the samples' errors with 60, 120 and 240 blocks of 2 steps. The bounds
# are those of chapter 8, ± 0.15:

# %%
# NBVAL_CHECK_OUTPUT
left = {p: {} for p in range(3)}  # iteration ↦ blocks ↦ error of the end
for K in (60, 120, 240):
    chain = sample(model, starts, levels(2 * K))
    for p, run in zip(left, iterations(model, starts, levels(2 * K), blocks=K, tol=0)):
        left[p][K] = metrics.typical(run.starts[-1], chain)
for p in left:
    claim(
        f"C10.{6 + p}",
        f"order in 1/K of the error after {p} iterations",
        metrics.order(left[p]),
        between=(p + 0.85, p + 1.15),
    )

# %% [markdown]
# ## 10.5 Iterations against the number of steps
#
# With a constant $p$, \eqref{eq:depth} is about $(p+1)\sqrt N$ for $K=J=\sqrt N$, the library's choice. `parareal` stops when an iteration moves
# the end by at most tol·σ (root mean square, largest of the batch). That bounds a change, not an error; since errors fall
# so fast, the error is far smaller.
#
# *Predict the iterations for 1600 steps of GMM5, if 100 need seven.* $N$ grows by 16 and $K$ by 4; by the theory $p$ hardly grows, and we
# allow half as many again. The work should be about $p$ times the sequential one; settled blocks save a little, solves begun too
# early cost a little.

# %%
# NBVAL_CHECK_OUTPUT
steps = (36, 100, 400, 1600)
runs = {N: parareal(model, x_T, levels(N), tol=1e-2) for N in steps}
claim(
    "C10.9",
    "iterations for 1600 steps over those for 100",
    runs[1600].sweeps / runs[100].sweeps,
    below=1.5,
)
claim(
    "C10.10",
    "work for 1600 steps over p times 1600",
    runs[1600].work / (1600 * runs[1600].sweeps),
    between=(0.9, 1.1),
)

# %% [markdown]
# Is it the best way to wait less? Chapter 9's Picard iteration corrects *all* points of a window at once. Give it a window of
# $\sqrt N$, about as many states in flight, and a tolerance of $10^{-6}$, lest it win by being less exact:

# %%
# NBVAL_CHECK_OUTPUT
windows = {N: picard(model, x_T, levels(N), window=round(N**0.5), tol=1e-6) for N in steps[:3]}
share = lambda found: {N: run.depth / N for N, run in found.items()}
curves = {
    "one after another": dict.fromkeys(steps, 1),
    "parareal": share(runs),
    "Picard, window √N": share(windows),
}
figure(
    plot.convergence(curves, xlabel="steps $N$", ylabel="depth over $N$"),
    "Parareal's depth falls from nearly all of the steps at 36 to a sixth of them at "
    "1600; Picard's window is shallower at 36, 100 and 400 steps.",
    "GMM5. Parareal stops at tolerance $10^{-2}$, Picard at $10^{-6}$.",
)
claim(
    "C10.11",
    "400 steps: Picard's depth over parareal's",
    windows[400].depth / runs[400].depth,
    below=1,
)
claim(
    "C10.12",
    "and Picard's RMS distance to the sequential samples",
    metrics.rms(windows[400].x, fine),
    below=1e-5,
)

# %% [markdown]
# Two things to say plainly. **You pay $p$ times the work.** And on GMM5 Picard waits less *and* works less, 64 calls instead of 153
# at 400 steps. Parareal's case is another: blocks that run
# *alone* for $J$ calls, each on its own device, and meet only at their ends. Picard's states meet after every call.
#
# ## 10.6 Noise, and a trained network
#
# All depends on $r_j$: what counts is not that $G$ lands near $F$, but that it *moves* as $F$ moves when the start moves. Ancestral
# steps show the difference. Their noise, drawn beforehand, is a constant that cancels in \eqref{eq:update}. But their drift uses the
# score twice where DDIM uses it once, so $r_j$ is $O(K^{-1})$, $\sum r_j$ does not shrink with more blocks, and iterations are no longer
# cheap. That was the right map of section 10.2; exercise 3 repairs it.
#
# **Rung 2.** A trained network in float32: the digits' teacher, guided with $\omega=1$, to $\sigma=0$, with tolerance 0.1. There is no formula for its
# $r_j$. The count should still hardly grow, and while errors at least halve, the error is below the last change.

# %%
# NBVAL_CHECK_OUTPUT
teacher = guided(digits_teacher(), omega=1.0, null=NULL)
to_clean = lambda n: [*levels(n - 1), CLEAN]
noise, digit = Draw(4).normal((10, 1, 8, 8)), torch.arange(10)
few = parareal(teacher, noise, to_clean(25), tol=0.1, cond=digit)
many = parareal(teacher, noise, to_clean(225), tol=0.1, cond=digit)
in_turn = sample(teacher, noise, to_clean(225), cond=digit)
claim(
    "C10.13",
    "digits: iterations for 225 steps over those for 25",
    many.sweeps / few.sweeps,
    below=1.5,
)
claim(
    "C10.14",
    "digits, 225 steps: RMS distance to the sequential pictures over tol·σ",
    metrics.rms(many.x, in_turn) / (0.1 * to_clean(225)[-2].sigma),
    below=1,
)

# %%
seen = list(islice(iterations(teacher, noise, to_clean(225), cond=digit), 3))
rows = {"225 in turn": in_turn, "15 long steps": seen[0].starts[-1]}
for p, run in enumerate(seen):
    rows[f"error × 4, corrections: {p}"] = 4 * (run.starts[-1] - in_turn).abs() - 1
figure(
    plot.pictures(rows),
    "Fifteen long steps give the right digits with errors along every stroke; one "
    "correction leaves faint traces of them, two leave blank paper.",
    f"Same network and noise in a column. The last row: {seen[2].depth} calls deep, not 225.",
)

# %% [markdown]
# ## 10.7 What should look wrong here
#
# Two slips in \eqref{eq:update}: a wrong sign, $F-(G'-G)$, and parentheses left out, $F+G'-G$. *Predict for each, with 400 steps
# and tolerance 0: is the sample still right, and after how many of at most 20 iterations?*

# %%
# NBVAL_CHECK_OUTPUT
right = _Pipeline._next


def slipped(update):
    """parareal with update(F, G', G), also where the library knows that G' − G is zero."""

    def following(self, p, i):
        if right(self, p, i) is None or p == 0:
            return right(self, p, i)
        new, old = self.coarse_ends[min(p, i), i], self.coarse_ends[p - 1, i]
        return update(self.fine_ends[p - 1, i], new, old)

    with patch.object(_Pipeline, "_next", following):
        return parareal(model, x_T, levels(400), tol=0)


flipped = slipped(lambda F, new, old: F - (new - old))
opened = slipped(lambda F, new, old: F + new - old)
claim(
    "C10.15",
    "wrong sign: samples less the sequential ones",
    metrics.rms(flipped.x, fine),
    between=(0, 0),
)
claim("C10.16", "wrong sign: iterations over blocks", flipped.sweeps / 20, between=(1, 1))
claim(
    "C10.17",
    "no parentheses: samples less the sequential ones",
    metrics.rms(opened.x, fine),
    between=(1e-17, 1e-12),
)

# %% [markdown]
# The wrong sign ends at *exactly* the right sample: the proof of section 10.2 never asks what $G$ says. Only the count gives it away: all 20
# iterations, the sequential depth, where the right sign needs 15 to 17, depending on how your processor rounds the last bit. For in
# \eqref{eq:gauss-rounds} $g$ becomes $-g$ and $r_j$ about $-2$. So test the count as well as the sample.
#
# The missing parentheses leave rounding errors. They are harmless in a picture. They are not harmless in a test: "equal to the
# sequential sampler" can be checked for equality, "nearly equal" hides the next mistake.
#
# ## 10.8 In practice
#
# Part II on one card. (With fewer calls than a handful no sampler helps; then change the network: Part III.)
#
# | what is dear | take | where |
# |---|---|---|
# | network calls | `unipc_3` on the `arctan` grid; for about 6 calls `dpm_solver_pp_2m` | 8.12 |
# | waiting, and one device has room for many states | `picard` with a window | 9.4 |
# | waiting, and devices are slow to talk to each other | `parareal` | here |
#
# - **Published.** SRDS reports up to 1.7 times the speed of 25-step Stable Diffusion 2 and up to 4.3 times on longer trajectories; the
#   conference abstract, up to 2.3 times at 100 steps [@selvam2024srds]. Wall-clock times on GPUs, *not reproduced here*: on the one
#   CPU thread of this page a batch costs what its rows cost, and parareal is slower than `sample`.
# - **Short chains gain little.** At $N=25$ and $K=5$, \eqref{eq:depth} is $5+4p$: two iterations 13, four 21.
# - **Memory.** About $K$ states in flight, twice that with guidance.
# - **$p$ is not a quality knob.** An unfinished iterate is nobody's sample. Use the tolerance; $10^{-2}$ to $10^{-1}$ of σ was ample here.
#   (SRDS thresholds the mean absolute difference of pictures.)
# - **Rounded timesteps.** If $F$ rounds its blocks' ends to integers, parareal converges to another sampler's picture, exactly. If only $G$
#   does, it costs iterations.
# - **$G$ must be a function.** Dropout, or kernels that change between calls, leave a bracket that never vanishes.
# - **As in chapter 9**: bits need `--chunk 1`, and solvers with memory are refused. The ancestral step is welcome as $F$, not as $G$.
# - **Where the toy stops being true.** GMM5's ε is smooth; a large network's, strongly guided, makes larger $r_j$.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.families.sd.denoiser(unet, scheduler_config)` |
# | `parareal(model, x, levels, tol=1e-2)` | the same function object |
# | `found.depth`, `found.work` | `depth` and `work` in settings.json |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" \
#     --parallel-in-time parareal --tol 0.01 --solver ddim --steps 25 --grid sd_trailing
#
# torchrun --standalone --nproc_per_node 8 -m full_scale.sample --weights DIR_OR_HUB_ID \
#     --prompt "a lighthouse at dusk" \
#     --parallel-in-time parareal --tol 0.01 --solver ddim --steps 100 --grid sd_trailing
# ```
#
# Under torchrun the rows of each call are shared among the processes.
#
# **How far up the ladder.** Rung 1: exact to the bit, depth to the unit. Rung 2: a trained guided network. Rung 3: the same
# function on Stable Diffusion's classes with random weights, in the test suite; no time was measured on an accelerator.
#
# ## 10.9 Exercises
#
# 1. *(pencil)* Fix $N$ and $p$. Which $K$ makes \eqref{eq:depth} smallest, and how small? Is $\sqrt N$ best?
# 2. *(code)* Take blocks of one step and a coarse solver that *stays put*, $G(U)=U$. Show that \eqref{eq:update} is then chapter 9's Picard
#    sweep. Check: the starts of `iterations(…, coarse=stay, blocks=20, tol=0)` and the points of `dlib.parallel.sweeps(…, tol=0)` agree
#    to $10^{-12}$ after each of their rounds on 20 steps.
# 3. *(code)* Give the ancestral $F$ a coarse step that moves as it does: the *mean* of an ancestral step. Predict whether it needs fewer
#    iterations than DDIM's long step at 400 steps and tolerance $10^{-2}$. Check: at most four fifths.
# 4. *(open)* Blocks of equal length in λ are a choice. Find `edges` for GMM5 that save an iteration at 400 steps: count the items of
#    `_Pipeline(model, x_T, levels(400), [None] * 400, solvers.ddim, solvers.ddim, edges, None).run(1e-2)`, less one.
#
# <details><summary>Answer to 1</summary>
#
# With $J=N/K$ the depth is $K+pN/K-p$, smallest at $K=\sqrt{pN}$, where it is $2\sqrt{pN}-p$. At $K=\sqrt N$ it is $(p+1)\sqrt N-p$. So
# $\sqrt N$ is best only for $p=1$; more blocks cost devices instead. The cell below tries 400 steps, where $\sqrt{7\cdot400}=53$.
#
# </details>
#
# Answers as code that runs; solve 3 before you read on:

# %%
# NBVAL_CHECK_OUTPUT
fifty = parareal(model, x_T, levels(400), blocks=50, tol=1e-2)
claim(
    "C10.18",
    "400 steps: depth of 50 blocks over that of 20",
    fifty.depth / runs[400].depth,
    below=0.85,
)


@solvers.solver(order=1)
def mean_step(model, x, a, b, memory=None, noise=None, cond=None):
    return solvers.ancestral(model, x, a, b, memory, torch.zeros_like(x), cond)


by_mean, by_ddim = (
    parareal(model, starts, levels(400), solvers.ancestral, coarse, tol=1e-2, draw=Draw(1)).sweeps
    for coarse in (mean_step, solvers.ddim)
)
claim(
    "C10.19",
    "ancestral: iterations with its mean as G over those with DDIM",
    by_mean / by_ddim,
    below=0.8,
)

# %% [markdown]
# ## References
#
# Parareal: [@lions2001parareal]; its convergence, order by order: [@gander2007parareal]. For diffusion, with the pipeline and
# $\sqrt N$ blocks: [@selvam2024srds]. Picard's sweeps, to compare with: [@shih2023paradigms]. DDIM: [@song2021ddim].
