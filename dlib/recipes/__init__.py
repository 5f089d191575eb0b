"""A method as data. The notebooks' `fit` and the full-scale engine run the same
phases.
"""

from dlib.recipes.base import Phase, Recipe, Roles
from dlib.recipes.consistency import (
    consistency_distillation,
    lcm,
    lcm_with_omega,
    pcm,
    pcm_adversarial,
)
from dlib.recipes.finetune import finetune
from dlib.recipes.score_distillation import diff_instruct, sds, swiftbrush

METHODS = {
    "finetune": finetune,
    "consistency_distillation": consistency_distillation,
    "lcm": lcm,
    "lcm_with_omega": lcm_with_omega,
    "pcm": pcm,
    "pcm_adversarial": pcm_adversarial,
    "sds": sds,
    "diff_instruct": diff_instruct,
    "swiftbrush": swiftbrush,
}
"""Every recipe by name: a function (schedule, null, *, hyper-parameters) ↦ Recipe."""

TEXT_ALONE = frozenset({"sds", "diff_instruct", "swiftbrush"})
"""The recipes that never look at a picture: their batches need conditions and the shape of x₀.
"""

TOLD_OMEGA = frozenset({"lcm_with_omega"})
"""The recipes whose student's condition carries ω, under "omega"."""

__all__ = [
    "METHODS",
    "TEXT_ALONE",
    "TOLD_OMEGA",
    "Phase",
    "Recipe",
    "Roles",
    "consistency_distillation",
    "diff_instruct",
    "finetune",
    "lcm",
    "lcm_with_omega",
    "pcm",
    "pcm_adversarial",
    "sds",
    "swiftbrush",
]
