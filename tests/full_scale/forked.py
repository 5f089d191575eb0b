"""Several processes without a new Python, which costs seconds each: children of the test
itself, which has imported everything. Where torchrun is what is tested, see `test_launch.py`.

A child never collects the garbage that the test's process has left: an old group of processes
or a store among it would wait for threads that only the parent has, or crash.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch.utils.tensorboard  # noqa: F401  once, instead of in every child

from full_scale import train
from full_scale.run.engine import Engine

LATE = 300.0
"""Seconds after which a child says where it stands, and ends."""
SHORT = "--batch 4 --warmup 0 --log-every 1 --device cpu"


_held: list[socket.socket] = []


def free_port() -> int:
    """A port that no other process is given by chance before ours listen there: it stays bound,
    and with SO_REUSEADDR on both sides one of two may listen.
    """
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    _held.append(one)
    return one.getsockname()[1]


class Fall(NamedTuple):
    """A signal that some ranks get at the beginning of a step."""

    step: int
    signal: int
    ranks: tuple[int, ...] = (0, 1)


class Started(NamedTuple):
    """Processes at work, and the file that holds what they print."""

    processes: list
    said: Path

    def ended(self) -> list[int]:
        """The exit status of each, −9 for one that was killed."""
        for one in self.processes:
            one.join(LATE + 60)
            one.kill()
            one.join()
        return [one.exitcode for one in self.processes]

    def finished(self) -> str:
        """What they printed, once all have ended well."""
        status, said = self.ended(), self.said.read_text()
        assert not any(status), said[-3000:]
        return said


def start(size: int, said: Path, work: Callable, *given) -> Started:
    """`work(*given)` in `size` processes, which `launch.start` will join into one run."""
    fork, port = multiprocessing.get_context("fork"), free_port()
    whole = [
        fork.Process(target=_join, args=(rank, size, port, said, work, given))
        for rank in range(size)
    ]
    for one in whole:
        one.start()
    return Started(whole, said)


def _join(rank, size, port, said, work, given) -> None:
    gc.freeze()
    with said.open("a", buffering=1) as file:
        faulthandler.dump_traceback_later(LATE, exit=True, file=file)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        work(*given)


def training(*runs: tuple[list[str], Path], size: int = 2, fall: Fall | None = None) -> Started:
    """`full_scale.train` of (words, folder of the run), one after the other in the same
    processes: what FSDP2 finds out about a network it keeps for the second run.
    """
    ported = [(_words(*run), free_port()) for run in runs]
    return start(size, runs[0][1].with_suffix(".said"), _train, ported, fall)


def alone(words: list[str], out: Path, *more: str) -> None:
    """The same in this process."""
    train.main([*_words(words, out), *more])


def _words(words: list[str], out: Path) -> list[str]:
    """SHORT comes before what is asked, and the recipe before that."""
    recipe = [] if words[0].startswith("-") else words[:1]
    return [*recipe, *SHORT.split(), "--out", str(out), *words[len(recipe) :]]


def _train(runs: list[tuple[list[str], int]], fall: Fall | None) -> None:
    advance = Engine.advance

    def falling(engine):
        if fall and engine.step == fall.step and engine.processes.rank in fall.ranks:
            os.kill(os.getpid(), fall.signal)
        return advance(engine)

    Engine.advance = falling  # of this child alone
    for words, port in runs:
        os.environ["MASTER_PORT"] = str(port)
        train.main(words)
