"""The tests' own way to start several processes: what could make them fail by chance."""

import gc
import os
import socket

import forked
import pytest


class Left:
    """Garbage: it knows itself, so only a collection takes it away."""

    def __init__(self):
        self.self, self.process = self, os.getpid()

    def __del__(self):
        if os.getpid() != self.process:
            os._exit(7)  # a thread it waits for, a crash


def collected() -> None:
    gc.collect()


def test_a_child_does_not_collect_what_its_parent_has_left(tmp_path):
    gc.disable()
    try:
        Left()
        run = forked.start(2, tmp_path / "said", collected)
    finally:
        gc.enable()
    assert run.ended() == [0, 0]


def test_a_port_is_nobody_else_s_until_it_is_used():
    port = forked.free_port()
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(("127.0.0.1", port))
    with socket.socket() as ours:  # as a store does
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind(("127.0.0.1", port))
        ours.listen()


def stuck() -> None:
    while True:
        pass


def test_a_child_that_is_stuck_says_where_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(forked, "LATE", 1.0)
    run = forked.start(1, tmp_path / "said", stuck)
    assert run.ended() == [1] and "in stuck" in run.said.read_text()
