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
# A diffusion model is slow because its sampler asks the network again and again. This chapter asks less. The data is GMM5, five Gaussian blobs, so the perfect network is a formula and every exact end point is known to ten digits. Both panels
# start from the same noise and make **12 network calls**. A grey line ties each point to where it should have landed.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import numpy as np
import torch
from dlib import CLEAN, NULL, Draw, exact, grid, guided, metrics, plot
from dlib import reference, sample, solvers, vp, walk
from toy_data import digits_teacher, gaussian, gmm5, labelled

schedule, mixture = vp(), gmm5()
model = exact(mixture, schedule)                    # the perfect network for this data
levels = lambda n, spacing="lam": schedule.levels(grid(schedule, n, spacing, t_min=1e-2))
x_T = Draw(0).normal(torch.empty(256, 2, dtype=torch.float64))      # noise, at t = 1
truth = reference(model, x_T, *levels(1))           # the exact end points, at t = 0.01

labels = (truth[:, None] - mixture.means).norm(dim=2).argmin(1)
panels = {"DDIM, 12 calls": sample(model, x_T, levels(12), solvers.ddim),
          "++(3M), 12 calls": sample(model, x_T, levels(12), solvers.dpm_solver_pp_3m)}
figure(plot.endpoints(panels, truth, labels),
       "With 12 calls DDIM leaves a visible error on almost every point; "
       "DPM-Solver++(3M) leaves one on a handful.",
       "Same network, same start, same number of calls. Grey: the distance still to go.")

# %% [markdown]
# The left sampler takes the network's answer to stay the same during a step. The right one remembers its last three answers.
# ([Explore](../book/pages/explore.md) draws such paths for any number of calls.)
#
# ## 8.1 Recap: the exact solution
#
# $x_t = \alpha_t x_0 + \sigma_t\varepsilon$, with $t=1$ noise and $t=0$ data, and $\lambda_t = \log(\alpha_t/\sigma_t)$, half the
# log-SNR, *grows* as we sample. [Chapter 7](07_exact_solution.ipynb) divides the linear part out of the probability-flow ODE
# [@song2021sde]. With $y=x/\alpha$ and $\kappa = \sigma/\alpha = e^{-\lambda}$, what is left is the same ODE on every schedule:
#
# $$\frac{dy}{d\kappa} = \varepsilon(\alpha y, \lambda). \label{eq:ode}$$
#
# From level $s$ to the cleaner $t$, this is exact in $\lambda$ [@lu2022dpm, eq. 3.4]:
#
# $$x_t = \frac{\alpha_t}{\alpha_s}x_s - \alpha_t\int_{\lambda_s}^{\lambda_t} e^{-\lambda}\,\varepsilon(x_\lambda,\lambda)\,d\lambda. \label{eq:exact-eps}$$
#
# And so is its twin for the data prediction, $x_\theta=(x-\sigma\varepsilon)/\alpha$ [@lu2022dpmpp]:
#
# $$x_t = \frac{\sigma_t}{\sigma_s}x_s + \sigma_t\int_{\lambda_s}^{\lambda_t} e^{\lambda}\,x_\theta(x_\lambda,\lambda)\,d\lambda. \label{eq:exact-x0}$$
#
# What we do not know is the network along the path. Away from the border between two modes it changes slowly (`walk` is `sample`,
# yielding every state):

# %%
path = list(walk(model, x_T[3:4], levels(480), solvers.dpm_solver_3))
lam = torch.tensor([state.level.lam for state in path])
eps = torch.stack([model(state.x, state.level).eps[0, 1] for state in path])
nodes, ahead = [192, 216, 240], slice(170, 272)     # three former steps of a 20-step grid
fits = {name: torch.tensor(np.polyval(np.polyfit(lam[nodes[-k:]], eps[nodes[-k:]], k - 1),
                                      lam[ahead]))
        for k, name in ((1, "frozen"), (2, "line"), (3, "parabola"))}
figure(plot.along_path(lam[ahead], eps[ahead], fits, "ε₂ along one path",
                       step=(float(lam[240]), float(lam[264]))),
       "Over the shaded step the exact noise prediction leaves the frozen value at once, the "
       "line through two former values later, the parabola through three hardly.",
       "One component of ε on an exact path. Shaded: the next step of a 20-step grid.")

# %% [markdown]
# ## 8.2 Taylor inside the integral
#
# Put the Taylor polynomial of $\varepsilon$ at $\lambda_s$ into \eqref{eq:exact-eps}. With $h=\lambda_t-\lambda_s$,
#
# $$\phi_{k+1}(h) = \int_0^1 e^{(1-\theta)h}\,\frac{\theta^k}{k!}\,d\theta,\qquad \phi_1(h)=\frac{e^h-1}{h}, \label{eq:phi}$$
#
# and $\varepsilon^{(k)}$ the $k$-th *total* derivative of $\varepsilon(x_\lambda,\lambda)$ along the path, the solution becomes
#
# $$x_t = \frac{\alpha_t}{\alpha_s}x_s - \sigma_t\sum_{k<p} h^{k+1}\phi_{k+1}(h)\,\varepsilon^{(k)}(\lambda_s) + O(h^{p+1}). \label{eq:taylor}$$
#
# <details><summary>The algebra</summary>
#
# With $\lambda=\lambda_s+\theta h$, $d\lambda=h\,d\theta$ and $\alpha_t e^{-\lambda} = \alpha_te^{-\lambda_t}e^{(1-\theta)h}=\sigma_t e^{(1-\theta)h}$.
# Partial integration gives the recursion $\phi_{k+1} = (\phi_k - 1/k!)/h$.
#
# </details>
#
# A step with local error $O(h^{p+1})$, taken $N\propto 1/h$ times, has global error $O(h^p)$: order $p$. These are *exponential integrators*
# [@hochbruck2010exponential]; solvers differ in how they guess $\varepsilon', \varepsilon''$. In the library, \eqref{eq:taylor} is `expand_eps`, from level `a` to `b`.
#
# Keep only $k=0$, and the step is $x_t=\alpha_t x_\theta+\sigma_t\varepsilon$: DPM-Solver-1 *is* DDIM [@song2021ddim]. In the
# code, `model(x, level, cond)` is one network call, with the faces `.eps` and `.x0`; `.mix(c, d)` is $c\,x_\theta+d\,\varepsilon$.

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.expand_eps, solvers.ddim)
end = lambda solver, n, spacing="lam": sample(model, x_T, levels(n, spacing), solver)
errors = lambda solver: {n: metrics.typical(end(solver, n), truth) for n in (160, 320, 640)}
claim("C08.1", "DDIM converges at order 1",
      metrics.order(errors(solvers.ddim)), between=(0.85, 1.15))

# %% [markdown]
# All bounds on orders are of this kind: what theory promises, ± 0.15, between 160 and 640 steps in float64, for the error of a *typical*
# sample, the geometric mean over 256 starts. (A few lie on the border between two modes and would rule a root mean square.) Bounds on
# error *ratios* are margins around the values of three seeds.
#
# ## 8.3 More calls inside a step
#
# Runge's idea: take a DDIM step to $\lambda_m=\lambda_s+h/2$, ask there, and use *that* $\varepsilon$ for the whole step [@lu2022dpm]:
#
# $$x_t = \frac{\alpha_t}{\alpha_s}x_s - \sigma_t(e^h-1)\,\varepsilon(u,\lambda_m),\qquad u=\text{DDIM}(x_s\to\lambda_m). \label{eq:dpm2}$$
#
# Compare with \eqref{eq:taylor}: the midpoint puts $\tfrac12 h\cdot h\phi_1$ in front of $\varepsilon'$ where $h^2\phi_2$ belongs.
# Both are $\tfrac12h^2+O(h^3)$; and $u$ is itself off by $O(h^2)$, which the factor $h$ turns into $O(h^3)$. So the local error is
# $O(h^3)$. The same rule for $x_\theta$, in \eqref{eq:exact-x0}, is DPM-Solver++(2S). For order 3, a second inner node supplies the slope:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.dpm_solver_2, solvers.dpm_solver_pp_2s, solvers.dpm_solver_3)
claim("C08.2", "DPM-Solver-2 converges at order 2",
      metrics.order(errors(solvers.dpm_solver_2)), between=(1.85, 2.15))
claim("C08.3", "DPM-Solver++(2S) converges at order 2",
      metrics.order(errors(solvers.dpm_solver_pp_2s)), between=(1.85, 2.15))
claim("C08.4", "DPM-Solver-3 converges at order 3",
      metrics.order(errors(solvers.dpm_solver_3)), between=(2.85, 3.15))
claim("C08.5", "Heun's rule in (y, κ) converges at order 2",
      metrics.order(errors(solvers.heun)), between=(1.85, 2.15))

# %% [markdown]
# The last is EDM's step [@karras2022edm]: Heun's rule on \eqref{eq:ode} itself.
#
# ## 8.4 One call a step: remember instead
#
# A multistep solver gets derivatives from answers it already has. With $x_\theta^{s-1}$ the data prediction one step ago and $h_0$ the length
# of that step, DPM-Solver++(2M) extrapolates $x_\theta$ to the middle of the step:
#
# $$x_t = \frac{\sigma_t}{\sigma_s}x_s + \alpha_t(1-e^{-h})\Big[x_\theta^{s} + \frac{h}{2h_0}\big(x_\theta^{s}-x_\theta^{s-1}\big)\Big]. \label{eq:2m}$$
#
# It is the default of diffusers' `DPMSolverMultistepScheduler`:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.dpm_solver_pp_2m)
claim("C08.6", "DPM-Solver++(2M) converges at order 2",
      metrics.order(errors(solvers.dpm_solver_pp_2m)), between=(1.85, 2.15))
uneven = lambda n: [level for i, level in enumerate(levels(3 * n // 2)) if i % 3 != 1]
order_on_uneven = lambda solver: metrics.order(
    {n: metrics.typical(sample(model, x_T, uneven(n), solver), truth) for n in (160, 320, 640)})
claim("C08.7", "DPM-Solver++(2M) converges at order 2 on steps of 2h, h, 2h, h …",
      order_on_uneven(solvers.dpm_solver_pp_2m), between=(1.85, 2.15))

# %% [markdown]
# Only the second claim tests $h/h_0$: on a uniform λ grid it is 1.
#
# ## 8.5 Third order, and a missing factor of two
#
# Newton's divided differences through three values give slope *and* curvature:
# $d_1=(x_\theta^s-x_\theta^{s-1})/h_0$, $d_1^-=(x_\theta^{s-1}-x_\theta^{s-2})/h_1$ and $d_2=(d_1-d_1^-)/(h_0+h_1)$, with $h_1$ the step
# before $h_0$. Then
#
# $$x_\theta' = d_1 + h_0\,d_2,\qquad x_\theta''=2\,d_2, \label{eq:newton}$$
#
# and the data form of \eqref{eq:taylor} does the rest. The released code of DPM-Solver, and diffusers and k-diffusion after it, use $d_2$
# where $2d_2$ belongs. Half the curvature is missing, the local error is $O(h^3)$ again, and "3M" is a second-order method:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.multistep._third_order)
ours, released = errors(solvers.dpm_solver_pp_3m), errors(solvers.dpm_solver_pp_3m_released)
claim("C08.8", "DPM-Solver++(3M), corrected, converges at order 3",
      metrics.order(ours), between=(2.85, 3.15))
claim("C08.9", "DPM-Solver++(3M), corrected, converges at order 3 on steps of 2h, h, 2h, h …",
      order_on_uneven(solvers.dpm_solver_pp_3m), between=(2.85, 3.15))
claim("C08.10", "DPM-Solver++(3M), as released, converges at order 2",
      metrics.order(released), between=(1.85, 2.15))
twelve = [metrics.typical(end(s, 12), truth)
          for s in (solvers.dpm_solver_pp_3m_released, solvers.dpm_solver_pp_3m)]
claim("C08.11", "GMM5, 12 steps: the released 3M is closer for a typical sample (error ratio)",
      twelve[0] / twelve[1], below=0.5)

# %% [markdown]
# The last line surprises: here the released form is *closer* from about 10 to 40 steps. Beyond 48 the order shows.
#
# ## 8.6 UniPC: correct with the call you make anyway
#
# 3M integrates the parabola through the last three data predictions. A polynomial through *any* nodes $(\lambda_s+u_j,\,x_\theta^j)$
# can go into \eqref{eq:exact-x0}, and the integral is a sum:
#
# $$x_t=\frac{\sigma_t}{\sigma_s}x_s+\alpha_t\sum_j w_j\,x_\theta^j,\qquad \sum_j w_j\,u_j^k=\int_0^h e^{-(h-u)}u^k\,du=k!\,h^{k+1}\phi_{k+1}(-h). \label{eq:unipc}$$
#
# UniPC [@zhao2023unipc] uses it twice. The *predictor* has the latest $p$ nodes. Then comes the next step's call anyway, and the *corrector*
# makes the old step again with that value as one node more: a local error of $O(h^{p+2})$. The value was taken at the predicted $x$, off by
# $O(h^{p+1})$; the weight's factor $h$ makes that $O(h^{p+2})$ too. So UniPC-$p$ has order $p+1$. (With two nodes the code takes $\tfrac h2$
# of the zeroth moment for the first, as 2M does: $O(h^3)$ away.)

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.polynomial.through, solvers.unipc)
unipc_errors = {p: errors(solvers.unipc(p)) for p in (1, 2, 3)}
claim("C08.12", "UniPC-1 converges at order 2",
      metrics.order(unipc_errors[1]), between=(1.85, 2.15))
claim("C08.13", "UniPC-2 converges at order 3",
      metrics.order(unipc_errors[2]), between=(2.85, 3.15))
claim("C08.14", "UniPC-3 converges at order 4",
      metrics.order(unipc_errors[3]), between=(3.7, 4.15))

# %% [markdown]
# (UniPC-3's next error term still shows at 160 steps, hence its lower bound.) The authors' variant `vary_coeff` turns the
# differences $D_-=x_\theta^s-x_\theta^{s-1}$ and $D_+=x_\theta^t-x_\theta^s$ into derivatives. At $p=2$ and equal steps,
# $hx_\theta'=\tfrac12(D_-+D_+)$ and $h^2x_\theta''=D_+-D_-$; with $\phi$ at $-h$, the corrector should add
# $\alpha_th\,(\phi_2\,hx_\theta'+\phi_3\,h^2x_\theta'')$ to DDIM. But its loop over derivatives ends one too early, and $D_+$ is added
# after it with the index left over: $\alpha_th\,(\tfrac12\phi_2D_-+\tfrac12\phi_3D_+)$. Where both differences are
# $hx_\theta'$, a constant slope, $\phi_2\to\tfrac12$ and $\phi_3\to\tfrac16$ give $\tfrac13\alpha_th^2x_\theta'$ where $\tfrac12$ belongs. That is order 1:

# %%
# NBVAL_CHECK_OUTPUT
def corrector(weigh):
    @solvers.solver(order=3, history=2)
    def step(model, x, a, b, memory=None, noise=None, cond=None):
        latest, nodes = (a.lam, model(x, a, cond).x0), ()
        if memory:
            x_s, s, nodes = memory
            x = solvers.polynomial.through(x_s, s, a, (latest, *nodes))
            if len(nodes) == 2:
                h, (now, before) = a.lam - s.lam, [x0 for _, x0 in nodes]
                phis = solvers.phi(2, -h), solvers.phi(3, -h)
                added = a.alpha * h * weigh(now - before, latest[1] - now, *phis)
                x = solvers.expand_x0(x_s, s, a, now) + added
        nodes = (latest, *nodes)[:2]
        return solvers.polynomial.through(x, a, b, nodes), (x, a, nodes)
    return step

right = corrector(lambda Dm, Dp, phi_2, phi_3: phi_2 * (Dp + Dm) / 2 + phi_3 * (Dp - Dm))
stale = corrector(lambda Dm, Dp, phi_2, phi_3: phi_2 * Dm / 2 + phi_3 * Dp / 2)
claim("C08.15", "with both derivatives, this corrector converges at order 3",
      metrics.order(errors(right)), between=(2.85, 3.15))
claim("C08.16", "with the stale index of `vary_coeff`, it converges at order 1",
      metrics.order(errors(stale)), between=(0.85, 1.15))

# %% [markdown]
# ## 8.7 Guidance, and what ++ really buys
#
# Guidance, $\varepsilon^\omega=(1+\omega)\varepsilon(x,c)-\omega\,\varepsilon(x,\varnothing)$ [@ho2022cfg], multiplies the partial derivatives of
# $\varepsilon$ by up to $1+2\omega$. Then the form matters. Written in $x_\theta$, with the same inner point, both midpoint rules are
#
# $$x_t=\frac{\sigma_t}{\sigma_s}x_s+\alpha_t(1-e^{-h})\big[x_\theta^s+c\,(x_\theta^m-x_\theta^s)\big],\qquad c=\begin{cases}1&\text{data form}\\e^{h/2}&\varepsilon\text{-form.}\end{cases} \label{eq:midpoints}$$
#
# At 12 calls, 6 steps, $h=1.36$: the ε-form weighs the change of $x_\theta$ by 1.47, the data form by .74, where an $x_\theta$ linear in $\lambda$
# wants .91. Take two overlapping classes and $\omega=6.5$ (diffusers' `guidance_scale=7.5`); a guided call is one on twice the batch:

# %%
classes = torch.arange(256) % 2
pair = guided(exact(labelled(), schedule), omega=6.5, null=NULL)
goal = reference(pair, x_T, *levels(1), cond=classes, rtol=1e-10)
def guided_error(solver, calls, spacing="lam"):
    ends = sample(pair, x_T, levels(calls // solver.calls, spacing), solver, cond=classes)
    return metrics.rms(ends, goal)

compared = {"DDIM": solvers.ddim, "DPM-2 (ε midpoint)": solvers.dpm_solver_2,
            "++(2S) (data midpoint)": solvers.dpm_solver_pp_2s,
            "++(2M)": solvers.dpm_solver_pp_2m, "UniPC-3": solvers.unipc_3}
guided_curves = {name: {n: guided_error(s, n) for n in (6, 12, 24, 48)}
                 for name, s in compared.items()}
figure(plot.convergence(guided_curves),
       "Guided, the ε-form midpoint is worse than DDIM up to 24 calls, the data-form midpoint "
       "better throughout, ++(2M) no better at 12; UniPC-3 worst but one at 6, best from 24.",
       "Guided error against calls, $\\omega = 6.5$.")

# %%
# NBVAL_CHECK_OUTPUT
at_12 = {name: curve[12] / guided_curves["DDIM"][12] for name, curve in guided_curves.items()}
claim("C08.17", "guided, 12 calls, λ grid: DPM-Solver-2 is further off than DDIM (error ratio)",
      at_12["DPM-2 (ε midpoint)"], between=(3, 10))
claim("C08.18", "guided, 12 calls, λ grid: ++(2S) is closer than DDIM (error ratio)",
      at_12["++(2S) (data midpoint)"], below=0.7)
claim("C08.19", "guided, 12 calls, λ grid: ++(2M) is no better than DDIM (error ratio)",
      at_12["++(2M)"], between=(0.75, 1.35))

# %% [markdown]
# The data form rescues *single-step* solvers. For multistep ones it is the other way round here: the ε-form of 2M beats ++(2M)
# (exercise 3), on the grids `time` and `arctan` of 8.8 as well. So this mixture does not explain why practice prefers ++(2M). What ++ surely
# adds: it accepts $\sigma=0$ and $\alpha=0$ at the ends, and pixel models can clip $x_\theta$.
#
# ## 8.8 What a call buys, and where to spend it
#
# Order is a promise about the limit; budgets are not limits. So count *calls*: 12 are 12 steps of 2M, 6 of DPM-Solver-2, 4 of DPM-Solver-3.
# Points paired at an rms distance $r$ are at most $r/\sqrt d$ apart in sliced Wasserstein distance; below the shaded **sampling floor** that is
# less than two *exact* sets differ by chance.

# %%
draw = Draw(1)
sw2, _ = metrics.noise_floor(metrics.sliced_w2, lambda: mixture.sample(10_000, draw)[0])
named = {"DDIM": solvers.ddim, "DPM-2": solvers.dpm_solver_2, "DPM-3": solvers.dpm_solver_3,
         "++(2M)": solvers.dpm_solver_pp_2m, "++(3M)": solvers.dpm_solver_pp_3m,
         "UniPC-3": solvers.unipc_3, "++(3M) released": solvers.dpm_solver_pp_3m_released}
budgets = (6, 12, 24, 48, 96, 192)
curves = {name: {nfe: metrics.rms(end(s, nfe // s.calls), truth) for nfe in budgets}
          for name, s in named.items()}
figure(plot.convergence(curves, floor=2**0.5 * sw2, slopes=(1, 2, 3, 4)),
       "From 24 calls on UniPC-3 is lowest, from 48 on ++(3M) next; at 6 calls the single-step "
       "solvers of order 2 and 3 are worse than DDIM.",
       "Error against calls on GMM5. In the band, sliced Wasserstein cannot tell with 10 000.")

# %% [markdown]
# All of that, 8.7 too, was uniform in $\lambda$. Other grids: `"time"` is uniform in $t$, `"karras"` in $\kappa^{1/7}$ [@karras2022edm],
# `"arctan"` in $\arctan\sqrt{\kappa/\tfrac12}$, finest around $\kappa=\tfrac12$, where this data's modes part:

# %%
by_grid = {spacing: {n: metrics.rms(end(solvers.unipc_3, n, spacing), truth)
                     for n in (6, 10, 16, 26, 42, 68)}
           for spacing in ("lam", "time", "karras", "arctan")}
figure(plot.convergence(by_grid),
       "From 10 calls on UniPC-3 errs least on the arctan grid, then on λ, Karras's and time; "
       "arctan reaches one hundredth at 16 calls, the grid uniform in time has not at 68.",
       "UniPC-3 on four grids.")

# %%
# NBVAL_CHECK_OUTPUT
claim("C08.20", "GMM5, 12 calls: ++(2M) is closer than DDIM (error ratio)",
      curves["++(2M)"][12] / curves["DDIM"][12], below=0.6)
claim("C08.21", "GMM5, 6 calls: DPM-Solver-3 is further off than DDIM (error ratio)",
      curves["DPM-3"][6] / curves["DDIM"][6], between=(3, 6))
calls = 1 + next(n for n in range(40, 2, -1)
                 if metrics.rms(end(solvers.unipc_3, n, "arctan"), truth) > 1e-2)
claim("C08.22", "calls from which on UniPC-3 on the arctan grid stays within 1e-2",
      calls, between=(4, 22))
claim("C08.23", "guided, 12 calls, uniform in t: UniPC-3 is further off than DDIM (error ratio)",
      guided_error(solvers.unipc_3, 12, "time") / guided_error(solvers.ddim, 12, "time"),
      between=(3, 10))
claim("C08.24", "guided, 12 calls, arctan grid: UniPC-3 is closer than ++(2M) (error ratio)",
      guided_error(solvers.unipc_3, 12, "arctan")
      / guided_error(solvers.dpm_solver_pp_2m, 12, "arctan"), below=0.33)

# %% [markdown]
# The grid decides more than the solver: guided, at 12 calls, ++(2M) is off by .25 on `lam` and by .05 on `arctan`. Uniform in $t$, the
# last step is the longest in $\lambda$, and high orders extrapolate over it.
#
# **The grid you get without asking.** diffusers' `DPMSolverMultistepScheduler()` spreads $N+1$ indices evenly over a ladder of 1000, rounds
# them, drops index 0 and ends with a step to $\sigma=0$. On it ++(2M), ++(3M) and UniPC all converge below first order. Why? The last step returns
# $x_\theta$, and along \eqref{eq:ode} $dx_\theta/d\kappa=-\kappa\,d\varepsilon/d\kappa$; so it leaves an error $\propto\kappa_1^2$, with
# $\kappa_1$ the level of the last call. From 160 to 640 steps that call moves from index 6 to index 2 and $\kappa_1^2$ falls threefold, a
# slope of .80; at index 1 it stops.

# %%
# NBVAL_CHECK_OUTPUT
def by_default(n):
    index = torch.linspace(0, 999, n + 1, dtype=torch.float64).round().flip(0)[:-1]
    return schedule.levels((index + 1) / 1000)

steps, clean = (160, 320, 640), schedule.at_lam(9.0)
x_0 = model(reference(model, truth, levels(1)[1], clean), clean).x0
to_zero = lambda solver: {n: metrics.typical(
    sample(model, x_T, [*by_default(n), CLEAN], solver), x_0) for n in steps}
def last_step(n):
    level = by_default(n)[-1]
    walked = schedule.levels(grid(schedule, 160, t_min=level.t))
    x = sample(model, x_T, walked, solvers.unipc_3)
    return metrics.typical(model(x, level).x0, x_0)

alone = {n: last_step(n) for n in steps}
claim("C08.25", "on diffusers' default grid ++(2M) converges below order 1",
      metrics.order(to_zero(solvers.dpm_solver_pp_2m)), below=1)
kappa_squared = {n: float(np.exp(-2 * by_default(n)[-1].lam)) for n in steps}
claim("C08.26", "the last step alone converges as κ₁² does (difference of the slopes)",
      metrics.order(alone) - metrics.order(kappa_squared), between=(-0.05, 0.05))
claim("C08.27", "at 640 steps UniPC-3's error is that of the last step (error ratio)",
      to_zero(solvers.unipc_3)[640] / alone[640], between=(0.95, 1.05))

# %% [markdown]
# No picture shows an error of $10^{-3}$, but a measurement of orders does: stop that at $\sigma>0$.
#
# ## 8.9 Noise in the step
#
# The reverse SDE with $\eta$ times its noise power has the same marginals [@song2021sde]. In $z=x/\sigma$ it is
# $dz=\big(-\eta z+(1+\eta)e^\lambda x_\theta\big)\,d\lambda+\sqrt{2\eta}\,dw$, and its linear part, too, can be solved exactly [@lu2022dpmpp]. The
# rate 1 in \eqref{eq:unipc} becomes $1+\eta$:
#
# $$x_t=\frac{\sigma_t}{\sigma_s}e^{-\eta h}x_s+\alpha_t\!\int_0^h\!(1+\eta)\,e^{-(1+\eta)(h-u)}x_\theta(\lambda_s+u)\,du+\sigma_t\sqrt{1-e^{-2\eta h}}\;\xi,\quad\xi\sim\mathcal N(0,I). \label{eq:sde}$$
#
# With the polynomial through $p$ values this is SDE-DPM-Solver++($p$M); $\eta=0$ is the ODE, and $\eta=1$, $p=1$ ancestral
# sampling. (Ours is the square of [chapter 4](04_sde_pf_ode.ipynb)'s η.) "Order" now means that of the *law*. On data $\mathcal N(0,c^2)$ the
# denoiser is linear, so $x$ is a sum of independent normals, the start and one a step. Carry each as a row; their squares sum to the variance:

# %%
show(solvers.sde_dpm_solver_pp)
def variance(denoiser, solver, walked, start):
    x, memory = torch.zeros(len(walked), 1, dtype=torch.float64), None
    x[0] = start
    for i, (a, b) in enumerate(zip(walked, walked[1:]), 1):
        noise = torch.zeros_like(x)
        noise[i] = 1.0
        x, memory = solver(denoiser, x, a, b, memory, noise)
    return x.square().sum().item()

normal, c = exact(gaussian(0.0, 0.5), schedule), 0.5
law = lambda level: (c * level.alpha)**2 + level.sigma**2
def variance_order(solver):
    walked = {n: levels(n) for n in (160, 320, 640)}
    return metrics.order({n: abs(variance(normal, solver, w, law(w[0])**0.5) - law(w[-1]))
                          for n, w in walked.items()})

# %% [markdown]
# 3M gains no order over 2M: the noise between its nodes makes $x_\theta$ rough along the path. diffusers' `sde-dpmsolver++` of order 3 even
# loses one. At $\eta=1$ the moment of $u^2$ is $2qh^2$ with $q=\tfrac12+(1-e^{-2h}-2h)/4h^2$, so the curvature's term is $2q\,\alpha_th^2d_2$; there it is
# $(q-1)\,\alpha_th^2d_2$, a $-\tfrac12$ for $+\tfrac12$ besides 8.5's missing 2. At $h=.1$ that is $-.968$ for $.063$.

# %%
# NBVAL_CHECK_OUTPUT
def sde_released(model, x, a, b, memory=None, noise=None, cond=None):
    x_b, nodes = solvers.sde_dpm_solver_pp_3m(model, x, a, b, memory, noise, cond)
    if len(nodes) == 3:
        (l_0, m_0), (l_1, m_1), (l_2, m_2) = nodes
        d_2 = ((m_0 - m_1) / (l_0 - l_1) - (m_1 - m_2) / (l_1 - l_2)) / (l_0 - l_2)
        h = b.lam - a.lam
        q = 0.5 + (1 - np.exp(-2 * h) - 2 * h) / (4 * h * h)
        x_b = x_b + ((q - 1) - 2 * q) * b.alpha * h * h * d_2
    return x_b, nodes

for id, p, eta, order in (("C08.28", 1, 1, 1), ("C08.29", 2, 0.5, 2), ("C08.30", 3, 1, 2)):
    claim(id, f"SDE-++({p}M), η = {eta:g}: Gaussian data's variance converges at order {order}",
          variance_order(solvers.sde_dpm_solver_pp(p, eta)), between=(order - 0.15, order + 0.15))
claim("C08.31", "SDE-++(3M) with diffusers' coefficient: it converges at order 1",
      variance_order(sde_released), between=(0.85, 1.15))

# %% [markdown]
# ## 8.10 Rung 2: real pictures
#
# Now a *trained* network: a small MLP on scikit-learn's 8×8 digits, guided with $\omega=1$. The yardstick is its own ODE, solved with 200
# steps of DPM-Solver-3. The level `CLEAN` is $\sigma=0$; the step to it returns $x_\theta$.

# %%
teacher = guided(digits_teacher(), omega=1.0, null=NULL)
digit = torch.arange(10)
noise = Draw(3).normal(torch.empty(10, 1, 8, 8))
run = lambda x, cond, solver, n: sample(teacher, x, [*levels(n), CLEAN], solver, cond)
goal_digits = run(noise, digit, solvers.dpm_solver_3, 200)
rows = {"converged": goal_digits}
for name, solver in (("DDIM", solvers.ddim), ("++(2M)", solvers.dpm_solver_pp_2m)):
    pictures = run(noise, digit, solver, 10)
    rows[f"{name}, 11 calls"] = pictures
    rows[f"{name}: error × 4"] = 4 * (pictures - goal_digits).abs() - 1
figure(plot.pictures(rows),
       "Eleven calls of DDIM leave errors along every stroke; eleven of ++(2M) almost none.",
       "Same network, same noise in each column; the last call is the step to σ = 0.")

# %%
# NBVAL_CHECK_OUTPUT
many, asked = Draw(4).normal(torch.empty(100, 1, 8, 8)), torch.arange(100) % 10
converged = run(many, asked, solvers.dpm_solver_3, 200)
off = lambda solver, n: metrics.typical(run(many, asked, solver, n), converged)
claim("C08.32", "digits, typically: 11 calls of ++(2M) are closer than 21 of DDIM (error ratio)",
      off(solvers.dpm_solver_pp_2m, 10) / off(solvers.ddim, 20), below=0.7)
precise = digits_teacher()
precise.net.double()
own = lambda n: sample(precise, noise.double(), levels(n), solvers.dpm_solver_pp_2m, digit)
flow_end = reference(precise, noise.double(), *levels(1), cond=digit)
claim("C08.33", "towards the trained network's own ODE, ++(2M) converges at order 2",
      metrics.order({n: metrics.typical(own(n), flow_end) for n in (160, 320, 640)}),
      between=(1.85, 2.15))

# %% [markdown]
# ## 8.11 What should look wrong here
#
# DPM-Solver-3 asks at ⅓ and ⅔ of the step. Evenly spaced ¼ and ½ look just as good. *Predict the order before you run
# this.*

# %%
# NBVAL_CHECK_OUTPUT
@solvers.solver(order=3, calls=3)
def quarter_half(model, x, a, b, memory=None, noise=None, cond=None):
    h = b.lam - a.lam
    quarter, half = (model.schedule.at_lam(a.lam + r * h) for r in (1 / 4, 1 / 2))
    first = model(x, a, cond)
    eps_1 = model(first.mix(quarter.alpha, quarter.sigma), quarter, cond).eps
    u = solvers.expand_eps(x, a, half, first.eps, (eps_1 - first.eps) / (h / 4))
    eps_2 = model(u, half, cond).eps
    return solvers.expand_eps(x, a, b, first.eps, (eps_2 - first.eps) / (h / 2)), memory

claim("C08.34", "with nodes at ¼ and ½, DPM-Solver-3 is second order",
      metrics.order(errors(quarter_half)), between=(1.85, 2.15))

# %% [markdown]
# The slope from a node at $r_2$ is $\varepsilon'+\tfrac12 r_2h\,\varepsilon''$. Times $h^2\phi_2\approx\tfrac12h^2$ that
# contributes $\tfrac14 r_2h^3\varepsilon''$, where \eqref{eq:taylor} wants $h^3\phi_3\approx\tfrac16h^3$. Only $r_2=\tfrac23$ agrees.
#
# ## 8.12 In practice
#
# - **Which solver, by Friday.** With guidance and 12 calls or more, UniPC-3 on `arctan`, the default of `full_scale.sample`; without
#   guidance UniPC-2 needs about as few. Up to 8 calls UniPC-2 or ++(2M): at 6, on `arctan`, the rms errors on GMM5 are .09 for both, .16 for
#   UniPC-3, .22 for DDIM and .40 for DPM-Solver-3. Or distil the model (Part III).
# - **Elsewhere.** 20–25 steps of ++(2M) at `guidance_scale` 7.5 are common for Stable Diffusion 1.5. Papers report CIFAR-10 FIDs at 10 calls
#   of 4.70 for DPM-Solver [@lu2022dpm] and 3.87 for UniPC [@zhao2023unipc]: *not reproduced here*.
# - **The ends.** Where $\alpha=0$ (flow models at $t=1$) ε-forms divide by zero; data forms with a v or velocity network start there.
#   At $\sigma=0$ only order 1 is defined. Where a grid's last step is long in $\lambda$, as `sd_trailing`'s is, let `CLEAN` *replace* the last
#   level, as `full_scale.sample` does.
# - **Pixels.** Guided predictions leave $[-1,1]$. *Dynamic thresholding* [@saharia2022imagen], `thresholded(model)`, clips $x_\theta$ to
#   $\pm s$ and divides by $s$, the .995 quantile of $|x_\theta|$ or 1 if that is larger; $\varepsilon$ must follow
#   ([chapter 7](07_exact_solution.ipynb)). Latents have no such range.
# - **Where the toy stops being true.** A trained network obeys the same orders towards *its own* ODE (claim C08.33), in float32 down to
#   $10^{-6}$; no order repairs its own error. `arctan`'s ½ is where *this* data decides. Close to the ODE's end point is not the same as
#   good-looking.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.sd.denoiser(unet, scheduler_config)` |
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
# **How far up the ladder.** Rung 1: every order, against the exact flow. Rung 2: a trained network, against its own ODE. Rung 3: the
# same functions on Stable Diffusion's classes, equal to diffusers where diffusers is right (in the test suite).
#
# ## 8.13 Exercises
#
# 1. *(pencil)* Show that \eqref{eq:2m}, with exact former values, has local error $O(h^3)$ when $h_0=h$, by expanding $\phi_2(-h)$ as in 8.3.
# 2. *(code)* Write DPM-Solver-2 with its inner node at any $r_1$: $x_t = \text{DDIM} - \tfrac{1}{2r_1}\sigma_t(e^h-1)(\varepsilon_m-\varepsilon_s)$,
#    as `@solvers.solver(order=2, calls=2)`. Check: `metrics.order(errors(yours))` is 2 for every $r_1\in(0,1]$. Which has the
#    smallest `metrics.rms` at 12 calls, `end(yours, 6)`?
# 3. *(code)* Write the ε-form of 2M. Check: order 2 on GMM5. Predict whether it beats ++(2M) in `guided_error(yours, 12)`.
# 4. *(open)* On `arctan` UniPC-3 needs 16 calls for an rms of $10^{-2}$. Find falling times from 1 to 0.01, as `schedule.levels(times)`, that
#    need fewer. Does their lead survive other draws of `x_T`, and the guided `pair`?
#
# <details><summary>Answer to 1</summary>
#
# In front of the quotient $x_\theta'+O(h)$ the step puts $\alpha_t(1-e^{-h})\tfrac h2=\alpha_t(\tfrac12h^2-\tfrac14h^3+\dots)$; exact is
# $\alpha_th^2\phi_2(-h)=\alpha_t(\tfrac12h^2-\tfrac16h^3+\dots)$. They differ by $O(h^3)$; the quotient's $O(h)$ meets a factor
# $O(h^2)$, and the term of $x_\theta''$ is itself $O(h^3)$.
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

claim("C08.35", "the ε-form of 2M converges at order 2",
      metrics.order(errors(eps_2m)), between=(1.85, 2.15))
claim("C08.36", "guided, 12 calls, λ grid: the ε-form of 2M is closer than ++(2M) (error ratio)",
      guided_error(eps_2m, 12) / guided_error(solvers.dpm_solver_pp_2m, 12), below=0.6)

# %% [markdown]
# ## References
#
# The solver and its data form: [@lu2022dpm; @lu2022dpmpp]. Exponential integrators: [@hochbruck2010exponential]. DDIM:
# [@song2021ddim]. The ODE: [@song2021sde]. Heun's rule and the Karras grid: [@karras2022edm]. Predictor–corrector: [@zhao2023unipc]. The same family
# in other clothes: [@zhang2023deis].
