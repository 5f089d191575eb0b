"""The networks of a run without their weights: on the meta device, as the family says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from dlib import Recipe
from full_scale.cost.counting import META
from full_scale.families import named
from full_scale.families.base import Blueprint
from full_scale.launch import Processes
from full_scale.run.cast import Company, build
from full_scale.run.given import given_roles
from full_scale.run.settings import Settings, recipe_of
from full_scale.run.student import root


def blueprint(s: Settings) -> Blueprint:
    """Of the settings' family and weights, or of what the run that they name began with, and
    with the shape of the data where these exist.
    """
    plan = named(s.family).blueprint(root(None if s.tiny else s.weights))
    info = s.data / "info.json" if s.data else Path()
    return (
        replace(plan, sides=tuple(json.loads(info.read_text())["shape"]))
        if info.is_file()
        else plan
    )


def cast_of(plan: Blueprint, s: Settings, dtype: torch.dtype) -> tuple[Recipe, Company]:
    """The recipe and everyone in it, as the engine builds them, on the meta device."""
    recipe = recipe_of(s, plan.base.schedule, plan.empty)
    with torch.random.fork_rng(devices=[]):
        given = given_roles(s, plan)
        return recipe, build(
            plan, recipe, replace(s, parallel="ddp"), Processes(0, 1, META, None), dtype, given
        )
