"""What `make quick` chooses for a change, and that it stops in time and says what it left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
import quick

CASES = {  # changed file: (what comes first after what always runs, what comes later)
    "dlib/rollout.py": (
        "tests/dlib/test_rollout.py",
        "tests/test_doctests.py::test_examples[dlib.rollout]",
    ),
    "dlib/solvers/driver.py": ("tests/dlib/test_driver.py", "tests/dlib/test_solver_truth.py"),
    "dlib/solvers/first_order.py": (
        "tests/test_doctests.py::test_examples[dlib.solvers.first_order]",
        "chapters/08_dpm_solver.ipynb",
    ),
    "dlib/recipes/__init__.py": (
        "tests/dlib/test_bootstrapping_recipes.py",
        "tests/full_scale/test_engine.py",
    ),
    "full_scale/run/engine.py": (
        "tests/full_scale/test_engine.py",
        "tests/full_scale/test_guard.py",
    ),
    "full_scale/recipes/lcm.toml": (None, "tests/full_scale/test_settings.py"),
    "toy_data/digits.py": ("tests/toy_data/test_digits.py", "tests/toy_data/test_students.py"),
    "book/grading/sandbox.py": ("tests/book/test_course_sandbox.py", None),
    "chapters/08_dpm_solver.py": ("tests/book/test_density.py", "chapters/08_dpm_solver.ipynb"),
    "dlib/prediction.py": (
        "tests/test_doctests.py::test_examples[dlib.prediction]",
        "chapters/16_consistency_training.ipynb",
    ),
    "dlib/schedule/base.py": (None, "chapters/04_sde_pf_ode.ipynb"),
    "dlib/parallel/lockstep.py": ("tests/dlib/test_parallel.py", "chapters/10_parareal.ipynb"),
    "full_scale/families/base.py": (
        "tests/full_scale/test_families.py",
        "tests/full_scale/test_sdxl_trains.py",
    ),
    "book/verbs.py": ("tests/book/test_verbs.py", "chapters/01_score_matching.ipynb"),
    "book/floors.py": (None, "tests/book/test_site.py"),  # by way of the API pages
    "book/truth/judging.py": ("tests/book/test_course_questions.py", None),
    "tests/dlib/truth.py": (None, "tests/dlib/test_phi.py"),
    "tests/book/conftest.py": (None, "tests/book/test_site.py"),
    "tests/dlib/test_phi.py": ("tests/dlib/test_phi.py", None),
    "README.md": ("tests/book/test_counts.py", "tests/full_scale/test_pages.py"),
    "book/pages/for/student.md": ("tests/book/test_counts.py", "tests/book/test_course_alike.py"),
    ".ci/run": ("tests/test_makefile.py", None),
    "LICENSE": (None, None),
}
NEVER_RUN = {"bench/training.py": "minutes of training, for `python -m bench training` alone"}
"""Modules of which no test runs anything, and why."""


@pytest.mark.parametrize("file", CASES)
def test_a_change_calls_for_its_own_tests_first(file):
    first, later = CASES[file]
    chosen = quick.choose([file])
    assert chosen[: len(quick.ALWAYS)] == quick.ALWAYS
    found = chosen[len(quick.ALWAYS) :]
    assert first is None or found[0] == first
    assert later is None or later in found
    assert (file == "LICENSE") == (not found)
    room = file.split("/")[0]
    fences = quick.FENCES.get(room, []) if file.endswith(".py") else []
    assert set(fences) <= set(found)
    books = [name.endswith(".ipynb") for name in chosen]
    assert books == sorted(books), "notebooks come last"
    every = sum(1 for _ in (quick.ROOT / "tests").rglob("test_*.py"))
    assert len(chosen) < 0.6 * every, "a change of one file is no reason to run everything"


@pytest.mark.parametrize(
    "file",
    [
        "book/truth/q04.py",
        "book/questions/q04.py",
        "tests/book/course04.py",
        "chapters/assignments/04_sde_pf_ode.py",
    ],
)
def test_a_part_of_an_assignment_calls_for_its_course_and_its_notebook(file):
    chosen = quick.choose([file])
    assert quick.QUESTIONS in chosen[2:5], "before all that takes longer"
    # who takes everybody's class, or this one, and not another one
    assert {f"tests/book/test_course_{n}.py" for n in ("questions", "grade", "orders")} <= set(
        chosen
    )
    assert "tests/book/test_course_draws.py" not in chosen
    assert chosen[-1] == "chapters/assignments/04_sde_pf_ode.ipynb"
    assert sum(test.endswith(".ipynb") for test in chosen) == 1


def test_every_module_calls_for_more_than_fences():
    files = [p for room in quick.ROOMS for p in sorted((quick.ROOT / room).rglob("*.py"))]
    fences = {*quick.ALWAYS, *sum(quick.FENCES.values(), [])}
    lone = []
    for file in (path.relative_to(quick.ROOT).as_posix() for path in files):
        chosen = {test for test in quick.choose([file]) if "test_doctests" not in test}
        lone += [] if chosen - fences else [file]
    assert len(files) > 300 and lone == list(NEVER_RUN)


def test_a_module_without_tests_takes_those_of_the_nearest_modules_that_import_it(tmp_path):
    texts = {
        "dlib/__init__.py": "from dlib.low import low\n",
        "dlib/low.py": "def low(): ...\n",
        "dlib/middle.py": "from dlib.low import low\ndef middle(): ...\n",
        "dlib/high.py": "def high():\n    from dlib.middle import middle\n",
        "bench/everything.py": "import dlib\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    nearest = lambda tests: quick.nearest(Path("dlib/low.py"), tmp_path, tests)
    tests = {"tests/bench/test_all.py": "import bench.everything\n"}
    assert nearest(tests) == ([], [])
    tests |= {"tests/dlib/test_high.py": "", "tests/dlib/test_a.py": "import dlib.high\n"}
    assert nearest(tests) == (["tests/dlib/test_high.py"], ["tests/dlib/test_a.py"])
    tests |= {"tests/dlib/test_b.py": "from dlib.middle import middle\n"}
    assert nearest(tests) == ([], ["tests/dlib/test_b.py"])
    tests |= {"tests/dlib/test_c.py": "from dlib import low\n"}
    assert nearest(tests) == ([], ["tests/dlib/test_c.py"])


def test_a_changed_file_of_the_root_calls_for_those_who_read_it():
    """Whoever has such a file in its text, after the name of the root."""
    names = [p.name for p in quick.ROOT.iterdir() if p.is_file()] + [".ci"]
    read = {
        (name, path.relative_to(quick.ROOT).as_posix())
        for path in (quick.ROOT / "tests").rglob("test_*.py")
        for name in names
        if f'ROOT / "{name}"' in path.read_text(encoding="utf-8")
    }
    assert len({name for name, _ in read}) > 5
    missing = [
        one for one in read if one[1] not in quick.choose([one[0].replace(".ci", ".ci/run")])
    ]
    assert missing == []
    assert all(
        (quick.ROOT / f"tests/{t}.py").is_file() for ts in quick.READERS.values() for t in ts
    )


def test_what_does_not_exist_any_more_is_not_asked_for():
    assert quick.choose(["tests/dlib/test_gone.py", "chapters/99_gone.py"])[-1].startswith(
        "tests/"
    )


def test_notebooks_that_use_a_changed_module_come_with_those_that_use_most_first():
    """By an import of a name, or behind the package; a name of another module is none."""
    both = ["chapters/29_negative_preference.ipynb", "chapters/28_preference_optimization.ipynb"]
    assert quick.books_with(Path("dlib/recipes/preferences.py"), quick.ROOT) == both
    found = quick.books_with(Path("dlib/solvers/first_order.py"), quick.ROOT)
    assert "chapters/03_markov_view.ipynb" in found  # from dlib import transition
    assert "chapters/16_consistency_training.ipynb" not in found
    assert quick.books_with(Path("dlib/gone.py"), quick.ROOT) == []


def test_a_name_counts_where_it_comes_from_the_changed_module_alone(tmp_path):
    (tmp_path / "dlib").mkdir()
    (tmp_path / "chapters").mkdir()
    (tmp_path / "dlib" / "room.py").write_text("def one(): ...\ndef two(): ...\n")
    books = {
        "01_package": "from dlib import one\n",
        "02_module": "from dlib.room import one, two\n",
        "03_behind": "from dlib import room\nroom.two()\n",
        "04_other_module": "from dlib.rooms import one\nfrom toy_data import two\n",
        "05_behind_another": "from toy_data import attic\nattic.one()\n",
        "06_other_name": "from dlib.room import three\n",
        "07_behind_both": "import dlib\ndlib.room.two()\n",
    }
    for name, text in books.items():
        (tmp_path / "chapters" / f"{name}.py").write_text(text)
    found = quick.books_with(Path("dlib/room.py"), tmp_path)
    wanted = ("02_module", "01_package", "03_behind", "07_behind_both")
    assert found == [f"chapters/{name}.ipynb" for name in wanted]


def test_changed_files_are_those_of_commits_of_the_work_tree_and_new_ones(tmp_path):
    def git(*words):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    for name in ("kept", "committed", "edited"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    git("checkout", "-b", "work")
    (tmp_path / "committed").write_text("2")
    git("commit", "-am", "two")
    (tmp_path / "edited").write_text("2")
    (tmp_path / "new").write_text("1")
    assert quick.changed(None, tmp_path) == ["committed", "edited", "new"]
    assert quick.changed("HEAD", tmp_path) == ["edited", "new"]


def test_notebooks_are_compared_as_make_test_compares_them(monkeypatch):
    """Without what was measured, which another processor measures otherwise."""
    jobs, done = [], subprocess.CompletedProcess("", 0)
    monkeypatch.setattr(sys, "argv", ["quick.py"])
    monkeypatch.setattr(quick, "changed", lambda since: ["chapters/08_dpm_solver.py"])
    monkeypatch.setattr(quick, "stale", list)
    monkeypatch.setattr(subprocess, "run", lambda job, **more: jobs.append(job) or done)
    assert quick.main() == 0
    (ours,) = (job for job in jobs if any("nbval" in word for word in job))
    (line,) = (x for x in (quick.ROOT / "Makefile").read_text().splitlines() if "--nbval" in x)
    wanted = line.split()[line.split().index("pytest") :]
    wanted = wanted[: wanted.index("-n")]
    assert "--nbval-sanitize-with" in wanted
    assert ours[2 : 2 + len(wanted)] == wanted and ours[-1] == "chapters/08_dpm_solver.ipynb"


@pytest.mark.parametrize(("at", "says"), [("0", "2 of "), ("inf", "2 passed")])
def test_when_the_time_is_over_the_rest_is_left_out_and_named(tmp_path, at, says):
    (tmp_path / "test_some.py").write_text("def test_a(): pass\ndef test_b(): pass\n")
    words = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "quick", "test_some.py"]
    env = os.environ | {quick.STOP: at, "PYTHONPATH": str(quick.ROOT / "tests")}
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert says in done.stdout and ("LEFT OUT" in done.stdout) == (at == "0")
