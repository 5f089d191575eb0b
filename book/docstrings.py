"""For mkdocstrings: a docstring's doctest lines become a code block instead of nested
quotations.
"""

import re

import griffe

_DOCTEST = re.compile(r"(?:^>>>.*\n?(?:^(?!>>>)(?!\s*$).*\n?)*)+", re.MULTILINE)


class FencedDoctests(griffe.Extension):
    """Called by griffe for every object it has read."""

    def on_object(self, *, obj, **kwargs) -> None:
        if obj.docstring and ">>>" in obj.docstring.value:
            text = re.sub(r"^[ ]+(?=>>>)", "", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = _DOCTEST.sub(
                lambda match: f"\n```pycon\n{match[0].rstrip()}\n```\n", text
            )
