"""Plausible wrong answers to assignment 09, computed so that a judge can recognise them, and
the samplers that Q09.2 tests.
"""

import math

import numpy as np
import torch


def sweep(points, made, size, carry=lambda s, j, i: s[j + 1] / s[i + 1], past=0, sign=1):
    """(N+1, B, d): the points after one sweep. carry: the factor of bracket i; past: how many
    more brackets than i < j; sign: theirs.
    """
    new = [points[0]]
    for j in range(len(made)):
        total = torch.zeros_like(made[0])
        for i in range(min(j + past, len(made))):
            total = total + carry(size, j, i) * (made[i] - points[i + 1])
        new.append(made[j] + sign * total)
    return torch.stack(new)


def plain(points, made, size):
    """X_0 plus the running sum of increments, scaled: right on paper, with its terms in
    another order.
    """
    s = size[:, None, None]
    u = points[:1] / s[:1] + torch.cumsum(made / s[1:] - points[:-1] / s[:-1], 0)
    return torch.cat([points[:1], s[1:] * u])


def of_sweep(points, made, size) -> dict[str, np.ndarray]:
    increments = torch.cat([points[:1], points[0] + torch.cumsum(made - points[:-1], 0)])
    found = {
        "the factors A are missing: the brackets must carry over in proportion to the size of "
        "x": sweep(points, made, size, lambda s, j, i: 1.0),
        "A is turned upside down: it is the size at the end over the size where the bracket "
        "was": sweep(points, made, size, lambda s, j, i: s[i + 1] / s[j + 1]),
        "the sum runs up to i = j: its last bracket is Φ_j(X_j) − X_{j+1}, which the first "
        "term holds already": sweep(points, made, size, past=1),
        "the brackets enter with the wrong sign": sweep(points, made, size, sign=-1),
        "this is the bare chain, Φ_j(X_j): the sum is missing, or its brackets vanish because "
        "they take the *new* X_{i+1} (were the points overwritten?)": torch.cat(
            [points[:1], made]
        ),
        "this is the sum of increments without the factors A: right only where the size of x "
        "never changes": increments,
        "A is the size where the sum arrives over that where its bracket ends: "
        "s_{j+1}/s_{i+1}, not s_{j+1}/s_i": sweep(
            points, made, size, lambda s, j, i: s[j + 1] / s[i]
        ),
        "A is the size where the sum arrives over that where its bracket ends: "
        "s_{j+1}/s_{i+1}, not s_j/s_i": sweep(points, made, size, lambda s, j, i: s[j] / s[i]),
        "a bracket is Φ_i(X_i) − X_{i+1}, what the step says of the next point, not Φ_i(X_i) − "
        "X_i": sweep(torch.cat([points[:1], points[:-1]]), made, size),
        "this is only the last bracket, i = j − 1: sum over all of them": _last_bracket(
            points, made, size
        ),
    }
    return {why: value.numpy() for why, value in found.items()}


def _last_bracket(points, made, size):
    new = [points[0], made[0]]
    for j in range(1, len(made)):
        new.append(made[j] + size[j + 1] / size[j] * (made[j - 1] - points[j]))
    return torch.stack(new)


def _iterated(step, points, sweeps, change):
    for _ in range(sweeps):
        points = change(points, torch.stack([step(j, x) for j, x in enumerate(points[:-1])]))
    return points


def _picard(points, made):
    return sweep(points, made, torch.ones(len(points)).tolist())


def _chain(points, made):
    return torch.cat([points[:1], made])


def _sequential(step, guess, sweeps):
    points = [guess[0]]
    for j in range(len(guess) - 1):
        points.append(step(j, points[-1]))
    return torch.stack(points)


def _stops_short(points, made):
    return torch.cat([_picard(points, made)[:-1], points[-1:]])


def _spoils(step, guess, sweeps):
    """Picard, but from the fourth sweep on X_1, which was right, is off by a rounding error."""
    points = _iterated(step, guess, sweeps, _picard).clone()
    points[1] *= 1 + 1e-15 * (sweeps > 3)
    return points


SAMPLERS = {  # (sampler, has it the property?), by what it does
    "sums up all brackets": (
        lambda step, guess, sweeps: _iterated(step, guess, sweeps, _picard),
        True,
    ),
    "follows the bare chain, one point a sweep": (
        lambda step, guess, sweeps: _iterated(step, guess, sweeps, _chain),
        True,
    ),
    "has all points right from the start": (_sequential, True),
    "adds up the increments in another order, and is off by rounding errors": (
        lambda step, guess, sweeps: _iterated(
            step, guess, sweeps, lambda p, m: plain(p, m, torch.ones(len(p), dtype=p.dtype))
        ),
        False,
    ),
    "is one sweep late": (
        lambda step, guess, sweeps: _iterated(step, guess, max(sweeps - 1, 0), _picard),
        False,
    ),
    "never moves the last point": (
        lambda step, guess, sweeps: _iterated(step, guess, sweeps, _stops_short),
        False,
    ),
    "stops moving after five sweeps": (
        lambda step, guess, sweeps: _iterated(step, guess, min(sweeps, 5), _picard),
        False,
    ),
    "ignores the start it was given": (
        lambda step, guess, sweeps: _iterated(
            step, torch.cat([guess[:1] * (1 + 1e-15), guess[1:]]), sweeps, _picard
        ),
        False,
    ),
    "makes a point that was right wrong again, by a rounding error": (_spoils, False),
    "does nothing at all until the last sweep": (
        lambda step, guess, sweeps: (
            _sequential(step, guess, sweeps) if sweeps + 1 >= len(guess) else guess
        ),
        False,
    ),
    "returns zeros when it is asked for no sweep": (
        lambda step, guess, sweeps: (
            _iterated(step, guess, sweeps, _picard) if sweeps else 0 * guess
        ),
        False,
    ),
}


def settled(change, tol) -> int:
    """How many steps the window moves."""
    return max(1, int((change.amax(1) <= tol).long().cumprod(0).sum()))


def _leading(good) -> int:
    return int(good.long().cumprod(0).sum())


SETTLED = {
    "all settled points are counted: only those before the first unsettled one may be "
    "passed": lambda c, tol: max(1, int((c.amax(1) <= tol).sum())),
    "the window must move by one at least: its first point was made from a settled "
    "one": lambda c, tol: _leading(c.amax(1) <= tol),
    "the mean over the batch decides: the slowest sample must": lambda c, tol: max(
        1, _leading(c.mean(1) <= tol)
    ),
    "the root mean square over the batch decides: the slowest sample must": lambda c, tol: max(
        1, _leading(c.square().mean(1).sqrt() <= tol)
    ),
    "the fastest sample of the batch decides: the slowest must": lambda c, tol: max(
        1, _leading(c.amin(1) <= tol)
    ),
    "a change equal to the tolerance must count as settled: with tolerance 0 nothing else ever "
    "does": lambda c, tol: max(1, _leading(c.amax(1) < tol)),
    "the fastest sample decides how far: each has its own count, and the smallest "
    "counts": lambda c, tol: max(1, int((c <= tol).long().cumprod(0).sum(0).max())),
    "the window moves one too far: past the first unsettled point": lambda c, tol: min(
        len(c), 1 + _leading(c.amax(1) <= tol)
    ),
    "the window moves one too far: past the first unsettled point, or past its own "
    "end": lambda c, tol: 1 + _leading(c.amax(1) <= tol),
    "where all points are settled the window moves past all of them: argmax finds no first "
    "unsettled one then": lambda c, tol: max(1, int((c.amax(1) > tol).long().argmax())),
}


def run(
    step,
    x,
    sigma,
    window,
    tol,
    change=_picard,
    moves=settled,
    fill=True,
    size=lambda square, s: square.sqrt() / s[1:],
):
    """(X_N, sweeps) by Picard iteration over a window. size: how large a change is, from its
    mean square and σ of the window's levels.
    """
    steps, done, sweeps = len(sigma) - 1, 0, 0
    points = torch.stack([x] * (steps + 1))
    while done < steps:
        stop = min(done + window, steps)
        old = points[done : stop + 1]
        new = change(old, step(done, old[:-1]))
        moved = size(
            (new - old)[1:].square().mean(2),
            torch.tensor(sigma[done : stop + 1], dtype=x.dtype)[:, None],
        )
        points = torch.cat([points[:done], new, points[stop + 1 :]])
        if fill:
            points[stop + 1 :] = points[stop]
        sweeps, done = sweeps + 1, done + moves(moved, tol)
    return points[-1], sweeps


def of_run(step, x, sigma, runs) -> dict[str, np.ndarray]:
    """{explanation: (X_N of each run, stacked)}."""
    changes = {
        "this is what the bare chain Φ_j(X_j) gives: sum up the brackets of the window": {
            "change": _chain
        },
        "points that enter the window begin at the start x: begin them where the old window "
        "ended": {"fill": False},
        "the change is not divided by σ at the point's own level": {
            "size": lambda square, s: square.sqrt()
        },
        "the change of X_{j+1} is over σ_{j+1}, its own level, not over σ_j": {
            "size": lambda square, s: square.sqrt() / s[:-1]
        },
        "the change is divided by σ, not multiplied": {
            "size": lambda square, s: square.sqrt() * s[1:]
        },
        "the change is the mean square, without its root": {
            "size": lambda square, s: square / s[1:]
        },
        "the change is the norm, not the root of the *mean* square over the coordinates": {
            "size": lambda square, s: (2 * square).sqrt() / s[1:]
        },
        "the mean over the batch decides: the slowest sample must": {
            "moves": lambda moved, tol: max(1, _leading(moved.mean(1) <= tol))
        },
        "the root mean square over the batch decides: the slowest sample must": {
            "moves": SETTLED[
                "the root mean square over the batch decides: the slowest sample must"
            ]
        },
        "all settled points are counted: only those before the first unsettled one may be "
        "passed": {"moves": lambda moved, tol: max(1, int((moved.amax(1) <= tol).sum()))},
        "the window moves one too far: past the first unsettled point": {
            "moves": SETTLED["the window moves one too far: past the first unsettled point"]
        },
    }
    found = {
        why: np.stack([run(step, x, sigma, *how, **change)[0].numpy() for how in runs])
        for why, change in changes.items()
    }
    found["the window holds one step too many"] = np.stack(
        [run(step, x, sigma, w + 1, tol)[0].numpy() for w, tol in runs]
    )
    found["this is the chain, one step after another: sweep over the window"] = np.stack(
        [run(step, x, sigma, 1, 0.0)[0].numpy() for _ in runs]
    )
    return found


def expanded(l, k):
    """(N+1,): the product of the first j factors 1 + l, multiplied out to degree k."""
    e = np.zeros((k + 1, len(l) + 1))
    e[0] = 1
    for j, value in enumerate(l):
        e[1:, j + 1] = e[1:, j] + value * e[:-1, j]
    return e.sum(0)


def of_expanded(l, k) -> dict[str, np.ndarray]:
    totals = np.concatenate([[0], np.cumsum(l)])
    shifted = expanded(np.concatenate([l, [0]]), k)[1:]
    twice = np.zeros((k + 1, len(l) + 1))
    twice[0] = 1
    for j, value in enumerate(l):
        for m in range(1, k + 1):
            twice[m, j + 1] = twice[m, j] + value * twice[m - 1, j + 1]
    found = {
        "this is the whole product: after k sweeps only terms of degree k and less are "
        "there": expanded(l, len(l)),
        "the degree is one too low: after one sweep the terms of degree 1 are there": expanded(
            l, k - 1
        ),
        "the degree is one too high": expanded(l, k + 1),
        "S^m/m! is only the bound of e_m: it counts every product m! times, but also those "
        "that use a factor twice": sum(totals**m / math.factorial(m) for m in range(k + 1)),
        "the products must be of *different* l: here a factor enters more than once": twice.sum(
            0
        ),
        "only the terms of degree k are there: add those of all lower degrees": expanded(l, k)
        - expanded(l, k - 1),
        "the point j uses l_0 … l_j: it comes after the steps 0 … j − 1 only": shifted,
    }
    return found
