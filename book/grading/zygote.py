"""The server of sandboxes: imports torch once, then forks one sandboxed child for each answer.

It knows no submission, truth or seed: a child gets its question's inputs from the grader, over
a socket of its own. Run by `worker`: python -m book.grading.zygote FD NN WAY STAGE.
"""

import fcntl
import gc
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from book.grading import frames, kernel, sandbox, watch
from book.grading.frames import Channel
from book.questions import caller
from book.questions.answers import cell_of, explain, first_cell

STATUS = struct.Struct("<i")
# exit codes of a supervisor; above 128, a signal ended the answer
_TIMED_OUT, _REFUSED, _SIGNALS = 124, 125, 128
_POLL, _LINE, _NOTES = 0.004, 3, 4


def main(fd: str, number: str, way: str, stage: str) -> None:
    """Serve until the grader closes the line or dies."""
    control = socket.socket(fileno=int(fd))
    if sys.platform == "linux":
        kernel.die_with_parent(signal.SIGKILL)
    watch.import_library()
    call_of = caller(number)  # all that a child knows of its questions
    watch.hide_the_book()
    sandbox.visible(), sandbox.covered()  # looked up once for all children
    gc.freeze()  # so that a child's collector copies no page of what it shares
    control.sendall(b"!")
    while True:
        try:
            message, fds, _, _ = socket.recv_fds(control, 64, 2)
        except ConnectionError:
            return
        if not message:
            return
        control.sendall(STATUS.pack(_child(fds, call_of, way, stage, int(message))))
        for fd in fds:
            os.close(fd)


def _child(fds: list[int], call_of: Callable, way: str, stage: str, seconds: int) -> int:
    """Fork a supervisor and wait for it: its exit code."""
    try:
        child = os.fork()
    except OSError as error:
        with socket.socket(fileno=os.dup(fds[0])) as line:
            Channel(line).send(frames.REFUSED, str(error).encode())
        return _REFUSED
    if child == 0:
        _supervise(fds, call_of, way, stage, seconds)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fate(status: int) -> str:
    """What became of a process that sent no arrays, in words for the student."""
    if status == _TIMED_OUT:
        return "took too long and was stopped: is there an endless loop?"
    if status == _SIGNALS + signal.SIGKILL:
        return "was stopped: it used too much memory or computing time"
    if status > _SIGNALS and status - _SIGNALS in set(signal.Signals):
        return f"crashed ({signal.Signals(status - _SIGNALS).name})"
    return "ended its process without returning anything"


def _supervise(fds: list[int], call_of: Callable, way: str, stage: str, seconds: int) -> None:
    """Start the sandbox's first process, end it when its time is over, and with it everything
    that it started.
    """
    deadline, stop = time.monotonic() + seconds, []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    line, supervisor = _only(*fds), os.getpid()
    scratch = tempfile.mkdtemp(prefix="answer-") if way == "none" else sandbox.SCRATCH
    place = (way, stage, scratch, seconds, supervisor)
    try:
        sandbox.unshare(way)
        if sys.platform == "linux":
            kernel.die_with_parent(signal.SIGTERM)
        first = os.fork()
    except OSError as error:
        _refuse(line, error)
    if first == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _answer(line, call_of, place)
    line.close()
    done, status = 0, 0
    while not done and not stop and time.monotonic() < deadline:
        done, status = os.waitpid(first, os.WNOHANG)
        time.sleep(0 if done else _POLL)
    _end(first, bool(done))
    if way == "none":
        shutil.rmtree(scratch, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status) if done else _TIMED_OUT
    os._exit(code if code >= 0 else _SIGNALS - code)


def _end(first: int, reaped: bool) -> None:
    """Kill the first process and its group; with a PID namespace the kernel ends all the
    others too.
    """
    for kill in (os.killpg, os.kill):
        try:
            kill(first, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    if not reaped:
        os.waitpid(first, 0)


def _only(line: int, notes: int) -> socket.socket:
    """Close every file but these two, which become 3 and 4; standard input and output lead
    nowhere.
    """
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in (line, notes)]
    for fd, number in zip(high, (_LINE, _NOTES)):
        os.dup2(fd, number, inheritable=False)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(_NOTES + 1, 4096)
    return socket.socket(fileno=_LINE)


def _refuse(line: socket.socket, error: BaseException) -> None:
    Channel(line).send(frames.REFUSED, str(error).encode())
    os._exit(_REFUSED)


def _answer(line: socket.socket, call_of: Callable, place: tuple) -> None:
    """The first process of the sandbox: complete it, take one job, send arrays or an
    explanation, end.
    """
    channel = Channel(line)
    try:
        lacks = sandbox.enter(*place)
    except BaseException as error:
        _refuse(line, error)
    try:
        channel.send(frames.READY, lacks.encode())
        channel.send(*_work(channel, call_of))
    finally:
        os._exit(0)


def _work(channel: Channel, call_of: Callable) -> tuple[bytes, bytes]:
    _, body = channel.receive()
    note, arrays = frames.unpack(body)
    call, inputs = call_of(note["function"]), named(note["names"], arrays)
    try:
        module = sys.modules["__main__"] = first_cell(note["prelude"])
        watch.hide_the_library(_NOTES)
        answer = cell_of(module, note["id"], note["function"], note["source"])
        return frames.ARRAYS, frames.pack(call(answer, inputs, _remote(channel)))
    except BaseException as error:
        return frames.ERROR, explain(error)[:4000].encode(errors="replace")


def named(names: list[str], arrays: list[np.ndarray]) -> dict:
    """A question's inputs as its call has them in the notebook too: a number is a number and
    not an array without axes.
    """
    plain = [value if value.ndim else value.item() for value in arrays]
    return dict(zip(names, plain, strict=True))


def _remote(channel: Channel):
    """The network as an answer sees it: each call is evaluated, and counted, by the grader."""

    def network(x, t):
        channel.send(frames.CALL, frames.pack([x], {"t": float(t)}))
        kind, body = channel.receive()
        if kind != frames.REPLY:
            raise ValueError(body.decode(errors="replace"))
        return frames.unpack(body)[1][0].copy()

    return network


if __name__ == "__main__":
    main(*sys.argv[1:])
