"""What a run will need, as text: parameters, memory of a process, FLOP and time."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from full_scale.cost.needs import NODE, PARTS, PROCESS, Needs, fits, needs, precision
from full_scale.run.checks import check
from full_scale.run.settings import Settings, as_table, recipe_of

GPUS = {
    "RTX 4090": (165, 24),
    "A100 40 GB": (312, 40),
    "A100 80 GB": (312, 80),
    "H100": (989, 80),
    "H200": (989, 141),
}
"""Name → (the data sheet's dense bfloat16 TFLOP/s, its GB, which are 2³⁰ bytes)."""
MFU = 0.35
"""The assumed share of that peak which training reaches."""


def report(s: Settings, processes: int = 1) -> str:
    """Everything, as text. Raises ValueError for settings that could not be trained."""
    check(replace(s, data=s.data or Path("DATA")), processes)
    need = needs(s, processes)
    rows = [f"# settings\n{toml(as_table(s))}", "# parameters"]
    rows += [f"{f'{role}, trained':28}{count:>16,}" for role, count in need.trained.items()]
    rows += [f"{'frozen':28}{need.frozen:>16,}", f"{'averages':28}{need.averages:>16,}", ""]
    return "\n".join([*rows, *_memory(s, need, processes), "", *_time(s, need, processes)])


def _memory(s: Settings, need: Needs, processes: int) -> list[str]:
    ways = ("ddp", "fsdp", "hybrid")[: 2 + (processes > NODE)]
    ways = ways[:1] if s.lora_rank else ways  # adapters are not sharded
    row = lambda name, sizes: f"{name:28}" + "".join(f"{size / 1e9:>16.4g}" for size in sizes)
    rows = [
        f"# memory of one of {processes} process(es), GB",
        f"{'':28}" + "".join(f"{way:>16}" for way in ways),
    ]
    rows += [row(part, [need.memory[way][part] for way in ways]) for part in PARTS]
    rows += [row("at most", [need.peak(way, processes) for way in ways])]
    node = min(NODE, processes)
    host = need.host(s, processes, node)
    mapped = "prepared data are mapped, not read."
    rewarded = bool(recipe_of(s, None, None).play("given"))  # by who looks at pictures
    return rows + [
        "activations: the most that is alive during a micro-batch of "
        f"{s.micro}{', with recompute' if s.recompute else ''}. copies: of weights,",
        "by autocast or gathered by FSDP. Counted, not measured: CUDA itself, NCCL and "
        "fragmentation take 1 to 2 GB more.",
        f"A checkpoint takes {need.checkpoint / 1e9:.3g} GB on disk; room for {s.keep + 1} is "
        "needed.",
        "",
        f"# memory of the host of {node} process(es), GB",
        *(row(part, [size]) for part, size in host.items()),
        f"Python, CUDA and NCCL are assumed to take {PROCESS / 1e9:.3g} GB a process. Weights "
        "are read by every process",
        "for itself; a checkpoint is copied once, by the process that writes it"
        f"{'.' if s.parallel == 'ddp' else ', or in shards.'}",
        mapped.capitalize() if rewarded else f"Training decodes no pictures, and {mapped}",
    ]


def _time(s: Settings, need: Needs, processes: int) -> list[str]:
    flops = need.flops(s)
    rows = [
        "# work",
        *(
            f"{f'{name}, a row':28}{float(cost.flops) / s.micro / 1e12:>16.4g} "
            f"TFLOP{often(times)}"
            for name, times, cost in need.phases
        ),
        f"{f'a step of {s.batch} rows':28}{flops / 1e12:>16.4g} TFLOP",
        f"{f'{s.steps} steps':28}{flops * s.steps / 1e18:>16.4g} EFLOP",
        "",
    ]
    if precision(s) == torch.float32:
        return rows + ["no time is given for float32: the peaks that are assumed are bfloat16's"]
    rows += [
        f"# time of {processes} GPU(s), ASSUMING {MFU:.0%} of the data sheet's bfloat16 peak: "
        "an assumption, not a measurement"
    ]
    for name, (peak, room) in GPUS.items():
        seconds = flops / processes / (peak * 1e12 * MFU)
        said = "fits     " if fits(need, s, processes, room) else "too small"
        rows.append(
            f"{name:16}{room:>4} GB {said}{seconds:>10.3g} s a step"
            f"{seconds * s.steps / 3600:>10.3g} h in all"
        )
    return rows


def often(times: Fraction) -> str:
    """How often a step does something.

    >>> [often(Fraction(*some)) for some in ((1, 1), (2, 1), (1, 5), (4, 5))]
    ['', ', 2 times a step', ', every 5 steps', ', in 4 of 5 steps']
    """
    if times == 1:
        return ""
    if times.numerator == 1:
        return f", every {times.denominator} steps"
    if times < 1:
        return f", in {times.numerator} of {times.denominator} steps"
    return f", {float(times):.3g} times a step"


def toml(table: dict[str, Any]) -> str:
    """Settings as the TOML of a recipe file; what is not set is left out.

    >>> table = {"method": "lcm", "lr": 1e-4, "data": None, "hyper": {"omega": [5.0, 15.0]}}
    >>> print(toml(table), end="")
    method = "lcm"
    lr = 0.0001
    <BLANKLINE>
    [hyper]
    omega = [5.0, 15.0]
    """
    lines = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
        for name, value in table.items()
        if value is not None and name != "hyper"
    ]
    hyper = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
        for name, value in table.get("hyper", {}).items()
        if value is not None
    ]
    return "".join([*lines, *(["\n[hyper]\n"] if hyper else []), *hyper])
