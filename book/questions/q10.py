"""The questions of assignment 10: one iteration of parareal, the sampler, its timetable, and
why few iterations do.
"""

import numpy as np
import torch

from book.questions import Case, Question, Verdict, q10_mistakes
from book.questions.judging import RIGHT, distance, malformed, pair, recognise, single, wrong
from book.questions.problems import array, arrays

PRELUDE = """from book import check  # first: it also tells torch not to spin
import torch"""
BLOCKS, INNER, ROWS, READY, ODD = 7, 5, 6, 3, -3.0


def _maps(weights, odd=1.0):
    """(F, G): a block's INNER small steps, and one long one. The last block shrinks, so that
    inner starts move more than the end.

    odd: a factor of G. Near F, G + (F − G) is F to the last bit by luck; far from it, only a
    bracket of equal numbers is.
    """

    def G(i, x):
        return odd * _shrink(i) * (x + 0.5 * torch.tanh(x @ weights[i]))

    def F(i, x):
        for _ in range(INNER):
            x = x + 0.5 / INNER * torch.tanh(x @ weights[i])
        return _shrink(i) * x

    return F, G


def _shrink(i):
    return 0.25 if i == BLOCKS - 1 else 1.0


def _chain(F, x):
    points = [x]
    for i in range(BLOCKS):
        points.append(F(i, points[-1]))
    return torch.stack(points)


def _draw(seed: int) -> tuple:
    rng = np.random.default_rng(seed)
    return {"weights": rng.normal(size=(BLOCKS, 2, 2)), "x": rng.normal(size=(ROWS, 2))}, rng


def _given(inputs, odd=1.0) -> tuple:
    F, G = _maps(torch.tensor(inputs["weights"]), odd)
    return F, G, torch.tensor(inputs["x"])


# Q10.1: one iteration


def draw_iterate(seed: int) -> Case:
    """Starts of which the first READY + 1 are the chain's (the answer's process computes
    those: bits differ between machines).
    """
    inputs, rng = _draw(seed)
    inputs["guess"] = rng.normal(size=(BLOCKS + 1, ROWS, 2))
    F, G, starts = *_given(inputs, ODD)[:2], _starts(inputs)
    return Case(
        inputs,
        {
            "starts": q10_mistakes.iterate(F, G, starts).numpy(),
            "mistakes": q10_mistakes.of_iterate(F, G, starts),
        },
    )


def _starts(inputs):
    F, _, x = _given(inputs)
    starts = torch.tensor(inputs["guess"])
    starts[: READY + 1] = _chain(F, x)[: READY + 1]
    return starts


def run_iterate(answer, inputs, network) -> list:
    F, G, x = _given(inputs, ODD)
    chain = _chain(F, x).numpy().copy()
    found = answer(F, G, _starts(inputs))
    return [] if found is None else [chain, array(found)]


def judge_iterate(case: Case, outputs: list, calls: float) -> Verdict:
    chain, *outputs = outputs or [None]
    bad = malformed(outputs, ("the starts",), (case.inputs["guess"].shape,))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["starts"])
    if off > 1e-9:
        return single(off) or wrong(
            f"off by {off:.1e} (relative): "
            f"{recognise(outputs[0], case.truth['mistakes']) or 'compare with the formula, one block at a time'}"
        )
    if (outputs[0][: READY + 2] != chain[: READY + 2]).any():
        return wrong(
            "right up to rounding. But where a block's start has settled the next start must "
            "be F of it to the last bit: add the bracket last",
            0.5,
        )
    return RIGHT


# Q10.2: the sampler


def draw_sampler(seed: int) -> Case:
    """Tolerances between two measures of a change: above the root mean square of iteration 2,
    which the largest coordinate and the norm exceed, and below that of iteration 3, which the
    mean absolute value and means over the batch do not reach. Then 0."""
    inputs, _ = _draw(seed)
    F, G, x = _given(inputs)
    _, first, second, third, *_ = (
        starts[-1] for starts in q10_mistakes.iterates(F, G, x, BLOCKS)
    )
    sizes = [
        q10_mistakes.change(second, first),
        q10_mistakes.change(second, first, q10_mistakes.LARGEST),
        q10_mistakes.change(third, second),
        q10_mistakes.change(third, second, q10_mistakes.ABSOLUTE),
    ]
    inputs["tols"] = np.sqrt([sizes[0] * sizes[1], sizes[2] * sizes[3], 0.0])
    loose = [float(tol) for tol in inputs["tols"][:-1]]
    ends, counts = zip(*(q10_mistakes.run(F, G, x, BLOCKS, tol) for tol in loose))
    truth = {
        "chain": _chain(F, x)[-1].numpy(),
        "ends": torch.stack(ends).numpy(),
        "counts": counts,
        "mistakes": q10_mistakes.of_run(F, G, x, BLOCKS, loose),
    }
    return Case(inputs, truth)


def run_sampler(answer, inputs, network) -> list:
    """With tolerance 0, a coarse step that is far from the fine solve: K iterations suffice
    whatever G is.
    """
    (F, G, x), odd = _given(inputs), _given(inputs, ODD)[1]
    chain = _chain(F, x)[-1].numpy().copy()
    found = [
        pair(answer(F, G if tol else odd, x.clone(), BLOCKS, float(tol)), "U_K, p")
        for tol in inputs["tols"]
    ]
    return (
        []
        if any(value is None for value in found)
        else [chain, *(array(value) for both in found for value in both)]
    )


def judge_sampler(case: Case, outputs: list, calls: float) -> Verdict:
    chain, *outputs = outputs or [None]
    bad = malformed(
        outputs,
        [f"{what} of run {k}" for k in (1, 2, 3) for what in ("U_K", "the iterations")],
        [case.inputs["x"].shape, ()] * 3,
    )
    if bad:
        return bad
    ends, counts = outputs[::2], [float(count) for count in outputs[1::2]]
    off = max(np.abs(ends[-1] - chain).max(), np.abs(ends[-1] - case.truth["chain"]).max() - 1e-9)
    if off > 1e-9:
        return wrong(
            f"tolerance 0: off by {off:.1e} from the chain, wanted 0: does it correct every "
            "block, and make up to K iterations?"
        )
    if counts[-1] > BLOCKS:
        return wrong(
            f"tolerance 0: {counts[-1]:g} iterations for {BLOCKS} blocks: after K of them all "
            "is exact, stop there; the guess is no iteration",
            0.5,
        )
    loose = np.stack(ends[:-1])
    gap = distance(loose, case.truth["ends"])
    if gap > 1e-12 or tuple(counts[:-1]) != case.truth["counts"]:
        why = (
            recognise(loose, case.truth["mistakes"], 1e-12, most=3)
            or "compare the change of U_K, its size and what is returned with the text"
        )
        if gap <= 1e-12:
            why = (
                "the end is right, the count is not: count the iterations made, with the "
                "last, without the guess"
            )
        return wrong(
            f"tolerance 0 is right; with a tolerance {counts[0]:g} and {counts[1]:g} "
            f"iterations, wanted {case.truth['counts'][0]} and "
            f"{case.truth['counts'][1]}, and U_K off by {gap:.1e}: {why}",
            0.5,
        )
    if off > 0:
        return wrong(
            "right up to rounding. But with tolerance 0 the result must be the chain's to the "
            "last bit: add the bracket last",
            0.6,
        )
    return RIGHT


# Q10.3: the timetable


def draw_ready(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    K, J = int(rng.integers(4, 8)), int(rng.integers(3, 7))
    p = int(rng.integers(2, K))
    return Case(
        {"shape": np.array([K, J, p], float)},
        {"table": q10_mistakes.ready(K, J, p), "mistakes": q10_mistakes.of_ready(K, J, p)},
    )


def run_ready(answer, inputs, network) -> list:
    return arrays(answer(*(int(n) for n in inputs["shape"])))


def judge_ready(case: Case, outputs: list, calls: float) -> Verdict:
    table = case.truth["table"]
    bad = malformed(outputs, ("the table",), (table.shape,))
    if bad:
        return bad
    if (outputs[0] == table).all():
        return RIGHT
    p, i = np.argwhere(outputs[0] != table)[0]
    why = (
        recognise(outputs[0], case.truth["mistakes"])
        or "which two ends must be known, and when are they?"
    )
    return wrong(f"T({p}, {i}) is {outputs[0][p, i]:g}, wanted {table[p, i]:g}: {why}")


# Q10.4: why few iterations


def draw_after(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    g, p = rng.uniform(0.4, 0.9, BLOCKS), int(rng.integers(2, 5))
    f = g * (1 + rng.uniform(-0.4, 0.6, BLOCKS))
    return Case(
        {"f": f, "g": g, "p": np.array(float(p))},
        {"starts": q10_mistakes.after(f, g, p), "mistakes": q10_mistakes.of_after(f, g, p)},
    )


def run_after(answer, inputs, network) -> list:
    return arrays(answer(torch.tensor(inputs["f"]), torch.tensor(inputs["g"]), int(inputs["p"])))


def judge_after(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("the starts",), ((BLOCKS + 1,),))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["starts"])
    if off < 1e-9:
        return RIGHT
    return single(off) or wrong(
        f"off by {off:.1e} (relative): "
        f"{recognise(outputs[0], case.truth['mistakes']) or 'iterate twice by hand from U_0 = 1: which products does U_2 hold?'}"
    )


QUESTIONS = [
    Question("Q10.1", "iterate", 5, draw_iterate, run_iterate, judge_iterate),
    Question("Q10.2", "parareal", 6, draw_sampler, run_sampler, judge_sampler),
    Question("Q10.3", "ready", 5, draw_ready, run_ready, judge_ready),
    Question("Q10.4", "after", 4, draw_after, run_after, judge_after),
]
