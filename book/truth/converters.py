"""The converters on which question 5.3's tests are tried. They stay with the judge: an answer
asks for one of them by its number.
"""

from collections.abc import Callable

import numpy as np

from book.questions.q04 import Level
from book.questions.q05 import FACES


def table(face, level):
    """(a, b) of face = a·x₀ + b·ε."""
    return {
        "eps": (0.0, 1.0),
        "x0": (1.0, 0.0),
        "v": (-level.sigma, level.alpha),
        "velocity": (level.d_alpha, level.d_sigma),
        "score": (0.0, -1 / level.sigma),
    }[face]


def by(table_in, table_out=None):
    """The converter that solves with one table and answers with another, or the same."""

    def convert(have, want, w, x, level):
        a, b = table_in(have, level)
        det = level.alpha * b - level.sigma * a
        x0, eps = (b * x - level.sigma * w) / det, (level.alpha * w - a * x) / det
        c, d = (table_out or table_in)(want, level)
        return c * x0 + d * eps

    return convert


def but(face, pair):
    """The table with another (a, b) for one face."""
    return lambda asked, level: pair(level) if asked == face else table(asked, level)


def by_hand(have, want, w, x, level):
    """The formulas of the notation page, one a face."""
    alpha, sigma, d_alpha, d_sigma = level
    size, det = alpha**2 + sigma**2, alpha * d_sigma - d_alpha * sigma
    eps = {
        "eps": lambda: w,
        "x0": lambda: (x - alpha * w) / sigma,
        "v": lambda: (sigma * x + alpha * w) / size,
        "velocity": lambda: (alpha * w - d_alpha * x) / det,
        "score": lambda: -sigma * w,
    }[have]()
    x0 = {"x0": lambda: w, "v": lambda: (alpha * x - sigma * w) / size}.get(
        have, lambda: (x - sigma * eps) / alpha
    )()
    return {
        "eps": eps,
        "x0": x0,
        "v": alpha * eps - sigma * x0,
        "velocity": d_alpha * x0 + d_sigma * eps,
        "score": -eps / sigma,
    }[want]


def through_the_score(have, want, w, x, level):
    score = by(table)(have, "score", w, x, level)
    c, d = table(want, level)
    return c * (x + level.sigma**2 * score) / level.alpha - d * level.sigma * score


def without_d(have, want, w, x, level):
    size = level.alpha**2 + level.sigma**2
    lost = level._replace(alpha=size * level.alpha, sigma=size * level.sigma)
    return by(lambda face, _: table(face, lost if have == face == "v" else level))(
        have, want, w, x, level
    )


def one_way(have, want, w, x, level):
    if (have, want) != ("v", "x0"):
        return by_hand(have, want, w, x, level)
    return (level.alpha * x + level.sigma * w) / (level.alpha**2 + level.sigma**2)


def clean_only(have, want, w, x, level):
    right = by_hand(have, want, w, x, level)
    return right if level.alpha > level.sigma or have == want else right + 0.1 * x


def slightly_off(have, want, w, x, level):
    right = by_hand(have, want, w, x, level)
    return right * (1.001 if want == "score" and have != "score" else 1.0)


CONVERTERS = {  # (converter, is it right?), by what it does
    "solves the two linear equations": (by(table), True),
    "has a formula for every face": (by_hand, True),
    "goes through the score": (through_the_score, True),
    "has the velocity's sign wrong, both ways": (
        by(but("velocity", lambda level: (-level.d_alpha, -level.d_sigma))),
        False,
    ),
    "has the score's sign wrong, both ways": (
        by(but("score", lambda level: (0.0, 1 / level.sigma))),
        False,
    ),
    "takes −ε for the score, both ways": (by(but("score", lambda level: (0.0, -1.0))), False),
    "takes ε − x₀ for the velocity on every schedule": (
        by(but("velocity", lambda level: (-1.0, 1.0))),
        False,
    ),
    "divides by no D = α² + σ²": (without_d, False),
    "has one sign wrong, from v to x₀": (one_way, False),
    "is right where α > σ only": (clean_only, False),
    "scales the score by 1.001": (slightly_off, False),
    "returns every face unchanged": (lambda have, want, w, x, level: w, False),
}


def door(order: np.ndarray) -> Callable:
    """The network by which an answer (`book.questions.q05.converts`) asks them, in this order."""
    converters = [convert for convert, _ in CONVERTERS.values()]

    def network(rows: np.ndarray, code: float) -> np.ndarray:
        code, single = divmod(int(code), 2)
        (k, have), want = divmod(code // len(FACES), len(FACES)), code % len(FACES)
        values, level = (
            rows[2:].astype(np.float32 if single else np.float64),
            Level(*rows[:2].flat),
        )
        found = converters[int(order[k])](FACES[have], FACES[want], *values.T, level)
        return np.concatenate([rows[:2], np.stack([found, values[:, 1]], 1)])

    return network
