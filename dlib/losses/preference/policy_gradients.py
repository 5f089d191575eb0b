"""Follow a reward that has no gradient: the sampler's steps are the actions of a policy."""

from __future__ import annotations

import torch
from torch import Tensor

from dlib._util import alike, require
from dlib.losses.diffusion import Loss
from dlib.solvers import Transition


def score_function(log_probs: Tensor, advantages: Tensor) -> Loss:
    """−E A Σ_k log p_θ(step k): its gradient is −∇E r (Williams 1992; DDPO-SF, Black et al.
    2024, eq. 4).

    log_probs: (B, N) of the steps that were drawn, or (B,) of one of them; advantages: (B,),
    constants. An advantage is the reward less anything that does not depend on the sample. It
    is right for samples of the present network alone.
    """
    each = -log_probs.reshape(len(log_probs), -1).sum(1) * _constant(advantages, log_probs)
    return Loss(each.mean(), {"loss": each.detach().mean()})


def clipped_ratio(now: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Loss:
    """E max(−ρA, −clip(ρ, 1 ± clip) A), ρ = p_θ/p_old of one step: PPO's loss (Schulman et al.
    2017, eq. 7; DDPO-IS, Black et al. 2024, eq. 5).

    now, old: log-probabilities (B,); old and advantages are constants. At ρ = 1 its gradient
    is the score function's. Away from it, a ratio for each step is not the ratio of whole
    paths, which alone would be unbiased. clip: 0.1 or 0.2 for sums over a sample's d values;
    about that over d for log-probabilities that are *means* over them, as DDPO's 1e-4 is for
    16 384 values.
    """
    require(clip > 0, f"clipped_ratio: clip = {clip:g}, wanted more than 0")
    alike("clipped_ratio: log-probabilities", now, old)
    better = _constant(advantages, now)
    ratio = (now - old.detach()).clamp(max=30.0).exp()  # beyond it, inf · 0 would be no number
    clipped = ratio.clamp(1 - clip, 1 + clip)
    value = -torch.minimum(ratio * better, clipped * better).mean()
    outside = (ratio != clipped).double().mean()
    metrics = {"loss": value.detach(), "ratio": ratio.detach().mean(), "clipped": outside}
    return Loss(value, metrics)


def gaussian_kl(step: Transition, reference: Transition) -> Tensor:
    """KL(N(μ, s² I) ‖ N(μ_ref, s² I)) = ‖μ − μ_ref‖²/2s² of two steps with one std, in nats:
    (B,); 0 for steps that draw nothing.

    Summed over the steps of a path, its mean bounds the KL divergence of the samples (Fan et
    al. 2023, eq. 9).
    """
    require(
        bool(torch.as_tensor(step.std == reference.std).all()),
        "gaussian_kl: the two steps have different std: take both between the same levels",
    )
    alike("gaussian_kl: means", step.mean, reference.mean)
    if not isinstance(step.std, Tensor) and step.std == 0:
        return (step.mean - reference.mean).flatten(1).sum(1) * 0.0
    gap = (step.mean - reference.mean.detach()) / step.std
    return 0.5 * gap.square().flatten(1).sum(1)


def centred(rewards: Tensor, group: int) -> Tensor:
    """The reward less its group's mean, (B,): the samples of one prompt are neighbours.

    The mean has the sample itself in it. That scales the expected gradient by 1 − 1/group.
    """
    rows = _grouped(rewards, group)
    return (rows - rows.mean(1, keepdim=True)).flatten()


def leave_one_out(rewards: Tensor, group: int) -> Tensor:
    """The reward less the mean of the *others* of its group, (B,): unbiased (Kool et al.
    2019).

    >>> leave_one_out(torch.tensor([1.0, 0.0, 0.0]), 3)
    tensor([ 1.0000, -0.5000, -0.5000])
    """
    require(group >= 2, f"leave_one_out: group = {group}: a sample needs others of its prompt")
    return centred(rewards, group) * (group / (group - 1))


def standardised(rewards: Tensor, group: int, *, least: float = 1e-4) -> Tensor:
    """The reward less its group's mean, over its group's standard deviation, (B,): GRPO's
    advantage (Shao et al. 2024, eq. 3).

    Dividing changes what is maximised: prompts whose rewards hardly differ count more. A group
    of equal rewards gets 0, whatever `least`, which is added to the deviation.
    """
    require(group >= 2, f"standardised: group = {group}: a sample needs others of its prompt")
    require(least > 0, f"standardised: least = {least:g}, wanted more than 0")
    rows = _grouped(rewards, group)
    spread = rows.std(1, correction=0, keepdim=True)
    return ((rows - rows.mean(1, keepdim=True)) / (spread + least)).flatten()


def _grouped(rewards: Tensor, group: int) -> Tensor:
    require(
        rewards.ndim == 1 and group >= 1 and len(rewards) % group == 0,
        f"advantages: {tuple(rewards.shape)} rewards in groups of {group}: wanted (B,), B a "
        "multiple of the group",
    )
    return rewards.view(-1, group)


def _constant(advantages: Tensor, like: Tensor) -> Tensor:
    require(
        advantages.shape == like.shape[:1],
        f"advantages have shape {tuple(advantages.shape)}, wanted ({len(like)},): one a sample",
    )
    return advantages.detach().to(like.dtype)
