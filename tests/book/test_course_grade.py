"""A whole class, hostile ones included: every student ends as a row with points, status and
feedback, and nothing is left behind.
"""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nursery
import pytest
from course import BOOK, ROOT, every_course
from course08 import COURSE
from course11 import COURSE as QUICK
from hostile import HOSTILE, MARK, SECRET

from book.__main__ import main
from book.errors import BookError
from book.grading import grade as grading
from book.grading import worker as workers
from book.release import release
from book.sheet import sheet
from book.truth import questions

WORTH = sheet("08").points
IDS, MOST = list(WORTH), sum(WORTH.values())
TOTAL, LAST = f"total (of {MOST})", f"Q08.5 (of {WORTH['Q08.5']})"


def running(mark: str) -> list[int]:
    """The machine's processes whose command lines contain `mark`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [int(path.parent.name)] if mark.encode() in path.read_bytes() else []
    return found


def descends(process: int, ancestor: int) -> bool:
    """Whether `process` was started by `ancestor` or by a process that it started; other test
    runs may grade at the same time.
    """
    while process > 1 and process != ancestor:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return False  # gone meanwhile
    return process == ancestor


def save(path: Path, node) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(node))


def hand_in(folder: Path, port: int) -> None:
    """The class's folder: right, blank, wrong, hostile and broken."""
    save(folder / "right.ipynb", COURSE.notebook(COURSE.right()))
    save(folder / "ann" / "renamed (1).ipynb", COURSE.notebook(COURSE.solution))
    release(BOOK, "08", folder).rename(folder / "blank.ipynb")
    save(folder / "=secret.ipynb", COURSE.notebook({}) | {"metadata": {"name": SECRET}})
    for name, (body, _) in HOSTILE.items():
        body = (
            body.replace("PORT", str(port))
            .replace("OTHER", repr(str(folder / "=secret.ipynb")))
            .replace("FOLDER", repr(str(folder)))
        )
        source = COURSE.cell("Q08.5", body)
        source = (
            source.replace("def slope_and_curvature", "def my_slope")
            if name == "no_such_name"
            else source
        )
        save(
            folder / f"{name}.ipynb",
            COURSE.only("Q08.2", "Q08.5", answers=COURSE.solution | {"Q08.5": source}),
        )
    broken(folder)


def broken(folder: Path) -> None:
    """Files that are not what they should be."""
    doubled, missing, tampered, rerun = (
        COURSE.only("Q08.1", "Q08.2", "Q08.5", answers=COURSE.solution) for _ in range(4)
    )
    doubled["cells"].append(doubled["cells"][3])
    missing["cells"] = [c for c in missing["cells"] if "# ANSWER Q08.2" not in c["source"]]
    tampered["cells"][4]["source"] = 'print("Q08.1 PASS")'
    tampered["cells"][3]["source"] = COURSE.cell("Q08.1", "return h, h")
    rerun["cells"][4]["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": "whatever"}
    ]
    for name, node in {
        "doubled": doubled,
        "missing": missing,
        "tampered": tampered,
        "rerun": rerun,
    }.items():
        save(folder / f"{name}.ipynb", node)
    (folder / "empty.ipynb").write_text("")
    (folder / "essay.pdf").write_bytes(b"%PDF-1.4 \xff\xfe")
    (folder / "deep.ipynb").write_text("[" * 200_000)
    (folder / "list.ipynb").write_text("[1, 2]")
    save(
        folder / "cells.ipynb",
        {"cells": [1, None, {"cell_type": "code", "source": [3, {}]}, {"cell_type": "code"}, []]},
    )
    save(folder / "surrogate.ipynb", COURSE.notebook({"Q08.1": "# ANSWER Q08.1\n\ud800 = 1"}))
    (folder / "copied.ipynb").symlink_to(folder / "right.ipynb")
    os.mkfifo(folder / "pipe.ipynb")


needs_sandbox = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """{file without ending: row} of the grades of the whole class, one file a student."""
    folder, out = (
        tmp_path_factory.mktemp("class") / "handed in",
        tmp_path_factory.mktemp("grades") / "grades.csv",
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(
        grading, "questions", lambda number: [replace(q, seconds=8) for q in questions(number)]
    )
    with socket.create_server(("127.0.0.1", 0)) as server, patch.context():
        hand_in(folder, server.getsockname()[1])
        try:
            grading.grade(BOOK, folder, "08", out, lambda line: None)
        except BookError as error:
            if "offers no sandbox" in str(error):
                pytest.skip(str(error))
            raise
    patch.undo()
    rows = list(csv.DictReader(out.open(encoding="utf-8-sig")))
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )
    assert sorted(row["file"].removeprefix("'") for row in rows) == names
    assert len({row["student"] for row in rows}) == len(names)
    return {Path(row["file"]).stem.removeprefix("'"): row for row in rows} | {"OUT": out}


def points(row) -> list[str]:
    return [row[f"{id} (of {WORTH[id]})"] for id in IDS]


@needs_sandbox
def test_right_answers_get_all_points(table):
    for name in ("right", "renamed (1)"):
        assert points(table[name]) == list(map(str, WORTH.values()))
        assert table[name][TOTAL] == str(MOST)
        assert {table[name][f"{id} {what}"] for id in IDS for what in ("feedback", "status")} == {
            "right"
        }
        assert table[name]["status"] == "graded"
    answered = sum(WORTH[id] for id in ("Q08.1", "Q08.2", "Q08.5"))
    assert table["rerun"][TOTAL] == str(answered)
    assert table["right"]["notes"] == "" and "letter for letter" in table["renamed (1)"]["notes"]


@needs_sandbox
def test_blank_gets_none_and_is_told_so(table):
    assert points(table["blank"]) == ["0"] * 5
    assert all("not answered yet" in table["blank"][f"{id} feedback"] for id in IDS)
    assert {table["blank"][name] for name in ("status", *(f"{id} status" for id in IDS))} == {
        "blank"
    }


@needs_sandbox
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_get_no_points_and_cost_the_others_nothing(table, name):
    row = table[name]
    full = str(WORTH["Q08.2"])
    assert (row[LAST], row[f"Q08.2 (of {full})"], row[TOTAL]) == ("0", full, full)
    assert HOSTILE[name][1] in row["Q08.5 feedback"] and row["Q08.5 feedback"] not in (
        "",
        "right",
    )
    assert SECRET not in row["Q08.5 feedback"] and row["Q08.5 status"] in ("failed", "wrong")


@needs_sandbox
def test_what_an_answer_did_is_noted(table):
    assert "Q08.5: uses the book's library, dlib" in table["spells_the_library"]["notes"]
    assert "Q08.5: searches its process's memory" in table["memory_search"]["notes"]


@needs_sandbox
@pytest.mark.parametrize(
    ("name", "id", "status", "says"),
    [
        ("doubled", "Q08.1", "unreadable", "doubled: 2 cells"),
        ("missing", "Q08.2", "missing", "missing: no cell starts with the line '# ANSWER Q08.2'"),
        ("tampered", "Q08.1", "wrong", "ϕ₁"),
        ("empty", "Q08.3", "unreadable", "not a notebook"),
        ("essay", "Q08.3", "unreadable", "no notebook (.ipynb) was handed in, but essay.pdf"),
        ("deep", "Q08.3", "unreadable", "not a notebook"),
        ("list", "Q08.3", "unreadable", "no list of cells"),
        ("cells", "Q08.3", "missing", "missing"),
        ("copied", "Q08.1", "unreadable", "a link"),
        ("pipe", "Q08.1", "unreadable", "a device"),
        ("surrogate", "Q08.1", "failed", "UnicodeEncodeError"),
    ],
)
def test_broken_files_are_named(table, name, id, status, says):
    row = table[name]
    assert says in row[f"{id} feedback"] and row[f"{id} status"] == status
    assert row[next(k for k in row if k.startswith(f"{id} (of"))] == "0"
    if name in ("doubled", "missing", "tampered"):
        others = sum(WORTH[k] for k in ("Q08.1", "Q08.2", "Q08.5") if k != id)
        assert row[TOTAL] == str(others)


@needs_sandbox
def test_a_tampered_check_is_noted_and_ignored(table):
    assert "check cell changed or missing (ignored): Q08.1" in table["tampered"]["notes"]


@needs_sandbox
def test_nothing_is_left_behind(table):
    assert not running(MARK)
    assert not [
        process for process in running("book.grading.zygote") if descends(process, os.getpid())
    ]


@needs_sandbox
def test_the_tables_open_in_a_spreadsheet(table):
    text = table["OUT"].read_text(encoding="utf-8-sig")
    rows = list(csv.reader(text.splitlines()))
    assert not [value for row in rows for value in row if value.startswith(("=", "+", "@", "-"))]
    assert (
        len({table[name]["seed"] for name in HOSTILE}) == 1 and table["right"]["seed"].isdigit()
    )
    # without the mark that spreadsheets want, programs would take it for a part of a name
    beside = list(csv.DictReader(table["OUT"].with_name("grades_nbgrader.csv").open()))
    assert table["OUT"].read_bytes().startswith(b"\xef\xbb\xbf")
    assert list(beside[0])[0] == "assignment"
    assert [row["score"] for row in beside if row["student_id"] == "ann"] == [str(MOST)]
    assert beside[0]["max_score"] == str(MOST)


@pytest.fixture
def at_once(monkeypatch):
    """Servers that need not import torch."""
    monkeypatch.setattr(workers.Worker, "_start", nursery.start)


@needs_sandbox
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("course", every_course(), ids=lambda course: course.number)
def test_answers_fare_in_the_grader_as_in_the_notebook(tmp_path, course):
    """One wrong answer a question: all of them are judged, by the same function, in
    test_course_questions.
    """
    save(tmp_path / "in" / "right.ipynb", course.notebook(course.right()))
    # these walks take a second each
    once = dict.fromkeys(id for id, _, _ in course.wrong if id not in ("Q08.3", "Q08.4"))
    for id in once:
        k = next(k for k, wrong in enumerate(course.wrong) if wrong[0] == id)
        body = course.wrong[k][1]
        save(tmp_path / "in" / f"{k}.ipynb", course.only(id, answers={id: course.cell(id, body)}))
    grades = {
        g.submission.student: g
        for g in grading.grade(
            BOOK,
            tmp_path / "in",
            course.number,
            tmp_path / "grades.csv",
            lambda line: None,
            seed=5,
        )
    }
    right = grades.pop("right")
    assert right.total(course.questions) == sum(q.points for q in course.questions)
    assert len(grades) == len(once)
    assert {mark.note for mark in right.verdicts.values()} == {""}  # no false alarm
    for student, grade in grades.items():
        id, _, says = course.wrong[int(student)]
        assert grade.verdicts[id].share < 1 and says in grade.verdicts[id].feedback


@pytest.mark.usefixtures("at_once")
def test_without_a_sandbox_it_refuses_unless_told(tmp_path, monkeypatch):
    save(tmp_path / "in" / "ann.ipynb", QUICK.only("Q11.2", answers=QUICK.right()))
    # no root can be built there
    monkeypatch.setattr(workers.sandbox, "STAGE", str(tmp_path / "not there"))
    with pytest.raises(BookError, match="offers no sandbox.*--unsafe"):
        grading.grade(BOOK, tmp_path / "in", "11", tmp_path / "grades.csv", lambda line: None)
    assert not (tmp_path / "grades.csv").exists()
    lines = []
    grades = grading.grade(
        BOOK, tmp_path / "in", "11", tmp_path / "grades.csv", lines.append, unsafe=True
    )
    assert "NO SANDBOX" in lines[0] and grades[0].total(questions("11")) == 4  # of Q11.2


def test_other_systems_have_no_sandbox(monkeypatch):
    monkeypatch.setattr(grading.sys, "platform", "darwin")
    assert grading._ways(unsafe=False) == [] and grading._ways(unsafe=True) == ["none"]


@pytest.mark.parametrize(
    ("folder", "out", "says"),
    [
        ("nowhere", "g.csv", "is not a folder"),
        ("", "no/g.csv", "there is no folder"),
        (None, "g.csv", "every answer can read"),
    ],
)
def test_mistakes_of_the_instructor_are_named_before_the_work(
    tmp_path, capsys, folder, out, says
):
    save(tmp_path / "ann.ipynb", COURSE.notebook({}))
    where = Path(sys.prefix, "bin") if folder is None else tmp_path / folder
    assert main(["grade", str(where), "--assignment", "08", "--out", str(tmp_path / out)]) == 1
    assert says in capsys.readouterr().err


@needs_sandbox
def test_an_interrupted_grader_leaves_no_process_and_no_file(tmp_path):
    """SIGINT and SIGHUP end a grader as SIGTERM does (test_course_resume)."""
    endings = (signal.SIGKILL, signal.SIGTERM)
    graders = {
        ending: _start_with_an_answer_that_stays(tmp_path / ending.name, f"{MARK}-{ending.name}")
        for ending in endings
    }
    for ending, process in graders.items():
        _wait(lambda: running(f"{MARK}-{ending.name}\0") or process.poll() is not None)
        if process.poll() is not None:
            message = process.stderr.read()
            assert "offers no sandbox" in message, f"the grader ended early: {message}"
            pytest.skip("this machine offers no sandbox")
        process.send_signal(ending)
        process.wait(60)
        _wait(lambda: not running(f"{MARK}-{ending.name}\0"))
        assert not list((tmp_path / ending.name / ".temporary").iterdir())
        assert process.returncode and not (tmp_path / ending.name / "g.csv").exists()
    assert process.returncode == 128 + signal.SIGTERM
    assert "0 of 1 are kept" in process.stderr.read()


def _start_with_an_answer_that_stays(folder: Path, mark: str) -> subprocess.Popen:
    """A grader at work on an answer that leaves its parent, its session and its parent's death
    signal behind.
    """
    body = (
        "import ctypes, os, time\nif os.fork() == 0:\n    os.setsid()\n    "
        f"os.execv('/bin/sleep', ['{mark}', '300'])\n"
        "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\ntime.sleep(300)"
    )
    node = QUICK.only("Q11.4", answers={"Q11.4": QUICK.cell("Q11.4", body)})
    save(folder / "in" / "ann.ipynb", node)
    command = [
        sys.executable,
        "-m",
        "book",
        "grade",
        str(folder / "in"),
        "--assignment",
        QUICK.number,
        "--out",
        str(folder / "g.csv"),
    ]
    (folder / ".temporary").mkdir()
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder / ".temporary")},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def _wait(true, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
