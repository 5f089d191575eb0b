"""What preparing data, training, sampling and exporting ask of a kind of model."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from dlib import Batch, Denoiser, NoiseSchedule, discrete, scaled_linear
from full_scale.sources.pictures import picture

META = torch.device("meta")
OWN: tuple[str, dict[str, Any]] = ("", {})
"""In place of a scheduler's class and settings: the scheduler of the weights themselves."""


class Stock(NamedTuple):
    """A scheduler of diffusers: its class, what to set in its configuration, and the levels that
    it walks, by the spacing and the end that a `Sampler` of them has.
    """

    name: str
    more: Mapping[str, Any]
    spacing: str
    end: str


def deaf(family: str) -> ValueError:
    """What is wrong where a network with no input for ω is to be told it."""
    return ValueError(
        f"family {family}: its network has no input for ω, which this method gives it: add "
        "--method lcm, whose loss draws ω and does not tell the network"
    )


class Family(ABC):
    """A kind of model: what x0 and the condition are, and the network to train.

    A subclass answers everything that is abstract here; what is not has an answer that suits
    most. Its tensors live on its device. A condition is a mapping of tensors by name, batch
    first; they need not have a token axis.
    """

    name: ClassVar[str]
    """What `--family` takes."""
    x0_is: ClassVar[str]
    """What x0 is, in words."""
    tiny_is: ClassVar[str]
    """What `--tiny` opens, in words."""
    weights_are: ClassVar[str]
    """What `--weights` takes, in words."""
    pipeline: ClassVar[str | None] = None
    """The class of diffusers that opens what `save` wrote; None if diffusers has none."""
    stock: ClassVar[Mapping[str, Stock]] = {}
    """Solver ↦ the scheduler of diffusers that makes its pictures; other solvers have none."""
    lora_prefix: ClassVar[str | None] = None
    """What the names of a student's layers begin with, which readers of LoRA files expect too;
    None for a family whose students are exported as a whole.
    """
    lora_targets: ClassVar[tuple[str, ...]]
    """Which layers get adapters where a run does not say: the ends of their names."""
    prompts: ClassVar[tuple[str, ...]] = (
        "a lighthouse at dusk",
        "a bowl of lemons",
        "a red circle",
        "a snowy forest path",
    )
    """What a run's grids show where it names no prompts."""
    licence: str | None
    """Of the weights, as their card states it."""

    @classmethod
    @abstractmethod
    def open(cls, weights: str, device: torch.device, dtype: torch.dtype) -> Family:
        """With the network of `weights` in `dtype`. ValueError says what was found instead."""

    @classmethod
    @abstractmethod
    def tiny(cls, device: torch.device, dtype: torch.dtype) -> Family:
        """The small one that needs no weights: offline, in seconds."""

    @classmethod
    def blueprint(cls, weights: str | None) -> Blueprint:
        """Its networks without their weights; `weights` None is the tiny one's.

        Here a family is opened and copied; one of gigabytes reads configuration files instead.
        """
        cpu = torch.device("cpu")
        family = (
            cls.open(weights, cpu, torch.float32) if weights else cls.tiny(cpu, torch.float32)
        )
        return without_weights(family)

    @classmethod
    def side(cls, weights: str | None) -> int:
        """Pixels a side of the largest pictures that `sample` makes where no size is asked for;
        it reads no weights. None is the tiny model.
        """
        return 1024

    @classmethod
    def schedule(cls) -> NoiseSchedule:
        """The one that its published weights were trained on: what a recipe is made on before any
        weights are read. Stable Diffusion's ladder, unless a family says otherwise.
        """
        return discrete(scaled_linear())

    @property
    @abstractmethod
    def net(self) -> nn.Module:
        """The pretrained network: what is trained, wrapped and exported."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Pixels a side of the network's own pictures."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What prepared data must agree with, in JSON types: two families with equal
        identities can read each other's data. "family" is the name.
        """

    @property
    def told(self) -> bool:
        """Whether the network takes ω as an input, cond["omega"] (B,): it is a student."""
        return False

    @property
    def checked(self) -> bool:
        """Whether the weights have a safety checker."""
        return False

    @abstractmethod
    def shape(self, height: int, width: int | None = None) -> tuple[int, ...]:
        """Of one x0, for a picture of this many pixels; square unless a width is given.
        ValueError if there is none.
        """

    @abstractmethod
    def encode_pictures(self, pictures: Sequence[Image.Image], size: int) -> Tensor:
        """x0 (N, *shape) in float32; pictures of another size are scaled and cut as `fitted`
        says.
        """

    def encode_sizes(self, sides: Sequence[tuple[int, int]], size: int) -> dict[str, Tensor]:
        """Conditions of a picture and not of its text, from the (height, width) it had before it
        was scaled and cut to `size`. They have no empty form: guidance and dropout leave them
        as they are. Most networks are told nothing.
        """
        return {}

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The condition for each text. A text that is too long is cut, with a UserWarning."""

    def null(self, text: str = "") -> dict[str, Tensor]:
        """The condition ∅ that guidance and dropout use, or what takes its place for a
        negative prompt, without a batch axis.
        """
        return {name: rows[0] for name, rows in self.encode_texts([text]).items()}

    @abstractmethod
    def truncated(self, text: str) -> bool:
        """Whether the text is longer than the network reads."""

    @abstractmethod
    def pixels(self, x0: Tensor) -> Tensor:
        """The pictures (N, 3, height, width) of N x0, black −1 and white 1, with a gradient.

        A decoder may overshoot: nothing is clipped, since a clipped value has no gradient.
        """

    def outlined(self) -> Callable[[Tensor], Tensor]:
        """`pixels` on the meta device; here without a network."""
        return self.pixels

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Image.Image:
        """One x0 as a picture to look at."""
        return picture(self.pixels(x0[None])[0])

    def censor(self, pictures: Sequence[Image.Image]) -> tuple[list[Image.Image], list[bool]]:
        """The pictures, those black that the weights' own safety checker flags, and which they
        are. No checker, no flag.
        """
        return list(pictures), [False] * len(pictures)

    @abstractmethod
    def denoiser(self, net: nn.Module | None = None) -> Denoiser:
        """The pretrained network, or a `net` of its kind, as a `Denoiser`, whose net is a module
        around it.
        """

    @staticmethod
    @abstractmethod
    def stages(call: nn.Module) -> list[nn.Module]:
        """The parts of a denoiser's net whose outputs a discriminator reads."""

    @classmethod
    def told_omega(cls, call: nn.Module) -> nn.Module:
        """A copy of a denoiser's net that also takes ω; at first it does not listen. Of one that
        takes it already, a copy as it is.
        """
        raise deaf(cls.name)

    @abstractmethod
    def with_net(self, net: nn.Module) -> Family:
        """This family with another network of its kind, for which nothing is copied."""

    def kohya_name(self, layer: str) -> str:
        """What kohya's scripts, and whoever reads their files, call a layer of the network: for
        most families what diffusers calls it.
        """
        return layer

    def add_lora(self, file: Path, keep: float = 1.0, flag: str = "--lora") -> None:
        """Put a LoRA file on the networks. ValueError, which names the flag that was typed,
        unless all of it finds its place.

        keep: how much stays of a LoRA that is on them already.
        """
        raise ValueError(
            f"--family {self.name} takes no {flag}: its students are exported as a whole; pass "
            "their folder as --weights"
        )

    @abstractmethod
    def save(
        self, net: nn.Module, folder: Path, scheduler: tuple[str, Mapping[str, Any]] = OWN
    ) -> None:
        """Write this family with `net` for its network, so that `open` takes the folder. OSError
        where the disk does not take it.

        scheduler: a class of diffusers and what to set in its configuration, for families that
        diffusers opens.
        """


@dataclass(frozen=True)
class Blueprint:
    """A family without weights: those members of `Family` that building and running the
    networks of a run asks for, on the meta device.
    """

    kind: type[Family]
    base: Denoiser
    sides: tuple[int, ...]
    empty: dict[str, Tensor]
    pixels: Callable[[Tensor], Tensor]
    size: int = 0

    @property
    def told(self) -> bool:
        return False  # `told_omega` copies on the meta device, which costs nothing

    def denoiser(self) -> Denoiser:
        return self.base

    def shape(self, height: int) -> tuple[int, ...]:
        return self.sides

    def null(self) -> dict[str, Tensor]:
        return self.empty

    def stages(self, call: nn.Module) -> list[nn.Module]:
        return self.kind.stages(call)

    def told_omega(self, call: nn.Module) -> nn.Module:
        return self.kind.told_omega(call)

    def batch(self, rows: int, reads: str = "pictures") -> Batch:
        """A batch of the family's shapes, with what a recipe that `reads` this finds in it."""
        cond = {name: value.expand(rows, *value.shape) for name, value in self.empty.items()}
        x0 = torch.empty(rows, *self.sides, device=META)
        other = {"pairs": "noise", "preferences": "other"}
        more = {other[reads]: torch.empty_like(x0)} if reads in other else {}
        return Batch(x0, cond, **more)


def without_weights(family: Family) -> Blueprint:
    """The blueprint of a family that is open: its networks' copies on the meta device."""
    base = family.denoiser()
    return Blueprint(
        type(family),
        replace(base, net=copy.deepcopy(base.net).to(META)),
        family.shape(family.size),
        {name: torch.empty_like(value, device=META) for name, value in family.null().items()},
        family.outlined(),
    )
