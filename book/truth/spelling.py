"""Code with comments that say what is wrong with it, and edits of code: `old → new`."""

import re
import textwrap

from book.sheet import BEGIN, END


def annotated(text: str) -> list[tuple[str, str]]:
    """(code, comment) of every block of a text: lines of code, and a comment at the end of the
    last, "  # …", or in lines of its own below.
    """
    blocks: list[tuple[list, list]] = [([], [])]
    for line in textwrap.dedent(text).strip("\n").splitlines():
        code, mark, comment = ("", "# ", line[2:]) if line[:2] == "# " else line.partition("  # ")
        if code and blocks[-1][1]:
            blocks.append(([], []))
        blocks[-1][0].extend([code] if code else [])
        blocks[-1][1].extend([comment] if mark else [])
    if not blocks[-1][1] and blocks[-1][0]:
        raise ValueError(f"code without a comment at its end: {blocks[-1][0]}")
    return [("\n".join(code), " ".join(comment)) for code, comment in blocks if code]


def edited(text: str, edits: str) -> str:
    """A text after edits, a line each: `old → new`, or `old →` to drop it. A line that begins
    with the arrow belongs to the old text above it, one without to the new. ValueError unless old
    is in exactly one place.
    """
    pairs: list[list[str]] = []
    for line in re.sub(r"\n *→", " →", edits).splitlines():
        old, arrow, new = line.partition("→")
        if arrow:
            pairs.append([old.strip(), new.strip()])
        else:
            pairs[-1][1] += "\n" + line
    for old, new in pairs:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} is in {text.count(old)} places, wanted one, of\n{text}")
        text = text.replace(old, new)
    return text


def spelled(cell: str, code: str) -> str:
    """An answer cell whose solution is edited, if the code has an arrow, or replaced by it."""
    head, begin, rest = cell.partition(BEGIN)
    solution, end, tail = rest.partition(END)
    if "→" in code:
        solution = edited(solution, code)
    else:
        solution = "\n" + textwrap.indent(code, "    ") + "\n    "
    return head + begin + solution + end + tail
