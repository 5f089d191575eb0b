"""The networks of a run: who is trained, who is frozen, who is an average, and how each is spread
over the processes. Who plays is the recipe's to say, and `dlib.cast` makes them.

Every network is wrapped by itself, never the method: a loss calls denoisers and does not know
about processes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from dlib import Cast, Denoiser, Ema, Recipe, cast, frozen
from dlib.lora import twin
from dlib.training import Trained
from full_scale import launch
from full_scale.families import Family, named
from full_scale.families.heads import judge
from full_scale.launch import Processes
from full_scale.run import speed, start_lora
from full_scale.run.settings import Role, Settings, role_of
from full_scale.run.speed import channels_last, optimiser


class Spread(Trained):
    """A trained network on many processes: `inner` itself, `module` as the losses call it;
    `weights` is what is trained, by name: all of it, or the adapters.
    """

    def __init__(self, inner: nn.Module, module: nn.Module, optim: torch.optim.Optimizer):
        super().__init__(optim)
        self.inner, self.module = inner, module
        named = inner.named_parameters()  # once: a walk through a U-Net takes milliseconds
        self.weights = {name: p for name, p in named if p.requires_grad}

    def synchronise(self, on: bool) -> None:
        """Only the last backward pass of a phase sums gradients over processes."""
        if isinstance(self.module, DistributedDataParallel):
            self.module.require_backward_grad_sync = on
        elif hasattr(self.module, "set_requires_gradient_sync"):
            self.module.set_requires_gradient_sync(on)


@dataclass
class Company(Cast):
    """A recipe's cast with everything that a checkpoint holds of it."""

    trained: dict[str, Spread] = field(default_factory=dict)

    @property
    def averages(self) -> dict[str, Ema]:
        """The moving averages by name."""
        return {name: mean for name, (_, mean) in self.means.items()}

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint holds, as tensors that can be filled in place, apart from the
        step.
        """
        means = self.averages
        kept: dict[str, Any] = {
            "counts": {name: torch.tensor(mean.count) for name, mean in means.items()}
        }
        for name, net in self.trained.items():
            kept[name] = {
                "weights": {key: p.detach() for key, p in net.weights.items()},
                "optim": _optim_state(net),
            }
        for name, mean in means.items():
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
        means = self.averages
        net = means["ema"].net if "ema" in means else self.trained["student"].inner
        return frozen(replace(self.roles["student"], net=net))


def _adapted(core: nn.Module, own: Role, family: str) -> nn.Module:
    """A twin of the network. ValueError with what to type for layers that it does not have."""
    try:
        return twin(core, own.rank, own.alpha, own.targets)
    except ValueError as error:
        usual = " ".join(named(family).lora_targets)
        raise ValueError(f"{error}; those of family {family}: --lora-targets {usual}") from None


_OPTIONS = StateDictOptions(ignore_frozen_params=True)


def _optim_state(net: Spread) -> dict[str, Any]:
    return get_optimizer_state_dict(net.inner, net.optim, options=_OPTIONS)


def build(
    family: Family,
    recipe: Recipe,
    s: Settings,
    processes: Processes,
    dtype: torch.dtype,
    given: Mapping[str, Any] | None = None,
) -> Company:
    """The cast of a recipe around a family's network, which becomes the teacher, or the student
    where there is no teacher. given: what plays the recipe's parts "given".
    """
    begun = start_lora.read(family, s.start_lora) if s.start_lora else {}
    base = family.denoiser()
    if recipe.told_teacher and not family.told:  # a tiny one, or one that is only counted
        base = replace(base, net=family.told_omega(base.net))
    torch.manual_seed(s.seed)  # of new weights: adapters and heads
    core = base.net.to(processes.device)
    if s.parallel == "ddp":  # FSDP2 takes contiguous weights only
        channels_last(core)
    alone = set(recipe.play("copy", "teacher")) == {"student"} and not s.lora_rank
    whole = [role for role in recipe.play("copy") if not role_of(s, role).rank]
    nets = {role: _full(family, recipe, role, core, alone) for role in whole}
    starts = {role: replace(base, net=net) for role, net in nets.items()}
    if not alone:
        core.requires_grad_(False).to(dtype)  # a frozen network needs no float32
    for role in recipe.play("copy"):
        own = role_of(s, role)
        if own.rank:
            starts[role] = replace(base, net=_adapted(core, own, s.family))
    if begun:
        start_lora.begin(starts["student"].net, begun, family.lora_prefix, s.start_lora)
    inner: dict[str, nn.Module] = {}
    mesh = _mesh(s, processes)

    def wrap(role: str, net: nn.Module) -> nn.Module:
        inner[role] = _shard(net.train() if role in recipe.trained else net, s, dtype, mesh)
        if s.compile:  # in place: no weight gets another name
            inner[role].compile(backend=speed.BACKEND)
        return _replicate(inner[role], s, processes) if role in recipe.trained else inner[role]

    made = cast(
        recipe,
        None if alone else replace(base, net=core),
        starts=starts,
        heads=lambda on: judge(on, family, processes.device),
        given=given,
        decays={role: role_of(s, role).decay for role in recipe.play("mean")},
        ema=s.ema,
        wrap=wrap,
    )
    if s.recompute:  # heads send gradients through their backbone, trained or not
        through = [recipe.parts[role].of for role in recipe.play("heads")]
        for role in {*recipe.play("copy"), *through}:
            _recompute(inner[role])
    modules = {role: made.roles.get(role).net for role in recipe.trained}
    trained = {role: _trained(inner[role], modules[role], role, s) for role in recipe.trained}
    return Company(made.roles, made.means, trained)


def _full(family: Family, recipe: Recipe, role: str, core: nn.Module, alone: bool) -> nn.Module:
    """A network all of whose weights are trained, in float32: a copy of the core, or the core
    itself where nobody else needs it.
    """
    told = recipe.told and role == "student"
    net = core if alone else family.told_omega(core) if told else copy.deepcopy(core)
    return net.float().requires_grad_(True)


def _recompute(net: nn.Module) -> None:
    """Gradient checkpointing, as diffusers' networks know it."""
    for part in net.modules():
        if hasattr(part, "enable_gradient_checkpointing"):
            part.enable_gradient_checkpointing()
            return


def _trained(inner: nn.Module, module: nn.Module, role: str, s: Settings) -> Spread:
    own = role_of(s, role)
    leaves = [p for p in inner.parameters() if p.requires_grad]
    optim = optimiser(leaves, own, s.optimizer)
    return Spread(inner, module, optim)


def _mesh(s: Settings, processes: Processes) -> DeviceMesh | None:
    """Of hybrid sharding: (node, process of the node). A network is replicated along the first
    axis and sharded along the second. ValueError unless all nodes have as many processes.
    """
    if s.parallel != "hybrid":
        return None
    node = launch.node_size(processes)
    shape = processes.size // node, node
    return init_device_mesh(processes.device.type, shape, mesh_dim_names=("node", "process"))


def _shard(net: nn.Module, s: Settings, dtype: torch.dtype, mesh: DeviceMesh | None) -> nn.Module:
    """FSDP2: each entry of the network's lists of blocks, then the rest. Others stay whole.
    mesh: None is all processes in one row.
    """
    if s.parallel == "ddp":
        return net
    from torch.distributed.fsdp import MixedPrecisionPolicy

    # inputs stay as they are: bfloat16 would make of the time 999 another one, 1000
    half = dtype if dtype != torch.float32 else None
    policy = MixedPrecisionPolicy(param_dtype=half, cast_forward_inputs=False)
    for block in blocks(net):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # resharded after its forward pass, else a network without a backward pass stays whole
    return fully_shard(net, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def blocks(net: nn.Module) -> list[nn.Module]:
    """The entries of the outermost lists of modules: a U-Net's or a transformer's blocks."""
    found: list[nn.Module] = []
    for child in net.children():
        found += list(child) if isinstance(child, nn.ModuleList) else blocks(child)
    return [block for block in found if any(True for _ in block.parameters())]


def _replicate(net: nn.Module, s: Settings, processes: Processes) -> nn.Module:
    """DDP around one network; alone, or under FSDP2, the network itself."""
    if s.parallel != "ddp" or processes.size == 1:
        return net
    devices = [processes.device.index] if processes.device.type == "cuda" else None
    return DistributedDataParallel(
        net, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
    )
