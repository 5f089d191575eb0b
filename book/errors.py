"""What the press says when a chapter is wrong: all complaints at once, each with its chapter,
cell and remedy.
"""


class BookError(Exception):
    """A mistake in the book (not in the press). `str(error)` is the whole message for the
    author.
    """


class Complaints(list):
    """Complaints collected while looking at many cells; raised together so that one build
    shows them all.
    """

    def add(self, where: str, what: str) -> None:
        self.append(f"{where}: {what}")

    def check(self) -> None:
        """Raise one BookError with every complaint, or return if there is none."""
        if self:
            raise BookError("\n".join(self))
