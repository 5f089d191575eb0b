"""MkDocs calls these functions while it builds: they hand it the generated pages."""

import json
import re
from pathlib import Path

from mkdocs.structure.files import File

from book.library import Book
from book.pages import Pages

_MATHS = re.compile(r"\\\((.*?)\\\)|\\\[(.*?)\\\]", re.DOTALL)
_COMMAND = re.compile(r"\\(?:math\w+|[tdc]?frac|bigl|bigr|left|right|tag)\b|\\[,;!]|[\\{}]")


def on_config(config):
    """Read the book once; every later step finds it in `config.extra`."""
    config.extra["pages"] = Pages(Book(Path(config.config_file_path).parent))
    config.nav = config.extra["pages"].nav()
    return config


def on_files(files, config):
    """Add what is generated to what is hand-written."""
    for uri, content in config.extra["pages"].files().items():
        source = (
            {"abs_src_path": str(content)} if isinstance(content, Path) else {"content": content}
        )
        files.append(File.generated(config, uri, **source))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fill the slots of hand-written pages. Generated ones are complete."""
    if page.file.generated_by:
        return markdown
    return config.extra["pages"].fill(markdown, page.file.src_uri)


def on_post_build(config):
    """Clean what MkDocs and its theme wrote: no addresses of a CDN, no TeX commands in the
    search's excerpts.
    """
    site = Path(config.site_dir)
    for path in (site / "assets" / "javascripts").glob("bundle.*.js"):
        # The theme would fetch these for features that this site does not use.
        path.write_text(
            re.sub(
                r"https://unpkg\.com/[^\"'`]*", "about:blank", path.read_text(encoding="utf-8")
            ),
            encoding="utf-8",
        )
    index = site / "search" / "search_index.json"
    data = json.loads(index.read_text(encoding="utf-8"))
    for section in data["docs"]:
        section["text"] = _MATHS.sub(
            lambda match: _COMMAND.sub("", match[1] or match[2]), section["text"]
        )
    index.write_text(json.dumps(data), encoding="utf-8")
