"""Plausible wrong answers to assignment 10, computed so that a judge can recognise them."""

import numpy as np
import torch


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
        "this is the bare chain of blocks, F(U_i): the bracket is missing": iterate(F, G, starts, lambda fine, new, old: fine),
        "the bracket has the wrong sign: it is the new coarse step less the old one": iterate(F, G, starts, lambda fine, new, old: fine + (old - new)),
        "this is the coarse chain: the fine solves are missing": iterate(F, G, starts, lambda fine, new, old: new),
        "the old coarse step is not subtracted": iterate(F, G, starts, lambda fine, new, old: fine + new),
        "the fine solves start from the new starts: that is the sequential sampler. They all start from the old ones": torch.stack(chain),
    }
    return {why: value.numpy() for why, value in found.items()}


def iterates(F, G, x, K) -> list[torch.Tensor]:
    """U_K of the coarse guess and after each of K iterations."""
    starts = [x]
    for i in range(K):
        starts.append(G(i, starts[i]))
    found = [torch.stack(starts)]
    for _ in range(K):
        found.append(iterate(F, G, found[-1]))
    return [starts[-1] for starts in found]


def change(new, old, size=lambda moved: moved.square().mean(1).sqrt(), over=torch.amax) -> float:
    """How far U_K moved: its size for each sample, then one number for the batch."""
    return over(size(new - old)).item()


def run(F, G, x, K, tol, **how):
    """(U_K, iterations)."""
    ends = iterates(F, G, x, K)
    for p in range(1, K + 1):
        if change(ends[p], ends[p - 1], **how) <= tol:
            break
    return ends[p], p


def of_run(F, G, x, K, tols) -> dict[str, np.ndarray]:
    """{explanation: (U_K of each run, stacked)}."""
    changes = {
        "the mean over the batch decides: the slowest sample must": {"over": torch.mean},
        "the change is the norm, not the root of the *mean* square over the coordinates": {"size": lambda moved: moved.norm(dim=1)},
        "the largest coordinate decides, not the root mean square": {"size": lambda moved: moved.abs().amax(1)},
    }
    found = {why: np.stack([run(F, G, x, K, tol, **how)[0].numpy() for tol in tols]) for why, how in changes.items()}
    ends = iterates(F, G, x, K)
    found["it never stops before iteration K"] = np.stack([ends[-1].numpy() for _ in tols])
    found["it stops after the first iteration"] = np.stack([ends[1].numpy() for _ in tols])
    return found


def ready(K, J, p, join=max, first=0):
    """(p+1, K+1): the call after which each start is known. first: how long start 0 takes an iteration."""
    T = np.zeros((p + 1, K + 1))
    T[0] = np.arange(K + 1)
    for q in range(1, p + 1):
        T[q, 0] = first * q
        for i in range(K):
            T[q, i + 1] = join(T[q - 1, i] + J, T[q, i] + 1)
    return T


def plain(K, J, p):
    """The same without a pipeline: all fine solves wait for the last start, the coarse steps for the last fine solve."""
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


def of_ready(K, J, p) -> dict[str, np.ndarray]:
    return {
        "this is the schedule without the pipeline: a fine solve needs its own start only, not the whole former iteration": plain(K, J, p),
        "both the fine solve and the coarse step are needed: wait for the later one, max": ready(K, J, p, min),
        "the fine solve and the coarse step do not wait for each other: max, not their sum": ready(K, J, p, lambda a, b: a + b),
        "start 0 is given: it is known after 0 calls in every iteration": ready(K, J, p, first=J),
        "the coarse step takes a call as well: T(p, i) + 1": ready(K, J, p, lambda a, b: max(a, b - 1)),
        "the guess is not free: start i of it is known after i calls": _guessed_at_once(K, J, p),
    }


def after(f, g, p, degree=lambda terms, p: terms[: p + 1].sum(0)):
    """(K+1,): the product of f, multiplied out around g to degree p in f − g."""
    terms = np.zeros((len(f) + 2, len(f) + 1))
    terms[0, 0] = 1
    for j in range(len(f)):
        terms[:, j + 1] = g[j] * terms[:, j]
        terms[1:, j + 1] += (f[j] - g[j]) * terms[:-1, j]
    return degree(terms, p)


def of_after(f, g, p) -> dict[str, np.ndarray]:
    bare = np.zeros((len(f) + 1, len(f) + 1))
    bare[0] = 1
    for j in range(len(f)):
        bare[1:, j + 1] = bare[1:, j] + (f[j] - g[j]) / g[j] * bare[:-1, j]
    return {
        "this is the whole product of the f, the chain itself: stop at degree p": after(f, g, len(f)),
        "the degree is one too low: p iterations know products of p factors f − g": after(f, g, p - 1),
        "the degree is one too high": after(f, g, p + 1),
        "these are only the terms of degree p: sum the lower ones as well": after(f, g, p, lambda terms, p: terms[p]),
        "the product of the g is missing": bare[: p + 1].sum(0),
    }
