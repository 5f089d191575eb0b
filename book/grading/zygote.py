"""The server of sandboxes: imports torch once, then forks one sandboxed child for each answer.

It knows no submission, truth or seed: a child gets its question's inputs from the grader, over
a socket of its own. Run by `worker`: python -m book.grading.zygote FD NN WAY STAGE.
"""

import os
import signal
import socket
import struct
import sys
import time

from book.grading import frames, kernel, sandbox
from book.grading.frames import Channel

STATUS = struct.Struct("<i")
# exit codes of a supervisor; above 128, a signal ended the answer
_TIMED_OUT, _REFUSED, _SIGNALS = 124, 125, 128
_POLL = 0.004


def main(fd: str, number: str, way: str, stage: str) -> None:
    """Serve until the grader closes the line or dies."""
    control = socket.socket(fileno=int(fd))
    if sys.platform == "linux":
        kernel.die_with_parent(signal.SIGKILL)
    from book.questions import caller

    caller(number, "")  # imports what the answers of this assignment need, and no truth
    control.sendall(b"!")
    while True:
        try:
            message, fds, _, _ = socket.recv_fds(control, 64, 1)
        except ConnectionError:
            return
        if not message:
            return
        child = os.fork()
        if child == 0:
            _supervise(fds[0], number, way, stage, int(message))
        os.close(fds[0])
        _, status = os.waitpid(child, 0)
        control.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))


def fate(status: int) -> str:
    """What became of a process that sent no arrays, in words for the student."""
    if status == _TIMED_OUT:
        return "took too long and was stopped: is there an endless loop?"
    if status == _SIGNALS + signal.SIGKILL:
        return "was stopped: it used too much memory or computing time"
    if status > _SIGNALS and status - _SIGNALS in set(signal.Signals):
        return f"crashed ({signal.Signals(status - _SIGNALS).name})"
    return "ended its process without returning anything"


def _supervise(fd: int, number: str, way: str, stage: str, seconds: int) -> None:
    """Start the sandbox's first process, end it when its time is over, and with it everything
    that it started.
    """
    deadline, stop = time.monotonic() + seconds, []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    line, supervisor = _only(fd), os.getpid()
    try:
        sandbox.unshare(way)
        if sys.platform == "linux":
            kernel.die_with_parent(signal.SIGTERM)
        first = os.fork()
    except OSError as error:
        _refuse(line, error)
    if first == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _answer(line, number, way, stage, seconds, supervisor)
    line.close()
    done, status = 0, 0
    while not done and not stop and time.monotonic() < deadline:
        done, status = os.waitpid(first, os.WNOHANG)
        time.sleep(0 if done else _POLL)
    _end(first, bool(done))
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


def _only(fd: int) -> socket.socket:
    """Close every file but this socket; standard input and output lead nowhere."""
    os.dup2(fd, 3)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(4, 4096)
    return socket.socket(fileno=3)


def _refuse(line: socket.socket, error: BaseException) -> None:
    Channel(line).send(frames.REFUSED, str(error).encode())
    os._exit(_REFUSED)


def _answer(
    line: socket.socket, number: str, way: str, stage: str, seconds: int, user: int
) -> None:
    """The first process of the sandbox: complete it, take one job, send arrays or an
    explanation, end.
    """
    channel = Channel(line)
    try:
        sandbox.enter(way, stage, seconds, user)
    except BaseException as error:
        _refuse(line, error)
    try:
        channel.send(frames.READY)
        channel.send(*_work(channel, number))
    finally:
        os._exit(0)


def _work(channel: Channel, number: str) -> tuple[bytes, bytes]:
    import numpy as np

    from book.questions import caller
    from book.questions.answers import define, explain

    _, body = channel.receive()
    note, arrays = frames.unpack(body)
    inputs = dict(zip(note["names"], arrays))
    inputs |= {name: inputs[name].astype(int) for name in note["whole"]}
    try:
        answer = define(note["id"], note["function"], note["prelude"], note["source"])
        found = caller(number, note["function"])(answer, inputs, _remote(channel))
        single = [k for k, value in enumerate(found) if value.dtype == np.float32]
        return frames.ARRAYS, frames.pack(found, {"single": single})
    except BaseException as error:
        return frames.ERROR, explain(error)[:4000].encode(errors="replace")


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
