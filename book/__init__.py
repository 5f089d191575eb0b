"""The press and the course. A chapter writes `from book import claim, figure, show`; a maintainer types `python -m book`."""

import os

# Read when torch is imported, so a chapter imports from here first: idle threads that spin make small tensors many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from book.right_dlib import require_our_dlib  # noqa: E402
from book.verbs import claim, figure, show  # noqa: E402

require_our_dlib()

__all__ = ["claim", "figure", "show"]
