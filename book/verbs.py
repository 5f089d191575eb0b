"""The three verbs of a chapter: `claim` a number, show a `figure`, `show` the library's own
source.

Each writes what a reader sees into the output's data and what the site needs into the output's
metadata. nbval compares the data and not the metadata. A claim's line ends with its measured
value behind `MARK`, and `book/nbval.cfg` has nbval leave out what follows that mark: the value
may differ on another machine, the rest of the line may not.
"""

import base64
import inspect
import io
import math
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from book.source import fingerprint, source_of

_ID = re.compile(r"C\d\d\.\d+")
MARK = "▸ measured "  # what follows it, to the end of the line, is not compared
DENSITY = 1.8  # picture pixels for each pixel of the page: sharp on fine screens
_claimed: dict[str, str] = {}


def claim(id, statement, value, *, between=None, below=None, above=None):
    """State a numbered claim and prove it: raises AssertionError unless `value` keeps to its
    bound.

    Exactly one bound: `between=(lo, hi)` (ends included), `below=hi` or `above=lo` (ends
    excluded). `value` is anything that `float()` takes (bool, numpy or torch scalar); NaN and
    infinity always fail. The output is one line that ends with the measured value to two
    digits, or to more where two would not keep to the bound (a bound with equal ends has said
    it already); six digits go into the output's metadata and from there onto the site.

    `statement` and bound are compared on every machine: neither may hold a number that was
    measured.

        claim("C08.2", "DPM-Solver++(2M) has order 2", slope(errors), between=(1.85, 2.15))
    """
    if not _ID.fullmatch(id):
        raise ValueError(
            f"claim: id {id!r}: write the chapter's two digits, a dot and a number, like 'C08.2'"
        )
    if _claimed.setdefault(id, statement) != statement:
        raise ValueError(
            f"claim: {id} is already taken by {_claimed[id]!r}: give this one the next free "
            "number"
        )
    bound, kept = _bound(id, between, below, above)
    value = float(value.detach() if hasattr(value, "detach") else value)  # else torch warns
    if not (math.isfinite(value) and kept(value)):
        raise AssertionError(
            f"{id} does not hold: {statement}. Measured {value:.6g}, wanted {bound}."
        )
    line = f"✓ {id}  {statement}  [{bound}]"
    if between is None or between[0] != between[1]:
        line += f"  {MARK}{_short(value, kept)}"
    facts = {"id": id, "statement": statement, "bound": bound, "measured": float(f"{value:.6g}")}
    if between is not None:
        facts["between"] = [float(end) for end in between]
    _display({"text/plain": line}, kind="claim", **facts)


def _bound(id, between, below, above):
    """(what the bound says, a function that tests it) from the one bound that was given."""
    given = {"between": between, "below": below, "above": above}
    given = {name: limit for name, limit in given.items() if limit is not None}
    if len(given) != 1:
        raise TypeError(
            f"claim {id}: give exactly one of between=(lo, hi), below=hi, above=lo; got "
            f"{list(given) or 'none'}"
        )
    if between is None:
        ((name, limit),) = given.items()
        limit = float(limit)
        return f"{name} {limit:.6g}", (lambda value: value < limit) if name == "below" else (
            lambda value: value > limit
        )
    lo, hi = map(float, between)
    if not lo <= hi:
        raise ValueError(
            f"claim {id}: between=({lo:g}, {hi:g}) is empty: the lower end comes first"
        )
    if math.isinf(lo) or math.isinf(hi):
        raise ValueError(
            f"claim {id}: between=({lo:g}, {hi:g}) has one end only: write above={lo:g} or "
            f"below={hi:g}, whichever is finite"
        )
    text = f"exactly {lo:.6g}" if lo == hi else f"between {lo:.6g} and {hi:.6g}"
    return text, lambda value: lo <= value <= hi


def _short(value: float, kept: Callable[[float], bool]) -> str:
    """The value to two digits, or to as many as it takes to see that it keeps to its bound; a
    whole number as it is.
    """
    if value.is_integer():
        return f"{value:.0f}"
    for digits in range(2, 7):
        text = f"{value:#.{digits}g}"
        if kept(float(text)):
            break
    return f"{float(text):.0f}" if "e+" in text else text.rstrip(".")


def figure(fig, alt, caption=""):
    """Show a matplotlib figure, close it, and record its alt text (the finding, in words) and
    its caption ($maths$ allowed).
    """
    if not alt.strip():
        raise ValueError(
            "figure: the alt text is empty: say in one sentence what the picture shows to "
            "someone who cannot see it"
        )
    import matplotlib.pyplot as plt

    png = io.BytesIO()
    fig.savefig(
        png, format="png", dpi=100 * DENSITY, bbox_inches="tight", metadata={"Software": None}
    )
    plt.close(fig)
    size = dict(
        zip(
            ("width", "height"),
            (round(side / DENSITY) for side in struct.unpack(">II", png.getvalue()[16:24])),
        )
    )
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": alt}
    _display(data, {"image/png": size}, kind="figure", alt=alt, caption=caption, size=size)
    if caption:
        _display({"text/markdown": f"*{caption}*", "text/plain": caption}, kind="caption")


def show(*things):
    """Print the real source of functions and classes of the library, decorators included: the
    code that runs, never retyped.
    """
    for thing in things:
        file, name, source = _locate(thing)
        markdown = f"From `{file}`:\n\n```python\n{source}```"
        data = {"text/markdown": markdown, "text/plain": f"# {file}\n{source}"}
        _display(data, kind="source", file=file, name=name, sha256=fingerprint(source))


def _locate(thing):
    """(file from the repository's root, qualified name, source) of a function, a class or an
    object that wraps one.
    """
    real = inspect.unwrap(thing)
    if inspect.ismodule(real) or not hasattr(real, "__qualname__"):
        raise TypeError(
            f"show: {thing!r} has no source of its own: hand in a function or a class, like "
            "show(dlib.sample)"
        )
    path = getattr(sys.modules[real.__module__], "__file__", None)
    if path is None or real.__module__ == "__main__":
        raise ValueError(
            f"show: {real.__qualname__} is defined in this notebook, where it can be read "
            "already: show is for the library"
        )
    depth = len(real.__module__.split(".")) + (Path(path).name == "__init__.py")
    file = Path(*Path(path).parts[-depth:]).as_posix()
    try:
        return file, real.__qualname__, source_of(Path(path), real.__qualname__)
    except KeyError:
        raise ValueError(
            f"show: {real.__qualname__} is not defined by name in {file}: show the function "
            "that makes it"
        ) from None


def _display(data, jupyter=None, **book):
    """One output with the site's facts, and Jupyter's own, in its metadata; outside a
    notebook, its plain text.
    """
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(data["text/plain"])
    else:
        display(data, raw=True, metadata={"book": book, **(jupyter or {})})
