"""The press and the course. A chapter writes `from book import claim, figure, show`; a maintainer types `python -m book`."""

from book.verbs import claim, figure, show

__all__ = ["claim", "figure", "show"]
