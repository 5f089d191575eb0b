"""The sandbox itself, in both of its ways: as root, with a user of its own, and in a user
namespace.
"""

import os
import socket
import sys
import sysconfig
import tempfile
import threading
import time

import numpy as np
import pytest
from course08 import COURSE

from book.grading import frames, sandbox
from book.grading.frames import Channel
from book.grading.worker import Refused, Worker, _ready
from book.truth import questions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


def test_an_answer_returns_its_arrays(sandboxed):
    outcome = sandboxed(COURSE.solution["Q08.5"])
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
        ("import os\nos.memfd_create('x')", "Operation not permitted"),
        (
            "import ctypes, errno\nl = ctypes.CDLL(None, use_errno=True)\nassert 0, "
            "[errno.errorcode[ctypes.get_errno()] for call in (lambda: l.shmget(0, 4096, 0o1600), "
            "lambda: l.msgget(0, 0o1600), lambda: l.unshare(0x10000000), lambda: "
            "l.mount(b'none', b'/scratch', b'tmpfs', 0, None)) if call() == -1]",
            "['EPERM', 'EPERM', 'EPERM', 'EPERM']",
        ),
        (
            "import ctypes, signal\nl = ctypes.CDLL(None, use_errno=True)\nassert 0, "
            "[l.syscall(56, flag | signal.SIGCHLD, 0, 0, 0, 0) for flag in (0x10000000, 0x20000)]",
            "[-1, -1]",
        ),
        ("from book.questions import questions", "No module named 'book.questions'"),
        ("import toy_data", "No module named 'toy_data'"),
        (
            "import sys\nassert 0, [m for m in sys.modules if m.startswith(('book.', 'dlib'))]",
            "[]",
        ),
        (
            "import subprocess, sys\nassert 0, subprocess.run([sys.executable, '-c', "
            "'import dlib'], capture_output=True).stderr.splitlines()[-1]",
            "No module named 'dlib'",
        ),
    ],
)
def test_what_an_answer_cannot_do(sandboxed, source, says):
    outcome = sandboxed(source)
    assert outcome.arrays is None and says in outcome.trouble


def test_one_answer_leaves_nothing_to_the_next(sandboxed):
    sandboxed(
        "open('/scratch/message', 'w').write('hello')\nimport dlib\ndlib.vp = None\nimport "
        "numpy\nnumpy.message = 1"
    )
    assert (
        "[] True False"
        in sandboxed(
            "import os, dlib, numpy\nassert 0, f\"{os.listdir('/scratch')} {callable(dlib.vp)} "
            "{hasattr(numpy, 'message')}\""
        ).trouble
    )


def test_a_nested_namespace_cannot_unlock_the_mounts(sandboxed):
    source = """import ctypes, os
l = ctypes.CDLL(None, use_errno=True)
l.unshare(0x10020000)
assert 0, [l.mount(b'none', p, None, 4128, None) for p in (b'/usr', b'/')] + [l.umount2(b'/usr', 2)]"""
    assert "[-1, -1, -1]" in sandboxed(source).trouble


RIGHT = COURSE.solution["Q08.5"]


@pytest.mark.parametrize(
    "needs",
    [
        "import torch.func\ntorch.vmap(torch.func.jacfwd(torch.sin))(torch.ones(3, 2))\n"
        "w = torch.ones(2, requires_grad=True)\nassert torch.optim.Adam([w])",
        "import tempfile\nwith tempfile.NamedTemporaryFile() as file:\n    file.write(b'x')",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n"
        "    assert list(pool.map(abs, range(99)))[-1] == 98",
        "from multiprocessing.pool import ThreadPool\nwith ThreadPool(4) as pool:\n"
        "    assert pool.map(abs, [-1]) == [1]\nwith ThreadPool() as pool:\n    pass",
        "display(vp())\nimport inspect\nassert 'slope' in inspect.getsource(slope_and_curvature)",
        "import pickle\nclass Pair:\n    pass\nassert pickle.loads(pickle.dumps(Pair()))",
        "assert check('Q08.5', slope_and_curvature) is None",
    ],
    ids=lambda needs: needs.split("\n")[0],
)
def test_what_an_answer_may_need_is_there_and_not_noted(sandboxed, needs):
    outcome = sandboxed(f"{RIGHT}\n{needs}")
    assert (outcome.trouble, outcome.status, outcome.notes) == ("", "ran", ())


def test_a_folder_that_lies_in_a_visible_one_can_be_covered(sandboxed, monkeypatch):
    inner = sysconfig.get_paths()["stdlib"] + "/json"
    monkeypatch.setattr(sandbox, "covered", lambda: [inner])
    seen, told = os.pipe()
    if (child := os.fork()) == 0:
        try:
            sandbox.unshare(sandboxed.way)
            if os.fork() == 0:
                sandbox.enter(sandboxed.way, sandbox.STAGE, sandbox.SCRATCH, 4, os.getpid())
                os.write(told, f"{os.listdir(inner)} {os.listdir(inner + '/..')}".encode())
            else:
                os.wait()
        finally:
            os._exit(0)
    os.close(told)
    os.waitpid(child, 0)
    with open(seen) as lines:
        inside, around = lines.read().split("] ")
    assert inside == "[" and "'email'" in around


def test_what_fails_before_the_answer_is_sent_is_the_machine_s_fault_and_nothing_later():
    ours, theirs = socket.socketpair()
    with theirs:
        Channel(theirs).send(frames.REFUSED, b"no memory")
    with ours:
        with pytest.raises(Refused, match="no memory"):
            _ready(Channel(ours))
        with pytest.raises(Refused, match="did not come up"):
            _ready(Channel(ours))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(theirs).send(frames.READY, b"no filter of system calls")
        assert _ready(Channel(ours)) == "no filter of system calls"


def test_a_server_that_died_is_started_again_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    q = questions("08")[4]
    kill = "import os, signal, time\nos.kill(os.getppid(), 0)\nopen('kept', 'w')\ntime.sleep(60)"
    with Worker("08", "none") as worker:
        asked = threading.Thread(target=lambda: worker.ask(q, q.draw(0), COURSE.prelude, kill))
        asked.start()
        _wait(lambda: list(tmp_path.glob("answer-*/kept")))
        worker.process.kill()
        worker.process.wait()
        asked.join()
        _wait(lambda: not os.listdir(tmp_path))
        outcome = worker.ask(q, q.draw(0), COURSE.prelude, RIGHT)
        assert outcome.arrays is not None and not os.listdir(tmp_path)


def _wait(true, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_the_sandbox_shows_python_and_nothing_of_the_repository():
    import book

    home = os.path.dirname(os.path.dirname(book.__file__))
    assert not any(home == path or home.startswith(path + "/") for path in sandbox.visible())
    assert sandbox.covered() == [home]


def test_an_environment_behind_a_link_is_shown_where_it_lies(tmp_path, monkeypatch):
    """torch imports some of itself late, and asks for it by the link's name."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "link"))
    shown = sandbox._paths.__wrapped__()
    assert {str(tmp_path / "link"), str(tmp_path.resolve() / "there")} <= set(shown)


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.zeros((2, 3)), np.float64(1.5)],
        [np.arange(5), np.zeros((0, 4))],
        [np.ones((2, 1), dtype=np.float32), np.ones(3)],
        [np.array([[True, False]]), np.ones(3)],
    ],
)
def test_arrays_cross_unchanged(arrays):
    note, back = frames.unpack(frames.pack(arrays, {"ϕ": 1}))
    assert note == {"ϕ": 1} and all(
        np.array_equal(a, b) and np.shape(a) == b.shape for a, b in zip(arrays, back, strict=True)
    )
    assert [value.dtype for value in back] == [value.dtype for value in arrays]


def test_bytes_that_are_no_arrays_are_refused():
    body, rng = frames.pack([np.ones((3, 3))], {"a": 1}), np.random.default_rng(0)
    broken = [body[:n] for n in range(len(body))] + [
        body + b"x",
        b"",
        b"\xff" * 40,
        b"\x02\x00\x00\x00\x00[]",
    ]
    broken += [
        bytes(rng.integers(0, 256, rng.integers(1, 60), dtype=np.uint8)) for _ in range(2000)
    ]
    assert not [mangled for mangled in broken if not _refused(mangled)]


def _refused(mangled: bytes) -> bool:
    """`pytest.raises` would take a millisecond each."""
    try:
        frames.unpack(mangled)
    except ValueError:
        return True
    return False
