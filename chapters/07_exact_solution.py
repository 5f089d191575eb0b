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
#     title: The exact solution
#     summary: The sampling ODE solved by variation of constants; DDIM is its first term, and on a Gaussian its error is a product of cosines.
#     minutes: 40
#     memory: 1 GB
#     needs:
#       - the probability-flow ODE (recapped in 7.1)
#       - linear differential equations, Taylor's theorem
# ---

# %% [markdown]
# # 7 The exact solution: DDIM is the first term of a series
#
# Take the simplest data there is: one Gaussian. Carry the same noise to it in ten steps. Euler's rule in $t$ does well on the variance-preserving
# schedule and collapses on EDM's, though both describe the same noising in other units. DDIM does not care which it is given: its cloud is the same on both,
# and a little too narrow. A grey line ties each point to where it should be.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import math
from dataclasses import replace
import torch
from diffusers import DDIMScheduler
from dlib import Denoiser, Draw, Mixture, discrete, edm, exact, flow, grid, metrics
from dlib import plot, reference, sample, scaled_linear, solvers, thresholded, vp
from toy_data import digits_teacher, gmm5

schedule, c, mean = vp(), 0.5, torch.tensor([[1.0, -0.5]], dtype=torch.float64)
gauss = Mixture(torch.ones(1), mean, torch.tensor([c]))
model = exact(gauss, schedule)                      # the perfect network for N(mean, c² I)
levels = lambda n, spacing="lam": schedule.levels(grid(schedule, n, spacing, t_min=1e-2))
x_T = Draw(0).normal(torch.empty(256, 2, dtype=torch.float64))
V = lambda level: (level.alpha * c) ** 2 + level.sigma**2    # variance of x at a level
def closed_form(x, a, b):                           # the ODE's flow from level a to level b
    return b.alpha * mean + (V(b) / V(a)) ** 0.5 * (x - a.alpha * mean)

def run(data, schedule, solver, n):
    """n steps from κ = 50 to 0.01, uniform in λ; start and end are x/α, whatever α is."""
    lam = torch.linspace(-math.log(50), math.log(100), n + 1, dtype=torch.float64)
    path = [schedule.at_lam(l) for l in lam.tolist()]
    return sample(exact(data, schedule), path[0].sigma * x_T, path, solver) / path[-1].alpha

# %%
truth = closed_form(50 * x_T, edm().at_lam(-math.log(50)), edm().at_lam(math.log(100)))
panels = {"Euler in t, on VP": run(gauss, vp(), solvers.euler, 10),
          "Euler in t, on EDM": run(gauss, edm(), solvers.euler, 10),
          "DDIM, on VP": run(gauss, vp(), solvers.ddim, 10),
          "DDIM, on EDM": run(gauss, edm(), solvers.ddim, 10)}
figure(plot.endpoints(panels, truth, torch.zeros(256).long()),
       "Ten Euler steps nearly reach the exact points on the VP schedule and collapse to "
       "one spot on EDM's; ten DDIM steps give one slightly narrow cloud on both.",
       "Same network, same noise. Grey: the distance still to go.")

# %% [markdown]
# So a schedule can be lucky or unlucky for Euler, and it should not matter at all. This chapter removes it, and ends with a formula for how much too narrow
# DDIM's cloud is. On the way we solve the sampling ODE exactly, up to one
# integral; every fast sampler of [chapter 8](08_dpm_solver.ipynb) is a way to guess that integral.
#
# ## 7.1 Recap: the ODE, and what Euler mixes up
#
# With $x_t=\alpha_tx_0+\sigma_t\varepsilon$, $t=1$ noise and $t=0$ data, the probability-flow ODE has the noising process's marginals and no
# randomness [@song2021sde]:
#
# $$\frac{dx}{dt}=\frac{\dot\alpha_t}{\alpha_t}\,x-\sigma_t\dot\lambda_t\,\varepsilon(x,t),\qquad \lambda_t=\log\frac{\alpha_t}{\sigma_t}. \label{eq:pfode}$$
#
# It is *semilinear*: a linear term that we know, plus the network. Euler's rule treats both alike, so its result depends on how fast $\alpha$ and
# $\sigma$ happen to move at the start of each step, which has nothing to do with the network.
#
# For a Gaussian the solution is known. There $\varepsilon$ is linear in $x-\alpha_tm$, and the flow only rescales:
#
# $$x_t=\alpha_tm+\sqrt{V_t/V_s}\,\bigl(x_s-\alpha_sm\bigr),\qquad V_t=\alpha_t^2c^2+\sigma_t^2. \label{eq:gauss}$$
#
# <details><summary>Why</summary>
#
# Let $m=0$. The marginal is $\mathcal N(0,V_t)$, so $\varepsilon=-\sigma_t\nabla\log p_t=\sigma_tx/V_t$ and \eqref{eq:pfode} is
# $\dot x/x=\dot\alpha/\alpha-\sigma^2\dot\lambda/V$. With $\dot\lambda=\dot\alpha/\alpha-\dot\sigma/\sigma$ the right-hand side is
# $\bigl(\dot\alpha\alpha c^2+\dot\sigma\sigma\bigr)/V=\dot V/2V$. Integrate. A mean moves with $\alpha$.
#
# </details>
#
# ## 7.2 Variation of constants
#
# Without the network, \eqref{eq:pfode} says $x\propto\alpha$. So let the constant vary: $x=\alpha y$. Then
#
# $$\frac{dy}{dt}=-\frac{\sigma_t}{\alpha_t}\dot\lambda_t\,\varepsilon=\frac{d\kappa}{dt}\,\varepsilon,\qquad \kappa=\frac{\sigma}{\alpha}=e^{-\lambda},$$
#
# because $\dot\kappa=-\dot\lambda\kappa$. The linear term is gone, and so is the schedule: $dy/d\kappa=\varepsilon$, whatever $\alpha$ and
# $\sigma$ are. Integrate from level $s$ to the cleaner $t$ and go back to $x$, in the variable $\lambda$ [@lu2022dpm, eq. 3.4]:
#
# $$x_t=\frac{\alpha_t}{\alpha_s}x_s-\alpha_t\int_{\lambda_s}^{\lambda_t}e^{-\lambda}\,\varepsilon(x_\lambda,\lambda)\,d\lambda. \label{eq:eps-form}$$
#
# Start instead from $z=x/\sigma$, and the same two lines give the form for the data prediction $x_\theta=(x-\sigma\varepsilon)/\alpha$ [@lu2022dpmpp]:
#
# $$x_t=\frac{\sigma_t}{\sigma_s}x_s+\sigma_t\int_{\lambda_s}^{\lambda_t}e^{\lambda}\,x_\theta(x_\lambda,\lambda)\,d\lambda. \label{eq:x0-form}$$
#
# Nothing has been approximated. Check it: put the closed-form path \eqref{eq:gauss} into the integrals and do them by Simpson's rule.

# %%
# NBVAL_CHECK_OUTPUT
s, t = schedule.levels([0.7, 0.4])
lam = torch.linspace(s.lam, t.lam, 401, dtype=torch.float64)
path = [schedule.at_lam(l.item()) for l in lam]
x_s = closed_form(x_T, levels(1)[0], s)
said = [model(closed_form(x_s, s, level), level) for level in path]   # along the path
simpson = torch.ones(401, 1, 1, dtype=torch.float64)
simpson[1:-1:2], simpson[2:-1:2] = 4, 2
integral = lambda face, sign: ((sign * lam).exp().view(-1, 1, 1) * simpson * torch.stack(
    [getattr(p, face) for p in said])).sum(0) * (lam[1] - lam[0]) / 3
by_eps = t.alpha / s.alpha * x_s - t.alpha * integral("eps", -1)
by_x0 = t.sigma / s.sigma * x_s + t.sigma * integral("x0", +1)
claim("C07.1", "the ε form of the exact solution is the closed-form flow (rms gap)",
      metrics.rms(by_eps, closed_form(x_s, s, t)), below=1e-9)
claim("C07.2", "the data form of the exact solution is the closed-form flow (rms gap)",
      metrics.rms(by_x0, closed_form(x_s, s, t)), below=1e-9)

# %% [markdown]
# ## 7.3 The first term
#
# The network along the path is what we do not know. Freeze it at the start of the step. The integral of $e^{-\lambda}$ is elementary, and with $h=\lambda_t-\lambda_s$
#
# $$x_t\approx\frac{\alpha_t}{\alpha_s}x_s-\sigma_t(e^h-1)\,\varepsilon_s=\frac{\sigma_t}{\sigma_s}x_s+\alpha_t(1-e^{-h})\,x_{\theta,s}=\alpha_tx_{\theta,s}+\sigma_t\varepsilon_s. \label{eq:ddim}$$
#
# Freezing $\varepsilon$ and freezing $x_\theta$ give the *same* step, and the last form says it in words: change the level, keep the rest. This is
# DDIM [@song2021ddim, eq. 12]. In the library, where `mix(c, d)` is $c\,x_\theta+d\,\varepsilon$ and a step goes from level `a` to `b`:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.ddim)
said, h = model(x_s, s), t.lam - s.lam
three = [t.alpha / s.alpha * x_s - t.sigma * math.expm1(h) * said.eps,
         t.sigma / s.sigma * x_s - t.alpha * math.expm1(-h) * said.x0,
         said.mix(t.alpha, t.sigma)]
claim("C07.3", "the three forms of a DDIM step are one (largest difference)",
      max((a - b).abs().max() for a in three for b in three), below=1e-12)

# %% [markdown]
# If $\varepsilon$ or $x_\theta$ does not change along the path, freezing it costs nothing, however long the step:

# %%
# NBVAL_CHECK_OUTPUT
far = [levels(1)[0], t]
for name, fixed in (("C07.4", "eps"), ("C07.5", "x0")):
    same = Denoiser(lambda x, time, cond: torch.ones_like(x), schedule, fixed)
    first = same(x_T, far[0])
    wanted = far[1].alpha * first.x0 + far[1].sigma * first.eps
    halves = sample(same, x_T, schedule.levels([1.0, 0.8, 0.6, 0.4]), solvers.ddim)
    claim(name, f"for constant {fixed} three DDIM steps are one, and both are exact",
          max(metrics.rms(end, wanted) for end in (sample(same, x_T, far), halves)),
          below=1e-12)

# %% [markdown]
# Along a path of real data $\varepsilon$ is not constant: the step errs by $O(h^2)$, and $N\propto1/h$ of them by $O(h)$. Order 1, no more, and Euler's
# rule has that too. What Euler adds to the error is everything that the schedule does. In $(y,\kappa)$ the schedule is gone, so *one* DDIM run
# serves them all, if it stops at the same $\kappa$. Now on five modes:

# %%
# NBVAL_CHECK_OUTPUT
on = lambda other, solver: run(gmm5(), other, solver, 20)
gap = lambda solver: max(metrics.rms(on(other, solver), on(vp(), solver))
                         for other in (flow(), edm()))
claim("C07.6", "DDIM on VP, flow and EDM schedules: one trajectory (largest rms gap)",
      gap(solvers.ddim), below=1e-9)
claim("C07.7", "Euler in t is another method on each of them (largest rms gap)",
      gap(solvers.euler), above=0.05)

# %%
# NBVAL_CHECK_OUTPUT
mixture = exact(gmm5(), schedule)
goal = reference(mixture, x_T, *levels(1))
def order(solver, spacing):
    return metrics.order({n: metrics.typical(
        sample(mixture, x_T, levels(n, spacing), solver), goal) for n in (160, 320, 640)})

claim("C07.8", "five modes: DDIM in λ and Euler in t converge at order 1 (largest gap)",
      max(abs(order(solvers.ddim, "lam") - 1), abs(order(solvers.euler, "time") - 1)),
      below=0.15)

# %% [markdown]
# ## 7.4 DDIM's error on a Gaussian is a product of cosines
#
# For data $\mathcal N(0,c^2)$ the network is $x_\theta=\alpha c^2x/V$, $\varepsilon=\sigma x/V$. Put it into \eqref{eq:ddim} and divide by the exact
# step $\sqrt{V_t/V_s}$ of \eqref{eq:gauss}:
#
# $$\frac{\alpha_s\alpha_tc^2+\sigma_s\sigma_t}{\sqrt{V_sV_t}}=\cos(\varphi_s-\varphi_t),\qquad \varphi=\arctan\frac{\sigma}{\alpha c}=\arctan\frac{\kappa}{c}. \label{eq:cos}$$
#
# The left side is the inner product of the unit vectors $(\alpha_sc,\sigma_s)/\sqrt{V_s}$ and $(\alpha_tc,\sigma_t)/\sqrt{V_t}$. So after $N$ steps
# the cloud has the exact shape, narrower by $\prod_i\cos\Delta\varphi_i$. It is always narrower: DDIM with few steps shrinks variance.
#
# And now the best grid is a one-line proof. The angles of all steps sum to $\Theta=\varphi_1-\varphi_0<\pi/2$; $\log\cos$ is concave; so by
# Jensen's inequality the product is largest when the steps are *equal in* $\varphi$:
#
# $$\prod_i\cos\Delta\varphi_i\;\le\;\cos^N\frac{\Theta}{N}=1-\frac{\Theta^2}{2N}+O(N^{-2}). \label{eq:best}$$

# %%
# NBVAL_CHECK_OUTPUT
angle = lambda level, c=c: math.atan(level.sigma / (level.alpha * c))
def by_angle(n):                                    # n steps, uniform in φ
    ends = [angle(level) for level in levels(1)]
    lam = -(c * torch.linspace(*ends, n + 1, dtype=torch.float64).tan()).log()
    return [schedule.at_lam(l.item()) for l in lam]

width = lambda walk: (sample(model, x_T, walk) - walk[-1].alpha * mean).norm() \
    / (closed_form(x_T, walk[0], walk[-1]) - walk[-1].alpha * mean).norm()
cosines = lambda walk, c=c: math.prod(
    math.cos(angle(a, c) - angle(b, c)) for a, b in zip(walk, walk[1:]))
grids = {"uniform in t": lambda n: levels(n, "time"), "uniform in λ": levels,
         "karras": lambda n: levels(n, "karras"), "uniform in φ": by_angle}
claim("C07.9", "DDIM's width over the exact one is the product of cosines (largest gap)",
      max(abs(width(make(n)) - cosines(make(n))) for make in grids.values()
          for n in (3, 10, 40)), below=1e-12)

# %%
# NBVAL_CHECK_OUTPUT
claim("C07.10", "10 steps: other grids lose more width than uniform φ (least ratio)",
      min((1 - width(make(10))) / (1 - width(by_angle(10))) for name, make in grids.items()
          if name != "uniform in φ"), above=1.05)
claim("C07.11", "the best grid loses Θ²/2N (measured over predicted, at 40 steps)",
      (1 - width(by_angle(40))) / ((angle(levels(1)[0]) - angle(levels(1)[1])) ** 2 / 80),
      between=(0.97, 1.01))

# %%
counts = (4, 6, 8, 12, 16, 24, 40)
lost = {name: {n: (1 - width(make(n))).item() for n in counts}
        for name, make in grids.items()}
figure(plot.convergence(lost, ylabel="share of the width that is lost", slopes=(1,)),
       "Every grid loses width in proportion to 1/N; the one uniform in φ loses least, "
       "those uniform in t and Karras's most.",
       "DDIM on one Gaussian. Nothing is random here: each point is a product of cosines.")

# %% [markdown]
# No grid makes DDIM second order; the best one only lowers the constant. For more modes there is no single $c$: the library's `arctan` grid,
# uniform in $\arctan\sqrt{\kappa/\tfrac12}$, is a compromise (exercise 3).
#
# ## 7.5 The same numbers as diffusers
#
# Stable Diffusion's ladder, its spacing `trailing`, and diffusers' own scheduler:

# %%
# NBVAL_CHECK_OUTPUT
peer = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                     clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing")
peer.set_timesteps(10)
net = lambda x, n: torch.tanh(0.7 * x + n / 1000)   # any network will do
theirs = x_T.float()
for n in peer.timesteps:
    theirs = peer.step(net(theirs, n), n, theirs).prev_sample
ladder = discrete(scaled_linear())
ours = Denoiser(lambda x, n, cond: net(x, n[:, None]), ladder, "eps",
                clock=lambda t: 1000 * t - 1)
mine = sample(ours, x_T.float(), ladder.levels(grid(ladder, 10, "sd_trailing")))
claim("C07.12", "ten DDIM steps are diffusers' ten (largest difference over largest value)",
      (mine - theirs).abs().max() / theirs.abs().max(), below=1e-6)

# %% [markdown]
# The two flags matter: `set_alpha_to_one=False` ends at index 0, where the ladder ends, and `clip_sample=False` keeps $x_\theta$ as it is: latents
# have no range to be clipped to.
#
# ## 7.6 Rung 2: pictures, and the way back
#
# An ODE can be run in both directions. On scikit-learn's digits with the shipped network, DDIM towards noise *encodes* a picture, DDIM back
# decodes it. Each way freezes $\varepsilon$ at its own start, so the round trip is not exact: it returns up to the first order's error.

# %%
# NBVAL_CHECK_OUTPUT
teacher, digit = digits_teacher(), torch.arange(10)
noise = Draw(3).normal(torch.empty(10, 1, 8, 8))
steps = lambda n: schedule.levels(grid(schedule, n, t_min=2e-2))
def encode(x, n):                                   # the same formula, from clean to noisy
    for a, b in zip(steps(n)[::-1], steps(n)[-2::-1]):
        x = teacher(x, a, digit).mix(b.alpha, b.sigma)
    return x

clean = sample(teacher, noise, steps(200), solvers.dpm_solver_3, digit)
back = {n: sample(teacher, encode(clean, n), steps(n), cond=digit) for n in (10, 40, 160)}
trip = {n: metrics.rms(picture, clean) for n, picture in back.items()}
claim("C07.13", "the round trip's error falls with the steps at order 1 (10 to 160 steps)",
      metrics.order(trip), between=(0.7, 1.4))
rows = {"picture": clean, **{f"there and back, 2 × {n}": x for n, x in back.items()}}
figure(plot.pictures(rows),
       "After ten DDIM steps to noise and ten back, greys of the digits have shifted; "
       "after 160 and 160 they are the pictures that went in.",
       "DDIM as an encoder: the same network, run to noise and back.")

# %% [markdown]
# ## 7.7 What should look wrong here
#
# Many codes clip $x_\theta$ to the range of the data and keep the network's $\varepsilon$. *Predict*: does $\alpha_tx_\theta+\sigma_t\varepsilon$
# then still describe the $x$ it came from? Run one step of length zero, from a level to itself. Here `dlib.thresholded` clips, into $[-1,1]$.

# %%
# NBVAL_CHECK_OUTPUT
x_t = closed_form(x_s, s, t)
said = model(x_t, t)
clipped = thresholded(model)(x_t, t)
claim("C07.14", "clipped x₀ with the old ε: a step of length zero moves the point (rms)",
      metrics.rms(t.alpha * clipped.x0 + t.sigma * said.eps, x_t), above=0.01)
claim("C07.15", "clipped x₀ with the ε that thresholded gives: it stays (rms)",
      metrics.rms(t.alpha * clipped.x0 + t.sigma * clipped.eps, x_t), below=1e-12)

# %% [markdown]
# `thresholded` gives $\varepsilon=(x_t-\alpha_tx_\theta)/\sigma_t$ with the new $x_\theta$; diffusers does so with `use_clipped_model_output=True`.
#
# ## 7.8 In practice
#
# - **Few steps look washed out.** That is \eqref{eq:best}: variance is lost first. DDIM's paper reports FID 13.36, 4.67 and 4.16 on CIFAR-10 with 10, 50 and
#   100 steps [@song2021ddim, table 1]: *not reproduced here*.
# - **Spacing.** `leading` never visits the noisiest level (4 steps: 751, 501, 251, 1); `trailing` does (999, 749, 499, 249) [@lin2024zerosnr]. diffusers'
#   DDIM moves by the fixed stride 1000//N whatever the spacing, which is wrong for `linspace`.
# - **The ends.** At $\sigma=0$ a step returns $x_\theta$: append `CLEAN`. At $\alpha=0$ an ε-network says nothing about $x_\theta$; a v-network does.
# - **Noise.** $\alpha_tx_\theta+\sqrt{\sigma_t^2-v}\,\varepsilon+\sqrt v\,z$ with $v=\eta^2\sigma_t^2(1-e^{-2h})$ is the stochastic family: `ddim_eta(eta)`.
# - **Where the toy stops being true.** A trained network's $\varepsilon$ bends more than a Gaussian's near the modes' borders, and no
#   number of steps repairs the network's own error.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(gauss, vp())` | `full_scale.sd.denoiser(unet, scheduler_config)` |
# | `grid(schedule, n)` | `grid(schedule, n, "sd_trailing")` |
# | `solvers.ddim` | the same function object; also the teacher's step in LCM and PCM |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" --solver ddim --grid sd_trailing --steps 10
# ```
#
# **How far up the ladder.** Rung 1: the exact solution, and DDIM's error in closed form. Rung 2: a trained network, there and back. Rung 3: equal to
# diffusers on Stable Diffusion's ladder.
#
# ## 7.9 Exercises
#
# 1. *(pencil)* Derive \eqref{eq:x0-form} from $z=x/\sigma$. Then show that freezing $x_\theta$ and freezing $\varepsilon$ give the same step.
# 2. *(code)* Write `ddim` as Euler's rule in $(y,\kappa)$. Check: equal to `solvers.ddim` to $10^{-12}$ on GMM5.
# 3. *(code)* The `arctan` grid is uniform in $\psi=\arctan\sqrt{\kappa/\frac12}$. Measure the width that DDIM loses on it for $c=0.2, 0.5, 2$, over the least
#    possible loss, \eqref{eq:best}. Predict what this ratio tends to as $N$ grows. Check: never below 1; 1.22 for $c=\frac12$.
# 4. *(open)* Two Gaussians, $c=0.1$ and $c=2$, cannot share a best grid. Find one whose worse loss is smallest at 10 steps.
#
# <details><summary>Answer to 1</summary>
#
# $\dot z=\dot x/\sigma-x\dot\sigma/\sigma^2$. With \eqref{eq:pfode} and $\varepsilon=(x-\alpha x_\theta)/\sigma$ this is
# $x(\dot\alpha/\alpha-\dot\sigma/\sigma-\dot\lambda)/\sigma+\alpha\dot\lambda x_\theta/\sigma=e^\lambda\dot\lambda x_\theta$, since the bracket vanishes. Frozen, the
# integral is $\sigma_t(e^{\lambda_t}-e^{\lambda_s})x_\theta=\alpha_t(1-e^{-h})x_\theta$. Insert $x_s=\alpha_sx_\theta+\sigma_s\varepsilon$ in both forms: each becomes
# $\alpha_tx_\theta+\sigma_t\varepsilon$.
#
# </details>
#
# Answer to 3. A step turns by $\varphi'(\psi)\,\Psi/N$ if $\Psi$ is the range of $\psi$, so the loss tends to $\frac1{2N}\Psi\int\varphi'^2d\psi$ and the ratio to
# $\Psi\int\varphi'^2d\psi\,/\,\Theta^2$, which is at least 1 (Cauchy–Schwarz). As code that runs, with the integral as a sum over short pieces:

# %%
# NBVAL_CHECK_OUTPUT
def loss_over_bound(c, n):
    walk = levels(n, "arctan")
    x = sample(exact(replace(gauss, stds=torch.tensor([c])), schedule), x_T, walk)
    wide = [math.hypot(level.alpha * c, level.sigma) for level in (walk[0], walk[-1])]
    kept = (x.std(0) / wide[1]) / (x_T.std(0) / wide[0])
    best = math.cos((angle(walk[0], c) - angle(walk[-1], c)) / n) ** n
    return (1 - kept[0]) / (1 - best)

def limit(c):
    ends = [math.atan((2 * level.sigma / level.alpha) ** 0.5) for level in levels(1)]
    phi = (torch.linspace(*ends, 10001, dtype=torch.float64).tan() ** 2 / (2 * c)).atan()
    return 10000 * phi.diff().square().sum() / (phi[-1] - phi[0]) ** 2

claim("C07.16", "arctan grid, 10 steps: loss over the bound, c = 0.2, 0.5, 2 (least)",
      min(loss_over_bound(c, 10) for c in (0.2, 0.5, 2.0)), above=1.0)
claim("C07.17", "arctan grid, 80 steps: the ratio over its limit, minus 1 (largest of 3)",
      max(abs(loss_over_bound(c, 80) / limit(c) - 1) for c in (0.2, 0.5, 2.0)), below=0.01)

# %% [markdown]
# ## References
#
# DDIM: [@song2021ddim]. The ODE: [@song2021sde]. Its exact solution in λ: [@lu2022dpm; @lu2022dpmpp]. In the variable κ: [@karras2022edm]. Exponential
# integrators: [@hochbruck2010exponential].
