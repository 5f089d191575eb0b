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
#     summary: Integrate the linear part of the sampling ODE exactly, extrapolate the network, and ten calls do the work of a hundred.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - the probability-flow ODE and λ (recapped in 8.1)
#       - PyTorch, Taylor's theorem
# ---

# %% [markdown]
# # 8 DPM-Solver: high order in few calls
#
# A diffusion model is slow because its sampler asks the network again and again. This chapter is about asking less.
#
# The data here is GMM5, five Gaussian blobs, so the perfect network is a formula and the exact end point of every
# trajectory is known to ten digits. Both panels below start from the same noise and make **12 network calls**. A grey line
# ties each point to where it should have landed.

# %%
import numpy as np
import torch
from book import claim, figure, show
from dlib import CLEAN, NULL, Denoiser, Draw, exact, grid, guided, metrics, plot
from dlib import reference, sample, solvers, vp, walk
from toy_data import digits_teacher, gmm5, labelled

schedule, mixture = vp(), gmm5()
model = exact(mixture, schedule)                    # the perfect network for this data
levels = lambda n, spacing="lam": schedule.levels(grid(schedule, n, spacing, t_min=1e-2))
x_T = Draw(0).normal(torch.empty(256, 2, dtype=torch.float64))      # noise, at t = 1
truth = reference(model, x_T, *levels(1))           # the exact end points, at t = 0.01

# %%
labels = (truth[:, None] - mixture.means).norm(dim=2).argmin(1)
panels = {"DDIM, 12 calls": sample(model, x_T, levels(12), solvers.ddim),
          "++(3M), 12 calls": sample(model, x_T, levels(12), solvers.dpm_solver_pp_3m)}
figure(plot.endpoints(panels, truth, labels),
       "With 12 calls DDIM leaves a visible error on almost every point; "
       "DPM-Solver++(3M) leaves one on a handful.",
       "Same network, same start, same number of calls. Grey: the distance still to go.")

# %% [markdown]
# The left sampler assumes that the network's answer stays the same during a step. The right one remembers its last three
# answers. That is the whole chapter; the rest is doing it exactly.
#
# ## 8.1 Recap: one ODE, and the variable that straightens it
#
# Noise is added as $x_t = \alpha_t x_0 + \sigma_t\varepsilon$, with $t=1$ noise and $t=0$ data. Write
# $\lambda_t = \log(\alpha_t/\sigma_t)$, half the log-SNR: it *grows* as we sample. The probability-flow ODE has the same
# marginals as the noising process and no randomness [@song2021sde]:
#
# $$\frac{dx}{dt} = \frac{\dot\alpha_t}{\alpha_t}\,x - \sigma_t\dot\lambda_t\;\varepsilon(x,t).$$
#
# The first term is linear and known. Divide it away: with $y = x/\alpha$ and $\kappa = \sigma/\alpha = e^{-\lambda}$,
#
# $$\frac{dy}{d\kappa} = \varepsilon(\alpha y, \lambda). \label{eq:ode}$$
#
# Every schedule has become the same ODE. Integrate \eqref{eq:ode} from level $s$ to the cleaner level $t$, in the
# variable $\lambda$:
#
# $$x_t = \frac{\alpha_t}{\alpha_s}x_s - \alpha_t\int_{\lambda_s}^{\lambda_t} e^{-\lambda}\,\varepsilon(x_\lambda,\lambda)\,d\lambda. \label{eq:exact-eps}$$
#
# This is exact [@lu2022dpm, eq. 3.4]. Replace $\varepsilon$ by the data prediction, $x_\theta=(x-\sigma\varepsilon)/\alpha$, and
# the same algebra gives a second exact form [@lu2022dpmpp]:
#
# $$x_t = \frac{\sigma_t}{\sigma_s}x_s + \sigma_t\int_{\lambda_s}^{\lambda_t} e^{\lambda}\,x_\theta(x_\lambda,\lambda)\,d\lambda. \label{eq:exact-x0}$$
#
# What we do not know is the network along the path. What we *can* know is that it changes slowly in $\lambda$:

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
# Put the Taylor polynomial of $\varepsilon$ at $\lambda_s$ into \eqref{eq:exact-eps}. With $h=\lambda_t-\lambda_s$ the
# integrals have closed forms,
#
# $$\phi_{k+1}(h) = \int_0^1 e^{(1-\theta)h}\,\frac{\theta^k}{k!}\,d\theta,\qquad \phi_1(h)=\frac{e^h-1}{h}, \label{eq:phi}$$
#
# and the solution becomes
#
# $$x_t = \frac{\alpha_t}{\alpha_s}x_s - \sigma_t\sum_{k<p} h^{k+1}\phi_{k+1}(h)\,\varepsilon^{(k)}(\lambda_s) + O(h^{p+1}). \label{eq:taylor}$$
#
# <details><summary>The algebra</summary>
#
# Substitute $\lambda=\lambda_s+\theta h$. Then $\alpha_t e^{-\lambda} = \alpha_t e^{-\lambda_t}e^{(1-\theta)h} = \sigma_t e^{(1-\theta)h}$
# and $d\lambda = h\,d\theta$, so the $k$-th term is $\sigma_t h^{k+1}\varepsilon^{(k)}\int_0^1 e^{(1-\theta)h}\theta^k/k!\,d\theta$.
# Partial integration gives the recursion $\phi_{k+1} = (\phi_k - 1/k!)/h$.
#
# </details>
#
# A step with local error $O(h^{p+1})$, taken $N\propto 1/h$ times, has global error $O(h^p)$: order $p$. These are
# *exponential integrators* [@hochbruck2010exponential]; only the way to guess $\varepsilon', \varepsilon''$ differs from
# solver to solver. Equation \eqref{eq:taylor} in the library, as it runs on Stable Diffusion:

# %%
show(solvers.expand_eps)

# %% [markdown]
# Keep only $k=0$, the frozen network. Since $x = \alpha x_\theta+\sigma\varepsilon$, the step collapses to
# $x_t=\alpha_t x_\theta+\sigma_t\varepsilon$: DPM-Solver-1 *is* DDIM [@song2021ddim].

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.ddim)
end = lambda solver, n: sample(model, x_T, levels(n), solver)
errors = lambda solver: {n: metrics.typical(end(solver, n), truth) for n in (160, 320, 640)}
constant = Denoiser(lambda x, t, cond: torch.ones_like(x), schedule, predicts="eps")
a, b = levels(1)
line = b.alpha * (x_T / a.alpha + b.sigma / b.alpha - a.sigma / a.alpha)  # ε = 1 in (8.1)
claim("C08.1", "one DDIM step is exact for constant ε, however long the step",
      metrics.rms(sample(constant, x_T, [a, b]), line), below=1e-12)
claim("C08.2", "DDIM converges at order 1",
      metrics.order(errors(solvers.ddim)), between=(0.85, 1.15))

# %% [markdown]
# The bounds in this chapter are all of this kind: the order that theory promises, ± 0.15, between 160 and 640 steps in
# float64. The error is that of a *typical* sample, the geometric mean over 256 starts. A few starts lie on the border between two
# modes, where the flow stretches without bound; they rule a root mean square, and DDIM's slope would then be anything from
# 1.0 to 1.5, depending on the seed.
#
# ## 8.3 More calls inside a step
#
# Runge's idea: evaluate in the middle. Take a DDIM step to $\lambda_m=\lambda_s+h/2$, ask there, and use *that* $\varepsilon$
# for the whole step [@lu2022dpm]:
#
# $$x_t = \frac{\alpha_t}{\alpha_s}x_s - \sigma_t(e^h-1)\,\varepsilon(u,\lambda_m),\qquad u=\text{DDIM}(x_s\to\lambda_m). \label{eq:dpm2}$$
#
# Compare with \eqref{eq:taylor}: the midpoint puts $\tfrac12 h\cdot h\phi_1$ in front of $\varepsilon'$ where $h^2\phi_2$ belongs.
# Both are $\tfrac12h^2+O(h^3)$, so the local error is $O(h^3)$. For order 3, a second inner node supplies the slope:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.dpm_solver_2, solvers.dpm_solver_3)
claim("C08.3", "DPM-Solver-2 converges at order 2",
      metrics.order(errors(solvers.dpm_solver_2)), between=(1.85, 2.15))
claim("C08.4", "DPM-Solver-3 converges at order 3",
      metrics.order(errors(solvers.dpm_solver_3)), between=(2.85, 3.15))
claim("C08.5", "Heun's rule in (y, κ) converges at order 2",
      metrics.order(errors(solvers.heun)), between=(1.85, 2.15))

# %% [markdown]
# The last line is EDM's sampler [@karras2022edm]: Heun's rule on \eqref{eq:ode} itself, two calls a step.
#
# ## 8.4 One call a step: remember instead
#
# A multistep solver gets derivatives for free, from answers it already has. DPM-Solver++ keeps data predictions, the form
# \eqref{eq:exact-x0}. With $h_0$ the step before, 2M extrapolates $x_\theta$ to the middle of the step:
#
# $$x_t = \frac{\sigma_t}{\sigma_s}x_s + \alpha_t(1-e^{-h})\Big[x_\theta^{s} + \frac{h}{2h_0}\big(x_\theta^{s}-x_\theta^{s-1}\big)\Big]. \label{eq:2m}$$
#
# This is the sampler most Stable Diffusion pictures are made with. Here is all of it:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.dpm_solver_pp_2m)
claim("C08.6", "DPM-Solver++(2M) converges at order 2",
      metrics.order(errors(solvers.dpm_solver_pp_2m)), between=(1.85, 2.15))

# %% [markdown]
# ## 8.5 Third order, and a factor of two that the world forgot
#
# Newton's divided differences through three values give slope *and* curvature. Write
# $d_1=[x_\theta^{s},x_\theta^{s-1}]$ and $d_2=[x_\theta^{s},x_\theta^{s-1},x_\theta^{s-2}]$. Then
#
# $$x_\theta' = d_1 + h_0\,d_2,\qquad x_\theta''=2\,d_2, \label{eq:newton}$$
#
# and the data form of \eqref{eq:taylor} does the rest. The released code of DPM-Solver, and the schedulers of diffusers
# and k-diffusion after it, use $d_2$ where $x_\theta''=2d_2$ belongs. The curvature term is half of what it should be, the
# local error is $O(h^3)$ again, and "3M" is a second-order method. We keep the released form under its own name so that
# you can measure it:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.multistep._third_order)
ours, released = errors(solvers.dpm_solver_pp_3m), errors(solvers.dpm_solver_pp_3m_released)
claim("C08.7", "DPM-Solver++(3M), corrected, converges at order 3",
      metrics.order(ours), between=(2.8, 3.15))
claim("C08.8", "DPM-Solver++(3M), as released, converges at order 2",
      metrics.order(released), between=(1.85, 2.15))
claim("C08.9", "the error ratio of released to corrected 3M doubles from 320 to 640 steps",
      (released[640] / ours[640]) / (released[320] / ours[320]), between=(1.7, 2.3))

# %% [markdown]
# Why did nobody notice? At the step counts people use, the two are close: look at the left half of the next figure.
#
# ## 8.6 What a call buys
#
# Order is a promise about the limit. Budgets are not limits, so count *calls*: a 12-call budget is 12 steps of 2M, 6 of
# DPM-Solver-2, 4 of DPM-Solver-3. The shaded band is the **sampling floor**: what you could not see with 10 000 samples, because two
# independent exact sets of that size are just as far apart (their sliced Wasserstein distance, times $\sqrt d$).

# %%
draw = Draw(1)
sw2, _ = metrics.noise_floor(metrics.sliced_w2, lambda: mixture.sample(10_000, draw)[0])
named = {"DDIM": solvers.ddim, "Heun": solvers.heun, "DPM-2": solvers.dpm_solver_2,
         "DPM-3": solvers.dpm_solver_3, "++(2M)": solvers.dpm_solver_pp_2m,
         "++(3M)": solvers.dpm_solver_pp_3m,
         "++(3M) released": solvers.dpm_solver_pp_3m_released}
budgets = (6, 12, 24, 48, 96, 192)
curves = {name: {nfe: metrics.rms(end(s, nfe // s.calls), truth) for nfe in budgets}
          for name, s in named.items()}
figure(plot.convergence(curves, floor=2**0.5 * sw2, slopes=(1, 2, 3)),
       "Multistep solvers reach most errors with the fewest calls; single-step ones are "
       "worse than DDIM at 6 calls and overtake it later.",
       "Error against calls on GMM5, slopes 1, 2, 3. In the band 10 000 samples cannot tell.")

# %%
# NBVAL_CHECK_OUTPUT
claim("C08.10", "at 12 calls ++(2M) is closer than DDIM (error ratio)",
      curves["++(2M)"][12] / curves["DDIM"][12], below=1)
claim("C08.11", "at 6 calls DPM-Solver-3 is further off than DDIM (error ratio)",
      curves["DPM-3"][6] / curves["DDIM"][6], above=1)

# %% [markdown]
# ## 8.7 Guidance, and what ++ really buys
#
# Guidance, $\varepsilon^\omega=(1+\omega)\varepsilon(x,c)-\omega\,\varepsilon(x,\varnothing)$ [@ho2022cfg], multiplies every derivative of
# $\varepsilon$ by up to $1+2\omega$. An ε-form step scales its error by $\sigma_t(e^h-1)$, which grows exponentially with $h$; the
# data form's $\alpha_t(1-e^{-h})$ never exceeds 1. And for the same calls a single-step solver takes steps twice as long. So
# take the midpoint rule in both forms and 2M, with two classes and $\omega=6.5$ (diffusers' `guidance_scale=7.5`):

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.dpm_solver_pp_2s)
pair = guided(exact(labelled(), schedule), omega=6.5, null=NULL)
classes = torch.arange(256) % 2
goal = reference(pair, x_T, *levels(1), cond=classes, rtol=1e-10)
def guided_error(solver, calls=12):
    ends = sample(pair, x_T, levels(calls // solver.calls), solver, cond=classes)
    return metrics.rms(ends, goal)

claim("C08.12", "guided, 12 calls: DPM-Solver-2 is further off than DDIM (error ratio)",
      guided_error(solvers.dpm_solver_2) / guided_error(solvers.ddim), above=1)
claim("C08.13", "guided, 12 calls: ++(2S) is closer than DDIM (error ratio)",
      guided_error(solvers.dpm_solver_pp_2s) / guided_error(solvers.ddim), below=1)

# %% [markdown]
# The data form rescues *single-step* solvers. Multistep ones hardly need it: exercise 3 shows that the ε-form of 2M, which
# few people use, is closer here than ++(2M). What ++ adds in practice is that it accepts $\sigma=0$ and $\alpha=0$ at the ends,
# and that pixel models can clip $x_\theta$.
#
# ## 8.8 Rung 2: real pictures
#
# Now a *trained* network: a small MLP on scikit-learn's 8×8 digits, guided with $\omega=1$. (Unguided, its samples' Fréchet
# distance to held-out digits is .058; five sets of real digits score .049 ± .005.) There is no formula for the truth any more: the
# yardstick is the same network's own ODE, solved with 200 steps of DPM-Solver-3.

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
off = lambda solver, n: metrics.rms(run(many, asked, solver, n), converged)
multistep = off(solvers.dpm_solver_pp_2m, 10)
claim("C08.14", "digits: 11 calls of ++(2M) are closer than 11 of DDIM (error ratio)",
      multistep / off(solvers.ddim, 10), below=1)
claim("C08.15", "digits: 11 calls of ++(2M) are closer than 21 of DDIM (error ratio)",
      multistep / off(solvers.ddim, 20), below=1)

# %% [markdown]
# ## 8.9 What should look wrong here
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

claim("C08.16", "with nodes at ¼ and ½, DPM-Solver-3 is second order",
      metrics.order(errors(quarter_half)), between=(1.85, 2.15))

# %% [markdown]
# The slope from a node at $r_2$ is $\varepsilon'+\tfrac12 r_2h\,\varepsilon''$. Times $h^2\phi_2\approx\tfrac12h^2$ that
# contributes $\tfrac14 r_2h^3\varepsilon''$, where \eqref{eq:taylor} wants $h^3\phi_3\approx\tfrac16h^3$. Only $r_2=\tfrac23$ agrees.
#
# ## 8.10 In practice
#
# - **Steps.** 20–25 steps of ++(2M) at `guidance_scale` 7.5 are a common setting for Stable Diffusion 1.5. The paper reports FID
#   4.70 and 2.87 on CIFAR-10 for DPM-Solver at 10 and 20 calls [@lu2022dpm]: *not reproduced here*; our errors are distances to the exact ODE.
# - **Below about 8 steps** prefer low order, or distil the model (Part III): claim C08.11 is not an accident.
# - **The noisy end.** `sd_leading`'s four steps start at index 751 and never see the noisiest level; `sd_trailing`'s start at 999 [@lin2024zerosnr].
#   Where $\alpha=0$ (flow models at $t=1$) ε-form solvers divide by zero, and our error says so; ++ and DDIM with a v or velocity network start there.
# - **The clean end.** At $\sigma=0$, $\lambda=\infty$ and only order 1 is defined: it returns $x_\theta$. Append `CLEAN` to the levels.
# - **Grid.** Every solver here is measured on a uniform λ grid; try `levels(n, "time")` and `"karras"` in exercise 4.
# - **Where the toy stops being true.** A trained network is only piecewise smooth in λ, so slopes flatten at its own error;
#   and being close to the ODE's end point is not the same as looking good.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gmm5(), vp())` | `full_scale.sd.denoiser(unet, scheduler_config)` |
# | `grid(schedule, n, "lam")` | `grid(schedule, n, "sd_trailing")` |
# | `guided(model, 6.5, null=NULL)` | `guided(model, 6.5, null=empty_prompt)` |
# | `solvers.dpm_solver_pp_2m` | the same function object |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" \
#     --solver dpm_solver_pp_2m --steps 20 --grid sd_trailing --omega 6.5
#
# python -m full_scale.sample --weights DIR_OR_HUB_ID --prompt "a lighthouse at dusk" \
#     --solver dpm_solver_pp_2m --steps 20 --grid sd_trailing --omega 6.5
# ```
#
# **How far up the ladder.** Rung 1: every order, against the exact flow. Rung 2: a trained guided network, against its own
# converged ODE. Rung 3: the same functions on Stable Diffusion's classes, equal to diffusers where diffusers is right (in the test suite).
#
# ## 8.11 Exercises
#
# 1. *(pencil)* Show that \eqref{eq:2m} has local error $O(h^3)$ when $h_0=h$, by expanding $\phi_2(-h)$ as in 8.3.
# 2. *(code)* Write DPM-Solver-2 with its inner node at any $r_1$: $x_t = \text{DDIM} - \tfrac{1}{2r_1}\sigma_t(e^h-1)(\varepsilon_m-\varepsilon_s)$.
#    Check: `metrics.order(errors(yours))` is 2 for every $r_1\in(0,1]$. Which $r_1$ has the smallest error at 12 calls?
# 3. *(code)* Write the ε-form of 2M. Check: order 2 on GMM5. Where does it stand in `guided_error`?
# 4. *(open)* Find a grid on which ++(3M) reaches an error of $10^{-2}$ on GMM5 in fewer calls than on the uniform λ grid.
#
# <details><summary>Answer to 1</summary>
#
# The step puts $\alpha_t(1-e^{-h})\tfrac h2$ in front of the difference quotient $x_\theta'+O(h)$; the exact factor is
# $\alpha_th^2\phi_2(-h)$. Since $(1-e^{-h})\tfrac h2=\tfrac12h^2-\tfrac14h^3+\dots$ and $h^2\phi_2(-h)=\tfrac12h^2-\tfrac16h^3+\dots$, they differ by
# $O(h^3)$; the quotient's $O(h)$ error meets a factor $O(h^2)$.
#
# </details>
#
# Answer to 3, as code that runs:

# %%
# NBVAL_CHECK_OUTPUT
@solvers.solver(order=2, history=1)
def eps_2m(model, x, a, b, memory=None, noise=None, cond=None):
    eps = middle = model(x, a, cond).eps
    if memory is not None:
        middle = eps + 0.5 * (b.lam - a.lam) / (a.lam - memory[0]) * (eps - memory[1])
    return solvers.expand_eps(x, a, b, middle), (a.lam, eps)

claim("C08.17", "the ε-form of 2M converges at order 2",
      metrics.order(errors(eps_2m)), between=(1.85, 2.15))
claim("C08.18", "guided, 12 calls: the ε-form of 2M is closer than ++(2M) (error ratio)",
      guided_error(eps_2m) / guided_error(solvers.dpm_solver_pp_2m), below=1)

# %% [markdown]
# ## References
#
# The solver and its data form: [@lu2022dpm; @lu2022dpmpp]. Exponential integrators: [@hochbruck2010exponential]. DDIM:
# [@song2021ddim]. The ODE: [@song2021sde]. Heun's rule and the Karras grid: [@karras2022edm]. The same family in other clothes:
# [@zhang2023deis; @zhao2023unipc], which chapter 08 will take up.
