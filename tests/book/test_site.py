"""The site as files: it builds strictly, whole or not at all, and asks nothing of anyone else."""

import json
import re
import subprocess
import sys

import pytest
from tinybook import EULER, ROOT, STEM, edit

from book import mathjax
from book.benchmarks import benchmarks_page
from book.errors import BookError
from book.library import Book
from book.pages import Pages
from book.site import build, server

PAGE = f"chapters/{STEM}.html"
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc\s*=\s*["']?([^"'\s>]+)|<link\b[^>]*?\bhref\s*=\s*["']?([^"'\s>]+)|url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)"""
)


def test_nothing_is_fetched_from_elsewhere(site):
    fetched = []
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        fetched += [
            (path.name, "".join(match))
            for match in FETCHED.findall(path.read_text(encoding="utf-8"))
        ]
    away = [(name, url) for name, url in fetched if re.match(r"(https?:)?//", url)]
    assert len(fetched) > 50 and away == []


def test_no_script_names_a_cdn(site):
    hosts = re.compile(r"(?:cdn\.|cdnjs|jsdelivr|unpkg|googleapis|gstatic)[\w.-]*")
    found = {
        path.name: set(hosts.findall(path.read_text(encoding="utf-8")))
        for path in [*site.rglob("*.js"), *site.rglob("*.html")]
    }
    assert {name: names for name, names in found.items() if names} == {}


def test_every_picture_has_words_and_no_source_of_maths_is_left(site):
    for path in site.rglob("*.html"):
        text = re.sub(
            r"<(script|pre|code)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        for image in re.findall(r"<img\b[^>]*>", text):
            assert re.search(r'alt="[^"]+"', image), f"{path.name}: {image}"
        rest = re.sub(r'<(span|div) class="arithmatex">.*?</\1>', "", text, flags=re.DOTALL)
        for raw in ("$$", r"\(", r"\[", r"\label", r"\eqref", "[@"):
            assert raw not in rest, (
                f"{path.name}: {raw} in {rest[max(0, rest.find(raw) - 60) :][:160]}"
            )


def test_the_chapter_s_page(tiny_site):
    text = (tiny_site / PAGE).read_text(encoding="utf-8")
    assert (
        '<div class="claim" id="c08-1">' in text
        and "measured <b>1.005</b>" in text
        and "must be between 0.9 and 1.1" in text
    )
    assert f'<span class="filename">{EULER}</span>' in text and "@solver" in re.sub(
        "<[^>]*>", "", text
    )
    assert (
        'alt="The error falls along a line of slope &quot;minus one&quot;."' in text
        and 'loading="lazy"' in text
    )
    # in the folded cell and under the figure; JupyterLab's own caption is left out
    assert text.count("Error against steps") == 2
    for absent in ("NBVAL_CHECK_OUTPUT", "quadrangular</", "show(euler)", "From <code>"):
        assert absent not in re.sub("</?span[^>]*>", "", text), absent
    assert (tiny_site / f"chapters/{STEM}.ipynb").exists() and (
        tiny_site / f"chapters/{STEM}/fig-1.png"
    ).exists()
    assert re.search(
        r"<details>\s*<summary>The algebra.*<strong>one</strong>.*</details>", text, re.DOTALL
    )
    assert re.search(r"<ul>\s*<li>expand", text)


def test_a_folded_cell_has_a_title_and_keeps_what_it_puts_out_in_sight(tiny_site):
    text = (tiny_site / PAGE).read_text(encoding="utf-8")
    folds = re.findall(
        r'<details class="fold">\s*<summary>(.*?)</summary>(.*?)</details>(.{,9})',
        text,
        re.DOTALL,
    )
    assert [title for title, _, _ in folds] == [
        "Imports and set-up",
        "The error, drawn over the steps",
    ]
    assert "behind_the_fold" in folds[0][1] and "loglog" in folds[1][1]
    assert "drawn over the steps" not in folds[1][1] and "<img" not in folds[1][1]
    assert folds[1][2].strip().startswith("<figure")


def test_the_generated_pages(tiny_site):
    ledger = (tiny_site / "ledger.html").read_text(encoding="utf-8")
    assert f'<a href="{PAGE}#c08-1">C08.1</a>' in ledger and "1.005" in ledger
    works = (tiny_site / "bibliography.html").read_text(encoding="utf-8")
    assert (
        'id="lu2022dpm"' in works and f'Cited in <a href="{PAGE}">8 · Tiny solvers</a>' in works
    )
    api = (tiny_site / "api/dlib.solvers.tiny.html").read_text(encoding="utf-8")
    assert "One explicit Euler step" in api and '<span class="gp">&gt;&gt;&gt; </span>' in api
    home = (tiny_site / "index.html").read_text(encoding="utf-8")
    assert (
        "<b>1</b> claims executed" in home
        and "<b>1 of 33</b> chapters written" in home
        and f"chapters/{STEM}/fig-1.png" in home
    )
    # seven parts without a chapter, three chapters beside this one
    assert home.count("planned</em>") == 7 + 3


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("chapters", "../book/pages/notation.md", "../book/pages/notations.md", "notations.md"),
        (
            "chapters",
            "../book/pages/notation.md",
            "../book/pages/notation.md#nowhere",
            "#nowhere",
        ),
        (
            "chapters",
            "../dlib/solvers/tiny.py",
            "../dlib/solvers/gone.py",
            "dlib.solvers.gone.md",
        ),
    ],
)
def test_a_broken_link_stops_the_build_and_keeps_the_old_site(pressed, file, old, new, says):
    for path in (pressed.root / file).iterdir():
        edit(path, old, new)
    out = pressed.root / "site"
    out.mkdir()
    (out / "old.html").write_text("old")
    with pytest.raises(BookError) as error:
        build(Book(pressed.root), out)
    assert STEM in str(error.value) and says in str(error.value)
    assert [path.name for path in out.iterdir()] == ["old.html"] and not (
        pressed.root / "site.part"
    ).exists()


def test_a_stale_chapter_stops_the_build(pressed):
    edit(pressed.root / EULER, "x + h", "x - h")
    with pytest.raises(BookError, match="cell ch08-004"):
        build(pressed, pressed.root / "site")


def test_a_book_without_chapters_builds(tiny):
    (tiny.root / "chapters" / f"{STEM}.py").unlink()
    build(Book(tiny.root), tiny.root / "site")
    assert "<b>0 of 33</b>" in (tiny.root / "site/index.html").read_text(encoding="utf-8")
    assert "nothing is claimed" in (tiny.root / "site/ledger.html").read_text(encoding="utf-8")


def test_an_unknown_slot_is_named(tiny):
    (tiny.root / "chapters" / f"{STEM}.py").unlink()
    with pytest.raises(
        BookError, match="index.md: there is no slot book:contens; the slots are contents"
    ):
        Pages(Book(tiny.root)).fill("<!-- book:contens -->", "index.md")


def test_the_student_s_page_lists_every_assignment(real_site):
    page = (real_site / "for/student.html").read_text(encoding="utf-8")
    assignments = Book(ROOT).assignments
    assert len(assignments) > 10 and all(
        a.summary.rstrip(".") in page.replace("’", "'") for a in assignments
    )


def test_missing_mathjax_is_named(monkeypatch):
    monkeypatch.setattr(mathjax, "PACKAGE", "no-such-package")
    with pytest.raises(BookError, match="pip install no-such-package"):
        mathjax.mathjax_files()


def test_the_server_takes_the_next_free_port(tmp_path):
    with server(tmp_path, 8765) as first, server(tmp_path, first.server_port) as second:
        assert second.server_port > first.server_port
        assert {http.server_address[0] for http in (first, second)} == {"127.0.0.1"}


LIGHT = """
import sys
for name in ("torch dlib toy_data full_scale numpy scipy matplotlib PIL IPython nbclient ipykernel sklearn").split():
    sys.modules[name] = None  # importing it now fails
from pathlib import Path
import book.__main__
from book.library import Book
book.__main__.ROOT = root = Path(sys.argv[1])
for arguments in (["ledger"], ["build", "--out", str(root / "light")]):
    assert book.__main__.main(arguments) == 0
"""


def test_building_needs_neither_torch_nor_the_library(pressed):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, pressed.root], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (
        "C08.1  1.005  between 0.9 and 1.1  Euler converges" in done.stdout
        and (pressed.root / "light" / PAGE).exists()
    )


def test_the_errata_lead_to_claims_that_exist():
    """A link to a claim that a book lacks becomes plain words; of this one none does."""
    text = (ROOT / "book" / "pages" / "errata.md").read_text(encoding="utf-8")
    links = re.findall(r"\[C\d\d\.\d+\]\(chapters/[^)]+\)", text)
    pages = Pages(Book(ROOT))
    page = pages.fill(text, "errata.md")
    assert len(links) > 10 and all(link in page for link in links)
    said = re.search(
        r"Finished are (\d+) of 33 chapters: Part I, Part II, Part III, (.*?)\.",
        pages.fill(
            (ROOT / "book/pages/for/instructor.md").read_text("utf-8"), "for/instructor.md"
        ),
    )
    assert said and int(said[1]) == len(pages.titles) >= 22 and "chapter 20" in said[2]


def test_a_page_shows_the_figure_that_it_describes():
    """A page's <img> of a chapter's figure has that figure's alt text, in its words."""
    found = 0
    for page in (ROOT / "book" / "pages").glob("*.md"):
        said = re.findall(
            r'<img src="chapters/(\w+)/fig-(\d+)\.png" alt="([^"]+)"', page.read_text("utf-8")
        )
        for stem, number, alt in said:
            notebook = json.loads((ROOT / "chapters" / f"{stem}.ipynb").read_text("utf-8"))
            outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
            figures = [out for out in outputs if "image/png" in out.get("data", {})]
            assert figures[int(number) - 1]["metadata"]["book"]["alt"] == alt, page.name
            found += 1
    assert found >= 2


def test_a_long_table_of_single_rows_is_shown_once(tmp_path):
    """Forty-one kinds with a row each: there is nothing to leave out."""
    result = dict(title="T", note="n", machine="m", date="d", columns=["kind", "x"])
    for name, kinds in (("single", 41), ("many", 3)):
        rows = [[f"k{n % kinds}", n] for n in range(41)]
        (tmp_path / f"{name}.json").write_text(json.dumps(result | {"rows": rows}))
        page = benchmarks_page(tmp_path)
        assert page.count("| k0 | 0 |") == (1 if name == "single" else 2)
        assert ("rows of each kind" in page) == (name == "many")
        (tmp_path / f"{name}.json").unlink()
