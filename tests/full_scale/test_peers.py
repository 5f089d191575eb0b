"""A process that dies, hangs or never comes: the others end, and say how to go on."""

import os
import re
import signal
import time

import forked
import pytest
import torch
import torch.distributed as dist
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import (
    RendezvousConnectionError,
    RendezvousTimeoutError,
)

from full_scale import launch
from full_scale.launch import agent, peers
from full_scale.run import checkpoint

GO_ON = "start the same command again: training goes on from its last checkpoint"


@pytest.fixture(autouse=True)
def sooner(monkeypatch):
    """The same waits, shorter; forked processes inherit them."""
    for name, seconds in {"BEAT": 0.1, "GONE": 1.5, "JOIN": 1.5, "LINGER": 4.0}.items():
        monkeypatch.setattr(peers, name, seconds)
    monkeypatch.setattr(peers, "SPEAK", 0.1)


def test_the_waits_come_to_less_than_two_minutes(monkeypatch):
    monkeypatch.undo()
    assert peers.JOIN + peers.SPEAK < 120 and peers.GONE + peers.GONE / 6 + peers.BEAT < 120


def falls(fall: int, where: str) -> None:
    """What the last of the processes does, while the others wait for it in a message, or while
    a checkpoint is written.
    """
    try:
        with launch.joined("cpu") as processes:
            if processes.rank == processes.size - 1:
                time.sleep(0.3)
                os.kill(os.getpid(), fall)
            if where == "a checkpoint":
                dist.barrier(processes.saving)
            dist.all_reduce(torch.ones(1))
    except (ConnectionError, SystemExit) as end:
        if not isinstance(end, SystemExit):
            print(f"full_scale.train: {end}")
        raise SystemExit(1) from None


@pytest.mark.parametrize("where", ["a step", "a checkpoint"])
@pytest.mark.parametrize("fall", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_process_that_falls_ends_the_others_with_one_line(fall, where, tmp_path):
    """SIGSTOP is a machine that vanishes: its connections stay open."""
    run = forked.start(3, tmp_path / "said", falls, fall, where)
    for one in run.processes[:2]:
        one.join(60)
    run.processes[2].kill()
    status, said = run.ended(), run.said.read_text()
    assert status[:2] == [1, 1], said
    assert said.count(GO_ON) == 1 and "Traceback" not in said
    if fall == signal.SIGSTOP:
        assert "process 2 of 3 gives no sign of life" in said


def parts(how: str) -> None:
    """What the last of two processes does when it has met the other, and has no group yet."""
    if os.environ["RANK"] == "1":
        if how == "dies":
            peers.meet(1, 2)
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "has no network":
            os.environ["GLOO_SOCKET_IFNAME"] = "nothing0"
        else:
            dist.init_process_group = lambda *given, **named: time.sleep(60)
    falls(signal.SIGKILL, "a step")


@pytest.mark.parametrize(
    ("how", "join", "status", "says"),
    [
        ("dies", 60.0, -signal.SIGKILL, "process 1 of 2 gives no sign of life, for 1.5 seconds"),
        ("does not connect", 1.0, 1, "do not reach each other .for 1 seconds.: .*SOCKET_IFNAME"),
        ("has no network", 60.0, 1, "do not reach each other .*nothing0.*: .*SOCKET_IFNAME"),
    ],
)
def test_a_process_that_meets_the_others_and_comes_no_further_ends_them(
    how, join, status, says, tmp_path, monkeypatch
):
    """Between the meeting and the group there is nobody but the signs of life."""
    monkeypatch.setattr(peers, "JOIN", join)
    run = forked.start(2, tmp_path / "said", parts, how)
    assert run.ended() == [1, status]
    said = run.said.read_text()
    assert re.search(says, said) and said.count(GO_ON) == 1 and "Traceback" not in said


def slow(seconds: float) -> None:
    """A process that is busy, and does not answer for longer than the dead are waited for: in a
    message, and in the store, where NCCL begins.
    """
    with launch.joined("cpu") as processes:
        store = dist.distributed_c10d._get_default_store()
        if processes.rank == 1:
            time.sleep(seconds)
            store.set("late", "")
        message = dist.all_reduce(torch.ones(1), async_op=True)
        store.get("late")
        message.wait()


def test_who_is_slow_or_has_left_is_not_given_up(tmp_path):
    forked.start(2, tmp_path / "said", slow, 2.5).finished()
    forked.start(2, tmp_path / "said", early, 2.5).finished()


def early(seconds: float) -> None:
    """A process that has ended well, while another has something left to do."""
    with launch.joined("cpu") as processes:
        dist.all_reduce(torch.ones(1))
        time.sleep(seconds * (1 - processes.rank))


@pytest.mark.parametrize(("rank", "says"), [(0, "process 1, 2 of 3 has not joined"), (1, "")])
def test_who_never_joins_is_named(rank, says, monkeypatch):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(forked.free_port())}
    for name, value in {"RANK": str(rank), "WORLD_SIZE": "3", **address}.items():
        monkeypatch.setenv(name, value)
    says = says or f"process 0 does not answer .*127.0.0.1:{address['MASTER_PORT']}"
    with pytest.raises(ConnectionError, match=f"{says}.* start the same command again"):
        launch.start("cpu")
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (
            ChildFailedError("train", {1: ProcessFailure(1, 7, -9, "")}),
            137,
            "1 was ended by SIGKILL",
        ),
        (ChildFailedError("train", {1: ProcessFailure(1, 7, 1, "")}), 1, ""),
        (RendezvousTimeoutError(), 1, "2 machine.s. have not met at head:1 within"),
        (RendezvousConnectionError(), 1, "2 machine.s. have not met at head:1 within"),
        (SignalException("", signal.SIGINT), 130, ""),
    ],
)
def test_torchrun_s_own_ends_are_a_line_too(error, status, says, monkeypatch, capsys):
    """A machine that never starts is met by nobody."""

    def failing(asked):
        raise error

    monkeypatch.setattr(run, "run", failing)
    words = ["--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "head:1", "x.py"]
    with pytest.raises(SystemExit) as end:
        agent.main(words)
    code = end.value.code
    said = code if isinstance(code, str) else capsys.readouterr().err
    assert (1 if isinstance(code, str) else code) == status
    assert (
        (re.search(says, said) and "start the same command again" in said) if says else not said
    )


def test_a_run_whose_peer_dies_has_its_checkpoint_and_no_traceback(
    tmp_path, shapes_data, monkeypatch
):
    monkeypatch.undo()
    monkeypatch.setattr(peers, "LINGER", 0.1)
    out = tmp_path / "run"
    words = ["finetune", "--family", "shapes", "--tiny", "--data", str(shapes_data)]
    words += ["--micro", "1", "--steps", "3", "--save-every", "1", "--show-every", "0"]
    fall = forked.Fall(2, signal.SIGKILL, ranks=(1,))
    run = forked.training((words, out), fall=fall)
    assert run.ended() == [1, -signal.SIGKILL]
    assert "Traceback" not in run.said.read_text()
    assert checkpoint.newest_whole(out).path is not None
