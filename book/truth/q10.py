"""Assignment 10: an iteration of parareal, the sampler, its timetable, why few iterations do."""

from dataclasses import replace

import numpy as np
import torch

from book.questions.q10 import BLOCKS, READY, maps
from book.truth import Case, Verdict
from book.truth.exact import Exact
from book.truth.judging import RIGHT, apart, exactly, known, malformed, wrong

ROWS = 6


def blocks(rng: np.random.Generator) -> dict:
    return {"weights": rng.normal(size=(BLOCKS, 2, 2)), "x": rng.normal(size=(ROWS, 2))}


def _to_the_bit(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    cut = lambda found: found[1:]
    mistakes = lambda: [(why, cut(found)) for why, found in case.mistakes()]
    inner = replace(case, values=cut(case.values), mistakes=mistakes)
    said = exactly(q, inner, outputs[1:], calls)
    if said is RIGHT and (outputs[1] != outputs[0])[: READY + 2].any():
        return wrong(
            "right up to rounding. But where a block's start has settled the next start must be "
            "F of it to the last bit: add the bracket last",
            0.5,
        )
    return said


ITERATE = Exact(
    "Q10.1",
    lambda rng: blocks(rng) | {"guess": rng.normal(size=(BLOCKS + 1, ROWS, 2))},
    returns="the starts",
    hint="compare with the formula, one block at a time",
    verdict=_to_the_bit,
    mistakes="""
        + (G(i, new[i]) - G(i, starts[i])) →
        # this is F(U_i) alone: the bracket is missing, or both of its coarse steps start from the
        # same points (was U overwritten?)
        + (G → - (G  # the bracket has the wrong sign: it is the new coarse step less the old one
        F(i, starts[i]) + (G(i, new[i]) - G(i, starts[i])) → G(i, new[i])
        # this is the coarse chain: the fine solves are missing
        - G(i, starts[i]) →  # the old coarse step is not subtracted
        F(i, starts[i]) + (G(i, new[i]) - G(i, starts[i])) → F(i, new[i])
        # the fine solves start from the new starts: that is the sequential sampler. They all
        # start from the old ones
        G(i, new[i]) - G(i, starts[i]) → new[i] - starts[i]
        # this carries the movement V_i − U_i on unchanged: G must carry it, as a difference of
        # two coarse steps
        G(i, new[i]) - G(i, starts[i]) → G(i, new[i] - starts[i])
        # G of a difference is not the difference of two G, unless G is linear
        - G(i, starts[i]) → - starts[i + 1]
        # the old coarse step is G_i(U_i), not U_{i+1}: they agree for the coarse guess only
    """,
)


def tolerances(rng: np.random.Generator) -> dict:
    """Tolerances between two measures of a change: above the root mean square of iteration 2,
    which the largest coordinate and the norm exceed, and below that of iteration 3, which the
    mean absolute value and means over the batch do not reach. Then 0.
    """
    inputs = blocks(rng)
    F, G = maps(inputs)
    old, new, moved = [torch.tensor(inputs["x"])], [], []
    for i in range(BLOCKS):
        old.append(G(i, old[i]))
    for _ in range(3):
        new = old[:1]
        for i in range(BLOCKS):
            new.append(F(i, old[i]) + (G(i, new[i]) - G(i, old[i])))
        moved.append((new[-1] - old[-1]).numpy())
        old = new
    rms = lambda change: np.sqrt((change**2).mean(1)).max()
    upper = rms(moved[1]) * np.abs(moved[1]).max()
    lower = rms(moved[2]) * np.abs(moved[2]).mean(1).max()
    return inputs | {"tols": np.sqrt([upper, lower, 0.0])}


def _parareal(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """The chain to the last bit with tolerance 0, then what the tolerances give."""
    names = [
        "the chain",
        *(f"{w} of run {k}" for k in (1, 2, 3) for w in ("U_K", "the iterations")),
    ]
    bad = malformed(outputs, names, case.values)
    if bad:
        return bad
    chain, last, counts = outputs[0], outputs[5], [float(count) for count in outputs[2::2]]
    off = max(np.abs(last - chain).max(), np.abs(last - case.values[0]).max() - 1e-9)
    if off > 1e-9:
        return wrong(
            f"tolerance 0: off by {off:.1e} from the chain, wanted 0: does it correct every "
            "block, and make up to K iterations?"
        )
    if counts[2] > BLOCKS:
        return wrong(
            f"tolerance 0: {counts[2]:g} iterations for {BLOCKS} blocks: after K of them all is "
            "exact, stop there; the guess is no iteration",
            0.5,
        )
    gap = apart([outputs[1], outputs[3]], [case.values[1], case.values[3]])
    wanted = [float(case.values[k]) for k in (2, 4)]
    if gap > 1e-12 or counts[:2] != wanted:
        why = known(case, outputs, [1, 3], 1e-12, most=4) or q.hint
        if gap <= 1e-12:
            why = (
                "the end is right, the count is not: count the iterations made, with the last, "
                "without the guess"
            )
        return wrong(
            f"tolerance 0 is right; with a tolerance {counts[0]:g} and {counts[1]:g} iterations, "
            f"wanted {wanted[0]:g} and {wanted[1]:g}, and U_K off by {gap:.1e}: {why}",
            0.5,
        )
    if off > 0:
        return wrong(
            "right up to rounding. But with tolerance 0 the result must be the chain's to the "
            "last bit: add the bracket last",
            0.6,
        )
    return RIGHT


PARAREAL = Exact(
    "Q10.2",
    tolerances,
    returns="U_K",
    hint="compare the change of U_K, its size and what is returned with the text",
    verdict=_parareal,
    mistakes="""
        .sqrt().max() → .sqrt().mean()  # the mean over the batch decides: the slowest sample must
        .mean(1).sqrt().max() → .mean().sqrt()
        # the root mean square over the whole batch decides: the slowest sample must
        .square().mean(1).sqrt() → .norm(dim=1)
        # the change is the norm, not the root of the *mean* square over the coordinates
        .square().mean(1).sqrt() → .abs().amax(1)
        # the largest coordinate decides, not the root mean square
        .square().mean(1).sqrt() → .abs().mean(1)
        # the mean absolute value decides, not the root mean square
        .square().mean(1).sqrt().max() → .abs().mean()
        # the mean absolute value over the whole batch decides: take the root mean square of each
        # sample, and the largest
        .mean(1).sqrt() → .mean(1)  # the change is the mean square, without its root
        (new[-1] - starts[-1]).square().mean(1)
        → (torch.stack(new) - torch.stack(starts)).square().mean(2)
        # the changes of all starts decide: only that of U_K must
        change <= tol → False
        # this is the chain itself: it never stops before iteration K, or its fine solves start
        # from corrected points
        change <= tol → change <= tol or tol > 0  # it stops after the first iteration
    """,
)


def sizes(rng: np.random.Generator) -> dict:
    K = int(rng.integers(4, 8))
    return {"K": K, "J": int(rng.integers(3, 7)), "p": int(rng.integers(2, K))}


def _entry(case: Case, values: list, truths: list) -> str:
    p, i = np.argwhere(values[0] != truths[0])[0]
    return f"T({p}, {i}) is {values[0][p, i]:g}, wanted {truths[0][p, i]:g}"


TABLE = Exact(
    "Q10.3",
    sizes,
    returns="the table",
    hint="which two ends must be known, and when are they?",
    off=_entry,
    mistakes="""
        max(T[q - 1, i] + J, T[q, i] + 1) → T[q - 1, K] + J + i
        # this is the schedule without the pipeline: a fine solve needs its own start only, not
        # the whole former iteration
        max( → min(
        # both the fine solve and the coarse step are needed: wait for the later one, max
        max(T[q - 1, i] + J, T[q, i] + 1) → T[q - 1, i] + J + T[q, i] + 1
        # the fine solve and the coarse step do not wait for each other: max, not their sum
        for i in → T[q, 0] = J * q
                for i in
        # start 0 is given: it is known after 0 calls in every iteration
        torch.arange(K + 1) → 0  # the guess is not free: start i of it is known after i calls
        T[q, i] + 1) → T[q, i]) + 1
        # adding the bracket takes no call: the new start is known as soon as both ends are
        max(T[q - 1, i] + J, T[q, i] + 1) → T[q, i] + J
        # the fine solve starts from U_i^{q−1}, which is known sooner than U_i^q
        max(T[q - 1, i] + J, T[q, i] + 1) → i + 1 + q * (J - 1)
        # start i is exact after iteration i and is kept: T(q, i) = T(i, i) for q ≥ i
    """,
)


def factors(rng: np.random.Generator) -> dict:
    g, p = rng.uniform(0.4, 0.9, BLOCKS), int(rng.integers(2, 5))
    return {"f": g * (1 + rng.uniform(-0.4, 0.6, BLOCKS)), "g": g, "p": p}


AFTER = Exact(
    "Q10.4",
    factors,
    returns="the starts",
    hint="iterate twice by hand from U_0 = 1: which products does U_2 hold?",
    mistakes="""
        zeros(p + 1, → zeros(len(f) + 1,
        # this is the whole product of the f, the chain itself: stop at degree p
        e.sum(0) → e[:-1].sum(0)
        # the degree is one too low: p iterations know products of p factors f − g
        zeros(p + 1, → zeros(p + 2,  # the degree is one too high
        e.sum(0) → e[-1]  # these are only the terms of degree p: sum the lower ones as well
        torch.cat([torch.ones_like(g[:1]), g.cumprod(0)]) * →  # the product of the g is missing
        g.cumprod → f.cumprod  # the product in front is of the g, not of the f
        (f - g) / g → (f - g) / f  # r is relative to the coarse factor: (f − g)/g
        (f - g) / g → f - g  # r is relative: divide f − g by g
        (f - g) / g → (g - f) / g  # r has the wrong sign: fine less coarse
        e[1:, i + 1] = e[1:, i] + r * e[:-1, i] → for m in range(1, p + 1):
                    e[m, i + 1] = e[m, i] + r * e[m - 1, i + 1]
        # the products must be of *different* r: here a factor enters more than once
        return → import math
            S = torch.cat([0 * f[:1], ((f - g) / g).cumsum(0)])
            return
        e.sum(0) → sum(S**m / math.factorial(m) for m in range(p + 1))
        # S^m/m! is only the bound of e_m: it counts products that use a factor twice
    """,
)

QUESTIONS = [ITERATE, PARAREAL, TABLE, AFTER]
