"""Sampling in parallel over time: the same trajectory in fewer rounds of network
calls, each on a larger batch.
"""

from dlib.parallel.lockstep import Lockstep, Parallel, Step
from dlib.parallel.parareal_iteration import Iteration, iterations, parareal
from dlib.parallel.picard_iteration import Sweep, anderson, picard, sweeps
