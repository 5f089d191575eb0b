"""What the processes of a run know of each other: who has joined, who is gone, and who says what
all would have to say.

Joining has a time limit of its own, shorter than that of the messages between processes that
are at work, which may have to wait for a slow disk; so has connecting, once all have met.
From their meeting on, a thread in each process tells the others through the store that it lives,
and follows the next one; so a machine that vanishes, whose connections stay open, is noticed as
well. A process that finds another gone says so for all, and all end: torchrun or SLURM can start
the run again, or its owner can.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
import time
from datetime import timedelta

import torch.distributed as dist

JOIN = 100.0
"""Seconds that the processes have to find each other, from the first that waits to the last; and
once more to connect, when all have met.
"""
BEAT = 3.0
"""Seconds between two signs of life."""
GONE = 90.0
"""Seconds without a sign of life after which a process is given up."""
LINGER = 15.0
"""Seconds for which a store outlives the process that has it."""
SPEAK = 10.0
"""Seconds that the first process of a run has to say what is wrong, before another one does."""
GO_ON = (
    "This run ends here; start the same command again: training goes on from its last checkpoint"
)
LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset", "Broken pipe")
"""What torch's errors say, which have no type of their own, when another process is gone."""


def meet(rank: int, size: int) -> dist.Store:
    """The store of all `size` processes at MASTER_ADDR:MASTER_PORT, once all have joined.
    ConnectionError naming those that have not after JOIN seconds.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun itself
    serves, deadline = rank == 0 and not hosted, time.monotonic() + JOIN
    if not serves:
        _knock(host, port, deadline)
    left = lambda: timedelta(seconds=max(0.1, deadline - time.monotonic()))
    try:
        tcp = dist.TCPStore(
            host, port, size, serves, left(), wait_for_workers=False, multi_tenant=True
        )
        store = dist.PrefixStore("full_scale", tcp)
        names = [f"joined {each}" for each in range(size)]
        store.set(names[rank], "")
    except dist.DistError as error:
        raise ConnectionError(f"{host}:{port} cannot be used: {_first(error)}") from None
    try:
        store.wait(names, left())
    except dist.DistError:
        absent = [str(each) for each in range(size) if not store.check([names[each]])]
        raise ConnectionError(
            f"process {', '.join(absent)} of {size} has not joined within {JOIN:g} seconds: look "
            "whether every machine has started and reaches "
            f"{host}:{port}, then start the same command again"
        ) from None
    return store


def _knock(host: str, port: int, deadline: float) -> None:
    """Wait until somebody listens there."""
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"process 0 does not answer at MASTER_ADDR:MASTER_PORT, {host}:{port}, after "
                    f"{JOIN:g} seconds ({_first(error)}): look whether its machine has started, "
                    "then start the same command again"
                ) from None
            time.sleep(min(0.5, JOIN / 10))


def is_loss(error: BaseException) -> bool:
    """Whether an error of torch's says that another process is gone."""
    text = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in LOST)
    )


def apart(why: str) -> str:
    """What to say of processes that have met and do not connect."""
    return (
        f"the processes have met, but do not reach each other ({why}): if their machines have "
        "several networks, export GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME with the name of the "
        f"one that joins them. {GO_ON}"
    )


class Peers:
    """This process among the others of its run, from their meeting to its own end. `connected`
    is set by whoever has made their groups.
    """

    def __init__(self, store: dist.Store, rank: int, size: int):
        self.rank, self.size = rank, size
        self.store = store.clone()  # who waits in a store, as a group in the making, locks it
        self.over, self.connected = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def leave(self) -> None:
        """End, with or without having failed: nobody waits for more signs of life. The process
        that has the store stays until the others have left as well, LINGER seconds at most.
        """
        self.over.set()
        self.thread.join()
        others = [f"left {each}" for each in range(self.size) if each != self.rank]
        try:
            self.store.set(f"left {self.rank}", "")
            if self.rank == 0:
                self.store.wait(others, timedelta(seconds=LINGER))
        except (RuntimeError, OSError):
            pass  # some are gone, or the store is

    def first_to_say(self, line: str, of: str = "") -> bool:
        """Whether no other process has said this line, or the same in other words: `of` what
        they are. After it, the others end as well.
        """
        self.over.set()
        try:
            key = hashlib.sha256((of or line).encode()).hexdigest()
            first = self.store.add(f"said {key}", 1) == 1
            self.store.set("failed", line)
            return first
        except (RuntimeError, OSError):
            return True  # the store went with the process that had it

    def failed(self) -> bool:
        """Whether another process has said why the run ends."""
        try:
            return self.store.check(["failed"])
        except (RuntimeError, OSError):
            return False

    def _watch(self) -> None:
        """Beat, and follow the next process; end this one if it, or the store, is gone, or if
        they do not connect.
        """
        store, follows, count = self.store, (self.rank + 1) % self.size, 0
        store.set_timeout(timedelta(seconds=GONE / 6))
        seen, heard = None, time.monotonic()
        late = heard + JOIN
        while not self.over.wait(BEAT):
            count += 1
            try:
                store.set(f"beat {self.rank}", str(count))
                if store.check(["failed"]):
                    return self._end(None)
                names = [f"left {follows}", f"beat {follows}"]
                now = [store.get(name) if store.check([name]) else b"" for name in names]
                if store.check([names[0]]) or now[1] != seen:
                    seen, heard = now[1], time.monotonic()
                who = f"process {follows} of {self.size} gives no sign of life"
            except (RuntimeError, OSError) as error:
                who = f"the processes' store does not answer ({_first(error)})"
            if time.monotonic() - heard > GONE:
                return self._end(f"{who}, for {GONE:g} seconds. {GO_ON}")
            if time.monotonic() > late and not self.connected.is_set():
                return self._end(apart(f"for {JOIN:g} seconds"))

    def _end(self, line: str | None) -> None:
        """End this process from its thread: the main one may wait for ever. If another has
        failed, there is time for an end of one's own first.
        """
        if line is None and self.over.wait(3 * BEAT):
            return
        if line is not None and not self.over.is_set() and self.first_to_say(line, "gone"):
            print(f"full_scale: {line}", file=sys.stderr, flush=True)
            if self.rank == 0:
                time.sleep(2 * BEAT)  # with its store: the others read there that it was said
        os._exit(1)


def quiet() -> bool:
    """Whether to say nothing of what is wrong with a command before anybody has joined: the
    first process of a run says it, and torchrun or srun then ends the others. One that is
    still here after SPEAK seconds speaks for its machine.
    """
    rank, local = (int(os.environ.get(name, 0)) for name in ("RANK", "LOCAL_RANK"))
    if rank == 0:
        return False
    time.sleep(SPEAK)
    return local != 0


def _first(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
