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
#       - DDIM and λ (recapped in 9.1), from chapter 8
#       - PyTorch
# ---

# %% [markdown]
# # 9 Picard iteration: all time steps at once
#
# A sampler waits. Each step needs the point that the step before has made, so a hundred steps are a hundred network calls
# *one after another*, while most of a large accelerator idles. Chapter 8 asked for fewer steps. This chapter keeps the steps
# and makes them at the same time.
#
# Both panels start from the same noise, and both wait for **12 network calls one after another**. A grey line ties each
# point to where the exact flow would have carried it.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import math
from dataclasses import replace
from itertools import islice

import torch
from dlib import Draw, Mixture, anderson, edm, exact, flow, grid, guided, metrics
from dlib import picard, plot, reference, sample, solvers, vp, walk
from dlib.parallel import sweeps
from dlib.parallel.picard import _mix, _summed, _sweeps
from toy_data import gmm5, shapes_teacher
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked as scored

schedule, mixture = vp(), gmm5()
model = exact(mixture, schedule)                    # the perfect network for this data
levels = lambda n: schedule.levels(grid(schedule, n, t_min=1e-2))
x_T = Draw(0).normal(torch.empty(256, 2, dtype=torch.float64))      # noise, at t = 1
truth = reference(model, x_T, *levels(1))           # the flow's end points, at t = 0.01

# %%
twelfth = next(islice(sweeps(model, x_T, levels(200), tol=0), 12, None))
labels = (truth[:, None] - mixture.means).norm(dim=2).argmin(1)
panels = {"DDIM, 12 steps": sample(model, x_T, levels(12)),
          "12 sweeps over 200 steps": twelfth.points[-1]}
figure(plot.endpoints(panels, truth, labels),
       "After twelve steps DDIM leaves a visible error on most points; "
       "after twelve sweeps over two hundred steps hardly a line can be seen.",
       "Twelve calls one after another, left on 256 points, right on up to 200 × 256.")

# %% [markdown]
# The right panel is not a better solver. It is the *same* DDIM with 200 steps, found in 12 rounds instead of 200. The
# caption tells the price: each round asked about all steps that were not settled yet. This chapter says when the rounds
# suffice, when the answer is exact to the last bit, and what you pay.
#
# ## 9.1 The chain, and the sum that breaks it
#
# DDIM freezes $\varepsilon$ during a step, $\Phi(x)=\alpha_bx_\theta(x)+\sigma_b\,\varepsilon(x)$ from level $a$ to $b$
# [@song2021ddim]. Number the levels $0$ (noise) to $N$. Any solver without memory is a chain,
#
# $$X_{j+1}=\Phi_j(X_j),\qquad X_0=x_T. \label{eq:chain}$$
#
# Written as a sum it looks no better: every term needs an $X_i$ that is not there yet.
#
# $$X_{j+1}=X_0+\sum_{i\le j}\big[\Phi_i(X_i)-X_i\big]. \label{eq:sum}$$
#
# But a sum accepts *guesses*. Put in any points, evaluate all brackets in one batch, and read off new points: a **sweep**.
# It is Picard's iteration for an ODE, $x(t)\leftarrow x(1)+\int_1^tf(x(s),s)\,ds$, which proves that solutions exist.
# ParaDiGMS [@shih2023paradigms] brought it to diffusion.
#
# The library rearranges the sum and adds one factor, $s=\sqrt{\alpha^2+\sigma^2}$, the size of $x$:
#
# $$X_{j+1}\leftarrow\Phi_j(X_j)+\sum_{i<j}A_{ji}\big[\Phi_i(X_i)-X_{i+1}\big],\qquad A_{ji}=\frac{s_{j+1}}{s_{i+1}}. \label{eq:sweep}$$
#
# On the variance-preserving schedule $s=1$, and \eqref{eq:sweep} is \eqref{eq:sum} with its terms in another order. Section
# 9.7 shows what the factor is for. In code, with one row a point:

# %%
# NBVAL_CHECK_OUTPUT
show(_summed)
starts, forty = x_T[:64], levels(40)
chain = [state.x for state in walk(model, starts, forty)]           # DDIM, in turn
found = [picard(model, starts, forty, window=w, tol=0) for w in (1, 7, 40)]
claim("C09.1", "tolerance 0, windows 1, 7, 40: Picard's samples less DDIM's (RMS)",
      max(metrics.rms(run.x, chain[-1]) for run in found), between=(0, 0))
claim("C09.2", "and the most sweeps over the number of steps",
      max(run.sweeps for run in found) / 40, between=(0, 1))

# %% [markdown]
# ## 9.2 The triangle of zeros
#
# Not small: zero. **After $k$ sweeps the first $k$ points are exact, whatever the guess.** Let $X^*$ be the chain's points
# and suppose $X_i=X_i^*$ for all $i\le k$. Then every bracket of \eqref{eq:sweep} with $i<k$ is
# $\Phi_i(X_i^*)-X_{i+1}^*=0$. So for $j\le k$ the new $X_{j+1}$ is $\Phi_j(X_j^*)=X_{j+1}^*$: one point more. $X_0$ is exact
# from the start, and $N$ sweeps always suffice [@shih2023paradigms, prop. 1].
#
# In floating point too: a bracket of equal numbers is 0.0, and \eqref{eq:sweep} adds the sum *last*. So a sweep over the
# chain itself changes no bit. Here is the error of every point after every sweep, from two guesses: all points equal, and
# pure noise.

# %%
# NBVAL_CHECK_OUTPUT
def error_map(model, x, levels, solver=solvers.ddim, guess=None):
    """(sweeps + 1, points): RMS error of every point after every sweep; row 0, the guess."""
    exactly = [state.x for state in walk(model, x, levels, solver, draw=Draw(0))]
    found = sweeps(model, x, levels, solver, tol=0, draw=Draw(0), guess=guess)
    return torch.tensor([[metrics.rms(*pair) for pair in zip(sweep.points, exactly)]
                         for sweep in found])

def promised(errors):
    """The largest error that the theorem says is zero."""
    return max(row[: k + 1].max().item() for k, row in enumerate(errors))

wild = [starts, *(Draw(j).normal(starts) for j in range(1, 41))]
maps = {"guess: all equal": error_map(model, starts, forty),
        "guess: noise": error_map(model, starts, forty, guess=wild)}
claim("C09.3", "the first k points after k sweeps: largest error, both guesses",
      max(map(promised, maps.values())), between=(0, 0))
once = list(sweeps(model, starts, forty, tol=0, guess=chain))[1]
claim("C09.4", "the chain as guess: points that one sweep leaves as they are, over all",
      once.done / 40, between=(1, 1))

# %%
figure(plot.sweeps(maps),
       "Left of the dashed diagonal, where exactness is promised, both maps are white; "
       "the white reaches well beyond it, and fills the map after 18 sweeps, not 40.",
       "DDIM, 40 steps, GMM5. Dashed: point $k$ after $k$ sweeps. White: equal bits.")

# %% [markdown]
# The white region is larger than promised: at the noisy end a step hardly depends on $x$, and the last digits agree early.
# ([Explore](../book/pages/explore.md) sweeps with a slider.)
#
# ## 9.3 Why so few sweeps
#
# The triangle alone would save nothing. Divide by the size, $u_j=X_j/s_j$, and subtract the chain from \eqref{eq:sweep}:
#
# $$u_{j+1}-u_{j+1}^*=\sum_{i\le j}\big[(\varphi_i-\mathrm{id})(u_i)-(\varphi_i-\mathrm{id})(u_i^*)\big],\qquad \varphi_i(u)=\Phi_i(s_iu)/s_{i+1}. \label{eq:error}$$
#
# If $\varphi_i-\mathrm{id}$, what the step *changes*, has Lipschitz constant $l_i$, then $k$ sweeps leave, with the largest
# distance over the points as norm, at most
#
# $$\sum_{i_1>\dots>i_k}l_{i_1}\cdots l_{i_k}\ \lVert u^0-u^*\rVert\ \le\ \frac{S^k}{k!}\,\lVert u^0-u^*\rVert,\qquad S=\sum_il_i. \label{eq:factorial}$$
#
# A factorial beats every power: the error may grow at first and then falls faster than geometrically. And $S$ is a Riemann
# sum. **With more steps it tends to an integral, and the number of sweeps to a constant.**
#
# For data $\mathcal N(0,c^2)$ the bound is nearly the truth. The step is a factor, $\varphi_i(u)=(1+l_i)u$, and induction gives
#
# $$u_j^{(k)}=u_0\sum_{m\le k}e_m(l_0,\dots,l_{j-1}),\qquad e_m=\sum_{i_1<\dots<i_m}l_{i_1}\cdots l_{i_m}. \label{eq:expand}$$
#
# The chain is the product $\prod_{i<j}(1+l_i)$; $k$ sweeps are the product *multiplied out to degree $k$*. Of $j$ factors
# there is no degree above $j$: the triangle again.

# %%
# NBVAL_CHECK_OUTPUT
F64, c = torch.float64, 0.25
gaussian = Mixture(*(torch.tensor(v, dtype=F64) for v in ([1.0], [[0.0]], [c])))
line, unit = exact(gaussian, schedule), torch.ones(1, 1, dtype=F64)
factors = torch.cat([solvers.ddim(line, unit, *ab)[0][0] for ab in zip(forty, forty[1:])])

def expanded(l):
    """(k, j): the product of the first j factors 1 + l, multiplied out to degree k."""
    e = torch.zeros(41, 41, dtype=F64)
    e[0] = 1
    for j in range(40):
        e[1:, j + 1] = e[1:, j] + l[j] * e[:-1, j]
    return e.cumsum(0)

part, S = expanded(factors - 1), (factors - 1).abs().sum().item()
runs = list(sweeps(line, unit, forty, tol=0))
claim("C09.5", "N(0, c²): sweep k less the product to degree k, all points, all sweeps",
      max((torch.cat(run.points)[:, 0] - e).abs().max() for e, run in zip(part, runs)),
      below=1e-12)
left = [abs(run.points[-1].item() - factors.prod().item()) for run in runs]
claim("C09.6", "N(0, c²): the last point's error over the sum of S^m/m!, m > k (largest)",
      max(left[k] / sum(S**m / math.factorial(m) for m in range(k + 1, 60))
          for k in range(10)), between=(0, 1))

# %% [markdown]
# Now GMM5. *Predict how the sweeps grow from 50 steps to 400.* By the theory, hardly; we allow half as many again. The
# sequential sampler grows by eight.

# %%
# NBVAL_CHECK_OUTPUT
steps = (12, 25, 50, 100, 200, 400)
tight = {n: picard(model, x_T, levels(n), tol=1e-2) for n in steps}
off = lambda x: metrics.rms(x, truth)
by_depth = lambda solver, counts: {n: off(sample(model, x_T, levels(n), solver))
                                   for n in counts}
curves = {"DDIM": by_depth(solvers.ddim, steps),
          "++(3M)": by_depth(solvers.dpm_solver_pp_3m, (6, 12, 25, 50)),
          "Picard on DDIM": {run.depth: off(run.x) for run in tight.values()}}
figure(plot.convergence(curves, xlabel="depth: calls one after another"),
       "Picard's error falls from 0.17 to below 0.01 between depths 7 and 15, where DDIM "
       "needs 400 calls and the third-order multistep solver about 28.",
       "Error against the exact flow. Picard: 12 to 400 DDIM steps, tolerance $10^{-2}$.")
claim("C09.7", "sweeps for 400 steps over those for 50",
      tight[400].sweeps / tight[50].sweeps, below=1.5)
claim("C09.8", "but its work over that of the sequential sampler, 400 steps",
      tight[400].work / 400, above=1)

# %% [markdown]
# Picard's curve is steep because depth hardly knows the number of steps (of runs that share a depth, the longest
# is shown). What the axis hides is the **work**: the last point took over two thousand evaluations a sample. ++(3M) took 25 for
# an error a third larger. Where you pay for evaluations, chapter 8 wins.
#
# ## 9.4 Tolerance, window, and what is free
#
# You do not have to sweep to the last bit, nor over all steps. The window begins at the first unsettled point, holds $w$ steps,
# and moves past all points whose change in the sweep was small,
#
# $$\max_{\text{batch}}\ \lVert X_{j+1}^{\text{new}}-X_{j+1}\rVert_{\text{rms}}\le\mathrm{tol}\cdot\sigma_{j+1}, \label{eq:stop}$$
#
# but always past its first point, which was made from a settled one. (ParaDiGMS divides by the standard deviation of DDPM's
# posterior instead of $\sigma$, and moves past the first unsettled point too, as it was made from settled ones.) All of the
# algorithm:

# %%
# NBVAL_CHECK_OUTPUT
show(_sweeps)
run = {(w, tol): picard(model, starts, levels(100), window=w, tol=tol)
       for tol in (1e-1, 1e-2, 0) for w in (1, 5, 10, 20, 50, 100)}
one = run[1, 1e-2]
claim("C09.9", "a window of 1 is the sequential sampler: its depth and work, over N",
      max(one.depth, one.work) / 100, between=(1, 1))

def passed(old, new, tol):
    """How many points the window may pass, by the equation above."""
    moved = torch.stack([(a - b).square().mean(1).sqrt().max() / level.sigma for a, b, level
                         in zip(new.points, old.points, levels(100))])[old.done + 1 :][:20]
    return max(1, int((moved <= tol).long().cumprod(0).sum()))

seen = list(sweeps(model, starts, levels(100), window=20, tol=1e-2))
claim("C09.10", "window 20, every sweep: points passed less those allowed, largest",
      max(abs(new.done - old.done - passed(old, new, 1e-2))
          for old, new in zip(seen, seen[1:])), between=(0, 0))
claim("C09.11", "every window, tolerance 0: largest distance to the sequential sample",
      max(metrics.rms(run[w, 0].x, one.x) for w in (5, 10, 20, 50, 100)), between=(0, 0))

# %%
trade = {f"tolerance {tol:g}": {r.work: r.depth for (w, t), r in run.items() if t == tol}
         for tol in (1e-1, 1e-2, 0)}
figure(plot.convergence(trade, xlabel="work: evaluations a sample", ylabel="depth"),
       "From the sequential corner, 100 deep and 100 evaluations, a window of ten at "
       "tolerance 0.1 divides the depth by seven for a third more work; wider windows "
       "add more work than they save depth.",
       "100 DDIM steps. From left to right: windows of 1, 5, 10, 20, 50, 100.")

# %% [markdown]
# What is free and what is not, plainly:
#
# - **Depth** is latency *if* a call on $w$ states takes as long as a call on one. That holds while the device has idle
#   units, or while you have more devices. On the one CPU thread that made this page it does not hold: there, Picard is slower.
# - **Work** is energy and money. Every step is made at least once, so it is never less than the sequential sampler's.
#   Throughput only falls.
# - **Memory** holds the window's activations: $w$ times those of one state, twice that with guidance.
# - **A tolerance is not an error bound.** It bounds the change of one sweep. With all 256 starts, window 100 and tolerance 0.01, the
#   rms distance to the sequential sample is 0.015; a start near the border of two modes can end in the other mode.
#
# ## 9.5 Noise, drawn first
#
# Ancestral sampling adds noise, $X_{j+1}=\Phi_j(X_j)+\varsigma_jz_j$. Draw every $z_j$ *before* the first sweep: then
# $\Phi_j+\varsigma_jz_j$ is a fixed function, and all of the above holds, the triangle and the bits. `picard` draws what
# `sample` would draw, in that order. *What happens if each sweep draws anew?*

# %%
# NBVAL_CHECK_OUTPUT
noisy = picard(model, starts, forty, solvers.ancestral, tol=0, draw=Draw(1))
in_turn = sample(model, starts, forty, solvers.ancestral, draw=Draw(1))
claim("C09.12", "ancestral, tolerance 0: Picard's samples less the sequential ones",
      metrics.rms(noisy.x, in_turn), between=(0, 0))
claim("C09.13", "ancestral: the first k points after k sweeps, largest error",
      promised(error_map(model, starts, forty, solvers.ancestral)), between=(0, 0))
dice = Draw(2)

@solvers.solver(order=1)
def restless(model, x, a, b, memory=None, noise=None, cond=None):
    return solvers.ancestral(model, x, a, b, memory, dice.normal(x), cond)

claim("C09.14", "new noise in every sweep, tolerance 0.1: sweeps over steps",
      picard(model, starts, forty, restless, tol=0.1).sweeps / 40, between=(1, 1))

# %% [markdown]
# Nothing ever settles but the first point: as many sweeps as steps, on a whole window each. The samples are
# fair, and the bill is the worst possible.
#
# ## 9.6 Solvers with memory, and sweeps with memory
#
# A multistep solver remembers the answer of the step before. Made at the same time, steps have no before. Smuggle one in, with an
# empty memory at each step, and you get the order of its *first* step. So `picard` refuses them:

# %%
# NBVAL_CHECK_OUTPUT
try:
    picard(model, starts, forty, solvers.dpm_solver_pp_2m)
except ValueError as error:
    print(error)

@solvers.solver(order=2)                            # a lie: history=1 is left out
def smuggled(model, x, a, b, memory=None, noise=None, cond=None):
    return solvers.dpm_solver_pp_2m(model, x, a, b, memory, noise, cond)

claim("C09.15", "++(2M) without its memory: Picard's samples less DDIM's",
      metrics.rms(picard(model, starts, forty, smuggled, tol=0).x, chain[-1]), below=1e-12)
third = picard(model, starts, levels(12), solvers.dpm_solver_3, tol=0)
claim("C09.16", "DPM-Solver-3, which asks inside its step: less its sequential samples",
      metrics.rms(third.x, sample(model, starts, levels(12), solvers.dpm_solver_3)),
      between=(0, 0))
claim("C09.17", "and its depth over its sweeps",
      third.depth / third.sweeps, between=(3, 3))

# %% [markdown]
# **ParaTAA** [@tang2024parataa] solves the same triangle with two more knobs. *Order* $q$ keeps only the last $q-1$ brackets of
# \eqref{eq:sweep}: $q=1$ is the bare chain, through which the start travels one point a sweep; $q=N$ is Picard. *Anderson mixing*
# remembers $m$ iterates. With the residual $R_j=X_j^{\text{new}}-X_j$ and differences $\Delta$ of former iterates,
#
# $$X_j\leftarrow X_j^{\text{new}}-(\Delta X_j+\Delta R_j)\,\gamma_j,\qquad \gamma_j=\arg\min_\gamma\sum_{i\le j}\lVert R_i-\Delta R_i\gamma\rVert^2. \label{eq:mix}$$
#
# The least squares look at noisier points only, $i\le j$, so a settled part has $\gamma=0$: the method is *triangular*. The first
# unfinished point is never mixed, so $N$ sweeps still suffice. (The released code carries DDIM's linear part along the chain
# exactly; ours carries the size, by $A$.)

# %%
# NBVAL_CHECK_OUTPUT
show(_mix)
sixty, orders, few = levels(60), (1, 2, 4, 8, 16, 60), x_T[:32]
settle = lambda solver, order, memory: anderson(
    model, few, sixty, solver, tol=1e-3, draw=Draw(3), order=order, memory=memory).sweeps
kinds = {"DDIM": (solvers.ddim, 1), "DDIM, mixed": (solvers.ddim, 3),
         "ancestral": (solvers.ancestral, 1), "ancestral, mixed": (solvers.ancestral, 3)}
needed = {name: {q: settle(solver, q, m) for q in orders}
          for name, (solver, m) in kinds.items()}
at_60 = {name: curve[60] for name, curve in needed.items()}
claim("C09.18", "ancestral, order 1: sweeps over steps",
      needed["ancestral"][1] / 60, between=(0.9, 1))
claim("C09.19", "ancestral: sweeps of order 60 over those of order 1",
      at_60["ancestral"] / needed["ancestral"][1], below=0.6)
claim("C09.20", "ancestral, order 60: sweeps with mixing over those without",
      at_60["ancestral, mixed"] / at_60["ancestral"], below=0.9)
claim("C09.21", "DDIM, order 60: sweeps with mixing over those without",
      at_60["DDIM, mixed"] / at_60["DDIM"], between=(0.75, 1.35))
mixed = anderson(model, few, sixty, solvers.ancestral, tol=0, draw=Draw(4), memory=3)
claim("C09.22", "mixed, order 8, tolerance 0: less the sequential samples",
      metrics.rms(mixed.x, sample(model, few, sixty, solvers.ancestral, draw=Draw(4))),
      between=(0, 0))

# %%
figure(plot.convergence(needed, xlabel="order $q$", ylabel="sweeps to tolerance 10⁻³"),
       "With noise, order 1 needs all 60 sweeps and order 8 some 20; mixing saves a "
       "quarter of them at order 60. DDIM ends at 11, with mixing or without.",
       "60 steps, GMM5. Mixed: $m=3$ iterates. Order first, mixing second.")

# %% [markdown]
# At orders 2 and 4 mixing *harms* the noisy
# chain, and at high order it gains nothing for the ODE: on this data the paper's gain from mixing is **not reproduced** for DDIM.
#
# ## 9.7 What should look wrong here
#
# EDM writes everything with $\alpha=1$ and $\sigma$ up to 80 or more; the ODE's points are $y=x/\alpha$. Leave the factor $A$ out
# and sweep in $y$. The chain is the same, the triangle holds. *Predict the error of the first sweeps.*

# %%
# NBVAL_CHECK_OUTPUT
@solvers.solver(order=1)
def ddim_in_y(model, y, a, b, memory=None, noise=None, cond=None):
    x, memory = solvers.ddim(model, a.alpha * y, a, b, memory, noise, cond)
    return x / b.alpha, memory                      # on levels with s = 1, so A = 1

in_y = error_map(model, starts / forty[0].alpha, forty, ddim_in_y)
in_x = maps["guess: all equal"]
settled = lambda errors: next(k for k, row in enumerate(errors) if row[-1] < 1e-3)
claim("C09.23", "unscaled: the largest error over that of the guess",
      in_y.max() / in_y[0].max(), above=10)
claim("C09.24", "unscaled: sweeps until the last point is within 10⁻³, over those scaled",
      settled(in_y) / settled(in_x), above=2)
claim("C09.25", "unscaled: the first k points after k sweeps, largest error",
      promised(in_y), between=(0, 0))

# %%
figure(plot.sweeps({"$y$, no factor": in_y, "$x$, scaled by $A$": in_x}),
       "Without the factor the error grows to thousands in the first sweeps and needs "
       "some thirty to vanish; with it, it falls from the start and is gone after 18.",
       "The same 40 DDIM steps in two variables. In $y$ little more is white than promised.")

# %% [markdown]
# Equation \eqref{eq:factorial} knows why. For $\mathcal N(0,c^2)$, $c=\tfrac14$, the sum $S$ tends to the logarithm of how far the
# point's size moves: $\ln(1/c)=1.4$ in scaled $x$, but $\ln(\kappa_{\max}/c)=\ln(152\cdot4)=6.4$ in $y$, and
# $6.4^6/6!\approx95$. With the factor all schedules with the same λ sweep alike:

# %%
# NBVAL_CHECK_OUTPUT
def scaled_sweeps(home):
    """The points of every sweep over x's size, on a schedule's levels with the same λ."""
    walked = [home.at_lam(level.lam) for level in forty]
    size = torch.tensor([math.hypot(a.alpha, a.sigma) for a in walked], dtype=F64)
    found = sweeps(exact(mixture, home), starts * size[0], walked)
    return torch.stack([torch.stack(run.points) / size[:, None, None] for run in found])

one, *others = map(scaled_sweeps, (vp(), flow(), edm(sigma_min=1e-3, sigma_max=200.0)))
claim("C09.26", "scaled: points of every sweep over s, VP less flow and EDM (largest)",
      max((one - other).abs().max() for other in others), below=1e-9)

# %% [markdown]
# ## 9.8 Rung 2: captioned shapes
#
# A trained network: the small transformer of the captioned shapes, guided with $\omega=2$, 50 steps on Stable Diffusion's schedule, in
# float32. Window 10, tolerance 0.1.

# %%
world = guided(shapes_teacher(), 2.0, NULL_TOKENS)
codes = scored()[:32]                               # 32 captions
text = tokens([say(tuple(code)) for code in codes.tolist()])
noise = Draw(5).normal(torch.empty(32, 3, 16, 16))
stops = world.schedule.levels(grid(world.schedule, 50, "sd_trailing"))
with torch.no_grad():
    in_turn = sample(world, noise, stops, cond=text)
    at_once = picard(world, noise, stops, window=10, tol=0.1, cond=text)
    early = list(islice(sweeps(world, noise[:10], stops, tol=0, cond=text[:10]), 9))
rows = {f"{k} sweeps over all steps": early[k].points[-1] for k in (2, 4, 8)}
rows |= {f"window 10: {at_once.depth} deep, work {at_once.work}": at_once.x[:10],
         "in turn: 50 deep, work 50": in_turn[:10]}
figure(plot.pictures(rows),
       "After two and four sweeps glaring noise; after eight, shapes, some in wrong "
       "colours; the window of ten shows the sequential pictures, but for a few pixels.",
       "Ten captions, the same noise in each column.")

# %% [markdown]
# We ask for a third of the depth, which is modest beside 9.3, and for pictures that show their captions as often, within three of 32.
#
# **Bits.** A matrix product on 500 rows may add in another order than one on 2, and float32 shows it. The theorem needs rows
# that do not depend on their neighbours. `alone` splits each batch into the calls that `sample` would make: exact, and no
# longer parallel. Batched, rounding of size $6\cdot10^{-8}$ passes 50 steps; we allow $10^{-4}$.

# %%
# NBVAL_CHECK_OUTPUT
truly = lambda x: shows(read(x), codes).double().mean()
apart = (at_once.x - in_turn).flatten(1).square().mean(1).sqrt()
claim("C09.27", "shapes, window 10, tolerance 0.1: depth over steps",
      at_once.depth / 50, below=1 / 3)
claim("C09.28", "pictures that show their caption: Picard's share less the other's",
      truly(at_once.x) - truly(in_turn), between=(-0.1, 0.1))
claim("C09.29", "the median picture: RMS distance to the sequential one (range 2)",
      apart.median(), below=0.1)
alone = replace(world, net=lambda *batch: torch.cat(
    [world.net(*part) for part in zip(*(rows.split(1) for rows in batch))]))
with torch.no_grad():
    first = sample(world, noise[:1], stops, cond=text[:1])
    gap = lambda model: (picard(model, noise[:1], stops, window=10, tol=0,
                                cond=text[:1]).x - first).abs().max()
    claim("C09.30", "tolerance 0, each row by itself: largest difference to sequential",
          gap(alone), between=(0, 0))
    claim("C09.31", "tolerance 0, batched, float32: the same", gap(world), below=1e-4)

# %% [markdown]
# The median picture differs by a thousandth, the *worst* of 32 by 0.3, and still by 0.19 at tolerance 0.01: at high noise it
# stood at a fork, and a change below the tolerance chose the other branch.
#
# ## 9.9 In practice
#
# - **Published.** ParaDiGMS reports 2 to 4 times the speed of sequential sampling over robotics and image models, 14.6 s for
#   1000-step Stable Diffusion 2, with no measurable loss of FID or CLIP score [@shih2023paradigms]. ParaTAA reports 4 to 14 times fewer
#   steps, the same pictures as 100-step DDIM in 7 [@tang2024parataa]. These are wall-clock times on accelerators, and rounds, of
#   large networks: *not reproduced here*.
# - **Settings.** ParaDiGMS' code: tolerance 0.1, window 10. Wider windows buy little depth for their work (9.4).
# - **Which solver.** Long chains gain most. If 20 calls of ++(2M) are good enough, make them: parallel rounds are for chains you
#   must keep, such as 1000-step ancestral sampling or a result that must equal another run's.
# - **Batch.** The slowest sample of a batch moves the window. Parallel sampling is for batch 1; a server with a queue should batch requests.
# - **Ends must agree.** diffusers' `DDIMParallelScheduler` ends its batched step at $\bar\alpha=1$, its sequential one at $\bar\alpha_0$
#   where `set_alpha_to_one` is false, as Stable Diffusion has it: its parallel result is then not its sequential one.
# - **Reduced precision.** In bfloat16 the "same" point differs in its third digit between batch sizes. A tolerance below that never settles early.
# - **Where the toy stops being true.** GMM5's network is free and smooth. $S$ grows with guidance and with rough networks.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.sd.denoiser(unet, scheduler_config)` |
# | `picard(model, x, levels, window=10, tol=0.1)` | the same function object |
# | `found.depth`, `found.work` | `depth` and `work` in settings.json |
# | `alone` | `--chunk 1` |
# | the window, one batch | the same, shared by the processes of torchrun |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" \
#     --parallel picard --window 10 --tol 0.1 --solver ddim --steps 50 --grid sd_trailing
#
# torchrun --standalone --nproc_per_node 8 -m full_scale.sample --weights DIR_OR_HUB_ID \
#     --prompt "a lighthouse at dusk" \
#     --parallel picard --window 16 --tol 0.1 --solver ddim --steps 50 --grid sd_trailing
# ```
#
# **How far up the ladder.** Rung 1: exact to the bit, for every window and with noise. Rung 2: a trained guided network, exact to the bit
# where its rows stand alone. Rung 3: the same function on Stable Diffusion's classes with random weights, in the test suite; no time was
# measured on an accelerator.
#
# ## 9.10 Exercises
#
# 1. *(pencil)* Tolerance 0, window $w$, $N$ steps of one call. Show that the work is at most $Nw-\tfrac12w(w-1)$. Which $w$ is worst?
# 2. *(code)* `sweeps(…, guess=points)` starts from any trajectory. Take that of `x_T + 0.01 * z`. Check: it settles to $10^{-3}$ in
#    fewer sweeps than the constant guess. Why does the gain vanish for tolerance 0?
# 3. *(code)* Program \eqref{eq:sum} as it stands, with `cumsum`. Predict: are the first $k$ points exact after $k$ sweeps?
# 4. *(open)* Find a stopping rule that bounds the distance to the sequential sample, at little cost. Check it on the fork of 9.8.
#
# <details><summary>Answer to 1</summary>
#
# The window moves by one at least, so sweep $k$ starts at step $k$ or later and holds at most $\min(w,N-k)$ steps, $k=0,\dots,N-1$. The sum is
# $(N-w)w+\tfrac12w(w+1)$, which is $Nw-\tfrac12w(w-1)$. It grows with $w$ up to $w=N$: $\tfrac12N(N+1)$.
#
# </details>
#
# Answer to 3, as code that runs, and the check of 1:

# %%
# NBVAL_CHECK_OUTPUT
points = torch.stack([starts] * 41)
for sweep in range(30):
    made = [solvers.ddim(model, *rest)[0] for rest in zip(points, forty, forty[1:])]
    points = torch.cat([points[:1], starts + (torch.stack(made) - points[:-1]).cumsum(0)])
claim("C09.32", "the plain sum, first 30 points after 30 sweeps: rounding errors, not zero",
      max((p - e).abs().max() for p, e in zip(points[:31], chain)), between=(1e-17, 1e-13))
claim("C09.33", "work at tolerance 0 over its bound, largest over the windows",
      max(run[w, 0].work / (100 * w - w * (w - 1) / 2) for w in (5, 10, 20, 50, 100)),
      between=(0, 1))

# %% [markdown]
# Exact on paper, off by a rounding error in floats: $X_0+(X_1-X_0)$ is not $X_1$. (A `picard` with this
# sum would end at the chain's bits all the same, since its window moves past what is settled; but after 40 sweeps, not 19.)
#
# ## References
#
# Picard iteration over a window, with its exactness: [@shih2023paradigms]. The triangular system, orders and mixing: [@tang2024parataa]. DDIM:
# [@song2021ddim]. EDM's variable: [@karras2022edm]. High-order solvers, to compare with: [@lu2022dpm; @lu2022dpmpp].
