"""The press and the course. A chapter writes `from book import claim, figure, show`, an
assignment `from book import check` and, at its end, `tally`.
"""

import os

# Read when torch is imported, so a chapter imports from here first: idle threads that spin make
# small tensors many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from book.check import check
from book.right_dlib import require_our_dlib
from book.closing import tally
from book.verbs import claim, figure, show

require_our_dlib()

__all__ = ["check", "claim", "figure", "show", "tally"]
