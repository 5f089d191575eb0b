"""What a training run can be asked: one typed record, from a TOML recipe and the command line,
checked before any work.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

import tyro

from dlib import NoiseSchedule, discrete, recipes, scaled_linear
from dlib._util import require
from full_scale.families import named
from full_scale.run import recipe_file
from full_scale.run.recipe_file import filled, nearest


Tuned = Literal["lr", "betas", "weight_decay", "clip", "schedule", "warmup", "dtype"]
"""Settings of how steps are taken, which `--change` names."""


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
    reward: str = ""
    """What methods with a reward follow: clip, pickscore, hps, aesthetic, compressibility,
    incompressibility, shapes, captions, colours or redness.
    """
    reward_weights: str = ""
    """A local folder with the reward's CLIP."""
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
    lora_targets: tuple[str, ...] = ()
    """Which modules get adapters: the ends of their names; the family's own unless given."""
    start_lora: Path | None = None
    """A LoRA file in diffusers' or kohya's names: the student's adapters begin as its own. They
    must be of rank --lora-rank, in layers that --lora-targets names.
    """
    lr: float = 1e-5
    """Learning rate of the student, and of every role whose table does not say otherwise."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit keeps AdamW's moments in 8 bits, a quarter of the memory; `pip install torchao`
    first.
    """
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
    drop: float = 0.1
    """Share of captions replaced by the null prompt."""
    parallel: Literal["ddp", "fsdp", "hybrid"] = "ddp"
    """fsdp shards weights, gradients and optimiser over all processes, hybrid over those of a
    node, each of which has a replica: for full weights on small cards.
    """
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of autocast and of frozen networks; auto is bfloat16 on a GPU. Trained weights and
    optimiser are float32.
    """
    compile: bool = False
    """torch.compile for every network: minutes at the start, faster steps. Not for methods with
    forward-mode derivatives or heads, nor with FSDP2.
    """
    exact: bool = False
    """On a GPU: no TF32, and the same kernels in every run. A run that is to be repeated bit by
    bit needs it, and is slower.
    """
    recompute: bool = False
    """Gradient checkpointing: less memory, a third more time."""
    change: tuple[Tuned, ...] = ()
    """Which settings of how steps are taken a resumed run changes, of the student and of roles;
    without it a changed one is refused.
    """
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
    skip_rows: tuple[int, ...] = ()
    """Rows of the data that are left out: a step that would read one reads the next instead.
    A resumed run keeps them.
    """
    held_out: int = 0
    """Rows at the end of the data that are never trained on, but validated on."""
    validate_every: int = 500
    """Steps between validations, if rows are held out."""
    show_every: int = 500
    """Steps between grids of pictures; 0 is none."""
    prompts: tuple[str, ...] = ()
    """What the grids show; some prompts of the family unless given."""
    wandb: str = ""
    """A Weights & Biases project to log to as well; `pip install wandb` first."""


def read(arguments: Sequence[str], prog: str = "python -m full_scale.train") -> Settings:
    """Settings from `[RECIPE.toml] [--name value …] [--hyper.name value …] [--roles.role.name
    value …]`; the command line wins. A reward that is typed takes no other reward's weights
    from the file.

    The result has two more fields: `hyper`, the method's own hyper-parameters, by the names of
    its function in `dlib.recipes`, and `roles`, what its other roles do not share with the
    student. Raises ValueError with the nearest known name for a key of
    the file that does not exist.
    """
    arguments = list(arguments)
    named_file = arguments and not arguments[0].startswith("-")
    table = recipe_file.table(arguments.pop(0)) if named_file else {}
    if (typed := _typed(arguments, "--method")) is not None:
        table["method"] = typed
    if _typed(arguments, "--reward") not in (None, table.get("reward")):
        table.pop("reward_weights", None)
    method, known = table.get("method", ""), sorted(recipes.METHODS)
    require(isinstance(method, str), f"recipe key method = {method!r}: wanted a text")
    require(
        method in known,
        (f"method {method!r} does not exist{nearest(method, known)}" if method else "no method")
        + "; name a recipe file (full_scale/recipes/*.toml) "
        f"or --method, one of {', '.join(known)}",
    )
    kind = with_hyper(method)
    s = tyro.cli(kind, args=arguments, default=filled(kind, table, "key"), prog=prog)
    targets = s.lora_targets or named(s.family).lora_targets
    return dataclasses.replace(s, lora_targets=targets)


def _typed(arguments: Sequence[str], flag: str) -> str | None:
    """The word that follows a flag, or stands behind its =; of several the last."""
    pairs = zip(arguments, [*arguments[1:], ""])
    own = [(w, after) for w, after in pairs if w == flag or w.startswith(f"{flag}=")]
    return (own[-1][0].partition("=")[2] or own[-1][1]) if own else None


@dataclass(frozen=True)
class Heads:
    """A role of trained heads; what is left out is as for the student."""

    lr: float | None = None
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    clip: float | None = None


@dataclass(frozen=True)
class Copy(Heads):
    """A role that starts as the teacher; what is left out is as for the student."""

    rank: int | None = None
    """0 trains all weights, r > 0 adapters of that rank."""
    alpha: float | None = None
    targets: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Mean:
    """A role that is a moving average."""

    decay: float = 0.0
    """0 is the live role itself, without gradient."""


TABLES = {"copy": Copy, "heads": Heads, "mean": Mean}


def with_hyper(method: str) -> type[Settings]:
    """`Settings` with the fields `hyper`, a record of the keyword parameters of the method's
    function, and `roles`, a table for each role beside the student that has anything to set.
    """
    function = recipes.METHODS[method]
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters.values()
    own = [(p.name, hints[p.name], p.default) for p in parameters if p.kind is p.KEYWORD_ONLY]
    parts = function(discrete(scaled_linear()), None).parts  # the same on any schedule
    tables = [
        (role, TABLES[part.play], field(default_factory=TABLES[part.play]))
        for role, part in parts.items()
        if part.play in TABLES and role != "student"
    ]
    made = {
        "hyper": dataclasses.make_dataclass("Hyper", own, frozen=True),
        "roles": dataclasses.make_dataclass("Roles", tables, frozen=True),
    }
    fields = [(name, kind, field(default_factory=kind)) for name, kind in made.items()]
    return dataclasses.make_dataclass("Settings", fields, bases=(Settings,), frozen=True)


class Role(NamedTuple):
    """What holds for one role."""

    lr: float
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    rank: int
    alpha: float
    targets: tuple[str, ...]
    decay: float


def role_of(s: Settings, role: str) -> Role:
    """A role's settings: its table's, else the student's."""
    student = Role(
        s.lr, s.betas, s.weight_decay, s.clip, s.lora_rank, s.lora_alpha, s.lora_targets, 0.0
    )
    table = vars(getattr(s.roles, role)) if hasattr(s.roles, role) else {}
    return student._replace(**{name: v for name, v in table.items() if v is not None})


def recipe_of(s: Settings, schedule: NoiseSchedule | None, null: Any) -> recipes.Recipe:
    """The recipe of these settings on a schedule, the family's own unless given, with a null
    condition.
    """
    schedule = schedule or named(s.family).schedule()
    return recipes.METHODS[s.method](schedule, null, **dataclasses.asdict(s.hyper))


def recipe_from(
    table: Mapping[str, Any], schedule: NoiseSchedule | None = None
) -> recipes.Recipe:
    """The recipe of a run that is read back: `as_table`'s values. On the family's own schedule
    unless given.
    """
    hyper = {k: tuple(v) if isinstance(v, list) else v for k, v in table["hyper"].items()}
    schedule = schedule or named(table["family"]).schedule()
    return recipes.METHODS[table["method"]](schedule, None, **hyper)


def learning_rate(s: Settings, role: str, step: int) -> float:
    """Of a role at a step (from 0): warm-up, then the chosen schedule."""
    rate = role_of(s, role).lr
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
