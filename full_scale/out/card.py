"""What an export says of itself: the scheduler that suits its method, and a model card with a
licence and a way to use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlib import vp
from dlib.recipes.base import many_steps
from full_scale.families import named
from full_scale.families.base import OWN as KEPT, Stock
from full_scale.out.lora_files import DIFFUSERS, KOHYA

OWN = """Stock diffusers samples it, by the scheduler of the weights: the code needs nothing of
this book. The command below it walks with `{solver}`: other pictures of the same model."""
SAME = """Stock diffusers samples it: the code needs nothing of this book, and makes the picture
that the command below it makes of the same noise."""
NEAR = """Stock diffusers comes near it: DDIMScheduler steps by {gap} indices from each of its
levels and not to the next one, since {steps} does not divide 1000. The command below the code
walks the levels that were trained."""
NOT = """No scheduler of diffusers makes this picture, by this solver on the levels that were
trained: `full_scale.sample` does."""
"""What a card says of stock diffusers."""
MANY = many_steps(vp()).solver
"""How a model is shown that no method made faster: its weights' own scheduler will do too."""


def scheduler(s: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """A class of diffusers and what to set in its configuration, for a run's settings with the
    facts of its `sampler`; "" keeps the weights' own, as where none makes the solver's pictures.
    """
    found = _known(s)
    return (found.name, found.more) if found else KEPT


def _known(s: Mapping[str, Any]) -> Stock | None:
    """What the family knows of the solver. Phases want TCDScheduler: with η = 0 it is
    deterministic DDIM through any indices that its call is given; DDIMScheduler takes none, and
    its own come near a phase's edges without being them.
    """
    sampler = s["sampler"]
    return named(s["family"]).stock.get("tcd" if _in_phases(sampler) else sampler["solver"])


def _in_phases(sampler: Mapping[str, Any]) -> bool:
    return sampler["solver"] == "ddim" and bool(sampler["times"]) and sampler["end"] == "grid"


def stock(s: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether stock diffusers samples this student, and the card's sentences about that.

    diffusers' DDIM steps from each of its n levels by ⌊1000/n⌋ indices, and meets the next one
    everywhere only if n divides 1000. TCD's takes the indices that it is given: whole numbers.
    """
    sampler, found = s["sampler"], _known(s)
    if sampler["solver"] == MANY:
        return True, OWN.format(**sampler)
    if found is None:
        return False, NOT
    steps, times = sampler["steps"], sampler["times"]
    if times:
        whole = all(abs(1000 * t - round(1000 * t)) < 1e-6 for t in times)
        one = steps == 1 and sampler["end"] == found.end
        walked = times[0] == 1 and whole and (one or _in_phases(sampler))
    else:
        walked = (sampler["spacing"], sampler["end"]) == (found.spacing, found.end)
    if not walked:
        return False, NOT
    if found.name == "DDIMScheduler" and 1000 % steps:
        return True, NEAR.format(steps=steps, gap=1000 // steps)
    return True, SAME


def edges(sampler: Mapping[str, Any]) -> list[int]:
    """The indices, of 1000, at which a phased student starts its jumps: the last trained one,
    then each edge but the clean one.
    """
    return [round(1000 * t - 1) for t in sampler["times"][:-1]]


def text(about: Mapping[str, Any], lora: bool) -> str:
    """README.md. about: what `full_scale.export` writes into settings.json."""
    s, licence = about["settings"], about["licence"]
    family = named(s["family"])
    base = s["weights"] or family.tiny_is
    hub = bool(s["weights"]) and not Path(s["weights"]).expanduser().exists()
    front = {
        "license": licence,
        "library_name": "diffusers" if family.pipeline else None,
        "pipeline_tag": "text-to-image",
        "base_model": base if hub else None,
        "tags": "[lora]" if lora else None,
    }
    head = "".join(f"{name}: {value}\n" for name, value in front.items() if value)
    form = "LoRA" if lora else "LoRA, added to the weights" if s["lora_rank"] else "all weights"
    return f"""---
{head}---
# {s["method"]}, {form}

The {about["what"]} after {about["step"]} steps of `{s["method"]}` on {base}.

{_files(s) if lora else _pipeline(s) if family.pipeline else _network(s)}
## Settings

| setting | value |
|---|---|
{_rows(s)}
`settings.json` has all of them, and the versions of the packages.

## Licence

{_licence(licence, base)}
"""


def _files(s: Mapping[str, Any]) -> str:
    name, more = scheduler(s)
    extra = "".join(f", {key}={value!r}" for key, value in more.items())
    swap = f"pipe.scheduler = {name}.from_config(pipe.scheduler.config{extra})\n" if name else ""
    pipeline, weights = named(s["family"]).pipeline, s["weights"] or "WEIGHTS"
    return f"""- `{DIFFUSERS}` for diffusers: `alpha / rank` is inside the factors, so the
  scale is 1.
- `{KOHYA}` for ComfyUI and other readers of kohya's names (put it into `models/loras`):
  `alpha` is stated layer by layer.

Both are float32 and hold the same update of the network; strength 1 is what was trained.
{_jumps(s)}
{
        _code(
            s,
            f'''from diffusers import {name + ", " if name else ""}{pipeline}

pipe = {pipeline}.from_pretrained("{weights}")
pipe.load_lora_weights(FOLDER, weight_name="{DIFFUSERS}")
{swap}''',
        )
    }
    python -m full_scale.sample {_model(s, weights)} --lora FOLDER/{DIFFUSERS} {_flags(s)}
"""


def _pipeline(s: Mapping[str, Any]) -> str:
    pipeline = named(s["family"]).pipeline
    return f"""A folder in diffusers' format, float32{
        ", with the scheduler that suits it" * stock(s)[0]
    }.
{_jumps(s)}
{
        _code(
            s,
            f'''from diffusers import {pipeline}

pipe = {pipeline}.from_pretrained(FOLDER)
''',
        )
    }
    python -m full_scale.sample {_model(s, "FOLDER")} {_flags(s)}
"""


def _code(s: Mapping[str, Any], opened: str) -> str:
    """How the student is sampled; with code, after `opened`, if stock diffusers does it."""
    able, said = stock(s)
    code = f"\n```python\n{opened}{_call(s)}\n```\n"
    return f"{said}\n{code if able else ''}"


def _phased(s: Mapping[str, Any]) -> bool:
    return stock(s)[0] and _in_phases(s["sampler"])


def _jumps(s: Mapping[str, Any]) -> str:
    if not _phased(s):
        return ""
    return f"""
It jumps from edge to edge of its {s["sampler"]["steps"]} phases, deterministically: pass the
`timesteps` below, not a number of steps. Index 0 is the last edge. Other schedulers only come
near the edges that it was trained on.
"""


def _network(s: Mapping[str, Any]) -> str:
    return f"""The weights of a network of this book, float32, which diffusers does not know:
`full_scale.families.open_family("{s["family"]}", FOLDER, device).denoiser()` opens it.

    python -m full_scale.sample {_model(s, "FOLDER")} {_flags(s)}
"""


def _call(s: Mapping[str, Any]) -> str:
    sampler = s["sampler"]
    steps = f"num_inference_steps={sampler['steps']}"
    if _phased(s):
        steps = f"timesteps={edges(sampler)}, eta=0.0"
    elif sampler["solver"] == "tcd":
        steps += ", eta=0.3"
    return (
        f'picture = pipe("{_prompt(s)}", {steps}, '
        f"guidance_scale={1 + sampler['omega']:g}).images[0]"
    )


def _prompt(s: Mapping[str, Any]) -> str:
    return (s["prompts"] or named(s["family"]).prompts)[0]


def _model(s: Mapping[str, Any], weights: str) -> str:
    return f"--family {s['family']} --weights {weights}"


def _flags(s: Mapping[str, Any]) -> str:
    """Solver, levels and ω are read from the `settings.json` beside the weights."""
    return f'--prompt "{_prompt(s)}"'


def _rows(s: Mapping[str, Any]) -> str:
    shown = ("batch", "lr", "schedule", "warmup", "clip", "ema", "drop", "seed")
    values = {name: s[name] for name in shown} | {
        f"hyper.{name}": value for name, value in s["hyper"].items()
    }
    values |= {
        f"roles.{role}.{name}": value
        for role, own in s["roles"].items()
        for name, value in own.items()
        if value is not None
    }
    if s["lora_rank"]:
        values |= {name: s[name] for name in ("lora_rank", "lora_alpha", "lora_targets")}
    return "".join(f"| {name} | `{value}` |\n" for name, value in values.items())


def _licence(licence: str | None, base: str) -> str:
    if licence is None:
        return (
            f"The card of the weights that this was trained from ({base}) states no "
            "licence: look for it before you pass this on."
        )
    return (
        f"The weights that this was trained from ({base}) are under `{licence}`. This is "
        "derived from them: read there what that asks of you."
    )
