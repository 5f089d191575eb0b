"""Builds the site with MkDocs, whole or not at all, and serves it."""

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from book.errors import BookError
from book.library import Book

TRIED_PORTS = 50


def build(book: Book, out: Path) -> None:
    """Write the site to `out`. Every MkDocs warning (broken link, missing anchor) is an error;
    `out` then stays as it was.
    """
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    from mkdocs.commands.build import build as mkdocs_build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort, ConfigurationError

    fresh = out.with_name(out.name + ".part")
    warnings = _Warnings()
    logging.getLogger("mkdocs").addHandler(warnings)
    try:
        config = load_config(str(book.root / "mkdocs.yml"), site_dir=str(fresh), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        mkdocs_build(config)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(fresh, out)
    except (Abort, ConfigurationError) as error:
        raise BookError("\n".join(warnings.messages) or str(error)) from None
    finally:
        logging.getLogger("mkdocs").removeHandler(warnings)
        shutil.rmtree(fresh, ignore_errors=True)


class _Warnings(logging.Handler):
    """Collects what MkDocs and its plugins complain about."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record) -> None:
        self.messages.append(record.getMessage())


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each; a browser always asks whether its copy is still
    good.
    """

    def log_message(self, format, *args) -> None:
        pass

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """An HTTP server for `folder` on 127.0.0.1, at `port` or the next free one."""
    handler = partial(_Quiet, directory=str(folder))
    for candidate in range(port, port + TRIED_PORTS):
        try:
            return ThreadingHTTPServer(("127.0.0.1", candidate), handler)
        except OSError:
            continue
    raise BookError(
        f"no free port between {port} and {port + TRIED_PORTS - 1}: name another with --port"
    )


def serve(folder: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C."""
    with server(folder, port) as http:
        if http.server_port != port:
            say(f"port {port} is taken, so this is another one")
        say(f"the book is at http://127.0.0.1:{http.server_port}/  (Ctrl-C ends it)")
        try:
            http.serve_forever()
        except KeyboardInterrupt:
            say("")
