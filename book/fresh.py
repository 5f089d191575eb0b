"""What a fresh process has, for a while, in one that is not: a notebook's check runs an answer as
the grader will, whatever other cells have set.
"""

import importlib.abc
import os
import random
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

_OURS = ("__main__", "book", "dlib")


@contextmanager
def fresh() -> Iterator[None]:
    """Within it torch has its own defaults (dtype, device, gradients), random numbers are new,
    the current folder is empty, and modules are those that are installed; afterwards everything
    is as it was.
    """
    import numpy as np
    import torch

    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for seed in (random.seed, np.random.seed, torch.seed):
            seed()
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        if device.type != "cpu":
            stack.callback(torch.set_default_device, device)
            torch.set_default_device(None)
        stack.enter_context(_empty_folder())
        stack.enter_context(_installed_modules())
        yield


@contextmanager
def _empty_folder() -> Iterator[None]:
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="answer-") as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@contextmanager
def _installed_modules() -> Iterator[None]:
    """Modules from elsewhere, like a file beside the notebook, are not found, even if another
    cell has imported them.
    """
    tops = {name for name in sys.modules if "." not in name and name not in _OURS}
    strange = {
        name for name in tops if not _installed(getattr(sys.modules[name], "__spec__", None))
    }
    aside = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in strange}
    main, finder = sys.modules["__main__"], _Installed()
    for name in aside:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.modules.update(aside, __main__=main)


class _Installed(importlib.abc.MetaPathFinder):
    """Looks a package or module up as the others do, and finds only what is installed. What none
    of them finds is left to them: torch asks whether modules exist that need not.
    """

    def find_spec(self, name, path=None, target=None):
        if path is not None or name in _OURS:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = [spec for finder in others if (spec := finder.find_spec(name, None)) is not None]
        if found and not any(map(_installed, found)):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return next(filter(_installed, found), None)


def _installed(spec: ModuleSpec | None) -> bool:
    """Whether a module belongs to Python or to a package that was installed into it."""
    if spec is None or not (spec.has_location or spec.submodule_search_locations):
        return True
    places = [Path(place) for place in spec.submodule_search_locations or [spec.origin]]
    return all(
        any(
            place.is_relative_to(home) or place.resolve().is_relative_to(home)
            for home in _homes()
        )
        for place in places
    )


@cache
def _homes() -> set[Path]:
    """Where installed modules lie."""
    found = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()}
    found |= {*site.getsitepackages(), site.getusersitepackages()}
    return {Path(home) for home in found} | {Path(home).resolve() for home in found}
