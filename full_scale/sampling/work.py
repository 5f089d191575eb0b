"""What a request comes to once a family is open, and what is told of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlib import SOLVERS, Denoiser, NoiseLevel, Sampler, counted, guided
from dlib.guidance import contrasted
from dlib.solvers import Solver
from full_scale.families import Family
from full_scale.out import folder as output
from full_scale.sampling.request import Config, settled


@dataclass(frozen=True)
class Work:
    """What is settled before the first picture."""

    base: Denoiser
    model: Denoiser
    shape: tuple[int, ...]
    shown: Sampler
    levels: Sequence[NoiseLevel]
    solver: Solver
    prompts: list[str]
    cond: dict[str, Tensor]


def planned(
    config: Config, own: Sampler, family: Family, negative: Family | None, device: torch.device
) -> Work:
    """What `config` asks of a family; own: how it is sampled where no flag says otherwise."""
    base = counted(family.denoiser())
    shape = sized(family, config.height, config.width)
    shown = settled(config, own)
    levels, solver = shown.levels(base.schedule), SOLVERS[shown.solver]
    null = family.null(config.negative)
    prompts = [prompt for prompt in config.prompt for _ in range(config.n)]
    cond = family.encode_texts(prompts)
    if family.told:
        cond["omega"] = torch.full((len(prompts),), shown.omega, device=device)
    model = shown.wrap(base)
    if negative:
        other = base.net.counting(negative.denoiser().net)  # counted with the positive's calls
        model = contrasted(model, shown.wrap(replace(base, net=other)), shown.omega, null)
    elif shown.omega and not family.told:
        model = guided(model, shown.omega, null)
    return Work(base, model, shape, shown, levels, solver, prompts, cond)


def told(
    config: Config, family: Family, work: Work, names: Sequence[str], flags: Sequence[bool]
) -> dict[str, Any]:
    """What settings.json says; of a run that was stopped, `names` are what it finished."""
    net = next(family.net.parameters())
    return {
        "config": asdict(config) | asked(work.shown),
        "device": str(net.device),
        "dtype": str(net.dtype),
        "licence": family.licence,
        "safety_checker": family.checked,
        "asked": len(work.prompts),
        "pictures": [
            {"file": name, "prompt": prompt, "seed": config.seed + k, "flagged": flag}
            for k, (name, prompt, flag) in enumerate(zip(names, work.prompts, flags))
        ],
        **facts(work.base, work.levels, work.solver),
        "versions": output.versions(),
    }


def asked(shown: Sampler) -> dict[str, Any]:
    """What the flags were, or would have been."""
    names = ("solver", "steps", "end", "omega")
    return {"grid": shown.spacing} | {name: getattr(shown, name) for name in names}


def sized(family: Family, height: int | None, width: int | None) -> tuple[int, ...]:
    """The shape of one x0: the network's own size where none is asked for."""
    try:
        return family.shape(*(family.size if side is None else side for side in (height, width)))
    except ValueError as error:
        asked = {"--height": height, "--width": width}
        flags = " ".join(f"{flag} {side}" for flag, side in asked.items() if side is not None)
        raise ValueError(f"{flags}: {error}") from None


def facts(model: Denoiser, levels: Sequence[NoiseLevel], solver: Solver) -> dict[str, Any]:
    """What settings.json says about the method; `network_samples` counts a guided picture
    twice a call.
    """
    return {
        "predicts": model.predicts,
        "times": [level.t for level in levels],
        "solver": {
            fact: getattr(solver, fact) for fact in ("order", "calls", "history", "noisy")
        },
        "network_calls": model.net.calls,
        "network_samples": model.net.samples,
    }
