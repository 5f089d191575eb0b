"""What judges share: shapes, numbers that are not finite, single precision, and the recognition
of known mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from book.truth import Case, Question, Verdict

if TYPE_CHECKING:
    from book.truth.exact import Exact

RIGHT = Verdict(1.0, "right")
SINGLE = (
    "right, but in single precision: torch.tensor([...]), torch.zeros(...) and "
    "torch.linspace(...) make float32 unless told dtype=torch.float64"
)


def wrong(feedback: str, share: float = 0.0) -> Verdict:
    return Verdict(share, feedback)


def exactly(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """Each thing that the question names counts alike: right, or a known mistake, or the hint.
    All right with more network calls than the solution needs is half of it.
    """
    outputs = fitted(outputs, case.values)
    many = isinstance(q.returns, tuple)
    names = q.returns if many else (q.returns,) * len(case.values)
    bad = malformed(outputs, names, case.values)
    if bad:
        return bad
    parts = [[k] for k in range(len(names))] if many else [list(range(len(names)))]
    hints = q.hint if isinstance(q.hint, tuple) else (q.hint,) * len(parts)
    share, faults = 0.0, []
    for part, hint in zip(parts, hints):
        verdict = _part(q, case, outputs, part, hint)
        share += verdict.share / len(parts)
        if verdict.share < 1:
            name = f"{names[part[0]]} is " if many else ""
            faults.append(f"{name}{verdict.feedback}")
    if faults:
        return wrong(" · ".join(faults), share)
    return RIGHT if calls <= case.calls + 1e-9 else spendthrift(calls, case.calls)


def _part(q: Exact, case: Case, outputs: list, part: list[int], hint) -> Verdict:
    values, truths = [outputs[k] for k in part], [case.values[k] for k in part]
    off = apart(values, truths)
    if off < q.tolerance:
        return RIGHT
    single = any(value.dtype == np.float32 for value in values)
    if off < (1e-5 if single else 1e-6):
        return wrong(SINGLE, 0.5)
    why = known(case, outputs, part, 1e-5 if single else max(1e-8, q.tolerance))
    why = why or (hint(case, values, truths) if callable(hint) else hint)
    also = " (It is in float32, too: dtype=torch.float64.)" if single else ""
    return wrong(f"{q.off(case, values, truths)}: {why}{also}")


def relative(case: Case, values: list, truths: list) -> str:
    return f"off by {apart(values, truths):.1e} (relative)"


def spendthrift(calls: float, wanted: float) -> Verdict:
    return wrong(
        f"right, but with {calls:g} network calls, wanted {wanted:g}: ask once and keep the "
        "prediction in a variable",
        0.5,
    )


def trainable(share: float) -> Callable:
    """The verdict on a loss, of which the arrays are the values and their gradient in a network's
    weights: right values whose gradient is wrong get `share`.
    """

    def verdict(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
        first = Case(case.inputs, values=case.values[:1], mistakes=case.mistakes)
        said = exactly(q, first, outputs[:1], 0.0)
        if said is not RIGHT or apart(outputs[1:], case.values[1:]) < max(1e-8, q.tolerance):
            return said
        there = [
            (why, found)
            for why, found in case.mistakes()
            if apart(fitted(found, case.values)[:1], case.values[:1]) < q.tolerance
        ]
        why = known(replace(case, mistakes=lambda: there), outputs, [1])
        if not why and outputs[1].any():
            why = (
                "A part of it is missing or too much: look for what is detached or under no_grad "
                "and should not be, and for what should be and is not"
            )
        why = why or "compute everything in torch, from what the network returns"
        return wrong(
            "the values are right, but they cannot train a network: their gradient in its "
            f"weights is not. {why}",
            share,
        )

    return verdict


def tells_apart(things: str, refused: str, missed: str) -> Callable:
    """The verdict on a test of `things`, right and wrong ones: `facts["right"]` says {what one
    does: is it right?}, and the array, in the order of `facts["order"]`, which ones it accepts.
    """

    def verdict(q: Question, case: Case, outputs: list, calls: float) -> Verdict:
        right = case.facts["right"]
        bad = malformed(outputs, ("the test's answers",), [np.zeros(len(right))])
        if bad:
            return bad
        accepts = dict(zip((list(right)[k] for k in case.facts["order"]), outputs[0]))
        good, bad = ([name for name in right if right[name] is kind] for kind in (True, False))
        lost = [name for name in good if not accepts[name]]
        kept = [name for name in bad if accepts[name]]
        if lost:
            return wrong(
                f"your test rejects {len(lost)} of {len(good)} right {things}, for instance one "
                f"that {lost[0]}: {refused}"
            )
        if kept:
            return wrong(
                f"your test accepts {len(kept)} of {len(bad)} wrong {things}, for instance one "
                f"that {kept[0]}: {missed}",
                0.8 * (1 - len(kept) / len(bad)),
            )
        return RIGHT

    return verdict


def known(
    case: Case, outputs: list, part: Sequence[int], tolerance: float = 1e-8, most: int = 1
) -> str | None:
    """The explanation of the known mistake that returns these outputs in `part` of the arrays; of
    several, the first `most`. One that is right there explains nothing.
    """
    said = {}
    for why, found in case.mistakes():
        if len(found) > max(part) and all(found[k].shape == outputs[k].shape for k in part):
            mine, truth = ([which[k] for k in part] for which in (found, case.values))
            if apart([outputs[k] for k in part], mine) < tolerance <= apart(mine, truth):
                said[why] = None
    return "; or: ".join(list(said)[:most]) or None


def fitted(outputs: list, wanted: list) -> list:
    """The outputs as the arrays that are wanted, where only their packing differs: several things
    stacked in one array, a list of numbers for a vector, an array of one number for a number.
    """
    shapes = [np.shape(value) for value in wanted]
    if len(outputs) == 1 < len(shapes) and outputs[0].shape == (len(shapes), *shapes[0]):
        outputs = list(outputs[0])
    if len(shapes) == 1 < len(outputs) and all(value.ndim < 2 for value in outputs):
        same = (len(outputs), *outputs[0].shape) == shapes[0]
        outputs = (
            [np.stack(outputs)] if same and len({o.shape for o in outputs}) == 1 else outputs
        )
    if len(outputs) == len(shapes):
        number = [shape == () and value.size == 1 for value, shape in zip(outputs, shapes)]
        outputs = [v.reshape(()) if flat else v for v, flat in zip(outputs, number)]
    return outputs


def malformed(outputs: Sequence, names: Sequence[str], wanted: Sequence) -> Verdict | None:
    """A verdict if the answer returned None, the wrong number of arrays, other shapes than those
    wanted or numbers that are not finite; else None.
    """
    if not outputs:
        return wrong("the answer returned None: is there a return at its end?")
    if len(outputs) != len(wanted):
        return wrong(
            f"got {len(outputs)} array{'s' * (len(outputs) != 1)}, wanted {len(wanted)}: "
            f"{', '.join(dict.fromkeys(names))}"
        )
    for value, name, shape in zip(outputs, names, map(np.shape, wanted)):
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


def apart(values: list, truths: list) -> float:
    """The largest difference of several arrays relative to their largest entry; infinite where
    shapes differ.
    """
    if [np.shape(value) for value in values] != [np.shape(truth) for truth in truths]:
        return np.inf
    size = max(np.abs(truth).max() for truth in truths)
    return float(max(np.abs(a - b).max() for a, b in zip(values, truths)) / max(size, 1e-300))
