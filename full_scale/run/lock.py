"""One run at a time in a folder, also where several machines share it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

NAME = ".lock"
PATIENCE = 100.0
"""Seconds to wait for a lock of another machine: a file server takes up to 90 to give back that
of a machine that died. On one's own machine the system gives it back with the process.
"""


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Make the folder `out` and hold it until the block ends, or this process does, by
    whatever. ValueError naming the process that has it.

    The lock is the system's, of a range of bytes: shared file systems ask their server for it,
    and no child inherits it. The text of the file serves the message alone.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / NAME).open("a+") as file:
        deadline, said = time.monotonic() + PATIENCE, False
        while not _taken(file, out):
            host, who = _holder(file)
            if host == socket.gethostname() or time.monotonic() > deadline:
                raise ValueError(
                    f"--out {out}: a run is going on there ({who}): wait for its end, stop it "
                    "with kill -TERM, or pass another --out"
                )
            if not said:
                print(f"--out {out}: waiting for a run on another machine ({who}) to end")
            said = True
            time.sleep(min(1.0, PATIENCE))
        file.truncate(0)
        json.dump(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            },
            file,
        )
        file.flush()
        yield


def _taken(file: IO[str], out: Path) -> bool:
    """Whether this process has the lock now. Without locks in the file system it goes on, and
    says so.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        print(
            f"--out {out}: its file system gives no locks ({error.strerror}): see to it that no "
            "other run writes there"
        )
    return True


def _holder(file: IO[str]) -> tuple[str, str]:
    """(the machine that has the lock, in words who it is), as far as the file tells."""
    file.seek(0)
    try:
        said: dict[str, Any] = json.loads(file.read())
        return said["host"], f"process {said['pid']} on {said['host']} since {said['since']}"
    except (ValueError, TypeError, KeyError):  # it is being written
        return socket.gethostname(), "another process"
