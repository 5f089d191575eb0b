"""Fine-tuning with a reward: through its gradient, or by trying.

Roles: `student`, trained; `reward`, given, (x₀, cond) ↦ (B,); `reference`, the teacher. How
far the student is from it is always told, and priced where `kl` is above 0. The batch's x0
gives no more than the shape of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlib._util import require
from dlib.denoiser import Denoiser, guided
from dlib.grids import levels as levels_between
from dlib.losses import Batch, Loss, uniform_times, weights
from dlib.losses.diffusion import Times
from dlib.losses.preference import anchor, clipped_ratio, draft, gaussian_kl, standardised
from dlib.recipes.base import STUDENT, TEACHER, Part, Phase, Recipe, Sampler, many_steps
from dlib.recipes.preferences import opposed
from dlib.schedule import NoiseLevel, NoiseSchedule
from dlib.solvers import Transition, transition
from dlib.solvers.transitions import Kernel, flow_transition, preserving_transition
from dlib.trajectories import log_prob, roll, windowed

REWARD = Part("given")
STILL = partial(transition, eta=0.0)


def reward_gradient(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    steps: int = 50,
    last: int = 1,
    deepest: int = 0,
    omega: float = 6.5,
    spacing: str = "sd_trailing",
    kl: float = 0.0,
    negative: bool = False,
) -> Recipe:
    """Back-propagation of a reward through the last DDIM steps: DRaFT-K (Clark et al. 2024),
    or AlignProp with a random K (Prabhudesai et al. 2024).

    last: K. deepest: if larger, K is drawn from last … deepest anew each step, the same for
    all samples. omega: the guidance inside the sampler, against `null`. kl: the weight of
    `anchor`, the divergence from the reference in nats, on the student's samples; the metric
    `kl` tells it at weight 0 too. negative: go after the worse (Diffusion-NPO). The metric
    `spread` is the samples' standard deviation over the batch. The gradient through few steps
    changes fine detail alone. Without `kl`, or an early stop, the reward is soon hacked.
    """
    require(
        1 <= last <= steps and 0 <= deepest <= steps,
        f"reward_gradient: last = {last} and deepest = {deepest} of {steps} steps: wanted last "
        f"from 1 to {steps}, deepest from 0 to {steps}",
    )
    walk = levels_between(schedule, steps, spacing, end="clean")
    nats = {"weight": weights.elbo, "times": inner_times(schedule)}

    def loss(roles, batch, draw):
        model = _guided(roles["student"], omega, null)
        k = last + (draw.shared(deepest - last + 1) if deepest > last else 0)
        z = draw.normal(batch.x0)
        found, x0 = draft(model, z, walk, roles["reward"], batch.cond, draw, last=k)
        metrics = {**found.metrics, "spread": x0.flatten(1).std(0, correction=0).mean()}
        who = roles["student"], roles["reference"], x0, batch.cond
        if kl:
            held = anchor(*who, draw=draw, **nats)
            value = found.value + kl * held.value
        else:  # told all the same, and nothing that is drawn later changes
            with torch.no_grad():
                held = anchor(*who, draw=draw.copy(), **nats)
            value = found.value
        return Loss(value, {**metrics, "kl": held.metrics["anchor"]})

    made = Recipe((Phase("student", loss),), roles_of(kl), many_steps(schedule), reads="texts")
    return opposed(made) if negative else made


def ddpo(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    steps: int = 50,
    omega: float = 4.0,
    group: int = 8,
    epochs: int = 1,
    clip: float = 1e-4,
    kl: float = 0.0,
    eta: float = 1.0,
    spacing: str = "sd_trailing",
    negative: bool = False,
) -> Recipe:
    """DDPO-IS (Black et al. 2024): rollouts, advantages within each prompt's group, and PPO's
    clipped ratio for every step; with `kl` DPOK's divergence (Fan et al. 2023), a mean over
    values too. The metric `kl` is the whole one: in nats, all trained steps together. At
    weight 0 it is estimated, from one step of each micro-batch, drawn anew.

    omega: the guidance, in the rollouts and in the loss alike; the released code's scale is 5.
    clip: for log-probabilities that are means over a sample's values, as there, so it shrinks
    with their number: PPO's 0.2 on a sum of d values is about 0.2/d. epochs: how often the
    steps are gone over before the next rollouts. eta: the sampler's noise, above 0.
    """
    require(0 < eta <= 1, f"ddpo: eta = {eta:g}, wanted above 0 up to 1: DDIM draws nothing")
    walk = levels_between(schedule, steps, spacing, end="clean")
    kernel = partial(transition, eta=eta)
    shown = many_steps(schedule)
    made = _policy(
        walk, kernel, null, shown, omega=omega, group=group, epochs=epochs, clip=clip, kl=kl
    )
    return opposed(made) if negative else made


def flow_grpo(
    schedule: NoiseSchedule,
    null: Any = None,
    *,
    steps: int = 10,
    noise: float = 0.7,
    preserving: bool = False,
    window: int = 0,
    move: int = 1,
    omega: float = 3.5,
    group: int = 24,
    clip: float = 1e-4,
    kl: float = 0.04,
    spacing: str = "time",
    negative: bool = False,
) -> Recipe:
    """Flow-GRPO (Liu et al. 2025): the flow's ODE made an SDE with the same marginals, and
    DDPO's loss on its steps.

    noise: a of its step; preserving: coefficients-preserving steps instead, whose noise is
    counted otherwise (0.8 in the authors' later recipe, which has clip 1e-5, no guidance, no
    kl and a window of 3). window: how many steps are stochastic and trained, 0 for all; it
    moves from noise to data by one step every `move` training steps (MixGRPO, Li et al. 2025).
    The schedule must be `flow` unless the steps are coefficients-preserving.
    kl: the weight of each step's divergence, a mean over values like the ratio's logarithm;
    the released code's lacks the step's length besides, so that its 0.04 is not quite this
    one.
    """
    require(noise > 0, f"flow_grpo: noise = {noise:g}, wanted more than 0: DDIM draws nothing")
    walk = levels_between(schedule, steps, spacing, end="clean")
    step = partial(preserving_transition if preserving else flow_transition, noise=noise)
    made = _policy(
        walk,
        step,
        null,
        many_steps(schedule),
        omega=omega,
        group=group,
        epochs=1,
        clip=clip,
        kl=kl,
        window=window,
        move=move,
    )
    return opposed(made) if negative else made


def _policy(
    walk: Sequence[NoiseLevel],
    kernel: Kernel,
    null: Any,
    shown: Sampler,
    *,
    omega: float,
    group: int,
    epochs: int,
    clip: float,
    kl: float,
    window: int = 0,
    move: int = 1,
) -> Recipe:
    """Rollouts, a pool of rewards, and a part of the loss for each step that drew. Without a
    price of the divergence the reference is asked at one step: all are a fifth of the calls.
    """
    steps = len(walk) - 1
    chosen = _stochastic(steps, window, move)

    def roll_out(roles, batch, draw):
        model = _guided(roles["student"], omega, null)
        each = windowed(kernel, STILL, chosen(batch.step), steps)
        path = roll(model, draw.normal(batch.x0), walk, each, batch.cond, draw=draw)
        reward = roles["reward"](path.x0, batch.cond)
        return {"path": path.states, "old": path.log_probs, "reward": reward}

    def ratio(roles, batch: Batch, k: int) -> tuple[Loss, Transition]:
        path, gain, old = (batch.memo[name] for name in ("path", "advantage", "old"))
        size = path[:, k].flatten(1).shape[1]
        model = _guided(roles["student"], omega, null)
        step = kernel(model, path[:, k], walk[k], walk[k + 1], cond=batch.cond)
        now = log_prob(step, path[:, k + 1])
        found = clipped_ratio(now / size, old[:, k] / size, gain, clip)
        return Loss(found.value, {**found.metrics, **rewarded(batch)}), step

    def part(roles, batch: Batch, k: int) -> Loss:
        found, _ = ratio(roles, batch, k)
        return Loss(found.value / count(batch), found.metrics)

    def compared(roles, batch: Batch, k: int) -> Loss:
        found, step = ratio(roles, batch, k)
        x = batch.memo["path"][:, k]
        with torch.no_grad():
            base = _guided(roles["reference"], omega, null)
            held = kernel(base, x, walk[k], walk[k + 1], cond=batch.cond)
        far = gaussian_kl(step, held).mean()
        # a mean over values, as the ratio's logarithm is
        value = found.value + kl * far / x.flatten(1).shape[1] if kl else found.value
        told = count(batch) * far.detach()  # the trainer averages what the parts tell
        return Loss(value / count(batch), {**found.metrics, "kl": told})

    count = lambda batch: len(chosen(batch.step))

    def loss(roles, batch, draw) -> list[Callable[[], Loss]]:
        steps = chosen(batch.step)
        one = draw.copy().shared(len(steps))  # on all processes: shards meet there
        asked = steps if kl else steps[one : one + 1]
        return [partial(compared if k in asked else part, roles, batch, k) for k in steps]

    return Recipe(
        (Phase("student", loss),),
        roles_of(kl),
        shown,
        reads="texts",
        before=roll_out,
        pool=partial(advantages, group=group),
        epochs=epochs,
        group=group,
    )


def _stochastic(steps: int, window: int, move: int) -> Callable[[int], range]:
    """Training step ↦ the stochastic steps. The last one ends at the data and has no noise."""
    require(
        steps >= 2,
        "a policy gradient with one step: it ends at the data and draws nothing, so there is no "
        "action: take 2 steps or more, or nft",
    )
    require(
        0 <= window < steps and move >= 1,
        f"flow_grpo: window = {window}, move = {move}: wanted a window from 0 (all steps) to "
        f"{steps - 1}, and a move every 1 or more training steps",
    )

    def chosen(step: int) -> range:
        if not window:
            return range(steps - 1)
        first = (step // move) % max(steps - window, 1)
        return range(first, min(first + window, steps - 1))

    return chosen


def rewarded(batch: Batch) -> dict[str, Tensor]:
    """The mean reward, and its standard deviation among samples of one prompt: at 0 all are
    alike, and nothing is learnt.
    """
    return {"reward": batch.memo["reward"].mean(), "reward_spread": batch.memo["spread"]}


def advantages(memos: list[dict], gather: Callable, group: int) -> list[dict]:
    """Every memo with the advantages of its rows, from everybody's rewards."""
    counts = [len(memo["reward"]) for memo in memos]
    everyone, mine = gather(torch.cat([memo["reward"] for memo in memos]).float())
    rows = standardised(everyone, group)[mine].split(counts)
    spread = everyone.view(-1, group).std(1, correction=0).mean()
    return [{**memo, "advantage": row, "spread": spread} for memo, row in zip(memos, rows)]


def roles_of(kl: float) -> dict[str, Part]:
    """Student, reward and reference; ValueError for a weight below 0."""
    require(kl >= 0, f"kl = {kl:g}, wanted the weight of a divergence, from 0 on")
    return {"student": STUDENT, "reward": REWARD, "reference": TEACHER}


def _guided(model: Denoiser, omega: float, null: Any) -> Denoiser:
    return guided(model, omega, null) if omega else model


def inner_times(schedule: NoiseSchedule) -> Times:
    """Times between the schedule's ends, where every face is determined."""
    return uniform_times(max(schedule.t_min, 1e-3), 0.999)
