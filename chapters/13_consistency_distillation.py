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
#     title: Consistency distillation
#     summary: Train a network that jumps to the end of a sampling path in one call, with guidance inside, and in phases that drift no more.
#     minutes: 50
#     memory: 1 GB
#     needs:
#       - chapter 8 (the PF-ODE, DDIM and orders are recapped in 13.1)
#       - PyTorch
# ---

# %% [markdown]
# # 13 Consistency distillation: jump to the end of the path
#
# A solver asks the network at every step from noise to data. This chapter trains a network that *jumps*: one call, from
# anywhere on a path to its end.
#
# The data is GMM5, the perfect teacher is a formula, and the noise levels are Stable Diffusion's own thousand. Both
# panels below start from the same noise and make **one network call**.

# %%
from book import claim, figure, show                # first: it also tells torch not to spin
import copy
from dataclasses import replace

import torch
from diffusers import LCMScheduler, TCDScheduler
from dlib import CLEAN, NULL, Batch, Denoiser, Draw, Ema, Loss, Mixture, Phase, Recipe
from dlib import boundary, consistency, discrete, edm, edm_boundary, exact, fit, flow, grid
from dlib import guided, lcm_scalings, metrics, plot, recipes, reference, sample
from dlib import scaled_linear, solvers, walk
from dlib.grids import pcm_edges
from dlib.losses import multistep_consistency, squared, weights
from dlib.losses.consistency import ends, jump
from dlib.nets import MLP
from dlib.rollout import composed
from toy_data import digit_batches, digits_split, digits_teacher, gmm5, labelled
from toy_data import shape_batches, shapes_teacher
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked as scored, shapes_floor, shapes_frechet

schedule, mixture = discrete(scaled_linear()), gmm5()
teacher, clean = exact(mixture, schedule), schedule.at(schedule.t_min)  # the last level

# %%
def train(recipe, student, teacher, data, steps=600, lr=4e-3, decay=0.95):
    """`steps` of Adam; the target is the student's average, for decay 0 the student."""
    ema, optim = Ema(student.net, decay), torch.optim.Adam(student.net.parameters(), lr)
    target = replace(student, net=ema.net)
    roles = {"student": student, "teacher": teacher, "target": target}
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    fit(recipe.phases, roles, {"student": optim}, data, steps, Draw(0), ema,
        each=lambda step, found: rate.step())
    return student

def mlp(classes=0):
    torch.manual_seed(0)
    return Denoiser(MLP(2, 96, 2, classes=classes), schedule, "v")

points = Draw(1)
fresh = lambda step: Batch(mixture.sample(256, points)[0].float())
cd = recipes.consistency_distillation(schedule, points=18, sigma_data=1.0)
scalings = edm_boundary(schedule, sigma_data=1.0)
student = boundary(train(cd, mlp(), teacher, fresh), scalings)

# %%
x_T = Draw(0).normal(torch.empty(4000, 2))
fine = schedule.levels(grid(schedule, 200))
states = list(walk(teacher, x_T.double(), fine, solvers.dpm_solver_3))  # the paths
truth = states[-1].x / clean.alpha
stops = lambda n: [*schedule.levels(grid(schedule, n, "lcm"))[:-1], CLEAN]

@torch.no_grad()
def calls(model, n, solver, cond=None):
    return sample(model, x_T, stops(n), solver, cond, draw=Draw(2)).double()

mode = (truth[:256, None] - mixture.means).norm(dim=2).argmin(1)
panels = {"one DDIM jump": calls(teacher, 1, solvers.ddim)[:256],
          "student, one call": calls(student, 1, solvers.lcm)[:256]}
figure(plot.endpoints(panels, truth[:256], mode),
       "One DDIM jump puts every point near the mean of the data, far from all five modes; "
       "one call of the student puts nearly every point where the teacher's path ends.",
       "Same noise, one call each. Grey: the distance to the end of the teacher's path.")

# %% [markdown]
# From pure noise the teacher can only say the mean of all data: a *direction*, good for a short step. The student, 600
# updates old, answers with the end point.
#
# ## 13.1 Recap: the path, the jump, and guidance
#
# Noise is added as $x_t=\alpha_tx_0+\sigma_t\varepsilon$, with $t=1$ noise. In $y=x/\alpha$ and
# $\kappa=\sigma/\alpha=e^{-\lambda}$ the probability-flow ODE of every schedule is
#
# $$\frac{dy}{d\kappa}=\varepsilon(\alpha y,\lambda). \label{eq:cd-ode}$$
#
# Its **flow map** $\Phi_{t\to s}$ carries a point at level $t$ to the point of the same path at $s$. DDIM freezes the
# network's answer during the step [@song2021ddim]:
#
# $$F_{t\to s}(x)=\alpha_s\,x_\theta(x,t)+\sigma_s\,\varepsilon_\theta(x,t)=\Phi_{t\to s}(x)+O(h^2),\qquad h=\lambda_s-\lambda_t. \label{eq:jump}$$
#
# $N$ such steps leave an error $O(1/N)$; Heun's, with two calls each, $O(1/N^2)$ (chapter 8). **Guidance** replaces
# $\varepsilon$ by $\varepsilon^\omega=(1+\omega)\,\varepsilon(x,c)-\omega\,\varepsilon(x,\varnothing)$ [@ho2022cfg].
# That is another ODE \eqref{eq:cd-ode}, with its own flow map; $\omega=0$ is none.
#
# ## 13.2 A function that knows the end
#
# The **consistency function** is the flow map to the clean end $t_0$, in units of data: $f(x,t)=\Phi_{t\to
# t_0}(x)/\alpha_{t_0}$. Two properties determine it [@song2023consistency]; to see it, put $s=t_0$:
#
# $$f(x_t,t)=f\big(\Phi_{t\to s}(x_t),s\big)\quad\text{for all }s<t,\qquad\qquad f(x,t_0)=x/\alpha_{t_0}. \label{eq:consistency}$$
#
# The first says *what two points of a path have in common*, and can be trained without ever walking to the end. Noise
# the data to $x_{t_i}$, let the teacher make one solver step to $\hat x_{t_j}$, and ask for the same answer at both:
#
# $$\mathcal L=\mathbb E\;d\big(f_\theta(x_{t_i},t_i),\ \operatorname{sg}f_{\theta^-}(\hat x_{t_j},t_j)\big),\qquad j=i+k. \label{eq:cd-loss}$$
#
# $\theta^-$ is the student's moving average, $\operatorname{sg}$ stops the gradient. The second property is built in,
# because without it $f=0$ would be perfect. With $\kappa'=\kappa-\kappa_0$ and $s(\kappa)=\sigma_d^2/(\kappa^2+\sigma_d^2)$,
#
# $$f=c_{\text{skip}}\,x+c_{\text{out}}\,x_\theta(x,t),\qquad c_{\text{out}}=\kappa'/\kappa,\quad c_{\text{skip}}=\big(s(\kappa')-c_{\text{out}}\,s(\kappa)\big)/\alpha. \label{eq:boundary}$$
#
# (The paper has EDM's raw network $F$ instead of $x_\theta$.) LCM uses a switch, 1 at index 0 and below $10^{-5}$ at the
# next index that it is asked.
#
# In the library both sides of \eqref{eq:cd-loss} go to an **edge**, the clean end of their phase. For now there is one
# phase, whose edge is `CLEAN`, where `jump` returns $f$; section 13.6 needs the rest. `consistency` is the distance
# between `student` and `target` of these `Ends`:

# %%
# NBVAL_CHECK_OUTPUT
show(jump, ends)
wild = Denoiser(lambda x, t, cond: 9 + torch.sin(9 * x), schedule, "eps")  # any network
at_end = lambda made: boundary(wild, made(schedule))(x_T, clean).x0
claim("C13.1", "f(x, κ_min) = x/α with consistency distillation's scalings (largest error)",
      (at_end(edm_boundary) - x_T / clean.alpha).abs().max(), below=1e-5)
claim("C13.2", "and f = x with LCM's (largest error)",
      (at_end(lcm_scalings) - x_T).abs().max(), below=1e-5)

# %% [markdown]
# ## 13.3 What the perfect student is
#
# Suppose $\mathcal L=0$ with $\theta^-=\theta$ and $k=1$. Then $f(x_{t_i})=f(\hat x_{t_{i+1}})$ on all of the grid:
# follow the chain, and
#
# $$f(\cdot,t_i)=\Psi_{N-1}\circ\dots\circ\Psi_{i+1}\circ\Psi_i/\alpha_{t_0},\qquad \Psi\text{: the teacher's solver step.} \label{eq:perfect}$$
#
# The perfect student *is* the teacher's $N$-step sampler, in one call. With exact steps it is $f$ itself; with a solver
# of order $p$ it is off by $O(\Delta^p)$, and no training repairs that. We check all three. For data $\mathcal N(0,c^2)$,
# $\Phi_{t\to s}(x)=x\,\sqrt{v_s/v_t}$ with $v=\alpha^2c^2+\sigma^2$, so $f$ and its exact steps are known:

# %%
# NBVAL_CHECK_OUTPUT
show(composed)
c, times = 0.5, grid(schedule, 16, "karras")
spread = lambda level: (level.alpha**2 * c**2 + level.sigma**2) ** 0.5

@solvers.solver(order=99)
def exact_step(model, x, a, b, memory=None, noise=None, cond=None):
    return x * spread(b) / spread(a), memory

f_star = Denoiser(lambda x, t, cond: x * spread(clean) / clean.alpha
                  / spread(schedule.at(t, like=x)), schedule, "x0")
some = Batch(Draw(3).normal(torch.empty(512, 2, dtype=torch.float64)))
loss = lambda f, teacher, solver: consistency(
    f, teacher, f, some, Draw(4), times=times, solver=solver, distance=squared).value
claim("C13.3", "N(0, c²): the loss of the closed form f*, with exact steps",
      loss(f_star, f_star, exact_step), below=1e-12)
claim("C13.4", "GMM5: the loss of the composed Heun sampler, with Heun's steps", loss(
    composed(teacher, schedule.levels(times), solvers.heun), teacher, solvers.heun),
    below=1e-12)

# %%
# NBVAL_CHECK_OUTPUT
line = exact(Mixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([c])), edm())
def off(solver, N):
    walked = edm().levels(grid(edm(), N - 1, "karras"))
    a_N = composed(line, walked, solver)(torch.ones(1, 1).double(), walked[0]).x0.item()
    return abs(a_N * spread(walked[0]) / spread(walked[-1]) - 1)

order = lambda solver: metrics.order({N: off(solver, N) for N in (40, 80, 160)})
claim("C13.5", "the perfect student of Heun's steps has an error of order 2",
      order(solvers.heun), between=(1.85, 2.15))
claim("C13.6", "and that of DDIM's (Euler's rule in κ), of order 1",
      order(solvers.ddim), between=(0.85, 1.15))

# %% [markdown]
# ## 13.4 What a trained one is: the commutator
#
# Audit a real student by going two ways round: jump from $x_{t_i}$, or follow the flow to $x_{t_j}$ and jump from there.
# If \eqref{eq:consistency} holds, all entries of
#
# $$C_{ij}=\big\lVert f(x_{t_i},t_i)-f\big(\Phi_{t_i\to t_j}(x_{t_i}),t_j\big)\big\rVert_{\text{rms}} \label{eq:commutator}$$
#
# vanish. One walk of the teacher fills the matrix. Its last column is the distance to the truth. We ask the student for a
# quarter of the DDIM jump's mean; likewise for its sliced Wasserstein distance, less the floor that exact samples score.
#
# A consistency model may also take more calls: jump, add new noise up to a lower level, jump again
# [@song2023consistency, alg. 1]. That forgets the path: the new end point is nearly independent of the old one. We ask
# for 0.8 of the distance of independent samples.

# %%
# NBVAL_CHECK_OUTPUT
@torch.no_grad()
def commutator(model):
    """11 levels of the paths, from t = 1 to the end."""
    said = [model(state.x.float(), state.level).x0 for state in states[::20]]
    return torch.tensor([[metrics.rms(a, b) for b in said] for a in said])

two = {"one DDIM jump": commutator(teacher), "student": commutator(student)}
figure(plot.commutator(two, torch.tensor([level.lam for level in fine[::20]])),
       "For the DDIM jump the two ways differ by up to 1.4, most when the start is noisy; "
       "for the student by about a tenth of that wherever they start.",
       "$C_{ij}$ on GMM5: rows: the first jump's start; columns: where the flow is left.")

draw = Draw(5)
real = mixture.sample(4000, draw)[0]
floor, _ = metrics.noise_floor(metrics.sliced_w2, lambda: mixture.sample(4000, draw)[0])
excess = lambda model, solver: metrics.sliced_w2(calls(model, 1, solver), real) - floor
claim("C13.7", "GMM5, 1 call: the student's W₂ over the floor, as a share of DDIM's",
      excess(student, solvers.lcm) / excess(teacher, solvers.ddim), below=0.25)
jumps, own = (matrix.triu(1).sum() for matrix in two.values())
claim("C13.8", "the student's mean commutator over the jump's", own / jumps, below=0.25)
again = metrics.rms(calls(student, 4, solvers.lcm), truth)
claim("C13.9", "4 calls: distance to the path's end over that of independent samples",
      again / metrics.rms(real, truth), between=(0.8, 1.1))

# %% [markdown]
# ## 13.5 Latent consistency: guidance inside, and long steps
#
# LCM [@luo2023lcm] is \eqref{eq:cd-loss} in the latent space of Stable Diffusion with three decisions. **Guidance moves
# into the ODE**: the teacher's step is a DDIM step with $\varepsilon^\omega$, $\omega$ drawn anew for each sample. The
# student is told $\omega$ (`recipes.lcm_with_omega`) or, as an adapter, learns the mean over a range
# [@luo2023lcmlora]. **Steps skip**: on a thousand levels information creeps from neighbour to neighbour; a step covers
# $k=20$ indices. By \eqref{eq:jump} that costs $O(h^2)$ a step, $O(h)$ in all. And **$d$ is a Huber distance**, nearly
# $|a-b|$. The recipe that `full_scale` runs:

# %%
# NBVAL_CHECK_OUTPUT
show(recipes.lcm)
classes, asked = exact(labelled(), schedule), torch.arange(4000) % 2
pair, x, a = guided(classes, omega=2.0, null=NULL), x_T[:256].double(), schedule.at(0.5)
def missed(h):
    b, labels = schedule.at_lam(a.lam + h), asked[:256]
    step, _ = solvers.ddim(pair, x, a, b, cond=labels)
    return metrics.typical(step, reference(pair, x, a, b, cond=labels))
claim("C13.10", "the error of one guided step of length h has order 2 in h",
      metrics.order({n: missed(1 / n) for n in (5, 10, 20)}), between=(1.85, 2.15))

# %% [markdown]
# It is sampled by `lcm`: jump, new noise, jump again. TCD's `tcd` [@zheng2024tcd] jumps only part of the way, so that less
# noise is new. Both are diffusers' schedulers, up to float32's rounding:

# %%
# NBVAL_CHECK_OUTPUT
def theirs(kind, x, **options):
    peer, draw = kind(set_alpha_to_one=False, prediction_type="v_prediction"), Draw(2)
    peer.set_timesteps(4)
    for n in peer.timesteps.tolist():
        v = teacher(x, schedule.at((n + 1) / 1000)).v
        x = peer.step(v, n, x, generator=draw.generator, **options).prev_sample
    return x

lcm = calls(boundary(teacher, lcm_scalings(schedule)), 4, solvers.lcm)
claim("C13.11", "4 steps of `lcm` and of diffusers' LCMScheduler (RMS distance)",
      metrics.rms(lcm, theirs(LCMScheduler, x_T)), below=1e-4)
tcd = sample(teacher, x_T, schedule.levels(grid(schedule, 4, "lcm")), solvers.tcd(0.3),
             draw=Draw(2))
claim("C13.12", "4 steps of `tcd(0.3)` and of diffusers' TCDScheduler (RMS distance)",
      metrics.rms(tcd, theirs(TCDScheduler, x_T, eta=0.3)), below=1e-4)

# %% [markdown]
# Train it: two overlapping classes, $\omega=2$, Stable Diffusion's 50 grid steps, two at a time. Beside it stands the
# *perfect* student, the flow map by fine steps. One call of it is exact. *And four, with new noise between them?*

# %%
# NBVAL_CHECK_OUTPUT
two_classes, label_points = labelled(), Draw(7)
def guided_data(step):
    x0, label = two_classes.sample(256, label_points)
    return Batch(x0.float(), label)

made = recipes.lcm(schedule, NULL, omega=(2.0, 2.0), skip=2)
learnt = train(made, mlp(classes=2), classes, guided_data)
latent = boundary(learnt, lcm_scalings(schedule))

perfect = lambda model: composed(model, fine[::4], solvers.dpm_solver_pp_2m)
other = Draw(6).normal(x_T)                         # the ends of other paths: the target
end = lambda model, x: perfect(model)(x, fine[0], asked).x0.double()
goal, target, plain_target = end(pair, x_T), end(pair, other), end(classes, other)
floor = metrics.sliced_w2(goal, target)
over = lambda *how: metrics.sliced_w2(calls(*how, asked), target) - floor
claim("C13.13", "guided, 1 call: LCM's W₂ over the floor, as a share of DDIM's",
      over(latent, 1, solvers.lcm) / over(pair, 1, solvers.ddim), below=0.25)
again, plain = (calls(perfect(model), 4, solvers.lcm, asked) for model in (pair, classes))
claim("C13.14", "the perfect student, 4 calls: W₂ with guidance over W₂ without",
      metrics.sliced_w2(again, target) / metrics.sliced_w2(plain, plain_target), above=2)

# %% [markdown]
# With guidance it gets worse, and no training can help: the network is exact. New noise is right only if the paths'
# points at level $t$ are distributed like noised end points. For the plain ODE they are. But nothing makes
# $\varepsilon^\omega$ the score of a noised density (chapter 6): each new noise puts $x$ where no guided path runs.
#
# ## 13.6 Phases: several ends instead of one
#
# **PCM** [@wang2024phased] cuts the grid at edges $s_0<s_1<\dots$, and asks in each phase for the map to *its* edge,
#
# $$f^m(x,t)=F_{t\to s_m}(x)=\alpha_{s_m}x_\theta(x,t)+\sigma_{s_m}\varepsilon_\theta(x,t),\qquad s_m=\max\{s<t\}. \label{eq:phase}$$
#
# The loss is \eqref{eq:cd-loss} with $f^m$ on both sides, $m$ the phase of the *student's* point, and steps that stop at
# the edge: that is all of `ends`. Since $F_{s\to s}(x)=x$, the boundary comes free. Sample by DDIM through the edges:
# no new noise, so the composition of perfect phases is the (guided) path itself, and shorter jumps are easier to learn.
#
# **Multistep consistency models** [@heek2024multistep] have the same phases. They carry the target's point $z$ at the
# edge back to a clean one, by inverting the jump,
#
# $$\tilde x=\frac{z-\rho\,x_t}{\alpha_{s_m}-\rho\,\alpha_t},\quad\rho=\frac{\sigma_{s_m}}{\sigma_t},\qquad \mathcal L=\mathbb E\;w(t)\,\lVert x_\theta(x_t,t)-\tilde x\rVert^2: \label{eq:mcm}$$
#
# a denoising loss with a better target.

# %%
# NBVAL_CHECK_OUTPUT
edges = pcm_edges(times, 4)
def phase_net(x, t, cond):
    """The ε whose jump to the edge below t is the exact flow of N(0, c²)."""
    place = (edges >= t[:, None]).sum(1).clamp(max=3)
    here, s = schedule.at(t, like=x), schedule.at(edges[place], like=x)
    moved = x * spread(s) / spread(here) / s.alpha - x / here.alpha
    return (moved / (s.sigma / s.alpha - here.sigma / here.alpha)).nan_to_num()

phases, x0 = Denoiser(phase_net, schedule, "eps"), some.x0
claim("C13.15", "N(0, c²), M = 4: the loss of the exact phase maps", consistency(
    phases, phases, phases, some, Draw(8), times=times, edges=edges, skip=2,
    solver=exact_step, distance=squared).value, below=1e-12)
along = schedule.levels([times[0], *edges])
path_end = x0 * spread(clean) / spread(along[0])
claim("C13.16", "DDIM through the edges composes them to the path (RMS distance)",
      metrics.rms(sample(phases, x0, along), path_end), below=1e-9)

# %% [markdown]
# The number of phases $M$ interpolates. For $M=1$ PCM is LCM without its scalings, and \eqref{eq:mcm} is consistency
# distillation. For $M=N$ each phase is one step: PCM learns the teacher's DDIM steps, and \eqref{eq:mcm} teaches
# the teacher's own $x_\theta$, a diffusion model. (Where the last level is not clean, PCM with $M=1$ differs from LCM by
# its $\sigma$; we check on `flow()`, whose end is.)

# %%
# NBVAL_CHECK_OUTPUT
odd, straight = exact(labelled(), flow()), exact(mixture, flow())
one = torch.linspace(1, 0, 9).double()
pcm_1, lcm_1 = (consistency(odd, straight, odd, some, Draw(8), times=one,
                            edges=e).value for e in (one[-1:], None))
claim("C13.17", "M = 1: PCM's loss less LCM's without scalings",
      pcm_1 - lcm_1, between=(0, 0))
stranger = exact(labelled(), schedule)
on_grid = lambda loss, edges=None, **how: loss(
    stranger, teacher, stranger, some, Draw(8), times=times, edges=edges, **how)
pcm_N = on_grid(ends, times[1:])
p, b = pcm_N.prediction, schedule.at(times[pcm_N.index + 1], like=some.x0)
ddim = [solvers.ddim(model, p.x, p.level, b)[0] for model in (stranger, teacher)]
claim("C13.18", "M = N: PCM compares DDIM steps of student and teacher (largest error)",
      max((pcm_N.student - ddim[0]).abs().max(), (pcm_N.target - ddim[1]).abs().max()),
      below=1e-12)
mcm = lambda edges: on_grid(multistep_consistency, edges, weight=weights.x0).value
claim("C13.19", "M = 1: multistep consistency's loss over distillation's, less 1",
      abs(mcm(None) / on_grid(consistency, distance=squared).value - 1), below=1e-9)
claim("C13.20", "M = N: the same over the distance to the teacher's x₀, less 1",
      abs(mcm(times[1:]) / squared(p.x0, teacher(p.x, p.level).x0).mean() - 1), below=1e-9)

# %% [markdown]
# Now four phases and four calls, with the budget of LCM's student. We ask for less than half of LCM's distance to the
# path's end: LCM has thrown the path away, so even DDIM passes. And of DDIM's: twice the calls at first order.

# %%
# NBVAL_CHECK_OUTPUT
phased = recipes.pcm(schedule, NULL, phases=4, omega=(2.0, 2.0), skip=2)
label_points = Draw(7)                              # the same data again
pcm = train(phased, mlp(classes=2), classes, guided_data)
with torch.no_grad():
    through = sample(pcm, x_T, schedule.levels(grid(schedule, 4, "pcm")), cond=asked)
four = {"teacher, DDIM": calls(pair, 4, solvers.ddim, asked),
        "LCM": calls(latent, 4, solvers.lcm, asked),
        "perfect student": again,
        "PCM, 4 phases": through.double() / clean.alpha}
figure(plot.endpoints({name: x[:200] for name, x in four.items()}, goal[:200], asked[:200]),
       "After four calls LCM's points, and those of the perfect student, lie anywhere in "
       "their class, far from the ends of their own paths; DDIM's are drawn together; "
       "PCM's lines can hardly be seen.",
       "Guided, $\\omega=2$, 4 calls each. Grey: the distance to the end of the path.")
ddim_4, lcm_4, _, pcm_4 = (metrics.rms(x, goal) for x in four.values())
claim("C13.21", "guided, 4 calls: PCM's distance to its paths' ends over LCM's",
      pcm_4 / lcm_4, below=0.5)
claim("C13.22", "and over the teacher's with DDIM", pcm_4 / ddim_4, below=0.5)

# %% [markdown]
# ## 13.7 Rung 2: real pictures
#
# The digits teacher with $\omega=1$, and a PCM student of four phases that starts as a copy of it. There is no exact
# flow: the yardstick is the teacher's own guided ODE, solved with 120 calls. We ask for three quarters of DDIM's
# distance, which first-order DDIM would reach with more than five calls.

# %%
# NBVAL_CHECK_OUTPUT
digits, (_, (held_out, names)) = digits_teacher(), digits_split()
vp_grid, ink = grid(digits.schedule, 50, "time"), guided(digits, omega=1.0, null=NULL)
writer = copy.deepcopy(digits)
writer.net.requires_grad_(True)
four_phases = recipes.pcm(digits.schedule, NULL, omega=(1.0, 1.0), spacing="time")
train(four_phases, writer, digits, digit_batches(128, seed=0, drop=0), 250, lr=5e-4)

at, start = digits.schedule.levels, Draw(10).normal(held_out)
jumps = at(torch.cat([vp_grid[:1], pcm_edges(vp_grid, 4)]))
slow = at(grid(digits.schedule, 40))
ways = {"teacher's ODE, 120 guided calls": (ink, slow, solvers.dpm_solver_3),
        "PCM, 4 calls": (writer, jumps, solvers.ddim),
        "teacher, DDIM, 4 guided calls": (ink, jumps, solvers.ddim)}
with torch.no_grad():
    rows = {name: sample(model, start, *how, names) for name, (model, *how) in ways.items()}
first = torch.stack([(names == k).nonzero()[0, 0] for k in range(10)])
figure(plot.pictures({name: x[first] for name, x in rows.items()}),
       "Four calls of PCM write the digits of the teacher's ODE, a little softer; four "
       "guided calls of DDIM leave grey smears beside the strokes.",
       "Same noise in each column. A guided call is two network calls; PCM's is one.")
solved, pcm_4, ddim_4 = rows.values()
claim("C13.23", "digits, 4 calls: PCM's distance to the teacher's ODE over DDIM's",
      metrics.rms(pcm_4, solved) / metrics.rms(ddim_4, solved), below=0.75)

# %% [markdown]
# **Captioned shapes** are a tiny text-to-image world: 16×16 pixels, captions of ten tokens, a small transformer on
# Stable Diffusion's schedule. Here is LCM as it runs at full scale: $\omega=2$, 100 updates of 32 pictures.

# %%
world = shapes_teacher()
pupil = copy.deepcopy(world)
pupil.net.requires_grad_(True)
made = recipes.lcm(world.schedule, NULL_TOKENS, omega=(2.0, 2.0))
train(made, pupil, world, shape_batches(32, seed=0, drop=0), 100, lr=2e-4)

codes = scored()                                    # 512 captions
text = tokens([say(tuple(code)) for code in codes.tolist()])
grey = Draw(11).normal(torch.empty(len(codes), 3, 16, 16))
scaled = lambda model: boundary(model, lcm_scalings(world.schedule))
paint = {"teacher, guided, 1 call": (guided(world, 2.0, NULL_TOKENS), 1),
         "LCM before training, 1 call": (scaled(world), 1),
         "LCM, 1 call": (scaled(pupil), 1), "LCM, 4 calls": (scaled(pupil), 4)}
with torch.no_grad():
    shown = {name: sample(model, grey, stops(n), solvers.lcm, text, Draw(12))
             for name, (model, n) in paint.items()}
figure(plot.pictures({name: x[:10] for name, x in shown.items()}),
       "A guided jump paints glaring blots, the untrained student soft ones, LCM shapes.",
       "Ten captions, guided with $\\omega=2$; the same noise in each column.")

# %%
# NBVAL_CHECK_OUTPUT
_, before, after, _ = shown.values()
far = [shapes_frechet(x, codes) - shapes_floor(codes)[0] for x in (before, after)]
claim("C13.24", "shapes, 1 call: LCM's Fréchet distance over the untrained student's",
      far[1] / far[0], below=0.5)
told = [shows(read(x), codes).double().mean() for x in (before, after)]
claim("C13.25", "the same: share of pictures that show their caption, less the untrained's",
      told[1] - told[0], above=0.1)

# %% [markdown]
# The student before training is the teacher unguided, and the right thing to beat: guided DDIM is beaten by both. We ask
# for half of its distance, and for a tenth more captions read back, three standard errors. With four calls 100 updates
# gain nothing here (exercise 2).
#
# ## 13.8 What should look wrong here
#
# Three changes to section 13.4's student. *Predict which of them ruin it:* (a) no moving average; (b) no stop-gradient;
# (c) no stop-gradient, and instead of the teacher's step the data point at $t_j$ with the same noise,
# $\alpha x_0+\sigma\varepsilon$: a target that needs no teacher. (Half the updates will do.)

# %%
# NBVAL_CHECK_OUTPUT
cd_times = grid(schedule, 17, "karras").float()
def leaky(step, steps=600):
    def loss(roles, batch, draw):
        f, place = boundary(roles["student"], scalings), draw.integers(17, len(batch.x0))
        a, b = (schedule.at(cd_times[place + k], like=batch.x0) for k in (0, 1))
        noise = draw.normal(batch.x0)
        x, near = (level.alpha * batch.x0 + level.sigma * noise for level in (a, b))
        return Loss(squared(f(x, a).x0, f(step(x, a, b, near), b).x0).mean(), {})
    recipe = Recipe((Phase("student", loss),), ("student", "teacher", "target"))
    return train(recipe, mlp(), teacher, fresh, steps, decay=0)

one_call = lambda net: calls(boundary(net, scalings), 1, solvers.lcm)
error = lambda x: metrics.rms(x, truth) / metrics.rms(calls(student, 1, solvers.lcm), truth)
claim("C13.26", "(a) without the average: the error of one call, over the good one's",
      error(one_call(train(cd, mlp(), teacher, fresh, decay=0))), above=1.5)
claim("C13.27", "(b) without the stop-gradient: the same", error(one_call(leaky(
    lambda x, a, b, near: solvers.heun(teacher, x, a, b)[0]))), below=1.0)
claim("C13.28", "(c) with the noisy neighbour: the spread of the samples over the data's",
      one_call(leaky(lambda x, a, b, near: near, 300)).std() / truth.std(), below=0.75)

# %% [markdown]
# (a) Student and target chase each other; the average is what lets the chain \eqref{eq:perfect} settle.
#
# (b) is the surprise: here it *helps*. The loss without stop-gradient is an honest objective whose zero is $f$; the
# boundary, not the stop-gradient, prevents collapse. What the stop-gradient protects against is **noise in the target**,
# as in (c), or with an $\omega$ that the student is not told: a gradient through the target shrinks the target's
# variance, by flattening $f$. *With* the stop-gradient the noisy target is as good as Euler's steps (exercise 1), and
# needs no teacher (chapter 16).
#
# ## 13.9 In practice
#
# - **Start** student and target as the teacher; ours on GMM5 start from nothing. CD for ImageNet-64: $N=40$, Heun, decay
#     0.95, batch 2048, 600 000 updates [@song2023consistency]. LCM: 32 A100-hours for SD 1.5. Its adapter: rank 64,
#     learning rate $10^{-4}$, *no average*: fine-tuning with small steps survives what (a) does not.
# - **Skip** 20 indices of 1000: `skip=1` on 50 grid steps. We took 2.
# - **Calls.** 2 to 8 for LCM; beyond, pictures blur, and 13.5 shows one cause. Guide its adapter at most lightly
#     ($\omega\le1$): it was trained guided.
# - **Guidance in PCM.** Guide the teacher's step, $\omega$ from 4 to 5, and the student hardly; or do not, drop a tenth of
#     the captions, and guide the student as usual, negative prompts included.
# - **Edges.** PCM's 4 phases end at indices 739, 499, 239, 0; diffusers' trailing grid stops at 749, 499, 249. Use
#     `--grid pcm`, and one adapter for each $M$.
# - **Adversarial PCM** (`recipes.pcm_adversarial`) sets a discriminator between student and target, noised within the
#     phase. Its gain in looks is *not reproduced here*; its authors warn that it may cost FID at 4 calls or more.
# - **Where the toy stops being true.** A perfect teacher and two dimensions. A real student is far from perfect at one
#     call; there new noise repairs more than it spoils, and LCM improves up to about 4 calls.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(labelled(), schedule)` | `full_scale.sd.denoiser(unet, scheduler_config)`, frozen |
# | `discrete(scaled_linear())` | the same object |
# | `recipes.lcm(schedule, NULL, …)` | the same function: `full_scale.settings` takes it from `dlib.recipes.METHODS["lcm"]` |
# | `train`, 600 steps on 256 points | `full_scale.train lcm_lora`: 5000 steps on 96 pictures, adapters, checkpoints |
# | `calls(latent, 4, solvers.lcm)` | `full_scale.sample --solver lcm --grid lcm --steps 4` |
#
# ```bash
# python -m full_scale.prepare --weights weights/stable-diffusion-v1-5 --source pictures/ --out data
# torchrun --standalone --nproc_per_node 8 -m full_scale.train lcm_lora \
#     --weights weights/stable-diffusion-v1-5 --data data --out runs/lcm
# torchrun --standalone --nproc_per_node 8 -m full_scale.train pcm_lora \
#     --weights weights/stable-diffusion-v1-5 --data data --out runs/pcm
# python -m full_scale.export runs/lcm
# ```
#
# With `--tiny` instead of `--weights …` everything runs on a laptop, and learns nothing.
#
# **How far up the ladder.** Rung 1: limits and orders exactly, trained students against exact paths. Rung 2: PCM on digits,
# LCM on captioned shapes. Rung 3: the same losses train Stable Diffusion's classes in the test suite, with random
# weights; no published figure is reproduced.
#
# ## 13.10 Exercises
#
# 1. *(pencil)* $\mathcal N(0,c^2)$, $\alpha=1$: show that a Euler step multiplies $y$ by $(c^2+\kappa\kappa')/(c^2+\kappa^2)$,
#     and that this is also the regression of the noisy neighbour. So what does a noisy target cost *with* the stop-gradient?
# 2. *(code)* Sample the untrained student of 13.7 with 4 calls, too. Check: it shows as many captions as LCM, to within a
#     twentieth. Which other baseline would you not publish without?
# 3. *(code)* Sample 13.5's *perfect* student by DDIM with 4 calls, as PCM is, without new noise. Does it keep to its path?
#     Check: its distance to `goal` is more than twice PCM's.
# 4. *(open)* Repair 13.5: find a sampler with new noise that keeps the guided distribution with the perfect student. Check:
#     W₂ below 1.5 `floor`s at 4 calls, at least half of the points in new places.
#
# <details><summary>Answers to 1 and 3</summary>
#
# 1. $\varepsilon=\kappa y/(c^2+\kappa^2)$, so $y+(\kappa'-\kappa)\varepsilon=y\,(c^2+\kappa\kappa')/(c^2+\kappa^2)$. The
# neighbours $x_0+\kappa z$ and $x_0+\kappa'z$ have covariance $c^2+\kappa\kappa'$, the first has variance
# $c^2+\kappa^2$: the same ratio. With the stop-gradient a noisy target gives Euler's student: order 1, claim C13.6.
#
# 3. `metrics.rms(calls(perfect(pair), 4, solvers.ddim, asked), goal)`. It does not keep to its path. $f$ is the *end of
# the path*, not the mean $x_\theta$ that DDIM wants: $\alpha_sf+\sigma_s\varepsilon$ with the $\varepsilon$ of that line
# lies on a straight line to the end, and the path is curved. PCM trains the jump to $s_m$ itself.
#
# </details>
#
# ## References
#
# Consistency models and their distillation: [@song2023consistency]; in phases: [@heek2024multistep; @wang2024phased].
# Latent consistency, and as an adapter: [@luo2023lcm; @luo2023lcmlora]; with any target: [@zheng2024tcd]. DDIM, guidance
# and the distilled $\omega$: [@song2021ddim; @ho2022cfg; @meng2023guided].
