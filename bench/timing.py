"""Fair timing on a noisy machine: competitors take turns, and the summary says how noisy it
was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

Round = Callable[[], Callable[[], object]]
"""Prepares one round, untimed, and returns what is timed."""


@dataclass(frozen=True)
class Times:
    """The rounds' durations, in the unit of the caller; the minimum is the work, the rest is
    the machine's noise.
    """

    values: np.ndarray

    low = property(lambda self: float(self.values.min()), doc="the fastest round")
    median = property(lambda self: float(np.median(self.values)))
    iqr = property(
        lambda self: float(np.subtract(*np.percentile(self.values, (75, 25)))),
        doc="interquartile range",
    )

    def cells(self) -> list[float]:
        """Minimum, median and IQR, as a report shows them."""
        return [self.low, self.median, self.iqr]


def interleave(
    rounds: Mapping[str, Round],
    repeats: int,
    unit: float,
    label: str,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Time each competitor `repeats` times, one round of each in turn; the starter rotates.
    unit: seconds in one unit.

    One untimed turn of each warms up. `clock` is called right before and right after a round.
    """
    for prepare in rounds.values():
        prepare()()
    names, seconds = list(rounds), {name: [] for name in rounds}
    for turn in progress(range(repeats), label):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            work = rounds[name]()
            start = clock()
            work()
            seconds[name].append(clock() - start)
    return {name: Times(np.array(values) / unit) for name, values in seconds.items()}


def progress(items, label: str):
    """A progress bar on stderr."""
    return tqdm(items, desc=label, file=sys.stderr, leave=False, mininterval=0.5)
