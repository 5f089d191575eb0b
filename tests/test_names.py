"""The names of dlib: no function hides a module, and everything public says what it takes and
what it returns.
"""

import ast
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import dlib
from dlib.solvers import SOLVERS, Solver, ddim_eta, euler_maruyama, heun_churn, tcd, unipc

PACKAGES = ["dlib", *(i.name for i in pkgutil.walk_packages(dlib.__path__, "dlib.") if i.ispkg)]


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
    assert not hidden(importlib.import_module(name))


def test_a_hidden_module_is_found(monkeypatch):
    monkeypatch.setattr(dlib, "grids", dlib.grid)
    assert "grids" in hidden(dlib)


def unsaid(function: ast.FunctionDef, method: bool) -> list[str]:
    """What a function does not annotate: parameters, and `return`."""
    a = function.args
    takes = [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
    missing = [arg.arg for arg in takes[method:] if arg and not arg.annotation]
    return missing + ["return"] * (not function.returns and function.name != "__init__")


def public_functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, bool]]:
    """The functions and methods that somebody else calls, and whether each is a method."""
    seen = lambda name: not name.startswith("_") or name in ("__init__", "__call__")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and seen(node.name):
            yield node, False
        if isinstance(node, ast.ClassDef) and seen(node.name):
            yield from (
                (n, True) for n in node.body if isinstance(n, ast.FunctionDef) and seen(n.name)
            )


@pytest.mark.parametrize(
    "path", sorted(Path(dlib.__path__[0]).rglob("*.py")), ids=lambda p: p.stem
)
def test_everything_public_is_typed(path):
    found = {
        f.name: unsaid(f, method) for f, method in public_functions(ast.parse(path.read_text()))
    }
    assert not {name: missing for name, missing in found.items() if missing}


def test_what_is_not_typed_is_found():
    source = "def f(a, b: int, *c, d=1, **e): ...\nclass K:\n    def __call__(self, x): ...\n"
    (f, _), (call, method) = public_functions(ast.parse(source))
    assert unsaid(f, False) == ["a", "c", "d", "e", "return"]
    assert unsaid(call, method) == ["x", "return"]


FACTORIES = [ddim_eta(0.5), euler_maruyama(0.5), heun_churn(1.0, 5), tcd(0.5), unipc(2)]


@pytest.mark.parametrize("step", [*SOLVERS.values(), *FACTORIES], ids=lambda step: step.__name__)
def test_a_solver_says_the_types_that_all_solvers_have(step):
    """Name for name, type for type, default for default those of the protocol `Solver`."""
    wanted = inspect.signature(Solver.__call__)
    wanted = wanted.replace(
        parameters=[p for p in wanted.parameters.values() if p.name != "self"]
    )
    assert inspect.signature(step) == wanted
    assert typing.get_type_hints(step) == typing.get_type_hints(Solver.__call__)
