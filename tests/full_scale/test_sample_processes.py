"""`sample --parallel-in-time` on several processes that cannot go on: one line of one of them."""

from __future__ import annotations

import os
import signal
import sys

import forked
import pytest

import full_scale.sample as command
from full_scale.launch import peers

WORDS = "--family shapes --tiny --device cpu --solver ddim --steps 4 --parallel-in-time picard"
CIRCLE = "a red circle"


@pytest.fixture(autouse=True)
def sooner(monkeypatch):
    """The same waits, shorter; forked processes inherit them."""
    for name, seconds in {"BEAT": 0.1, "GONE": 1.5, "LINGER": 4.0}.items():
        monkeypatch.setattr(peers, name, seconds)


def typed(words: list[str], falls: int | None = None) -> None:
    """The command line, in which process `falls` is killed before its first picture."""
    real, peers.SPEAK = command.latents, 60.0

    def latents(*given):
        if int(os.environ["RANK"]) == falls:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given)

    command.latents, sys.argv = latents, ["sample", *WORDS.split(), *words]
    try:
        command.main()
    except SystemExit as end:  # what Python would print
        print(end.code if isinstance(end.code, str) else "", file=sys.stderr)
        raise


@pytest.mark.parametrize(
    ("words", "says"), [(["--tol", "-1"], "--tol -1: wanted 0"), (["--tolerance", "1"], "--tol")]
)
def test_what_is_wrong_with_a_request_is_said_by_the_first_process(words, says, tmp_path):
    """The others wait to be ended, as torchrun does with them."""
    run = forked.start(2, tmp_path / "said", typed, ["--prompt", CIRCLE, *words])
    run.processes[0].join()
    alone = run.said.read_text()
    run.processes[1].join(1)  # in which it would have spoken too
    run.processes[1].terminate()
    status = run.ended()
    assert status[0] in (1, 2) and status[1] == -signal.SIGTERM
    assert says in alone and run.said.read_text() == alone


def test_what_all_find_when_they_have_met_is_said_once(tmp_path):
    """A word that is outside the family's grammar."""
    out = tmp_path / "new"
    run = forked.start(3, tmp_path / "said", typed, ["--prompt", "a red cat", "--out", str(out)])
    assert run.ended() == [1, 1, 1]
    said = run.said.read_text()
    assert said.count("full_scale.sample: ") == 1 and "cat" in said and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


def test_a_process_that_is_killed_ends_the_others_with_one_line(tmp_path):
    words = ["--prompt", CIRCLE, "--out", str(tmp_path / "new")]
    run = forked.start(3, tmp_path / "said", typed, words, 1)
    status, said = run.ended(), run.said.read_text()
    assert status == [1, -signal.SIGKILL, 1]
    assert said.count("start the same command again") == 1 and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["said"]
