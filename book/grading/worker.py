"""The grader's end: a server of sandboxes, and one conversation for each answer."""

import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from book.grading import frames
from book.grading.frames import Broken, Channel
from book.grading.zygote import STATUS, fate
from book.truth import Case, Network, Question

CALLS = 20_000  # network calls an answer may make before the grader stops listening
_GRACE = 10  # seconds between a child's own deadline and the moment the grader stops waiting
_START = 120
_QUIET = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


class Refused(Exception):
    """The sandbox cannot be built on this machine. `str(error)` is the kernel's reason."""


class Outcome(NamedTuple):
    """What came out of a sandbox: arrays and the number of network calls, or what went wrong,
    in words.
    """

    arrays: list | None
    calls: float
    trouble: str


class Worker:
    """A server of sandboxes for one assignment. Start it in the main thread: it dies with the
    thread that started it.
    """

    def __init__(self, number: str, way: str):
        self.number, self.way = number, way
        self.stage, self.closed = tempfile.mkdtemp(prefix="sandbox-"), False
        self._start()

    def _start(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        self.control, theirs = socket.socketpair()
        code = (
            f"import sys; sys.path.insert(0, {root!r}); from book.grading.zygote import "
            "main; main(*sys.argv[1:])"
        )
        command = [
            sys.executable,
            "-I",
            "-c",
            code,
            str(theirs.fileno()),
            self.number,
            self.way,
            self.stage,
        ]
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp", **_QUIET}
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self.control.settimeout(_START)
        if self.control.recv(1) != b"!":
            raise RuntimeError("the server of sandboxes did not start: its message is above")

    def close(self) -> None:
        """End the server, and with it every sandbox."""
        self.closed = True
        self.process.kill()
        self.process.wait()
        self.control.close()
        shutil.rmtree(self.stage, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def ask(self, q: Question, case: Case, prelude: str, source: str) -> Outcome:
        """Run one answer on a case's inputs in a sandbox of its own. Refused if the sandbox
        cannot be built.
        """
        if self.closed:
            raise RuntimeError("this worker is closed")
        if self.process.poll() is not None:
            self.control.close()
            self._start()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(self.control, [str(q.seconds).encode()], [theirs.fileno()])
            theirs.close()
            outcome = _converse(
                Channel(ours, time.monotonic() + q.seconds + _GRACE), q, case, prelude, source
            )
        status = self._status(q.seconds + _GRACE)
        return (
            outcome
            if outcome.arrays is not None or outcome.trouble
            else outcome._replace(trouble=fate(status))
        )

    def _status(self, seconds: float) -> int:
        ready, _, _ = select.select([self.control], [], [], seconds)
        message = self.control.recv(STATUS.size) if ready else b""
        # the server is gone or stuck: the next question starts another
        if len(message) < STATUS.size:
            self.process.kill()
            self.process.wait()
            return 0
        return STATUS.unpack(message)[0]


def _converse(channel: Channel, q: Question, case: Case, prelude: str, source: str) -> Outcome:
    """Send the job, answer the network calls, take arrays or an explanation. Nothing received
    is trusted to be well formed.
    """
    network = Network(case)
    try:
        kind, body = channel.receive()
        if kind != frames.READY:
            raise Refused(body.decode(errors="replace"))
        note = {"id": q.id, "function": q.function, "prelude": prelude, "source": source}
        whole = [
            name for name, value in case.inputs.items() if np.asarray(value).dtype.kind == "i"
        ]
        note |= {"names": list(case.inputs), "whole": whole}
        channel.send(frames.JOB, frames.pack(list(case.inputs.values()), note))
        while True:
            kind, body = channel.receive()
            if kind != frames.CALL or case.network is None:
                break
            if network.calls > CALLS:
                return Outcome(
                    None, network.calls, f"made more than {CALLS} network calls and was stopped"
                )
            channel.send(*_reply(network, body))
        if kind == frames.ARRAYS:
            return Outcome(_typed(*frames.unpack(body)), network.calls, "")
        if kind == frames.ERROR:
            return Outcome(
                None, network.calls, body.decode(errors="replace") or "failed without saying why"
            )
        return Outcome(None, network.calls, "sent something that is not an answer")
    except Broken as error:
        return Outcome(None, network.calls, str(error) if "message of" in str(error) else "")
    except ValueError:
        return Outcome(None, network.calls, "sent something that is not an answer")


def _typed(note: dict, arrays: list) -> list:
    """The arrays, those in float32 that the note says were: judges name single precision."""
    single = note.get("single")
    single = single if isinstance(single, list) else []
    return [a.astype(np.float32) if k in single else a for k, a in enumerate(arrays)]


def _reply(network: Network, body: bytes) -> tuple[bytes, bytes]:
    """One network call: its value, or what was wrong with it."""
    try:
        note, (x,) = frames.unpack(body)
        if (
            x.ndim != 2
            or x.shape[1:] != network.case.inputs["x"].shape[1:]
            or not 0 < len(x) <= 4096
        ):
            return (
                frames.ERROR,
                f"model: x has shape {x.shape}, wanted {network.case.inputs['x'].shape}".encode(),
            )
        return frames.REPLY, frames.pack([network(x, float(note["t"]))])
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        return frames.ERROR, str(error)[:500].encode(errors="replace")


def cores() -> int:
    """The processor cores this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
