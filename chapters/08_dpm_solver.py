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
#     title: DPM-Solver
#     summary: Integrate the linear part of the sampling ODE exactly, extrapolate the network, and twenty calls do the work of a hundred.
#     minutes: 55
#     memory: 1 GB
#     needs:
#       - the probability-flow ODE and λ (recapped in 8.1)
#       - PyTorch, Taylor's theorem
# ---

# %% [markdown]
# # 8 DPM-Solver: high order in few calls
#
# A diffusion model is slow because its sampler asks the network again and again. This chapter asks less. The data is GMM5, five Gaussian blobs: the perfect
# network is a formula, and every exact end point is known to ten digits. Both panels start from the same noise and make **12 network calls**. A grey line ties
# each point to where it should have landed.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
from functools import partial
import dlib
import numpy as np
import torch
from dlib import CLEAN, NULL, Draw, exact, guided, metrics, plot
from dlib import reference, sample, solvers, vp, walk
from toy_data import digits_teacher, gaussian, gmm5, labelled

schedule, mixture = vp(), gmm5()
model = exact(mixture, schedule)  # the perfect network for this data
levels = partial(dlib.levels, schedule, t_min=1e-2)  # levels(n): n steps, t = 1 to t = 0.01
x_T = Draw(0).normal((256, 2), torch.float64)  # noise, at t = 1
truth = reference(model, x_T, *levels(1))  # the exact end points
panels = {
    "DDIM, 12 calls": sample(model, x_T, levels(12), solvers.ddim),
    "++(3M), 12 calls": sample(model, x_T, levels(12), solvers.dpm_solver_pp_3m),
}
nearest = (truth[:, None] - mixture.means).norm(dim=2).argmin(1)
figure(
    plot.endpoints(panels, truth, nearest),
    "With 12 calls DDIM leaves a visible error on almost every point; "
    "DPM-Solver++(3M) leaves one on a handful.",
    "Same network, same start, same number of calls. Grey: the distance still to go.",
)

# %% [markdown]
# The left sampler takes the network's answer to stay the same during a step. The right one remembers its last three answers.
# ([Explore](../book/pages/explore.md) draws such paths.)
#
# ## 8.1 Recap: the exact solution
#
# $x_t = \alpha_t x_0 + \sigma_t\varepsilon$, with $t=1$ noise and $t=0$ data. $\lambda_t = \log(\alpha_t/\sigma_t)$, half the
# log-SNR, *grows* as we sample. The network's answer has two faces, the noise $\varepsilon$ and the data $x_\theta=(x_t-\sigma_t\varepsilon)/\alpha_t$.
# [Chapter 7](07_exact_solution.ipynb) divides the linear part out of the probability-flow ODE [@song2021sde]. With $y=x/\alpha$ and $\kappa = \sigma/\alpha = e^{-\lambda}$ every
# schedule has the same ODE,
#
# $$\frac{dy}{d\kappa} = \varepsilon(\alpha y, \lambda), \label{eq:ode}$$
#
# and a step from level $s$ to the cleaner $t$ is, exactly [@lu2022dpm, eq. 3.4; @lu2022dpmpp],
#
# $$x_t = \frac{\alpha_t}{\alpha_s}x_s - \alpha_t\int_{\lambda_s}^{\lambda_t} e^{-\lambda}\,\varepsilon(x_\lambda,\lambda)\,d\lambda, \label{eq:exact-eps}$$
#
# $$x_t = \frac{\sigma_t}{\sigma_s}x_s + \sigma_t\int_{\lambda_s}^{\lambda_t} e^{\lambda}\,x_\theta(x_\lambda,\lambda)\,d\lambda. \label{eq:exact-x0}$$
#
# What we do not know is the network along the path. But it changes slowly there, so its past foretells its future. Here is one exact path. A sampler with 20
# steps knows the last 1, 2 or 3 values of $\varepsilon$ and must cross the shaded step:

# %%
path = list(walk(model, x_T[3:4], levels(480), solvers.dpm_solver_3))[170:272]
lam = torch.tensor([state.level.lam for state in path])
eps = torch.stack([model(state.x, state.level).eps[0, 1] for state in path])
known = [22, 46, 70]  # where the 20-step sampler asked last
fit = lambda now: torch.tensor(np.polyval(np.polyfit(lam[now], eps[now], len(now) - 1), lam))
fits = {"frozen": fit(known[2:]), "line": fit(known[1:]), "parabola": fit(known)}
figure(
    plot.along_path(lam, eps, fits, "ε₂ along one path", lam[[70, 94]].tolist()),
    "In the shaded step ε leaves the frozen value at once, the line late, the parabola hardly.",
)

# %% [markdown]
# ## 8.2 Taylor inside the integral
#
# Let $h=\lambda_t-\lambda_s$, and let $\varepsilon^{(k)}$ be the $k$-th *total* derivative in $\lambda$, along the path. Put the Taylor polynomial of
# $\varepsilon$ at $\lambda_s$ into \eqref{eq:exact-eps}. Its powers give integrals that are done once and for all,
#
# $$\phi_{k+1}(h) = \int_0^1 e^{(1-\theta)h}\,\frac{\theta^k}{k!}\,d\theta,\qquad \phi_1(h)=\frac{e^h-1}{h}, \label{eq:phi}$$
#
# and the step becomes
#
# $$x_t = \frac{\alpha_t}{\alpha_s}x_s - \sigma_t\sum_{k<p} h^{k+1}\phi_{k+1}(h)\,\varepsilon^{(k)}(\lambda_s) + O(h^{p+1}). \label{eq:taylor}$$
#
# <details><summary>The algebra</summary>
#
# Set $\lambda=\lambda_s+\theta h$: then $\alpha_t e^{-\lambda} = \alpha_te^{-\lambda_t}e^{(1-\theta)h}=\sigma_t e^{(1-\theta)h}$.
# From \eqref{eq:exact-x0} comes the data form: $\sigma_t/\sigma_s$ in front, $+\alpha_t$ for $-\sigma_t$, $\phi(-h)$ for $\phi(h)$.
#
# </details>
#
# A step that errs by $O(h^{p+1})$, taken $N\propto 1/h$ times, errs by $O(h^p)$ in all: *order* $p$. Methods of this kind are *exponential integrators*
# [@hochbruck2010exponential]; they differ in how they guess $\varepsilon'$ and $\varepsilon''$. In the library \eqref{eq:taylor} is `expand_eps`, from level `a` to `b`.
#
# Keep only $k=0$ and the step is $\alpha_t x_\theta+\sigma_t\varepsilon$: DPM-Solver-1 *is* DDIM [@song2021ddim]. In the
# code, `model(x, level, cond)` is one network call with the faces `.eps` and `.x0`, and `.mix(c, d)` is $c\,x_\theta+d\,\varepsilon$.

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.expand_eps, solvers.ddim)


def end(solver, n, on=levels):  # n steps, on a grid that `on` makes
    return sample(model, x_T, on(n), solver)


def order(solver, on=levels, steps=(160, 320, 640)):
    return metrics.order({n: metrics.typical(end(solver, n, on), truth) for n in steps})


def converges(id, name, p, slope):
    claim(id, f"{name} converges at order {p}", slope, between=(p - 0.15, p + 0.15))


converges("C08.1", "DDIM", 1, order(solvers.ddim))

# %% [markdown]
# All bounds on orders are of this kind: what theory promises, ± 0.15, from 160 to 640 steps in float64, for a *typical*
# sample, the geometric mean over 256 starts. (A few lie between two modes and would rule a root mean square.) Bounds on
# error *ratios* are margins around the values of three seeds.
#
# ## 8.3 More calls inside a step
#
# Runge's idea: take a DDIM step to the middle, $\lambda_m=\lambda_s+h/2$, ask there, and use *that* $\varepsilon$ for the whole step [@lu2022dpm]:
#
# $$x_t = \frac{\alpha_t}{\alpha_s}x_s - \sigma_t(e^h-1)\,\varepsilon(u,\lambda_m),\qquad u=\text{DDIM}(x_s\to\lambda_m). \label{eq:dpm2}$$
#
# Why order 2? The midpoint puts $\tfrac12 h\cdot h\phi_1$ in front of $\varepsilon'$ where \eqref{eq:taylor} wants $h^2\phi_2$.
# Both are $\tfrac12h^2+O(h^3)$. And $u$ is off by $O(h^2)$, which the factor $h$ turns into $O(h^3)$. The same rule for $x_\theta$ in
# \eqref{eq:exact-x0} is DPM-Solver++(2S).
#
# DPM-Solver-3 asks twice inside the step and reads the slope off the second answer, at $r_2h$. Times $h^2\phi_2\approx\tfrac12h^2$, that slope
# $\varepsilon'+\tfrac12r_2h\,\varepsilon''$ brings in $\tfrac14r_2h^3\varepsilon''$. Wanted is $\tfrac16h^3\varepsilon''$: hence $r_2=\tfrac23$ and no other.

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.dpm_solver_2, solvers.dpm_solver_3)
converges("C08.2", "DPM-Solver-2", 2, order(solvers.dpm_solver_2))
converges("C08.3", "DPM-Solver++(2S)", 2, order(solvers.dpm_solver_pp_2s))
converges("C08.4", "DPM-Solver-3", 3, order(solvers.dpm_solver_3))
converges("C08.5", "Heun's rule in (y, κ)", 2, order(solvers.heun))

# %% [markdown]
# The last is EDM's sampler [@karras2022edm]: Heun's rule on \eqref{eq:ode} itself.
#
# ## 8.4 One call a step: remember instead
#
# A multistep solver gets its slope from an answer it already has. With $x_\theta^{s-1}$ the data prediction one step ago and $h_0$ the length
# of that step, DPM-Solver++(2M) extrapolates $x_\theta$ to the middle of the step, which, as in 8.3, makes order 2:
#
# $$x_t = \frac{\sigma_t}{\sigma_s}x_s + \alpha_t(1-e^{-h})\Big[x_\theta^{s} + \frac{h}{2h_0}\big(x_\theta^{s}-x_\theta^{s-1}\big)\Big]. \label{eq:2m}$$
#
# A uniform grid cannot test $h/h_0$, which is 1 there. So take steps of $2h, h, 2h, h\dots$:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.dpm_solver_pp_2m)


def uneven(n):  # drop every third level of a finer grid
    return [level for i, level in enumerate(levels(3 * n // 2)) if i % 3 != 1]


two_m = solvers.dpm_solver_pp_2m
converges("C08.6", "DPM-Solver++(2M) on uneven steps", 2, order(two_m, uneven))

# %% [markdown]
# ## 8.5 Third order, and a missing factor of two
#
# Three values give slope *and* curvature. In Newton's words, $d_1$ and $d_1^-$ are the slopes over the last step, $h_0$, and the one before, $h_1$, and
# $d_2=(d_1-d_1^-)/(h_0+h_1)$. Then
#
# $$x_\theta' = d_1 + h_0\,d_2,\qquad x_\theta''=2\,d_2, \label{eq:newton}$$
#
# and the data form of \eqref{eq:taylor} does the rest. The released code of DPM-Solver, and diffusers and k-diffusion after it, use $d_2$
# where $2d_2$ belongs. Half the curvature is missing, the local error is $O(h^3)$ again, and "3M" is a second-order method:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.multistep._third_order)
ours, released = solvers.dpm_solver_pp_3m, solvers.dpm_solver_pp_3m_released
converges("C08.7", "DPM-Solver++(3M), corrected, on uneven steps", 3, order(ours, uneven))
converges("C08.8", "DPM-Solver++(3M), as released,", 2, order(released))
twelve = [metrics.typical(end(solver, 12), truth) for solver in (released, ours)]
claim(
    "C08.9",
    "12 steps: the released 3M is closer for a typical sample (error ratio)",
    twelve[0] / twelve[1],
    below=0.5,
)

# %% [markdown]
# The last line surprises: from about 10 to 40 steps the released form is *closer* here, for a typical sample. Order is a promise about the limit.
#
# ## 8.6 UniPC: correct with the call you make anyway
#
# 3M integrates the parabola through the last three data predictions. A polynomial through *any* nodes $(\lambda_s+u_j,\,x_\theta^j)$
# can go into \eqref{eq:exact-x0}, and the integral is a sum whose weights follow from the powers of $u$:
#
# $$x_t=\frac{\sigma_t}{\sigma_s}x_s+\alpha_t\sum_j w_j\,x_\theta^j,\qquad \sum_j w_j\,u_j^k=\int_0^h e^{-(h-u)}u^k\,du=k!\,h^{k+1}\phi_{k+1}(-h). \label{eq:unipc}$$
#
# UniPC [@zhao2023unipc] uses it twice. The *predictor* has the latest $p$ nodes. Then comes the next step's call anyway, and the *corrector*
# makes the old step again with that value as one more node: a local error of $O(h^{p+2})$. (The value was taken at the predicted $x$, off by
# $O(h^{p+1})$; the weight's factor $h$ makes that $O(h^{p+2})$ too.) So UniPC-$p$ has order $p+1$ at one call a step.

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.polynomial.through, solvers.unipc)
converges("C08.10", "UniPC-1", 2, order(solvers.unipc_1))
converges("C08.11", "UniPC-2", 3, order(solvers.unipc_2))
claim("C08.12", "UniPC-3 converges at order 4", order(solvers.unipc_3), between=(3.7, 4.15))
late = [metrics.typical(end(solver, 320), truth) for solver in (released, ours, solvers.unipc_3)]
claim(
    "C08.13",
    "320 steps: the released 3M's error over that of corrected 3M or UniPC-3 (least)",
    late[0] / max(late[1:]),
    above=10,
)

# %% [markdown]
# (UniPC-3's next error term still shows at 160 steps, hence its lower bound.) The authors have a second corrector; 8.11 measures its order.
#
# ## 8.7 What a call buys
#
# Budgets are not limits. So count *calls*: 12 are 12 steps of ++(2M), 6 of DPM-Solver-2, 4 of DPM-Solver-3. Shaded is the **sampling floor**: there an rms error over $\sqrt d$ is
# below the sliced Wasserstein distance of two *exact* sets of 10 000, and nobody could tell.

# %%
# NBVAL_CHECK_OUTPUT
draw = Draw(1)
sw2, _ = metrics.noise_floor(metrics.sliced_w2, lambda: mixture.sample(10_000, draw)[0])
named = {
    "DDIM": solvers.ddim,
    "DPM-2": solvers.dpm_solver_2,
    "DPM-3": solvers.dpm_solver_3,
    "++(2S)": solvers.dpm_solver_pp_2s,
    "++(2M)": solvers.dpm_solver_pp_2m,
    "++(3M)": solvers.dpm_solver_pp_3m,
    "UniPC-3": solvers.unipc_3,
}
curves = {
    name: {
        calls: metrics.rms(end(solver, calls // solver.calls), truth)
        for calls in (6, 12, 24, 48, 96, 192)
    }
    for name, solver in named.items()
}
figure(
    plot.convergence(curves, floor=2**0.5 * sw2, slopes=(1, 2, 3, 4)),
    "From 24 calls on UniPC-3 is lowest, from 48 on ++(3M) next; at 6 calls the single-step "
    "solvers DPM-2 and DPM-3 are worse than DDIM.",
    "Error against calls on GMM5, uniform in λ.",
)
claim(
    "C08.14",
    "GMM5, 6 calls: DPM-Solver-3 is further off than DDIM (error ratio)",
    curves["DPM-3"][6] / curves["DDIM"][6],
    between=(3, 6),
)

# %% [markdown]
# **With guidance.** $\varepsilon^\omega=(1+\omega)\varepsilon(x,c)-\omega\,\varepsilon(x,\varnothing)$ [@ho2022cfg] multiplies the slopes of
# $\varepsilon$ by up to $1+2\omega$. Now the form matters. DPM-Solver-2, written in $x_\theta$, is ++(2S) with one other weight (exercise 1). Both see how much $x_\theta$ has changed by the middle of the step. ++(2S) gives
# this change the weight $1-e^{-h}$, and DPM-Solver-2 gives it $e^{h/2}$ times as much. With six steps ($h=1.36$) that is 0.74 and 1.46. A change linear in λ needs $2\,\bigl(1-(1-e^{-h})/h\bigr)=0.90$. So the ε-form overshoots, and
# guidance magnifies it.
#
# **On which grid.** `lam` is uniform in $\lambda$, `time` in $t$, `karras` in $\kappa^{1/7}$ [@karras2022edm], and `arctan` in
# $\arctan\sqrt{\kappa/\tfrac12}$, finest around $\kappa=\tfrac12$, where the modes part. Two overlapping classes, $\omega=6.5$
# (a guided call is one on twice the batch):

# %%
classes = torch.arange(256) % 2
pair = guided(exact(labelled(), schedule), omega=6.5, null=NULL)
goal = reference(pair, x_T, *levels(1), cond=classes, rtol=1e-10)


def off(solver, spacing, calls):
    path = levels(calls // solver.calls, spacing)
    return metrics.rms(sample(pair, x_T, path, solver, cond=classes), goal)


columns = [*(("arctan", n) for n in (6, 12, 24)), ("lam", 12), ("karras", 12), ("time", 12)]
rows = [["rms error", *(f"{spacing} {calls}" for spacing, calls in columns)]]
rows += [[name, *(f"{off(s, *where):.3f}" for where in columns)] for name, s in named.items()]
print("\n".join("".join(f"{entry:>11}" for entry in row) for row in rows))


# %%
# NBVAL_CHECK_OUTPUT
def ratio(id, one, other, spacing, calls, **bound):
    value = off(named[one], spacing, calls) / off(named[other], spacing, calls)
    claim(id, f"guided, {calls} calls, {spacing}: {one}'s error over {other}'s", value, **bound)


ratio("C08.15", "DPM-2", "DDIM", "lam", 12, between=(3, 10))
ratio("C08.16", "++(2S)", "DDIM", "lam", 12, below=0.7)
ratio("C08.17", "UniPC-3", "DDIM", "time", 12, between=(3, 10))
ratio("C08.18", "++(2M)", "UniPC-3", "arctan", 6, below=0.75)
ratio("C08.19", "UniPC-3", "++(2M)", "arctan", 12, below=0.33)

# %% [markdown]
# Read the table along a row: the grid decides as much as the solver. Uniform in $t$ the last step is the longest in $\lambda$, and high orders extrapolate over it. On `karras` the steps in λ grow all the way to the data, and at
# 12 calls all three multistep solvers lose to DDIM there. Read the table down a column: on `arctan` ++(2M) wins at 6 calls, UniPC-3 from 12 on. The data form rescues *single-step* solvers; for multistep ones it is the other way round here
# (exercise 3). What ++ surely adds: it accepts $\sigma=0$ and $\alpha=0$ at the ends, and pixel models can clip $x_\theta$.
#
# ## 8.8 The grid you get without asking
#
# diffusers' `DPMSolverMultistepScheduler()`, ++(2M) by default, spreads $N+1$ indices evenly over a ladder of 1000, rounds
# them, drops index 0 and ends with a step to $\sigma=0$ (the level `CLEAN`). On it ++(2M), ++(3M) and UniPC all converge below first order. Why? The last step returns
# $x_\theta=y-\kappa\varepsilon$, and along \eqref{eq:ode} $dx_\theta/d\kappa=-\kappa\,d\varepsilon/d\kappa$. So it leaves an error $\propto\kappa_1^2$, with
# $\kappa_1$ the level of the last call, however good the state that it starts from:


# %%
# NBVAL_CHECK_OUTPUT
def by_default(n):
    index = torch.linspace(0, 999, n + 1, dtype=torch.float64).round().flip(0)[:-1]
    return schedule.levels((index + 1) / 1000)


noisy, clean = schedule.at(1.0), schedule.at_lam(9.0)  # λ = 9 is σ = 0 to 1e-8
x_0 = model(reference(model, x_T, noisy, clean), clean).x0
alone, kappa_squared = {}, {}
for n in (160, 320, 640):
    *_, last = by_default(n)
    alone[n] = metrics.typical(model(reference(model, x_T, noisy, last), last).x0, x_0)
    kappa_squared[n] = (last.sigma / last.alpha) ** 2


def whole(solver):
    return metrics.order(
        {
            n: metrics.typical(sample(model, x_T, [*by_default(n), CLEAN], solver), x_0)
            for n in alone
        }
    )


claim(
    "C08.20",
    "diffusers' default grid: the best order of ++(2M), ++(3M) and UniPC-3",
    max(map(whole, (two_m, ours, solvers.unipc_3))),
    below=1,
)
claim(
    "C08.21",
    "diffusers' default grid, exact last step: its order minus that of κ₁²",
    metrics.order(alone) - metrics.order(kappa_squared),
    between=(-0.05, 0.05),
)

# %% [markdown]
# From 160 to 640 steps the last call moves from index 6 to index 2 and $\kappa_1^2$ falls threefold, a slope of .80; at index 1 it stops. No picture shows an error of $10^{-3}$, but a
# measurement of orders does: stop that at $\sigma>0$. (`test_peers.py`: diffusers' own class does the same.)
#
# ## 8.9 Noise in the step
#
# The reverse SDE with $\eta$ times the noise power has the same marginals [@song2021sde]. In $z=x/\sigma$ it is
# $dz=\big(-\eta z+(1+\eta)e^\lambda x_\theta\big)\,d\lambda+\sqrt{2\eta}\,dw$, and its linear part, too, can be solved exactly [@lu2022dpmpp]. The
# rate 1 in \eqref{eq:unipc} becomes $1+\eta$:
#
# $$x_t=\frac{\sigma_t}{\sigma_s}e^{-\eta h}x_s+\alpha_t\!\int_0^h\!(1+\eta)\,e^{-(1+\eta)(h-u)}x_\theta(\lambda_s+u)\,du+\sigma_t\sqrt{1-e^{-2\eta h}}\;\xi, \label{eq:sde}$$
#
# with fresh $\xi\sim\mathcal N(0,I)$. With the polynomial through $p$ values this is SDE-DPM-Solver++($p$M). $\eta=0$ is the ODE; $\eta=1$, $p=1$ is ancestral
# sampling. (This η is that of [chapter 4](04_sde_pf_ode.ipynb), squared.) "Order" now means that of the *law*. On data $\mathcal N(0,c^2)$ the
# denoiser is linear, so $x$ is a sum of independent normals, the start and one a step, and its variance needs no sampling:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.sde_dpm_solver_pp, metrics.variance)
normal = exact(gaussian(0.0, 0.5), schedule)
start, final = ((0.5 * level.alpha) ** 2 + level.sigma**2 for level in levels(1))


def law(solver, steps=(160, 320, 640)):  # the order of the variance
    away = lambda n: abs(metrics.variance(normal, levels(n), solver, start) - final)
    return metrics.order({n: away(n) for n in steps})


converges("C08.22", "SDE-++(2M), η = ½: variance", 2, law(solvers.sde_dpm_solver_pp(2, 0.5)))
converges("C08.23", "SDE-++(3M), η = 1: variance", 2, law(solvers.sde_dpm_solver_pp_3m))

# %% [markdown]
# 3M gains no order over 2M: noise makes $x_\theta$ rough along the path.
#
# ## 8.10 Rung 2: real pictures
#
# Now a *trained* network, a small MLP on scikit-learn's 8×8 digits, with $\omega=1$. The yardstick is its own ODE in 200
# steps of DPM-Solver-3; the last call is the step to `CLEAN`.

# %%
# NBVAL_CHECK_OUTPUT
teacher = guided(digits_teacher(), omega=1.0, null=NULL)
noise, digit = Draw(4).normal((100, 1, 8, 8)), torch.arange(100) % 10


def run(solver, n):
    return sample(teacher, noise, [*levels(n), CLEAN], solver, digit)


converged, fine = run(solvers.dpm_solver_3, 200), run(two_m, 10)
rows = {"converged": converged[:10]}
for name, pictures in (("DDIM", run(solvers.ddim, 10)), ("++(2M)", fine)):
    rows[f"{name}, 11 calls"] = pictures[:10]
    rows[f"{name}: error × 4"] = (4 * (pictures - converged).abs() - 1)[:10]
figure(
    plot.pictures(rows),
    "Eleven calls of DDIM leave errors along every stroke; eleven of ++(2M) almost none.",
)
claim(
    "C08.24",
    "digits: the error of 11 calls of ++(2M) over that of 21 of DDIM",
    metrics.typical(fine, converged) / metrics.typical(run(solvers.ddim, 20), converged),
    below=0.7,
)

# %% [markdown]
# ## 8.11 What should look wrong here
#
# UniPC's variant `vary_coeff` corrects by derivatives. Let $D_-$ be the change of $x_\theta$ over the step before, $D_+$ over this one. At $p=2$ and equal steps
# $hx_\theta'=\tfrac12(D_-+D_+)$ and $h^2x_\theta''=D_+-D_-$, and with $\phi$ at $-h$ the corrector should add
# $\alpha_th\,(\phi_2\,hx_\theta'+\phi_3\,h^2x_\theta'')$ to DDIM. But its loop over derivatives ends one too early, and $D_+$ comes
# after it with the index left over. What it adds is `slip`. *Predict the order before you run this.*


# %%
# NBVAL_CHECK_OUTPUT
@solvers.solver(order=3, history=2)
def vary_coeff(model, x, a, b, memory=None, noise=None, cond=None):
    new, nodes = model(x, a, cond).x0, ()
    if memory:
        x_s, s, nodes = memory
    if len(nodes) == 2:
        h, (_, now), (_, before) = a.lam - s.lam, *nodes
        slip = solvers.phi(2, -h) * (now - before) / 2 + solvers.phi(3, -h) * (new - now) / 2
        x = solvers.expand_x0(x_s, s, a, now) + a.alpha * h * slip
    nodes = ((a.lam, new), *nodes)[:2]
    return solvers.polynomial.through(x, a, b, nodes), (x, a, nodes)


converges("C08.25", "UniPC-2, corrected as `vary_coeff` does,", 1, order(vary_coeff))

# %% [markdown]
# Let both differences be $hx_\theta'$, a constant slope. Then $\phi_2\to\tfrac12$, $\phi_3\to\tfrac16$ give $\tfrac13\alpha_th^2x_\theta'$ for the $\tfrac12$ that
# belongs there. Nothing crashes. Before you copy a solver, measure its order.
#
# ## 8.12 In practice
#
# | your case | take | measured |
# |---|---|---|
# | 12 calls or more | `unipc_3` on `arctan`, the default of `full_scale.sample` | guided: C08.19. Not guided: an rms of .01 in 16 calls; UniPC-2 18, ++(2M) 26, DDIM 187 (`bench nfe`) |
# | about 6 calls | `dpm_solver_pp_2m` on `arctan`; or distil (Part III) | C08.18 |
# | a grid uniform in $t$ | `dpm_solver_pp_2m`, no higher order | C08.17 |
# | fresh noise in each step | `sde_dpm_solver_pp_2m` | C08.22; 3M gains nothing, C08.23 |
#
# - **A model of your own.** Do as in 8.10: its own ODE in 200 steps is the yardstick for solvers and grids, at your guidance and budget.
# - **Elsewhere.** Stable Diffusion 1.5: commonly 20–25 steps of ++(2M). CIFAR-10 FIDs at 10 calls: 4.70 for DPM-Solver [@lu2022dpm], 3.87 for
#   UniPC [@zhao2023unipc], as reported, *not reproduced here*.
# - **diffusers.** Where it is right, its numbers are ours: DDIM, ++(2M), UniPC (`bh2`), also the released 3M (`test_peers.py`, `test_polynomial_solvers.py`). Its
#   `sde-dpmsolver++` of order 3 is worse than its order 2, a $-\tfrac12$ for a $+\tfrac12$ (same tests).
# - **The ends.** At $\alpha=0$ (flow models, $t=1$) ε-forms divide by zero; data forms with a v or velocity network start there.
#   At $\sigma=0$ only order 1 is defined. `full_scale.sample` lets `CLEAN` *replace* a grid's last level, so that nothing extrapolates over a long last step (`sd_trailing`).
# - **Pixels.** Guided predictions leave $[-1,1]$. *Dynamic thresholding* [@saharia2022imagen], `thresholded(model)`, clips $x_\theta$ to
#   $\pm s$ and divides by $s$, the .995 quantile of $|x_\theta|$ but at least 1; ε must follow ([chapter 7](07_exact_solution.ipynb)).
# - **Where the toy stops being true.** A trained network obeys these orders towards *its own* ODE (`test_digits_teacher.py`); no order repairs its error. `arctan`'s ½ is where *this* data
#   decides. Close to the end point is not yet good-looking.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.families.sd.denoiser(unet, scheduler_config)` |
# | `grid(schedule, n, "arctan")` | the same function object |
# | `guided(model, 6.5, null=NULL)` | `guided(model, 6.5, null=empty_prompt)` |
# | `solvers.unipc_3` | the same function object |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" \
#     --solver unipc_3 --steps 20 --grid arctan --omega 6.5
#
# python -m full_scale.sample --weights DIR_OR_HUB_ID --prompt "a lighthouse at dusk"
# ```
#
# **How far up the ladder.** Rung 1: every order, against the exact flow. Rung 2: a trained network, against its own ODE. Rung 3: Stable Diffusion's classes, equal to
# diffusers where it is right.
#
# ## 8.13 Exercises
#
# 1. *(pencil)* Bring \eqref{eq:dpm2} into the form $\frac{\sigma_t}{\sigma_s}x_s+\alpha_t(1-e^{-h})\big[x_\theta^s+c\,(x_\theta^m-x_\theta^s)\big]$, with $x_\theta^m$ the data prediction at $u$. What is $c$?
# 2. *(code)* Repair `vary_coeff`: `order(yours)` is 3. Then write DPM-Solver-3 with nodes at ¼ and ½. Predict its order, and check.
# 3. *(code)* Write the ε-form of 2M: `order(yours)` is 2. Does it beat ++(2M) in `off(yours, "lam", 12)`?
# 4. *(open)* Find falling times from 1 to 0.01, as `schedule.levels(times)`, on which UniPC-3 needs
#    fewer calls than on `arctan`, also for other `x_T` and the guided `pair`.
#
# <details><summary>Answer to 1</summary>
#
# DDIM in data form gives $u$, so $\varepsilon_m=(u-\alpha_mx_\theta^m)/\sigma_m=x_s/\sigma_s-e^{\lambda_m}\big[x_\theta^m-(1-e^{-h/2})\,x_\theta^s\big]$. Its factor $\sigma_t(e^h-1)$ turns
# $e^{\lambda_m}$ into $\alpha_t(1-e^{-h})\,e^{h/2}$, and the terms in $x_s$ add up to $\sigma_t/\sigma_s$. Hence $c=e^{h/2}$; in ++(2S) it is 1.
#
# </details>
#
# Answer to 3; solve it before you read on:


# %%
# NBVAL_CHECK_OUTPUT
@solvers.solver(order=2, history=1)
def eps_2m(model, x, a, b, memory=None, noise=None, cond=None):
    eps = middle = model(x, a, cond).eps
    if memory is not None:
        middle = eps + 0.5 * (b.lam - a.lam) / (a.lam - memory[0]) * (eps - memory[1])
    return solvers.expand_eps(x, a, b, middle), (a.lam, eps)


converges("C08.26", "the ε-form of 2M", 2, order(eps_2m))
named["ε-form of 2M"] = eps_2m
ratio("C08.27", "ε-form of 2M", "++(2M)", "lam", 12, below=0.6)

# %% [markdown]
# ## References
#
# The solver and its data form: [@lu2022dpm; @lu2022dpmpp]. Predictor–corrector: [@zhao2023unipc]. Heun's rule and the Karras grid: [@karras2022edm].
# Exponential integrators: [@hochbruck2010exponential]. The same family in other clothes: [@zhang2023deis].
