"""Chapter sources: their names, headers and ids; the outline; the choice of chapters."""

import ast
import re
import sys
import tomllib
from dataclasses import replace
from importlib.metadata import packages_distributions

import nbformat
import pytest
from tinybook import ROOT, STEM, edit

from book.bibliography import read_bibliography
from book.chapter import read_chapter
from book.convert import to_notebook
from book.errors import BookError
from book.library import Book

SOURCE = f"chapters/{STEM}.py"


def test_ids_follow_the_order_and_conversion_repeats_itself(tiny):
    first, second = (
        nbformat.writes(to_notebook(Book(tiny.root), Book(tiny.root).chapters[0]))
        for _ in range(2)
    )
    assert first == second
    assert [cell.id for cell in tiny.chapters[0].cells] == [f"ch08-{i:03d}" for i in range(1, 8)]


def test_a_folded_cell_is_collapsed_in_jupyterlab(tiny):
    cells = to_notebook(tiny, tiny.chapters[0]).cells
    folded = {"tags": ["fold"], "jupyter": {"source_hidden": True}}
    assert [dict(cell.metadata) for cell in cells] == [{}, folded, {}, {}, {}, folded, {}]


def test_a_notebook_says_in_its_first_cell_how_to_run_it(tiny):
    first = to_notebook(tiny, tiny.chapters[0]).cells[0].source
    assert first.startswith("# 8 · Tiny solvers\n\n*2 minutes · 1 GB of memory")
    told = first.split("\n\n")[2]
    for words in ("`make lab`", "No module named 'book'", "`pip install -e .`"):
        assert words in told
    assignment = Book(ROOT).assignment("08")
    told = to_notebook(Book(ROOT), assignment).cells[0].source.split("\n\n")[2]
    assert "make lab" not in told and "`make setup`" in told and "`pip install -e .`" in told
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\nlab: " in makefile and "\nsetup: " in makefile


def test_what_it_says_to_install_is_what_its_cells_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = {re.match(r"[\w-]+", wanted)[0] for wanted in project["dependencies"]}
    ours, owners = {"bench", "book", "dlib", "toy_data"}, packages_distributions()
    book = Book(ROOT)
    for chapter in book.chapters:
        code = [ast.parse(cell.source) for cell in chapter.cells if cell.kind == "code"]
        nodes = [node for tree in code for node in ast.walk(tree)]
        named = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        named |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
        tops = {name.split(".")[0] for name in named} - ours - sys.stdlib_module_names
        enough = all(base & set(owners[top]) for top in tops)
        told = to_notebook(book, chapter).cells[0].source
        assert ("`pip install -e .`" if enough else "`pip install -e '.[full]'`") in told, tops


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("from full_scale import export", "'.[full]'"),
        ("import diffusers", "'.[full]'"),
        ("x = 1  # import diffusers", "."),
    ],
)
def test_what_one_cell_imports_is_to_be_installed(tiny, line, what):
    (chapter, *_) = tiny.chapters
    *rest, last = chapter.cells
    more = replace(chapter, cells=[*rest, replace(last, kind="code", source=line)])
    assert f"`pip install -e {what}`" in to_notebook(tiny, more).cells[0].source


def test_the_header_is_read(tiny):
    chapter = tiny.chapters[0]
    assert (chapter.number, chapter.title, chapter.minutes, chapter.needs) == (
        8,
        "Tiny solvers",
        2,
        ("PyTorch", "a little calculus"),
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("#     minutes: 2\n", "", "missing or wrong: ['minutes']"),
        ("#     minutes: 2\n", "#     minutes: two\n", "missing or wrong: ['minutes']"),
        ("#     minutes: 2\n", "#     minutes: 2\n#     mintues: 2\n", "unknown: ['mintues']"),
        ("#     name: python3\n", "", "'name' is a required property"),
        ("#     name: python3\n", "#     name: julia\n", "kernelspec named python3"),
        ("#     minutes: 2\n", "#     minutes: [2\n", "not a Jupytext percent file"),
        ("# # 8 · Tiny solvers\n", "# Tiny solvers\n", "start with the chapter's heading"),
        ('# %% tags=["fold"]\nimport', '# %% tags=["hide"]\nimport', "ch08-002 (import math)"),
        (
            "# %% [markdown]\n# ## 8.1",
            '# %% [markdown] tags=["fold"]\n# ## 8.1',
            "'fold', for code",
        ),
    ],
)
def test_a_bad_header_is_named(tiny, old, new, says):
    edit(tiny.root / SOURCE, old, new)
    with pytest.raises(BookError) as error:
        read_chapter(tiny.root / SOURCE)
    assert SOURCE in str(error.value) and says in str(error.value)


def test_a_bad_file_name_is_named(tiny):
    (tiny.root / SOURCE).rename(tiny.root / "chapters" / "8_DPM.py")
    with pytest.raises(BookError, match="named like 08_dpm_solver.py"):
        Book(tiny.root).chapters


def test_a_chapter_must_be_in_the_outline(tiny):
    (tiny.root / SOURCE).rename(tiny.root / "chapters" / "08_other.py")
    with pytest.raises(BookError, match="chapters/08_other.py is not in book/outline.toml"):
        Book(tiny.root).chapters


def test_an_unknown_chapter_lists_the_known(tiny):
    assert (
        [chapter.stem for chapter in tiny.chosen(["08"])]
        == [STEM]
        == [chapter.stem for chapter in tiny.chosen(["all"])]
    )
    with pytest.raises(BookError, match="no chapter '11': the chapters are 08"):
        tiny.chosen(["11"])


def test_the_outline_has_every_chapter_once_in_order():
    stems = [planned.stem for _, chapters in Book(ROOT).outline for planned in chapters]
    assert [int(stem[:2]) for stem in stems] == list(range(1, 34))


def test_the_bibliography_is_complete_and_its_labels_differ():
    entries = Book(ROOT).entries.values()
    assert (
        len({entry.label for entry in entries})
        == len({entry.url for entry in entries})
        == len(entries)
        >= 25
    )
    assert all(entry.venue and entry.url.startswith("https://") for entry in entries)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("@article{a, author={B, C}, year={2000}, url={https://x}}", "missing: \\['title'\\]"),
        ("@article{a", "refs.bib"),
    ],
)
def test_a_bad_bibliography_is_named(tmp_path, text, says):
    (tmp_path / "refs.bib").write_text(text)
    with pytest.raises(BookError, match=says):
        read_bibliography(tmp_path / "refs.bib")
