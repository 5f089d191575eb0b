"""What a recipe is, as data: who plays, which losses move whom, how the student is sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from dlib._util import Draw, require
from dlib.denoiser import Denoiser, guided, identity
from dlib.grids import SPACINGS, grid
from dlib.losses import Batch, Loss
from dlib.schedule import CLEAN, NoiseLevel, NoiseSchedule
from dlib.solvers import SOLVERS, Solver, sample

Roles = Mapping[str, Any]
"""Role ↦ a `Denoiser`; for heads a `Judge`; for what is given whatever was handed in."""
Value = Callable[[Roles, Batch, Draw], Loss | Sequence[Callable[[], Loss]]]
"""(roles, batch, draws) ↦ the loss, or its parts, each a function that makes one. The parts
are added up and backed one at a time, so that a sum over T steps needs no T graphs.
"""


Play = Literal["copy", "teacher", "mean", "heads", "given"]
Reads = Literal["pictures", "texts", "pairs", "preferences"]


@dataclass(frozen=True)
class Part:
    """How a role comes to be.

    play: "copy" starts as the teacher and is trained; "teacher" is the teacher itself, frozen;
    "mean" is a moving average of the role `of`; "heads" are small trained networks on the
    features of the role `of`; "given" is handed in, as a reward is: any callable.
    """

    play: Play
    of: str = "student"

    def __post_init__(self):
        known = get_args(Play)
        require(self.play in known, f"Part: play = {self.play!r}; there are {', '.join(known)}")


STUDENT, TEACHER, TARGET = Part("copy"), Part("teacher"), Part("mean")


@dataclass(frozen=True)
class Phase:
    """Move the networks of `roles` down the gradient of `loss`, at every `every`-th step.

    Several roles share one backward pass: DMD2's fake score and its heads do.
    """

    roles: tuple[str, ...]
    loss: Value
    every: int = 1

    def __init__(self, roles: str | Sequence[str], loss: Value, every: int = 1):
        roles = (roles,) if isinstance(roles, str) else tuple(roles)
        require(len(roles) > 0, "Phase: no roles: name at least one that the loss trains")
        require(
            len(set(roles)) == len(roles),
            f"Phase: roles = {roles}: one that comes twice would be moved twice: name each once",
        )
        require(
            every >= 1,
            f"Phase: every = {every}, wanted at least 1: the phase runs at every {every}-th step",
        )
        for name, value in (("roles", roles), ("loss", loss), ("every", every)):
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """Its first role: what its metrics are called after."""
        return self.roles[0]


def solver_named(method: str, name: str) -> Solver:
    """The solver of this name; ValueError, in the name of `method`, if there is none."""
    require(
        name in SOLVERS, f"{method}: no solver {name!r}; there are {', '.join(sorted(SOLVERS))}"
    )
    return SOLVERS[name]


def step_named(method: str, name: str) -> Solver:
    """The solver of this name with which a teacher takes a single step of its path, for
    `method`; ValueError for one that there is not, that has a memory or that adds noise.
    """
    known = [key for key, step in SOLVERS.items() if step.memoryless and not step.noisy]
    require(
        name in known,
        f"{method}: no solver {name!r} for a step of the teacher; there are {', '.join(known)}",
    )
    return SOLVERS[name]


def at_least_one(method: str, **given: float) -> None:
    """Raise ValueError, with the method's and the argument's name, for anything but a whole
    number from 1 on.
    """
    for name, value in given.items():
        require(value >= 1, f"{method}: {name} = {value:g}, wanted at least 1")
        require(value % 1 == 0, f"{method}: {name} = {value:g}, wanted a whole number")


@dataclass(frozen=True)
class Sampler:
    """How a recipe's student is sampled: one value for the chapter, the grids, the card and
    the export.

    solver: a name of `SOLVERS`. spacing, steps, end: the levels, as `dlib.grid` makes them;
    end "clean" takes the last step to σ = 0. times: the levels' times themselves, where a
    grid's name does not give them: the edges of phases. omega: the guidance, or what a student
    that is told ω is told. wrap: what is put around the student first, a boundary for example.
    """

    solver: str
    spacing: str
    steps: int
    end: Literal["clean", "grid"] = "clean"
    omega: float = 0.0
    times: tuple[float, ...] | None = None
    wrap: Callable[[Denoiser], Denoiser] = identity

    def __post_init__(self):
        solver_named("Sampler", self.solver)
        require(
            self.spacing in SPACINGS and self.end in ("clean", "grid"),
            f"Sampler: spacing = {self.spacing!r}, end = {self.end!r}; there are "
            f"{', '.join(SPACINGS)}, and an end 'clean' or 'grid'",
        )
        require(self.steps >= 1, f"Sampler: steps = {self.steps}, wanted at least 1")
        times = self.times
        require(
            times is None
            or (len(times) == self.steps + 1 and all(a > b for a, b in zip(times, times[1:]))),
            f"Sampler: times = {times}, wanted {self.steps + 1} of them, from noise to data: "
            "one more than steps",
        )

    @property
    def facts(self) -> dict[str, Any]:
        """All but `wrap`, in JSON types: what an export says of itself."""
        times = None if self.times is None else list(self.times)
        return {"times": times} | {
            name: getattr(self, name) for name in ("solver", "spacing", "steps", "end", "omega")
        }

    def levels(self, schedule: NoiseSchedule) -> list[NoiseLevel]:
        """The `steps` + 1 levels, from noise to data."""
        times = grid(schedule, self.steps, self.spacing) if self.times is None else self.times
        levels = schedule.levels(times)
        return [*levels[:-1], CLEAN] if self.end == "clean" else levels

    def __call__(
        self,
        student: Denoiser,
        x: Tensor,
        cond: Any = None,
        *,
        null: Any = None,
        draw: Draw | None = None,
    ) -> Tensor:
        """Samples (B, *shape) from the noise x; null is needed where `omega` guides."""
        model = self.wrap(student)
        model = guided(model, self.omega, null) if self.omega else model
        return sample(
            model, x, self.levels(model.schedule), SOLVERS[self.solver], cond=cond, draw=draw
        )


def many_steps(schedule: NoiseSchedule) -> Sampler:
    """20 guided steps of DPM-Solver++(2M): how a model is shown that no method made faster. On
    straight paths, where α = 0 at the start, on Stable Diffusion 3's times.
    """
    spacing = "karras" if schedule.at(1.0).alpha > 0 else "sd3"
    return Sampler("dpm_solver_pp_2m", spacing, 20, omega=6.5)


@dataclass(frozen=True)
class Recipe:
    """A method: its phases in order, who plays in them, and what else is a fact of the method.

    parts: role ↦ how it comes to be; a phase's roles are trained, each by an optimiser of its
    own. sampler: how its student is sampled. reads: what a row must hold: "pictures",
    "texts" alone, "pairs" of noise and sample, or "preferences" (a picture and a worse one).
    told: whether the student's condition carries ω under "omega"; told_teacher: whether the
    teacher's does as well, because it was the student of such a recipe. slopes: the roles
    whose derivative a loss takes in forward mode (`dlib.forward_mode`), in full precision.

    Methods that roll out first: `before(roles, batch, draw)` makes the memo of every
    micro-batch without gradient; `pool(memos, gather)` then sees all of this process's memos
    and, through `gather`, everybody's rows, and returns the memos that the losses find in
    `batch.memo`. `epochs`: how often the phases go over one memo. group: how many samples each
    prompt gets: the batch holds every prompt `group` times.

    Raises ValueError for a role that is trained and cannot be, that nobody casts, or that
    nobody trains, for an average of a role that does not move or is none of the model's own
    networks, and for the role "ema", which is the name of the average that a run shows.
    """

    phases: tuple[Phase, ...]
    parts: Mapping[str, Part]
    sampler: Sampler | None = None
    reads: Reads = "pictures"
    told: bool = False
    told_teacher: bool = False
    slopes: tuple[str, ...] = ()
    before: Callable[[Roles, Batch, Draw], dict[str, Any]] | None = None
    pool: Callable[[list[dict[str, Any]], Callable], list[dict[str, Any]]] | None = None
    epochs: int = 1
    group: int = 1

    @property
    def trained(self) -> tuple[str, ...]:
        """The roles that are trained, each once, in the order of the phases."""
        return tuple(dict.fromkeys(role for phase in self.phases for role in phase.roles))

    def play(self, *kinds: str) -> tuple[str, ...]:
        """The roles of these kinds, in the parts' order: `recipe.play("mean")`."""
        return tuple(role for role, part in self.parts.items() if part.play in kinds)

    def __post_init__(self):
        cast, trained = list(self.parts), self.trained
        for role in trained:
            require(
                role in self.parts,
                f"Recipe: a phase trains {role!r}, which nobody casts; parts: {cast}: add "
                f'{role!r}: Part("copy"), or Part("heads", of=…)',
            )
            require(
                self.parts[role].play in ("copy", "heads"),
                f"Recipe: a phase trains {role!r}, whose part is {self.parts[role].play!r}: only "
                '"copy" and "heads" are trained',
            )
        for role, part in self.parts.items():
            require(
                part.play not in ("copy", "heads") or role in trained,
                f"Recipe: {role!r} is a part {part.play!r} that no phase trains: make it "
                'Part("teacher") if it stays as it is, or leave it out',
            )
            require(
                part.play not in ("mean", "heads") or part.of in self.parts,
                f"Recipe: {role!r} is of {part.of!r}, which nobody casts; parts: {cast}",
            )
            require(
                part.play != "heads" or self.parts[part.of].play in ("copy", "teacher", "mean"),
                f"Recipe: {role!r} are heads on {part.of!r}, which has no network of the "
                "teacher's kind to read: name the role of a copy, teacher or mean",
            )
            require(
                part.play != "mean" or part.of in trained,
                f"Recipe: {role!r} is an average of {part.of!r}, which no phase trains, so it "
                'would never move: use Part("teacher")',
            )
            require(
                part.play != "mean" or self.parts[part.of].play == "copy",
                f"Recipe: {role!r} is an average of {part.of!r}, which are heads: only a part "
                '"copy" has averages',
            )
        require(
            "ema" not in self.parts,
            'Recipe: a part is named "ema", as the average is that a run shows and exports: give '
            "it another name",
        )
        require(
            self.reads in get_args(Reads),
            f"Recipe: reads = {self.reads!r}; there are {', '.join(get_args(Reads))}",
        )
        odd = [role for role in self.slopes if role not in self.parts]
        require(not odd, f"Recipe: slopes of {odd}, which nobody casts; parts: {cast}")
        for name in ("epochs", "group"):
            require(
                getattr(self, name) >= 1,
                f"Recipe: {name} = {getattr(self, name)}, wanted at least 1",
            )
        require(
            self.pool is None or self.before is not None,
            "Recipe: pool without before: there are no memos to pool",
        )
