"""A method as data: `perform` in the notebooks and the full-scale engine run one recipe."""

from dlib.recipes.base import Part, Phase, Recipe, Roles, Sampler
from dlib.recipes.bootstrapping import ct, ect, ict
from dlib.recipes.continuous_time import scm, scm_training
from dlib.recipes.distilled_consistency import (
    consistency_distillation,
    lcm,
    lcm_with_omega,
    pcm,
    pcm_adversarial,
)
from dlib.recipes.finetuning import finetune
from dlib.recipes.forward_process import nft
from dlib.recipes.guiding import guided
from dlib.recipes.halving import knowledge, progressive, progressive_with_omega
from dlib.recipes.phased_consistency import pcm_normalcfg
from dlib.recipes.inductive import imm
from dlib.recipes.preferences import dpo
from dlib.recipes.rewards import ddpo, flow_grpo, reward_gradient
from dlib.recipes.score_distillation import diff_instruct, sds, swiftbrush
from dlib.recipes.trajectory_consistency import tcd
from dlib.recipes.stable_consistency import ct_reduced, sct

METHODS = {
    "finetune": finetune,
    "consistency_distillation": consistency_distillation,
    "lcm": lcm,
    "lcm_with_omega": lcm_with_omega,
    "pcm": pcm,
    "pcm_adversarial": pcm_adversarial,
    "guided": guided,
    "knowledge": knowledge,
    "progressive": progressive,
    "progressive_with_omega": progressive_with_omega,
    "pcm_normalcfg": pcm_normalcfg,
    "ct": ct,
    "ict": ict,
    "ect": ect,
    "scm": scm,
    "scm_training": scm_training,
    "sct": sct,
    "ct_reduced": ct_reduced,
    "sds": sds,
    "diff_instruct": diff_instruct,
    "swiftbrush": swiftbrush,
    "tcd": tcd,
    "reward_gradient": reward_gradient,
    "ddpo": ddpo,
    "flow_grpo": flow_grpo,
    "nft": nft,
    "dpo": dpo,
}
"""Every recipe that the engine runs, by name: a function (schedule, null, *,
hyper-parameters) ↦ Recipe. `imm` is for notebooks alone: it compares rows in groups, and the
engine draws row by row.
"""

__all__ = [
    "METHODS",
    "Part",
    "Phase",
    "Recipe",
    "Roles",
    "Sampler",
    "consistency_distillation",
    "ct",
    "ct_reduced",
    "diff_instruct",
    "ect",
    "finetune",
    "guided",
    "ict",
    "imm",
    "knowledge",
    "lcm",
    "lcm_with_omega",
    "pcm",
    "pcm_adversarial",
    "pcm_normalcfg",
    "progressive",
    "progressive_with_omega",
    "scm",
    "scm_training",
    "sct",
    "sds",
    "swiftbrush",
    "tcd",
    "ddpo",
    "dpo",
    "flow_grpo",
    "nft",
    "reward_gradient",
]
