"""Assignment 15: edges, steps that stop there, sampling without noise, the adversarial term."""

from dataclasses import replace
from math import gcd

import numpy as np

from book.truth import Case, Verdict, problems
from book.truth.exact import Exact
from book.truth.judging import RIGHT, apart, distance, exactly, known, wrong

ROWS, STEPS = 24, 12


def ladders(rng: np.random.Generator) -> dict:
    """(indices, steps, phases). The phases divide the steps, or have no factor in common with
    them: so no rounding of ⌊m S/M⌋ in floating point matters.
    """
    rows = [(1000, 50, 4), (1000, 50, 1), (1000, 50, 50), (1000, 50, 8)]
    while len(rows) < 7:
        steps, k = (int(n) for n in rng.integers((20, 8), (60, 20)))
        phases = int(rng.integers(3, 12))
        if gcd(steps, phases) == 1:
            rows.append((steps * k + int(rng.integers(1, 6)), steps, phases))
    return {"ladders": np.array(rows)}


def _which(case: Case, values: list, truths: list) -> str:
    fails = [
        f"N = {row[0]}, S = {row[1]}, M = {row[2]}"
        for row, value, truth in zip(case.inputs["ladders"], values, truths)
        if distance(value, truth) > 1e-9
    ]
    return f"wrong for {fails[0]}" + (f" and {len(fails) - 1} more" if fails[1:] else "")


EDGES = Exact(
    "Q15.1",
    ladders,
    returns="the edges",
    off=_which,
    hint="of 1000 indices in 50 steps, four phases have the edges 0, 239, 499 and 739",
    mistakes="""
        max(m * steps // phases * k - 1, 0) → m * steps // phases * k - 1
        # the first edge has become −1: it is index 0, the end of the path
        max(m * steps // phases * k - 1, 0) → m * steps // phases * k
        # the edges lie one index too high: they are starts of steps, k − 1, 2k − 1, …
        m * steps // phases * k → steps // phases * m * k
        # the length ⌊S/M⌋ is rounded, not each place: ⌊m S/M⌋
        m * steps // phases * k → round(m * steps / phases) * k
        # places are rounded to the nearest: ⌊m S/M⌋ is rounded down
        m * steps // phases * k → m * count // phases
        # these are spread evenly over all indices (249, 499, 749), which is the wrong grid: an
        # edge must be a start of a step
        max(m * steps // phases * k - 1, 0) → (m * steps // phases + 1) * k - 1
        # each edge is the start one place lower, and 0 the first
        for m in range(phases) → for m in range(1, phases + 1)
        # these are the noisy ends of the phases: an edge is the clean end
        return torch.tensor([ → return torch.tensor(sorted([
        for m in range(phases)] → for m in range(phases)], reverse=True)
        # the order is turned round: the cleanest edge, 0, comes first
    """,
)


def starts(rng: np.random.Generator) -> dict:
    """Starts of steps, some of them edges, some just above one."""
    size, steps, phases = int(rng.integers(5, 12)), 30, int(rng.integers(3, 7))
    places = np.array([m * steps // phases for m in range(phases)])
    place = np.concatenate([[1, steps], places[1:], places[1:] + 1])
    place = np.concatenate([place, rng.integers(1, steps + 1, ROWS - len(place))])
    return {
        "n": rng.permutation(place) * size - 1,
        "edges": np.maximum(places * size - 1, 0),
        "k": int(rng.integers(2, 4)) * size,
    }


STOP = Exact(
    "Q15.2",
    starts,
    returns=("the edge", "the end"),
    hint=(
        "it is the largest edge that is strictly below n",
        "it is k indices below n, or at the edge of n's phase if that is nearer",
    ),
    mistakes="""
        (edges < n → (edges <= n
        # the start itself, where the start is an edge: it belongs to the phase below
        edge = edges[(edges < n[:, None]).sum(1) - 1] → at = (edges < n[:, None]).sum(1)
            edge = edges[at.clamp(max=len(edges) - 1)]
        # the edge above: the jump goes down, towards the data
        return edge, → return 0 * n,
        # index 0 for all: only in the lowest phase is that right
        (edges < n[:, None]).sum(1) - 1 → (edges - n[:, None]).abs().argmin(1)
        # the nearest edge: it is the one below, however far it is
        torch.maximum(n - k, edge) → n - k
        # k lower even across an edge: a step stops at the edge of its phase
        torch.maximum(n - k, edge) → (n - k).clamp(min=0)
        # k lower even across an edge, and stops at 0 only: a step stops at the edge of its phase
        torch.maximum(n - k, edge) → edge
        # the edge: the step goes k indices only, if the edge is not nearer
        torch.maximum(n - k, edge) → torch.minimum(n - k, edge)
        # the lower one of n − k and the edge: a step goes no further than the edge
        torch.maximum(n - k, edge) → torch.maximum(n - 1, edge)
        # one index lower: a step skips k of them
    """,
)


def sampling(rng: np.random.Generator) -> Case:
    inputs, model = problems.problem(rng)
    inputs["lams"] = np.cumsum([-2.5, *rng.uniform(0.2, 0.6, STEPS)])
    inputs["phases"] = int(rng.choice([5, 7]))  # neither divides the 12 steps
    return Case(inputs, problems.network_of(model))


SAMPLE = Exact(
    "Q15.3",
    sampling,
    returns="the samples",
    hint="one call at levels[0] and at each edge but the last; with 12 steps and 5 phases these "
    "are places 0, 3, 5, 8 and 10, and the last jump ends at place 12",
    mistakes="""
        m * n // phases → round(m * n / phases)
        # the edges are rounded to the nearest: ⌊mN/M⌋ steps above the clean end is rounded down
        n - m * n // phases → m * n // phases
        m in reversed(range(phases)) → m in range(1, phases + 1)
        # edges are counted from the noisy end: where M does not divide N, that is the wrong grid
        [0] + [n - m * n // phases for m in reversed(range(phases))] → list(range(n + 1))
        # this stops at every level, as the teacher does: M phases take M calls
        [0] + [n - m * n // phases for m in reversed(range(phases))] → [0, n]
        # this is one jump to the end, whatever the number of phases
        s.alpha * p.x0 + s.sigma * p.eps → p.x0
        # x₀ is handed on: at an edge there is noise, α_s x₀ + σ_s ε
        s.alpha * p.x0 + s.sigma * p.eps → s.alpha * p.x0
        # the noise is lost at the edges: α_s x₀ + σ_s ε, with the ε of the same call
        + s.sigma * p.eps → + a.sigma * p.eps
        # the noise has the size of the level that was left: σ of the edge
        model(x, a) → model(x, levels[0])
        # the network is told the first level each time: tell it the one that x is at
        return x → return p.x0
        # this is the last x₀: the last jump, too, ends at its edge, levels[-1], where σ > 0
    """,
)


def places(rng: np.random.Generator) -> dict:
    """A falling grid from below 1, edges of unequal phases, and starts, some of them edges."""
    times = np.cumsum([0.01, *rng.uniform(0.5, 1.5, 20) / 24])[::-1]
    at = np.sort(rng.choice(np.arange(2, 19), 4, replace=False))
    index = np.concatenate([[0, 19], at, rng.integers(0, 20, ROWS - 6)])
    return {
        "times": times.copy(),
        "edges": times[[*at, 20]],
        "i": rng.permutation(index),
        "u": rng.uniform(0.05, 1, ROWS),
    }


NOISED = Exact(
    "Q15.4",
    places,
    returns=("s_m", "s"),
    hint=(
        "it is the largest edge that is strictly below the time where the step starts",
        "with u = 0 it is the edge s_m, with u = 1 the next edge above, in the noisiest phase "
        "times[0]",
    ),
    mistakes="""
        (edges >= times → (edges > times
        # the start itself, where the start is an edge: it belongs to the phase below
        u * (top - edge) → u / len(edges)
        # in the released range, s_m + u/M: it reaches into the next phase, or not up to it
        torch.cat([times[:1], edges])[phase] → times[i]
        # drawn up to the start of the step only: the phase ends at the next edge
        torch.cat([times[:1], edges]) → torch.cat([times[:1] ** 0, edges])
        # drawn up to 1 in the noisiest phase: it ends at times[0]
        torch.cat([times[:1], edges])[phase] → times[0]
        # drawn up to the noisy end of the path: the phase ends at the next edge
        edge + u * (top - edge) → times[-1] + u * (top - times[-1])
        # drawn from the clean end of the path: a phase begins at its edge
        edge + u * (top - edge) → top - u * (top - edge)
        # counted from the noisy end: u = 0 is the edge
        edge + u * (top - edge) → u * (top - edge)
        # not counted from the edge: add s_m
        return edge, → return top,
        # the next edge above, the noisy end of the phase: the jump ends at the clean one
    """,
)


def points(rng: np.random.Generator) -> dict:
    draws = {"inner": (2, 9), "outer": (9,), "real": (ROWS, 2), "fake": (ROWS, 2)}
    return {name: rng.normal(size=shape) for name, shape in draws.items()} | {
        "weight": rng.uniform(0.05, 0.3)
    }


def _gradients(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """Each loss counts half; right values whose gradients are wrong get half of all."""
    said = exactly(q, replace(case, values=case.values[:2]), outputs[:2], 0.0)
    slopes = [[outputs[k : k + 1], case.values[k : k + 1]] for k in range(2, len(outputs))]
    size = max(np.abs(value).max() for value in case.values[2:])
    if said is not RIGHT or all(np.abs(a[0] - b[0]).max() < 1e-9 * size for a, b in slopes):
        return said
    there = [found for found in case.mistakes() if apart(found[1][:2], case.values[:2]) < 1e-9]
    why = known(replace(case, mistakes=lambda: there), outputs, [2, 3, 4])
    why = why or "compute both in torch, from what D returns"
    return wrong(f"the values are right, but a gradient is not. {why}", 0.5)


HINGE = Exact(
    "Q15.5",
    points,
    returns=("the discriminator's loss", "the student's loss"),
    hint=(
        "with D = 0.5 at a real point and −0.2 at a fake it is 0.5 + 0.8 = 1.3",
        "with D = −0.2 at a fake and the weight 0.1 it is 0.12",
    ),
    verdict=_gradients,
    mistakes="""
        1 - D(real.detach()) → 1 + D(real.detach())
        1 + D(fake.detach()) → 1 - D(fake.detach())
        # with real and fake swapped: D shall be large at real points
        1 + D(fake.detach()) → 1 - D(fake.detach())
        # with the wrong sign in its second hinge: D shall be below −1 at fakes
        (1 - D(real.detach())).clamp(min=0) → (1 - D(real.detach()))
        # without the first max(0, …): D gets no credit beyond 1
        (1 - D(real.detach())).clamp(min=0) → -D(real.detach())
        (1 + D(fake.detach())).clamp(min=0) → D(fake.detach())
        # without hinges: max(0, 1 − D) and max(0, 1 + D)
        return opinions.mean() → return 0.5 * opinions.mean()
        # with a ½ too much: the two hinges are added
        1 - D(fake) → 1 + D(fake)
        # with D's own hinge at fakes: the student wants D to be large there
        (1 - D(fake)).clamp(min=0) → -D(fake)
        # −D, as in other hinge GANs: here it is max(0, 1 − D)
        weight * (1 → (1
        # without its weight
        fake.detach() → fake
        # The discriminator's loss reaches the student: detach its fakes
        real.detach() → real
        # The discriminator's loss sends a gradient into the real points: detach them
        real.detach() → real
        fake.detach() → fake
        # The discriminator's loss sends its gradient into real and fake points: detach both
        1 - D(fake) → 1 - D(fake.detach())
        # Nothing reaches the student: its own loss needs the fakes as they are
    """,
)

QUESTIONS = [EDGES, STOP, SAMPLE, NOISED, HINGE]
