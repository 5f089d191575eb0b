"""Follow a differentiable reward through the last steps of the sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser
from dlib.losses.diffusion import Loss, Times
from dlib.losses.preference.reward_models import Reward
from dlib.losses.weights import Weight
from dlib.schedule import NoiseLevel
from dlib.solvers import Solver, ddim
from dlib.trajectories import last_steps


def negated(reward: Reward) -> Reward:
    """−r: with it, any method of this package trains the negative of Diffusion-NPO (Wang et
    al. 2025). The paper writes 1 − r: the same slope.
    """
    return lambda x, cond=None: -reward(x, cond)


def draft(
    student: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    reward: Reward,
    cond: Any = None,
    draw: Draw | None = None,
    *,
    last: int = 1,
    solver: Solver = ddim,
    light: bool = True,
) -> tuple[Loss, Tensor]:
    """DRaFT-K: −E r(x₀) with a gradient through the last K steps (Clark et al. 2024, eq. 4 and
    algorithm 1), and the samples, detached.

    last: K; with all steps it is DRaFT, the gradient of the sampler itself. AlignProp
    (Prabhudesai et al. 2024) is the same with a K drawn anew each time: its rule, to detach
    the network's outputs before step N − K, leaves the same gradient. light: as in
    `last_steps`. Draws: the solver's.
    """
    require(last >= 1, f"draft: last = {last}, wanted at least 1 step with a gradient")
    x0 = last_steps(student, z, levels, last, solver, cond, draw, light=light)
    return _followed(_valued(reward, x0, cond)), x0.detach()


def draft_lv(
    student: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    reward: Reward,
    cond: Any = None,
    *,
    draw: Draw,
    repeats: int = 2,
    solver: Solver = ddim,
) -> tuple[Loss, Tensor]:
    """DRaFT-LV: the gradient of the last step alone, averaged over `repeats` noised copies of
    each sample at the step's start (Clark et al. 2024, algorithm 2); and the samples.

    It removes the part of the variance that the last step's noise makes, not that of z.
    Draws: the solver's; then a normal like z a repeat.
    """
    require(repeats >= 1, f"draft_lv: repeats = {repeats}, wanted at least 1")
    x0, a = last_steps(student, z, levels, 0, solver, cond, draw), levels[-2]
    found = [
        _valued(reward, student(a.alpha * x0 + a.sigma * draw.normal(x0), a, cond).x0, cond)
        for _ in range(repeats)
    ]
    return _followed(torch.stack(found).mean(0)), x0


def refl(
    student: Denoiser,
    z: Tensor,
    levels: Sequence[NoiseLevel],
    reward: Reward,
    cond: Any = None,
    *,
    draw: Draw,
    late: int = 10,
    enough: float = 2.0,
    solver: Solver = ddim,
) -> tuple[Loss, Tensor]:
    """ReFL: E max(0, enough − r(x̂₀)), where x̂₀ is what the network guesses at one of the
    last `late` steps (Xu et al. 2023a, algorithm 1); and the guesses, detached.

    The gradient goes through that one call. No reward above `enough` pulls: the released code
    has 2, of 40 steps the last 10, and a weight of 1e-3. Draws: the step, shared by all
    samples; the solver's.
    """
    steps = len(levels) - 1
    require(1 <= late <= steps, f"refl: late = {late}, wanted 1 … {steps}, the number of steps")
    left = 1 + draw.shared(late)
    x = last_steps(student, z, levels, 0, solver, cond, draw, leave=left)
    x0 = student(x, levels[steps - left], cond).x0
    each = _valued(reward, x0, cond)
    value = torch.relu(enough - each).mean()
    return Loss(value, {"loss": value.detach(), "reward": each.detach().mean()}), x0.detach()


def anchor(
    student: Denoiser,
    reference: Denoiser,
    x0: Tensor,
    cond: Any = None,
    *,
    draw: Draw,
    weight: Weight,
    times: Times,
) -> Loss:
    """E w(t) ‖x₀_θ − x₀_ref‖² at noised samples x0: what keeps a student near its reference.

    With `weights.elbo` and t uniform this is the KL divergence between the two reverse
    processes, in nats, if the student's states are its samples, noised (Girsanov's theorem).
    Then it bounds the KL divergence of the samples; otherwise it need not. The reference gets
    no gradient. Summed over a sample's values, a mean over the batch. Draws: the times, the
    noise.
    """
    t = times(draw, len(x0)).to(x0.device, torch.promote_types(x0.dtype, torch.float32))
    level = student.schedule.at(t, like=x0)
    x = level.alpha * x0 + level.sigma * draw.normal(x0)
    with torch.no_grad():
        held = reference(x, level, cond).x0
    square = (student(x, level, cond).x0 - held).square()
    each = (weight(level, student.schedule) * square).flatten(1).sum(1)
    return Loss(each.mean(), {"anchor": each.detach().mean()})


def _followed(each: Tensor) -> Loss:
    value = -each.mean()
    return Loss(value, {"loss": value.detach(), "reward": each.detach().mean()})


def _valued(reward: Reward, x0: Tensor, cond: Any) -> Tensor:
    each = reward(x0, cond)
    require(
        each.shape == x0.shape[:1],
        f"reward: it returned {tuple(each.shape)} for {len(x0)} samples, wanted ({len(x0)},): "
        "one number a sample",
    )
    require(
        each.requires_grad or not x0.requires_grad,
        "reward: it has no gradient, so there is nothing to follow: use a differentiable one, or "
        "a method that tries (ddpo, flow_grpo, nft)",
    )
    return each
