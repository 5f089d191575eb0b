"""How near reward fine-tuning comes to the exact optimum, by how many samples were judged."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from bench.report import Report
from dlib import Batch, Denoiser, Draw, Part, Phase, Recipe, cast, flow, levels, perform, recipes
from dlib.losses.preference import adjoint_matching, lean_adjoints
from dlib.trajectories import roll
from toy_data.finetuned import Frontier, adapted
from toy_data.preferences import Plane
from toy_data.student_prints import said

NOTE = """The students of section 27.7 on the plane of two modes, with its reward and settings, at
{batch} samples an update; {seeds} seeds, each with its own first weights, draws, and noise to be
measured with. *KL* is the divergence from the model in nats and *reward* the mean reward, of a
student's ODE from the same starts, as section 27.7 measures them, but with {n} samples for the
KL; *lacks* is how far that reward is below that of the exact tilt with this KL. No density lacks
less than 0; what is below is measuring noise. Means over the seeds, with two standard errors, in
which that noise counts too. The rate of adjoint matching falls to zero along a cosine, so each of
its rows is a run of its own with that many samples. The other rates are constant: one run passes
through all rows of its method, and a run that ended at one of them would be the same. Two minutes
of one core."""
BATCH, STEPS = 128, 10
SCHEDULE = flow()
WORLD = Plane(schedule=SCHEDULE)
WALK = levels(SCHEDULE, STEPS, "time", end="clean")
FORTY = levels(SCHEDULE, 40, t_max=0.999)
BETAS = torch.logspace(2, -3, 400).tolist()


@dataclass(frozen=True)
class Method:
    """A recipe, the rate of Adam, whether it falls along a cosine, and the decays of averages."""

    recipe: Recipe
    lr: float = 2e-3
    falls: bool = False
    decays: Mapping[str, float] | None = None


def methods() -> dict[str, Method]:
    """The methods by name, as section 27.7 trains them."""
    ten = dict(steps=STEPS, omega=0.0, spacing="time")
    priced = dict(group=BATCH, clip=0.1, kl=0.6, **ten)
    look = recipes.nft(SCHEDULE, steps=STEPS, spacing="time", group=BATCH, kl=0.0)
    anchored = recipes.reward_gradient(SCHEDULE, last=STEPS, kl=1.0, **ten)
    return {
        "DPOK, 0.6": Method(recipes.ddpo(SCHEDULE, **priced)),
        "Flow-GRPO, 0.6": Method(recipes.flow_grpo(SCHEDULE, **priced)),
        "NFT": Method(look, decays={"old": 0.5}),
        "adjoint matching": Method(adjoint_matched(beta=1.0), 6e-3, falls=True),
        "DRaFT, anchor 1": Method(anchored),
    }


def run(stops: Sequence[int] = (10, 20, 30, 60), seeds: int = 3, n: int = 500) -> Report:
    """KL, reward and what it lacks of each method after so many updates."""
    frontier = Frontier(WORLD.mixture, WORLD.hidden, BETAS)
    found = [scored(frontier, stops, seed, n) for seed in range(seeds)]
    rows = []
    for name, stop in found[0]:
        values = torch.tensor([one[name, stop] for one in found], dtype=torch.float64)
        mean, error = values.mean(0), 2 * values.std(0) / seeds**0.5
        cells = [v for pair in zip(mean.tolist(), error.tolist()) for v in pair]
        rows.append([name, BATCH * stop, *cells])
        print(*rows[-1], flush=True)
    note = NOTE.format(batch=BATCH, seeds=seeds, n=n)
    columns = ["method", "samples", "KL", "± KL", "reward", "± reward", "lacks", "±"]
    return Report("Reward fine-tuning", note, columns, rows, fingerprints())


def scored(frontier: Frontier, stops: Sequence[int], seed: int, n: int) -> dict:
    """(method, updates) ↦ (KL, reward, what it lacks) of one seed."""
    students = {}
    for name, method in methods().items():
        for stop, student in trained(method, stops, seed).items():
            students[name, stop] = student
    measured = frontier.measured_together(students, FORTY, n, seed)
    found = {name: (kl, float(reward)) for name, (kl, _, reward, _) in measured.items()}
    lacks = {name: frontier.highest(kl) - reward for name, (kl, reward) in found.items()}
    return {name: (*found[name], lacks[name]) for name in found}


def trained(method: Method, stops: Sequence[int], seed: int) -> dict[int, Denoiser]:
    """Students after so many updates: on the way of one run, or, if the rate falls to zero by
    the run's end, of a run for each.
    """
    if method.falls:
        return {stop: one_run(method, [stop], seed)[stop] for stop in stops}
    return one_run(method, stops, seed)


def one_run(method: Method, stops: Sequence[int], seed: int) -> dict[int, Denoiser]:
    """The student of one run as it was after each of these updates; the last ends the run."""
    student, kept = adapted(WORLD.teacher, seed=seed), {}
    given = {"reward": WORLD.hidden}
    actors = cast(
        method.recipe,
        WORLD.teacher,
        starts={"student": student},
        given=given,
        decays=method.decays,
    )
    optim = torch.optim.Adam(student.net.adapter.parameters(), method.lr)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optim, stops[-1])

    def each(step, metrics):
        if method.falls:
            rate.step()
        if step + 1 in stops:
            kept[step + 1] = copy.deepcopy(student)

    perform(method.recipe, actors, {"student": optim}, asked, stops[-1], Draw(seed), each)
    return kept


def asked(step: int) -> Batch:
    """What an update is asked for: so many samples, of no prompt."""
    return Batch(torch.zeros(BATCH, 2))


def adjoint_matched(beta: float) -> Recipe:
    """Adjoint matching as section 27.6 trains it: a part of the loss for each step that draws."""

    def roll_out(roles, batch, draw):
        path = roll(roles["student"], draw.normal(batch.x0), WALK, draw=draw)
        with torch.enable_grad():
            end = path.x0.detach().requires_grad_()
            (pull,) = torch.autograd.grad(roles["reward"](end, batch.cond).sum() / beta, end)
        g = lean_adjoints(roles["reference"], path.states, pull, WALK)
        return {"states": path.states, "adjoints": g}

    def loss(roles, batch, draw):
        states, g = batch.memo["states"], batch.memo["adjoints"]
        match = partial(adjoint_matching, roles["student"], roles["reference"], states, g, WALK)
        return [partial(match, k) for k in range(STEPS - 1)]

    parts = {"student": Part("copy"), "reference": Part("teacher"), "reward": Part("given")}
    return Recipe((Phase("student", loss),), parts, reads="texts", before=roll_out)


def fingerprints() -> list[dict]:
    """What the gradients of today say of a student that is not the model, kept with the result:
    a test knows when they have changed. (A loss is told without its price: near 0 for some.)
    """
    start, given = adapted(WORLD.teacher), {"reward": WORLD.hidden}
    nn.init.normal_(start.net.adapter.leave.weight, std=0.2)
    says = partial(said, start=start, teacher=WORLD.teacher, rows=asked, step=0, given=given)
    return [
        {"method": name, "lr": one.lr, "falls": one.falls, "fingerprint": says(one.recipe)[1:]}
        for name, one in methods().items()
    ]
