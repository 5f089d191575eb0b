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
#       - Picard iteration, to compare with (related in 10.4)
#       - PyTorch
# ---

# %% [markdown]
# # 10 Parareal: a coarse solver corrects many fine ones
#
# You want the sample that 400 small steps give, and you do not want to wait for 400 network calls one after another. Twenty
# *long* steps are quick and wrong, as the left panel shows. A grey line ties each point to where the 400 steps would have
# carried it.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
from dataclasses import replace
from itertools import islice

import torch
from dlib import CLEAN, NULL, Draw, Mixture, exact, grid, guided, metrics
from dlib import parareal, picard, plot, sample, solvers, vp, walk
from dlib.parallel import iterations, sweeps
from dlib.parallel.parareal import _Pipeline
from toy_data import digits_teacher, gmm5

schedule, mixture = vp(), gmm5()
model = exact(mixture, schedule)                    # the perfect network for this data
levels = lambda n: schedule.levels(grid(schedule, n, t_min=1e-2))
x_T = Draw(0).normal(torch.empty(256, 2, dtype=torch.float64))      # noise, at t = 1
fine = sample(model, x_T, levels(400))              # what we want: 400 steps of DDIM

# %%
guess, _, _, third = islice(iterations(model, x_T, levels(400)), 4)
labels = (fine[:, None] - mixture.means).norm(dim=2).argmin(1)
panels = {f"20 steps: depth {guess.depth}": guess.starts[-1],
          f"3 corrections: {third.depth}": third.starts[-1]}
figure(plot.endpoints(panels, fine, labels),
       "After twenty long steps most points are visibly off; after three "
       "corrections hardly a line can be seen.",
       "Grey: the distance to the result of 400 steps, one after another.")

# %% [markdown]
# On the right the same long steps have been corrected three times: 77 calls one after another instead of 400. Corrected by what?
# By the small steps themselves, made in 20 places *at the same time*. This chapter derives the correction, proves when it is exact,
# and counts what you wait for and what you pay.
#
# ## 10.1 Guess the starts, correct the starts
#
# DDIM takes $x$ from level $a$ to $b$ by $\alpha_bx_\theta(x)+\sigma_b\,\varepsilon(x)$, one network call [@song2021ddim].
# Cut its $N$ steps into $K$ **blocks** of $J$ steps. Two maps cross block $i$:
#
# - $F_i$, the *fine* one: its $J$ small steps. $J$ calls, one after another.
# - $G_i$, the *coarse* one: a single long step from the block's first level to its last. One call.
#
# We want the chain $U_{i+1}^*=F_i(U_i^*)$, $U_0^*=x_T$. We can afford the chain of $G$, which is the left panel. Suppose we know
# all starts $U_i^{p-1}$ approximately. Solve all blocks from there at once; when the first start moves, carry the movement on with
# $G$, which is cheap:
#
# $$U_{i+1}^{p}=F_i(U_i^{p-1})+\big[G_i(U_i^{p})-G_i(U_i^{p-1})\big],\qquad U_{i+1}^0=G_i(U_i^0),\quad U_0^p=x_T. \label{eq:update}$$
#
# This is **parareal** [@lions2001parareal], brought to diffusion as SRDS, *self-refining diffusion samplers* [@selvam2024srds]. Only
# the bracket is sequential, one coarse call a block. In the library, where `None` means "not known yet":

# %%
# NBVAL_CHECK_OUTPUT
show(_Pipeline._next)
starts = x_T[:64]
found = parareal(model, starts, levels(100), tol=0)                 # 10 blocks of 10
claim("C10.1", "tolerance 0: parareal's samples less DDIM's (RMS distance)",
      metrics.rms(found.x, sample(model, starts, levels(100))), between=(0, 0))
ragged = parareal(model, starts, levels(97), tol=0)                 # the last block has 7
claim("C10.2", "97 steps, the last block shorter: the same",
      metrics.rms(ragged.x, sample(model, starts, levels(97))), between=(0, 0))
claim("C10.3", "both: the most iterations over the number of blocks",
      max(found.sweeps, ragged.sweeps) / 10, between=(0, 1))

# %% [markdown]
# ## 10.2 Exact, block by block
#
# **After $p$ iterations the starts $U_0,\dots,U_p$ are the chain's.** In other words, start $i$ is exact from iteration $i$ on. Start 0 is
# given. If start $i$ is exact from iteration $i$ on, take any $p\ge i+1$: then $U_i^p$ and $U_i^{p-1}$ are *both* $U_i^*$, the bracket of
# \eqref{eq:update} is the difference of two equal numbers, and $U_{i+1}^p=F_i(U_i^*)=U_{i+1}^*$. $K$ iterations always suffice, and nothing
# had to contract.
#
# In floating point as well: the bracket is *one* number, added last, $F+(G-G)=F+0$; and where it must be zero the library does not compute it. Section 10.7 moves a parenthesis and
# loses this. The map below has the error of every block's start after every iteration, for DDIM and for noisy ancestral steps (all
# noise drawn beforehand, as in `sample`):

# %%
# NBVAL_CHECK_OUTPUT
def error_map(solver):
    """(iterations + 1, 11): RMS error of every start; row 0 is the coarse guess."""
    path = [state.x for state in walk(model, starts, levels(100), solver, draw=Draw(1))]
    found = iterations(model, starts, levels(100), solver, tol=0, draw=Draw(1))
    return torch.tensor([[metrics.rms(x, path[n]) for x, n in zip(run.starts, run.edges)]
                         for run in found])

maps = {"DDIM": error_map(solvers.ddim), "ancestral": error_map(solvers.ancestral)}
promised = {name: max(row[: p + 1].max() for p, row in enumerate(errors))
            for name, errors in maps.items()}
claim("C10.4", "DDIM: the first p blocks after p iterations, largest error",
      promised["DDIM"], between=(0, 0))
claim("C10.5", "ancestral, noise included: the same",
      promised["ancestral"], between=(0, 0))

# %%
figure(plot.sweeps(maps),
       "Below the dashed diagonal both maps are white, bitwise exact. Above it DDIM's "
       "error falls faster and faster; the ancestral one stays large until the diagonal "
       "is near.",
       "10 blocks of 10 steps. Point $j$: where block $j$ starts; a sweep: an iteration.")

# %% [markdown]
# Theory promises the white triangle and no more. Left, the colours say that you need not wait for it. Right, they say that you
# must; section 10.6 asks why. ([Explore](../book/pages/explore.md) goes through the iterations with a slider.)
#
# ## 10.3 The pipeline
#
# Count calls made one after another, the **depth**. Iteration by iteration: the guess takes $K$, then each iteration $J$ for the fine
# solves and $K$ for the brackets. That is $K+p(J+K)$, and most blocks idle most of the time. But $F_i(U_i^{p-1})$ needs *only*
# $U_i^{p-1}$. Start it when that arrives, while later blocks still wait for theirs. With $T(p,i)$ the call after which $U_i^p$ is known,
#
# $$T(p,i+1)=\max\big\{T(p-1,i)+J,\;T(p,i)+1\big\},\qquad T(0,i)=i, \label{eq:ready}$$
#
# (in the last call of a fine solve the next bracket's coarse step is made as well) and by induction $T(p,i)=i+p(J-1)$ for
# $i\ge p$ and $J\ge2$: both entries of the maximum agree. The end is there after
#
# $$\text{depth}=K+p\,(J-1), \label{eq:depth}$$
#
# at worst, for $p=K$, exactly $KJ=N$: **never later than the sequential sampler**. Without the pipeline the worst case is about $2N$. One
# call of the network advances all that can be advanced:

# %%
show(_Pipeline._tick)

class Logged(_Pipeline):
    def _tick(self):
        calls.append(list(self.under_way))          # (iteration, block) of each fine step
        super()._tick()

calls, walked = [], levels(36)
logged = Logged(model, starts, walked, [None] * 36, solvers.ddim, solvers.ddim,
                [*range(0, 37, 6)], None)
for _ in islice(logged.run(tol=0), 4):              # the guess and three iterations
    pass
figure(plot.pipeline(calls),
       "The bars of one iteration form a staircase, one call later in each block; in "
       "each block the next iteration's bar begins in the last call of this one's.",
       "6 blocks of 6 steps until the third iteration is known: 21 calls, not 36.")

# %% [markdown]
# **Work**, all evaluations, is not saved. Count in \eqref{eq:ready}: a solve begun at $T(q,i)$ has made
# $\min(J,\text{depth}-T(q,i))$ steps at the end. Iteration by iteration it would be $K+p(N+K)$. The library skips settled blocks and
# begins solves of iterations that it may not need.

# %%
# NBVAL_CHECK_OUTPUT
def predicted(N, K, p):
    """(depth, work) after p iterations of K blocks."""
    J, solves = N // K, [(q, i) for q in range(K) for i in range(q, K)]
    end = K + p * (J - 1)
    ages = [end - i - q * (J - 1) for q, i in solves]       # calls since U_i^q is known
    return end, sum(min(J, age) + 1 for age in ages if age > 0)   # fine steps, a coarse

shapes = ((100, 10), (96, 8), (36, 6), (100, 5), (100, 20))
runs = {(N, K, tol): parareal(model, starts[:8], levels(N), blocks=K, tol=tol)
        for N, K in shapes for tol in (0.1, 0)}
off = [(run.depth - predicted(*how[:2], run.sweeps)[0],
        run.work - predicted(*how[:2], run.sweeps)[1]) for how, run in runs.items()]
claim("C10.6", "depth less K + p(J−1), largest of ten runs",
      max(abs(d) for d, _ in off), between=(0, 0))
claim("C10.7", "work less its count, largest of ten runs",
      max(abs(w) for _, w in off), between=(0, 0))
claim("C10.8", "the worst case, tolerance 0: largest depth over steps",
      max(run.depth / how[0] for how, run in runs.items()), between=(1, 1))

# %% [markdown]
# ## 10.4 Why few iterations
#
# For data $\mathcal N(0,c^2)$ both maps are factors, $F_i(U)=f_iU$ and $G_i(U)=g_iU$, and \eqref{eq:update} reads
# $U_{i+1}^p=g_iU_i^p+(f_i-g_i)U_i^{p-1}$. Each block contributes $g_i$, or $f_i-g_i$ at the price of one iteration. So
#
# $$U_i^{p}=x_T\prod_{j\lt i}g_j\;\sum_{m\le p}e_m(r_0,\dots,r_{i-1}),\qquad r_j=\frac{f_j-g_j}{g_j}, \label{eq:gauss-rounds}$$
#
# with $e_m$ the sum of all products of $m$ different $r_j$. The chain is $\prod g_j(1+r_j)$; $p$ iterations are this product
# *multiplied out to degree $p$* in how wrong the coarse step is. Of $i$ factors there is no degree above $i$: the triangle.
# And a first-order coarse step
# over a block of length $1/K$ is off by $r_j=O(K^{-2})$. What is missing is about
#
# $$e_{p+1}\le\frac{1}{(p+1)!}\Big(\sum_j|r_j|\Big)^{p+1}=O\big(K^{-(p+1)}\big). \label{eq:order}$$
#
# Each iteration gains an order, known for smooth equations in general [@gander2007parareal]: **more blocks do not need more
# iterations.**
#
# (Chapter 9's Picard sweep is the case of one step a block and a coarse solver that *stays put*, $G(U)=U$. Its $r_j$ is $O(K^{-1})$, so
# $\sum r_j$ tends to a constant.)

# %%
# NBVAL_CHECK_OUTPUT
F64 = torch.float64
normal = Mixture(*(torch.tensor(v, dtype=F64) for v in ([1.0], [[0.0]], [0.25])))
line = exact(normal, schedule)
unit, hundred = torch.ones(1, 1, dtype=F64), levels(100)
factor = lambda walked: torch.cat([solvers.ddim(line, unit, *pair)[0][0]
                                   for pair in zip(walked, walked[1:])])
f, g = factor(hundred).view(10, 10).prod(1), factor(hundred[::10])
e = torch.eye(11, 1, dtype=F64).repeat(1, 11)       # (degree, block)
for j, r in enumerate((f - g) / g):
    e[1:, j + 1] = e[1:, j] + r * e[:-1, j]
expanded = e.cumsum(0) * torch.cat([unit[0], g.cumprod(0)])
claim("C10.9", "N(0, c²): starts after p iterations less the product to degree p",
      max((torch.cat(run.starts)[:, 0] - expanded[p]).abs().max()
          for p, run in enumerate(iterations(line, unit, hundred, tol=0))), below=1e-12)
stay = solvers.solver(order=0, calls=0)(lambda model, x, *rest, **more: (x, None))
pairs = zip(iterations(model, starts, levels(20), coarse=stay, blocks=20, tol=0),
            sweeps(model, starts, levels(20), tol=0))
claim("C10.10", "one step a block, G = identity: starts less Picard's points (largest)",
      max((torch.stack(a.starts) - torch.stack(b.points)).abs().max() for a, b in pairs),
      below=1e-12)

# %% [markdown]
# The orders, measured with 60, 120 and 240 blocks of 2 steps (with few blocks $e_m$ lacks the products of equal factors, and the order is
# not there yet), and the bounds of chapter 8, ± 0.15:

# %%
# NBVAL_CHECK_OUTPUT
left = {p: {} for p in range(3)}                   # iteration ↦ blocks ↦ error of the end
for K in (60, 120, 240):
    chain = sample(line, unit, levels(2 * K))
    for p, run in zip(left, iterations(line, unit, levels(2 * K), blocks=K, tol=0)):
        left[p][K] = (run.starts[-1] - chain).abs().item()
for p in left:
    claim(f"C10.{11 + p}", f"N(0, c²): order in 1/K of the error after {p} iterations",
          metrics.order(left[p]), between=(p + 0.85, p + 1.15))

# %% [markdown]
# ## 10.5 Iterations against the number of steps
#
# With $p$ constant, $K=J=\sqrt N$ makes \eqref{eq:depth} about $(p+1)\sqrt N$. *Predict the iterations for 1600 steps of GMM5, if 100 need seven.*
# `parareal` stops when the end moves by at most tol·σ (rms, largest of the batch; SRDS thresholds the mean absolute difference of
# pictures). That is a change of one iteration, not an error; since
# errors fall so fast, the error is far smaller. By the theory the count should not grow; we allow one. Depth then grows by
# $\sqrt{16}=4$; we allow 3 to 5.

# %%
# NBVAL_CHECK_OUTPUT
steps = (36, 100, 400, 1600)
with_root = {n: parareal(model, x_T, levels(n), tol=1e-2) for n in steps}
windows = {n: picard(model, x_T, levels(n), window=round(n**0.5), tol=1e-2)
           for n in steps[:3]}
claim("C10.14", "16 times the steps, √N blocks: iterations more",
      with_root[1600].sweeps - with_root[100].sweeps, below=1.5)
claim("C10.15", "and the depth, times", with_root[1600].depth / with_root[100].depth,
      between=(3, 5))
claim("C10.16", "its work over that of the sequential sampler, 1600 steps",
      with_root[1600].work / 1600, above=1)
close = picard(model, x_T, levels(400), window=20, tol=1e-6)
claim("C10.17", "Picard, window √N, tolerance 10⁻⁶: its depth over parareal's, 400 steps",
      close.depth / with_root[400].depth, below=1)
claim("C10.18", "and its distance to the sequential samples",
      metrics.rms(close.x, fine), below=1e-5)

# %%
share = lambda depths: {n: depth / n for n, depth in depths.items()}
deep = lambda found: share({n: run.depth for n, run in found.items()})
plain = share({n: (1 + 2 * run.sweeps) * n**0.5 for n, run in with_root.items()})
figure(plot.convergence({"one after another": {n: 1 for n in steps},
                         "parareal, no pipeline": plain, "parareal": deep(with_root),
                         "Picard, window √N": deep(windows)},
                        xlabel="steps $N$", ylabel="depth over $N$"),
       "Parareal's depth falls from nearly all of the steps at 36 to a sixth at 1600; "
       "without the pipeline it is nearly twice that; Picard's window is shallower.",
       "GMM5, tolerance $10^{-2}$. Iterations of parareal: "
       + ", ".join(str(run.sweeps) for run in with_root.values()) + ".")

# %% [markdown]
# Two things to say plainly. The work at 1600 steps is six times the sequential one. And on GMM5 Picard with a window of $\sqrt N$,
# about as many states in flight, is *shallower and does less work*. At the same tolerance it stops less exact; so we gave it $10^{-6}$,
# where it ends $10^{-7}$ from the sequential samples (parareal: $3\cdot10^{-8}$), 64 calls deep instead of 153. And no tolerance
# makes parareal shallower than $K+J-1=39$. Parareal's case is another: blocks that run
# *alone* for $J$ calls, each on its device, and meet only at their ends.
#
# ## 10.6 Which coarse step, and noise
#
# In \eqref{eq:gauss-rounds} all depends on $F-G$. If $G=F$, blocks of one step, the guess is the answer; one iteration finds that nothing moves.
# What counts is not that $G$ lands near $F$, but that it *moves* as $F$ moves when the start moves.
#
# Ancestral steps show the difference. Their noise, drawn beforehand, is a constant that cancels in \eqref{eq:update}. But their drift
# uses the score twice, where DDIM uses it once: $r_j$ is $O(K^{-1})$, and iterations are no longer cheap. A coarse step that
# knows nothing of the noise
# is right to be blamed; its drift more than its ignorance. So give it the drift, the mean of an ancestral step:

# %%
# NBVAL_CHECK_OUTPUT
@solvers.solver(order=1)
def mean_step(model, x, a, b, memory=None, noise=None, cond=None):
    return solvers.ancestral(model, x, a, b, memory, torch.zeros_like(x), cond)

noisy = {(n, coarse): parareal(model, starts, levels(n), solvers.ancestral, coarse,
                               tol=1e-2, draw=Draw(1))
         for n in (100, 400) for coarse in (solvers.ddim, mean_step)}
same = parareal(model, starts, levels(24), blocks=24, tol=0)
claim("C10.19", "G = F: iterations, and change of any start in the first",
      same.sweeps + same.residuals.max(), between=(1, 1))
claim("C10.20", "ancestral fine, DDIM coarse, 10 blocks: iterations over blocks",
      noisy[100, solvers.ddim].sweeps / 10, between=(0.9, 1))
claim("C10.21", "400 steps: iterations with the ancestral mean over those with DDIM",
      noisy[400, mean_step].sweeps / noisy[400, solvers.ddim].sweeps, below=0.8)

# %% [markdown]
# With ten blocks DDIM is useless as coarse step: all ten iterations, the sequential depth and several times the work. With twenty it
# takes 16, the ancestral mean 9.
#
# **Rung 2.** A trained network in float32, the digits' teacher with $\omega=1$, to $\sigma=0$, tolerance 0.1. There is no formula for its $r_j$;
# the count should still not grow, six iterations would halve the depth, and while errors at least halve, the error is below
# the last change. A matrix product over many rows may round differently, so bits are asked for with each row by itself
# (`alone`).

# %%
# NBVAL_CHECK_OUTPUT
teacher = guided(digits_teacher(), omega=1.0, null=NULL)
to_clean = lambda n: [*schedule.levels(grid(schedule, n - 1, t_min=1e-2)), CLEAN]
noise, digit = Draw(4).normal(torch.empty(20, 1, 8, 8)), torch.arange(20) % 10
alone = replace(teacher, net=lambda *batch: torch.cat(
    [teacher.net(*part) for part in zip(*(rows.split(1) for rows in batch))]))
with torch.no_grad():
    trained = {n: parareal(teacher, noise, to_clean(n), tol=0.1, cond=digit)
               for n in (25, 100, 225)}
    in_turn = sample(teacher, noise, to_clean(225), cond=digit)
    seen = [run.starts[-1] for run in islice(
        iterations(teacher, noise[:10], to_clean(225), cond=digit[:10]), 3)]
    bits = [find(alone, noise[:1], to_clean(25), cond=digit[:1], **how)
            for find, how in ((sample, {}), (parareal, {"tol": 0}))]
claim("C10.22", "digits: iterations for 225 steps less those for 25",
      trained[225].sweeps - trained[25].sweeps, below=1.5)
claim("C10.23", "digits, 225 steps: depth over steps",
      trained[225].depth / 225, below=0.5)
claim("C10.24", "their RMS distance to the sequential pictures, over the tolerance",
      metrics.rms(trained[225].x, in_turn) / (0.1 * to_clean(225)[-2].sigma), below=1)
claim("C10.25", "digits, tolerance 0, each row by itself: largest difference",
      (bits[0] - bits[1].x).abs().max(), between=(0, 0))

# %%
rows = {"225 in turn": in_turn[:10], "15 long steps": seen[0]}
rows |= {f"error × 4, {p} corrections, {15 + 14 * p} deep":
         4 * (x - in_turn[:10]).abs() - 1 for p, x in enumerate(seen)}
figure(plot.pictures(rows),
       "Fifteen long steps give the right digits with errors along every stroke; one "
       "correction leaves faint traces of them, two leave blank paper.",
       "Same network, same noise in each column.")

# %% [markdown]
# ## 10.7 What should look wrong here
#
# The library treats block $p$ of iteration $p$ by itself: a bracket that must be zero is not computed. Leave this to arithmetic, once with
# the bracket and once without: $F+(G'-G)$, or $(F+G')-G$. *Predict both.*

# %%
# NBVAL_CHECK_OUTPUT
class NoCase(_Pipeline):
    add = staticmethod(lambda fine, new, old: fine + (new - old))

    def _next(self, p, i):
        if p == 0 or (p - 1, i) not in self.fine_ends:
            return self.coarse_ends.get((0, i)) if p == 0 else None
        new, old = self.coarse_ends.get((min(p, i), i)), self.coarse_ends[p - 1, i]
        return None if new is None else self.add(self.fine_ends[p - 1, i], new, old)

class Careless(NoCase):
    add = staticmethod(lambda fine, new, old: (fine + new) - old)

path = [state.x for state in walk(model, starts, hundred)][::10]
worst = lambda kind: max((x - y).abs().max() for p, run in enumerate(
    kind(model, starts, hundred, [None] * 100, solvers.ddim, solvers.ddim,
         [*range(0, 101, 10)], None).run(0)) for x, y in zip(run.starts[: p + 1], path))
claim("C10.26", "bracket last: the first p blocks after p iterations, largest error",
      worst(NoCase), between=(0, 0))
claim("C10.27", "bracket opened: rounding errors, not zero",
      worst(Careless), between=(1e-17, 1e-12))

# %% [markdown]
# A rounding error is harmless in a picture. It is not harmless in a test: "equal to the sequential sampler" can be checked for equality,
# "nearly equal" hides the next mistake.
#
# ## 10.8 In practice
#
# - **Published.** SRDS reports up to 1.7 times the speed of 25-step Stable Diffusion 2 and up to 4.3 times on longer trajectories; the
#   conference abstract, up to 2.3 times at 100 steps [@selvam2024srds]. Wall-clock times on GPUs, *not reproduced here*: on the one
#   CPU thread of this page a batch costs what its rows cost, and parareal is slower than `sample`.
# - **Short chains gain little.** At $N=25$ and $K=5$, \eqref{eq:depth} is $5+4p$: two iterations 13, four 21.
#   If 20 calls of DPM-Solver++(2M) (chapter 8) are good enough, make them.
# - **Devices and memory.** About $K$ states in flight, twice that with guidance. Under torchrun here, the rows of each call are shared
#   among the processes.
# - **$p$ is not a quality knob.** An unfinished iterate is nobody's sample. Use the tolerance; $10^{-2}$ to $10^{-1}$ of σ was ample here.
# - **Ends must meet.** $F$ and $G$ must share the blocks' levels exactly; rounding timesteps to integers in one of them breaks the proof.
# - **$G$ must be a function.** Dropout, or kernels that change between calls, leave a bracket that never vanishes.
#   In half precision "exact" means about $10^{-3}$.
# - **No memory.** Multistep solvers are refused, as in chapter 9. DPM-Solver-2, Heun and DPM-Solver-3 are welcome as $F$ and $G$, the
#   ancestral step as $F$.
# - **Where the toy stops being true.** GMM5's ε is smooth; a large network's, strongly guided, makes larger $r_j$.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.sd.denoiser(unet, scheduler_config)` |
# | `parareal(model, x, levels, tol=1e-2)` | the same function object |
# | `found.depth`, `found.work` | `depth` and `work` in settings.json |
# | `alone` | `--chunk 1` |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" \
#     --parallel parareal --tol 0.01 --solver ddim --steps 25 --grid sd_trailing
#
# torchrun --standalone --nproc_per_node 8 -m full_scale.sample --weights DIR_OR_HUB_ID \
#     --prompt "a lighthouse at dusk" \
#     --parallel parareal --tol 0.01 --solver ddim --steps 100 --grid sd_trailing
# ```
#
# **How far up the ladder.** Rung 1: exact to the bit, depth and work to the unit. Rung 2: a trained guided network. Rung 3: the same
# function on Stable Diffusion's classes with random weights, in the test suite; no time was measured on an accelerator.
#
# ## 10.9 Exercises
#
# 1. *(pencil)* Fix $N$ and $p$. Which $K$ makes \eqref{eq:depth} smallest, and how small? Is $\sqrt N$ best?
# 2. *(code)* Pass `coarse=solvers.heun`: two calls a long step, second order. Predict $r_j$'s order and the depth that replaces
#    \eqref{eq:depth}. Check with `iterations` whether it pays at 400 steps.
# 3. *(code)* Give parareal a coarse step of the wrong sign of movement, $G(U)=-U$. Check that tolerance 0 still ends with the
#    sequential sample, and at what depth.
# 4. *(open)* Blocks of equal length in λ are a choice. Find edges for GMM5 that save an iteration at 400 steps.
#
# <details><summary>Answer to 1</summary>
#
# With $J=N/K$ the depth is $K+pN/K-p$, smallest at $K=\sqrt{pN}$, where it is $2\sqrt{pN}-p$. At $K=\sqrt N$ it is $(p+1)\sqrt N-p$. So
# $\sqrt N$ is best only for $p=1$; more blocks cost devices instead. The cell below tries 400 steps.
#
# </details>
#
# Answers as code that runs; solve 3 before you read on:

# %%
# NBVAL_CHECK_OUTPUT
many = parareal(model, x_T, levels(400), blocks=50, tol=1e-2)     # √(7·400) is 53
claim("C10.28", "400 steps: depth of 50 blocks over that of 20",
      many.depth / with_root[400].depth, below=0.85)
flip = solvers.solver(order=0, calls=0)(lambda model, x, *rest, **more: (-x, None))
flipped = parareal(model, starts, levels(36), coarse=flip, tol=0)
claim("C10.29", "G(U) = −U, tolerance 0: less the sequential samples",
      metrics.rms(flipped.x, sample(model, starts, levels(36))), between=(0, 0))
claim("C10.30", "and its depth over the steps", flipped.depth / 36, between=(1, 1))

# %% [markdown]
# ## References
#
# Parareal: [@lions2001parareal]; its convergence, order by order: [@gander2007parareal]. For diffusion, with the pipeline and
# $\sqrt N$ blocks: [@selvam2024srds]. Picard's sweeps, to compare with: [@shih2023paradigms]. DDIM: [@song2021ddim].
