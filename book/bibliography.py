"""The bibliography: `book/refs.bib` read with pybtex, as citation labels ("Lu et al., 2022")
and as a page.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from book.errors import BookError


@dataclass(frozen=True)
class Entry:
    """One work: its key, the author-year label of its citations, and the fields the page
    prints.
    """

    key: str
    label: str
    authors: str
    year: str
    title: str
    venue: str
    url: str


def read_bibliography(path: Path) -> dict[str, Entry]:
    """All entries of a BibTeX file by key, sorted by first author and year. BookError names
    what is missing from an entry.
    """
    from pybtex.database import parse_file
    from pybtex.exceptions import PybtexError

    try:
        data = parse_file(path, bib_format="bibtex")
    except PybtexError as error:
        raise BookError(f"book/{path.name}: {error}") from None
    entries = sorted(
        (_entry(key, raw) for key, raw in data.entries.items()),
        key=lambda e: (e.authors, e.year, e.url),
    )
    return {entry.key: entry for entry in _distinct(entries)}


def _distinct(entries: list[Entry]) -> list[Entry]:
    """Entries whose labels coincide get the letters a, b, c … after the year."""
    count = Counter(entry.label for entry in entries)
    letters = {label: iter("abcdefgh") for label, n in count.items() if n > 1}
    return [
        replace(e, label=e.label + next(letters[e.label])) if e.label in letters else e
        for e in entries
    ]


def _entry(key: str, raw) -> Entry:
    missing = [name for name in ("title", "year", "url") if name not in raw.fields]
    if missing or "author" not in raw.persons:
        raise BookError(
            f"book/refs.bib, {key}: author, title, year and url are needed; missing: "
            f"{missing or ['author']}"
        )
    people = raw.persons["author"]
    names = [_plain(" ".join([*person.prelast_names, *person.last_names])) for person in people]
    year = raw.fields["year"]
    venue = _plain(
        raw.fields.get("booktitle")
        or raw.fields.get("journal")
        or raw.fields.get("howpublished", "")
    )
    return Entry(
        key,
        f"{_short(names)}, {year}",
        _full(people),
        year,
        _plain(raw.fields["title"]),
        venue,
        raw.fields["url"],
    )


def _short(names: list[str]) -> str:
    return (
        names[0]
        if len(names) == 1
        else " & ".join(names)
        if len(names) == 2
        else f"{names[0]} et al."
    )


def _full(people) -> str:
    return ", ".join(
        _plain(" ".join([*p.prelast_names, *p.last_names]) + f", {_initials(p)}") for p in people
    )


def _initials(person) -> str:
    return " ".join(
        "-".join(f"{part[0]}." for part in name.split("-"))
        for name in [*person.first_names, *person.middle_names]
    )


def _plain(text: str) -> str:
    from pybtex.richtext import Text

    return str(Text.from_latex(text))


def bibliography_page(entries: dict[str, Entry], cited: dict[str, list[tuple[str, str]]]) -> str:
    """The page's Markdown. `cited[key]` lists (chapter title, address) of the chapters that
    cite the work.
    """
    lines = [
        "# Bibliography",
        "",
        "Works the chapters build on. The link of each entry leaves this site.",
        "",
    ]
    for entry in entries.values():
        where = ", ".join(f"[{title}]({url})" for title, url in cited.get(entry.key, ()))
        lines += [
            f'<div class="reference" id="{entry.key}" markdown="1">',
            f"{entry.authors} ({entry.year}). "
            f"**[{entry.title}]({entry.url})**{_stop(entry.title)} *{entry.venue}.*"
            + (f" Cited in {where}." if where else ""),
            "</div>",
            "",
        ]
    return "\n".join(lines)


def _stop(title: str) -> str:
    return "" if title.endswith(("?", "!", ".")) else "."
