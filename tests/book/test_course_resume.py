"""An interrupted grading: nothing is lost, nothing is graded twice, and the class has one draw."""

import csv
import json
import os
import signal
import threading
from types import SimpleNamespace

import pytest
from course import BOOK
from course08 import COURSE

from book.errors import BookError
from book.grading import grade as grading
from book.grading import partial
from book.grading.endings import ENDINGS
from book.grading.submissions import Mark
from book.truth import questions

CLASS = ("ada", "bob", "cyd", "dan")


class Room:
    """A class that handed in one answer each, and a grader whose sandbox is a list of what it was
    given. At the student `stop` the signal `ending` comes; for those in `broken` the machine fails.
    """

    def __init__(self, root):
        self.folder, self.out, self.asked, self.said = root / "in", root / "g.csv", [], []
        self.stop, self.ending, self.broken, self.over = (
            None,
            signal.SIGTERM,
            (),
            threading.Event(),
        )
        self.folder.mkdir()
        for name in CLASS:
            self.hand_in(name, f"return {name!r}")

    def hand_in(self, name, body):
        node = COURSE.only("Q08.2", answers={"Q08.2": COURSE.cell("Q08.2", body)})
        (self.folder / f"{name}.ipynb").write_text(json.dumps(node))

    def answer(self, worker, exam, q, source):
        name = next(n for n in CLASS if n in source)
        if name == self.stop:
            os.kill(os.getpid(), self.ending)
            self.over.wait(30)
            raise RuntimeError("this worker is closed")
        self.asked.append(name)
        mark = Mark("right", 1.0, "right")
        return Mark("machine", 0.0, "no memory") if name in self.broken else mark

    def run(self, number="08", **options):
        """{student: (points, status, seed)} of a run to its end."""
        self.asked.clear(), self.said.clear(), self.over.clear()
        try:
            grading.grade(
                BOOK, self.folder, number, self.out, self.said.append, jobs=1, **options
            )
        finally:
            self.over.set()
        with self.out.open(encoding="utf-8-sig") as table:
            rows = list(csv.DictReader(table))
        return {r["student"]: (r["Q08.2 (of 3)"], r["Q08.2 status"], r["seed"]) for r in rows}

    @property
    def kept(self):
        """The lines of the partial file."""
        return partial.beside(self.out).read_text().splitlines()


@pytest.fixture
def room(tmp_path, monkeypatch):
    room = Room(tmp_path)
    monkeypatch.setattr(grading, "answer", room.answer)
    undrawn = lambda number, seed: grading.Exam(questions(number), {}, "", seed)
    monkeypatch.setattr(grading, "draw", undrawn)
    monkeypatch.setattr(
        grading, "_worker", lambda *_: SimpleNamespace(number="08", way="none", lacks="")
    )
    return room


def interrupted(room, at="cyd", ending=signal.SIGTERM):
    """The room after a run that a signal ended at one student."""
    mine = signal.getsignal(ending)
    signal.signal(ending, signal.SIG_DFL)  # under nohup SIGHUP is ignored, and stays so
    before = [signal.getsignal(name) for name in ENDINGS]
    room.stop, room.ending = at, ending
    with pytest.raises(SystemExit) as error:
        room.run()
    assert error.value.code == 128 + ending and not room.out.exists()
    assert [signal.getsignal(name) for name in ENDINGS] == before
    signal.signal(ending, mine)
    room.stop = None


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda s: s.name)
def test_a_run_goes_on_where_a_signal_stopped_it(room, capsys, ending):
    interrupted(room, ending=ending)
    assert "interrupted: 2 of 4 are kept" in capsys.readouterr().err
    assert [json.loads(line).get("student") for line in room.kept] == [None, "ada", "bob"]
    seed = json.loads(room.kept[0])["seed"]
    table = room.run()
    assert room.asked == ["cyd", "dan"] and "2 were graded" in "".join(room.said)
    assert table == dict.fromkeys(CLASS, ("3", "right", str(seed)))
    assert not partial.beside(room.out).exists()


def test_each_new_run_draws_anew_unless_it_is_told(room):
    seeds = {row[2] for _ in range(2) for row in room.run().values()}
    assert len(seeds) == 2 and len(room.asked) == 4
    assert {row[2] for row in room.run(seed=7).values()} == {"7"}


def test_a_changed_answer_is_graded_again_and_a_changed_output_is_not(room):
    interrupted(room, at="dan")
    room.hand_in("ada", "x = 1\nreturn 'ada'")
    node = json.loads((room.folder / "bob.ipynb").read_text())
    node["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "hi"}]
    (room.folder / "bob.ipynb").write_text(json.dumps(node))
    (room.folder / "cyd.ipynb").unlink()
    table = room.run()
    assert sorted(room.asked) == ["ada", "dan"] and list(table) == ["ada", "bob", "dan"]
    assert "changed since and graded again: ada" in "".join(room.said)


def test_a_line_that_was_cut_off_is_graded_again(room):
    interrupted(room)
    path = partial.beside(room.out)
    path.write_bytes(path.read_bytes()[:-9])
    interrupted(room, at="dan")  # the rest of the cut line must be gone before more is written
    assert [json.loads(line).get("student") for line in room.kept] == [None, "ada", "bob", "cyd"]
    room.run()
    assert room.asked == ["dan"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"number": "05"}, "its assignment is 08_dpm_solver, this run's 05_flow_matching"),
        ({"seed": 1}, "its seed is .*, this run's 1"),
        ({}, "its questions have changed since"),
    ],
)
def test_what_another_run_left_is_not_mixed_in(room, monkeypatch, tmp_path, options, says):
    interrupted(room)
    if not options:
        monkeypatch.setattr(partial, "_BOOK", tmp_path)
    before = room.kept
    with pytest.raises(BookError, match=f"{says}.*Remove it to begin anew"):
        room.run(**options)
    assert room.kept == before and not room.out.exists() and not room.asked


def test_what_the_machine_failed_is_graded_again_by_the_same_command(room):
    room.broken = ("bob",)
    first = room.run()
    assert first["bob"][:2] == ("", "machine") and first["ada"][:2] == ("3", "right")
    assert "machine: bob: this machine failed, not the student" in "".join(room.said)
    room.broken = ()
    second = room.run()
    assert room.asked == ["bob"] and {row[:2] for row in second.values()} == {("3", "right")}
    assert {row[2] for row in (*first.values(), *second.values())} == {first["ada"][2]}
    assert not partial.beside(room.out).exists()


def test_where_answers_could_read_the_seed_no_table_is_begun(room, monkeypatch):
    room.out = room.out.parent / "shown" / "g.csv"
    room.out.parent.mkdir()
    monkeypatch.setattr(grading.sandbox, "visible", lambda: [str(room.out.parent)])
    with pytest.raises(BookError, match="every answer can read: put the table elsewhere"):
        room.run()
    assert not list(room.out.parent.iterdir())
