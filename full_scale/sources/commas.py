"""Tables of comma-separated values, a person's or a program's, in which a caption may span lines
between quotes. A quote that is never closed costs its own line and no other.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

LONGEST = 1000
"""Lines of the longest record that is believed; beyond, its quote was never closed."""
UNCLOSED = "a quote opens here and is not closed before the next entry"
Entry = dict[str, str | None]


def entries(
    data: bytes, is_entry: Callable[[Entry], bool]
) -> tuple[list[str], Iterator[tuple[int, Entry | str]]]:
    """The names in the first line, and for each entry below its line and its fields, None where
    there are too few; or in words what is wrong with it.

    is_entry: whether fields name a picture that is there. A line inside a quote that does so by
    itself is an entry that the quote has swallowed. Bytes that are not UTF-8 stay in their
    fields.
    """
    csv.field_size_limit(2**31 - 1)
    text = data.decode("utf-8-sig", "surrogateescape")
    lines = list(io.StringIO(text, newline=""))
    names = next(csv.reader(lines), [])

    def named(values: Sequence[str]) -> Entry:
        return dict.fromkeys(names) | dict(zip(names, values))

    def swallowed(line: str) -> bool:
        values = next(csv.reader([line]), [])
        return len(values) == len(names) and is_entry(named(values))

    def found() -> Iterator[tuple[int, Entry | str]]:
        for first, values in _records(lines, swallowed):
            if isinstance(values, str):
                yield first + 1, values
            elif first > 0 and values:  # neither the names nor a blank line
                many = len(values) > len(names)
                yield first + 1, "more fields than the first line has" if many else named(values)

    return names, found()


def _records(
    lines: Sequence[str], swallowed: Callable[[str], bool]
) -> Iterator[tuple[int, list[str] | str]]:
    """(index of its first line, values) of each record, or what is wrong with that line alone."""
    first = 0
    while first < len(lines):
        reader = csv.reader(lines[first : first + LONGEST], strict=True)
        try:
            values, after = next(reader), first + reader.line_num
            if any(map(swallowed, lines[first + 1 : after])):
                values, after = UNCLOSED, first + 1
        except csv.Error:
            values, after = _alone(lines[first]), first + 1
        yield first, values
        first = after


def _alone(line: str) -> list[str] | str:
    """The values of a line whose quotes do not keep the rules, as csv takes them, if none stays
    open.
    """
    first, *more = csv.reader([line, "\n"])
    return first if more else UNCLOSED
