"""Everything of the site that is generated: chapters, API, ledger, bibliography, benchmarks,
navigation, live numbers.
"""

import re
from collections.abc import Callable
from html import escape
from pathlib import Path

from book import api, floors
from book.benchmarks import benchmark_pictures, benchmarks_page
from book.bibliography import bibliography_page
from book.errors import BookError, Complaints
from book.ledger import facts, ledger_page, read_ledger
from book.library import Book, Planned
from book.mathjax import mathjax_files
from book.references import for_site, resolve
from book.render import render
from book.stale import read_notebook

_SLOT = re.compile(r"<!-- book:([a-z]+) -->")
_CLAIM = re.compile(r"\[(?P<words>[^\]]+)\]\(chapters/(?P<target>\w+\.md#[\w-]+)\)")


class Pages:
    """The generated half of the site, from a book whose notebooks are all fresh."""

    def __init__(self, book: Book):
        self.book = book
        complaints = Complaints()
        self.notebooks = {}
        for chapter in book.chapters:
            try:
                self.notebooks[chapter.stem] = read_notebook(book, chapter)
            except BookError as error:
                complaints.append(str(error))
        complaints.check()
        self.titles = {
            chapter.stem: f"{chapter.number} · {chapter.title}" for chapter in book.chapters
        }
        self.claims = read_ledger(book, self.notebooks)
        self.modules = api.modules(book.root)

    def files(self) -> dict[str, str | bytes | Path]:
        """{address below docs_dir: content, or the path of the file to copy}."""
        files: dict[str, str | bytes | Path] = dict(mathjax_files())
        for chapter in self.book.chapters:
            page, images = render(self.book, chapter, self.notebooks[chapter.stem])
            files[f"chapters/{chapter.stem}.md"] = page
            files |= {f"chapters/{name}": image for name, image in images.items()}
            files |= {f"chapters/{path.name}": path for path in (chapter.path, chapter.notebook)}
        files["ledger.md"] = ledger_page(self.claims, self.titles)
        files["bibliography.md"] = bibliography_page(self.book.entries, self._citing())
        results = self.book.root / "bench" / "results"
        files["benchmarks.md"] = benchmarks_page(results)
        files |= benchmark_pictures(results)
        files["api/index.md"] = api.overview(self.modules)
        return files | {module.uri: api.page(module) for module in self.modules}

    def _citing(self) -> dict[str, list[tuple[str, str]]]:
        cited: dict[str, list[tuple[str, str]]] = {}
        for chapter in self.book.chapters:
            text = "\n".join(cell.source for cell in chapter.cells if cell.kind == "markdown")
            for key in dict.fromkeys(re.findall(r"@([\w:-]+)(?=[,;\]])", text)):
                cited.setdefault(key, []).append(
                    (self.titles[chapter.stem], f"chapters/{chapter.stem}.md")
                )
        return cited

    def nav(self) -> list:
        """The navigation tree in MkDocs' form."""
        chapters = [
            {self.titles[chapter.stem]: f"chapters/{chapter.stem}.md"}
            for chapter in self.book.chapters
        ]
        library = ["api/index.md", *({module.name: module.uri} for module in self.modules)]
        return [
            {"Home": "index.md"},
            {"Chapters": [{"Contents": "contents.md"}, *chapters, {"Explore": "explore.md"}]},
            {
                "Reference": [
                    {"Notation": "notation.md"},
                    {"Claims ledger": "ledger.md"},
                    {"Benchmarks": "benchmarks.md"},
                    {"Reward hacking": "reward-hacking.md"},
                    {"Errata of the sources": "errata.md"},
                    {"Bibliography": "bibliography.md"},
                ]
            },
            {"Library": library},
            {
                "Using the book": [
                    *(
                        {who.capitalize(): f"for/{who}.md"}
                        for who in ("reader", "student", "instructor", "engineer")
                    ),
                    {"Full scale": "for/full-scale.md"},
                ]
            },
        ]

    def fill(self, markdown: str, uri: str) -> str:
        """A hand-written page with its slots (`<!-- book:contents -->`) filled and its
        citations and \\eqref resolved.
        """
        folder = uri.rpartition("/")[0]
        complaints = Complaints()
        refs = for_site(*self.book.referable, folder)
        text = resolve(markdown, f"book/pages/{uri}", "", refs, complaints)
        complaints.check()
        text = _CLAIM.sub(self._linked, text)
        return _SLOT.sub(lambda match: self._slot(match[1], uri), text)

    def _linked(self, link: re.Match) -> str:
        """A link to a claim; its words alone in a book without it."""
        known = {f"{claim.chapter}.md#{claim.anchor}" for claim in self.claims}
        return link[0] if link["target"] in known else link["words"]

    def _slot(self, name: str, uri: str) -> str:
        slots: dict[str, Callable[[], str]] = {
            "contents": self._contents,
            "finished": self._finished,
            "numbers": self._numbers,
            "picture": self._picture,
            "start": self._start,
            "assignments": self._assignments,
            "floors": lambda: floors.table(self.book.root),
        }
        if name not in slots:
            raise BookError(
                f"book/pages/{uri}: there is no slot book:{name}; the slots are "
                f"{', '.join(slots)}"
            )
        return slots[name]()

    def _contents(self) -> str:
        """The outline by part: chapters that exist as links, the others as plans."""
        parts = "\n".join(
            self._part(number, *part) for number, part in enumerate(self.book.outline, start=1)
        )
        return f'<div class="contents">\n{parts}\n</div>'

    def _part(self, number: int, title: str, chapters: list[Planned]) -> str:
        mixed = any(planned.stem in self.titles for planned in chapters)
        rows = "\n".join(self._row(planned, mixed) for planned in chapters)
        mark = "" if mixed else f" {_PLANNED}"
        return (
            f'<section class="part">\n<h3>Part {_ROMAN[number]} '
            f"<span>{title}</span>{mark}</h3>\n<ol>\n{rows}\n</ol>\n</section>"
        )

    def _row(self, planned: Planned, mixed: bool) -> str:
        number, (name, _, promise) = planned.stem[:2], planned.promise.partition(": ")
        text = f"<i>{number}</i> <b>{name}</b> <span>{promise[:1].upper()}{promise[1:]}</span>"
        if planned.stem in self.titles:
            return f'<li class="ready"><a href="chapters/{planned.stem}.html">{text}</a></li>'
        return f"<li>{text} {_PLANNED if mixed else ''}</li>"

    def _finished(self) -> str:
        """How many chapters can be read: whole parts, then single chapters."""
        parts, single, planned = [], [], 0
        for number, (_, chapters) in enumerate(self.book.outline, start=1):
            planned += len(chapters)
            there = [one.stem for one in chapters if one.stem in self.titles]
            if len(there) == len(chapters):
                parts.append(f"Part {_ROMAN[number]}")
            else:
                single += [f"chapter {stem[:2]}" for stem in there]
        which = ", ".join([*parts, *single])
        return f"{len(self.titles)} of {planned} chapters" + f": {which}" * bool(which)

    def _start(self) -> str:
        """A button for the first chapter that can be read."""
        chapters = self.book.chapters[:1]
        return "".join(
            f"[Read chapter {c.number}](chapters/{c.stem}.md){{ .md-button .md-button--primary }}"
            for c in chapters
        )

    def _assignments(self) -> str:
        """A table of the assignments, from their own headers."""
        rows = [
            f"| {a.number} | {a.summary.rstrip('.')} | {a.minutes} |"
            for a in self.book.assignments
        ]
        return "\n".join(["| assignment | what you write | minutes |", "|---|---|---|", *rows])

    def _numbers(self) -> str:
        planned = sum(len(chapters) for _, chapters in self.book.outline)
        figures = sum(len(facts(node, "figure")) for node in self.notebooks.values())
        numbers = [
            (len(self.claims), "claims executed"),
            (f"{len(self.titles)} of {planned}", "chapters written"),
            (figures, "figures computed"),
        ]
        return (
            '<ul class="numbers">'
            + "".join(f"<li><b>{n}</b> {what}</li>" for n, what in numbers)
            + "</ul>"
        )

    def _picture(self) -> str:
        """The first figure of the book, with its alt text; nothing while there is none."""
        for chapter in self.book.chapters:
            found = facts(self.notebooks[chapter.stem], "figure")
            if found:
                image = (
                    f'<img src="chapters/{chapter.stem}/fig-1.png" '
                    f'alt="{escape(found[0]["alt"])}">'
                )
                caption = (
                    f"{found[0]['caption'] or found[0]['alt']} From [chapter "
                    f"{chapter.number}](chapters/{chapter.stem}.md)."
                )
                return (
                    f'<figure class="cover" markdown="1">\n{image}\n<figcaption '
                    f'markdown="1">\n\n{caption}\n\n</figcaption>\n</figure>'
                )
        return ""


_PLANNED = "<em>planned</em>"
_ROMAN = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")
