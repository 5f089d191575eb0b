"""The grader's end: a server of sandboxes, and one conversation for each answer."""

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from book.grading import frames, sandbox
from book.grading.frames import Broken, Channel
from book.grading.watch import NOTES
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

    `status` is "ran", "failed" (the answer did) or "machine" (no answer was run: the sandbox
    could not be started). It hangs on what happened before the answer was sent, and on nothing
    that an answer says. `notes` are what a person may want to know; an answer can add to them,
    and take none away.
    """

    arrays: list | None
    calls: float
    trouble: str
    status: str
    notes: tuple[str, ...] = ()


class Worker:
    """A server of sandboxes for one assignment. Start it in the main thread: it dies with the
    thread that started it. `lacks` is what the sandbox of the last answer went without.
    """

    def __init__(self, number: str, way: str):
        self.number, self.way, self.lacks, self.closed = number, way, "", False
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
            sandbox.STAGE,
        ]
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LOGNAME": "answer"}
        environment |= {"TMPDIR": tempfile.gettempdir(), **_QUIET}
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
            raise Refused("the server of sandboxes did not start: its message is above")

    def close(self) -> None:
        """End the server, and with it every sandbox."""
        self.closed = True
        self.process.kill()
        self.process.wait()
        self.control.close()

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
        (ours, theirs), (notes, told) = socket.socketpair(), os.pipe()
        try:
            with ours, theirs:
                fds = [theirs.fileno(), told]
                socket.send_fds(self.control, [str(q.seconds).encode()], fds)
                theirs.close()
                channel = Channel(ours, time.monotonic() + q.seconds + _GRACE)
                self.lacks = _ready(channel)
                outcome = _converse(channel, q, case, prelude, source)
            status = self._status(q.seconds + _GRACE)
            if outcome.arrays is None and not outcome.trouble:
                outcome = outcome._replace(trouble=fate(status))
            return outcome._replace(notes=_noted(notes))
        finally:
            os.close(notes)
            os.close(told)

    def _status(self, seconds: float) -> int:
        ready, _, _ = select.select([self.control], [], [], seconds)
        try:
            message = self.control.recv(STATUS.size) if ready else b""
        except OSError:
            message = b""
        # the server is gone or stuck: the next question starts another
        if len(message) < STATUS.size:
            self.process.kill()
            self.process.wait()
            return 0
        return STATUS.unpack(message)[0]


def _ready(channel: Channel) -> str:
    """What the sandbox lacks, once it stands. The answer has not been sent: whatever fails here
    is the machine's fault.
    """
    try:
        kind, body = channel.receive()
    except Broken as error:
        raise Refused(f"it did not come up: {error}") from None
    if kind != frames.READY:
        raise Refused(body.decode(errors="replace"))
    return body.decode(errors="replace")


def _noted(line: int) -> tuple[str, ...]:
    """What the pipe of notes was told."""
    os.set_blocking(line, False)
    try:
        told = os.read(line, 1 << 20)  # no pipe of an ordinary user is larger
    except BlockingIOError:
        return ()
    return tuple(note for byte, note in NOTES.items() if byte in told)


def _converse(channel: Channel, q: Question, case: Case, prelude: str, source: str) -> Outcome:
    """Send the job, answer the network calls, take arrays or an explanation. Nothing received
    is trusted to be well formed.
    """
    network = Network(case)
    failed = lambda why: Outcome(None, network.calls, why, "failed")
    note = {"id": q.id, "function": q.function, "prelude": prelude, "source": source}
    job = frames.pack(list(case.inputs.values()), note | {"names": list(case.inputs)})
    try:
        channel.send(frames.JOB, job)
        while True:
            kind, body = channel.receive()
            if kind != frames.CALL or case.network is None:
                break
            if network.calls > CALLS:
                return failed(f"made more than {CALLS} network calls and was stopped")
            channel.send(*_reply(network, body))
        if kind == frames.ARRAYS:
            arrays = [
                a if a.dtype == np.float32 else a.astype(float) for a in frames.unpack(body)[1]
            ]
            return Outcome(arrays, network.calls, "", "ran")
        if kind == frames.ERROR:
            return failed(body.decode(errors="replace") or "failed without saying why")
        return failed("sent something that is not an answer")
    except Broken as error:
        return failed(str(error) if "message of" in str(error) else "")
    except ValueError:
        return failed("sent something that is not an answer")


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
        return frames.REPLY, frames.pack([network(x.astype(float), float(note["t"]))])
    except Exception as error:  # whatever an answer may ask a network
        return frames.ERROR, str(error)[:500].encode(errors="replace")


def cores() -> int:
    """The processor cores this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
