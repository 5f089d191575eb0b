"""A tiny book (one chapter, one library function) that is executed once a session, and the
sites built from it.
"""

import fcntl
import os
import shutil
import sys
from pathlib import Path

import pytest

from book.library import Book
from book.run import run
from book.site import build

sys.path.append(str(Path(__file__).parent))  # the tests share tinybook.py
from tinybook import ROOT, STEM, lay_out


@pytest.fixture
def tiny(tmp_path) -> Book:
    """A tiny book that has not been executed."""
    return lay_out(tmp_path / "tiny")


@pytest.fixture(scope="session")
def executed(tmp_path_factory) -> Path:
    """The root of a tiny book executed once. Do not change it: take `pressed`."""
    book = lay_out(tmp_path_factory.mktemp("executed") / "tiny")
    run(book, book.chapters[0], lambda line: None)
    return book.root


@pytest.fixture
def pressed(executed, tiny) -> Book:
    """A tiny book with its executed notebook, to be spoilt at will."""
    shutil.copy(executed / "chapters" / f"{STEM}.ipynb", tiny.root / "chapters")
    return tiny


@pytest.fixture(scope="session")
def tiny_site(executed) -> Path:
    build(Book(executed), executed / "site")
    return executed / "site"


@pytest.fixture(scope="session")
def real_site(tmp_path_factory, worker_id) -> Path:
    """The site of this repository's book, built once for all of pytest's workers: the first
    builds it, the others wait. Do not change it.
    """
    mine = tmp_path_factory.getbasetemp()
    shared = mine if worker_id == "master" else mine.parent
    with (shared / "real_site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "real_site").exists():
            build(Book(ROOT), mine / "real_site.part")
            (mine / "real_site.part").rename(shared / "real_site")
    return shared / "real_site"


@pytest.fixture(params=["tiny", "real"])
def site(request) -> Path:
    return request.getfixturevalue(f"{request.param}_site")


@pytest.fixture(scope="session", params=["root", "user"])
def sandboxed(request):
    """A function that runs an answer to question 8.5 in a sandbox and returns its outcome; its
    `way` is the sandbox's.
    """
    from course08 import COURSE

    from book.grading.worker import Refused, Worker
    from book.truth import questions

    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("the way of root needs root")
    q = questions("08")[4]
    case = q.draw(0)
    with Worker("08", request.param) as worker:
        ask = lambda source: worker.ask(q, case, COURSE.prelude, source)
        ask.way = request.param
        try:
            ask("")
        except Refused as error:
            pytest.skip(f"this machine forbids the way of {request.param}: {error}")
        yield ask
    assert worker.process.poll() is not None


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium. Without one: skipped at a desk, an error under CI=true."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        reason = "no chromium for the browser test: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    ]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
        )
        yield browser
        browser.close()
