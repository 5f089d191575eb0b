"""One thread for every test, and the repository's packages before this folder's: `tests/dlib`
must not shadow `dlib`.
"""

import os
import sys
from pathlib import Path

# read when torch is imported: idle threads sleep instead of spinning
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
# `truth` for the tests of dlib, and then the repository itself
for folder in (ROOT / "tests" / "dlib", ROOT):
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
