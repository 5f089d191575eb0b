"""Assignment 09: a sweep, a test of its exactness, the window, the sampler, and a proof."""

import numpy as np

from book.truth import Case, Question, Verdict, problems
from book.truth.exact import Exact
from book.truth.judging import RIGHT, apart, exactly, known, malformed, tells_apart, wrong
from book.truth.samplers import SAMPLERS, door

STEPS, ROWS, READY = 9, 5, 4
# (window, tolerance, with steps that only multiply?) of Q09.4, for 12 steps
LOOSE = ((5, 0.02, False), (7, 0.1, False), (9, 0.05, False), (12, 0.5, True))
STRICT = ((4, 0.0, False), (12, 0.0, False))


def points(rng: np.random.Generator) -> dict:
    """Points of which the first READY + 1 are the chain's, and sizes that change."""
    made, start = rng.normal(size=(STEPS, ROWS, 2)), rng.normal(size=(STEPS + 1, ROWS, 2))
    start[1 : READY + 1] = made[:READY]
    return {"points": start, "made": made, "size": np.exp(rng.uniform(-2, 2, STEPS + 1))}


def _to_the_bit(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    said = exactly(q, case, outputs, calls)
    if said is not RIGHT:
        return said
    if (outputs[0][0] != case.inputs["points"][0]).any():
        return wrong(
            "X_0 has changed by a rounding error: it is the start, return it as it is", 0.5
        )
    if (outputs[0][1 : READY + 2] != case.inputs["made"][: READY + 1]).any():
        return wrong(
            "right up to rounding. But where all former brackets are zero the new point must be "
            "Φ_j(X_j) to the last bit: add the sum of brackets last",
            0.5,
        )
    return RIGHT


SWEEP = Exact(
    "Q09.1",
    points,
    returns="the points",
    hint="compare with the formula, one point at a time",
    verdict=_to_the_bit,
    mistakes="""
        n, ratio, → n, torch.ones_like(ratio),
        # the factors A are missing: the brackets must carry over in proportion to the size of x.
        # (The sum of increments is the same: right only where the size of x never changes)
        size[1:, None] / size[1:] → size[1:] / size[1:, None]
        # A is turned upside down: it is the size at the end over the size where the bracket was
        > n, → >= n,
        # the sum runs up to i = j: its last bracket is Φ_j(X_j) − X_{j+1}, which the first term
        # holds already
        made + torch → made - torch  # the brackets enter with the wrong sign
        made + torch.tensordot(carry, brackets, 1) → made
        # this is the bare chain, Φ_j(X_j): the sum is missing, or its brackets vanish because
        # they take the *new* X_{i+1} (were the points overwritten?)
        size[1:, None] / size[1:] → size[1:, None] / size[:-1]
        # A is the size where the sum arrives over that where its bracket ends: s_{j+1}/s_{i+1},
        # not s_{j+1}/s_i
        size[1:, None] / size[1:] → size[:-1, None] / size[:-1]
        # A is the size where the sum arrives over that where its bracket ends: s_{j+1}/s_{i+1},
        # not s_j/s_i
        made - points[1:] → made - points[:-1]
        # a bracket is Φ_i(X_i) − X_{i+1}, what the step says of the next point, not Φ_i(X_i) −
        # X_i
        > n, → == n + 1,  # this is only the last bracket, i = j − 1: sum over all of them
    """,
)


def samplers(rng: np.random.Generator) -> Case:
    order, right = rng.permutation(len(SAMPLERS)), {n: ok for n, (_, ok) in SAMPLERS.items()}
    inputs = {
        "guess": rng.normal(size=(STEPS, ROWS, 2)),
        "weights": rng.normal(size=(STEPS - 1, 2, 2)),
        "count": len(order),
        "x": np.zeros((256, 2)),
    }
    return Case(inputs, door(order, STEPS), {"order": order, "right": right})


TEST = Question(
    "Q09.2",
    samplers,
    tells_apart(
        "samplers",
        "after k sweeps only the points 0 … k must be the chain's, the others may be anything",
        "compare bit for bit, the points 0 … k after k sweeps, for every k from 0 to N",
    ),
)


def changes(rng: np.random.Generator) -> dict:
    """Changes (cases, window, batch): with a settled point after an unsettled one, ties, none
    settled, all settled.
    """
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
    return {"change": change, "tol": tol}


def _windows(case: Case, values: list, truths: list) -> str:
    faults = values[0] != truths[0]
    k = int(faults.argmax())
    return (
        f"{int(faults.sum())} of {len(faults)} windows move wrongly, e.g. by {values[0][k]:g} "
        f"instead of {truths[0][k]:g}"
    )


MOVE = Exact(
    "Q09.3",
    changes,
    returns="the moves",
    hint="count the points before the first whose largest change over the batch exceeds the "
    "tolerance, at least 1",
    off=_windows,
    mistakes="""
        .cumprod(0) →
        # all settled points are counted: only those before the first unsettled one may be passed
        max(1, int(settled.long().cumprod(0).sum())) → int(settled.long().cumprod(0).sum())
        # the window must move by one at least: its first point was made from a settled one
        change.amax(1) → change.mean(1)
        # the mean over the batch decides: the slowest sample must
        change.amax(1) → change.square().mean(1).sqrt()
        # the root mean square over the batch decides: the slowest sample must
        change.amax(1) → change.amin(1)
        # the fastest sample of the batch decides: the slowest must
        <= tol → < tol
        # a change equal to the tolerance must count as settled: with tolerance 0 nothing else
        # ever does
        settled.long().cumprod(0).sum() → (change <= tol).long().cumprod(0).sum(0).max()
        # the fastest sample decides how far: each has its own count, and the smallest counts
        max(1, int( → min(len(change), 1 + int(
        # the window moves one too far: past the first unsettled point
        max(1, int(settled.long().cumprod(0).sum())) → 1 + int(settled.long().cumprod(0).sum())
        # the window moves one too far: past the first unsettled point, or past its own end
        settled.long().cumprod(0).sum() → (~settled).long().argmax()
        # where all points are settled the window moves past all of them: argmax finds no first
        # unsettled one then
    """,
)


def chain(rng: np.random.Generator) -> Case:
    """A mixture's steps, and some that multiply by 1 + l. These l sum up to nothing, so that a
    sweep settles the last points before those in the middle.
    """
    inputs, model = problems.problem(rng)
    large, small = rng.uniform(0.25, 0.35, 4), rng.uniform(-0.01, 0.01, 4)
    l = np.array([small[0], *large, *-large[::-1], *small[1:]])
    inputs |= {"lams": problems.even(12), "runs": np.array(LOOSE + STRICT, float), "l": l}
    return Case(inputs, problems.network_of(model))


def _picard(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """The chain to the last bit with tolerance 0, then what tolerances give, then the calls."""
    runs = range(1, len(LOOSE + STRICT) + 1)
    names = ["the chain", *(f"{what} of run {k}" for k in runs for what in ("X_N", "the sweeps"))]
    bad = malformed(outputs, names, case.values)
    if bad:
        return bad
    chain, ends, sweeps = outputs[0], outputs[1::2], [float(count) for count in outputs[2::2]]
    rounding = False
    for (window, *_), end, count in zip(STRICT, ends[len(LOOSE) :], sweeps[len(LOOSE) :]):
        off = max(np.abs(end - chain).max(), np.abs(end - case.values[0]).max() - 1e-9)
        if off > 1e-9:
            return wrong(
                f"tolerance 0, window {window}: off by {off:.1e} from the chain, wanted 0: does "
                "the window pass points that still change?"
            )
        if count > 12:
            return wrong(
                f"tolerance 0, window {window}: {count:g} sweeps for 12 steps: the window must "
                "move by one at least, and the guess is no sweep",
                0.5,
            )
        rounding = rounding or off > 0
    loose = [2 * k + 1 for k in range(len(LOOSE))]
    off = apart([outputs[k] for k in loose], [case.values[k] for k in loose])
    counts, wanted = (
        " and ".join(f"{float(which[k + 1]):g}" for k in loose)
        for which in (outputs, case.values)
    )
    if off > 1e-9 or counts != wanted:
        why = known(case, outputs, loose) or q.hint
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
    most = sum(w * count for (w, _, linear), count in zip(LOOSE, sweeps) if not linear)
    most += sum(12 * w - w * (w - 1) / 2 for w, *_ in STRICT)
    if calls - 12 <= most + 1e-9:  # 12 for the chain
        return RIGHT
    return wrong(
        f"right, but with {calls - 12:g} network evaluations of the batch, wanted at most "
        f"{most:g}: step only the points of the window",
        0.6,
    )


PICARD = Exact(
    "Q09.4",
    chain,
    returns="X_N",
    hint="compare the window's move, the change over σ, and the points that enter, with the text",
    verdict=_picard,
    short={"runs": np.array(LOOSE, float)},
    mistakes="""
        before[0] → before[:]
        # this is what the bare chain Φ_j(X_j) gives: sum up the brackets of the window
        points[stop + 1 :] = points[stop] → pass
        # points that enter the window begin at the start x: begin them where the old window ended
        / level[done + 1 : stop + 1] →  # the change is not divided by σ at the point's own level
        / level[done + 1 : stop + 1] → / level[done:stop]
        # the change of X_{j+1} is over σ_{j+1}, its own level, not over σ_j
        / level → * level  # the change is divided by σ, not multiplied
        .mean(2).sqrt() → .mean(2)  # the change is the mean square, without its root
        .mean(2).sqrt() → .sum(2).sqrt()
        # the change is the norm, not the root of the *mean* square over the coordinates
        moved.amax(1) → moved.mean(1)  # the mean over the batch decides: the slowest sample must
        moved.amax(1) → moved.square().mean(1).sqrt()
        # the root mean square over the batch decides: the slowest sample must
        .cumprod(0) →
        # all settled points are counted: only those before the first unsettled one may be passed
        max(1, int( → min(stop - done, 1 + int(
        # the window moves one too far: past the first unsettled point
        done + window → done + window + 1  # the window holds one step too many
        for j in range(len(sigma) - 1):
            x = step(j, x[None])[0]
        return x, len(sigma) - 1
        # this is the chain, one step after another: sweep over the window
    """,
)


def factors(rng: np.random.Generator) -> dict:
    return {"l": rng.uniform(-0.9, 0.4, 10), "k": int(rng.integers(2, 5))}


EXPANDED = Exact(
    "Q09.5",
    factors,
    returns="the points",
    hint="sweep once by hand from u = 1: which products of the l does u_2 hold?",
    mistakes="""
        zeros(k + 1, → zeros(len(l) + 1,
        # this is the whole product: after k sweeps only terms of degree k and less are there
        return e → return e[:-1]
        # the degree is one too low: after one sweep the terms of degree 1 are there
        zeros(k + 1, → zeros(k + 2,  # the degree is one too high
        S = torch.cat([0 * l[:1], l.cumsum(0)])
        return sum(S**m / math.factorial(m) for m in range(k + 1))
        # S^m/m! is only the bound of e_m: it counts every product m! times, but also those that
        # use a factor twice
        e[1:, j + 1] = e[1:, j] + l[j] * e[:-1, j] → for m in range(1, k + 1):
                    e[m, j + 1] = e[m, j] + l[j] * e[m - 1, j + 1]
        # the products must be of *different* l: here a factor enters more than once
        return e.sum(0) → return e[-1]
        # only the terms of degree k are there: add those of all lower degrees
        e = torch → l = torch.cat([l, 0 * l[:1]])
            e = torch
        return e.sum(0) → return e.sum(0)[1:]
        # the point j uses l_0 … l_j: it comes after the steps 0 … j − 1 only
    """,
)

QUESTIONS = [SWEEP, TEST, MOVE, PICARD, EXPANDED]
