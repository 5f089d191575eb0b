"""The networks of a run: who is trained, who is frozen, who is an average, and how each is
spread over the processes.

Every network is wrapped by itself, never the method: a loss calls denoisers and does not know
about processes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from dlib import Denoiser, Recipe, frozen, recipes
from dlib.fit import average
from dlib.lora import adapters, load_adapters, twin
from full_scale.families.heads import judge
from full_scale.families.base import Family
from full_scale.run.settings import Settings
from full_scale.launch.processes import World


@dataclass
class Trained:
    """A trained network: `inner` itself, `module` as the losses call it, and its optimiser."""

    inner: nn.Module
    module: nn.Module
    optim: torch.optim.Optimizer

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """What is trained, by name: all of it, or the adapters."""
        return {name: p for name, p in self.inner.named_parameters() if p.requires_grad}

    def synchronise(self, on: bool) -> None:
        """Whether the next backward pass sums gradients over processes: only the last
        micro-batch's does.
        """
        if isinstance(self.module, DistributedDataParallel):
            self.module.require_backward_grad_sync = on
        elif hasattr(self.module, "set_requires_gradient_sync"):
            self.module.set_requires_gradient_sync(on)


@dataclass
class Averaged:
    """A moving average of a trained network, itself a network."""

    inner: nn.Module
    live: Trained
    decay: float
    count: int = 0

    @property
    def weights(self) -> dict[str, Tensor]:
        own = dict(self.inner.named_parameters())
        return {name: own[name] for name in self.live.weights}

    def update(self) -> None:
        """After each step of the live network; on this process's shards."""
        average(
            [local(p) for p in self.weights.values()],
            [local(p) for p in self.live.weights.values()],
            self.decay,
            self.count,
        )
        self.count += 1


@dataclass
class Cast:
    """Everyone in a run. `roles` is what the losses see."""

    roles: dict[str, Denoiser]
    trained: dict[str, Trained]
    averages: dict[str, Averaged] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint holds, as tensors that can be filled in place, apart from
        the step.
        """
        kept: dict[str, Any] = {
            "counts": {name: torch.tensor(mean.count) for name, mean in self.averages.items()}
        }
        for name, net in self.trained.items():
            kept[name] = {
                "weights": {key: p.detach() for key, p in net.weights.items()},
                "optim": _optim_state(net),
            }
        for name, mean in self.averages.items():
            kept[f"{name} average"] = {key: p.detach() for key, p in mean.weights.items()}
        return kept

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what is not shared with `state`: optimisers and counters. Weights were
        filled in place.
        """
        for name, net in self.trained.items():
            set_optimizer_state_dict(
                net.inner, net.optim, optim_state_dict=state[name]["optim"], options=_OPTIONS
            )
        for name, mean in self.averages.items():
            mean.count = int(state["counts"][name])

    @property
    def output(self) -> Denoiser:
        """The student as it is shown and exported: its average where there is one."""
        student = self.roles["student"]
        net = (
            self.averages["ema"].inner
            if "ema" in self.averages
            else self.trained["student"].inner
        )
        return frozen(replace(student, net=net))


_OPTIONS = StateDictOptions(ignore_frozen_params=True)


def _optim_state(net: Trained) -> dict[str, Any]:
    return get_optimizer_state_dict(net.inner, net.optim, options=_OPTIONS)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def build(family: Family, recipe: Recipe, s: Settings, world: World, dtype: torch.dtype) -> Cast:
    """The cast of a recipe around a family's network, which becomes the teacher, or the
    student where there is no teacher.
    """
    base = family.denoiser()
    torch.manual_seed(s.seed)  # of new weights: adapters and discriminators
    core, alone = base.net.to(world.device), recipe.roles == ("student",) and not s.lora_rank
    decays = {"target": s.target_decay if "target" in recipe.roles else 0.0, "ema": s.ema}
    ranks = {
        role: s.fake_rank if role == "fake" else s.lora_rank
        for role in recipe.trained
        if role != "discriminator"
    }
    listens = family.told_omega if s.method in recipes.TOLD_OMEGA else None
    nets = {role: _full(core, alone, listens) for role, rank in ranks.items() if not rank}
    if not alone:
        core.requires_grad_(False).to(dtype)  # a frozen network needs no float32
    nets |= {
        role: twin(core, rank, s.lora_alpha, s.lora_targets)
        for role, rank in ranks.items()
        if rank
    }
    if "discriminator" in recipe.trained:
        nets["discriminator"] = _judge(family, core, world)
    means = {name: _double(nets["student"], core, s) for name, decay in decays.items() if decay}
    cast = Cast({} if alone else {"teacher": replace(base, net=_shard(core, s, dtype))}, {})
    for role in recipe.trained:
        cast.trained[role] = _trained(_shard(nets[role].train(), s, dtype), s, world)
        cast.roles[role] = replace(base, net=cast.trained[role].module)
    for name, net in means.items():
        cast.averages[name] = Averaged(
            _shard(net, s, dtype), cast.trained["student"], decays[name]
        )
    if "target" in recipe.roles:
        mean = cast.averages.get("target")
        cast.roles["target"] = frozen(
            replace(base, net=mean.inner if mean else cast.trained["student"].inner)
        )
    return cast


def _full(core: nn.Module, alone: bool, listens: Callable | None) -> nn.Module:
    """A network all of whose weights are trained, in float32: a copy of the core, or the core
    itself where nobody else needs it.
    """
    return (
        (core if alone else listens(core) if listens else copy.deepcopy(core))
        .float()
        .requires_grad_(True)
    )


def _judge(family: Family, core: nn.Module, world: World) -> nn.Module:
    """A discriminator on the frozen core; an empty picture tells it the sizes."""
    null = {name: value[None].to(world.device) for name, value in family.null().items()}
    x = torch.zeros(1, *family.shape(family.size), device=world.device)
    return judge(core, family.stages(core), x, torch.zeros(1, device=world.device), null).to(
        world.device
    )


def _double(student: nn.Module, core: nn.Module, s: Settings) -> nn.Module:
    """A second student with the same values, for a moving average; a twin's double shares its
    base.
    """
    if not s.lora_rank:
        return copy.deepcopy(student).requires_grad_(False)
    double = twin(core, s.lora_rank, s.lora_alpha, s.lora_targets)
    load_adapters(double, adapters(student))
    return double.requires_grad_(False)


def _trained(net: nn.Module, s: Settings, world: World) -> Trained:
    if s.recompute:
        next(
            part for part in net.modules() if hasattr(part, "enable_gradient_checkpointing")
        ).enable_gradient_checkpointing()
    optim = torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad],
        lr=0.0,
        betas=s.betas,
        weight_decay=s.weight_decay,
    )
    return Trained(net, _replicate(net, s, world), optim)


def _shard(net: nn.Module, s: Settings, dtype: torch.dtype) -> nn.Module:
    """FSDP2: each entry of the network's lists of blocks, then the rest. Others are left
    whole.
    """
    if s.parallel != "fsdp":
        return net
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=dtype if dtype != torch.float32 else None)
    for block in blocks(net):
        fully_shard(block, mp_policy=policy)
    # else a network without backward pass stays whole
    return fully_shard(net, mp_policy=policy, reshard_after_forward=True)


def blocks(net: nn.Module) -> list[nn.Module]:
    """The entries of the outermost lists of modules: a U-Net's or a transformer's blocks."""
    found: list[nn.Module] = []
    for child in net.children():
        found += list(child) if isinstance(child, nn.ModuleList) else blocks(child)
    return [block for block in found if any(True for _ in block.parameters())]


def _replicate(net: nn.Module, s: Settings, world: World) -> nn.Module:
    """DDP around one network; alone, or under FSDP2, the network itself."""
    if s.parallel == "fsdp" or world.size == 1:
        return net
    devices = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(
        net, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
    )
