"""No import circle anywhere in the repository, no library that asks a command, and packages
that import only from packages below.
"""

import re
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.import_graph import COMMANDS, ORDER, ROOT, chapters, graph, imported, sources, stacked


def circle(known):
    """The modules of one circle, or None."""
    try:
        TopologicalSorter(graph(known)).prepare()
    except CycleError as error:
        return error.args[1]


def asked(known):
    """(module, command) where a library imports a command. bench is no library: it runs what
    readers run.
    """
    libraries = [name for name in known if name not in COMMANDS and name.split(".")[0] != "bench"]
    return [
        (name, each) for name in libraries for each in imported(known[name], known) & COMMANDS
    ]


def upward(known):
    """(package, package) where an import does not go down."""
    return [
        (own, other)
        for own, others in stacked(known).items()
        for other in others
        if ORDER[other] >= ORDER[own]
    ]


def test_no_circle():
    assert len(sources()) > 200 and circle(sources()) is None


def test_no_library_asks_a_command():
    assert len(COMMANDS) == 7 and asked(sources()) == []


@pytest.mark.parametrize(
    "changed, names",
    [
        ({"dlib._util": "import dlib.denoiser\n"}, {"dlib._util", "dlib.denoiser"}),
        (
            {"dlib._util": "def f():\n    from dlib import denoiser\n"},
            {"dlib._util", "dlib.denoiser"},
        ),
        # through the package around a module
        (
            {"full_scale.sources.pictures": "from full_scale.families.base import Family\n"},
            {"full_scale.sources.pictures", "full_scale.families"},
        ),
    ],
)
def test_a_circle_is_seen(changed, names):
    assert names <= set(circle(sources() | changed))


def test_types_alone_make_no_circle():
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import dlib.denoiser\n"
    assert circle(sources() | {"dlib._util": text}) is None


def test_an_asked_command_is_seen():
    text = "def f():\n    from full_scale import train\n"
    known = sources() | {"full_scale.data.rows": text}
    assert asked(known) == [("full_scale.data.rows", "full_scale.train")]


def test_packages_import_only_from_packages_below():
    known = sources() | chapters()
    assert set(stacked(known)) == set(ORDER) and upward(known) == []
    assert {"dlib", "toy_data", "book"} <= stacked(known)["chapters"]
    assert stacked(known)["dlib"] == set()


@pytest.mark.parametrize(
    "name, text, arrow",
    [
        ("dlib._util", "import toy_data\n", ("dlib", "toy_data")),
        ("toy_data.weights", "def f():\n    from book import show\n", ("toy_data", "book")),
        ("book.run", "from full_scale.run import engine\n", ("book", "full_scale")),
        ("full_scale.train", "import bench.timing\n", ("full_scale", "bench")),
    ],
)
def test_an_arrow_up_is_seen(name, text, arrow):
    assert upward(sources() | {name: text}) == [arrow]


def test_the_order_of_the_packages_is_the_one_that_is_written_down():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (said,) = re.findall("The order of the packages is ([^:]+):", text)
    assert re.findall(r"`(\w+)`", said) == sorted(ORDER, key=ORDER.get)
