"""The sandbox itself, in both of its ways: as root, with a user of its own, and in a user
namespace.
"""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from course08 import COURSE

from book.grading import frames, sandbox
from book.grading.worker import Refused, Worker
from book.questions import questions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


@pytest.fixture(scope="module", params=["root", "user"])
def run(request):
    """A function that runs an answer to question 8.5 in the sandbox and returns its outcome."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("the way of root needs root")
    q = replace(questions("08")[4], seconds=4)
    case = q.draw(0)
    with Worker("08", request.param) as worker:
        try:
            worker.ask(q, case, COURSE.module.PRELUDE, "")
        except Refused as error:
            pytest.skip(f"this machine forbids the way of {request.param}: {error}")
        yield lambda source: worker.ask(q, case, COURSE.module.PRELUDE, source)
    assert worker.process.poll() is not None


def test_an_answer_returns_its_arrays(run):
    outcome = run(COURSE.solution["Q08.5"])
    assert [value.shape for value in outcome.arrays] == [(8,), (8,)] and outcome.trouble == ""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import os\nassert 0, sorted(os.listdir('/scratch'))", "[]"),
        ("import os\nopen('kept', 'w').write('x')\nassert 0, os.listdir('.')", "['kept']"),
        ("import os\nassert 0, os.listdir('/proc')", "FileNotFoundError"),
        ("import os\nassert 0, os.getpid()", "AssertionError at line 2 of the answer: 1"),
        ("import os\nassert 0, os.listdir('/etc')", "['ld.so.cache']"),
        ("import os\nassert 0, {k for k in os.environ if 'KEY' in k or 'TOKEN' in k}", "set()"),
        ("open('/usr/x', 'w')", "[Errno"),
        ("open('/dev/sda', 'w')", "[Errno"),
        ("import os\nos.chroot('/usr')", "Operation not permitted"),
        ("import os\nos.setuid(0)", "Errno"),
        (
            "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
            "Operation not permitted",
        ),
        (
            "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\nassert 0, [l.mount(b'none', "
            "b'/usr', None, 4128, None), l.unshare(0x20000), l.umount2(b'/usr', 2)]",
            "[-1, -1, -1]",
        ),
        (
            "import resource\nresource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) "
            "* 2)",
            "ValueError",
        ),
        ("import torch\ntorch.empty(1 << 28, dtype=torch.float64)", "RuntimeError"),
        (
            "import os\nassert 0, [fd for fd in range(64) if os.path.exists(f'/dev/fd/{fd}')]",
            "[]",
        ),
        ("import os\nopen('a', 'wb').truncate(1 << 40)", "File too large"),
    ],
)
def test_what_an_answer_cannot_do(run, source, says):
    outcome = run(source)
    assert outcome.arrays is None and says in outcome.trouble


def test_one_answer_leaves_nothing_to_the_next(run):
    run(
        "open('/scratch/message', 'w').write('hello')\nimport dlib\ndlib.vp = None\nimport "
        "numpy\nnumpy.message = 1"
    )
    assert (
        "[] True False"
        in run(
            "import os, dlib, numpy\nassert 0, f\"{os.listdir('/scratch')} {callable(dlib.vp)} "
            "{hasattr(numpy, 'message')}\""
        ).trouble
    )


def test_a_nested_namespace_cannot_unlock_the_mounts(run):
    source = """import ctypes, os
l = ctypes.CDLL(None, use_errno=True)
l.unshare(0x10020000)
assert 0, [l.mount(b'none', p, None, 4128, None) for p in (b'/usr', b'/')] + [l.umount2(b'/usr', 2)]"""
    assert "[-1, -1, -1]" in run(source).trouble


def test_a_server_that_died_is_started_again():
    q = questions("08")[4]
    with Worker("08", "none") as worker:
        worker.process.kill()
        worker.process.wait()
        assert (
            worker.ask(q, q.draw(0), COURSE.module.PRELUDE, COURSE.solution["Q08.5"]).arrays
            is not None
        )


def test_the_sandbox_shows_python_and_the_library_and_no_more():
    import book

    home = os.path.dirname(os.path.dirname(book.__file__))
    assert not any(home == path or home.startswith(path + "/") for path in sandbox.visible())


@pytest.mark.parametrize(
    "arrays", [[], [np.zeros((2, 3)), np.float64(1.5)], [np.arange(5), np.zeros((0, 4))]]
)
def test_arrays_cross_unchanged(arrays):
    note, back = frames.unpack(frames.pack(arrays, {"ϕ": 1}))
    assert note == {"ϕ": 1} and all(
        np.array_equal(a, b) and np.shape(a) == b.shape for a, b in zip(arrays, back, strict=True)
    )


def test_bytes_that_are_no_arrays_are_refused():
    body, rng = frames.pack([np.ones((3, 3))], {"a": 1}), np.random.default_rng(0)
    broken = [body[:n] for n in range(len(body))] + [
        body + b"x",
        b"",
        b"\xff" * 40,
        b"\x02\x00\x00\x00\x00[]",
    ]
    for mangled in broken + [
        bytes(rng.integers(0, 256, rng.integers(1, 60), dtype=np.uint8)) for _ in range(2000)
    ]:
        with pytest.raises(ValueError):
            frames.unpack(mangled)
