"""The questions of assignment 09: a sweep, a test of its exactness, the window, the sampler,
and a proof in closed form.
"""

import numpy as np
import torch
from dlib.solvers import ddim

from book.questions import Case, Question, Verdict, q09_mistakes
from book.questions.judging import RIGHT, distance, malformed, pair, recognise, single, wrong
from book.questions.problems import array, arrays, draw_problem, even, model_of, network_of

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch"""
STEPS, ROWS, READY = 9, 5, 4
# (window, tolerance) of Q09.4, for 12 steps
LOOSE, STRICT = ((5, 0.02), (7, 0.1), (9, 0.05)), ((4, 0.0), (12, 0.0))


# Q09.1: one sweep


def draw_sweep(seed: int) -> Case:
    """Points of which the first READY + 1 are the chain's, and sizes that change."""
    rng = np.random.default_rng(seed)
    made, points = rng.normal(size=(STEPS, ROWS, 2)), rng.normal(size=(STEPS + 1, ROWS, 2))
    points[1 : READY + 1] = made[:READY]
    inputs = {"points": points, "made": made, "size": np.exp(rng.uniform(-2, 2, STEPS + 1))}
    given = [torch.from_numpy(inputs[name]) for name in ("points", "made", "size")]
    return Case(
        inputs,
        {"points": q09_mistakes.sweep(*given).numpy(), "mistakes": q09_mistakes.of_sweep(*given)},
    )


def run_sweep(answer, inputs, network) -> list:
    return arrays(answer(*(torch.tensor(inputs[name]) for name in ("points", "made", "size"))))


def judge_sweep(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("the points",), (case.inputs["points"].shape,))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["points"])
    if off > 1e-9:
        return single(off) or wrong(
            f"off by {off:.1e} (relative): "
            f"{recognise(outputs[0], case.truth['mistakes']) or 'compare with the formula, one point at a time'}"
        )
    if (outputs[0][0] != case.inputs["points"][0]).any():
        return wrong(
            "X_0 has changed by a rounding error: it is the start, return it as it is", 0.5
        )
    if (outputs[0][1 : READY + 2] != case.inputs["made"][: READY + 1]).any():
        return wrong(
            "right up to rounding. But where all former brackets are zero the new point must "
            "be Φ_j(X_j) to the last bit: add the sum of brackets last",
            0.5,
        )
    return RIGHT


# Q09.2: the test


def draw_test(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    inputs = {
        "guess": rng.normal(size=(STEPS, ROWS, 2)),
        "weights": rng.normal(size=(STEPS - 1, 2, 2)),
        "order": rng.permutation(len(q09_mistakes.SAMPLERS)).astype(float),
    }
    names = [list(q09_mistakes.SAMPLERS)[int(i)] for i in inputs["order"]]
    return Case(
        inputs, {"names": names, "passes": [q09_mistakes.SAMPLERS[name][1] for name in names]}
    )


def run_test(answer, inputs, network) -> list:
    weights, samplers = torch.tensor(inputs["weights"]), list(q09_mistakes.SAMPLERS.values())

    def step(j, x):
        return x + 0.5 * torch.tanh(x @ weights[j])

    said = [
        answer(samplers[int(i)][0], step, torch.tensor(inputs["guess"])) for i in inputs["order"]
    ]
    return (
        []
        if any(value is None for value in said)
        else [np.array([float(bool(value)) for value in said])]
    )


def judge_test(case: Case, outputs: list, calls: float) -> Verdict:
    names, passes = case.truth["names"], case.truth["passes"]
    bad = malformed(outputs, ("the test's answers",), ((len(names),),))
    if bad:
        return bad
    accepted = {name for name, said in zip(names, outputs[0]) if said}
    refused = [
        name
        for name, (_, right) in q09_mistakes.SAMPLERS.items()
        if right and name not in accepted
    ]
    missed = [
        name
        for name, (_, right) in q09_mistakes.SAMPLERS.items()
        if not right and name in accepted
    ]
    if not refused and not missed:
        return RIGHT
    if refused:
        return wrong(
            f"your test rejects a right sampler, one that {refused[0]}: after k sweeps only "
            "the points 0 … k must be the chain's, the others may be anything"
        )
    share = 0.8 * (1 - len(missed) / passes.count(False))
    return wrong(
        f"your test accepts {len(missed)} of {passes.count(False)} wrong samplers, for "
        f"instance one that {missed[0]}: compare bit for bit, the points "
        "0 … k after k sweeps, for every k from 0 to N",
        share,
    )


# Q09.3: how far the window moves


def draw_settled(seed: int) -> Case:
    """Changes (cases, window, batch): with a settled point after an unsettled one, ties, none
    settled, all settled.
    """
    rng = np.random.default_rng(seed)
    change, tol = rng.uniform(0, 1, (12, 6, 4)), np.where(np.arange(12) % 3 == 0, 0.0, 0.5)
    for case in range(12):
        ready = case % 6
        change[case, :ready] *= tol[case]
        change[case, ready:, 0] = 0.6 + 0.4 * change[case, ready:, 0]  # one slow sample
        change[case, ready, 1:] *= tol[case]  # all others are settled
        if case % 2:
            change[case, ready + 1 :] *= tol[case]
        if ready:
            change[case, ready - 1, 1] = tol[case]  # a tie
    change[10] = 0.1
    # each sample waits at a point of its own, where the mean is small and the root mean square is
    # not
    change[10, range(4), range(4)] = 1.2
    change[11] = 0.1
    given = [(torch.from_numpy(c), float(t)) for c, t in zip(change, tol)]
    mistakes = {
        why: np.array([answer(*pair) for pair in given], float)
        for why, answer in q09_mistakes.SETTLED.items()
    }
    return Case(
        {"change": change, "tol": tol},
        {
            "moves": np.array([q09_mistakes.settled(*pair) for pair in given], float),
            "mistakes": mistakes,
        },
    )


def run_settled(answer, inputs, network) -> list:
    said = [
        answer(torch.tensor(change), float(tol))
        for change, tol in zip(inputs["change"], inputs["tol"])
    ]
    return (
        []
        if any(value is None for value in said)
        else [np.array([float(value) for value in said])]
    )


def judge_settled(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("the moves",), (case.truth["moves"].shape,))
    if bad:
        return bad
    faults = outputs[0] != case.truth["moves"]
    if not faults.any():
        return RIGHT
    first = int(faults.argmax())
    why = (
        recognise(outputs[0], case.truth["mistakes"])
        or "count the points before the first whose largest change over the batch exceeds the "
        "tolerance, at least 1"
    )
    return wrong(
        f"{int(faults.sum())} of {len(faults)} windows move wrongly, e.g. by "
        f"{outputs[0][first]:g} instead of {case.truth['moves'][first]:g}: {why}"
    )


# Q09.4: the sampler


def _given(inputs: dict, network) -> tuple:
    """(step of a window of points, x, σ of all levels): each step is made on one point's
    batch, as the chain makes it.
    """
    model = model_of(inputs, network)
    levels = [model.schedule.at_lam(float(lam)) for lam in even(12)]

    def step(first, points):
        made = [
            ddim(model, x.contiguous(), *levels[first + i : first + i + 2])[0]
            for i, x in enumerate(points)
        ]
        return torch.stack(made)

    return step, torch.tensor(inputs["x"]), [level.sigma for level in levels]


def _turned(step):
    """The steps −Φ. A DDIM step is short, so that X + (Φ(X) − X) is often Φ(X) to the last bit
    by luck; here it is not.
    """
    return lambda first, points: -step(first, points)


def _chain(step, x):
    for j in range(12):
        x = step(j, x[None])[0]
    return x


def draw_sampler(seed: int) -> Case:
    _, inputs, model = draw_problem(seed)
    step, x, sigma = _given(inputs, network_of(model))
    ends, sweeps = zip(*(q09_mistakes.run(step, x, sigma, *how) for how in LOOSE))
    truth = {
        "chain": _chain(_turned(step), x).numpy(),
        "ends": torch.stack(ends).numpy(),
        "sweeps": sweeps,
        "mistakes": q09_mistakes.of_run(step, x, sigma, LOOSE),
    }
    return Case(inputs, truth, network_of(model))


def run_sampler(answer, inputs, network) -> list:
    """The chain comes first, as this process computes it: another one, such as a sandbox that
    hides the CPU's kind, may round otherwise.
    """
    step, x, sigma = _given(inputs, network)
    chain = _chain(_turned(step), x).numpy().copy()
    found = [
        pair(
            answer(step if how in LOOSE else _turned(step), x.clone(), sigma, *how), "X_N, sweeps"
        )
        for how in (*LOOSE, *STRICT)
    ]
    return (
        []
        if any(value is None for value in found)
        else [chain, *(array(value) for both in found for value in both)]
    )


def judge_sampler(case: Case, outputs: list, calls: float) -> Verdict:
    shape = case.inputs["x"].shape
    chain, *outputs = outputs or [None]
    runs = range(1, len(LOOSE + STRICT) + 1)
    bad = malformed(
        outputs,
        [f"{what} of run {k}" for k in runs for what in ("X_N", "the sweeps")],
        [shape, ()] * len(runs),
    )
    if bad:
        return bad
    ends, sweeps = outputs[::2], [float(count) for count in outputs[1::2]]
    rounding = False
    for (window, _), end, count in zip(STRICT, ends[len(LOOSE) :], sweeps[len(LOOSE) :]):
        off = max(np.abs(end - chain).max(), np.abs(end - case.truth["chain"]).max() - 1e-9)
        if off > 1e-9:
            return wrong(
                f"tolerance 0, window {window}: off by {off:.1e} from the chain, wanted 0: "
                "does the window pass points that still change?"
            )
        if count > 12:
            return wrong(
                f"tolerance 0, window {window}: {count:g} sweeps for 12 steps: the window must "
                "move by one at least, and the guess is no sweep",
                0.5,
            )
        rounding = rounding or off > 0
    loose = np.stack(ends[: len(LOOSE)])
    off = distance(loose, case.truth["ends"])
    counts, wanted = (
        " and ".join(f"{count:g}" for count in each)
        for each in (sweeps[: len(LOOSE)], case.truth["sweeps"])
    )
    if off > 1e-9 or counts != wanted:
        why = (
            recognise(loose, case.truth["mistakes"])
            or "compare the window's move, the change over σ, and the points that enter, with "
            "the text"
        )
        if off <= 1e-9:
            why = "X_N is right, the count is not: count each sweep made, the guess is none"
        return wrong(
            f"tolerance 0 is right; with a tolerance {counts} sweeps, wanted {wanted}, and X_N "
            f"off by {off:.1e}: {why}",
            0.5,
        )
    if rounding:
        return wrong(
            "right up to rounding. But with tolerance 0 the result must be the chain's to the "
            "last bit: add the sum of brackets last",
            0.6,
        )
    most = (
        12
        + sum(w * count for (w, _), count in zip(LOOSE, sweeps))
        + sum(12 * w - w * (w - 1) / 2 for w, _ in STRICT)
    )
    if calls <= most + 1e-9:
        return RIGHT
    return wrong(
        f"right, but with {calls - 12:g} network evaluations of the batch, wanted at most "
        f"{most - 12:g}: step only the points of the window",
        0.6,
    )


# Q09.5: the proof in closed form


def draw_expanded(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    l, k = rng.uniform(-0.9, 0.4, 10), int(rng.integers(2, 5))
    return Case(
        {"l": l, "k": np.array(float(k))},
        {"points": q09_mistakes.expanded(l, k), "mistakes": q09_mistakes.of_expanded(l, k)},
    )


def run_expanded(answer, inputs, network) -> list:
    return arrays(answer(torch.tensor(inputs["l"]), int(inputs["k"])))


def judge_expanded(case: Case, outputs: list, calls: float) -> Verdict:
    bad = malformed(outputs, ("the points",), ((len(case.inputs["l"]) + 1,),))
    if bad:
        return bad
    off = distance(outputs[0], case.truth["points"])
    if off < 1e-9:
        return RIGHT
    return single(off) or wrong(
        f"off by {off:.1e} (relative): "
        f"{recognise(outputs[0], case.truth['mistakes']) or 'sweep once by hand from u = 1: which products of the l does u_2 hold?'}"
    )


QUESTIONS = [
    Question("Q09.1", "sweep", 4, draw_sweep, run_sweep, judge_sweep),
    Question("Q09.2", "prefix_is_exact", 5, draw_test, run_test, judge_test),
    Question("Q09.3", "move", 3, draw_settled, run_settled, judge_settled),
    Question("Q09.4", "picard", 5, draw_sampler, run_sampler, judge_sampler),
    Question("Q09.5", "after_sweeps", 3, draw_expanded, run_expanded, judge_expanded),
]
