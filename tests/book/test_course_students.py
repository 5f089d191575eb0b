"""Who handed in what: one row a student in every layout, and notes for everything else."""

import json
import os
from types import SimpleNamespace

import pytest
from course import BOOK, every_course
from course08 import COURSE

from book.errors import BookError
from book.grading import report, students
from book.grading.reaching import reaching
from book.grading.report import Grade
from book.grading.submissions import STATUSES, Mark
from book.release import student_notebook

BLANK = student_notebook(BOOK, COURSE.assignment)
ANSWERED = json.dumps(COURSE.notebook(COURSE.right()))
NAME = COURSE.assignment.notebook.name  # 08_dpm_solver.ipynb


def lay(folder, **files):
    """Files by path; the later ones are newer."""
    for k, (path, text) in enumerate(files.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        os.utime(folder / path, (10**9 + k, 10**9 + k))


def found(folder, **options):
    """({student: submission}, files of nobody)."""
    submissions, strays = students.find(folder, COURSE.assignment, **options)
    assert len({s.student for s in submissions}) == len(submissions)
    return {s.student: s for s in submissions}, strays


@pytest.mark.parametrize(
    ("paths", "student", "file"),
    [
        ([NAME], "08_dpm_solver", 0),
        (["ada.ipynb"], "ada", 0),
        ([f"ada/{NAME}", "ada/desktop.ini", "ada/essay.pdf"], "ada", 0),
        (["ada/desktop.ini", "ada/mine.IPYNB"], "ada", 1),
        (["ada.ipynb", "ada.pdf"], "ada", 0),
        ([f"ada/08/{NAME}", "ada/08/timestamp.txt"], "ada", 0),  # nbgrader
        ([f"Ada L_123_assignsubmission_file_/{NAME}"], "Ada L_123", 0),  # Moodle
        ([f"Ada L_123_assignsubmission_file_{NAME}"], "Ada L_123", 0),
        (
            [
                "Ada L_123_assignsubmission_onlinetext_/onlinetext.html",
                f"Ada L_123_assignsubmission_file_/{NAME}",
            ],
            "Ada L_123",
            1,
        ),
        ([f"lovelaceada_4321_98765_{NAME}"], "lovelaceada_4321", 0),  # Canvas
        ([f"lovelaceada_LATE_4321_98765_{NAME}"], "lovelaceada_4321", 0),
        (["lovelaceada_4321_98765_08_dpm_solver-2.ipynb"], "lovelaceada_4321", 0),
        (["course_2025_1112_ada.ipynb"], "course_2025_1112_ada", 0),
        (["Zoe\u0308.ipynb"], "Zoë", 0),
    ],
)
def test_one_student_in_every_layout(tmp_path, paths, student, file):
    lay(tmp_path, **dict.fromkeys(paths, ANSWERED))
    by_name, strays = found(tmp_path)
    assert list(by_name) == [student] and not strays
    assert by_name[student].file == paths[file] and len(by_name[student].answers) == 5
    rest = [p for p in paths if p != paths[file] and not p.endswith("timestamp.txt")]
    assert by_name[student].notes == ([f"not a notebook: {', '.join(rest)}"] if rest else [])


@pytest.mark.parametrize(
    ("files", "graded", "why"),
    [
        ({"a/old.ipynb": ANSWERED, "a/new.ipynb": ANSWERED}, "a/new.ipynb", "newest"),
        ({"a/new.ipynb": ANSWERED, "a/old.ipynb": ANSWERED}, "a/old.ipynb", "newest"),
        ({f"a/{NAME}": ANSWERED, "a/try.ipynb": ANSWERED}, f"a/{NAME}", "released name"),
        ({"a/try.ipynb": ANSWERED, f"a/{NAME}": BLANK}, "a/try.ipynb", "only one with answers"),
        ({f"a/{NAME}": BLANK, "a.ipynb": BLANK}, f"a/{NAME}", "released name"),
        ({f"a/1/{NAME}": ANSWERED, f"a/2/{NAME}": ANSWERED}, f"a/2/{NAME}", "newest"),
        (
            {
                f"a_123_456_{NAME}": ANSWERED,
                "a_123_457_08_dpm_solver-1.ipynb": ANSWERED,
                "a_123_458_notes.pdf": "x",
            },
            f"a_123_456_{NAME}",
            "released name",
        ),
    ],
)
def test_of_several_notebooks_one_is_graded_by_a_rule_that_is_told(tmp_path, files, graded, why):
    lay(tmp_path, **files)
    by_name, _ = found(tmp_path)
    submission = next(iter(by_name.values()))
    assert submission.file == graded
    assert f"2 notebooks: graded {graded}, the" in submission.notes[0]
    (left,) = {path for path in files if path.endswith(".ipynb")} - {graded}
    assert why in submission.notes[0] and f"not graded: {left}" in submission.notes[0]


def test_files_of_nobody_are_no_students(tmp_path):
    stray = ["desktop.ini", "Thumbs.db", ".DS_Store", "__MACOSX/ada/x.ipynb", "bob.pdf", "g.csv"]
    lay(tmp_path, **{"ada.ipynb": ANSWERED}, **dict.fromkeys(stray, "x"))
    by_name, strays = found(tmp_path, ours={tmp_path / "g.csv"})
    # without a roster bob may be somebody, who then must not vanish
    assert list(by_name) == ["ada", "bob"] and strays == ["Thumbs.db", "desktop.ini"]
    assert {mark.status for mark in by_name["bob"].faults.values()} == {"unreadable"}
    by_name, strays = found(tmp_path, ours={tmp_path / "g.csv"}, roster=["ada"])
    assert list(by_name) == ["ada"] and strays == ["Thumbs.db", "bob.pdf", "desktop.ini"]


def test_a_roster_names_the_missing_and_the_unknown(tmp_path):
    lay(tmp_path, **{"ada.ipynb": ANSWERED, "eve.ipynb": ANSWERED, f"b_777_888_{NAME}": BLANK})
    by_name, _ = found(tmp_path, roster=["zoe", "777", "ada"])
    assert list(by_name) == ["777", "ada", "eve", "zoe"]
    assert by_name["eve"].notes == ["not on the roster"] and by_name["ada"].notes == []
    assert by_name["777"].file.startswith("b_777") and by_name["zoe"].file == ""
    assert {(m.status, m.share) for m in by_name["zoe"].faults.values()} == {("missing", 0)}


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("ada\n\nbob \nada\n", ["ada", "bob"]),
        ("\ufeffada\r\nbob\r\n", ["ada", "bob"]),
        ("student_id\nada\nbob\n", ["ada", "bob"]),
        ('Student,ID,"SIS, ID"\n"Lovelace, Ada",12,x\n"B, C",13,y\n', ["12", "13"]),
        ("name;student_id\nAda;a1\n;\n", ["a1"]),
    ],
)
def test_a_roster_is_read(tmp_path, text, ids):
    (tmp_path / "roster").write_text(text, newline="")
    assert students.read_roster(tmp_path / "roster") == ids


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "name,mail\nAda,a@b\n",
            "has the columns name, mail: wanted one called student_id or id",
        ),
        ("\n", "names nobody"),
        (None, "cannot be read as a roster"),
    ],
)
def test_what_is_no_roster_is_refused(tmp_path, text, says):
    if text is not None:
        (tmp_path / "roster").write_text(text)
    with pytest.raises(BookError, match=says):
        students.read_roster(tmp_path / "roster")


def test_lines_of_windows_and_spaces_at_their_ends_are_no_change(tmp_path):
    node = COURSE.notebook(COURSE.right())
    for entry in node["cells"]:
        entry["source"] = entry["source"].replace("\n", " \r\n") + "\r\n"
    lay(tmp_path, **{"ada.ipynb": json.dumps(node)})
    ada = found(tmp_path)[0]["ada"]
    assert ada.notes == [] and len(ada.answers) == 5
    assert not [source for source in ada.answers.values() if "\r" in source]


def test_a_changed_first_cell_is_called_that(tmp_path):
    node = COURSE.notebook(COURSE.right())
    first = next(entry for entry in node["cells"] if entry["cell_type"] == "code")
    first["source"] += "\ntorch.set_default_dtype(torch.float64)"
    lay(tmp_path, **{"ada.ipynb": json.dumps(node)})
    assert found(tmp_path)[0]["ada"].notes == [
        "the first cell was changed (the grader runs its own)"
    ]


def test_comments_do_not_make_a_blank_an_answer_and_any_code_does(tmp_path):
    node = COURSE.notebook({})
    for entry in node["cells"]:
        if "# ANSWER Q08.1" in entry["source"]:
            entry["source"] += "\n    # I ran out of time\n"
        if "# ANSWER Q08.2" in entry["source"]:
            entry["source"] = "# ANSWER Q08.2\n# def ddim_step"
        if "# ANSWER Q08.3" in entry["source"]:
            entry["source"] = entry["source"].replace("    raise", "    x = x\n    raise")
    lay(tmp_path, **{"ada.ipynb": json.dumps(node)})
    ada = found(tmp_path)[0]["ada"]
    assert list(ada.answers) == ["Q08.3"]
    assert {mark.status for mark in ada.faults.values()} == {"blank"}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("import ｓys", ["sys"]),
        ("__import__('dl' + 'ib')", ["__import__"]),
        ("import math, importlib as i", ["importlib"]),
        ("torch.sys.modules['dl' + 'ib']", ["sys", "modules"]),
        ("getattr(torch, 'sy' + 's')", ["getattr"]),
        ("vp.__globals__['ddim']", ["__globals__"]),
        ("run = exec", ["exec"]),
        ('f\'{__import__("dl" + "ib")}\'', ["__import__"]),
        ("from book.questions import q08", ["book"]),
        ("model._net(x)", ["_net"]),
        ("import torch, socket as s; from requests import get", ["socket", "requests"]),
        ("'''One\n    from the start\n    import of goods'''", []),
        ("return model(x, a).mix(b.alpha, b.sigma)", ["mix"]),
        ("return (model(x, a).  # the step\n    mix(b.alpha, 0) + z)", ["mix"]),
        ("match model(x, a):\n        case object(mix=step): return step(1, 0)", ["mix"]),
        ("mix = model(x, a).x0 * b.alpha\n    return mix", []),
        ("from dlib import vp", []),  # seen where it runs: test_course_watch
        ("import torch\n    model.eval()  # exec, open\n    'sys'", []),
        ("from torch.nn.functional import softmax\n    _, y = x.max(0)", []),
    ],
)
def test_what_reaches_beyond_a_formula_is_named_however_it_is_spelled(line, names):
    assert reaching(f"# ANSWER Q08.1\ndef f(x):\n    {line}\n") == names


@pytest.mark.parametrize("name", ["_", "display", "get_ipython"])
def test_it_does_not_matter_what_a_shell_left_among_the_builtins(monkeypatch, name):
    text = f"def f(x):\n    return {name}(x)\n"
    monkeypatch.delattr("builtins." + name, raising=False)
    before = reaching(text)
    monkeypatch.setattr("builtins." + name, print, raising=False)
    assert reaching(text) == before == ["get_ipython"] * (name == "get_ipython")


@pytest.mark.parametrize("course", every_course(), ids=lambda course: course.number)
def test_right_answers_reach_for_nothing(course):
    assert not [
        (id, reaching(source))
        for answers in (course.solution, course.right())
        for id, source in answers.items()
        if reaching(source)
    ]


def test_an_answer_that_the_machine_failed_has_no_points_yet(tmp_path):
    asked = [SimpleNamespace(id=id, points=4) for id in ("Q1", "Q2")]
    lay(tmp_path, **{"ada.ipynb": ANSWERED, "bob.ipynb": ANSWERED})
    by_name, _ = found(tmp_path, roster=["ada", "bob", "zoe"])
    right, partly, machine = Mark("right", 1, "right"), Mark("partly", 0.5, "=x"), "machine"
    marks = {
        "ada": [right, Mark(machine, 0, "no memory")],
        "bob": [right, partly],
        "zoe": [Mark("missing", 0, "")] * 2,
    }
    grades = [Grade(by_name[s], dict(zip(("Q1", "Q2"), marks[s]))) for s in marks]
    report.write(tmp_path / "g.csv", grades, asked, 7, "08")
    rows = [line.split(",") for line in (tmp_path / "g.csv").read_text("utf-8-sig").splitlines()]
    assert [dict(zip(rows[0], row))["status"] for row in rows[1:]] == [
        "machine", "graded", "missing"
    ]  # fmt: skip
    assert rows[1][2:9] == ["4", "right", "right", "", "machine", "no memory", ""]
    assert rows[2][2:9] == ["4", "right", "right", "2", "partly", "'=x", "6"]
    beside = [line.split(",") for line in (tmp_path / "g_nbgrader.csv").read_text().splitlines()]
    assert [(row[3], row[9], row[10]) for row in beside[1:]] == [
        ("ada", "", "8"), ("bob", "6", "8"), ("zoe", "0", "8")
    ]  # fmt: skip
    assert {mark.status for row in marks.values() for mark in row} <= set(STATUSES)
