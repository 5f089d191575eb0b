"""The shapes of methods whose chapters come later, small and unpolished, as recipes: what the
engine must carry. `register` names them; a forked process inherits the names.
"""

import torch
from torch.nn.functional import softplus

from dlib import Batch, Loss, Part, Phase, Recipe, Sampler, recipes
from dlib.losses import denoising, fake_score, uniform_times, vsd, weights
from dlib.losses.adversarial import held
from dlib.losses.score_distillation import variance
from dlib.rollout import generate

STUDENT, TEACHER = Part("copy"), Part("teacher")
SHOWN = Sampler("ddim", "sd_trailing", 2)


def dmd2(schedule, null, *, ratio: int = 5, gan: float = 0.01) -> Recipe:
    """Distribution matching: student, fake and heads on the fake; 5:1; backward simulation."""
    levels, times = schedule.levels([1.0, 0.75, 0.5, 0.25]), uniform_times(0.02, 0.98)

    def sample(roles, batch, draw, grad):
        k = draw.shared(len(levels))
        z = draw.normal(batch.x0)
        if k:
            with torch.no_grad():
                x = generate(roles["student"], z, levels[:k], batch.cond, draw=draw)
            z = levels[k].alpha * x + levels[k].sigma * draw.normal(x)
        with torch.set_grad_enabled(grad):
            return k, roles["student"](z, levels[k], batch.cond).x0

    def noised(x, draw):
        at = schedule.at(times(draw, len(x)).to(x), like=x)
        return at.alpha * x + at.sigma * draw.normal(x), at.t.flatten()

    def student(roles, batch, draw):
        k, x = sample(roles, batch, draw, True)
        batch.memo["sample"] = x.detach()
        moves = vsd(roles["teacher"], roles["fake"], Batch(x, batch.cond), draw, variance, times)
        x_t, t = noised(x, draw)
        judge = roles["judge"]
        fooled = softplus(-held(judge)(x_t, judge.clock(t), batch.cond)).mean()
        return Loss(moves.value / x[0].numel() + gan * fooled, {"k": torch.tensor(float(k))})

    def fake(roles, batch, draw):
        if "sample" not in batch.memo:
            batch.memo["sample"] = sample(roles, batch, draw, False)[1].detach()
        x, judge = batch.memo["sample"], roles["judge"]
        found = fake_score(roles["fake"], Batch(x, batch.cond), draw, weights.eps, times)
        value = found.value / x[0].numel()
        for sign, some in ((-1, batch.x0), (1, x)):
            x_t, t = noised(some, draw)
            value = value + gan * softplus(sign * judge(x_t, judge.clock(t), batch.cond)).mean()
        return Loss(value, {"loss": value.detach()})

    phases = Phase("student", student, ratio), Phase(("fake", "judge"), fake)
    parts = {"student": STUDENT, "teacher": TEACHER, "fake": Part("copy")}
    return Recipe(phases, parts | {"judge": Part("heads", "fake")}, SHOWN)


TRIES = [  # the book's DDPO, as small as its shape allows
    *"--reward redness --hyper.steps 4 --hyper.group 2 --hyper.epochs 2 --hyper.clip 0.2".split(),
    *"--hyper.omega 0 --hyper.kl 0.1".split(),
]


def reflow(schedule, null) -> Recipe:
    """Ordinary diffusion training on pairs of noise and sample."""
    times = uniform_times(0.02, 0.98)

    def student(roles, batch, draw):
        found = denoising(roles["student"], batch, draw, weights.v, times)
        drift = (batch.noise.mean().detach(), batch.x0.mean().detach())
        return found._replace(metrics={**found.metrics, "noise": drift[0], "x0": drift[1]})

    return Recipe((Phase("student", student),), {"student": STUDENT}, SHOWN, reads="pairs")


def register() -> None:
    """Name them among the book's methods."""
    for method in (dmd2, reflow):
        recipes.METHODS[method.__name__] = method
