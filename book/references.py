"""Equation labels, equation references, citations and links of Markdown text, resolved for a
notebook or for the site.

An author writes `\\label{eq:flow}` inside a display equation, `\\eqref{eq:flow}` in text of
any chapter, `[@lu2022dpm]` or `[@lu2022dpm, eq. 3; @ho2020ddpm]`, and links to other files as
JupyterLab follows them. Numbers count the labelled equations of a chapter in order. Code and
comments are left alone.
"""

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

from book.bibliography import Entry
from book.chapter import Cell, Chapter
from book.errors import Complaints

_PIECE = re.compile(
    r"(?P<fence>^[ ]*(?P<mark>`{3,}|~{3,})[^\n]*\n.*?^[ ]*(?P=mark)[`~]*[ ]*$)"
    r"|(?P<code>(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`))"
    r"|(?P<display>\$\$.+?\$\$)"
    r"|(?P<inline>(?<![\\$])\$(?!\s)[^$\n]+?(?<!\s)\$(?!\d))",
    re.MULTILINE | re.DOTALL,
)
_LABEL = re.compile(r"\\label\{([^}]*)\}")
_EQREF = re.compile(r"\\eqref\{([^}]*)\}")
_KEY = r"@[\w:-]+(?:,\s[^\];@]+)?"
_CITATION = re.compile(rf"\[({_KEY}(?:;\s*{_KEY})*)\]")
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=[)\s])")


@dataclass(frozen=True)
class Equation:
    """A labelled equation: its printed number ("8.2"), its chapter's stem and its anchor."""

    number: str
    chapter: str
    anchor: str


@dataclass(frozen=True)
class References:
    """All that text can refer to, and how this output (notebook or site) writes each address."""

    equations: dict[str, Equation]
    entries: dict[str, Entry]
    chapters: frozenset[str]
    equation_url: Callable[[Equation, str], str]
    citation_url: Callable[[Entry], str]
    link_url: Callable[[str], str]
    place: Callable[[list[Equation], str], str]


def pieces(text: str):
    """Split Markdown into (kind, text) with kind in {"text", "fence", "code", "display",
    "inline"}; joined they are `text`.
    """
    end = 0
    for match in _PIECE.finditer(text):
        if match.start() > end:
            yield "text", text[end : match.start()]
        yield (
            match.lastgroup
            if match.lastgroup in ("display", "inline")
            else "fence"
            if match["fence"]
            else "code",
            match[0],
        )
        end = match.end()
    if end < len(text):
        yield "text", text[end:]


def number_equations(chapters: list[Chapter], complaints: Complaints) -> dict[str, Equation]:
    """Every label of the book in reading order; a label used twice is a complaint."""
    equations: dict[str, Equation] = {}
    for chapter in chapters:
        count = 0
        for cell in chapter.cells:
            for label in _labels(cell):
                if label in equations:
                    complaints.add(
                        chapter.where(cell),
                        f"\\label{{{label}}} is already used in chapter "
                        f"{equations[label].chapter}",
                    )
                count += 1
                equations[label] = Equation(
                    f"{chapter.number}.{count}", chapter.stem, label.replace(":", "-")
                )
    return equations


def _labels(cell: Cell) -> list[str]:
    if cell.kind != "markdown":
        return []
    return [
        label
        for kind, piece in pieces(cell.source)
        if kind == "display"
        for label in _LABEL.findall(piece)
    ]


def resolve(text: str, where: str, chapter: str, refs: References, complaints: Complaints) -> str:
    """`text` with labels turned into tags and anchors, references and citations into links.
    `chapter` is the stem it is in.
    """
    resolver = _Resolver(where, chapter, refs, complaints)
    return "".join(getattr(resolver, kind)(piece) for kind, piece in pieces(text))


@dataclass(frozen=True)
class _Resolver:
    where: str
    chapter: str
    refs: References
    complaints: Complaints

    def fence(self, piece: str) -> str:
        return piece

    code = fence

    def inline(self, piece: str) -> str:
        if _LABEL.search(piece) or _EQREF.search(piece):
            self.complaints.add(
                self.where, f"\\label and \\eqref do not work inside inline maths: {piece}"
            )
        return piece

    def display(self, piece: str) -> str:
        if _EQREF.search(piece):
            self.complaints.add(
                self.where,
                "\\eqref belongs in the text, not in a display equation: "
                f"{_EQREF.search(piece)[0]}",
            )
        equations = [self.refs.equations[label] for label in _LABEL.findall(piece)]
        tagged = _LABEL.sub(lambda m: rf"\tag{{{self.refs.equations[m[1]].number}}}", piece)
        return self.refs.place(equations, tagged) if equations else tagged

    def text(self, piece: str) -> str:
        for label in _LABEL.findall(piece):
            self.complaints.add(
                self.where, f"\\label{{{label}}} is outside a display equation ($$…$$)"
            )
        piece = _LINK.sub(self._link, piece)
        piece = _EQREF.sub(self._eqref, piece)
        return _CITATION.sub(self._citation, piece)

    def _link(self, match: re.Match) -> str:
        target, fragment = match[1], match[2] or ""
        if (
            target.endswith(".ipynb")
            and "/" not in target
            and target.removesuffix(".ipynb") not in self.refs.chapters
        ):
            self.complaints.add(
                self.where, f"links to {target}, but there is no such chapter yet"
            )
        return self.refs.link_url(target) + fragment

    def _eqref(self, match: re.Match) -> str:
        equation = self.refs.equations.get(match[1])
        if equation is None:
            self.complaints.add(
                self.where, f"\\eqref{{{match[1]}}}: no equation of the book has this label"
            )
            return match[0]
        return f"[({equation.number})]({self.refs.equation_url(equation, self.chapter)})"

    def _citation(self, match: re.Match) -> str:
        return "(" + "; ".join(self._cite(part.strip()) for part in match[1].split(";")) + ")"

    def _cite(self, part: str) -> str:
        key, _, locator = part[1:].partition(",")
        entry = self.refs.entries.get(key)
        if entry is None:
            self.complaints.add(self.where, f"[@{key}]: no such entry in book/refs.bib")
            return part
        return f"[{entry.label}]({self.refs.citation_url(entry)})" + (
            f",{locator}" if locator else ""
        )


def for_notebook(
    equations: dict[str, Equation], entries: dict[str, Entry], chapters: frozenset[str]
) -> References:
    """References as JupyterLab follows them: other notebooks, and the papers themselves."""

    def equation_url(equation: Equation, chapter: str) -> str:
        return (
            "" if equation.chapter == chapter else f"{equation.chapter}.ipynb"
        ) + f"#{equation.anchor}"

    def place(found: list[Equation], tex: str) -> str:
        return "".join(f'<a id="{equation.anchor}"></a>' for equation in found) + f"\n\n{tex}"

    return References(
        equations,
        entries,
        chapters,
        equation_url,
        lambda entry: entry.url,
        lambda target: target,
        place,
    )


def for_site(
    equations: dict[str, Equation],
    entries: dict[str, Entry],
    chapters: frozenset[str],
    folder: str,
) -> References:
    """References as links between the site's Markdown pages, seen from a page in `folder`
    ("chapters", "for" or "").
    """

    def page(path: str) -> str:
        return posixpath.relpath(path, folder or ".")

    def equation_url(equation: Equation, chapter: str) -> str:
        return (
            "" if equation.chapter == chapter else page(f"chapters/{equation.chapter}.md")
        ) + f"#{equation.anchor}"

    def link_url(target: str) -> str:
        if folder != "chapters" or "://" in target:
            return target
        if target.startswith("../book/pages/"):
            return "../" + target.removeprefix("../book/pages/")
        if target.startswith("../dlib/") and target.endswith(".py"):
            return (
                "../api/"
                + target.removeprefix("../")
                .removesuffix(".py")
                .removesuffix("/__init__")
                .replace("/", ".")
                + ".md"
            )
        return re.sub(r"\.ipynb$", ".md", target)

    def citation_url(entry: Entry) -> str:
        return page("bibliography.md") + f"#{entry.key}"

    def place(found: list[Equation], tex: str) -> str:
        opening = "".join(
            f'<div class="equation" id="{equation.anchor}" markdown="1">\n\n'
            for equation in found
        )
        return f"\n\n{opening}{tex}" + "\n\n</div>" * len(found) + "\n\n"

    return References(equations, entries, chapters, equation_url, citation_url, link_url, place)
