"""Servers of sandboxes that stand at once: forked from a process that has imported torch, where
each of its own would import it for 4 s. They answer like the others; how a server starts, and
what it holds, is tested with real ones, in test_course_sandbox and by the class of
test_course_grade.
"""

import multiprocessing
import pkgutil
import socket

import dlib

_MODULES = ["book.grading.zygote", "book.questions.problems", "pytest", "torch"]


def context():
    """Forks servers; imports for all of them, at the first one."""
    found = multiprocessing.get_context("forkserver")
    library = [module.name for module in pkgutil.walk_packages(dlib.__path__, "dlib.")]
    found.set_forkserver_preload(_MODULES + library)
    return found


def start(worker) -> None:
    """What `Worker._start` does."""
    from book.grading import sandbox

    worker.control, theirs = socket.socketpair()
    place = (worker.number, worker.way, sandbox.STAGE)
    worker.process = _Forked(context().Process(target=_serve, args=(theirs, *place)))
    theirs.close()
    assert worker.control.recv(1) == b"!"


class _Forked:
    """A process of multiprocessing, with what a worker asks of one of subprocess."""

    def __init__(self, process):
        process.start()
        self.wait, self.kill = process.join, process.kill
        self.poll = lambda: process.exitcode


def _serve(control: socket.socket, *place: str) -> None:
    from book.grading import zygote

    zygote.main(str(control.detach()), *place)
