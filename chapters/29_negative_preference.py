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
#     title: Negative preference
#     summary: Train a second model towards what people dislike, and let guidance push away from it. One line of training, a closed form for what it does, and what it costs.
#     minutes: 40
#     memory: 1 GB
#     needs:
#       - guidance (chapter 6), and its law for variances
#       - preference optimisation (chapter 28)
#       - PyTorch
# ---

# %% [markdown]
# # 29 Negative preference: guidance away from what people dislike
#
# You have fine-tuned a model on preferences, and you sample it with guidance, as everybody does. Guidance strengthens what the two branches disagree about. But
# both branches are your fine-tuned model. How much of the preference does it strengthen?

# %% tags=["fold"]
from book import claim, figure, show  # first: it also tells torch not to spin
import copy
from dataclasses import replace

import torch
from dlib import NULL, Denoiser, Draw, Mixture, cast, exact, frozen, guided, levels, perform
from dlib import plot, recipes, reference, sample, solvers, vp
from dlib.guidance import contrasted
from dlib.losses.preference import draft, negated, refl, standardised, swapped
from dlib.nets import MLP
from dlib.recipes.preferences import opposed
from dlib.reward_tilts import Linear, Quadratic, reward_tilt
from dlib.weight_merging import merge
from toy_data.finetuned import adapted
from toy_data.preferences import Digits, preference_pairs, two_sides

schedule, mixture = vp(), two_sides()  # two modes, at −1 and 1
base = exact(mixture, schedule)
liking = Linear(torch.tensor([1.0, 0.0], dtype=torch.float64))  # what the judge likes: x₁


def tuned(start, recipe, data, steps, lr):
    """A copy of `start` after `steps` of Adam; the reference is `start`."""
    student = replace(start, net=copy.deepcopy(start.net).requires_grad_())
    actors = cast(recipe, frozen(start), starts={"student": student})
    optim = torch.optim.Adam(student.net.parameters(), lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    each = lambda step, found: rate.step()
    perform(recipe, actors, {"student": optim}, data, steps, Draw(0), each)
    student.net.requires_grad_(False)
    return student


start, pairs = (adapted(base, width=64, depth=2), preference_pairs(mixture, liking, 256, seed=0))
dpo = lambda negative: recipes.dpo(schedule, beta=50.0, negative=negative)
positive, negative = (tuned(start, dpo(sign), pairs, 300, 3e-3) for sign in (False, True))

OMEGAS = (0.0, 0.5, 1.0, 2.0, 3.0)
z, steps = Draw(1).normal((2000, 2)), levels(schedule, 25, end="clean")


def guide(pos, neg, omega):
    return sample(contrasted(pos, neg, omega, None), z, steps, solvers.dpm_solver_pp_2m)


against = {"positive": positive, "base": start, "negative": negative}
drawn = {name: {w: guide(positive, net, w) for w in OMEGAS} for name, net in against.items()}
reward = {
    name: [liking(x.double()).mean().item() for x in each.values()]
    for name, each in drawn.items()
}

# %% tags=["fold"]
figure(
    plot.curves(
        {f"against the {name}": (OMEGAS, values) for name, values in reward.items()},
        {"the base alone": liking(sample(start, z, steps).double()).mean().item()},
        xlabel="guidance ω",
        ylabel="mean reward",
    ),
    "Against itself the positive model's reward is flat in ω; against the base it rises, and "
    "against the negative model it rises more: its value at ω is the base's at 2ω.",
    "One positive model, three choices for the other branch. There is no prompt here.",
)

# %% [markdown]
# Here, where there is no prompt, none of it. With the positive model in both branches the reward does not move at all: what both say cancels. (With a prompt, guidance strengthens the prompt.
# The preference still cancels as far as it is the same with and without the prompt.) Put the *base* model
# into the other branch, and guidance pushes the way the fine-tuning went. Put a model there that was trained to be *worse* than the base, and it pushes twice as
# hard: at ω it reaches what the base reaches at 2ω. That is **Diffusion-NPO**, negative preference optimisation [@wang2025npo].
#
# This chapter shows that the training differs from the one you know by one line, computes exactly what the contrast does on Gaussians, and measures what it costs. Then it
# looks at what the released code does: of its three variants only one is trained on the worse.
#
# | symbol | what it is | where you met it |
# |---|---|---|
# | $\varepsilon(x_t,c)$; $\varnothing$; ω | the noise a network sees; the empty prompt; guidance | chapter 6 |
# | $r$; $\beta$; the tilt | a reward; the price of a nat; $\pi e^{r/\beta}/Z$ | chapter 28 |
# | $x^w$, $x^l$; $B$ | winner and loser of a pair; the number that scripts call `beta` | chapter 28 |
# | $\varepsilon_+$, $\varepsilon_-$ | the positive's and the negative's prediction | new |
# | $\mu$, $S$; $\rho$ | mean and std of a Gaussian; the slope of a linear reward | new |
# | $\theta_0$; $\eta_+$, $\eta_-$; $m$ | the base's weights; what each training added; a share | new |
#
# ## 29.1 Guidance between two networks
#
# Classifier-free guidance asks one network twice. Let the second question go to another network:
#
# $$\varepsilon^\omega=(1+\omega)\,\varepsilon_+(x_t,c)-\omega\,\varepsilon_-(x_t,\varnothing). \label{eq:np-contrast}$$
#
# It costs two calls a step, as guidance by two branches does. Autoguidance [@karras2024autoguidance] subtracts a *weaker* network that is told the same prompt; here it is one that people
# like less.
#
# With a pencil: at some point the positive says 0.6, the base 0.5, the negative 0.4, and ω = 1. Against the negative you get 1.2 − 0.4 = 0.8. Against the base it is 0.7.
# Against the positive itself it is 0.6, the positive's own answer, for every ω. In plain PyTorch it is one line:


# %%
# NBVAL_CHECK_OUTPUT
def contrast(positive, negative, x, t, c, empty, omega):
    ours, theirs = positive(x, t, c), negative(x, t, empty)
    return theirs + (1 + omega) * (ours - theirs)


say = lambda value: lambda x, t, c: torch.tensor(value)
print([round(contrast(say(0.6), say(v), 0, 0, 0, 0, 1.0).item(), 2) for v in (0.4, 0.5, 0.6)])

# %% [markdown]
# The library has it as a denoiser, so every solver takes it. Two networks that are the same must give guidance as you know it. We check that bit for bit against the
# formula, and to rounding against `guided`, which asks both questions in one batch. (In such a batch a matrix product may round
# otherwise.)

# %%
# NBVAL_CHECK_OUTPUT
show(contrasted)
torch.manual_seed(1)
nets = [MLP(2, 16, 1, classes=3).double() for _ in range(2)]
for net in nets:
    torch.nn.init.normal_(net.leave.weight)
one, other = (Denoiser(net, schedule, "eps") for net in nets)
x, c, level = Draw(2).normal((64, 2), torch.float64), Draw(3).integers(3, 64), schedule.at(0.4)
t, empty = torch.full((64,), 0.4, dtype=torch.float64), torch.full((64,), -1)

ours = contrast(one.net, other.net, x, t, c, empty, 2.0).detach()
found = contrasted(one, other, 2.0, NULL)(x, level, c).eps.detach()
claim(
    "C29.1",
    "the plain contrast over the library's",
    (ours - found).norm() / found.norm(),
    below=1e-9,
)
same = contrasted(one, copy.deepcopy(one), 2.0, NULL)(x, level, c).raw.detach()
formula = torch.lerp(one.net(x, t, empty), one.net(x, t, c), 3.0)
claim(
    "C29.2",
    "equal weights: values that differ from CFG's formula",
    (same != formula).sum(),
    below=1,
)
gap = (same - guided(one, 2.0, NULL)(x, level, c).raw.detach()).norm() / same.norm()
claim("C29.3", "equal weights: against `guided`, relative", gap, below=1e-9)

# %% [markdown]
# ## 29.2 The one line
#
# How do you train a model to be worse? You take any method of the last three chapters and turn its judge around. For pairs that means to swap
# winner and loser. For rewards it means to negate them. The library does it for every recipe of Part VII, by `negative=True`:

# %%
show(swapped, negated, opposed)

# %% [markdown]
# Nothing else changes: the base, the data, the loss and its $B$ stay. By chapter 28 the exact minimum of DPO with swapped pairs is $\pi e^{-r/\beta}$, the tilt the
# other way. At the first step the gradient is the positive's, turned around, for DPO as for reward gradients.

# %%
# NBVAL_CHECK_OUTPUT
data, weight = pairs(0), one.net.leave.weight
batch = replace(
    data, x0=data.x0.double(), other=data.other.double(), cond=torch.zeros(256).long()
)
twin = copy.deepcopy(one)


def gradient(recipe):
    roles = {"student": one, "reference": twin}
    value = recipe.phases[0].loss(roles, batch, Draw(4)).value
    return torch.autograd.grad(value, weight)[0]


plus, minus = gradient(dpo(False)), gradient(dpo(True))
claim(
    "C29.4",
    "DPO: sum of both gradients, relative",
    (plus + minus).norm() / plus.norm(),
    below=1e-9,
)
walk, labels = levels(schedule, 5), torch.zeros(64).long()
follow = lambda judge: draft(one, x, walk, judge, labels, last=2)[0].value
plus, minus = (torch.autograd.grad(follow(j), weight)[0] for j in (liking, negated(liking)))
claim("C29.5", "DRaFT: the same", (plus + minus).norm() / plus.norm(), below=1e-9)

# %% [markdown]
# The paper writes $1-r$ for the negated reward. A constant has no gradient, and it drops out of a policy gradient's advantages. So both spellings train the same. The exception is a loss that is not linear in the reward.
# ReFL (chapter 26), for one, stops pulling where a reward is *enough*: its loss is $\max(0,2-r)$. There a constant decides which samples pull. If all rewards are −1.5, then $-r=1.5$ still
# pulls, and $1-r=2.5$ does not.

# %%
# NBVAL_CHECK_OUTPUT
scores = Draw(5).normal((24,), torch.float64)
gap = (standardised(1 - scores, 8) - standardised(-scores, 8)).abs().max()
claim("C29.6", "advantages of 1 − r less those of −r (largest)", gap, below=1e-9)
flat = lambda value: lambda x, c=None: value + 0 * x[:, 0]
pull = lambda judge: refl(one, x, walk, judge, labels, draw=Draw(6), late=1)[0].value.item()
claim("C29.7", "ReFL at r = −1.5: the loss with −r", pull(flat(1.5)), between=(0.499, 0.501))
claim("C29.8", "the loss with 1 − r", abs(pull(flat(2.5))), below=1e-12)

# %% [markdown]
# ## 29.3 What it amounts to, exactly
#
# Let the base be a Gaussian $\mathcal N(\mu,S^2)$ and the reward linear with the slope ρ. The exact positive is the tilt $\mathcal N(\mu+S^2\rho/\beta,S^2)$, and the exact negative is
# $\mathcal N(\mu-S^2\rho/\beta,S^2)$. The perfect network of $\mathcal N(\mu,S^2)$ is linear in μ:
#
# $$\varepsilon(x_t)=\sigma\,\frac{x_t-\alpha\mu}{\alpha^2S^2+\sigma^2}. \label{eq:np-linear}$$
#
# So \eqref{eq:np-contrast} mixes the means and leaves everything else as it is. It is the perfect network of a Gaussian with the same std and the mean
#
# $$(1+\omega)\,\mu_+-\omega\,\mu_-=\mu+(1+2\omega)\,\frac{S^2\rho}\beta. \label{eq:np-mean}$$
#
# Against the base the factor is $1+\omega$, and against the positive itself it is 1. These are the three curves of the first figure. (Two of them bend, since the data there have two modes: a mode that has most of the samples has few more to gain.) **In this case the contrast is the tilt for a smaller
# price, $\beta/(1+2\omega)$.** And a negative at ω does what the base does at 2ω.
#
# With a pencil: $\mu=0$, $S=0.5$, ρ = 2, β = 1 gives a shift of 0.5. At ω = 3 the negative leads to 7 · 0.5 = 3.5, the base to 2.

# %%
# NBVAL_CHECK_OUTPUT
S, rho, beta = 0.5, torch.tensor([2.0, -1.0], dtype=torch.float64), 1.0
cloud = Mixture(torch.ones(1), torch.tensor([[0.3, 0.1]]), torch.tensor([S]))
tilted = lambda price: exact(reward_tilt(cloud, Linear(rho), price).mixture, schedule)
both, x = (tilted(beta), tilted(-beta)), Draw(7).normal((16, 2), torch.float64)
gaps = []
for t in (0.05, 0.4, 0.9):
    level = schedule.at(t)
    for omega, other, factor in ((3.0, both[1], 7), (3.0, exact(cloud, schedule), 4)):
        found = contrasted(both[0], other, omega, None)(x, level).eps
        wanted = tilted(beta / factor)(x, level).eps
        gaps.append((found - wanted).norm() / wanted.norm())
claim("C29.9", "the contrast against the tilt at β/(1+2ω), and β/(1+ω)", max(gaps), below=1e-9)

# %% [markdown]
# Without a prompt, the negative at ω and the base at 2ω give the same. With a prompt they differ. Suppose that the prompt $c$ moves the mean from $\mu_\varnothing$ to $\mu_c$. Then the contrast ends at
#
# $$\mu_c+\omega\,(\mu_c-\mu_\varnothing)+(1+2\omega)\,\frac{S^2\rho}\beta. \label{eq:np-prompt}$$
#
# With the base as the other branch you would double ω for the same push, and the prompt would be exaggerated twice as much. The negative strengthens the preference
# and leaves the prompt's guidance alone. That is its use.
#
# **Where it is not a tilt.** A quadratic reward $r=-\tfrac12(x-\mu)^2$ changes the *variance*: the positive has $1/v_+=1/S^2+1/\beta$ and the negative $1/v_-=1/S^2-1/\beta$, if $\beta>S^2$. (Otherwise there is no such density.) For equal means, chapter 6 has
# the law for the variance at the end of the guided ODE:
#
# $$v=v_+^{1+\omega}\,v_-^{-\omega}. \label{eq:np-variance}$$
#
# With $S=0.5$, β = 0.5 and ω = 1 that is $(1/6)^2\cdot2=0.056$. The tilt for the price β/3 has 1/(4 + 6) = 0.1. So
# **guidance takes more variety than the reward asks for**. That holds for all such β and ω. Write $a=1/S^2$ and $b=1/\beta$. Since $(1+\omega)(a+b)=[a+(1+2\omega)\,b]+\omega\,(a-b)$, the
# positive's precision $a+b$ is a weighted mean of the tilt's, with weight 1, and of the negative's, with weight ω. The logarithm is concave, so
#
# $$(1+\omega)\log(a+b)\ \ge\ \log\big(a+(1+2\omega)\,b\big)+\omega\log(a-b), \label{eq:np-narrow}$$
#
# and by \eqref{eq:np-variance} the guided precision is at least the tilt's. The flow of a
# Gaussian around 0 only rescales, so one exactly solved path tells its variance.

# %%
# NBVAL_CHECK_OUTPUT
line = Mixture(torch.ones(1), torch.zeros(1, 1), torch.tensor([0.5]))
narrow = lambda price: exact(
    reward_tilt(line, Quadratic(torch.zeros(1, dtype=torch.float64)), price).mixture, schedule
)
early, late = schedule.at(1.0), schedule.at(1e-4)
unit = torch.ones(1, 1, dtype=torch.float64)
for id, omega in (("C29.10", 1.0), ("C29.11", 2.0)):
    model = contrasted(narrow(0.5), narrow(-0.5), omega, None)
    end = reference(model, unit, early, late) / late.alpha
    law = (1 / 6) ** (1 + omega) * 2**omega
    claim(id, f"ω = {omega:g}: variance over the law's", end.square() / law, between=(0.98, 1.02))

# %% [markdown]
# (The path starts at $t=1$, where a little of the data is left, and ends a little before 0; we allow 2 % for both.)
#
# ## 29.4 The trained models: what you gain and what you pay
#
# Back to the networks of the first figure. They are no exact tilts (chapter 28), and the data have two modes. What survives of the closed form? With 2000 samples from one
# noise, 0.1 is about four standard errors of a difference of rewards, and a spread of 0.94 is four standard errors below 1.

# %%
# NBVAL_CHECK_OUTPUT
at = {name: dict(zip(OMEGAS, values)) for name, values in reward.items()}
still = max(abs(value - reward["positive"][0]) for value in reward["positive"])
claim("C29.12", "against itself: change of the reward over all ω", still, below=0.01)
claim(
    "C29.13",
    "ω = 1: the base's reward less the positive's",
    at["base"][1] - at["positive"][1],
    above=0.1,
)
claim(
    "C29.14",
    "ω = 1: the negative's less the base's",
    at["negative"][1] - at["base"][1],
    above=0.1,
)
gap = at["negative"][1] - at["base"][2]
claim("C29.15", "the negative at ω = 1 less the base at 2", gap, between=(-0.15, 0.15))
spread = {
    name: {w: x[:, 1].std().item() for w, x in each.items()} for name, each in drawn.items()
}
price = spread["negative"][3] / spread["negative"][0]
claim("C29.16", "the negative, ω = 3: spread of x₂ over that at ω = 0", price, below=0.94)

# %% tags=["fold"]
figure(
    plot.curves(
        {
            f"against the {name}": (reward[name], list(spread[name].values()))
            for name in ("base", "negative")
        },
        {"the data": 0.3},
        xlabel="mean reward",
        ylabel="spread of $x_2$",
    ),
    "Both curves fall together: for the same reward the base and the negative lose the same "
    "spread across.",
    "The judge does not care about x₂. Guidance narrows it all the same.",
)

# %% [markdown]
# At equal ω the negative beats the base, and the base beats the positive against itself. Guidance
# at ω with the negative is guidance at 2ω with the base, as \eqref{eq:np-mean} says. And the price is the same too. The figure above plots the spread in a direction that the judge does
# not care about. The two curves lie almost on each other, the base's a little above.
#
# So on this toy, which has no prompt, the negative is a way to double ω and nothing more. That is not what the paper reports for real models; there a prompt may make
# the difference (29.3). We have not reproduced its figures.
#
# ## 29.5 Merging
#
# The released commands do not use the trained negative as it is. They add what the positive has learnt:
#
# $$\theta_-=\theta_0+(1-m)\,\eta_++\eta_-. \label{eq:np-merge}$$
#
# Here $\eta_+=\theta_+-\theta_0$, and $\eta_-$ is what the negative training added to the base. All commands have $m=0$. The reason given is that the branches should stay alike, since a contrast of unlike
# networks makes artefacts. What does it do to the guidance? Pretend that ε is linear in the weights. Then each training adds a fixed change to ε, and here $\eta_\pm$ stand for these
# changes:
#
# $$\varepsilon^\omega=\varepsilon_0+(1+\omega m)\,\eta_+-\omega\,\eta_-. \label{eq:np-merged}$$
#
# So ω multiplies every difference between the branches, the unwanted ones too. What both branches share cancels in it. With $m=0$ they share $\eta_+$, and $-\omega\,\eta_-$ is all that guidance
# strengthens.
#
# With a pencil: $\varepsilon_0=0$, $\eta_+=1$, $\eta_-=-1$, ω = 1. The pure negative ($m=1$) gives 2 + 1 = 3. The merged one ($m=0$) gives 1 + 1 = 2. That is as much as the base
# gives. If the two trainings are mirror images, then $\theta_-=\theta_0$: **merging with $m=0$ takes the negative away again.**

# %%
# NBVAL_CHECK_OUTPUT
show(merge)
affine = [torch.nn.Linear(2, 2).double() for _ in range(3)]
weights = [net.state_dict() for net in affine]
gaps = []
for m in (0.0, 0.5, 1.0):
    joined = torch.nn.Linear(2, 2).double()
    joined.load_state_dict(merge(*weights, m))
    told = contrast(
        *(lambda x, t, c, net=net: net(x) for net in (affine[1], joined)), x, 0, 0, 0, 2.0
    )
    zero, plus, minus = (net(x) for net in affine)
    wanted = zero + (1 + 2.0 * m) * (plus - zero) - 2.0 * (minus - zero)
    gaps.append(((told - wanted).norm() / wanted.norm()).item())
claim(
    "C29.17",
    "linear networks: the contrast over the formula (largest of 3)",
    max(gaps),
    below=1e-9,
)

states = [model.net.state_dict() for model in (start, positive, negative)]
merged = replace(negative, net=copy.deepcopy(negative.net))
merged.net.load_state_dict(merge(*states, 0.0))
value = liking(guide(positive, merged, 1.0).double()).mean().item()
claim(
    "C29.18", "m = 0, ω = 1: reward less the base's", value - at["base"][1], between=(-0.2, 0.2)
)

# %% [markdown]
# The trained networks say the same: merged with $m=0$, the negative is worth about as much as the base. For Stable Diffusion the two trainings are not mirror images. They see other batches and stop
# at other steps, and the negative may have learnt something of its own. Whether any of it is left is what you should measure: sample with the base in the negative branch as well.
#
# A trap: the script for SDXL wants the negative's *full* weights, $\theta_0+\eta_-$, and that for SD 1.5 wants an adapter, $\eta_-$ alone. Full weights given to the latter have the
# base twice.
#
# ## 29.6 What the released code does
#
# | variant | what is trained | what tells it "worse" |
# |---|---|---|
# | DPO (SD 1.5, SDXL) | the negative, by itself | each pair, by its vote: the loser is put first; a tie is not reordered |
# | RL (SPO, SDXL) | the negative *inside* the guided pipeline; the positive is frozen | nothing: the preferences are the ordinary ones |
# | reward gradient (VADER, video) | the same, by an un-negated reward | nothing |
#
# The last two have no minus sign anywhere. They ask for a *good guided sample*, and train the branch that is subtracted. So the formula supplies the sign: a change of $\varepsilon_-$ enters the guided prediction
# with $-\omega$, a change of $\varepsilon_+$ with $1+\omega$. If both networks are equal and are told the same, the two gradients of the reward must be $-\omega:(1+\omega)$.

# %%
# NBVAL_CHECK_OUTPUT
pair = [copy.deepcopy(one) for _ in range(2)]
walk = levels(schedule, 4)
loss, _ = draft(contrasted(*pair, 2.0, None), x, walk, liking, torch.zeros(16).long(), last=4)
plus, minus = torch.autograd.grad(loss.value, [model.net.leave.weight for model in pair])
gap = (minus * 3 + plus * 2).norm() / plus.norm()
claim(
    "C29.19",
    "3 times the negative's gradient plus twice the positive's, relative",
    gap,
    below=1e-9,
)

# %% [markdown]
# So there are two methods under one name. **(A)** negates the objective and trains the negative by itself; it knows neither ω nor the positive. **(B)** keeps the objective and
# trains the negative within the guided sample; it knows both. Without a price both push the mean the same way at first. With a KL price on the samples they end at
# different places. Take 29.3's Gaussian. (A) ends at $\mu-S^2\rho/\beta$.
# (B) wants the *guided* mean to be $\mu+S^2\rho/\beta$; if the positive is already there, the best negative is equal to it (exercise 1). Say which one you ran. The library's recipes train (A); (B) is shown in the cell above, and no recipe offers it.
#
# ## 29.7 Rung 2: digits
#
# The judge of chapter 28 likes bold strokes. We train a positive and a negative, 100 updates each. Here there is a prompt, the label, and the other branch gets none. So all rows
# have guidance in the label, and the question is what else they have. We ask for a difference in mean grey of four standard errors of 296 pictures.

# %%
world = Digits()
asked = world.ask(296, seed=1)
made = lambda sign: recipes.dpo(world.teacher.schedule, beta=300.0, negative=sign)
bold, thin = (
    tuned(world.teacher, made(k), world.batches(128, 0), 100, 3e-5) for k in (False, True)
)
branches, names = {"positive": bold, "base": world.teacher, "negative": thin}, asked.cond
written = {
    f"against the {name}": world.draw(contrasted(bold, net, 1.0, world.null), asked, seed=1)
    for name, net in branches.items()
}
first = torch.stack([(names == k).nonzero()[0, 0] for k in range(10)])
figure(
    plot.pictures({name: x[first] for name, x in written.items()}),
    "Against the base the strokes are bolder than against the positive, and against the "
    "negative they are boldest.",
    "The same noise in each column; ω = 1 in all rows.",
)

# %%
# NBVAL_CHECK_OUTPUT
ink = [world.hidden(x) for x in written.values()]
apart = (ink[2] - ink[0]).mean() / ((ink[2] - ink[0]).std() / len(names) ** 0.5)
claim("C29.20", "negative less positive, in standard errors", apart, above=4)
apart = (ink[2] - ink[1]).mean() / ((ink[2] - ink[1]).std() / len(names) ** 0.5)
claim("C29.21", "negative less base, in standard errors", apart, above=4)
twice = (ink[2] - ink[0]).mean() / (ink[1] - ink[0]).mean()
claim("C29.27", "the negative's rise over the base's", twice, between=(1.85, 2.15))
right = world.scores(written["against the negative"], asked)["read"]
claim("C29.22", "share that a classifier reads", right, above=0.95)

# %% [markdown]
# The negative's rise is about twice the base's, as on the Gaussian.
#
# ## 29.8 What should look wrong here
#
# Two files lie in a folder, and the loader swaps them: the negative becomes the positive branch. *Predict the reward at ω = 1 from \eqref{eq:np-mean}, relative to the right order's.* The
# sign of the shift turns around, and the factor stays.

# %%
# NBVAL_CHECK_OUTPUT
crossed = liking(guide(negative, positive, 1.0).double()).mean().item()
claim(
    "C29.23",
    "swapped: reward over the right one's",
    crossed / at["negative"][1],
    between=(-1.15, -0.85),
)

# %% [markdown]
# The world is a mirror image of itself, so the ratio is −1, up to what training and sampling leave. In pictures such a mistake is hard to see at small ω and catastrophic at large ω. A quick
# check: sample the "negative" alone. Unmerged, it should be *worse* than the base. (If it is just noise, it was trained too long.)
#
# **Healthy and sick curves.** The negative's training has the curves of its method (28.6), with winner and loser exchanged. Chapter 28 knows how to ruin it: take $B$ too small. We train a second negative with
# $B=5$ instead of 50, and look at the reward, and at the share of samples that lie in no mode of the data (four standard deviations). *Which negative has the better reward curve?*

# %%
# NBVAL_CHECK_OUTPUT
ruined = tuned(start, recipes.dpo(schedule, beta=5.0, negative=True), pairs, 300, 3e-3)
sick = {w: guide(positive, ruined, w) for w in OMEGAS}
outside = lambda x: (mixture.modes_of(x.double(), 4) < 0).double().mean().item()
gain = liking(sick[0.5].double()).mean().item() - at["negative"][0.5]
claim("C29.24", "ω = ½: the sick one's reward less the healthy one's", gain, above=0.1)
claim("C29.25", "sick, ω = ½: share in no mode", outside(sick[0.5]), above=0.1)
claim("C29.26", "healthy, ω = ½: the same", outside(drawn["negative"][0.5]), below=0.05)

# %% tags=["fold"]
figure(
    plot.curves(
        {
            f"{name}, {what}": (OMEGAS, [measure(x) for x in each.values()])
            for name, each in (("healthy", drawn["negative"]), ("sick", sick))
            for what, measure in (
                ("reward", lambda x: liking(x.double()).mean().item()),
                ("share in no mode", outside),
            )
        },
        xlabel="guidance ω",
        ylabel="mean reward, and share",
    ),
    "The sick negative's reward rises about twice as fast as the healthy one's, and its samples "
    "leave the modes at a third of the guidance.",
    "By the reward you would choose the sick one.",
)

# %% [markdown]
# The sick one has the better curve. At ω = ½ two fifths of its samples lie where there are no data, and from ω = 1 on nearly all. The reward cannot show it: it is linear, and goes on rising
# where there are no data. A learnt reward may do so too (chapter 26). The healthy
# negative leaves the data as well, only later: at ω = 2 more than half of its samples lie in no mode. So plot the reward against ω for the base and for the negative, and beside it a measure that
# does not come from the judge.
#
# ## 29.9 In practice
#
# | symptom | cause | cure |
# |---|---|---|
# | the negative changes nothing | ω = 0; pairs swapped twice, so that the negative is a second positive; or a model whose guidance is distilled in | sample the negative alone (below); guidance of 1 + ω > 1 is needed. `full_scale.sample --negative-lora` refuses ω = 0 |
# | the same pictures as with the base | merged with $m=0$, trainings that mirror each other | larger $m$; compare with the base |
# | colour blots, artefacts | the branches are too unlike (the authors' reason, 29.5) | lower rate, fewer steps, $m=0$, smaller ω |
# | pictures become worse as ω grows | branches swapped | sample the negative alone |
# | good, but all alike | 29.4: guidance takes variety | smaller ω |
# | twice the memory | two networks, as `full_scale.sample` holds them | in your own program, two adapters that take turns on one base |
#
# | choose | begin with | why, and what tells you to change it |
# |---|---|---|
# | ω | the one that you use for the prompt, with $m=0$, as the authors do | the preference is multiplied too: with $m=0$ by about $1+\omega$, with $m=1$ by about $1+2\omega$ if the trainings mirror each other (29.3). So look for strays, with a measure that the judge does not know. Here, without a prompt and with $m=1$, .05 % of the samples lie in no mode at ω = 0, 1 % at ½, 8 % at 1, 62 % at 2. Whether 6.5 is too much on Stable Diffusion no toy can tell. Too many strays: a smaller ω, or a weaker negative |
# | $m$ | 0, as released: the branches stay alike | is it no better than the base in that branch (29.5)? Then ½. At ω = 1, with $m$ = 0, ½ and 1, the reward was 1.32, 1.78 and 1.70, and 1, 13 and 8 % of the samples lay in no mode: ½ pushes most and strays most. (The merge is linear in the weights, the network is not.) If ½ strays too much, try 1 |
# | $m=1$ at full scale, the pure negative | `--lora` the positive, `--negative-lora` the negative, `--merge 1` | `--weights` must be the base then |
# | the negative's training | `npo.toml`: rank 8, $B$ = 1000, 5e-6, 2000 updates of 512 pairs | alone it should be worse than the base: if not, longer or a smaller $B$. It should still draw pictures: if not, shorter or a larger $B$ |
# | a machine | ask `full_scale.estimate` with the words of your command and `--processes 8` | on eight A100 `npo` needs 8 GB a card and 2.1 hours: counted, at an *assumed* 35 % of their peak |
# | NPO, or a bolder DPO | not known here | on the Gaussian both are tilts, of β/(1+2ω) and of a smaller β (29.3). For trained networks we did not compare |
# | SDXL | `--family sdxl` in `prepare`, `train` and `sample`, and `--hyper.beta 2000` | with random weights: `dpo` and `--negative-lora` are tested on it, and `--negative-lora` on `sd3`; `npo` and its export were run by hand on both |
# | seeds, to compare two settings | three | every training of this page has one seed, and all are sampled from one noise |
#
# **The real runs.** DPO variant, SD 1.5: LoRA of rank 8, `beta` 500 without the ½ (1000 in chapter 28's convention), rate 5e-6, 64 pairs a GPU, released after 2000 iterations. SDXL: `beta` 2000 with the ½, 2000
# iterations. Sampling: 25 steps of DPM-Solver++, guidance scale 1 + ω = 5 for SDXL and 7.5 for SD 1.5. The video variant: rank 8, rate 1e-5, 2000 steps. The paper reports higher PickScore, HPSv2 and
# aesthetic scores for the methods that it was added to. These figures are *not verified* here.
#
# | this chapter | Stable Diffusion |
# |---|---|
# | `recipes.dpo(schedule, negative=True)` | `--hyper.negative`, for every method of Part VII; `npo` is `dpo`'s loss with it, for adapters and with its own $B$ and rate |
# | `contrasted(positive, negative, omega, null)` | the same function, behind `full_scale.sample --negative-lora` |
# | `merge(base, positive, negative, m)` | `--lora` with `--negative-lora` adds both adapters, which is $m=0$; `--merge` is another $m$ |
#
# ```bash
# torchrun --standalone --nproc_per_node 8 -m full_scale.train npo \
#     --weights weights/stable-diffusion-v1-5 --data data/votes --out runs/npo
# python -m full_scale.export runs/npo
# python -m full_scale.sample --weights runs/dpo/export --omega 6.5 \
#     --negative-lora runs/npo/export/pytorch_lora_weights.safetensors --prompt "a lighthouse at dusk"
# python -m full_scale.sample --weights weights/stable-diffusion-v1-5 --omega 6.5 \
#     --lora runs/npo/export/pytorch_lora_weights.safetensors --prompt "a lighthouse at dusk"
# ```
#
# The last line samples the negative alone. The one before it takes chapter 28's model for both branches and adds the negative's adapter to one of them: that is $m=0$. For another $m$, train chapter 28's model with `--lora-rank`, and
# give both adapters beside the base's weights, with `--merge`.
#
# **How far up the ladder.** Rung 1: exactly, and trained. Rung 2: digits. Rung 3: `npo` trains Stable Diffusion's classes in the tests, and
# `full_scale.sample` contrasts the two, with random weights.
#
# ## 29.10 Exercises
#
# 1. *(pencil)* Method (B) with a price: choose $\mu_-$ so that the guided mean maximises $\rho\,x-\beta\,(x-\mu)^2/2S^2$, for a given $\mu_+$. What is $\mu_-$ if $\mu_+$ is the exact positive, and
#     what if $\mu_+=\mu$?
# 2. *(code)* Sample with ω = 1 against the merged negative for $m=0$, 0.5 and 1, and plot the reward over $m$. Is it the line of \eqref{eq:np-merged}? Check: at $m=1$ it is
#     the negative's of claim C29.14.
# 3. *(code)* Give the Gaussian of C29.9 a prompt: four networks, exact for means $\mu_c\pm$ and $\mu_\varnothing\pm$. Check \eqref{eq:np-prompt} as C29.9 does.
# 4. *(open)* Let the guidance act only between two noise levels (`dlib.between`). Can you keep the reward of ω = 2 and lose less spread? Check: your point lies above the
#     curves of 29.4.
#
# <details><summary>Answers to 1 and 3</summary>
#
# 1. The best guided mean is $\mu+S^2\rho/\beta$, so $\mu_-=\big((1+\omega)\mu_+-\mu-S^2\rho/\beta\big)/\omega$. If $\mu_+=\mu+S^2\rho/\beta$ then $\mu_-=\mu_+$: nothing is left to do. If $\mu_+=\mu$ then
# $\mu_-=\mu-S^2\rho/(\omega\beta)$, a weaker negative than (A)'s when ω > 1.
#
# 3. By \eqref{eq:np-linear} the means mix: $(1+\omega)(\mu_c+S^2\rho/\beta)-\omega(\mu_\varnothing-S^2\rho/\beta)$. In code, `exact` of a Gaussian with that mean against `contrasted`
# of the two exact networks that it is made of.
#
# </details>
#
# ## References
#
# Diffusion-NPO: [@wang2025npo]. Guidance with a bad model of the same task: [@karras2024autoguidance]. What guidance samples: chapter 6. Step-aware preferences: [@liang2024spo].
