"""The shapes of methods whose chapters come later, small and unpolished, as recipes: what the
engine must carry. `register` names them; a forked process inherits the names.
"""

import torch
from torch.nn.functional import logsigmoid, softplus

from dlib import Batch, Loss, Part, Phase, Recipe, Sampler, recipes, transition
from dlib.losses import denoising, fake_score, uniform_times, vsd, weights
from dlib.losses.adversarial import held
from dlib.losses.score_distillation import variance
from dlib.rollout import generate
from full_scale.run.given import GIVEN

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


def ddpo(
    schedule, null, *, steps: int = 3, group: int = 2, epochs: int = 2, clip: float = 0.2
) -> Recipe:
    """Rollouts, advantages within a prompt's group over all ranks, two inner epochs, a part a
    step.
    """
    levels = schedule.levels(torch.linspace(1.0, 0.1, steps + 1).tolist())

    def log_prob(student, x, a, b, y, cond):
        mean, std = transition(student, x, a, b, cond=cond)
        return -((y - mean) ** 2).flatten(1).mean(1) / (2 * std**2)

    def roll(roles, batch, draw):
        x, path, old = draw.normal(batch.x0), [], []
        for a, b in zip(levels, levels[1:]):
            mean, std = transition(roles["student"], x, a, b, cond=batch.cond)
            y = mean + std * draw.normal(x)
            old.append(log_prob(roles["student"], x, a, b, y, batch.cond))
            path, x = [*path, x], y
        return {"path": torch.stack([*path, x], 1), "old": torch.stack(old, 1)} | {
            "reward": roles["reward"](x)
        }

    def pool(memos, gather):
        everyone, mine = gather(torch.cat([memo["reward"] for memo in memos]))
        groups = everyone.view(-1, group)
        better = (groups - groups.mean(1, keepdim=True)) / (everyone.std() + 1e-6)
        rows = better.flatten()[mine].split([len(memo["reward"]) for memo in memos])
        return [{**memo, "advantage": row} for memo, row in zip(memos, rows)]

    def part(roles, batch, k):
        path, better = batch.memo["path"], batch.memo["advantage"]
        a, b = levels[k], levels[k + 1]
        now = log_prob(roles["student"], path[:, k], a, b, path[:, k + 1], batch.cond)
        ratio = (now - batch.memo["old"][:, k]).exp()
        clipped = ratio.clamp(1 - clip, 1 + clip)
        value = -torch.minimum(ratio * better, clipped * better).mean() / steps
        return Loss(value, {"ratio": ratio.detach().mean()})

    def student(roles, batch, draw):
        return [lambda k=k: part(roles, batch, k) for k in range(steps)]

    parts = {"student": STUDENT, "reward": Part("given")}
    return Recipe(
        (Phase("student", student),),
        parts,
        SHOWN,
        reads="texts",
        before=roll,
        pool=pool,
        epochs=epochs,
        group=group,
    )


def dpo(schedule, null, *, beta: float = 10.0) -> Recipe:
    """A pair of pictures, the better and the worse, against a frozen reference."""
    times = uniform_times(0.02, 0.98)

    def student(roles, batch, draw):
        at = schedule.at(times(draw, len(batch.x0)).to(batch.x0), like=batch.x0)
        noise = draw.normal(batch.x0)

        def error(model, x):
            return (model(at.alpha * x + at.sigma * noise, at, batch.cond).eps - noise).square()

        gap = 0.0
        for sign, x in ((1, batch.x0), (-1, batch.other)):
            with torch.no_grad():
                base = error(roles["reference"], x)
            gap = gap + sign * (error(roles["student"], x) - base).flatten(1).mean(1)
        value = -logsigmoid(-beta * gap).mean()
        return Loss(value, {"loss": value.detach()})

    parts = {"student": STUDENT, "reference": TEACHER}
    return Recipe((Phase("student", student),), parts, SHOWN, reads="preferences")


def reflow(schedule, null) -> Recipe:
    """Ordinary diffusion training on pairs of noise and sample."""
    times = uniform_times(0.02, 0.98)

    def student(roles, batch, draw):
        found = denoising(roles["student"], batch, draw, weights.v, times)
        drift = (batch.noise.mean().detach(), batch.x0.mean().detach())
        return found._replace(metrics={**found.metrics, "noise": drift[0], "x0": drift[1]})

    return Recipe((Phase("student", student),), {"student": STUDENT}, SHOWN, reads="pairs")


def redness(s, family):
    """A reward: how red a picture is."""
    return lambda x: x[:, 0].mean((1, 2)) - x[:, 1:].mean((1, 2, 3))


def register() -> None:
    """Name them among the book's methods, and open the reward."""
    for method in (dmd2, ddpo, dpo, reflow):
        recipes.METHODS[method.__name__] = method
    GIVEN["reward"] = redness
