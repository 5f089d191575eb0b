"""pyproject holds the ranges, constraints.txt the resolved list, environment.yml the way in:
the three agree.
"""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
RANGES = [("dependencies", line) for line in PROJECT["dependencies"]] + [
    (extra, line) for extra, lines in EXTRAS.items() for line in lines
]


def pins(lines):
    """{canonical name: version} of `name==version` lines."""
    return {
        canonicalize_name(name): Version(version)
        for name, version in (line.split("==") for line in lines)
    }


def unmet(requirement, pinned):
    """Why the pinned list does not satisfy a requirement, or ''."""
    wanted, name = Requirement(requirement), canonicalize_name(Requirement(requirement).name)
    if name == canonicalize_name(PROJECT["name"]):
        return "" if wanted.extras <= set(EXTRAS) else f"unknown extra in {requirement}"
    if wanted.marker and not wanted.marker.evaluate():
        return ""
    if name not in pinned:
        return f"{name} is not in constraints.txt"
    return (
        ""
        if wanted.specifier.contains(pinned[name], prereleases=True)
        else f"constraints.txt has {name} {pinned[name]}, wanted {wanted.specifier}"
    )


@pytest.mark.parametrize("group, requirement", RANGES)
def test_every_requirement_is_pinned_inside_its_range(group, requirement):
    assert unmet(requirement, pins(LINES)) == ""


def test_the_check_can_fail():
    pinned = {"torch": Version("2.14.0")}
    assert "wanted" in unmet("torch==2.13.0", pinned) and "not in constraints.txt" in unmet(
        "numpy>=2", pinned
    )
    assert "unknown extra" in unmet(f"{PROJECT['name']}[nonsense]", pinned)


def test_constraints_are_plain_pins():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line) for line in LINES), (
        "name==version, without a local part"
    )
    names = [canonicalize_name(line.split("==")[0]) for line in LINES]
    assert len(names) == len(set(names))
    assert "torch==2.13.0" in LINES and canonicalize_name(PROJECT["name"]) not in names
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "triton"))], (
        "the list is that of a CPU machine"
    )


def test_all_is_every_extra_but_the_one_that_speaks_in_every_command():
    (everything,) = EXTRAS["all"]
    assert Requirement(everything).extras == set(EXTRAS) - {"all", "eightbit"}


def test_torch_is_pinned_exactly():
    # a range would let pip replace it, and chapters were run with this one
    assert "torch==2.13.0" in PROJECT["dependencies"]


def test_environment_only_opens_the_door():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert (
        set(environment) == {"name", "channels", "dependencies"}
        and environment["name"] == PROJECT["name"]
    )
    python, pip, through_pip = environment["dependencies"]
    assert pip == "pip" and through_pip == {"pip": ["-e .[all]"]}
    asked = Requirement(python)
    offered = [f"3.{minor}.{patch}" for minor in range(10, 16) for patch in range(30)]
    taken = list(asked.specifier.filter(offered))
    assert asked.name == "python" and taken
    assert list(SpecifierSet(PROJECT["requires-python"]).filter(taken)) == taken


def test_packages_are_found_all_of_them_and_no_others():
    from setuptools import find_packages

    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = set(find_packages(str(ROOT), **tool["packages"]["find"]))
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for top in ("dlib", "book", "toy_data", "full_scale", "bench")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert found == listed
