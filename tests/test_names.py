"""The names of dlib: no function hides a module, and everything public says what it takes and
what it returns.
"""

import importlib
import pkgutil
import types

import pytest

import dlib

PACKAGES = ["dlib", *(i.name for i in pkgutil.walk_packages(dlib.__path__, "dlib.") if i.ispkg)]
# `dlib.fit` and `dlib.recipes` are about to be rebuilt
KNOWN = {("dlib", "fit"), ("dlib.recipes", "finetune")}


def hidden(package: types.ModuleType) -> list[str]:
    """Modules of a package that cannot be had as its attribute, because something else has
    their name.
    """
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    for name in names:
        importlib.import_module(f"{package.__name__}.{name}")
    return [n for n in names if not isinstance(getattr(package, n), types.ModuleType)]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_module_is_hidden_by_what_its_package_exports(name):
    found = {(name, module) for module in hidden(importlib.import_module(name))}
    assert found == {pair for pair in KNOWN if pair[0] == name}


def test_a_hidden_module_is_found(monkeypatch):
    monkeypatch.setattr(dlib, "grids", dlib.grid)
    assert "grids" in hidden(dlib)
