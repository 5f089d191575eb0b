"""What judges share: shapes, numbers that are not finite, and the recognition of known
mistakes.
"""

from collections.abc import Sequence

import numpy as np

from book.questions import Case, Verdict

RIGHT = Verdict(1.0, "right")


def wrong(feedback: str, share: float = 0.0) -> Verdict:
    return Verdict(share, feedback)


def malformed(outputs: Sequence, names: Sequence[str], shapes: Sequence[tuple]) -> Verdict | None:
    """A verdict if the answer returned None, the wrong number of arrays, wrong shapes or
    numbers that are not finite; else None.
    """
    if not outputs:
        return wrong("the answer returned None: is there a return at its end?")
    if len(outputs) != len(shapes):
        return wrong(
            f"got {len(outputs)} array{'s' * (len(outputs) != 1)}, wanted {len(shapes)}: "
            f"{', '.join(names)}"
        )
    for value, name, shape in zip(outputs, names, shapes):
        if value.shape != shape:
            return wrong(
                f"{name} has shape {value.shape}, wanted {shape}: does the answer return what "
                "its docstring says?"
            )
        if not np.isfinite(value).all():
            return wrong(
                f"{name} is not finite everywhere: look for a division by zero, or a logarithm "
                "or exponential that overflows"
            )
    return None


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference relative to the largest entry of b."""
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300))


def pair(value, names: str) -> tuple:
    """What an answer must return together; raises ValueError, saying so, if it did not. None
    passes: judges know it as a lacking `return`.
    """
    if value is not None and (not isinstance(value, tuple | list) or len(value) != 2):
        raise ValueError(
            f"the answer returned one {type(value).__name__}, wanted two things: return {names}"
        )
    return value


def single(off: float) -> Verdict | None:
    """A verdict if an answer is right to single precision only (relative distance `off`), else
    None.
    """
    if off > 1e-6:
        return None
    return wrong(
        "right, but in single precision: torch.tensor([...]) and torch.zeros(...) make float32 "
        "unless told dtype=torch.float64",
        0.5,
    )


def recognise(
    value: np.ndarray, mistakes: dict[str, np.ndarray], tolerance: float = 1e-8, most: int = 1
) -> str | None:
    """The explanation whose array the value agrees with, if there is one; of several, the
    first `most`.
    """
    return (
        "; or: ".join(
            [why for why, array in mistakes.items() if distance(value, array) < tolerance][:most]
        )
        or None
    )


def slope(errors: dict[int, float]) -> float:
    """Order of convergence from {steps: error}: minus the least-squares slope of log error on
    log steps.
    """
    n, e = np.log(list(errors)), np.log(np.maximum(list(errors.values()), 1e-300))
    return float(-np.polyfit(n, e, 1)[0])


def faults(
    case: Case,
    outputs: list,
    names: tuple[str, ...],
    hints: tuple[str, ...],
    tolerance: float = 1e-9,
) -> Verdict:
    """Right, or for every output that is not, a known mistake or the hint; each counts alike."""
    truths = case.truth["values"]
    bad = malformed(outputs, names, [truth.shape for truth in truths])
    if bad:
        return bad
    faults = []
    for name, hint, value, truth, mistakes in zip(
        names, hints, outputs, truths, case.truth["mistakes"]
    ):
        off = distance(value, truth)
        if off > tolerance:
            faults.append(
                f"{name} is off by {off:.1e} (relative): "
                f"{recognise(value, mistakes, max(1e-8, tolerance)) or hint}"
            )
    return wrong(" · ".join(faults), 1 - len(faults) / len(names)) if faults else RIGHT
