"""An executed notebook becomes plain Markdown and image files: the only place that knows how a
chapter looks on the site.
"""

import base64
import re
from html import escape
from pathlib import Path

from book.chapter import CHECKED, FOLD, Cell, Chapter
from book.convert import site_cells
from book.library import Book
from book.references import pieces
from book.source import source_of

_SHOW = re.compile(r"^show\([^()]*\)\n?", re.MULTILINE)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_IMPORT = re.compile(r"^(?:import|from) ", re.MULTILINE)
_ITEM = re.compile(r"(?:[-*+]|\d+\.)[ ]")
_FOLD = re.compile(r"<(details|summary|div|figure|figcaption)(?=[ >])(?![^>]*markdown=)")


def render(book: Book, chapter: Chapter, node) -> tuple[str, dict[str, bytes]]:
    """(the page's Markdown, {image path next to the page: PNG bytes}) of a chapter and its
    executed notebook.
    """
    page = _Page(book, chapter)
    for cell, done in zip(site_cells(book, chapter), node.cells, strict=True):
        page.cell(cell, done)
    header = (
        f"---\ntitle: {_yaml(f'{chapter.number} · {chapter.title}')}\ndescription: "
        f"{_yaml(chapter.summary)}\n---\n\n"
    )
    return header + "\n\n".join(page.blocks) + "\n", page.images


def _yaml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _facts(output) -> dict:
    """What the verbs of a chapter (claim, figure, show) wrote beside this output."""
    return output.get("metadata", {}).get("book", {})


class _Page:
    """Collects the blocks of a page, cell by cell."""

    def __init__(self, book: Book, chapter: Chapter):
        self.book, self.chapter = book, chapter
        self.blocks: list[str] = []
        self.images: dict[str, bytes] = {}

    def cell(self, cell: Cell, done) -> None:
        if cell.kind == "markdown":
            text = markdown(cell.source)
            self.blocks.append(self._with_strip(text) if not self.blocks else text)
            return
        outputs = done.get("outputs", ())
        # the library's source stands before the cell that uses it; the show() line itself is left
        # out
        for output in outputs:
            if _facts(output).get("kind") == "source":
                self.output(output)
        source = _SHOW.sub("", cell.source.removeprefix(CHECKED)).strip("\n")
        if source:
            self.blocks.append(
                folded(source) if FOLD in cell.tags else fence(source, "python", "cell")
            )
        for output in outputs:
            if _facts(output).get("kind") != "source":
                self.output(output)

    def output(self, output) -> None:
        facts, data = _facts(output), output.get("data", {})
        if facts.get("kind") in _VERBS:
            self.blocks += _VERBS[facts["kind"]](self, facts, data)
        elif "text/html" in data:
            self.blocks.append(f'<div class="output">\n{data["text/html"]}\n</div>')
        elif "text/markdown" in data:
            self.blocks.append(markdown(data["text/markdown"]))
        else:
            text = _ANSI.sub("", output.get("text") or data.get("text/plain", ""))
            self.blocks.append(fence(text.rstrip("\n"), "text", "output"))

    def _with_strip(self, text: str) -> str:
        """The first cell with the chapter's facts and downloads under its heading."""
        chapter = self.chapter
        heading, _, rest = text.partition("\n")
        strip = (
            '<div class="strip" markdown="1">\n'
            f"<span>**{chapter.minutes}** minutes</span> <span>**{chapter.memory}** of "
            "memory</span>"
            "<span class='get'>[`make lab`](../for/reader.md#run-it) opens it · "
            f"[notebook]({chapter.stem}.ipynb){{ download }} · "
            f"[source]({chapter.stem}.py){{ download }}</span>"
            f" <span class='needs'>needs {', '.join(chapter.needs)}</span>\n"
            "</div>"
        )
        return f"{heading}\n\n{strip}\n\n{rest}"

    def claim(self, facts: dict, data: dict) -> list[str]:
        anchor = facts["id"].lower().replace(".", "-")
        return [
            f'<div class="claim" id="{anchor}" markdown="1">\n'
            '<p class="claim-id"><a '
            f'href="#{anchor}">{facts["id"]}</a></p>\n\n{facts["statement"]}\n\n'
            f'<p class="claim-proof"><span>measured <b>{facts["measured"]:.4g}</b></span>'
            f"{_gauge(**facts)}<span>must be {escape(facts['bound'])}</span></p>\n\n</div>"
        ]

    def figure(self, facts: dict, data: dict) -> list[str]:
        name = f"{self.chapter.stem}/fig-{len(self.images) + 1}.png"
        self.images[name] = base64.b64decode(data["image/png"])
        size = "".join(f' {side}="{pixels}"' for side, pixels in facts["size"].items())
        image = f'<img src="{name}" alt="{escape(facts["alt"])}"{size} loading="lazy">'
        caption = (
            f'<figcaption markdown="1">\n\n{facts["caption"]}\n\n</figcaption>\n'
            if facts["caption"]
            else ""
        )
        return [f'<figure markdown="1">\n{image}\n{caption}</figure>']

    def caption(self, facts: dict, data: dict) -> list[str]:
        return []

    def source(self, facts: dict, data: dict) -> list[str]:
        text = source_of(Path(self.book.root, facts["file"]), facts["name"])
        return [fence(text.rstrip("\n"), "python", "library", title=facts["file"])]


_VERBS = {
    "claim": _Page.claim,
    "figure": _Page.figure,
    "caption": _Page.caption,
    "source": _Page.source,
}


def _gauge(measured: float, between: list[float] | None = None, **facts) -> str:
    """A small track from the bound's lower to its upper end with a dot at the measured value;
    nothing for one-sided bounds.
    """
    if not between or between[0] == between[1]:
        return ""
    at = 100 * (measured - between[0]) / (between[1] - between[0])
    return f'<span class="gauge" style="--at: {at:.0f}%"></span>'


def fence(text: str, language: str, kind: str, title: str = "") -> str:
    """A fenced block longer than any run of backticks inside, with a class that says what it
    is.
    """
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    title = f' title="{title}"' if title else ""
    return f"{ticks}{{ .{language} .{kind}{title} }}\n{text}\n{ticks}"


def folded(source: str) -> str:
    """A code cell behind its first line, if that is a comment; its outputs are not in here."""
    first, _, rest = source.partition("\n")
    if first.startswith("# "):
        title, source = first.removeprefix("# "), rest.strip("\n")
    else:
        title = "Imports and set-up" if _IMPORT.search(source) else "Code"
    return (
        f'<details class="fold" markdown="1">\n<summary>{escape(title)}</summary>\n\n'
        f"{fence(source, 'python', 'cell')}\n\n</details>"
    )


def markdown(text: str) -> str:
    """JupyterLab's Markdown as Python-Markdown reads it: folds parse their inside, display
    maths and lists stand free.
    """
    whole = _free_lists(text)
    return "".join(_PIECES.get(kind, str)(piece) for kind, piece in pieces(whole)).strip()


_PIECES = {
    "text": lambda piece: _FOLD.sub(r'<\1 markdown="1"', piece),
    "display": lambda piece: f"\n\n{piece}\n\n",
}


def _free_lists(text: str) -> str:
    """A blank line before each list that follows a line of text; code and maths are left
    alone.
    """
    lines, in_list, in_block = [], False, False
    for line in text.splitlines():
        item = bool(_ITEM.match(line)) and not in_block
        if item and not in_list and lines and lines[-1].strip():
            lines.append("")
        in_list = item or (in_list and bool(line.strip()))
        in_block ^= line.lstrip().startswith(("```", "~~~")) or line.count("$$") == 1
        lines.append(line)
    return "\n".join(lines)
