"""The book's functions on Stable Diffusion. Start at `python -m full_scale.sample --help`; the
adapters are in `full_scale.families.sd`.
"""

import os

from book.right_dlib import require_our_dlib

# read when torch is imported: on shared cores, idle threads sleep instead of spinning
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
require_our_dlib()
