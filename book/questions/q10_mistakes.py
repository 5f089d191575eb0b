"""Plausible wrong answers to assignment 10, computed so that a judge can recognise them."""

import math

import numpy as np
import torch


# not the root mean square
LARGEST, ABSOLUTE = (lambda moved: moved.abs().amax(1)), (lambda moved: moved.abs().mean(1))


def iterate(F, G, starts, add=lambda fine, new, old: fine + (new - old)):
    """(K+1, B, d): the starts after one iteration."""
    moved = [starts[0]]
    for i in range(len(starts) - 1):
        moved.append(add(F(i, starts[i]), G(i, moved[i]), G(i, starts[i])))
    return torch.stack(moved)


def of_iterate(F, G, starts) -> dict[str, np.ndarray]:
    chain = [starts[0]]
    for i in range(len(starts) - 1):
        chain.append(F(i, chain[-1]))
    found = {
        "this is F(U_i) alone: the bracket is missing, or both of its coarse steps start from "
        "the same points (was U overwritten?)": iterate(
            F, G, starts, lambda fine, new, old: fine
        ),
        "the bracket has the wrong sign: it is the new coarse step less the old one": iterate(
            F, G, starts, lambda fine, new, old: fine + (old - new)
        ),
        "this is the coarse chain: the fine solves are missing": iterate(
            F, G, starts, lambda fine, new, old: new
        ),
        "the old coarse step is not subtracted": iterate(
            F, G, starts, lambda fine, new, old: fine + new
        ),
        "the fine solves start from the new starts: that is the sequential sampler. They all "
        "start from the old ones": torch.stack(chain),
        "this carries the movement V_i − U_i on unchanged: G must carry it, as a difference of "
        "two coarse steps": _carried(F, starts, lambda i, moved: moved),
        "G of a difference is not the difference of two G, unless G is linear": _carried(
            F, starts, G
        ),
        "the old coarse step is G_i(U_i), not U_{i+1}: they agree for the coarse guess "
        "only": _from_next(F, G, starts),
    }
    return {why: value.numpy() for why, value in found.items()}


def _carried(F, starts, carry):
    new = [starts[0]]
    for i in range(len(starts) - 1):
        new.append(F(i, starts[i]) + carry(i, new[i] - starts[i]))
    return torch.stack(new)


def _from_next(F, G, starts):
    new = [starts[0]]
    for i in range(len(starts) - 1):
        new.append(F(i, starts[i]) + (G(i, new[i]) - starts[i + 1]))
    return torch.stack(new)


def iterates(F, G, x, K) -> list[torch.Tensor]:
    """All starts (K+1, B, d): of the coarse guess and after each of K iterations."""
    starts = [x]
    for i in range(K):
        starts.append(G(i, starts[i]))
    found = [torch.stack(starts)]
    for _ in range(K):
        found.append(iterate(F, G, found[-1]))
    return found


def change(new, old, size=lambda moved: moved.square().mean(1).sqrt(), over=torch.amax) -> float:
    """How far a start moved: the size for each sample, then one number for the batch."""
    return over(size(new - old)).item()


def run(F, G, x, K, tol, first=None, **how):
    """(U_K, iterations). first: the first start whose change must be small; by default the
    last.
    """
    found = iterates(F, G, x, K)
    for p in range(1, K + 1):
        if all(
            change(*both, **how) <= tol
            for both in list(zip(found[p], found[p - 1]))[K if first is None else first :]
        ):
            break
    return found[p][-1], p


def of_run(F, G, x, K, tols) -> dict[str, np.ndarray]:
    """{explanation: (U_K of each run, stacked)}."""
    changes = {
        "the mean over the batch decides: the slowest sample must": {"over": torch.mean},
        "the root mean square over the whole batch decides: the slowest sample must": {
            "size": torch.square,
            "over": lambda moved: moved.mean().sqrt(),
        },
        "the change is the norm, not the root of the *mean* square over the coordinates": {
            "size": lambda moved: moved.norm(dim=1)
        },
        "the largest coordinate decides, not the root mean square": {"size": LARGEST},
        "the mean absolute value decides, not the root mean square": {"size": ABSOLUTE},
        "the mean absolute value over the whole batch decides: take the root mean square of "
        "each sample, and the largest": {"size": torch.abs, "over": torch.mean},
        "the change is the mean square, without its root": {
            "size": lambda moved: moved.square().mean(1)
        },
        "the changes of all starts decide: only that of U_K must": {"first": 1},
    }
    found = {
        why: np.stack([run(F, G, x, K, tol, **how)[0].numpy() for tol in tols])
        for why, how in changes.items()
    }
    ends = [starts[-1] for starts in iterates(F, G, x, K)]
    found[
        "this is the chain itself: it never stops before iteration K, or its fine solves start "
        "from corrected points"
    ] = np.stack([ends[-1].numpy() for _ in tols])
    found["it stops after the first iteration"] = np.stack([ends[1].numpy() for _ in tols])
    return found


def ready(K, J, p, join=max, first=0):
    """(p+1, K+1): the call after which each start is known. first: how long start 0 takes an
    iteration.
    """
    T = np.zeros((p + 1, K + 1))
    T[0] = np.arange(K + 1)
    for q in range(1, p + 1):
        T[q, 0] = first * q
        for i in range(K):
            T[q, i + 1] = join(T[q - 1, i] + J, T[q, i] + 1)
    return T


def plain(K, J, p):
    """The same without a pipeline: all fine solves wait for the last start, the coarse steps
    for the last fine solve.
    """
    T = np.zeros((p + 1, K + 1))
    T[0] = np.arange(K + 1)
    for q in range(1, p + 1):
        T[q, 1:] = T[q - 1, K] + J + np.arange(K)
    return T


def _guessed_at_once(K, J, p):
    T = np.zeros((p + 1, K + 1))
    for q in range(1, p + 1):
        for i in range(K):
            T[q, i + 1] = max(T[q - 1, i] + J, T[q, i] + 1)
    return T


def _never_kept(K, J, p):
    T = np.arange(K + 1) + np.arange(p + 1)[:, None] * (J - 1.0)
    T[:, 0] = 0
    return T


def of_ready(K, J, p) -> dict[str, np.ndarray]:
    return {
        "this is the schedule without the pipeline: a fine solve needs its own start only, not "
        "the whole former iteration": plain(K, J, p),
        "both the fine solve and the coarse step are needed: wait for the later one, max": ready(
            K, J, p, min
        ),
        "the fine solve and the coarse step do not wait for each other: max, not their "
        "sum": ready(K, J, p, lambda a, b: a + b),
        "start 0 is given: it is known after 0 calls in every iteration": ready(K, J, p, first=J),
        "the coarse step takes a call as well: T(q, i) + 1": ready(
            K, J, p, lambda a, b: max(a, b - 1)
        ),
        "the guess is not free: start i of it is known after i calls": _guessed_at_once(K, J, p),
        "adding the bracket takes no call: the new start is known as soon as both ends "
        "are": ready(K, J, p, lambda a, b: max(a, b - 1) + 1),
        "the fine solve starts from U_i^{q−1}, which is known sooner than U_i^q": ready(
            K, J, p, lambda a, b: b - 1 + J
        ),
        "start i is exact after iteration i and is kept: T(q, i) = T(i, i) for q ≥ "
        "i": _never_kept(K, J, p),
    }


def after(f, g, p, degree=lambda terms, p: terms[: p + 1].sum(0)):
    """(K+1,): the product of f, multiplied out around g to degree p in f − g."""
    terms = np.zeros((len(f) + 2, len(f) + 1))
    terms[0, 0] = 1
    for j in range(len(f)):
        terms[:, j + 1] = g[j] * terms[:, j]
        terms[1:, j + 1] += (f[j] - g[j]) * terms[:-1, j]
    return degree(terms, p)


def _degrees(r, twice=0):
    """(K+1, K+1): e_m of the first i, every degree m. twice: 1 to let a factor enter a product
    more than once.
    """
    e = np.zeros((len(r) + 1, len(r) + 1))
    e[0] = 1
    for j in range(len(r)):
        e[:, j + 1] = e[:, j]
        for m in range(1, len(e)):
            e[m, j + 1] += r[j] * e[m - 1, j + twice]
    return e


def of_after(f, g, p) -> dict[str, np.ndarray]:
    r, scale, totals = (f - g) / g, np.cumprod([1, *g]), np.cumsum([0, *(f - g) / g])
    expanded = lambda r, **how: _degrees(r, **how)[: p + 1].sum(0)
    return {
        "this is the whole product of the f, the chain itself: stop at degree p": after(
            f, g, len(f)
        ),
        "the degree is one too low: p iterations know products of p factors f − g": after(
            f, g, p - 1
        ),
        "the degree is one too high": after(f, g, p + 1),
        "these are only the terms of degree p: sum the lower ones as well": after(
            f, g, p, lambda terms, p: terms[p]
        ),
        "the product of the g is missing": expanded(r),
        "the product in front is of the g, not of the f": np.cumprod([1, *f]) * expanded(r),
        "r is relative to the coarse factor: (f − g)/g": scale * expanded((f - g) / f),
        "r is relative: divide f − g by g": scale * expanded(f - g),
        "r has the wrong sign: fine less coarse": scale * expanded(-r),
        "the products must be of *different* r: here a factor enters more than once": scale
        * expanded(r, twice=1),
        "S^m/m! is only the bound of e_m: it counts products that use a factor twice": scale
        * sum(totals**m / math.factorial(m) for m in range(p + 1)),
    }
