"""Who plays: the networks of a recipe, made from its parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from dlib._util import require
from dlib.denoiser import Denoiser, frozen, parameters
from dlib.recipes import Recipe
from dlib.training.averages import Ema


def unwrapped(net: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel wrapper, or the network itself."""
    return net.module if isinstance(net, nn.parallel.DistributedDataParallel) else net


class Judge:
    """Heads on the features of a denoiser's network: (x, time, cond) ↦ logits (B, k).

    backbone: the denoiser; its clock is the judge's. stages: the modules inside its network
    whose outputs are the features. net: features ↦ logits, a module: all that a judge trains.
    Where the backbone is trained too, one backward pass may serve both.
    """

    def __init__(self, backbone: Denoiser, stages: Sequence[nn.Module], net: nn.Module):
        self.backbone, self.stages, self.net = backbone, list(stages), net

    @property
    def clock(self) -> Callable:
        """What turns t into the network's time."""
        return self.backbone.clock

    def features(self, x: Tensor, time: Tensor, cond: Any) -> list[Tensor]:
        """The stages' outputs, in their order, in one call of the backbone's network."""
        found: dict[int, Any] = {}
        hooks = [
            stage.register_forward_hook(
                lambda module, given, out, place=place: found.__setitem__(place, out)
            )
            for place, stage in enumerate(self.stages)
        ]
        try:
            self.backbone.net(x, time, cond)
        finally:
            for hook in hooks:
                hook.remove()
        return [found[place] for place in range(len(self.stages))]

    def __call__(self, x: Tensor, time: Tensor, cond: Any = None) -> Tensor:
        return self.net(self.features(x, time, cond))

    def held(self, x: Tensor, time: Tensor, cond: Any = None) -> Tensor:
        """The same logits with constant weights, heads and backbone: gradients reach x alone.

        Wrappers are gone around, since nothing is to be summed over processes.
        """
        backbone = unwrapped(self.backbone.net)
        inside = Judge(replace(self.backbone, net=_constant(backbone)), self.stages, self.net)
        return _constant(unwrapped(self.net))(inside.features(x, time, cond))


def _constant(net: nn.Module) -> Callable:
    """The network with its parameters as constants. Sharded weights are left as they are: they
    gather themselves, and a phase's backward pass fills its own roles' gradients alone.
    """
    weights = dict(net.named_parameters())
    if any(hasattr(p, "to_local") for p in weights.values()):
        return net
    constants = {name: p.detach() for name, p in weights.items()}
    return lambda *given: torch.func.functional_call(net, constants, given)


class Roles(dict):
    """What the losses see, by role. A role that nobody plays is an error that says so; what
    was asked for is remembered in `read`.
    """

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.read: set[str] = set()

    def __getitem__(self, role: str) -> Any:
        self.read.add(role)
        return super().__getitem__(role)

    def __missing__(self, role: str) -> Any:
        raise ValueError(
            f"a loss asks for the role {role!r}, which nobody plays; there are {sorted(self)}: "
            f"name it in the recipe's parts"
        )


@dataclass
class Cast:
    """Everybody in a run. roles: what the losses see. means: the moving averages by name, each
    with the role that it follows; "ema" is the one of the student that is shown and exported.
    """

    roles: Roles
    means: dict[str, tuple[str, Ema]] = field(default_factory=dict)

    def follow(self, moved: set[str]) -> None:
        """Move the averages of the roles that have moved, and no others."""
        for of, mean in self.means.values():
            if of in moved:
                mean.update()


def plain_copy(role: str, teacher: Denoiser) -> Denoiser:
    """A trainable copy of the teacher: how a part "copy" comes to be unless told otherwise."""
    require(
        len(parameters(teacher.net)) > 0,
        f"cast: {role!r} starts as a copy of the teacher, whose network has no weights: pass "
        f"starts={{{role!r}: …}}",
    )
    return replace(teacher, net=copy.deepcopy(teacher.net).requires_grad_(True))


def cast(
    recipe: Recipe,
    teacher: Denoiser | None = None,
    *,
    starts: Mapping[str, Denoiser] | None = None,
    heads: Callable[[Denoiser], Judge] | None = None,
    given: Mapping[str, Any] | None = None,
    decays: Mapping[str, float] | None = None,
    ema: float = 0.0,
    wrap: Callable[[str, nn.Module], nn.Module] = lambda role, net: net,
) -> Cast:
    """The networks of a recipe, by role.

    teacher: plays "teacher", frozen, and is what copies start from. starts: denoisers for
    copies that start elsewhere; they are trained in place. heads: makes a `Judge` on a role's
    denoiser. given: what plays the parts "given". decays: of each part "mean"; at 0, or left
    out, it is the live role itself without gradient. ema: the decay of one more average of
    the student, in no loss; 0 is none. wrap: (role, network) ↦ the
    network as losses call it, for whoever spreads a run over processes.

    Raises ValueError, with the role's name, for anything handed in that the recipe has no part
    for, and for anything missing.
    """
    starts, given, decays = dict(starts or {}), dict(given or {}), dict(decays or {})
    _check(recipe, teacher, starts, heads, given, decays, ema)
    raw = {role: starts.get(role) or plain_copy(role, teacher) for role in recipe.play("copy")}
    means = {role: recipe.parts[role].of for role in recipe.play("mean") if decays.get(role)}
    named = {name: (of, decays[name]) for name, of in means.items()}
    named |= {"ema": ("student", ema)} if ema else {}
    averages = {name: (of, Ema(raw[of].net, decay)) for name, (of, decay) in named.items()}
    roles = Roles()
    for role in recipe.play("teacher"):
        roles[role] = replace(teacher, net=wrap(role, teacher.net))
    for role, model in raw.items():
        roles[role] = replace(model, net=wrap(role, model.net))
    for name, (of, mean) in averages.items():
        mean.net = wrap(name, mean.net)
        mean.follow(raw[of].net)
    for role in recipe.play("mean"):
        of = recipe.parts[role].of
        net = averages[role][1].net if role in averages else unwrapped(roles[of].net)
        roles[role] = frozen(replace(raw[of], net=net))
    for role in recipe.play("heads"):
        judge = heads(roles[recipe.parts[role].of])
        roles[role] = Judge(judge.backbone, judge.stages, wrap(role, judge.net))
    roles.update({role: given[role] for role in recipe.play("given")})
    roles.read.clear()
    return Cast(roles, averages)


def _check(recipe, teacher, starts, heads, given, decays, ema) -> None:
    """Raise ValueError for what was handed in and has no part, and for what is missing."""
    for what, mine, kind in (
        ("starts", starts, "copy"),
        ("given", given, "given"),
        ("decays", decays, "mean"),
    ):
        known = recipe.play(kind)
        odd = sorted(set(mine) - set(known))
        require(
            not odd,
            f"cast: {what} for {odd}, and this recipe's parts {kind!r} are {list(known)}: "
            "leave it out, or correct its name",
        )
    missing = [role for role in recipe.play("given") if role not in given]
    require(not missing, f"cast: nobody plays {missing}: pass given={{{missing[:1]}: …}}")
    alone = [role for role in recipe.play("copy") if role not in starts]
    asks = [*recipe.play("teacher"), *alone]
    require(teacher is not None or not asks, f"cast: {asks} need a teacher, and there is none")
    require(
        not ema or "student" in recipe.play("copy"),
        f"cast: ema = {ema:g} averages the role 'student', and this recipe trains "
        f"{list(recipe.trained)}, not it: leave ema out; an average that a loss reads is a part "
        'of the recipe, Part("mean", of=…)',
    )
    judges = recipe.play("heads")
    require(heads is not None or not judges, f"cast: pass heads=…, which makes {list(judges)}")
