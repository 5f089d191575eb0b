"""What a training run can be asked: one typed record, from a TOML recipe and the command line,
checked before any work.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import tyro

from dlib import NoiseSchedule, discrete, recipes, scaled_linear
from dlib._util import require

RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class Settings:
    """Train a method of the book."""

    method: str
    """A function of dlib.recipes."""
    data: Path | None = None
    """What `python -m full_scale.prepare` wrote."""
    family: str = "sd"
    """The kind of model: a name of full_scale.families.base."""
    weights: str | None = None
    """The teacher and start: a folder in diffusers' format or a hub id."""
    tiny: bool = False
    """The random tiny pipeline instead of weights: every line of the run on a CPU in seconds,
    learning nothing.
    """
    out: Path = Path("runs/train")
    """Checkpoints, logs and pictures. A folder with checkpoints is resumed."""
    steps: int = 10_000
    """Optimiser steps of the student."""
    batch: int = 64
    """Rows of one step, over all processes. It must not change when a run is resumed."""
    micro: int = 8
    """Rows of one backward pass of one process; memory, not results, depends on it."""
    lora_rank: int = 0
    """0 trains all weights; r > 0 trains adapters of rank r on a frozen base."""
    lora_alpha: float = 64.0
    """The adapters' product is scaled by alpha / rank."""
    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Which modules get adapters: the ends of their names."""
    fake_rank: int = 64
    """The fake score is always an adapter on the frozen base, of this rank."""
    lr: float = 1e-5
    """Learning rate of the student."""
    lr_fake: float = 1e-3
    """Learning rate of the fake score, for methods that train one."""
    lr_discriminator: float = 1e-5
    """Learning rate of the discriminator, for methods that train one."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's."""
    weight_decay: float = 0.0
    """AdamW's, decoupled."""
    clip: float = 1.0
    """Largest gradient norm of a phase; 0 never clips."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the learning rate goes after the warm-up: cosine and linear end at 0."""
    warmup: int = 0
    """Steps over which the learning rate rises from 0."""
    ema: float = 0.0
    """Decay of the average that is exported and shown; 0 uses the student itself."""
    target_decay: float = 0.0
    """Decay of the target network, for methods that have one; 0 is the student itself, without
    gradient.
    """
    drop: float = 0.1
    """Share of captions replaced by the null prompt."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """fsdp shards weights, gradients and optimiser over processes: for full weights on small
    cards.
    """
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of autocast and of frozen networks; auto is bfloat16 on a GPU. Trained weights and
    optimiser are float32.
    """
    recompute: bool = False
    """Gradient checkpointing: less memory, a third more time."""
    device: str = "auto"
    """auto is cuda where there is one, else cpu."""
    seed: int = 0
    """Of the data's order, of all noise and of new weights."""
    save_every: int = 500
    """Steps between checkpoints. SIGTERM and SIGUSR1 save at once."""
    keep: int = 2
    """Checkpoints kept: the last ones."""
    log_every: int = 10
    """Steps between lines in the log."""
    show_every: int = 500
    """Steps between grids of pictures; 0 is none."""
    prompts: tuple[str, ...] = (
        "a lighthouse at dusk",
        "a bowl of lemons",
        "a red circle",
        "a snowy forest path",
    )
    """What the grids show."""
    sampler: str = "lcm"
    """The solver of the grids."""
    sampler_grid: str = "lcm"
    """Its spacing."""
    sampler_steps: int = 4
    """Its steps."""
    sampler_omega: float = 0.0
    """Its guidance."""
    told_omega: float = 8.0
    """The ω that the grids tell a student who is told."""
    wandb: str = ""
    """A Weights & Biases project to log to as well; `pip install wandb` first."""


def read(arguments: Sequence[str], prog: str = "python -m full_scale.train") -> Settings:
    """Settings from `[RECIPE.toml] [--name value …] [--hyper.name value …]`; the command line
    wins.

    The result has one more field, `hyper`: the method's own hyper-parameters, by the names of
    its function in `dlib.recipes`. Raises ValueError with the nearest known name for a key of
    the file that does not exist.
    """
    arguments = list(arguments)
    table = _toml(arguments.pop(0)) if arguments and not arguments[0].startswith("-") else {}
    if "--method" in arguments:
        table["method"] = arguments[arguments.index("--method") + 1]
    method = table.get("method", "")
    known = sorted(recipes.METHODS)
    require(
        method in known,
        f"method {method!r} does not exist{nearest(method, known)}: name a recipe file "
        "(full_scale/recipes/*.toml) "
        f"or --method, one of {', '.join(known)}",
    )
    kind = with_hyper(method)
    return tyro.cli(kind, args=arguments, default=_filled(kind, table, "key"), prog=prog)


def with_hyper(method: str) -> type[Settings]:
    """`Settings` with the field `hyper`, a record of the keyword parameters of the method's
    function.
    """
    function = recipes.METHODS[method]
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters.values()
    own = [(p.name, hints[p.name], p.default) for p in parameters if p.kind is p.KEYWORD_ONLY]
    hyper = dataclasses.make_dataclass("Hyper", own, frozen=True)
    return dataclasses.make_dataclass(
        "Settings",
        [("hyper", hyper, field(default_factory=hyper))],
        bases=(Settings,),
        frozen=True,
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """`: did you mean …?` for a misspelt name, or nothing if none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {found[0]!r}?" if found else ""


def _toml(path: str) -> dict[str, Any]:
    file = Path(path)
    file = file if file.exists() or file.suffix else RECIPES / f"{path}.toml"
    require(
        file.is_file(),
        f"no recipe file {path}; there are "
        f"{', '.join(sorted(f.stem for f in RECIPES.glob('*.toml')))} (by name), or give a path",
    )
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file} is not TOML: {error}") from None


def _filled(kind: type, table: Mapping[str, Any], what: str) -> Any:
    """An instance of the record with the table's values, lists as tuples. ValueError for a
    name that it does not have.
    """
    names = {f.name: f for f in dataclasses.fields(kind)}
    values = {}
    for name, value in table.items():
        require(
            name in names,
            f"recipe {what} {name!r} does not exist{nearest(name, names)}; there are "
            f"{', '.join(names)}",
        )
        if name == "hyper":
            value = _filled(names[name].default_factory, value, "key hyper.")
        elif name in ("data", "out"):
            value = Path(value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def check(s: Settings, world: int = 1) -> None:
    """Raise ValueError for what can be wrong before weights or data are read; `world` is the
    number of processes.
    """
    require(
        s.data is not None,
        "--data is missing: the folder that `python -m full_scale.prepare` wrote",
    )
    require(
        bool(s.weights) != s.tiny,
        f"{'both --weights and --tiny' if s.tiny else 'neither --weights nor --tiny'} given: "
        "pass exactly one of them",
    )
    for name in ("steps", "batch", "micro", "save_every", "keep", "log_every"):
        require(
            getattr(s, name) >= 1,
            f"--{name.replace('_', '-')} {getattr(s, name)}: wanted at least 1",
        )
    for name in ("ema", "target_decay", "drop"):
        require(
            0 <= getattr(s, name) < 1,
            f"--{name.replace('_', '-')} {getattr(s, name):g} is outside [0, 1)",
        )
    require(
        s.batch % (world * s.micro) == 0,
        f"--batch {s.batch} is not a multiple of {world} process(es) × --micro {s.micro}: try "
        "--batch "
        f"{max(1, round(s.batch / (world * s.micro))) * world * s.micro}, or another --micro",
    )
    require(
        not (s.parallel == "fsdp" and s.lora_rank),
        "--parallel fsdp with --lora-rank: adapters are small, so LoRA runs use ddp; "
        "drop one of the two",
    )
    require(
        not (s.parallel == "fsdp" and s.method == "pcm_adversarial"),
        "--parallel fsdp with pcm_adversarial: its discriminator reads the teacher's "
        "inner stages, which fsdp keeps in pieces: use --parallel ddp",
    )
    require(
        s.sampler_grid != "pcm"
        or "phases" not in vars(s.hyper)
        or (s.hyper.phases, s.hyper.steps, s.hyper.spacing)
        == (s.sampler_steps, 50, "sd_trailing"),
        "--sampler-grid pcm shows the edges of --sampler-steps phases cut from 50 sd_trailing "
        "steps, and --hyper trains others: pass "
        f"--sampler-steps {getattr(s.hyper, 'phases', 4)}, or another --sampler-grid",
    )
    require(
        not (s.lora_rank and s.method in recipes.TOLD_OMEGA),
        f"--lora-rank with {s.method}: adapters have no input for ω; use --method lcm",
    )


def recipe_of(s: Settings, schedule: NoiseSchedule | None, null: Any) -> recipes.Recipe:
    """The recipe of these settings on a schedule with a null condition."""
    schedule = discrete(scaled_linear()) if schedule is None else schedule
    return recipes.METHODS[s.method](schedule, null, **dataclasses.asdict(s.hyper))


def learning_rate(s: Settings, role: str, step: int) -> float:
    """Of a role at a step (from 0): warm-up, then the chosen schedule."""
    rate = s.lr if role == "student" else getattr(s, f"lr_{role}")
    rise = min(1.0, (step + 1) / max(s.warmup, 1))
    past = max(0, step - s.warmup) / max(1, s.steps - s.warmup)
    fall = {"constant": 1.0, "linear": 1 - past, "cosine": 0.5 * (1 + math.cos(math.pi * past))}[
        s.schedule
    ]
    return rate * rise * fall


def as_table(s: Settings) -> dict[str, Any]:
    """The settings as JSON values: what is saved beside a run, and compared when it is
    resumed.
    """
    return json.loads(json.dumps(dataclasses.asdict(s), default=str))
