"""What the process of an answer holds of this repository: no question and no grader by name, and
the library `dlib` only for one who asks for it, which is noted.
"""

import importlib.abc
import importlib.machinery
import os
import pkgutil
import sys

from book.questions.answers import forget_the_book

_ASKED = "book.library"
# what the grader hears, a byte each; an answer can send these too, and only harms itself
NOTES = {b"L": "uses the book's library, dlib", b"G": "searches its process's memory"}
_SEARCHES = ("gc.get_objects", "gc.get_referrers", "gc.get_referents")


def import_library() -> None:
    """Import all of `dlib`: a child cannot read its files."""
    import dlib

    for module in pkgutil.walk_packages(dlib.__path__, "dlib."):
        importlib.import_module(module.name)
    finder = _Finder()
    for name in filter(_of_library, list(sys.modules)):
        sys.modules[name].__spec__ = finder.spec(name)  # modules are loaded by their own
    sys.meta_path.insert(0, finder)


def hide_the_book() -> None:
    """Forget `book` as a package: what is left of it are the verbs of a first cell, which do
    nothing here. RuntimeError if the truth was imported: no child may be forked then.
    """
    if "book.truth" in sys.modules:
        raise RuntimeError("what answers are called by must not import book.truth")
    forget_the_book()


def hide_the_library(line: int) -> None:
    """From here on, whoever imports `dlib` or a part of it, however the import is spelled, gets
    it, after a byte went into the pipe `line`, which nobody here can take out again. A search
    for it among all objects writes another byte. What the call hands to the answer stays.

    An audit hook cannot be removed, and is not traced. Its first act is to make sure that `line`
    is still the pipe that it was: an answer whose use cannot be noted gets no library.
    """
    held = {name: module for name, module in sys.modules.items() if _of_library(name)}
    for name in held:
        del sys.modules[name]
    write, facts, pipe, modules = os.write, os.fstat, os.fstat(line)[1:3], sys.modules
    asked, searches = ("import", _ASKED), _SEARCHES

    def hook(event: str, given: tuple) -> None:
        if event in asked and (event != "import" or str.partition(given[0], ".")[0] == "dlib"):
            if facts(line)[1:3] != pipe:
                raise ImportError("dlib: its use could not be noted")
            write(line, b"L")
            modules.update(held)
        elif event in searches:
            write(line, b"G")

    sys.addaudithook(hook)


def _of_library(name: str) -> bool:
    return name.partition(".")[0] == "dlib"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asks the hook for the library; the modules are then where all modules are."""

    def find_spec(self, name, path=None, target=None):
        if not _of_library(name):
            return None
        sys.audit(_ASKED)
        return self.spec(name) if name in sys.modules else None

    def spec(self, name):
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return sys.modules[spec.name]

    def exec_module(self, module):
        pass
