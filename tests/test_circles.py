"""No import circle anywhere in the repository, and no library that asks a command."""

from graphlib import CycleError, TopologicalSorter

import pytest

from tests.import_graph import COMMANDS, graph, imported, sources


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
