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
#     title: Picard iteration
#     summary: Guess the whole path, correct every step of it at once, and trade computing for waiting without changing the sample.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - DDIM and λ (chapter 7; recapped in 9.1)
#       - PyTorch
# ---

# %% [markdown]
# # 9 Picard iteration: all time steps at once
#
# A sampler waits. Each step needs the point that the step before has made, so a hundred steps are a hundred network calls
# *one after another*, while a large accelerator idles. Chapter 8 asked for fewer steps. This chapter keeps the steps
# and makes them all at once.
#
# Both panels start from the same noise, and both wait for **12 network calls one after another**. A grey line ties each
# point to where the exact flow would have carried it.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import math
from functools import partial
from itertools import islice

import dlib
import torch
from numpy.polynomial import Polynomial
from dlib import Draw, Mixture, anderson, exact, guided, metrics
from dlib import picard, plot, reference, sample, solvers, vp, walk
from dlib.parallel import sweeps
from dlib.parallel.picard_iteration import _summed, _sweeps
from toy_data import captioned, gmm5, shapes_teacher
from toy_data.shape_captions import NULL_TOKENS, tokens

schedule, mixture = vp(), gmm5()
model = exact(mixture, schedule)  # the perfect network for this data
levels = partial(dlib.levels, schedule, t_min=1e-2)
x_T = Draw(0).normal((256, 2), torch.float64)  # noise, at t = 1
truth = reference(model, x_T, *levels(1))  # the flow's end points, at t = 0.01

# %%
twelfth = next(islice(sweeps(model, x_T, levels(200), tol=0), 12, None))
labels = (truth[:, None] - mixture.means).norm(dim=2).argmin(1)
panels = {
    "DDIM, 12 steps": sample(model, x_T, levels(12)),
    "12 sweeps over 200 steps": twelfth.points[-1],
}
figure(
    plot.endpoints(panels, truth, labels),
    "After twelve steps DDIM leaves a visible error on most points; "
    "after twelve sweeps over two hundred steps hardly a line can be seen.",
    "Twelve calls one after another, left on 256 points, right on up to 200 × 256.",
)

# %% [markdown]
# The right panel is not a better solver. It is the *same* DDIM with 200 steps, found in 12 rounds instead of 200. The
# caption tells the price: each round asked about all steps not settled yet. This chapter says why so few
# rounds suffice, when the answer is exact to the last bit, and what you pay.
#
# ## 9.1 A sum accepts guesses
#
# **Recap.** A noisy sample is $x_t=\alpha_tx_0+\sigma_t\varepsilon$: pure noise at $t=1$, data at $t=0$. A *level* is one $t$ with its
# $\alpha$ and $\sigma$; ours are evenly spaced in $\lambda=\log(\alpha/\sigma)$. The network looks at $x_t$ and estimates its two parts, $x_\theta$ and
# $\varepsilon$. DDIM [@song2021ddim] puts them together again for the next, cleaner level $b$: one call a step,
# $\Phi(x)=\alpha_bx_\theta(x)+\sigma_b\,\varepsilon(x)$.
#
# Number the levels $0$ (noise) to $N$ (data), and let $\Phi_j$ be the step from level $j$. A sampler is a **chain**,
#
# $$X_{j+1}=\Phi_j(X_j),\qquad X_0=x_T. \label{eq:chain}$$
#
# Add up what the steps change, and it looks no better: every term needs an $X_i$ that is not there yet.
#
# $$X_{j+1}=X_0+\sum_{i\le j}\big[\Phi_i(X_i)-X_i\big]. \label{eq:sum}$$
#
# But a sum accepts *guesses*. Put any points in on the right, make all $N$ steps in one batch, and read new points off on the left. That is
# a **sweep**; repeat it until nothing moves. For an ODE it is Picard's iteration, $x(t)\leftarrow x(1)+\int_1^tf(x(s),s)\,ds$;
# ParaDiGMS [@shih2023paradigms] brought it to diffusion.
#
# Now regroup the sum. Take $\Phi_j(X_j)$ out, and pair each other $\Phi_i(X_i)$ with the guess that it replaces, $X_{i+1}$. The result is this sweep with $A=1$:
#
# $$X_{j+1}\leftarrow\Phi_j(X_j)+\sum_{i<j}A_{ji}\big[\Phi_i(X_i)-X_{i+1}\big],\qquad A_{ji}=\frac{s_{j+1}}{s_{i+1}},\quad s=\sqrt{\alpha^2+\sigma^2}. \label{eq:sweep}$$
#
# The bracket says how wrong a guess was, and the sum passes it on to all later points. The other factor comes from the same sum in another
# unit. Measure each $X_j$ in $s_j$, the size of $x$ for data of variance 1. Write \eqref{eq:sum} for $X_j/s_j$, regroup it as before and
# multiply by $s_{j+1}$: now a bracket grows or shrinks on its way as the points do. Our schedule is variance preserving, with $s=1$, and
# the two sweeps are one. Section 9.6 shows what the factor is for. In the library, with one row a point. Tolerance 0 means "until nothing
# moves":

# %%
# NBVAL_CHECK_OUTPUT
show(_summed)
starts, forty = x_T[:64], levels(40)
found = [picard(model, starts, forty, window=w, tol=0) for w in (1, 7, 40)]
claim(
    "C09.1",
    "DDIM, 1, 7 or 40 steps at once: Picard's samples less the sequential ones",
    max(metrics.rms(run.x, sample(model, starts, forty)) for run in found),
    between=(0, 0),
)
claim(
    "C09.2",
    "the most sweeps of these three runs, over the number of steps",
    max(run.sweeps for run in found) / 40,
    between=(0, 1),
)

# %% [markdown]
# ## 9.2 The triangle of zeros
#
# Not small: zero. **After $k$ sweeps the points $X_0,\dots,X_k$ are exact, whatever the guess.** Call the chain's points $X^*$.
# $X_0$ is exact from the start. Suppose that $X_i=X_i^*$ for all $i\le k$. Then every bracket of \eqref{eq:sweep} with $i<k$ is
# $\Phi_i(X_i^*)-X_{i+1}^*=0$. So one more sweep gives $X_{k+1}=\Phi_k(X_k^*)=X_{k+1}^*$: one point more, and nothing is lost. $N$ sweeps
# always suffice [@shih2023paradigms, prop. 1].
#
# **In floating point too.** A bracket of equal numbers is 0.0, and \eqref{eq:sweep} adds the sum last, to a step that is computed as the
# sequential sampler computes it.
#
# **With noise too.** Ancestral sampling adds fresh noise $z_j$ in every step. Draw all the $z_j$ *before* the first sweep: then a step with its
# noise is a fixed function, and the proof holds. `picard` draws what `sample` would draw, in that order.
#
# Here is the error of every point after every sweep, from the usual guess, all points equal, and once from pure noise.


# %%
def error_map(x, solver=solvers.ddim, guess=None):
    chain = [state.x for state in walk(model, x, forty, solver, draw=Draw(0))]
    found = sweeps(model, x, forty, solver, tol=0, draw=Draw(0), guess=guess)
    return torch.tensor(
        [[metrics.rms(*pair) for pair in zip(sweep.points, chain)] for sweep in found]
    )  # a row a sweep, row 0 the guess


maps = {"DDIM": error_map(starts), "ancestral": error_map(starts, solvers.ancestral)}
wild = error_map(starts, guess=[starts, *(Draw(j).normal(starts) for j in range(1, 41))])

# %%
# NBVAL_CHECK_OUTPUT
three = [*maps.values(), wild]
claim(
    "C09.3",
    "DDIM, ancestral, wild guess: points 0 to k after k sweeps, largest error",
    max(row[: k + 1].max() for run in three for k, row in enumerate(run)),
    between=(0, 0),
)
figure(
    plot.sweeps(maps),
    "Left of the dashed diagonal both maps are white, bitwise exact. DDIM's white "
    "reaches well beyond it and fills the map in about half of the 40 sweeps; the "
    "ancestral sampler's errors stay longer.",
    "40 steps, GMM5. Dashed: point $k$ after $k$ sweeps. White: equal bits.",
)

# %% [markdown]
# White is promised left of the dashed line. That colours fade long before it comes is not.
# ([Explore](../book/pages/explore.md) sweeps with a slider.)
#
# ## 9.3 Why so few sweeps
#
# How fast do the colours fade? Subtract from a sweep, in the form \eqref{eq:sum}, the same sum for the chain:
#
# $$X_{j+1}^{\text{new}}-X_{j+1}^*=\sum_{i\le j}\Big(\big[\Phi_i(X_i)-X_i\big]-\big[\Phi_i(X_i^*)-X_i^*\big]\Big). \label{eq:error}$$
#
# A short step changes little, and what it *changes* depends on $X_i$ only a little: let $\Phi_i-\mathrm{id}$ have Lipschitz constant $l_i$. Then the
# error at $j+1$ is at most $\sum_{i\le j}l_i\lVert X_i-X_i^*\rVert$, with the points of one sweep before. Insert this into itself $k$ times. Each point
# looks at noisier ones only, so the indices fall, $i_1>\dots>i_k$. Each product of $k$ different $l$ comes once; $(\sum l)^k$ has it $k!$ times:
#
# $$\lVert X^{(k)}-X^*\rVert\ \le\!\!\sum_{i_1>\dots>i_k}\!\!l_{i_1}\cdots l_{i_k}\,\lVert X^{(0)}-X^*\rVert\ \le\ \frac{S^k}{k!}\,\lVert X^{(0)}-X^*\rVert,\qquad S=\sum_il_i, \label{eq:factorial}$$
#
# with the largest distance over the points as norm. A factorial beats every power: the error may grow at first, then it plunges. And $l_i$ shrinks
# with the length of the step, so $S$ tends to an integral. **With more steps, the number of sweeps tends to a constant.**
#
# For one Gaussian, $\mathcal N(0,c^2)$, you can see the factorial at work. There a step is a factor, $\Phi_i(x)=(1+l_i)\,x$, now with the sign
# of $l_i$, and from the guess "all equal" induction gives
#
# $$X_j^{(k)}=X_0\sum_{m\le k}e_m(l_0,\dots,l_{j-1}),\qquad e_m=\sum_{i_1>\dots>i_m}l_{i_1}\cdots l_{i_m}. \label{eq:expand}$$
#
# <details><summary>The induction</summary>
#
# \eqref{eq:sum} reads $X_j^{(k+1)}=X_0+\sum_{i\lt j}l_iX_i^{(k)}$. Split the products in $e_{m+1}$ by their largest index $i$: what remains is
# $e_m$ of the factors before it, $e_{m+1}(l_0,\dots,l_{j-1})=\sum_{i\lt j}l_i\,e_m(l_0,\dots,l_{i-1})$. Insert \eqref{eq:expand} for $k$, and it comes out
# for $k+1$. For $k=0$ all points are $X_0$, and $e_0=1$.
#
# </details>
#
# The chain is the product $\prod(1+l_i)$; $k$ sweeps are this product, *multiplied out to degree $k$*. And $j$ factors have no degree above
# $j$: the triangle again. A polynomial in a dummy variable does the multiplying:

# %%
# NBVAL_CHECK_OUTPUT
gaussian = Mixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([0.25]))
line, one = exact(gaussian, schedule), torch.ones(1, 1, dtype=torch.float64)
change = [solvers.ddim(line, one, a, b)[0].item() - 1 for a, b in zip(forty, forty[1:])]
product = math.prod(Polynomial([1, l]) for l in change)
last = [sweep.points[-1].item() for sweep in sweeps(line, one, forty, tol=0)]
claim(
    "C09.4",
    "N(0, c²): the last point after k sweeps, less the product to degree k",
    max(abs(x - e) for x, e in zip(last, product.coef.cumsum())),
    below=1e-12,
)
S, guess_off = sum(map(abs, change)), 1 - last[-1]
claim(
    "C09.5",
    "N(0, c²): its error over S^k/k! times the guess's, k = 1 to 10 (largest)",
    max(abs(last[k] - last[-1]) / guess_off / (S**k / math.factorial(k)) for k in range(1, 11)),
    between=(0, 1),
)

# %% [markdown]
# Now five modes. Count two things: **depth**, the network calls made one after another, and **work**, all evaluations a sample. For a
# sequential sampler both are $N$. *Predict how the depth grows from 50 steps to 400.* By the theory, hardly; we allow half as much again.

# %%
# NBVAL_CHECK_OUTPUT
runs = {n: picard(model, x_T, levels(n), tol=1e-2) for n in (12, 25, 50, 100, 200, 400)}
claim(
    "C09.6",
    "Picard's depth for 400 steps over that for 50",
    runs[400].depth / runs[50].depth,
    below=1.5,
)
claim(
    "C09.7",
    "Picard's work for 400 steps over the sequential sampler's",
    runs[400].work / 400,
    above=1,
)

# %%
curves = {
    "sequential: depth and work": {n: n for n in runs},
    "Picard's work": {n: run.work for n, run in runs.items()},
    "Picard's depth": {n: run.depth for n, run in runs.items()},
}
figure(
    plot.convergence(curves, xlabel="steps $N$", ylabel="network calls"),
    "From 12 steps to 400 Picard's depth grows from 7 to 15 and stays there from 100 "
    "steps on; its work stays three to five times that of the sequential sampler.",
    "DDIM on GMM5, tolerance $10^{-2}$, all steps at once.",
)

# %% [markdown]
# Depth stops growing; work does not. If waiting is your problem, sweep. If paying for evaluations is, take a solver of
# [chapter 8](08_dpm_solver.ipynb) and fewer steps.
#
# ## 9.4 Window, tolerance, and the bill
#
# You need not sweep over all steps, nor to the last bit. ParaDiGMS sweeps a **window** of $w$ steps, which begins at the first unsettled one.
# After each sweep it moves past the points that have settled,
#
# $$\max_{\text{batch}}\ \lVert X_{j+1}^{\text{new}}-X_{j+1}\rVert_{\text{rms}}\le\mathrm{tol}\cdot\sigma_{j+1}, \label{eq:stop}$$
#
# stopping before the first that has not. It always moves past its first point: that was a step from a settled point. (The paper divides by
# the standard deviation of DDPM's posterior instead of $\sigma$, and moves one point further.) This is all of the algorithm. `carry` is $A$;
# `run` makes the window's steps with one network call; `fill` moves the guesses beyond it; `_mix` belongs to the next section:

# %%
# NBVAL_CHECK_OUTPUT
show(_sweeps)
hundred, slow = levels(100), sample(model, x_T, levels(100))
loose = picard(model, x_T, hundred, tol=1e-2).x
apart = (loose - slow).norm(dim=1) / (1e-2 * hundred[-1].sigma)
claim(
    "C09.8",
    "tolerance 0.01: the median sample's distance to DDIM's, over tol · σ",
    apart.median(),
    below=1,
)
claim("C09.9", "tolerance 0.01: the worst sample's, over tol · σ", apart.max(), above=10)

# %% [markdown]
# So **a tolerance is not an error bound**: it bounds what *one* sweep changes. Most samples end closer. A few stood at a fork between two
# modes, where a small change decides. Now vary window and tolerance:

# %%
tried = lambda tol: [
    picard(model, starts, hundred, window=w, tol=tol) for w in (1, 5, 10, 20, 50, 100)
]
trade = {
    f"tolerance {tol:g}": {run.work: run.depth for run in tried(tol)} for tol in (1e-1, 1e-2, 0)
}
figure(
    plot.convergence(trade, xlabel="work: evaluations a sample", ylabel="depth"),
    "At tolerance 0.1 a window of ten divides the depth by seven for a third more "
    "work; wider windows add more work than they save depth.",
    "100 DDIM steps. From left to right: windows of 1, 5, 10, 20, 50, 100.",
)

# %% [markdown]
# - **Depth** is latency *if* a call on $w$ states takes as long as a call on one: while the device has idle
#   units, or while you have more devices. On one CPU thread Picard is slower (measured: `bench/parallel.py`).
# - **Work** is energy and money, and never less than the sequential sampler's: every step is made at least once.
# - **Memory** holds $w$ times the activations of one state, twice that with guidance.
#
# ## 9.5 Memory of two kinds
#
# **Solvers with memory** are refused. DPM-Solver++(2M) uses the answer of the step before. Steps made at the same time have no
# before: each would be a *first* step, which is DDIM. Solvers that ask several times inside a step are welcome: DPM-Solver-3 makes
# three calls a sweep.
#
# **Sweeps with memory** may be fewer. ParaTAA [@tang2024parataa] turns two knobs:
#
# - The *order* $q$ keeps the last $q-1$ brackets of \eqref{eq:sweep}. $q=1$ is the bare chain, along which news travels one point a
#   sweep; $q=N$ is Picard.
# - *Anderson mixing* remembers $m$ iterates with the present one ($m=1$: no mixing). Let $R_j=X_j^{\text{new}}-X_j$ be what a sweep changes, and $\Delta X$, $\Delta R$ the differences
#   to former iterates. Take the combination that would have made the change smallest:
#
# $$X_j\leftarrow X_j^{\text{new}}-(\Delta X_j+\Delta R_j)\,\gamma_j,\qquad \gamma_j=\arg\min_\gamma\sum_{i\le j}\lVert R_i-\Delta R_i\gamma\rVert^2. \label{eq:mix}$$
#
# The sum looks at noisier points only, so what is exact stays exact. The first unfinished point is never mixed, and $N$ sweeps
# still suffice. (The released code carries DDIM's linear part along the chain; ours carries the size, by $A$.) The function is `anderson`:


# %%
# NBVAL_CHECK_OUTPUT
def rounds(solver, order, memory=1):
    """Sweeps to tolerance 10⁻³ for 60 steps, added up over four batches of 64 starts."""
    return sum(
        anderson(
            model, x, levels(60), solver, tol=1e-3, draw=Draw(3), order=order, memory=memory
        ).sweeps
        for x in x_T.split(64)
    )


plain = rounds(solvers.ancestral, 60)
claim(
    "C09.10",
    "ancestral, order 1: sweeps over steps",
    rounds(solvers.ancestral, 1) / 240,
    between=(0.9, 1),
)
claim("C09.11", "ancestral, order 60, which is Picard: sweeps over steps", plain / 240, below=0.6)
claim(
    "C09.12",
    "ancestral, order 60: sweeps with mixing (m = 3) over those without",
    rounds(solvers.ancestral, 60, 3) / plain,
    below=0.9,
)
claim(
    "C09.13",
    "DDIM, order 60: sweeps with mixing over those without",
    rounds(solvers.ddim, 60, 3) / rounds(solvers.ddim, 60),
    between=(0.75, 1.35),
)

# %% [markdown]
# Order first, mixing second. Noise makes sweeps many, and there mixing pays. For DDIM the paper's gain is **not reproduced** on this data.
#
# ## 9.6 What should look wrong here
#
# EDM's samplers work in $y=x/\alpha$, whose size falls from 152 to about 1 along our levels. Sweep in $y$, and leave the factor $A$ of
# \eqref{eq:sweep} out. The chain is the same chain; the triangle holds. *Predict the error after the first sweeps.*


# %%
# NBVAL_CHECK_OUTPUT
@solvers.solver(order=1)
def ddim_in_y(model, y, a, b, *rest, **more):
    x, memory = solvers.ddim(model, a.alpha * y, a, b, *rest, **more)
    return x / b.alpha, memory  # the library takes y for x: A = 1


in_y = error_map(starts / forty[0].alpha, ddim_in_y)
claim(
    "C09.14",
    "in y without the factor: largest error over that of the guess",
    in_y.max() / in_y[0].max(),
    above=10,
)
figure(
    plot.sweeps({"in $x$": maps["DDIM"], "in $y$, no factor": in_y}),
    "In y the error grows to thousands in the first sweeps and needs some thirty to "
    "vanish; in x it falls from the start and is gone after about half of the 40.",
    "The same 40 DDIM steps in two variables. In $y$ little more is white than promised.",
)

# %% [markdown]
# Equation \eqref{eq:factorial} knows why. On $\mathcal N(0,c^2)$ with $c=\tfrac14$ the sum $S$ tends to the logarithm of how far the
# point's size moves. In $x$ it goes from 1 to $c$: $S=\ln4=1.4$. In $y$ it goes from 152 to $c$: $S=\ln608=6.4$, and
# $6.4^6/6!\approx95$. The factor $A$ makes the library's sweeps those of $x/s$, in which all schedules with the same $\lambda$ are one
# (measured: `tests/dlib/test_parallel.py`).
#
# ## 9.7 Rung 2: captioned shapes
#
# A trained network: the small transformer that draws captions such as "a small green square", guided with $\omega=2$, 50 steps on
# Stable Diffusion's schedule, in float32. Window 10, tolerance 0.1, as in ParaDiGMS' code.

# %%
world = guided(shapes_teacher(), 2.0, NULL_TOKENS)
text = tokens(captioned(32, seed=1)[1])  # 32 captions
noise = Draw(1).normal((32, 3, 16, 16))
stops = dlib.levels(world.schedule, 50, "sd_trailing")
with torch.no_grad():
    slow = sample(world, noise, stops, cond=text)
    fast = picard(world, noise, stops, window=10, tol=0.1, cond=text)
    early = list(islice(sweeps(world, noise[:10], stops, tol=0, cond=text[:10]), 9))
rows = {f"{k} sweeps over all steps": early[k].points[-1] for k in (2, 4, 8)}
rows |= {
    f"window 10: {fast.depth} deep, work {fast.work}": fast.x[:10],
    "in turn: 50 deep, work 50": slow[:10],
}
figure(
    plot.pictures(rows),
    "After two and four sweeps glaring blots on black; after eight, shapes, speckled "
    "and in wrong colours; the window of ten shows the sequential pictures.",
    "Ten captions, the same noise in each column.",
)

# %% [markdown]
# We ask for a third of the depth, and that most pictures come within a twentieth of their range.

# %%
# NBVAL_CHECK_OUTPUT
apart = (fast.x - slow).flatten(1).square().mean(1).sqrt()
claim(
    "C09.15", "shapes, window 10, tolerance 0.1: depth over steps", fast.depth / 50, below=1 / 3
)
claim(
    "C09.16",
    "the median picture: RMS distance to the sequential one (range 2)",
    apart.median(),
    below=0.1,
)
claim(
    "C09.17",
    "pictures that are more than 0.1 off, over all 32",
    (apart > 0.1).double().mean(),
    below=0.25,
)

# %% [markdown]
# A few differ more. Forks, as in 9.4, would explain it.
#
# ## 9.8 In practice
#
# - **Published.** ParaDiGMS: 2 to 4 times the speed of sequential sampling, 14.6 s for
#   1000-step Stable Diffusion 2, with no measurable loss of FID or CLIP score [@shih2023paradigms]. ParaTAA: 4 to 14 times fewer
#   rounds, the pictures of 100-step DDIM in 7 [@tang2024parataa]. *Not reproduced here.*
# - **When.** Parallel rounds are for chains you must keep:
#   1000-step ancestral sampling, or a result that must equal another run's.
# - **Batch.** The slowest sample moves the window. Parallel sampling is for batch 1; a server with a queue should batch requests.
# - **Bits.** A network may round a batch of 500 differently from a batch of 2. Exactness needs rows that do not depend on their neighbours:
#   `--chunk 1` gives them, and is no longer parallel (measured: `tests/full_scale/test_sd_parallel.py`). In bfloat16 the third digit
#   differs; a tolerance below that never settles early.
# - **Ends must agree.** With `set_alpha_to_one` false, as Stable Diffusion has it, diffusers' `DDIMParallelScheduler` ends its batched step
#   at $\bar\alpha=1$ and its sequential one at $\bar\alpha_0$: two results.
# - **Where the toy stops being true.** GMM5's network is free and smooth. $S$ grows with guidance and with rough networks.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.families.sd.denoiser(unet, scheduler_config)` |
# | `picard(model, x, levels, window=10, tol=0.1)` | the same function object |
# | `fast.depth`, `fast.work` | `depth` and `work` in settings.json |
# | the window, one batch | the same, shared by the processes of torchrun |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" \
#     --parallel-in-time picard --window 10 --tol 0.1 --solver ddim --steps 50 --grid sd_trailing
#
# torchrun --standalone --nproc_per_node 8 -m full_scale.sample --weights DIR_OR_HUB_ID \
#     --prompt "a lighthouse at dusk" \
#     --parallel-in-time picard --window 16 --tol 0.1 --solver ddim --steps 50 --grid sd_trailing
# ```
#
# **How far up the ladder.** Rung 1: exact to the bit, for every window and with noise. Rung 2: a trained guided network, at a quarter of the
# depth. Rung 3: the same function on Stable Diffusion's classes with random weights, in the test suite; no time was
# measured on an accelerator.
#
# ## 9.9 Exercises
#
# 1. *(pencil)* Tolerance 0, window $w$, $N$ steps of one call. Show that the work is at most $Nw-\tfrac12w(w-1)$. Which $w$ is worst?
# 2. *(code)* Write a solver that takes `solvers.ancestral`'s step with noise of its own, drawn anew whenever it is asked. Predict the sweeps of `picard`
#    at tolerance 0.1. Check: as many as steps. Are the samples wrong?
# 3. *(code)* Program a sweep by \eqref{eq:sum} as it stands, with `cumsum`. Are the points $0$ to $k$ exact after $k$ sweeps? Check with `==`.
# 4. *(open)* Find a stopping rule that bounds the distance to the sequential sample, at little cost. Check it on the forks of 9.4.
#
# <details><summary>Answer to 1</summary>
#
# The window moves by one at least, so sweep $k$ starts at step $k$ or later and holds at most $\min(w,N-k)$ steps, $k=0,\dots,N-1$. The sum is
# $(N-w)w+\tfrac12w(w+1)$, which is $Nw-\tfrac12w(w-1)$. It grows with $w$ up to $w=N$: $\tfrac12N(N+1)$.
#
# </details>
#
# <details><summary>Answer to 3</summary>
#
# ```python
# points = torch.stack([starts] * 41)
# made = torch.stack([solvers.ddim(model, *rest)[0] for rest in zip(points, forty, forty[1:])])
# points = torch.cat([points[:1], starts + (made - points[:-1]).cumsum(0)])       # one sweep
# ```
#
# For some sweeps, yes; then rounding errors of about $10^{-16}$ appear: on paper $X_0+(X_1-X_0)$ is $X_1$, in floats it need not be
# (measured: `tests/dlib/test_picard_slips.py`, which also checks 1 and 2).
#
# </details>
#
# ## References
#
# Picard iteration over a window, with its exactness: [@shih2023paradigms]. The triangular system, orders and mixing: [@tang2024parataa]. DDIM:
# [@song2021ddim]. EDM's variable: [@karras2022edm]. High-order solvers, to compare with: [@lu2022dpm; @lu2022dpmpp].
