"""The press and the course. A chapter writes `from book import claim, figure, show`, an assignment `from book import check`."""

from book.check import check
from book.verbs import claim, figure, show

__all__ = ["check", "claim", "figure", "show"]
