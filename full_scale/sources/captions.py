"""What a caption is: the rules that every source keeps. Which file or field, which entry of a
list, what counts as none, and how a name is written that UTF-8 cannot hold.

The page on full scale says the same for readers, in "Your pictures and captions".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dlib._util import require

FIELDS = ("text", "caption", "prompt", "txt")
"""The fields or columns that may hold the caption: the first that is not null is taken."""
ENDINGS = (".txt", ".caption", ".json")
"""The files beside a picture that may hold it, in the same sense."""


class File(NamedTuple):
    """A file with captions: its name, whose ending says how to read it, and its bytes or where
    they are.
    """

    name: str
    data: bytes | Path


class Field(NamedTuple):
    """The one field of a JSON file that was named as the caption's."""

    file: File
    name: str


class NoCaption(ValueError):
    """A row without a usable caption: reason and detail, for the report."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class Caption(NamedTuple):
    """The caption, and whether it is the first of several."""

    text: str
    several: bool = False


def printable(name: str) -> str:
    r"""`name`, with what UTF-8 cannot hold written as an escape: bytes of file names that are
    not UTF-8, and halves of surrogate pairs.

    >>> printable("caf\udce9.png")
    'caf\\udce9.png'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def check_utf8(flag: str, texts: Iterable[str]) -> None:
    """Raise ValueError if one of the texts that were typed after `flag` is not UTF-8."""
    odd = next((text for text in texts if printable(text) != text), None)
    require(
        odd is None,
        f"{flag} {printable(odd or '')}: not UTF-8, so no text encoder can read it: set the "
        "terminal or the script to UTF-8",
    )


def fields(entry: Mapping[str, Any], named: str | None = None) -> list[Any]:
    """The values of an entry's `FIELDS`, in their order, or of the one field that was named:
    the places of a caption.

    >>> fields({"prompt": "a dog", "text": None})
    [None, 'a dog']
    """
    return [entry[name] for name in ([named] if named else FIELDS) if name in entry]


def beside(files: Mapping[str, File], named: str | None = None) -> tuple[File | Field, ...]:
    """The places of a caption among a row's files, by their endings: `ENDINGS` in their order,
    or the JSON alone if a field was named, which the others have not.

    >>> one = {".txt": File("x.txt", b"a cat"), ".json": File("x.json", b'{"long": "a dog"}')}
    >>> read_caption(beside(one)).text, read_caption(beside(one, "long")).text
    ('a cat', 'a dog')
    """
    if named:
        return (Field(files[".json"], named),) if ".json" in files else ()
    return tuple(files[end] for end in ENDINGS if end in files)


def read_caption(places: Iterable[Any]) -> Caption:
    r"""The caption of the first place that has one.

    A place is a `File`, a `Field` of one, or a value: a text, bytes in UTF-8, or a list of
    them. Of a list the first entry that is not blank is taken, and the lines of a text file are
    such a list. None and an empty list are null; a number, NaN too, is no text. Byte-order marks
    are taken out, and space at the ends.
    NoCaption says why there is none.

    >>> read_caption([None, File("x.txt", b"\xef\xbb\xbfa cat\r\n"), "a dog"])
    Caption(text='a cat', several=False)
    >>> read_caption([["", "a cat", "one cat"]])
    Caption(text='a cat', several=True)
    """
    blank, odd = False, ""
    for value in _values(places):
        found = list(_texts(value))
        texts = [each for each in found if isinstance(each, str)]
        good = [each for each in texts if each]
        if good:
            return Caption(_encodable(good[0]), len(good) > 1)
        blank = blank or bool(texts)
        odd = odd or next((repr(each)[:80] for each in found if not isinstance(each, str)), "")
    if blank:
        raise NoCaption("empty caption")
    raise NoCaption("no caption", f"{odd} is no text" if odd else "")


def _values(places: Iterable[Any]) -> Iterator[Any]:
    """The values of the places, one after another; a file is opened when its turn comes."""
    for place in places:
        place, named = place if isinstance(place, Field) else (place, None)
        if not isinstance(place, File):
            yield place
            continue
        name = printable(place.name)
        try:
            data = place.data.read_bytes() if isinstance(place.data, Path) else place.data
        except OSError as error:
            raise NoCaption("caption does not read as UTF-8", str(error)) from None
        if not name.endswith(".json"):
            yield re.split(r"[\r\n]+", _decoded(data))
            continue
        try:
            entry = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise NoCaption("no caption", f"{name} is no JSON: {error}") from None
        found = fields(entry, named) if isinstance(entry, dict) else []
        if named and not found:
            raise NoCaption("no caption", f"{name} has no field {named!r}")
        yield from found


def _texts(value: Any) -> Iterator[Any]:
    """The texts in a value, stripped; what is neither text nor null as it is."""
    if value is None:
        return
    if isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str | bytes):
        text = _decoded(value) if isinstance(value, bytes) else value
        yield text.replace("\ufeff", "").strip()
    else:
        yield value


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NoCaption("caption does not read as UTF-8", str(error)) from None


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NoCaption("caption cannot be written as UTF-8", repr(text)[:80]) from None
    return text
