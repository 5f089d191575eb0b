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
#     title: Phased consistency
#     summary: Cut the path into phases, so that several calls follow it without new noise. Edges, guidance inside or outside, and whether you need the adversarial term.
#     minutes: 45
#     memory: 1 GB
#     needs:
#       - consistency distillation (chapter 13)
#       - latent consistency (chapter 14)
#       - PyTorch
# ---

# %% [markdown]
# # 15 Phased consistency: several ends instead of one
#
# You have an LCM and like the picture that it makes in two calls. You want it cleaner, so you keep the same noise and ask for eight calls. You get
# another picture.

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import json
import math
from collections import namedtuple

import dlib
import torch
from bench.report import RESULTS
from dlib import CLEAN, NULL, Batch, Cast, Denoiser, Draw, Ema, Roles, boundary, consistency
from dlib import discrete, exact, frozen, grid, guided, lcm_scalings, metrics, perform, plot
from dlib import recipes, sample, scaled_linear, solvers
from dlib.grids import pcm_edges
from dlib.losses import squared
from dlib.losses.adversarial import hinge_fake, hinge_real, in_phase, phased_discriminator
from dlib.losses.consistency_losses import ends
from dlib.losses.consistency_steps import jump
from dlib.nets import MLP
from toy_data import digit_batches, digits_split, digits_teacher, distil, gmm5, labelled
from toy_data import shape_batches, shapes_teacher
from toy_data.shape_captions import NULL_TOKENS, say, tokens
from toy_data.shape_reader import read, shows
from toy_data.shape_scores import asked, shapes_floor, shapes_frechet
from toy_data.student_scores import rescored

digits, (_, (held_out, names)) = digits_teacher(), digits_split()
fifty, ink = grid(digits.schedule, 50, "time"), guided(digits, omega=1.0, null=NULL)
how = dict(omega=(1.0, 1.0), spacing="time")


def writer(recipe):
    return distil(recipe, digits, digits, digit_batches(128, seed=0, drop=0), 120, lr=5e-4)


one_end = boundary(
    writer(recipes.lcm(digits.schedule, NULL, **how)),
    lcm_scalings(digits.schedule, fifty[-1].item()),
)
phased = {m: writer(recipes.pcm(digits.schedule, NULL, phases=m, **how)) for m in (2, 8)}
stops = {m: digits.schedule.levels([fifty[0], *pcm_edges(fifty, m)]) for m in (2, 8)}
z = Draw(10).normal(held_out)
written = {
    f"LCM, {m} calls": sample(one_end, z, [*stops[m][:-1], CLEAN], solvers.lcm, names, Draw(3))
    for m in (2, 8)
}
written |= {f"PCM, {m} calls": sample(phased[m], z, stops[m], cond=names) for m in (2, 8)}
slow = dlib.levels(digits.schedule, 20)
written["teacher's ODE"] = sample(ink, z, slow, solvers.dpm_solver_3, names)
first = torch.stack([(names == k).nonzero()[0, 0] for k in range(10)])

# %% tags=["fold"]
figure(
    plot.pictures({name: x[first].detach() for name, x in written.items()}),
    "With LCM the digits of two and of eight calls differ in shape; with PCM they are the "
    "same digits, and those of the teacher's ODE.",
    "The same noise in each column. The teacher's ODE took 120 network calls.",
)

# %% [markdown]
# The first two rows agree on the label, and not on the strokes. Each call of LCM replaces *all* noise, so more calls mean another
# picture, and with guidance, beyond some number of calls, a worse one (section 14.6). The next two rows are phased consistency models, PCM [@wang2024phased]. Two calls and eight, each with a student
# of its own, draw the same digits, and both are the teacher's. No noise is added between their calls.
#
# The idea fits into one sentence: cut the path at a few *edges*, and let the student jump to the next edge instead of the end. This chapter
# derives the jump and the edges, counts indices in the released scripts, and measures four things: what phases gain, what a wrong
# grid costs, where guidance belongs, and whether you need the adversarial term.
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | $x_t=\alpha_tx_0+\sigma_t\varepsilon$, $\kappa=\sigma/\alpha$ | a noisy sample; its noise level | chapters 2, 4 |
# | $\omega$; $c$, $\varnothing$ | guidance; a condition, and the empty one | chapter 6 |
# | $F_{t\to s}$ | the jump from level $t$ to $s$, as DDIM makes it | chapter 14 |
# | $a$, $b$ | where the teacher's step starts, and where it ends | chapter 14 |
# | $d$; sg | Huber's distance; "no gradient through this" | chapters 14, 13 |
# | $M$; $s_0<s_1<\dots$ | the number of phases; their clean edges | new |
# | $f^m$ | the phase's map: from any level of phase $m$ to $s_m$ | new |
# | $s$ in 15.7 | a level inside the phase, to which $D$'s points are noised | new |
# | $D$ | a discriminator: large for what it takes to be real | new |
#
# ## 15.1 The jump to an edge
#
# A network at $(x,t)$ gives two guesses, $x_\theta$ for the data and $\varepsilon_\theta$ for the noise. Mix them anew at the level of the edge:
#
# $$f^m(x,t)=F_{t\to s_m}(x)=\alpha_{s_m}x_\theta+\sigma_{s_m}\varepsilon_\theta,\qquad s_m=\max\{s_j<t\}. \label{eq:pc-map}$$
#
# With a pencil: $t$ has (α, σ) = (0.6, 0.8) and the edge has (0.8, 0.6). At $x=1$ the network says ε = 0.5. So its guess of the data is (1 − 0.4)/0.6 = 1, and the jump lands
# at 0.8 · 1 + 0.6 · 0.5 = 1.1. Now jump from the edge to itself, from $x=1.1$, with *any* answer, say ε = 2. The guess is (1.1 − 1.2)/0.8 = −0.125, and the
# jump lands at 0.8 · (−0.125) + 0.6 · 2 = 1.1. Nothing moved. **The boundary comes free**: no $c_{\text{skip}}$ is needed.
#
# The loss is that of chapter 13, with one rule more. Student and target are compared at the *same* edge, that of the student's point, and the
# teacher's step goes no further than there:
#
# $$\mathcal L=\mathbb E\;d\big(F_{a\to s_m}(x_a),\ \operatorname{sg}F_{b\to s_m}(x_b)\big),\qquad a>b\ge s_m. \label{eq:pc-loss}$$
#
# Notice that the target jumps to the edge of the *student's* phase. (A slide of the lecture leaves this out.) It matters where $b$ is the edge itself. The phase of $b$ is then the one below, and a target that jumped to
# *its* edge would end one edge further than the student. With the student's edge the target jumps from the edge to itself and hands back the teacher's point. In plain PyTorch, with times that fall from noise to data, and a network that predicts $v$:

# %%
Level = namedtuple("Level", "alpha sigma")
schedule = discrete(scaled_linear())  # Stable Diffusion's thousand levels
at = lambda t: Level(*(v[:, None] for v in schedule.at(t)[1:3]))


def jump_to(net, x, t, s, c):
    a, b, v = at(t), at(s), net(x, t, c)
    return b.alpha * (a.alpha * x - a.sigma * v) + b.sigma * (a.sigma * x + a.alpha * v)


def at_the_edge(student, target, teacher, x_0, c, i, eps, times, edges):
    t, below = times[i], times[i + 1]
    s = torch.stack([edges[edges < now].max() for now in t])  # the edge of each phase
    x_a = at(t).alpha * x_0 + at(t).sigma * eps
    with torch.no_grad():
        b = torch.maximum(below, s)  # a step stops at its edge
        x_b = jump_to(teacher, x_a, t, b, c)
        goal = jump_to(target, x_b, b, s, c)
    return jump_to(student, x_a, t, s, c), goal


def pcm_loss(point, goal):
    return (((point - goal) ** 2 + 1e-6).sqrt() - 1e-3).mean()


# %% [markdown]
# The library has one loss for all of this, `consistency`, which is given the edges. `jump` is \eqref{eq:pc-map}.

# %%
# NBVAL_CHECK_OUTPUT
show(jump, recipes.pcm)
mixture = labelled()  # two overlapping classes in the plane
classes, times = exact(mixture, schedule), grid(schedule, 50, "sd_trailing")
x_0, c = mixture.sample(256, Draw(2))
torch.manual_seed(0)
student, other = (MLP(2, 96, 2, classes=2).double() for _ in range(2))
for net in (student, other):  # any two networks will do
    torch.nn.init.normal_(net.leave.weight, std=0.1)

draw = Draw(3)
i, eps = draw.integers(50, 256), draw.normal(x_0)
given = student, other, classes.net, x_0, c, i, eps, times, pcm_edges(times, 4)
plain = pcm_loss(*at_the_edge(*given))
roles = {"student": Denoiser(student, schedule, "v"), "target": Denoiser(other, schedule, "v")}
recipe = recipes.pcm(schedule, NULL, phases=4, omega=(0.0, 0.0))
ours = recipe.phases[0].loss(roles | {"teacher": classes}, Batch(x_0, c), Draw(3)).value
gap = abs(plain.item() / ours.item() - 1)
claim("C15.1", "the plain loss over the library's, less 1", gap, below=1e-6)

# %% [markdown]
# ## 15.2 Which indices are edges
#
# The released script numbers the fifty starts of chapter 14, 19, 39, …, 999, from 0 to 49. It takes `floor(linspace(0, 50, M, endpoint=False))` of them, each
# one place lower, and 0 for the first. So the edges of four phases are 0, 239, 499 and 739, and a student of four phases starts its jumps at 999, 739, 499 and 239.
#
# A trap in the authors' own sampling, found by a user: diffusers' evenly spaced grid for four steps is 999, 749, 499, 249. Two of the four starts, 749 and 249, are ten indices *above* an edge. Everywhere
# between 739 and 999 the student has learnt to jump to 739. From 749 you ask it to go on to 499, as if there were no edge.


# %%
# NBVAL_CHECK_OUTPUT
def script_edges(phases):
    starts = torch.arange(1, 51) * 20 - 1
    places = torch.linspace(0, 50, phases + 1)[:-1].floor().long()
    return [0 if place == 0 else starts[place - 1].item() for place in places]


index = lambda edges: (edges * 1000 - 1).round().long().flip(0).tolist()
print({phases: script_edges(phases) for phases in (2, 4, 8)})
same = [script_edges(m) == index(pcm_edges(times, m)) for m in (1, 2, 4, 8, 16, 50)]
claim(
    "C15.2",
    "numbers of phases with the script's edges in the library, of 6",
    sum(same),
    between=(6, 6),
)

# %% [markdown]
# ## 15.3 What perfect phases are
#
# If every $f^m$ is the exact flow to its edge, then one jump after another is the whole path, for every number of phases. For data $\mathcal N(0,0.5^2)$
# the flow from level $t$ to $s$ multiplies by the ratio ρ of the spreads $\sqrt{0.25\,\alpha^2+\sigma^2}$. We can therefore write down the network whose *jump* is that flow, by solving
# \eqref{eq:pc-map} for ε:
#
# $$\varepsilon_\theta(x,t)=\frac{\rho-\alpha_s/\alpha_t}{\sigma_s-\sigma_t\,\alpha_s/\alpha_t}\;x,\qquad \rho=\sqrt{\frac{0.25\,\alpha_s^2+\sigma_s^2}{0.25\,\alpha_t^2+\sigma_t^2}},\quad s=s_m(t). \label{eq:pc-perfect}$$
#
# It must have no loss, with exact teacher's steps of any length, as long as *a step stops at its edge*. Let a step of five places run past its edge, and the target starts in the wrong
# phase. That would happen at the four lowest starts of every phase but the cleanest, which has no phase below it: with eight phases at 28 of the 50 starts.

# %%
# NBVAL_CHECK_OUTPUT
size = lambda level: (level.alpha**2 * 0.25 + level.sigma**2) ** 0.5


def perfect(edges):
    def net(x, t, cond):
        t = t.double()
        s = edges[(edges >= t[:, None] - 1e-9).sum(1).clamp(max=len(edges) - 1)]
        a, b = schedule.at(t, like=x), schedule.at(s, like=x)
        ratio = b.alpha / a.alpha
        return ((size(b) / size(a) - ratio) / (b.sigma - a.sigma * ratio) * x).nan_to_num()

    return Denoiser(net, schedule, "eps")


@solvers.solver(order=99)
def exact_step(model, x, a, b, memory=None, noise=None, cond=None):
    return x * size(b) / size(a), memory


x = Draw(1).normal((256, 2), torch.float64)
top, clean = schedule.at(1.0), schedule.at(schedule.t_min)
off = []
for m in (1, 2, 4, 8):
    x_s = sample(perfect(pcm_edges(times, m)), x, schedule.levels([1.0, *pcm_edges(times, m)]))
    off.append((x_s - x * size(clean) / size(top)).abs().max())

claim("C15.3", "perfect phases, 1 to 8: through the edges − the flow", max(off), below=1e-9)

# %%
# NBVAL_CHECK_OUTPUT
eight, batch = pcm_edges(times, 8), Batch(x)
who, path = 3 * [perfect(eight)], dict(times=times, edges=eight)
measure = dict(solver=exact_step, distance=squared)
loss = [consistency(*who, batch, Draw(4), skip=k, **path, **measure).value for k in (1, 5)]
claim("C15.4", "eight perfect phases: loss with steps of 1 and of 5", max(loss), below=1e-12)

heard = []
spy = Denoiser(lambda x, t, c: heard.append(t) or 0 * x, schedule, "eps")
edge = ends(spy, spy, spy, batch, Draw(4), skip=5, **path).edge.t.flatten()
_, target, _ = heard  # teacher, target, student
claim(
    "C15.5",
    "steps of 5: targets asked below their edge",
    (target < edge - 1e-9).sum(),
    between=(0, 0),
)
running_on = [*path["times"][5:], *5 * [times[-1]]]  # where such steps would end
over = sum(
    float(t) < pcm_edges(times, 8)[(pcm_edges(times, 8) >= times[k]).sum()] - 1e-9
    for k, t in enumerate(running_on[:50])
)
claim("C15.6", "places whose step would run past, of 50", over, between=(28, 28))

# %% [markdown]
# The two ends of the scale are old friends. With one phase, the jump goes to index 0, where σ is 0.029: that is LCM without its boundary, and with 3 % of the noise left in. We ask that the two losses agree within twice that. With a phase for
# each step, the target is the teacher's own DDIM step, and the student learns nothing new.

# %%
# NBVAL_CHECK_OUTPUT
stranger = exact(gmm5(), schedule)  # it knows other data
label, noise = torch.arange(1000) % 2, Draw(0).normal((1000, 2))
batch = Batch(mixture.sample(1000, Draw(5))[0])
every = ends(stranger, classes, stranger, batch, Draw(6), times=times, edges=times[1:])
point, level = every.prediction.x, every.prediction.level
gap = (every.target - solvers.ddim(classes, point, level, every.edge)[0]).abs().max()
claim("C15.7", "M = 50: target − the teacher's DDIM step", gap, below=1e-12)
f = boundary(stranger, lcm_scalings(schedule))
one = consistency(stranger, classes, stranger, batch, Draw(6), times=times, edges=times[-1:])
lcm = consistency(f, classes, f, batch, Draw(6), times=times)
claim("C15.8", "M = 1: loss over LCM's", one.value / lcm.value, between=(0.94, 1.06))

# %% [markdown]
# ## 15.4 What phases gain
#
# Train. A student of $M$ phases takes $M$ calls, so compare it with one and the same LCM, asked as many times, and with the guided teacher's DDIM, which pays two evaluations a
# call. The truth is where the guided path of the same noise ends ($\omega=2$, as in chapter 14). With one phase PCM should be LCM's equal, within a quarter. With more, LCM leaves its
# path and PCM need not: we ask for less than half of LCM's distance, and of the teacher's.


# %%
def mlp():
    torch.manual_seed(0)
    return Denoiser(MLP(2, 96, 2, classes=2), schedule, "v")


def points(step, drop=0.0):
    x_0, c = mixture.sample(256, Draw(step))
    empty = Draw(10**6 + step).uniform(256) < drop
    return Batch(x_0.float(), torch.where(empty, NULL, c))


pair = guided(classes, 2.0, NULL)
learnt = lambda recipe, data=points: distil(recipe, mlp(), classes, data, 300)
inside = dict(omega=(2.0, 2.0))
students = {m: learnt(recipes.pcm(schedule, NULL, phases=m, **inside)) for m in (1, 2, 4, 8)}
f = boundary(learnt(recipes.lcm(schedule, NULL, **inside)), lcm_scalings(schedule))


# %%
# NBVAL_CHECK_OUTPUT
def ends_of(omega):
    model, many = guided(classes, omega, NULL), dlib.levels(schedule, 60)
    return sample(model, noise.double(), many, solvers.dpm_solver_3, label) / clean.alpha


goal, through = ends_of(2.0), lambda m: dlib.levels(schedule, m, "pcm")
renoised = lambda m: dlib.levels(schedule, m, "lcm", end="clean")
ways = {
    "LCM": lambda m: sample(f, noise, renoised(m), solvers.lcm, label, Draw(2)),
    "teacher, DDIM": lambda m: sample(pair, noise, through(m), cond=label) / clean.alpha,
    "PCM": lambda m: sample(students[m], noise, through(m), cond=label) / clean.alpha,
}
error = {name: [metrics.rms(way(m), goal) for m in students] for name, way in ways.items()}
figure(
    plot.curves(
        {name: (list(students), values) for name, values in error.items()},
        xlabel="calls",
        ylabel="RMS to the path's end",
        log="y",
    ),
    "LCM's distance rises from 0.3 in one call to 1.5 in eight; PCM's falls from 0.3 to 0.07; "
    "the guided teacher's falls from 1.7 to 0.17.",
    "$\\omega=2$; 300 updates a student. The teacher pays two evaluations a call.",
)
lcm, ddim, pcm = (torch.tensor(values) for values in error.values())
claim("C15.9", "one call: PCM over LCM", pcm[0] / lcm[0], between=(0.8, 1.25))
claim("C15.10", "2, 4, 8 calls: PCM over LCM (largest)", (pcm / lcm)[1:].max(), below=0.5)
claim("C15.11", "the same over the teacher's DDIM", (pcm / ddim)[1:].max(), below=0.5)

# %% [markdown]
# Be careful with this picture: it asks who *keeps the path*, and LCM does not try to. With new noise even a perfect LCM would draw another sample of the class, and two samples of one class
# are 1.3 apart. Is LCM worse, or only elsewhere? Compare the laws instead, with the ends of *other* guided paths. A perfect LCM drifts away in eight calls (section 14.6) and PCM
# need not, so PCM should be nearer.

# %%
# NBVAL_CHECK_OUTPUT
others = Draw(77).normal(noise).double()
others = (
    sample(pair, others, dlib.levels(schedule, 60), solvers.dpm_solver_3, label) / clean.alpha
)
law = lambda name, m: metrics.sliced_w2(ways[name](m).double(), others)
away = law("PCM", 8) / law("LCM", 8)
claim("C15.12", "8 calls: sliced W₂ to other guided ends, PCM over LCM", away, below=0.75)

# %% [markdown]
# It is, but by a smaller factor than the picture suggests. PCM comes down to 0.11 in four calls and 0.09 in eight, about as far as two exact sets of 1000 are apart. The trained LCM stays between 0.16 and 0.20 whatever its calls. In one
# call and in two both have 0.19 to 0.20. So **in two calls phases keep the picture, and it is no better; from four on they also make it better**.
#
# Why do shorter jumps cost less? There are fewer rungs in a phase, so what is learnt at its edge has less far to climb (section 14.4). And a shorter jump
# is closer to a straight line. The price is flexibility: a student of four phases takes four calls, and each $M$ needs weights of its own. So choose $M$ by the calls that
# you can afford: four is where the gain in law begins here.
#
# ## 15.5 A wrong grid
#
# What does the evenly spaced grid cost? For the perfect student of 15.3 it can be computed. We also try it on the trained student.

# %%
# NBVAL_CHECK_OUTPUT
even = schedule.levels([(n + 1) / 1000 for n in (999, 749, 499, 249, 0)])
x_s = sample(perfect(pcm_edges(times, 4)), x, even)
off = (x_s / (x * size(clean) / size(top)) - 1).abs().mean()
claim("C15.13", "perfect student, evenly spaced: its relative error", off, above=0.1)
trailing = metrics.rms(sample(students[4], noise, even, cond=label) / clean.alpha, goal)
claim(
    "C15.14", "trained student: evenly spaced over its edges", trailing / pcm[2], between=(0.5, 2)
)

# %% [markdown]
# The perfect student loses. The trained one does not notice, and neither would yours after so few updates: its network is smooth in $t$, and ten indices of a thousand
# are too few to jump between two answers. *The complaint in the authors' tracker is not reproduced by this toy.* The right grid costs
# nothing: `levels(schedule, 4, "pcm")`, or diffusers' `TCDScheduler` with η = 0 and the starts 999, 739, 499, 239 as `timesteps`.
#
# ## 15.6 Guidance inside, or outside
#
# So far guidance was inside the teacher's step. The released code has a second variant (`normalcfg`, the flag `--not_apply_cfg_solver`): the step is not guided, a tenth of the captions are
# dropped, and the *student* is guided when you sample. It takes any ω and negative prompts, for two evaluations a call.
#
# For *one* DDIM step of the teacher the two are the same, since it is linear in ε. For a student's jump over a whole phase they are not. The guided path asks for guidance at every level on its way. Guidance
# outside makes two jumps, with the caption and without, and combines where they end. So it guides only once a phase, and even perfect phases miss the guided path. We compute by how much. The dropped captions matter as well. *What happens if you forget them?*

# %%
# NBVAL_CHECK_OUTPUT
outside = recipes.pcm_normalcfg(schedule, NULL, phases=4)
dropped = learnt(outside, lambda step: points(step, drop=0.1))
forgot = learnt(outside)
guide = lambda student, omega: guided(student, omega, NULL) if omega else student
four = lambda student, omega: metrics.rms(
    sample(guide(student, omega), noise, through(4), cond=label) / clean.alpha, ends_of(omega)
)
claim(
    "C15.15",
    "unguided: captions dropped over not dropped",
    four(dropped, 0.0) / four(forgot, 0.0),
    between=(0.5, 2),
)
claim(
    "C15.16",
    "guided outside, ω = 2: not dropped over dropped",
    four(forgot, 2.0) / four(dropped, 2.0),
    above=2,
)
claim(
    "C15.17",
    "captions dropped: guided outside over inside",
    four(dropped, 2.0) / pcm[2],
    between=(1.3, 3),
)


# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
def phase_flow(x, a, b, c):  # the exact map of a phase
    inner = [schedule.at_lam(a.lam + (b.lam - a.lam) * i / 12) for i in range(1, 12)]
    return sample(classes, x, [a, *inner, b], solvers.dpm_solver_3, c)


edge_points, stops_4 = noise.double(), through(4)
for a, b in zip(stops_4, stops_4[1:]):
    with_c, without = (phase_flow(edge_points, a, b, c) for c in (label, 0 * label - 1))
    edge_points = 3 * with_c - 2 * without

missed = metrics.rms(edge_points / clean.alpha, ends_of(2.0))
claim("C15.18", "perfect phases, guided outside in four calls: error", missed, above=0.05)

# %% [markdown]
# Without dropped captions the student's empty branch is what the new network happened to say, and guidance amplifies that. Guidance outside doubles the cost, and here it
# nearly doubled the error, for two reasons. Perfect phases already miss by the error just computed, which is half of the measured one. No training removes it; more phases make it smaller. In squares the students add the larger part: $(1+\omega)$ and ω multiply the errors of two jumps. So put ω inside if you know it, and outside if your users must choose.
#
# ## 15.7 Do you need the adversarial term?
#
# A consistency student with one or two long jumps is soft, because it is not finished. PCM adds a discriminator $D$, small heads on the frozen teacher's features. "Real" is not a photograph
# here. It is the *target's* point at the edge, and "fake" is the student's. Both get new noise, each its own, up to a level $s$ of the same phase, and $D$ learns by the hinge loss:
#
# $$\mathcal L_D=\mathbb E\big[\max(0,1-D(x_s^{\text{real}}))+\max(0,1+D(x_s^{\text{fake}}))\big],\;\ \mathcal L_G=0.1\,\mathbb E\max(0,1-D(x_s^{\text{fake}})). \label{eq:pc-hinge}$$
#
# With a pencil: $D$ says 0.5 of a real point and −0.2 of a fake. Its loss is 0.5 + 0.8 = 1.3, and the student's 0.1 · 1.2 = 0.12. (The slide omits $D$ in one hinge.) And the noise: from an
# edge with (α, σ) = (0.8, 0.6) up to $s$ with (0.6, 0.8) the point is multiplied by 0.6/0.8 = 0.75. Of the variance 0.64 at $s$ it brings 0.75² · 0.36 = 0.2025, so the new noise gets the factor √0.4375 = 0.661.
#
# Why is "real" the target's point? $D$ can do no better than guess when both laws agree, and then the student's points at the edge have the law that the consistency term asks for too. Photographs, noised to the edge, have
# another law than the points of guided paths there, and would pull against that term. Why the noise? It makes the two clouds overlap, so that $D$ is never certain, and it gives the frozen features noisy
# inputs at levels of this phase, which they know. And each point has noise of its own, because $D$ compares two laws and not the two points of a pair.
#
# Where must $s$ lie? The released code draws it from $[s_m,s_m+1000/M)$. For eight phases and $s_m=119$ that reaches to 243. The phase ends at 239, so a few levels are those of
# the next. In five of the eight phases 4 of the 125 draws fall outside, in the lowest 5, which makes 2.4 % over the fifty starts; the two widest phases are never filled. The library draws from the edge to the true next edge.
#
# In plain PyTorch, $u$ is the draw that decides where $s$ lies, and $z$ is the new noise:


# %% tags=["fold"]
class Critic(torch.nn.Module):
    clock = staticmethod(lambda t: t)

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = MLP(2, 64, 2, classes=2)
        torch.nn.init.normal_(self.net.leave.weight, std=0.1)

    def forward(self, x, t, c):
        return self.net(x, t, c)


# %%
def opinion(D, x, t, c, u, z, times, edges):  # what D says of points at the edges
    begins = torch.cat([times[:1], edges])  # a phase lies between an edge and the next
    s_m = torch.stack([edges[edges < now].max() for now in t])
    above = torch.stack([begins[begins >= now].min() for now in t])
    s = above - u * (above - s_m)
    a, b = at(s_m), at(s)
    share = b.alpha / a.alpha
    return D(share * x + (b.sigma**2 - (share * a.sigma) ** 2).sqrt() * z, s, c)


def student_loss(D, point, goal, *where):
    return pcm_loss(point, goal) + 0.1 * (1 - opinion(D, point, *where)).relu().mean()


def critic_loss(D, point, goal, z_real, z_fake, t, c, u, *path):
    real = opinion(D, goal.detach(), t, c, u, z_real, *path)
    fake = opinion(D, point.detach(), t, c, u, z_fake, *path)
    return (1 - real).relu().mean() + (1 + fake).relu().mean()


# %% [markdown]
# The library's recipe takes them in turn: an update of the student, then one of $D$. We give both sides the same networks and draws. The student's
# gradients must agree as well: they tell whether a gradient goes through the new noise to the student's point, and none to the goal.

# %%
# NBVAL_CHECK_OUTPUT
show(phased_discriminator)
D, path = Critic().double(), (times, pcm_edges(times, 4))
recipe = recipes.pcm_adversarial(schedule, NULL, phases=4, omega=(0.0, 0.0))
roles, batch, draw = roles | {"teacher": classes, "discriminator": D}, Batch(x_0, c), Draw(3)
by_library = [phase.loss(roles, batch, draw).value for phase in recipe.phases]
draw = Draw(3)
i, eps = draw.integers(50, 256), draw.normal(x_0)
both = at_the_edge(student, other, classes.net, x_0, c, i, eps, *path)
by_hand = [student_loss(D, *both, times[i], c, draw.uniform(256), draw.normal(x_0), *path)]
u, z_real, z_fake = draw.uniform(256), draw.normal(x_0), draw.normal(x_0)
by_hand.append(critic_loss(D, *both, z_real, z_fake, times[i], c, u, *path))
slope = lambda losses: torch.cat(
    [
        part.flatten()
        for loss, net in zip(losses, (student, D))
        for part in torch.autograd.grad(loss, net.parameters())
    ]
)
less_1 = [abs(x.item() / y.item() - 1) for x, y in zip(by_hand, by_library)]
claim("C15.28", "the plain student's loss over the library's, less 1", less_1[0], below=1e-6)
claim("C15.29", "the plain loss of D over the library's, less 1", less_1[1], below=1e-6)
ours, theirs = slope(by_library), slope(by_hand)
far = (theirs - ours).norm() / ours.norm()
claim("C15.30", "both gradients, plain − library (relative)", far, below=1e-6)

# %% [markdown]
# Is the library's $s$ always in its phase, and how often is the released one not?

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
show(in_phase)
real, fake = torch.tensor([[0.5]]), torch.tensor([[-0.2]])
print(
    f"D {(hinge_real(real) + hinge_fake(fake)).item():.1f}, G {0.1 * hinge_real(fake).item():.2f}"
)
place = torch.arange(50).repeat(200)
edge, s = in_phase(
    schedule, place, Draw(7), torch.zeros(10_000, 1).double(), times=times, edges=eight
)
ends_above = torch.cat([times[:1], eight])[(eight >= times[place, None]).sum(1)]
gone = ((s.t.flatten() > ends_above + 1e-9) | (s.t < edge.t).flatten()).sum()
claim("C15.19", "levels of noise outside of their phase, of 10 000", gone, between=(0, 0))
wide = edge.t.flatten() + Draw(8).integers(125, 10_000) / 1000
share = (wide > ends_above + 1e-9).double().mean()
claim("C15.20", "the released range: the share outside", share, between=(0.02, 0.03))

# %% [markdown]
# Does it help? On the plane, with two phases, we train with the released weight 0.1, and with 20. *Predict both errors, and both loss curves.*


# %% tags=["fold"]
def duel(weight):
    new, critic = mlp(), Critic()
    mean = Ema(new.net, 0.95)
    target = frozen(Denoiser(mean.net, schedule, "v"))
    roles = {"student": new, "teacher": classes, "target": target, "discriminator": critic}
    recipe = recipes.pcm_adversarial(schedule, NULL, phases=2, adversarial=weight, **inside)
    rates = {"student": (new.net, 4e-3), "discriminator": (critic, 1e-3)}
    optims = {name: torch.optim.Adam(net.parameters(), lr) for name, (net, lr) in rates.items()}
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optims["student"], 300)
    each = lambda step, found: fall.step()
    actors = Cast(Roles(roles), {"target": ("student", mean)})
    history = perform(recipe, actors, optims, points, 300, Draw(0), each)
    with torch.no_grad():
        return sample(new, noise, through(2), cond=label) / clean.alpha, history


# %%
# NBVAL_CHECK_OUTPUT
duels = {weight: duel(weight) for weight in (0.1, 20.0)}
judged = {weight: metrics.rms(x, goal) / pcm[1] for weight, (x, _) in duels.items()}
curve = lambda weight, name: plot.running_mean(duels[weight][1][name], 30)
figure(
    plot.curves(
        {
            "student, weight 0.1": curve(0.1, "student/loss"),
            "student, weight 20": curve(20.0, "student/loss"),
            "discriminator, weight 0.1": curve(0.1, "discriminator/loss"),
            "discriminator, weight 20": curve(20.0, "discriminator/loss"),
        },
        xlabel="update",
        ylabel="loss",
        log="y",
    ),
    "Both students' losses fall; with weight 20 it ends more than ten times higher. "
    "Both discriminators stay at 2.",
    "Running means over 30 updates. A discriminator that cannot tell has a hinge loss of 2.",
)
claim("C15.21", "weight 0.1: error over plain PCM's", judged[0.1], between=(0.75, 1.33))
claim("C15.22", "weight 20: error over plain PCM's", judged[20.0], above=2)
last = lambda weight: sum(duels[weight][1]["student/loss"][-50:])
claim(
    "C15.23", "consistency loss at the end, weight 20 over 0.1", last(20.0) / last(0.1), above=5
)

# %% [markdown]
# Here the term does nothing at its released weight, and at 20 it throws the student out of the data. **The discriminator's curve does not show it**: at both weights its loss stays at 2, "I cannot tell".
# The target is the student's own average and follows wherever the student goes, so real and fake points stay alike. Nor is it enough that the student's consistency loss falls: both do. *Compare* it
# with a run without the term, and it gives so sick a run away (it hardly shows a weight below 2: 15.9).
#
# On the plane there is nothing to sharpen. On pictures, few calls leave a softness that the teacher's features can see. The authors find that it sharpens one and two calls, and
# that from four on it may cost FID although it looks better. *Not reproduced:* in short runs on captioned shapes it never helps. `python -m bench adversarial` keeps three
# seeds' Fréchet distances over that of real pictures, with two standard errors. Train without, and look.

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
kept = json.loads((RESULTS / "adversarial.json").read_text())
rows = [dict(zip(kept["columns"], row)) for row in kept["rows"]]
for row in rows:
    far = f"{row['ratio']:6.2f} ± {row['±']:5.2f}"
    print(f"{row['phases']} phases, weight {row['weight']:4g}: {far}, shown {row['shown']:.0%}")
without, little, released = (row["ratio"] for row in rows[:3])
claim("C15.34", "two phases: the distance, weight 0.1 over none", released / without, above=10)
both = math.hypot(rows[0]["±"], rows[1]["±"])
worse = (little - without) / both
claim("C15.35", "the same, weight 0.01 less none, over their ±", worse, above=1)

# %% [markdown]
# ## 15.8 Rung 2: the digits of the opening, and captioned shapes
#
# We ask that PCM's two and eight calls are less than half as far apart as LCM's, and that eight calls of PCM are at most a quarter of LCM's distance from the teacher's own digits.
#
# Then the tiny text-to-image world, with ω = 2 inside, four phases and only 60 updates. The student starts as its teacher. Before training it makes the teacher's four unguided jumps, so what
# guidance has taught it is what it does better than these, in as many evaluations. We ask three things.
#
# - Its pictures lie nearer to the ends of the guided path of the same noise than the untrained ones.
# - It gains a part of the captions that guidance gains: 0 is nothing, 1 is what four guided steps gain, for eight evaluations.
# - Four guided steps pay for their captions with four times the Fréchet distance of unguided ones. A student that was taught by fifty short steps need not pay as much: less than
#   two thirds of theirs.

# %%
world, codes = shapes_teacher(), asked()
text = tokens([say(tuple(code)) for code in codes.tolist()])
recipe = recipes.pcm(world.schedule, NULL_TOKENS, **inside)
painter = distil(recipe, world, world, shape_batches(32, seed=0, drop=0), 60, lr=3e-4)
steered, grey = guided(world, 2.0, NULL_TOKENS), Draw(11).normal((len(codes), 3, 16, 16))
walk, fine = dlib.levels(world.schedule, 4, "pcm"), dlib.levels(world.schedule, 50, "sd_trailing")
pupil, plain, long = (sample(m, grey, walk, cond=text) for m in (painter, world, steered))
arrived = sample(steered, grey[:16], fine, cond=text[:16])

# %% tags=["fold"]
rows = {"teacher, 100 evaluations": arrived, "teacher, 8": long, "PCM, 4": pupil}
figure(
    plot.pictures({name: x[:10] for name, x in (rows | {"untrained, 4": plain}).items()}),
    "Untrained, some shapes are ragged or too small; PCM's four evaluations fill them, with soft "
    "edges; the teacher's with 8 and with 100 evaluations are sharp.",
    "Ten captions, the same noise in each column. A guided step is two evaluations.",
)

# %%
# NBVAL_CHECK_OUTPUT
lcm_2, lcm_8, pcm_2, pcm_8, solved = (x.detach() for x in written.values())
between = metrics.rms(pcm_2, pcm_8) / metrics.rms(lcm_2, lcm_8)
claim("C15.24", "digits: distance of 2 and 8 calls, PCM over LCM", between, below=0.5)
own = metrics.rms(pcm_8, solved) / metrics.rms(lcm_8, solved)
claim("C15.25", "digits, 8 calls: distance to the teacher's, PCM over LCM", own, below=0.25)
to_end, was = (metrics.rms(x[:16], arrived) for x in (pupil, plain))
claim(
    "C15.31", "shapes: distance to the guided ends over the untrained's", to_end / was, below=0.9
)
told = [shows(read(x), codes).double().mean() for x in (pupil, plain, long)]
gained = (told[0] - told[1]) / (told[2] - told[1])
claim("C15.32", "shapes: captions gained, over guidance's gain", gained, between=(0.1, 1))
law = [shapes_frechet(x, codes) - shapes_floor(codes)[0] for x in (pupil, long)]
claim("C15.33", "shapes: Fréchet distance over four guided steps'", law[0] / law[1], below=0.67)

# %% [markdown]
# Five seeds lay between 0.82 and 0.89 for the distance, gained 0.37 to 0.63 of the captions, and had 0.35 to 0.49 of the Fréchet distance. So 60 updates teach guidance about half, and they are too few. The four guided steps, at
# twice the price, still end a tenth nearer to the guided ends, and show nearly every caption. And the Fréchet distance asks for real pictures, which are not guided: the
# unguided teacher's own four calls are nearer to them than the student's.
#
# **With half a minute**, on GMM5, VP and without guidance, `python -m bench students` has trained PCM with four phases, on the fifty DDIM steps that
# LCM had in [chapter 14](14_latent_consistency.ipynb). Both students are shipped, and scored here again. *d* (not the loss's) is as there: the distance to the
# flow's ends, where two exact sets of 10 000 points have 1. At the same budget, four phases in four calls should be nearer than LCM in one. The bar of 14.9,
# d ≤ .5 for one call, they miss too, since these fifty steps leave .7 themselves.

# %% tags=["fold"]
# NBVAL_CHECK_OUTPUT
four, single = rescored("PCM, 4 phases", 500), rescored("LCM", 500)
nearer = four["rms"] / single["rms"]
claim("C15.26", "GMM5: RMS of four phases over LCM's of one call", nearer, below=1)
claim("C15.27", "GMM5: the same of d", four["d"] / single["d"], below=1)

# %% [markdown]
# ## 15.9 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | another picture with every number of calls | new noise between calls | phases, without new noise |
# | soft at 2 calls | two long jumps, unfinished | more updates, or 4 phases. The authors: the adversarial term (not reproduced, 15.7) |
# | the consistency loss is far above that of a run without $D$, while $D$'s own loss stays at 2 | adversarial weight too large | a tenth of it |
# | nonsense under normal guidance | trained with all captions | drop a tenth (`pcm_normalcfg`, `drop = 0.1`) |
# | burnt colours | guidance inside *and* outside | with ω inside, none outside: `guidance_scale` 1, at most 2 |
# | slightly off at 4 calls (15.5 could not show it) | evenly spaced grid: 749 for 739 | our export brings its own edges: type neither `--grid` nor `--steps`. For other weights of 50 DDIM steps, `full_scale.sample --grid pcm`, with `--solver ddim --steps 4`, `--end grid` and `--omega 0`. A student trained with 40 or 100 DDIM steps has its edges at 249, 499 and 749, and for it the even grid is the right one |
# | loss high and flat, or pictures that hardly change | the rate, as with LCM (14.5) | a tenth of it, or a higher one |
# | half the updates that you paid for, in the authors' script | it counts $D$'s steps too: its 10 000 are 5000 of the student | ask for twice as many |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | phases $M$ | 4, and four calls; 8, if you can pay eight | 2 keeps the picture, but its law is no better than that of LCM's two calls (15.4). Each $M$ has weights of its own |
# | the teacher's ω | the `guidance_scale` that you like with the teacher, less 1: `--hyper.omega 5 5` for 6 | the released adapters have 4 to 5, a scale of 5 to 6. Burnt even without guidance outside: lower it |
# | guidance inside or outside | inside | your users must choose ω or type negative prompts: outside, for twice the evaluations (15.6) |
# | average of the target | none for adapters, as released; 0.95 for all weights, as LCM's script | a network that starts from nothing needs it (14.5); all of this chapter's have 0.95 |
# | adversarial weight | none. The authors have 0.1, at two calls or one | soft pictures at two calls: start below 0.1 (our guess: `--hyper.adversarial 0.03`; on shapes .01 was already a little worse than none, 15.7), and look at samples from one noise, beside those of a run without. The consistency loss is a blunt alarm: on the plane, weights of 0.3, 1, 2 and 5 made the error 1.1, 1.4, 2 and 4 times plain PCM's, and the loss 1, 1.1, 1.6 and 3 times (one start of the critic; with three, weight 5 made the error 1.6 to 4 times) |
# | is the adversarial term worth it? | not on captioned shapes (15.7) | the bench: 250 updates of 32 pictures at rate 3e-4, unguided, with heads on the teacher at twice the rate; with weight 0.1, heads of rate 1e-5, the released one, did still worse (one seed, not kept). So short a run has new heads from first to last; what a long one gains is not measured |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | on eight A100 `pcm` needs 31 GB a card and 1.7 hours; `pcm_lora` needs 12 GB a card and 1.4 hours; `pcm_adversarial` needs 16 GB a card and 4.8 hours: counted, at an *assumed* 35 % of their peak |
# | LCM, or PCM | PCM from four calls on, and with two if the picture must stay; with one call, either | on the plane PCM's law is nearer from four calls on (15.4). At one call they are equal (15.4), and LCM needs no grid. On digits we compared their paths at equal calls (15.8), and not their quality; the paper's own comparison is not reproduced |
# | seeds, to compare two settings | three | the runs of 15.1 to 15.7 have one seed each unless they say so, and so have 15.8's digits and GMM5; its shapes have five. In the bench, three each, PCM's four calls beat LCM's one on digits (Fréchet distance over that of real pictures: 1.3 to 3.0), not on shapes (2.1 to 1.8, but 88 % of the captions to 81 %) |
#
# **Settings of the real runs**, from the released scripts: adapters of rank 64, learning rate 5e-6, Huber constant 0.001, 20 pictures on each of 8 GPUs, ω from 4 to 5, no average (the target is the
# student itself), 5000 steps, with the adversarial term 10 000 at two phases and rate 1e-5 for the heads. (In ours each of the 10 000 updates both, which is twice as much.) `pcm.toml` trains all weights: 10 000 updates of 96, LCM's script's average and rate, 1e-6, unverified for PCM.
#
# **Where the toy stops being true.** Two dimensions, a perfect teacher, a new network. Long jumps are easier here than in latents, and softness has nowhere to show.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `recipes.pcm(…, phases=4)` | `full_scale.train pcm --hyper.phases 4`, or `pcm_lora` for adapters |
# | `recipes.pcm_adversarial` | `full_scale.train pcm_adversarial`: heads on the frozen teacher |
# | `recipes.pcm_normalcfg` | `full_scale.train --method pcm_normalcfg`, with `--drop 0.1` and the settings of `pcm_lora`: `--lora-rank 64`, `--lr 5e-6`, `--steps 5000`, `--batch 160 --micro 20`, `--weight-decay 1e-3 --recompute`, and its `--lora-targets` |
# | `sample(…, levels(schedule, m, "pcm"))` | the model card's code, for diffusers' `TCDScheduler` |
#
# | how far up the ladder: rung 1 | rung 2 | rung 3 |
# |---|---|---|
# | exactly, and trained on the plane | digits, captioned shapes | `pcm` and `pcm_adversarial` train Stable Diffusion's classes in the tests, with random weights |
#
# ```bash
# torchrun --standalone --nproc_per_node 8 -m full_scale.train pcm --hyper.phases 4 \
#     --weights weights/stable-diffusion-v1-5 --data data --out runs/pcm
# python -m full_scale.export runs/pcm
# ```
#
# ## 15.10 Exercises
#
# 1. *(pencil)* Show that two jumps with the *same* ε compose: $F_{s\to r}\circ F_{t\to s}=F_{t\to r}$. Why does that not make phases superfluous?
# 2. *(code)* Let the target jump to the edge of *its own* phase. For the perfect student of 15.3 with eight phases and steps of one place, at how many of the fifty places is the loss no longer zero? Check: seven.
# 3. *(code)* Sample `students[8]` in four calls, through every other edge. Is it better than `students[4]`? Divide by `clean.alpha`, check by `metrics.rms`, and explain by 15.5.
# 4. *(open)* Give the discriminator data instead of the target's points as "real". What does it cost, what does it gain, and which law does the student learn?
#
# <details><summary>Answer to 1</summary>
#
# In $y=x/\alpha$ a jump is $y_s=y_t-(\kappa_t-\kappa_s)\varepsilon$, and $(\kappa_t-\kappa_s)+(\kappa_s-\kappa_r)=\kappa_t-\kappa_r$. But the network is asked again at $s$ and says another ε, the one of the next
# phase. With the same ε the path would be straight.
#
# </details>
#
# <details><summary>Answer to 3</summary>
#
# `sample(students[8], noise, schedule.levels([1.0, *pcm_edges(times, 8)[1::2]]), cond=label) / clean.alpha`. It is worse, 0.19 against 0.12: from 999 the student of eight phases says the ε of the jump to 859, and you carry it on to 739. As in 15.5, the jump runs past its edge. There the start was ten indices
# above the edge, where a smooth network already says nearly the next phase's ε. Here it is a whole phase above, so smoothness does not help.
#
# </details>
#
# ## References
#
# Its relatives differ in where they compare. Multistep consistency has the same edges, and compares guesses of $x_0$ [@heek2024multistep]. TCD draws its edges at random (section 14.7).
#
# Phased consistency: [@wang2024phased]. Latent consistency: [@luo2023lcm]. TCD: [@zheng2024tcd]. The hinge: [@lim2017geometric].
