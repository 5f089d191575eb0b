"""Which students are measured and how each is trained, as data.

A setting is a method in one world. `identity` is a hash of all that is set, so that a stored
score is known to be of this setting and no other; `toy_data.student_prints` is of the losses.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dlib import Recipe
from dlib._util import require
from dlib.recipes import METHODS, imm
from dlib.schedule import NoiseSchedule

RECIPES: dict[str, Callable[..., Recipe]] = METHODS | {"imm": imm}


@dataclass(frozen=True)
class Setting:
    """How one method's student is trained in one world, and asked.

    recipe: a name of `RECIPES`; hyper: its arguments. rounds: arguments that differ from round
    to round, each round's student being the next one's teacher; updates: of each round.
    batch, lr, decay: as `toy_data.distil` takes them. before: updates of ordinary diffusion
    training that come first, where the student does not start as the teacher. pairs: how many
    noise–end pairs are made, for a recipe that reads them. calls: network calls a sample.
    """

    method: str
    world: str
    recipe: str
    updates: tuple[int, ...]
    hyper: Mapping[str, Any] = field(default_factory=dict)
    rounds: tuple[Mapping[str, Any], ...] = ({},)
    batch: int = 512
    lr: float = 4e-3
    decay: float = 0.95
    before: int = 0
    pairs: int = 0
    calls: int = 1

    def __post_init__(self):
        require(
            self.recipe in RECIPES,
            f"Setting: no recipe {self.recipe!r}; there are {', '.join(sorted(RECIPES))}",
        )
        require(
            len(self.updates) == len(self.rounds),
            f"Setting: {len(self.updates)} numbers of updates for {len(self.rounds)} rounds: "
            "one for each",
        )

    @property
    def name(self) -> str:
        """world/method."""
        return f"{self.world}/{self.method}"

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits of all that is set, the recipe's own defaults included."""
        known = inspect.signature(RECIPES[self.recipe]).parameters.values()
        default = {p.name: p.default for p in known if p.kind == p.KEYWORD_ONLY}
        facts = asdict(self) | {"hyper": default | dict(self.hyper)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    def made(self, schedule: NoiseSchedule, null: Any, turn: int = -1) -> Recipe:
        """The recipe of round `turn`."""
        return RECIPES[self.recipe](schedule, null, **{**self.hyper, **self.rounds[turn]})

    def shorter(self, updates: int) -> Setting:
        """The same with at most `updates` updates a round, and as few pairs and updates
        before: for tests.
        """
        few = lambda n: min(n, updates)
        return replace(
            self,
            updates=tuple(map(few, self.updates)),
            before=few(self.before),
            pairs=min(self.pairs, 8 * updates),
        )


HALVINGS = tuple({"steps": n} for n in (32, 16, 8, 4, 2, 1))
ARCTAN = {"spacing": "arctan", "sigma_data": 1.0}
PLAIN = {"omega": (0.0, 0.0)}
TUNED = {"mean": -0.4, "std": 1.6}


def _gmm5() -> list[Setting]:
    """About 35 processor seconds each, 20 to 47 on a core that other programs used too; the tenth
    of the pairs has a tenth of that on purpose. Only what is said here departs from the recipes.
    """
    tuned = dict(before=1000, lr=2e-3)
    of = lambda method, recipe, updates, hyper, **more: Setting(
        method, "gmm5", recipe, (updates,), hyper, **more
    )
    return [
        of("knowledge", "knowledge", 4000, {}, pairs=65_536),
        of("knowledge, a tenth", "knowledge", 600, {}, pairs=4096, batch=256),
        Setting(
            "progressive",
            "gmm5",
            "progressive",
            (1400, 400, 400, 400, 400, 400),
            {"spacing": "arctan"},
            HALVINGS,
        ),
        of(
            "CD",
            "consistency_distillation",
            2900,
            ARCTAN | {"points": 18, "solver": "dpm_solver_3"},
        ),
        of("LCM", "lcm", 3400, PLAIN),
        of("TCD", "tcd", 3400, PLAIN),
        of("PCM, 4 phases", "pcm", 3400, PLAIN, calls=4),
        of("CT", "ct", 3400, ARCTAN | {"points": (10, 60), "growth": 2500}),
        of(
            "CT, SCT's target",
            "ct_reduced",
            2800,
            ARCTAN | {"points": (10, 60), "growth": 2000},
            batch=256,
        ),
        of("iCT", "ict", 3300, ARCTAN | {"points": (10, 80), "growth": 3300}, decay=0.0),
        of("ECT", "ect", 2800, TUNED | {"every": 500, "stages": 5}, **tuned),
        of(
            "sCD", "scm", 1200, {"rise": 500, "mean": -0.4, "sigma_data": 1.0}, decay=0.0, **tuned
        ),
        of(
            "sCT",
            "scm_training",
            1300,
            {"rise": 500, "mean": -0.4, "sigma_data": 1.0},
            decay=0.0,
            **tuned,
        ),
        of("IMM", "imm", 2800, {"group": 8, "halvings": 6}, decay=0.0, **tuned),
        of("SCT", "sct", 2800, TUNED | {"every": 500, "stages": 5.0}, batch=256, **tuned),
        Setting("guided", "labelled", "guided", (3000,), {"omega": (0.0, 4.0)}, calls=8),
    ]


def _world(
    world: str, batch: int, lr: float, spacing: str, pairs: int, n: dict[str, int], sigma: float
) -> list[Setting]:
    """A world of pictures: students that start as its teacher; n: updates, by what one costs."""
    grids = {"spacing": spacing}
    halvings = tuple({"steps": steps} for steps in (8, 4, 2, 1))
    staged = {"every": n["data"] // 4, "stages": 4} | TUNED
    boundary = {"sigma_data": sigma}
    slope = {"rise": n["slope"] // 3, "mean": -0.4, "sigma_data": sigma}
    how = dict(batch=batch, lr=lr)
    of = lambda method, recipe, updates, hyper, **more: Setting(
        method, world, recipe, (updates,), hyper, **how | more
    )
    return [
        of("knowledge", "knowledge", n["pairs"], {}, pairs=pairs),
        Setting(
            "progressive", world, "progressive", (n["step"] // 4,) * 4, grids, halvings, **how
        ),
        of("guided", "guided", n["step"], {"omega": (0.0, 4.0)}, calls=8),
        of("CD", "consistency_distillation", n["step"], boundary | {"points": 18}),
        of("LCM", "lcm", n["step"], grids | PLAIN),
        of("TCD", "tcd", n["step"], grids | PLAIN),
        of("PCM, 4 phases", "pcm", n["step"], grids | PLAIN, calls=4),
        of("CT", "ct", n["data"], boundary | {"points": (10, 60), "growth": n["data"]}),
        of(
            "iCT",
            "ict",
            n["data"],
            boundary | {"points": (10, 80), "growth": n["data"]},
            decay=0.0,
        ),
        of("ECT", "ect", n["data"], staged | {"huber_c": 0.03}, decay=0.9),
        of("sCD", "scm", n["slope"], slope, decay=0.0, lr=lr / 2),
        of("sCT", "scm_training", n["slope"], slope, decay=0.0, lr=lr / 2),
        of("IMM", "imm", n["data"], {"width": 4.0, "halvings": 6}, decay=0.0),
        of("SCT", "sct", n["data"], staged | {"huber_c": 0.03, "stages": 4.0}, decay=0.9),
    ]


SETTINGS = {
    setting.name: setting
    for setting in (
        *_gmm5(),
        *_world(
            "digits",
            128,
            5e-4,
            "time",
            4096,
            dict(pairs=900, step=500, data=600, slope=350),
            0.75,
        ),
        *_world(
            "shapes",
            32,
            3e-4,
            "sd_trailing",
            1024,
            dict(pairs=300, step=250, data=300, slope=150),
            0.5,
        ),
    )
}
"""world/method ↦ its setting."""
