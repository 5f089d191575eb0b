"""The samplers on which question 9.2's tests are tried. They stay with the judge: an answer asks
it at each sweep what becomes of the points.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def picard(points: np.ndarray, made: np.ndarray) -> np.ndarray:
    new, total = [points[0]], np.zeros_like(points[0])
    for j in range(len(made)):
        new.append(made[j] + total)
        total = total + (made[j] - points[j + 1])
    return np.stack(new)


def increments(points: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Right on paper, with its terms in another order."""
    return np.concatenate([points[:1], points[0] + np.cumsum(made - points[:-1], 0)])


def chain(points: np.ndarray, made: np.ndarray) -> np.ndarray:
    return np.concatenate([points[:1], made])


class Sampler(NamedTuple):
    """`count`: (sweeps asked for, number of steps) ↦ sweeps made. `start` and `end` change the
    points, told the sweeps asked for.
    """

    change: Callable = picard
    count: Callable = lambda sweeps, steps: sweeps
    start: Callable = lambda points, sweeps: points
    end: Callable = lambda points, sweeps: points


def _but(points: np.ndarray, k: int, factor: float) -> np.ndarray:
    points = points.copy()
    points[k] *= factor
    return points


SAMPLERS = {  # (sampler, has it the property?), by what it does
    "sums up all brackets": (Sampler(), True),
    "follows the bare chain, one point a sweep": (Sampler(chain), True),
    "has all points right from the start": (Sampler(chain, lambda sweeps, steps: steps), True),
    "adds up the increments in another order, and is off by rounding errors": (
        Sampler(increments),
        False,
    ),
    "is one sweep late": (Sampler(count=lambda sweeps, steps: max(sweeps - 1, 0)), False),
    "never moves the last point": (
        Sampler(lambda points, made: np.concatenate([picard(points, made)[:-1], points[-1:]])),
        False,
    ),
    "stops moving after five sweeps": (
        Sampler(count=lambda sweeps, steps: min(sweeps, 5)),
        False,
    ),
    "ignores the start it was given": (
        Sampler(start=lambda points, sweeps: _but(points, 0, 1 + 1e-15)),
        False,
    ),
    "makes a point that was right wrong again, by a rounding error": (
        Sampler(end=lambda points, sweeps: _but(points, 1, 1 + 1e-15 * (sweeps > 3))),
        False,
    ),
    "does nothing at all until the last sweep": (
        Sampler(chain, lambda sweeps, steps: steps if sweeps >= steps else 0),
        False,
    ),
    "returns zeros when it is asked for no sweep": (
        Sampler(start=lambda points, sweeps: points * (sweeps > 0)),
        False,
    ),
}


def door(order: np.ndarray, points: int) -> Callable:
    """The network by which an answer (`book.questions.q09.prefix_is_exact`) asks them."""
    samplers = [sampler for sampler, _ in SAMPLERS.values()]

    def network(rows: np.ndarray, code: float) -> np.ndarray:
        code, done = divmod(int(code), 2 * points)
        k, sweeps = divmod(code, points)
        sampler, steps = samplers[int(order[k])], points - 1
        both = rows.reshape(points + steps, -1, rows.shape[1])
        old, made = both[:points], both[points:]
        new = sampler.change(old, made) if done else sampler.start(old, sweeps)
        more = done < sampler.count(sweeps, steps)
        new = new if more else sampler.end(new, sweeps)
        return np.concatenate([new.reshape(-1, rows.shape[1]), [[float(more), 0.0]]])

    return network
