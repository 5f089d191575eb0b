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
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - chapter 8 (its ODE, DDIM and orders are recapped in 13.1)
#       - PyTorch
# ---

# %% [markdown]
# # 13 Consistency distillation: jump to the end of the path
#
# A solver asks the network at every step from noise to data. This chapter trains a network that *jumps*: one call, from
# anywhere on a path to its end. You will see what such a student learns at best, what it forgets in four calls, and
# how to make it remember.
#
# The data are GMM5, five modes in the plane, so the perfect teacher is a formula; the noise levels are Stable Diffusion's
# thousand. (In code, a network asked at a level gives `.x0`, its guess of the clean data. A *solver* carries `x` from a
# level `a` to the cleaner `b`; `walk` gives each state. `distil` trains a copy of a network with Adam; a *recipe* names the
# loss.)

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
from functools import partial
import dlib
import torch
from dlib import CLEAN, NULL, Batch, Denoiser, Draw, Loss, boundary, consistency, discrete
from dlib import edm_boundary, exact, grid, guided, lcm_scalings, metrics, plot, recipes
from dlib import sample, scaled_linear, solvers, train, walk
from dlib.losses import multistep_consistency, squared, weights
from dlib.grids import pcm_edges
from dlib.losses.consistency_losses import ends
from dlib.losses.consistency_steps import compared, jump
from dlib.nets import MLP
from dlib.rollout import composed
from toy_data import digit_batches, digits_split, digits_teacher, distil, gaussian, gmm5
from toy_data import labelled, shape_batches, shapes_teacher
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet

schedule, mixture = discrete(scaled_linear()), gmm5()
teacher = exact(mixture, schedule)  # the perfect network of these data
top, clean = schedule.at(1.0), schedule.at(schedule.t_min)  # the first and the last level
levels = partial(dlib.levels, schedule)


# %%
def mlp(classes=0):
    torch.manual_seed(0)
    return Denoiser(MLP(2, 96, 2, classes=classes), schedule, "v")


fresh = lambda step: Batch(mixture.sample(256, Draw(step))[0].float())
cd = recipes.consistency_distillation(schedule, points=18, sigma_data=1.0)
scalings = edm_boundary(schedule, sigma_data=1.0)  # explained in 13.2
student = boundary(distil(cd, mlp(), teacher, fresh, 800), scalings)

# %%
x_T = Draw(0).normal((256, 2))
path = list(walk(teacher, x_T.double(), levels(100), solvers.dpm_solver_3))
truth = path[-1].x / clean.alpha
one_call = {"one DDIM jump": teacher(x_T, top).x0, "student": student(x_T, top).x0}
figure(
    plot.endpoints(one_call, truth, mixture.modes_of(truth, within=9)),
    "One DDIM jump puts every point near the mean of the data, far from all five modes; "
    "one call of the student puts nearly every point where the teacher's path ends.",
    "Same noise, one network call each. Grey: the distance to the end of the path.",
)

# %% [markdown]
# From pure noise the teacher can only name the mean of all data: a *direction*, good for a short step. The student answers
# with the end point, after 800 updates.
#
# ## 13.1 Recap: the path, the jump, and guidance
#
# Noise is added as $x_t=\alpha_tx_0+\sigma_t\varepsilon$; $t=1$ is noise, and $\lambda=\log(\alpha/\sigma)$. In
# $y=x/\alpha$ and $\kappa=\sigma/\alpha$ the probability-flow ODE of every schedule is
#
# $$\frac{dy}{d\kappa}=\varepsilon(\alpha y,\lambda). \label{eq:cd-ode}$$
#
# Its curves are the *paths*. Its **flow map** $\Phi_{t\to s}$ carries a point at level $t$ along its path to level $s$. DDIM
# freezes the network's answers $x_\theta$ and $\varepsilon_\theta$ during a step [@song2021ddim]:
#
# $$F_{t\to s}(x)=\alpha_s\,x_\theta(x,t)+\sigma_s\,\varepsilon_\theta(x,t)=\Phi_{t\to s}(x)+O(h^2),\qquad h=\lambda_s-\lambda_t. \label{eq:jump}$$
#
# $N$ such steps leave an error $O(1/N)$: order 1. Heun's method asks twice a step and has order 2. **Guidance** replaces
# $\varepsilon$ by $\varepsilon^\omega=(1+\omega)\,\varepsilon(x,c)-\omega\,\varepsilon(x,\varnothing)$ [@ho2022cfg]. This ODE
# has paths of its own.
#
# ## 13.2 A function that knows the end
#
# Write $t=0$ for the last, cleanest level. The **consistency function** is the flow map to there, in units of data:
# $f(x,t)=\Phi_{t\to0}(x)/\alpha_0$. Two properties determine it [@song2023consistency]; to see it, put $s=0$:
#
# $$f(x_t,t)=f\big(\Phi_{t\to s}(x_t),s\big)\quad\text{for all }s<t,\qquad\qquad f(x,0)=x/\alpha_0. \label{eq:consistency}$$
#
# The first says what two points of one path have *in common*. So you can train it without ever walking to the end. On a
# grid of $N$ steps, $1=t_1>t_2>\dots>t_{N+1}=0$, noise the data to $x_{t_i}$, let the teacher make one solver step to
# $\hat x_{t_{i+1}}$, and ask for the same answer at both:
#
# $$\mathcal L=\mathbb E\;d\big(f_\theta(x_{t_i},t_i),\ \operatorname{sg}f_{\theta^-}(\hat x_{t_{i+1}},t_{i+1})\big). \label{eq:cd-loss}$$
#
# Here $d$ is a distance, $\theta^-$ a moving average of the student's weights $\theta$, and $\operatorname{sg}$, the
# **stop-gradient**, makes its argument a constant.
#
# Without the second property $f=0$ would be perfect. So it is built in, by mixing $x_\theta$ with the network's input:
#
# $$f=c_{\text{skip}}\,x+c_{\text{out}}\,x_\theta(x,t),\qquad c_{\text{out}}=\kappa'/\kappa,\quad c_{\text{skip}}=\big(q(\kappa')-c_{\text{out}}\,q(\kappa)\big)/\alpha, \label{eq:boundary}$$
#
# with $\kappa'=\kappa-\kappa_{\min}$, the distance to the end, and $q(\kappa)=\sigma_d^2/(\kappa^2+\sigma_d^2)$ for data of
# standard deviation $\sigma_d$. At the end $\kappa'=0$, and $f=x/\alpha$ is left. (The paper has EDM's raw network instead
# of $x_\theta$.)
#
# In code, `boundary(network, scalings)` is $f$, `compared` computes both sides of \eqref{eq:cd-loss} for the levels of a step (`ends` draws them), and the loss `consistency`
# is their mean distance. For now `edge` is `CLEAN`, where `jump` returns $f$; 13.6 needs its other case. Test the boundary
# on a network that knows nothing (in float32: errors of some $10^{-6}$):

# %%
# NBVAL_CHECK_OUTPUT
show(jump, compared)
wild = Denoiser(lambda x, t, cond: 9 + torch.sin(9 * x), schedule, "eps")
claim(
    "C13.1",
    "at the last level f(x) = x/α, whatever the network (largest error)",
    (boundary(wild, scalings)(x_T, clean).x0 - x_T / clean.alpha).abs().max(),
    below=1e-5,
)

# %% [markdown]
# ## 13.3 What the perfect student is
#
# For one Gaussian, $\mathcal N(0,c^2)$, we know everything. At level $t$ the data have the standard deviation
# $\sqrt{\alpha^2c^2+\sigma^2}$, called `size` below, and the flow map only rescales by it. So $f$ is known, and so are
# steps without error. Together they must have no loss:

# %%
# NBVAL_CHECK_OUTPUT
c, times = 0.5, grid(schedule, 16, "karras")
size = lambda level: (level.alpha**2 * c**2 + level.sigma**2) ** 0.5
f_star = Denoiser(
    lambda x, t, cond: x * size(clean) / clean.alpha / size(schedule.at(t, like=x)),
    schedule,
    "x0",
)


@solvers.solver(order=99)  # a solver of our own
def exact_step(model, x, a, b, memory=None, noise=None, cond=None):
    return x * size(b) / size(a), memory


claim(
    "C13.2",
    "N(0, c²): the loss of the true f, with exact steps",
    consistency(
        f_star,
        f_star,
        f_star,
        Batch(x_T.double()),
        Draw(3),
        times=times,
        solver=exact_step,
        distance=squared,
    ).value,
    below=1e-12,
)

# %% [markdown]
# Real steps have errors. Suppose the loss is 0, with $\theta^-=\theta$. Then
# $f(x_{t_i},t_i)=f(\hat x_{t_{i+1}},t_{i+1})$ all along the grid. Write $\Psi_i$ for the teacher's solver step from $t_i$, and
# follow the chain to the boundary:
#
# $$f(\cdot,t_i)=\Psi_N\circ\dots\circ\Psi_{i+1}\circ\Psi_i/\alpha_0. \label{eq:perfect}$$
#
# The perfect student *is* the teacher's $N$-step sampler, in one call. If the solver has order $p$, this student is off by
# $O(N^{-p})$, and no training repairs that. `composed` builds it. We double $N$ twice and measure $p$ against the true $f$:

# %%
# NBVAL_CHECK_OUTPUT
show(composed)
line, one = exact(gaussian(0.0, c), schedule), torch.ones(1, 1).double()


def off(solver, n):
    best = composed(line, levels(n, "karras"), solver)
    return metrics.rms(best(one, top).x0, f_star(one, top).x0)


p = lambda solver: metrics.order({n: off(solver, n) for n in (40, 80, 160)})
claim("C13.3", "order of Heun's perfect student's error", p(solvers.heun), between=(1.85, 2.15))
claim("C13.4", "order of DDIM's perfect student's error", p(solvers.ddim), between=(0.85, 1.15))

# %% [markdown]
# ## 13.4 What a trained one is: the commutator
#
# Audit the first figure's student by two ways round: jump from $x_{t_i}$, or follow the flow to a later $x_{t_j}$
# and jump from there. If \eqref{eq:consistency} holds, this **commutator** is zero everywhere:
#
# $$C_{ij}=\big\lVert f(x_{t_i},t_i)-f\big(\Phi_{t_i\to t_j}(x_{t_i}),t_j\big)\big\rVert_{\text{rms}}. \label{eq:commutator}$$
#
# One walk of the teacher fills the matrix. Its last column is the distance to the truth. We ask the student for a quarter
# of one DDIM jump's mean:


# %%
# NBVAL_CHECK_OUTPUT
def commutator(model):
    said = [model(state.x.float(), state.level).x0 for state in path[::10]]
    return torch.tensor([[metrics.rms(a, b) for b in said] for a in said])


two = {"one DDIM jump": commutator(teacher), "student": commutator(student)}
figure(
    plot.commutator(two, torch.tensor([state.level.lam for state in path[::10]])),
    "The DDIM jump's two ways differ by up to 1.4, the student's by up to 0.24.",
)
jumps, own = (matrix.triu(1).sum() for matrix in two.values())
claim("C13.5", "the student's mean commutator over the DDIM jump's", own / jumps, below=0.25)

# %% [markdown]
# ## 13.5 Latent consistency: guidance inside, new noise between
#
# LCM [@luo2023lcm] is \eqref{eq:cd-loss} in the latent space of Stable Diffusion, with three decisions. ([Chapter
# 14](14_latent_consistency.ipynb) measures each of them.)
#
# - **Guidance moves into the teacher.** Its step uses $\varepsilon^\omega$, with a new $\omega$ for each sample. The student
#     learns guided paths in one call, not two. It is told $\omega$ or, as an adapter ([20.6](20_score_distillation.ipynb)), learns the mean over a range
#     [@luo2023lcmlora].
# - **Steps skip.** Information creeps from neighbour to neighbour over a thousand levels. So a step covers 20, and by
#     \eqref{eq:jump} errs by $O(h^2)$.
# - **$d$ is a Huber distance**, nearly $|a-b|$.
#
# For more than one call: jump, add new noise, jump again [@song2023consistency, alg. 1].
#
# $$x_s=\alpha_s\,f(x_t,t)+\sigma_s\,z,\qquad z\sim\mathcal N(0,I). \label{eq:renoise}$$
#
# (`lcm` is diffusers' LCMScheduler to rounding: `tests/dlib/test_consistency_samplers.py`.)
#
# The price is memory: after new noise you are on another path. Without guidance that does a perfect $f$ no harm: its answers
# are distributed as data, and with noise as $x_s$ should be. And with guidance? Take the perfect student of a
# guided ODE: two overlapping classes, $\omega=2$. *One call of it is exact. Are four?* We say no if its distance to the true
# distribution, in sliced $W_2$, is twice what sampling leaves the unguided one.

# %%
# NBVAL_CHECK_OUTPUT
show(solvers.lcm)
classes, label = exact(labelled(), schedule), torch.arange(4000) % 2
pair = guided(classes, omega=2.0, null=NULL)
noise, other = (Draw(seed).normal((4000, 2)) for seed in (0, 6))
perfect = lambda model: composed(model, levels(50), solvers.dpm_solver_pp_2m)


def four_calls(model, solver=solvers.lcm):
    return sample(model, noise, levels(4, "lcm", end="clean"), solver, label, Draw(2))


drift = lambda f: metrics.sliced_w2(four_calls(f), f(other, top, label).x0)
claim(
    "C13.6",
    "perfect students, 4 calls: sliced W₂ to their paths' ends, guided over unguided",
    drift(perfect(pair)) / drift(perfect(classes)),
    above=2,
)

# %% [markdown]
# They are not, and no training can help: both students are exact. New noise is right only if the paths' points at level $s$
# are distributed like noised end points. For the plain ODE they are. But nothing makes $\varepsilon^\omega$ the score of a
# noised density ([chapter 6](06_guidance.ipynb)), so each new noise puts $x$ where no guided path runs. TCD
# [@zheng2024tcd] jumps only part of the way, so that less noise is new (`solvers.tcd`). The next section needs none.
#
# ## 13.6 Phases: several ends instead of one
#
# **PCM** [@wang2024phased], which is [chapter 15](15_phased_consistency.ipynb), cuts the grid at edges $s_0<s_1<\dots$ into $M$ phases. In each it asks for the map to *its*
# edge, made as DDIM makes it:
#
# $$f^m(x,t)=F_{t\to s_m}(x)=\alpha_{s_m}x_\theta(x,t)+\sigma_{s_m}\varepsilon_\theta(x,t),\qquad s_m=\max\{s_j<t\}. \label{eq:phase}$$
#
# The loss is \eqref{eq:cd-loss} with $f^m$ on both sides, $m$ the phase of the *student's* point, and steps that stop at
# the edge: the other case of `jump`. Since $F_{s\to s}(x)=x$, the boundary comes free. Sample by DDIM through the edges:
# no new noise, so perfect phases compose to the (guided) path itself, and shorter jumps are easier to learn. $M=1$ is LCM
# without its boundary, $M=N$ the teacher's DDIM (`tests/dlib/test_consistency.py`).

# %%
show(recipes.pcm)


def labelled_data(step):
    x0, label = labelled().sample(256, Draw(step))
    return Batch(x0.float(), label)


learn = lambda recipe: distil(recipe, mlp(classes=2), classes, labelled_data, 600)
how = dict(omega=(2.0, 2.0), skip=2)  # two of the 50 grid steps at a time
lcm = boundary(learn(recipes.lcm(schedule, NULL, **how)), lcm_scalings(schedule))
pcm = learn(recipes.pcm(schedule, NULL, phases=4, **how))

# %% [markdown]
# PCM should be less than half as far from its paths' ends as LCM, which has left them, and as the guided
# teacher by DDIM, which needs twice the calls to halve its error.

# %%
# NBVAL_CHECK_OUTPUT
goal = perfect(pair)(noise, top, label).x0
phased = sample(pcm, noise, levels(4, "pcm"), cond=label) / clean.alpha
four = {
    "teacher, DDIM": four_calls(pair, solvers.ddim),
    "LCM": four_calls(lcm),
    "perfect student": four_calls(perfect(pair)),
    "PCM, 4 phases": phased,
}
figure(
    plot.endpoints({name: x[:200] for name, x in four.items()}, goal[:200], label[:200]),
    "After four calls LCM's points, and those of the perfect student, lie anywhere in "
    "their class; DDIM's are drawn together; PCM's lines can hardly be seen.",
    "Guided, $\\omega=2$, 4 calls each. Grey: the distance to the end of the path.",
)
ddim_4, lcm_4, _, pcm_4 = (metrics.rms(x, goal) for x in four.values())
claim("C13.7", "4 calls: PCM's distance to its paths' ends over LCM's", pcm_4 / lcm_4, below=0.5)
claim(
    "C13.8",
    "4 calls: the same distance over the guided teacher's by DDIM",
    pcm_4 / ddim_4,
    below=0.5,
)

# %% [markdown]
# **Multistep consistency models** [@heek2024multistep] have the same phases. They carry the target's point $z$ at the edge
# back to a clean one, by solving $z=F_{t\to s_m}(x_t)$ for $x_\theta$:
#
# $$\tilde x=\frac{z-\rho\,x_t}{\alpha_{s_m}-\rho\,\alpha_t},\quad\rho=\frac{\sigma_{s_m}}{\sigma_t},\qquad \mathcal L=\mathbb E\;w(t)\,\lVert x_\theta(x_t,t)-\tilde x\rVert^2. \label{eq:mcm}$$
#
# That is a denoising loss with a better target. One phase is consistency distillation; a phase for each step is a diffusion
# model that learns the teacher's $x_\theta$. Any student must show both limits:

# %%
# NBVAL_CHECK_OUTPUT
stranger, x_0 = exact(labelled(), schedule), Batch(x_T.double())  # it knows other data


def value(loss, edges, **how):
    return loss(stranger, teacher, stranger, x_0, Draw(8), times=times, edges=edges, **how)


mcm = lambda edges: value(multistep_consistency, edges, weight=weights.x0).value
claim(
    "C13.9",
    "one phase: the multistep loss over consistency distillation's, less 1",
    abs(mcm(None) / value(consistency, None, distance=squared).value - 1),
    below=1e-9,
)
said = value(ends, times[1:]).prediction
plain = squared(said.x0, teacher(said.x, said.level).x0).mean()
claim(
    "C13.10",
    "a phase for each step: over the squared distance of the two x₀, less 1",
    abs(mcm(times[1:]) / plain - 1),
    below=1e-9,
)

# %% [markdown]
# ## 13.7 Rung 2: digits and captioned shapes
#
# First PCM, on scikit-learn's digits. The student starts as a copy of the trained teacher. The yardstick is
# the teacher's own guided ODE, in 120 calls. We ask for three quarters of DDIM's distance to it.

# %%
digits, (_, (held_out, names)) = digits_teacher(), digits_split()
fifty, at = grid(digits.schedule, 50, "time"), digits.schedule.levels
phases = recipes.pcm(digits.schedule, NULL, omega=(1.0, 1.0), spacing="time")
writer = distil(phases, digits, digits, digit_batches(128, seed=0, drop=0), 250, lr=5e-4)

ink, slow = guided(digits, omega=1.0, null=NULL), dlib.levels(digits.schedule, 40)
jumps = at([fifty[0], *pcm_edges(fifty, 4)])
ways = {
    "teacher's ODE, 120 guided calls": (ink, slow, solvers.dpm_solver_3),
    "PCM, 4 calls": (writer, jumps, solvers.ddim),
    "teacher, DDIM, 4 guided calls": (ink, jumps, solvers.ddim),
}
rows = {
    name: sample(model, Draw(10).normal(held_out), *how, names).detach()
    for name, (model, *how) in ways.items()
}

# %%
# NBVAL_CHECK_OUTPUT
first = torch.stack([(names == k).nonzero()[0, 0] for k in range(10)])
figure(
    plot.pictures({name: x[first] for name, x in rows.items()}),
    "Four calls of PCM write the digits of the teacher's ODE, a little softer; four guided "
    "calls of DDIM leave grey smears beside the strokes.",
    "Same noise in each column. A guided call is two network calls; PCM's is one.",
)
solved, pcm_4, ddim_4 = rows.values()
claim(
    "C13.11",
    "digits, 4 calls: PCM's distance to the teacher's ODE over DDIM's",
    metrics.rms(pcm_4, solved) / metrics.rms(ddim_4, solved),
    below=0.75,
)

# %% [markdown]
# Now LCM as it runs at full scale, for 100 updates in a tiny text-to-image world: 16×16 pixels, captions of ten tokens, a
# small transformer. Before training the student is the teacher, unguided. That it has to beat.

# %%
world = shapes_teacher()
made = recipes.lcm(schedule, NULL_TOKENS, omega=(2.0, 2.0))
pupil = distil(made, world, world, shape_batches(32, seed=0, drop=0), 100, lr=2e-4)

codes = asked()  # 512 captions
text = tokens([say(tuple(code)) for code in codes.tolist()])
grey = Draw(11).normal((len(codes), 3, 16, 16))
before, after = (
    boundary(model, lcm_scalings(schedule))(grey, top, text).x0 for model in (world, pupil)
)

# %% [markdown]
# We ask for half of its Fréchet distance to real pictures (less what other real pictures have), and that a `reader` of shapes
# finds the caption in a tenth more of the 512 pictures, three standard errors.

# %%
# NBVAL_CHECK_OUTPUT
figure(
    plot.pictures({"before training, 1 call": before[:10], "LCM, 1 call": after[:10]}),
    "In one call the untrained student paints soft blots, LCM shapes.",
    "Ten captions, guided with $\\omega=2$; the same noise in each column.",
)
far = [shapes_frechet(x, codes) - shapes_floor(codes)[0] for x in (before, after)]
claim("C13.12", "shapes: Fréchet distance over the untrained's", far[1] / far[0], below=0.5)
told = [shows(read(x), codes).double().mean() for x in (before, after)]
claim(
    "C13.13",
    "shapes: share of captions that are shown, less the untrained student's",
    told[1] - told[0],
    above=0.1,
)

# %% [markdown]
# ## 13.8 What should look wrong here
#
# Do you need a teacher? **Consistency training** [@song2023consistency] takes, instead of the teacher's step, the data point at the
# next level with the *same noise*, $\alpha x_0+\sigma\varepsilon$. On average that is where the teacher's Euler step ends
# (exercise 1).
#
# Train it on a grid of six steps with the stop-gradient of \eqref{eq:cd-loss}, and without. *Predict what the second one
# draws.* (The bounds: for Gaussian data of the same spread the answer is known. In the limit the samples keep 0.78 of the spread
# with the stop-gradient and 0.37 without, by `tests/dlib/test_consistency.py`. GMM5 is no Gaussian and 300 updates are no limit,
# so we allow 0.1 to both sides, a quarter of the difference.)


# %%
# NBVAL_CHECK_OUTPUT
def without_teacher(gradient_through_target):
    new, times = mlp(), grid(schedule, 6, "karras").float()
    f = boundary(new, scalings)

    def loss(batch, draw):
        i, eps = draw.integers(6, 256), draw.normal(batch.x0)
        a, b = schedule.at(times[i], like=eps), schedule.at(times[i + 1], like=eps)
        with torch.set_grad_enabled(gradient_through_target):
            target = f(b.alpha * batch.x0 + b.sigma * eps, b).x0
        return Loss(squared(f(a.alpha * batch.x0 + a.sigma * eps, a).x0, target).mean(), {})

    train(new.net, loss, fresh, 300, lr=4e-3)
    return f(x_T, top).x0.detach()


stopped, leaky = (without_teacher(flows).std() / truth.std() for flows in (False, True))
claim(
    "C13.14",
    "with stop-gradient: the samples' spread over the data's",
    stopped,
    between=(0.68, 0.88),
)
claim("C13.15", "without stop-gradient: the same", leaky, between=(0.27, 0.47))

# %% [markdown]
# Given $x_{t_i}$, the target still varies, because $x_0$ does. A gradient through the target lowers that variance by
# flattening $f$: the loss falls, and the samples shrink to the middle. So what the stop-gradient guards against
# is *noise in the target*. Towards the teacher's step, which has none, you may let the gradient through: the zero of the
# loss is still \eqref{eq:perfect}, since the boundary forbids constants (exercise 2).
#
# More steps promise more, if you wait. With 17 steps the Gaussian's limit is 0.92, but what is learnt at the clean end has
# 17 levels to climb. After 300 updates the spread was still 1.15 there; after 600, 1200 and 2400 it was 1.06, 0.94 and 0.93.
#
# ## 13.9 In practice
#
# - **Start** student and target as the teacher. CD for ImageNet-64: $N=40$, Heun, decay
#     0.95, batch 2048, 600 000 updates [@song2023consistency]. LCM: 4000 updates at
#     $768^2$ from a fine-tuned Stable Diffusion 1.5, 32 A100-hours [@luo2023lcm]. Its adapter: rank 64, learning rate
#     $10^{-4}$, *no average*: fine-tuning takes small steps.
# - **LCM and PCM**: symptoms, causes and cures are in 14.10 and 15.9.
# - **Where the toy stops being true.** A perfect teacher and two dimensions. A real student is far from perfect at one
#     call; there new noise repairs more than it spoils, and LCM improves up to about 4 calls.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `exact(labelled(), schedule)` | `full_scale.families.sd.denoiser(unet, scheduler_config)`, frozen |
# | `recipes.lcm(schedule, NULL, …)` | the same function: `full_scale.run.settings` takes it from `dlib.recipes.METHODS["lcm"]` |
# | `distil`, 600 steps of 256 points | `full_scale.train lcm_lora`: 5000 steps of 96 pictures, adapters, checkpoints |
# | `four_calls(lcm)` | `full_scale.sample --solver lcm --grid lcm --steps 4` |
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
# LCM on captioned shapes. Rung 3: the same losses train Stable Diffusion's classes in the test suite, with random weights; no
# published figure is reproduced.
#
# ## 13.10 Exercises
#
# 1. *(pencil)* $\mathcal N(0,c^2)$, $\alpha=1$: show that an Euler step from $\kappa$ to $\kappa'$ multiplies $y$ by
#     $(c^2+\kappa\kappa')/(c^2+\kappa^2)$, and that this is also the regression of the noisy neighbour on $y$. So what does a
#     noisy target cost *with* the stop-gradient?
# 2. *(code)* Two other students: one distilled with `decay=0`; one trained as in 13.8 without stop-gradient, but on 17 steps
#     and towards the end of the teacher's Heun step, for 800 updates. Predict which is better than 13.4's. Check: one has more than 1.5 times its
#     distance to `truth`, the other less than it.
# 3. *(code)* Sample 13.5's *perfect* student by DDIM with 4 calls, as PCM is, without new noise. Does it keep to its path?
#     Check: its distance to `goal` is more than twice that of `phased`.
# 4. *(open)* Repair 13.5: find a sampler with new noise that keeps the guided distribution with the perfect student. Check:
#     its `drift` is below 1.5 times the unguided one's, and at least half of the points are in new places.
#
# <details><summary>Answers to 1 and 3</summary>
#
# 1. $\varepsilon=\kappa y/(c^2+\kappa^2)$, so $y+(\kappa'-\kappa)\varepsilon=y\,(c^2+\kappa\kappa')/(c^2+\kappa^2)$. The
# neighbours $x_0+\kappa z$ and $x_0+\kappa'z$ have covariance $c^2+\kappa\kappa'$, the first has variance
# $c^2+\kappa^2$: the same ratio. With the stop-gradient a noisy target gives Euler's student: order 1, claim C13.4.
#
# 3. `metrics.rms(four_calls(perfect(pair), solvers.ddim), goal)`. It does not keep to its path. $f$ is the *end of the
# path*, not the mean $x_\theta$ that DDIM wants: it steps along a straight line to the end, and the path is curved. PCM trains
# the jump to $s_m$ itself.
#
# </details>
#
# ## References
#
# Consistency models, their distillation and training: [@song2023consistency]; in phases: [@heek2024multistep;
# @wang2024phased]. Latent consistency, and as an adapter: [@luo2023lcm; @luo2023lcmlora]; with any target: [@zheng2024tcd].
# DDIM, guidance and the distilled $\omega$: [@song2021ddim; @ho2022cfg; @meng2023guided].
