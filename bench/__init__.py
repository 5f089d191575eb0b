"""Benchmarks of dlib against its pip-installed peers: `python -m bench [name …]` writes one
JSON a benchmark to bench/results.

Each benchmark is a module with one public function, `run`, that returns a `Report`, or None
(and says why) where this machine cannot measure it. Timings are measured here and never
asserted; the tests assert ratios.
"""

import os

# Spinning OpenMP threads of one process starve the next; both must be set before torch is
# imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
