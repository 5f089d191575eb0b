"""MathJax for the site, copied at build time from the pip package sphinx-mathjax-offline:
nothing is fetched or committed.
"""

from importlib import metadata
from pathlib import Path

from book.errors import BookError

PACKAGE = "sphinx-mathjax-offline"
# The parts that book/pages/assets/book.js loads. The combined builds (tex-svg.js) would add a
# menu and addresses of a CDN.
PARTS = (
    "startup.js",
    "core.js",
    "input/tex-base.js",
    "input/tex/extensions/ams.js",
    "input/tex/extensions/boldsymbol.js",
    "output/svg.js",
    "output/svg/fonts/tex.js",
    "a11y/assistive-mml.js",
)


def mathjax_files() -> dict[str, Path]:
    """{address on the site: installed file}. BookError if the package is not installed or has
    other files.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise BookError(
            f"the site's formulas need the package {PACKAGE}: pip install {PACKAGE}, or run "
            "make book"
        ) from None
    by_part = {file.as_posix().partition("/static/mathjax/")[2]: file.locate() for file in files}
    missing = [part for part in PARTS if part not in by_part]
    if missing:
        raise BookError(
            f"the installed {PACKAGE} lacks {', '.join(missing)}: pip install "
            f"--force-reinstall {PACKAGE}"
        )
    return {f"assets/mathjax/{part}": Path(by_part[part]) for part in PARTS}
