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
# Take the simplest data there is, one Gaussian, and carry noise to it in ten steps of Euler's rule. All four panels solve the same ODE. They have the same network, the same starts and the same
# noise levels $\sigma$, with $\alpha=1$. Only the *clock* differs, the time $t$ at which each level comes: $\sigma^{1/\rho}$ runs linearly in $t$. With $\rho=7$ the cloud collapses to a spot. With $\rho=1$ the level
# itself is the time, and the cloud is only a little too narrow. A grey line ties each point to where it should be.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import math
from functools import partial
import dlib
import numpy as np
import torch
from diffusers import DDIMScheduler
from dlib import Denoiser, Draw, Mixture, discrete, edm, exact, flow, grid, metrics
from dlib import plot, reference, sample, scaled_linear, solvers, thresholded, vp
from toy_data import digits_split, digits_teacher, gmm5

f64, c, mean = torch.float64, 0.5, torch.tensor([[1.0, -0.5]], dtype=torch.float64)
gauss = Mixture(torch.ones(1), mean, torch.tensor([c]))  # N(mean, c² I)
noise = Draw(0).normal((256, 2), f64)


# %%
def run(data, schedule, solver, n):
    """y = x/α after n steps from κ = σ/α = 50 to 0.01, uniform in log κ."""
    lams = torch.linspace(-math.log(50), math.log(100), n + 1, dtype=f64).tolist()
    path = [schedule.at_lam(lam) for lam in lams]  # λ = −log κ
    return sample(exact(data, schedule), path[0].sigma * noise, path, solver) / path[-1].alpha


clocks = (7, 3, 2, 1)
panels = {f"Euler in t, ρ = {rho}": run(gauss, edm(rho=rho), solvers.euler, 10) for rho in clocks}
truth = mean + ((c**2 + 0.01**2) / (c**2 + 50**2)) ** 0.5 * (50 * noise - mean)  # see 7.1
figure(
    plot.endpoints(panels, truth, torch.zeros(256).long()),
    "On the clock with ρ = 7 ten Euler steps end in one spot; with ρ = 3 and 2 the spot "
    "is a little larger; with ρ = 1 they give a slightly narrow cloud.",
    "Same ODE, same levels, four clocks. Grey: the distance still to go.",
)

# %% [markdown]
# How the levels are spread over $t$ is book-keeping. It should not matter at all. This chapter removes it, with everything else that a schedule brings along, and what is left is DDIM: the last panel, on every schedule. The
# chapter ends with a formula for how much too narrow that cloud is. On the way we solve the sampling ODE exactly, up to one integral. Every fast sampler of
# [chapter 8](08_dpm_solver.ipynb) is a way to guess this integral.
#
# ## 7.1 Recap: the ODE, and what Euler gets wrong
#
# Noise is added as $x_t=\alpha_tx_0+\sigma_t\varepsilon$; $t=1$ is noise, $t=0$ is data, a dot is $d/dt$. The network predicts $\varepsilon(x,t)$, the mean of the
# noise given $x_t=x$. The probability-flow ODE has the noising process's marginals and no randomness [@song2021sde]:
#
# $$\frac{dx}{dt}=\frac{\dot\alpha_t}{\alpha_t}\,x-\sigma_t\dot\lambda_t\,\varepsilon(x,t),\qquad \lambda_t=\log\frac{\alpha_t}{\sigma_t}. \label{eq:pfode}$$
#
# λ, half the log signal-to-noise ratio, *grows* as we sample. Two things here are known before you ask the network. One is the *linear term*. The other is the factor of ε: it is $\alpha\dot\kappa$ with the level $\kappa=\sigma/\alpha$, and
# says how fast the *clock* goes through the levels. Euler's rule takes both as they are at the start of a step, though both change during it.
#
# For data $\mathcal N(m,c^2I)$ the solution is known. There $\varepsilon$ is linear in $x-\alpha_tm$, and the flow from time $s$ to $t$ only rescales:
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

# %%
schedule, model = vp(), exact(gauss, vp())  # the perfect network for these data
levels = partial(dlib.levels, schedule, t_min=1e-2)
V = lambda level: (level.alpha * c) ** 2 + level.sigma**2


def closed_form(x, a, b):  # the ODE's flow from level a to level b
    return b.alpha * mean + (V(b) / V(a)) ** 0.5 * (x - a.alpha * mean)


# %% [markdown]
# Now the first figure. It has $\alpha=1$, so there is no linear term: the collapse is the clock's work alone. The ODE is $\dot x=\dot\kappa\,\varepsilon$. From $s$ to $t$ the level falls by $\kappa_s-\kappa_t$, but Euler lets it fall by $(s-t)\,\dot\kappa_s$. On
# the clock ρ this is $\rho\,\bigl(1-(\kappa_t/\kappa_s)^{1/\rho}\bigr)\,\kappa_s$. Since $\varepsilon=\kappa\,(x-m)/(c^2+\kappa^2)$, Euler's step is
#
# $$x_t-m=\Bigl[1-\rho\,\Bigl(1-\bigl(\tfrac{\kappa_t}{\kappa_s}\bigr)^{1/\rho}\Bigr)\frac{\kappa_s^2}{c^2+\kappa_s^2}\Bigr](x_s-m). \label{eq:clock}$$
#
# Each of the ten steps has $\kappa_t/\kappa_s=.43$. While there is much noise, the points should keep .43 of their distance to $m$. With $\rho=7$ they keep .20, because the level falls fast at the start of a step and slowly at its end. With
# $\rho=1$ the level falls evenly, and they keep .43.

# %%
# NBVAL_CHECK_OUTPUT
kappas = [50 * 5000 ** (-i / 10) for i in range(11)]  # the levels of the figure


def by_clock(rho):  # Euler's width over the exact one
    factors = [
        1 - rho * (1 - (b / a) ** (1 / rho)) * a**2 / (c**2 + a**2)
        for a, b in zip(kappas, kappas[1:])
    ]
    return math.prod(factors) * ((c**2 + kappas[0] ** 2) / (c**2 + kappas[-1] ** 2)) ** 0.5


claim(
    "C07.1",
    "Euler's width over the exact one, ρ = 7, 3, 2, 1: measured − by (7.3) (largest gap)",
    max(
        abs((x.std(0) / truth.std(0)).mean().item() - by_clock(rho))
        for rho, x in zip(clocks, panels.values())
    ),
    below=1e-9,
)

# %% [markdown]
# The widths are 2, 6, 14 and 81 % of the exact one. (EDM's $\rho=7$ says where its levels lie. It steps in κ itself, the clock $\rho=1$ [@karras2022edm].) Where $\alpha$ moves, the linear term adds a mistake of its own. The two may even
# cancel: on VP, $x$ hardly moves while it is nearly all noise, and ten Euler steps through these levels come out only 9 % too wide.
#
# ## 7.2 Variation of constants
#
# Without the network, \eqref{eq:pfode} says $x\propto\alpha$. So let the constant vary: $x=\alpha y$. Then
#
# $$\frac{dy}{dt}=-\frac{\sigma_t}{\alpha_t}\dot\lambda_t\,\varepsilon=\frac{d\kappa}{dt}\,\varepsilon,\qquad \kappa=\frac{\sigma}{\alpha}=e^{-\lambda}, \label{eq:y-kappa}$$
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
# Nothing has been approximated. Check it: ask the network along the closed-form path \eqref{eq:gauss}, and do both integrals by Gauss's rule with 20 nodes, which is exact to rounding on
# functions as smooth as these.

# %%
# NBVAL_CHECK_OUTPUT
s, t = schedule.levels([0.7, 0.4])
half, (nodes, shares) = (t.lam - s.lam) / 2, np.polynomial.legendre.leggauss(20)
by_eps, by_x0 = t.alpha / s.alpha * noise, t.sigma / s.sigma * noise  # any start x_s will do
for node, share in zip(nodes, half * shares):
    level = schedule.at_lam(s.lam + half * (node + 1))
    said = model(closed_form(noise, s, level), level)
    by_eps = by_eps - t.alpha * share * math.exp(-level.lam) * said.eps
    by_x0 = by_x0 + t.sigma * share * math.exp(level.lam) * said.x0

claim(
    "C07.2",
    "the ε form of the exact solution is the closed-form flow (rms gap)",
    metrics.rms(by_eps, closed_form(noise, s, t)),
    below=1e-9,
)
claim(
    "C07.3",
    "the data form of the exact solution is the closed-form flow (rms gap)",
    metrics.rms(by_x0, closed_form(noise, s, t)),
    below=1e-9,
)

# %% [markdown]
# ## 7.3 The first term
#
# The network along the path is what we do not know. Freeze it at the start of the step. The integral of $e^{-\lambda}$ is elementary, and with $h=\lambda_t-\lambda_s$
#
# $$x_t\approx\frac{\alpha_t}{\alpha_s}x_s-\sigma_t(e^h-1)\,\varepsilon_s=\frac{\sigma_t}{\sigma_s}x_s+\alpha_t(1-e^{-h})\,x_{\theta,s}=\alpha_tx_{\theta,s}+\sigma_t\varepsilon_s. \label{eq:ddim}$$
#
# Freezing $\varepsilon$ and freezing $x_\theta$ give the *same* step (exercise 1), and the last form says it in words: change the level, keep the rest. This is
# DDIM [@song2021ddim, eq. 12]. In the library `mix(c, d)` is $c\,x_\theta+d\,\varepsilon$, and a step goes from level `a` to `b`.
#
# Divide the first form by $\alpha_t$: $y_t=y_s+(\kappa_t-\kappa_s)\,\varepsilon_s$, Euler's rule for \eqref{eq:y-kappa}, with κ for a clock. The schedule is gone, so *one* DDIM run
# serves them all, through the same κ, and Euler's rule with $\alpha=1$ and $\rho=1$ makes the same run. Now on five modes:

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.ddim)
on = lambda other, solver=solvers.ddim: run(gmm5(), other, solver, 20)
others = on(flow()), on(edm()), on(edm(rho=1), solvers.euler)
claim(
    "C07.4",
    "five modes: DDIM on VP, flow and EDM, and Euler at ρ = 1: one run (largest rms gap)",
    max(metrics.rms(end, on(vp())) for end in others),
    below=1e-9,
)

# %% [markdown]
# If $\varepsilon$ or $x_\theta$ does not change along the path, freezing it costs nothing, however long the step. Then the
# exact $y$ is linear in κ, or $z$ is linear in $1/\kappa$:

# %%
# NBVAL_CHECK_OUTPUT
a, *_, b = path = schedule.levels([1.0, 0.8, 0.6, 0.4])
truth = {
    "eps": b.alpha * (noise / a.alpha + b.sigma / b.alpha - a.sigma / a.alpha),
    "x0": b.sigma * (noise / a.sigma + b.alpha / b.sigma - a.alpha / a.sigma),
}
for name, face in (("C07.5", "eps"), ("C07.6", "x0")):
    same = Denoiser(lambda x, time, cond: torch.ones_like(x), schedule, face)
    ends = [sample(same, noise, walk, solvers.ddim) for walk in ([a, b], path)]
    claim(
        name,
        f"constant {face}: one DDIM step is exact, and so are three (largest rms gap)",
        max(metrics.rms(end, truth[face]) for end in ends),
        below=1e-12,
    )

# %% [markdown]
# Along a path of real data $\varepsilon$ is not constant: the step errs by $O(h^2)$, and $N\propto1/h$ of them by $O(h)$. That is order 1, no more. Euler's
# rule has it too; what Euler adds to the error is everything that the schedule does. (Here and in chapter 8 an order is the slope of the *typical* error, the geometric mean over the starts, between 160 and 640 steps, and must be right to ± .15.)

# %%
# NBVAL_CHECK_OUTPUT
five = exact(gmm5(), schedule)
goal = reference(five, noise, *levels(1))  # the exact flow's end points
error = lambda n: metrics.typical(sample(five, noise, levels(n), solvers.ddim), goal)
claim(
    "C07.7",
    "five modes: the order of DDIM",
    metrics.order({n: error(n) for n in (160, 320, 640)}),
    between=(0.85, 1.15),
)

# %% [markdown]
# ## 7.4 DDIM's error on a Gaussian is a product of cosines
#
# For data $\mathcal N(0,c^2)$ the network is $x_\theta=\alpha c^2x/V$, $\varepsilon=\sigma x/V$. Put it into \eqref{eq:ddim} and divide by the exact
# step $\sqrt{V_t/V_s}$ of \eqref{eq:gauss}:
#
# $$\frac{\alpha_s\alpha_tc^2+\sigma_s\sigma_t}{\sqrt{V_sV_t}}=\cos(\varphi_s-\varphi_t),\qquad \varphi=\arctan\frac{\sigma}{\alpha c}=\arctan\frac{\kappa}{c}. \label{eq:cos}$$
#
# The left side is the inner product of the unit vectors $(\alpha_sc,\sigma_s)/\sqrt{V_s}$ and $(\alpha_tc,\sigma_t)/\sqrt{V_t}$, which stand at the angles $\varphi_s$ and $\varphi_t$. So after $N$ steps
# the cloud has the exact shape, narrower by $\prod_i\cos\Delta\varphi_i$. It is always narrower: DDIM with few steps shrinks variance. Check it on three grids; `karras`, EDM's, is
# uniform in $\kappa^{1/7}$.

# %%
# NBVAL_CHECK_OUTPUT
angle = lambda level: math.atan(level.sigma / (level.alpha * c))


def width(walk):  # of DDIM's cloud, over the exact one
    exact_cloud = closed_form(noise, walk[0], walk[-1])
    return (sample(model, noise, walk, solvers.ddim).std(0) / exact_cloud.std(0)).mean().item()


walks = [levels(n, spacing) for spacing in ("time", "lam", "karras") for n in (3, 10, 40)]
cosines = lambda walk: math.prod(math.cos(angle(a) - angle(b)) for a, b in zip(walk, walk[1:]))
claim(
    "C07.8",
    "DDIM's width over the exact one is the product of cosines (largest gap)",
    max(abs(width(walk) - cosines(walk)) for walk in walks),
    below=1e-12,
)

# %% [markdown]
# And now the best grid is a one-line proof. The angles of all steps sum to $\Theta=\varphi_1-\varphi_0<\pi/2$; $\log\cos$ is concave; so by
# Jensen's inequality the product is largest when the steps are *equal in* $\varphi$:
#
# $$\prod_i\cos\Delta\varphi_i\;\le\;\cos^N\frac{\Theta}{N}=1-\frac{\Theta^2}{2N}+O(N^{-2}). \label{eq:best}$$


# %%
def by_angle(n):  # n steps, uniform in φ
    phi = torch.linspace(*map(angle, levels(1)), n + 1, dtype=f64)
    return [schedule.at_lam(lam) for lam in (-(c * phi.tan()).log()).tolist()]


grids = {
    "uniform in t": lambda n: levels(n, "time"),
    "uniform in λ": levels,
    "karras": lambda n: levels(n, "karras"),
    "uniform in φ": by_angle,
}
lost = {
    name: {n: 1 - width(walk(n)) for n in (4, 6, 10, 16, 24, 40)} for name, walk in grids.items()
}

# %% [markdown]
# At 40 steps $\Theta^2/2N$ is .027. The next term takes the share $\Theta^2/4N$ off it, between one and two percent.

# %%
# NBVAL_CHECK_OUTPUT
*others, best = lost.values()
claim(
    "C07.9",
    "10 steps: the other grids lose more width than uniform φ (least ratio)",
    min(curve[10] for curve in others) / best[10],
    above=1,
)
claim(
    "C07.10",
    "the best grid loses Θ²/2N (measured over predicted, at 40 steps)",
    best[40] / ((angle(levels(1)[0]) - angle(levels(1)[1])) ** 2 / 80),
    between=(0.97, 1),
)
figure(
    plot.convergence(lost, ylabel="share of the width that is lost", slopes=(1,)),
    "Every grid loses width in proportion to 1/N; the one uniform in φ loses least, "
    "those uniform in t and Karras's most.",
    "DDIM on one Gaussian. Nothing is random here: each point is a product of cosines.",
)

# %% [markdown]
# No grid makes DDIM second order; the best one only lowers the constant. You need not know $c$ well: a grid made for twice the true $c$ loses a quarter more (exercise 3). With many modes there is no single $c$; the library's `arctan` grid,
# uniform in $\arctan\sqrt{\kappa/\tfrac12}$, is a compromise.
#
# ## 7.5 The same numbers as diffusers
#
# Stable Diffusion's ladder of 1000 levels, its spacing `trailing`, and diffusers' own scheduler, with any network:

# %%
# NBVAL_CHECK_OUTPUT
peer = DDIMScheduler(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    timestep_spacing="trailing",
)
net = lambda x, n: torch.tanh(0.7 * x + n / 1000)  # x and an index n from 0 to 999
theirs = noise.float()
peer.set_timesteps(10)
for n in peer.timesteps:
    theirs = peer.step(net(theirs, n), n, theirs).prev_sample

ladder = discrete(scaled_linear())  # t = (n + 1)/1000
ours = Denoiser(
    lambda x, n, cond: net(x, n[:, None]), ladder, "eps", clock=lambda t: 1000 * t - 1
)
mine = sample(ours, noise.float(), dlib.levels(ladder, 10, "sd_trailing"), solvers.ddim)
claim(
    "C07.11",
    "ten DDIM steps are diffusers' ten (largest difference over largest value)",
    (mine - theirs).abs().max() / theirs.abs().max(),
    below=1e-6,
)

# %% [markdown]
# The two flags matter: `set_alpha_to_one=False` ends at index 0, where the ladder ends, and `clip_sample=False` keeps $x_\theta$ as it is: latents
# have no range to be clipped to.
#
# ## 7.6 Rung 2: pictures, and the way back
#
# An ODE can be run in both directions. Take held-out pictures of scikit-learn's digits and the shipped network. DDIM towards noise *encodes* a picture, DDIM back
# decodes it. Each way freezes $\varepsilon$ at its own start, so the round trip is not exact: it errs at first order. (Ten steps are not yet the
# limit, hence the wide bounds.)

# %%
# NBVAL_CHECK_OUTPUT
teacher, (every, labels) = digits_teacher(), digits_split()[1]
digit, clean = torch.arange(10), every[[labels.tolist().index(k) for k in range(10)]]


def there_and_back(x, n):
    path = levels(n, t_min=2e-2)
    for a, b in zip(path[::-1], path[-2::-1]):  # the same formula, from clean to noisy
        x = teacher(x, a, digit).mix(b.alpha, b.sigma)
    return sample(teacher, x, path, solvers.ddim, digit)


back = {n: there_and_back(clean, n) for n in (10, 40, 160)}
claim(
    "C07.12",
    "the round trip's error falls with the steps at order 1 (10 to 160 steps)",
    metrics.order({n: metrics.rms(x, clean) for n, x in back.items()}),
    between=(0.7, 1.4),
)
figure(
    plot.pictures({"picture": clean, **{f"there and back, 2 × {n}": x for n, x in back.items()}}),
    "After ten DDIM steps to noise and ten back, greys of the digits have shifted; "
    "after 160 and 160 they are the pictures that went in.",
    "DDIM as an encoder: the same network, run to noise and back.",
)

# %% [markdown]
# ## 7.7 What should look wrong here
#
# Many codes clip $x_\theta$ to the range of the data and keep the network's $\varepsilon$. *Predict*: does $\alpha_tx_\theta+\sigma_t\varepsilon$
# then still describe the $x$ it came from? Run one step of length zero, from a level to itself.
#
# Our Gaussian makes the answer a number. Over the cloud, the first coordinate of $x_\theta$ is normal with mean 1 and standard deviation $s=\alpha c^2/\sqrt V=.12$. Half of the points are clipped at 1, and
# the step should move the cloud by $\alpha s/\sqrt2=.037$, root mean square; 256 points know that to 7 %, and the bounds allow three times that.

# %%
# NBVAL_CHECK_OUTPUT
x_t = t.alpha * mean + V(t) ** 0.5 * noise  # the cloud at level t
said, within = model(x_t, t), thresholded(model)(x_t, t)
moved = t.alpha * said.x0.clamp(-1, 1) + t.sigma * said.eps
claim(
    "C07.13",
    "clipped x₀ with the old ε: a step of length zero moves the cloud (rms)",
    metrics.rms(moved, x_t),
    between=(0.029, 0.045),
)
claim(
    "C07.14",
    "x₀ and ε from dlib.thresholded: it stays (rms)",
    metrics.rms(within.mix(t.alpha, t.sigma), x_t),
    below=1e-12,
)

# %% [markdown]
# `thresholded` takes $\varepsilon=(x_t-\alpha_tx_\theta)/\sigma_t$ from the new $x_\theta$; diffusers does so with `use_clipped_model_output=True`.
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
# | `exact(gauss, vp())` | `full_scale.families.sd.denoiser(unet, scheduler_config)` |
# | `grid(schedule, n)` | `grid(schedule, n, "sd_trailing")` |
# | `solvers.ddim` | the same function object; also the teacher's step in LCM and PCM |
#
# ```bash
# python -m full_scale.sample --tiny --prompt "a red circle" \
#     --solver ddim --grid sd_trailing --steps 10
# ```
#
# **How far up the ladder.** Rung 1: the exact solution, and DDIM's error in closed form. Rung 2: a trained network, there and back. Rung 3: equal to
# diffusers on Stable Diffusion's ladder.
#
# ## 7.9 Exercises
#
# 1. *(pencil)* Derive \eqref{eq:x0-form} from $z=x/\sigma$. Then show that freezing $x_\theta$ and freezing $\varepsilon$ give the same step.
# 2. *(code)* Write `ddim` as Euler's rule in $(y,\kappa)$. Check: equal to `solvers.ddim` to $10^{-12}$ on GMM5.
# 3. *(code)* The data have width $c=\frac12$, but you made the grid for $c'$, uniform in $\psi=\arctan(\kappa/c')$ with κ from ∞ to 0. Compute the loss by \eqref{eq:cos}
#    for $c'=\frac18,\frac14,1,2$ and 640 steps, over the least loss. Check: within a percent of $\frac12(\frac c{c'}+\frac{c'}c)$. Why?
# 4. *(open)* Two Gaussians, $c=0.1$ and $c=2$, cannot share a best grid. Find one whose worse loss is smallest at 10 steps.
#
# <details><summary>Answer to 1</summary>
#
# $\dot z=\dot x/\sigma-x\dot\sigma/\sigma^2$. With \eqref{eq:pfode} and $\varepsilon=(x-\alpha x_\theta)/\sigma$ this is
#
# $$\dot z=\frac x\sigma\Bigl(\frac{\dot\alpha}\alpha-\frac{\dot\sigma}\sigma-\dot\lambda\Bigr)+\frac\alpha\sigma\dot\lambda\,x_\theta=e^\lambda\dot\lambda\,x_\theta,$$
#
# since the bracket vanishes. Frozen, the integral is $\sigma_t(e^{\lambda_t}-e^{\lambda_s})x_\theta=\alpha_t(1-e^{-h})x_\theta$. Insert $x_s=\alpha_sx_\theta+\sigma_s\varepsilon$ in both forms: each becomes
# $\alpha_tx_\theta+\sigma_t\varepsilon$.
#
# </details>
#
# <details><summary>Answer to 3</summary>
#
# A step turns by $\Delta\varphi=\varphi'(\psi)\,\Delta\psi$, with $\Delta\psi=\frac\pi{2N}$, so the loss tends to $\frac12\sum\Delta\varphi^2=\frac\pi{4N}\int\varphi'\,d\varphi$. With $r=c'/c$ we have $\tan\varphi=r\tan\psi$, hence
# $\varphi'=r\cos^2\varphi+\frac1r\sin^2\varphi$, and the integral over a quarter turn is $\frac\pi4(r+\frac1r)$. The least loss is $\frac{\pi^2}{8N}$: divide. In code:
#
# </details>


# %%
# NBVAL_CHECK_OUTPUT
def loss(guess, n=640):  # of a grid made for c′ = guess
    kappa = guess * torch.linspace(math.pi / 2, 0, n + 1, dtype=f64).tan()
    return 1 - (kappa / c).atan().diff().cos().prod().item()


ratio = {guess: loss(guess) / loss(c) for guess in (0.125, 0.25, 1.0, 2.0)}
claim(
    "C07.15",
    "loss of a grid made for c′, over ½(c/c′ + c′/c) least losses (largest off 1)",
    max(abs(2 * r / (c / guess + guess / c) - 1) for guess, r in ratio.items()),
    below=0.01,
)

# %% [markdown]
# ## References
#
# DDIM: [@song2021ddim]. The ODE: [@song2021sde]. Its exact solution in λ: [@lu2022dpm; @lu2022dpmpp]. In the variable κ: [@karras2022edm]. Exponential
# integrators: [@hochbruck2010exponential].
