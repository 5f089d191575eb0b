"""The press and the course. A chapter writes `from book import claim, figure, show`; a maintainer types `python -m book`."""

from book.right_dlib import require_our_dlib
from book.verbs import claim, figure, show

require_our_dlib()

__all__ = ["claim", "figure", "show"]
