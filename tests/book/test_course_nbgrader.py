"""The lines of the instructor's page put a table into nbgrader's gradebook, as they stand there."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from course import ROOT

from book.grading import report
from book.grading.report import Grade
from book.grading.submissions import STATUSES, Mark, Submission
from book.truth import questions

PAGE = (ROOT / "book" / "pages" / "for" / "instructor.md").read_text(encoding="utf-8")
NBGRADER = Path(sys.prefix) / "nbgrader"  # where the Makefile installs it
# twice: who grades again wants the newer points
DRIVER = """
import os
from nbgrader.api import Gradebook
from nbgrader.plugins import CsvExportPlugin
for k in "01":
    os.replace(f"{k}_nbgrader.csv", "grades_nbgrader.csv")
    exec(compile(open("lines.py", encoding="utf-8").read(), "lines.py", "exec"), {})
    with Gradebook("sqlite:///gradebook.db") as gradebook:
        CsvExportPlugin(to=f"back_{k}.csv").export(gradebook)
"""


def lines() -> str:
    """The page's lines of Python that name nbgrader."""
    (found,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        if "nbgrader" in block
    ]
    return found


def table(path, statuses: dict[str, str]) -> None:
    """Tables in which the answers of a student have one status."""
    share = {"right": 1.0, "partly": 0.5}
    asked = questions("08")
    grades = [
        Grade(Submission(student), {q.id: Mark(s, share.get(s, 0.0), "") for q in asked})
        for student, s in statuses.items()
    ]
    report.write(path, grades, asked, 1, "08")


def test_the_page_lists_every_status():
    (listed,) = re.findall(r"\n\| status \|.*?\n\n", PAGE, re.DOTALL)
    assert tuple(re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE)) == STATUSES


def test_what_the_page_puts_into_nbgrader_comes_out_of_it(tmp_path):
    if not NBGRADER.is_dir():
        reason = "no nbgrader: `make test` installs it"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    table(tmp_path / "0.csv", {"ada": "partly", "bob": "machine", "zoë": "missing"})
    table(tmp_path / "1.csv", {"ada": "right", "bob": "partly", "zoë": "missing"})
    wanted = []
    for k in "01":
        with (tmp_path / f"{k}_nbgrader.csv").open(encoding="utf-8") as rows:
            wanted.append(list(csv.DictReader(rows)))
    (tmp_path / "lines.py").write_text(lines(), encoding="utf-8")
    environment = {
        **os.environ,
        "PATH": f"{NBGRADER / 'bin'}{os.pathsep}{os.environ['PATH']}",  # it runs alembic by name
        "PYTHONPATH": str(NBGRADER),
    }
    command = [sys.executable, "-W", "ignore", "-c", DRIVER]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    for k, ours in enumerate(wanted):
        with (tmp_path / f"back_{k}.csv").open(encoding="utf-8") as rows:
            theirs = list(csv.DictReader(rows))
        assert list(theirs[0]) == list(ours[0])
        assert list(map(told, theirs)) == list(map(told, ours))
    assert [row["score"] for row in wanted[0]] == ["10", "", "0"]


def told(row: dict[str, str]) -> tuple:
    """What a row says; without points nbgrader says 0."""
    number = lambda column: float(row[column] or 0)
    names = (row["assignment"], row["student_id"])
    return *names, number("raw_score"), number("score"), number("max_score")
