"""diffusers' U-Nets as the book's nouns: a net (x, time, cond) ↦ raw, and the `Denoiser` that it
is with the schedule it was trained on.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dlib import Denoiser, NoiseSchedule, discrete
from dlib._util import require
from dlib.nets import omega_features
from full_scale.families.base import Stock

PREDICTS = {"epsilon": "eps", "v_prediction": "v"}
TRAILING = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
"""Start at the last trained index and end at σ = 0, as `full_scale.sample` does with `--grid
sd_trailing`.
"""
_DDIM = Stock("DDIMScheduler", TRAILING, "sd_trailing", "clean")
STOCK = {
    "ddim": _DDIM,
    "dpm_solver_1": _DDIM,
    "stochastic_iterative": _DDIM._replace(spacing=""),  # of one step alone: both take x₀
    "lcm": Stock("LCMScheduler", {}, "lcm", "clean"),
    "tcd": Stock("TCDScheduler", {}, "lcm", "grid"),
}
"""Solver ↦ the scheduler that makes its pictures of a network with trained indices."""


class UNetCall(nn.Module):
    """diffusers' U-Net as a net (x, time, cond) ↦ raw: the module that is wrapped, compiled
    and exported.

    x (B, 4, h, w) in any dtype, time (B,), cond {"text": (B, L, D)}, and "omega" (B,) for a
    network that is told ω. The U-Net runs in its weights' dtype; time stays float32 (bfloat16
    cannot hold 999), and the output returns in x's dtype, so guidance is computed in x's
    precision.
    """

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, time: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        dtype = self.unet.conv_in.weight.dtype
        told = (
            omega_features(cond["omega"], self.unet.config.time_cond_proj_dim).to(dtype)
            if "omega" in cond
            else None
        )
        return self.unet(
            x.to(dtype),
            time,
            encoder_hidden_states=cond["text"].to(dtype),
            timestep_cond=told,
            added_cond_kwargs=self.added(x, cond),
        ).sample.to(x.dtype)

    def added(self, x: Tensor, cond: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """What the U-Net is given besides, in diffusers' names."""
        return None


def told_omega(call: UNetCall, dim: int = 256) -> UNetCall:
    """A copy whose U-Net takes ω: `time_cond_proj_dim` in diffusers' words. Its new weights
    are 0, so at first ω changes nothing. One that takes ω already is copied as it is.
    """
    new = copy.deepcopy(call)
    unet = new.unet
    if unet.config.time_cond_proj_dim is not None:
        return new
    unet.time_embedding.cond_proj = nn.Linear(dim, unet.conv_in.out_channels, bias=False).to(
        unet.conv_in.weight
    )
    nn.init.zeros_(unet.time_embedding.cond_proj.weight)
    unet.register_to_config(time_cond_proj_dim=dim)
    return new


def denoiser(call: UNetCall, scheduler_config: Mapping[str, Any]) -> Denoiser:
    """The U-Net with the schedule it was trained on, what it predicts, and its clock t ↦ N·t −
    1 (N = 1000).

    scheduler_config: `pipeline.scheduler.config`. Index n of the trained ladder sits at t = (n
    + 1)/N; times between indices reach the U-Net as fractions, which its sinusoidal embedding
    takes.
    """
    schedule = trained_schedule(scheduler_config)
    kind, steps = scheduler_config["prediction_type"], scheduler_config["num_train_timesteps"]
    require(
        kind in PREDICTS,
        f"denoiser: prediction_type {kind!r} in the scheduler's config; this adapter knows "
        f"{' and '.join(PREDICTS)} (Stable Diffusion 1.x, 2.x and XL): use weights of one of "
        "these families",
    )
    return Denoiser(call, schedule, PREDICTS[kind], clock=lambda t: steps * t - 1)


def trained_schedule(scheduler_config: Mapping[str, Any]) -> NoiseSchedule:
    """The ladder ᾱ_n that diffusers builds from this configuration, as a `discrete` schedule."""
    from diffusers import DDPMScheduler

    require(
        "beta_schedule" in scheduler_config and "num_train_timesteps" in scheduler_config,
        "denoiser: the scheduler's config states no β, so its noise levels are not a ladder "
        f"ᾱ_n ({scheduler_config.get('_class_name', 'no class named')}): these weights are of "
        "another formulation, such as EDM or flow matching, which this adapter does not know",
    )
    require(
        not scheduler_config.get("rescale_betas_zero_snr"),
        "denoiser: these weights were trained with zero terminal SNR "
        "(rescale_betas_zero_snr is true), where λ = −∞ at t = 1 and a discrete schedule has "
        "no level: use other weights",
    )
    wanted = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
    return discrete(
        DDPMScheduler(
            **{key: scheduler_config[key] for key in wanted if key in scheduler_config}
        ).alphas_cumprod
    )
