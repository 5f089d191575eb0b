"""A run is alone in its folder, ends when it is asked to, and says in one line what is wrong."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import sys
import time

import forked
import pytest
import torch
import torch.distributed as dist

from full_scale import launch, train
from full_scale.launch import peers
from full_scale.run import lock
from full_scale.run.engine import Engine
from full_scale.run.guard import Stop
from full_scale.train import main

SHAPES = ["finetune", "--family", "shapes", "--tiny", "--show-every", "0", "--micro", "2"]


def hold(out, forever: bool = True) -> None:
    """What a second run does, in a process of its own."""
    with lock.alone(out):
        (out / "held").touch()
        while forever:
            time.sleep(1)


@pytest.fixture
def holder(tmp_path):
    """A process that has the lock of `out`."""
    out = tmp_path / "out"
    started = forked.start(1, tmp_path / "said", hold, out)
    while not (out / "held").exists():
        assert started.processes[0].is_alive(), started.said.read_text()
        time.sleep(0.02)
    yield out, started.processes[0]
    started.processes[0].kill()
    started.processes[0].join()


def test_two_runs_in_one_folder_are_refused_and_a_kill_releases_it(holder, shapes_data):
    out, process = holder
    words = [*SHAPES, "--device", "cpu", "--data", str(shapes_data), "--out", str(out)]
    with pytest.raises(SystemExit) as end:
        main([*words, "--steps", "1", "--batch", "2"])
    said = str(end.value.code)
    assert f"a run is going on there (process {process.pid} on {socket.gethostname()}" in said
    assert "\n" not in said and not list(out.glob("*.jsonl"))
    process.kill()
    process.join()
    with lock.alone(out):  # nothing to clean up by hand
        assert json.loads((out / lock.NAME).read_text())["pid"] == os.getpid()


def test_a_lock_of_another_machine_is_waited_for(holder, monkeypatch, capsys):
    """Its server may not know yet that it has died."""
    out, process = holder
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    with pytest.raises(ValueError, match="a run is going on there .*pass another --out"):
        with lock.alone(out):
            pass
    assert capsys.readouterr().out.count("waiting for a run on another machine") == 1
    monkeypatch.setattr(lock, "PATIENCE", 100.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: process.kill() or process.join())
    with lock.alone(out):
        assert "elsewhere" in (out / lock.NAME).read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"host": 3}'])
def test_a_lock_file_without_sense_is_no_obstacle(text, holder, tmp_path):
    out, _ = holder
    (out / lock.NAME).write_text(text)
    with pytest.raises(ValueError, match="going on there .another process"):
        with lock.alone(out):
            pass
    (tmp_path / "free").mkdir()
    (tmp_path / "free" / lock.NAME).write_text(text)
    with lock.alone(tmp_path / "free"):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def none(*given):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with lock.alone(tmp_path):
        assert "gives no locks (No locks available)" in capsys.readouterr().out


def run(words: list[str], steps: int, strikes: int, monkeypatch) -> Engine | None:
    """A run in this process that gets Ctrl-C at the beginning of its third step."""
    advance = Engine.advance

    def struck(engine):
        if engine.step == 2:
            for _ in range(strikes):
                signal.raise_signal(signal.SIGINT)
        return advance(engine)

    monkeypatch.setattr(Engine, "advance", struck)
    before = signal.getsignal(signal.SIGINT)
    try:
        return train.train(train.read([*words, "--steps", str(steps), "--save-every", "100"]))
    finally:
        monkeypatch.setattr(Engine, "advance", advance)
        assert signal.getsignal(signal.SIGINT) is before and signal.set_wakeup_fd(-1) == -1


@pytest.fixture
def words(shapes_data, tmp_path):
    flags = ["--device", "cpu", "--batch", "4", "--warmup", "0", "--log-every", "1"]
    return [*SHAPES, *flags, "--data", str(shapes_data), "--out", str(tmp_path / "run")]


def test_ctrl_c_saves_and_the_same_command_goes_on(words, tmp_path, monkeypatch, capfd):
    stopped = run(words, 5, 1, monkeypatch)
    said = capfd.readouterr()
    assert "a second Ctrl-C ends at once" in said.err and "SIGINT: saved at step 3" in said.out
    assert stopped.step == 3 and (tmp_path / "run" / "step-00000003").is_dir()
    assert not (tmp_path / "run" / "done").exists()
    assert run(words, 4, 0, monkeypatch).step == 4 and (tmp_path / "run" / "done").exists()


def struck_twice(words) -> None:
    with pytest.MonkeyPatch.context() as patch:
        run(words, 5, 2, patch)


def test_the_second_ctrl_c_ends_at_once(words, tmp_path):
    started = forked.start(1, tmp_path / "said", struck_twice, words)
    assert started.ended() == [-signal.SIGINT]
    assert not list((tmp_path / "run").glob("step-*"))


def waits() -> None:
    """The first process waits in torch for a message of the second, which sleeps."""
    with launch.joined("cpu") as processes, Stop(processes.leads):
        if processes.rank == 1:
            time.sleep(60)
        print("waiting")
        dist.all_reduce(torch.ones(1))


def until(said: str, started: forked.Started) -> None:
    late, found = time.monotonic() + 50, ""
    while said not in found:  # the file is there once a process has begun
        assert time.monotonic() < late, found
        time.sleep(0.02)
        found = started.said.read_text() if started.said.exists() else ""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_answered_while_another_process_is_waited_for(second, tmp_path):
    started = forked.start(2, tmp_path / "said", waits)
    first, other = started.processes
    until("waiting", started)
    time.sleep(0.2)
    os.kill(first.pid, signal.SIGINT)
    until("a second Ctrl-C ends at once", started)
    assert first.is_alive()
    os.kill(first.pid, second)
    first.join(5)
    other.kill()
    status = first.exitcode
    started.ended()
    assert status == -second and started.said.read_text().count("Ctrl-C: ") == 1


def test_a_run_ends_though_a_process_that_it_began_goes_on():
    """Such a process holds copies of what is open: nobody may wait for their end."""
    with Stop(speaks=False):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    try:
        assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_ctrl_c_before_the_first_step_is_one_line(words, monkeypatch, capsys):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "open_engine", interrupted)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 130 and "stopped; nothing that was saved" in capsys.readouterr().err


def test_a_disk_that_fills_up_between_checkpoints_is_told(words, monkeypatch):
    """The log's line, a picture, TensorBoard."""
    for number, says in (
        (
            errno.ENOSPC,
            r"no space left for log.jsonl \([\d.]+ [MG]B free\): make room, and start",
        ),
        (errno.EDQUOT, "no space left for log.jsonl"),
        (errno.EACCES, "Permission denied: 'log.jsonl'"),
    ):

        def failing(settings, number=number):
            raise OSError(number, os.strerror(number), "log.jsonl")

        monkeypatch.setattr(train, "train", failing)
        with pytest.raises(SystemExit, match=says):
            main(words)


def wrong(words, speak: float = 60.0) -> None:
    peers.SPEAK = speak
    try:
        main(words)
    except SystemExit as end:  # what Python would print
        print(end.code if isinstance(end.code, str) else "", file=sys.stderr)
        raise


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["lcmm"], "did you mean 'lcm'"),
        (["finetune", "--tiny", "--out", __file__], "is a file, wanted a folder"),
        (["finetune", "--tiny", "--bach", "3"], "--batch"),
        (["finetune", "--tiny", "--batch", "3", "--micro", "2"], "try --batch 4"),
    ],
)
def test_what_is_wrong_with_a_command_is_said_by_the_first_of_its_processes(
    more, says, tmp_path, shapes_data
):
    """The others wait to be ended, as torchrun does with them."""
    first = forked.start(2, tmp_path / "said", wrong, [*more, "--data", str(shapes_data)])
    first.processes[0].join()
    first.processes[1].terminate()
    status = first.ended()
    said = first.said.read_text()
    assert status[0] in (1, 2) and status[1] == -signal.SIGTERM and says in said
    assert "Traceback" not in said


def test_what_all_find_when_they_have_met_is_said_once(tmp_path, shapes_data):
    """41 rows' worth of data, too few for a batch of 48 on three processes."""
    words = [*SHAPES, "--data", str(shapes_data), "--device", "cpu", "--out", str(tmp_path / "r")]
    words += ["--batch", "48"]
    started = forked.start(3, tmp_path / "said", wrong, words)
    assert started.ended() == [1, 1, 1]
    said = started.said.read_text()
    assert said.count("full_scale.train: ") == 1 and "pass --batch 36" in said
    assert "Traceback" not in said
